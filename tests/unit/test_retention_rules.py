"""The rules of the configuration, and whether the clock is believed."""

from __future__ import annotations

import functools
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.config.settings import Settings, parse_settings
from sdisup.contract.files import utc_text
from sdisup.contract.retention import NO_RULES, Retention, Rules, load_rules, save_rules, size_text
from sdisup.control import retain
from sdisup.control.bus import UnitState
from sdisup.control.look import Look
from sdisup.control.systemd import DONE
from sdisup.errors import ConfigError
from sdisup.ledger.lines import Entry, append_entries
from sdisup.ledger.moments import Moment
from sdisup.retention.clock import Mark, Sight, doubt, is_synchronised
from sdisup.retention.known import Known
from sdisup.retention.plan import NOT_COPIED

G = 1 << 30
DAY = 86400.0


def parse(rules: Any = None, **port: Any) -> Settings:
    document: dict[str, Any] = {
        "appliance": {"ports": 2},
        "defaults": {"source": {"kind": "test"}},
        "port": {"1": port},
    }
    return parse_settings([("a.toml", {**document, **({} if rules is None else {"retention": rules})})])


def problems(rules: Any = None, **port: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse(rules, **port)
    return error.value.problems


def test_without_a_rule_nothing_goes() -> None:
    assert not parse().retention
    assert parse().retention.value("max_age", 0) == 0


def test_rules_for_all_and_for_a_port() -> None:
    settings = parse(
        {"max_age": "30d", "max_size": "2T", "max_files": 1000, "min_free": "200GB"},
        retention={"max_age": "90d", "min_free": 0},
    )
    found = settings.retention
    assert found.common == Rules(30 * 86400, 2048 * G, 1000, 200 * 10**9)
    assert [found.value("max_age", port) for port in (0, 1)] == [30 * 86400, 90 * 86400]
    assert [found.value("min_free", port) for port in (0, 1)] == [200 * 10**9, 0]
    assert found.has_own("min_free", 1) and not found.has_own("max_size", 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("90min", 5400), ("12h", 43200), ("1.5d", 129600), ("2w", 1209600), (0, 0)],
)
def test_ages(text: object, value: int) -> None:
    assert parse({"max_age": text}).retention.common.max_age == value


@pytest.mark.parametrize("wrong", [-1, 30, "30", "d", "30 years", "1s", "", True, [], "1e9d", "\u0661d", "0d"])
def test_no_ages(wrong: object) -> None:
    (problem,) = problems({"max_age": wrong})
    assert problem.startswith("a.toml: retention.max_age: must be a duration such as '30d'")


