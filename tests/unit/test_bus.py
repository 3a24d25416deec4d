"""What is asked of systemd without pydbus (control/bus.py): by real messages, of a bus that may do anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakebus import FakeBus, path_of

from sdisup.control.bus import BUS_ADDRESS, Bus, SystemdError, SystemdPermissionError, UnitState, _Reader, bus_path

UNITS = {f"sdi-record@{index}.service": ("loaded", "inactive", "dead") for index in range(3)}
FOUND = {name: UnitState("loaded", "inactive", "dead", path_of(name)) for name in UNITS}


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBus]:
    made = FakeBus(tmp_path / "bus", UNITS, exit_status=226)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", made.address)
    yield made
    made.close()


@pytest.mark.parametrize("mood", ["", "pieces"])
def test_a_question_is_one_call_and_one_write(bus: FakeBus, mood: str) -> None:
    bus.mood = mood
    with Bus() as asked:
        assert asked.units("sdi-record@*.service") == FOUND
        assert (bus.calls, bus.writes) == (["ListUnitsByPatterns"], 1)
        assert asked.exit_statuses([*FOUND.values()]) == [226] * 3
        assert (bus.calls[1:], bus.writes) == (["Get"] * 3, 2)
        assert asked.exit_statuses([]) == []


@pytest.mark.parametrize("mood", ["silent", "closes", "refuses", "garbage"])
def test_a_bus_that_does_not_answer_is_an_error_in_time(bus: FakeBus, mood: str) -> None:
    bus.mood = mood
    with pytest.raises(SystemdError) as raised, Bus(timeout_s=0.3) as asked:
        asked.units("*")
    words = {"silent": "did not answer in time", "closes": "cannot be reached", "refuses": "refuses this user",
             "garbage": "no message"}  # fmt: skip
    assert words[mood] in raised.value.message


def test_what_systemd_refuses_is_its_own_error(bus: FakeBus) -> None:
    bus.mood = "denies"
    with pytest.raises(SystemdPermissionError, match="no permission"), Bus() as asked:
        asked.units("*")


def test_where_there_is_no_bus_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    with pytest.raises(SystemdError, match="there is no D-Bus system bus here"):
        Bus()


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (BUS_ADDRESS, "/run/dbus/system_bus_socket"),
        ("tcp:host=h;unix:guid=1,path=/a", "/a"),
        ("nonsense", "/run/dbus/system_bus_socket"),
    ],
)
def test_the_bus_is_where_its_address_says(monkeypatch: pytest.MonkeyPatch, address: str, path: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    assert bus_path() == path


@pytest.mark.parametrize(
    ("signature", "content", "values"),
    [
        ("yu", "07000000 2a000000", [7, 42]),
        ("n", "ffff", [-1]),
        ("v", "0169 0000 fdffffff", [-3]),
        ("as", "0e000000 01000000 6100 0000 01000000 6200", [["a", "b"]]),
        ("at", "08000000 00000000 0100000000000000", [[1]]),
        ("a(sb)", "00000000 00000000", [[]]),
        ("a{sv}", "10000000 00000000 01000000 6b00 0175 0000 0000 05000000", [[("k", 5)]]),
        ("(y(ss))", "01 00000000000000 01000000 6100 0000 01000000 6200", [(1, ("a", "b"))]),
        ("gi", "01 6900 00 04000000", ["i", 4]),
    ],
)
def test_values_are_read_as_the_specification_has_them(signature: str, content: str, values: list[object]) -> None:
    assert _Reader(bytes.fromhex(content), "little").values(signature) == values


@pytest.mark.parametrize(
    ("signature", "content"), [("s", "ff000000 61"), ("z", "00"), ("a", ""), ("(s", ""), ("i", "")]
)
def test_what_is_no_message_is_said_to_be_none(signature: str, content: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        _Reader(bytes.fromhex(content), "little").values(signature)
