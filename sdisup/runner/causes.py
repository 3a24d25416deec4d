"""Why FFmpeg ended, from what it said: one pure table, each row with the lines it was made from.

The exit status decides little: FFmpeg exits 0 after a time-out, on a full disk at the trailer and with
zero frames, and its codes differ between versions (FACTS 3). So the text decides, and the first row
that fits. What an end leads to is one of three: `retry` (the unit ends and systemd restarts it, with a
growing delay), `wait` (no signal: healthy, the runner tries again by itself), `fail` (exit 78: this
FFmpeg cannot work with these arguments, and no retry will change that).
"""

from __future__ import annotations

from sdisup.contract.options import ENDS, SEARCHES
from sdisup.contract.records import Record

RETRY, WAIT, FAIL = "retry", "wait", "fail"
ERROR, WARNING = 3, 4
"""Priorities of log lines, as syslog counts."""
COMPLETE = "complete"
"""The verdict on a file that holds all that it should."""
# Kinds of faults that the runner finds.
STALLED, NO_FRAME, NO_AUDIO = "stalled", "no frame", "no audio"
FORMAT_CHANGED, FILE_DELETED, NOT_EXECUTED = "format changed", "file deleted", "not executed"
# Causes that decide what comes after.
DISK, DISK_FULL, DISK_ERROR = "disk", "disk full", "disk error"


class Fault(Record):
    """What the runner ends an FFmpeg for: its kind, and the sentence that people read."""

    kind: str
    text: str


class Cause(Record):
    """`name` as the ledger and the operator know it, `outcome` as above, `reason` for the status."""

    name: str
    outcome: str
    reason: str

    @property
    def is_disk(self) -> bool:
        """Whether the recordings' disk is at fault."""
        return self.name in (DISK, DISK_FULL, DISK_ERROR)


class Row(Record):
    """One line of the table: any of `patterns` in a log line, and the conditions, make it this cause.

    `without_signal` is what the source has to do without a signal (options.py). `beside`: words of which one has
    to be in what the same part of FFmpeg said (`[out#0/mp4 @ 0x…]`).
    """

    name: str
    outcome: str
    patterns: tuple[str, ...]
    without_signal: str | None = None
    needs_frames: bool | None = None
    beside: tuple[str, ...] = ()

    def applies(self, end: End) -> bool:
        """Whether this row may explain an end, if the words are there."""
        if self.without_signal not in (None, end.without_signal):
            return False
        if self.needs_frames not in (None, end.frames > 0):
            return False
        return self.outcome != FAIL or end.status > 0

    def line(self, end: End) -> str:
        """The first line that holds one of the patterns: what follows it is its consequence.

        A warning will do, but nothing is given up for one.
        """
        least = ERROR if self.outcome == FAIL else WARNING
        for priority, text in end.lines:
            if priority <= least and _holds(text, self.patterns) and (not self.beside or self._is_beside(end, text)):
                return text
        return ""

    def _is_beside(self, end: End, text: str) -> bool:
        speaker = text.partition("]")[0]
        return any(other.partition("]")[0] == speaker and _holds(other, self.beside) for _, other in end.lines)


def _holds(text: str, patterns: tuple[str, ...]) -> bool:
    return any(words in text for words in patterns)


