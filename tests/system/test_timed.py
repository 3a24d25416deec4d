"""Schedules, and starts with a time, by a real systemd's timers: entries a few seconds ahead."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from drive import BOTH_DEBIANS, DEBIAN_12_IF_SLOW, Machine, small_ports

pytestmark = pytest.mark.beside

FRAME_S = 1 / 25
"""Of the small test picture."""


def calendar(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def entry(start: float, seconds: float, take: str) -> str:
    return f'{{ start = "{calendar(start)}", duration = "{seconds:g}s", take = "{take}" }}'


def schedule(*entries: str, pre_roll_s: float = 2.0, more: str = "") -> str:
    own = f"[port.0]\npre_roll_s = {pre_roll_s}\nschedule = [{', '.join(entries)}]\n{more}"
    return small_ports(1, own)


def soon(seconds: float) -> float:
    """A whole second that is at least so far ahead."""
    return float(math.ceil(time.time() + seconds))


def unix(text: Any) -> float:
    return datetime.fromisoformat(str(text)).timestamp()


def entries_of(appliance: Machine, *kinds: str) -> list[dict[str, Any]]:
    return [found for found in appliance.ledger(0) if found["kind"] in kinds]


def timers(appliance: Machine) -> list[str]:
    """The armed timers with their next moment, as `systemctl list-timers` has them."""
    listed = appliance.run("systemctl list-timers --all --no-legend --plain 'sdi-schedule@*'").stdout
    return listed.splitlines()


@DEBIAN_12_IF_SLOW
def test_two_programmes_are_one_recording_with_a_mark(appliance: Machine) -> None:
    start = soon(7)
    news, sport = entry(start, 2, "news"), entry(start + 2, 2, "sport")
    appliance.configure(schedule(news, sport))
    assert [found["take"] for found in json.loads(appliance.sdisup("schedule --json").stdout)] == ["news", "sport"]
    (line,) = timers(appliance)
    assert f"{datetime.fromtimestamp(start - 2, UTC):%H:%M:%S}" in line and "sdi-schedule@0.service" in line
    # A second apply arms nothing anew.
    assert appliance.sdisup("apply").stdout == "nothing to change\n"
    appliance.wait_recording(0)
    assert time.time() < start and appliance.status(0)["take"] == "news"
    appliance.wait_for(lambda: appliance.status_file(0)["take"] == "sport", 10, "the second programme")
    assert unix(appliance.status(0)["ends_at"]) == start + 4
    appliance.wait_state(0, "stopped")
    assert time.time() >= start + 4 and appliance.status(0)["stopped_by"] == "schedule"
    (file,) = entries_of(appliance, "file")
    (mark,) = entries_of(appliance, "mark")
    assert (file["take"], file["ended"], mark["former_take"], mark["take"]) == ("news", "complete", "news", "sport")
    # The first frame is on disk before the start, and the mark is at the frame of its moment.
    assert unix(file["start"]) < start and unix(file["end"]) >= start + 4 - 2 * FRAME_S
    assert mark["frame"] == pytest.approx((start + 2 - unix(file["start"])) / FRAME_S, abs=3)
    assert file["frames"] >= round((start + 4 - unix(file["start"])) / FRAME_S) - 2
    assert [gap["cause"] for gap in entries_of(appliance, "gap")] == ["start"]
    appliance.wait_for(lambda: timers(appliance) == [], 5, "no timer is left")
    appliance.sdisup("start 0")
    appliance.wait_recording(0)
    assert [stop["by"] for stop in entries_of(appliance, "stop")] == ["schedule"]


@pytest.mark.slow
@BOTH_DEBIANS
def test_what_an_operator_starts_holds_or_stops_a_schedule_leaves_alone(appliance: Machine) -> None:
    start = soon(6)
    appliance.configure(schedule(entry(start, 4, "a"), entry(start + 6, 3, "b"), entry(start + 13, 60, "c")))
    appliance.wait_recording(0)
    appliance.sdisup("hold 0")
    assert appliance.status(0)["ends_at"] is None
    appliance.wait_for(lambda: time.time() > start + 9.5, 30, "both times are over")
    found = appliance.status(0)
    assert (found["take"], found["state"]) == ("a", "recording")
    # Released, it ends: its time is over. Then the third programme's pre-roll comes.
    appliance.sdisup("release 0")
    appliance.wait_for(lambda: appliance.status_file(0)["take"] == "c", 10, "the third programme")
    appliance.wait_recording(0)
    appliance.sdisup("stop 0")
    appliance.run("systemctl start sdi-schedule@0.service")
    assert appliance.status(0)["state"] == "stopped"
    assert [stop["by"] for stop in entries_of(appliance, "stop")] in ([], ["schedule"])
    appliance.sdisup("hold 0", code=1)


@pytest.mark.slow
@BOTH_DEBIANS
def test_a_start_with_a_time(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    said = appliance.sdisup("start 0 --for 6s --take final").stdout
    begun, first = time.time(), appliance.wait_recording(0)
    assert "records to" in said and " until " in said
    assert first["take"] == "final" and 1 < unix(appliance.status(0)["ends_at"]) - begun <= 6.1
    at = soon(8)
    said = appliance.sdisup(f"start 1 --at '{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}'").stdout
    assert f"port 1 records from {datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}" in said
    assert unix(appliance.status(1)["starts_at"]) == at
    # A cut changes the take, and not when it ends.
    appliance.sdisup("cut 0 --take final-2")
    appliance.wait_state(0, "stopped")
    assert time.time() - begun >= 5.5 and appliance.status(0)["stopped_by"] == "schedule"
    appliance.wait_recording(1)
    assert appliance.status(1)["ends_at"] is None
    appliance.sdisup("stop 1")
    assert unix(next(found for found in appliance.ledger(1) if found["kind"] == "file")["start"]) < at
    later = appliance.sdisup("start 1 --at 2099-01-01T00:00:00Z --until 2099-01-01T01:00:00Z").stdout
    assert "records from 2099-01-01" in later and "until 2099-01-01" in later
    assert "is taken back" in appliance.sdisup("stop 1").stdout
    assert appliance.status(1)["starts_at"] is None
    for words, code in (("--for 0s", 2), ("--for soon", 2), ("--until 2020-01-01", 2), ("--for 1h --until 23:00", 2)):
        assert "sdisup: " in appliance.sdisup(f"start 1 {words}", code=code).stderr
    assert appliance.status(1)["state"] == "stopped"


def test_what_is_wrong_with_a_schedule_is_told_at_once_and_changes_nothing(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    bad = '{ start = "Fri 25:00", duration = "1h" }'
    appliance.write("/etc/sdisup/sdisup.toml", small_ports(2, f"[port.0]\nschedule = [{bad}]\n[port.1]\ncodec = 'x'\n"))
    words = "port.0.schedule: entry 1: start: Failed to parse calendar specification 'Fri 25:00': Invalid argument"
    for command in ("apply", "check --quick", "apply --dry-run"):
        said = appliance.sdisup(command, code=2).stderr
        assert words in said and "port.1.codec: unknown codec 'x'" in said
    assert not appliance.path("/var/lib/sdisup/schedules.json").exists() and timers(appliance) == []


@pytest.mark.slow
@BOTH_DEBIANS
def test_what_a_machine_that_was_off_missed_and_caught_up(fresh_appliance: Machine) -> None:
    own = fresh_appliance
    start = soon(4)
    missed, ahead = entry(start + 8, 2, "missed"), entry(start + 14, 120, "ahead")
    own.configure(schedule(entry(start, 4, "cut"), missed, ahead))
    own.sdisup("start 0 --at 2099-01-01")
    own.wait_recording(0, frames=20)
    own.power_cut()
    time.sleep(max(0.0, start + 16 - time.time()))
    own.boot()
    found = own.wait_recording(0)
    assert found["take"] == "ahead"
    expected = [("power", "cut"), ("schedule missed", "missed"), ("schedule missed", "ahead")]

    def gaps() -> list[tuple[str, str]]:
        return [(gap["cause"], gap["take"]) for gap in entries_of(own, "gap") if gap["cause"] != "start"]

    # What a new boot finds on the disk is looked at before the runner's beginning is entered.
    own.wait_for(lambda: gaps() == expected, 30, "the ledger has what was missed")
    power, first, second = [gap for gap in entries_of(own, "gap") if gap["cause"] != "start"]
    assert unix(power["end"]) == pytest.approx(start + 4, abs=0.1)
    assert (unix(first["start"]), unix(first["end"])) == pytest.approx((start + 8, start + 10), abs=0.1)
    assert unix(second["start"]) == pytest.approx(start + 14, abs=0.1)
    assert {stop["by"] for stop in entries_of(own, "stop")} == {"schedule"}
    assert unix(own.status(0)["starts_at"]) == unix("2099-01-01T00:00:00+00:00")
    assert len(timers(own)) == 1
    own.sdisup("stop 0")


@pytest.mark.slow
def test_a_start_until_a_time_goes_on_after_a_power_cut(fresh_appliance: Machine) -> None:
    own = fresh_appliance
    own.configure(small_ports(2))
    until = soon(60)
    own.sdisup(f"start 0 --take final --until '{datetime.fromtimestamp(until):%Y-%m-%d %H:%M:%S}'")
    own.sdisup("start 1 --for 1s")
    own.wait_recording(0, frames=20)
    own.power_cut()
    own.boot()
    found = own.wait_recording(0)
    assert found["take"] == "final" and unix(own.status(0)["ends_at"]) == until
    assert own.status(1)["state"] == "stopped"
    own.wait_state(0, "stopped", timeout_s=90)
    assert time.time() >= until
    assert [gap["cause"] for gap in entries_of(own, "gap") if gap["cause"] != "start"] == ["power"]


@pytest.mark.slow
@BOTH_DEBIANS
def test_schedules_of_64_ports_of_20_entries_are_applied_in_3_seconds(fresh_appliance: Machine) -> None:
    own = fresh_appliance
    ports = "".join(
        f"[port.{port}]\nschedule = ["
        + ", ".join(f'{{ start = "Mon..Fri {number:02}:{port % 60:02}", duration = "30s" }}' for number in range(20))
        + "]\n"
        for port in range(64)
    )
    own.configure(small_ports(64))
    own.write("/etc/sdisup/sdisup.toml", small_ports(64, ports))
    began = time.monotonic()
    own.sdisup("apply")
    took_s = time.monotonic() - began
    assert len(timers(own)) == 64
    began = time.monotonic()
    assert own.sdisup("apply").stdout == "nothing to change\n"
    print(f"apply {took_s:.2f} s, again {time.monotonic() - began:.2f} s")
    assert took_s < 3.0
