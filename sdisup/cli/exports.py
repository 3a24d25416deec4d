"""What an export has made, as lines for people and as JSON for programs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sdisup.cli.tables import printable
from sdisup.cli.words import length_text
from sdisup.control.export import Exported
from sdisup.control.pieces import Cut


def lines(made: Exported) -> Iterator[str]:
    """The file and its length; below it, where something is missing, and what differs from what was asked for."""
    count = len(made.files)
    of = printable(made.files[0]) if count == 1 else f"{count} files"
    yield f"{printable(made.path)}: {made.frames} frames, {length_text(made.seconds)}, of {of}"
    if made.why:
        yield f"  a file of its own: {printable(made.why)}"
    for cut in made.cuts:
        at = length_text(cut.at_s)
        missing = f"{cut.missing_s:.1f} s are missing" if cut.missing_s else "something is missing"
        yield f"  at {at} (frame {cut.frame}) {missing}: {printable(cut.cause)}"
    if made.early_frames:
        yield f"  it begins {made.early_frames} frames before the take, with a key frame"
    if made.late_frames:
        yield f"  it ends {made.late_frames} frames after the take, before a key frame"
    if made.sound:
        yield f"  {made.sound}"
    for one in made.left_out:
        yield f"  left out: {printable(str(one))}"


def document(made: Exported) -> dict[str, object]:
    """An exported file for programs."""
    return {
        "path": made.path,
        "port_index": made.port_index,
        "take": made.take,
        "frames": made.frames,
        "seconds": made.seconds,
        "files": list(made.files),
        "cuts": [_cut(cut) for cut in made.cuts],
        "early_frames": made.early_frames,
        "late_frames": made.late_frames,
        "sound": made.sound,
        "why": made.why,
        "left_out": [{"path": one.path, "reason": one.reason} for one in made.left_out],
    }


def _cut(cut: Cut) -> dict[str, object]:
    return {
        "frame": cut.frame,
        "at_seconds": round(cut.at_s, 3),
        "missing_seconds": round(cut.missing_s, 3),
        "cause": cut.cause,
    }


def json_text(made: Sequence[Exported]) -> str:
    """A JSON list of them."""
    return json.dumps([document(one) for one in made], ensure_ascii=False, indent=2)


@contextmanager
def ended_well() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: what it has begun is cleared away."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
