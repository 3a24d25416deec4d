"""A recording in several files, one after the other, which FFmpeg's segment muxer writes without losing a frame.

The muxer opens each file by a name with a number in it. It gets the runner's own descriptors as names: those of files
that disk.py has made, by every rule that holds for the first one (tried on FFmpeg 5.1 and 7.1). So FFmpeg opens nothing
that somebody else put there, and overwrites nothing; where the next file is not ready, it fails.
"""

from __future__ import annotations

import os

from sdisup.contract.records import Record
from sdisup.runner import ffmpeg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.runner.meter import Meter

AHEAD = 2
"""So many files are ready: a runner that stands still must not end a recording in short pieces."""


def opened(text: str) -> int | None:
    """The descriptor in the line that FFmpeg logs before it opens a file; None for any other line.

    `[segment @ 0x5555] Opening '/proc/4711/fd/101' for writing`
    """
    context, separator, name = text.partition(f"] Opening '/proc/{os.getpid()}/fd/")
    number = name.removesuffix("' for writing")
    return _descriptor(number) if separator and context.startswith("[segment @ ") else None


def _descriptor(name: str) -> int | None:
    """The descriptor of a file of FFmpeg's; None for any other text."""
    number = int(name) if name.isascii() and name.isdecimal() and len(name) < 5 else -1
    return number if 0 <= number - ffmpeg.FIRST < ffmpeg.FILES else None


def is_list(text: str) -> bool:
    """Whether FFmpeg logs that it will tell of closed files in its log."""
    return text.startswith("[segment @ ") and text.endswith("] Opening 'pipe:2' for writing")


class Closing(Record):
    """FFmpeg closes a file: `descriptor` was its name, `end_s` is when the next one begins, in its pictures' time,
    which begins with FFmpeg's first picture.

    It says so also where it could not write the file's end, and then opens no other one (libavformat/segment.c).
    """

    descriptor: int
    end_s: float


def closed(text: str) -> Closing | None:
    """What FFmpeg's list of closed files says (-segment_list_type csv); None for any other line.

    `101,2.000000,4.000000`. FFmpeg writes a line of its log in several pieces, and this line may come between two.
    """
    name, *times = (text.rpartition("] ")[2] if text.startswith("[") else text).split(",")
    descriptor = _descriptor(name)
    if descriptor is None or len(times) != 2:
        return None
    for time in times:
        whole, point, rest = time.partition(".")
        if not (point and len(rest) == 6 and whole.isdecimal() and rest.isdecimal() and time.isascii()):
            return None
    return Closing(descriptor, float(times[1]))


class Losses(Record):
    """What FFmpeg's run has lost so far, and its copies."""

    duplicated: int = 0
    dropped: int = 0
    missing: int = 0
    repeated: int = 0


class Account:
    """Gives each file of FFmpeg's run its part of what FFmpeg counts from its start to its end."""

    def __init__(self) -> None:
        self._entered = Losses()

    def part(self, meter: Meter) -> Losses:
        """What was lost since the last file's end."""
        pace, entered = meter.pace, self._entered
        counts = (meter.dup_frames, meter.drop_frames, pace.short, pace.repeated)
        # A count can fall: of copies, when it turns out that they fill a hole.
        return Losses(*(max(0, count - before) for count, before in zip(counts, _values(entered), strict=True)))

    def enter(self, part: Losses) -> None:
        """A file's part is entered."""
        self._entered = Losses(*(one + other for one, other in zip(_values(self._entered), _values(part), strict=True)))


def _values(losses: Losses) -> tuple[int, int, int, int]:
    return losses.duplicated, losses.dropped, losses.missing, losses.repeated
