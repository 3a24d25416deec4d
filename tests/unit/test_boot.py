"""`sdisup enable` and `disable`: the configuration, systemd's links and what was applied change together or not."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from sdisup.cli import main as cli
from sdisup.cli.status import EXIT_FAILED
from sdisup.config.settings import Settings
from sdisup.contract.applied import Applied, AppliedPort, load_applied, save_applied
from sdisup.contract.status import PortStatus
from sdisup.control import boot
from sdisup.control.boot import set_record_at_boot
from sdisup.control.bus import SystemdError, explain
from sdisup.control.systemd import LOST, Systemd
from sdisup.errors import SdisupError

AWAY = explain("", "The connection is closed", "systemd")


class FakeSystemd:
    """systemd's links in a directory; the call of that number fails, and so does what is done to `masked` units."""

    wants = ""

    def __init__(self, fails_at: int = -1, masked: str = "") -> None:
        self.left, self.masked = fails_at, masked
        self.reloads = self.turns = 0

    def __call__(self) -> FakeSystemd:
        self._count()
        return self

    def __enter__(self) -> FakeSystemd:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def _count(self) -> None:
        self.left -= 1
        if self.left == -1:
            raise AWAY

    def set_enabled(self, enable: Iterable[str], disable: Iterable[str]) -> None:
        self._count()
        self.turns += 1
        for unit in (*enable, *disable):
            if unit == self.masked:
                raise explain("org.freedesktop.systemd1.UnitMasked", "masked", unit)
        os.makedirs(self.wants, exist_ok=True)
        for unit in enable:
            os.symlink("/etc/systemd/system/sdi-record@.service", f"{self.wants}/{unit}")
        for unit in disable:
            os.unlink(f"{self.wants}/{unit}")

    def reload(self) -> None:
        self._count()
        self.reloads += 1


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three applied ports, of which port 2 records at boot."""
    path = str(tmp_path / "sdisup.toml")
    Path(path).write_text('[appliance]\nports = 3\n[defaults]\nsource = { kind = "test" }\n'
                          "[port.2]\nrecord_at_boot = true\n")  # fmt: skip
    ports = {index: AppliedPort(index, f"port{index}", "h264", "/r", index == 2, "rev") for index in range(3)}
    monkeypatch.setattr(boot, "load_applied", lambda: load_applied(str(tmp_path / "applied.json")))
    monkeypatch.setattr(boot, "save_applied", lambda known: save_applied(known, str(tmp_path / "applied.json")))
    monkeypatch.setattr(boot, "CONFIGURATION_PATH", path)
    monkeypatch.setattr(boot, "WANTS_DIRECTORY", str(tmp_path / "wants"))
    monkeypatch.setattr(FakeSystemd, "wants", str(tmp_path / "wants"))
    monkeypatch.setattr(boot, "statuses", stopped)
    save_applied(Applied(ports, []), str(tmp_path / "applied.json"))
    (tmp_path / "wants").mkdir()
    (tmp_path / "wants" / ports[2].unit).symlink_to("/etc/systemd/system/sdi-record@.service")
    yield tmp_path


def stopped(asked: Iterable[AppliedPort], _: object) -> list[PortStatus]:
    return [PortStatus(state="stopped", should_record=port.record_at_boot) for port in asked]


def state(directory: Path) -> dict[str, str]:
    """What is there: each file with its content, each link with its target."""
    found = [path for path in directory.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        str(path.relative_to(directory)): os.readlink(path) if path.is_symlink() else path.read_text() for path in found
    }


def ports_of(directory: Path, *indexes: int) -> list[AppliedPort]:
    known = load_applied(str(directory / "applied.json")).ports
    return [known[index] for index in indexes]


def record_at_boot(directory: Path) -> list[list[int]]:
    """The ports that record at boot: by the configuration, by systemd, and by what was applied."""
    settings = Settings.load(str(directory / "sdisup.toml"))
    links = [int(name[11:-8]) for name in sorted(os.listdir(directory / "wants"))]
    known = load_applied(str(directory / "applied.json")).ports
    return [
        [index for index, port in settings.ports.items() if port.record_at_boot],
        links,
        [index for index, port in known.items() if port.record_at_boot],
    ]


def test_enable_and_disable_change_all_three(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = FakeSystemd()
    monkeypatch.setattr(boot, "Systemd", systemd)
    change = set_record_at_boot(ports_of(machine, 0, 1), True)
    assert (systemd.turns, systemd.reloads) == (1, 1)
    assert record_at_boot(machine) == [[0, 1, 2]] * 3
    assert [port.index for port in change.due] == [0, 1]
    change = set_record_at_boot(ports_of(machine, 0, 2), False)
    assert record_at_boot(machine) == [[1]] * 3
    assert ([port.index for port in change.done], change.due, change.errors) == ([0, 2], (), ())
    before = state(machine)
    assert set_record_at_boot([], True).done == ()
    assert state(machine) == before


def test_ports_that_are_gone_are_dropped_and_what_wins_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "Systemd", FakeSystemd())
    path = machine / "sdisup.toml.d" / "90-set.toml"
    path.parent.mkdir()
    path.write_text("[port.5]\nrecord_at_boot = true\n[port.1]\nrecord_at_boot = false\n")
    change = set_record_at_boot(ports_of(machine, 2), False)
    assert tomllib.loads(path.read_text())["port"] == {
        "1": {"record_at_boot": False}, "2": {"record_at_boot": False},
    }  # fmt: skip
    wins = (
        f"{path}: port.2.record_at_boot: false holds, not true as port.2.record_at_boot in {machine}/sdisup.toml says"
    )
    assert change.remarks == (f"removed port 5 from {path}: there is no such port any more", wins)
    assert [port.overridden for port in ports_of(machine, 0, 1, 2)] == [(), (), (wins,)]
    assert set_record_at_boot(ports_of(machine, 2), True).remarks == ()
    assert ports_of(machine, 2)[0].overridden == ()


def test_status_names_what_wins_over_sdisup_toml(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = [
        AppliedPort(index, f"port{index}", "h264", "/r", False, "rev", "", ("x holds", f"{index}")) for index in (0, 1)
    ]
    monkeypatch.setattr("sdisup.cli.status.selected", lambda _: ports)
    monkeypatch.setattr("sdisup.control.observe.statuses", lambda asked: stopped(asked, None))
    monkeypatch.setattr("sdisup.ledger.health.all_problems", lambda: ["the ledger"])
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().err == "x holds\n0\n1\nthe ledger\n"


@pytest.mark.parametrize("value", [True, False])
def test_a_bus_that_goes_away_at_any_call_changes_nothing(
    machine: Path, monkeypatch: pytest.MonkeyPatch, value: bool
) -> None:
    """Before, `enable` said that the port records at boot, and a later apply took the setting."""
    index = 0 if value else 2
    before = state(machine)
    for fails_at in range(3):
        monkeypatch.setattr(boot, "Systemd", FakeSystemd(fails_at))
        with pytest.raises(SdisupError, match="systemd cannot be reached"):
            set_record_at_boot(ports_of(machine, index), value)
        assert state(machine) == before, fails_at
    monkeypatch.setattr(boot, "Systemd", FakeSystemd(3))
    set_record_at_boot(ports_of(machine, index), value)
    assert state(machine) != before


def test_what_cannot_be_noted_changes_nothing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Applied) -> bool:
        raise OSError(28, "No space left on device")

    before = state(machine)
    monkeypatch.setattr(boot, "Systemd", FakeSystemd())
    monkeypatch.setattr(boot, "save_applied", full)
    with pytest.raises(SdisupError, match="No space left"):
        set_record_at_boot(ports_of(machine, 0), True)
    assert state(machine) == before


def test_a_masked_port_keeps_no_other_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "Systemd", FakeSystemd(masked="sdi-record@1.service"))
    change = set_record_at_boot(ports_of(machine, 0, 1), True)
    assert record_at_boot(machine) == [[0, 2]] * 3
    assert [port.index for port in change.done] == [0]
    assert [str(error) for error in change.errors] == [
        "sdi-record@1.service is masked (systemctl unmask sdi-record@1.service)"
    ]
    before = state(machine)
    with pytest.raises(SystemdError, match="is masked"):
        set_record_at_boot(ports_of(machine, 1), True)
    assert state(machine) == before


def test_the_command_says_what_is_done_and_what_is_not(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boot, "Systemd", FakeSystemd(masked="sdi-record@1.service"))
    monkeypatch.setattr("sdisup.cli.commands.selected", lambda _: ports_of(machine, 0, 1))
    monkeypatch.setattr("sdisup.control.apply.one_at_a_time", contextlib.nullcontext)
    monkeypatch.setattr("sdisup.control.ports.start_ports", lambda ports, _: [])
    assert cli.main(["enable", "0", "1"]) == EXIT_FAILED
    said = capsys.readouterr()
    assert said.out == "port 0 records at boot\n"
    assert said.err == "sdisup: sdi-record@1.service is masked (systemctl unmask sdi-record@1.service)\n"


class Calls(Systemd):
    """A connection whose calls about one unit fail; once all is asked, the bus closes it."""

    def __init__(self, broken: str) -> None:
        self.broken, self.asked = broken, list[str]()
        self._manager = MagicMock()

    def _call(self, subject: str, method: str, *arguments: object) -> object:
        self.asked.append(subject)
        if subject == self.broken:
            raise AWAY
        return f"/job/{subject}"

    def _queue_jobs(self, method: str, units: Sequence[str]) -> dict[str, str | SystemdError]:
        return {unit: AWAY if unit == self.broken else f"/job/{unit}" for unit in units}

    def _is_closed(self) -> bool:
        return True

    def _iterate(self, done: Callable[[], bool], timeout_s: float) -> None:
        assert done(), f"it would wait for {timeout_s} s"


def test_one_bus_error_ends_one_ports_work() -> None:
    systemd = Calls("b")
    assert systemd.reset_all(["a", "b", "c"]) == {"b": AWAY}
    assert systemd.asked == ["a", "b", "c"]


def test_a_bus_that_goes_away_ends_the_wait_for_jobs() -> None:
    """Before, nobody told that a job was over, and a stop waited for all of its limit."""
    assert Calls("b").run_jobs("Stop", ["a", "b"], 260.0) == {"a": LOST, "b": AWAY}
