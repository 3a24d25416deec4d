"""Why FFmpeg ended, by what it logged: a table, each row with the log lines from which it was made. Pure.

The exit status tells little: FFmpeg exits with 0 after a time-out, on a full disk at the trailer and with zero frames,
and its codes differ between versions (FACTS 3). So the log decides, by the first row that applies. An end has one of
three outcomes: `retry` (the runner exits and systemd restarts it, with a growing delay), `wait` (no signal: the port is
healthy, and the runner tries again by itself), `fail` (exit 78: this FFmpeg cannot work with these arguments, and no
retry will change that). What a server says and what an input contains reach the log too, and may be any text: such
text never leads to `fail`.
"""

from __future__ import annotations

from sdisup.contract.options import ENDS, SEARCHES
from sdisup.contract.records import Record
from sdisup.ledger.spool import TERMINATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RETRY, WAIT, FAIL = "retry", "wait", "fail"
ERROR, WARNING, INFO = 3, 4, 6
"""Priorities of log lines, as in syslog."""
COMPLETE = "complete"
"""The verdict on a file that lacks nothing."""
# Kinds of faults that the runner finds.
STALLED, NO_FRAME, NO_AUDIO, NO_SOUND = "stalled", "no frame", "no audio", "no sound"
OTHER_PROGRAMME, CUT_OFF_CHANNEL = "other programme", "channel cut off"
FORMAT_CHANGED, FILE_DELETED, NOT_EXECUTED = "format changed", "file deleted", "not executed"
TIMESTAMPS, MISPLACED = "timestamps jumped", "directory moved"
# Causes by which the runner decides.
DISK, DISK_FULL, DISK_ERROR = "disk", "disk full", "disk error"
TOO_LARGE = "too large"
STREAM_MISSING = "stream missing"
OTHER_RASTER = "other picture size"
NOT_IN_CONTAINER = "not for the container"
BOARD_FAULT, BOARD_MISSING = "board fault", "board missing"


class Fault(Record):
    """Why the runner ends an FFmpeg: `kind` for decisions, `text` for people."""

    kind: str
    text: str


class Cause(Record):
    """Why FFmpeg ended: `name` for ledger and operator, `outcome` of the three above, `reason` for the status."""

    name: str
    outcome: str
    reason: str

    @property
    def is_disk(self) -> bool:
        """Whether the recordings' disk is at fault."""
        return self.name in (DISK, DISK_FULL, DISK_ERROR)

    @property
    def explains_stalls(self) -> bool:
        """Whether this cause makes the frames or the file stand still."""
        return self.outcome == WAIT or self.is_disk or self.name in (BOARD_FAULT, BOARD_MISSING)


class Row(Record):
    """One row of the table: a log line with one of `patterns` means this cause, if the conditions hold.

    `without_signal` is what the source has to do without a signal (contract/options.py), None for any source.
    `needs_frames`: FFmpeg must have counted frames (True) or none (False). `beside`: a line of the same part of
    FFmpeg (`[out#0/mp4 @ 0x…]`) has to hold one of these words. `least` is the least severe priority that the
    line may have; for the outcome `fail` it has to be an error.

    Where the outcome is `fail`, the line has to begin with a pattern, since FFmpeg's own words precede what it quotes
    (`method DESCRIBE failed: 451 Option not found`). In a pattern `*` stands for any text, and `{}` for text that is in
    FFmpeg's command line (`_says_of_command`).
    """

    name: str
    outcome: str
    patterns: tuple[str, ...]
    without_signal: str | None = None
    needs_frames: bool | None = None
    beside: tuple[str, ...] = ()
    least: int = WARNING

    def applies(self, end: End) -> bool:
        """Whether the row's conditions hold for an end, apart from the log lines."""
        if self.without_signal not in (None, end.without_signal):
            return False
        if self.needs_frames not in (None, end.frames > 0):
            return False
        return self.outcome != FAIL or end.status > 0

    def line(self, end: End) -> str:
        """The first log line with one of the patterns, since later lines are consequences; empty if there is none."""
        return next((text for priority, text in end.lines if self._is_said(priority, text, end)), "")

    def _is_said(self, priority: int, text: str, end: End) -> bool:
        if self.outcome == FAIL:
            return priority <= ERROR and any(
                _says_of_command(plain(text), pattern, end.command) for pattern in self.patterns
            )
        is_beside = not self.beside or self._is_beside(end, text)
        return priority <= self.least and _holds(text, self.patterns) and is_beside

    def _is_beside(self, end: End, text: str) -> bool:
        speaker = text.partition("]")[0]
        return any(other.partition("]")[0] == speaker and _holds(other, self.beside) for _, other in end.lines)


