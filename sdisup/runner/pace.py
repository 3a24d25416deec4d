"""What a source delivers, against the clock: how many pictures are missing, since when, and why. Pure.

FFmpeg keeps a constant frame rate by copies (FACTS 7): a frame is a picture only if it is no copy. So three things are
told apart. A *hole* is a stretch of time without a picture, whether FFmpeg filled it with copies or not. Copies beside
the holes are pictures that were lost one by one. And frames that are short of the clock are time that the file lacks.
Counts are compared with CLOCK_MONOTONIC_RAW, which no NTP slews (FACTS 7); `now` is CLOCK_MONOTONIC; both in seconds.
"""

from __future__ import annotations

import math
from collections import deque

from sdisup.contract.records import Record

STEP_S = 10.0
DRIFT = 0.0002
"""The share of each step's frames that may be missing: twice the 100 ppm by which clocks may differ."""
HOLE_S, LEAST_HOLE_S, SETTLE_S = 1.2, 0.4, 3.0
"""From when on a time without pictures is a hole, what of it has to be lost, and how long late pictures may fill it."""
COPIES_LATE_S = 1.0
"""The copies that fill a silence may be counted some blocks after its first picture."""
BLOCK_S = 0.25
"""FFmpeg's -stats_period (encode/command.py)."""
SHORT_WINDOW_S, LONG_WINDOW_S = 10.0, 60.0
SHORT_SHARE, LONG_SHARE = 0.1, 0.01
"""The one threshold: 10 % of the frames over 10 s, or 1 % over a minute, is said."""
SPAN = 0.92
"""How much of a window has to be seen before it is judged: what is lost all the time is said within 10 s."""
AHEAD_S = 2.0
"""A file may be longer than its time by this; by more, its timestamps have jumped (copies), or no clock paces it."""
BEHIND_S = 1.2
"""For how long pictures may be dropped one after the other, until timestamps that stepped back have caught up."""
FAST_WINDOW_S, FAST, BUFFERED_S = 3.0, 1.5, 40.0
"""A source that delivers so much more than its rate for so long is not paced, once it is ahead of its time by more than
a stream's buffer: HLS begins three segments back, of 10 s mostly."""
JUMP_S = 5.0
"""How long after a jump a new file is worth it."""

SIGNAL_LOST, SOURCE_SILENT, SOURCE_LOSES = "signal lost", "source silent", "source loses frames"
CANNOT_KEEP_UP, JUMPED = "cannot keep up", "timestamps jumped"
DELIVERS = "the source delivers "

STANDARD_RATES = (24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 60.0)


def exact_rate(value: float) -> float:
    """The rate that FFmpeg prints as `value`, 23.98 for 24000/1001."""
    return next((rate for rate in STANDARD_RATES if abs(rate - value) < 0.006), value)


class Hole(Record):
    """A stretch of time without pictures, by CLOCK_MONOTONIC: `frames` are missing, of which `filled` are copies."""

    start: float
    end: float
    frames: int
    filled: int
    cause: str


class Deficit:
    """Counts the frames that should have come by the clock and did not.

    It compares frames with time, in steps of at least STEP_S between progress blocks. What a step owes at its end may
    come late, and at once; so what counts for good is the least that a whole step owed. A card's clock may differ from
    the system's by 100 ppm for months; so each step may owe a little (DRIFT; DESIGN.md, Ledger).
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._owed = self._least = 0.0
        self._missing = 0
        self._at: float | None = None
        self._frames = 0
        self.frames = 0
        """How many frames are missing so far. The frames of the last step may still come."""

    def add(self, raw: float, frames: int) -> None:
        if not self._rate:
            return
        if self._at is None:
            self._at, self._frames = raw, frames
        self._least = min(self._least, self._owed_at(self._at, raw, frames))
        if raw - self._at >= STEP_S:
            self._step(self._at, raw, frames)

    def finish(self, raw: float, frames: int) -> None:
        """No more frames come: the last step counts, however short it is."""
        if self._at is not None:
            self._step(self._at, raw, frames)

    def _owed_at(self, since: float, raw: float, frames: int) -> float:
        return self._owed + self._rate * (1 - DRIFT) * (raw - since) - (frames - self._frames)

    def _step(self, since: float, raw: float, frames: int) -> None:
        self._owed = max(-self._tolerance(), self._owed_at(since, raw, frames))
        self._missing = max(self._missing, self._counted(self._least))
        self.frames = max(self._missing, self._counted(self._owed))
        self._at, self._frames, self._least = raw, frames, self._owed

    def _counted(self, owed: float) -> int:
        return int(owed) if owed > self._tolerance() else 0

    def _tolerance(self) -> float:
        return max(4.0, self._rate * 0.4)


class Counts(Record):
    """FFmpeg's counts at a moment: frames written, those among them that are copies, and pictures dropped."""

    now: float
    raw: float
    frames: int
    copies: int
    drops: int

    @property
    def pictures(self) -> int:
        return self.frames - self.copies


