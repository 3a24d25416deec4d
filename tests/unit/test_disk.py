"""The recording's file: whether it holds a frame, and that it is ours and nobody else's."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract.disks import say_in
from sdisup.contract.media import MXF_PICTURE, holds_media
from sdisup.contract.timecode import counting
from sdisup.runner import disk
from sdisup.runner.disk import (
    HEAD_BYTES,
    SAMPLE_S,
    Closed,
    FirstMedia,
    Named,
    Opened,
    OpenFailed,
    Place,
    RecordingFile,
    Sample,
    recording_files,
)
from sdisup.runner.stamp import Stamp
from sdisup.runner.unnamed import make_unnamed

DEADLINE_S = 60.0
FFMPEG = shutil.which("ffmpeg") or "ffmpeg"
MUXERS = {"mkv": "matroska", "mp4": "mp4", "mov": "mov", "mxf": "mxf"}
X264 = ("libx264", "-preset", "ultrafast", "-tune", "zerolatency")
ENCODERS = {"mkv": X264, "mp4": X264, "mov": X264, "mxf": ("mpeg2video", "-bf", "2")}
CONTAINERS = pytest.mark.parametrize("container", MUXERS)
Found = TypeVar("Found")


def holds(container: str, content: bytes) -> bool:
    return holds_media(container, len(content), lambda count, offset: content[offset : offset + count])


# ---- What a file holds ----


def make_media(directory: Path, container: str, frames: int, *, fragmented: bool = True, timecode: str = "") -> bytes:
    """What FFmpeg makes of some frames of its test picture, with the container options that ports use."""
    path = directory / f"{frames}-{fragmented}.{container}"
    options = ["-cluster_time_limit", "200"] if container == "mkv" else []
    if container in ("mp4", "mov"):
        options = ["-movflags", "+empty_moov+default_base_moof", "-frag_duration", "200000"] if fragmented else []
    if timecode:
        options += ["-metadata", f"timecode={timecode}", "-fflags", "+bitexact", "-flags", "+bitexact"]
    subprocess.run(
        [
            *(FFMPEG, "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"),
            *("-frames:v", str(frames), "-c:v", *ENCODERS[container], "-g", "25"),
            *(*options, "-flush_packets", "1", "-f", MUXERS[container], str(path)),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path.read_bytes()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("media")
    return {container: make_media(directory, container, 30) for container in MUXERS}


def first_media_at(container: str, content: bytes) -> int:
    """The shortest beginning of the file that holds media."""
    low, high = 0, len(content)
    while low < high:
        middle = (low + high) // 2
        if holds(container, content[:middle]):
            high = middle
        else:
            low = middle + 1
    return low


def frames_in(directory: Path, container: str, content: bytes) -> int:
    """How many frames a player finds in it."""
    path = directory / f"part.{container}"
    path.write_bytes(content)
    done = subprocess.run(
        [FFMPEG, "-v", "error", "-i", str(path), "-f", "framecrc", "-"], capture_output=True, stdin=subprocess.DEVNULL
    )
    return len([line for line in done.stdout.splitlines() if line and not line.startswith(b"#")])


@CONTAINERS
def test_a_growing_file_holds_media_from_its_first_whole_frames_on(
    media: dict[str, bytes], container: str, tmp_path: Path
) -> None:
    content = media[container]
    first = first_media_at(container, content)
    assert 0 < first < len(content)
    assert frames_in(tmp_path, container, content[:first]) >= 1
    steps = [*range(0, len(content), 499), *range(max(0, first - 300), first + 300), len(content)]
    for length in steps:
        assert holds(container, content[:length]) is (length >= first), length


@CONTAINERS
def test_a_header_alone_is_no_media(media: dict[str, bytes], container: str, tmp_path: Path) -> None:
    content = media[container]
    marks = {"mkv": b"\x1f\x43\xb6\x75", "mp4": b"moof", "mov": b"moof", "mxf": MXF_PICTURE}
    header = content[: content.index(marks[container])]
    assert len(header) > 300
    assert not holds(container, header)
    assert frames_in(tmp_path, container, header) == 0
    # Nor is the beginning of what is to hold the first frames.
    assert not holds(container, content[: len(header) + 40])


@CONTAINERS
def test_a_file_without_a_frame_is_no_media(container: str, tmp_path: Path) -> None:
    assert not holds(container, b"")
    assert not holds(container, make_media(tmp_path, container, 0))


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_an_ordinary_file_is_media_once_it_is_closed(container: str, tmp_path: Path) -> None:
    """As hybrid_fragmented leaves it: the frames first, the moov that describes them behind them."""
    content = make_media(tmp_path, container, 5, fragmented=False)
    assert content.index(b"mdat") < content.index(b"moov")
    assert holds(container, content)
    assert first_media_at(container, content) == len(content)


def box(kind: bytes, payload: bytes, length: int | None = None) -> bytes:
    return (len(payload) + 8 if length is None else length).to_bytes(4, "big") + kind + payload


FTYP, MOOV, MOOF, MDAT = (
    box(b"ftyp", b"isom" * 4),
    box(b"moov", bytes(90)),
    box(b"moof", bytes(90)),
    box(b"mdat", bytes(99)),
)
LARGE_MDAT = b"\0\0\0\1mdat" + (16 + 99).to_bytes(8, "big") + bytes(99)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # hybrid_fragmented while it grows, and once it is closed (FFmpeg 7.1)
        (FTYP + box(b"free", bytes(8)) + MOOV, False),
        (FTYP + box(b"free", bytes(8)) + MOOV + MOOF, False),
        (FTYP + box(b"free", bytes(8)) + MOOV + MOOF + MDAT[:-1], False),
        (FTYP + box(b"free", bytes(8)) + MOOV + MOOF + MDAT, True),
        (FTYP + box(b"free", b"") + MDAT + MOOV, True),
        (FTYP + box(b"free", b"") + LARGE_MDAT + MOOV, True),
        (FTYP + box(b"free", b"") + MDAT + MOOV[:-1], False),
        (FTYP + MDAT, False),
        # an ordinary file while it grows: the mdat's length is not known yet
        (FTYP + box(b"free", b"") + box(b"mdat", bytes(999), length=0), False),
        (FTYP + MOOV + MOOF + LARGE_MDAT, True),
        (FTYP + MOOV + MOOF + LARGE_MDAT[:-1], False),
        # no frames in it
        (FTYP + box(b"mdat", b"") + MOOV, False),
        (FTYP + MOOV + box(b"mdat", b""), False),
        # what no muxer writes
        (box(b"ftyp", b"", length=7) + MOOV + MDAT, False),
        (box(b"ftyp", b"", length=0xFFFFFFFF) + MOOV + MDAT, False),
        (b"\0\0\0\1ftyp" + bytes(8) + MOOV + MDAT, False),
        (b"\0\0\0\1ftyp" + b"\xff" * 8 + MOOV + MDAT, False),
        (b"\0" * 4096, False),
    ],
)
def test_boxes(content: bytes, expected: bool) -> None:
    assert holds("mp4", content) is expected


@given(container=st.sampled_from(list(MUXERS)), content=st.binary(max_size=200), flips=st.binary(max_size=8))
def test_no_bytes_raise_and_the_walk_ends(container: str, content: bytes, flips: bytes) -> None:
    for beginning in (b"", FTYP + MOOV, b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7):
        assert holds(container, beginning + flips + content) in (True, False)


@given(st.data())
def test_no_damage_raises(media: dict[str, bytes], data: st.DataObject) -> None:
    container = data.draw(st.sampled_from(list(MUXERS)))
    content = bytearray(media[container][:4000])
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=9)
    ):
        content[place] = value
    assert holds(container, bytes(content)) in (True, False)


@CONTAINERS
def test_a_file_that_shrinks_under_the_walk_is_no_media(media: dict[str, bytes], container: str) -> None:
    """FFmpeg truncates it as it opens it, between the asking of its size and the reading."""
    content = media[container]
    for length in range(0, 80, 3):

        def read(count: int, offset: int, part: bytes = content[:length]) -> bytes:
            return part[offset : offset + count]

        assert holds_media(container, len(content), read) is False


def test_a_walk_never_reads_much(media: dict[str, bytes]) -> None:
    for container, content in media.items():
        asked: list[int] = []

        def read(count: int, offset: int, content: bytes = content, asked: list[int] = asked) -> bytes:
            asked.append(count)
            return content[offset : offset + count]

        assert holds_media(container, len(content), read)
        assert sum(asked) <= HEAD_BYTES


# ---- The file ----


class Recorder:
    """RecordingFiles in a directory of the test's, with every event that they have told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_unnamed = True
        self.files: list[RecordingFile] = []
        self._told = threading.Condition()

    def _wake(self) -> None:
        with self._told:
            self._told.notify_all()

    def open(
        self,
        container: str = "mkv",
        directory: Path | None = None,
        filesystem: str = "",
        note: str = "",
        template: str = "CAM3_{utc}",
        *,
        is_ahead: bool = False,
    ) -> RecordingFile:
        place = Place(str(self.directory), str(directory or self.directory), template, container, filesystem, note)
        self.files.append(RecordingFile(place, 0.02, self._wake, is_ahead=is_ahead))
        return self.files[-1]

    def wait(self, file: RecordingFile, kind: type[Found]) -> Found:
        """The next event of a kind; those before it are dropped. Fails after the deadline."""
        limit = time.monotonic() + DEADLINE_S
        with self._told:
            while True:
                while file.events:
                    event = file.events.popleft()
                    if isinstance(event, kind):
                        return event
                remaining = limit - time.monotonic()
                assert remaining > 0, f"no {kind.__name__}"
                # A Sample that is no news wakes nobody.
                self._told.wait(min(remaining, 0.05))

    def opened(self, container: str = "mkv") -> tuple[RecordingFile, Path]:
        file = self.open(container)
        return file, Path(self.wait(file, Opened).path)

    def output(self, file: RecordingFile) -> Path:
        """What FFmpeg writes to, whatever name the file has."""
        return Path(f"/proc/self/fd/{file._descriptor}")

    def write(self, file: RecordingFile, content: bytes) -> None:
        self.output(file).write_bytes(content)

    def write_when_opened(self, file: RecordingFile, content: bytes) -> None:
        self.wait(file, Opened)
        self.write(file, content)

    def closed(self, file: RecordingFile) -> Closed:
        file.finish()
        return self.wait(file, Closed)


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < limit, "it does not come"
        time.sleep(0.005)


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.fixture(params=["unnamed", "named"])
def recorder(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Ends every thread that it began, also after a failed test. Some filesystems have no files without a name."""
    before = threads()
    monkeypatch.setattr(disk, "SAMPLE_S", 0.05)
    if request.param == "named":
        monkeypatch.setattr(disk, "make_unnamed", lambda directory: -1)
    made = Recorder(tmp_path)
    made.is_unnamed = request.param == "unnamed"
    yield made
    for file in made.files:
        file.finish()
    wait_until(lambda: threads() <= before)


NAMED = pytest.mark.parametrize("recorder", ["named"], indirect=True)
UNNAMED = pytest.mark.parametrize("recorder", ["unnamed"], indirect=True)


class StandingClock:
    """What disk.py uses of time, with a clock that does not move."""

    def __init__(self, now: float) -> None:
        self.module = SimpleNamespace(
            time=lambda: now, sleep=time.sleep, monotonic=time.monotonic, gmtime=time.gmtime, strftime=time.strftime
        )


@pytest.fixture
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "time", StandingClock(1769860800.0).module)


def test_the_file_is_made_empty_and_for_the_group_to_write(recorder: Recorder) -> None:
    before = os.umask(0o002)
    try:
        file, path = recorder.opened()
    finally:
        os.umask(before)
    made = recorder.output(file).stat()
    assert path.parent == recorder.directory and made.st_size == 0
    assert stat.S_IMODE(made.st_mode) == 0o664
    assert recorder.closed(file).kept is False


@CONTAINERS
def test_a_file_that_grows_is_told_of_from_its_first_frames_on(
    recorder: Recorder, media: dict[str, bytes], container: str
) -> None:
    content = media[container]
    first = first_media_at(container, content)
    file, path = recorder.opened(container)
    with open(recorder.output(file), "wb", buffering=0) as writer:
        for start in range(0, first - 1, 700):
            writer.write(content[start : min(start + 700, first - 1)])
        assert not any(isinstance(event, FirstMedia) for event in list(file.events))
        writer.write(content[first - 1 : first])
        recorder.wait(file, FirstMedia)
        writer.write(content[first:])
    sample = recorder.wait(file, Sample)
    assert first <= sample.size_bytes <= len(content)
    assert not sample.moved and sample.disk_free_bytes > 0
    device = path.stat().st_dev
    assert sample.filesystem == f"{os.major(device)}:{os.minor(device)}"
    closed = recorder.closed(file)
    assert (closed.kept, closed.size_bytes, closed.problem) == (True, len(content), "")
    assert path.read_bytes() == content


def test_a_header_alone_is_removed_at_the_end(recorder: Recorder, media: dict[str, bytes]) -> None:
    file, _ = recorder.opened()
    recorder.write(file, media["mkv"][: first_media_at("mkv", media["mkv"]) - 1])
    closed = recorder.closed(file)
    assert (closed.kept, closed.problem) == (False, "")
    assert os.listdir(recorder.directory) == []


def test_a_short_recording_whose_frames_come_with_its_end_is_kept(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start and a stop within one fragment: what FFmpeg leaves is an ordinary, finished file."""
    content = make_media(tmp_path, "mp4", 5, fragmented=False)
    assert len(content) < HEAD_BYTES
    looked_at: list[int] = []

    def look(container: str, size_bytes: int, read: Callable[[int, int], bytes]) -> bool:
        found = holds_media(container, size_bytes, read)
        looked_at.append(size_bytes)
        return found

    monkeypatch.setattr(disk, "holds_media", look)
    file, path = recorder.opened("mp4")
    # Of the same length before and after: the trailer's last act is to patch the length of the frames' box.
    patched = content.index(b"mdat") - 4
    recorder.write(file, content[:patched] + bytes(4) + content[patched + 4 :])
    wait_until(lambda: len(content) in looked_at)
    with open(recorder.output(file), "r+b") as writer:
        writer.write(content)
    closed = recorder.closed(file)
    assert closed.kept and path.read_bytes() == content


def test_what_is_large_is_never_removed_whatever_it_holds(recorder: Recorder) -> None:
    file, path = recorder.opened()
    recorder.write(file, b"x" * (HEAD_BYTES + 1))
    assert recorder.closed(file).kept
    assert path.exists()


@NAMED
@pytest.mark.usefixtures("standing_clock")
def test_names_are_unique_when_the_clock_stands_still(recorder: Recorder) -> None:
    names = [recorder.opened()[1].name for _ in range(5)]
    assert names == [
        "CAM3_20260131T120000Z.mkv",
        *[f"CAM3_20260131T120000Z_{number}.mkv" for number in range(2, 6)],
    ]


@pytest.mark.usefixtures("standing_clock")
def test_two_at_once_never_share_a_file(recorder: Recorder, media: dict[str, bytes]) -> None:
    files = [recorder.open() for _ in range(20)]
    for file in files:
        recorder.wait(file, Opened)
    for file in files:
        recorder.write(file, media["mkv"])
    paths = [recorder.wait(file, Named).path for file in files]
    assert len(set(paths)) == 20
    assert len(os.listdir(recorder.directory)) == 20


@pytest.mark.usefixtures("standing_clock")
@pytest.mark.parametrize("kind", ["file", "empty file", "directory", "symlink", "dangling symlink", "fifo"])
def test_what_exists_is_never_touched(recorder: Recorder, kind: str, tmp_path: Path) -> None:
    """Invariant 3: also an empty file is somebody's, and a link leads elsewhere."""
    existing = tmp_path / "CAM3_20260131T120000Z.mkv"
    elsewhere = tmp_path / "elsewhere"
    if kind.endswith("file"):
        existing.write_bytes(b"" if kind == "empty file" else b"a recording")
    elif kind == "directory":
        existing.mkdir()
    elif kind.endswith("symlink"):
        existing.symlink_to(elsewhere)
        if kind == "symlink":
            elsewhere.write_bytes(b"a recording")
    else:
        os.mkfifo(existing)
    before = os.lstat(existing)
    file, path = recorder.opened()
    assert path.name == "CAM3_20260131T120000Z_2.mkv"
    assert recorder.closed(file).kept is False
    after = os.lstat(existing)
    assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns) == (
        before.st_ino, before.st_mode, before.st_size, before.st_mtime_ns,
    )  # fmt: skip
    assert elsewhere.exists() is (kind == "symlink")


