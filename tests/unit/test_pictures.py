"""The pictures of a recording by its boxes and clusters, beside ffprobe's count: whole, cut off, torn, hostile."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdisup.contract import pictures as module
from sdisup.contract.pictures import count_pictures
from sdisup.contract.programs import count_frames

FFPROBE = shutil.which("ffprobe") or "ffprobe"
SOURCE = "-f lavfi -i testsrc2=size=64x36:rate={rate} -f lavfi -i sine=sample_rate=48000 -t 6"
FRAGMENTED = "-movflags +empty_moov+default_base_moof -frag_duration 100000"
SOUND = "-c:a aac -b:a 64k"
H264 = f"-map 0:v -map 1:a -c:v libx264 -preset ultrafast -tune zerolatency -g 25 {SOUND}"
PRORES = "-map 0:v -map 1:a -map 1:a -c:v prores_aw -profile:v 0 -pix_fmt yuv422p10le -c:a pcm_s24le"
MPEG2 = "-map 0:v -map 1:a -map 1:a -c:v mpeg2video -g 12 -bf 2 -pix_fmt yuv422p -c:a pcm_s24le"
KINDS = {
    "fragmented.mp4": (25, f"{H264} {FRAGMENTED} -f mp4"),
    # As hybrid_fragmented of FFmpeg 7.1 leaves it while it grows: the moov lists the first fragment's samples.
    "hybrid.mp4": (25, f"{H264} -movflags +delay_moov+default_base_moof+frag_keyframe -frag_duration 100000 -f mp4"),
    "hybrid.mov": (50, f"{PRORES} -movflags +delay_moov+default_base_moof -frag_duration 100000 -f mov"),
    # As it leaves it once it is closed.
    "closed.mp4": (25, f"{H264} -f mp4"),
    "sound-first.mp4": ("30000/1001", f"-map 1:a {SOUND} -map 0:v -c:v libx264 -bf 0 {FRAGMENTED} -f mp4"),
    "silent.mp4": (10, f"-map 0:v -c:v libx264 -tune zerolatency {FRAGMENTED} -f mp4"),
    "prores.mov": (50, f"{PRORES} {FRAGMENTED} -f mov"),
    "old-base.mov": (25, f"{H264} -movflags +empty_moov -frag_duration 100000 -f mov"),
    "h264.mkv": ("30000/1001", f"{H264} -cluster_time_limit 100 -f matroska"),
    "prores.mkv": (25, f"{PRORES} -cluster_time_limit 100 -f matroska"),
    "mpeg2.mxf": (50, f"{MPEG2} -f mxf"),
    "long-clusters.mkv": (25, f"-map 1:a {SOUND} -map 0:v -c:v libx264 -bf 0 -f matroska"),
}
RATES = {25: 25.0, 10: 10.0, 50: 50.0, "30000/1001": 30000 / 1001}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("recordings")
    command = ["ffmpeg", "-v", "error"]
    for name, (rate, options) in KINDS.items():
        words = f"{SOURCE.format(rate=rate)} {options} -max_interleave_delta 500000 -flush_packets 1".split()
        subprocess.run([*command, *words, str(directory / name)], check=True)
    yield directory
    shutil.rmtree(directory)


def torn(content: bytes, how: str, chance: random.Random) -> bytes:
    """A file as a kill or a power cut leaves it."""
    cut = chance.randrange(len(content))
    if how == "cut off":
        return content[:cut]
    # A length that reached the disk before the data did.
    zeros = bytes(chance.choice((1, 300, 4096, 100_000)))
    return content[:cut] + zeros


def compare(path: Path) -> int | None:
    """Compare both counts; None where the boxes do not tell."""
    found = count_pictures(str(path), path.suffix[1:])
    counted, rate = count_frames(FFPROBE, str(path))
    assert counted is not None
    if found is None:
        return None
    assert found.count == counted, (path, found, counted)
    if found.rate and rate and found.count > 10:
        assert found.rate == pytest.approx(rate, rel=0.05)
    return found.count


@pytest.mark.parametrize("tail_bytes", [module.TAIL_BYTES, 20_000])
@pytest.mark.parametrize("name", KINDS)
def test_boxes_tell_what_ffprobe_counts(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, tail_bytes: int
) -> None:
    monkeypatch.setattr(module, "TAIL_BYTES", tail_bytes)
    monkeypatch.setattr(module, "INDEXED_BYTES", tail_bytes)
    whole = recordings / name
    rate = KINDS[name][0]
    assert compare(whole) == round(6 * RATES[rate])
    content, chance = whole.read_bytes(), random.Random(f"{name} {tail_bytes}")
    cut = tmp_path / name
    for number in range(int(os.environ.get("SDISUP_CUTS", "4"))):
        cut.write_bytes(torn(content, "torn" if number % 2 else "cut off", chance))
        # A cut in the middle of a moof may cost FFmpeg all of the file, and it is asked.
        assert compare(cut) is not None or cut.suffix in (".mp4", ".mov")


def stretched(name: str, content: bytes, path: Path, size_bytes: int) -> int:
    """Make a day's file of six seconds' worth: its head, a hole, and in its tail its fragments, hours later.

    Returns how many pictures such a file holds. A hole takes no room on the disk.
    """
    mark = b"\x1f\x43\xb6\x75" if name.endswith("mkv") else b"moof"
    at = [place - (0 if name.endswith("mkv") else 4) for place in found_at(content, mark)]
    fps = RATES[KINDS[name][0]]
    later_s = 80_000 // fps
    head, tail = content[: at[3]], later(name, content[at[3] :], round(later_s * fps), fps)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size_bytes - len(tail))
        file.seek(0, os.SEEK_END)
        file.write(tail)
    return round(6 * fps) + round(later_s * fps)


def found_at(content: bytes, mark: bytes) -> list[int]:
    places, at = [], content.find(mark)
    while at >= 0:
        places.append(at)
        at = content.find(mark, at + 1)
    return places


def later(name: str, content: bytes, frames: int, fps: float) -> bytes:
    """Fragments of another time, so many pictures later."""
    made = bytearray(content)
    if name.endswith("mkv"):
        # A Cluster's size is of eight bytes; its Timestamp, two or more bytes, gets as many as it needs.
        parts = []
        for start, end in pairwise([*found_at(content, b"\x1f\x43\xb6\x75"), len(content)]):
            assert content[start + 12] == 0xE7, content[start : start + 16].hex()
            width = content[start + 13] & 0x7F
            time = int.from_bytes(content[start + 14 : start + 14 + width], "big") + round(frames * 1000 / fps)
            body = b"\xe7\x84" + time.to_bytes(4, "big") + content[start + 14 + width : end]
            parts.append(content[start : start + 4] + b"\x01" + len(body).to_bytes(7, "big") + body)
        return b"".join(parts)
    for place in found_at(content, b"tfdt"):
        # All tracks, as if each had the pictures' ticks: that of the pictures alone is looked at.
        time = int.from_bytes(content[place + 8 : place + 16], "big") + frames * TICKS[name]
        made[place + 8 : place + 16] = time.to_bytes(8, "big")
    return bytes(made)


TICKS = {"fragmented.mp4": 512, "hybrid.mp4": 512, "prores.mov": 256}


@pytest.mark.parametrize("name", ["fragmented.mp4", "hybrid.mp4", "prores.mov", "h264.mkv", "prores.mkv"])
def test_of_a_days_file_the_head_and_the_tail_are_read(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    size_bytes = 500 * 10**9
    pictures = stretched(name, (recordings / name).read_bytes(), tmp_path / name, size_bytes)
    pread, read = os.pread, []

    def counted(descriptor: int, count: int, offset: int) -> bytes:
        read.append(count)
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", counted)
    found = count_pictures(str(tmp_path / name), name.rpartition(".")[2])
    os.truncate(tmp_path / name, 0)
    assert found is not None
    assert found.count == pictures
    assert sum(read) < 2 * module.TAIL_BYTES


def test_of_a_days_mxf_the_head_and_what_is_behind_its_last_index_are_read(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg writes an index every 250 pictures, which says how many are before it; the file was cut off later."""
    content = bytearray((recordings / "mpeg2.mxf").read_bytes())
    first, footer = found_at(bytes(content), module.INDEX)
    start = content.find(b"\x3f\x0c\x00\x08", first) + 4
    assert content[start : start + 8] == bytes(8)
    content[start : start + 8] = (4_000_000).to_bytes(8, "big")
    path = tmp_path / "a.mxf"
    with path.open("wb") as file:
        file.write(content[:first])
        file.truncate(500 * 10**9)
        file.seek(0, os.SEEK_END)
        file.write(content[first : footer - 3000])
    pread, read = os.pread, []

    def counted(descriptor: int, count: int, offset: int) -> bytes:
        read.append(count)
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", counted)
    found = count_pictures(str(path), "mxf")
    os.truncate(path, 0)
    assert found is not None
    assert 4_000_000 + 295 < found.count <= 4_000_000 + 300
    assert found.rate == 50
    assert sum(read) < 2 * module.INDEXED_BYTES


