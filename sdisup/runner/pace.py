"""Compares what a source delivers with the clock: how many pictures are missing, since when, and why. Pure.

FFmpeg keeps a constant frame rate by copies (FACTS 7): a frame is a picture only if it is no copy. This module tells
three things apart. A *hole* is a time without pictures, whether FFmpeg filled it with copies or not. Copies outside the
holes stand for pictures that were lost one by one. And where fewer frames came than the clock asks for, the file lacks
time. `raw` is CLOCK_MONOTONIC_RAW, which NTP does not slew (FACTS 7): counts are compared with it. `now` is
CLOCK_MONOTONIC. Both are in seconds.
"""

from __future__ import annotations

import math

from sdisup.contract.lean import deque
from sdisup.contract.records import Record
from sdisup.ledger.spool import CANNOT_KEEP_UP, SOURCE_LOSES

STEP_S = 10.0
DRIFT = 0.0002
"""The share of a step's frames that may be missing: twice the 100 ppm by which two clocks may differ."""
HOLE_S, LEAST_HOLE_S, SETTLE_S = 1.2, 0.4, 3.0
"""A hole is longer than HOLE_S, at least LEAST_HOLE_S of it is lost, and late pictures may fill it within SETTLE_S."""
COPIES_LATE_S = 1.0
"""FFmpeg may count the copies that fill a hole some progress blocks after the picture that ends the hole."""
BLOCK_S = 0.25
"""FFmpeg's -stats_period (encode/command.py)."""
SHORT_WINDOW_S, LONG_WINDOW_S = 10.0, 60.0
SHORT_SHARE, LONG_SHARE = 0.1, 0.01
"""The threshold for all remarks: 10 % of the frames over 10 s, or 1 % over a minute."""
SPAN = 0.92
"""The share of a window that has to pass before it is judged, so that a constant loss is remarked within 10 s."""
AHEAD_S = 2.0
"""How much longer than the time of its recording a file may get by copies. By more, its timestamps have jumped."""
BEHIND_S = 1.2
"""How long FFmpeg may drop picture after picture. Beyond it, the timestamps have jumped back."""
FAST_WINDOW_S, FAST, FAST_COPIED, BUFFERED_S = 3.0, 1.5, 4.0, 40.0
"""A source is not paced if it delivers FAST times its rate for FAST_WINDOW_S and is ahead of the clock by more than
BUFFERED_S, a stream's buffer: HLS begins three segments back, mostly of 10 s. Of pictures that are copied each of two
fields may count."""
SPARSE = 3
"""A source of a rate that nobody stated has a hole where no picture comes for so many times its own interval, once it
has sent so many."""
JUMP_S = 5.0
"""How long after a jump a new file may still be begun for it."""

SIGNAL_LOST, SOURCE_SILENT, JUMPED = "signal lost", "source silent", "timestamps jumped"
DELIVERS = "the source delivers "

BURST_LIMIT_S, BURST_GAIN_S = 5.0, 0.1
"""At its start FFmpeg writes what it buffered while it looked at the input (5.1: 5 s of it) faster than the clock, over
several blocks. Each block of this burst gains BURST_GAIN_S on the clock; it is over BURST_LIMIT_S later, or before."""

STANDARD_RATES = (24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 60.0)


def exact_rate(value: float) -> float:
    """The rate that FFmpeg prints as `value`, 23.98 for 24000/1001."""
    return next((rate for rate in STANDARD_RATES if abs(rate - value) < 0.006), value)


class Hole(Record):
    """A time without pictures, by CLOCK_MONOTONIC: `frames` are missing, `filled` of them have copies instead."""

    start: float
    end: float
    frames: int
    filled: int
    cause: str


