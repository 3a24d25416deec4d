"""The process of sdi-ledger.service: enters what the runners' spools hold into durable ledgers.

No recording waits for it. Killed, hung or missing, it costs nothing but time: the spools wait in /run, and the next
writer goes on after the last event that the open record names. Its own writes may hang with the ledger's disk; what
looks at the recordings' disks does so in child processes, which nobody waits for. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import stat
import sys
import time

from sdisup.contract import lean
from sdisup.contract.disks import disks_directory, keep_disks
from sdisup.contract.files import EXHAUSTED, RUN_DIRECTORY, boot_id, open_lock, unix_time, up_seconds
from sdisup.contract.media import COPY
from sdisup.contract.names import COUNTER, SAMPLES, SEGMENT, problem_of, shape
from sdisup.contract.pictures import count_pictures
from sdisup.contract.programs import count_frames, ffprobe_beside, says
from sdisup.contract.status import find_status
from sdisup.ledger.cut_off import open_path
from sdisup.ledger.health import write_health
from sdisup.ledger.lines import LEDGER_DIRECTORY, Problem, append_entries, ledger_path, read_ledger, zeroed
from sdisup.ledger.moments import Moment, TakenFile
from sdisup.ledger.open_record import load_story, remove_former, remove_unfinished, save_story
from sdisup.ledger.spool import (
    BEGAN,
    OPENED,
    OTHERS,
    SCHEDULE,
    STOPPED,
    WAITS,
    Event,
    acknowledge,
    acknowledged,
    after,
    entered_path,
    in_order,
    moment_of,
    read_spool,
    spool_path,
    wake_path,
)
from sdisup.ledger.story import Found, Story

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

IDLE_S = 60.0
"""How often the spools are looked at when nobody says that there is something in them."""
RETRY_S = 5.0
OUT_OF_PLACE_S = 30.0
PAUSE_S = 0.1
"""Between two looks; what comes meanwhile is written at once."""
BATCH = 500
"""Entries a write; readers look for repetitions within accounts.REPEATS_WITHIN lines."""
WAITING_LIMIT = 10_000
"""So many entries may wait in the open record while the ledger cannot be written: the record has to be readable
(open_record.LIMIT_BYTES). What comes then waits in the spool, which sums it up when it is full."""
COUNT_RETRY_S = 60.0
LOOK_LIMIT_S = 5.0
"""How long a runner's beginning waits to be entered while the recordings' disk does not answer."""
LOOKS = 3
"""How often a look is tried that fails: no descriptor may be left to look with."""
DISK_LIMIT_S = 120.0
"""How long it waits after a boot for the first file, which shows that the recordings' disk is mounted; longer while
the runner says that it is not."""
FRESH_S = 60.0
NO_ANSWER_S = 15.0
"""How long the entry of a stop waits for D-Bus to say whether the system goes down."""
FLUSH_LIMIT_S = 1.8
"""Below sdi-ledger-flush.service's TimeoutStopSec=."""
FOUND_MARGIN_S = 3600.0
"""Files of this long before the ledger's last moment are compared with it too: the clock may have been moved."""
FOUND_LIMIT = 100_000
OTHERS_BYTES = 1 << 20
"""Of another port's ledger: some two thousand entries."""


class Job:
    """A child process that looks at a recordings' disk, which may hang: its answer comes or does not."""

    def __init__(self, ask: Callable[[], object], closes: Sequence[int] = ()) -> None:
        self.since = time.monotonic()
        self.descriptor, write_end = os.pipe2(os.O_CLOEXEC)
        self._text = b""
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self.descriptor)
            os.close(write_end)
            raise
        if self._pid == 0:
            status = 1
            try:
                for descriptor in closes:
                    os.close(descriptor)
                be_gentle()
                with open(write_end, "wb") as answer:
                    answer.write(lean.encode(ask()).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)
        os.set_blocking(self.descriptor, False)

    def is_done(self) -> bool:
        """Whether the answer is complete. Never waits."""
        if self.descriptor < 0:
            return True
        try:
            while chunk := os.read(self.descriptor, 1 << 16):
                self._text += chunk
        except BlockingIOError:
            return False
        os.close(self.descriptor)
        self.descriptor = -1
        os.waitpid(self._pid, 0)
        return True

    @property
    def answer(self) -> object:
        """What the child found; None if it failed."""
        try:
            return lean.decode(self._text)
        except ValueError:
            return None


