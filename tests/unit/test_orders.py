"""Starts with a time, and holds: what is kept of them, what becomes of them, what the status says."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sdisup import aio
from sdisup.cli.words import parse_clock
from sdisup.config.settings import parse_settings
from sdisup.contract import orders as contract
from sdisup.contract import status as status_module
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.files import Unreadable, boot_id, monotonic
from sdisup.contract.orders import Order, owner_of, read_hold, read_order
from sdisup.contract.requests import Request
from sdisup.contract.status import PortStatus, is_timed
from sdisup.control import api, observe, orders, ports, systemd, wake
from sdisup.control.api import RecorderConfig, RecorderManager
from sdisup.control.bus import UnitState
from sdisup.control.orders import Asked, hold_ports, start_at_times
from sdisup.control.ports import IS_STARTED, ORDERED_START, RECORDS, REFUSED, STARTED_BY_ANOTHER, Outcome
from sdisup.control.schedules import END, NOTHING, START, scheduled
from sdisup.errors import RecordingError, SdisupError, UsageError

PORT = AppliedPort(3, "CAM3", "h264", "/r", False, "rev")
FULL = Request("final", "start:1", ["ffmpeg", "{output}"], "/r/cup", "FINAL", "prores", "mov")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that has the directory as a default takes this one."""
    for function in (contract.order_path, contract.hold_path, contract.leave_order, contract.leave_hold,
                     contract.read_order, contract.read_hold, status_module.listed):  # fmt: skip
        monkeypatch.setattr(function, "__defaults__", (str(tmp_path),))
    return tmp_path


# ---- What is kept ----


def test_an_order_is_kept_whole(directory: Path) -> None:
    order = Order(FULL, 1000.5, None, 7200.0, "boot", 12.5, 5.0)
    contract.leave_order(3, order)
    assert read_order(3, "/r") == order and read_order(4, "/r") is None
    path = directory / "3.start"
    assert path.stat().st_mode & 0o777 == 0o640
    assert status_module.listed() == {3: {".start"}}
    contract.leave_hold(3, "schedule:1:2#ab")
    assert read_hold(3) == "schedule:1:2" and read_hold(4) == ""
    (directory / "3.start.77.tmp").write_text("torn")
    (directory / "x.start").write_text("")
    assert status_module.listed() == {3: {".start", ".hold"}}
    assert status_module.listed("/nowhere") == {}


def test_what_is_executed_and_written_counts_from_root_alone(directory: Path) -> None:
    contract.leave_order(3, Order(FULL, 1000.0))
    os.chown(directory / "3.start", 12345, -1)
    found = read_order(3, "/r")
    assert found is not None and found.request == Request("final", "start:1")


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"request": {}, "begin": 1}', '{"request": {"request_id": "schedule:1:2"}, "begin": 1}',
        '{"request": {"request_id": "start:1", "take": "../x"}, "begin": 1}',
        '{"request": {"request_id": "start:1"}, "begin": -1}', '{"request": {"request_id": "start:1"}, "begin": "x"}',
        '{"request": {"request_id": "start:1"}, "begin": 1, "until": Infinity}',
    ],
)  # fmt: skip
def test_what_is_no_order_is_none(directory: Path, content: str) -> None:
    (directory / "3.start").write_text(content)
    with pytest.raises(Unreadable):
        read_order(3, "/r")
    assert contract.times_of(3, "/r", "start:1", {".start"}) == (None, None)


def test_a_length_counts_by_the_monotonic_clock_and_over_a_boot_by_the_clock() -> None:
    order = Order(Request(request_id="start:1"), 1000.0, None, 60.0, boot_id(), monotonic() - 20)
    # The clock was moved by a year meanwhile.
    assert order.end(4e7) == pytest.approx(4e7 + 40, abs=0.5)
    assert order.replaced(boot="another").end(4e7) == 1060.0
    assert order.replaced(counted_from=None).end(4e7) == 1060.0
    assert Order(Request(), 1000.0, 2000.0).end(0.0) == 2000.0 and Order(Request(), 1000.0).end(0.0) is None