class Deficit:
    """Counts the frames that should have come by the clock and did not.

    It compares frames with time, in steps of at least STEP_S between progress blocks. Frames that a step owes at its
    end may come late, all at once; so only the least that was owed during a whole step counts for good. A card's clock
    may differ from the system's by 100 ppm for months; so each step may owe a little (DRIFT; DESIGN.md, Ledger).
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._owed = self._least = 0.0
        self._missing = 0
        self._at: float | None = None
        self._frames = 0
        self.frames = 0
        """How many frames are missing so far. Those that the last step owes may still come."""

    def add(self, raw: float, frames: int) -> None:
        if not self._rate:
            return
        if self._at is None:
            self._at, self._frames = raw, frames
        self._least = min(self._least, self._owed_at(self._at, raw, frames))
        if raw - self._at >= STEP_S:
            self._step(self._at, raw, frames)

    def finish(self, raw: float, frames: int) -> None:
        """End the count: the last step counts, however short it is."""
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
    """Counts at a moment, as they would be without holes: frames, the pictures among them, and drops."""

    raw: float
    frames: float
    pictures: float
    drops: int


class Rates(Record):
    """Averages per second since a moment of CLOCK_MONOTONIC_RAW: frames, the pictures among them, and drops."""

    since: float
    frames: float
    pictures: float
    drops: float


class Window:
    """About fifty points of the last `seconds`."""

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
        """The rates from the window's beginning to `last`; None while less than SPAN of the window has passed."""
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
    """A hole that is over, from `before` to `after`, with `copies` in it. Pictures that come late reduce `lost`."""

    before: Counts
    after: Counts
    copies: int
    lost: float


