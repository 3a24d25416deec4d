"""All that a decision is made of, gathered: rules, ledgers, protections, disks, clock. Changes nothing."""

from __future__ import annotations

import time

from sdisup.contract import lean
from sdisup.contract.applied import APPLIED_PATH, Applied, load_applied
from sdisup.contract.disks import disk_path, remembered_disk
from sdisup.contract.files import (
    RUN_DIRECTORY,
    STATE_DIRECTORY,
    Unreadable,
    boot_id,
    boottime_ns,
    monotonic,
    read_fields,
    replace_file,
)
from sdisup.contract.protections import DIRECTORY, Protections, load_protections
from sdisup.contract.records import Record
from sdisup.contract.retention import RULES_PATH, Retention, load_rules
from sdisup.ledger.lines import LEDGER_DIRECTORY, ledger_path
from sdisup.ledger.moments import Moment, TakenFile
from sdisup.ledger.present import port_present, waiting_entries, with_ledgers
from sdisup.retention.clock import Mark, Sight, doubt, is_synchronised
from sdisup.retention.disk import Disks, Recordings
from sdisup.retention.known import Known, Told
from sdisup.retention.plan import OPEN, File, Plan, make_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdisup.ledger.present import Present
    from sdisup.ledger.story import Story

CONFIRMED_PATH = f"{STATE_DIRECTORY}/clock-confirmed.json"
"""When root said that the clock is right."""
BELIEVED_PATH = f"{STATE_DIRECTORY}/retention/clock"
"""The last moment at which the clock was believed, which outlives the boot (StateDirectory= of the unit)."""


class Places(Record):
    """Where everything is; the defaults are the appliance's."""

    ledgers: str = LEDGER_DIRECTORY
    run: str = RUN_DIRECTORY
    applied: str = APPLIED_PATH
    rules: str = RULES_PATH
    protected: str = DIRECTORY
    confirmed: str = CONFIRMED_PATH
    believed: str = BELIEVED_PATH


APPLIANCE = Places()


class Survey(Record):
    """What was found, and what is to be done. `told` are deletions that a ledger has, whose files are there all the
    same; `files` those that are there, in the order of their ends; `clock_doubt` is why nothing goes for its age."""

    retention: Retention
    plan: Plan
    told: list[Told]
    disks: Disks
    files: list[File]
    clock_doubt: str
    now: Mark
    bad_lines: int

    def again(self) -> Survey:
        """What is to be done once some of the files went, and some were found that cannot go."""
        self.disks.look_again()
        files = [file for file in self.files if file.space]
        is_believed = not self.clock_doubt
        plan = make_plan(files, self.retention, self.disks.spaces, self.now.wall, is_clock_believed=is_believed)
        return self.replaced(plan=plan, files=files)

    def problems(self) -> dict[str, str]:
        """What an operator should know, by what it is about."""
        has_age = any(self.retention.value("max_age", port) for port in [-1, *self.retention.own])
        clock = {"clock": f"nothing goes for its age: {self.clock_doubt}"} if self.clock_doubt and has_age else {}
        return {**self.disks.problems, **clock, **self.plan.problems}


def survey(places: Places = APPLIANCE) -> Survey:
    """Look at all. Raises SdisupError, Unreadable, OSError where something cannot be read that may say no."""
    retention, protections = load_rules(places.rules), Protections(load_protections(places.protected))
    applied = load_applied(places.applied)
    here = Moment(time.time(), monotonic(), boot_id())
    known = Known(here, protections.of)
    ports = list(with_ledgers(applied, places.ledgers).ports.values())
    for port in ports:
        targets = [offload.name for offload in applied.offloads if not offload.ports or port.index in offload.ports]
        waits_for = targets if retention.value("after_copy", port.index) else None
        # The ledger last: what is on its way meanwhile is found twice, and never missed.
        present, story, _ = port_present(port, places.ledgers, places.run)
        known.read(port.index, ledger_path(port.index, places.ledgers), waits_for=waits_for)
        for entry in waiting_entries(story):
            # Told by a run that was killed, and not in the ledger yet: the next run removes it.
            if entry["kind"] == "delete":
                known.files.pop(str(entry.get("path")), None)
        for path in _open_paths(present, story):
            if path in known.files:
                known.files[path].kept = OPEN
    disks = Disks()
    disks.open(recordings_of(applied, places.run))
    disks.look(known.files)
    told = {one.file.path: one for one in known.told if one.file.path not in known.files and not one.file.kept}
    disks.look({path: one.file for path, one in told.items()})
    left = [one for one in told.values() if one.file.space]
    files = sorted((file for file in known.files.values() if file.space), key=lambda file: file.end)
    now = Mark(here.wall, boottime_ns() / 1e9, here.boot)
    believed, confirmed = read_mark(places.believed), read_mark(places.confirmed)
    why = doubt(Sight(now, is_synchronised(), known.last_end, believed, confirmed))
    plan = make_plan(files, retention, disks.spaces, here.wall, is_clock_believed=not why)
    return Survey(retention, plan, left, disks, files, why, now, known.problems)


def _open_paths(present: Present, story: Story) -> Iterator[str]:
    """The files of a port that are being recorded, or whose frames are not counted yet."""
    if present.status is not None and present.status.current_file:
        yield present.status.current_file
    yield from (item.path for item in (*story.files, *story.waiting()) if isinstance(item, TakenFile))


def recordings_of(applied: Applied, run_directory: str) -> list[Recordings]:
    """The directories that ports record to, each with what it has to be on, as the ports' runners know it."""
    found: dict[str, Recordings] = {}
    for port in applied.ports.values():
        if not port.recordings:
            continue
        former = found.get(port.recordings)
        filesystem = port.filesystem or remembered_disk(disk_path(port.index, run_directory), port.recordings)
        filesystem = filesystem or (former.filesystem if former else "")
        ports = (former.ports if former else frozenset()) | {port.index}
        found[port.recordings] = Recordings(port.recordings, filesystem, ports)
    return list(found.values())


def read_mark(path: str) -> Mark | None:
    """A moment at which the clock was right; None where there is no word of one."""
    try:
        return read_fields(path).record(Mark)
    except (FileNotFoundError, Unreadable):
        return None


def write_mark(path: str, mark: Mark, *, durable: bool = False) -> None:
    """Note that the clock is right now. Raises OSError."""
    replace_file(path, lean.encode(mark.as_dict()).encode(), durable=durable)
