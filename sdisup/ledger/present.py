"""A port's account up to now: its ledger, what waits to be entered, and what goes on, from spool, record and status.

What a living runner records ends now. A record of a dead runner, or of an earlier boot, says what went on when
it was written, and nobody knows yet how that ended: the port's next start finds out.
"""

from __future__ import annotations

import os
import time

from sdisup.contract.applied import Applied, AppliedPort, is_port_number
from sdisup.contract.files import RUN_DIRECTORY, boot_id, unix_time, up_seconds, utc_text
from sdisup.contract.status import PortStatus, find_status, is_alive, is_going_on, stopped_at
from sdisup.ledger.accounts import Account, Row, Window, account_of, line_of, scan
from sdisup.ledger.entries import LEAST_REPEATED, extent, short_cause
from sdisup.ledger.health import ledger_problem, port_problem
from sdisup.ledger.lines import LEDGER_DIRECTORY, Entry, Problem, ledger_path, wrong_entry
from sdisup.ledger.moments import FileEnd, Interval, Moment, Sleep, TakenFile
from sdisup.ledger.open_record import load_story
from sdisup.ledger.spool import (
    OTHERS,
    SCHEDULE,
    SOURCE_LOSES,
    acknowledged,
    after,
    entered_path,
    in_order,
    read_spool,
    sequence_of,
    spool_path,
)
from sdisup.ledger.story import Story

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_COUNTED = "its frames are not counted yet"
CLOSING = "is being closed; the recording goes on in the next file"
BEHIND = "the port goes on without it, and what came then was not told yet: see sdisup status"
TRIES = 3
"""How often it is asked again while an event comes between two of the questions."""
UNTIL_STARTED = "is not known until the port is started"


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
    """One port's account, and what could not be read."""
    present, story, problems = port_present(port, directory, run_directory)
    rows = rows_of(story, present)
    waiting = [line_of(entry) for entry in waiting_entries(story)]
    account, in_ledger = account_of(kind, scan(ledger_path(port.index, directory)), waiting, rows, window)
    remarks = [str(problem) for problem in problems + in_ledger]
    problem = port_problem(port.index, run_directory)
    if not problem and has_waiting(port.index, run_directory):
        problem = ledger_problem(run_directory)
    return account, [*remarks, f"{port.label}: {problem}"] if problem else remarks


def has_waiting(port_index: int, run_directory: str = RUN_DIRECTORY) -> bool:
    """Whether the port's runner told something that the ledger's process has not made safe yet."""
    events, _ = read_spool(spool_path(port_index, run_directory))
    path = entered_path(port_index, run_directory)
    return bool(events) and sequence_of(events[-1]) > acknowledged(path, str(events[-1]["boot"]))


def port_present(
    port: AppliedPort, directory: str = LEDGER_DIRECTORY, run_directory: str = RUN_DIRECTORY
) -> tuple[Present, Story, list[Problem]]:
    """What a port does now, what is in no line of its ledger yet, and what could not be read.

    The status is read first, then the spool, then the open record, the ledger last: what is on its way meanwhile is
    found in two of them and never in none.
    """
    for _ in range(TRIES):
        present = present_of(port, run_directory)
        events, problems = read_spool(spool_path(port.index, run_directory))
        story, in_record = load_story(port.index, directory, run_directory)
        due, wrong = read_spool(spool_path(port.index, run_directory, SCHEDULE))
        problems += wrong
        new = after(events, story.boot, story.sequence)
        for teller, event in in_order(new, after(due, *story.others.get(SCHEDULE, ("", 0)))):
            try:
                if teller:
                    story.take_from(teller, event)
                else:
                    story.take(event)
            except ValueError as error:
                problems.append(Problem(spool_path(port.index, run_directory, teller), 0, str(error)))
        problems += _take_others(story, run_directory)
        if not present.is_behind(story):
            break
    return present, story, problems + in_record


def _take_others(story: Story, run_directory: str) -> list[Problem]:
    """What others than the runner have told of the port's files, and what of it cannot be read."""
    problems = []
    for teller in (other for other in OTHERS if other != SCHEDULE):
        path = spool_path(story.port_index, run_directory, teller)
        events, wrong = read_spool(path)
        problems += wrong
        for event in after(events, *story.others.get(teller, ("", 0))):
            try:
                story.take_from(teller, event)
            except ValueError as error:
                problems.append(Problem(path, 0, str(error)))
    return problems


