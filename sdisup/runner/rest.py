"""Which wake-ups of the runner's loop need no turn: while a recording is plainly well and FFmpeg only counts on. Pure.

A turn costs ten times what it computes, since FFmpeg's threads have taken the processor's caches. So a progress block
that says nothing but more frames is kept, with the times at which it came, for a turn that comes once a second. All
else has its turn at once, and so has what comes in a recording that is not plainly well.
"""

from __future__ import annotations

from sdisup.contract.options import SOUND_MARK
from sdisup.runner.decide import NO_FRAME_S, NO_GROWTH_S, RUNNING, SOUND_STOPPED_S, Situation
from sdisup.runner.pace import BLOCK_S
from sdisup.runner.progress import NUMBERS, is_whole

REST_S = 1.0
"""The time from one turn to the next at the longest, but for half of BLOCK_S: a block's wake-up is the turn's too."""
MARK = f"[info] {SOUND_MARK}.000000\n".encode()


def may_rest(situation: Situation) -> bool:
    """Whether a recording is plainly well: no limit of decide.py can be reached before the rest's end."""
    sight = situation.sight
    if sight is None or situation.phase != RUNNING or situation.no_signal_since is not None:
        return False
    if situation.is_stopping or situation.terminated or situation.is_ending or sight.recording_s is None:
        return False
    if sight.pace or sight.jump or sight.format_change or sight.programme or sight.is_deleted or sight.is_misplaced:
        return False
    is_heard = sight.soundless_s is None or (sight.has_sounded and sight.soundless_s < SOUND_STOPPED_S - 2 * REST_S)
    looked_s = max(sight.growthless_s, sight.look_s)
    return is_heard and sight.frameless_s < NO_FRAME_S - REST_S - BLOCK_S and looked_s < NO_GROWTH_S - 2 * REST_S


class Counting:
    """Tells in which pieces of its stderr FFmpeg only counts on."""

    def __init__(self) -> None:
        self._shape = self._losses = b""
        """Of the last piece, where that was a whole block; the lines on copies and drops."""
        self._frames = -1
        self._begun = b""
        """The beginning of a mark: FFmpeg writes it in two pieces."""
        self.is_amid = False
        """Whether the rest of a mark is to come within moments."""

    def goes_on(self, data: bytes) -> bool:
        """Whether a piece is a whole progress block with more frames than the one before it and as many copies and
        drops, or a mark of the sound, or both."""
        if self._begun or data.startswith(b"["):
            data, self._begun = self._begun + data, b""
            if MARK.startswith(data):
                self._begun = data if data != MARK else b""
                self.is_amid = data != MARK
                return True
            self.is_amid = False
            data = data.removeprefix(MARK)
        elif data.endswith(MARK):
            data = data[: -len(MARK)]
        shape, frames, losses = data.translate(None, NUMBERS), self._frames, self._losses
        if shape != self._shape:
            # Another FFmpeg's block has other lines; the next one is compared with it.
            self._shape = shape if is_whole(data) else b""
        counted = data[len(b"frame=") : data.find(b"\n")]
        self._frames = int(counted) if self._shape and counted.isdigit() else -1
        self._losses = data[data.find(b"\ndup_frames=") : data.find(b"\nspeed=")]
        return 0 <= frames < self._frames and losses == self._losses
