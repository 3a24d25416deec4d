"""The process of sdi-offload@NAME.service: copies what is finished and not copied yet to one target, then ends.

A timer starts it every minute. No recording waits for it, and nothing of it is anything but a matter of time: killed at
any moment, it goes on where the ledger says that it was.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import os
import sys
import time

from sdisup.contract.applied import Applied, AppliedOffload, AppliedPort, load_applied
from sdisup.contract.files import RUN_DIRECTORY, Unreadable, boot_id, monotonic, open_lock
from sdisup.contract.records import Record
from sdisup.errors import SdisupError
from sdisup.ledger.lines import LEDGER_DIRECTORY, Problem, ledger_path, read_ledger
from sdisup.ledger.present import with_ledgers
from sdisup.ledger.spool import COPY, OFFLOAD, Spool
from sdisup.offload.copying import Copied, copy
from sdisup.offload.directory import Directory
from sdisup.offload.plan import Known, Recorded, due, in_order, relative_path, target_path, unfinished_path
from sdisup.offload.remote import Remote
from sdisup.offload.source import COPIED, FileProblem, Gone, Refused, Source, TargetProblem
from sdisup.offload.state import GONE, WITH_TARGET, Entered, Going, State, load_state, offload_directory, save_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sdisup.offload.copying import Target

MACHINE_ID = "/etc/machine-id"
CREDENTIAL = "rclone.conf"
TELL_S = 2.0
"""How often it is told how far a copy is."""
REFUSED_LIMIT = 3
"""So many files that the target refuses in a row are the target's trouble."""


class Places(Record):
    """Where everything is."""

    ledger: str = LEDGER_DIRECTORY
    run: str = RUN_DIRECTORY
    machine_id: str = MACHINE_ID


APPLIANCE = Places()


def main(arguments: Sequence[str]) -> int:
    """`copy NAME`; the exit code. A target in trouble is no failure of the unit: the timer comes again."""
    (name,) = arguments
    try:
        applied = load_applied()
    except SdisupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    offload = next((offload for offload in applied.offloads if offload.name == name), None)
    if offload is None:
        print(f"there is no target {name}: sdisup apply", file=sys.stderr)
        return 2
    configuration = f"{os.environ.get('CREDENTIALS_DIRECTORY', '')}/{CREDENTIAL}"
    return run(offload, applied, lambda: connect(offload, configuration))


def connect(offload: AppliedOffload, configuration: str) -> Directory | Remote:
    """The target. Raises TargetProblem."""
    if offload.is_directory:
        return Directory(offload.target, offload.filesystem)
    return Remote(offload.target, configuration, origin=f"/etc/sdisup/credentials/{offload.name}.conf")


def run(
    offload: AppliedOffload,
    applied: Applied,
    connect: Callable[[], Directory | Remote],
    places: Places = APPLIANCE,
    say: Callable[[str], None] | None = None,
) -> int:
    """Copy what waits. Returns 0 also where nothing can be copied now, and where another process is at it."""
    # The journal gets each line at once: a run may take hours.
    say = say or functools.partial(print, flush=True)
    os.makedirs(offload_directory(places.run), mode=0o755, exist_ok=True)
    lock = open_lock(f"{offload_directory(places.run)}/{offload.name}.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another process copies to this target")
        return 0
    else:
        _Run(offload, applied, places, say).run(connect)
        return 0
    finally:
        os.close(lock)


