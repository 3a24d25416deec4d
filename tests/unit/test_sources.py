"""The kinds of source beside SDI: what a port of each runs, what it may reach, and what is refused.

There is no DeckLink card and no Video4Linux device on the machines that run these tests: for them the
options are compared with what FFmpeg documents, and asked of the FFmpeg that is there where it knows them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdisup.config.settings import Port, Source, parse_settings
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments, has_audio, missing_capabilities
from sdisup.errors import ConfigError
from sdisup.sources.custom import FLAGS, GENERATORS, OTHERS, TEXTS, UNWANTED, VALUED, Input, parse_inputs
from sdisup.sources.sandbox import source_sandbox

ALL = frozenset({"libx264", "prores_aw", "aac", "pcm_s24le"})
KNOWS_ALL = Capabilities("7.1.5", ALL, frozenset({"lavfi", "decklink", "v4l2", "alsa"}), hybrid_fragmented=True)
REAL = [name for name in (shutil.which("ffmpeg"), os.environ.get("SDISUP_TEST_FFMPEG")) if name]
SRT = ["-i", "srt://192.0.2.7:9000"]


def make_port(source: dict[str, Any], index: int = 3, **table: Any) -> Port:
    return parse_settings([("test.toml", {"port": {str(index): {"source": source, **table}}})]).ports[index]


def problems_of(*sources: dict[str, Any], **table: Any) -> list[str]:
    ports = {str(index): {"source": source, **table} for index, source in enumerate(sources)}
    with pytest.raises(ConfigError) as caught:
        parse_settings([("test.toml", {"port": ports})])
    return caught.value.problems


def build(port: Port) -> list[str]:
    """The arguments between `-y` and the container's."""
    arguments = build_ffmpeg_arguments(port, "/usr/bin/ffmpeg", KNOWS_ALL)
    return arguments[arguments.index("-y") + 1 : arguments.index("-movflags")]


def input_of(port: Port) -> list[str]:
    arguments = build(port)
    return arguments[: arguments.index("-map")]


# ---- decklink ----


def test_decklink() -> None:
    source = {"kind": "decklink", "device": "DeckLink Duo (1)", "rate": 50, "audio_channels": 8}
    port = make_port({**source, "format_code": "Hp50", "raw_format": "yuv422p10"}, codec="prores")
    assert build(port) == [
        *("-f", "decklink", "-video_input", "sdi", "-audio_input", "embedded", "-raw_format", "yuv422p10"),
        *("-draw_bars", "0", "-channels", "8", "-audio_depth", "32", "-queue_size", "268435456"),
        *("-format_code", "Hp50", "-i", "DeckLink Duo (1)"),
        *("-map", "0:v:0", "-fps_mode", "cfr", "-r", "50"),
        *("-c:v", "prores_aw", "-profile:v", "3", "-threads:v", "4", "-pix_fmt", "yuv422p10le"),
        *("-map", "0:a:0", "-af", "aresample=async=1", "-c:a", "pcm_s24le"),
    ]
    assert str(port.source) == "DeckLink Duo (1)"


def test_decklink_detects_the_format_and_leaves_out_unwanted_sound() -> None:
    arguments = build(make_port({"kind": "decklink", "device": "UltraStudio", "audio_channels": 0, "scan": "tff"}))
    assert "-format_code" not in arguments
    # The demuxer has no way to deliver none: 2, 8 or 16 (libavdevice/decklink_dec.cpp).
    assert arguments[arguments.index("-channels") + 1] == "2"
    assert arguments.count("-map") == 1
    assert "setfield=tff,scale=interl=1" in arguments


# The options of ffmpeg-devices(1), 5.1 and 7.1, and their values in libavdevice/decklink_dec_c.c.
DECKLINK_OPTIONS = {
    "f": r"decklink",
    "format_code": r"[A-Za-z0-9_]{3,4}",
    "raw_format": "auto|uyvy422|yuv422p10|argb|bgra|rgb10",
    "channels": "2|8|16",
    "video_input": "unset|sdi|hdmi|optical_sdi|component|composite|s_video",
    "audio_input": "unset|embedded|aes_ebu|analog|analog_xlr|analog_rca|microphone",
    "draw_bars": "0|1",
    "queue_size": "[0-9]+",
    "audio_depth": "16|32",
    "i": ".+",
}


