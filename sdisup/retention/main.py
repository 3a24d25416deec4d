"""The process of sdi-retention.service: removes the finished files that the rules say, and ends.

A file's deletion is in its port's ledger, durable, before the file is removed; what a crash left between is done first
at the next run. Where the ledger does not answer, nothing is removed but for want of space: a recording that goes on is
worth more than the account of one that goes, and the journal has it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from sdisup.contract.disks import made_path, say_in
from sdisup.contract.files import Unreadable, boot_id, boottime_ns, monotonic
from sdisup.contract.retention import MIN_FREE, Report, files_text, read_report, size_text, write_report
from sdisup.errors import SdisupError
from sdisup.ledger.health import health_path, ledger_problem
from sdisup.ledger.spool import DELETE, OTHERS_ROOM_BYTES, RETENTION, Spool
from sdisup.retention.disk import GONE, Remover
from sdisup.retention.plan import IN_USE
from sdisup.retention.survey import APPLIANCE, Places, Survey, survey, write_mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sdisup.retention.plan import Deletion, File

BATCH = 500
"""So many are told to the ledger at once, or as many as have room in a port's spool."""
EVENT_BYTES = 300
"""What an event takes besides its path."""
SPACE_BATCH = 20
"""The same for want of space, which others may make meanwhile."""
ANSWER_S = 5.0
"""How long the ledger is waited for."""
POLL_S = 0.01
KEPT_MOST = 1000
"""So many files that stay are remembered until the next run, which says nothing of them again."""
VAIN_S = 20.0
"""How long a run that deleted nothing speaks for those that ports ask for. Where a path starts a unit, systemd sets
TRIGGER_PATH (systemd.exec(5), since 252)."""
FAILED = "retention"
"""The name of a problem that keeps from deleting anything."""
ERROR, WARNING, INFO = "<3>", "<4>", "<6>"
"""The journal's priorities, at the beginning of a line (sd-daemon(3))."""


class Run:
    """One run: `say` gets each line for the journal, but for what is `known` of files that stay."""

    def __init__(self, places: Places, say: Callable[[str, str], None], known: Collection[str] = ()) -> None:
        self._places, self._say, self._known = places, say, known
        self._spools: dict[int, Spool] = {}
        self.problems: dict[str, str] = {}
        self._deaf = ""
        """Why the ledger is not waited for any more."""
        self._begins_by = monotonic() + ANSWER_S
        """So long a ledger's process that was started with this run has time to begin."""
        self.deleted = self.deleted_bytes = self.kept = 0
        self.said: list[str] = []

    def do(self) -> Report:
        """Look, remove, and report."""
        found = survey(self._places)
        if not found.clock_doubt:
            # The system's disk may be full, perhaps of recordings: the mark before it speaks for this boot as well.
            with contextlib.suppress(OSError):
                write_mark(self._places.believed, found.now)
        remover = Remover(found.disks)
        try:
            for told in found.told:
                self._remove(remover, told.file, told.rule)
            kept = -1
            while kept != self.kept:
                # What cannot go makes no room: others go in its place.
                found, kept = found.again() if self.kept else found, self.kept
                for batch in _batches(found.plan.deletions):
                    self._delete(remover, batch, found)
        finally:
            remover.close()
        if self.deleted:
            found.disks.settle()
        self.problems = {**found.problems(), **self.problems}
        return Report(
            found.now.boot_id, found.now.boottime, self.problems, found.plan.freeable_bytes, self.deleted,
            self.deleted_bytes, tuple(self.said[:KEPT_MOST]), bool(found.plan.problems),
        )  # fmt: skip

    def _ledger_problem(self, rule: str) -> str:
        """What is wrong with the ledger's process. One that was started with this run begins in a moment."""
        while (problem := ledger_problem(self._places.run)) and rule != MIN_FREE and monotonic() < self._begins_by:
            if os.path.exists(health_path(self._places.run)):
                break
            time.sleep(POLL_S)
        return problem

    def _delete(self, remover: Remover, batch: Sequence[Deletion], found: Survey) -> None:
        due = [one for one in batch if self._may_go(remover, one, found)]
        problem = self._deaf or self._ledger_problem(batch[0].rule)
        if problem and batch[0].rule != MIN_FREE:
            # What is told now would be deleted whenever the ledger has it, whatever is said of it until then.
            due = []
        elif not self._tell(due, wait_s=0.0 if problem else ANSWER_S):
            # Its disk hangs or is full, as that of the recordings may be.
            problem = self._deaf = problem or f"the ledger has not answered for {ANSWER_S:g} s"
        if problem:
            self.problems["ledger"] = f"nothing is deleted but what a disk needs to be free: {problem}"
        for one in due:
            if not problem or one.rule == MIN_FREE:
                self._remove(remover, one.file, one.why)
        if due:
            say_in(made_path(self._places.run))

    def _may_go(self, remover: Remover, one: Deletion, found: Survey) -> bool:
        problem = remover.problem(one.file)
        if not problem:
            return not (one.rule == MIN_FREE and self._has_space(remover, one, found))
        self._keep(one.file, problem, one.why)
        return False

    def _keep(self, file: File, problem: str, rule: str) -> None:
        self.kept += 1
        if problem == IN_USE:
            file.kept = problem
        else:
            # It is no file of the ledger any more.
            file.space = ""
        text = f"{file.path} {problem}; it is not deleted ({rule})"
        if problem != GONE:
            self.said.append(text)
            if text not in self._known:
                self._say(WARNING, text)

    def _has_space(self, remover: Remover, one: Deletion, found: Survey) -> bool:
        """Whether somebody else has made room meanwhile. What is told and not removed yet is no room yet."""
        free = remover.free_bytes()
        return free >= found.retention.value(MIN_FREE, one.file.port_index)

    def _tell(self, due: Sequence[Deletion], wait_s: float) -> bool:
        """Tell the ledger, and wait until it has it durably; whether it has."""
        spools = []
        for port in sorted({one.file.port_index for one in due}):
            if port not in self._spools:
                self._spools[port] = Spool(port, self._places.run, teller=RETENTION)
            spools.append(self._spools[port])
            now = monotonic()
            for one in due:
                if one.file.port_index == port:
                    spools[-1].note(DELETE, now, path=one.file.path, inode=one.file.inode, rule=one.why)
            spools[-1].retry()
        until = monotonic() + wait_s
        while not all(spool.is_safe() for spool in spools):
            if monotonic() >= until:
                return False
            time.sleep(POLL_S)
        return True

    def _remove(self, remover: Remover, file: File, rule: str) -> None:
        problem = remover.remove(file)
        if problem:
            self._keep(file, problem, rule)
            return
        file.space = ""
        self.deleted += 1
        self.deleted_bytes += file.size_bytes
        self._say(INFO, f"deleted {file.path} ({size_text(file.size_bytes)}): {rule}")