@pytest.mark.parametrize(
    ("text", "value"), [("1K", 1024), ("1.5G", 3 * G // 2), ("2 TB", 2 * 10**12), ("3MiB", 3 << 20)]
)
def test_sizes(text: object, value: int) -> None:
    assert parse({"min_free": text}).retention.common.min_free == value


@pytest.mark.parametrize("wrong", [5, "5", "T", "5X", "-5G", "5g", True, "9999999T", None])
def test_no_sizes(wrong: object) -> None:
    assert "must be a size such as '500G'" in problems({"min_free": wrong})[0]


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = problems({"max_age": "x", "max_file": 3, "max_files": -1}, retention={"max_size": "1M", "nothing": 1})
    assert [text.partition(":")[2].partition(":")[0].strip() for text in found] == [
        "port.1.retention.nothing", "port.1.retention.max_size", "retention.max_age", "retention.max_file",
        "retention.max_files",
    ]  # fmt: skip


def test_rules_that_contradict_what_is_recorded() -> None:
    """A limit below one file of each port would delete each file as soon as it has ended."""
    (text,) = problems({"max_size": "6G"}, segment_s=3600)
    assert "a.toml: retention.max_size: 6G is less than one file of each of 2 ports, 6.7" in text
    assert "2 ports" in problems({"max_files": 1})[0]
    assert "no [offload.NAME] copies the files of port 0" in problems({"after_copy": True})[0]
    (text,) = problems(None, retention={"max_size": "1G"})
    assert text.startswith("a.toml: port.1.retention.max_size: 1G is less than one file of 3600 s at 8000 kbit/s")


def test_less_free_than_is_written_in_two_minutes_is_doubted() -> None:
    (text,) = parse({"min_free": "200M"}).warnings
    assert text.startswith(
        "a.toml: retention.min_free: 200M is less than the 228.9M that 2 ports write to /srv/recordin"
    )
    assert parse({"min_free": "1G"}).warnings == ()
    assert parse({"max_age": "30d"}).warnings == ()


def test_more_free_than_a_disk_has_is_no_rule_for_it() -> None:
    looks = {"/srv/recordings": Look(size_bytes=100 * G), "/srv/large": Look(size_bytes=300 * G)}
    settings = parse({"min_free": "200G"}, recordings="/srv/large")
    assert retain.problems(settings, looks) == [
        "/srv/recordings is on a disk of 100G, and retention.min_free asks for 200G: nothing is deleted for it"
    ]
    assert retain.problems(settings, {**looks, "/srv/recordings": Look()}) == []


def test_a_table_is_asked_for() -> None:
    assert problems(3) == ["a.toml: retention: must be a table, not 3"]
    assert problems(None, retention="30d") == ["a.toml: port.1.retention: must be a table, not '30d'"]


RULES = st.builds(Rules, *[st.none() | st.integers(0, 1 << 50)] * 4, st.none() | st.booleans())


@given(RULES, st.dictionaries(st.integers(0, 63), RULES.filter(lambda rules: rules != Rules()), max_size=3))
def test_what_is_applied_is_read_back(tmp_path_factory: pytest.TempPathFactory, common: Rules, own: Any) -> None:
    path = str(tmp_path_factory.mktemp("rules") / "retention.json")
    retention = Retention(common, own)
    is_written = save_rules(retention, path)
    assert load_rules(path) == retention or not is_written
    assert not save_rules(retention, path)


def test_a_machine_without_rules_gets_no_file(tmp_path: Path) -> None:
    path = str(tmp_path / "retention.json")
    assert not save_rules(NO_RULES, path)
    assert load_rules(path) == NO_RULES


def test_sizes_in_words() -> None:
    assert [size_text(size) for size in (0, 1023, 1536, 200 * G, 3 << 40)] == ["0B", "1023B", "1.5K", "200G", "3T"]


class FakeSystemd:
    """What starts retention, as systemd has it."""

    def __init__(self) -> None:
        self.active: set[str] = set()

    def units(self, pattern: str) -> dict[str, UnitState]:
        return {name: UnitState("", "active", "waiting") for name in self.active if fnmatch(name, pattern)}

    def run_jobs(self, verb: str, units: list[str], _limit_s: float) -> dict[str, str]:
        self.active = self.active | set(units) if verb == "Start" else self.active - set(units)
        return dict.fromkeys(units, DONE)


def test_apply_starts_and_stops_what_starts_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place: Any = {"path": str(tmp_path / "rules.json")}
    monkeypatch.setattr(retain, "save_rules", functools.partial(save_rules, **place))
    monkeypatch.setattr(retain, "RULES_PATH", place["path"])
    report = tmp_path / "retention.json"
    report.write_text("{}")
    monkeypatch.setattr(retain, "report_path", lambda: str(report))
    systemd: Any = FakeSystemd()
    said: list[str] = []
    retention = Retention(Rules(max_files=3), {})
    assert not retain.stop_former(systemd, NO_RULES, said.append)
    assert retain.put_into_effect(systemd, retention, said.append)
    assert systemd.active == {"sdi-retention.timer", "sdi-retention.path"}
    assert not retain.put_into_effect(systemd, retention, said.append)
    assert not retain.stop_former(systemd, retention, said.append)
    assert report.exists()
    assert retain.stop_former(systemd, NO_RULES, said.append)
    assert systemd.active == set()
    assert retain.put_into_effect(systemd, NO_RULES, said.append)
    assert not report.exists()
    assert not retain.put_into_effect(systemd, NO_RULES, said.append)
    assert [line.partition(" ")[0] for line in said] == ["wrote", "started", "started", "stopped", "stopped", "wrote"]


# ---- The clock ----

NOW = 1_800_000_000.0


def mark(wall: float, up: float = 1000.0, boot: str = "b") -> Mark:
    return Mark(NOW + wall, up, boot)


def sight(**known: Any) -> Sight:
    return Sight(**{"now": mark(0), "is_synchronised": True, **known})


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"last_end": NOW - 29 * DAY},
        {"mark": mark(-500, 500)},
        # Slewed, or put right by a little.
        {"mark": mark(-3000, 500)},
        # It was believed while it was synchronised, and goes on evenly since.
        {"mark": mark(-500, 500), "is_synchronised": False},
        {"confirmed": mark(-500, 500), "is_synchronised": False},
        {"confirmed": mark(-DAY * 9, 500, "a"), "is_synchronised": False, "last_end": NOW - 3600},
        # Moved, and then confirmed.
        {"mark": mark(-400 * DAY, 500), "confirmed": mark(-10, 990)},
        # The machine was off for a month, and nothing was recorded for longer.
        {"last_end": NOW - 90 * DAY, "mark": mark(-29 * DAY, 5, "a")},
    ],
)
def test_a_clock_that_is_believed(known: dict[str, Any]) -> None:
    assert doubt(sight(**known)) == ""


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"is_synchronised": False}, "is not synchronised"),
        ({"mark": mark(-500 - 365 * DAY, 500)}, "was moved 365.0 days ahead"),
        ({"mark": mark(-500 + 365 * DAY, 500)}, "was moved 365.0 days back"),
        ({"mark": mark(-500 - 7200, 500)}, "was moved 2.0 hours ahead"),
        ({"last_end": NOW - 365 * DAY}, "the machine was off for 365.0 days"),
        ({"last_end": NOW + 365 * DAY}, "is 365.0 days behind what was recorded"),
        ({"confirmed": mark(-400 * DAY, 500)}, "was moved 400.0 days ahead"),
        ({"confirmed": mark(-3 * DAY, 5, "a"), "is_synchronised": False}, "the machine was off for 3.0 days"),
        # Synchronised, by whatever: it was believed before.
        ({"mark": mark(-500 - 7200, 500), "last_end": NOW - 60}, "was moved 2.0 hours ahead"),
    ],
)
def test_a_clock_that_is_not_believed(known: dict[str, Any], words: str) -> None:
    found = doubt(sight(**known))
    assert words in found and found.endswith("if the clock is right: sdisup retention --confirm-clock")


