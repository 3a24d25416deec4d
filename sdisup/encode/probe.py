"""Asks an installed FFmpeg what it can do. Reading its answers is pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sdisup.config.settings import Port
from sdisup.config.sound import audio_encoder, tracks_of
from sdisup.contract.programs import Program
from sdisup.encode.command import Capabilities, label_of
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
    (answer,) = _ask(path, [("-version",)], timeout_s)
    version = parse_version(answer)
    if not version:
        # Here the dynamic loader says which shared library is missing.
        said = ascii(answer.strip().partition("\n")[0][:200])
        raise SdisupError(f"{path}: is not an FFmpeg that works: to `-version` it says {said}", _HINT)
    questions = (_ENCODERS, _DEMUXERS, _MOV)
    encoders, demuxers, mov = _ask(path, questions, timeout_s)
    return Capabilities(
        version=version,
        encoders=parse_names(encoders),
        inputs=parse_names(demuxers),
        hybrid_fragmented=has_hybrid_fragmented(mov),
    )


def pcm_in_mp4_problems(ports: Iterable[Port], path: str, timeout_s: float = 10.0) -> list[str]:
    """The ports whose sound this FFmpeg does not put into their mp4, with the next step. FFmpeg is asked by trying it,
    and only where a port wants it: 5.1 cannot, 7.1 can. Raises SdisupError where it does not answer."""
    wanting: dict[str, list[Port]] = {}
    for port in ports:
        if port.container == "mp4" and tracks_of(port) and audio_encoder(port).startswith("pcm_"):
            wanting.setdefault(audio_encoder(port), []).append(port)
    silence = ("-v", "error", "-f", "s16le", "-t", "0.1", "-i", "/dev/zero")
    tries = [
        (*silence, "-c:a", encoder, "-movflags", "+empty_moov", "-f", "mp4", "-y", "/dev/null") for encoder in wanting
    ]
    answers = _ask(path, tries, timeout_s) if tries else []
    return [
        f'{label_of(affected)}: {path} cannot put {encoder} into mp4: choose container = "mov", or audio.codec = "aac"'
        for (encoder, affected), answer in zip(wanting.items(), answers, strict=True)
        if answer.strip()
    ]


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
    (answer,) = _ask(path, [("-hide_banner", "-sources", device)], timeout_s)
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


def _ask(path: str, questions: Sequence[tuple[str, ...]], timeout_s: float) -> list[str]:
    """What the program prints to each question, at most MAX_ANSWER_BYTES. All are asked at once: an answer takes 60 ms,
    most of it to load libraries."""
    try:
        programs = [Program([path, *question], with_stderr=True) for question in questions]
    except (OSError, ValueError) as error:
        raise SdisupError(f"{path}: {_cannot_execute(error)}", _HINT) from None
    texts = []
    for question, answer in [(question, program.answer(MAX_ANSWER_BYTES, timeout_s))
                             for question, program in zip(questions, programs, strict=True)]:  # fmt: skip
        if answer is None:
            raise SdisupError(f"{path}: did not answer `{' '.join(question)}` within {timeout_s:g} s", _HINT)
        texts.append(answer[0].decode("utf-8", "replace"))
    return texts


def _cannot_execute(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        # The error is the same where the program is there and its interpreter or loader is not.
        return "cannot be executed: there is no such file, or what it needs to start is missing"
    if isinstance(error, PermissionError):
        return "cannot be executed: it has no execute permission, or is a directory"
    return f"cannot be executed: {error.strerror if isinstance(error, OSError) else error}"