def _batches(deletions: Sequence[Deletion]) -> list[list[Deletion]]:
    """In their order; those for want of space in small ones."""
    batches: list[list[Deletion]] = []
    room_bytes = 0
    for one in deletions:
        most, path = SPACE_BATCH if one.rule == MIN_FREE else BATCH, one.file.path
        # Of what is not ASCII a character takes six bytes.
        room_bytes -= EVENT_BYTES + len(path) * (1 if path.isascii() else 6)
        if not batches or batches[-1][0].rule != one.rule or len(batches[-1]) >= most or room_bytes < 0:
            batches.append([])
            room_bytes = OTHERS_ROOM_BYTES * 3 // 4
        batches[-1].append(one)
    return batches


def main(arguments: Sequence[str], places: Places = APPLIANCE) -> int:
    """`retention`; the exit code is the unit's."""
    if arguments:
        print("usage: retention", file=sys.stderr)
        return 2
    # Who opens a file just when it is removed: the kernel tells the holder of its lease (fcntl(2)).
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    before = read_report(places.run)
    if before is not None and _is_in_vain(before):
        return 0
    run = Run(places, _say, set(before.kept) if before else ())
    try:
        report = run.do()
    except (SdisupError, Unreadable, OSError) as error:
        text = f"nothing is deleted: {error}"
        report = Report(boot_id(), boottime_ns() / 1e9, {FAILED: text}, {}, run.deleted, run.deleted_bytes)
    known = before.problems if before else {}
    for name, text in report.problems.items():
        # Once, not every few minutes.
        if _words(known.get(name, "")) != _words(text):
            _say(ERROR, text)
    if run.deleted:
        _say(INFO, f"deleted {files_text(run.deleted)}, {size_text(run.deleted_bytes)}")
    try:
        write_report(report, places.run)
    except OSError as error:
        _say(ERROR, f"{places.run}: {error.strerror}")
    return 1 if FAILED in report.problems else 0


def _words(text: str) -> list[str]:
    """A problem without its numbers, which are others each time."""
    return [word for word in text.split() if not any(map(str.isdigit, word))]


def _is_in_vain(before: Report) -> bool:
    """Whether a port asks for room where there was nothing left to delete a moment ago: it asks every few seconds."""
    is_asked = bool(os.environ.get("TRIGGER_PATH"))
    return is_asked and before.is_short and not before.deleted and 0 <= boottime_ns() / 1e9 - before.at < VAIN_S


def _say(priority: str, text: str) -> None:
    print(f"{priority}{text}", flush=True)