def test_the_kernel_says_whether_it_is_synchronised() -> None:
    assert is_synchronised() in (True, False)


# ---- When files ended ----


def known(*entries: Entry) -> dict[str, float]:
    """Of each file how long ago it ended, in days."""
    found = Known(Moment(NOW, 5000.0, "now"), lambda *_: None)
    for entry in entries:
        found.add(entry)
    return {path: round((NOW - file.end) / DAY, 3) for path, file in found.files.items()}


def line(kind: str, days: float, boot: str = "b", monotonic: float = 0.0, **more: object) -> Entry:
    end = utc_text(NOW - days * DAY)
    return {"v": 1, "kind": kind, "boot_id": boot, "start": end, "end": end, "end_monotonic": monotonic, "seconds": 0.0,
            "take": None, **more}  # fmt: skip


def recorded(path: str, days: float, boot: str = "b", monotonic: float = 0.0) -> Entry:
    return line("file", days, boot, monotonic, path=path, bytes=1, inode=1)


def test_a_file_is_so_old_as_its_line_says() -> None:
    assert known(recorded("/r/a", 3), recorded("/r/b", 2)) == {"/r/a": 3, "/r/b": 2}


def test_a_file_of_this_boot_is_so_old_as_the_monotonic_clock_says() -> None:
    assert known(recorded("/r/a", 20_000, "now", 5000 - 864)) == {"/r/a": 0.01}


def test_a_step_of_the_clock_is_one_for_the_files_of_its_boot_before_it() -> None:
    """It began in 1970, and was put right by 10 days after the first file."""
    found = known(
        recorded("/r/0", 40, "a"), recorded("/r/a", 13), line("clock", 3, seconds=10 * DAY), recorded("/r/b", 2)
    )
    assert found == {"/r/0": 40, "/r/a": 3, "/r/b": 2}


def test_a_clock_that_was_behind_makes_no_file_older_than_the_one_before_it() -> None:
    assert known(recorded("/r/a", 3), recorded("/r/b", 20_000), recorded("/r/c", 2)) == {
        "/r/a": 3, "/r/b": 3, "/r/c": 2
    }  # fmt: skip


def test_a_clock_that_was_ahead_does_not_keep_what_came_later() -> None:
    assert known(recorded("/r/a", -365), recorded("/r/b", 3)) == {"/r/a": -365, "/r/b": 3}


def test_what_is_deleted_and_recorded_anew() -> None:
    gone = line("delete", 1, path="/r/a", inode=1, rule="max_files 1")
    assert known(recorded("/r/a", 3), gone) == {}
    assert known(recorded("/r/a", 3), gone, recorded("/r/a", 0.5)) == {"/r/a": 0.5}
    # Of another file of that name, which is in a ledger twice.
    assert known(recorded("/r/a", 3), {**gone, "inode": 2}) == {"/r/a": 3}


# ---- Copies ----


def copied(path: str, target: str, inode: int = 1) -> Entry:
    return line("copy", 1, path=path, inode=inode, target=target)


@pytest.mark.parametrize(
    ("waits_for", "copies", "is_kept"),
    [
        (None, [], False),
        (["nas", "tape"], [], True),
        (["nas", "tape"], [copied("/r/a", "nas")], True),
        (["nas", "tape"], [copied("/r/a", "nas"), copied("/r/a", "nas")], True),
        (["nas", "tape"], [copied("/r/a", "nas"), copied("/r/a", "tape")], False),
        (["nas"], [copied("/r/a", "tape")], True),
        (["nas"], [copied("/r/b", "nas")], True),
        (["nas"], [copied("/r/a", "nas", inode=2)], True),
        # Of a port that no target copies any more.
        ([], [], True),
        ([], [copied("/r/a", "nas")], False),
        # Recorded anew since.
        (["nas", "tape"], [copied("/r/a", "nas"), recorded("/r/a", 0.5), copied("/r/a", "tape")], True),
    ],
)
def test_a_file_waits_for_a_copy_at_each_target(
    tmp_path: Path, waits_for: list[str] | None, copies: list[Entry], is_kept: bool
) -> None:
    path = tmp_path / "3.jsonl"
    append_entries(str(path), [recorded("/r/a", 3), *copies])
    found = Known(Moment(NOW, 5000.0, "now"), lambda *_: None)
    found.read(3, str(path), waits_for=waits_for)
    assert (found.files["/r/a"].kept == NOT_COPIED) is is_kept