def present_of(port: AppliedPort, run_directory: str = RUN_DIRECTORY) -> Present:
    """What a port does now, by its status."""
    now = Moment(time.time(), time.monotonic(), boot_id())
    boot = now.plus(-up_seconds())
    # `sdisup status` says what is wrong with one that cannot be read; the ledger's answer does not depend on it.
    status = find_status(port.index, run_directory)
    going_on = is_going_on(port.index, run_directory)
    return Present(
        now, boot, is_alive=is_alive(status), is_going_on=going_on, records_at_boot=port.record_at_boot, status=status
    )


class Present:
    """What is known of a port now: `is_alive` whether its runner lives, `is_going_on` whether it was not stopped where
    none lives, `boot` when this boot began, `stopped_at` when it was stopped."""

    def __init__(
        self,
        now: Moment,
        boot: Moment,
        *,
        is_alive: bool,
        is_going_on: bool = False,
        records_at_boot: bool = False,
        status: PortStatus | None = None,
    ) -> None:
        self.now = now
        self.boot = boot
        self.is_alive = is_alive
        self.records_at_boot = records_at_boot
        self.status = status if is_alive else None
        stopped = None if is_alive or is_going_on else stopped_at(status, now.boot)
        self.stopped_at = None if stopped is None else now.plus(stopped - now.monotonic)

    def is_behind(self, story: Story) -> bool:
        """Whether the story says something else than the living runner's status: an event came in between."""
        status = self.status
        if status is None:
            return False
        if not story.is_recording():
            return status.is_recording
        return status.current_file not in [file.path for file in story.files]


def waiting_entries(story: Story) -> list[Entry]:
    """The entries that are complete and stand behind a file that is being counted."""
    return [item for item in story.waiting() if isinstance(item, dict) and not wrong_entry(item)]


def rows_of(story: Story, present: Present) -> list[Row]:
    """Files, gaps and stops that are in no entry yet, oldest first."""
    if not present.is_alive and not story.is_recording():
        story.rebooted(present.boot, records_at_boot=present.records_at_boot)
        if present.stopped_at is not None:
            story.stopped_unseen(present.stopped_at)
    rows: list[Row] = []
    before = ""
    for item in story.waiting():
        if isinstance(item, TakenFile):
            rows.append(_uncounted(item, story.sleeps))
            before = item.path if rows[-1].end is None else ""
        elif isinstance(item, Interval):
            rows.append(_interval(item, item.end, before, is_open=False))
            before = ""
    for file in story.files:
        if file.start is not None:
            rows += _alive(file, file.start, present) if present.is_alive else _left(file, present)
    if story.interval is not None and not story.is_recording():
        rows.append(_interval(story.interval, present.now, before, is_open=True))
    return rows


def _interval(interval: Interval, end: Moment | None, before: str, *, is_open: bool) -> Row:
    """`before` is a file whose end, and so this interval's beginning, is not known yet."""
    start = utc_text(interval.start.wall)
    row = Row(
        interval.kind,
        interval.what,
        start=None if before else start,
        end=utc_text(end.wall) if end else None,
        seconds=interval.seconds(end) if end and not before else None,
        take=interval.take,
        is_open=is_open,
        note=f"since the end of {before}; {NOT_COUNTED}" if before else "",
    )
    row.not_before = start
    return row


def _uncounted(file: TakenFile, sleeps: Sequence[Sleep]) -> Row:
    """A file that has ended, and of which FFmpeg's own count is all there is, if that."""
    end = file.end or FileEnd(file.path, verdict="cut off", cause="")
    start, last = extent(file, end, end.frames, sleeps)
    is_known = end.last_frame is not None
    return Row(
        "file",
        end.verdict,
        start=utc_text(start.wall),
        end=utc_text(last.wall) if is_known else None,
        seconds=start.seconds_to(last) if is_known else None,
        frames=end.frames if is_known else None,
        take=file.take,
        codec=file.codec,
        path=file.path,
        note=NOT_COUNTED,
    )


