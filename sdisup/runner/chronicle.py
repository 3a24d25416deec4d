"""Keeps the ledger of a running port, in threads of its own: its disk may hang, the runner never does.

The runner tells what happens and goes on. One thread turns it into entries (story.py) and writes them;
another counts the frames of files that were cut off, which may take minutes. What goes on just now is in
`N.open.json` beside the ledger, written before a file gets its first frame, so that the next runner can
enter what a crash or a power cut left. While the ledger cannot be written, the same is kept in /run, with
the entries that wait.
"""

from __future__ import annotations

import _thread
import json
import os
import time
from collections import deque
from collections.abc import Callable

from sdisup.contract.files import boot_id, read_json, replace_file, up_seconds
from sdisup.contract.media import count_frames, says
from sdisup.contract.requests import noted_stopper
from sdisup.ledger.lines import Problem, append_entries, last_entry, ledger_path, open_path, waiting_path
from sdisup.ledger.moments import FileEnd, Interval, Moment, TakenFile, end_of
from sdisup.ledger.story import Story

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Answer = TypeVar("Answer")

RETRY_S = 5.0
RECORD_LIMIT_BYTES = 64 << 20
"""More than a hundred thousand entries may wait for the ledger's disk."""
BATCH = 500
"""Entries a write; readers look for repetitions within accounts.REPEATS_WITHIN lines."""
DISK_PATIENCE_S = 2.0
COUNT_RETRY_S = 60.0
COUNT_PATIENCE_S = 1.0
"""Part of the patience that a stop has for the ledger (runner.LEDGER_PATIENCE_S)."""


