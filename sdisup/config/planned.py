"""A port's `schedule`: when it records by itself. What a calendar expression means, only systemd knows
(control/calendars.py). Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from sdisup.config.spans import EXAMPLES, seconds_of
from sdisup.contract.records import Record
from sdisup.contract.requests import is_take_name
from sdisup.sources.values import Setting, Type, check_string, show, suggestion

ENTRIES_MAX = 100
"""More of a day than a port has programmes; each wake of a port's timer has systemd resolve all of them."""
START_LENGTH = 200
SHORTEST_S, LONGEST_S = 1.0, 31 * 86400.0
DEFAULT_TAKE = "scheduled"
Value = TypeVar("Value", str, float)
_KEYS = ("start", "duration", "take")


class Planned(Record):
    """An entry: at each moment of the calendar expression `start` a take begins that lasts `duration_s` seconds."""

    start: str
    duration_s: float
    take: str


def check_schedule(setting: Setting, value: object) -> tuple[Planned, ...]:
    """The entries. Raises ValueError with all that is wrong with them."""
    if not isinstance(value, list | tuple):
        raise ValueError(f'must be a list of entries, as in [{{ start = "Mon..Fri 18:00", duration = "1h" }}], '
                         f"not {show(value)}")  # fmt: skip
    if len(value) > ENTRIES_MAX:
        raise ValueError(f"has {len(value)} entries; at most {ENTRIES_MAX} are possible")
    problems: list[str] = []
    entries = [_entry(item, number, problems) for number, item in enumerate(value, 1)]
    if problems:
        raise ValueError("; ".join(problems[:5]) + ("; …" if len(problems) > 5 else ""))
    return tuple(entries)


def starts_in(value: object) -> list[tuple[int, str]]:
    """The calendar expressions of a schedule, each with its entry's number, whatever else is wrong with it."""
    found = []
    for number, item in enumerate(value if isinstance(value, list) else (), 1):
        try:
            found.append((number, _check_start(item["start"])))
        except (TypeError, KeyError, ValueError):
            # That is told already.
            continue
    return found


def _entry(item: object, number: int, problems: list[str]) -> Planned:
    if not isinstance(item, Mapping):
        problems.append(f"entry {number} must be a table, not {show(item)}")
        return Planned("", 0.0, "")
    for key in item:
        if key not in _KEYS:
            close = suggestion(key, _KEYS) or f" (one of: {', '.join(_KEYS)})"
            problems.append(f"entry {number}: unknown key {show(key)}{close}")
    return Planned(
        _checked(item, "start", _check_start, "", number, problems, is_required=True),
        _checked(item, "duration", _check_duration, 0.0, number, problems, is_required=True),
        _checked(item, "take", _check_take, DEFAULT_TAKE, number, problems),
    )


def _checked(
    item: Mapping[str, object],
    key: str,
    check: Callable[[object], Value],
    default: Value,
    number: int,
    problems: list[str],
    *,
    is_required: bool = False,
) -> Value:
    try:
        if key in item:
            return check(item[key])
        if is_required:
            raise ValueError("is missing")
    except ValueError as error:
        problems.append(f"entry {number}: {key}: {error}")
    return default


def _check_start(value: object) -> str:
    text = check_string(value).strip()
    if not text or len(text) > START_LENGTH or not text.isascii() or not text.isprintable():
        raise ValueError(f'{show(text)} is no calendar expression, such as "Mon..Fri 18:00"')
    return text


def _check_duration(value: object) -> float:
    seconds = seconds_of(check_string(value))
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ValueError(f"must be {SHORTEST_S:g} s to {LONGEST_S / 86400:g} days, not {show(value)}")
    return seconds


def _check_take(value: object) -> str:
    text = check_string(value)
    if not is_take_name(text):
        raise ValueError(f"{show(text)} is not a letter or digit and up to 63 of A-Z a-z 0-9 . _ -")
    return text


SCHEDULE = Type(
    "schedule", check_schedule, f"a list of `{{ start, duration, take }}`; a duration is such as {EXAMPLES}"
)
