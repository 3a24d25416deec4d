"""Spawns FFmpeg and ends it; no other module does. Nothing here waits: the runner's poll does.

Facts (FACTS 3): `q` on stdin ends a recording with a complete file, and so does one SIGTERM; two signals within 5 ms
leave no trailer. A pipe that nobody reads stops the recording. With fd 2 closed at exec the log goes into the
recording. So FFmpeg gets a pipe as stdin, which stays open until FFmpeg has ended.

Its progress blocks do not come among its log, but over a socket of their own, whose messages the kernel stamps with the
time: so they may wait there until the runner has a turn, and it still knows when each came.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

# The module `socket` would load four more, for what is not needed here.
from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET, socket, socketpair

from sdisup.contract.files import pidfd_of
from sdisup.contract.lean import signal
from sdisup.runner.command import is_segmented, with_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READ_BYTES = 1 << 16
OUTPUT_DESCRIPTOR = 3
OUTPUT_NAME = f"/proc/self/fd/{OUTPUT_DESCRIPTOR}"
"""What FFmpeg opens as its output: the file that the runner has made. By the file's own name FFmpeg would open whatever
somebody has put in its place meanwhile."""
FIRST, FILES = 100, 10
"""The descriptors of the files that FFmpeg opens itself, which it counts from 100 to 109 and again (-segment_wrap)."""
PROGRESS, PROGRESS_DESCRIPTOR = ("-progress", "pipe:2"), 4
"""How a unit's command line has the progress blocks, and the descriptor over which they come instead."""
BLOCK_BYTES = 4096
"""No block is larger, since FFmpeg writes each at once (progress.py)."""
SO_TIMESTAMPNS = SCM_TIMESTAMPNS = 35
"""A message's time as a timespec (socket(7), asm-generic/socket.h); for AF_UNIX too (net/unix/af_unix.c)."""
FIONREAD = 0x541B
"""How many bytes nobody has read (ioctl_tty(2), pipe(7)); the module that names it would be loaded for it alone."""


def output_name(command: Sequence[str]) -> str:
    """What FFmpeg takes as its output: the file that it inherits, or this process' descriptors (proc(5), fd)."""
    return f"/proc/{os.getpid()}/fd/{FIRST // FILES}%d" if is_segmented(command) else OUTPUT_NAME


def spawn_into(
    spawn: Callable[[Sequence[str], int], FFmpegProcess], command: Sequence[str], container: str, descriptor: int
) -> FFmpegProcess:
    """Spawn an FFmpeg that records into this file, which is open, and those that it is lent later. Raises OSError."""
    words = with_output(command, container, output_name(command))
    if not is_segmented(command):
        return spawn(words, descriptor)
    lend(descriptor, 0)
    try:
        return spawn(words, -1)
    except OSError:
        take_back(0)
        raise


def descriptor_of(index: int) -> int:
    """The descriptor by which FFmpeg opens its `index`-th file, counted from 0."""
    return FIRST + index % FILES


def lend(descriptor: int, index: int) -> None:
    """Let FFmpeg open a file as its `index`-th one. Raises OSError."""
    _hold_numbers()
    os.dup2(descriptor, descriptor_of(index), inheritable=False)


def take_back(index: int) -> None:
    """Close the descriptor by which FFmpeg has opened its `index`-th file."""
    os.dup2(FIRST + FILES, descriptor_of(index), inheritable=False)


def _hold_numbers() -> None:
    """Hold the numbers of FFmpeg's files from here on: where a disk hangs, many files are open, and FFmpeg would empty
    whichever had the number of the next one. A socket cannot be opened by its name (open(2), ENXIO). Raises OSError."""
    try:
        os.fstat(FIRST + FILES)
    except OSError:
        nothing = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            for number in range(FIRST, FIRST + FILES + 1):
                os.dup2(nothing.fileno(), number, inheritable=False)
        finally:
            nothing.close()


