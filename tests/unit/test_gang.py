"""Several ports of one start: all of them record, or none is left recording; with a scripted systemd."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from sdisup import aio
from sdisup.cli import main as cli
from sdisup.cli import status as selection
from sdisup.config.settings import Settings
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.requests import Request, forget_stop_note, leave_stop_note, noted_stopper
from sdisup.contract.status import PortStatus
from sdisup.control import api, gang, ports, systemd
from sdisup.control.bus import SystemdError
from sdisup.control.gang import start_all_or_none
from sdisup.control.ports import CANNOT_RECORD, IS_STARTED, NOT_BEGUN, NOT_STOPPED, RECORDS, REFUSED, TAKEN_BACK
from sdisup.control.systemd import DONE, WAITING, Loaded
from sdisup.errors import RecordingError, RootError

PORTS = [AppliedPort(index, f"port{index}", "h264", "/r", False, "rev") for index in range(4)]
REASONS = {
    "no-signal": "no signal on channel 2",
    "failed": "no such encoder",
    "starting": "",
    "backoff": "FFmpeg ended",
}


class Machine:
    """Ports and their systemd: `becomes` says by port's index what a start makes of it, by default `recording`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **becomes: str) -> None:
        self.states = dict.fromkeys(range(4), "stopped")
        self.becomes = {int(name[1:]): state for name, state in becomes.items()}
        self.jobs: list[tuple[str, list[int]]] = []
        self.notes: list[tuple[str, int]] = []
        self.requests: dict[int, Request] = {}
        self.ids = dict.fromkeys(range(4), "")
        self.looks = 0
        monkeypatch.setattr(systemd, "Systemd", lambda: self)
        monkeypatch.setattr(ports, "statuses", lambda asked, *_: [self.status(port.index) for port in asked])
        monkeypatch.setattr(
            ports, "leave_take_request", lambda port, request: self.requests.update({port.index: request})
        )
        monkeypatch.setattr(ports, "_take_back", lambda index, _: self.requests.pop(index, None) is not None)
        monkeypatch.setattr(ports, "POLL_S", 0.0)
        monkeypatch.setattr(ports, "write_status", lambda _: None)
        monkeypatch.setattr(gang, "leave_stop_note", lambda index, by: self.notes.append((by, index)))
        monkeypatch.setattr(gang, "forget_stop_note", lambda index: self.notes.append(("forgotten", index)))

    def status(self, index: int) -> PortStatus:
        self.looks += 1
        state = self.states[index]
        is_recording = state == "recording"
        return PortStatus(
            port_index=index, state=state, is_recording=is_recording, reason=REASONS.get(state, ""),
            request_id=self.ids[index], current_file=f"/r/{index}.mp4" if is_recording else None,
        )  # fmt: skip

    def run_jobs(self, verb: str, units: Iterable[str], *_: object) -> dict[str, str | SystemdError]:
        indexes = [int(unit[11]) for unit in units]
        self.jobs.append((verb, indexes))
        return {PORTS[index].unit: self._job(verb, index) for index in indexes}

    def _job(self, verb: str, index: int) -> str | SystemdError:
        state = "stopped" if verb == "Stop" else self.becomes.get(index, "recording")
        if state == "refused":
            return SystemdError(f"no permission to do this to {PORTS[index].unit}")
        if verb == "Stop" and self.becomes.get(index) == "hangs":
            return "timeout"
        self.states[index] = "recording" if state == "hangs" else state
        if verb == "Start":
            self.ids[index] = self.requests.pop(index).request_id
        return WAITING if state in ("starting", "backoff") else DONE

    def reset_all(self, _: object) -> dict[str, SystemdError]:
        return {}

    def loaded(self, unit: str) -> Loaded:
        raise SystemdError("not asked")

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def running(self) -> list[int]:
        return [index for index, state in self.states.items() if state != "stopped"]