@pytest.mark.parametrize(
    ("request_id", "owner", "timed"),
    [("", "", False), ("a3f1", "a3f1", False), ("schedule:1:2#9f", "schedule:1:2", True), ("start:7", "start:7", True)],
)
def test_a_cut_changes_the_take_and_not_whose_the_recording_is(request_id: str, owner: str, timed: bool) -> None:
    assert (owner_of(request_id), is_timed(request_id)) == (owner, timed)
    cut = ports._cut_id(request_id)
    assert cut != request_id and len(cut) <= 64
    assert owner_of(cut) == owner if timed else not is_timed(cut)


# ---- What is asked for ----


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(until=2000.0, for_s=60.0), "--for and --until together"),
        (Asked(for_s=0.0), "a recording of 0 s"),
        (Asked(until=999.0), "--until is over"),
        (Asked(at=999.0), "--at is over"),
        (Asked(at=3000.0, until=2000.0), "is not after"),
        (Asked(for_s=1e9), "a recording of 1e+09 s"),
    ],
)
def test_times_that_cannot_be(asked: Asked, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("+", r"\+")):
        asked.check(1000.0)


def test_a_time_of_day_is_the_next_one() -> None:
    now = datetime(2026, 11, 27, 20, 15, 30).timestamp()
    read = {text: datetime.fromtimestamp(parse_clock(text, now)).isoformat(" ") for text in (
        "23:00", "20:15:31", "20:15:30", "8:05", "2026-12-24 18:00", "2026-12-24T18:00:00.250")}  # fmt: skip
    assert read == {
        "23:00": "2026-11-27 23:00:00", "20:15:31": "2026-11-27 20:15:31", "20:15:30": "2026-11-28 20:15:30",
        "8:05": "2026-11-28 08:05:00", "2026-12-24 18:00": "2026-12-24 18:00:00",
        "2026-12-24T18:00:00.250": "2026-12-24 18:00:00.250000",
    }  # fmt: skip
    for text in ("25:00", "20:60", "", "soon", "-2h", "20", "\N{ARABIC-INDIC DIGIT TWO}0:15"):
        with pytest.raises(UsageError, match="is no time"):
            parse_clock(text, now)


# ---- What becomes of it ----


class Scene:
    """A port that is started with a time: what the start gives, and systemd, which arms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str = RECORDS, state: str = "stopped") -> None:
        self.kind, self.status = kind, PortStatus(port_index=3, state=state)
        self.left: list[Request] = []
        self.jobs: list[str] = []
        self.result: str | SdisupError = "done"
        self.is_busy = False
        monkeypatch.setattr(orders, "statuses", lambda asked, *_: [self.status for _ in asked])
        monkeypatch.setattr(orders, "start_ports", self.start)
        monkeypatch.setattr(systemd, "Systemd", lambda: self)

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def start(self, asked: Sequence[AppliedPort], wait_s: float, *, request: Any, job_limit_s: float) -> list[Outcome]:
        self.left = [request(port) for port in asked]
        found = read_order(3, "/r")
        # It is on disk before anything is started.
        assert not asked or (found is not None and found.request == self.left[0])
        return [
            Outcome(port, self.kind, status=self.started(made)) for port, made in zip(asked, self.left, strict=True)
        ]

    def started(self, request: Request) -> PortStatus:
        return self.status.replaced(state="recording", is_recording=True, current_file="/r/a.mp4", request_id="x")

    def load(self, units: Sequence[str]) -> list[UnitState]:
        return [UnitState("loaded", "activating" if self.is_busy else "inactive", "") for _ in units]

    def run_jobs(self, verb: str, units: Iterable[str], timeout_s: float) -> dict[str, Any]:
        found = list(units)
        self.jobs += [f"{verb} {unit}" for unit in found]
        return dict.fromkeys(found, self.result)


def test_a_start_with_a_length_counts_from_its_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    before = monotonic()
    (outcome,) = start_at_times([PORT], 10.0, Asked(for_s=7200.0), lambda _: Request("final"))
    order = read_order(3, "/r")
    assert order is not None and order.for_s == 7200.0 and order.boot == boot_id()
    assert order.counted_from is not None and order.counted_from >= before
    assert order.request.take == "final" and order.request.request_id.startswith("start:")
    assert outcome.ok and " until 2" in outcome.text
    assert scene.jobs == ["Start sdi-schedule@3.service"]


def test_a_start_at_a_time_is_left_to_the_schedules_service(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    at = time.time() + 3600
    (outcome,) = start_at_times([PORT], 10.0, Asked(at=at, for_s=60.0))
    assert (outcome.kind, outcome.ok, scene.left) == (ORDERED_START, True, [])
    order = read_order(3, "/r")
    assert order is not None and (order.begin, order.counted_from, order.pre_roll_s) == (at, None, 5.0)
    assert scene.jobs == ["Start sdi-schedule@3.service"] and order.end(0.0) == at + 60
    (again,) = start_at_times([PORT], 10.0, Asked(for_s=60.0))
    assert "has a start already: from 2" in again.text and read_order(3, "/r") == order


def test_a_service_that_runs_already_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have looked before there was something to see."""
    scene = Scene(monkeypatch)
    scene.is_busy = True
    start_at_times([PORT], 10.0, Asked(for_s=60.0))
    assert scene.jobs == ["Start sdi-schedule@3.service"] * 2