def _holds(text: str, patterns: tuple[str, ...]) -> bool:
    return any(words in text for words in patterns)


def _says_of_command(text: str, pattern: str, command: tuple[str, ...]) -> bool:
    """Whether a text begins with `pattern`, and has at `{}` something that is in the command line.

    FFmpeg 5.1 says `Value inf for parameter 'time_base' out of range [` of broken sound, without a time base in the
    command line.
    """
    before, is_naming, after = pattern.partition("{}")
    head, _, tail = before.partition("*")
    at = text.find(tail, len(head)) if text.startswith(head) else -1
    if at < 0 or not is_naming:
        return at >= 0
    named, found, _ = text[at + len(tail) :].partition(after)
    return bool(named and found) and any(_names(word, named) for word in command)


def _names(word: str, named: str) -> bool:
    """Whether `named` is in the word and begins a part of it, as `bar` does in `-foo:bar` and not in `-foobar`."""
    return any(
        word.startswith(named, at) and not (at and (word[at - 1].isalnum() or word[at - 1] == "_"))
        for at in range(len(word))
    )


TABLE = (
    # [segment @ 0x…] [error] Failed to open segment '/proc/4711/fd/103'
    # Consequences follow, such as: Error writing trailer of …: Invalid argument
    Row(DISK, RETRY, ("Failed to open segment '",)),
    # libavdevice/v4l2.c: [video4linux2,v4l2 @ 0x…] [error] ioctl(VIDIOC_STREAMON): No space left on device
    # The USB bus has no bandwidth for one more camera (Documentation/driver-api/usb/error-codes.rst).
    Row("no USB bandwidth", RETRY, ("ioctl(VIDIOC_STREAMON): No space left on device",)),
    # [out#0/matroska @ 0x…] [error] Error writing trailer: No space left on device
    # [error] av_interleaved_write_frame(): No space left on device     (FFmpeg 5.1)
    Row(DISK_FULL, RETRY, ("No space left on device", "Disk quota exceeded")),
    # [error] av_interleaved_write_frame(): File too large     (FFmpeg 5.1)
    # [out#0/mp4 @ 0x…] [error] Error closing file: File too large
    # At 4 GiB on FAT32, and at the unit's LimitFSIZE=: FFmpeg ignores SIGXFSZ, as it was ignored by Python, its parent.
    Row(TOO_LARGE, RETRY, ("File too large",)),
    # [error] /srv/recordings/CAM3_….mkv: Read-only file system
    # [out#0/mp4 @ 0x…] [error] Error writing trailer: Input/output error
    Row(DISK_ERROR, RETRY, ("Read-only file system", "Error writing trailer", "Error closing file",
                            "av_interleaved_write_frame(): Input/output error", "Stale file handle")),
    # [out#0/matroska @ 0x…] [error] Error muxing a packet
    # [out#0/matroska @ 0x…] [error] Task finished with error code: -5 (Input/output error)
    # A muxer that refuses a packet (-22, Invalid argument) logs the first line as well.
    Row(DISK_ERROR, RETRY, ("Error muxing a packet",), beside=("Input/output error",)),
    # VIDEOMASTER.md 16: a fault of the board, no time-out; `Failed to get data buffers` follows either.
    Row(BOARD_FAULT, RETRY, ("Failed to lock slot handle",)),
    # VIDEOMASTER.md 8: the cable was pulled; ten seconds later
    # [error] Timeout while waiting for slot lock / Failed to get data buffers
    Row("signal lost", WAIT, ("Timeout while waiting for slot lock", "Failed to get data buffers"),
        without_signal=ENDS, needs_frames=True),
    # VIDEOMASTER.md 9, 15: the signal changed to a smaller one; FFmpeg logs this for each frame, or ends at the first
    Row(FORMAT_CHANGED, RETRY, ("Invalid buffer size, packet size",), without_signal=ENDS),
    Row(FORMAT_CHANGED, RETRY, ("Invalid buffer size, packet size",), needs_frames=True),
    # VIDEOMASTER.md 7: locked, but no frames for 20 s
    Row("no signal", WAIT, ("Timeout while waiting for slot lock", "Failed to get data buffers",
                            "Output file is empty, nothing was encoded"),
        without_signal=ENDS, needs_frames=False),
    # VIDEOMASTER.md's table of messages
    Row(BOARD_MISSING, RETRY, ("No DELTACAST boards detected", "Invalid board index", "Failed to open board handle",
                                 "Failed to retrieve API version", "Failed to retrieve number of RX channels")),
    Row("device busy", RETRY, ("Failed to open stream handle", "Device or resource busy")),
    Row("channel unusable", RETRY, ("Invalid channel index", "Failed to get stream properties",
                                    "Failed to start stream")),
    Row("cannot work", FAIL, ("Unknown stream selected", "Board index is not set",
                              "Not implemented video buffer packing",
                              "Board does not support line padding property",
                              "Hardware time stamping is not supported",
                              "LTC companion card feature is not supported",
                              "LTC companion card is not detected", "LTC on-board feature is not supported"),
        without_signal=ENDS, needs_frames=False),
    # VIDEOMASTER.md 7: no signal at start, exit 234 within 10 ms. The message differs: with -map, with a filter graph,
    # with neither
    Row("no signal", WAIT, ("Stream map '' matches no streams", "matches no streams",
                            "Output file does not contain any stream", "does not contain any stream"),
        without_signal=ENDS, needs_frames=False),
    # encode/command.py, _crop: dnxhd and xdcam take pictures of one size, and those of another get the width 0.
    # [Parsed_crop_0 @ 0x…] [error] Invalid too big or non positive size for width '0' or height '720'
    Row(OTHER_RASTER, RETRY, ("Invalid too big or non positive size for width '0'",)),
    # An input may deliver the stream later; FFmpeg 7.1 calls this "Error parsing options" as well.
    Row(STREAM_MISSING, RETRY, ("matches no streams",), needs_frames=False),
    # libavdevice/decklink_dec.cpp: at the start, after FFmpeg looked for a format for 3 s. A signal that is lost
    # later does not end FFmpeg: FFmpeg records black and warns of `No input signal detected`.
    Row("no signal", WAIT, ("Cannot Autodetect input stream or No signal",),
        without_signal=SEARCHES, needs_frames=False),
    Row(BOARD_MISSING, RETRY, ("Could not create DeckLink iterator", "Could not open '"), without_signal=SEARCHES,
        needs_frames=False),
    Row("device busy", RETRY, ("Cannot enable video input", "Cannot enable audio input"), without_signal=SEARCHES,
        needs_frames=False),
    # What the dynamic loader says, without a level; exit 127. This happens after an upgrade of a card's SDK, and during
    # one of FFmpeg, whose packages are replaced one after the other.
    # /usr/bin/ffmpeg: error while loading shared libraries: libx.so.6: cannot open shared object file: No such file …
    # /usr/bin/ffmpeg: symbol lookup error: /usr/bin/ffmpeg: undefined symbol: av_foo, version LIBAVUTIL_59
    # /usr/bin/ffmpeg: /lib/…/libc.so.6: version `GLIBC_2.99' not found (required by /usr/bin/ffmpeg)
    Row("library missing", RETRY, ("error while loading shared libraries:", "symbol lookup error:",
                                   "' not found (required by "), needs_frames=False, least=INFO),
    # What FFmpeg says of its command line, from its source: fftools/cmdutils.c, ffmpeg_opt.c, ffmpeg_mux_init.c;
    # libavutil/opt.c and eval.c, libavfilter/graphparser.c, libavformat/mux.c, libavcodec/libx264.c.
    # [fatal] Unknown encoder 'prores_aw' / [error] Unknown input format: 'videomaster'
    # [fatal] Unrecognized option 'foo'. / [error] Error parsing options for output file x.mkv.
    Row("cannot work", FAIL, ("Unknown encoder '{}'", "Unknown decoder '{}'", "Unknown input format: '{}'",
                              "Unrecognized option '{}'", "Requested output format '{}' is not ",
                              "Error splitting the argument list: ", "Missing argument for option '{}'",
                              "Error parsing options for input file ", "Error parsing options for output file ",
                              "Value * for parameter '{}' out of range [", "No such filter: '{}'",
                              "Option '{}' not found", "Error applying option '{}' to filter '",
                              "Error setting option {} to value ", "Unable to parse option value \"{}\"",
                              "Undefined constant or missing '(' in '{}'", "Error setting preset/tune {}/",
                              "Error setting profile {}.", "Unknown pixel format requested: {}.",
                              "Unable to find a suitable output format for '",
                              "Unable to choose an output format for '", "Could not find tag for codec {} in stream ",
                              "At least one output file must be specified"),
        needs_frames=False),
    # libavformat/mux.c and movenc.c, of what is copied: which codecs a source has is known once it is open. The last
    # one is the sound of an MPEG-TS, which the mp4 and mov of FFmpeg 5.1 do not take while they are fragmented.
    # [mp4 @ 0x…] [error] Could not find tag for codec vp8 in stream #0, codec not currently supported in container
    # [mov @ 0x…] [error] VP8 muxing is currently not supported. / [mov @ 0x…] [error] vp9 only supported in MP4.
    # [mp4 @ 0x…] [error] Malformed AAC bitstream detected: use the audio bitstream filter 'aac_adtstoasc' to fix it …
    Row(NOT_IN_CONTAINER, RETRY, ("codec not currently supported in container", " muxing is currently not supported.",
                                  " only supported in MP4.", "Malformed AAC bitstream detected")),
    # Cannot load libcuda.so.1: there is no GPU; it comes back with its driver.
    Row("device missing", RETRY, ("Cannot load libcuda", "No such device", "No such file or directory")),
    Row("permission", RETRY, ("Permission denied", "Operation not permitted")),
    Row("network", RETRY, ("Connection refused", "Connection timed out", "Connection reset", "timed out",
                           "Network is unreachable", "No route to host", "Name or service not known")),
)  # fmt: skip