class Ladder:
    """When which step ends FFmpeg: `q`, then SIGTERM once, then SIGKILL. Pure.

    `due(now)` returns each step once, when its time has come; times are CLOCK_MONOTONIC seconds. `quits` is whether
    there is a `q`; the steps after it come when they would come anyway. For `patience_s` longer they wait for an FFmpeg
    that gets on with its file's end.
    """

    def __init__(
        self, now: float, quit_s: float, term_s: float, *, quits: bool = True, patience_s: float = 0.0
    ) -> None:
        steps = [(now, "quit"), (now + quit_s, "term"), (now + quit_s + term_s, "kill")]
        self._quit_s, self._term_s, self._until = quit_s, term_s, now + quit_s + patience_s
        self._steps = steps if quits else steps[1:]
        self.is_at_rest = True
        """Whether no step was taken yet."""

    def due(self, now: float) -> str:
        """The step to take now, or an empty string."""
        if self._steps and now >= self._steps[0][0]:
            self.is_at_rest = False
            return self._steps.pop(0)[1]
        return ""

    @property
    def is_patient(self) -> bool:
        """Whether FFmpeg was told to quit, and more steps may follow."""
        return 0 < len(self._steps) < 3

    def wait_on(self, now: float) -> None:
        """FFmpeg gets on: the next step waits as long as after the step before it, up to the limit."""
        at = min(now + (self._quit_s if len(self._steps) == 2 else self._term_s), self._until)
        late_s = at - self._steps[0][0] if self.is_patient else 0.0
        if late_s > 0:
            self._steps = [(due + late_s, step) for due, step in self._steps]

    def skip(self) -> str:
        """Go to the last step now."""
        self._steps = []
        return "kill"

    def next_at(self) -> float | None:
        """When the next step is due; None after the last step."""
        return self._steps[0][0] if self._steps else None

    def last_at(self) -> float:
        """When the last step is due; 0 after it."""
        return self._steps[-1][0] if self._steps else 0.0


SLACK_S = 0.1
"""How far two readings of the clocks may be apart."""


class Arrivals:
    """When messages came, of which the kernel says when by the wall clock, which may be moved meanwhile. Pure.

    Times are in seconds, of CLOCK_MONOTONIC (`now`) and of the wall clock.
    """

    def __init__(self, now: float, wall: float) -> None:
        self._at = now
        self._ahead_s = wall - now

    def ages(self, stamps: Sequence[float], now: float, wall: float) -> list[float]:
        """How old each of the messages is that came since the last call, in seconds."""
        ahead_s, self._ahead_s = (wall - now, self._ahead_s), wall - now
        ages = []
        for stamp in stamps:
            # By the clock as it is, or as it was: none is older than the one before it, or comes in the future.
            moments = (stamp - ahead_s[0], stamp - ahead_s[1])
            possible = (min(now, max(self._at, at)) for at in moments if self._at - SLACK_S <= at <= now + SLACK_S)
            # A stamp by a clock that is not this one tells nothing: what is read now came by now.
            self._at = next(possible, now)
            ages.append(now - self._at)
        return ages


def _with_progress_apart(arguments: Sequence[str]) -> list[str]:
    """The command line with its progress blocks on PROGRESS_DESCRIPTOR."""
    option, value = PROGRESS
    return [
        f"pipe:{PROGRESS_DESCRIPTOR}" if word == value and before == option else word
        for before, word in zip(("", *arguments), arguments, strict=False)
    ]


