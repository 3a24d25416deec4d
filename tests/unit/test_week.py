"""`sdisup schedule`: what is listed, and how."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sdisup.cli import main as cli
from sdisup.cli.schedules import document, lines
from sdisup.contract import orders
from sdisup.contract import status as status_module
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.orders import Order
from sdisup.contract.requests import Request
from sdisup.contract.schedules import Entry, Schedule
from sdisup.control import week
from sdisup.control.schedules import Slot, scheduled
from sdisup.control.week import coming

NOW = 1_774_700_000.0
PORT, OTHER = (AppliedPort(index, f"CAM{index}", "h264", "/r", False, "rev") for index in (3, 4))
NEWS = scheduled(NOW - 60, 3600.0, "news", 5.0, 10.0)
ENDLESS = Slot(NOW + 120, math.inf, None, "start:1", 5.0)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for function in (orders.order_path, orders.leave_order, orders.read_order, status_module.listed):
        monkeypatch.setattr(function, "__defaults__", (str(tmp_path),))
    monkeypatch.setattr(week, "load_schedules", dict)
    return tmp_path


def test_a_line_for_each_time_in_local_time() -> None:
    found = lines([(PORT, NEWS), (OTHER, ENDLESS)], NOW)
    words = [line.split() for line in found]
    assert words[0] == ["PORT", "NAME", "START", "END", "LENGTH", "TAKE"]
    assert (words[1][:2], words[1][-3:]) == (["3", "CAM3"], ["1h00m00s", "news", "now"])
    assert (words[2][:2], words[2][-3:]) == (["4", "CAM4"], ["-", "-", "-"])
    starts = {line.index(word) for line, word in zip(found, ("LENGTH", "1h00m00s"), strict=False)}
    assert len(starts) == 1 and all(line == line.rstrip() for line in found)


def test_the_same_for_programs_in_utc() -> None:
    assert document([(PORT, NEWS), (OTHER, ENDLESS)]) == [
        {
            "port_index": 3, "name": "CAM3", "start": "2026-03-28T12:12:20.000Z", "end": "2026-03-28T13:12:20.000Z",
            "take": "news", "pre_roll_s": 5.0, "post_roll_s": 10.0,
        },
        {
            "port_index": 4, "name": "CAM4", "start": "2026-03-28T12:15:20.000Z", "end": None,
            "take": None, "pre_roll_s": 5.0, "post_roll_s": 0.0,
        },
    ]  # fmt: skip


def test_a_week_of_schedules_and_of_starts_with_a_time(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    daily = Entry("12:00 UTC", "*-*-* 12:00:00", "UTC", 3600.0, "noon")
    monkeypatch.setattr(week, "load_schedules", lambda: {3: Schedule((daily,)), 9: Schedule((daily,))})
    orders.leave_order(4, Order(Request("final", "start:1"), NOW + 60, NOW + 120))
    found = coming([PORT, OTHER], NOW)
    assert [port.index for port, _ in found] == [3, 4, *[3] * 7]
    assert found[1][1].take == "final" and found[0][1].start < NOW < found[0][1].end
    assert [slot.start for _, slot in found] == sorted(slot.start for _, slot in found)
    assert found[-1][1].start <= NOW + 7 * 86400 < found[-1][1].start + 86400
    # What is over, and what cannot be read, is not listed.
    orders.leave_order(4, Order(Request("final", "start:1"), NOW - 60, NOW - 30))
    assert coming([OTHER], NOW) == []
    (directory / "4.start").write_text("torn")
    assert coming([OTHER], NOW) == []


def test_nothing_to_come_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sdisup.cli.status.load_applied", lambda: Applied({3: PORT}, []))
    assert cli.main(["schedule"]) == 0
    assert capsys.readouterr() == (
        "", "nothing is scheduled in the coming week; a port's `schedule` is in docs/schedules.md\n"
    )  # fmt: skip
    assert cli.main(["schedule", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
