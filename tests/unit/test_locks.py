"""`lock = true`: who stops a locked port, and what is said to those who may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from sdisup import aio
from sdisup.cli import main as cli
from sdisup.cli import status as selection
from sdisup.config.settings import Settings
from sdisup.contract.applied import Applied, AppliedPort, load_applied, save_applied
from sdisup.contract.status import PortStatus
from sdisup.control import apply, ports, systemd
from sdisup.control.locks import RULES_NAME, is_hidden, rules
from sdisup.control.ports import CANNOT_RECORD, LOCKED, STOPPED, cut_ports_now, start_ports, stop_ports
from sdisup.control.systemd import DONE
from sdisup.control.units import make_plan
from sdisup.errors import LockedError, RootError

PORTS = [AppliedPort(index, f"CAM{index}", "h264", "/r", False, "rev", lock=index in (1, 3)) for index in range(4)]
STATES = ["recording", "recording", "stopped", "stopped"]


class FakeSystemd:
    """Does every job at once, and keeps a list of them."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, list[str]]] = []

    def run_jobs(self, verb: str, units: Iterable[str], *_: object) -> dict[str, str]:
        self.jobs.append((verb, list(units)))
        return dict.fromkeys(self.jobs[-1][1], DONE)

    def reset_all(self, _: object) -> dict[str, Exception]:
        return {}

    def __enter__(self) -> FakeSystemd:
        return self

    def __exit__(self, *_: object) -> None:
        return


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    fake = FakeSystemd()
    monkeypatch.setattr(systemd, "Systemd", lambda: fake)
    monkeypatch.setattr(ports, "statuses", lambda asked, *_: [
        PortStatus(port_index=port.index, state=STATES[port.index], is_recording=STATES[port.index] == "recording")
        for port in asked
    ])  # fmt: skip
    monkeypatch.setattr(ports, "write_status", lambda _: None)
    monkeypatch.setattr(ports, "_wait_for_first_frames", lambda pending, *_: {
        port.index: ports.Outcome(port, CANNOT_RECORD, "no") for port in pending
    })  # fmt: skip
    monkeypatch.setattr(ports, "_by_unit", lambda _, outcome: outcome)
    return fake


def units(*indexes: int) -> list[str]:
    return [f"sdi-record@{index}.service" for index in indexes]


def test_a_stop_leaves_locked_ports_alone(fake: FakeSystemd) -> None:
    found = stop_ports(PORTS)
    # What is stopped already is no error, locked or not.
    assert [outcome.kind for outcome in found] == [STOPPED, LOCKED, STOPPED, STOPPED]
    assert fake.jobs == [("Stop", units(0, 2, 3))]
    assert found[1].text == (
        "port 1 (CAM1) is locked and goes on (recording); "
        "root stops it all the same with --unlock: sdisup stop 1 --unlock"
    )
    assert isinstance(found[1].as_error(), LockedError) and not found[1].ok


def test_a_restart_and_a_cut_by_a_restart_do_too(fake: FakeSystemd) -> None:
    assert [outcome.kind for outcome in start_ports(PORTS[:2], 1.0, restart=True)] == [CANNOT_RECORD, LOCKED]
    assert fake.jobs == [("Restart", units(0))]
    assert [outcome.kind for outcome in start_ports(PORTS[1:2], None, restart=True)] == [LOCKED]
    assert len(fake.jobs) == 1
    running = [port.replaced(index=1) for port in PORTS[1:2]]
    assert [outcome.kind for outcome in start_ports(PORTS[3:], 1.0, restart=True)] == [CANNOT_RECORD]
    status = PortStatus(port_index=1, state="recording", pid=1)
    ends = ports._not_running(running, [status])
    assert ends == {}


