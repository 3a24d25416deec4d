"""What every argument list upholds, and what an FFmpeg lacks. Whole lists: fixtures, which test_fixtures.py reads."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdisup.config import codecs
from sdisup.config.settings import Port, parse_settings
from sdisup.config.sound import audio_encoder
from sdisup.config.table import SOURCE_KINDS, rows
from sdisup.contract.options import SOUND_MARK
from sdisup.encode.command import (
    PROGRESS_PERIOD_S,
    Capabilities,
    build_ffmpeg_arguments,
    missing_capabilities,
)
from sdisup.errors import ConfigError
from sdisup.sources.values import BOOLEAN, FPS, INTEGER, RATES

ALL = frozenset({"libx264", "prores_aw", "aac", "pcm_s24le"})
INPUTS = frozenset({"lavfi", "videomaster"})
HYBRID = Capabilities("7.1.5", ALL, INPUTS, hybrid_fragmented=True)
FRAGMENTED = Capabilities("5.1.9", ALL, INPUTS, hybrid_fragmented=False)


def make_port(source: dict[str, Any] | None = None) -> Port:
    return parse_settings([("test.toml", {"defaults": {"source": source or {}}})]).ports[3]


def value_of(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


BEGINNING = [
    *("/usr/bin/ffmpeg", "-hide_banner", "-loglevel", "repeat+level+info", "-nostats"),
    *("-progress", "pipe:2", "-stats_period", str(PROGRESS_PERIOD_S), "-dts_error_threshold"),
]


# ---- What an FFmpeg lacks ----


def test_nothing_is_missing() -> None:
    assert missing_capabilities([make_port()], "/usr/bin/ffmpeg", HYBRID) == []


def test_what_is_missing_is_said_in_the_operators_words() -> None:
    nothing = Capabilities("7.1.5", frozenset(), frozenset(), hybrid_fragmented=True)
    input_text, *encoder_texts = missing_capabilities([make_port()], "/opt/ffmpeg", nothing)
    assert input_text == (
        "port 3: /opt/ffmpeg has no input 'videomaster': install Deltacast's FFmpeg and name it as ffmpeg"
        " in [appliance], or choose another source"
    )
    assert [text.split(",")[0] for text in encoder_texts] == [
        "port 3: /opt/ffmpeg has no encoder 'libx264'",
        "port 3: /opt/ffmpeg has no encoder 'aac'",
    ]
    silent = make_port({"kind": "test", "tone": False})
    assert len(missing_capabilities([silent], "/opt/ffmpeg", nothing)) == 2


# ---- What every list upholds ----


def values_of(section: str) -> dict[str, st.SearchStrategy[Any]]:
    """Values of the table's rows that have a list or a range of them."""
    strategies: dict[str, st.SearchStrategy[Any]] = {}
    for key, setting in rows(section).items():
        if setting.allowed:
            strategies[key] = st.sampled_from(setting.allowed)
        elif setting.type is INTEGER:
            strategies[key] = st.integers(int(setting.minimum), int(setting.maximum))
        elif setting.type is BOOLEAN and key != "enabled":
            strategies[key] = st.booleans()
        elif setting.type.name in SAMPLES:
            strategies[key] = st.sampled_from(SAMPLES[setting.type.name])
    return strategies


SAMPLES: dict[str, list[object]] = {
    "text": ["DeckLink Duo (1)", "81:76669a80:00000000"],
    "word": ["auto", "Hi50", "yuyv422"],
    "device": ["/dev/video0", "/dev/v4l/by-id/usb-1"],
    "alsa": ["none", "hw:1", "plughw:CARD=U0x,DEV=0"],
    "encoder options": [[], ["-x264-params", "aq-mode=2"], ["-x265-params", "aq-mode=1", "-trellis:v", "0"]],
    "channels": [[1], [2, 1], [1, 2, 3, 4, 5, 6]],
    "audio": [True, False, "optional"],
    "arguments": [["-re", "-i", "/srv/a.mkv"], ["-i", "rtp://h:1", "-f", "alsa", "-i", "hw:1"]],
}