@given(
    st.fixed_dictionaries(
        {"kind": st.just("decklink"), "device": st.sampled_from(["DeckLink Duo (1)", "81:76669a80:00000000"])},
        optional={
            "raw_format": st.sampled_from(["uyvy422", "yuv422p10", "argb", "bgra", "rgb10"]),
            "video_input": st.sampled_from(["sdi", "hdmi", "optical_sdi", "component", "composite", "s_video"]),
            "audio_channels": st.sampled_from([0, 2, 8]),
            "sample_size": st.sampled_from([16, 32]),
            "queue_mib": st.integers(16, 4096),
            "draw_bars": st.booleans(),
            "format_code": st.sampled_from(["auto", "Hi50", "pal", "23ps"]),
        },
    )
)
@settings(max_examples=50, deadline=None)
def test_every_decklink_option_is_a_documented_one(source: dict[str, Any]) -> None:
    words = input_of(make_port(source))
    for name, value in zip(words[::2], words[1::2], strict=True):
        assert re.fullmatch(DECKLINK_OPTIONS[name.removeprefix("-")], value), name


# ---- v4l2 ----


def test_v4l2_with_sound() -> None:
    source = {"kind": "v4l2", "device": "/dev/v4l/by-id/usb-Magewell_1-video-index0", "audio_device": "hw:1"}
    assert build(make_port({**source, "input_format": "yuyv422"})) == [
        *("-thread_queue_size", "512", "-f", "v4l2", "-framerate", "25", "-video_size", "1920x1080"),
        *("-input_format", "yuyv422", "-i", "/dev/v4l/by-id/usb-Magewell_1-video-index0"),
        *("-thread_queue_size", "512", "-f", "alsa", "-sample_rate", "48000", "-channels", "2", "-i", "hw:1"),
        *("-map", "0:v:0", "-fps_mode", "cfr", "-r", "25"),
        *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency"),
        *("-b:v", "8000k", "-maxrate", "8000k", "-bufsize", "8000k", "-g", "25"),
        *("-threads:v", "4", "-pix_fmt", "yuv420p"),
        *("-map", "1:a:0", "-af", "aresample=async=1", "-c:a", "aac", "-b:a", "192k"),
    ]


def test_v4l2_by_the_ports_index_and_without_sound() -> None:
    port = make_port({"kind": "v4l2", "audio_channels": 16})
    assert input_of(port)[-2:] == ["-i", "/dev/video3"]
    assert not has_audio(port.source)
    assert str(port.source) == "/dev/video3"


@pytest.mark.parametrize("ffmpeg", REAL)
@pytest.mark.parametrize("demuxer", ["v4l2", "alsa"])
def test_a_real_ffmpeg_has_the_options_of_the_devices(ffmpeg: str, demuxer: str) -> None:
    answer = subprocess.run([ffmpeg, "-h", f"demuxer={demuxer}"], capture_output=True, text=True, check=True).stdout
    if "Unknown format" in answer:
        pytest.skip(f"{ffmpeg} was built without {demuxer}")
    words = input_of(make_port({"kind": "v4l2", "audio_device": "hw:1", "input_format": "mjpeg"}))
    first_alsa = words.index("alsa")
    own = words[: first_alsa - 3] if demuxer == "v4l2" else words[first_alsa:]
    names = [word for word in own if word.startswith("-") and word not in ("-f", "-i", "-thread_queue_size")]
    assert names
    assert all(re.search(rf"^ +{name} ", answer, re.MULTILINE) for name in names)


# ---- custom ----


