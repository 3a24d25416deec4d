"""What FFmpeg logs of its streams: opening, sizes, rates, sound, and timestamps that it does not believe. Pure.

Times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

from sdisup.contract.lean import deque
from sdisup.contract.options import SOUND_MARK
from sdisup.runner.causes import is_format_change, plain
from sdisup.runner.command import is_copied, is_whole_aac, sound_input
from sdisup.runner.decide import NO_SOUND_S
from sdisup.runner.meter import Meter
from sdisup.runner.programmes import LINES_KEPT, Choice, asked_by, choose
from sdisup.runner.progress import (
    changed_size,
    cut_channels,
    found_rate,
    found_size,
    found_sound,
    is_behind,
    is_of_picture,
    is_sound_mapping,
    is_sound_unknown,
    is_wild,
    muxer_version,
    picture_stream,
    wild_stream,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

WILD_IN_A_ROW, WILD_S = 3, 1.0
"""So many timestamps that FFmpeg does not believe, within this time, are a jump; fewer are outliers."""
BACK_IN_A_ROW, BACK_S = 20, 2.0
"""So many pictures of a copy whose timestamps are behind, within this time, are a step back; fewer are a sender's."""


class Streams:
    """What one FFmpeg has logged of its streams. `command` is its command line."""

    def __init__(self, command: Sequence[str]) -> None:
        self._asked = asked_by(command)
        self.has_sound_input = sound_input(command) > 0
        """Whether the sound has an input of its own."""
        self.ffmpeg_version = self.timecode = ""
        self.choice = Choice()
        self.opened_at: float | None = None
        """When FFmpeg had opened the picture's input."""
        self.are_open = False
        """Whether FFmpeg has opened all its inputs."""
        self.sound_awaited_at: float | None = None
        self.sound_at: float | None = None
        """Since when sound is awaited, and when it came last; None also where nothing tells of it."""
        self.has_sound_jumped = False
        """Whether FFmpeg no longer believes the sound's timestamps."""
        self.cropped = ""
        """Which part of the picture is not recorded, in the operator's words; "" if all of it is."""
        self.cut_channels = 0
        """How many channels the sound has, where AAC would cut one of them off; 0 where it does not."""
        self._is_whole_aac = is_whole_aac(command)
        self._layouts: dict[str, str] = {}
        self._maps_sound = any(
            option == "-map" and ":a:" in command[index + 1] for index, option in enumerate(command[:-1])
        )
        # The command lines in the units of an older apply have no watch on the sound.
        self._is_watched = any(SOUND_MARK in word for word in command)
        self._is_sound_unknown = False
        self._is_sound_copied = is_copied(command, "-c:a")
        self._is_output = False
        self._opening: deque[str] = deque(maxlen=LINES_KEPT)
        self._input_sizes: list[str] = []
        self._size = self._new_size = ""
        self._format_change = ""
        self._picture = ""
        self._wild: deque[float] = deque(maxlen=WILD_IN_A_ROW)
        self._back: deque[float] = deque(maxlen=BACK_IN_A_ROW)

    @property
    def has_choice(self) -> bool:
        """Whether the command line chooses a programme, or the picture itself."""
        return self._asked.is_choice

    @property
    def is_half_open(self) -> bool:
        """Whether FFmpeg has opened the picture's input, and not yet the input of the sound."""
        return self.opened_at is not None and not self.are_open and self.has_sound_input

    @property
    def is_silent_copy(self) -> bool:
        """Whether nothing of a sound came that is to be copied: FFmpeg makes no file with it."""
        return self._is_sound_copied and self._is_sound_unknown

    @property
    def new_size(self) -> str:
        """The picture's size now, where it is not the file's; "" where it is."""
        # A few lines or columns less are no new size: they are cut off for the encoder (encode/command.py).
        return self._new_size if self._size and not _is_about(self._new_size or self._size, self._size) else ""

    @property
    def scaling(self) -> str:
        """The picture's size and the file's, for people, where FFmpeg scales the picture; "" where it does not."""
        return f"{self.new_size} instead of {self._size}" if self.new_size else ""

    @property
    def format_change(self) -> str:
        """How the picture's format has changed, in FFmpeg's words or as two sizes; "" if it has not."""
        return self._format_change or self.scaling

    def soundless_s(self, now: float) -> float | None:
        """Seconds since the last sound, or since FFmpeg had opened its inputs; None where nothing tells of sound."""
        since = self.sound_awaited_at if self.sound_at is None else self.sound_at
        return None if since is None else now - since

    def take(self, now: float, text: str, meter: Meter) -> bool:
        """Take in a line. The meter is told of a rate and of a jump. Returns whether the line is one for people."""
        if text == f"{SOUND_MARK}.000000":
            self.sound_at = now
            return False
        self._take_opening(now, text)
        self._take_stream(text, meter)
        if is_wild(text):
            self._take_wild(now, text, meter)
            return False
        if is_behind(text):
            self._take_behind(now, text, meter)
            return False
        self.ffmpeg_version = self.ffmpeg_version or muxer_version(text)
        self._new_size = changed_size(text) or self._new_size
        if is_format_change(text) and not self._format_change:
            self._format_change = plain(text)
        return True

    def _take_opening(self, now: float, text: str) -> None:
        """Note what FFmpeg logs on its inputs as it opens one after the other."""
        if self._is_whole_aac and is_sound_mapping(text):
            self.cut_channels = cut_channels(self._layouts.get(text.split()[1].removeprefix("#"), ""))
        if self.opened_at is not None and not self.are_open:
            self._opening.append(text)
        if text.startswith("Input #0, "):
            self.opened_at = now
        elif not self._picture and picture_stream(text):
            self._picture = picture_stream(text)
        elif text == "Stream mapping:":
            self.are_open = True
            self.choice = choose(
                self._opening, with_sound=self._maps_sound and not self.has_sound_input, asked=self._asked
            )
        elif found_sound(text)[0] and not self._is_output:
            stream, layout = found_sound(text)
            self._layouts[stream] = layout
        elif is_sound_unknown(text):
            self._is_sound_unknown = True
        elif self.sound_awaited_at is None and self._is_watched and is_sound_mapping(text):
            # Where FFmpeg found no sound while it analysed the input, most of the time for it is over.
            self.sound_awaited_at = now - (NO_SOUND_S - 0.5 if self._is_sound_unknown else 0.0)

    def _take_stream(self, text: str, meter: Meter) -> None:
        """Note what FFmpeg logs on the streams of its inputs, and then of its output."""
        self._is_output = self._is_output or text.startswith("Output #")
        size = found_size(text)
        if not self._is_output:
            self._input_sizes += [size] if size else []
            return
        key, _, value = text.partition(":")
        if key.strip() == "timecode" and not self.timecode:
            self.timecode = value.strip()
        # FFmpeg keeps the rate and the size of its output; the rate is used where the configuration states none.
        if not meter.rate:
            meter.find_rate(found_rate(text))
        if size and not self._size:
            self._size = size
            # Less than 4 columns or lines are cut off for the encoder (encode/command.py).
            before = next((other for other in self._input_sizes if _is_about(other, size)), size)
            is_whole = size in (before, *self._input_sizes)
            self.cropped = "" if is_whole else f"{before} is recorded as {size}, which its codec takes"

    def _take_wild(self, now: float, text: str, meter: Meter) -> None:
        """Count timestamps that FFmpeg does not believe. One of them costs nothing (-dts_error_threshold); after a jump
        FFmpeg believes none. Their lines do not go to the journal, since there are two for each picture."""
        if text.startswith("PTS "):
            return
        stream = wild_stream(text)
        is_others = self._picture not in ("", stream)
        if stream and (is_others or self.has_sound_input):
            # An input of the sound alone counts its streams from 0 too: then nobody knows whose the line is.
            # This is the sound: a new file would cost pictures. Sound that comes back after a while jumps too.
            self.has_sound_jumped = True
            return
        if meter.pace.is_copied and not meter.frames:
            # FFmpeg gives such packets the time that it expects, and a new start would meet the same.
            return
        self._wild.append(now)
        within_s = max(WILD_S, WILD_IN_A_ROW / (meter.rate or WILD_IN_A_ROW))
        if len(self._wild) == WILD_IN_A_ROW and now - self._wild[0] < within_s:
            meter.pace.jumped(now, "by more than 10 s" if meter.frames else "between picture and sound")

    def _take_behind(self, now: float, text: str, meter: Meter) -> None:
        """Count pictures of a copy that FFmpeg writes at the time of the one before, since theirs is earlier: after a
        step back all are, until they have caught up. There is a line for each."""
        if not is_of_picture(text):
            return
        self._back.append(now)
        within_s = max(BACK_S, 1.5 * BACK_IN_A_ROW / (meter.rate or BACK_IN_A_ROW))
        if len(self._back) == BACK_IN_A_ROW and now - self._back[0] < within_s:
            meter.pace.jumped(now, "back; FFmpeg gives all pictures one time until they have caught up")


def _is_about(size: str, other: str) -> bool:
    """Whether two sizes such as `640x360` differ by less than 4 in width and in height."""
    pairs = zip(size.split("x"), other.split("x"), strict=True)
    return all(abs(int(one) - int(two)) < 4 for one, two in pairs)
