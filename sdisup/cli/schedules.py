"""`sdisup schedule`: what ports will record, as a table or for JSON. Pure, but for the system's time zone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdisup.cli.words import LocalTexts, length_text
from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import utc_text
from sdisup.control.schedules import Slot

COLUMNS = ("PORT", "NAME", "START", "END", "LENGTH", "TAKE", "")


def lines(found: Sequence[tuple[AppliedPort, Slot]], now: float) -> list[str]:
    """A header and a line for each time; times are local."""
    texts = LocalTexts()
    rows = [COLUMNS, *(_cells(port, slot, now, texts) for port, slot in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(port: AppliedPort, slot: Slot, now: float, texts: LocalTexts) -> tuple[str, ...]:
    is_open = slot.end == math.inf
    end, length = ("-", "-") if is_open else (texts.text(utc_text(slot.end)), length_text(slot.end - slot.start))
    return (
        str(port.index), port.name, texts.text(utc_text(slot.start)), end, length, slot.take or "-",
        "now" if slot.start <= now < slot.end else "",
    )  # fmt: skip


def document(found: Sequence[tuple[AppliedPort, Slot]]) -> list[dict[str, object]]:
    """The same for JSON; times are UTC."""
    return [
        {
            "port_index": port.index,
            "name": port.name,
            "start": utc_text(slot.start),
            "end": None if slot.end == math.inf else utc_text(slot.end),
            "take": slot.take,
            "pre_roll_s": slot.pre_roll_s,
            "post_roll_s": slot.post_roll_s,
        }
        for port, slot in found
    ]