class Pace:
    """Compares the pictures of one FFmpeg with the clock. `rate` is in frames a second; with 0 nothing is compared.

    `is_stated` is whether the configuration states the source's rate. Otherwise the source may change it, and copies
    are no loss. `silent` is the cause of a hole without dropped pictures, `started` is when FFmpeg was started.
    `is_copied`: the pictures are recorded as the source encoded them, with its timestamps. Then FFmpeg fills nothing:
    frames that are missing are the source's, and a rate that nobody stated may vary.
    """

    def __init__(
        self, rate: float, silent: str, started: float = 0.0, *, is_stated: bool = True, is_copied: bool = False
    ) -> None:
        self._started = started
        self.rate = rate
        self.is_stated, self.is_copied = is_stated, is_copied
        self.holes: list[Hole] = []
        """The holes of which the ledger was not told yet."""
        self._silent = silent
        self._until = math.inf
        self._deficit = Deficit(rate)
        self._lost = self._filled = 0
        self._silent_lost, self._silent_filled = 0.0, 0
        """The part of `_lost` and `_filled` in holes whose cause is `silent`."""
        self._begun: Counts | None = None
        self._paced: Counts | None = None
        """The counts from which on a source that is copied keeps its rate."""
        self.is_in_first_burst = bool(rate)
        """Whether FFmpeg may still write what it buffered at its start, so that the first picture's time is unknown."""
        self._last = self._framed = self._pictured = Counts(0.0, 0.0, 0, 0, 0)
        """The counts of the last block, of the last block with new frames, and of the last block with a new picture."""
        self._pending: Pending | None = None
        self._hole_end = 0.0
        self._owed_until = 0.0
        self._ahead, self._surplus = 0.0, 0
        """How many copies are beyond the rate: those that missing frames may still offset, and those that remain."""
        self._jump, self._jump_until = "", -1.0
        self.is_starved = False
        """Whether FFmpeg gets too little processor time to read all pictures: then the source does not lose them."""
        self._loses_pictures = False
        self._remark = ""
        self._noted: tuple[Counts, Point] | None = None
        """The last point, where nobody has judged it yet."""
        self._short, self._long, self._fast = Window(SHORT_WINDOW_S), Window(LONG_WINDOW_S), Window(FAST_WINDOW_S)

    # What is counted.

    @property
    def short(self) -> int:
        """How many frames the file lacks outside its holes, by the clock."""
        return self._deficit.frames if self.is_stated or not self.is_copied else 0

    @property
    def repeated(self) -> int:
        """How many copies stand for pictures that were lost one by one; 0 where nobody states the source's rate."""
        return max(0, self._last.copies - self._filled - self._surplus) if self.is_stated else 0

    @property
    def repeated_cause(self) -> str:
        """Why copies stand for pictures, or why pictures are missing where FFmpeg makes no copies. Where FFmpeg also
        dropped pictures, those had come, with wrong timestamps."""
        if self.is_starved:
            return CANNOT_KEEP_UP
        return JUMPED if 2 * self._last.drops > self.repeated else SOURCE_LOSES

    @property
    def is_settling(self) -> bool:
        """Whether it is not known yet what a hole lacks, so that its copies still count as repeated."""
        return self._pending is not None

    @property
    def missing(self) -> int:
        """How many pictures are missing in all."""
        return self.short + self.repeated + self._lost

    @property
    def remark(self) -> str:
        """What an operator should know of the rate, by the last ten seconds and the last minute; "" if all is well."""
        if self._noted is not None:
            self._judge_all(*self._noted)
        return self._remark

    @property
    def loses_pictures(self) -> bool:
        """Whether copies now stand for lost pictures: the source lost them, or FFmpeg did not read them in time."""
        return bool(self.remark) and self._loses_pictures

    def add(self, now: float, raw: float, frames: int, copies: int, drops: int) -> None:
        """Add a progress block: frames written, the copies among them, and pictures dropped.

        FFmpeg may count a copy a block before it writes the copy.
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
        if self.is_in_first_burst:
            self._watch_first_burst(counts)
        if counts.frames > self._framed.frames:
            ahead = max(0, int(self._ahead))
            self._watch_copies(counts)
            if counts.pictures > self._pictured.pictures:
                if counts.raw - self._pictured.raw > self._hole_s():
                    self._end_hole(counts, ahead)
                self._pictured = counts
            self._framed = counts
            # Only with new frames: blocks go on while no frame comes, and that time counts in the gap that follows.
            self._deficit.add(counts.raw, counts.frames + self._unfilled())
            self._note(counts)

    def _hole_s(self) -> float:
        """From when on a time without pictures is a hole."""
        if not self.is_copied or self.is_stated or self._begun is None:
            return HOLE_S
        seen = self._pictured.pictures - self._begun.pictures
        interval_s = (self._pictured.raw - self._begun.raw) / seen if seen >= SPARSE else math.inf
        return max(HOLE_S, SPARSE * interval_s)

    def stop(self, raw: float) -> None:
        """Note that FFmpeg is told to end: what it writes from now on came before this moment."""
        self._until = min(self._until, raw)

    def finish(self) -> None:
        """End the counts, since FFmpeg has ended. Time without frames at its end belongs to the gap that follows."""
        self._settle(self._last, at_once=True)
        # Copies that are still beyond the rate stand for no missing picture.
        if self._ahead > self.rate * LEAST_HOLE_S:
            self._surplus, self._ahead = self._surplus + math.ceil(self._ahead), 0.0
        self._deficit.finish(self._framed.raw, self._framed.frames + self._unfilled())

    def _begin(self, counts: Counts) -> None:
        self._begun = self._framed = self._pictured = counts
        # FFmpeg makes some copies with its first picture, which stand for no lost picture.
        self._filled = min(counts.copies, int(self.rate * LEAST_HOLE_S))
        self._deficit.add(counts.raw, counts.frames - self._filled)
        self._note(counts)

    def _watch_first_burst(self, counts: Counts) -> None:
        """Count from the end of the burst: what was buffered before must not offset what is missing later."""
        pictures, seconds = counts.pictures - self._framed.pictures, counts.raw - self._framed.raw
        lasts_s = counts.raw - self._begun.raw if self._begun else 0.0
        if lasts_s > BURST_LIMIT_S or 0 < pictures < self.rate * (seconds + BURST_GAIN_S):
            self.is_in_first_burst = False
            self._paced = counts
        elif pictures:
            self._deficit = Deficit(self.rate)
            self._short, self._long, self._noted = Window(SHORT_WINDOW_S), Window(LONG_WINDOW_S), None

    # Timestamps.

    def jump(self, now: float) -> str:
        """How the timestamps jumped in the last JUMP_S seconds, in words; "" if they did not."""
        return self._jump if now <= self._jump_until else ""

    def jumped(self, now: float, text: str) -> None:
        """Note that the timestamps have jumped, so that a new file would record more than this one."""
        self._jump, self._jump_until = text, now + JUMP_S

    def _watch_copies(self, counts: Counts) -> None:
        """Count copies beyond the rate: timestamps went ahead. Frames that are missing later reduce the count."""
        if counts.raw > self._owed_until:
            self._ahead = max(0.0, self._ahead)
        ahead = counts.frames - self._framed.frames - self.rate * (counts.raw - self._framed.raw)
        self._ahead += min(float(counts.copies - self._framed.copies), ahead)
        if self._ahead > 0:
            # A source's clock may be a little faster than this one's for months.
            self._ahead = max(0.0, self._ahead - self.rate * DRIFT * (counts.raw - self._framed.raw))
        if ahead < -self.rate * LEAST_HOLE_S:
            self._owed_until = counts.raw + COPIES_LATE_S
        if self._ahead > AHEAD_S * self.rate:
            self.jumped(counts.now, f"{self._ahead / self.rate:.0f} s ahead, which FFmpeg filled with copies")
            self._surplus += math.ceil(self._ahead)
            self._ahead = 0.0

    def _watch_drops(self, counts: Counts) -> None:
        """Notice timestamps that jumped back: FFmpeg drops picture after picture."""
        dropped, seconds = counts.drops - self._pictured.drops, counts.raw - self._pictured.raw
        if seconds > BEHIND_S and dropped > self.rate * seconds / 2:
            self.jumped(counts.now, f"back; FFmpeg drops the pictures until they have caught up ({dropped} so far)")

    # Holes.

    def _end_hole(self, counts: Counts, ahead: int) -> None:
        """Begin to settle a hole, since pictures came again. What they do not make up for within SETTLE_S is lost."""
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
        # Copies measure the hole better than the times of blocks, which come late or early.
        frames = max(frames, min(hole.copies, int(self.rate * (after.raw - before.raw))))
        filled = max(filled, min(hole.copies, frames))
        self._lost += frames
        self._filled += filled
        cause = self._cause_of(hole)
        if cause == self._silent:
            self._silent_lost += frames
            self._silent_filled += filled
        # The pictures of the block that ends the hole came after the block before it.
        end = after.now - min((after.pictures - before.pictures) / self.rate, BLOCK_S)
        start = max(self._hole_end, end - frames / self.rate)
        self.holes.append(Hole(start, end, frames, filled, cause))
        self._hole_end = end

    def _cause_of(self, hole: Pending) -> str:
        """The cause of a hole. Pictures that FFmpeg dropped had come, with wrong timestamps."""
        return JUMPED if 2 * (hole.after.drops - hole.before.drops) > hole.lost else self._silent

    def _unfilled(self) -> int:
        """How many frames the file lacks in its holes, where no copies fill them."""
        pending = self._pending
        return self._lost - self._filled + (round(pending.lost) - self._filled_of(pending) if pending else 0)

    def _filled_of(self, hole: Pending) -> int:
        return min(round(hole.lost), hole.copies)

    # Remarks.

    def _note(self, counts: Counts) -> None:
        """Add a point to the windows. Silent holes count as filled, since the ledger has them."""
        lost, filled = self._silent_lost, self._silent_filled
        if self._pending is not None and self._cause_of(self._pending) == self._silent:
            lost, filled = lost + self._pending.lost, filled + self._filled_of(self._pending)
        point = Point(counts.raw, counts.frames + lost - filled, counts.pictures + lost, counts.drops)
        for window in (self._short, self._long, self._fast):
            window.add(point)
        self._noted = (counts, point)

    def _judge_all(self, counts: Counts, point: Point) -> None:
        """Judge the windows when somebody wants to know: several blocks may have come since."""
        self._noted, self._loses_pictures = None, False
        self._remark = (
            self._judge(self._short.rates(point), SHORT_SHARE, 2)
            or self._judge(self._long.rates(point), LONG_SHARE, 10)
            or self._judge_speed(counts, self._fast.rates(point))
        )
        if self._remark and self._is_another_rate(self._short.rates(point), self._long.rates(point)):
            self._remark += "; is source.rate right?"

    def _is_another_rate(self, short: Rates | None, long: Rates | None) -> bool:
        """Whether for a minute the source has kept a standard rate that is not the stated one."""
        if short is None or long is None or not self.is_stated:
            return False
        for rate in STANDARD_RATES:
            is_kept = abs(long.pictures + long.drops - rate) < 0.002 * rate
            if is_kept and abs(short.pictures + short.drops - rate) < 0.015 * rate:
                return abs(rate - self.rate) > 0.002 * rate
        return False

    def _judge(self, rates: Rates | None, share: float, steps: int) -> str:
        """The remark on a window; "" if there is none. The rate is shown in steps of 1/`steps` of a frame a second."""
        if rates is None:
            return ""
        least = self.rate * (1 - share)
        if self.is_copied:
            return self._judge_copied(rates, share, steps)
        if rates.frames >= least and rates.pictures >= least and rates.drops <= self.rate * share:
            return ""
        stated, got = f"{self.rate:.4g}", round(steps * rates.pictures) / steps
        if rates.pictures < least and rates.drops > (self.rate - rates.pictures) / 2:
            return f"the timestamps jump: {got:.1f} of {stated} fps are recorded"
        if rates.frames < least:
            return f"{CANNOT_KEEP_UP}: {round(steps * rates.frames) / steps:.1f} of {stated} fps"
        if rates.pictures < least:
            self._loses_pictures = True
            return f"{f'{CANNOT_KEEP_UP}: ' if self.is_starved else DELIVERS}{got:.1f} of {stated} fps"
        if rates.drops > self.rate * share:
            return f"{DELIVERS}{_rate_text(rates.pictures + rates.drops)} fps; {stated} are recorded"
        return ""

    def _judge_copied(self, rates: Rates, share: float, steps: int) -> str:
        """The same where FFmpeg makes no copies and leaves nothing out: all is the source's, if anybody states its
        rate. A network may bring late what it held back, so that more than the rate has to come from the beginning."""
        if not self.is_stated:
            return ""
        if rates.frames < self.rate * (1 - share):
            self._loses_pictures = True
            got = round(steps * rates.frames) / steps
            return f"{f'{CANNOT_KEEP_UP}: ' if self.is_starved else DELIVERS}{got:.1f} of {self.rate:.4g} fps"
        since = self._paced
        most = self.rate * (1 + share)
        if since is None or rates.frames <= most or share != LONG_SHARE:
            return ""
        whole_s = self._last.raw - since.raw
        if whole_s >= SPAN * LONG_WINDOW_S and self._last.frames - since.frames > most * whole_s:
            text = f"{DELIVERS}{_rate_text(rates.frames)} fps"
            return f"{text}; {self.rate:.4g} are stated, by which missing pictures are counted"
        return ""

    def _judge_speed(self, counts: Counts, rates: Rates | None) -> str:
        """The remark on a source that nothing paces. Late pictures come fast too, but not ahead of the clock."""
        if rates is None or rates.frames < (FAST_COPIED if self.is_copied else FAST) * self.rate:
            return ""
        if counts.frames / self.rate - (counts.now - self._started) < BUFFERED_S:
            return ""
        return f"the source runs at {rates.frames / self.rate:.3g} times its rate: nothing paces it (a file needs -re)"


def _rate_text(fps: float) -> str:
    """The standard rate nearest to `fps`. Ten seconds do not tell 29.97 from 30; 29.97 is the one that is in use."""
    return next((f"{rate:.4g}" for rate in STANDARD_RATES if abs(rate - fps) < 0.015 * rate), f"{fps:.1f}")
