"""Reads FFmpeg's stderr, which carries log lines and `-progress` blocks: bytes in, records out.

A sample, with `-loglevel repeat+level+info -nostats -progress pipe:2` (FFmpeg 7.1):

    [libx264 @ 0x55bce0353d40] [info] profile High, level 3.0, 4:2:0, 8-bit
    frame=38
    fps=37.99
    total_size=183866
    dup_frames=0
    drop_frames=0
    speed=1.47x
    progress=continue
    [error] Error writing trailer: No space left on device

Values may be `N/A`; FFmpeg's status line for people ends in a carriage return; some lines carry no level.

FFmpeg writes a whole block at once, from `frame=` to `progress=` (fftools/ffmpeg.c, print_report: one avio_write,
smaller than PIPE_BUF), so that no log line stands inside. A log line that FFmpeg writes in pieces may run into a
block's first line. The same words outside a block come from a server or a title, and are ignored.
"""

from __future__ import annotations

from sdisup.contract.records import Record
from sdisup.runner.pace import exact_rate

LINE_LIMIT_BYTES = 4096
"""The rest of a longer line is dropped, so that a line without an end takes no memory."""

# FFmpeg's av_log levels to syslog's priorities, sd-daemon(3).
PRIORITIES = {
    "panic": 2, "fatal": 2, "error": 3, "warning": 4, "info": 6, "verbose": 7, "debug": 7, "trace": 7,
}  # fmt: skip


class LogLine(Record):
    """A line of FFmpeg's log: `priority` is that of syslog (3 is an error), `text` is without the level."""

    priority: int
    text: str


class Progress(Record):
    """A progress block. Counts are since FFmpeg's start; `frame` and `speed` are None where FFmpeg says N/A."""

    frame: int | None = None
    dup_frames: int = 0
    drop_frames: int = 0
    speed: float | None = None
    ended: bool = False


class ProgressParser:
    """Turns FFmpeg's stderr, cut anywhere, into LogLine and Progress records."""

    def __init__(self) -> None:
        self._pending = b""
        self._block: dict[bytes, bytes] = {}
        self._key = b""
        """The key of the line before, "" if that was no line of a block."""
        self._shape = b""
        """That of a piece which was a whole block: another one of this shape needs no look at each line."""

    def feed(self, data: bytes) -> list[LogLine | Progress]:
        """The records that `data` completes, in order; `data` may be any bytes of any length."""
        shape = b"" if self._pending or self._block else data.translate(None, NUMBERS)
        if shape and shape == self._shape:
            counted = _progress_of(data)
            if counted.frame is not None:
                return [counted]
        elif shape and is_whole(data):
            self._shape = shape
        pieces = data.replace(b"\r", b"\n").split(b"\n")
        pieces[0] = self._pending + pieces[0]
        self._pending = pieces.pop()[:LINE_LIMIT_BYTES]
        records: list[LogLine | Progress] = []
        for piece in pieces:
            record = self._line(piece[:LINE_LIMIT_BYTES].strip())
            if record is not None:
                records.append(record)
        return records

    @property
    def is_between_blocks(self) -> bool:
        """Whether the next byte begins a line, and none of a block that has begun."""
        return not (self._pending or self._block)

    def close(self) -> list[LogLine | Progress]:
        """The record of an unfinished last line, after the stream has ended."""
        return self.feed(b"\n")

    def _line(self, line: bytes) -> LogLine | Progress | None:
        if not line:
            return None
        key, separator, value = line.partition(b"=")
        if separator and key.startswith(b"stream_"):
            return None
        before, self._key = self._key, key if separator and key in _PROGRESS_KEYS else b""
        if not self._key:
            self._block = {}
            return parse_log_line(line)
        if key == b"progress":
            block, self._block, self._key = self._block, {}, b""
            is_whole, ended = b"frame" in block, value.strip() == b"end"
            return _progress(block, ended=ended) if is_whole or (ended and before == b"speed") else None
        if key == b"frame":
            self._block = {}
        if key == b"frame" or self._block:
            self._block[key] = value
        return None


_PROGRESS_KEYS = frozenset(
    b"frame fps bitrate total_size out_time_us out_time_ms out_time dup_frames drop_frames speed progress".split()
)


NUMBERS = b"0123456789. "
"""Without these, two blocks of the same lines are the same: of one shape."""