class Point(Record):
    """What came until a moment, as if the holes had been none: frames, the pictures among them, and drops."""

    raw: float
    frames: float
    pictures: float
    drops: int


class Rates(Record):
    """What came in a second since a moment of CLOCK_MONOTONIC_RAW: frames, the pictures among them, and drops."""

    since: float
    frames: float
    pictures: float
    drops: float


class Window:
    """The points of the last `seconds`, some fifty of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._points: deque[Point] = deque()

    def add(self, point: Point) -> None:
        points = self._points
        if not points or point.raw - points[-1].raw >= self._seconds / 50:
            points.append(point)
        while len(points) > 1 and points[1].raw <= point.raw - self._seconds:
            points.popleft()

    def rates(self, last: Point) -> Rates | None:
        """The rates from the window's beginning to `last`; None for a window of which too little was seen."""
        first = self._points[0]
        span_s = last.raw - first.raw
        if span_s < SPAN * self._seconds:
            return None
        return Rates(
            first.raw,
            (last.frames - first.frames) / span_s,
            (last.pictures - first.pictures) / span_s,
            (last.drops - first.drops) / span_s,
        )


class Pending(Record, frozen=False):
    """A hole that is over, from `before` to `after`, with `copies`. Pictures that come late make less of it `lost`."""

    before: Counts
    after: Counts
    copies: int
    lost: float