def sources_of(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    values = values_of(kind)
    required = {key: values.pop(key) for key, setting in rows(kind).items() if setting.is_required}
    return st.fixed_dictionaries({"kind": st.just(kind), **required}, optional=values)


SOURCES = st.one_of([sources_of(kind) for kind in SOURCE_KINDS])
PORTS = st.fixed_dictionaries({"source": SOURCES}, optional=values_of("port"))


@given(PORTS, st.sampled_from([HYBRID, FRAGMENTED]))
@settings(max_examples=400, deadline=None)
def test_every_list_upholds_the_promises(table: dict[str, Any], capabilities: Capabilities) -> None:
    try:
        port = parse_settings([("test.toml", {"port": {"3": table}})]).ports[3]
    except ConfigError:
        return
    arguments = build_ffmpeg_arguments(port, "/usr/bin/ffmpeg", capabilities)
    assert arguments[: len(BEGINNING)] == BEGINNING
    wild_s, overwrite = arguments[len(BEGINNING) : len(BEGINNING) + 2]
    rate = FPS.get(port.source.options["rate"], 60.0)
    # A silence of 10 s is filled, and what is filled is no longer than the limit allows (30 copies for each second).
    assert 30 * int(wild_s) >= 10 * rate
    assert 10 <= int(wild_s) <= 20
    assert overwrite == "-y"
    assert arguments[-1] == "{output}" and "".join(arguments).count("{output}") == 1
    assert all(word and word.isprintable() for word in arguments)
    assert not {"-nostdin", "-n", "-use_wallclock_as_timestamps", "-shortest"}.intersection(arguments)
    assert not any("faststart" in word for word in arguments)
    arguments = of_the_file(arguments)
    assert value_of(arguments, "-flush_packets") == "1"
    assert value_of(arguments, "-max_interleave_delta") == "500000"
    channels = port.source.audio_channel_count()
    recorded = len(port.audio_channels) or channels
    has_limits = audio_encoder(port) == "aac"
    at_most = 2 if port.source.kind == "custom" else 5
    split = port.audio_tracks or ("pairs" if has_limits and recorded > at_most else "one")
    tracks = {"one": 1, "pairs": (recorded + 1) // 2, "mono": recorded}[split]
    if port.codec == "xdcam":
        tracks = 8
    assert arguments.count("-map") == 1 + (tracks if channels else 0)
    # What is copied goes through no filter.
    assert "".join(arguments).count(SOUND_MARK) == (channels > 0 and audio_encoder(port) != "copy")
    if port.container in ("mp4", "mov"):
        assert "frag" in value_of(arguments, "-movflags") or "empty_moov" in value_of(arguments, "-movflags")
    assert 0 < fragment_s(arguments) + held_back_elsewhere_s(port) <= codecs.HOLD_BACK_LIMIT_S + 0.001


def test_what_is_copied_is_looked_at_until_a_key_frame_has_come() -> None:
    def looked_at(codec: str, *words: str, audio: object = True) -> dict[str, str]:
        source = {"kind": "custom", "input": [*words, "-i", "udp://239.0.0.1:5000"], "audio": audio}
        table = {"appliance": {"ports": 1}, "defaults": {"source": source, "codec": codec}}
        port = parse_settings([("x", table)]).ports[0]
        arguments = build_ffmpeg_arguments(port, "ffmpeg", HYBRID)
        return {
            word: value for word, value in itertools.pairwise(arguments) if word in ("-analyzeduration", "-probesize")
        }

    assert looked_at("h264") == {"-analyzeduration": "5000000"}
    assert looked_at("copy") == {"-analyzeduration": "12000000", "-probesize": "50000000"}
    assert looked_at("copy", audio="optional")["-analyzeduration"] == "5000000"
    own = ["-analyzeduration", "1", "-probesize", "99"]
    assert looked_at("copy", *own) == {"-analyzeduration": "1", "-probesize": "99"}


@pytest.mark.parametrize(("capabilities", "container", "is_lacking"), [
    (FRAGMENTED, "mp4", True), (FRAGMENTED, "mov", True), (FRAGMENTED, "mkv", False), (HYBRID, "mp4", False),
])  # fmt: skip
def test_sound_is_not_copied_where_this_ffmpeg_cannot(
    capabilities: Capabilities, container: str, is_lacking: bool
) -> None:
    source = {"kind": "custom", "input": ["-i", "udp://239.0.0.1:5000"]}
    table = {"source": source, "codec": "copy", "container": container, "audio": {"codec": "copy"}}
    port = parse_settings([("x", {"appliance": {"ports": 1}, "defaults": table})]).ports[0]
    texts = missing_capabilities([port], "/usr/bin/ffmpeg", capabilities)
    assert [f"does not copy each sound into {container}" in text for text in texts] == [True] * is_lacking
    # Nor is there an encoder to lack.
    assert not missing_capabilities([port.replaced(container="mkv")], "/usr/bin/ffmpeg", capabilities)


BY_THE_CLOCK = [
    ({"codec": "h264"}, "", "50"),
    ({"codec": "h264", "gop_frames": 50}, "", "50"),
    ({"codec": "h264", "gop_frames": 49}, "a key frame comes each 1.96 s (gop_frames)", "49"),
    ({"codec": "hevc", "source": {"kind": "test", "rate": "60000/1001"}}, "", "120"),
    ({"source": {"kind": "custom", "input": ["-i", "tcp://10.0.0.1:9"], "rate": "auto"}}, "", "120"),
    ({"codec": "prores", "container": "mkv"}, "each frame of prores is a key frame", ""),
    ({"codec": "ffv1"}, "each frame of ffv1 is a key frame", "1"),
    ({"codec": "copy", "container": "mkv", "source": {"kind": "custom", "input": ["-i", "tcp://10.0.0.1:9"]}},
     "key frames come as the source has them", ""),
]  # fmt: skip


@pytest.mark.parametrize(("table", "why", "gop"), BY_THE_CLOCK)
def test_key_frames_are_what_keeps_files_by_the_clock_long_enough(table: dict[str, Any], why: str, gop: str) -> None:
    given = {"source": {"kind": "test", "rate": 25}, "segment_s": 600, "segment_on_clock": True, **table}
    loaded = parse_settings([("x", {"appliance": {"ports": 1}, "defaults": given})])
    arguments = build_ffmpeg_arguments(loaded.ports[0], "ffmpeg", FRAGMENTED)
    assert value_of(arguments, "-segment_atclocktime") == "1" and value_of(arguments, "-segment_time") == "600"
    assert (value_of(arguments, "-g") if "-g" in arguments else "") == gop
    assert ("-sc_threshold" in arguments) == (loaded.ports[0].codec == "h264")
    assert [why in warning for warning in loaded.warnings if "just before the moment" in warning] == [True] * bool(why)
    plain = parse_settings([("x", {"appliance": {"ports": 1}, "defaults": {**given, "segment_on_clock": False}})])
    arguments = build_ffmpeg_arguments(plain.ports[0], "ffmpeg", FRAGMENTED)
    assert not {"-segment_atclocktime", "-sc_threshold"}.intersection(arguments)
    assert not any("moment" in warning for warning in plain.warnings)


ONE_FILE = [
    ({"codec": "copy", "container": "mp4"}, "record_at_boot: a player loses pictures between two files of mp4"),
    ({"codec": "xdcam", "source": {"kind": "test", "rate": 25, "size": "1920x1080"}},
     "record_at_boot: FFmpeg loses a picture between two files of mxf"),
    ({"codec": "copy", "container": "mkv"}, ""),
    ({"codec": "copy", "container": "mp4", "segment_s": 0}, ""),
    ({"codec": "copy", "container": "mp4", "record_at_boot": False}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("table", "said"), ONE_FILE)
def test_a_recording_of_months_that_is_one_file_is_doubted(table: dict[str, Any], said: str) -> None:
    stream = {"kind": "custom", "input": ["-i", "tcp://10.0.0.1:9"]}
    given = {"source": stream, "record_at_boot": True, **table}
    warnings = parse_settings([("x", {"appliance": {"ports": 1}, "defaults": given})]).warnings
    assert [said in one for one in warnings if "for as long as the port records" in one] == [True] * bool(said)


def of_the_file(arguments: list[str]) -> list[str]:
    """The arguments with the options of the files' muxer in place of those of the segment muxer, which has none."""
    if "segment" not in arguments:
        return arguments
    at = arguments.index("-max_interleave_delta")
    inner = value_of(arguments, "-segment_format_options").split(":")
    options = [word for option in inner for word in (f"-{option.partition('=')[0]}", option.partition("=")[2])]
    return [*arguments[:at], *options, "-f", value_of(arguments, "-segment_format"), arguments[-1]]


def fragment_s(arguments: list[str]) -> float:
    if "-cluster_time_limit" in arguments:
        return int(value_of(arguments, "-cluster_time_limit")) / 1000
    if arguments[-3:-1] == ["-f", "mxf"]:
        # A picture alone.
        return 0.001
    return int(value_of(arguments, "-frag_duration")) / 1_000_000


def held_back_elsewhere_s(port: Port) -> float:
    """A frame a thread in a frame-threaded encoder, the frame that closes a fragment, and the sound."""
    frame_s = 1 / codecs.slowest_fps(port.source.options["rate"])
    frames = port.threads if port.codec in ("prores", "v210") and port.threads > 1 else 0
    frames += 2 if port.codec == "xdcam" else 0
    return (frames + 1) * frame_s + codecs.AUDIO_DELAY_S


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("codec", codecs.CODECS.values(), ids=lambda codec: codec.name)
def test_a_fragment_holds_at_least_a_frame_and_four_threads_always_fit(codec: codecs.Codec, rate: str) -> None:
    threads_max = codecs.max_threads(codec, rate)
    assert 4 <= threads_max <= 16
    for threads in range(1, threads_max + 1):
        assert codecs.fragment_duration_s(codec, threads, rate) >= 1 / RATES[rate]
