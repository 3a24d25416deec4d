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

from sdisup.ledger import Problem, append_entries, last_entry, ledger_path, open_path, waiting_path
from sdisup.moments import FileEnd, Interval, Moment, TakenFile, end_of
from sdisup.requests import LIFETIME_S, boottime_ns, stop_note_path
from sdisup.status import boot_id, read_json, replace_file
from sdisup.story import Story

RETRY_S = 5.0
RECORD_LIMIT_BYTES = 16 << 20
"""Some ten thousand entries may wait for the ledger's disk."""
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
        self._is_counting = False
        self._is_kept = True
        self._serial = 0
        self._has_opened = False
        self._fault = ""
        self.problem = ""
        """Why entries wait in memory, in the operator's words; empty when all are written."""

    def now(self) -> Moment:
        return Moment(time.time(), time.monotonic(), self._boot)

    def begin(
        self, last_end: FileEnd | None, cause: str, *, is_restart: bool, records_at_boot: bool, take: str | None
    ) -> None:
        """Begin: take up what an earlier runner left.

        `last_end` and `cause` are what that runner itself said of its file's end and of its own.
        """
        self._post("begin", last_end, cause, is_restart, records_at_boot, take)
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
        return self._ended.acquire(timeout=timeout_s) and not self.problem

    def _post(self, name: str, *arguments: object) -> None:
        self._tasks.append((name, arguments))
        try:
            self._wake.release()
        except RuntimeError:
            # The thread is awake already.
            return

    # In the writing thread.

    def _run(self) -> None:
        while True:
            while self._tasks:
                name, arguments = self._tasks.popleft()
                if name == "end":
                    self._write()
                    self._await_count()
                    self._ended.release()
                    return
                self._do(name, arguments)
                self._write()
            self._wake.acquire(timeout=RETRY_S if self.problem else 3600.0)
            if self.problem:
                self._write()

    def _await_count(self) -> None:
        """A short file that was cut off is entered before the runner ends; a long one by the next runner."""
        deadline = time.monotonic() + COUNT_PATIENCE_S
        while self._is_counting and (left_s := deadline - time.monotonic()) > 0:
            self._wake.acquire(timeout=left_s)
            while self._tasks:
                self._do(*self._tasks.popleft())
                self._write()

    def _do(self, name: str, arguments: tuple[object, ...]) -> None:
        try:
            getattr(self, f"_do_{name}")(*arguments)
            self._count_next()
        except Exception as error:
            # A fault in one event is told, and must not cost the ledger all later ones.
            self._fault = f"the ledger lacks an event ({name}: {error!r})"

    def _write(self) -> None:
        """Entries first, then what is open: a cut in between enters something twice, which readers see, never not."""
        ready = self._story.take_ready()
        try:
            if ready:
                append_entries(self._path, ready)
                ready = []
            replace_file(self._open_path, self._record(), durable=True)
        except OSError as error:
            self._story.put_back(ready)
            self.problem = f"the ledger cannot be written ({error.strerror}); {len(ready)} entries wait in memory"
            self._keep_waiting()
            return
        self.problem = self._fault
        if self._is_kept:
            self._is_kept = not _removed(self._waiting_path)

    def _record(self) -> bytes:
        self._serial += 1
        return json.dumps({**self._story.as_dict(), "serial": self._serial}).encode()

    def _keep_waiting(self) -> None:
        """What cannot be written is kept where it outlives this runner, though not the system."""
        self._is_kept = True
        try:
            replace_file(self._waiting_path, self._record())
        except OSError as error:
            self.problem += f", and go with this runner ({self._waiting_path}: {error.strerror})"

    def _do_begin(
        self, last_end: FileEnd | None, cause: str, is_restart: bool, records_at_boot: bool, take: str | None
    ) -> None:
        now, story = self.now(), self._story
        records, _ = read_records(self._waiting_path, self._open_path)
        self._serial = max((serial for serial, _ in records), default=0)
        if not any(story.recall(record) for _, record in records):
            # Nothing was ever recorded; or what would say how it went on is lost, but not from when on.
            story.interval = _since_last(last_entry(self._path))
        story.begin(
            now,
            now.plus(-up_seconds()),
            last_end=last_end,
            left_bytes=_size_bytes(story.file.path) if story.file else 0,
            cause=cause,
            is_restart=is_restart,
            records_at_boot=records_at_boot,
            take=take,
        )

    def _do_opened(self, file: TakenFile) -> None:
        self._has_opened = True
        self._story.opened(file)

    def _do_media(self, at: Moment, ffmpeg_version: str) -> None:
        self._story.media(at, ffmpeg_version)

    def _do_closed(self, end: FileEnd, now: Moment) -> None:
        self._story.closed(end, _size_bytes(end.path), now)

    def _do_waits(self, cause: str, now: Moment, take: str | None) -> None:
        self._story.waits(cause, now, take)

    def _do_stopped(self, now: Moment, take: str | None) -> None:
        self._story.stopped(noted_stopper(self._story.port_index, self._run_directory) or "operator", now, take)
        if self._story.interval is not None and self._story.interval.what == "operator":
            # Asking systemd may take too long for a stop's patience; the stop is written by then.
            self._write()
            self._story.interval.what = "shutdown" if is_going_down() else "operator"

    def _do_clock_stepped(self, before: Moment, now: Moment) -> None:
        self._story.clock_stepped(before, now)

    def _do_counted(self, file: TakenFile, readable: int | None, rate: float, size_bytes: int) -> None:
        self._is_counting = False
        file.rate = file.rate or rate
        self._story.counted(file, readable, size_bytes)

    # In the counting thread.

    def _count_next(self) -> None:
        file = self._story.to_count()
        if file is None or self._is_counting:
            return
        if not self._has_opened and not os.path.lexists(file.path):
            # After a power cut its disk may be mounted late; once a new file could be made there, it is gone.
            return
        self._is_counting = True
        _thread.start_new_thread(self._count, (file,))

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