# What FFmpeg logs when a signal's format changes in the middle of a recording.
# VIDEOMASTER.md 9, for each frame: [error] Invalid buffer size, packet size 414720 < expected frame_size 4147200
# FFmpeg 5.1: [warning] Changing video frame properties on the fly is not supported by all filters
# FFmpeg 7.1 logs any change of format in the same words; only a change of size counts: progress.py, changed_size.
FORMAT_CHANGES = (
    "Invalid buffer size, packet size",
    "Changing video frame properties on the fly",
)


def is_format_change(text: str) -> bool:
    """Whether a log line says that the picture's format changed while recording."""
    return any(words in text for words in FORMAT_CHANGES)


# An FFmpeg that logs one of these leaves an incomplete file, whatever its exit code (FACTS 3). A time-out is not among
# them: after one of the source the file is complete, and after one of the disk FFmpeg logs one of the first two.
BAD_FILE = ("Error writing trailer", "Error closing file", "Slave muxer", "No space left on device")


def file_verdict(end: End, frames: int) -> str:
    """`complete`, or what is wrong with a finished file, by the rule of FACTS 3.

    A file is complete when FFmpeg said progress=end, exited with 0 or 255, counted frames, and logged no failure of
    writing. With -xerror it is complete too where FFmpeg exited with 251 at a lost signal, or with 234 at a smaller
    picture (VIDEOMASTER.md 8, 15).
    """
    is_smaller = any(is_format_change(text) for _, text in end.lines)
    for _, text in end.lines:
        if any(words in text for words in BAD_FILE):
            return f"incomplete: {plain(text)}"
    if end.status < 0:
        return f"cut off: FFmpeg was killed by signal {-end.status}"
    if not end.finished:
        return f"cut off: FFmpeg exited with {end.status} before the file's end"
    if end.status not in (0, 255, 251) and not (end.status == 234 and is_smaller):
        return f"incomplete: FFmpeg exited with {end.status}"
    return COMPLETE if frames else "empty: FFmpeg counted no frame"


