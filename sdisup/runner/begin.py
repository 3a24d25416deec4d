"""What a runner does first: all that it takes to spawn FFmpeg, and nothing else.

FFmpeg takes 0.2 to 0.3 s to start. What the runner does after the spawn costs nothing, and what it does before is time
that is not recorded. So this module, and what it imports, is loaded first; `the_rest` loads all else that a runner will
ever need before READY, so that an upgrade underneath cannot mix versions. That comes when the first frame is on disk:
where several ports start at once their FFmpegs want all processors, and the last one's first frame would wait for it.
"""

from __future__ import annotations

import gc
import os
import select
import time

from sdisup.contract import names
from sdisup.contract.files import (
    RUN_DIRECTORY,
    Exhausted,
    Unreadable,
    asleep_seconds,
    boot_id,
    monotonic,
    up_seconds,
    utc_text,
)
from sdisup.contract.lean import signal
from sdisup.contract.options import OptionError, Options, parse_options, unit_of
from sdisup.contract.records import Record
from sdisup.contract.requests import Request, claim_request
from sdisup.contract.status import PortStatus, read_status, stopped_at, take_lock
from sdisup.ledger import spool
from sdisup.runner.command import next_options
from sdisup.runner.disk import Opened, RecordingFile, place_of, recording_files
from sdisup.runner.ffmpeg import FFmpegProcess, spawn_into
from sdisup.runner.memory import Memory, backoff_s, leave_mark, memory_path, take_up
from sdisup.runner.notify import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

SILENT_S = 6.0
"""A runner that was killed, and last wrote its status longer ago, stood still: systemd's watchdog kills it 6.7 s after
the last sign of life at the earliest, and starts the next one at once."""
FILE_S = 0.2
"""How long the first file is waited for; the rest of the runner, which heeds all, then waits for a slow disk."""
START_S, LOOK_S = 1.0, 0.05
"""How long FFmpeg is left to start, which it does in 0.7 s beside seven others; and how often a signal, and a pipe that
fills, are looked for meanwhile: no poll waits for these."""
OWN_ENVIRONMENT = "MALLOC_ARENA_MAX"
"""What the unit says to this process alone (mallopt(3)): an encoder's threads would wait for each other."""
WANTS_DIRECTORY = "/etc/systemd/system/sdi-record.target.wants"


class First(Record, frozen=False):
    """The first attempt as far as it was begun: its options, since when it goes on (CLOCK_MONOTONIC), its file.

    `path` is that of which the ledger was told. FFmpeg was spawned by `spawn`, or could not be, which `refusal` says.
    """

    options: Options
    began: float
    file: RecordingFile
    spawn: Callable[[Sequence[str], int], FFmpegProcess]
    open_file: Callable[..., RecordingFile]
    path: str = ""
    ffmpeg: FFmpegProcess | None = None
    refusal: OSError | None = None

    def give_file(self, *place: object, **ahead: bool) -> RecordingFile:
        """The file, to whom would make it; those that follow it are made as they come."""
        return self.open_file(*place, **ahead) if ahead else self.file

    def give_ffmpeg(self, command: Sequence[str], output: int) -> FFmpegProcess:
        """The FFmpeg, to whom would spawn it; it is spawned now where the disk took its time. Raises OSError."""
        if self.refusal is not None:
            raise self.refusal
        return self.ffmpeg or self.spawn(command, output)


