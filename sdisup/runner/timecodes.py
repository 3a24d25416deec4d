"""Gives the files of a recording their timecodes: by one moment and FFmpeg's count of frames, so that one file goes on
where the other ended, whatever the clock does meanwhile.
"""

from __future__ import annotations

import time

from sdisup.contract.timecode import CLOCK, DAY_S, SOURCE, Counting, counting
from sdisup.runner.stamp import Stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sdisup.contract.options import Options
    from sdisup.runner.attempt import Attempt, File
    from sdisup.runner.memory import Memory


def second_of_day(now: float) -> float:
    """The time of day as this machine's clock on the wall has it, which is local time: so broadcasters use it."""
    local = time.localtime(now)
    return (local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec + now % 1) % DAY_S


def first_number(timecode: str, numbers: Counting, fps: float, wall: float, elapsed_s: float) -> int:
    """The number, counted from midnight, of the first frame of FFmpeg's run; that of its n-th frame is n more.

    With the clock it is what the clock shows when the frame comes (`wall`), after a crash too: a crash makes a gap, and
    the clock tells how long it was. Where the operator named the take's first number, the take's time counts on through
    a crash: `elapsed_s` since its first frame, by CLOCK_MONOTONIC, so that a gap of ten seconds is one in the timecode.
    Raises ValueError where the operator's is no number.
    """
    if timecode == CLOCK:
        return numbers.at_clock(second_of_day(wall))
    return numbers.frame(timecode) + round(elapsed_s * fps)


class Timecodes:
    """The timecodes of a runner's attempts. `memory` keeps when the take's first frame came. `say` gets what the first
    frame's is, since FFmpeg logs that it is 00:00:00:00, and `remark` why there is none."""

    def __init__(
        self,
        options: Options,
        memory: Memory,
        wall: Callable[[], float],
        now: Callable[[], float],
        say: Callable[[str], None],
        remark: Callable[[str], None],
    ) -> None:
        self._timecode = options.timecode
        self._memory = memory
        self._wall, self._now, self._say, self._remark = wall, now, say, remark
        self._attempt: Attempt | None = None
        self._is_settled = False
        self._first = 0
        self._take_began_at = memory.first_frame_at

    def give(self, attempt: Attempt, now: float) -> bool:
        """Give each of the attempt's files its timecode; returns whether it is certain. At first it is that of an
        estimate, since a kill may come at any time; when the first frame came is known after some seconds (meter.py).
        """
        fps = attempt.meter.rate
        numbers = counting(fps)
        if not self._timecode or numbers is None:
            return True
        if self._timecode == SOURCE:
            self._give_source(attempt, numbers)
            return True
        if attempt is not self._attempt:
            self._attempt, self._is_settled = attempt, False
        if not (attempt.meter.frames or attempt.meter.first_media_at):
            return False
        if not self._is_settled:
            try:
                self._settle(attempt, numbers, fps, now)
            except ValueError as error:
                self._remark(f"{error}: no timecode is recorded")
                self._timecode = ""
                return True
        self._stamp(attempt, attempt.files, numbers)
        return self._is_settled

    def _stamp(self, attempt: Attempt, files: list[File], numbers: Counting) -> None:
        for file in files:
            stamp = file.thread.timecode
            if file.first_frame is not None and (stamp is None or stamp.run_frame != self._first + file.first_frame):
                file.thread.set_timecode(Stamp(attempt.options.container, numbers, self._first + file.first_frame))

    def _give_source(self, attempt: Attempt, numbers: Counting) -> None:
        """FFmpeg gives each file the source's timecode of the first one, where that has one."""
        text = attempt.streams.timecode
        if ";" not in text:
            numbers = Counting(numbers.base, 0)
        try:
            self._first = numbers.frame(text) if text else 0
        except ValueError as error:
            self._remark(f"the source's timecode: {error}")
            self._timecode = ""
            return
        self._stamp(attempt, [file for file in attempt.files if text and file.index], numbers)

    def _settle(self, attempt: Attempt, numbers: Counting, fps: float, now: float) -> None:
        self._is_settled = attempt.meter.first_media_at is not None and not attempt.meter.is_beginning(now)
        first_at = attempt.meter.first_frame_at(now)
        began_at = first_at if self._take_began_at is None else self._take_began_at
        wall = self._wall() - (self._now() - first_at)
        self._first = first_number(self._timecode, numbers, fps, wall, max(0.0, first_at - began_at))
        is_kept = self._timecode == CLOCK or self._take_began_at is not None
        if not is_kept and (self._is_settled or self._memory.first_frame_at is None):
            self._memory.first_frame_at = first_at
            self._memory.save()
        if self._is_settled:
            self._take_began_at = began_at
            self._say(f"the first frame's timecode is {numbers.text(self._first)}")