class _Run:
    """One run: what is known of the ports' files, and what is told."""

    def __init__(self, offload: AppliedOffload, applied: Applied, places: Places, say: Callable[[str], None]) -> None:
        self._offload, self._places, self._say = offload, places, say
        self._directories = [port.recordings for port in applied.ports.values() if port.recordings]
        ports = with_ledgers(applied, places.ledger).ports
        self._ports = {index: port for index, port in ports.items() if index in (offload.ports or ports)}
        self._known: dict[int, Known] = {}
        self._sizes: dict[int, int] = {}
        """How large a ledger was when it was read."""
        self._queue: list[Recorded] = []
        """What is to be copied, the next one last."""
        self._told_at = 0.0
        try:
            self._state = load_state(offload.name, places.run)
        except Unreadable as error:
            say(f"{error}; it is made anew")
            self._state = State(boot_id())

    def run(self, connect: Callable[[], Directory | Remote]) -> None:
        state = self._state
        if state.trouble is not None and monotonic() < state.trouble.retry_at:
            return
        file = self._next()
        if file is None and state.trouble is None and not state.unfinished:
            self._save()
            return
        try:
            target = connect()
            try:
                self._work(file, target)
            finally:
                target.close()
        except TargetProblem as error:
            if state.in_trouble(str(error)):
                self._say(f"nothing can be copied: {error}; it is tried again")
        finally:
            state.going = None
            self._save()

    def _work(self, file: Recorded | None, target: Target) -> None:
        """Copy this file, then all that wait. Raises TargetProblem."""
        if file is None:
            target.look(self._offload.folder)
            self._answers()
            self._tidy(target)
        refused = 0
        while file is not None:
            try:
                refused = refused + 1 if self._copy(file, target) else 0
            except TargetProblem as error:
                self._state.failed(file.path, str(error), WITH_TARGET)
                raise
            if refused >= REFUSED_LIMIT:
                problem = (self._state.files or {})[file.path].text
                raise TargetProblem(f"{refused} files in a row were refused, the last one: {problem}")
            if not refused:
                self._answers()
            file = self._next()

    def _answers(self) -> None:
        """The target answers: say so if it did not before."""
        trouble, self._state.trouble = self._state.trouble, None
        if trouble is not None:
            self._say(f"the target is well again, after {(time.time() - trouble.since) / 60:.0f} min: {trouble.text}")

    # ---- What is next ----

    def _next(self) -> Recorded | None:
        """The next file. The ledgers are asked again once all that they had is copied, or has failed."""
        if not self._queue:
            self._read_ledgers()
            waiting = in_order(file for known in self._known.values() for file in known.waiting())
            there = {file.path for file in waiting}
            # What is copied, deleted or no longer known has no trouble to be told of.
            files = {path: trouble for path, trouble in (self._state.files or {}).items() if path in there}
            self._state.files = files
            self._queue = due(waiting, self._state.retry_at(), monotonic())[::-1]
        return self._queue.pop() if self._queue else None

    def _read_ledgers(self) -> None:
        """Read the ledgers that have grown since they were read last, and those whose files wait."""
        for index in self._ports:
            path = ledger_path(index, self._places.ledger)
            size, known = _size(path), self._known.get(index)
            if (self._sizes.get(index) if known else (self._state.looked_at or {}).get(str(index))) == size:
                continue
            known = Known(self._offload.name, index)
            for entry in read_ledger(path):
                # Whoever asks for an account is told of lines that are none.
                if not isinstance(entry, Problem):
                    known.add(entry)
            self._add_entered(known)
            self._known[index], self._sizes[index] = known, size

    def _add_entered(self, known: Known) -> None:
        """Take in what was told to the ledger's process, as long as the ledger does not have it."""
        kept = []
        for entered in self._state.entered:
            file = known.files.get(entered.path) if entered.port_index == known.port_index else None
            if entered.port_index != known.port_index or (file is not None and not file.copy):
                kept.append(entered)
            if file is not None:
                self._add(known, entered)
        self._state.entered = tuple(kept)

    def _add(self, known: Known, entered: Entered) -> None:
        known.add({
            "kind": "copy", "target": self._offload.name, "path": entered.path, "bytes": entered.size_bytes,
            "recorded": entered.recorded, "copy": entered.copy,
        })  # fmt: skip

    # ---- Copying ----

    def _copy(self, file: Recorded, target: Target) -> bool:
        """Copy a file, or note why not; whether the target has refused it. Raises TargetProblem."""
        port = self._ports[file.port_index]
        began = monotonic()
        try:
            with Source(file, _above(file.path, self._directories), self._offload.bandwidth_mbps * 1e6) as source:
                path = self._path(file, port)
                unfinished = unfinished_path(path, _machine(self._places.machine_id), file)
                self._tidy(target, unfinished)
                source.told = lambda doing, done: self._going(file, doing, done)
                self._going(file, COPIED, 0)
                done = copy(target, source, path, unfinished)
                inode = os.fstat(source.descriptor).st_ino
        except FileProblem as error:
            kind = GONE if isinstance(error, Gone) else ""
            if self._state.failed(file.path, str(error), kind) and not kind:
                self._say(f"{file.path} is not copied: {error}; it is tried again, and others go on")
            self._state.going = None
            self._save_now_and_then()
            return isinstance(error, Refused)
        self._enter(file, inode, done, began)
        return False

    def _tidy(self, target: Target, unfinished: str = "") -> None:
        """Remove what another copy may have left that was begun and not finished: its file may be deleted since. From
        here on that is `unfinished`, if given."""
        left = self._state.unfinished
        if left and left != unfinished:
            target.remove(left)
        self._state.unfinished = unfinished
        self._save()

    def _path(self, file: Recorded, port: AppliedPort) -> str:
        relative = relative_path(file.path, self._directories)
        return target_path(self._offload.folder, port.name, relative, self._known[file.port_index].taken)

    def _enter(self, file: Recorded, inode: int, done: Copied, began: float) -> None:
        """Tell the ledger's process, and remember that until the ledger has it."""
        # One spool a port is for the processes of all targets.
        lock = open_lock(f"{offload_directory(self._places.run)}/spool.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            spool = Spool(file.port_index, self._places.run, teller=OFFLOAD)
            spool.tell(
                COPY, monotonic(), began_at=began, path=file.path, inode=inode, size_bytes=file.size_bytes,
                recorded=file.start, target=self._offload.name, copy=done.path, digest=done.digest,
                verified=done.verified,
            )  # fmt: skip
        finally:
            os.close(lock)
        entered = Entered(file.port_index, file.path, file.size_bytes, file.start, done.path)
        self._add(self._known[file.port_index], entered)
        if spool.problem:
            # The next run finds the copy at the target, and tells it then.
            self._say(f"{file.path} is copied, and the ledger is told later: {spool.problem}")
        else:
            self._state.entered += (entered,)
        (self._state.files or {}).pop(file.path, None)
        self._state.going, self._state.unfinished = None, ""
        self._save()

    # ---- Telling ----

    def _going(self, file: Recorded, doing: str, done_bytes: int) -> None:
        self._state.going = Going(os.getpid(), file.path, file.size_bytes, doing, done_bytes, monotonic())
        self._save_now_and_then()

    def _save_now_and_then(self) -> None:
        if monotonic() - self._told_at >= TELL_S:
            self._told_at = monotonic()
            self._save()

    def _save(self) -> None:
        looked_at = dict(self._state.looked_at or {})
        for index, known in self._known.items():
            looked_at[str(index)] = -1 if known.waiting() else self._sizes[index]
        self._state.looked_at = {index: size for index, size in looked_at.items() if size >= 0}
        try:
            save_state(self._state, self._offload.name, self._places.run)
        except OSError as error:
            # It is only told to people; the ledger has what counts.
            if error.errno != errno.ENOSPC:
                raise


def _above(path: str, directories: Sequence[str]) -> str:
    """The directory of recordings that a file is in; empty for none."""
    return max((directory for directory in directories if path.startswith(f"{directory}/")), key=len, default="")


def _size(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0


def _machine(path: str) -> str:
    """What tells this machine from all others. The id itself is nobody's business (machine-id(5))."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(b"sdisup offload " + file.read(100)).hexdigest()
    except OSError:
        return os.uname().nodename
