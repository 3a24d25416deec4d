"""The open record, `N.open.json` beside the ledger: what goes on at a port and is in no line of its ledger yet.

The ledger's writer replaces it durably before it appends the entries that it holds; so whatever a cut leaves, the
next writer knows by their numbers which of them the ledger has.
"""

from __future__ import annotations

import os

from sdisup.contract import lean
from sdisup.contract.files import RUN_DIRECTORY, Exhausted, read_json, replace_file
from sdisup.ledger.cut_off import LIMIT_BYTES, open_path
from sdisup.ledger.lines import LEDGER_DIRECTORY, Entry, Problem, last_entry, ledger_path
from sdisup.ledger.moments import Interval, end_of
from sdisup.ledger.story import Story


def former_path(port_index: int, run_directory: str = RUN_DIRECTORY) -> str:
    """Where the runner of an earlier version kept the record while the ledger could not be written."""
    return f"{run_directory}/{port_index}.ledger.json"


def save_story(path: str, story: Story) -> None:
    """Replace the open record durably. Raises OSError."""
    replace_file(path, lean.encode(story.as_dict()).encode(), durable=True)


def load_story(
    port_index: int,
    directory: str = LEDGER_DIRECTORY,
    run_directory: str = RUN_DIRECTORY,
    *,
    goes_on: bool = False,
) -> tuple[Story, list[Problem]]:
    """A port's story as its open record holds it, and why that could not be read; an empty one where there is none.

    With `goes_on` a lost record's time is a gap since the ledger's last entry. Raises Exhausted and OSError where there
    is one and no descriptor is left to read it with.
    """
    story = Story(port_index)
    last = last_entry(ledger_path(port_index, directory))
    path = open_path(port_index, directory)
    problems: list[Problem] = []
    for candidate in (former_path(port_index, run_directory), path):
        try:
            story.recall(read_json(candidate, LIMIT_BYTES))
        except FileNotFoundError:
            continue
        except Exhausted:
            # What is there must not count as lost.
            raise
        except ValueError as error:
            problems.append(Problem(candidate, 0, getattr(error, "problem", str(error))))
            continue
        _leave_out_entered(story, last)
        return story, problems
    if last is not None:
        if not problems:
            problems.append(Problem(path, 0, "is missing, and with it what went on since the ledger's last entry"))
        end = end_of(last) if goes_on else None
        story.interval = Interval("gap", "open record lost", end, None) if end else None
    _leave_out_entered(story, last)
    return story, problems


def _leave_out_entered(story: Story, last: Entry | None) -> None:
    number = last.get("number") if last else None
    if type(number) is int:
        story.entered(number)
        story.number = max(story.number, number)


def remove_former(port_index: int, run_directory: str) -> None:
    """What an earlier version's runner kept is in the open record now. Raises OSError."""
    try:
        os.unlink(former_path(port_index, run_directory))
    except FileNotFoundError:
        return


def remove_unfinished(path: str) -> None:
    """Remove what earlier writers, killed while they replaced the record, left beside it. Raises OSError."""
    directory, own = os.path.split(path)
    for name in os.listdir(directory):
        if name.startswith(f"{own}.") and name.endswith(".tmp"):
            os.unlink(f"{directory}/{name}")
