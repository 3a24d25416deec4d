"""Timecode: the number of a frame as broadcasters write it, and the clock's time of day as such a number. Pure.

SMPTE ST 12-1: `HH:MM:SS:FF` counts whole frames a second, so that 29.97 frames a second are counted as 30, and would
fall behind the clock by 3.6 s an hour. Drop-frame timecode, `HH:MM:SS;FF`, skips the numbers of the first two frames of
each minute, of four at 59.94, but for each tenth minute; no frame is skipped. It is 0.09 s a day behind. There is no
such numbering for 23.976, which falls behind. After 24 hours all begin anew.
"""

from __future__ import annotations

from sdisup.contract.records import Record

NONE, CLOCK, SOURCE = "none", "clock", "source"
"""What a port's timecode may be, beside that of its first frame."""

DAY_S = 86400
DIGITS = frozenset("0123456789")


class Counting(Record):
    """How frames are numbered: so many a second, and so many numbers that most minutes lack."""

    base: int
    dropped: int

    @property
    def a_minute(self) -> int:
        """The frames of a minute that lacks numbers."""
        return 60 * self.base - self.dropped

    @property
    def ten_minutes(self) -> int:
        return 600 * self.base - 9 * self.dropped

    @property
    def a_day(self) -> int:
        return 144 * self.ten_minutes

    @property
    def zero(self) -> str:
        """The first number of a day."""
        return self.text(0)

    def text(self, frame: int) -> str:
        """The number of the frame that is the so many-th since midnight, counted from 0, of any day."""
        tens, rest = divmod(frame % self.a_day, self.ten_minutes)
        # The first minute of ten lacks no number.
        minute = max(0, rest - self.dropped) // self.a_minute
        number = tens * 600 * self.base + rest + minute * self.dropped
        seconds, frames = divmod(number, self.base)
        hours, minutes = seconds // 3600, seconds // 60 % 60
        mark = ";" if self.dropped else ":"
        return f"{hours:02d}:{minutes:02d}:{seconds % 60:02d}{mark}{frames:02d}"

    def frame(self, text: str) -> int:
        """The frame since midnight that has this number. Raises ValueError that says why it is none.

        `:` and `;` before the frames are both taken: which one is right is known.
        """
        hours, minutes, seconds, frames = fields_of(text)
        if hours > 23 or minutes > 59 or seconds > 59:
            raise ValueError(f"{text[:40]!r} is no time of a day: it goes to 23:59:59")
        if frames >= self.base:
            raise ValueError(f"{text[:40]!r} has no such frame: a second's are 00 to {self.base - 1:02d}")
        if frames < self.dropped and seconds == 0 and minutes % 10:
            following = f"{text[:8]};{self.dropped:02d}"
            raise ValueError(f"{text[:40]!r} is a number that drop-frame timecode skips: the next one is {following}")
        minute = hours * 60 + minutes
        return (minute * 60 + seconds) * self.base + frames - self.dropped * (minute - minute // 10)

    def at_clock(self, second_of_day: float) -> int:
        """The frame since midnight that the clock is at.

        With drop-frame these are the frames that fit into the time, so that two recordings that began at different
        times have one number for one moment. Numbers that fall behind begin with the clock's seconds.
        """
        a_second = self.base * 1000 / 1001 if self.dropped else float(self.base)
        return min(max(0, int(second_of_day * a_second + 1e-6)), self.a_day - 1)


def fields_of(text: str) -> list[int]:
    """Hours, minutes, seconds and frames of a timecode. Raises ValueError where it has another form."""
    fields = text.replace(";", ":").split(":")
    is_right = len(fields) == 4 and all(len(field) == 2 and DIGITS.issuperset(field) for field in fields)
    if not is_right or ";" in text[:-3]:
        raise ValueError(f"{text[:40]!r} is no timecode: HH:MM:SS:FF, such as 10:00:00:00")
    return [int(field) for field in fields]


def counting(fps: float) -> Counting | None:
    """How frames are numbered at a rate; None where they cannot be. 29.97 and 59.94 have drop-frame timecode."""
    base = round(fps) if 0 < fps < 1000 else 0
    if not 1 <= base <= 99:
        return None
    is_slow = abs(fps * 1001 / 1000 - base) < abs(fps - base)
    return Counting(base, base // 15 if is_slow and base in (30, 60) else 0)