class End(Record):
    """How an FFmpeg ended.

    `status` is the exit code, or minus the signal that killed FFmpeg; `frames` are those that FFmpeg counted; `lines`
    are the log lines of its last seconds, oldest first, as (priority, text); `without_signal` is what the source does
    without a signal; `fault` is why the runner ended FFmpeg, None when FFmpeg ended by itself; `finished` is whether
    FFmpeg said `progress=end`; `command` is its command line.
    """

    status: int
    frames: int
    lines: tuple[tuple[int, str], ...] = ()
    without_signal: str = ""
    fault: Fault | None = None
    finished: bool = False
    command: tuple[str, ...] = ()


# What FFmpeg logs at many starts and ends, and what explains no end.
_EMPTY_WORDS = (
    "Failed to stop stream", "Cannot retrieve audio stream properties", "Guessed Channel Layout",
    "Conversion failed!", "Exiting normally, received signal",
    # The threads of FFmpeg 7 log these when they end, after the thread that failed has logged why.
    "Error opening input file", "Error opening output file", "Error sending frames to consumers",
    "Task finished with error code", "Terminating thread with return code", "Could not open encoder before EOF",
    "Nothing was written into output file",
)  # fmt: skip


# What FFmpeg logs after the line that says what is wrong with an encoder; these lines tell the encoder's track.
# [libx264 @ 0x…] [error] width not divisible by 2 (853x480)
# [vost#0:0/libx264 @ 0x…] [error] Error while opening encoder - maybe incorrect parameters such as bit_rate, …
# [error] Error initializing output stream 0:0 -- Error while opening encoder for output stream #0:0 - maybe … (5.1)
_ENCODER_WORDS = ("Error while opening encoder", "Error initializing output stream")


