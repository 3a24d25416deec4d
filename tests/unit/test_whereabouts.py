"""Where a recording's file is, whatever was renamed, mounted or numbered anew meanwhile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sdisup.contract.filesystem import filesystem_identity
from sdisup.runner import whereabouts
from sdisup.runner.whereabouts import Found, Whereabouts, has_right, is_same_at_rest

NAME = "CAM3_20260131T120000Z.mkv"


class Recorded:
    """A file in recordings/match, open, with something in it."""

    def __init__(self, directory: Path, filesystem: str | None = None) -> None:
        self.recordings, self.directory = directory / "recordings", directory / "recordings" / "match"
        self.directory.mkdir(parents=True)
        self.path = self.directory / NAME
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self.above = os.open(self.directory, os.O_RDONLY)
        self.grow()
        self.where = Whereabouts(
            str(self.path), self.file, self.above, directory=str(self.directory), recordings=str(self.recordings),
            filesystem=filesystem_identity(str(self.recordings)) if filesystem is None else filesystem,
        )  # fmt: skip
        assert self.look() == Found()

    def grow(self) -> None:
        os.write(self.file, os.urandom(5000))

    def look(self) -> Found:
        return self.where.look()


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    made = Recorded(tmp_path)
    yield made
    os.close(made.file)
    os.close(made.above)


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    mounted: list[Path] = []

    def at(place: Path, *what: str) -> None:
        subprocess.run(["mount", *what, str(place)], check=True)
        mounted.append(place)

    yield at
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(place)], check=False, stderr=subprocess.DEVNULL)


def test_a_file_that_is_renamed_is_where_it_was_moved_to(recorded: Recorded, tmp_path: Path) -> None:
    recorded.path.rename(tmp_path / "kept.mkv")
    assert recorded.look() == Found(moved=True, place=str(tmp_path / "kept.mkv"))
    # Also with another in its place: a new file would be made in the same directory.
    recorded.path.write_text("somebody else's")
    assert recorded.look() == Found(moved=True, place=str(tmp_path / "kept.mkv"))
    (tmp_path / "kept.mkv").rename(recorded.path)
    assert recorded.look() == Found()


def test_a_file_that_is_gone_is_nowhere(recorded: Recorded) -> None:
    recorded.path.unlink()
    assert recorded.look() == Found(moved=True)


@pytest.mark.parametrize("what", ["recordings", "match"])
def test_a_directory_that_is_renamed_is_left_once_there_is_another(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    moved = recorded.recordings if what == "recordings" else recorded.directory
    moved.rename(tmp_path / "old")
    place = tmp_path / "old" / ("match" if what == "recordings" else "") / NAME
    # A take's directory is made anew; the recordings never are.
    assert recorded.look() == Found(moved=True, place=str(place), misplaced=what == "match")
    moved.mkdir()
    assert recorded.look() == Found(moved=True, place=str(place), misplaced=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert recorded.look() == Found(moved=True, place=str(place), misplaced=False), "nothing could be recorded there"
    monkeypatch.setattr(whereabouts, "is_shut_off", lambda _: True)
    assert recorded.look().misplaced, "the next sandbox lets it in"
    monkeypatch.setattr(whereabouts, "has_right", lambda _: False)
    assert not recorded.look().misplaced


def test_a_link_in_a_directorys_place_ends_no_recording(recorded: Recorded, tmp_path: Path) -> None:
    """Whoever may write there could end it: no file is made along a link."""
    (tmp_path / "open").mkdir()
    recorded.directory.rename(tmp_path / "old")
    recorded.directory.symlink_to(tmp_path / "open")
    assert recorded.look() == Found(moved=True, place=str(tmp_path / "old" / NAME))


def test_no_directory_but_one_on_the_right_disk_is_the_right_one(
    recorded: Recorded, mount: Callable[..., None], tmp_path: Path
) -> None:
    mount(recorded.recordings, "-t", "tmpfs", "none")
    (recorded.recordings / "match").mkdir()
    assert recorded.look() == Found(moved=True), "its disk is not the one that was applied"


def test_a_disk_that_is_mounted_where_none_was_known_is_the_right_one(
    tmp_path: Path, mount: Callable[..., None]
) -> None:
    """apply came before the disk was mounted: the recording is on the system's own."""
    recorded = Recorded(tmp_path, filesystem="")
    mount(recorded.recordings, "-t", "tmpfs", "none")
    assert recorded.look() == Found(moved=True, misplaced=True)
    os.close(recorded.file)
    os.close(recorded.above)