def test_custom() -> None:
    assert build(make_port({"kind": "custom", "input": ["-rtsp_transport", "tcp", "-i", "rtsp://cam/1"]})) == [
        *("-rtsp_transport", "tcp", "-i", "rtsp://cam/1"),
        *("-map", "0:v:0", "-fps_mode", "cfr", "-fpsmax", "60"),
        *("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency"),
        *("-b:v", "8000k", "-maxrate", "8000k", "-bufsize", "8000k"),
        *("-g", "60", "-force_key_frames", "expr:gte(t,n_forced)"),
        *("-threads:v", "4", "-pix_fmt", "yuv420p"),
        *("-map", "0:a:0", "-af", "aresample=async=1", "-c:a", "aac", "-b:a", "192k"),
    ]


def test_a_custom_input_of_a_known_rate_is_brought_to_it() -> None:
    arguments = build(make_port({"kind": "custom", "input": SRT, "rate": 29.97, "scan": "tff"}))
    assert arguments[arguments.index("-fps_mode") :][:4] == ["-fps_mode", "cfr", "-r", "30000/1001"]
    assert arguments[arguments.index("-g") + 1] == "30"
    assert "-force_key_frames" not in arguments


@pytest.mark.parametrize(("audio", "expected"), [(True, "1:a:0"), (False, None), ("optional", "1:a:0?")])
def test_the_sound_of_a_custom_input_is_that_of_its_last(audio: object, expected: str | None) -> None:
    arguments = build(make_port({"kind": "custom", "input": [*SRT, "-i", "udp://192.0.2.7:9002"], "audio": audio}))
    assert [value for value in (expected, None) if value] == [word for word in arguments if ":a:0" in word]


def test_where_the_rate_is_not_known_the_slowest_decides() -> None:
    (problem,) = problems_of({"kind": "custom", "input": SRT}, codec="prores", threads=8)
    assert "8 threads of prores at at least 24000/1001 frames a second keep back more than 0.5 s" in problem
    assert make_port({"kind": "custom", "input": SRT, "rate": 50}, codec="prores", threads=8).threads == 8


@pytest.mark.parametrize(
    ("source", "limits_s"),
    [
        ({"kind": "decklink", "device": "x"}, (5, 3, 6)),
        ({"kind": "v4l2"}, (5, 3, 3)),
        ({"kind": "custom", "input": SRT}, (15, 3, 3)),
        ({"kind": "test"}, (5, 3, 3)),
        ({"kind": "videomaster"}, (12, 12, 22)),
    ],
)
def test_each_kind_has_its_own_patience(source: dict[str, Any], limits_s: tuple[float, ...]) -> None:
    port = make_port(source)
    assert (port.stall_timeout_s, port.stop_quit_s, port.stop_start_quit_s) == limits_s


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-i", "rtsp://user:secret@cam7:554/stream/key?token=1"], "rtsp://cam7:554"),
        (["-i", "udp://@239.0.0.1:1234"], "udp://239.0.0.1:1234"),
        (["-i", "srt://[2001:db8::1]:9000?passphrase=secret"], "srt://[2001:db8::1]:9000"),
        (["-i", "srt://[::1:9000"], "srt://"),
        (["-re", "-i", "/srv/media/loop.mkv"], "/srv/media/loop.mkv"),
        (["-i", "data:secret"], "data input"),
        (["-f", "lavfi", "-i", "testsrc2"], "FFmpeg's generator"),
        (["-f", "alsa", "-i", "hw:1"], "hw:1"),
    ],
)
def test_a_custom_source_is_named_without_what_may_be_secret(arguments: list[str], shown: str) -> None:
    assert str(Source("custom", {"input": tuple(arguments)})) == shown