@NAMED
def test_an_empty_file_that_was_renamed_over_is_not_removed(recorder: Recorder, tmp_path: Path) -> None:
    file, path = recorder.opened()
    (tmp_path / "other").write_bytes(b"somebody else's")
    os.replace(tmp_path / "other", path)
    assert recorder.closed(file).kept
    assert path.read_bytes() == b"somebody else's"


@NAMED
def test_an_empty_file_that_was_removed_already_is_no_error(recorder: Recorder) -> None:
    file, path = recorder.opened()
    path.unlink()
    closed = recorder.closed(file)
    assert (closed.kept, closed.problem) == (False, "")


@pytest.mark.parametrize(("size_bytes", "is_kept"), [(2500, False), (HEAD_BYTES, False), (HEAD_BYTES + 1, True)])
def test_a_large_file_is_kept_whatever_ffmpeg_counted(
    recorder: Recorder, media: dict[str, bytes], size_bytes: int, is_kept: bool
) -> None:
    file, path = recorder.opened()
    recorder.write(file, media["mkv"].ljust(size_bytes, b"\0")[:size_bytes])
    file.finish(is_empty=True)
    assert recorder.wait(file, Closed).kept is is_kept
    assert path.exists() is is_kept


def test_a_recording_that_was_moved_is_told(recorder: Recorder, media: dict[str, bytes], tmp_path: Path) -> None:
    file, path = recorder.opened()
    with open(recorder.output(file), "wb") as writer:
        writer.write(media["mkv"])
    recorder.wait(file, FirstMedia)
    os.rename(path, tmp_path / "moved")
    wait_until(lambda: recorder.wait(file, Sample).moved)
    assert recorder.closed(file).kept
    assert (tmp_path / "moved").read_bytes() == media["mkv"]