TABLE = (
    # libavdevice/v4l2.c: [video4linux2,v4l2 @ 0x…] [error] ioctl(VIDIOC_STREAMON): No space left on device
    # Of a USB bus without bandwidth for one more camera (Documentation/driver-api/usb/error-codes.rst).
    Row("no USB bandwidth", RETRY, ("ioctl(VIDIOC_STREAMON): No space left on device",)),
    # [out#0/matroska @ 0x…] [error] Error writing trailer: No space left on device
    # [error] av_interleaved_write_frame(): No space left on device     (FFmpeg 5.1)
    Row(DISK_FULL, RETRY, ("No space left on device", "Disk quota exceeded")),
    # [error] /srv/recordings/CAM3_….mkv: Read-only file system
    # [out#0/mp4 @ 0x…] [error] Error writing trailer: Input/output error
    Row(DISK_ERROR, RETRY, ("Read-only file system", "Error writing trailer", "Error closing file",
                            "av_interleaved_write_frame(): Input/output error", "Stale file handle")),
    # [out#0/matroska @ 0x…] [error] Error muxing a packet
    # [out#0/matroska @ 0x…] [error] Task finished with error code: -5 (Input/output error)
    # A muxer that refuses a packet (-22, Invalid argument) says the first line too.
    Row(DISK_ERROR, RETRY, ("Error muxing a packet",), beside=("Input/output error",)),
    # VIDEOMASTER.md 8: the cable was pulled; ten seconds later
    # [error] Timeout while waiting for slot lock / Failed to get data buffers
    Row("signal lost", WAIT, ("Timeout while waiting for slot lock", "Failed to get data buffers"),
        without_signal=ENDS, needs_frames=True),
    # VIDEOMASTER.md 9: the signal became a smaller one, said for each frame
    Row("format changed", RETRY, ("Invalid buffer size, packet size",), without_signal=ENDS),
    # VIDEOMASTER.md 7: locked, but no frames for 20 s
    Row("no signal", WAIT, ("Timeout while waiting for slot lock", "Failed to get data buffers",
                            "Output file is empty, nothing was encoded"),
        without_signal=ENDS, needs_frames=False),
    # VIDEOMASTER.md's table of messages
    Row("board missing", RETRY, ("No DELTACAST boards detected", "Invalid board index", "Failed to open board handle",
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
    # VIDEOMASTER.md 7: no signal at start, exit 234 within 10 ms; with -map, with a filter graph, without either
    Row("no signal", WAIT, ("Stream map '' matches no streams", "matches no streams",
                            "Output file does not contain any stream", "does not contain any stream"),
        without_signal=ENDS, needs_frames=False),
    # What an input does not deliver now it may deliver later; FFmpeg 7.1 calls this "Error parsing options" too.
    Row("stream missing", RETRY, ("matches no streams",), needs_frames=False),
    # libavdevice/decklink_dec.cpp: after 3 s of looking for a format, while it starts. A signal that is lost
    # later does not end FFmpeg: it records black and warns of `No input signal detected`.
    Row("no signal", WAIT, ("Cannot Autodetect input stream or No signal",),
        without_signal=SEARCHES, needs_frames=False),
    Row("board missing", RETRY, ("Could not create DeckLink iterator", "Could not open '"), without_signal=SEARCHES,
        needs_frames=False),
    Row("device busy", RETRY, ("Cannot enable video input", "Cannot enable audio input"), without_signal=SEARCHES,
        needs_frames=False),
    # [fatal] Unknown encoder 'prores_aw' / [error] Unknown input format: 'videomaster'
    # [fatal] Unrecognized option 'foo'. / [error] Error parsing option 'x' …
    Row("cannot work", FAIL, ("Unknown encoder", "Unknown decoder", "Unknown input format", "Unrecognized option",
                              "Requested output format", "is not a suitable output format", "Option not found",
                              "Error splitting the argument list", "Missing argument for option",
                              "Error parsing options", "out of range [", "No such filter", "Error setting option",
                              "Unable to parse option value", "Undefined constant or missing",
                              "Error setting preset/tune", "Error setting profile", "Unknown pixel format requested",
                              "Unable to find a suitable output format", "Unable to choose an output format",
                              "codec not currently supported in container",
                              "At least one output file must be specified"),
        needs_frames=False),
    # a GPU that is not there: Cannot load libcuda.so.1; it comes back with its driver
    Row("device missing", RETRY, ("Cannot load libcuda", "No such device", "No such file or directory")),
    Row("permission", RETRY, ("Permission denied", "Operation not permitted")),
    Row("network", RETRY, ("Connection refused", "Connection timed out", "Connection reset", "timed out",
                           "Network is unreachable", "No route to host", "Name or service not known")),
)  # fmt: skip


# What is said when a signal's format changes in the middle of a recording.
# VIDEOMASTER.md 9, for each frame: [error] Invalid buffer size, packet size 414720 < expected frame_size 4147200
# FFmpeg 7.1: [info] Reconfiguring filter graph because video parameters changed to yuv420p(tv, …), 640x480
# FFmpeg 5.1: [warning] Changing video frame properties on the fly is not supported by all filters
FORMAT_CHANGES = (
    "Invalid buffer size, packet size",
    "Reconfiguring filter graph because video parameters changed",
    "Changing video frame properties on the fly",
)


def is_format_change(text: str) -> bool:
    """Whether a log line says that the picture's format changed while recording."""
    return any(words in text for words in FORMAT_CHANGES)


# Said by an FFmpeg that leaves a file that is not whole, whatever its exit code says (FACTS 3).
BAD_FILE = ("Error writing trailer", "Error closing file", "Slave muxer", "timed out", "No space left on device")


def file_verdict(end: End, frames: int) -> str:
    """`complete`, or what is wrong with a finished file, by the rule of FACTS 3.

    A file is good when FFmpeg said progress=end and exited 0 or 255, counted frames, and logged no failure
    of writing. A lost signal's 251 (with -xerror) closes the file complete too (VIDEOMASTER.md 8).
    """
    for _, text in end.lines:
        if any(words in text for words in BAD_FILE):
            return f"incomplete: {_plain(text)}"
    if end.status < 0:
        return f"cut off: FFmpeg was killed by signal {-end.status}"
    if not end.finished:
        return f"cut off: FFmpeg exited with {end.status} before the file's end"
    if end.status not in (0, 255, 251):
        return f"incomplete: FFmpeg exited with {end.status}"
    return COMPLETE if frames else "empty: FFmpeg counted no frame"


class End(Record):
    """How an FFmpeg ended.

    `status` is its exit code, or minus the signal that killed it; `frames` those that it counted; `lines` what it
    logged in its last seconds, oldest first, as (priority, text); `without_signal` what its source does without a
    signal; `fault` what the runner ended it for, None when it ended by itself; `finished` whether it said
    `progress=end`.
    """

    status: int
    frames: int
    lines: tuple[tuple[int, str], ...] = ()
    without_signal: str = ""
    fault: Fault | None = None
    finished: bool = False


# What FFmpeg says of every end or beginning and that explains none of them.
_EMPTY_WORDS = (
    "Failed to stop stream", "Cannot retrieve audio stream properties", "Guessed Channel Layout",
    "Conversion failed!", "Exiting normally, received signal",
    # FFmpeg 7's threads tell each other of an end, long after the one that knows why has said so.
    "Error opening input file", "Error opening output file", "Error sending frames to consumers",
    "Task finished with error code", "Terminating thread with return code", "Could not open encoder before EOF",
    "Nothing was written into output file",
)  # fmt: skip


def classify(end: End) -> Cause:
    """The cause of an end that nobody asked for.

    A fault that the runner found is one by itself. But a stall is only what was seen: a lost signal or a disk, of
    which FFmpeg spoke while it was waited for or ended (VIDEOMASTER.md 8: after 10 s), is why. And a channel
    without frames looks like one without audio at first; what FFmpeg says of its end tells them apart.
    """
    said = _said_cause(end)
    fault = end.fault
    if fault is not None and fault.kind == NO_AUDIO and not end.frames and end.status >= 0:
        fault = None
    if fault is None:
        return said or _unsaid_cause(end)
    if said and fault.kind == STALLED and (said.outcome == WAIT or said.is_disk):
        return said
    return Cause(fault.text, RETRY, fault.text)


def _said_cause(end: End) -> Cause | None:
    """The first row of the table that explains an end."""
    for row in TABLE:
        text = row.line(end) if row.applies(end) else ""
        if text:
            return Cause(row.name, row.outcome, f"{row.name}: {_plain(text)}")
    return None


def _unsaid_cause(end: End) -> Cause:
    last_words = _last_error(end)
    if end.status < 0:
        return Cause("killed", RETRY, f"FFmpeg was killed by signal {-end.status}")
    if end.status == 0 and not last_words:
        return Cause("ended", RETRY, "FFmpeg ended by itself: its source came to an end")
    shown = f": {last_words}" if last_words else ""
    return Cause("crash", RETRY, f"FFmpeg exited with {end.status}{shown}")


def _last_error(end: End) -> str:
    for priority, text in reversed(end.lines):
        if priority <= ERROR and not any(words in text for words in _EMPTY_WORDS):
            return _plain(text)
    return ""


def _plain(text: str) -> str:
    """The message without the address of the FFmpeg object that said it: `[vost#0:0 @ 0x5635a66e8600]`."""
    while text.startswith("[") and " @ 0x" in text.partition("]")[0]:
        text = text.partition("]")[2].lstrip()
    return text
