"""Files are copied to a directory, and nothing that stands there is touched."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdisup.offload.copying import READ_BACK, copy
from sdisup.offload.digests import Digest
from sdisup.offload.directory import SYNC_BYTES, Directory
from sdisup.offload.plan import Recorded
from sdisup.offload.source import FORGET_BYTES, READ_BYTES, FileProblem, Gone, Source, TargetProblem
from sdisup.retention.disk import in_use

CONTENT = bytes(range(256)) * 12000
PATH, UNFINISHED = "box/CAM3/2026/a.mp4", "box/CAM3/2026/.sdisup-0123"


class Bench:
    """Recordings, a target, and a recording to be copied."""

    def __init__(self, top: Path) -> None:
        self.recordings, self.target = top / "recordings", top / "target"
        (self.recordings / "2026").mkdir(parents=True)
        self.target.mkdir()
        self.file = self.recordings / "2026" / "a.mp4"
        self.file.write_bytes(CONTENT)
        os.utime(self.file, ns=(1769860800_000000001, 1769860800_000000001))

    @property
    def copy(self) -> Path:
        return self.target / PATH

    def recorded(self, **more: object) -> Recorded:
        status = self.file.stat()
        known = Recorded(3, str(self.file), "s", "e", status.st_size, status.st_ino)
        return known.replaced(**more)

    def source(self, **more: object) -> Source:
        return Source(self.recorded(**more), str(self.recordings))

    def stand(self, content: bytes, path: str = PATH) -> Path:
        there = self.target / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
        return there

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.target)) for path in self.target.rglob("*") if not path.is_dir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def target(bench: Bench) -> Iterator[Directory]:
    target = Directory(str(bench.target))
    yield target
    target.close()


def test_a_file_is_copied_verified_and_has_its_time(bench: Bench, target: Directory) -> None:
    with bench.source() as source:
        done = copy(target, source, PATH, UNFINISHED)
    assert (done.path, done.verified, done.was_there) == (PATH, READ_BACK, False)
    assert done.digest == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    assert bench.copy.read_bytes() == CONTENT and bench.names() == [PATH]
    assert bench.copy.stat().st_mtime_ns == bench.file.stat().st_mtime_ns


def test_what_an_interrupted_copy_left_is_removed(bench: Bench, target: Directory) -> None:
    bench.stand(CONTENT[:1000], UNFINISHED)
    with bench.source() as source:
        copy(target, source, PATH, UNFINISHED)
    assert bench.names() == [PATH] and bench.copy.read_bytes() == CONTENT


def test_a_copy_that_was_made_and_not_entered_is_recognized(bench: Bench, target: Directory) -> None:
    there = bench.stand(CONTENT)
    before = there.stat()
    with bench.source() as source:
        done = copy(target, source, PATH, UNFINISHED)
    assert done.was_there and done.verified == READ_BACK
    assert os.path.samestat(there.stat(), before) and bench.names() == [PATH]


@pytest.mark.parametrize("content", [b"", b"other", CONTENT[:-1] + b"x"])
def test_what_else_stands_there_is_left_as_it_is(bench: Bench, target: Directory, content: bytes) -> None:
    there = bench.stand(content)
    before = there.stat()
    with bench.source() as source, pytest.raises(FileProblem, match="left as it is"):
        copy(target, source, PATH, UNFINISHED)
    assert os.path.samestat(there.stat(), before) and there.read_bytes() == content and bench.names() == [PATH]


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_what_is_no_file_is_left_as_it_is(bench: Bench, target: Directory, kind: str) -> None:
    bench.copy.parent.mkdir(parents=True)
    make = {
        "directory": lambda: bench.copy.mkdir(),
        "link": lambda: bench.copy.symlink_to(bench.target / "elsewhere"),
        "fifo": lambda: os.mkfifo(bench.copy),
    }
    make[kind]()
    with bench.source() as source, pytest.raises(FileProblem, match="something stands at"):
        copy(target, source, PATH, UNFINISHED)
    assert not (bench.target / "elsewhere").exists()


@pytest.mark.parametrize("has_links", [True, False])
def test_what_comes_to_stand_there_meanwhile_is_left_as_it_is(
    bench: Bench, target: Directory, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    write = target.write

    def and_somebody_else_writes(path: str, source: Source, digest: Digest) -> None:
        write(path, source, digest)
        bench.stand(b"somebody's")

    monkeypatch.setattr(target, "write", and_somebody_else_writes)
    if not has_links:
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    with bench.source() as source, pytest.raises(FileProblem, match="a file of 10 bytes stands at"):
        copy(target, source, PATH, UNFINISHED)
    assert bench.copy.read_bytes() == b"somebody's" and bench.names() == [PATH]


def test_a_filesystem_without_hard_links(bench: Bench, target: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EOPNOTSUPP))
    with bench.source() as source:
        copy(target, source, PATH, UNFINISHED)
    assert bench.copy.read_bytes() == CONTENT and bench.names() == [PATH]


def test_a_copy_that_was_damaged_on_its_way_is_removed(
    bench: Bench, target: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = target.write

    def and_the_disk_lies(path: str, source: Source, digest: Digest) -> None:
        write(path, source, digest)
        with open(bench.target / path, "r+b") as file:
            file.write(b"damage")

    monkeypatch.setattr(target, "write", and_the_disk_lies)
    with bench.source() as source, pytest.raises(FileProblem, match="differs from the file"):
        copy(target, source, PATH, UNFINISHED)
    assert bench.names() == []


def refuse(code: int) -> object:
    def refused(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return refused


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, TargetProblem), (errno.EIO, TargetProblem),
                                           (errno.EFBIG, FileProblem)])  # fmt: skip
def test_what_concerns_the_target_and_what_one_file(
    bench: Bench, target: Directory, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    with monkeypatch.context() as patched, bench.source() as source, pytest.raises(kind, match=os.strerror(code)):
        patched.setattr(os, "write", refuse(code))
        copy(target, source, PATH, UNFINISHED)
    # What is left of it is removed by the next try.
    with bench.source() as source:
        copy(target, source, PATH, UNFINISHED)
    assert bench.names() == [PATH]


def test_a_link_in_the_way_is_not_followed(bench: Bench, target: Directory, tmp_path: Path) -> None:
    (bench.target / "box").symlink_to(tmp_path)
    with bench.source() as source, pytest.raises(FileProblem):
        copy(target, source, PATH, UNFINISHED)
    assert not (tmp_path / "CAM3").exists()


def test_a_target_that_is_not_there_is_not_made(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(TargetProblem, match="No such file"):
        Directory(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_target_whose_disk_is_not_mounted(bench: Bench) -> None:
    with pytest.raises(TargetProblem, match="is its disk mounted"):
        Directory(str(bench.target), "nfs4:server:/export")


# ---- What is read ----


def test_another_file_than_the_ledgers_is_not_copied(bench: Bench) -> None:
    with pytest.raises(FileProblem, match="another file"):
        bench.source(inode=1)
    with pytest.raises(FileProblem, match="the ledger 7"):
        bench.source(size_bytes=7)
    # Lines of earlier versions have no inode.
    with bench.source(inode=0):
        pass


def test_no_link_is_followed_to_a_recording(bench: Bench, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    bench.file.rename(real)
    bench.file.symlink_to(real)
    with pytest.raises(FileProblem):
        Source(Recorded(3, str(bench.file), "s", "e", len(CONTENT)), str(bench.recordings))
    bench.file.unlink()
    (bench.recordings / "2026").rmdir()
    (bench.recordings / "2026").symlink_to(tmp_path)
    real.rename(tmp_path / "a.mp4")
    with pytest.raises(FileProblem):
        Source(Recorded(3, str(bench.file), "s", "e", len(CONTENT)), str(bench.recordings))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_read(bench: Bench, make: object) -> None:
    recorded = bench.recorded()
    bench.file.unlink()
    with pytest.raises(FileProblem, match="is not there"):
        Source(recorded, str(bench.recordings))
    assert callable(make)
    make(bench.file)
    with pytest.raises(FileProblem, match="no regular file"):
        Source(recorded, str(bench.recordings))


def test_retention_leaves_a_file_that_is_being_copied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(bench.file, "r+b") as other:
        assert in_use(other.fileno()) == ""
    with bench.source(), open(bench.file, "r+b") as other:
        assert in_use(other.fileno()) != ""
        # As where a filesystem has no leases.
        monkeypatch.setattr(fcntl, "fcntl", refuse(errno.EINVAL))
        assert in_use(other.fileno()) != ""
    monkeypatch.undo()


@pytest.fixture
def no_sigio() -> Iterator[None]:
    """Whoever has a lease gets one when the file is opened, and would die of it."""
    former = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, former)


def test_a_file_that_retention_is_about_to_delete_is_left(bench: Bench, no_sigio: None) -> None:
    with open(bench.file, "r+b") as other:
        assert in_use(other.fileno()) == ""
        with pytest.raises(Gone, match="just being deleted"):
            bench.source()
    with open(bench.file, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(Gone, match="just being deleted"):
            bench.source()


@pytest.mark.parametrize("change", [b"", b"longer"])
def test_a_file_that_changes_while_it_is_copied(bench: Bench, target: Directory, change: bytes) -> None:
    with bench.source() as source:

        def changed(_: str, __: int) -> None:
            with open(bench.file, "ab") as file:
                file.write(change)
                file.truncate(file.tell() if change else 5)

        source.told = changed
        with pytest.raises(FileProblem, match="while it was copied"):
            copy(target, source, PATH, UNFINISHED)
    assert PATH not in bench.names()


def test_no_more_is_copied_a_second_than_is_allowed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("sdisup.offload.source.monotonic", lambda: clock[0])

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("sdisup.offload.source.time.sleep", sleep)
    with Source(bench.recorded(), str(bench.recordings), bits_per_s=8e6) as source:
        for number, _ in enumerate(source.chunks()):
            # A target that took nothing for a minute does not get it all at once afterwards.
            clock[0] += 60.0 if number == 0 else 0.0
    read_s = clock[0] - 160.0
    assert (len(CONTENT) - (1 << 20)) / 1e6 - 1.1 < read_s < len(CONTENT) / 1e6


def test_what_is_read_back_is_limited_too(bench: Bench, target: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("sdisup.offload.source.monotonic", lambda: 100.0)
    monkeypatch.setattr("sdisup.offload.source.time.sleep", slept.append)
    with Source(bench.recorded(), str(bench.recordings), bits_per_s=8e6) as source:
        copy(target, source, PATH, UNFINISHED)
    # On a clock that stands still each chunk waits for all that was done before it, twice.
    size = len(CONTENT) / 1e6
    assert slept == pytest.approx([1.048576, 2.097152, size, 1.048576, 2.097152, size])


def test_recordings_get_the_page_cache_and_the_disk(
    bench: Bench, target: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is forgotten as it goes on, and what waits to be written is never much."""
    bench.file.write_bytes(CONTENT * 14)
    size, forgotten, written, most = bench.file.stat().st_size, 0, [0, 0], [0, 0]
    advise, write, sync = os.posix_fadvise, os.write, os.fdatasync
    with bench.source() as source:

        def advised(file: int, offset: int, length: int, advice: int) -> None:
            nonlocal forgotten
            if file == source.descriptor and advice == os.POSIX_FADV_DONTNEED:
                assert offset in (0, forgotten)
                forgotten = offset + length if length else size
            advise(file, offset, length, advice)

        def wrote(file: int, data: bytes) -> int:
            count = write(file, data)
            written[0] += count
            most[0] = max(most[0], written[0] - written[1])
            most[1] = max(most[1], written[0] - forgotten)
            return count

        def synced(file: int) -> None:
            written[1] = written[0]
            sync(file)

        monkeypatch.setattr(os, "posix_fadvise", advised)
        monkeypatch.setattr(os, "write", wrote)
        monkeypatch.setattr(os, "fdatasync", synced)
        copy(target, source, PATH, UNFINISHED)
    assert written[0] == forgotten == size > 2 * SYNC_BYTES
    assert most[0] <= SYNC_BYTES and most[1] <= FORGET_BYTES + READ_BYTES
