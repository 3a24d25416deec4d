"""The status of ports as a table for people. Pure."""

from __future__ import annotations

import os
import time

from sdisup.contract.files import unix_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdisup.contract.status import PortStatus

COLUMNS = ("PORT", "NAME", "STATE", "FOR", "FRAMES", "FPS", "SPEED", "Mb/s", "LEFT", "DROPPED", "FILE", "REASON")
_RIGHT = {"PORT", "FOR", "FRAMES", "FPS", "SPEED", "Mb/s", "LEFT", "DROPPED"}
COLOURS = {"recording": "32", "stopped": "2", "starting": "33", "stopping": "33", "no-signal": "33"}
OTHER_COLOUR = "31"
NOTHING = "-"


def status_table(found: Sequence[PortStatus], now_monotonic: float, *, colour: bool) -> str:
    """A header and a line a port. FOR is how long the port is in its state; `Mb/s` are 10^6 bits a second; LEFT is how
    long there is room on its disk, with what retention may delete."""
    rows = [_cells(status, now_monotonic) for status in found]
    widths = [max(len(row[i]) for row in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    lines = [_line(COLUMNS, widths)]
    for row, status in zip(rows, found, strict=True):
        line = _line(row, widths)
        if colour:
            # By the place of the state's cell: its word may stand in a name too.
            start = sum(widths[:2]) + 4
            end = start + len(row[2])
            code = COLOURS.get(status.state, OTHER_COLOUR)
            line = f"{line[:start]}\x1b[{code}m{line[start:end]}\x1b[0m{line[end:]}"
        lines.append(line)
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for cell, width, name in zip(cells, widths, COLUMNS, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _cells(status: PortStatus, now_monotonic: float) -> list[str]:
    running = status.current_file is not None
    since = status.state_since_monotonic
    reason, left_s = status.reason, status.disk_remaining_with_retention_seconds
    notes = {"its next start takes a changed unit": status.config_pending, "locked": status.is_locked}
    notes |= {
        f"{verb} {local_time(at)}": True for verb, at in (("starts", status.starts_at), ("ends", status.ends_at)) if at
    }
    reason = "; ".join(text for text in (reason, *(note for note, holds in notes.items() if holds)) if text)
    cells = [
        str(status.port_index),
        status.name,
        status.state,
        duration_text(now_monotonic - since) if since and status.state != "unknown" else NOTHING,
        str(status.frame_count) if running else NOTHING,
        f"{status.fps:.1f}" if running else NOTHING,
        f"{status.speed:.2f}x" if running and status.speed is not None else NOTHING,
        f"{status.bitrate_mbps:.1f}" if running else NOTHING,
        NOTHING if left_s is None else duration_text(left_s),
        str(status.dropped_frames) if running else NOTHING,
        os.path.basename(status.current_file or NOTHING),
        reason,
    ]
    return [printable(cell) for cell in cells]


def local_time(utc: str) -> str:
    """A time of the status in local time: `23:00:00`, with the day where that is another one."""
    try:
        then, now = (time.localtime(moment) for moment in (unix_time(utc), time.time()))
    except (ValueError, OverflowError, OSError):
        # What somebody has put into a status file.
        return utc
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)


def printable(text: str) -> str:
    """`text` without control characters: the recorder's user and FFmpeg wrote it, and a terminal would obey them."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def duration_text(seconds: float) -> str:
    """`7s`, `3m05s`, `2h07m`, `4d03h`: the two largest units."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