def test_all_record(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    assert [outcome.kind for outcome in start_all_or_none(PORTS, 10.0)] == [RECORDS] * 4
    assert machine.jobs == [("Start", [0, 1, 2, 3])] and machine.notes == []


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("no-signal", "no signal on channel 2"),
        ("failed", "no such encoder"),
        ("starting", "no frame on disk within 0 s: starting: no word from FFmpeg"),
        ("backoff", "no frame on disk within 0 s: backoff: FFmpeg ended"),
    ],
)
def test_one_that_does_not_record_stops_all(monkeypatch: pytest.MonkeyPatch, state: str, why: str) -> None:
    machine = Machine(monkeypatch, p2=state)
    found = start_all_or_none(PORTS, 0.0, lambda _: Request(take="final", request_id="mine"))
    assert [outcome.kind for outcome in found] == [TAKEN_BACK, TAKEN_BACK, CANNOT_RECORD, TAKEN_BACK]
    # The one that waits would record later, so it is stopped too.
    assert machine.jobs == [("Start", [0, 1, 2, 3]), ("Stop", [0, 1, 2, 3])]
    assert machine.running() == []
    assert found[2].text == f"port 2 does not record: {why}"
    assert found[0].text == f"port 0 is stopped again: port 2 does not record: {why}; what it recorded is kept"
    # The ledger says who stopped them, and nobody else's stop later.
    assert machine.notes == [("gang", index) for index in range(4)] + [("forgotten", index) for index in range(4)]


def test_nobody_waits_for_others_when_one_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, p1="no-signal", p3="starting")
    found = start_all_or_none(PORTS, 3600.0)
    assert [outcome.kind for outcome in found] == [TAKEN_BACK, CANNOT_RECORD, TAKEN_BACK, TAKEN_BACK]
    assert machine.running() == [] and machine.looks < 20


@pytest.mark.parametrize("state", ["recording", "starting", "no-signal"])
def test_a_port_that_is_started_already_keeps_all_from_it(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    machine = Machine(monkeypatch)
    machine.states[1] = state
    found = start_all_or_none(PORTS, 10.0)
    assert [outcome.kind for outcome in found] == [NOT_BEGUN, IS_STARTED, NOT_BEGUN, NOT_BEGUN]
    # It is somebody else's and goes on, nothing else was started, and no request is left for a later start.
    assert (machine.jobs, machine.running(), machine.requests) == ([], [1], {})
    assert found[0].text == f"port 0 is not started: port 1 is already started ({state})"


def test_a_refused_start_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, p0="refused")
    found = start_all_or_none(PORTS, 10.0)
    assert [outcome.kind for outcome in found] == [REFUSED, TAKEN_BACK, TAKEN_BACK, TAKEN_BACK]
    assert machine.running() == [] and machine.requests == {}


def test_a_port_that_cannot_be_stopped_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, p0="hangs", p1="failed")
    found = start_all_or_none(PORTS, 10.0)
    assert [outcome.kind for outcome in found] == [NOT_STOPPED, CANNOT_RECORD, TAKEN_BACK, TAKEN_BACK]
    assert found[0].text == "port 0 is not stopped: timeout"
    assert machine.running() == [0]


def test_so_it_is_where_systemd_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, p1="failed")

    def gone(_: object, **__: object) -> list[ports.Outcome]:
        raise SystemdError("systemd did not answer in time")

    monkeypatch.setattr(gang, "stop_ports", gone)
    found = start_all_or_none(PORTS[:2], 10.0)
    assert [outcome.text for outcome in found] == [
        f"port {index} is not stopped: systemd did not answer in time" for index in (0, 1)
    ]
    assert ("forgotten", 1) in machine.notes


def test_another_program_that_starts_one_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    monkeypatch.setattr(ports, "leave_take_request", lambda port, request: _taken(machine, port, request))
    found = start_all_or_none(PORTS[:3], 10.0)
    assert [outcome.kind for outcome in found] == [NOT_BEGUN, ports.STARTED_BY_ANOTHER, NOT_BEGUN]
    assert machine.jobs == [] and machine.requests == {}


def _taken(machine: Machine, port: AppliedPort, request: Request) -> None:
    if port.index == 1:
        raise FileExistsError
    machine.requests[port.index] = request


