"""Whether the clock is believed: a clock that jumps a year ahead must not delete all that is older than 30 days.

It is believed while something outside keeps it right, or an operator has said that it is right, and while it goes on
from the last moment at which it was believed. Pure, but for the system's word on its synchronisation.
"""

from __future__ import annotations

import ctypes

from sdisup.contract.records import Record

MAX_ERROR_US = 16_000_000
"""What systemd's NTPSynchronized asks for (src/basic/time-util.c, ntp_synced)."""
STEP_S = 3600.0
"""A step within a boot that no rule by age has to care for."""
OFF_S = 30 * 86400.0
"""A clock that is synchronised is believed on its word that the machine was off for so long."""
RTC_S = 86400.0
"""The same of one that an operator has confirmed before, and that nobody has looked at since."""
CONFIRM = "if the clock is right: sdisup retention --confirm-clock"


class Mark(Record):
    """A moment at which the clock was believed: Unix time, CLOCK_BOOTTIME in seconds, and the boot."""

    wall: float
    boottime: float
    boot_id: str


class Sight(Record):
    """What is known of the clock now. `last_end` is when the ledgers' newest file of an earlier boot ended, 0 for none;
    `mark` the last moment at which it was believed; `confirmed` when an operator said that it is right."""

    now: Mark
    is_synchronised: bool
    last_end: float = 0.0
    mark: Mark | None = None
    confirmed: Mark | None = None


def doubt(sight: Sight) -> str:
    """Why the clock is not believed, with the next step; "" if it is."""
    known = _newest(sight)
    if known is not None:
        step_s = _ahead_s(sight.now) - _ahead_s(known)
        if abs(step_s) <= STEP_S:
            return ""
        where = "ahead" if step_s > 0 else "back"
        return f"the clock was moved {_days(abs(step_s))} {where} since it was known to be right; {CONFIRM}"
    if not sight.is_synchronised and sight.confirmed is None:
        return f"the clock is not synchronised; {CONFIRM}"
    last_s = max(sight.last_end, *(mark.wall for mark in (sight.mark, sight.confirmed) if mark), 0.0)
    if not last_s:
        return ""
    off_s, limit_s = sight.now.wall - last_s, OFF_S if sight.is_synchronised else RTC_S
    if off_s < -STEP_S:
        return f"the clock is {_days(-off_s)} behind what was recorded before this boot; {CONFIRM}"
    if off_s > limit_s:
        return f"by the clock the machine was off for {_days(off_s)}; {CONFIRM}"
    return ""


def _newest(sight: Sight) -> Mark | None:
    """The last moment of this boot at which the clock was believed, or said to be right."""
    known = [mark for mark in (sight.mark, sight.confirmed) if mark and mark.boot_id == sight.now.boot_id]
    return max(known, key=lambda mark: mark.boottime, default=None)


def _ahead_s(mark: Mark) -> float:
    return mark.wall - mark.boottime


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"


class _Timex(ctypes.Structure):
    """struct timex (adjtimex(2)), as far as it is read here; the rest is room for the kernel to write to."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_char * 512),
    )


def is_synchronised() -> bool:
    """Whether something keeps the clock right: NTP, PTP or whatever else tells the kernel so."""
    timex = _Timex()
    library = ctypes.CDLL(None, use_errno=True)
    return bool(library.adjtimex(ctypes.byref(timex)) >= 0 and timex.maxerror < MAX_ERROR_US)
