"""What sdi-schedule@.service does: with a scripted systemd and scripted ports; and the texts of its timers."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pytest

from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.files import boot_id, monotonic
from sdisup.contract.schedules import Schedule
from sdisup.contract.status import PortStatus
from sdisup.control import wake
from sdisup.control.bus import SystemdError, UnitState
from sdisup.control.calendars import moment, zone_of
from sdisup.control.ports import CANNOT_RECORD, CUT, NO_SIGNAL, NOT_STOPPED, RECORDS, REFUSED, STOPPED, Outcome
from sdisup.control.schedules import NOTHING, Now, Slot, scheduled
from sdisup.control.wake import calendar_text, due_of, now_of
from sdisup.errors import SdisupError

PORT = AppliedPort(3, "CAM3", "h264", "/r", False, "rev")
TEN = 1_774_700_000.0
NEWS = scheduled(TEN, 3600.0, "news", 5.0, 0.0)
SPORT = scheduled(TEN + 3600.0, 1800.0, "sport", 5.0, 0.0)


class Scene:
    """A port with slots, systemd's timers, and a clock that stands still; what is done takes no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slots: Sequence[Slot]) -> None:
        self.time, self.slots = TEN - 60, slots
        self.status = PortStatus(port_index=3, state="stopped")
        self.armed: dict[str, float | None] = {}
        self.done: list[str] = []
        self.kinds: dict[str, str] = {}
        self.jobs: list[tuple[str, list[str]]] = []
        self.forgets_late = 0
        self.states: dict[str, str] = {wake.CLOCK_TIMER: "active"}
        monkeypatch.setattr(wake, "load_applied", lambda: Applied({3: PORT}, []))
        monkeypatch.setattr(wake, "load_schedules", lambda: {3: Schedule(entries=(object(),))})  # type: ignore[arg-type]
        monkeypatch.setattr(wake, "slots_of", lambda *_: {3: [s for s in slots if s.until > self.time]})
        monkeypatch.setattr(wake, "statuses", lambda *_: [self.status])
        monkeypatch.setattr(wake, "Systemd", lambda: self)
        monkeypatch.setattr(time, "time", lambda: self.time)
        monkeypatch.setattr(wake, "start_ports", self.start)
        monkeypatch.setattr(wake, "cut_ports", self.cut)
        monkeypatch.setattr(wake, "stop_ports", self.stop)
        monkeypatch.setattr(wake, "leave_stop_note", lambda index, by: self.done.append(f"note {index} {by}"))

    # What stands in systemd's place.

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def units(self, pattern: str) -> dict[str, UnitState]:
        return {name: UnitState("loaded", state, "") for name, state in self.states.items()}

    def timers(self, _: object) -> dict[str, float | None]:
        return dict(self.armed)

    def run_jobs(self, verb: str, units: Iterable[str], timeout_s: float) -> dict[str, Any]:
        self.jobs.append((verb, list(units)))
        for unit in units if verb == "Stop" else ():
            self.armed.pop(unit, None)
        return {}

    def start_timer(self, name: str, description: str, calendar: str) -> None:
        if self.forgets_late:
            self.forgets_late -= 1
            raise SystemdError("it was loaded", "", "org.freedesktop.systemd1.UnitExists")
        assert name not in self.armed and calendar.endswith(" UTC")
        day, time_of_day, _ = calendar.split()
        whole, _, milliseconds = time_of_day.partition(".")
        self.armed[name] = moment(datetime.fromisoformat(f"{day} {whole}"), zone_of("UTC")) + int(milliseconds) / 1e3

    # The port.

    def start(self, asked: Sequence[AppliedPort], wait_s: float, *, request: Any, job_limit_s: float) -> list[Outcome]:
        made = request(asked[0])
        self.done.append(f"start {made.take} {made.request_id}")
        return [self.after("start", RECORDS, state="recording", request_id=made.request_id)]

    def cut(self, asked: Sequence[AppliedPort], take: str, *, at: float, request_id: str) -> list[Outcome]:
        self.done.append(f"cut {take} {monotonic() - at:.1f} s ago")
        return [self.after("cut", CUT, request_id=request_id)]

    def stop(self, asked: Sequence[AppliedPort], *, unlock: bool = True, goes_on: bool = True) -> list[Outcome]:
        # A start that is still to come is not over with what ends now.
        assert unlock and goes_on
        self.done.append("stop")
        return [self.after("stop", STOPPED, state="stopped", stopped_by="schedule", boot_id=boot_id())]

    def after(self, verb: str, kind: str, **values: Any) -> Outcome:
        kind = self.kinds.get(verb, kind)
        if kind in (RECORDS, CUT, STOPPED, NO_SIGNAL):
            self.status = self.status.replaced(**values)
        return Outcome(PORT, kind, status=self.status, error=SystemdError("no") if kind == REFUSED else None)

    def wakes(self, now: float) -> list[str]:
        self.time, self.done = now, []
        wake.wake(3, lambda text: None)
        return self.done

    @property
    def timer(self) -> float | None:
        return self.armed.get("sdi-schedule@3.timer")


