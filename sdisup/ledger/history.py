"""Finds what the queries need: which ports have a ledger, what is in it, and what goes on there just now."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from sdisup.contract.applied import Applied, AppliedPort, is_port_number
from sdisup.contract.files import RUN_DIRECTORY, boot_id, up_seconds
from sdisup.contract.status import find_status, is_locked
from sdisup.ledger.accounts import Account, Window, account_of, line_of, scan
from sdisup.ledger.lines import LEDGER_DIRECTORY, Problem, last_entry, ledger_path, open_path, waiting_path
from sdisup.ledger.moments import Moment
from sdisup.ledger.present import Present, rows_of, waiting_entries
from sdisup.ledger.story import Story
from sdisup.runner.chronicle import read_records

CATCH_UP_S = 0.3


def with_ledgers(applied: Applied, directory: str = LEDGER_DIRECTORY) -> Applied:
    """The configured ports and those that are no longer, but have a ledger: their recordings are still there."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        names = []
    numbers = (name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl"))
    ports = {int(number): _unconfigured(int(number)) for number in numbers if is_port_number(number)}
    return Applied(dict(sorted({**ports, **applied.ports}.items())), applied.files)


def _unconfigured(index: int) -> AppliedPort:
    return AppliedPort(index, f"port{index}", codec="", recordings="", record_at_boot=False, revision="")


def accounts(
    kind: str,
    ports: Sequence[AppliedPort],
    window: Window,
    directory: str = LEDGER_DIRECTORY,
    run_directory: str = RUN_DIRECTORY,
) -> tuple[list[tuple[int, str, Account]], list[str]]:
    """Each port's account with its index and name, and what could not be read, in the operator's words."""
    found, remarks = [], []
    for port in ports:
        account, problems = port_account(kind, port, window, directory, run_directory)
        found.append((port.index, port.name, account))
        remarks += problems
    return found, remarks


def port_account(
    kind: str, port: AppliedPort, window: Window, directory: str, run_directory: str
) -> tuple[Account, list[str]]:
    """One port's account. Its open record is read first: what it enters meanwhile is then found in the ledger."""
    present = present_of(port, run_directory)
    story, problems = open_story(port.index, directory, run_directory)
    if present.is_behind(story):
        # Between an event's status and its entry there are some milliseconds.
        time.sleep(CATCH_UP_S)
        present = present_of(port, run_directory)
        story, problems = open_story(port.index, directory, run_directory)
    rows = rows_of(story, present)
    waiting = [line_of(entry) for entry in waiting_entries(story)]
    path = ledger_path(port.index, directory)
    account, in_ledger = account_of(kind, scan(path), waiting, rows, window)
    problems += in_ledger
    remarks = [str(problem) for problem in problems]
    if present.status is not None and "the ledger" in present.status.reason:
        remarks.append(f"{port.label}: {present.status.reason}")
    return account, remarks


def present_of(port: AppliedPort, run_directory: str = RUN_DIRECTORY) -> Present:
    """What a port does now, by its lock and its status."""
    is_alive = is_locked(port.index, run_directory)
    now = Moment(time.time(), time.monotonic(), boot_id())
    boot = now.plus(-up_seconds())
    # `sdisup status` says what is wrong with one that cannot be read; the ledger's answer does not depend on it.
    status = find_status(port.index, run_directory)
    return Present(now, boot, is_alive=is_alive, records_at_boot=port.record_at_boot, status=status)


def open_story(
    index: int, directory: str = LEDGER_DIRECTORY, run_directory: str = RUN_DIRECTORY
) -> tuple[Story, list[Problem]]:
    """A port's open record, and why it could not be read; an empty one where there is none."""
    story = Story(index)
    path = open_path(index, directory)
    records, problems = read_records(waiting_path(index, run_directory), path)
    if any(story.recall(record) for _, record in records):
        return story, problems
    if records:
        problems.append(Problem(path, 0, "is no open record of this port, or of a newer version"))
    if not problems and last_entry(ledger_path(index, directory)):
        problems.append(Problem(path, 0, "is missing, and with it what went on since the ledger's last entry"))
    return story, problems