class PortWriter:
    """One port's part: its spool, its story, its ledger. `problem` is what an operator should know of it."""

    def __init__(
        self,
        port_index: int,
        ledger_directory: str,
        run_directory: str,
        *,
        on_write: Callable[[bool], None],
        goes_down: Callable[[], bool | None],
        closes: Sequence[int],
    ) -> None:
        self.port_index = port_index
        self._looking: Job | None = None
        self._hung: Job | None = None
        """One that took too long, and may never end."""
        self._counter: Job | None = None
        self._failed_looks = 0
        self._is_full = False
        self.is_flushing = False
        self.is_out_of_place = False
        """Whether the ledger's directory is not there, or is read-only: to a new process it may not be."""
        self._ledger_path = ledger_path(port_index, ledger_directory)
        self._open_path = open_path(port_index, ledger_directory)
        self._spool_path = spool_path(port_index, run_directory)
        self._entered_path = entered_path(port_index, run_directory)
        self._others = {teller: spool_path(port_index, run_directory, teller) for teller in OTHERS}
        self.is_heard = False
        """Whether a runner of this boot has told something."""
        self._ledger_directory, self._run_directory = ledger_directory, run_directory
        self._on_write, self._goes_down, self._closes = on_write, goes_down, closes
        self._boot = boot_id()
        self._story: Story | None = None
        self._view: object = None
        """What of the story the open record holds durably, but for its tries."""
        self._saved_tries: list[str] = []
        self._counting: TakenFile | None = None
        self._count_not_before = 0.0
        self._has_opened = self._asks_again = False
        self._unwritten = self._uncounted = self._unsynced = self._unread = self._skipped = self._fault = ""

    @property
    def problem(self) -> str:
        parts = (self._fault, self._unwritten, self._unread, self._uncounted, self._unsynced, self._skipped)
        return "; ".join(filter(None, parts))

    def jobs(self) -> list[Job]:
        """Those that nobody has an answer of yet."""
        return [job for job in (self._looking, self._counter) if job is not None]

    def next_s(self) -> float:
        """In how many seconds it is worth to be called again without an event."""
        if self._unwritten or self._fault or self._asks_again:
            return RETRY_S
        if self._is_full:
            return PAUSE_S
        if self._looking is not None:
            return LOOK_LIMIT_S
        return COUNT_RETRY_S if self._uncounted else IDLE_S

    def turn(self) -> None:
        """Take what has come, and write what can be written. Never raises: no other port waits for this one."""
        self._fault, self._asks_again = "", False
        try:
            self._turn()
        except Exception as error:
            self._fault = f"the ledger cannot be carried on ({error!r}); what happens waits in /run"
            # As with a new process: from the open record and the spool.
            self._story = self._view = None

    def _turn(self) -> None:
        events, problems = read_spool(self._spool_path)
        others = {teller: read_spool(path) for teller, path in self._others.items()}
        problems += [problem for _, found in others.values() for problem in found]
        self._unread = str(problems[0]) if problems else ""
        self.is_heard = self.is_heard or bool(events)
        story = self._story
        if story is None:
            if not events and not any(told for told, _ in others.values()):
                # Of a port that nobody told anything of since the boot there is nothing to enter.
                return
            places = (self._ledger_directory, self._run_directory)
            story, problems = load_story(self.port_index, *places, goes_on=True)
            self._skipped = "; ".join(str(problem) for problem in problems)
            self._story = story
        self._is_full = len(story.waiting()) > WAITING_LIMIT
        new = [] if self._is_full else after(events, story.boot, story.sequence)
        due = [] if self._is_full else after(others.pop(SCHEDULE)[0], *story.others.get(SCHEDULE, ("", 0)))
        for teller, event in in_order(new, due):
            if teller:
                self._take_from(story, teller, event)
            elif event["kind"] == BEGAN:
                if not self._take_began(story, event, new[new.index(event) + 1 :]):
                    break
            elif event["kind"] == STOPPED:
                goes_down = self._asks_shutdown(event)
                if goes_down is None:
                    break
                self._take(story, {**event, "by": "shutdown"} if goes_down else event)
            else:
                self._take(story, event)
        for teller, (told, _) in others.items():
            for event in [] if self._is_full else after(told, *story.others.get(teller, ("", 0))):
                self._take_from(story, teller, event)
        self._count(story)
        self._write(story)

    def stop_unseen(self, at: Moment, boot: Moment) -> None:
        """Somebody stopped the port, which a power cut had ended, before it ran in this boot: no runner tells of it."""
        story, _ = load_story(self.port_index, self._ledger_directory, self._run_directory)
        interval = story.interval
        if not story.files and (interval is None or interval.kind != "gap"):
            return
        self._story = story
        story.stopped_after_boot(at, boot)

    def _asks_shutdown(self, event: Event) -> bool | None:
        """Whether a stop that nobody else is known to have asked for was the shutdown's; None while that is not known.

        A system that goes down has its D-Bus until sdi-ledger-flush.service has ended; where nobody answers that unit,
        it is the shutdown, and where nobody answers for long, it was an operator and D-Bus is away.
        """
        age_s = _age_s(event, self._boot)
        if event.get("by") != "operator" or age_s > FRESH_S:
            return False
        goes_down = self._goes_down()
        if goes_down is None and not self.is_flushing and age_s < NO_ANSWER_S:
            self._asks_again = True
            return None
        return self.is_flushing if goes_down is None else goes_down

    def _take(self, story: Story, event: Event, left_bytes: int = 1, found: Sequence[Found] = ()) -> None:
        self._has_opened = event["kind"] == OPENED or (self._has_opened and event["kind"] != BEGAN)
        try:
            story.take(event, left_bytes=left_bytes, found=found)
        except Exception as error:
            # A fault in one event is told, and must not cost the ledger all later ones.
            self._skipped = f"the ledger lacks an event ({error!r})"
            story.boot, story.sequence = str(event["boot"]), int(str(event["sequence"]))

    def _take_from(self, story: Story, teller: str, event: Event) -> None:
        try:
            story.take_from(teller, event)
        except Exception as error:
            self._skipped = f"the ledger lacks an event of {teller} ({error!r})"
            story.others[teller] = str(event["boot"]), int(str(event["sequence"]))

    def _take_began(self, story: Story, event: Event, later: Sequence[Event]) -> bool:
        """A runner began: what it left open, and after a boot what else is on its disk, has to be known first."""
        is_new_boot = bool(story.boot) and story.boot != event["boot"]
        if not story.files and not is_new_boot:
            self._take(story, event)
            return True
        if self._hung is not None and not self._hung.is_done():
            # One child that waits for the disk is enough; it would tell of this beginning as little.
            self._take(story, event)
            return True
        if self._looking is None:
            age_s = _age_s(event, self._boot)
            may_be_late = age_s < DISK_LIMIT_S or _waits_for_disk(later)
            if is_new_boot and not self.is_flushing and may_be_late and not _has(later, OPENED):
                return False
            known = _known_paths(story)
            self._looking = Job(
                lambda: look(story, event, known, self._ledger_path, is_new_boot=is_new_boot), self._closes
            )
        job = self._looking
        is_done = job.is_done()
        limit_s = FLUSH_LIMIT_S / 2 if self.is_flushing else LOOK_LIMIT_S
        if not is_done and time.monotonic() - job.since < limit_s:
            return False
        self._looking, self._hung = None, None if is_done else job
        if is_done and job.answer is None and self._failed_looks < LOOKS and not self.is_flushing:
            self._failed_looks += 1
            self._fault = f"what the runner before left cannot be looked at; it is tried again ({self._failed_looks})"
            return False
        self._failed_looks = 0
        left_bytes, found = _looked(job.answer) if is_done else (1, [])
        opened = {later_event.get("path") for later_event in later}
        self._take(story, event, left_bytes, [file for file in found if file.path not in opened])
        return True

    def _count(self, story: Story) -> None:
        file = story.to_count()
        if self._counting is not None:
            self._take_count(story)
            file = story.to_count()
        if file is None or self._counter is not None or self.is_flushing or time.monotonic() < self._count_not_before:
            return
        ffprobe = ffprobe_beside(story.ffmpeg) if story.ffmpeg else "ffprobe"
        path, is_even = file.place or file.path, file.codec != COPY
        self._counting = file
        self._counter = Job(lambda: count(ffprobe, path, is_even=is_even), self._closes)

    def _take_count(self, story: Story) -> None:
        file, job = self._counting, self._counter
        if file is None or job is None or not job.is_done():
            return
        self._counting = self._counter = None
        answer = job.answer
        found: list[Any] = answer if isinstance(answer, list) else [True, None, 0.0, 1, "", 0]
        is_there, readable, rate, size_bytes, self._unsynced, inode = found
        if not is_there and not self._has_opened:
            # After a power cut its disk may be mounted late; once a new file could be made there, it is gone.
            self._count_not_before = time.monotonic() + RETRY_S
            self._uncounted = f"{file.path} is not there yet; its frames are counted when it is"
            return
        if not is_there:
            # Deleted, or where no path leads to it: what its runner has told is all that there is.
            told = file.told_frames if file.is_hidden else 0
            readable = (file.end.frames if file.end else 0) or told or None
            size_bytes = file.size_bytes if readable else 0
        elif readable is None and size_bytes and not (file.end and file.end.frames):
            # There is material, and nobody has ever counted it: entered as nothing it would be lost unseen.
            self._uncounted = f"{file.path}: ffprobe cannot count its frames; it is tried again"
            self._count_not_before = time.monotonic() + COUNT_RETRY_S
            return
        self._uncounted = ""
        file.rate = file.rate or rate
        story.counted(file, readable, size_bytes, inode)

    def _write(self, story: Story) -> None:
        """The open record with the entries that are due, then the entries, then the word that all is safe."""
        ready = story.ready()
        view, tries = _view(story), story.tries()
        # A try is in a record that is written while it lasts, since its event is taken, and must not stay there.
        is_over = bool(self._saved_tries) and tries != self._saved_tries
        try:
            if view != self._view or is_over:
                self._on_write(True)
                save_story(self._open_path, story)
                remove_former(self.port_index, self._run_directory)
                if self._view is None:
                    remove_unfinished(self._open_path)
                self._view, self._saved_tries = view, tries
            while ready:
                self._on_write(True)
                append_entries(self._ledger_path, ready[:BATCH])
                story.entered(int(str(ready[:BATCH][-1]["number"])))
                ready = ready[BATCH:]
            self._unwritten, self.is_out_of_place = "", False
        except OSError as error:
            self.is_out_of_place = error.errno in (errno.ENOENT, errno.EROFS)
            self._unwritten = f"the ledger cannot be written ({error.strerror}); what happens waits in /run"
            return
        finally:
            self._on_write(False)
        if tries == self._saved_tries:
            self._acknowledge(self._entered_path, story.boot, story.sequence)
        for teller, (boot, sequence) in story.others.items():
            if boot == self._boot:
                self._acknowledge(entered_path(self.port_index, self._run_directory, teller), boot, sequence)

    def _acknowledge(self, path: str, boot: str, sequence: int) -> None:
        if sequence <= acknowledged(path, boot):
            return
        try:
            acknowledge(path, boot, sequence)
        except OSError as error:
            # The spool goes on to hold what is entered, and nothing is entered twice.
            self._unread = f"{path}: {error.strerror}"