def _alive(file: TakenFile, start: Moment, present: Present) -> list[Row]:
    """The file that a living runner records, up to now; up to its last frame while none come."""
    status = present.status
    if status is None:
        return [_open_file(file, start, start.seconds_to(present.now), utc_text(present.now.wall))]
    if status.current_file != file.path and file.followed_at is not None:
        missed_s = file.missed / file.rate if file.rate else 0.0
        seconds = max(0.0, start.seconds_to(file.followed_at) - missed_s)
        row = _open_file(file, start, seconds, utc_text(file.followed_at.wall))
        row.note = CLOSING
        return [row]
    if status.current_file != file.path:
        row = _open_file(file, start, None, None)
        row.note = BEHIND
        return [row]
    counts = _file_counts(status)
    short_s, missed_s = (counts.short_frames / file.rate, file.missed / file.rate) if file.rate else (0.0, 0.0)
    last, rows = present.now, []
    if status.state == "stalled" and status.last_frame_at:
        last = present.now.plus(-_age_s(status))
        rows = [_interval(Interval("gap", "stalled", last, file.take_at_end), present.now, "", is_open=True)]
    seconds = max(0.0, start.seconds_to(last) - short_s - missed_s)
    recorded = _open_file(file, start, seconds, utc_text(last.wall))
    recorded.frames, recorded.size_bytes = counts.frame_count, counts.bytes_written
    recorded.duplicated, recorded.dropped = counts.duplicated_frames, counts.dropped_frames
    # Those of a hole that is just over are the next event's.
    repeated = max(0, counts.missing_frames - counts.short_frames - file.missed)
    why, short = file.repeated_cause or SOURCE_LOSES, short_cause(file.codec, file.repeated_cause)
    for lost_s, frames, cause in ((short_s, counts.short_frames, short), (0.0, repeated, why)):
        if frames > LEAST_REPEATED * counts.frame_count:
            gap = Row("gap", cause, start=recorded.start, end=recorded.end, seconds=lost_s, is_open=True)
            gap.frames, gap.take, gap.path = frames, file.take, file.path
            rows.append(gap)
    return [recorded, *rows]


def _file_counts(status: PortStatus) -> PortStatus:
    """The status with the counts of its current file in place of those of FFmpeg, which may have written others."""
    own = {name.removeprefix("file_"): value for name, value in status.as_dict().items() if name.startswith("file_")}
    return status.replaced(**{name: value for name, value in own.items() if value is not None})


def _age_s(status: PortStatus) -> float:
    """How long no frame had come when the runner wrote its status."""
    try:
        return max(0.0, unix_time(status.updated_at or "") - unix_time(status.last_frame_at or ""))
    except ValueError:
        return 0.0


def _open_file(file: TakenFile, start: Moment, seconds: float | None, end: str | None) -> Row:
    return Row(
        "file",
        "",
        start=utc_text(start.wall),
        end=end,
        seconds=seconds,
        take=file.take,
        codec=file.codec,
        path=file.path,
        is_open=end is not None,
    )


def _left(file: TakenFile, present: Present) -> list[Row]:
    """The file that a dead runner recorded, and the gap since, which began nobody knows when."""
    assert file.start is not None
    is_power = file.start.boot != present.now.boot
    row = _open_file(file, file.start, None, None)
    if file.followed_at is not None:
        row.end, row.note = utc_text(file.followed_at.wall), NOT_COUNTED
        return [row]
    row.note = f"recording when {'the power went' if is_power else 'its runner ended'}; its end {UNTIL_STARTED}"
    gap = Row("gap", "power" if is_power else "runner killed", start=None, end=utc_text(present.now.wall), seconds=None)
    gap.take, gap.is_open, gap.not_before = file.take_at_end, True, utc_text(file.start.wall)
    gap.note = f"since the end of {file.path}, which {UNTIL_STARTED}"
    stopped = present.stopped_at
    if stopped is None:
        return [row, gap]
    gap.is_open, gap.end = False, utc_text(stopped.wall)
    return [row, gap, _interval(Interval("stop", "operator", stopped, file.take_at_end), present.now, "", is_open=True)]