class Chronicle:
    """The ledger's threads. All methods return at once; `finish` waits no longer than it is told to."""

    def __init__(self, port_index: int, directory: str, ffprobe: str, run_directory: str) -> None:
        self._path = ledger_path(port_index, directory)
        self._open_path = open_path(port_index, directory)
        self._waiting_path = waiting_path(port_index, run_directory)
        self._ffprobe = ffprobe
        self._run_directory = run_directory
        self._story = Story(port_index)
        self._boot = boot_id()
        self._tasks: deque[tuple[str, tuple[object, ...]]] = deque()
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        self._lock = _thread.allocate_lock()
        """Who holds it may change the story: the writing thread but for its waits for the disk, or hand_over."""
        self._writes_since = 0.0
        self._serial = 0
        self._has_begun = self._is_counting = self._has_opened = False
        self._count_not_before = 0.0
        self._is_handing_over, self._patience_s = False, DISK_PATIENCE_S
        self._unwritten = self._uncounted = self._fault = ""

    @property
    def problem(self) -> str:
        """Why entries are not in the ledger, in the operator's words; empty when all are."""
        since = self._writes_since
        if since and time.monotonic() - since > DISK_PATIENCE_S:
            return f"the ledger's disk does not answer for {time.monotonic() - since:.0f} s; its entries wait in memory"
        return self._unwritten or self._uncounted or self._fault

    def now(self) -> Moment:
        return Moment(time.time(), time.monotonic(), self._boot)

    def begin(
        self,
        last_end: FileEnd | None,
        cause: str,
        *,
        is_restart: bool,
        records_at_boot: bool,
        take: str | None,
        stopped_at: Moment | None = None,
    ) -> None:
        """Begin: take up what an earlier runner left.

        `last_end` and `cause` are what that runner itself said of its file's end and of its own; `stopped_at` is
        when the port was stopped, where that left its word in the status.
        """
        self._post("begin", last_end, cause, is_restart, records_at_boot, take, stopped_at)
        _thread.start_new_thread(self._run, ())

    def opened(self, path: str, take: str | None, codec: str, rate: float) -> None:
        """A file was made; FFmpeg will fill it."""
        self._post("opened", TakenFile(path, take, codec, rate, self.now()))

    def media(self, at: Moment, ffmpeg_version: str) -> None:
        """Its first frame came."""
        self._post("media", at, ffmpeg_version)

    def closed(self, end: FileEnd) -> None:
        """It ended."""
        self._post("closed", end, self.now())

    def waits(self, cause: str, take: str | None) -> None:
        """The port should record and does not."""
        self._post("waits", cause, self.now(), take)

    def stopped(self, take: str | None) -> None:
        """The port was stopped."""
        self._post("stopped", self.now(), take)

    def clock_stepped(self, before: Moment) -> None:
        """The wall clock was moved since `before`."""
        self._post("clock_stepped", before, self.now())

    def finish(self, timeout_s: float) -> bool:
        """Let the thread write what it has; whether all is written within `timeout_s` seconds."""
        self._post("end")
        if self._ended.acquire(timeout=timeout_s):
            return not self.problem
        self.hand_over()
        return False

    def hand_over(self) -> None:
        """The runner ends: what the ledger's disk has not taken is left in /run to the next one, without waiting."""
        if not self._lock.acquire(timeout=0.1):
            # It is in the middle of an event; what was kept before that is there.
            return
        if not self._has_begun:
            # What an earlier runner left is not taken up, and must stay.
            return
        # The lock is kept: a thread whose disk answers now must not go on beside this.
        self._is_handing_over, self._patience_s = True, 0.1
        while self._tasks:
            name, arguments = self._tasks.popleft()
            if name != "end":
                self._do(name, arguments)
        self._keep_waiting()

    def _post(self, name: str, *arguments: object) -> None:
        self._tasks.append((name, arguments))
        try:
            self._wake.release()
        except RuntimeError:
            # The thread is awake already.
            return

    # In the writing thread.

    def _run(self) -> None:
        while (name := self._take_next()) != "end":
            if name:
                continue
            is_behind = bool(self._unwritten or self._uncounted)
            self._wake.acquire(timeout=RETRY_S if is_behind else 3600.0)
            if is_behind:
                with self._lock:
                    self._count_next()
                    self._write()
        # A short file that was cut off is entered before the runner ends; a long one by the next runner.
        deadline = time.monotonic() + COUNT_PATIENCE_S
        while self._is_counting and (left_s := deadline - time.monotonic()) > 0:
            self._wake.acquire(timeout=left_s)
            self._take_next()
        self._ended.release()

    def _take_next(self) -> str:
        """Deal with the next event; its name, empty if there is none."""
        with self._lock:
            if not self._tasks:
                return ""
            name, arguments = self._tasks.popleft()
            if name != "end":
                self._do(name, arguments)
            self._write()
            return name

    def _do(self, name: str, arguments: tuple[object, ...]) -> None:
        try:
            getattr(self, f"_do_{name}")(*arguments)
            self._count_next()
        except Exception as error:
            # A fault in one event is told, and must not cost the ledger all later ones.
            self._fault = f"the ledger lacks an event ({name}: {error!r})"

    def _write(self) -> None:
        """Entries first, then what is open: a cut in between enters something twice, which readers see, never not.

        Before the disk, which may hang, all of it is kept in /run.
        """
        story = self._story
        while True:
            ready = story.take_ready()
            story.put_back(ready)
            kept = self._keep_waiting()
            try:
                if ready:
                    self._on_disk(append_entries, self._path, ready[:BATCH])
                    story.entered(len(ready[:BATCH]))
                self._on_disk(_replace_durably, self._open_path, self._record())
            except OSError as error:
                self._unwritten = (
                    f"the ledger cannot be written ({error.strerror}); {len(ready)} entries wait in memory"
                )
                if kept:
                    self._unwritten += f", and go with this runner ({self._waiting_path}: {kept})"
                return
            if len(ready) <= BATCH:
                break
        self._unwritten = ""
        _remove(self._waiting_path)

    def _on_disk(self, write: Callable[..., None], *arguments: object) -> None:
        """A write that may hang: meanwhile the runner may end, and take over."""
        self._writes_since = time.monotonic()
        self._lock.release()
        try:
            write(*arguments)
        finally:
            self._lock.acquire()
            self._writes_since = 0.0

    def _record(self) -> bytes:
        self._serial += 1
        return json.dumps({**self._story.as_dict(), "serial": self._serial}).encode()

    def _keep_waiting(self) -> str:
        """Keep what is not written where it outlives this runner, though not the system; why that failed."""
        try:
            replace_file(self._waiting_path, self._record())
        except OSError as error:
            return str(error.strerror)
        return ""

    def _do_begin(
        self,
        last_end: FileEnd | None,
        cause: str,
        is_restart: bool,
        records_at_boot: bool,
        take: str | None,
        stopped_at: Moment | None,
    ) -> None:
        now, story = self.now(), self._story
        records, _ = read_records(self._waiting_path, self._open_path)
        self._serial = max((serial for serial, _ in records), default=0)
        if not any(story.recall(record) for _, record in records):
            # Nothing was ever recorded; or what would say how it went on is lost, but not from when on.
            story.interval = _since_last(self._path)
        story.begin(
            now,
            now.plus(-up_seconds()),
            last_end=last_end,
            left_bytes=self._patiently(_size_bytes, story.file.path, 1) if story.file else 0,
            cause=cause,
            is_restart=is_restart,
            records_at_boot=records_at_boot,
            take=take,
            stopped_at=stopped_at,
        )
        self._has_begun = True

    def _do_opened(self, file: TakenFile) -> None:
        self._has_opened = True
        self._story.opened(file)

    def _do_media(self, at: Moment, ffmpeg_version: str) -> None:
        self._story.media(at, ffmpeg_version)

    def _do_closed(self, end: FileEnd, now: Moment) -> None:
        self._story.closed(end, self._patiently(_size_bytes, end.path, 1), now)

    def _do_waits(self, cause: str, now: Moment, take: str | None) -> None:
        self._story.waits(cause, now, take)

    def _do_stopped(self, now: Moment, take: str | None) -> None:
        self._story.stopped(noted_stopper(self._story.port_index, self._run_directory) or "operator", now, take)
        is_asked = self._story.interval is not None and self._story.interval.what == "operator"
        if self._story.interval is not None and is_asked and not self._is_handing_over:
            # Asking systemd may take too long for a stop's patience; the stop is written by then.
            self._write()
            self._story.interval.what = "shutdown" if is_going_down() else "operator"

    def _do_clock_stepped(self, before: Moment, now: Moment) -> None:
        self._story.clock_stepped(before, now)

    def _do_counted(self, file: TakenFile, readable: int | None, rate: float, size_bytes: int) -> None:
        self._is_counting = False
        if readable is None and size_bytes and not (file.end and file.end.frames):
            # There is material, and nobody has ever counted it: entered as nothing it would be lost unseen.
            self._uncounted = f"{self._ffprobe} cannot count the frames of {file.path}; it is tried again"
            self._count_not_before = time.monotonic() + COUNT_RETRY_S
            return
        self._uncounted = ""
        file.rate = file.rate or rate
        self._story.counted(file, readable, size_bytes)

    def _count_next(self) -> None:
        file = self._story.to_count()
        if file is None or self._is_counting or time.monotonic() < self._count_not_before:
            return
        if not self._has_opened and not self._patiently(os.path.lexists, file.path, False):
            # After a power cut its disk may be mounted late; once a new file could be made there, it is gone.
            return
        self._is_counting = True
        _thread.start_new_thread(self._count, (file,))

    def _patiently(self, ask: Callable[[str], Answer], path: str, otherwise: Answer) -> Answer:
        """What `ask` says of a file on the recordings' disk, which may hang and must not hold up the ledger."""
        answers = [otherwise]
        done = _thread.allocate_lock()
        done.acquire()

        def run() -> None:
            answers[0] = ask(path)
            done.release()

        _thread.start_new_thread(run, ())
        done.acquire(timeout=self._patience_s)
        return answers[0]

    # In the counting thread.

    def _count(self, file: TakenFile) -> None:
        readable, rate = count_frames(self._ffprobe, file.path)
        self._post("counted", file, readable, rate, _size_bytes(file.path))


