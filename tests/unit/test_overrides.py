"""Whose ExecStart= systemd is asked about: by the files that an operator may have written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sdisup.contract.applied import AppliedPort
from sdisup.control import overrides
from sdisup.control.bus import UnitState, explain
from sdisup.control.overrides import TEMPLATE, has_own_command, unit_problems
from sdisup.control.units import RUNNER

PORTS = [AppliedPort(index, f"CAM{index}", "h264", "/r", True, "rev") for index in range(8)]
COMMAND = "[Service]\nExecStart=\nExecStart=/usr/bin/ffmpeg -i x\n"


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What apply has written, in the first of two directories of systemd's unit path."""
    own = (f"{tmp_path}/etc/{TEMPLATE}", f"{tmp_path}/etc/sdi-record@*.service.d/10-sdisup.conf")
    monkeypatch.setattr(overrides, "OWN_FILES", own)
    write(tmp_path / "etc" / TEMPLATE, "ExecStart=/bin/false")
    for port in PORTS:
        write(tmp_path / "etc" / f"{port.unit}.d" / "10-sdisup.conf", COMMAND)
    (tmp_path / "run").mkdir()
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def unit_path(directory: Path) -> list[str]:
    return [f"{directory}/{name}" for name in ("etc", "run", "none")]


class FakeSystemd:
    """systemd with units of this state, each of which has the command of a stranger."""

    def __init__(self, directory: Path, state: str = "loaded") -> None:
        self.directory, self.state, self.calls = directory, state, 0

    def load(self, units: Sequence[str]) -> list[UnitState]:
        self.calls += 1
        return [UnitState(self.state, "inactive", "dead", unit) for unit in units]

    def unit_path(self) -> list[str]:
        self.calls += 1
        return unit_path(self.directory)

    def commands(self, unit: UnitState) -> list[list[str]]:
        self.calls += 1
        if unit.path == PORTS[7].unit:
            raise explain("", "The connection is closed", "systemd")
        own = [*RUNNER, "--port=0", "--name=x", "--", "ffmpeg", "{output}"]
        return [own] if unit.path == PORTS[0].unit else [["/usr/bin/ffmpeg", "-i", "x"]]


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("etc/sdi-record@3.service.d/override.conf", {"sdi-record@3.service"}),
        ("run/sdi-record@3.service.d/10-sdisup.conf", {"sdi-record@3.service"}),
        ("run/sdi-record@3.service", {"sdi-record@3.service"}),
        ("run/sdi-record@.service", {TEMPLATE}),
        ("etc/sdi-record@.service.d/x.conf", {TEMPLATE}),
        ("etc/sdi-@3.service.d/x.conf", {"sdi-record@3.service"}),
        ("run/sdi-.service.d/x.conf", {TEMPLATE}),
        ("etc/service.d/x.conf", {TEMPLATE}),
        ("etc/sdi-record@3.service.d/override.conf.bak", set()),
        ("etc/sdi-ledger.service.d/x.conf", set()),
        ("etc/ssh.service", set()),
    ],
)
def test_a_file_that_may_have_another_command_is_found(etc: Path, file: str, found: set[str]) -> None:
    write(etc / file, COMMAND)
    assert has_own_command(unit_path(etc)) == found
    write(etc / file, "[Service]\nNice=5\n")
    assert has_own_command(unit_path(etc)) == set()
    (etc / file).unlink()
    # What cannot be read may hold one.
    (etc / file).symlink_to(etc / "none")
    assert has_own_command(unit_path(etc)) == found


def test_systemd_is_asked_as_often_for_eight_ports_as_for_two(etc: Path) -> None:
    write(etc / "etc/service.d/limits.conf", "[Service]\nLimitCORE=0\n")
    for count in (2, 8):
        systemd = FakeSystemd(etc)
        assert unit_problems(systemd, PORTS[:count]) == []  # type: ignore[arg-type]
        assert systemd.calls == 2
    assert unit_problems(FakeSystemd(etc), []) == []  # type: ignore[arg-type]


def test_what_an_operator_wrote_is_asked_about_and_told(etc: Path) -> None:
    for index in (0, 3, 7):
        write(etc / "etc" / f"{PORTS[index].unit}.d" / "override.conf", COMMAND)
    systemd = FakeSystemd(etc)
    third, seventh = unit_problems(systemd, PORTS)  # type: ignore[arg-type]
    assert third.startswith("port 3 (CAM3): ExecStart= of sdi-record@3.service is not sdisup's but '/usr/bin/ffmpeg")
    assert seventh.startswith("port 7 (CAM7): systemd cannot be reached")
    assert systemd.calls == 5


def test_a_unit_that_systemd_does_not_take_is_told(etc: Path) -> None:
    problems = unit_problems(FakeSystemd(etc, "masked"), PORTS[:2])  # type: ignore[arg-type]
    assert [text.partition(";")[0] for text in problems] == [
        f"{port.label}: {port.unit} is masked and does not start" for port in PORTS[:2]
    ]