class Beginning:
    """A port's start, from its options on.

    `options` are those of the take, which records into `directory`; `memory` is what the runner before left, and
    `status_before` its last word. `problems` are what an operator should know. `notifier` has what systemd gave this
    process in its environment, and FFmpeg is not to have. `first` is the first attempt, if it was begun here.
    """

    def __init__(
        self,
        options: Options,
        *,
        poll: select.poll | None = None,
        now: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time.time,
        asleep: Callable[[], float] = asleep_seconds,
        open_file: Callable[..., RecordingFile] | None = None,
        spawn: Callable[[Sequence[str], int], FFmpegProcess] = FFmpegProcess,
    ) -> None:
        self.run_directory = options.run_directory or RUN_DIRECTORY
        directory = os.environ.get("RUNTIME_DIRECTORY") or f"{self.run_directory}/port-{options.port}"
        self.problems: list[str] = []
        self.memory = memory = _recall(options.port, self.run_directory, directory, self.problems)
        _begin_take(memory, options, self.run_directory, directory, self.problems)
        request, self._configured = memory.request, options
        self.options = options.replaced(
            name=request.name or options.name,
            codec=request.codec or options.codec,
            container=request.container or options.container,
            command=request.argv or options.command,
            file_name=_file_name(options, request),
        )
        self.directory = request.recording_path or options.recordings
        own_names = {"port": options.port, "name": options.name}
        self._names = names.fill(options.file_name, own_names) if options.file_name else ""
        """How this port's files are named where no take asks for another name."""
        self.status_before = _status_before(options.port, self.run_directory, self.problems)
        self.notifier = Notifier()
        os.environ.pop(OWN_ENVIRONMENT, None)
        self.spool = spool.Spool(options.port, self.run_directory, wall=wall, monotonic=now)
        self.now, self.wall, self.asleep = now, wall, asleep
        self.open_file, self.spawn = open_file or recording_files(), spawn
        self.asleep_s = asleep()
        self.poll = poll or select.poll()
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.poll.register(self.wake_read, select.POLLIN)
        self.first: First | None = None
        self._tell_began()

    def after_cut(self, take: str | None, request_id: str) -> tuple[Request, Options]:
        """What the next take is known by, and what names its files."""
        request = self.memory.request
        name = take if take and request.name else request.name
        request = request.replaced(take=take or request.take, request_id=request_id, name=name)
        own_name, file_name = request.name or self._configured.name, _file_name(self._configured, request)
        return request, self.options.replaced(name=own_name, file_name=file_name)

    def cut(self, take: str | None, request_id: str) -> None:
        """The next take begins; the runners that follow know it too."""
        self.memory.request, self.options = self.after_cut(take, request_id)
        self.memory.take_started_at = utc_text(self.wall())
        self.memory.save()

    def wake(self) -> None:
        """Wake the runner's poll, from another thread."""
        try:
            os.write(self.wake_write, b"\0")
        except OSError:
            # The pipe is full of wake-ups already, or the runner ends without waiting for its disk.
            return

    def spawn_first(self) -> None:
        """Begin the first attempt, unless the port has to wait or is stopped already."""
        if backoff_s(self.memory.failures) or signal.sigpending():
            return
        options, now = next_options(self.options, self.memory), self.now()
        file = self.open_file(place_of(options, self.directory), options.sync_interval_s, self.wake)
        self.first = first = First(options, now, file, self.spawn, self.open_file)
        self.poll.poll(FILE_S * 1000)
        event = first.file.events[0] if first.file.events else None
        if not isinstance(event, Opened):
            return
        self.tell_opened(first.options, event.path, now, began=now, is_retry=False)
        first.path = event.path
        try:
            first.ffmpeg = spawn_into(self.spawn, options.command, options.container, event.descriptor)
        except OSError as error:
            first.refusal = error

    def let_start(self) -> None:
        """Take no processor time while FFmpeg starts: until its first frame is on disk, it has ended or much to say, or
        anybody wants something of this process."""
        ffmpeg = self.first.ffmpeg if self.first else None
        if self.first is None or ffmpeg is None:
            return
        until, events = self.now() + START_S, len(self.first.file.events)
        self.poll.register(ffmpeg.pidfd, select.POLLIN)
        while len(self.first.file.events) == events and self.now() < until and not signal.sigpending():
            ready = self.poll.poll(LOOK_S * 1000)
            if ffmpeg.is_pressing() or any(descriptor == ffmpeg.pidfd for descriptor, _ in ready):
                break
            # What it was woken for is in the file's events.
            drain(self.wake_read)
        self.poll.unregister(ffmpeg.pidfd)

    def tell_opened(self, options: Options, path: str, now: float, *, began: float, is_retry: bool) -> None:
        """Tell the ledger of an attempt's file."""
        self.spool.tell(
            spool.OPENED,
            now,
            path=path,
            take=self.memory.request.take,
            codec=options.codec,
            rate=options.rate,
            is_retry=is_retry,
            attempt=round(began * 1000),
        )

    def _tell_began(self) -> None:
        now, boot, before, is_restart = self.now(), boot_id(), self.status_before, self.memory.is_restart
        self.spool.tell(
            spool.BEGAN,
            now,
            is_restart=is_restart,
            records_at_boot=os.path.lexists(f"{WANTS_DIRECTORY}/{unit_of(self.options)}"),
            boot_at=now - up_seconds(),
            stopped_at=None if is_restart else stopped_at(before, boot),
            asleep_s=round(self.asleep_s, 3),
            stood_still=_stood_still(before, boot, now),
            take=self.memory.request.take,
            ffmpeg=self.options.command[0],
            name=self.options.name,
            recordings=self.options.recordings,
            container=self.options.container,
            file_name=self._names,
            **_left_fields(before, boot),
        )