def _view(story: Story) -> object:
    """What has to be durable: not the last event's number alone, nor entries that wait to be appended, nor a try."""
    queue = [str(item) for item in story.waiting() if not (isinstance(item, dict) and "number" in item)]
    files = [str(file) for file in story.files if not file.is_only_a_try()]
    return lean.encode({**story.as_dict(), "boot": "", "sequence": 0, "files": files, "file": None, "queue": queue})


def _has(events: Sequence[Event], kind: str) -> bool:
    return any(event["kind"] == kind for event in events)


def _waits_for_disk(events: Sequence[Event]) -> bool:
    """Whether the runner says that the recordings' disk is not there yet."""
    return bool(events) and events[-1]["kind"] == WAITS and events[-1].get("cause") == "disk"


def _age_s(event: Event, boot: str) -> float:
    """How long ago an event of this boot was; for ever if it is of another."""
    at = moment_of(event)
    return time.monotonic() - at.monotonic if at.boot == boot else math.inf


def is_going_down() -> bool | None:
    """Whether the whole system is being stopped; None where there is no D-Bus to answer (`unknown`, or nothing)."""
    text, code = says(["timeout", "1", "systemctl", "is-system-running"])
    # timeout(1) ends it with 124: a bus that hangs says nothing either.
    said = text.strip()
    return None if code == 124 or said in (b"unknown", b"") else said == b"stopping"


