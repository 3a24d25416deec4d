"""What a schedule missed, from the service that says so to the lines of the ledger."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from test_writer import PORT, Bench, kinds

from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import boot_id, monotonic
from sdisup.contract.status import PortStatus
from sdisup.control import units, wake
from sdisup.control.schedules import Now, Slot, scheduled
from sdisup.ledger import due
from sdisup.ledger import spool as events
from sdisup.ledger.present import port_present

PORT_APPLIED = AppliedPort(PORT, "CAM", "h264", "/r", False, "rev")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def tell(bench: Bench, *times: tuple[float, float, str | None]) -> int:
    listed = [{"first": first, "last": last, "take": take} for first, last, take in times]
    return due.main([str(PORT), json.dumps(listed)], str(bench.run))


@pytest.mark.parametrize("is_late", [False, True])
def test_a_start_that_was_late_is_a_gap_from_its_time_on(bench: Bench, is_late: bool) -> None:
    """Whether the writer reads of it before the runner tells that it begins, or both at once."""
    path = bench.recordings / "a.mp4"
    path.write_bytes(b"x" * 100)
    bench.begin().record(str(path)).close(str(path)).stop("schedule").turn()
    now = time.time()
    assert tell(bench, (now - 20, now + 100, "news")) == 0
    if not is_late:
        bench.turn()
    bench.now = monotonic()
    bench.begin(take="news").record(str(path)).turn()
    assert kinds(bench.entries())[2:] == [("stop", "schedule"), ("gap", "schedule missed")]
    gap = bench.entries()[-1]
    assert gap["seconds"] == pytest.approx(20, abs=1) and gap["take"] == "news"
    told = events.Spool(PORT, str(bench.run), teller=events.SCHEDULE)
    assert told.is_safe()


def test_what_is_not_entered_yet_is_in_the_answer_too(bench: Bench) -> None:
    bench.begin().stop("schedule").turn()
    now = time.time()
    tell(bench, (now - 20, now - 10, "news"))
    _, story, problems = port_present(PORT_APPLIED, str(bench.directory), str(bench.run))
    assert not problems
    assert [entry["cause"] for entry in story.ready() if entry["kind"] == "gap"] == ["schedule missed"]


def test_a_port_of_which_no_runner_told_anything_since_the_boot(bench: Bench) -> None:
    now = time.time()
    tell(bench, (now - 20, now - 10, None), (now - 5, now - 2, "b"))
    bench.turn()
    assert [(entry["cause"], entry["seconds"]) for entry in bench.entries()] == [
        ("schedule missed", pytest.approx(10, abs=0.1)), ("schedule missed", pytest.approx(3, abs=0.1))
    ]  # fmt: skip


NEWS = scheduled(1000.0, 100.0, "news", 5.0, 0.0)


@pytest.mark.parametrize(
    ("now", "missed"),
    [
        (Now(1050.0), (NEWS,)),
        (Now(1200.0), (NEWS,)),
        (Now(996.0), ()),
        (Now(1000.4), ()),
        (Now(1050.0, ""), ()),
        (Now(1050.0, NEWS.request_id), ()),
        (Now(1050.0, stopped_at=1010.0), ()),
        (Now(1050.0, stopped_at=900.0), (NEWS,)),
    ],
)
def test_what_was_missed(now: Now, missed: tuple[Slot, ...]) -> None:
    assert wake.missed_of([NEWS], now) == missed


def test_the_ledger_is_told_as_the_user_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def says(command: list[str]) -> tuple[bytes, int]:
        asked.append(command)
        return b"", 1

    said: list[str] = []
    monkeypatch.setattr("sdisup.contract.programs.says", says)
    endless = Slot(1000.0, float("inf"), None, "start:1")
    wake.tell_missed(PORT_APPLIED, (NEWS, endless), said.append)
    (command,) = asked
    assert tuple(command[:-2]) == units.TELL_DUE and command[-2] == str(PORT)
    times: list[dict[str, Any]] = json.loads(command[-1])
    assert times == [
        {"first": 1000.0, "last": 1100.0, "take": "news"}, {"first": 1000.0, "last": 9e10, "take": None}
    ]  # fmt: skip
    assert said == [f"port {PORT} (CAM): its ledger cannot be told of what its schedule missed (exit status 1)"]


def test_a_port_that_cannot_work_is_ended_with_its_time() -> None:
    failed = PortStatus(state="failed", request_id=NEWS.request_id, boot_id=boot_id())
    assert wake.due_of(PORT_APPLIED, failed, [NEWS], 1050.0).step.kind == "start"
    assert wake.due_of(PORT_APPLIED, failed, [NEWS], 1100.0).step.kind == "end"
    assert wake.due_of(PORT_APPLIED, failed.replaced(request_id="a"), [NEWS], 1100.0).step.kind == "nothing"