def drain(descriptor: int) -> None:
    """Read what is in a pipe, which does not block."""
    try:
        while os.read(descriptor, 4096):
            continue
    except BlockingIOError:
        return


def _left_fields(left: PortStatus | None, boot: str) -> dict[str, object]:
    """What the runner before had recorded by its last word, where it was killed: nobody may find its file."""
    if left is None or left.current_file is None or left.boot_id != boot:
        return {}
    frames = left.frame_count if left.file_frame_count is None else left.file_frame_count
    return {"left_path": left.current_file, "left_frames": frames, "left_bytes": left.bytes_written}


def _stood_still(before: PortStatus | None, boot: str, now: float) -> bool:
    """Whether the former runner recorded, and had said nothing for a while: systemd's watchdog kills it then."""
    is_silent = before is not None and before.boot_id == boot and now - before.updated_monotonic > SILENT_S
    return is_silent and before is not None and before.pid is not None and before.is_recording


def _recall(port_index: int, run_directory: str, directory: str, problems: list[str]) -> Memory:
    """The memory that the runner before left; a new one where it cannot be read."""
    try:
        return take_up(port_index, run_directory, directory)
    except Exhausted:
        raise
    except Unreadable as error:
        problems.append(f"{error}; begins as after a stop")
        return Memory(memory_path(port_index, run_directory))


def _begin_take(memory: Memory, options: Options, run_directory: str, directory: str, problems: list[str]) -> None:
    """Claim the request for a take at a first start; at a restart the memory holds it."""
    if not memory.is_restart:
        memory.take_started_at = utc_text(time.time())
        try:
            claim_request(options.port, options.recordings, run_directory, memory.begin)
        except Exhausted:
            raise
        except Unreadable as error:
            problems.append(f"{error}; recording as it is configured")
        except OSError as error:
            problems.append(f"{error.strerror}: its take cannot be kept; recording as it is configured")
    memory.save()
    try:
        leave_mark(options.port, run_directory, directory)
    except OSError as error:
        problems.append(f"{directory}: {error.strerror}: the next runner will begin as after a stop")


def _file_name(options: Options, request: Request) -> str:
    """How the take's files are named, but for the moment and the number. A path or a name of its own has no folders."""
    has_own = request.name or request.recording_path
    values = {
        "port": options.port,
        "name": request.name or options.name,
        "take": request.take or names.UNTITLED,
        "codec": request.codec or options.codec,
    }
    return names.fill(names.DEFAULT if has_own else options.file_name or names.DEFAULT, values)


def _status_before(port_index: int, run_directory: str, problems: list[str]) -> PortStatus | None:
    """The last word of the runner before; None if it left none, or none that can be read."""
    try:
        return read_status(port_index, run_directory)
    except Unreadable as error:
        problems.append(f"{error}; the take's frames are counted anew")
        return None


def the_rest() -> ModuleType:
    """All that a runner needs besides."""
    from sdisup.runner import main as rest

    gc.enable()
    return rest


def main(arguments: Sequence[str]) -> int:
    """`run OPTIONS -- FFMPEG ARGUMENTS… {output}`; the exit code is the unit's."""
    passed_over: list[str] = []
    try:
        options = parse_options(arguments, passed_over.append)
    except OptionError as error:
        return int(the_rest().refuse(error, passed_over))
    run_directory, problem = options.run_directory or RUN_DIRECTORY, ""
    try:
        # Held, not closed, until this process ends.
        take_lock(options.port, run_directory)
    except BlockingIOError:
        return int(the_rest().wait_for_former_runner(options.port, passed_over))
    except OSError as error:
        hint = "make it: systemd-tmpfiles --create sdisup.conf"
        problem = f"no lock in {run_directory}: {error.strerror}; {hint}"
    try:
        beginning = Beginning(options)
        if problem:
            beginning.problems.insert(0, problem)
        beginning.spawn_first()
        beginning.let_start()
    except (OSError, Exhausted) as error:
        # Before it has read its take: the next runner has to have it.
        return int(the_rest().begin_again(options.port, error, passed_over))
    return int(the_rest().go_on(beginning, passed_over))