def test_where_the_rate_is_not_constant_all_is_walked(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time that does not come out even, and a hole in the times, of the tail's fragments."""
    monkeypatch.setattr(module, "TAIL_BYTES", 20_000)
    content = (recordings / "fragmented.mp4").read_bytes()
    for ticks, last in ((100, 20), (512 * 40, 2)):
        made = bytearray(content)
        for place in found_at(content, b"tfdt")[-last:]:
            time = int.from_bytes(content[place + 8 : place + 16], "big") + ticks
            made[place + 8 : place + 16] = time.to_bytes(8, "big")
        path = tmp_path / "uneven.mp4"
        path.write_bytes(made)
        assert compare(path) == 150


def test_of_a_copy_all_is_walked(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times have holes where the source lost pictures: here two seconds of them, before an even tail."""
    monkeypatch.setattr(module, "TAIL_BYTES", 20_000)
    made, path = bytearray((recordings / "fragmented.mp4").read_bytes()), tmp_path / "copy.mp4"
    for place in found_at(bytes(made), b"tfdt")[20:]:
        time = int.from_bytes(made[place + 8 : place + 16], "big") + 2 * 25 * 512
        made[place + 8 : place + 16] = time.to_bytes(8, "big")
    path.write_bytes(made)
    found = count_pictures(str(path), path.suffix[1:], is_even=False)
    by_time = count_pictures(str(path), path.suffix[1:])
    counted, _ = count_frames(FFPROBE, str(path))
    assert found is not None
    assert by_time is not None
    assert counted is not None
    assert found.count == counted < by_time.count - 20


@pytest.mark.parametrize("name", ["fragmented.mp4", "closed.mp4", "prores.mov", "h264.mkv", "mpeg2.mxf"])
@settings(max_examples=60, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_file_holds_it_ends_soon(recordings: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    """Sizes and counts that are not true, in any place."""
    content = bytearray((recordings / name).read_bytes()[:60_000])
    marks = [b"moov", b"trak", b"stsz", b"trun", b"tfhd", b"moof", b"mdat", b"\x1f\x43\xb6\x75", b"\xa3", b"\xe7"]
    marks += [b"\x06\x0e\x2b\x34", b"\x3f\x0c"]
    for _ in range(data.draw(st.integers(1, 4))):
        places = found_at(bytes(content), data.draw(st.sampled_from(marks))) or [0]
        place = data.draw(st.sampled_from(places)) + data.draw(st.integers(-8, 24))
        value = data.draw(st.sampled_from([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"\0\0\0\x01", b"\x08"]))
        content[max(0, place) : max(0, place) + len(value)] = value
    path = tmp_path / name
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = count_pictures(str(path), path.suffix[1:])
    assert found is None or found.count >= 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize("content", [b"", b"moof" * (1 << 20), (b"\0\0\0\x08free") * (1 << 18), b"\x1a\x45\xdf\xa3"])
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "mxf"])
def test_what_is_no_recording_is_for_ffprobe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, container: str
) -> None:
    path = tmp_path / f"a.{container}"
    path.write_bytes(content)
    assert count_pictures(str(path), container) is None


def test_a_walk_without_an_end_is_given_up(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 200)
    for name in ("fragmented.mp4", "h264.mkv", "mpeg2.mxf"):
        assert count_pictures(str(recordings / name), name.rpartition(".")[2]) is None