def _known_paths(story: Story) -> set[str]:
    files = {item.path for item in (*story.waiting(), *story.files) if isinstance(item, TakenFile)}
    return files | {str(item.get("path")) for item in story.waiting() if isinstance(item, dict)}


# In a child process.


def count(ffprobe: str, path: str, *, is_even: bool = True) -> tuple[bool, int | None, float, int, str, int]:
    """Whether a file is there, its readable pictures (None if nobody can tell), their rate, its size in bytes, why they
    may not be durable, and the file's number.

    `is_even` says that they come at a constant rate. Nobody has synced a file whose runner or FFmpeg was killed, and a
    ledger that has its pictures is to be right after a power cut too.
    """
    status = _file_status(path)
    if status is None:
        return False, None, 0.0, 0, "", 0
    problem = ""
    try:
        problem = _sync(path)
        found = count_pictures(path, path.rpartition(".")[2], is_even=is_even)
    except OSError as error:
        if error.errno in EXHAUSTED:
            return True, None, 0.0, status.st_size, problem, status.st_ino
        # ffprobe says whether it can read it.
        found = None
    frames, rate = (found.count, found.rate) if found else count_frames(ffprobe, path)
    return os.path.lexists(path), frames, rate, status.st_size, problem, status.st_ino


def _sync(path: str) -> str:
    """Make a file durable. Returns why it may not be. Raises OSError where it cannot be opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        return f"{path}: the end of what was recorded may not be durable: {error.strerror}"
    finally:
        os.close(descriptor)
    return ""


def be_gentle() -> None:
    """Take processor and disk only where nobody else wants them. Without ionice(1) it is the processor alone."""
    os.nice(19)
    says(["ionice", "-c", "3", "-p", str(os.getpid())])


def look(story: Story, event: Event, known: set[str], ledger: str, *, is_new_boot: bool) -> dict[str, object]:
    """The size of the file that a runner left open; after a boot also the port's files that no ledger knows."""
    left_bytes = max((_size_bytes(file.place or file.path) for file in story.files), default=0)
    last = _last_wall(story) if is_new_boot else None
    found = [] if last is None else _unknown_files(event, known, ledger, last - FOUND_MARGIN_S)
    return {"left_bytes": left_bytes, "found": sorted(found)}