def _removed(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        # It stays with what is written by now; readers take what is entered twice once.
        return False
    return True


def _since_last(entry: dict[str, object] | None) -> Interval | None:
    end = end_of(entry) if entry else None
    return Interval("gap", "open record lost", end, None) if end else None


def _size_bytes(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        # It was removed, or moved away; what is entered then is what FFmpeg had counted.
        return 0


def up_seconds() -> float:
    """For how long this system is up: since its PID 1 began (proc(5), `starttime`), also in a container."""
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        with open("/proc/1/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return now_s
    return now_s - ticks / os.sysconf("SC_CLK_TCK")


def noted_stopper(port_index: int, run_directory: str) -> str:
    """`apply` or `schedule` if they left word that it is they who stop the port; empty otherwise."""
    path = stop_note_path(port_index, run_directory)
    try:
        note = read_json(path)
        os.unlink(path)
    except (OSError, ValueError):
        return ""
    if not isinstance(note, dict):
        return ""
    created = note.get("created_boottime_ns")
    age_s = (boottime_ns() - created) / 1e9 if isinstance(created, int) else -1.0
    # A note whose stop never came must not speak for a later one.
    by = note.get("by") if 0 <= age_s <= LIFETIME_S else None
    return by if by in ("apply", "schedule") else ""


def is_going_down() -> bool:
    """Whether the whole system is being stopped. Its D-Bus goes early: nobody answers then (`unknown`, or nothing)."""
    return says(["systemctl", "is-system-running"])[0].strip() in (b"stopping", b"unknown", b"")


def count_frames(ffprobe: str, path: str) -> tuple[int | None, float]:
    """The pictures of a file, counted by reading all of it, and their rate a second (0 if it has none).

    No pictures for a file that cannot be read; None if ffprobe could not tell, or there is no such file. At
    the lowest priority, and without decoding: a day of 50 Mb/s is 500 GB of reading.
    """
    # A last picture that is there in part is a packet too, unless corrupt ones are discarded.
    options = "-v quiet -fflags +discardcorrupt -select_streams v:0 -count_packets -of csv=p=0"
    entries = "stream=avg_frame_rate,nb_read_packets"
    text, code = says(["nice", "-n", "19", ffprobe, *options.split(), "-show_entries", entries, path])
    rate, _, count = text.strip().strip(b",").partition(b",")
    if count.isdigit():
        return int(count), _rate(rate)
    # nice(1) answers 126 and 127 for what it cannot run.
    is_told = code in (0, 1) and os.path.lexists(path)
    return (0 if is_told else None), 0.0


def _rate(text: bytes) -> float:
    """ffprobe's `25/1`; 0 for `0/0`."""
    above, _, below = text.partition(b"/")
    is_rate = above.isdigit() and below.isdigit() and int(below) > 0
    return int(above) / int(below) if is_rate else 0.0


def says(command: list[str]) -> tuple[bytes, int]:
    """What a command writes to stdout, up to 4 KiB, and its exit code (minus the signal that killed it).

    127 if it cannot be run. It waits: for threads only.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, write_end, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    except OSError:
        os.close(read_end)
        return b"", 127
    finally:
        os.close(write_end)
        os.close(null)
    with open(read_end, "rb") as output:
        text = output.read(4096)
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
