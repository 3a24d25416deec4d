"""Times and lengths as operators write and read them; times are local. Pure, but for the system's time zone."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from sdisup.errors import UsageError

TIMES_HELP = "now, today, yesterday, -2h, -30min, 2026-01-31, '2026-01-31 20:15' (local), 2026-01-31T19:15:00Z"
_AGO = re.compile(r"-(\d+(?:\.\d+)?) ?(s|sec|m|min|h|d|days?|w)", re.ASCII)
CLOCK_HELP = "23:00 or 18:00:00 (the next one), '2026-01-31 20:15' (local), 2026-01-31T19:15:00Z"
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_UNIT_S = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400, "w": 604800}


def parse_time(text: str, now: float) -> float:
    """The Unix time that an operator means; a time without an offset is local. Raises UsageError."""
    words = text.strip()
    ago = _AGO.fullmatch(words)
    try:
        if ago:
            found = now - float(ago[1]) * _UNIT_S[ago[2]]
        elif words in ("now", "today", "yesterday"):
            found = now if words == "now" else _midnight(now, 0 if words == "today" else 1)
        else:
            # datetime takes a time without an offset for local time, which an operator's clock shows.
            found = datetime.fromisoformat(words).timestamp()
    except (ValueError, OverflowError, OSError):
        found = -1.0
    if found < 0:
        raise UsageError(f"{text!r} is no time", f"times are {TIMES_HELP}")
    return found


def parse_clock(text: str, now: float) -> float:
    """The Unix time of a moment to come: a time of day is the next one. Raises UsageError."""
    words = text.strip()
    found = _CLOCK.fullmatch(words)
    try:
        if not found:
            return datetime.fromisoformat(words).timestamp()
        hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
        today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=second, microsecond=0)
        days = (today + timedelta(days=day) for day in range(3))
        return next(moment for moment in (day.timestamp() for day in days) if moment > now)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{text!r} is no time", f"times are {CLOCK_HELP}") from None


def _midnight(now: float, days_ago: int) -> float:
    day = datetime.fromtimestamp(now) - timedelta(days=days_ago)
    return day.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


class LocalTexts:
    """Makes local times of a ledger's UTC texts: `2026-01-31 20:15:03+01:00`.

    All texts of an hour share what stands before the minutes and after the seconds, where the offset is one of whole
    hours and does not change in that hour; so each hour is computed once.
    """

    def __init__(self) -> None:
        self._hours: dict[str, tuple[str, str]] = {}

    def text(self, utc: str) -> str:
        """The local time; the text itself if the text is no time."""
        known = self._hours.get(utc[:13])
        if known is None:
            known = self._hours[utc[:13]] = _hour(utc[:13])
        if known[0]:
            return f"{known[0]}{utc[13:19]}{known[1]}"
        try:
            return _local(utc)
        except (ValueError, OverflowError, OSError):
            return utc


def _hour(hour: str) -> tuple[str, str]:
    """What stands before the minutes and after the seconds in that hour; empty where the hour has more than one."""
    try:
        first, last = _local(f"{hour}:00:00Z"), _local(f"{hour}:59:59Z")
    except (ValueError, OverflowError, OSError):
        return "", ""
    is_whole = first[13:19] == ":00:00" and first[19:] == last[19:]
    return (first[:13], first[19:]) if is_whole else ("", "")


def _local(utc: str) -> str:
    return datetime.fromisoformat(utc).astimezone().isoformat(" ", "seconds")


def length_text(seconds: float) -> str:
    """`0.3s`, `3m05s`, `2h07m30s`, `4d03h00m07s`: to the second, below a minute to a tenth of a second."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    text = f"{minutes:02}m{whole % 60:02}s"
    if whole >= 3600:
        text = f"{hours:02}h{text}"
    if days:
        text = f"{days}d{text}"
    return text.removeprefix("0")