def test_a_day_of_two_programmes(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS, SPORT])
    assert scene.wakes(TEN - 60) == [] and scene.timer == NEWS.begin
    assert scene.wakes(NEWS.begin + 0.1) == [f"start news {NEWS.request_id}"] and scene.timer == TEN
    assert scene.wakes(TEN) == [] and scene.timer == SPORT.begin
    assert scene.wakes(SPORT.begin) == [] and scene.timer == SPORT.start
    assert scene.wakes(SPORT.start + 0.3) == ["cut sport 0.3 s ago"] and scene.timer == SPORT.until
    # A second run, such as that of an apply, changes nothing.
    before = list(scene.jobs)
    assert scene.wakes(SPORT.start + 0.4) == [] and scene.timer == SPORT.until
    assert all(not units for _, units in scene.jobs[len(before) :])
    assert scene.wakes(SPORT.until) == ["note 3 schedule", "stop"] and scene.timer is None


def test_a_wake_that_comes_late_does_all_that_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS, SPORT])
    assert scene.wakes(TEN + 600) == [f"start news {NEWS.request_id}"] and scene.timer == SPORT.begin
    assert scene.wakes(SPORT.start + 60) == ["cut sport 20.0 s ago"]
    assert scene.wakes(SPORT.until + 600) == ["note 3 schedule", "stop"]


@pytest.mark.parametrize(("kind", "again_s"), [(REFUSED, 5.0), (CANNOT_RECORD, 60.0)])
def test_a_start_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch, kind: str, again_s: float) -> None:
    scene = Scene(monkeypatch, [NEWS])
    scene.kinds["start"] = kind
    assert len(scene.wakes(TEN)) == 1 and scene.timer == TEN + again_s
    assert len(scene.wakes(TEN + again_s)) == 1
    scene.kinds.clear()
    assert len(scene.wakes(TEN + 2 * again_s)) == 1 and scene.timer == NEWS.until


def test_a_port_without_a_signal_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS])
    scene.kinds["start"] = NO_SIGNAL
    assert len(scene.wakes(TEN)) == 1 and scene.timer == NEWS.until


def test_a_stop_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS])
    scene.wakes(TEN)
    scene.kinds["stop"] = NOT_STOPPED
    assert scene.wakes(NEWS.until)[-1] == "stop" and scene.timer == NEWS.until + 5


def test_a_stop_by_hand_holds_until_the_next_programme(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS, SPORT])
    scene.wakes(TEN)
    scene.stop([PORT])
    scene.status = scene.status.replaced(stopped_by="operator", state_since_monotonic=monotonic())
    scene.time = TEN + 60
    monkeypatch.setattr(wake, "monotonic", lambda: scene.status.state_since_monotonic + scene.time - TEN - 60)
    assert scene.wakes(TEN + 600) == [] and scene.timer == SPORT.begin
    assert scene.wakes(SPORT.begin) == [f"start sport {SPORT.request_id}"]


def test_what_cannot_be_read_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Scene(monkeypatch, [NEWS])

    def fail(*_: object) -> dict[int, Schedule]:
        raise SdisupError("schedules.json: torn", "sdisup apply writes it anew")

    monkeypatch.setattr(wake, "load_schedules", fail)
    assert wake.main(["3"]) == wake.main([]) == 1
    assert capsys.readouterr().out.count("torn (sdisup apply writes it anew); it is tried again\n") == 2


def test_a_port_that_is_gone_has_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS])
    scene.wakes(TEN - 60)
    monkeypatch.setattr(wake, "load_applied", lambda: Applied({}, []))
    assert scene.wakes(TEN) == [] and scene.armed == {}


