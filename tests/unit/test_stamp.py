"""Where the timecode stands in a recording's file, and what is written there.

The measure is FFmpeg itself: a file that was given `00:00:00:00` and was stamped has to be, byte for byte, the file
that FFmpeg makes where it knows the timecode from the beginning.
"""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_hold_back import FFMPEGS

from sdisup.config.settings import Port, numbers_at, parse_settings
from sdisup.encode.command import OUTPUT, build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.runner.stamp import CONTAINERS, Stamp, crc32

TIMECODES = {"25": "10:11:12:13", "30000/1001": "23:59:59;20", "50": "09:59:59:41", "60000/1001": "10:08:59;50"}
"""The next minute, which lacks numbers, or the next day begins within the recording."""
OTHER_TIMECODES = {"24000/1001": "01:02:03:23", "24": "00:00:00:01", "30": "12:00:00:29", "60": "23:59:59:59"}
SIZES = {"dnxhd": "1920x1080", "xdcam": "1920x1080"}
CHEAP = [("h264", "mp4", "30000/1001"), ("h264", "mov", "25"), ("h264", "mkv", "60000/1001")]
FRAMES = 30


def make_port(codec: str, container: str, rate: str, timecode: str = "clock") -> Port:
    """Without sound, of which FFmpeg writes a packet more or less before its end."""
    graph = f"testsrc2=size={SIZES.get(codec, '320x180')}:rate={rate}"
    source = {"kind": "custom", "input": ["-f", "lavfi", "-i", graph], "rate": rate, "audio": False}
    defaults: dict[str, Any] = {"source": source, "codec": codec, "container": container, "timecode": timecode}
    defaults["segment_s"] = 0
    if codec in ("dnxhd", "xdcam"):
        defaults["raster"] = SIZES[codec]
    return parse_settings([("test.toml", {"appliance": {"ports": 1}, "defaults": defaults})]).ports[0]


def arguments_of(port: Port, ffmpeg: str, path: Path, timecode: str = "") -> list[str]:
    """The port's command line, without what differs from run to run, with a timecode of ours."""
    words = build_ffmpeg_arguments(port, ffmpeg, probe_ffmpeg(ffmpeg))
    zero = f"timecode={numbers_at(port.source.options['rate']).zero}"
    assert words.count(zero) == 1
    words[words.index(zero)] = f"timecode={timecode}" if timecode else zero
    assert words[-1] == OUTPUT
    # With several threads x264 does not always spend the same bits.
    words[-1:] = ["-threads:v", "1", "-fflags", "+bitexact", "-flags", "+bitexact", "-frames:v", str(FRAMES)]
    return [*words, str(path)]


def record(words: list[str]) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def stamp(content: bytearray, container: str, rate: str, timecode: str) -> Stamp:
    """Write the timecode into a file, as the disk's thread does."""
    numbers = numbers_at(rate)
    made = Stamp(container, numbers, numbers.frame(timecode))
    write(made, content)
    return made


def write(made: Stamp, content: bytearray) -> int:
    writes = made.due(len(content), lambda count, offset: bytes(content[offset : offset + count]))
    for at, data in writes:
        assert at + len(data) <= len(content)
        content[at : at + len(data)] = data
    return len(writes)


def timecodes_in(path: Path) -> set[str]:
    """What ffprobe finds in the file."""
    entries = "format_tags=timecode:stream_tags=timecode"
    words = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "json", str(path)]
    found = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    tags = [part.get("tags", {}) for part in [found["format"], *found["streams"]]]
    return {text for tag in tags for key, text in tag.items() if key.lower() == "timecode"}


def check(ffmpeg: str, codec: str, container: str, rate: str, timecode: str, directory: Path) -> None:
    port = make_port(codec, container, rate)
    ours, theirs = directory / f"ours.{container}", directory / f"theirs.{container}"
    record(arguments_of(port, ffmpeg, ours))
    record(arguments_of(port, ffmpeg, theirs, timecode))
    content, expected = bytearray(ours.read_bytes()), theirs.read_bytes()
    assert content != expected
    made = stamp(content, container, rate, timecode)
    assert made.is_found
    assert made.text == timecode
    assert content == expected
    assert write(made, content) == 0, "what is written already is written again"
    ours.write_bytes(content)
    assert timecodes_in(ours) == {timecode}


@pytest.mark.parametrize(("codec", "container", "rate"), CHEAP)
def test_a_stamped_file_is_the_one_that_ffmpeg_makes(codec: str, container: str, rate: str, tmp_path: Path) -> None:
    check(FFMPEGS[0], codec, container, rate, TIMECODES[rate], tmp_path)


def matrix() -> Iterator[tuple[str, str, str]]:
    for rate in [*TIMECODES, *OTHER_TIMECODES]:
        yield from (("h264", container, rate) for container in ("mp4", "mov", "mkv"))
    for rate in ("25", "30000/1001"):
        yield from (("prores", "mov", rate), ("dnxhr", "mov", rate), ("ffv1", "mkv", rate), ("xdcam", "mxf", rate))
        yield from (("hevc", "mp4", rate), ("dnxhd", "mov", rate), ("v210", "mov", rate))


