"""Tells a port's ledger of times in which the port should have recorded by its schedule, and did not.

sdi-schedule@.service runs this as the user sdisup, before it starts the port: in a spool of the schedule's own beside
the runner's. Standard library only.
"""

from __future__ import annotations

from sdisup.contract import lean
from sdisup.contract.files import RUN_DIRECTORY, Fields, monotonic, up_seconds
from sdisup.ledger.spool import DUE, SCHEDULE, Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str], run_directory: str = RUN_DIRECTORY) -> int:
    """The arguments are the port, and a JSON list of times, each `first` and `last` (Unix times) and its `take`."""
    times = [Fields(item, "a time") for item in lean.decode(arguments[1])]
    spool = Spool(int(arguments[0]), run_directory, teller=SCHEDULE)
    now = monotonic()
    for fields in times:
        first, last = fields.number("first"), fields.number("last")
        spool.tell(DUE, now, first=first, last=last, take=fields.text_or_none("take"), boot_at=now - up_seconds())
    return 1 if spool.problem else 0