def test_all_timers_are_armed_at_once_and_what_is_due_is_left_to_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS])
    scene.armed = {"sdi-schedule@7.timer": TEN}
    said: list[str] = []
    assert wake.arm_all(scene, said.append)  # type: ignore[arg-type]
    assert scene.armed == {"sdi-schedule@3.timer": NEWS.begin} and scene.jobs[-1] == ("Start", [])
    assert [text.split(" for ")[0] for text in said] == ["armed sdi-schedule@3.timer", "removed sdi-schedule@7.timer"]
    assert not wake.arm_all(scene, said.append)  # type: ignore[arg-type]
    scene.time = TEN
    assert wake.arm_all(scene, said.append)  # type: ignore[arg-type]
    assert scene.done == [] and scene.jobs[-1] == ("Start", ["sdi-schedule@3.service"])


def test_the_timer_of_a_port_whose_service_runs_is_that_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS])
    scene.states = {"sdi-schedule@3.service": "activating"}
    scene.armed = {"sdi-schedule@3.timer": TEN - 30}
    assert not wake.arm_all(scene, print)  # type: ignore[arg-type]
    assert scene.armed == {"sdi-schedule@3.timer": TEN - 30}
    # What wakes for the clock is there from the first apply on.
    assert scene.jobs[-1] == ("Start", [wake.CLOCK_TIMER])


def test_without_a_timer_what_is_due_is_done_and_the_service_fails_so_that_it_runs_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, [NEWS])
    monkeypatch.setattr(wake, "GONE_S", 0.0)
    scene.forgets_late = 100
    with pytest.raises(SystemdError):
        scene.wakes(TEN)
    assert scene.done == [f"start news {NEWS.request_id}"] and scene.status.state == "recording"
    said: list[str] = []
    assert wake.arm_all(scene, said.append)  # type: ignore[arg-type]
    assert scene.jobs[-1] == ("Start", ["sdi-schedule@3.service"])
    assert said == ["no timer can be armed: it was loaded; the services of the ports look again and again"]
    scene.forgets_late = 0
    assert scene.wakes(TEN + 10) == [] and scene.timer == NEWS.until


def test_a_timer_is_made_once_systemd_has_forgotten_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, [NEWS])
    scene.forgets_late = 3
    scene.wakes(TEN - 60)
    assert scene.timer == NEWS.begin


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (PortStatus(state="recording", request_id="a"), Now(TEN, "a")),
        (PortStatus(state="no-signal"), Now(TEN, "")),
        (PortStatus(state="unknown"), Now(TEN, "")),
        (PortStatus(state="stopped"), Now(TEN)),
        (PortStatus(state="failed", request_id="a"), Now(TEN)),
        (PortStatus(state="stopped", stopped_by="schedule", boot_id=boot_id(), state_since_monotonic=5.0), Now(TEN)),
        (PortStatus(state="stopped", stopped_by="operator", boot_id="other", state_since_monotonic=5.0), Now(TEN)),
    ],
)
def test_whose_a_recording_is(status: PortStatus, expected: Now) -> None:
    assert now_of(PORT, status, TEN) == expected


def test_a_port_that_systemd_starts_at_boot_is_not_the_schedules() -> None:
    status = PortStatus(state="stopped", should_record=True)
    assert now_of(PORT.replaced(record_at_boot=True), status, TEN) == Now(TEN, "")
    assert now_of(PORT, status, TEN) == Now(TEN)


def test_a_port_that_is_being_stopped_is_looked_at_again() -> None:
    status = PortStatus(state="stopping", request_id=NEWS.request_id)
    due = due_of(PORT, status, [], TEN)
    assert (due.step.kind, due.next_at) == (NOTHING, TEN + 1)


def test_a_moment_of_a_timer_is_never_early_and_less_than_a_millisecond_late() -> None:
    draw = random.Random(1)
    for _ in range(200):
        at = draw.uniform(1.7e9, 2.0e9)
        day, time_of_day, zone = calendar_text(at).split()
        whole, _, milliseconds = time_of_day.partition(".")
        found = moment(datetime.fromisoformat(f"{day} {whole}"), zone_of(zone)) + int(milliseconds) / 1e3
        assert at - 1e-6 <= found < at + 0.0011
