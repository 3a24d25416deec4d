"""Which encoder each port gets that asks for a graphics card: a second of a test picture tells what works here.

A card limits how many pictures it encodes at once, so all ports that want it are tried together. What it refuses goes
to the next way, and in the end to software.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sdisup.config.codecs import AUTO, HARDWARE, SOFTWARE
from sdisup.config.settings import Port
from sdisup.contract.programs import Program
from sdisup.contract.records import Record
from sdisup.encode.command import Capabilities, trial_arguments

TRIAL_TIMEOUT_S = 20.0
ANSWER_BYTES = 64 * 1024


class Choice(Record):
    """The encoder that a port gets, and why not another: pairs of a way and the reason."""

    encoder: str
    refused: tuple[tuple[str, str], ...]


def choose_encoders(
    ports: Iterable[Port],
    ffmpeg: str,
    capabilities: Capabilities,
    kept: Mapping[int, str],
    closed: Mapping[str, str] | None = None,
) -> dict[int, Choice]:
    """By index, the encoder of each port that does not ask for software.

    `kept` are the encoders that ports are recording with: they hold a card's place and are not tried. A port that asks
    for one way keeps it, also where it does not work here. `closed` are ways that the recorder's user cannot go, with
    the reason: root, who tries them, could.
    """
    asking = {port.index: port for port in ports if port.encoder != SOFTWARE and port.codec_has_hardware}
    chosen = {index: Choice(kept[index], ()) for index, port in asking.items() if _is_kept(port, kept)}
    refused: dict[int, list[tuple[str, str]]] = {index: [] for index in asking}
    for way in HARDWARE:
        tried = []
        for index, port in asking.items():
            if index in chosen or port.encoder not in (AUTO, way):
                continue
            as_way = port.replaced(encoder=way)
            if not as_way.fits_hardware:
                refused[index].append((way, "takes no such picture"))
            elif as_way.ffmpeg_encoder not in capabilities.encoders:
                # missing_capabilities says so of a port that asks for this one.
                if port.encoder == AUTO:
                    refused[index].append((way, f"{ffmpeg} has no encoder '{as_way.ffmpeg_encoder}'"))
            elif closed and way in closed:
                refused[index].append((way, closed[way]))
            else:
                tried.append(as_way)
        for port, reason in zip(tried, try_ports(tried, ffmpeg), strict=True):
            if reason:
                refused[port.index].append((way, reason))
            else:
                chosen[port.index] = Choice(way, tuple(refused[port.index]))
    for index, port in asking.items():
        fallback = SOFTWARE if port.encoder == AUTO else port.encoder
        chosen.setdefault(index, Choice(fallback, tuple(refused[index])))
    return {index: chosen[index] for index in asking}


def _is_kept(port: Port, kept: Mapping[int, str]) -> bool:
    way = kept.get(port.index)
    return way in HARDWARE and port.encoder in (AUTO, way) and port.fits_hardware


def try_ports(ports: Sequence[Port], ffmpeg: str) -> list[str]:
    """Why each of the ports cannot be encoded as it asks for, "" where it can: all are tried at once."""
    started: list[Program | str] = []
    for port in ports:
        try:
            started.append(Program(trial_arguments(port, ffmpeg), with_stderr=True))
        except (OSError, ValueError) as error:
            started.append(f"cannot be executed: {error}")
    return [program if isinstance(program, str) else _outcome(program) for program in started]


def _outcome(program: Program) -> str:
    answer = program.answer(ANSWER_BYTES, TRIAL_TIMEOUT_S)
    if answer is None:
        return f"gave no second of pictures within {TRIAL_TIMEOUT_S:g} s"
    text, code = answer
    if code == 0:
        return ""
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    # The first line is the encoder's or the driver's; what follows is FFmpeg's about it.
    said = lines[0].partition("] ")[2] or lines[0] if lines else f"exit code {code}"
    return "".join(character for character in said if character.isprintable())[:200]


def describe(ports: Mapping[int, Port], choices: Mapping[int, Choice]) -> list[str]:
    """What each choice is and why, a line each: `port 0 (CAM1): auto takes vaapi (nvenc: Cannot load libcuda.so.1)`."""
    texts = []
    for index, choice in choices.items():
        port = ports[index]
        reasons = "; ".join(f"{way}: {reason}" for way, reason in choice.refused)
        if port.encoder == AUTO:
            texts.append(f"{port.label}: encoder auto takes {choice.encoder}" + (f" ({reasons})" if reasons else ""))
        elif reasons:
            hint = "choose auto or software, or see to the card and its group (render): ls -l /dev/dri /dev/nvidia*"
            texts.append(f"{port.label}: encoder {port.encoder} does not work here ({reasons}): {hint}")
    return texts
