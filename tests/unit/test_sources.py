"""The kinds of source beside SDI: which options FFmpeg knows, and which custom arguments are refused.

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

from sdisup.config.settings import Port, parse_settings
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments, missing_capabilities
from sdisup.sources import custom
from sdisup.sources.arguments import FLAGS, GENERATORS, OTHERS, TEXTS, UNWANTED, VALUED, Input, parse_inputs
from sdisup.sources.base import Found

ALL = frozenset({"libx264", "prores_aw", "aac", "pcm_s24le"})
KNOWS_ALL = Capabilities("7.1.5", ALL, frozenset({"lavfi", "decklink", "v4l2", "alsa"}), hybrid_fragmented=True)
REAL = [name for name in (shutil.which("ffmpeg"), os.environ.get("SDISUP_TEST_FFMPEG")) if name]


def make_port(source: dict[str, Any]) -> Port:
    return parse_settings([("test.toml", {"port": {"3": {"source": source}}})]).ports[3]


def input_of(port: Port) -> list[str]:
    """The arguments of the input."""
    arguments = build_ffmpeg_arguments(port, "/usr/bin/ffmpeg", KNOWS_ALL)
    return arguments[arguments.index("-y") + 1 : arguments.index("-map")]


# ---- decklink ----

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
    subprocess.run(command, cwd=directory, check=True, timeout=60)
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
        subprocess.run(command, cwd=media, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
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
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stderr

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
    """FFmpeg's own options in `-h long` that sources/arguments.py does not know, and would take for a demuxer's."""
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


def test_custom_arguments_are_parsed_once_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    def count(words: list[str]) -> tuple[Input, ...]:
        parsed.append(words)
        return parse_inputs(words)

    monkeypatch.setattr(custom, "parse_inputs", count)
    port = make_port({"kind": "custom", "input": ["-f", "mpegts", "-i", "udp://h:1"]})
    build_ffmpeg_arguments(port, "/usr/bin/ffmpeg", KNOWS_ALL)
    missing_capabilities([port], "/usr/bin/ffmpeg", KNOWS_ALL)
    assert (str(port.source), port.source.sandbox().network) == ("udp://h:1", True)
    assert len(parsed) == 1


@pytest.mark.parametrize(
    ("options", "signal", "problem"),
    [
        ({"rate": 25, "scan": "tff"}, "1920x1080i50.000", ""),
        ({"rate": 25, "scan": "bff"}, "720x576i50.000", ""),
        ({"rate": 25}, "1920x1080p25.000", ""),
        ({"rate": 25}, "no size", ""),
        ({"rate": 25}, "1920x1080p29.970", 'is 1920x1080p29.970: it needs rate = "30000/1001", not "25"'),
        ({"rate": 50}, "1920x1080p25.000", 'it needs rate = "25", not "50"'),
        ({"rate": 25}, "1920x1080i50.000", 'it needs scan = "tff", not "progressive"'),
        ({"rate": 50, "scan": "tff"}, "1920x1080p25.000", 'rate = "25", not "50" and scan = "progressive", not "tff"'),
    ],
)
def test_a_locked_signal_of_another_rate_or_scan_is_said(options: dict[str, Any], signal: str, problem: str) -> None:
    source = make_port({"kind": "videomaster", "board": 1, "channel": 2, **options}).source
    other = Found("stream 3 on board 1", "SDI video: 1280x720p50.000 (interface: x)")
    found = [other, Found("stream 2 on board 1", f"SDI video: {signal} (interface: x)")]
    said = source.listing_problem(found)
    assert said.endswith(problem) if problem else said == ""
    assert source.listing_problem([other]) == ""