def _unknown_files(event: Event, known: set[str], ledger: str, since: float) -> list[tuple[float, str, int]]:
    """The files that this port made since then and no ledger knows. A file whose name has its second in it is known by
    that, wherever it is: who sorts recordings moves and copies them."""
    recordings, template = str(event.get("recordings", "")), str(event.get("file_name", ""))
    is_named_by = _namer(template)
    files = list(_recorded_files(recordings, since, is_named_by))
    if not files:
        return []
    read = list(read_ledger(ledger))
    _raise_exhausted(problem.reason for problem in read if isinstance(problem, Problem))
    entries = [entry for entry in read if isinstance(entry, dict)]
    names = {_mark(path) for path in (*known, *(str(entry.get("path")) for entry in entries))}
    series = {str(event.get("name", "")), *(_name_and_time(name)[0] for name in names)}
    others, began_wall, now = _accounts_of_others(ledger), moment_of(event).wall, time.time()
    found: list[tuple[float, str, int]] = []
    for written, path, size_bytes in files:
        name = _mark(path)
        beginning = _name_and_time(name)[0]
        is_of_port = beginning in series if beginning else is_named_by(path.removeprefix(recordings).lstrip("/"))
        # What was written since the runner began is its own new file.
        is_ours = is_of_port and not began_wall <= written <= now
        is_known = name in names or any(text in account for account in others for text in _quoted(name))
        if is_ours and size_bytes and not is_known:
            found.append((written, path, size_bytes))
            names.add(name)
    return found


