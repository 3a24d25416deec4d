"""Lengths of time as systemd.time(7) spells them: 90s, 30min, 1h 30min, 2d. Pure."""

from __future__ import annotations

import re

from sdisup.sources.values import show

EXAMPLES = "90s, 30min, 1h 30min, 2d"
_UNITS_S = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minute": 60, "minutes": 60, "h": 3600,
    "hr": 3600, "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800,
    "weeks": 604800,
}  # fmt: skip
_PART = r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([a-z]+)"
_SPAN = re.compile(rf"{_PART}(?: ?{_PART})*", re.ASCII)


def seconds_of(text: str) -> float:
    """How many seconds it is. Raises ValueError that says what is wrong."""
    words = text.strip()
    if _SPAN.fullmatch(words):
        parts = re.findall(_PART, words)
        if all(unit in _UNITS_S for _, unit in parts):
            return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    raise ValueError(f"{show(text)} is no length of time, such as {EXAMPLES}")
