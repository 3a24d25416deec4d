"""When the runner's loop may rest: while a recording is plainly well and FFmpeg only counts on. Pure.

A turn costs ten times what it computes, since FFmpeg's threads have taken the processor's caches; merely to wake costs
half a turn. So progress blocks wait in their socket, which knows when each came (ffmpeg.py), for a turn that comes when
the status is due, or when no frame would have come for too long. All else has its turn at once, and so has what comes
in a recording that is not plainly well.
"""

from __future__ import annotations

from sdisup.contract.options import SOUND_MARK
from sdisup.runner.decide import NO_FRAME_S, NO_GROWTH_S, RUNNING, SOUND_STOPPED_S, Situation
from sdisup.runner.pace import BLOCK_S

REST_S = 1.5
"""The time from one turn to the next, but for half of BLOCK_S: a mark's wake-up is the turn's too. What is said of a
port is at most 2 s old."""
LONGEST_S = REST_S + BLOCK_S / 2
MARK = f"[info] {SOUND_MARK}.000000\n".encode()


def may_rest(situation: Situation) -> bool:
    """Whether a recording is plainly well: no limit of decide.py can be reached before the rest's end, but that for a
    frame, at which the rest ends."""
    sight = situation.sight
    if sight is None or situation.phase != RUNNING or situation.no_signal_since is not None:
        return False
    if situation.is_stopping or situation.terminated or situation.is_ending or sight.recording_s is None:
        return False
    if sight.pace or sight.jump or sight.format_change or sight.is_deleted or sight.is_misplaced:
        return False
    if sight.programme or sight.cut_channels:
        return False
    is_heard = sight.soundless_s is None or (sight.has_sounded and sight.soundless_s < SOUND_STOPPED_S - 2 * REST_S)
    looked_s = max(sight.growthless_s, sight.look_s)
    return is_heard and sight.frameless_s < NO_FRAME_S - BLOCK_S and looked_s < NO_GROWTH_S - 2 * REST_S


class Marks:
    """Tells in which pieces of its log FFmpeg only says that sound comes on."""

    def __init__(self) -> None:
        self._begun = b""
        """The beginning of a mark: FFmpeg writes it in two pieces."""

    @property
    def is_amid(self) -> bool:
        """Whether the rest of a mark is to come within moments."""
        return bool(self._begun)

    def are_all(self, data: bytes) -> bool:
        """Whether a piece is nothing but marks, or a part of one."""
        data, self._begun = self._begun + data, b""
        rest = data.replace(MARK, b"")
        if data and MARK.startswith(rest) and data.endswith(rest):
            self._begun = rest
            return True
        return False