@pytest.mark.parametrize("is_async", [False, True])
def test_the_same_from_python(monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    Scene(monkeypatch)
    settings = parse_settings([("t.toml", {"appliance": {"ports": 4}, "defaults": {"source": {"kind": "test"}}})])
    monkeypatch.setattr(api, "load_applied", lambda: Applied({3: PORT}, []))
    monkeypatch.setattr(api.RecorderManager, "get_status", lambda *_: PortStatus(port_index=3, state="stopped"))
    config = RecorderConfig(codec=None, take="final")

    def start(**times: Any) -> PortStatus:
        if is_async:
            return asyncio.run(aio.PortRecorder(3, settings).start(config, **times))
        return RecorderManager(settings).start_recording(3, config, **times)

    until = datetime.fromtimestamp(math.ceil(time.time()) + 3600)
    assert start(until=until).is_recording
    order = read_order(3, "/r")
    assert order is not None and (order.until, order.request.take) == (until.timestamp(), "final")
    contract.forget(3, "/r")
    assert start(at=until.astimezone(UTC), for_s=60.0).state == "stopped"
    order = read_order(3, "/r")
    assert order is not None and (order.begin, order.for_s) == (until.timestamp(), 60.0)
    with pytest.raises(UsageError):
        start(until=until, for_s=60.0)
    with pytest.raises(RecordingError, match="has a start already"):
        start(for_s=60.0)


@pytest.mark.parametrize("kind", [IS_STARTED, STARTED_BY_ANOTHER, REFUSED])
def test_nothing_is_left_of_a_start_that_was_none(monkeypatch: pytest.MonkeyPatch, kind: str, directory: Path) -> None:
    scene = Scene(monkeypatch, kind)
    (outcome,) = start_at_times([PORT], 10.0, Asked(for_s=60.0))
    assert outcome.kind == kind and not list(directory.iterdir()) and scene.jobs == []


def test_a_port_that_is_started_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    scene = Scene(monkeypatch, state="recording")
    (outcome,) = start_at_times([PORT], 10.0, Asked(for_s=60.0))
    assert outcome.kind == IS_STARTED and not list(directory.iterdir()) and scene.left == []


def test_a_start_that_its_service_made_first_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, IS_STARTED)
    recording = PortStatus(port_index=3, state="recording", is_recording=True)
    monkeypatch.setattr(scene, "started", lambda request: recording.replaced(request_id=request.request_id))
    (outcome,) = start_at_times([PORT], 10.0, Asked(for_s=60.0))
    assert outcome.kind == RECORDS and read_order(3, "/r") is not None


def test_what_cannot_be_armed_is_told_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.result = "failed"
    (outcome,) = start_at_times([PORT], 10.0, Asked(for_s=60.0))
    assert not outcome.ok and "is not armed: failed; systemctl start sdi-schedule@3.service" in outcome.text.replace(
        " (", "; "
    )
    assert read_order(3, "/r") is not None


