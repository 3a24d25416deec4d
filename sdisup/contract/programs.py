"""The one door to other programs, but for the runner's FFmpeg. `--debug` shows each, its time, and how it ended.

Without the module subprocess, which is slow to load (FACTS 5). A program is the leader of a session of its own, so that
what it starts can be ended with it; its stdin is empty, and of our descriptors only the one that it is given is open.
"""

from __future__ import annotations

import errno
import os
import select
import stat

from sdisup.contract.files import EXHAUSTED, monotonic, pidfd_of
from sdisup.contract.lean import signal
from sdisup.contract.trace import trace_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import NoReturn

CHUNK_BYTES = 1 << 16
GIVEN_NAME = "/proc/self/fd/3"
"""What a program opens that was given a file: this file, whatever somebody has put in its place since."""


class Program:
    """A program that was started. Raises OSError or ValueError if it cannot be executed."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        with_stderr: bool = False,
        given: int | None = None,
        stdin: int | None = None,
        stderr: int | None = None,
    ) -> None:
        """`with_stderr`: what it writes to stderr counts as its answer too. `given`: the descriptor of GIVEN_NAME.
        `stdin` and `stderr`: descriptors that it has in place of nothing."""
        self._command = list(command)
        self._began = monotonic()
        self._output, write_end = os.pipe2(os.O_CLOEXEC)
        opened = [self._output, write_end]
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            opened.append(null)
            # The given one is the last: each of the others may have its number itself.
            errors = stderr if stderr is not None else write_end if with_stderr else null
            ends = (null if stdin is None else stdin, write_end, errors, *(() if given is None else (given,)))
            self.pid = os.posix_spawnp(
                self._command[0],
                self._command,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(ends)],
                setsid=True,
                # Python ignores SIGPIPE, and an ignored signal stays ignored across exec.
                setsigdef=[signal.SIGPIPE],
                setsigmask=[],
            )
            self._pidfd = pidfd_of(self.pid)
        except BaseException as error:
            for descriptor in opened:
                os.close(descriptor)
            trace_command("run %s: cannot be executed: %s", self._command, error)
            raise
        os.close(write_end)
        os.close(null)

    def answer(
        self,
        limit_bytes: int = 4096,
        timeout_s: float | None = None,
        end_timeout_s: float = 0.2,
        mask: Iterable[int] | None = None,
    ) -> tuple[bytes, int] | None:
        """What it writes, up to `limit_bytes`, and its exit code (minus the signal that killed it), once it has ended.

        None if that is not within `timeout_s` seconds of its start. What is left of it and its children is killed, and
        waited for up to `end_timeout_s` seconds. From here on, where nothing that a signal raises leaves it behind, the
        thread has the signal `mask`.
        """
        deadline = None if timeout_s is None else self._began + timeout_s
        text = b""
        is_over = False
        try:
            if mask is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            while len(text) < limit_bytes and _is_ready(self._output, deadline):
                data = os.read(self._output, min(CHUNK_BYTES, limit_bytes - len(text)))
                if not data:
                    break
                text += data
            os.close(self._output)
            self._output = -1
            is_over = _is_ready(self._pidfd, deadline)
        finally:
            code = self.end(end_timeout_s)
        return (text, code) if is_over else None

    def chunks(self, idle_s: float) -> Iterator[bytes]:
        """What it writes, as it comes. Raises TimeoutError where nothing has come for so long."""
        while _is_ready(self._output, monotonic() + idle_s):
            data = os.read(self._output, CHUNK_BYTES)
            if not data:
                return
            yield data
        raise TimeoutError

    def is_over(self, timeout_s: float = 0.0) -> bool:
        """Whether it has ended, within so long from now."""
        return _is_ready(self._pidfd, monotonic() + timeout_s)

    def interrupt(self, timeout_s: float) -> None:
        """As Ctrl-C does, for what tidies up then; returns when it has ended, and after so long in any case."""
        if not self.is_over():
            os.killpg(self.pid, signal.SIGINT)
            self.is_over(timeout_s)

    def end(self, timeout_s: float = 0.2) -> int:
        """Kill what is left of it; its exit code, 0 of one that the kernel keeps: it is not waited for any longer."""
        # Before it is reaped: afterwards its number may be another's.
        _kill(self.pid)
        _is_ready(self._pidfd, monotonic() + timeout_s)
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        for descriptor in {self._output, self._pidfd} - {-1}:
            os.close(descriptor)
        code = os.waitstatus_to_exitcode(status) if pid else 0
        how = (f"killed by signal {-code}" if code < 0 else f"exit {code}") if pid else "hangs in the kernel"
        trace_command("run %s: %s after %.3f s", self._command, how, monotonic() - self._began)
        return code


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        # Nothing is left of it.
        return


def _is_ready(descriptor: int, deadline: float | None) -> bool:
    """Wait until it can be read, or a process has ended; False if that is not before the deadline."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if deadline is None else max(0.0, deadline - monotonic()) * 1000))