class FFmpegProcess:
    """A running FFmpeg; poll its `stderr`, `progress` and `pidfd`. Raises OSError if the program cannot be executed.

    `output` is the descriptor that FFmpeg gets as OUTPUT_DESCRIPTOR; -1 for none.
    """

    def __init__(self, arguments: Sequence[str], output: int) -> None:
        opened: list[int] = []
        sockets: Sequence[socket] = ()
        try:
            opened += os.pipe2(os.O_CLOEXEC)
            opened += os.pipe2(os.O_CLOEXEC)
            opened.append(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
            stdin_read, self._stdin, self.stderr, stderr_write, null = opened
            # The last of seven that are open, it has none of the numbers that others get below.
            self._progress, progress_write = sockets = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
            self._progress.setsockopt(SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.pid = os.posix_spawnp(
                arguments[0],
                _with_progress_apart(arguments),
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, stdin_read, 0),
                    (os.POSIX_SPAWN_DUP2, null, 1),
                    (os.POSIX_SPAWN_DUP2, stderr_write, 2),
                    # These last: each of the others may have these numbers itself.
                    *([(os.POSIX_SPAWN_DUP2, output, OUTPUT_DESCRIPTOR)] if output >= 0 else []),
                    (os.POSIX_SPAWN_DUP2, progress_write.fileno(), PROGRESS_DESCRIPTOR),
                ],
                # Python ignores SIGPIPE, and an ignored signal stays ignored across exec.
                setsigdef=[signal.SIGPIPE],
                setsigmask=[],
            )
            self.pidfd = pidfd_of(self.pid)
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            for end in sockets:
                end.close()
            raise
        for descriptor in (stdin_read, stderr_write, null):
            os.close(descriptor)
        progress_write.close()
        self.progress = self._progress.fileno()
        self.spawned_at = time.monotonic()
        self._arrivals = Arrivals(self.spawned_at, time.time())
        self.cpu_s = 0.0
        """What FFmpeg cost, in seconds of a core; known once it is reaped."""
        os.set_blocking(self.stderr, False)
        os.set_blocking(self._stdin, False)

    def read(self) -> bytes | None:
        """What FFmpeg wrote to stderr; empty at the end of stderr, None while there is nothing new."""
        try:
            return os.read(self.stderr, READ_BYTES)
        except BlockingIOError:
            return None

    def is_pressing(self) -> bool:
        """Whether its log may fill the pipe soon, which would stop it: a pipe holds 64 KiB (pipe(7))."""
        waiting = fcntl.ioctl(self.stderr, FIONREAD, bytes(4))
        return int.from_bytes(waiting, sys.byteorder) > READ_BYTES // 4

    def blocks(self) -> tuple[list[tuple[float, bytes]], bool]:
        """The progress blocks since the last call, each with how long ago it came, in seconds; and whether more may
        come."""
        stamps, blocks, is_open = [], [], True
        while True:
            try:
                block, ancillary, _, _ = self._progress.recvmsg(BLOCK_BYTES, 64, MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not block:
                is_open = False
                break
            blocks.append(block)
            stamps.append(_stamp(ancillary))
        if not blocks:
            return [], is_open
        now, wall = time.monotonic(), time.time()
        ages = self._arrivals.ages([wall if stamp is None else stamp for stamp in stamps], now, wall)
        return [*zip(ages, blocks, strict=True)], is_open

    def step(self, action: str) -> None:
        """Take one step of the ladder."""
        if action == "quit":
            try:
                os.write(self._stdin, b"q")
            except OSError:
                # FFmpeg has ended or does not read; the ladder's next step reaches it.
                return
        else:
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM if action == "term" else signal.SIGKILL)

    def has_read(self) -> bool:
        """Whether FFmpeg has read all that was written to its stdin (pipe(7), FIONREAD)."""
        return not any(fcntl.ioctl(self._stdin, FIONREAD, bytes(4)))

    def thread_times(self) -> dict[str, float]:
        """For each thread how many seconds it has run, or was ready to run and waited for a core.

        From /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst); empty where the kernel has none.
        """
        times = {}
        directory = f"/proc/{self.pid}/task"
        try:
            for thread in os.listdir(directory):
                with open(f"{directory}/{thread}/schedstat", encoding="ascii") as file:
                    ran_ns, waited_ns, _ = file.read().split()
                times[thread] = (int(ran_ns) + int(waited_ns)) / 1e9
        except (OSError, ValueError):
            # A thread, or all of FFmpeg, has ended meanwhile.
            return times
        return times

    def effort(self) -> tuple[float, int]:
        """How many seconds its threads have run, or waited for a core, and how many bytes it has written anywhere.

        From /proc/PID/io (proc(5), wchar), which has 0 here where it cannot be read.
        """
        written = 0
        try:
            with open(f"/proc/{self.pid}/io", encoding="ascii") as file:
                written = next((int(line.split()[1]) for line in file if line.startswith("wchar:")), 0)
        except OSError:
            # It has ended, or this kernel does not count.
            pass
        return sum(self.thread_times().values()), written

    def reap(self) -> int | None:
        """FFmpeg's exit code, or minus the signal that killed it; None while it runs."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        return os.waitstatus_to_exitcode(status) if pid else None

    def close(self) -> None:
        """Close the descriptors, after FFmpeg is reaped."""
        for descriptor in (self._stdin, self.stderr, self.pidfd):
            os.close(descriptor)
        self._progress.close()


def _stamp(ancillary: Sequence[tuple[int, int, bytes]]) -> float | None:
    """When a message came, by the wall clock."""
    for level, kind, data in ancillary:
        if level == SOL_SOCKET and kind == SCM_TIMESTAMPNS:
            seconds, nanoseconds = (int.from_bytes(data[at : at + 8], sys.byteorder) for at in (0, 8))
            return seconds + nanoseconds / 1e9
    return None