def test_where_it_cannot_be_kept_nothing_is_started(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    scene = Scene(monkeypatch)
    directory.rmdir()
    (outcome,) = start_at_times([PORT], 10.0, Asked(for_s=60.0))
    assert "systemd-tmpfiles --create sdisup.conf" in str(outcome.as_error()) and scene.left == []


def test_a_stop_takes_back_what_was_to_come(directory: Path) -> None:
    contract.leave_order(3, Order(Request(request_id="start:1"), time.time() + 3600))
    contract.leave_hold(3, "schedule:1:2")
    assert contract.forget(3, "/r").endswith("is taken back") and not list(directory.iterdir())
    contract.leave_order(3, Order(Request(request_id="start:1"), 1000.0))
    assert contract.forget(3, "/r") == "" and not list(directory.iterdir())


def test_a_hold_is_of_what_a_schedule_began(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.status = PortStatus(port_index=3, state="recording", is_recording=True, request_id="schedule:1000:2000#ab")
    assert hold_ports([PORT])[0][2] and read_hold(3) == "schedule:1000:2000"
    assert observed(scene.status).ends_at is None
    assert hold_ports([PORT], release=True)[0][1:] == ("is released", True)
    assert hold_ports([PORT], release=True)[0][1:] == ("is not held", False)
    assert observed(scene.status).ends_at == "1970-01-01T00:33:20.000Z"
    for other in (scene.status.replaced(request_id="a"), scene.status.replaced(state="stopped")):
        scene.status = other
        assert not hold_ports([PORT])[0][2] and read_hold(3) == ""


def observed(status: PortStatus) -> PortStatus:
    found = status.replaced()
    observe._add_times([PORT], [found])
    return found


def test_the_status_says_when_a_port_starts_and_ends() -> None:
    stopped, running = PortStatus(state="stopped"), PortStatus(state="recording", request_id="start:1")
    assert (observed(stopped).starts_at, observed(running).ends_at) == (None, None)
    contract.leave_order(3, Order(Request(request_id="start:1"), 4e9, 5e9))
    assert (observed(stopped).starts_at, observed(stopped).ends_at) == (
        "2096-10-02T07:06:40.000Z",
        "2128-06-11T08:53:20.000Z",
    )
    assert (observed(running).starts_at, observed(running).ends_at) == (None, "2128-06-11T08:53:20.000Z")
    # Another recording does not end then.
    assert observed(running.replaced(request_id="a")).starts_at == "2096-10-02T07:06:40.000Z"


# ---- What its service does of it ----

NOW = 1_774_700_000.0
ORDER = Order(Request("final", "start:1"), NOW - 60, NOW + 60)


@pytest.mark.parametrize(
    ("order", "status", "kind"),
    [
        (ORDER, PortStatus(state="stopped"), START),
        (ORDER, PortStatus(state="recording", request_id="start:1"), NOTHING),
        (ORDER, PortStatus(state="recording", request_id="start:1#7f"), NOTHING),
        (ORDER, PortStatus(state="recording", request_id=""), NOTHING),
        (ORDER.replaced(begin=NOW + 5, pre_roll_s=5.0), PortStatus(state="stopped"), START),
        (ORDER.replaced(begin=NOW + 6, pre_roll_s=5.0), PortStatus(state="stopped"), NOTHING),
        (ORDER.replaced(until=NOW), PortStatus(state="recording", request_id="start:1#7f"), END),
        (ORDER.replaced(until=NOW), PortStatus(state="recording", request_id="other"), NOTHING),
        (ORDER.replaced(until=None), PortStatus(state="stopped"), START),
    ],
)
def test_what_is_due_by_an_order(order: Order, status: PortStatus, kind: str) -> None:
    assert wake.due_of(PORT, status, [], NOW, order).step.kind == kind


def test_what_is_held_is_not_ended() -> None:
    slot = scheduled(NOW - 3600, 3600.0, "news", 5.0, 0.0)
    status = PortStatus(state="recording", request_id=f"{slot.request_id}#7f")
    assert wake.due_of(PORT, status, [slot], NOW).step.kind == END
    assert wake.due_of(PORT, status, [slot], NOW, held=slot.request_id).step.kind == NOTHING
    assert wake.due_of(PORT, status, [slot], NOW, held="schedule:1:2").step.kind == END


def stopped(ago_s: float) -> PortStatus:
    return PortStatus(
        state="stopped", stopped_by="operator", boot_id=boot_id(), state_since_monotonic=monotonic() - ago_s
    )


@pytest.mark.parametrize(
    ("order", "status", "is_over"),
    [
        (ORDER, PortStatus(state="stopped"), False),
        (ORDER, PortStatus(state="recording", request_id="start:1"), False),
        (ORDER.replaced(until=NOW), PortStatus(state="recording", request_id="start:1"), False),
        (ORDER.replaced(until=NOW), PortStatus(state="stopping", request_id="start:1"), False),
        (ORDER.replaced(until=NOW), PortStatus(state="stopped"), True),
        (ORDER.replaced(until=None), PortStatus(state="recording", request_id="start:1"), True),
        (ORDER, 30, True),
        (ORDER, 90, False),
        (ORDER.replaced(begin=NOW + 5), 30, False),
    ],
)
def test_when_an_order_is_over(order: Order, status: PortStatus | int, is_over: bool) -> None:
    """A number is for how many seconds it has been stopped by hand."""
    status = stopped(status) if isinstance(status, int) else status
    assert wake.order_is_over(order, PORT, status, NOW) is is_over


@pytest.mark.parametrize(
    ("state", "request_id", "this_boot", "stays"),
    [
        ("recording", "schedule:1:2", True, True),
        ("backoff", "other", True, True),
        ("recording", "other", True, False),
        ("stopped", "", True, False),
        # A power cut has ended it.
        ("stopped", "", False, True),
    ],
)
def test_a_hold_is_removed_with_its_recording(state: str, request_id: str, this_boot: bool, stays: bool) -> None:
    contract.leave_hold(3, "schedule:1:2")
    boot = boot_id() if this_boot else ""
    status = PortStatus(state=state, is_recording=state == "recording", request_id=request_id, boot_id=boot)
    assert bool(wake._held(PORT, status)) is stays and bool(read_hold(3)) is stays


def test_what_was_held_when_the_power_went_is_an_operators() -> None:
    slot = scheduled(NOW - 3600, 3000.0, "news", 5.0, 0.0)
    stopped = PortStatus(state="stopped")
    assert wake.due_of(PORT, stopped, [slot], NOW).missed == (slot,)
    assert wake.due_of(PORT, stopped, [slot], NOW, held=slot.request_id).missed == ()


def test_a_start_that_the_machine_was_off_for_is_removed_and_missed(directory: Path) -> None:
    stopped = PortStatus(state="stopped")
    contract.leave_order(3, ORDER.replaced(until=NOW - 5))
    order = wake._order(PORT, stopped, NOW)
    assert order is not None and not list(directory.iterdir())
    due = wake.due_of(PORT, stopped, [], NOW, order)
    assert (due.step.kind, due.next_at) == (NOTHING, None)
    assert [(slot.start, slot.end) for slot in due.missed] == [(NOW - 60, NOW - 5)]


def test_what_cannot_be_read_is_told_and_nothing_is_done_by_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "3.start").write_text("torn")
    (directory / "3.hold").mkdir()
    assert wake._order(PORT, PortStatus(state="stopped"), NOW) is None
    assert wake._held(PORT, PortStatus(state="recording")) == ""
    said = capsys.readouterr().out
    assert "3.start cannot be read" in said and "3.hold cannot be read" in said


def test_the_start_of_an_order_has_all_that_was_asked_for_and_its_length_counts_from_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[Request] = []

    def start(
        asked: Sequence[AppliedPort], wait_s: float, *, request: Callable[[AppliedPort], Request], job_limit_s: float
    ) -> list[Outcome]:
        left.append(request(asked[0]))
        return [Outcome(asked[0], RECORDS, status=PortStatus())]

    monkeypatch.setattr(wake, "start_ports", start)
    order = Order(FULL, time.time() + 5, None, 60.0, pre_roll_s=5.0)
    due = wake.due_of(PORT, PortStatus(state="stopped"), [], time.time(), order)
    wake.act(PORT, due.step, due.order)
    kept = read_order(3, "/r")
    assert left == [FULL] and kept is not None and kept.counted_from == pytest.approx(monotonic() + 5, abs=1)
    assert kept.boot == boot_id() and kept.request == FULL