def is_whole(piece: bytes) -> bool:
    """Whether a piece is one block, and nothing else."""
    lines = piece.split(b"\n")
    keys = [line.partition(b"=")[0] for line in lines[:-1]]
    is_block = keys[:1] == [b"frame"] and lines[-2:] == [b"progress=continue", b""]
    return (
        is_block
        and b"\r" not in piece
        and len({*keys}) == len(keys)
        and lines[0][len(b"frame=") :].isdigit()
        and all(key in _PROGRESS_KEYS or key.startswith(b"stream_") for key in keys)
    )


def _value(block: bytes, key: bytes) -> bytes:
    """The value in a whole block, b"" where it has no such line."""
    found = block.find(key)
    start = found + len(key)
    return block[start : block.index(b"\n", start)] if found >= 0 else b""


def _progress_of(block: bytes) -> Progress:
    """The record of a whole block."""
    return Progress(
        _whole(_value(block, b"frame=")),
        _whole(_value(block, b"dup_frames=")) or 0,
        _whole(_value(block, b"drop_frames=")) or 0,
        _speed(_value(block, b"\nspeed=")),
        False,
    )


def parse_log_line(line: bytes) -> LogLine:
    """Parse a log line. Its level is in the first bracket that names one; others, `[libx264 @ 0x…]`, may precede it."""
    text = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in line.decode("utf-8", "replace").replace("\t", " ")
    )
    start = 0
    while text.startswith("[", start):
        end = text.find("]", start)
        if end < 0:
            break
        priority = PRIORITIES.get(text[start + 1 : end])
        if priority is not None:
            return LogLine(priority, (text[:start] + text[end + 1 :].lstrip()).strip())
        start = end + 2
    return LogLine(PRIORITIES["info"], text)


def muxer_version(text: str) -> str:
    """`Lavf61.7.103` of FFmpeg's log line `encoder         : Lavf61.7.103`; empty for any other line."""
    name, separator, value = text.partition(":")
    value = value.strip()
    return value if separator and name.strip() == "encoder" and value.startswith("Lavf") else ""


def found_rate(text: str) -> float:
    """The frames a second in FFmpeg's log line on a video stream; 0 for any other line.

    `Stream #0:0: Video: h264, yuv420p(progressive), 640x360, q=2-31, 800 kb/s, 23.98 fps, 12800 tbn`
    """
    if not text.startswith("Stream #") or ": Video: " not in text:
        return 0.0
    for part in text.split(", "):
        value, _, unit = part.partition(" ")
        if unit == "fps" and value.isascii() and value.replace(".", "", 1).isdigit():
            return exact_rate(float(value))
    return 0.0


def found_size(text: str) -> str:
    """`640x360` in FFmpeg's log line on a video stream (found_rate has a sample); empty for any other line."""
    if not text.startswith("Stream #") or ": Video: " not in text:
        return ""
    words = (part.partition(" ")[0] for part in text.split(", "))
    return next(filter(_is_size, words), "")


def found_sound(text: str) -> tuple[str, str]:
    """A sound's stream and layout in FFmpeg's log line on it, `0:1` and `5.1(side)`; empty for any other line.

    `Stream #0:1[0x101](deu): Audio: ac3, 48000 Hz, 5.1(side), fltp, 448 kb/s`
    """
    if not text.startswith("Stream #") or ": Audio: " not in text:
        return "", ""
    stream = text.removeprefix("Stream #").partition(": Audio: ")[0]
    parts = text.split(", ")
    rate_at = next((at for at, part in enumerate(parts[:-1]) if part.endswith(" Hz")), -1)
    return _before(stream, "[("), parts[rate_at + 1] if rate_at >= 0 else ""


def _before(text: str, marks: str) -> str:
    for mark in marks:
        text = text.partition(mark)[0]
    return text


def cut_channels(layout: str) -> int:
    """How many channels there are where AAC would take one of them for that of the low frequencies, 0 where it would
    not: `5.1(side)` has six and one of them is that, `6 channels` are taken to be such (libavcodec/aacenc.c)."""
    name = layout.partition("(")[0]
    if name.endswith(" channels"):
        count = _whole(name.partition(" ")[0].encode()) or 0
        return count if count > 5 else 0
    counts = name.split(".")
    is_named = len(counts) > 1 and all(part.isascii() and part.isdecimal() for part in counts)
    return sum(map(int, counts)) if is_named and counts[1] != "0" else 0