def read_records(*paths: str) -> tuple[list[tuple[int, object]], list[Problem]]:
    """The open records at these places with their serial numbers, the newest first, and what cannot be read."""
    records: list[tuple[int, object]] = []
    problems = []
    for path in paths:
        try:
            record = read_json(path, RECORD_LIMIT_BYTES)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(Problem(path, 0, str(error)))
            continue
        serial = record.get("serial") if isinstance(record, dict) else None
        records.append((serial if isinstance(serial, int) else 0, record))
    return sorted(records, key=lambda known: -known[0]), problems


def _since_last(path: str) -> Interval | None:
    """The gap since a ledger's last entry, where nothing tells any more how it went on from there."""
    entry = last_entry(path)
    end = end_of(entry) if entry else None
    return Interval("gap", "open record lost", end, None) if end else None


def _replace_durably(path: str, content: bytes) -> None:
    replace_file(path, content, durable=True)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        # There is none. One that cannot be removed is older than the open record, and so not read again.
        return


def _size_bytes(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except (OSError, ValueError):
        # It was removed, or moved away; what is entered then is what FFmpeg had counted.
        return 0


def is_going_down() -> bool:
    """Whether the whole system is being stopped. Its D-Bus goes early: nobody answers then (`unknown`, or nothing)."""
    text, code = says(["timeout", "1", "systemctl", "is-system-running"])
    # timeout(1) answers 124; a system that goes down has no bus any more and says so at once.
    return code != 124 and text.strip() in (b"stopping", b"unknown", b"")
