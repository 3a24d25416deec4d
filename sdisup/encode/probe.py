"""Asks an installed FFmpeg what it can do. Reading its answers is pure."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from sdisup.encode.command import Capabilities
from sdisup.errors import SdisupError
from sdisup.sources.base import Found

MAX_ANSWER_BYTES = 4 * 1024 * 1024  # FFmpeg's longest answer is some 30 kB

_ENCODERS = ("-hide_banner", "-encoders")
_DEMUXERS = ("-hide_banner", "-demuxers")  # lists the input devices too, in 5.1 and 7.1
_MOV = ("-hide_banner", "-h", "muxer=mov")


def probe_ffmpeg(path: str, timeout_s: float = 10.0) -> Capabilities:
    """The capabilities of the FFmpeg at `path`. Each question may take `timeout_s` seconds.

    Raises SdisupError when the program is missing, cannot be executed, does not answer or is no FFmpeg.
    """
    answer = _ask(path, ("-version",), timeout_s)
    version = parse_version(answer)
    if not version:
        # Here the dynamic loader says which shared library is missing.
        said = ascii(answer.strip().partition("\n")[0][:200])
        raise SdisupError(f"{path}: is not an FFmpeg that works: to `-version` it says {said}", _HINT)
    questions = (_ENCODERS, _DEMUXERS, _MOV)
    with ThreadPoolExecutor(len(questions)) as pool:  # 60 ms each, most of it loading libraries
        encoders, demuxers, mov = pool.map(lambda question: _ask(path, question, timeout_s), questions)
    return Capabilities(
        version=version,
        encoders=parse_names(encoders),
        inputs=parse_names(demuxers),
        hybrid_fragmented=has_hybrid_fragmented(mov),
    )


def parse_version(answer: str) -> str:
    """The version in an answer to `ffmpeg -version`; "" where there is none.

    The first line: `ffmpeg version 7.1.5-0+deb13u1 Copyright (c) 2000-2026 the FFmpeg developers`
    """
    match = re.search(r"^ffmpeg version (\S+)", answer, re.MULTILINE)
    return match[1] if match else ""


def parse_names(answer: str) -> frozenset[str]:
    """The names that `-encoders` or `-demuxers` lists; of an entry with several names, all of them.

    Lines of `-encoders` and of `-demuxers`, 5.1 and 7.1; the legend above ends with some dashes:
     ` V....D libx264              libx264 H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10 (codec h264)`
     ` D  video4linux2,v4l2 Video4Linux2 output device`
     ` D d video4linux2,v4l2 Video4Linux2 device grab`
    """
    _, _, body = answer.partition("\n --")
    rows = (re.match(r" [A-Z.][A-Za-z. ]{1,5} ([^\s=]\S*)", line) for line in body.splitlines()[1:])
    return frozenset(name for row in rows if row for name in row[1].split(",") if name)


def has_hybrid_fragmented(answer: str) -> bool:
    """Whether `-h muxer=mov` lists the movflag.

    `     hybrid_fragmented              E.......... For recoverability, write a fragmented file that …`
    """
    return re.search(r"^\s+hybrid_fragmented\s", answer, re.MULTILINE) is not None


def list_sources(path: str, device: str, timeout_s: float = 10.0) -> tuple[Found, ...]:
    """What the FFmpeg at `path` finds of an input device, such as `decklink`. Raises SdisupError.

    FFmpeg exits with 0 in any case; only its answer says that no driver or no card is there. For the answer FFmpeg
    opens the HDMI inputs of Deltacast cards: ask only while none of them records (VIDEOMASTER.md).
    """
    answer = _ask(path, ("-hide_banner", "-sources", device), timeout_s)
    if "Cannot list sources" in answer:
        raise SdisupError(f"{path}: finds no {device} card", "is it plugged in, and its driver loaded?")
    return parse_sources(answer)


def parse_sources(answer: str) -> tuple[Found, ...]:
    """What the lines of `-sources DEVICE` say, also that of the default source, which begins with a star.

    `  stream 0 on board 0 [SDI video: 1920x1080i50.000 (interface: …) on board … (SN: …)] (video, audio)`
    `* 81:76669a80:00000000 [DeckLink Mini Recorder] (none)`
    """
    rows = (re.match(r"[ *] (\S.*?) \[(.*)\]( \([a-z, ]*\))?$", line) for line in answer.splitlines())
    return tuple(Found(row[1], row[2]) for row in rows if row)


_HINT = "name a working one as ffmpeg in [appliance], or install it"


def _ask(path: str, question: tuple[str, ...], timeout_s: float) -> str:
    """What the program prints, at most MAX_ANSWER_BYTES of it. Its whole process group is killed in any case."""
    command = [path, *question]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the children of a wrapper script hold the pipe open too
        )
    except (OSError, ValueError) as error:
        raise SdisupError(f"{path}: {_cannot_execute(error)}", _HINT) from None
    is_late = threading.Event()

    def give_up() -> None:
        is_late.set()
        _kill_group(process)

    timer = threading.Timer(timeout_s, give_up)
    timer.start()
    try:
        assert process.stdout is not None
        answer = process.stdout.read(MAX_ANSWER_BYTES)
    finally:
        timer.cancel()
        timer.join()  # a timer that runs already must not signal a process id that is free again
        _kill_group(process)
        process.communicate()
    if is_late.is_set():
        raise SdisupError(f"{path}: did not answer `{' '.join(question)}` within {timeout_s:g} s", _HINT)
    return answer.decode("utf-8", "replace")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _cannot_execute(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        # The error is the same where the program is there and its interpreter or loader is not.
        return "cannot be executed: there is no such file, or what it needs to start is missing"
    if isinstance(error, PermissionError):
        return "cannot be executed: it has no execute permission, or is a directory"
    return f"cannot be executed: {error.strerror if isinstance(error, OSError) else error}"
