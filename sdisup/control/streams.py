"""What the inputs of custom sources hold, for `sdisup check --probe`: programmes, variants, pictures and sounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sdisup.config.settings import Port
from sdisup.contract.programs import Program
from sdisup.contract.records import Record
from sdisup.contract.status import find_status, is_alive

OPENING_S = 30.0
"""FFmpeg looks at an input for 5 s; a server may take its time before."""
ANSWER_BYTES = 1 << 20


class Listing(Record):
    """What there is to choose of a port's inputs, in lines; or why that is not known."""

    label: str
    lines: tuple[str, ...] = ()
    problem: str = ""


def listings(ports: Iterable[Port], ffmpeg: str) -> Iterator[Listing]:
    """Each port's whose source has something to choose. A port that records is left alone: its input may have one
    reader."""
    for port in ports:
        if "program" not in port.source.options:
            continue
        status = find_status(port.index)
        if status is not None and is_alive(status):
            yield Listing(port.label, problem="is started, and its input is not opened a second time; stop it first")
        else:
            yield _listing(port, ffmpeg)


def _listing(port: Port, ffmpeg: str) -> Listing:
    try:
        program = Program([ffmpeg, "-hide_banner", *port.source.arguments()], with_stderr=True)
    except (OSError, ValueError) as error:
        return Listing(port.label, problem=f"{ffmpeg} cannot be executed: {error}")
    answer = program.answer(ANSWER_BYTES, OPENING_S)
    if answer is None:
        return Listing(port.label, problem=f"its input does not open within {OPENING_S:.0f} s")
    said = answer[0].decode("utf-8", "replace").splitlines()
    lines = tuple(choices(said))
    # Without an output FFmpeg always ends with a complaint; its last words are about the input where that is at fault.
    reason = next((text.strip() for text in reversed(said) if text.strip()), "FFmpeg says nothing")
    return Listing(port.label, lines, "" if lines else f"its input does not open: {reason[:200]}")


_STREAM = re.compile(r"Stream #(\d+):\d+(?:\[\w+\])?(?:\((\w+)\))?: (Video|Audio): (.*)")


def choices(lines: Iterable[str]) -> Iterator[str]:
    """What FFmpeg logs of its inputs (libavformat/dump.c; 5.1 and 7.1), in the configuration's words."""
    counts = {"Video": 0, "Audio": 0}
    indent, name = "", ""
    for line in lines:
        text = line.strip()
        key, _, value = text.partition(":")
        if text.startswith("Input #"):
            counts, indent = {"Video": 0, "Audio": 0}, ""
            yield f"input {text[7:].partition(',')[0]}"
        elif text.startswith("Program "):
            counts, indent, name = {"Video": 0, "Audio": 0}, "  ", text.split()[1]
            yield f"  program = {name}"
        elif text.startswith("No Program"):
            counts, indent, name = {"Video": 0, "Audio": 0}, "", ""
            yield "  in no programme"
        elif name and key.strip() in ("service_name", "variant_bitrate"):
            yield f"    {key.strip()}: {_printable(value.strip())}"
        elif found := _STREAM.match(text):
            _, language, kind, what = found.groups()
            of_language = f" ({language})" if language else ""
            yield f"  {indent}{kind.lower()}_stream = {counts[kind]}{of_language}: {_printable(what)}"
            counts[kind] += 1


def _printable(text: str) -> str:
    """A sender's words for a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)[:160]
