"""The recording's file, in threads of its own: a disk may hang for minutes, the runner may not.

Invariant 2: the runner's loop waits for nothing but its poll. So the threads here do all that touches the recordings'
filesystem: they make the file, look at its size, make it durable and close it. They tell the loop by `events` and by a
byte in its wake-up pipe. FFmpeg writes the file; the threads hold the file open besides, because FFmpeg calls no fsync
(FACTS 3: a power cut after 25 s left 0 bytes). The file gets its name with its first frame (unnamed.py).

Syncs have a thread beside the one that looks: a sync that hangs must not blind the looks, by which a file is found that
was deleted or does not grow; nor must a look that hangs, since a path may lead to a dead disk by now, end the syncs.
"""

from __future__ import annotations

import _thread
import errno
import os
import stat
import time

from sdisup.contract.disks import disk_path, remember_disk, remembered_disk, say_in, wanted_path
from sdisup.contract.files import EXHAUSTED, RUN_DIRECTORY
from sdisup.contract.filesystem import (
    filesystem_identity,
    is_same_filesystem,
    is_shut_off,
    is_system_disk,
    open_below,
)
from sdisup.contract.lean import deque
from sdisup.contract.media import holds_media
from sdisup.contract.names import FileName, name_at
from sdisup.contract.records import Record
from sdisup.runner.unnamed import Hidden, Spare, give_name, make_unnamed
from sdisup.runner.whereabouts import Found, Whereabouts, is_same, is_same_at_rest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sdisup.contract.options import Options
    from sdisup.runner.stamp import Stamp

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
HEAD_BYTES = 1 << 16
LEAST_FREE_BYTES = 4 << 20
"""With less free space a file would hold seconds at most; the next try comes soon."""
FIRST_LOOK_S = 0.02
"""The time between two looks at the file until its first frame is on disk, where one may come."""
HURRY_S = 10.0
"""For how long one may come after FFmpeg's start, and after each word of it: it logs its output before it writes."""
CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""What some filesystems answer where a directory is to be synced, such as CIFS and FUSE."""
NAME_TRIES = 100
NO_NAME = "gives no name that is free"
ASK_S = 5.0
"""How often it is said that space is short."""
SAMPLE_S = 1.0
"""The time between two Samples."""


class Place(Record):
    """Where a file is made, and how it is named: in `directory`, or in a folder below it by `template`.

    `directory` is `recordings`, or below it. What is missing below the recordings is made. `template` has all of its
    fields filled in but for the moment and the number (contract/names.py).
    `filesystem` is the identity that the recordings' filesystem has to have. Where it is empty, the note in the file
    `disk_note` counts (contract/disks.py), and without a note any filesystem is right. The file is the `segment`-th one
    of its FFmpeg. With less than `min_free_bytes` free, the file `wanted` is written to.
    """

    recordings: str
    directory: str
    template: str
    container: str
    filesystem: str = ""
    disk_note: str = ""
    port: int = 0
    segment: int = 1
    min_free_bytes: int = 0
    wanted: str = ""


def place_of(options: Options, directory: str) -> Place:
    """Where a port's next file belongs, in the directory of its take."""
    run_directory = options.run_directory or RUN_DIRECTORY
    return Place(
        options.recordings, directory, options.file_name, options.container, options.filesystem,
        disk_path(options.port, run_directory), options.port, min_free_bytes=options.min_free_bytes,
        wanted=wanted_path(run_directory),
    )  # fmt: skip


class Opened(Record):
    """The file exists, is empty, and was made by this runner. Its name is to be `path`, from its first frame on; that
    of a file which was made ahead is not settled yet, and empty.

    `descriptor` is open until finish() is called.
    """

    path: str
    descriptor: int


class Named(Record):
    """The file has its name; another one than Opened told if something had that one meanwhile."""

    path: str


class OpenFailed(Record):
    """The file could not be made; `reason` is in the operator's words. `is_disk`: not for want of a descriptor or a
    thread."""

    reason: str
    is_disk: bool = True


class FirstMedia(Record):
    """The first frame is on disk."""