def test_an_interrupted_start_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    real = machine.run_jobs

    def interrupted(verb: str, units: Iterable[str], *more: object) -> dict[str, str | SystemdError]:
        done = real(verb, units, *more)
        if verb == "Start":
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(machine, "run_jobs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_all_or_none(PORTS, 10.0)
    assert machine.running() == [] and ("gang", 3) in machine.notes


@pytest.mark.parametrize("user", [0, 1000])
def test_locked_ports_are_roots(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    """Nobody else could stop them again."""
    machine = Machine(monkeypatch, p1="failed")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    locked = [PORTS[0].replaced(lock=True), PORTS[1]]
    if user:
        with pytest.raises(RootError, match="port 0: locked, and only root could stop it again"):
            start_all_or_none(locked, 10.0)
        assert machine.jobs == []
    else:
        assert [outcome.kind for outcome in start_all_or_none(locked, 10.0)] == [TAKEN_BACK, CANNOT_RECORD]
        assert machine.running() == []


def test_the_word_for_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    leave_stop_note(3, "gang", str(tmp_path))
    assert noted_stopper(3, str(tmp_path)) == "gang"
    leave_stop_note(3, "gang", str(tmp_path))
    forget_stop_note(3, str(tmp_path))
    forget_stop_note(3, str(tmp_path))
    assert noted_stopper(3, str(tmp_path)) == ""


# ---- The command, and Python ----


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(monkeypatch, p2="no-signal")
    monkeypatch.setattr(selection, "load_applied", lambda: Applied({port.index: port for port in PORTS}, []))
    assert cli.main(["start", "0-3", "--all-or-none", "--take", "final"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("is stopped again: port 2 does not record: no signal on channel 2") == 3
    assert machine.running() == []
    # Without it the others go on.
    assert cli.main(["start", "0-3", "--take", "final"]) == 3
    assert machine.running() == [0, 1, 2, 3]
    assert cli.main(["start", "0-3", "--all-or-none", "--no-wait"]) == 2
    assert "--all-or-none and --no-wait together" in capsys.readouterr().err


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Callable[[], api.RecorderManager]:
    monkeypatch.setattr(api, "load_applied", lambda: Applied({port.index: port for port in PORTS}, []))
    return lambda: api.RecorderManager(Settings("/x.toml", 8, "/r", "/usr/bin/ffmpeg", {}))


CONFIG = api.RecorderConfig(codec=None, take="final")


def test_python_starts_several_at_once(
    monkeypatch: pytest.MonkeyPatch, manager: Callable[[], api.RecorderManager]
) -> None:
    machine = Machine(monkeypatch)
    found = manager().start_recordings([2, 0], CONFIG)
    assert [(status.port_index, status.is_recording) for status in found] == [(2, True), (0, True)]
    assert machine.jobs == [("Start", [2, 0])]
    with pytest.raises(RecordingError, match=r"port 2 is already started \(recording\)"):
        manager().start_recordings([2, 3], CONFIG)
    assert machine.running() == [0, 2, 3]
    with pytest.raises(ValueError, match="Invalid port index 9"):
        manager().start_recordings([1, 9], CONFIG)
    assert machine.running() == [0, 2, 3]


def test_python_has_all_or_none(monkeypatch: pytest.MonkeyPatch, manager: Callable[[], api.RecorderManager]) -> None:
    machine = Machine(monkeypatch, p1="failed")
    with pytest.raises(RecordingError, match=r"^port 0 is stopped again: .*; port 1 does not record: no such encoder"):
        manager().start_recordings([0, 1], CONFIG, all_or_none=True)
    assert machine.running() == []


def test_asyncio_too(monkeypatch: pytest.MonkeyPatch, manager: Callable[[], api.RecorderManager]) -> None:
    machine = Machine(monkeypatch, p1="failed")
    manager()
    recorder = aio.RecorderManager(Settings("/x.toml", 8, "/r", "/usr/bin/ffmpeg", {}))
    with pytest.raises(RecordingError):
        asyncio.run(recorder.start_recordings([0, 1], CONFIG, all_or_none=True))
    assert machine.running() == []
    (status,) = asyncio.run(recorder.start_recordings([0], CONFIG))
    assert status.is_recording and machine.running() == [0]
    asyncio.run(recorder.stop_recording(0))
    assert machine.running() == []