def _accounts_of_others(ledger: str) -> list[bytes]:
    """What the other ports' ledgers and open records say of late. Ports may share a directory, and have had each
    other's names."""
    directory, own = os.path.split(ledger)
    accounts = []
    for name in os.listdir(directory):
        index, _, kind = name.partition(".")
        if index == own.partition(".")[0] or kind not in ("jsonl", "open.json"):
            continue
        try:
            descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                if kind == "jsonl":
                    file.seek(max(0, os.fstat(descriptor).st_size - OTHERS_BYTES))
                accounts.append(file.read())
        except OSError as error:
            # It is no ledger, or not readable, and that port's own part says so.
            _raise_exhausted([str(error.strerror)])
    return accounts


def _raise_exhausted(problems: Iterable[str]) -> None:
    """Raise OSError if one of them is that no descriptor is left: what was not read must not count as not there."""
    for problem in problems:
        if any(problem.endswith(os.strerror(number)) for number in EXHAUSTED):
            raise OSError(problem)


def _looked(answer: object) -> tuple[int, list[Found]]:
    if not isinstance(answer, dict):
        return 1, []
    found = [Found(path, size_bytes, Moment(written, written, "")) for written, path, size_bytes in answer["found"]]
    return answer["left_bytes"], found


def _recorded_files(
    directory: str, since: float, is_named_by: Callable[[str], object]
) -> Iterator[tuple[float, str, int]]:
    """The files that a runner may have made since then, at and below its recordings: when written to last, path, bytes.

    `is_named_by` says whether a path relative to the directory is one by the port's template; whether such a file is
    of that time, its own look tells. The others cost a look at their names alone.
    """
    count = 0
    for place, _, names in os.walk(directory, onerror=lambda error: _raise_exhausted([str(error.strerror)])):
        for name in names:
            path, made = f"{place}/{name}", _name_and_time(name)[1]
            if made >= since if made else is_named_by(path.removeprefix(directory).lstrip("/")):
                count += 1
                if count > FOUND_LIMIT:
                    return
                status = _file_status(path)
                # The recordings' group may put files there too, whose names are no word of ours.
                if status is not None and status.st_uid == os.geteuid() and (made or status.st_mtime >= since):
                    yield status.st_mtime, path, status.st_size


def _namer(template: str) -> Callable[[str], object]:
    """What knows the paths, relative to its recordings, of a port whose files have other names than by default."""
    if problem_of(template):
        # Most ports have none.
        return lambda _: None
    # For these ports alone: it loads as much as all of the ledger's process.
    import re

    return re.compile(_pattern(template), re.ASCII).fullmatch


def _pattern(template: str) -> str:
    import re

    words = {"take": r"[\w.-]+", "codec": r"\w+", COUNTER: r"\d{4,}", SEGMENT: r"\d{4,}"}
    words.update({field: re.sub(r"\d", r"\\d", sample).replace("+", "[+-]") for field, sample in SAMPLES.items()})
    path = "".join(re.escape(text) + words.get(field, "") for text, field in shape(template, {}))
    return path + r"(?:_\d+)?\.[a-z0-9]+"


def _mark(path: str) -> str:
    """What a file is known by: its name where that has its second in it, or else its path."""
    return os.path.basename(path) if _name_and_time(path)[1] else path


def _quoted(mark: str) -> set[bytes]:
    """How a path ends in a ledger and in an open record, which is ASCII."""
    if not mark.startswith("/"):
        return {f'/{mark}"'.encode()}
    return {lean.encode(mark, ensure_ascii=is_ascii).encode() for is_ascii in (False, True)}