class Sample(Record):
    """What the file and its filesystem are now.

    `moved`: the path leads to another file or to none, and the recording's file has another path. `deleted`: no path
    leads to the recording's file. `place` and `misplaced` are as of Found. `seen_at` is when (CLOCK_MONOTONIC).
    """

    size_bytes: int
    disk_free_bytes: int
    filesystem: str
    moved: bool
    deleted: bool
    place: str = ""
    misplaced: bool = False
    seen_at: float | None = None


class Closed(Record):
    """The file is closed, and durable unless it was cut off (`finish`); `kept` is False when the file held no frame and
    was removed. `inode` is its number on its filesystem, 0 where that could not be asked for."""

    size_bytes: int
    kept: bool
    problem: str
    inode: int = 0


class News:
    """Tells which Samples of a file say more than that it grows on, and so have to be heard at once."""

    def __init__(self) -> None:
        self._before: Sample | None = None
        self._has_grown = False

    def is_in(self, sample: Sample) -> bool:
        before, had_grown = self._before, self._has_grown
        self._before, self._has_grown = sample, before is not None and sample.size_bytes > before.size_bytes
        # Nothing is expected of a file that nothing was written to.
        is_empty = before is not None and not (sample.size_bytes or before.size_bytes)
        return (
            before is None
            or not (is_empty or (had_grown and self._has_grown))
            or self._where(sample) != self._where(before)
        )

    @staticmethod
    def _where(sample: Sample) -> tuple[object, ...]:
        return sample.filesystem, sample.moved, sample.deleted, sample.place, sample.misplaced


Event = Opened | OpenFailed | Named | FirstMedia | Sample | Closed


