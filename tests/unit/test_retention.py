"""Retention on files: what is told to the ledger before what is removed, and what is left alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from appliance import wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sdisup
from sdisup.cli import retention as table
from sdisup.contract.applied import Applied, AppliedPort, save_applied
from sdisup.contract.files import monotonic, replace_file, utc_text
from sdisup.contract.protections import Protection, save_protection
from sdisup.contract.retention import Retention, Rules, read_report, save_rules
from sdisup.ledger import spool as spools
from sdisup.ledger.health import port_problem
from sdisup.ledger.lines import Entry, append_entries, ledger_path, read_ledger
from sdisup.ledger.spool import Spool
from sdisup.ledger.writer import Writer
from sdisup.retention import disk as disk_module
from sdisup.retention import main as module
from sdisup.retention import survey as survey_module
from sdisup.retention.main import main
from sdisup.retention.plan import Space
from sdisup.retention.survey import Places, survey

NOW = time.time()
DAY = 86400.0
PACKAGE = Path(sdisup.__file__).resolve().parent


class Bench:
    """An appliance's files: ports that record to one directory, their ledgers, and the ledger's process."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recordings, self.ledgers, self.run = (directory / name for name in ("recordings", "ledger", "run"))
        for made in (self.recordings, self.ledgers, self.run, directory / "protected"):
            made.mkdir()
        self.places = Places(
            str(self.ledgers), str(self.run), f"{directory}/applied.json", f"{directory}/rules.json",
            f"{directory}/protected", f"{directory}/confirmed.json", f"{directory}/believed",
        )  # fmt: skip
        self.apply(0)
        self.writer = Writer(str(self.ledgers), str(self.run))
        self.writer.turn()
        self.is_ledger_alive = True
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(module, "ANSWER_S", 1.0)
        monkeypatch.setattr(survey_module, "is_synchronised", lambda: True)
        monkeypatch.setattr(module, "ledger_problem", lambda _: "")

    def apply(self, *ports: int, filesystem: str = "") -> None:
        known = {
            index: AppliedPort(index, f"CAM{index}", "h264", str(self.recordings), False, "r", filesystem)
            for index in ports
        }
        save_applied(Applied(known, []), self.places.applied)

    def sleep(self, _: float) -> None:
        if self.is_ledger_alive:
            self.writer.turn()

    def rules(self, **rules: Any) -> Bench:
        save_rules(Retention(Rules(**rules), {}), self.places.rules)
        return self

    def file(self, name: str, days: float, *, size: int = 1000, port: int = 0, **changed: Any) -> Path:
        """A finished file, and its line."""
        path = self.recordings / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        end = NOW - days * DAY
        os.utime(path, (end, end))
        self.enter(path, days, size, port, inode=path.stat().st_ino, **changed)
        return path

    def enter(self, path: Path, days: float, size: int = 1000, port: int = 0, **changed: Any) -> None:
        end = utc_text(NOW - days * DAY)
        entry: Entry = {
            "v": 1, "kind": "file", "port_index": port, "take": None, "boot_id": "b", "start": end, "end": end,
            "start_monotonic": 1.0, "end_monotonic": 2.0, "seconds": 1.0, "path": str(path), "frames": 25,
            "duplicated": 0, "dropped": 0, "bytes": size, "codec": "h264", "ended": "complete",
            "ffmpeg_version": "Lavf", **changed,
        }  # fmt: skip
        append_entries(ledger_path(port, str(self.ledgers)), [entry])

    def retain(self) -> int:
        return main([], self.places)

    def entries(self, port: int = 0) -> list[Entry]:
        found = read_ledger(ledger_path(port, str(self.ledgers)))
        return [entry for entry in found if isinstance(entry, dict)]

    def deleted(self, port: int = 0) -> list[tuple[object, object]]:
        entries = [entry for entry in self.entries(port) if entry["kind"] == "delete"]
        return [(os.path.basename(str(entry["path"])), entry["rule"]) for entry in entries]

    def problems(self) -> dict[str, str]:
        report = read_report(str(self.run))
        return dict(report.problems) if report else {}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_what_is_too_old_goes_with_its_entry(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    old, young = bench.rules(max_age=30 * 86400).file("a.mp4", 31), bench.file("b.mp4", 29)
    assert bench.retain() == 0
    assert (old.exists(), young.exists()) == (False, True)
    assert bench.deleted() == [("a.mp4", "max_age 30d")]
    out = capsys.readouterr().out.splitlines()
    assert out == [f"<6>deleted {old} (1000B): max_age 30d", "<6>deleted 1 file, 1000B"]
    assert bench.problems() == {}
    # And once.
    assert (bench.retain(), len(bench.deleted())) == (0, 1)


@pytest.mark.parametrize("character", ["x", "é"])
def test_what_is_told_at_once_has_room_in_the_spool(bench: Bench, character: str) -> None:
    names = [f"{number:03}{character * 110}.mp4" for number in range(700)]
    for number, name in enumerate(names):
        bench.file(name, 40 + number / 1000, size=0)
    bench.rules(max_age=86400)
    bench.file("new.mp4", 0.5)
    bench.retain()
    assert os.listdir(bench.recordings) == ["new.mp4"]
    assert len(bench.deleted()) == 700
    assert bench.problems() == {}


def test_a_dry_run_says_what_would_go_and_changes_nothing(bench: Bench) -> None:
    path = bench.rules(max_files=1).file("a.mp4", 2)
    bench.file("b.mp4", 1)
    found = survey(bench.places)
    head, line, total = table.plan_lines(found)
    assert head.split() == ["PORT", "END", "SIZE", "RULE", "FILE"]
    assert line.split()[0] == "0" and line.endswith(f"1000B  max_files 1  {path}")
    assert total == "1 of 2 finished files would be deleted, 1000B"
    document = json.loads(table.plan_text(found))
    assert document["deletions"] == [
        {"port_index": 0, "path": str(path), "end": utc_text(NOW - 2 * DAY), "bytes": 1000, "rule": "max_files 1"}
    ]
    assert (document["files"], document["problems"]) == (2, [])
    assert path.exists() and bench.deleted() == []


def test_the_entry_is_durable_before_the_file_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.rules(max_files=1).file("a.mp4", 2), bench.file("b.mp4", 1)
    seen: list[list[tuple[object, object]]] = []
    unlink = os.unlink

    def watched(path: Any, **options: Any) -> None:
        if path == "a.mp4":
            seen.append(bench.deleted())
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", watched)
    bench.retain()
    assert seen == [[("a.mp4", "max_files 1")]]


def test_what_a_crash_left_is_done_first(bench: Bench) -> None:
    path = bench.rules(max_files=5).file("a.mp4", 2)
    told = Spool(0, str(bench.run), teller=spools.RETENTION)
    told.tell(spools.DELETE, monotonic(), path=str(path), inode=path.stat().st_ino, rule="max_files 1")
    bench.writer.turn()
    bench.retain()
    assert not path.exists()
    assert bench.deleted() == [("a.mp4", "max_files 1")]


def test_what_was_told_and_is_not_in_the_ledger_yet_is_not_told_again(bench: Bench) -> None:
    path = bench.rules(max_files=1).file("a.mp4", 2)
    bench.file("b.mp4", 1)
    told = Spool(0, str(bench.run), teller=spools.RETENTION)
    told.tell(spools.DELETE, monotonic(), path=str(path), inode=path.stat().st_ino, rule="max_files 1")
    bench.retain()
    assert path.exists()
    bench.writer.turn()
    bench.retain()
    assert not path.exists()
    assert bench.deleted() == [("a.mp4", "max_files 1")]


def test_what_was_told_and_is_protected_since_stays(bench: Bench) -> None:
    path = bench.rules(max_files=5).file("a.mp4", 2)
    told = Spool(0, str(bench.run), teller=spools.RETENTION)
    told.tell(spools.DELETE, monotonic(), path=str(path), inode=path.stat().st_ino, rule="max_files 1")
    bench.writer.turn()
    save_protection(Protection(path=str(path)), bench.places.protected)
    bench.retain()
    assert path.exists()


@pytest.mark.parametrize(
    "change",
    ["another", "larger", "directory", "link", "open", "gone", "linked directory", "fifo"],
)
def test_what_is_not_what_the_ledger_has_is_left_alone(bench: Bench, change: str, tmp_path: Path) -> None:
    path = bench.rules(max_files=1).file("day/a.mp4", 3)
    bench.file("b.mp4", 1)
    kept = path.with_name("kept")
    if change == "another":
        kept.write_bytes(b"y" * 1000)
        os.replace(kept, path)
    elif change == "larger":
        path.write_bytes(b"x" * 1001)
    elif change == "open":
        opened = path.open("rb")
    elif change in ("gone", "fifo", "link", "directory"):
        path.rename(kept)
        if change == "fifo":
            os.mkfifo(path)
        elif change == "link":
            path.symlink_to(kept)
        elif change == "directory":
            path.mkdir()
    elif change == "linked directory":
        path.parent.rename(tmp_path / "elsewhere")
        path.parent.symlink_to(tmp_path / "elsewhere")
    bench.retain()
    assert os.path.lexists(path) or change == "gone"
    assert change not in ("gone", "fifo", "link", "directory") or kept.exists()
    assert bench.deleted() == []
    if change == "open":
        opened.close()
        bench.retain()
        assert bench.deleted() == [("a.mp4", "max_files 1")]


def test_what_somebody_puts_in_its_place_meanwhile_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.rules(max_files=1).file("a.mp4", 2)
    bench.file("b.mp4", 1)
    other = bench.recordings / "other"
    other.write_bytes(b"y" * 1000)

    def replace(_: float) -> None:
        if other.exists():
            other.replace(path)
        bench.writer.turn()

    monkeypatch.setattr(time, "sleep", replace)
    bench.retain()
    bench.retain()
    assert path.read_bytes() == b"y" * 1000


def test_a_file_that_stays_is_told_of_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """It may stay for months, and retention runs every few minutes."""
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    path.write_bytes(b"x")
    bench.retain()
    assert capsys.readouterr().out.startswith(f"<4>{path} has 1 bytes, and the ledger 1000; it is not deleted")
    bench.retain()
    bench.retain()
    assert capsys.readouterr().out == ""


def test_others_go_in_the_place_of_what_cannot_go_for_want_of_space(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are open for hours, or are no longer what the ledger has."""
    paths = [bench.file(f"{days}.mp4", days, size=4096) for days in (9, 8, 7, 6, 5)]
    paths[1].write_bytes(b"x")
    free = next(iter(survey(bench.places).disks.spaces.values())).free_bytes
    monkeypatch.setattr(disk_module, "_space", lambda *_: Space(free, 1 << 60, str(bench.recordings), frozenset({0})))
    monkeypatch.setattr(disk_module.Disks, "look_again", lambda _: None)
    monkeypatch.setattr(disk_module.Remover, "free_bytes", lambda _: free)
    with paths[0].open("rb"):
        bench.rules(min_free=free + 4096).retain()
    assert [path.exists() for path in paths] == [True, True, False, True, True]


def test_a_limit_waits_for_what_somebody_reads(bench: Bench) -> None:
    """A younger file must not go in its place."""
    paths = [bench.file(f"{days}.mp4", days) for days in (9, 8, 7, 6, 5)]
    paths[1].write_bytes(b"x")
    with paths[0].open("rb"):
        bench.rules(max_files=2).retain()
    # What is no longer what the ledger has counts for nothing.
    assert [path.exists() for path in paths] == [True, True, False, True, True]
    bench.retain()
    assert [path.exists() for path in paths] == [False, True, False, True, True]


def test_a_line_of_an_earlier_version_has_no_number(bench: Bench) -> None:
    """Its file is known by its size and by when it was written to last."""
    path, other = bench.recordings / "a.mp4", bench.recordings / "b.mp4"
    for made, days in ((path, 40), (other, 41)):
        made.write_bytes(b"x" * 1000)
        bench.enter(made, days)
    os.utime(path, (NOW - 40 * DAY + 5, NOW - 40 * DAY + 5))
    bench.file("c.mp4", 0.5)
    bench.rules(max_age=86400).retain()
    assert (path.exists(), other.exists()) == (False, True)


def test_what_no_ledger_knows_stays(bench: Bench) -> None:
    (bench.recordings / "strange.mp4").write_bytes(b"x")
    outside = bench.recordings.parent / "outside.mp4"
    outside.write_bytes(b"x" * 1000)
    bench.enter(outside, 40, inode=outside.stat().st_ino)
    (bench.recordings / "day").mkdir()
    bench.enter(bench.recordings / "day/../../outside.mp4", 40, inode=outside.stat().st_ino)
    bench.rules(max_age=86400, max_files=1, min_free=1 << 40).retain()
    assert outside.exists() and (bench.recordings / "strange.mp4").exists()


@pytest.mark.parametrize(
    "words", [{"path": True}, {"take": "final"}, {"port_index": 0, "since": utc_text(NOW - 3 * DAY)}]
)
def test_what_is_protected_stays(bench: Bench, words: dict[str, Any]) -> None:
    path = bench.rules(max_age=86400).file("a.mp4", 2, take="final")
    other = bench.file("b.mp4", 4, take="other")
    save_protection(Protection(**{**words, **({"path": str(path)} if "path" in words else {})}), bench.places.protected)
    bench.retain()
    assert (path.exists(), other.exists()) == (True, False)


def test_a_take_that_begins_inside_a_file_protects_it(bench: Bench) -> None:
    path = bench.recordings / "a.mp4"
    mark: Entry = {
        "v": 1, "kind": "mark", "port_index": 0, "take": "final", "boot_id": "b", "start": utc_text(NOW),
        "end": utc_text(NOW), "start_monotonic": 1.0, "end_monotonic": 1.0, "seconds": 0.0, "former_take": None,
        "path": str(path), "frame": 3,
    }  # fmt: skip
    append_entries(ledger_path(0, str(bench.ledgers)), [mark])
    bench.rules(max_age=86400).file("a.mp4", 2)
    save_protection(Protection(take="final"), bench.places.protected)
    bench.retain()
    assert path.exists()


def test_a_protection_that_cannot_be_read_keeps_everything(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    replace_file(f"{bench.places.protected}/7.json", b"{")
    assert bench.retain() == 1
    assert path.exists()
    assert "nothing is deleted" in bench.problems()["retention"]
    assert capsys.readouterr().out.startswith("<3>nothing is deleted: ")
    bench.retain()
    assert capsys.readouterr().out == ""


def test_a_protected_file_that_was_removed_by_hand_is_no_trouble(bench: Bench) -> None:
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    save_protection(Protection(path=str(path)), bench.places.protected)
    path.unlink()
    assert (bench.retain(), bench.deleted(), bench.problems()) == (0, [], {})


def test_another_disk_is_left_alone(bench: Bench) -> None:
    path = bench.rules(max_age=86400, max_files=1).file("a.mp4", 2)
    bench.apply(0, filesystem="ext4:fsid-1")
    assert bench.retain() == 0
    assert path.exists()
    assert "is its disk mounted? Nothing is deleted there" in bench.problems()[str(bench.recordings)]


def test_a_directory_that_is_missing_is_said(bench: Bench) -> None:
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    bench.recordings.rename(bench.recordings.with_name("away"))
    assert bench.retain() == 0
    assert (bench.deleted(), path.exists()) == ([], False)
    assert "No such file or directory; nothing is deleted there" in bench.problems()[str(bench.recordings)]


def test_without_the_ledger_nothing_goes_but_for_want_of_space(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ledger_problem", lambda _: "the ledger's process does not run")
    bench.is_ledger_alive = False
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    old, less_old = bench.file("a.mp4", 40, size=4096), bench.file("b.mp4", 39, size=4096)
    bench.rules(max_files=1).retain()
    assert old.exists()
    assert "the ledger's process does not run" in bench.problems()["ledger"]
    space = survey(bench.places).disks.spaces
    free = next(iter(space.values())).free_bytes
    monkeypatch.setattr(disk_module, "_space", lambda *_: Space(free, 1 << 60, str(bench.recordings), frozenset({0})))
    monkeypatch.setattr(disk_module.Remover, "free_bytes", lambda _: free)
    bench.rules(min_free=free + 4096).retain()
    assert (old.exists(), less_old.exists()) == (False, True)
    # The ledger has it as soon as it is there again.
    bench.writer.turn()
    assert [name for name, _ in bench.deleted()] == ["a.mp4"]


def test_a_ledger_on_the_same_full_disk_is_waited_for_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written again when there is room, and has what went then."""
    waits: list[float] = []
    bench.is_ledger_alive = False
    monkeypatch.setattr(module, "SPACE_BATCH", 1)
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    tell = module.Run._tell

    def watched(run: module.Run, due: Any, wait_s: float) -> bool:
        waits.append(wait_s)
        return tell(run, due, wait_s)

    monkeypatch.setattr(module.Run, "_tell", watched)
    files = [bench.file(f"{days}.mp4", days, size=4096) for days in (40, 39, 38)]
    free = next(iter(survey(bench.places).disks.spaces.values())).free_bytes
    monkeypatch.setattr(disk_module, "_space", lambda *_: Space(free, 1 << 60, str(bench.recordings), frozenset({0})))
    monkeypatch.setattr(disk_module.Remover, "free_bytes", lambda _: free)
    bench.rules(min_free=free + 3 * 4096).retain()
    assert not any(path.exists() for path in files)
    assert waits == [0.05, 0.0, 0.0]
    bench.writer.turn()
    assert [name for name, _ in bench.deleted()] == ["40.mp4", "39.mp4", "38.mp4"]


def test_what_else_is_wrong_with_a_ports_ledger_keeps_no_file(bench: Bench) -> None:
    """Such as that a former file's pictures cannot be counted."""
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    bench.run.joinpath("ports/0").mkdir(parents=True)
    Spool(0, str(bench.run)).tell(spools.WAITS, monotonic(), cause="disk", take=None)
    bench.writer.turn()
    assert port_problem(0, str(bench.run))
    bench.retain()
    assert not path.exists()


def test_only_what_is_protected_is_left_and_the_disk_is_too_full(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.file("a.mp4", 2)
    save_protection(Protection(path=str(path)), bench.places.protected)
    (space,) = survey(bench.places).disks.spaces.values()
    bench.rules(min_free=(space.free_bytes + space.size_bytes) // 2).retain()
    assert path.exists()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"<3>{bench.recordings}: ") and line.endswith("what is left is 1 protected (1000B)")
    # Once, though it is a little more or less each time.
    former = disk_module._space
    monkeypatch.setattr(disk_module, "_space", lambda *known: former(*known).replaced(free_bytes=space.free_bytes // 2))
    bench.retain()
    assert capsys.readouterr().out == ""


def test_a_port_that_asks_in_vain_is_not_heard_each_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at 100,000 files takes most of a second, and it asks every few seconds."""
    monkeypatch.setenv("TRIGGER_PATH", "/run/sdisup/retention.wanted")
    kept = bench.file("a.mp4", 2)
    save_protection(Protection(path=str(kept)), bench.places.protected)
    (space,) = survey(bench.places).disks.spaces.values()
    bench.rules(min_free=(space.free_bytes + space.size_bytes) // 2).retain()
    path = bench.file("b.mp4", 1)
    bench.retain()
    assert path.exists()
    monkeypatch.setattr(module, "VAIN_S", 0.0)
    bench.retain()
    assert not path.exists()


def test_a_port_that_asks_when_there_is_room_is_heard_when_there_is_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ports ask at once: the run for the second one finds that all is well."""
    monkeypatch.setenv("TRIGGER_PATH", "/run/sdisup/retention.wanted")
    path = bench.rules(max_files=1).file("a.mp4", 2)
    bench.retain()
    bench.file("b.mp4", 1)
    bench.retain()
    assert not path.exists()


def test_the_clock_is_not_believed_after_a_jump(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.rules(max_age=30 * 86400)
    paths = [bench.file(f"{days}.mp4", days) for days in (1, 2, 3, 4)]
    bench.retain()
    monkeypatch.setattr(time, "time", lambda: NOW + 365 * DAY)
    bench.retain()
    assert all(path.exists() for path in paths)
    assert "the clock was moved 365.0 days ahead" in bench.problems()["clock"]
    # Size goes on.
    bench.rules(max_age=30 * 86400, max_files=3).retain()
    assert [path.exists() for path in paths] == [True, True, True, False]
    # Put right again, it is believed again.
    monkeypatch.setattr(time, "time", lambda: NOW + 1)
    bench.retain()
    assert bench.problems() == {}


def test_sidecars_go_with_their_file(bench: Bench) -> None:
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    beside = [path.with_name(f"a.mp4{ending}") for ending in (".sha256", ".proxy.mp4", ".txt")]
    for made in beside:
        made.write_bytes(b"x")
    bench.retain()
    assert [made.exists() for made in beside] == [False, False, True]


def test_a_file_whose_number_means_nothing_is_known_by_its_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "filesystem_identity", lambda _: "exfat")
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    kept = path.with_name("kept")
    kept.write_bytes(path.read_bytes())
    os.utime(kept, (NOW - 2 * DAY, NOW - 2 * DAY))
    os.replace(kept, path)
    other = bench.file("b.mp4", 3)
    other.write_bytes(b"y" * 1000)
    bench.retain()
    assert (path.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize(("kind", "is_synced"), [("btrfs", True), ("ext4", False)])
def test_a_pool_that_counts_late_what_is_free_is_synced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, is_synced: bool
) -> None:
    synced: list[str] = []
    library = SimpleNamespace(syncfs=lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(disk_module, "ctypes", SimpleNamespace(CDLL=lambda _: library))
    monkeypatch.setattr(disk_module, "filesystem_identity", lambda _: f"{kind}:fsid-1")
    monkeypatch.setattr(disk_module, "mount_of_open", lambda _: (kind, "/dev/sdc"))
    bench.rules(max_age=86400).file("a.mp4", 0.5)
    bench.retain()
    assert synced == []
    bench.file("b.mp4", 1.2)
    bench.retain()
    assert synced == [str(bench.recordings)] * is_synced


def test_a_disk_that_does_not_answer_is_left_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    here, statvfs = os.getpid(), os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: statvfs(path) if os.getpid() == here else signal.pause())
    monkeypatch.setattr(disk_module, "ANSWER_S", 0.1)
    bench.retain()
    assert path.exists()
    assert "does not answer" in bench.problems()[str(bench.recordings)]
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
        os.waitpid(int(pid), 0)


def test_a_full_system_disk_keeps_from_nothing(bench: Bench) -> None:
    """The last moment at which the clock was believed cannot be noted there."""
    path = bench.rules(max_age=86400).file("a.mp4", 2)
    os.mkdir(bench.places.believed)
    bench.retain()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["", "nfs4:server:/export"])
def test_who_reads_is_known_by_a_lock_where_there_are_no_leases(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = bench.rules(max_age=86400).file("a.mp4", 2)

    def fails(*_: object) -> None:
        # What NFS says of a lease that its server has not granted, whoever has the file open.
        raise OSError(errno.EAGAIN if kind else errno.EINVAL, "")

    monkeypatch.setattr(fcntl, "fcntl", fails)
    if kind:
        monkeypatch.setattr(disk_module, "filesystem_identity", lambda _: kind)
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        bench.retain()
        assert path.exists()
    bench.retain()
    assert not path.exists()


STATES = (
    "as it was", "as it was", "as it was", "another", "larger", "directory", "link", "open", "gone", "protected",
    "unknown",
)  # fmt: skip
RULES = st.builds(
    lambda age, count, size: {"max_age": age and age * 86400, "max_files": count, "max_size": size and size * 1000},
    *[st.none() | st.integers(1, 6)] * 3,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(STATES), st.integers(0, 12)), min_size=1, max_size=12), RULES)
def test_only_what_a_ledger_has_goes_whatever_became_of_the_files(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, int]], rules: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.ExitStack() as opened:
        bench = Bench(tmp_path_factory.mktemp("retention"), monkeypatch)
        paths = {}
        for number, (state, days) in enumerate(found):
            path = bench.recordings / f"{number}.mp4"
            paths[path] = state
            if state == "unknown":
                path.write_bytes(b"x" * 1000)
                continue
            bench.file(path.name, days + number / 100)
            change(path, state, bench, opened)
        before = {path: path.lstat().st_ino for path in paths if os.path.lexists(path)}
        bench.rules(**rules).retain()
        gone = {path.name for path in before if not os.path.lexists(path)}
        assert gone == {str(name) for name, _ in bench.deleted()}
        assert {paths[bench.recordings / name] for name in gone} <= {"as it was"}
        assert all(path.lstat().st_ino == inode for path, inode in before.items() if path.name not in gone)
        os.close(bench.writer.lock)
        os.close(bench.writer._wake)


def change(path: Path, state: str, bench: Bench, opened: contextlib.ExitStack) -> None:
    """What becomes of a file after its line was written."""
    if state == "another":
        path.with_suffix(".other").write_bytes(b"y" * 1000)
        path.with_suffix(".other").replace(path)
    elif state == "larger":
        path.write_bytes(b"x" * 2000)
    elif state in ("directory", "link"):
        path.rename(path.with_suffix(".kept"))
        if state == "link":
            path.symlink_to(path.with_suffix(".kept"))
        else:
            path.mkdir()
    elif state == "open":
        opened.enter_context(path.open("rb"))
    elif state == "gone":
        path.unlink()
    elif state == "protected":
        save_protection(Protection(path=str(path)), bench.places.protected)


def many(bench: Bench, count: int) -> None:
    """So many files with their lines, quickly."""
    lines = []
    for number in range(count):
        path = bench.recordings / f"CAM0_{number:07}.mp4"
        path.touch()
        lines.append((path, path.stat().st_ino))
    entries: list[Entry] = []
    for index, (path, inode) in enumerate(lines):
        end = utc_text(NOW - 86400 * 10 + index)
        entries.append({
            "v": 1, "kind": "file", "port_index": 0, "take": None, "boot_id": "b", "start": end, "end": end,
            "start_monotonic": 1.0, "end_monotonic": 2.0, "seconds": 1.0, "path": str(path), "frames": 25,
            "duplicated": 0, "dropped": 0, "bytes": 0, "codec": "h264", "ended": "complete", "ffmpeg_version": "Lavf",
            "inode": inode, "number": index + 1,
        })  # fmt: skip
    append_entries(ledger_path(0, str(bench.ledgers)), entries)


def test_a_look_at_many_files_takes_few_system_calls(bench: Bench, tmp_path: Path) -> None:
    """Twice as many files cost no more than their share of the reading of ledger and directory."""
    counts = []
    for _ in range(2):
        many(bench, 2000)
        script = f"""
import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})
from sdisup.retention.survey import Places, survey
places = Places(*{[*bench.places.as_dict().values()]!r})
found = survey(places)
print(len(found.files))
"""
        trace = tmp_path / "trace"
        command = ["strace", "-f", "-qq", "-c", "-o", str(trace), sys.executable, "-I", "-S", "-c", script]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        total = next(line for line in trace.read_text().splitlines() if line.endswith("total"))
        counts.append((int(out), int(total.split()[3] if len(total.split()) > 4 else total.split()[2])))
        bench.recordings = bench.recordings / "more"
        bench.recordings.mkdir()
    assert [files for files, _ in counts] == [2000, 4000]
    assert counts[1][1] - counts[0][1] < 200, counts


PROGRAM = """
import sys; sys.path.insert(0, PACKAGE)
from sdisup.ledger.writer import main as write_ledgers
from sdisup.retention.main import main as retain
from sdisup.retention.survey import Places
places = Places(*sys.argv[2:])
sys.exit(write_ledgers([places.run, places.ledgers]) if sys.argv[1] == "ledger" else retain([], places))
"""


@pytest.mark.slow
def test_whatever_is_killed_each_file_that_goes_is_entered_once(bench: Bench) -> None:
    """Retention and the ledger's process, at any moment; each entry is of a file that is gone in the end."""
    many(bench, 3000)
    # Real processes do it all.
    bench.monkeypatch.undo()
    os.close(bench.writer.lock)
    os.close(bench.writer._wake)

    def start(part: str) -> subprocess.Popen[bytes]:
        program = PROGRAM.replace("PACKAGE", repr(str(PACKAGE.parent)))
        words = [sys.executable, "-I", "-S", "-c", program, part, *bench.places.as_dict().values()]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL)

    ledger, kills, chance = start("ledger"), 0, random.Random(7)
    for turn in range(60):
        bench.rules(max_files=3000 - 40 * (turn + 1))
        run = start("retain")
        try:
            run.wait(chance.uniform(0.05, 0.3))
        except subprocess.TimeoutExpired:
            run.kill()
            kills += 1
        run.wait()
        if turn % 7 == 3:
            ledger.kill()
            ledger.wait()
            ledger = start("ledger")
    for _ in range(2):
        wait_for(lambda: start("retain").wait() == 0 and len(bench.deleted()) >= 2400, 30, "the rest goes")
    ledger.terminate()
    ledger.wait()
    left = set(os.listdir(bench.recordings))
    told = [str(name) for name, _ in bench.deleted()]
    assert kills > 5
    assert (len(told), len(set(told)), left & set(told), len(left)) == (2400, 2400, set(), 600)