def _name_and_time(path: str) -> tuple[str, float]:
    """A default name's beginning, and its moment; ("", 0) for any other name (contract/names.py)."""
    stem, _, ending = os.path.basename(path).rpartition(".")
    name, _, stamp = stem.rpartition("_")
    if set(zeroed(stamp)) == {"0"}:
        # The second file of that name, or a later one.
        name, _, stamp = name.rpartition("_")
    is_ending = ending.isascii() and ending.isalnum() and ending == ending.lower()
    if not name or not is_ending or zeroed(stamp) != "00000000T000000Z":
        return "", 0.0
    day, time_of_day = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}", f"{stamp[9:11]}:{stamp[11:13]}:{stamp[13:15]}"
    return name, unix_time(f"{day}T{time_of_day}.000Z")


def _last_wall(story: Story) -> float | None:
    """The last moment that the ledger knows of."""
    moments = [story.interval.start] if story.interval else []
    moments += [moment for file in story.files for moment in (file.opened, file.start) if moment]
    return max((moment.wall for moment in moments), default=None)


def _size_bytes(path: str) -> int:
    """0 for a file that was removed, or moved away; what is entered then is what FFmpeg had counted."""
    status = _file_status(path)
    return status.st_size if status else 0


def _file_status(path: str) -> os.stat_result | None:
    """What there is of a file; None for anything else, which somebody may have put in its place."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


# The process.


class Writer:
    """All ports' ledgers, in one loop over one poll. Raises OSError where /run is not what it should be."""

    def __init__(self, ledger_directory: str, run_directory: str) -> None:
        self._ledger_directory, self._run_directory = ledger_directory, run_directory
        self._ports: dict[int, PortWriter] = {}
        self._stopped_unseen: set[int] = set()
        self._said: object = None
        self._looked_at = 0.0
        self._is_going_down: bool | None = False
        self._disks_kept_ns = 0
        self.lock = open_lock(f"{run_directory}/ledger.lock")
        self._poll = select.poll()
        self._wake = self._open_wake()
        self._poll.register(self._wake, select.POLLIN)

    def _open_wake(self) -> int:
        path = wake_path(self._run_directory)
        if not os.path.lexists(path):
            os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)

    def run(self) -> None:
        """Go on until a signal ends the process, at any moment, or until the ledgers' directory is out of its reach.

        The unit's sandbox holds the directory that was there when the process began. Another one in its place, as a
        backup brings it back, is read-only for this process and not for the next.
        """
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        out_of_place_since = math.inf
        while time.monotonic() - out_of_place_since < OUT_OF_PLACE_S:
            self.turn()
            is_out_of_place = any(port.is_out_of_place for port in self._ports.values())
            out_of_place_since = min(out_of_place_since, self._looked_at) if is_out_of_place else math.inf
            self._wait(min((port.next_s() for port in self._ports.values()), default=IDLE_S))

    def flush(self) -> bool:
        """Enter what the spools hold, as far as that is done within FLUSH_LIMIT_S; whether nothing is left."""
        deadline = time.monotonic() + FLUSH_LIMIT_S
        while not self._has_lock():
            # Another one is at it, and is in the middle of a write.
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE_S)
        while True:
            self.turn(is_flushing=True)
            if not any(port.jobs() for port in self._ports.values()) or time.monotonic() > deadline:
                return not any(port.problem for port in self._ports.values())
            self._wait(PAUSE_S)

    def _has_lock(self) -> bool:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def turn(self, *, is_flushing: bool = False) -> None:
        """One look at all spools."""
        self._looked_at = time.monotonic()
        for index in self._spools():
            if index not in self._ports:
                self._ports[index] = self._port(index)
        for port in self._ports.values():
            port.is_flushing = is_flushing
            port.turn()
        self._take_marks()
        self._keep_disks()
        self._say(None)

    def _port(self, index: int) -> PortWriter:
        return PortWriter(
            index,
            self._ledger_directory,
            self._run_directory,
            on_write=self._on_write,
            goes_down=self._goes_down,
            closes=[self.lock],
        )

    def _take_marks(self) -> None:
        """Ports that no runner of this boot told anything of, and that were stopped by the word of their status."""
        for index in self._marked():
            status, now = find_status(index, self._run_directory), time.monotonic()
            if status is None or status.boot_id != boot_id() or status.state != "stopped":
                continue
            self._stopped_unseen.add(index)
            port = self._ports.setdefault(index, self._port(index))
            here = Moment(time.time(), now, status.boot_id)
            port.stop_unseen(here.plus(status.state_since_monotonic - now), here.plus(-up_seconds()))
            port.turn()

    def _marked(self) -> list[int]:
        names = (name.removesuffix(".json") for name in os.listdir(self._run_directory) if name.endswith(".json"))
        known = {index for index, port in self._ports.items() if port.is_heard} | self._stopped_unseen
        return [int(name) for name in names if name.isdigit() and name.isascii() and int(name) not in known]

    def _keep_disks(self) -> None:
        """Keep what runners noted of the recordings' disks, since /run does not outlive the boot."""
        directory = disks_directory(self._run_directory)
        try:
            changed_ns = os.stat(directory).st_mtime_ns
            if changed_ns != self._disks_kept_ns:
                self._on_write(True)
                keep_disks(directory, f"{self._ledger_directory}/disks")
                self._disks_kept_ns = changed_ns
        except OSError:
            # Nothing is noted, or the ledger's disk is full or away: the ports' own parts say so, and the next look
            # tries again.
            return

    def _spools(self) -> list[int]:
        try:
            names = os.listdir(f"{self._run_directory}/ports")
        except FileNotFoundError:
            return []
        except OSError:
            # No descriptor is left; those that are known say so too.
            return sorted(self._ports)
        return sorted(int(name) for name in names if name.isdigit() and name.isascii())

    def _goes_down(self) -> bool | None:
        """Asked no more once it is so: a shutdown stops all ports, and leaves no time to ask for each."""
        self._is_going_down = self._is_going_down or is_going_down()
        return self._is_going_down

    def _on_write(self, begins: bool) -> None:
        self._say(time.monotonic() if begins else None)

    def _say(self, writes_since: float | None) -> None:
        problems = {str(index): port.problem for index, port in self._ports.items() if port.problem}
        said = (problems, writes_since)
        if said == self._said:
            return
        try:
            write_health(self._run_directory, problems, writes_since)
            self._said = said
        except OSError:
            # A full /run; what is in the ledger does not depend on it.
            return

    def _wait(self, longest_s: float) -> None:
        jobs = [job.descriptor for port in self._ports.values() for job in port.jobs() if job.descriptor >= 0]
        for descriptor in jobs:
            self._poll.register(descriptor, select.POLLIN)
        self._poll.poll(longest_s * 1000)
        for descriptor in jobs:
            self._poll.unregister(descriptor)
        time.sleep(max(0.0, self._looked_at + PAUSE_S - time.monotonic()))
        try:
            while os.read(self._wake, 4096):
                continue
        except BlockingIOError:
            return