class RecordingFile:
    """One recording's file, from its making to its closing, in threads beside the runner's loop.

    The threads call `wake` after each event, but for a Sample that is no news; the loop drains `events`. The loop calls
    `finish()` when FFmpeg has closed the file, and waits for Closed no longer than it wants to. A file that is made
    ahead gets its name when `begin()` is called, as FFmpeg opens it; until then it has no thread.
    """

    def __init__(
        self,
        place: Place,
        sync_interval_s: float,
        wake: Callable[[], None],
        spare: Spare | None = None,
        *,
        is_ahead: bool = False,
    ) -> None:
        self.events: deque[Event] = deque()
        self._place = place
        self._sync_interval_s = sync_interval_s
        self._wake = wake
        self.timecode: Stamp | None = None
        self._finish = _thread.allocate_lock()
        self._finish.acquire()
        self._is_finishing = False
        self._is_made = _thread.allocate_lock()
        self._is_made.acquire()
        """Held while a file is made ahead."""
        self._is_ahead = is_ahead
        self._hidden: Hidden | None = None
        """The name of a file that was made ahead where there are no files without one."""
        self._hurried_at = time.monotonic()
        self._is_empty = self._is_cut_off = False
        self.sync_problem = ""
        """Why what was written may not survive a power cut, in the operator's words; empty while it does."""
        self.watch_problem = ""
        """Why some of the last Sample is not new, in the operator's words; empty while all of it is."""
        self.remarks: deque[str] = deque()
        """What this filesystem cannot do, though recordings go on: worth a word once."""
        self._descriptor = -1
        self._spare = spare
        self._name = FileName("", "", "", is_counted=False)
        self._folder = self._path = ""
        """The directory that it is to be in, and its path there."""
        self._is_named = False
        """Whether it has this path."""
        self._named_by: Place | None = None
        """What is to give it another one."""
        self.refusal = ""
        """Why the file could not have a name; empty if it could."""
        self._directory = -1
        """The file's directory, open: its path may lead elsewhere by now. While it is missing, the one above it."""
        self._missing: list[str] = []
        """The names of the directories that are missing yet, and are made for the file's name."""
        self._made: list[str] = []
        """The names of those that this made; the last one is the file's directory."""
        self._unsynced: list[int] = []
        """The directories, open, in which a name was made."""
        self._has_media = self._is_synced = False
        self._free_bytes = 0
        self._asked_at = -ASK_S
        self._filesystem = ""
        self._is_new_disk = False
        """Whether recordings are on a disk of their own for the first time, as far as anybody knows."""
        self._news = News()
        self._found = Found()
        self._whereabouts: Whereabouts | None = None
        try:
            _thread.start_new_thread(self._work, ())
        except RuntimeError as error:
            self._tell(
                OpenFailed(f"no thread for the file: {error} (TasksMax= of the unit limits them)", is_disk=False)
            )

    def finish(self, *, is_empty: bool = False, is_cut_off: bool = False) -> None:
        """Ask for the file to be closed; the answer is a Closed event.

        `is_empty`: FFmpeg ended properly and counted no frame. FFmpeg then still writes a whole file of 2.5 kB, whose
        bytes look like those of a short recording. A larger file is kept whatever FFmpeg counted.

        `is_cut_off`: FFmpeg was killed, and the port does not record until the next one. The last sync is not waited
        for, only begun: it takes the time that the disk takes. The ledger's process ends it before it counts the file.
        """
        self._is_empty, self._is_cut_off = is_empty, is_cut_off
        self._is_finishing = True
        self._rouse()

    def begin(self, place: Place) -> None:
        """Give a file that was made ahead its name by `place`, and look after it: FFmpeg writes to it from now on."""
        self._place = place
        try:
            _thread.start_new_thread(self._go_on, ())
        except RuntimeError as error:
            self.refusal = f"no thread for the file: {error} (TasksMax= of the unit limits them)"

    def name_by(self, place: Place) -> None:
        """Name the file by this place, if it has no name yet."""
        self._named_by = place

    def discard(self) -> None:
        """Let go of a file that was made ahead and is not needed."""
        try:
            _thread.start_new_thread(self._discard, ())
        except RuntimeError as error:
            self.remarks.append(f"an empty file stays open: no thread to close it: {error}")

    def hurry(self) -> None:
        """Look for the first frame at once, and often for a while: FFmpeg has said something."""
        if time.monotonic() - self._hurried_at > HURRY_S / 2:
            self._hurried_at = time.monotonic()
            self._rouse()

    def set_timecode(self, stamp: Stamp) -> None:
        """Write this timecode into the file as soon as it has a place for it, and again once FFmpeg has closed it."""
        self.timecode = stamp
        self._rouse()

    def _rouse(self) -> None:
        if self._finish.locked():
            self._finish.release()

    def _tell(self, event: Event, *, is_news: bool = True) -> None:
        self.events.append(event)
        if is_news:
            self._wake()

    def _work(self) -> None:
        is_disk = True
        try:
            problem = self._wrong_place() or self._enter() or self._open()
        except OSError as error:
            problem = _open_problem(self._place.recordings, self._folder or self._place.directory, error)
            is_disk = error.errno not in EXHAUSTED
        if problem:
            self._close_all()
            self._is_made.release()
            self._tell(OpenFailed(problem, is_disk=is_disk))
            return
        if self._is_new_disk:
            self._remember_disk()
        if self._is_ahead:
            self._is_made.release()
            self._tell(Opened("", self._descriptor))
            return
        self._tell(Opened(self._path, self._descriptor))
        if self._is_named:
            self._tell(Named(self._path))
        self._close(self._watch())

    def _go_on(self) -> None:
        """Name a file that was made ahead by this moment, in the folder of this moment, and look after it."""
        try:
            self._settle_anew()
            self._give_name()
        except OSError as error:
            self.refusal = self.refusal or str(error.strerror)
            self._wake()
        self._close(self._watch())

    def _settle_anew(self) -> None:
        """Settle the file's path by this moment. Raises OSError."""
        os.close(self._directory)
        self._directory = -1
        # That the disk is full is FFmpeg's to find out.
        self._enter()
        self._unsynced.append(os.dup(self._directory))
        if not self._take_name(self._is_free):
            raise OSError(errno.EEXIST, f"{self._folder} {NO_NAME}")

    def _discard(self) -> None:
        # It may be in the making, on a disk that hangs.
        self._is_made.acquire()
        try:
            if self._hidden is not None:
                self._hidden.remove()
        except OSError as error:
            self.remarks.append(f"{self._folder}: an empty file .sdisup-next-… stays: {error.strerror}")
        self._close_all()

    def _close_all(self) -> None:
        for descriptor in {self._descriptor, self._directory, *self._unsynced} - {-1}:
            os.close(descriptor)
        self._descriptor = self._directory = -1
        self._unsynced = []

    def _remember_disk(self) -> None:
        try:
            remember_disk(self._place.disk_note, self._place.recordings, self._filesystem)
        except OSError:
            # A full /run must not end a recording; the next file tries again.
            return

    def _wrong_place(self) -> str:
        """Why no file may be made here now: it is another filesystem than apply found, or the runners before."""
        place = self._place
        found = filesystem_identity(place.recordings)
        noted = "" if place.filesystem or not place.disk_note else remembered_disk(place.disk_note, place.recordings)
        right = place.filesystem or noted
        if right and not is_same_filesystem(right, found):
            when = "recorded to before" if noted else "applied"
            return (
                f"{place.recordings} is on {found}, not on {right} as when it was {when}: mount the "
                "disk; or, if this is meant, run: sdisup apply --accept-disks"
            )
        self._is_new_disk = bool(place.disk_note) and not right and not is_system_disk(found)
        # A disk that is mounted over the system's own is where the next file belongs.
        self._filesystem = right or ("" if is_system_disk(found) else found)
        return ""

    def _enter(self) -> str:
        """Open the file's directory, as far as it is there below the recordings, and look at its space."""
        place = self._place
        self._name = name_at(place.template, place.container, time.time(), place.segment)
        self._folder = os.path.join(place.directory, self._name.folder) if self._name.folder else place.directory
        self._directory, self._missing = open_below(place.recordings, self._folder)
        # Another disk may be mounted below the recordings.
        space = os.fstatvfs(self._directory)
        self._free_bytes = space.f_bavail * space.f_frsize
        if self._free_bytes < LEAST_FREE_BYTES:
            if self._place.min_free_bytes:
                say_in(self._place.wanted)
            return f"disk full: {self._folder} has {self._free_bytes / 1e6:.1f} MB free; free some space"
        return ""

    def _make_directories(self) -> None:
        """Make what is missing of the file's directory, and open it. Raises OSError; called again, it goes on."""
        while self._missing:
            name = self._missing[0]
            if _make(name, self._directory):
                self._made.append(name)
            below = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=self._directory)
            try:
                self._unsynced.append(os.dup(below))
            except OSError:
                os.close(below)
                raise
            os.close(self._directory)
            self._directory = below
            del self._missing[0]

    def _open(self) -> str:
        """Make the file, and settle its name; where there are no files without one, it gets it now."""
        if self._is_ahead:
            self._descriptor = make_unnamed(self._directory)
            if self._descriptor < 0:
                hidden = Hidden(os.dup(self._directory), self._place.port)
                self._descriptor = hidden.make()
                self._hidden = hidden
            return ""
        # All descriptors come before the file: one that has a name, nobody would remove.
        self._unsynced.append(os.dup(self._directory))
        if self._spare is not None:
            self._descriptor = self._spare.take(self._directory)
        if self._descriptor < 0:
            self._descriptor = make_unnamed(self._directory)
        self._is_named = self._descriptor < 0
        if self._is_named:
            self._make_directories()
        if self._take_name(self._make_named if self._is_named else self._is_free):
            return ""
        return f"{self._folder} {NO_NAME}"

    def _take_name(self, take: Callable[[str], bool]) -> bool:
        """Settle the file's path: that of the first name which `take` gets. False where it gets none."""
        number = self._first_number()
        for _ in range(NAME_TRIES):
            name = self._name.numbered(number)
            if take(name):
                self._path = os.path.join(self._folder, name)
                self._look_from_here()
                if self._spare is not None:
                    self._spare.numbered = (self._name, number)
                return True
            number = max(number + 1, self._next_number())
        return False

    def _first_number(self) -> int:
        """The number to try first. The try before this one may have settled the same, and left no file."""
        if not self._name.is_counted:
            return 1
        if self._spare is not None and self._spare.numbered[0] == self._name:
            return self._spare.numbered[1]
        return self._next_number()

    def _next_number(self) -> int:
        return self._name.next_number([] if self._missing else os.listdir(self._directory))

    def _look_from_here(self) -> None:
        self._whereabouts = Whereabouts(
            self._path,
            self._descriptor,
            self._directory,
            directory=self._folder,
            recordings=self._place.recordings,
            filesystem=self._filesystem,
        )

    def _is_free(self, name: str) -> bool:
        if self._missing:
            return True
        try:
            os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def _make_named(self, name: str) -> bool:
        """Invariant 3: with O_EXCL no two writers share a name, whatever the clock does."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(name, flags, 0o664, dir_fd=self._directory)
        except FileExistsError:
            return False
        return True

    def _give_name(self) -> None:
        """Give the file the name that was settled, or another one if something has it by now.

        Raises OSError where it cannot have one: then it is as good as deleted.
        """
        if self._is_named:
            return

        def give(name: str) -> bool:
            if self._hidden is not None:
                return self._hidden.rename(self._directory, name)
            return give_name(self._descriptor, self._directory, name)

        try:
            if self._named_by is not None:
                self._place, self._named_by = self._named_by, None
                self._settle_anew()
            if self._missing:
                self._make_directories()
                self._look_from_here()
            is_given = give(os.path.basename(self._path)) or self._take_name(give)
            if not is_given:
                raise OSError(errno.EEXIST, f"{self._folder} {NO_NAME}")
        except OSError as error:
            self.refusal = str(error.strerror)
            raise
        self._is_named = True
        self._tell(Named(self._path))

    def _watch(self) -> str:
        """Look at the file until finish() is called; returns why the last look failed, if it did.

        A look that fails does not end this: FFmpeg may be writing on, and a server or a directory's rights come back.
        """
        seen_bytes, told_at = 0, time.monotonic()
        while True:
            is_hurried = time.monotonic() - self._hurried_at < HURRY_S
            is_eager = is_hurried and not self._has_media and not self.watch_problem
            self._finish.acquire(timeout=FIRST_LOOK_S if is_eager else SAMPLE_S)
            finishing = self._is_finishing
            problem = ""
            try:
                size = os.fstat(self._descriptor).st_size
                # The last look comes at any size: FFmpeg's trailer may change the middle of the file.
                if not self._has_media and (finishing or size > seen_bytes):
                    self._look_for_media(size)
                    seen_bytes = size
                if size > HEAD_BYTES:
                    # Whatever it holds, it is worth a name.
                    self._give_name()
                self._write_timecode(size)
                if size and self._is_named and not finishing and not self._is_synced:
                    self._begin_to_sync()
            except OSError as error:
                problem = str(error.strerror)
            if finishing:
                return f"{self._path}: {problem}" if problem else ""
            if self._has_media or problem or time.monotonic() - told_at >= SAMPLE_S:
                told_at = time.monotonic()
                problem = self._tell_sample() or problem
                self.watch_problem = f"{self._path} cannot be looked at: {problem}" if problem else ""

    def _read(self, count: int, offset: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def _write_timecode(self, size_bytes: int) -> None:
        """A failure costs the timecode alone; it is tried again."""
        stamp = self.timecode
        if stamp is None or (stamp.is_found and not stamp.goes_on):
            return
        try:
            for offset, data in stamp.due(size_bytes, self._read):
                os.pwrite(self._descriptor, data, offset)
        except OSError as error:
            self.remarks.append(f"{self._path} may lack its timecode, {stamp.text}: {error.strerror}")

    def _end_timecode(self, size_bytes: int) -> None:
        """FFmpeg has closed the file, or was killed."""
        stamp = self.timecode
        if stamp is None:
            return
        stamp.begin_again()
        self._write_timecode(size_bytes)
        if not stamp.is_found:
            self.remarks.append(f"{self._path} has no place for its timecode, {stamp.text}")

    def _look_for_media(self, size_bytes: int) -> None:
        if holds_media(self._place.container, size_bytes, self._read):
            self._give_name()
            self._has_media = True
            self._tell(FirstMedia())

    def _tell_sample(self) -> str:
        """Tell a Sample; returns why some of it could not be looked at, of which the former value is told."""
        problem = ""
        try:
            ours, seen_at = os.fstat(self._descriptor), time.monotonic()
        except OSError as error:
            return str(error.strerror)
        for look in (self._look_for_space, self._look_for_name):
            try:
                look()
            except OSError as error:
                problem = str(error.strerror)
        filesystem = f"{os.major(ours.st_dev)}:{os.minor(ours.st_dev)}"
        # Some filesystems count no links (FUSE): what its path leads to is not deleted.
        found = self._found
        is_deleted = (found.moved or bool(self.refusal)) and ours.st_nlink == 0
        sample = Sample(
            ours.st_size, self._free_bytes, filesystem, found.moved, is_deleted, found.place, found.misplaced, seen_at
        )
        self._tell(sample, is_news=self._news.is_in(sample))
        return problem

    def _look_for_space(self) -> None:
        space = os.fstatvfs(self._descriptor)
        self._free_bytes = space.f_bavail * space.f_frsize
        if self._free_bytes < self._place.min_free_bytes and time.monotonic() - self._asked_at >= ASK_S:
            self._asked_at = time.monotonic()
            say_in(self._place.wanted)

    def _look_for_name(self) -> None:
        where = self._whereabouts
        if where is None:
            return
        had_numbers = where.has_numbers
        self._found = where.look() if self._is_named else where.look_for_directory()
        if had_numbers and not where.has_numbers:
            self.remarks.append(
                f"{self._folder} is on a filesystem that numbers its files anew at each look: where one is "
                "replaced by another, nobody notices"
            )

    def _begin_to_sync(self) -> None:
        """Sync the file from its first byte on, in a thread of its own: fdatasync may take seconds.

        A file without a byte is not worth a sync: without a signal there is one each second.
        """
        descriptor = -1
        try:
            descriptor = os.dup(self._descriptor)
            _thread.start_new_thread(self._keep_durable, (descriptor,))
        except (OSError, RuntimeError) as error:
            # It is tried again at the next look.
            if descriptor >= 0:
                os.close(descriptor)
            self.sync_problem = f"what is recorded to {self._path} may not be durable: {error}"
        else:
            self._is_synced, self.sync_problem = True, ""

    def _keep_durable(self, descriptor: int) -> None:
        """Sync the file. Invariant 5: a power cut costs at most `sync_interval_s` of what FFmpeg wrote."""
        try:
            self._sync_names(descriptor)
            # Not by the lock, which the waiting thread holds again.
            while not self._is_finishing:
                time.sleep(self._sync_interval_s)
                self._sync(os.fdatasync, descriptor)
        finally:
            os.close(descriptor)

    def _sync_names(self, descriptor: int) -> None:
        """Without an fsync of its directory a file, or a new directory, may have no name after a power cut."""
        self._sync(os.fsync, descriptor)
        while self._unsynced:
            self._sync(os.fsync, self._unsynced[-1])
            os.close(self._unsynced.pop())

    def _sync(self, sync: Callable[[int], None], descriptor: int) -> None:
        """Sync once, and keep a failure: the kernel reports each failure only once, and perhaps never to FFmpeg."""
        try:
            sync(descriptor)
        except OSError as error:
            if error.errno in CANNOT_SYNC and stat.S_ISDIR(os.fstat(descriptor).st_mode):
                self.remarks.append(
                    f"{self._folder} is on a filesystem that cannot sync directories: after a power cut a new "
                    "file may have no name"
                )
                return
            self.sync_problem = f"disk error: what was recorded to {self._path} may not be durable: {error.strerror}"

    def _close(self, problem: str) -> None:
        size_bytes = inode = 0
        kept = True
        try:
            found = os.fstat(self._descriptor)
            size_bytes, inode = found.st_size, found.st_ino
            # After a look that failed the file may hold frames.
            may_hold_frames = size_bytes > HEAD_BYTES or (size_bytes > 0 and not self._is_empty)
            kept = may_hold_frames and (self._has_media or bool(problem) or size_bytes > HEAD_BYTES)
            if kept:
                self._give_name()
                self._end_timecode(size_bytes)
                if self._is_cut_off and self._is_synced:
                    # The kernel begins to write what is in its cache only, before it drops it.
                    os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                else:
                    os.fdatasync(self._descriptor)
                if not self._is_synced:
                    self._sync_names(self._descriptor)
            elif self._is_named:
                kept = not self._remove_empty()
            self._let_go()
        except OSError as error:
            problem = problem or f"{self._path}: {error.strerror}"
            if not self._is_named:
                kept = False
                self._tell_sample()
        self._tell(Closed(size_bytes, kept, problem or self.sync_problem, inode if kept else 0))

    def _let_go(self) -> None:
        """Close what is open; an empty file without a name is for the next try."""
        for directory in [] if self._is_synced else self._unsynced:
            os.close(directory)
        if self._spare is None or self._is_named or self._hidden is not None or self._directory < 0:
            for descriptor in {self._descriptor, self._directory} - {-1}:
                os.close(descriptor)
            return
        # FFmpeg may have written a header.
        os.ftruncate(self._descriptor, 0)
        self._spare.put(self._descriptor, self._directory)

    def _remove_empty(self) -> bool:
        """Remove this runner's file, which never held a frame: a try each second would leave thousands of files."""
        ours, name = os.fstat(self._descriptor), os.path.basename(self._path)
        try:
            named = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return True
        if not is_same_at_rest(named, ours):
            return False
        os.unlink(name, dir_fd=self._directory)
        self._remove_directories()
        return True

    def _remove_directories(self) -> None:
        """Remove those that were made for this file and hold nothing else, where they are still there."""
        at = os.dup(self._directory)
        try:
            for name in reversed(self._made):
                above = os.open("..", DIRECTORY, dir_fd=at)
                is_there = is_same(os.stat(name, dir_fd=above, follow_symlinks=False), os.fstat(at))
                os.close(at)
                at = above
                if not is_there:
                    return
                os.rmdir(name, dir_fd=at)
        except OSError as error:
            # Another port made a file there, or somebody moved it.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
        finally:
            os.close(at)