def test_a_directory_that_is_hidden_by_a_mount(recorded: Recorded, mount: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    mount(recorded.directory, "--bind", str(tmp_path / "other"))
    assert recorded.look() == Found(moved=True, place="", misplaced=True)
    subprocess.run(["umount", str(recorded.directory)], check=True)
    assert recorded.look() == Found()


def test_a_disk_that_is_unmounted_lazily_is_gone_on_with(tmp_path: Path, mount: Callable[..., None]) -> None:
    """Its mount point is on another disk, which recordings must not fill."""
    (tmp_path / "recordings").mkdir()
    mount(tmp_path / "recordings", "-t", "tmpfs", "none")
    recorded = Recorded(tmp_path)
    subprocess.run(["umount", "--lazy", str(recorded.recordings)], check=True)
    recorded.directory.mkdir()
    assert recorded.look() == Found(moved=True)
    os.close(recorded.file)
    os.close(recorded.above)


class Renumbering:
    """os.stat of a filesystem that gives its files other numbers than an open file has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> None:
        self._stat, self._path, self._looks = os.stat, str(recorded.path), 0
        monkeypatch.setattr(os, "stat", self)

    def __call__(self, what: str | int, **options: Any) -> os.stat_result:
        found = self._stat(what, **options)
        if what != self._path:
            return found
        self._looks += 1
        return os.stat_result([found.st_mode, found.st_ino + self._looks, *found[2:]])


def test_a_file_with_another_number_at_each_look_is_still_the_same(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Renumbering(monkeypatch, recorded)
    assert recorded.where.has_numbers
    for _ in range(3):
        recorded.grow()
        assert recorded.look() == Found()
    assert not recorded.where.has_numbers
    # That its name is gone is noticed all the same.
    recorded.path.rename(tmp_path / "kept.mkv")
    assert recorded.look().moved


def test_neither_a_copy_nor_what_cannot_be_read_is_the_file(recorded: Recorded, tmp_path: Path) -> None:
    copy = recorded.path.read_bytes()
    for make in (
        lambda: recorded.path.write_bytes(copy), recorded.path.touch, lambda: recorded.path.mkdir(),
        lambda: os.mkfifo(recorded.path), lambda: recorded.path.symlink_to(tmp_path / "kept.mkv"),
    ):  # fmt: skip
        recorded.path.rename(tmp_path / "kept.mkv")
        make()
        recorded.grow()
        recorded.look()
        recorded.grow()
        assert recorded.look().moved and recorded.where.has_numbers
        recorded.path.rmdir() if recorded.path.is_dir() else recorded.path.unlink()
        (tmp_path / "kept.mkv").rename(recorded.path)
        assert recorded.look() == Found()


def test_at_rest_a_file_is_known_by_its_times(recorded: Recorded, tmp_path: Path) -> None:
    ours = os.fstat(recorded.file)
    renumbered = os.stat_result([ours.st_mode, ours.st_ino + 1, *ours[2:]], {"st_mtime_ns": ours.st_mtime_ns})
    assert is_same_at_rest(renumbered, ours)
    (tmp_path / "other").write_bytes(recorded.path.read_bytes())
    assert not is_same_at_rest(os.stat(tmp_path / "other"), ours)


@pytest.mark.parametrize(
    ("mode", "owner", "group", "expected"),
    [
        (0o2775, 1, 1, True), (0o555, 1, 1, False), (0o2775, 0, 1, True), (0o2755, 0, 1, False), (0o755, 0, 0, False),
        (0o1777, 0, 0, True), (0o775, 0, 7, True), (0o377, 1, 0, True), (0o677, 1, 0, False),
    ],
)  # fmt: skip
def test_who_may_make_files(
    monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, group: int, *, expected: bool
) -> None:
    for name, value in (("geteuid", 1), ("getegid", 1), ("getgroups", [7])):
        monkeypatch.setattr(os, name, lambda value=value: value)
    assert has_right(os.stat_result([0o040000 | mode, 0, 0, 2, owner, group, 0, 0, 0, 0])) is expected