def test_a_required_key_is_missed_for_each_port_only() -> None:
    tree = {"defaults": {"source": {"kind": "decklink"}}, "port": {"0": {"source": {"device": "A"}}}}
    with pytest.raises(ConfigError) as caught:
        parse_settings([("test.toml", {**tree, "appliance": {"ports": 2}})])
    (problem,) = caught.value.problems
    assert problem.startswith("test.toml: port.1.source.device: is missing: The input by its name")
    assert problems_of({"kind": "custom"})[0].startswith("test.toml: port.0.source.input: is missing: ")


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        ({"kind": "decklink", "device": "A"}, {"kind": "decklink", "device": "A"},
         "port.1.source.device: port 1 would read A, which port 0 reads: a device has one reader"),
        ({"kind": "v4l2"}, {"kind": "v4l2", "device": "/dev/video0"},
         "port.1.source.device: port 1 would read /dev/video0, which port 0 reads: a device has one reader"),
        ({"kind": "v4l2", "audio_device": "hw:1"}, {"kind": "v4l2", "audio_device": "hw:1"},
         "port.1.source.audio_device: port 1 would read hw:1, which port 0 reads: a device has one reader"),
        ({"kind": "v4l2"}, {"kind": "custom", "input": ["-f", "v4l2", "-i", "/dev/video0"]},
         "port.1.source.input: port 1 would read /dev/video0, which port 0 reads: a device has one reader"),
    ],
)  # fmt: skip
def test_a_device_has_one_reader(one: dict[str, Any], other: dict[str, Any], problem: str) -> None:
    assert problems_of(one, other) == [f"test.toml: {problem}"]


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "decklink", "device": ""},
        {"kind": "decklink", "device": "-i"},
        {"kind": "decklink", "device": "a\nb"},
        {"kind": "decklink", "device": "{output}"},
        {"kind": "decklink", "device": "x" * 200},
        {"kind": "decklink", "device": "x", "format_code": "a b"},
        {"kind": "decklink", "device": "x", "audio_channels": 4},
        {"kind": "v4l2", "device": "/etc/passwd"},
        {"kind": "v4l2", "device": "/dev/../etc/passwd"},
        {"kind": "v4l2", "device": "/dev/video0 rw"},
        {"kind": "v4l2", "audio_device": "-i"},
        {"kind": "v4l2", "audio_device": "hw:1\n"},
        {"kind": "v4l2", "rate": "auto"},
        {"kind": "custom", "input": "-i x"},
        {"kind": "custom", "input": ["-i", 3]},
        {"kind": "custom", "input": SRT, "audio": "maybe"},
        {"kind": "custom", "input": SRT, "audio": 1},
    ],
)
def test_values_that_are_refused(source: dict[str, Any]) -> None:
    (problem,) = problems_of(source)
    assert problem.isprintable()


def test_a_file_in_the_units_private_tmp_is_a_warning() -> None:
    document = {"port": {"0": {"source": {"kind": "custom", "input": ["-re", "-i", "/tmp/a.mkv"]}}}}
    (warning,) = parse_settings([("test.toml", document)]).warnings
    assert warning.startswith("test.toml: port.0.source.input: /tmp/a.mkv is not seen by the recorder")


# ---- What custom arguments may be ----


@pytest.mark.parametrize(
    "arguments",
    [
        ["-i", "srt://host:9000?mode=listener&latency=200"],
        ["-i", "udp://239.0.0.1:1234?fifo_size=1000000&overrun_nonfatal=1"],
        ["-rtsp_transport", "tcp", "-timeout", "5000000", "-i", "rtsp://camera/1"],
        ["-re", "-stream_loop", "-1", "-i", "/srv/media/loop.mkv"],
        ["-f", "mpegts", "-i", "/srv/media/in.fifo"],
        ["-f", "rawvideo", "-pixel_format", "uyvy422", "-video_size", "1920x1080", "-framerate", "30000/1001",
         "-i", "/srv/media/in.fifo"],
        ["-headers", "Authorization: Basic eA==", "-user_agent", "sdisup/1", "-i", "https://host/live.m3u8"],
        ["-hwaccel", "vaapi", "-hwaccel_device", "/dev/dri/renderD128", "-i", "rtsp://camera/1"],
        ["-protocol_whitelist", "file,udp,rtp", "-i", "/etc/sdisup/camera.sdp"],
        ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25,realtime[out0];sine=frequency=440[out1]"],
        ["-c:v", "h264_cuvid", "-i", "rtsp://camera/1", "-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo"],
        ["-f", "concat", "-safe", "0", "-re", "-i", "/srv/media/list.txt"],
        ["-f", "image2", "-framerate", "25", "-loop", "1", "-i", "/srv/media/slate.png"],
        ["-sseof", "-00:00:10", "-i", "/srv/media/a.mkv"],
    ],
)  # fmt: skip
def test_inputs_that_people_use(arguments: list[str]) -> None:
    assert parse_inputs(arguments)


