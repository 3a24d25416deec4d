"""The argument lists: two to the letter, and what every one upholds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdisup.config import codecs
from sdisup.config.settings import Port, parse_settings
from sdisup.config.table import SOURCE_KINDS, rows
from sdisup.encode.command import (
    PROGRESS_PERIOD_S,
    Capabilities,
    build_ffmpeg_arguments,
    has_audio,
    missing_capabilities,
)
from sdisup.errors import ConfigError

ALL = frozenset({"libx264", "prores_aw", "aac", "pcm_s24le"})
INPUTS = frozenset({"lavfi", "videomaster"})
HYBRID = Capabilities("7.1.5", ALL, INPUTS, hybrid_fragmented=True)
FRAGMENTED = Capabilities("5.1.9", ALL, INPUTS, hybrid_fragmented=False)


def make_port(source: dict[str, Any] | None = None, index: int = 3, **table: Any) -> Port:
    defaults = {"source": source or {}, **table}
    return parse_settings([("test.toml", {"defaults": defaults, "port": {}})]).ports[index]


def build(port: Port, capabilities: Capabilities = HYBRID) -> list[str]:
    return build_ffmpeg_arguments(port, "/usr/bin/ffmpeg", capabilities)


def value_of(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


BEGINNING = [
    *("/usr/bin/ffmpeg", "-hide_banner", "-loglevel", "repeat+level+info", "-nostats"),
    *("-progress", "pipe:2", "-stats_period", str(PROGRESS_PERIOD_S), "-y"),
]


def test_videomaster_interlaced_h264() -> None:
    assert build(make_port({"kind": "videomaster", "board": 1, "scan": "tff"})) == [
        *BEGINNING,
        *("-xerror", "-abort_on", "empty_output", "-f", "videomaster"),
        *("-timestamp_source", "osc", "-buffer_packing", "YUV422_8"),
        *("-nb_channels", "2", "-sample_rate", "48000", "-sample_size", "24"),
        *("-i", "stream 3 on board 1"),
        *("-map", "0:v:0", "-vf", "setfield=tff,scale=interl=1", "-fps_mode", "cfr", "-r", "25"),
        *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency"),
        *("-b:v", "8000k", "-maxrate", "8000k", "-bufsize", "8000k", "-g", "25", "-weightp", "none"),
        *("-threads:v", "4", "-pix_fmt", "yuv420p", "-flags:v", "+ildct+ilme"),
        *("-map", "0:a:0", "-af", "aresample=async=1", "-c:a", "aac", "-b:a", "192k"),
        *("-movflags", "+hybrid_fragmented", "-frag_duration", "100000"),
        *("-flush_packets", "1", "-f", "mp4", "{output}"),
    ]


def test_test_source_prores() -> None:
    source = {"kind": "test", "size": "320x180", "rate": "29.97"}
    assert build(make_port(source, codec="prores"), FRAGMENTED) == [
        *BEGINNING,
        *("-f", "lavfi", "-i"),
        "testsrc2=size=320x180:rate=30000/1001,realtime[out0];sine=frequency=1000:sample_rate=48000[out1]",
        *("-map", "0:v:0", "-fps_mode", "cfr", "-r", "30000/1001"),
        *("-c:v", "prores_aw", "-profile:v", "3", "-threads:v", "4", "-pix_fmt", "yuv422p10le"),
        *("-map", "0:a:0", "-af", "aresample=async=1", "-c:a", "pcm_s24le"),
        *("-movflags", "+empty_moov+default_base_moof", "-frag_duration", "100000"),
        *("-flush_packets", "1", "-f", "mov", "{output}"),
    ]


def test_matroska() -> None:
    arguments = build(make_port({"kind": "test"}, container="mkv"))
    assert arguments[-7:] == ["-cluster_time_limit", "100", "-flush_packets", "1", "-f", "matroska", "{output}"]
    assert "-movflags" not in arguments


@pytest.mark.parametrize("source", [{"kind": "test", "tone": False}, {"audio_channels": 0}])
def test_without_audio_no_audio_option_is_given(source: dict[str, Any]) -> None:
    arguments = build(make_port(source))
    audio = {"-nb_channels", "-sample_rate", "-sample_size", "0:a:0", "-af", "-c:a", "-b:a"}
    assert not audio.intersection(arguments)


def test_the_channel_is_the_ports_index_unless_it_is_given() -> None:
    assert value_of(build(make_port(index=5)), "-i") == "stream 5 on board 0"


def test_containers_by_default() -> None:
    assert [make_port(codec=codec).container for codec in ("h264", "prores")] == ["mp4", "mov"]


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
        elif setting.type == "integer":
            strategies[key] = st.integers(int(setting.minimum), int(setting.maximum))
        elif setting.type == "boolean" and key != "enabled":
            strategies[key] = st.booleans()
        elif setting.type in SAMPLES:
            strategies[key] = st.sampled_from(SAMPLES[setting.type])
    return strategies


SAMPLES: dict[str, list[object]] = {
    "text": ["DeckLink Duo (1)", "81:76669a80:00000000"],
    "word": ["auto", "Hi50", "yuyv422"],
    "device": ["/dev/video0", "/dev/v4l/by-id/usb-1"],
    "alsa": ["none", "hw:1", "plughw:CARD=U0x,DEV=0"],
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
    arguments = build(port, capabilities)
    assert arguments[: len(BEGINNING)] == BEGINNING
    assert arguments[-1] == "{output}" and "".join(arguments).count("{output}") == 1
    assert all(word and word.isprintable() for word in arguments)
    assert not {"-nostdin", "-n", "-use_wallclock_as_timestamps", "-shortest"}.intersection(arguments)
    assert not any("faststart" in word for word in arguments)
    assert value_of(arguments, "-flush_packets") == "1"
    assert arguments.count("-map") == 1 + has_audio(port.source)
    if port.container in ("mp4", "mov"):
        assert "frag" in value_of(arguments, "-movflags") or "empty_moov" in value_of(arguments, "-movflags")
    assert 0 < fragment_s(arguments) + held_back_elsewhere_s(port) <= codecs.HOLD_BACK_LIMIT_S + 0.001


def fragment_s(arguments: list[str]) -> float:
    if "-cluster_time_limit" in arguments:
        return int(value_of(arguments, "-cluster_time_limit")) / 1000
    return int(value_of(arguments, "-frag_duration")) / 1_000_000


def held_back_elsewhere_s(port: Port) -> float:
    """A frame a thread in a frame-threaded encoder, the frame that closes a fragment, and the sound."""
    frame_s = 1 / codecs.slowest_fps(port.source.options["rate"])
    frames = port.threads if port.codec == "prores" and port.threads > 1 else 0
    return (frames + 1) * frame_s + codecs.AUDIO_DELAY_S


@pytest.mark.parametrize("rate", codecs.RATES)
@pytest.mark.parametrize("codec", codecs.CODECS.values(), ids=lambda codec: codec.name)
def test_a_fragment_holds_at_least_a_frame_and_four_threads_always_fit(codec: codecs.Codec, rate: str) -> None:
    threads_max = codecs.max_threads(codec, rate)
    assert 4 <= threads_max <= 16
    for threads in range(1, threads_max + 1):
        assert codecs.fragment_duration_s(codec, threads, rate) >= 1 / codecs.RATES[rate]