def recording_files() -> Callable[..., RecordingFile]:
    """What makes a runner's files: an empty one is used again by the next try."""
    spare = Spare()
    return lambda place, sync_interval_s, wake, **ahead: RecordingFile(place, sync_interval_s, wake, spare, **ahead)


def _make(name: str, above: int) -> bool:
    """Make a directory; False if it is there."""
    try:
        os.mkdir(name, 0o775, dir_fd=above)
    except FileExistsError:
        # Another port made it at the same moment; or it is no directory, and cannot be opened as one.
        return False
    return True


def _open_problem(directory: str, folder: str, error: OSError) -> str:
    """Why no file can be made in `folder`, which is `directory`, that of the recordings, or below it."""
    if isinstance(error, FileNotFoundError):
        return f"{directory} does not exist; mount it or make it: install -d -o sdisup -g sdisup -m 2775 {directory}"
    if error.errno == errno.EROFS and is_shut_off(directory):
        made_late = f"{directory} was made after this runner's start, and its sandbox keeps it read-only"
        return f"{made_late}; the next runner records there"
    if error.errno == errno.EROFS:
        return f"disk error: {directory} is on a filesystem that is read-only; see: dmesg"
    if isinstance(error, PermissionError):
        return _permission_problem(folder)
    return f"no file can be made in {directory}: {error.strerror}"


def _permission_problem(directory: str) -> str:
    """Which of the directories on the way refuses, and the command that mends it."""
    there = directory
    while not os.path.isdir(there) and there != "/":
        closed = os.path.dirname(there)
        if os.path.isdir(closed) and not os.access(closed, os.X_OK):
            return f"the user sdisup may not look into {closed}; let it: chmod o+x {closed}"
        there = closed
    return f"{there} is not writable by the user sdisup; make it so: chown sdisup:sdisup {there}"
