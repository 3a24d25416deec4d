"""Tells a port's ledger of a start that systemd could not make (a sandbox that cannot be set up), for want of a runner.

sdi-record-retry@.service runs this, as the user sdisup, before each of its tries. Standard library only.
"""

from __future__ import annotations

import os

from sdisup.contract.files import RUN_DIRECTORY, boot_id, replace_file
from sdisup.ledger.spool import (
    WAITS,
    Spool,
    acknowledged,
    entered_path,
    read_spool,
    sequence_of,
    spool_directory,
    spool_path,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CAUSE = "unit cannot be started"


def main(arguments: Sequence[str], run_directory: str = RUN_DIRECTORY) -> int:
    """The arguments are the port, and when systemd tried to start it (CLOCK_MONOTONIC, microseconds)."""
    port_index, tried_at = int(arguments[0]), int(arguments[1]) / 1e6
    mark = f"{spool_directory(port_index, run_directory)}/unstarted"
    # Without a spool no runner has told anything in this boot: the ledger has the time since the last one as a gap.
    if not os.path.exists(spool_path(port_index, run_directory)) or _is_told(port_index, mark, run_directory):
        return 0
    spool = Spool(port_index, run_directory)
    spool.tell(WAITS, tried_at, cause=CAUSE, take=None)
    if spool.problem:
        return 1
    replace_file(mark, _state(port_index, run_directory))
    return 0


def _is_told(port_index: int, mark: str, run_directory: str) -> bool:
    """Whether nobody has told the ledger anything since this was told last."""
    try:
        with open(mark, "rb") as file:
            return file.read() == _state(port_index, run_directory)
    except FileNotFoundError:
        return False


def _state(port_index: int, run_directory: str) -> bytes:
    """The sequence of the last event, also of one that is entered and has left the spool."""
    events, _ = read_spool(spool_path(port_index, run_directory))
    entered = acknowledged(entered_path(port_index, run_directory), boot_id())
    return str(max([entered, *(sequence_of(event) for event in events[-1:])])).encode()