def test_a_recording_that_was_deleted_is_told(recorder: Recorder, media: dict[str, bytes]) -> None:
    file, path = recorder.opened()
    recorder.write(file, media["mkv"])
    sample = recorder.wait(file, Sample)
    assert not sample.deleted
    path.unlink()
    wait_until(lambda: recorder.wait(file, Sample).deleted)
    assert recorder.closed(file).kept


@NAMED
@pytest.mark.parametrize("action", ["moved", "replaced", "deleted"])
def test_what_befalls_the_name_before_the_first_frame_is_told(recorder: Recorder, tmp_path: Path, action: str) -> None:
    """FFmpeg has the file itself and not its name: what was moved goes on, and what was deleted is begun anew."""
    file, path = recorder.opened()
    if action == "deleted":
        path.unlink()
    else:
        os.rename(path, tmp_path / "moved")
    if action == "replaced":
        path.write_bytes(b"somebody else's")
    sample = recorder.wait(file, Sample)
    assert (sample.moved, sample.deleted, sample.size_bytes) == (True, action == "deleted", 0)


def test_before_the_first_frame_the_runner_is_not_kept_busy(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port without a signal makes a file each second, and may do so for months."""
    monkeypatch.setattr(disk, "SAMPLE_S", SAMPLE_S)
    began = time.monotonic()
    file, _ = recorder.opened()
    sample = recorder.wait(file, Sample)
    assert time.monotonic() - began > 0.9
    assert not sample.moved and not sample.deleted and sample.disk_free_bytes > 0


FAILURES = pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ESTALE, "Stale file handle"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=lambda error: errno.errorcode[error.errno],
)


@FAILURES
@pytest.mark.parametrize("call", ["stat", "fstatvfs", "fstat", "pread"])
def test_a_look_that_fails_is_told_and_the_watch_goes_on(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, call: str, error: OSError
) -> None:
    file, path = recorder.opened()
    true_call = getattr(os, call)
    fails = True

    def fail(what: int | str, *arguments: int, **options: bool) -> object:
        if fails and (what == str(path) or what == file._descriptor):
            raise error
        return true_call(what, *arguments, **options)

    monkeypatch.setattr(disk, "SAMPLE_S", 0.02)
    monkeypatch.setattr(os, call, fail)
    recorder.write(file, media["mkv"])
    wait_until(lambda: bool(file.watch_problem))
    assert file.watch_problem == f"{path} cannot be looked at: {error.strerror}"
    if call != "fstat":
        # What is known is told all the same: a file that grows is not to be called stalled.
        sample = recorder.wait(file, Sample)
        assert (sample.size_bytes, sample.moved) == (len(media["mkv"]), False)
        assert sample.disk_free_bytes > 0
    fails = False
    wait_until(lambda: not file.watch_problem)
    wait_until(lambda: file._has_media)
    assert recorder.wait(file, Sample).size_bytes == len(media["mkv"])
    closed = recorder.closed(file)
    assert (closed.kept, closed.problem) == (True, "")


def test_a_directory_that_was_replaced_by_a_file_has_taken_the_recording_along(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path
) -> None:
    file = recorder.open(directory=tmp_path / "match")
    recorder.wait(file, Opened)
    recorder.write(file, media["mkv"])
    recorder.wait(file, FirstMedia)
    os.rename(tmp_path / "match", tmp_path / "elsewhere")
    (tmp_path / "match").touch()
    wait_until(lambda: recorder.wait(file, Sample).moved)
    assert file.watch_problem == ""
    assert recorder.closed(file).kept


FOLDERS = "{utc_year}/day/{utc_date}_{counter}"


@pytest.mark.usefixtures("standing_clock")
def test_folders_are_made_with_the_first_frame(recorder: Recorder, media: dict[str, bytes], tmp_path: Path) -> None:
    """A port without a signal tries for months, and is to leave no folder a day, or a second."""
    for _ in range(2):
        file = recorder.open(directory=tmp_path / "match", template=FOLDERS)
        path = Path(recorder.wait(file, Opened).path)
        assert path == tmp_path / "match/2026/day/2026-01-31_0001.mkv"
        assert path.parent.exists() is not recorder.is_unnamed
        assert recorder.closed(file).kept is False
        assert os.listdir(tmp_path) == []
    file = recorder.open(directory=tmp_path / "match", template=FOLDERS)
    recorder.wait(file, Opened)
    recorder.write(file, media["mkv"])
    assert Path(recorder.wait(file, Named).path) == path and path.read_bytes() == media["mkv"]
    assert not recorder.wait(file, Sample).moved
    assert recorder.closed(file).kept


@NAMED
def test_folders_that_hold_something_else_by_then_stay(recorder: Recorder, tmp_path: Path) -> None:
    file = recorder.open(template="a/b/c/{utc}")
    recorder.wait(file, Opened)
    (tmp_path / "a/notes.txt").touch()
    assert recorder.closed(file) == Closed(0, kept=False, problem="")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/notes.txt"]
    file = recorder.open(template="a/b/c/{utc}")
    recorder.wait(file, Opened)
    (tmp_path / "a/b").rename(tmp_path / "moved")
    (tmp_path / "a/b").mkdir()
    assert recorder.closed(file) == Closed(0, kept=False, problem="")
    assert sorted(os.listdir(tmp_path)) == ["a", "moved"] and sorted(os.listdir(tmp_path / "a")) == ["b", "notes.txt"]


@UNNAMED
@pytest.mark.parametrize("failing", ["mkdir", "open", "dup"])
def test_a_folder_that_cannot_be_made_is_made_with_the_next_look(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = recorder.open(template="a/b/x")
    recorder.wait(file, Opened)
    true_one, failed = getattr(os, failing), threading.Event()

    def fail_once(*arguments: object, **options: object) -> object:
        is_ours = failing == "dup" or arguments[0] == "b"
        if is_ours and not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return true_one(*arguments, **options)

    descriptors = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, failing, fail_once)
    recorder.write(file, media["mkv"])
    recorder.wait(file, FirstMedia)
    assert failed.is_set()
    recorder.wait(file, Sample)
    closed = recorder.closed(file)
    assert closed == Closed(len(media["mkv"]), True, "", (tmp_path / "a/b/x.mkv").lstat().st_ino)
    # Its thread that syncs may close the last one a moment later.
    wait_until(lambda: len(os.listdir("/proc/self/fd")) < descriptors)


def test_a_counter_goes_on_after_the_highest_number_in_the_folder(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where older ones were moved away, or are in another container."""
    for name in ("CAM_0004.mov", "CAM_12000.mp4", "CAM_0013_x.mkv", "notes"):
        (tmp_path / name).touch()
    for number in (12001, 12002):
        file = recorder.open(template="CAM_{counter}")
        recorder.write_when_opened(file, media["mkv"])
        assert Path(recorder.wait(file, Named).path).name == f"CAM_{number}.mkv"
        assert recorder.closed(file).kept


def test_a_name_without_a_moment_is_numbered_for_ever(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("CAM.mkv", "CAM_2.mkv", "CAM_99999.mkv"):
        (tmp_path / name).touch()
    file = recorder.open(template="CAM")
    recorder.write_when_opened(file, media["mkv"])
    assert Path(recorder.wait(file, Named).path).name == "CAM_100000.mkv"
    assert recorder.closed(file).kept


def test_a_directory_below_the_recordings_is_made(recorder: Recorder, media: dict[str, bytes], tmp_path: Path) -> None:
    file = recorder.open(directory=tmp_path / "match" / "day")
    assert Path(recorder.wait(file, Opened).path).parent == tmp_path / "match" / "day"
    recorder.write(file, media["mkv"])
    assert Path(recorder.wait(file, Named).path).parent == tmp_path / "match" / "day"


@pytest.mark.parametrize(
    ("existing", "below", "synced"),
    [
        ("", "match/day", {"match/day", "match", ""}),
        ("", "match/day/", {"match/day", "match", ""}),
        ("match", "match/day", {"match/day", "match"}),
        ("match/day", "match/day", {"match/day"}),
        ("", "", {""}),
    ],
)
def test_directories_that_are_made_are_made_durable_in_theirs(
    recorder: Recorder,
    media: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    existing: str,
    below: str,
    synced: set[str],
) -> None:
    """What is synced in a directory that a power cut takes away is lost with it."""
    done: list[str] = []

    true_sync = os.fsync

    def sync(descriptor: int) -> None:
        true_sync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(path):
            done.append(os.path.relpath(path, tmp_path))

    monkeypatch.setattr(os, "fsync", sync)
    (tmp_path / existing).mkdir(parents=True, exist_ok=True)
    place = Place(str(tmp_path), f"{tmp_path}/{below}" if below else str(tmp_path), "CAM3_{utc}", "mkv")
    file = RecordingFile(place, 0.02, recorder._wake)
    recorder.files.append(file)
    recorder.wait(file, Opened)
    assert done == []
    recorder.write(file, media["mkv"])
    wanted = {directory or "." for directory in synced}
    wait_until(lambda: set(done) >= wanted)
    recorder.closed(file)
    assert set(done) == wanted and file.sync_problem == ""


def test_the_space_that_counts_is_where_the_file_goes(recorder: Recorder, tmp_path: Path) -> None:
    """Another disk that somebody has mounted below the recordings is where the path says."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(small)], check=True)
    try:
        failed = recorder.wait(recorder.open(directory=small), OpenFailed)
        assert failed.reason == f"disk full: {small} has 1.0 MB free; free some space"
        assert recorder.wait(recorder.open(), Opened).path
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_directory_that_is_a_link_is_where_it_leads(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "recordings").symlink_to("disk")
    recorder.directory = tmp_path / "recordings"
    file, path = recorder.opened()
    assert path.parent == tmp_path / "recordings"
    recorder.write(file, media["mkv"])
    recorder.wait(file, FirstMedia)
    assert os.listdir(tmp_path / "disk") == [path.name]


@pytest.mark.parametrize("what", ["link", "dangling link", "file", "fifo"])
@pytest.mark.parametrize("below", ["match", "match/day"])
def test_nothing_but_directories_leads_to_the_file(recorder: Recorder, tmp_path: Path, what: str, below: str) -> None:
    """Whoever may write below the recordings could lead them to where only the user sdisup may write."""
    (tmp_path / "ledger").mkdir()
    recorder.directory = tmp_path / "recordings"
    planted = recorder.directory / below
    planted.parent.mkdir(parents=True)
    if what == "fifo":
        os.mkfifo(planted)
    elif what == "file":
        planted.touch()
    else:
        planted.symlink_to(tmp_path / ("ledger" if what == "link" else "nothing"))
    descriptors = len(os.listdir("/proc/self/fd"))
    failed = recorder.wait(recorder.open(directory=recorder.directory / below / "cup"), OpenFailed)
    why = f"{planted} is a link or a file, and recordings go into directories alone: move it away"
    assert failed.reason == f"no file can be made in {recorder.directory}: {why}"
    assert os.listdir(tmp_path / "ledger") == [] and not (tmp_path / "nothing").exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_what_holds_no_frame_is_removed_where_it_was_made(recorder: Recorder, tmp_path: Path) -> None:
    """The directory's path may lead elsewhere by then."""
    (tmp_path / "match").mkdir()
    file = recorder.open(directory=tmp_path / "match")
    name = Path(recorder.wait(file, Opened).path).name
    (tmp_path / "match").rename(tmp_path / "moved")
    (tmp_path / "match").mkdir()
    (tmp_path / "match" / name).touch()
    assert recorder.closed(file).kept is False
    assert os.listdir(tmp_path / "moved") == [] and os.listdir(tmp_path / "match") == [name]


@pytest.mark.parametrize("below", [None, "match"])
def test_a_missing_directory_is_never_made(recorder: Recorder, tmp_path: Path, below: str | None) -> None:
    """It may be the mount point of a disk that is missing: recordings must not fill the one beneath."""
    recorder.directory = tmp_path / "missing"
    failed = recorder.wait(recorder.open(directory=recorder.directory / below if below else None), OpenFailed)
    assert failed.reason == (
        f"{tmp_path}/missing does not exist; mount it or make it: "
        f"install -d -o sdisup -g sdisup -m 2775 {tmp_path}/missing"
    )
    assert not (tmp_path / "missing").exists()


def test_a_directory_that_is_a_file(recorder: Recorder, tmp_path: Path) -> None:
    recorder.directory = tmp_path / "file"
    recorder.directory.touch()
    failed = recorder.wait(recorder.open(), OpenFailed)
    assert failed.reason == f"no file can be made in {tmp_path}/file: Not a directory"


@pytest.mark.parametrize(
    ("remembered", "is_right"),
    [("xfs:uuid-2f3c", True), ("xfs", True), ("xfs:uuid-aaaa", False), ("ext4:fsid-2f3c", False)],
)
def test_another_disk_than_apply_found_is_not_written_to(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, remembered: str, is_right: bool
) -> None:
    monkeypatch.setattr(disk, "filesystem_identity", lambda path: "xfs:uuid-2f3c")
    file = recorder.open(filesystem=remembered)
    if is_right:
        assert recorder.wait(file, Opened).path
    else:
        reason = recorder.wait(file, OpenFailed).reason
        assert reason.startswith(f"{recorder.directory} is on xfs:uuid-2f3c, not on {remembered} as when")
        assert os.listdir(recorder.directory) == []


def test_the_first_disk_that_is_not_the_systems_is_the_right_one(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """apply came before the disk was mounted, and no other one comes before the machine is down again."""
    note = str(tmp_path / "disks" / "3")
    steps = [
        ("ext4:fsid-1 with /", True), ("xfs:uuid-2f3c", True), ("ext4:fsid-1 with /", False), ("xfs:uuid-aaaa", False),
        ("xfs:uuid-2f3c", True),
    ]  # fmt: skip
    for found, is_right in steps:
        monkeypatch.setattr(disk, "filesystem_identity", lambda path, found=found: found)
        file = recorder.open(note=note)
        if is_right:
            assert recorder.wait(file, Opened).path
        else:
            reason = recorder.wait(file, OpenFailed).reason
            assert f"is on {found}, not on xfs:uuid-2f3c as when it was recorded to before" in reason
    # What apply found counts before the note, and a note that cannot be made ends nothing.
    monkeypatch.setattr(disk, "filesystem_identity", lambda path: "ext4:fsid-9")
    assert recorder.wait(recorder.open(filesystem="ext4:fsid-9", note=note), Opened).path
    assert recorder.wait(recorder.open(note="/proc/no/note"), Opened).path


def failing_open(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """os.open fails as it does for the unit's user; these tests run as root, whom no mode stops."""

    true_open = os.open

    def fail(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & os.O_EXCL or flags & os.O_TMPFILE == os.O_TMPFILE:
            raise error
        return true_open(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", fail)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied"), "not writable by the user sdisup; make it so: chown sdisup:sdisup"),
        (OSError(30, "Read-only file system"), "read-only"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(24, "Too many open files"), "Too many open files"),
    ],
)
def test_a_file_that_cannot_be_made_is_told_in_the_operators_words(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    with monkeypatch.context() as patch:
        failing_open(patch, error)
        failed = recorder.wait(recorder.open(), OpenFailed)
    assert words in failed.reason and str(recorder.directory) in failed.reason


def test_a_directory_that_came_after_the_sandbox_is_not_called_a_disk_error(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "is_shut_off", lambda _: True)
    with monkeypatch.context() as patch:
        failing_open(patch, OSError(30, "Read-only file system"))
        failed = recorder.wait(recorder.open(), OpenFailed)
    assert "was made after this runner's start" in failed.reason
    assert "filesystem" not in failed.reason


def test_the_directory_that_refuses_is_the_one_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests run as root, whom no mode stops."""
    recordings, closed = str(tmp_path), str(tmp_path / "closed")
    make = "make it so: chown sdisup:sdisup"

    def said(directory: str) -> str:
        return disk._open_problem(recordings, directory, PermissionError(13, "Permission denied"))

    os.makedirs(f"{closed}/day")
    assert said(recordings) == f"{recordings} is not writable by the user sdisup; {make} {recordings}"
    # A take's directory that is there belongs to somebody else; one that is not cannot be made in what is above it.
    assert said(closed) == f"{closed} is not writable by the user sdisup; {make} {closed}"
    assert said(f"{closed}/cup/final") == f"{closed} is not writable by the user sdisup; {make} {closed}"
    below, is_directory = f"{closed}/day", os.path.isdir
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed)
    monkeypatch.setattr(os.path, "isdir", lambda path: not path.startswith(f"{closed}/") and is_directory(path))
    assert said(below) == f"the user sdisup may not look into {closed}; let it: chmod o+x {closed}"


@NAMED
def test_a_directory_that_takes_no_name_is_told(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        failing_open(patch, FileExistsError(17, "File exists"))
        failed = recorder.wait(recorder.open(), OpenFailed)
    assert failed.reason == f"{recorder.directory} gives no name that is free"


def test_a_disk_that_fails_while_recording_is_told_at_the_close_and_the_file_kept(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed answers finish(): FFmpeg is alive until then, and what could not be read is not thrown away."""
    looked = threading.Event()
    finishing_at_close: list[bool] = []
    true_close = RecordingFile._close

    def fail(*_: object) -> bool:
        looked.set()
        raise OSError(5, "Input/output error")

    def close(self: RecordingFile, problem: str) -> None:
        finishing_at_close.append(self._is_finishing)
        true_close(self, problem)

    monkeypatch.setattr(disk, "holds_media", fail)
    monkeypatch.setattr(RecordingFile, "_close", close)
    file, path = recorder.opened()
    recorder.write(file, b"something")
    assert looked.wait(DEADLINE_S)
    # Another file's whole life gives the first one's thread more than its time to be wrong.
    other, _ = recorder.opened()
    assert not recorder.closed(other).kept
    closed = recorder.closed(file)
    assert finishing_at_close == [True, True]
    assert (closed.kept, closed.problem) == (True, f"{path}: Input/output error")
    assert path.read_bytes() == b"something"


def test_nothing_is_left_of_a_file_that_is_closed(recorder: Recorder, media: dict[str, bytes]) -> None:
    """Without a signal a port makes a file each second: a thread or a descriptor left by each ends it in hours."""
    descriptors = len(os.listdir("/proc/self/fd"))
    began_with = threads()
    for content in (b"", media["mkv"]):
        for _ in range(5):
            file, _ = recorder.opened()
            recorder.write(file, content)
            recorder.closed(file)
    wait_until(lambda: threads() <= began_with)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("when", ["before it is made", "afterwards", "while it is told"])
def test_nothing_is_left_of_a_file_that_was_made_ahead_for_nothing(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The recording ends while its disk makes the next file."""
    descriptors, began_with = len(os.listdir("/proc/self/fd")), threads()
    may_go_on = threading.Event()

    def wrong_place(file: RecordingFile) -> str:
        assert may_go_on.wait(DEADLINE_S)
        return ""

    if when == "before it is made":
        monkeypatch.setattr(RecordingFile, "_wrong_place", wrong_place)
    file = recorder.open(is_ahead=True)
    if when == "afterwards":
        recorder.wait(file, Opened)
    file.discard()
    may_go_on.set()
    wait_until(lambda: threads() <= began_with)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert os.listdir(recorder.directory) == []


def test_a_try_without_a_frame_costs_the_disk_no_sync(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle input tries once a second, for months."""
    synced: list[str] = []

    def sync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "fdatasync", sync)
    for _ in range(3):
        file, path = recorder.opened()
        recorder.wait(file, Sample)
        assert not recorder.closed(file).kept
    assert synced == []
    # One that is written at the very end is durable, and has a name.
    file, path = recorder.opened()
    monkeypatch.setattr(disk, "FIRST_LOOK_S", 60.0)
    recorder.write(file, media["mkv"])
    assert recorder.closed(file).kept
    assert {str(path), str(path.parent)} <= set(synced)


# ---- The name, which comes with the first frame ----


def test_no_name_comes_and_goes_without_a_frame(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a signal there is a try each second, for months."""
    monkeypatch.setattr(disk, "FIRST_LOOK_S", 0.001)
    header = media["mkv"][: first_media_at("mkv", media["mkv"]) - 1]
    for content in (b"", header):
        file, path = recorder.opened()
        recorder.write(file, content)
        recorder.wait(file, Sample)
        assert path.exists() is bool(os.listdir(recorder.directory)) is not recorder.is_unnamed
        assert not recorder.closed(file).kept
    assert os.listdir(recorder.directory) == []


@UNNAMED
def test_a_file_has_its_name_before_its_first_frame_is_told(recorder: Recorder, media: dict[str, bytes]) -> None:
    file, path = recorder.opened()
    recorder.write(file, media["mkv"])
    assert recorder.wait(file, Named).path == str(path)
    assert path.read_bytes() == media["mkv"] and path.stat().st_nlink == 1
    recorder.wait(file, FirstMedia)
    assert recorder.closed(file).kept


def test_a_file_that_was_made_ahead_has_its_number_in_the_recording(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path
) -> None:
    file = recorder.open(is_ahead=True)
    recorder.write_when_opened(file, media["mkv"])
    file.begin(Place(str(tmp_path), str(tmp_path), "CAM_{segment}", "mkv", segment=12))
    assert Path(recorder.wait(file, Named).path) == tmp_path / "CAM_0012.mkv"
    assert recorder.closed(file).kept


@UNNAMED
def test_a_file_without_a_frame_gets_the_name_of_the_take_that_begins(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path
) -> None:
    """A cut comes while FFmpeg waits for its source; in another folder is the same disk."""
    descriptors = len(os.listdir("/proc/self/fd"))
    file = recorder.open(template="OLD/{utc_year}")
    recorder.wait(file, Opened)
    file.name_by(Place(str(tmp_path), str(tmp_path), "NEXT/{counter}", "mkv"))
    recorder.write(file, media["mkv"])
    path = tmp_path / "NEXT/0001.mkv"
    assert Path(recorder.wait(file, Named).path) == path and path.read_bytes() == media["mkv"]
    # Of a file that has a name the next one is another.
    file.name_by(Place(str(tmp_path), str(tmp_path), "LATE_{utc_year}", "mkv"))
    assert not recorder.wait(file, Sample).moved
    assert recorder.closed(file).kept
    assert [str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*")] == ["NEXT", "NEXT/0001.mkv"]
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == descriptors)


@UNNAMED
@pytest.mark.parametrize("what", ["file", "link", "fifo", "directory"])
def test_a_name_that_is_taken_meanwhile_is_left_alone(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The name stands in the ledger's spool before, and whoever may write to the recordings could have it first."""
    # The next second has a name of its own.
    monkeypatch.setattr(disk, "time", StandingClock(1769860800.0).module)
    file, path = recorder.opened()
    if what == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"somebody else's")
    before = os.lstat(path)
    recorder.write(file, media["mkv"])
    named = Path(recorder.wait(file, Named).path)
    assert named.name == f"{path.stem}_2.mkv" and named.read_bytes() == media["mkv"]
    assert os.lstat(path) == before and not (tmp_path / "elsewhere").exists()
    assert recorder.closed(file).kept


@UNNAMED
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_file_that_can_have_no_name_is_as_good_as_deleted(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(disk, "SAMPLE_S", 0.02)
    file, path = recorder.opened()
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        recorder.write(file, media["mkv"])
        wait_until(lambda: recorder.wait(file, Sample).deleted)
        assert file.watch_problem == f"{path} cannot be looked at: {os.strerror(error)}"
        closed = recorder.closed(file)
    assert not closed.kept and os.strerror(error) in closed.problem
    assert not any(isinstance(event, FirstMedia) for event in file.events)


@UNNAMED
def test_a_directory_that_moves_before_the_first_frame_is_told(recorder: Recorder, tmp_path: Path) -> None:
    recorder.directory = tmp_path / "recordings"
    recorder.directory.mkdir()
    file, _ = recorder.opened()
    assert not recorder.wait(file, Sample).misplaced
    recorder.directory.rename(tmp_path / "old")
    recorder.directory.mkdir()
    wait_until(lambda: recorder.wait(file, Sample).misplaced)


class Spared:
    """A runner's tries, one after the other."""

    def __init__(self, recorder: Recorder) -> None:
        self.make = recording_files()
        self.recorder = recorder

    def begin(self, directory: Path) -> tuple[RecordingFile, int]:
        """A try, and the number of its file."""
        place = Place(str(directory), str(directory), "CAM3_{utc}", "mkv")
        file = self.make(place, 0.02, self.recorder._wake)
        self.recorder.files.append(file)
        descriptor = self.recorder.wait(file, Opened).descriptor
        return file, os.fstat(descriptor).st_ino


@UNNAMED
def test_tries_without_a_frame_share_one_file(recorder: Recorder, media: dict[str, bytes], tmp_path: Path) -> None:
    """Each file that is made and removed is a write of the filesystem's journal."""
    tries, numbers = Spared(recorder), set()
    descriptors = len(os.listdir("/proc/self/fd"))
    for content in (b"", media["mkv"][:100], b"", b""):
        file, number = tries.begin(tmp_path)
        numbers.add(number)
        assert recorder.output(file).stat().st_size == 0
        recorder.write(file, content)
        assert not recorder.closed(file).kept
    assert len(numbers) == 1
    assert len(os.listdir("/proc/self/fd")) == descriptors + 2
    # One that gets a frame is a recording, and the next file is another one.
    file, number = tries.begin(tmp_path)
    recorder.write(file, media["mkv"])
    assert recorder.closed(file).kept and {number} == numbers
    other, number = tries.begin(tmp_path)
    assert number not in numbers
    assert not recorder.closed(other).kept


@UNNAMED
def test_a_spare_file_goes_nowhere_but_into_its_directory(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path
) -> None:
    """A disk that was mounted meanwhile is where the next file belongs."""
    tries = Spared(recorder)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for name in ("one", "two"):
        file, _ = tries.begin(tmp_path / name)
        recorder.closed(file)
    descriptors = len(os.listdir("/proc/self/fd"))
    (tmp_path / "two").rename(tmp_path / "moved")
    (tmp_path / "two").mkdir()
    file, _ = tries.begin(tmp_path / "two")
    recorder.write(file, media["mkv"])
    assert recorder.closed(file).kept
    assert len(os.listdir(tmp_path / "two")) == 1 and os.listdir(tmp_path / "moved") == []
    assert len(os.listdir("/proc/self/fd")) == descriptors - 2


def test_a_directory_that_is_gone_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    descriptor = os.open(tmp_path / "gone", os.O_RDONLY)
    try:
        (tmp_path / "gone").rmdir()
        assert make_unnamed(descriptor) == -1
    finally:
        os.close(descriptor)


def test_a_growing_file_is_made_durable_again_and_again(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Semaphore(0)
    true_sync = os.fdatasync

    def sync(descriptor: int) -> None:
        true_sync(descriptor)
        synced.release()

    monkeypatch.setattr(os, "fdatasync", sync)
    file, _ = recorder.opened()
    recorder.write(file, media["mkv"])
    assert all(synced.acquire(timeout=DEADLINE_S) for _ in range(3))
    assert recorder.closed(file).kept


def test_a_failed_sync_is_tried_again_and_not_forgotten(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells a lost write once: to whoever syncs next, and perhaps never to FFmpeg."""
    calls = threading.Semaphore(0)
    errors = [OSError(5, "Input/output error")]
    true_sync = os.fdatasync

    def sync(descriptor: int) -> None:
        calls.release()
        if errors:
            raise errors.pop()
        true_sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    file, path = recorder.opened()
    recorder.write(file, media["mkv"])
    assert all(calls.acquire(timeout=DEADLINE_S) for _ in range(3))
    words = f"disk error: what was recorded to {path} may not be durable: Input/output error"
    assert file.sync_problem == words
    closed = recorder.closed(file)
    assert (closed.kept, closed.problem) == (True, words)


@pytest.mark.parametrize("is_cut_off", [False, True])
def test_the_end_of_a_file_that_was_cut_off_is_synced_by_others(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, is_cut_off: bool
) -> None:
    """The port does not record until its runner has ended. The ledger's process syncs before it counts."""
    calls = threading.Semaphore(0)
    steps: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: calls.release())
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: steps.append("begun"))
    file, _ = recorder.opened()
    recorder.write(file, media["mkv"])
    assert calls.acquire(timeout=DEADLINE_S)
    monkeypatch.setattr(os, "fdatasync", lambda _: steps.append("ended"))
    file.finish(is_cut_off=is_cut_off)
    assert recorder.wait(file, Closed).kept
    assert steps[:1] == ["begun" if is_cut_off else "ended"]


def test_finish_may_be_said_twice_and_at_once(recorder: Recorder) -> None:
    file = recorder.open()
    file.finish()
    file.finish()
    assert recorder.wait(file, Closed).kept is False
    file.finish()


def test_a_file_that_was_moved_is_told_with_its_place(recorder: Recorder, media: dict[str, bytes]) -> None:
    recorder.directory = recorder.directory / "recordings"
    recorder.directory.mkdir()
    file, path = recorder.opened()
    recorder.write(file, media["mkv"])
    recorder.wait(file, FirstMedia)
    moved = recorder.directory.rename(recorder.directory.with_name("old"))
    wait_until(lambda: recorder.wait(file, Sample).moved)
    sample = recorder.wait(file, Sample)
    assert (sample.place, sample.misplaced) == (str(moved / path.name), False)
    recorder.directory.mkdir()
    wait_until(lambda: recorder.wait(file, Sample).misplaced)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
def test_a_directory_that_cannot_be_synced_is_no_failure(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, media: dict[str, bytes], error: int
) -> None:
    true_sync = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(error, os.strerror(error))
        true_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    file, _ = recorder.opened()
    recorder.write(file, media["mkv"])
    recorder.wait(file, FirstMedia)
    wait_until(lambda: bool(file.remarks or file.sync_problem))
    assert bool(file.sync_problem) is (error == errno.EIO)
    assert all("cannot sync directories" in remark for remark in file.remarks)
    assert recorder.closed(file).kept


def test_a_disk_that_takes_no_file_is_not_the_right_one(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the system's own would be refused for it, once it is gone."""
    monkeypatch.setattr(disk, "filesystem_identity", lambda _: "tmpfs")
    (tmp_path / "run").mkdir()
    note = tmp_path / "run" / "disk.json"
    (tmp_path / "recordings").mkdir()
    recordings = str(tmp_path / "recordings")
    place = Place(recordings, recordings, "CAM3_{utc}", "mkv", disk_note=str(note))

    def begin() -> RecordingFile:
        recorder.files.append(RecordingFile(place, 0.02, recorder._wake))
        return recorder.files[-1]

    with monkeypatch.context() as patch:
        failing_open(patch, PermissionError(errno.EACCES, "Permission denied"))
        recorder.wait(begin(), OpenFailed)
    assert not note.exists()
    recorder.wait(begin(), Opened)
    assert note.exists()


def test_a_word_of_ffmpeg_makes_the_first_frame_worth_a_look(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input that waits for its source for hours is looked at seldom."""
    monkeypatch.setattr(disk, "HURRY_S", 0.0)
    monkeypatch.setattr(disk, "SAMPLE_S", 10 * DEADLINE_S)
    file, _ = recorder.opened()
    recorder.write(file, media["mkv"])
    file.hurry()
    assert recorder.wait(file, FirstMedia)


# ---- Files that are made ahead of FFmpeg ----


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*"))


def test_a_file_that_is_made_ahead_is_named_when_ffmpeg_opens_it(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By that moment, and in the folder of that moment, which may not be there when it is made."""
    moments = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: moments[0])
    file = recorder.open(template="{utc_date}/CAM3_{utc}", is_ahead=True)
    opened = recorder.wait(file, Opened)
    assert opened.path == "" and opened.descriptor >= 0
    assert all(name.startswith(".") for name in names_in(recorder.directory))
    moments[0] += 86400
    file.begin(file._place)
    named = recorder.wait(file, Named)
    assert named.path == f"{recorder.directory}/2027-01-16/CAM3_20270116T080000Z.mkv"
    recorder.write(file, media["mkv"])
    recorder.wait(file, FirstMedia)
    assert recorder.closed(file) == Closed(len(media["mkv"]), True, "", os.stat(named.path).st_ino)
    assert names_in(recorder.directory) == ["2027-01-16", "CAM3_20270116T080000Z.mkv"]
    assert Path(named.path).read_bytes() == media["mkv"]


def test_a_file_that_is_made_ahead_takes_no_name_that_is_in_use(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    taken = recorder.directory / "CAM3_20270115T080000Z.mkv"
    taken.write_bytes(b"somebody's")
    file = recorder.open(is_ahead=True)
    recorder.wait(file, Opened)
    file.begin(file._place)
    assert recorder.wait(file, Named).path.endswith("CAM3_20270115T080000Z_2.mkv")
    recorder.write(file, media["mkv"])
    assert recorder.closed(file).kept
    assert taken.read_bytes() == b"somebody's"


def test_a_file_that_was_made_ahead_in_vain_leaves_nothing(recorder: Recorder) -> None:
    before = len(os.listdir("/proc/self/fd"))
    file = recorder.open(is_ahead=True)
    recorder.wait(file, Opened)
    file.discard()
    wait_until(lambda: names_in(recorder.directory) == [])
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == before)


def test_a_file_that_was_made_ahead_and_begun_in_vain_leaves_nothing(recorder: Recorder) -> None:
    """FFmpeg was killed between its opening and its first byte."""
    file = recorder.open(is_ahead=True)
    recorder.wait(file, Opened)
    file.begin(file._place)
    assert recorder.closed(file) == Closed(0, False, "")
    assert names_in(recorder.directory) == []


def test_a_directory_that_is_gone_when_ffmpeg_opens_the_file_refuses_its_name(recorder: Recorder) -> None:
    file = recorder.open(is_ahead=True)
    recorder.wait(file, Opened)
    moved = recorder.directory.with_name("moved")
    recorder.directory.rename(moved)
    file.begin(file._place)
    wait_until(lambda: bool(file.refusal))
    recorder.closed(file)
    moved.rename(recorder.directory)
    assert file.refusal == os.strerror(errno.ENOENT)


def test_a_file_that_was_made_ahead_is_named_without_hard_links(
    recorder: Recorder, media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(disk, "make_unnamed", lambda directory: -1)
    file = recorder.open(is_ahead=True)
    recorder.wait(file, Opened)
    monkeypatch.setattr(os, "link", refuse)
    recorder.write(file, media["mkv"])
    file.begin(file._place)
    path = Path(recorder.wait(file, Named).path)
    assert recorder.closed(file).kept
    assert names_in(recorder.directory) == [path.name]
    assert path.read_bytes() == media["mkv"]


# ---- Its timecode ----

HEADER_BYTES = {"mkv": 600, "mxf": 5000, "mp4": 40, "mov": 40}
"""What FFmpeg writes anew when it closes the file."""


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, bytes]]:
    """By container, a file with 00:00:00:00, and one with 10:11:12:13."""
    directory = tmp_path_factory.mktemp("timed")

    def make(container: str, timecode: str) -> bytes:
        return make_media(directory, container, 30, timecode=timecode)

    return {container: (make(container, "00:00:00:00"), make(container, "10:11:12:13")) for container in MUXERS}


@CONTAINERS
def test_the_timecode_is_written_while_the_file_grows_and_when_it_is_closed(
    recorder: Recorder, timed: dict[str, tuple[bytes, bytes]], container: str
) -> None:
    """FFmpeg makes the place after the timecode is known, and writes the header anew when it closes the file."""
    whole, expected = timed[container]
    numbers = counting(25)
    assert numbers is not None
    file, _ = recorder.opened(container)
    file.set_timecode(Stamp(container, numbers, numbers.frame("10:11:12:13")))
    recorder.write(file, whole)
    deadline = time.monotonic() + DEADLINE_S
    while recorder.output(file).read_bytes() != expected:
        assert time.monotonic() < deadline, "not written while the file grows"
        time.sleep(0.02)
    with recorder.output(file).open("r+b") as written:
        written.write(whole[: HEADER_BYTES[container]])
    path = Path(recorder.wait(file, Named).path)
    file.finish()
    assert recorder.wait(file, Closed).problem == ""
    assert path.read_bytes() == expected
    assert not file.remarks


def test_a_file_without_a_place_for_it_is_recorded_and_said(recorder: Recorder, media: dict[str, bytes]) -> None:
    numbers = counting(25)
    assert numbers is not None
    file, _ = recorder.opened("mp4")
    file.set_timecode(Stamp("mp4", numbers, 25))
    recorder.write(file, media["mp4"])
    path = Path(recorder.wait(file, Named).path)
    file.finish()
    closed = recorder.wait(file, Closed)
    assert (closed.kept, closed.problem) == (True, "")
    assert path.read_bytes() == media["mp4"]
    assert [*file.remarks] == [f"{path} has no place for its timecode, 00:00:01:00"]


def test_a_timecode_that_cannot_be_written_costs_nothing_else(
    recorder: Recorder, timed: dict[str, tuple[bytes, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", fails)
    whole, _ = timed["mkv"]
    numbers = counting(25)
    assert numbers is not None
    file, _ = recorder.opened("mkv")
    file.set_timecode(Stamp("mkv", numbers, 25))
    recorder.write(file, whole)
    path = Path(recorder.wait(file, Named).path)
    file.finish()
    closed = recorder.wait(file, Closed)
    assert (closed.kept, closed.problem) == (True, "")
    assert path.read_bytes() == whole
    assert set(file.remarks) == {f"{path} may lack its timecode, 00:00:01:00: Input/output error"}


@pytest.mark.parametrize("is_short", [True, False])
def test_that_space_gets_short_is_said_in_run(
    recorder: Recorder, media: dict[str, bytes], tmp_path: Path, is_short: bool
) -> None:
    """sdi-retention.path looks at the file; it is asked for once in a while, and FFmpeg goes on."""
    wanted = tmp_path / "wanted"
    least = 1 << 60 if is_short else 1
    place = Place(str(recorder.directory), str(recorder.directory), "CAM3_{utc}", "mkv", min_free_bytes=least)
    file = RecordingFile(place.replaced(wanted=str(wanted)), 0.02, recorder._wake)
    recorder.files.append(file)
    recorder.wait(file, Opened)
    recorder.write(file, media["mkv"])
    recorder.wait(file, Sample)
    assert wanted.exists() == is_short
    assert recorder.closed(file).kept
    if is_short:
        assert wanted.read_bytes() == b"\n"


def test_a_run_directory_that_takes_no_file_is_no_trouble_when_space_gets_short(tmp_path: Path) -> None:
    say_in(str(tmp_path / "missing" / "wanted"))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    say_in(str(tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()
    os.mkfifo(tmp_path / "fifo")
    say_in(str(tmp_path / "fifo"))
