"""Calendar expressions as moments: what systemd-analyze says, and what becomes of local times that are skipped."""

from __future__ import annotations

import random
import time
import tomllib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from sdisup.config.settings import Settings, parse_settings
from sdisup.contract.schedules import Entry, Schedule, load_schedules, save_schedules
from sdisup.control import calendars
from sdisup.control.calendars import Calendar, moment, read_calendars, refusals, schedules_of, slots_of, starts, zone_of
from sdisup.errors import ConfigError, SdisupError

BERLIN = "Europe/Berlin"
NIGHT = Calendar("*-*-* 02:30:00", BERLIN)


def unix(text: str, zone: str = BERLIN) -> float:
    return moment(datetime.fromisoformat(text), zone_of(zone))


def local(moments: Sequence[float], zone: str = BERLIN) -> list[str]:
    return [datetime.fromtimestamp(found, zone_of(zone)).isoformat(" ", "minutes") for found in moments]


def test_what_systemd_makes_of_expressions() -> None:
    found, refused = read_calendars(["Mon..Fri 18:00", "*-*-* 18:00:00", "Sun 02:30 Europe/Berlin", "Sat 7:00 UTC"])
    assert found == {
        "Mon..Fri 18:00": Calendar("Mon..Fri *-*-* 18:00:00", ""),
        "*-*-* 18:00:00": Calendar("*-*-* 18:00:00", ""),
        "Sun 02:30 Europe/Berlin": Calendar("Sun *-*-* 02:30:00", BERLIN),
        "Sat 7:00 UTC": Calendar("Sat *-*-* 07:00:00", "UTC"),
    }
    assert not refused and read_calendars([]) == ({}, {})


def test_what_systemd_refuses_is_told_in_its_words() -> None:
    words = refusals(["18:00", "foo bar", "--help", "25:00", "12:00 Europe/Nowhere"])
    assert words == {
        text: f"Failed to parse calendar specification '{text}': Invalid argument"
        for text in ("foo bar", "--help", "25:00", "12:00 Europe/Nowhere")
    }


def test_a_local_time_that_is_skipped_is_the_next_one_and_one_that_comes_twice_is_once() -> None:
    """systemd itself leaves the night of the 29th out."""
    skipped = starts([NIGHT], unix("2026-03-28 12:00"), unix("2026-03-30 12:00"))[NIGHT]
    assert local(skipped) == ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00", "2026-03-31 02:30+02:00"]
    twice = starts([NIGHT], unix("2026-10-24 12:00"), unix("2026-10-26 12:00"))[NIGHT]
    assert local(twice) == ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00", "2026-10-27 02:30+01:00"]


def test_in_the_hour_that_comes_twice_the_next_time_is_found_from_any_moment_of_it() -> None:
    half = Calendar("*-*-* *:30:00", BERLIN)
    first = unix("2026-10-25 02:30")
    for minutes in range(-200, 200):
        now = first + minutes * 60 + 1
        following = starts([half], now, now)[half]
        assert len(following) == 1 and now < following[0] <= now + 2 * 3600
    assert local(starts([half], first, first)[half]) == ["2026-10-25 02:30+02:00", "2026-10-25 03:30+01:00"]


def test_what_comes_often_is_found_beside_what_comes_seldom() -> None:
    often, seldom, never = (Calendar(f"{text} 00:00:00", "UTC") for text in ("*-*-*", "*-02-29", "2020-01-01"))
    minutes = Calendar("*-*-* *:*:00", "UTC")
    since = unix("2026-01-01", "UTC")
    found = starts([often, seldom, never, minutes], since, since + 3 * 86400)
    assert local(found[often], "UTC")[-1] == "2026-01-05 00:00+00:00" and len(found[often]) == 5
    assert local(found[seldom], "UTC") == ["2028-02-29 00:00+00:00"]
    assert found[never] == [] and len(found[minutes]) == 3 * 1440 + 2