@pytest.mark.slow
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize(("codec", "container", "rate"), list(matrix()))
def test_each_combination_is_stamped_as_ffmpeg_does(
    ffmpeg: str, codec: str, container: str, rate: str, tmp_path: Path
) -> None:
    check(ffmpeg, codec, container, rate, {**TIMECODES, **OTHER_TIMECODES}[rate], tmp_path)


# ---- While it grows ----


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, bytes]]:
    """By container, a file that was not stamped, and what FFmpeg makes of the timecode."""
    made = {}
    directory = tmp_path_factory.mktemp("growing")
    for container in CONTAINERS:
        paths = [directory / f"{at}.{container}" for at in range(2)]
        for path, timecode in zip(paths, ("", "10:11:12:13"), strict=True):
            record(small(container, path, timecode))
        made[container] = paths[0].read_bytes(), paths[1].read_bytes()
    return made


def small(container: str, path: Path, timecode: str) -> list[str]:
    """The containers as ports have them, with a small picture also for mxf, and without sound."""
    options = {"mxf": ["-c:v", "mpeg2video", "-bf", "2"], "mkv": ["-c:v", "mpeg2video", "-cluster_time_limit", "100"]}
    fragments = ["-c:v", "mpeg4", "-movflags", "+empty_moov+default_base_moof", "-frag_duration", "100000"]
    return [
        *(
            FFMPEGS[0],
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=96x64:rate=25",
            "-frames:v",
            str(FRAMES),
        ),
        *("-metadata", f"timecode={timecode or '00:00:00:00'}", "-fflags", "+bitexact", "-flags", "+bitexact"),
        *(*options.get(container, fragments), "-flush_packets", "1", str(path)),
    ]


@pytest.mark.parametrize("container", CONTAINERS)
def test_it_is_written_once_there_is_a_place_and_never_elsewhere(
    growing: dict[str, tuple[bytes, bytes]], container: str
) -> None:
    """The file grows by uneven pieces, which a place may be torn by; each state is stamped as far as it goes."""
    whole, expected = growing[container]
    numbers = numbers_at("25")
    made = Stamp(container, numbers, numbers.frame("10:11:12:13"))
    content = bytearray()
    first = 0
    for end in [*range(0, len(whole), max(97, len(whole) // 400)), len(whole)]:
        content += whole[len(content) : end]
        write(made, content)
        first = first or (made.is_found and end)
        if container != "mkv":
            # The checksum of FFmpeg's growing mkv is another one.
            assert sum(1 for ours, theirs in zip(content, whole, strict=False) if ours != theirs) <= (
                0 if not made.is_found else 8 if container != "mxf" else 4 * FRAMES + 16
            )
    assert first
    assert first < len(whole) / 2
    made.begin_again()
    write(made, content)
    assert made.is_found
    assert content == expected


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_without_a_place_is_left_alone(growing: dict[str, tuple[bytes, bytes]], container: str) -> None:
    whole = bytearray(growing[container][0])
    places = {"mkv": b"TIMECODE", "mxf": b"\x15\x01\x00\x08"}
    content = whole.replace(places.get(container, b"tmcd"), b"\0" * len(places.get(container, b"tmcd")))
    before = bytes(content)
    made = Stamp(container, numbers_at("25"), 1)
    write(made, content)
    assert not made.is_found
    if container != "mxf":
        # An mxf has a place in each frame too.
        assert content == before


@given(st.sampled_from(CONTAINERS), st.data())
def test_no_content_ends_the_recording(container: str, data: st.DataObject) -> None:
    """Whatever is in the file, the place is in it or none."""
    beginnings = {
        "mkv": bytes.fromhex("1a45dfa3801853806701ffffffffffffff1254c367"),
        "mxf": bytes.fromhex("060e2b34020501010d0102010102040083000068"),
    }
    boxes = b"\0\0\0\x08ftyp\0\0\0\x40moov\0\0\0\x38trak\0\0\0\x10mdia\0\0\0\x08hdlr"
    content = bytearray(beginnings.get(container, boxes) + data.draw(st.binary(max_size=200)))
    made = Stamp(container, numbers_at("30000/1001"), 1800)
    write(made, content)


@pytest.mark.parametrize("container", ["mov", "mp4", "mkv", "mxf"])
@given(data=st.data())
def test_no_damage_ends_the_recording(
    growing: dict[str, tuple[bytes, bytes]], container: str, data: st.DataObject
) -> None:
    content = bytearray(growing[container][0][:20_000])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 5000))] = data.draw(st.integers(0, 255))
    write(Stamp(container, numbers_at("25"), 1), content)


@given(st.binary(max_size=300))
def test_the_checksum_is_the_common_one(data: bytes) -> None:
    assert crc32(data) == zlib.crc32(data)
