"""The tests' camera: what it leaves out, repeats or stamps wrongly is what the eye reads back from a recording."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from camera import MUXERS, Camera, Seen, encode_sound, filming, from_cells, hear, see, to_cells
from hypothesis import given
from hypothesis import strategies as st

FIRST = 44_000_000_000  # in the year 2025, at 25 pictures a second
CONTAINERS = list(MUXERS)
SECOND = FIRST // 25 % 24  # what the sound tells at that time


def film(
    tmp_path: Path, container: str, seconds: float, faults: Sequence[tuple[float, str]] = (), **options: Any
) -> Path:
    """What a viewer gets in so many seconds, without waiting for them."""
    camera = Camera(container, first=FIRST, **options)
    pieces: list[bytes] = []
    for number in range(FIRST, FIRST + round(seconds * camera.rate)):
        for fault in [fault for at_s, fault in faults if FIRST + round(at_s * camera.rate) == number]:
            camera.do(fault, number)
        pieces += [] if pieces else [camera.header()]
        pieces.append(camera.slot(number))
    path = tmp_path / f"film.{container}"
    path.write_bytes(b"".join(pieces))
    return path


def ffmpeg(*words: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, words)], check=True, capture_output=True)


def timestamps(path: Path, track: str = "v:0", *options: str) -> list[float]:
    entries = ["-select_streams", track, "-show_entries", "packet=pts_time", "-of", "csv=p=0"]
    done = subprocess.run(["ffprobe", "-v", "error", *options, *entries, path], capture_output=True, text=True)
    return [float(line.split(",")[0]) for line in done.stdout.split()]


def steps(times: Sequence[float]) -> dict[int, float]:
    """Where the timestamps do not go on by 1/25 s: from which picture on, and by how much more."""
    found = {at: later - before - 0.04 for at, (before, later) in enumerate(pairwise(times), 1)}
    return {at: round(step, 1) for at, step in found.items() if abs(step) > 0.002}


@given(st.integers(0, 2**40 - 1), st.integers(0, 255), st.integers(0, 59))
def test_a_picture_tells_its_number_and_a_damaged_one_tells_nothing(number: int, camera: int, damage: int) -> None:
    cells = to_cells(number, camera)
    assert from_cells(cells) == (number, camera)
    assert from_cells(cells ^ 1 << damage) is None
    assert from_cells(0) is None
    assert from_cells(2**60 - 1) is None


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("size", ["160x96", "352x288", "322x182"])
def test_each_container_gives_each_picture_once(tmp_path: Path, container: str, size: str) -> None:
    path = film(tmp_path, container, 1, size=size, camera=7)
    seen = see(path)
    assert seen.numbers == list(range(FIRST, FIRST + 25))
    assert seen.cameras == {7}
    warnings = subprocess.run(["ffmpeg", "-v", "warning", "-i", path, "-f", "null", "-"], capture_output=True)
    assert warnings.stderr == b""


def test_what_is_coded_again_small_and_coarse_is_still_read(tmp_path: Path) -> None:
    path = film(tmp_path, "mpegts", 2, [(0, "drop=1/10")])
    coded = tmp_path / "coded.mkv"
    ffmpeg("-i", path, "-vf", "scale=124:70", "-fps_mode", "cfr", "-r", "25", "-c:v", "mpeg4", "-b:v", "60k", coded)
    seen = see(coded)
    assert seen.unreadable == 0
    # The first picture is missing before the recording begins; the last copy of a gap is a picture after it, or none.
    assert seen.missing(FIRST) == [(FIRST + at, 1) for at in range(0, 50, 10)]
    assert seen.copies == 4


def test_the_eye_counts_what_is_missing_copied_out_of_order_and_unreadable() -> None:
    seen = Seen([5, 6, 6, 9, 8, None, 12])
    assert (seen.missing(), seen.copies, seen.backwards, seen.unreadable) == ([(7, 1), (10, 2)], 1, 1, 1)
    assert seen.missing(3, 14) == [(3, 2), (7, 1), (10, 2), (13, 2)]
    assert seen.missing(6, 8) == [(7, 1)]
    assert str(seen) == (
        "7 pictures, 5 to 12: 1 copies, 3 missing (1 from 7, 2 from 10), 1 older than the one before, 1 unreadable"
    )


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("fault", "missing", "stepped"),
    [
        ("drop=3/10", [(25, 3), (35, 3), (45, 3)], {25: 0.1, 32: 0.1, 39: 0.1}),
        ("silence=0.8", [(25, 20)], {25: 0.8}),
        ("pause=0.8", [(25, 20)], {}),
        ("outlier=20", [], {25: 20.0, 26: -20.0}),
        ("jump=20", [], {25: 20.0}),
        ("jump=-0.5", [], {25: -0.5}),
        ("reset", [], {25: -1.0}),
        ("ahead=10/5", [], {25: 5.0, 26: -5.0, 35: 5.0, 36: -5.0, 45: 5.0, 46: -5.0}),
        ("slow=0.5", [(at, 1) for at in range(25, 50, 2)], {}),
        ("dark=0.4", [(25, 10)], {25: 0.4}),
    ],
)
def test_a_fault_is_in_the_pictures_and_in_the_timestamps(
    tmp_path: Path, container: str, fault: str, missing: list[tuple[int, int]], stepped: dict[int, float]
) -> None:
    path = film(tmp_path, container, 2, [(1, fault)])
    seen = see(path)
    assert (seen.copies, seen.backwards, seen.unreadable) == (0, 0, 0)
    assert seen.missing(FIRST, FIRST + 49) == [(FIRST + at, count) for at, count in missing]
    if container == "mpegts" and (abs(stepped.get(25, 0)) > 10 or stepped.get(25, 0) < 0):
        return  # FFmpeg takes these for discontinuities of the transport stream
    assert steps(timestamps(path)) == stepped


@pytest.mark.parametrize("container", ["mpegts", "flv"])
def test_the_timestamps_wrap_where_the_container_wraps(tmp_path: Path, container: str) -> None:
    start_s = MUXERS[container].wraps_s - 1
    path = film(tmp_path, container, 2, start_s=start_s)
    assert len(see(path).readable) == 50
    # FFmpeg corrects a wrap of MPEG-TS where it knows when the stream began.
    times = timestamps(path, "v:0", "-correct_ts_overflow", "0")
    assert any(step < -90000 for step in steps(times).values())


def test_a_size_and_a_slate_and_a_range(tmp_path: Path) -> None:
    for container in CONTAINERS:
        path = film(tmp_path, container, 1, [(0, "slate=5/320x240"), (0.8, "size=240x160"), (0.9, "range=full")])
        assert see(path).numbers == list(range(FIRST, FIRST + 25))
        entries = ["-show_entries", "frame=width,height,color_range", "-of", "csv=p=0"]
        done = subprocess.run(["ffprobe", "-v", "error", *entries, path], capture_output=True, text=True)
        told = [line.strip(",") for line in done.stdout.split()]
        counts = {what: told.count(what) for what in dict.fromkeys(told)}
        assert counts == {"320,240,tv": 5, "160,96,tv": 15, "240,160,tv": 2, "240,160,pc": 3}, container


def test_the_sound_tells_the_second_and_is_silent_on_command(tmp_path: Path) -> None:
    sound = encode_sound()
    for container in CONTAINERS:
        heard = hear(film(tmp_path, container, 3, sound=sound))
        # The tenths in which one tone follows the other may tell either.
        assert [heard[at] for at in (2, 5, 8, 12, 15, 18, 22, 25, 28)] == [
            (SECOND + second) % 24 for second in (0, 0, 0, 1, 1, 1, 2, 2, 2)
        ]
        path = film(tmp_path, container, 3, [(1, "mute=1")], sound=sound)
        assert list(steps(timestamps(path))) == []
        gaps = [later - before for before, later in pairwise(timestamps(path, "a:0")) if later - before > 0.1]
        assert gaps == [pytest.approx(1, abs=0.05)]
        path = film(tmp_path, container, 1, [(0, "mute")], sound=sound)
        assert timestamps(path, "a:0") == []
        assert len(timestamps(path)) == 25


# ---------------------------------------------------------------- in real time


def said(process: subprocess.Popen[str], words: str) -> int:
    """Wait for a camera to say that; the picture for which it holds."""
    assert process.stderr is not None
    for line in process.stderr:
        found = re.fullmatch(rf"(\d+) {words}", line.strip())
        if found:
            return int(found[1])
    raise AssertionError(f"the camera ended and did not say {words!r}")


def test_over_tcp_it_runs_by_the_clock_and_takes_faults_on_command(tmp_path: Path) -> None:
    with filming("flv", "tcp://127.0.0.1:0") as process:
        assert process.stderr is not None
        assert process.stdin is not None
        port = process.stderr.readline().split()[-1]
        begun = time.time()
        path = tmp_path / "copy.mkv"
        source = ["-i", f"tcp://127.0.0.1:{port}", "-c", "copy", path]
        viewer = subprocess.Popen(["ffmpeg", "-v", "error", "-nostdin", *map(str, source)])
        first = said(process, "viewer")
        process.stdin.write("drop=1/2\n")
        process.stdin.flush()
        faulty = said(process, "drop=1/2")
        time.sleep(0.5)
        process.stdin.write("drop=0/1\nclose\n")
        process.stdin.flush()
        closed = said(process, "close")
        viewer.wait(20)
        ended = time.time()
    seen = see(path)
    assert seen.numbers[0] == first
    # The last may be cut off where the connection ended.
    missing = [number for number, count in seen.missing(first, max(seen.readable)) for _ in range(count)]
    assert missing == list(range(faulty, min(closed, max(seen.readable) + 1), 2))
    assert 5 <= len(missing) <= 25 * (ended - begun) / 2 + 1
    assert begun - 0.1 <= first / 25 <= max(seen.readable) / 25 <= ended


def test_a_fifo_and_a_viewer_after_the_other(tmp_path: Path) -> None:
    fifo = tmp_path / "camera.fifo"
    os.mkfifo(fifo)
    with filming("--rate", "50", "--fault", "0.2:silence=0.1", "mpegts", str(fifo)) as process:
        for viewer in range(2):
            with fifo.open("rb") as file:
                data = b""
                while len(data) < 800_000:
                    assert select.select([file], [], [], 10)[0]
                    data += file.read1(1 << 16)
            (tmp_path / "film.ts").write_bytes(data)
            seen = see(tmp_path / "film.ts")
            assert len(seen.readable) > 30
            # The fault is of the first viewer's time alone.
            first = said(process, "viewer")
            assert [count for _, count in seen.missing()] == ([] if viewer else [5])
            assert seen.numbers[0] == first
        assert abs(max(seen.readable) / 50 - time.time()) < 60


def test_a_fault_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no fault 'droop=1/2'"):
        Camera("flv", first=FIRST, rate=Fraction(25)).do("droop=1/2", FIRST)