@pytest.mark.parametrize("zone", [BERLIN, "America/St_Johns", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"])
def test_a_moment_is_its_local_time_or_the_first_one_behind_a_gap(zone: str) -> None:
    draw, there = random.Random(zone), zone_of(zone)
    for _ in range(300):
        wanted = datetime.fromtimestamp(draw.randrange(1_700_000_000, 1_900_000_000) // 60 * 60)
        found = datetime.fromtimestamp(moment(wanted, there), there).replace(tzinfo=None)
        before = datetime.fromtimestamp(moment(wanted, there) - 1, there).replace(tzinfo=None)
        assert found == wanted or before < wanted < found


SCHEDULE = """
[defaults]
source.kind = "test"
schedule = [{ start = "Mon..Fri 18:00", duration = "1h 30min", take = "news" }, { start = "Sat 7:00 UTC", duration = "90s" }]
[port.2]
schedule = []
post_roll_s = 10
"""  # noqa: E501


def settings_of(text: str) -> Settings:
    return parse_settings([("t.toml", {"appliance": {"ports": 3}, **tomllib.loads(text)})], refusals)


def test_a_schedule_from_the_configuration_to_its_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendars, "LOCAL_ZONE_PATH", f"/usr/share/zoneinfo/{BERLIN}")
    found = schedules_of(settings_of(SCHEDULE))
    news = Entry("Mon..Fri 18:00", "Mon..Fri *-*-* 18:00:00", "", 5400.0, "news")
    assert (
        found[0] == found[1] == Schedule((news, Entry("Sat 7:00 UTC", "Sat *-*-* 07:00:00", "UTC", 90.0, "scheduled")))
    )
    assert found[2] == Schedule((), 5.0, 10.0)
    path = str(tmp_path / "schedules.json")
    assert save_schedules(found, path) and not save_schedules(found, path)
    assert load_schedules(path) == found
    slots = slots_of(found, unix("2026-11-27 19:00"), unix("2026-11-28 12:00"))
    assert slots[2] == [] and slots[0] == slots[1]
    times = [(local([slot.start])[0], slot.end - slot.start, slot.take) for slot in slots[0]]
    # The one that goes on, the one of that time, and the next one of each entry.
    assert times == [
        ("2026-11-27 18:00+01:00", 5400.0, "news"), ("2026-11-28 08:00+01:00", 90.0, "scheduled"),
        ("2026-11-30 18:00+01:00", 5400.0, "news"), ("2026-12-05 08:00+01:00", 90.0, "scheduled"),
    ]  # fmt: skip


def test_nothing_is_written_where_nothing_is_scheduled(tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    assert not save_schedules({0: Schedule()}, str(path)) and not path.exists() and load_schedules(str(path)) == {}
    assert save_schedules({0: Schedule(pre_roll_s=1.0)}, str(path))
    assert save_schedules({0: Schedule()}, str(path)) and load_schedules(str(path)) == {}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"ports": {"x": {}}}', '{"ports": {"0": {"entries": [1]}}}'])
def test_what_no_apply_wrote_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "schedules.json"
    path.write_text(content)
    with pytest.raises(SdisupError, match="sdisup apply writes it anew"):
        load_schedules(str(path))


def test_a_schedule_of_a_port_that_records_anyway_is_doubted() -> None:
    (warning,) = settings_of(SCHEDULE + "record_at_boot = true\n[port.1]\nrecord_at_boot = true\n").warnings
    assert warning.startswith("t.toml: port.1.record_at_boot: the port records whenever the machine is up")


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = """
        [defaults]
        codec = "h264x"
        schedule = [{ start = "18:00", duration = "0s" }, { start = "18:00", duration = "-1h", tak = "x" }, 7]
        [port.1]
        schedule = [{ start = "foo", duration = "1h" }, { start = "Fri 25:00", duration = "1h", take = "a/b" }]
        [port.2]
        schedule = [{ start = "18:00", duration = "1h" }, { start = "Fri 25:00", duration = "1h" }]
        pre_roll_s = -1
        """
    with pytest.raises(ConfigError) as caught:
        settings_of(text)
    assert [problem for problem in caught.value.problems if "codec" not in problem] == [
        "t.toml: defaults.schedule: entry 1: duration: must be 1 s to 31 days, not '0s'; "
        "entry 2: unknown key 'tak'; did you mean 'take'?; "
        "entry 2: duration: '-1h' is no length of time, such as 90s, 30min, 1h 30min, 2d; "
        "entry 3 must be a table, not 7",
        "t.toml: port.1.schedule: entry 2: take: 'a/b' is not a letter or digit and up to 63 of A-Z a-z 0-9 . _ -",
        "t.toml: port.2.pre_roll_s: must be 0.1 to 600 s, not -1",
        "t.toml: port.1.schedule: entry 1: start: Failed to parse calendar specification 'foo': Invalid argument",
        "t.toml: port.1.schedule: entry 2: start: Failed to parse calendar specification 'Fri 25:00': Invalid argument",
        "t.toml: port.2.schedule: entry 2: start: Failed to parse calendar specification 'Fri 25:00': Invalid argument",
    ]


def test_a_week_of_all_ports_costs_two_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 ports of 20 entries each: systemd-analyze is asked once what they are, and once when they come."""
    asked = []

    def ask(arguments: Sequence[str], *, with_stderr: bool = False) -> str:
        asked.append(len(arguments))
        return original(arguments, with_stderr=with_stderr)

    original = calendars.ask_systemd
    monkeypatch.setattr(calendars.read_calendars, "__defaults__", (ask,))
    monkeypatch.setattr(calendars.starts, "__defaults__", (ask,))
    entries = [
        [{"start": f"Mon..Fri {number % 20:02}:{port % 60:02}:{number:02}", "duration": "1min"} for number in range(20)]
        for port in range(64)
    ]
    document = {
        "appliance": {"ports": 64},
        "defaults": {"source": {"kind": "test"}},
        "port": {str(port): {"schedule": own} for port, own in enumerate(entries)},
    }
    schedules = schedules_of(parse_settings([("t.toml", document)]))
    now = time.time()
    assert sum(len(slots) for slots in slots_of(schedules, now, now).values()) >= 1280
    assert len(asked) == 2 and len(schedules) == 64