def classify(end: End) -> Cause:
    """The cause of an end that nobody asked for.

    A fault that the runner found is the cause, with two exceptions. A stall is only a symptom: if FFmpeg logged a lost
    signal, a failing disk or a fault of the board while the runner waited for it or ended it (VIDEOMASTER.md 8: after
    10 s), that is the cause. A channel without frames looks at first like a channel without audio; what FFmpeg logs at
    its end tells them apart.
    """
    said = _said_cause(end)
    fault = end.fault
    if fault is not None and fault.kind == NO_AUDIO and not end.frames and end.status >= 0:
        fault = None
    if fault is None:
        return said or _unsaid_cause(end)
    if said and fault.kind == STALLED and said.explains_stalls:
        return said
    return Cause(fault.kind if fault.kind in (TIMESTAMPS, TERMINATED) else fault.text, RETRY, fault.text)


def _said_cause(end: End) -> Cause | None:
    """The first row of the table that explains an end."""
    for row in TABLE:
        text = row.line(end) if row.applies(end) else ""
        if text:
            return Cause(row.name, row.outcome, f"{row.name}: {_in_words(row, text, end)}")
    return None


def _in_words(row: Row, text: str, end: End) -> str:
    """What a line of the log says; in other words where FFmpeg's own lead an operator astray."""
    if row.name == STREAM_MISSING:
        # FFmpeg 7.1: Stream map '' matches no streams.
        track, asked = _missing_track(end)
        if asked:
            kind = {"audio": "sound", "video": "picture"}[track]
            return f"there is no {kind} {asked}; sdisup check --probe shows what there is"
        # The other kinds of source, which know what they do without a signal, know themselves whether there is sound.
        without = '; audio = "optional" records without it' if not end.without_signal else ""
        words = {"audio": f"the source has no sound{without}", "video": "the source has no picture"}
        return words.get(track, plain(text))
    if row.name == DISK:
        return "the next file was not ready in time: the disk, or the machine, is too slow"
    if row.name == NOT_IN_CONTAINER:
        return f"{plain(text).partition(': use the ')[0].rstrip('.')}; mkv takes nearly all that comes encoded"
    if row.name == OTHER_RASTER:
        height = text.rpartition(" height ")[2].strip("'")
        return f"the source's pictures, {height} lines, are not of the raster that the codec is to take; see: raster"
    input_name = _input_of(text, end.command) if row.outcome == FAIL else ""
    if input_name:
        whose = f"this FFmpeg has no input '{input_name}', or a version of it without that option"
        return f"{plain(text).rstrip('.')}: {whose}; see: sdisup check"
    return plain(text)


