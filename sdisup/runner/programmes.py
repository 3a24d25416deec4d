"""Chooses which picture and which sound of an input are recorded, by what FFmpeg logs when it opens the input. Pure.

An MPEG-TS may carry several programmes, and an HLS stream comes in variants, which FFmpeg calls programmes too.
FFmpeg's first picture and first sound may belong to different programmes, and to the worst one. FFmpeg logs
(libavformat/dump.c; 5.1 and 7.1):

    Input #0, hls, from 'm.m3u8':
      Program 0
        Metadata:
          variant_bitrate : 185900
      Stream #0:0: Video: h264 (Constrained Baseline), yuv420p, 160x90 [SAR 1:1 DAR 16:9], 25 fps, 25 tbr, 90k tbn
      Stream #0:1[0x101](deu): Audio: aac (LC), 44100 Hz, mono, fltp
      No Program
"""

from __future__ import annotations

from sdisup.contract.records import Record
from sdisup.runner.progress import found_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LINES_KEPT = 2000


class Programme(Record, frozen=False):
    """One programme or variant: its number, its streams by FFmpeg's numbers, its picture's size and its bit rate."""

    number: str
    pictures: list[int]
    sounds: list[int]
    size: str = ""
    bit_rate: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        width, _, height = self.size.partition("x")
        return (int(width) * int(height) if self.size else 0, self.bit_rate)


class Choice(Record):
    """The best programme: `number` for -map, "" where it has FFmpeg's first streams; `remark` for people."""

    number: str = ""
    remark: str = ""


class Asked(Record):
    """What a command line asks of its first input: a programme by its number, "" for none; which picture and sound."""

    programme: str = ""
    picture: int = 0
    sound: int = 0

    @property
    def is_choice(self) -> bool:
        """Whether there is nothing left to choose. A sound is one of the programme that is chosen."""
        return bool(self.programme or self.picture)


def asked_by(command: Sequence[str]) -> Asked:
    """What a command line asks by -map: `0:v:0`, `0:p:7:a:1?`."""
    values = [command[at + 1].rstrip("?").split(":") for at, word in enumerate(command[:-1]) if word == "-map"]
    of_first = [value for value in values if value[0] == "0" and value[-1].isdecimal()]
    programme = next((value[2] for value in of_first if value[1] == "p"), "")
    picture, sound = (next((int(value[-1]) for value in of_first if kind in value), 0) for kind in "va")
    return Asked(programme, picture, sound)


def choose(lines: Iterable[str], *, with_sound: bool, asked: Asked | None = None) -> Choice:
    """Choose by the log lines of the first input's opening. `with_sound`: the sound is recorded from this input too."""
    asked = asked or Asked()
    everything, found = _read(lines)
    wanted = [one for one in found if one.pictures and (one.sounds or not with_sound)]
    if len(found) > 1 and asked.programme:
        size = next((f", {one.size}" for one in found if one.number == asked.programme and one.size), "")
        return Choice("", f"records programme {asked.programme} of {len(found)}{size}")
    if len(found) > 1 and wanted and not asked.is_choice:
        # Of equal programmes max() gives the first.
        best = max(wanted, key=lambda one: one.rank)
        is_first = best.pictures[:1] == everything.pictures[:1]
        is_first = is_first and (not with_sound or best.sounds[:1] == everything.sounds[:1])
        size = f", {best.size}" if best.size else ""
        return Choice("" if is_first else best.number, f"records programme {best.number} of {len(found)}{size}")
    sounds = everything.sounds if with_sound else []
    others = [("picture", everything.pictures, asked.picture), ("sound", sounds, asked.sound)]
    words = [
        f"{name} {number + 1} of {len(streams)}" if number else f"the first of {len(streams)} {name}s"
        for name, streams, number in others
        if len(streams) > 1
    ]
    return Choice("", f"records {' and '.join(words)}" if words else "")


def _read(lines: Iterable[str]) -> tuple[Programme, list[Programme]]:
    """All streams of the first input as if they were one programme, and its programmes."""
    everything, found = Programme("", [], []), list[Programme]()
    current: Programme | None = None
    for text in lines:
        if text.startswith("Input #1, "):
            break
        if text.startswith("Program "):
            current = Programme(text.split()[1], [], [])
            found.append(current)
        elif text.startswith("No Program"):
            current = None
        elif text.startswith("variant_bitrate") and current and not (current.pictures or current.sounds):
            value = text.partition(":")[2].strip()
            current.bit_rate = int(value) if value.isdecimal() else 0
        elif text.startswith("Stream #0:"):
            for one in (everything, current) if current else (everything,):
                _add(one, text)
    return everything, found


def _add(programme: Programme, text: str) -> None:
    digits = text.removeprefix("Stream #0:")
    number = int("".join(_leading_digits(digits)) or "0")
    streams = programme.pictures if ": Video: " in text else programme.sounds if ": Audio: " in text else None
    # An attached picture (a song's cover) is no moving picture.
    if streams is None or number in streams or "(attached pic)" in text:
        return
    if streams is programme.pictures and not streams:
        programme.size = found_size(text)
    streams.append(number)


def _leading_digits(text: str) -> Iterable[str]:
    for character in text:
        if not character.isdecimal():
            return
        yield character