def test_root_unlocks(fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert [outcome.kind for outcome in stop_ports(PORTS, unlock=True)] == [STOPPED] * 4
    assert fake.jobs == [("Stop", units(0, 1, 2, 3))]
    start_ports(PORTS[:2], 1.0, restart=True, unlock=True)
    assert fake.jobs[1:] == [("Restart", units(0, 1))]


@pytest.mark.parametrize("what", [
    lambda: stop_ports(PORTS, unlock=True),
    lambda: start_ports(PORTS, 1.0, restart=True, unlock=True),
])  # fmt: skip
def test_nobody_else_does(fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RootError, match=r"port 1 \(CAM1\), port 3 \(CAM3\): locked, and only root"):
        what()
    assert fake.jobs == []
    # Of ports that are not locked --unlock says nothing.
    assert [outcome.kind for outcome in stop_ports([PORTS[0]], unlock=True)] == [STOPPED]


def test_a_cut_now_is_a_stop(fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_not_running", lambda *_: {})
    monkeypatch.setattr(ports, "leave_take_request", lambda *_: None)
    monkeypatch.setattr(ports, "_take_back", lambda *_: False)
    assert [outcome.kind for outcome in cut_ports_now(PORTS[1:2], "next")] == [LOCKED]
    assert [verb for verb, asked in fake.jobs if asked] == []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    cut_ports_now(PORTS[1:2], "next", unlock=True)
    assert fake.jobs[-1][0] == "Stop" and fake.jobs[-1][1] == units(1)


@pytest.mark.parametrize("words", [["stop"], ["restart"], ["cut", "--now"]])
@pytest.mark.parametrize("unlock", [False, True])
def test_the_commands_pass_it_on(monkeypatch: pytest.MonkeyPatch, words: list[str], unlock: bool) -> None:
    asked: list[bool] = []

    def note(*_: object, unlock: bool = False, **__: object) -> list[object]:
        asked.append(unlock)
        return []

    monkeypatch.setattr(selection, "load_applied", lambda: Applied({1: PORTS[1]}, []))
    for name in ("stop_ports", "start_ports", "cut_ports_now"):
        monkeypatch.setattr(ports, name, note)
    assert cli.main([*words, "1", *["--unlock"] * unlock]) == 0
    assert asked == [unlock]
    with pytest.raises(SystemExit):
        cli.main(["start", "1", "--unlock"])


def test_python_has_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from sdisup.control import api

    asked = []

    def stop(asked_for: list[AppliedPort], *, unlock: bool) -> list[ports.Outcome]:
        asked.append(unlock)
        return [ports.Outcome(port, STOPPED if unlock else LOCKED, "recording") for port in asked_for]

    monkeypatch.setattr(api, "stop_ports", stop)
    monkeypatch.setattr(api, "load_applied", lambda: Applied({1: PORTS[1]}, []))
    settings = Settings("/x.toml", 8, "/r", "/usr/bin/ffmpeg", {})
    with pytest.raises(LockedError, match="is locked and goes on"):
        api.PortRecorder(1, settings).stop()
    api.PortRecorder(1, settings).stop(unlock=True)
    with pytest.raises(LockedError):
        asyncio.run(aio.PortRecorder(1, settings).stop())
    asyncio.run(aio.PortRecorder(1, settings).stop(unlock=True))
    assert asked == [False, True] * 2


# ---- polkit ----


def test_polkits_rule_names_the_locked_ports_alone(tmp_path: Path) -> None:
    path = f"{tmp_path}/{RULES_NAME}"
    (text,) = rules(PORTS, str(tmp_path)).values()
    assert list(rules(PORTS, str(tmp_path))) == [path]
    assert '["sdi-record@1.service", "sdi-record@3.service"].indexOf(action.lookup("unit"))' in text
    assert rules(PORTS[:1], str(tmp_path)) == {} == rules(PORTS, str(tmp_path / "none"))
    # It is asked before the operators' own rules, and is ours: apply replaces and removes it.
    assert RULES_NAME < "10-operators.rules"
    changed = make_plan({path: text}, {path: text.replace("@3", "@4")}, [path])
    assert list(changed.write) == [path]
    assert make_plan({}, {path: text}, [path]).remove == (path,)


def test_who_may_not_look_for_it_takes_it_for_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's polkit keeps its rules from all but root: a check of a member of the group is not wrong for that."""
    path = f"{tmp_path}/{RULES_NAME}"
    assert not is_hidden(path) and not is_hidden(f"{tmp_path}/none/file")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert is_hidden(path) and not is_hidden(f"{tmp_path}/none/file")


# ---- apply ----


def settings_of(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "sdisup.toml").write_text(f'[defaults]\nsource = {{ kind = "test" }}\n{text}')
    return Settings.load(str(tmp_path / "sdisup.toml"))


def test_lock_is_a_setting_of_a_port(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "[port.1]\nlock = true\n")
    assert [port.lock for port in settings.ports.values()][:3] == [False, True, False]
    path = str(tmp_path / "applied.json")
    save_applied(Applied({1: PORTS[1], 2: PORTS[2]}, []), path)
    assert [port.lock for port in load_applied(path).ports.values()] == [True, False]


def test_an_apply_restarts_and_stops_no_locked_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "load_applied", lambda: Applied({port.index: port for port in PORTS}, []))
    settings = settings_of(tmp_path, "")
    gone = settings.replaced(ports={0: settings.ports[0]})
    assert apply._orphans(gone, {0, 1, 2}, False) == {2}
    assert apply._orphans(gone, {0, 1, 2}, True) == {1, 2}
    stays = [apply._stays(port, restart, unlock) for port in PORTS[:2]
             for restart, unlock in ((False, False), (True, False), (True, True))]  # fmt: skip
    assert stays == [True, False, False, True, True, False]