def _input_of(text: str, command: Sequence[str]) -> str:
    """The demuxer that the command line names for an option that FFmpeg does not know; "" for any other line.

    Without a demuxer FFmpeg does not know the demuxer's options, and says so before it looks for the demuxer.
    """
    _, is_unknown, named = text.partition("Unrecognized option '")
    option = f"-{named.partition(chr(39))[0]}"
    if not is_unknown or option not in command:
        return ""
    at = command.index(option)
    before, behind = list(command[:at]), list(command[at:])
    if "-i" not in behind:
        return ""
    begin = len(before) - before[::-1].index("-i") if "-i" in before else 0
    options = command[begin : at + behind.index("-i")]
    return options[options.index("-f") + 1] if "-f" in options[:-1] else ""


def _unsaid_cause(end: End) -> Cause:
    last_words = _last_error(end)
    if end.status < 0:
        return Cause("killed", RETRY, f"FFmpeg was killed by signal {-end.status}")
    if end.status == 0 and not last_words:
        return Cause("ended", RETRY, "FFmpeg ended by itself: its source came to an end")
    shown = f": {last_words}" if last_words else ""
    return Cause("crash", RETRY, f"FFmpeg exited with {end.status}{shown}")


def _last_error(end: End) -> str:
    """The last error that FFmpeg logged, with its track where FFmpeg names one.

    Of several lines of one part of FFmpeg it is the first: there an encoder says what is wrong with its settings.
    """
    errors = [
        text for priority, text in end.lines if priority <= ERROR and not _holds(text, _EMPTY_WORDS) and text.strip()
    ]
    track = found = ""
    while errors:
        found = errors.pop()
        track = track or _track(found)
        if not _holds(found, _ENCODER_WORDS):
            break
    while errors and _speaker(found) and _speaker(errors[-1]) == _speaker(found):
        found = errors.pop()
    return _of(track) + plain(found)


def _of(track: str) -> str:
    return f"{track}: " if track else ""


_MAP_WORDS = ("Stream map '", "Failed to set value '")
"""FFmpeg 5.1 names a stream that is missing in the first, 7.1 in the second: `'0:a:0'`."""


def _missing_track(end: End) -> tuple[str, str]:
    """`audio` or `video`, and the stream by FFmpeg's name where it is not the first of an input that was asked for."""
    for _, text in end.lines:
        track = _track(text) if text.startswith(_MAP_WORDS) else ""
        if track:
            asked = text.partition("'")[2].partition("'")[0].rstrip("?")
            is_first = len(asked.split(":")) == 3 and asked.endswith(":0")
            return track, "" if is_first else asked
    return "", ""


def _track(text: str) -> str:
    """`audio` or `video` where a line is about one track of the recording; empty elsewhere.

    The picture is a recording's first stream (encode/command.py).
    """
    if text.startswith(_MAP_WORDS):
        specifier = text.partition("'")[2].partition("'")[0]
        kinds = {"a": "audio", "v": "video"}
        return next((kinds[part] for part in specifier.split(":") if part in kinds), "")
    first = _speaker(text)[1:].partition("#")[0]
    if first in ("aost", "aist", "af"):
        return "audio"
    if first in ("vost", "vist", "vf"):
        return "video"
    _, found, stream = text.partition("Error initializing output stream 0:")
    return ("video" if stream.startswith("0 ") else "audio") if found else ""


def _speaker(text: str) -> str:
    """The part of FFmpeg that logged a line, `[vost#0:0 @ 0x5635a66e8600` of it; empty if the line names none."""
    return text.partition("]")[0] if text.startswith("[") and " @ 0x" in text.partition("]")[0] else ""


def plain(text: str) -> str:
    """The message without the part of FFmpeg that logged it and without addresses: causes are compared."""
    while _speaker(text):
        text = text.partition("]")[2].lstrip()
    before, is_at, after = text.partition(" @ 0x")
    return before + plain(after.lstrip("0123456789abcdef")) if is_at else text