def says(command: Sequence[str], limit_bytes: int = 4096, *, given: int | None = None) -> tuple[bytes, int]:
    """What a command writes to stdout, and its exit code (minus the signal that killed it).

    127 if it cannot be run. It waits for as long as the command runs.
    """
    try:
        answer = Program(command, given=given).answer(limit_bytes)
    except (OSError, ValueError):
        return b"", 127
    return answer or (b"", 127)


def become(command: Sequence[str]) -> NoReturn:
    """Replace this process by a command, which is looked for on PATH. Raises OSError."""
    trace_command("become %s", command)
    os.execvp(command[0], list(command))


# ---- ffprobe ----

COUNT_GENTLY = ("ionice", "-c", "3", "nice", "-n", "19")
"""Processor and disk are the recordings' first."""


DEMUXERS = {"mp4": "mov", "mov": "mov", "mkv": "matroska", "mxf": "mxf"}
"""What reads a recording, by its ending. A file that somebody else made could name any other, such as one that reads
what a playlist names."""


def count_frames(ffprobe: str, path: str) -> tuple[int | None, float]:
    """The pictures of a file, counted by reading all of it, and their rate a second (0 if it has none).

    No pictures for a file that cannot be read, nor for what is no regular file: somebody may have put a FIFO in its
    place, which is never read to its end. None if ffprobe could not tell, or there is no such file. At the lowest
    priority, and without decoding: a day of 50 Mb/s is 500 GB of reading.
    """
    try:
        # Nothing is opened yet: to open what somebody has put here, such as a device, may do something.
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        is_told = error.errno not in (errno.ENOENT, *EXHAUSTED)
        return (0 if is_told else None), 0.0
    try:
        is_regular = stat.S_ISREG(os.fstat(file).st_mode)
        return count_frames_of(ffprobe, file, path.rpartition(".")[2]) if is_regular else (0, 0.0)
    finally:
        os.close(file)


def count_frames_of(ffprobe: str, file: int, container: str) -> tuple[int | None, float]:
    """As count_frames, of a file that is open."""
    demuxer = DEMUXERS.get(container, "")
    # A last picture that is there in part is a packet too, unless corrupt ones are discarded.
    options = "-v quiet -fflags +discardcorrupt -select_streams v:0 -count_packets -of csv=p=0"
    entries = [*("-show_entries", "stream=avg_frame_rate,nb_read_packets"), *(["-f", demuxer] if demuxer else [])]
    text, code = says([*COUNT_GENTLY, ffprobe, *options.split(), *entries, GIVEN_NAME], given=file)
    rate, _, count = text.strip().strip(b",").partition(b",")
    if count.isdigit():
        return int(count), _rate(rate)
    # nice(1) answers 126 and 127 for what it cannot run.
    return (0 if code in (0, 1) else None), 0.0


def _rate(text: bytes) -> float:
    """ffprobe's `25/1`; 0 for `0/0`."""
    above, _, below = text.partition(b"/")
    is_rate = above.isdigit() and below.isdigit() and int(below) > 0
    return int(above) / int(below) if is_rate else 0.0


def ffprobe_beside(ffmpeg: str) -> str:
    """The ffprobe that belongs to an FFmpeg; it is asked only to count the frames of a file that was cut off."""
    beside = os.path.join(os.path.dirname(ffmpeg), "ffprobe")
    return beside if os.path.dirname(ffmpeg) and os.access(beside, os.X_OK) else "ffprobe"