REFUSED = [
    # Whatever would be an output file.
    ["-i", "a://b", "out.mkv"],
    ["out.mkv", "-i", "a://b"],
    ["-re", "out.mkv", "-i", "a://b"],
    ["-an", "/srv/recordings/x.mkv", "-i", "a://b"],
    ["-nore", "out.mkv", "-i", "a://b"],
    ["-noautorotate", "out.mkv", "-i", "a://b"],
    ["-i", "a://b", "-f", "nut", "udp://host:1"],
    ["-i", "a://b", "-"],
    ["-i", "a://b", "pipe:1"],
    ["--", "out.mkv", "-i", "a://b"],
    ["-i", "a://b", "--", "-x.mkv"],
    # An option that FFmpeg may have without a value, so that the value would be an output or the next option.
    ["-future_flag", "/srv/recordings/x.mkv", "-i", "a://b"],
    ["-future_flag", "udp://host:1", "-i", "a://b"],
    ["-future_flag", "-i", "-i", "/srv/recordings/x.mkv"],
    ["-f", "-i", "-i", "/srv/recordings/x.mkv"],
    ["-i", "-i", "a://b"],
    # Options of sdisup's output, or of all.
    ["-i", "a://b", "-c", "copy"],
    ["-i", "a://b", "-map", "0"],
    ["-i", "a://b", "-f", "tee"],
    ["-map", "0", "-i", "a://b"],
    ["-y", "-i", "a://b"],
    ["-n", "-i", "a://b"],
    ["-nostdin", "-i", "a://b"],
    ["-stdin", "-i", "a://b"],
    ["-loglevel", "quiet", "-i", "a://b"],
    ["-v", "quiet", "-i", "a://b"],
    ["-stats", "-i", "a://b"],
    ["-nostats", "-i", "a://b"],
    ["-hide_banner", "-i", "a://b"],
    ["-xerror", "-i", "a://b"],
    ["-filter_complex", "nullsrc", "-i", "a://b"],
    ["-lavfi", "nullsrc", "-i", "a://b"],
    ["-/filter_complex", "/etc/graph", "-i", "a://b"],
    ["-/i", "/etc/names"],
    # Options that write files.
    ["-progress", "x.txt", "-i", "a://b"],
    ["-report", "-i", "a://b"],
    ["-dump_attachment:0", "x", "-i", "a://b"],
    ["-attach", "x", "-i", "a://b"],
    ["-vstats", "-i", "a://b"],
    ["-vstats_file", "x", "-i", "a://b"],
    ["-sdp_file", "x", "-i", "a://b"],
    ["-passlogfile", "x", "-i", "a://b"],
    ["-stats_enc_pre:v", "x", "-i", "a://b"],
    ["-print_graphs_file", "x", "-i", "a://b"],
    ["-dump", "-i", "a://b"],
    ["-f", "lavfi", "-i", "testsrc2,metadata=mode=print:file=x"],
    ["-f", "lavfi", "-i", "testsrc2[a];[a]vidstabdetect"],
    ["-f", "lavfi", "-i", "testsrc2@x,signature@y=filename=x"],
    ["-f", "lavfi", "-i", "movie=/etc/passwd"],
    ["-f", "lavfi", "-i", "testsrc2,'metadata'=print"],
    ["-f", "lavfi", "-i", "testsrc2[a,b];metadata=print:file=x"],
    ["-f", "lavfi", "-graph_file", "x", "-i", "testsrc2"],
    ["-f", "lavfi", "-graph", "testsrc2", "-i", "dummy"],
    # FFmpeg's standard streams are the runner's.
    ["-i", "-"],
    ["-i", "pipe:0"],
    ["-i", "pipe:"],
    ["-i", "fd:"],
    ["-fd", "3", "-i", "fd:"],
    ["-i", "/dev/stdin"],
    ["-i", "file:/dev/fd/0"],
    ["-i", "/proc/self/fd/0"],
    # sdisup's own word, and what no clock may decide.
    ["-i", "{output}"],
    ["-i", "file:/srv/{output}"],
    ["-use_wallclock_as_timestamps", "1", "-i", "a://b"],
    # No input, half an input, too much.
    [],
    ["-re"],
    ["-i"],
    ["-re", "-i"],
    ["-i", ""],
    ["-f", "mpegts"],
    ["-i", "relative.mkv"],
    ["-i", "a://b\x00"],
    ["-i", "a://b\n"],
    ["-i", "a://b/\ud800"],
    ["-i", "a://" + "b" * 2000],
    ["-re"] * 70 + ["-i", "a://b"],
    ["-re:0", "-i", "a://b"],
    ["-?", "-i", "a://b"],
    ["-h", "-i", "a://b"],
    ["-version", "-i", "a://b"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda arguments: ascii(" ".join(arguments)[:50]))
def test_arguments_that_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_inputs(arguments)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


WORDS = [
    "-i", "-re", "-f", "-c", "-y", "-map", "-an", "-t", "--", "-", "-nore", "-noautorotate", "-print_graphs", "lavfi",
    "-probesize", "nut", "mpegts", "null", "0", "copy", "-1", "5000", "{a}", "out1.mkv", "out2.nut", "udp://127.0.0.1:9",
    "testsrc2", "-stream_loop", "-itsoffset", "-bitexact", "-fflags", "nobuffer", "-thread_queue_size", "-shortest",
]  # fmt: skip


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing but a short film, in which FFmpeg is run."""
    directory = tmp_path_factory.mktemp("media")
    graph = "testsrc2=size=64x64:rate=25"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", graph, "-t", "0.2", "-c:v", "libx264", "a.mkv"]
    subprocess.run(command, cwd=directory, check=True, timeout=20)
    return directory


@given(st.lists(st.sampled_from(WORDS), max_size=6))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_accepted_makes_ffmpeg_write_nothing_but_the_output(media: Path, words: list[str]) -> None:
    arguments = [word.replace("{a}", str(media / "a.mkv")) for word in words] + ["-i", str(media / "a.mkv")]
    try:
        parse_inputs(arguments)
    except ValueError:
        return
    output = ["-map", "0:v:0", "-frames:v", "1", "-c:v", "rawvideo", "-f", "nut", "recording"]
    command = ["ffmpeg", "-v", "quiet", "-y", *arguments, *output]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=media, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    assert set(os.listdir(media)) <= {"a.mkv", "recording"}, arguments


@given(st.lists(st.text(max_size=12) | st.sampled_from(WORDS), max_size=8))
@settings(max_examples=500, deadline=None)
def test_any_words_are_inputs_or_refused(words: list[str]) -> None:
    try:
        inputs = parse_inputs(words)
    except ValueError as error:
        assert str(error).isprintable()
        return
    assert len(inputs) == words.count("-i") > 0
    assert words[-2] == "-i"
    str(inputs[0]).encode()


OWN_OPTIONS = FLAGS | VALUED
SAMPLES = {
    "f": "mpegts", "c": "h264", "codec": "h264", "vcodec": "h264", "acodec": "aac", "r": "25", "s": "64x64",
    "pix_fmt": "yuv420p", "discard": "none", "hwaccel": "none", "hwaccel_output_format": "yuv420p", "ch_layout": "mono",
    "channel_layout": "mono", "apply_cropping": "all", "sseof": "-1", "isync": "-1",
}  # fmt: skip


def option_commands(ffmpeg: str) -> list[list[str]]:
    """For each option that custom arguments may have, a command line that shows how many words it takes."""
    names = sorted(OWN_OPTIONS)
    values = [[] if name in FLAGS else [SAMPLES.get(name, "1")] for name in names]
    tail = ["-i", "/nonexistent/input"]
    return [[ffmpeg, "-hide_banner", f"-{name}", *value, *tail] for name, value in zip(names, values, strict=True)]


def takes_the_words_that_we_think(answer: str) -> bool:
    """Whether FFmpeg came as far as opening the input; an option that this version lacks ends it, too."""
    opened = "/nonexistent/input" in answer and "No such file or directory" in answer
    return opened or "Unrecognized option" in answer


@pytest.mark.parametrize("ffmpeg", REAL)
def test_a_real_ffmpeg_reads_the_options_as_we_do(ffmpeg: str) -> None:
    def ask(command: list[str]) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stderr

    commands = option_commands(ffmpeg)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(ask, commands))
    wrong = [
        (command[2], answer)
        for command, answer in zip(commands, answers, strict=True)
        if not takes_the_words_that_we_think(answer)
    ]
    assert not wrong
    missing = [command[2] for command, answer in zip(commands, answers, strict=True) if "Unrecognized" in answer]
    # These came with FFmpeg 6 and 7.
    assert set(missing) <= {"-apply_cropping", "-display_hflip", "-display_rotation", "-display_vflip",
                            "-readrate_initial_burst"}  # fmt: skip


def unknown_options(help_text: str) -> set[str]:
    """FFmpeg's own options in `-h long` that custom_input.py does not know, and so would take for a demuxer's."""
    names = set(re.findall(r"^-+([A-Za-z?][A-Za-z0-9_]*)(?:\[|:|\s|$)", help_text, re.MULTILINE))
    return names - OWN_OPTIONS - OTHERS - {"i"}


@pytest.mark.parametrize("ffmpeg", REAL)
def test_all_options_of_a_real_ffmpeg_are_known(ffmpeg: str) -> None:
    answer = subprocess.run([ffmpeg, "-h", "long"], capture_output=True, text=True, check=True).stdout
    assert len(answer) > 5000
    assert unknown_options(answer) == set()


@pytest.mark.parametrize("ffmpeg", REAL)
def test_no_generator_has_an_option_that_names_a_file(ffmpeg: str) -> None:
    for name in GENERATORS:
        answer = subprocess.run([ffmpeg, "-h", f"filter={name}"], capture_output=True, text=True, check=True).stdout
        files = re.findall(r"^ +(\S*(?:file|path)\S*) +<string>", answer, re.MULTILINE)
        # life and its like read their first picture from a file; they write none.
        assert set(files) <= {"filename"}, name


def test_the_lists_of_options_do_not_overlap() -> None:
    lists = (FLAGS, VALUED, OTHERS, frozenset(UNWANTED), TEXTS)
    assert sum(map(len, lists)) == len(frozenset().union(*lists))


# ---- The sandbox ----

PRIVATE = ["RestrictAddressFamilies=AF_UNIX", "PrivateDevices=yes"]
NETWORK = ["RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "PrivateDevices=yes"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"kind": "test"}, PRIVATE),
        ({"kind": "custom", "input": ["-re", "-i", "/srv/media/a.mkv"]}, PRIVATE),
        ({"kind": "custom", "input": ["-re", "-i", "file:/srv/media/a.mkv"]}, PRIVATE),
        ({"kind": "custom", "input": ["-f", "lavfi", "-i", "testsrc2,realtime"]}, PRIVATE),
        ({"kind": "custom", "input": SRT}, NETWORK),
        ({"kind": "custom", "input": ["-re", "-i", "/srv/media/a.mkv", *SRT]}, NETWORK),
        ({"kind": "custom", "input": ["-protocol_whitelist", "file,udp,rtp", "-i", "/srv/a.sdp"]}, NETWORK),
        ({"kind": "custom", "input": ["-i", "concat:/srv/a|http://b"]}, NETWORK),
        ({"kind": "v4l2", "device": "/dev/video1"},
         ["RestrictAddressFamilies=AF_UNIX", "SupplementaryGroups=video", "DevicePolicy=closed",
          "DeviceAllow=/dev/video1 rw"]),
        ({"kind": "v4l2", "device": "/dev/video1", "audio_device": "hw:1"},
         ["RestrictAddressFamilies=AF_UNIX", "SupplementaryGroups=video audio", "DevicePolicy=closed",
          "DeviceAllow=/dev/video1 rw", "DeviceAllow=char-alsa rw"]),
        ({"kind": "videomaster"},
         ["RestrictAddressFamilies=AF_UNIX", "SupplementaryGroups=video",
          "# Devices stay open: not all nodes of Deltacast's driver are known."]),
        ({"kind": "custom", "input": ["-f", "v4l2", "-i", "/dev/video0"]},
         ["RestrictAddressFamilies=AF_UNIX", "SupplementaryGroups=video audio",
          "# Devices stay open: the input arguments name one."]),
        ({"kind": "custom", "input": ["-hwaccel", "cuda", *SRT]},
         ["RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "SupplementaryGroups=video audio",
          "# Devices stay open: the input arguments name one."]),
    ],
)  # fmt: skip
def test_a_source_reaches_what_it_needs_and_no_more(source: dict[str, Any], expected: list[str]) -> None:
    assert source_sandbox(make_port(source).source).directives() == expected


def test_decklink_reaches_the_nodes_of_its_driver() -> None:
    lines = source_sandbox(make_port({"kind": "decklink", "device": "x"}).source).directives()
    assert lines[:4] == ["RestrictAddressFamilies=AF_UNIX", "SupplementaryGroups=video", "DevicePolicy=closed",
                         "DeviceAllow=char-blackmagic* rw"]  # fmt: skip
    assert "DeviceAllow=/dev/blackmagic/io7 rw" in lines


@pytest.mark.parametrize("url", ["/srv/a.mkv", "file:/srv/a.mkv", "udp://h:1", "http://h/a", "srt://h", "crypto:/a"])
def test_only_what_begins_as_a_path_is_local(url: str) -> None:
    assert Input("", url).needs_network == (not url.removeprefix("file:").startswith("/"))


# ---- What an FFmpeg lacks, for many ports ----


def test_what_all_ports_miss_is_one_line() -> None:
    nothing = Capabilities("7.1.5", ALL, frozenset(), hybrid_fragmented=True)
    ports = list(parse_settings([("test.toml", {})]).ports.values())
    (line,) = missing_capabilities(ports, "/usr/bin/ffmpeg", nothing)
    assert line.startswith("ports 0-7: /usr/bin/ffmpeg has no input 'videomaster': install Deltacast's FFmpeg")
    (line,) = missing_capabilities([ports[index] for index in (0, 1, 2, 5, 7)], "/usr/bin/ffmpeg", nothing)
    assert line.startswith("ports 0-2, 5, 7: ")


@pytest.mark.parametrize(
    ("source", "inputs"),
    [
        ({"kind": "decklink", "device": "x"}, ["decklink"]),
        ({"kind": "v4l2"}, ["v4l2"]),
        ({"kind": "v4l2", "audio_device": "hw:1"}, ["v4l2", "alsa"]),
        ({"kind": "custom", "input": ["-f", "mpegts", "-i", "udp://h:1", "-i", "udp://h:2"]}, ["mpegts"]),
    ],
)
def test_the_inputs_that_a_source_needs(source: dict[str, Any], inputs: list[str]) -> None:
    nothing = Capabilities("7.1.5", ALL, frozenset(), hybrid_fragmented=True)
    lines = missing_capabilities([make_port(source)], "/usr/bin/ffmpeg", nothing)
    assert [line.split("'")[1] for line in lines] == inputs
