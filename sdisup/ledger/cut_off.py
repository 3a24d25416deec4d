"""What a power cut ended of a port that nobody started again, as its open record has it (`ledger/open_record.py`).

`sdisup status` asks this of each port that has not run since boot: where nothing was going on, it costs one file, and
none of the ledger's modules.
"""

from __future__ import annotations

from sdisup.contract.files import STATE_DIRECTORY, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.ledger.moments import Interval

ENDED_BEFORE = ("cannot work", "open record lost")
"""Gaps that were no port's that was about to record."""
LIMIT_BYTES = 64 << 20
"""More than a hundred thousand entries may wait for the ledger's disk."""


def open_path(port_index: int, directory: str = f"{STATE_DIRECTORY}/ledger") -> str:
    """Where a port's open record is."""
    return f"{directory}/{port_index}.open.json"


def cut_off(port_index: int, this_boot: str, directory: str = f"{STATE_DIRECTORY}/ledger") -> Interval | None:
    """What was to record when the machine went down without a shutdown, as a gap with its take; None if nothing was.

    The port has not run since then, nor was it stopped.
    """
    try:
        record = read_json(open_path(port_index, directory), LIMIT_BYTES)
    except (FileNotFoundError, ValueError):
        # The answers of `sdisup gaps` say what is wrong with it.
        return None
    return _cut_off(port_index, this_boot, record) if _is_open(record) else None


def _is_open(record: object) -> bool:
    """Whether a file or a gap was going on. What is no record of ours may be anything."""
    if not isinstance(record, dict):
        return False
    interval = record.get("interval")
    is_stop = isinstance(interval, dict) and interval.get("kind") == "stop"
    return bool(record.get("files") or record.get("file")) or not (interval is None or is_stop)


def _cut_off(port_index: int, this_boot: str, record: object) -> Interval | None:
    from sdisup.ledger.moments import Interval
    from sdisup.ledger.story import Story

    story = Story(port_index)
    try:
        story.recall(record)
    except ValueError:
        # As above.
        return None
    for file in story.files:
        if file.start is not None and file.start.boot != this_boot:
            return Interval("gap", "power", file.start, file.take_at_end)
    found = story.interval
    if found is None or found.kind != "gap" or found.start.boot == this_boot or found.what in ENDED_BEFORE:
        return None
    return found