class Pace:
    """The pictures of one FFmpeg against the clock. `rate` is in frames a second; with 0 nothing is known.

    `is_stated` is whether somebody said that the source has this rate: otherwise it may change, and copies are no loss.
    `silent` is the cause of a hole, `started` when FFmpeg was.
    """

    def __init__(self, rate: float, silent: str, started: float = 0.0, *, is_stated: bool = True) -> None:
        self._started = started
        self.rate = rate
        self.is_stated = is_stated
        self.holes: list[Hole] = []
        """Those that the ledger was not told of yet."""
        self._silent = silent
        self._until = math.inf
        self._deficit = Deficit(rate)
        self._lost = self._filled = 0
        self._silent_lost, self._silent_filled = 0.0, 0
        """Of these, what no picture came for."""
        self._begun: Counts | None = None
        self._last = self._framed = self._pictured = Counts(0.0, 0.0, 0, 0, 0)
        """The last counts; those of the last block with new frames, and of the last one with a new picture."""
        self._pending: Pending | None = None
        self._hole_end = 0.0
        self._owed_until = 0.0
        self._ahead, self._surplus = 0.0, 0
        """How many copies stand for no time: those that later frames may still make up for, and those that remain."""
        self._jump, self._jump_until = "", -1.0
        self.is_starved = False
        """Whether FFmpeg has no time to take what its source delivers: then lost pictures are not the source's."""
        self.loses_pictures = False
        """Whether pictures are lost now that FFmpeg made copies for: its source lost them, or it did not take them."""
        self.remark = ""
        """What an operator should know of the pace, by the last ten seconds and the last minute; "" if all is well."""
        self._short, self._long, self._fast = Window(SHORT_WINDOW_S), Window(LONG_WINDOW_S), Window(FAST_WINDOW_S)

    # What is counted.

    @property
    def short(self) -> int:
        """How many frames the file lacks beside its holes, since not enough came by the clock."""
        return self._deficit.frames

    @property
    def repeated(self) -> int:
        """How many copies stand for pictures that were lost one by one, where the source's rate is stated."""
        return max(0, self._last.copies - self._filled - self._surplus) if self.is_stated else 0

    @property
    def repeated_cause(self) -> str:
        """Why copies stand for pictures: those that FFmpeg dropped beside them had come, with wrong timestamps."""
        if self.is_starved:
            return CANNOT_KEEP_UP
        return JUMPED if 2 * self._last.drops > self.repeated else SOURCE_LOSES

    @property
    def missing(self) -> int:
        """How many pictures are missing in all."""
        return self.short + self.repeated + self._lost

    def add(self, now: float, raw: float, frames: int, copies: int, drops: int) -> None:
        """Take in a progress block: frames written, those among them that are copies, and pictures dropped.

        Copies may be counted a block before they are written.
        """
        if not self.rate:
            return
        last = self._last
        counts = Counts(
            now, min(raw, self._until), max(frames, last.frames), max(copies, last.copies), max(drops, last.drops)
        )
        self._last = counts
        if self._begun is None:
            if counts.pictures > 0:
                self._begin(counts)
            return
        if counts.pictures <= self._pictured.pictures:
            self._watch_drops(counts)
        self._settle(counts)
        if counts.frames > self._framed.frames:
            ahead = max(0, int(self._ahead))
            self._watch_copies(counts)
            if counts.pictures > self._pictured.pictures:
                if counts.raw - self._pictured.raw > HOLE_S:
                    self._end_hole(counts, ahead)
                self._pictured = counts
            self._framed = counts
            # Only with new frames: blocks go on while no frame comes, and the gap that follows counts that time.
            self._deficit.add(counts.raw, counts.frames + self._unfilled())
            self._note(counts)

    def stop(self, raw: float) -> None:
        """FFmpeg is told to end: what it still writes came before this moment."""
        self._until = min(self._until, raw)

    def finish(self) -> None:
        """FFmpeg has ended. Time without frames at its end is the gap that follows."""
        self._settle(self._last, at_once=True)
        # What was filled ahead, and would have been dropped from what came next, is missing to nobody.
        if self._ahead > self.rate * LEAST_HOLE_S:
            self._surplus, self._ahead = self._surplus + math.ceil(self._ahead), 0.0
        self._deficit.finish(self._framed.raw, self._framed.frames + self._unfilled())

    def _begin(self, counts: Counts) -> None:
        self._begun = self._framed = self._pictured = counts
        # Some copies beside the first picture are FFmpeg's beginning, and nobody's loss.
        self._filled = min(counts.copies, int(self.rate * LEAST_HOLE_S))
        self._deficit.add(counts.raw, counts.frames - self._filled)
        self._note(counts)

    # Timestamps.

    def jump(self, now: float) -> str:
        """How the timestamps have jumped in the last seconds, so that a new file would record more than this one."""
        return self._jump if now <= self._jump_until else ""

    def jumped(self, now: float, text: str) -> None:
        """The timestamps have jumped: a new file would record more than this one."""
        self._jump, self._jump_until = text, now + JUMP_S

    def _watch_copies(self, counts: Counts) -> None:
        """Copies that no time explains stand for timestamps that went ahead; frames that do not come then pay back."""
        if counts.raw > self._owed_until:
            self._ahead = max(0.0, self._ahead)
        ahead = counts.frames - self._framed.frames - self.rate * (counts.raw - self._framed.raw)
        self._ahead += min(float(counts.copies - self._framed.copies), ahead)
        if ahead < -self.rate * LEAST_HOLE_S:
            self._owed_until = counts.raw + COPIES_LATE_S
        if self._ahead > AHEAD_S * self.rate:
            self.jumped(counts.now, f"{self._ahead / self.rate:.0f} s ahead, which FFmpeg filled with copies")
            self._surplus += math.ceil(self._ahead)
            self._ahead = 0.0

    def _watch_drops(self, counts: Counts) -> None:
        """Pictures that are dropped one after the other are behind those that were written."""
        dropped, seconds = counts.drops - self._pictured.drops, counts.raw - self._pictured.raw
        if seconds > BEHIND_S and dropped > self.rate * seconds / 2:
            self.jumped(counts.now, f"back; FFmpeg drops the pictures until they have caught up ({dropped} so far)")

    # Holes.

    def _end_hole(self, counts: Counts, ahead: int) -> None:
        """Pictures came again: what they do not make up for, now and in the next seconds, is lost."""
        self._settle(counts, at_once=True)
        self._pending = Pending(self._pictured, counts, counts.copies - self._pictured.copies + ahead, math.inf)
        self._settle(counts)

    def _settle(self, counts: Counts, *, at_once: bool = False) -> None:
        hole = self._pending
        if hole is None:
            return
        before, after = hole.before, hole.after
        owed = self.rate * (counts.raw - before.raw) - (counts.pictures - before.pictures)
        hole.lost = max(0.0, min(hole.lost, owed))
        if counts.raw - after.raw <= COPIES_LATE_S:
            hole.copies = max(hole.copies, counts.copies - before.copies)
        if not at_once and counts.raw - after.raw < SETTLE_S:
            return
        self._pending = None
        frames = round(hole.lost)
        if frames <= self.rate * LEAST_HOLE_S:
            return
        filled = self._filled_of(hole)
        # Where copies fill it, they are the better measure: blocks come late or early.
        frames = max(frames, min(hole.copies, int(self.rate * (after.raw - before.raw))))
        filled = max(filled, min(hole.copies, frames))
        self._lost += frames
        self._filled += filled
        cause = self._cause_of(hole)
        if cause == self._silent:
            self._silent_lost += frames
            self._silent_filled += filled
        # The pictures of the block that ends it came since the block before.
        end = after.now - min((after.pictures - before.pictures) / self.rate, BLOCK_S)
        start = max(self._hole_end, end - frames / self.rate)
        self.holes.append(Hole(start, end, frames, filled, cause))
        self._hole_end = end

    def _cause_of(self, hole: Pending) -> str:
        """Pictures that were dropped had come, with wrong timestamps."""
        return JUMPED if 2 * (hole.after.drops - hole.before.drops) > hole.lost else self._silent

    def _unfilled(self) -> int:
        """How many frames the file lacks by its holes."""
        pending = self._pending
        return self._lost - self._filled + (round(pending.lost) - self._filled_of(pending) if pending else 0)

    def _filled_of(self, hole: Pending) -> int:
        return min(round(hole.lost), hole.copies)

    # What is said.

    def _note(self, counts: Counts) -> None:
        """What a silence lacks is said by its hole: the windows see frames and pictures as if there had been none."""
        lost, filled = self._silent_lost, self._silent_filled
        if self._pending is not None and self._cause_of(self._pending) == self._silent:
            lost, filled = lost + self._pending.lost, filled + self._filled_of(self._pending)
        point = Point(counts.raw, counts.frames + lost - filled, counts.pictures + lost, counts.drops)
        for window in (self._short, self._long, self._fast):
            window.add(point)
        self.loses_pictures = False
        self.remark = (
            self._judge(self._short.rates(point), SHORT_SHARE, 2)
            or self._judge(self._long.rates(point), LONG_SHARE, 10)
            or self._judge_speed(counts, self._fast.rates(point))
        )

    def _judge(self, rates: Rates | None, share: float, steps: int) -> str:
        """A short window is exact to half a frame a second, a long one to a tenth (`steps` in one)."""
        if rates is None:
            return ""
        least, stated, got = self.rate * (1 - share), f"{self.rate:.4g}", round(steps * rates.pictures) / steps
        if rates.pictures < least and rates.drops > (self.rate - rates.pictures) / 2:
            return f"the timestamps jump: {got:.1f} of {stated} fps are recorded"
        if rates.frames < least:
            return f"{CANNOT_KEEP_UP}: {round(steps * rates.frames) / steps:.1f} of {stated} fps"
        if rates.pictures < least:
            self.loses_pictures = True
            return f"{f'{CANNOT_KEEP_UP}: ' if self.is_starved else DELIVERS}{got:.1f} of {stated} fps"
        if rates.drops > self.rate * share:
            return f"{DELIVERS}{_rate_text(rates.pictures + rates.drops)} fps; {stated} are recorded"
        return ""

    def _judge_speed(self, counts: Counts, rates: Rates | None) -> str:
        """What comes late, at the start or after a silence, comes fast too, and is not ahead of its time."""
        if rates is None or rates.frames < FAST * self.rate:
            return ""
        if counts.frames / self.rate - (counts.now - self._started) < BUFFERED_S:
            return ""
        return f"the source runs at {rates.frames / self.rate:.3g} times its rate: nothing paces it (a file needs -re)"


def _rate_text(fps: float) -> str:
    """Ten seconds do not tell 29.97 from 30, of which the first is the one that is seen."""
    return next((f"{rate:.4g}" for rate in STANDARD_RATES if abs(rate - fps) < 0.015 * rate), f"{fps:.1f}")