def main(arguments: Sequence[str]) -> int:
    """`ledger [--flush] [RUN_DIRECTORY LEDGER_DIRECTORY]`; the exit code is the unit's."""
    is_flush = "--flush" in arguments
    places = [argument for argument in arguments if argument != "--flush"] or [RUN_DIRECTORY, LEDGER_DIRECTORY]
    if len(places) != 2:
        print("usage: ledger [--flush] [RUN_DIRECTORY LEDGER_DIRECTORY]", file=sys.stderr)
        return 2
    try:
        writer = Writer(places[1], places[0])
    except OSError as error:
        hint = "make it: systemd-tmpfiles --create sdisup.conf"
        print(f"the ledger's process cannot work in {places[0]}: {error.strerror}; {hint}", file=sys.stderr)
        return 1
    if is_flush:
        return 0 if writer.flush() else 1
    lean.signal.signal(lean.signal.SIGTERM, _end)
    lean.signal.signal(lean.signal.SIGINT, _end)
    writer.run()
    problem = f"{places[1]} has been missing or read-only for {OUT_OF_PLACE_S:.0f} s"
    print(f"{problem}; a new process will look again", file=sys.stderr)
    return 1


def _end(*_: object) -> None:
    # As good as any other moment: what is not written yet is in the spools.
    os._exit(0)