def changed_size(text: str) -> str:
    """The size in the line that FFmpeg 7.1 logs at any change of the picture's format; empty for any other line.

    `[vf#0:0 @ 0x5555] Reconfiguring filter graph because video parameters changed to yuv420p(tv, unknown), 320x180`
    """
    size = text.rpartition(", ")[2]
    return size if "because video parameters changed" in text and _is_size(size) else ""


def _is_size(word: str) -> bool:
    width, separator, height = word.partition("x")
    return bool(separator) and width.isdecimal() and height.isdecimal() and word[0] != "0"


def is_wild(text: str) -> bool:
    """Whether a log line says that a timestamp is too far from the one before. FFmpeg ignores such a timestamp of a
    packet, with a line for its dts and one for its pts; and drops a picture that has one.

    `DTS 47610000, next:10000000 st:0 invalid dropping`; `500 frame duplication too large, skipping`
    """
    return "invalid dropping" in text or text.endswith("frame duplication too large, skipping")


def is_behind(text: str) -> bool:
    """Whether a log line says that a packet is written at another time than its own, which is before the last one's.

    `[vost#0:0/copy @ 0x5555] Non-monotonic DTS; previous: 11960, current: 4000; changing to 11960. This may …`
    `[matroska @ 0x5555] Non-monotonous DTS in output stream 0:0; previous: 11960, current: 4000; changing …` (5.1)
    """
    return "] Non-monoton" in text and " DTS" in text


def is_of_picture(text: str) -> bool:
    """Whether a line of is_behind is about the recording's first stream, which is the picture."""
    return text.startswith("[vost#") or " in output stream 0:0; " in text


def wild_stream(text: str) -> str:
    """The stream's number in a line for which is_wild is true; "" where the line names no stream."""
    return next((word.removeprefix("st:") for word in text.split() if word.startswith("st:")), "")


def picture_stream(text: str) -> str:
    """The number of the first input's stream that becomes the picture: `Stream #0:3 -> #0:0 (h264 (native) …`."""
    return text[len("Stream #0:") :].partition(" ")[0] if text.startswith("Stream #0:") and " -> #0:0 (" in text else ""


def is_sound_mapping(text: str) -> bool:
    """Whether a line says which stream is recorded as the sound: `Stream #1:0 -> #0:1 (aac (native) -> …`."""
    return text.startswith("Stream #") and " -> #0:1 (" in text


def is_sound_unknown(text: str) -> bool:
    """Whether FFmpeg found no data of a sound stream: `Could not find codec parameters for stream 1 (Audio: aac …`."""
    return "Could not find codec parameters for stream" in text and "(Audio:" in text


def _progress(block: dict[bytes, bytes], *, ended: bool) -> Progress | None:
    """The block's record; None for a block without a frame number, unless it is the last block."""
    frame = _whole(block.get(b"frame", b""))
    if frame is None and not ended:
        return None
    return Progress(
        frame=frame,
        dup_frames=_whole(block.get(b"dup_frames", b"")) or 0,
        drop_frames=_whole(block.get(b"drop_frames", b"")) or 0,
        speed=_speed(block.get(b"speed", b"")),
        ended=ended,
    )


def _whole(value: bytes) -> int | None:
    value = value.strip()
    return int(value) if value.isdigit() and len(value) < 19 else None


def _speed(value: bytes) -> float | None:
    try:
        speed = float(value.strip().removesuffix(b"x"))
    except ValueError:
        return None
    return speed if 0 <= speed < 1e6 else None


FASTEST_FPS = 1000.0
"""More frames a second than any recording counts. FFmpeg writes a flood of copies at 40 times real time."""


class FrameCheck:
    """Decides which counts of frames can be true; times are CLOCK_MONOTONIC seconds.

    A count that is higher than the time allows is believed only when the next count is as high: FFmpeg's own count
    goes on from there, a number from elsewhere does not.
    """

    def __init__(self, now: float) -> None:
        self._at, self._frame, self._doubted = now, 0, -1

    def believes(self, now: float, frame: int) -> bool:
        """Whether FFmpeg may have counted so many frames by now."""
        allowed = self._frame + FASTEST_FPS * (now - self._at + 1)
        if frame > allowed and not 0 <= self._doubted <= frame:
            self._doubted = frame
            return False
        self._at, self._frame, self._doubted = now, frame, -1
        return True
