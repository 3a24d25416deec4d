"""What the runner tells the world: lines in the journal, systemd's READY, STATUS and WATCHDOG, the status file.

None of it ever waits. The journal's rate limit is per unit, and one FFmpeg with a flood of messages would silence
everything else (FACTS 2); so FFmpeg's lines are limited here, at the source.
"""

from __future__ import annotations

import os
import time

# The module `socket` would load four more, for what is not needed here.
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from sdisup import __version__
from sdisup.contract.files import boot_id, utc_text
from sdisup.contract.options import Options, unit_of
from sdisup.contract.status import PortStatus, write_status
from sdisup.runner.attempt import Attempt
from sdisup.runner.memory import Memory
from sdisup.runner.meter import Meter
from sdisup.runner.notify import Notifier
from sdisup.runner.pace import BLOCK_S
from sdisup.runner.rest import LONGEST_S, REST_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
JOURNAL = "/run/systemd/journal/stdout"
BURST_LINES = 120
LINES_PER_S = 2.0
TEXT_LIMIT = 2000
PUBLISH_INTERVAL_S, IDLE_INTERVAL_S = 1.0, 2.5
"""A reader takes a status of 5 s for one of a runner that hangs, and systemd wants its watchdog fed each 3.3 s."""


def shell_text(command: Sequence[str]) -> str:
    """A command as a shell takes it. The library's shlex does the same, and would be loaded for it by each runner."""
    words = (word if word.isascii() and word.translate(_PLAIN).isalnum() else _quoted(word) for word in command)
    return " ".join(words)


_PLAIN = str.maketrans(dict.fromkeys("%+,-./:=@_", "x"))


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"


class Journal:
    """Writes lines as sd-daemon(3) has them: `<4>text`. Times are CLOCK_MONOTONIC seconds.

    `identifier` is what the journal calls the process, as SyslogIdentifier= of the unit says.
    """

    def __init__(self, descriptor: int = 2, identifier: str = "", place: str = JOURNAL) -> None:
        self._descriptor = descriptor
        self._identifier, self._place = identifier, place
        self._tokens = float(BURST_LINES)
        self._filled_at = 0.0
        self._unsaid = 0
        self._rest = b""
        # The descriptor is the journal's stream (or a terminal) and nobody else's: FFmpeg gets a pipe.
        os.set_blocking(descriptor, False)

    def say(self, priority: int, text: str) -> None:
        """A line of the runner's own: not limited, since the runner says little."""
        # A line end inside would begin a line of its own, with a priority that it names itself.
        line = text[:TEXT_LIMIT].replace("\n", " ").replace("\r", " ").replace("\0", " ")
        self._write(f"<{priority}>{line}\n".encode("utf-8", "replace"))

    def forward(self, now: float, priority: int, text: str) -> None:
        """A line of FFmpeg's, limited; how many were left out is said when there is room again."""
        self._tokens = min(float(BURST_LINES), self._tokens + (now - self._filled_at) * LINES_PER_S)
        self._filled_at = now
        if self._tokens < 1:
            self._unsaid += 1
            return
        self._tokens -= 1
        self.report_unsaid()
        self.say(priority, f"ffmpeg: {text}")

    def report_unsaid(self) -> None:
        """Say how many of FFmpeg's lines were left out, if any."""
        if self._unsaid:
            self.say(WARNING, f"{self._unsaid} lines of FFmpeg's log were left out (more than {LINES_PER_S:.0f}/s)")
            self._unsaid = 0

    def _write(self, line: bytes) -> None:
        """A line that the journal does not take at once is lost: the recording must not wait for it."""
        data = self._rest + line
        try:
            written = os.write(self._descriptor, data)
        except (BrokenPipeError, ConnectionResetError):
            # journald was stopped and started, or crashed: its end of the stream is gone, and with it a torn line.
            data, self._rest = line, b""
            try:
                self._connect()
                written = os.write(self._descriptor, data)
            except OSError:
                return
        except OSError:
            return
        # A torn line is completed before the next one begins; none begins before that, or a journal that
        # reads slowly would make a heap of them.
        self._rest = data[written:] if written >= len(self._rest) else self._rest[written:]

    def _connect(self) -> None:
        """Make the stream anew, as sd_journal_stream_fd(3) does: identifier, unit, priority, whether lines begin with
        one, and whether they go to syslog, kmsg and console. The unit is the one of this process. Raises OSError."""
        stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            stream.setblocking(False)
            stream.connect(self._place)
            stream.send(f"{self._identifier}\n\n{INFO}\n1\n0\n0\n0\n".encode())
            os.dup2(stream.fileno(), self._descriptor, inheritable=False)
        finally:
            stream.close()


class FFmpegLog:
    """FFmpeg's log on its way to the journal: held back while it would say the same again and again.

    Without a signal, and in a crash loop, every attempt logs the same lines. They are kept, and said only
    when the attempt turns out to be something else.
    """

    KEPT_LINES = 80

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held_back: list[tuple[int, str]] = []
        self.is_quiet = self.is_early = False
        """Whether it is held back; and whether it is for a moment, since it is not said yet that FFmpeg has started."""

    def take(self, now: float, priority: int, text: str) -> None:
        if not self.is_quiet and not self.is_early:
            self._journal.forward(now, priority, text)
            return
        self._held_back.append((priority, text))
        if self.is_quiet:
            del self._held_back[: -self.KEPT_LINES]

    def begin(self, now: float) -> None:
        """It is said that FFmpeg has started."""
        if self.is_early and not self.is_quiet:
            self.release(now)
        self.is_early = False

    def release(self, now: float, *, only_errors: bool = False) -> None:
        """Say what was held back; of a repeated failure only its last errors."""
        lines = self._held_back
        if only_errors:
            lines = [line for line in lines if line[0] <= ERROR][-4:]
        for priority, text in lines:
            self._journal.forward(now, priority, text)
        self.discard()

    def discard(self) -> None:
        self._held_back = []


class Reporter:
    """One port's status, written when its state changes and once a second, less often while it only waits.

    Times are CLOCK_MONOTONIC.
    """

    def __init__(
        self, options: Options, memory: Memory, run_directory: str, before: PortStatus | None, notifier: Notifier
    ) -> None:
        self._options = options
        self._run_directory = run_directory
        self._notifier = notifier
        self.status = _first_status(options, memory, before)
        self.journal = Journal(identifier=self.status.unit.removesuffix(".service"))
        self.is_ready = False
        self.has_news = False
        """Whether the status has something that its readers wait for."""
        self._is_ready_told = False
        self._watchdog_at = self._written_at = 0.0
        self._text = ""
        self._write_problem = ""

    def say(self, priority: int, text: str) -> None:
        """A line in the journal that names the port."""
        self.journal.say(priority, f"port {self._options.port} ({self._options.name}): {text}")

    def next_at(self) -> float:
        """When the status is due again."""
        is_idle = self.status.state in ("no-signal", "backoff")
        return self._written_at + (IDLE_INTERVAL_S if is_idle else PUBLISH_INTERVAL_S)

    def rests_until(self) -> float:
        """When the status is due of a recording that is plainly well."""
        return self._written_at + REST_S

    def is_due(self, now: float) -> bool:
        """Whether the status is due, or would be before FFmpeg's next block wakes the runner."""
        return now >= self.next_at() - BLOCK_S / 2

    @property
    def is_up_to_date(self) -> bool:
        """Whether systemd and the status file have what they are to be told."""
        return self._is_ready_told and not self._write_problem

    def publish(self, now: float, state: str, reason: str, attempt: Attempt | None) -> None:
        """Tell the port's state; cheap when nothing changed and nothing is due."""
        has_changed = self._set_state(now, state, reason, attempt)
        # The first count is news too: until then a port that records shows no frame.
        is_first_count = attempt is not None and attempt.meter.frames > 0 and self.status.frame_count == 0
        if has_changed or is_first_count or self.has_news or self.is_due(now):
            self.has_news = False
            self._write(now, attempt)
        if self.is_ready and not self._is_ready_told:
            self._is_ready_told = self._notifier.send("READY=1", f"STATUS={self._text}")
        elif has_changed:
            self._notifier.send(f"STATUS={self._text}")
        interval_s = self._notifier.watchdog_interval_s
        # The next turn may come as late as the status is due again, or as a rest ends.
        next_at = max(self.next_at(), self._written_at + LONGEST_S)
        if interval_s and next_at > self._watchdog_at and self._notifier.send("WATCHDOG=1"):
            self._watchdog_at = now + interval_s

    def finish(self, now: float, state: str, reason: str) -> None:
        """The last word before the runner ends."""
        self._set_state(now, state, reason, None)
        self.status.update(pid=None)
        self._write(now, None)
        self._notifier.send(f"STATUS={self._text}")

    def _set_state(self, now: float, state: str, reason: str, attempt: Attempt | None) -> bool:
        has_changed = state != self.status.state or not self.status.state_since_monotonic
        if has_changed:
            self.status.update(state_since=utc_text(time.time()), state_since_monotonic=round(now, 3))
        self.status.update(state=state, reason=reason, is_recording=state == "recording")
        name = os.path.basename(attempt.path) if attempt else ""
        self._text = ": ".join(part for part in (state, reason or name) if part)
        return has_changed

    def _write(self, now: float, attempt: Attempt | None) -> None:
        is_running = attempt is not None and attempt.ffmpeg_pid is not None
        meter = attempt.meter if attempt is not None and is_running else Meter(now)
        wall = time.time()
        self.status.update(
            ffmpeg_pid=attempt.ffmpeg_pid if attempt else None,
            current_file=attempt.path if attempt and is_running and attempt.newest.is_named else None,
            files=tuple(file.path for file in attempt.files if file.is_named) if attempt and is_running else (),
            frame_count=meter.frames,
            fps=round(meter.fps(now), 2),
            speed=meter.speed,
            bitrate_mbps=round(meter.bitrate_mbps(now), 3),
            bytes_written=attempt.newest.size_bytes if attempt is not None and is_running else 0,
            dropped_frames=meter.drop_frames,
            missing_frames=meter.pace.missing,
            short_frames=meter.pace.short,
            **self._file_counts(attempt if is_running else None, meter),
            is_losing=attempt is not None and is_running and attempt.is_losing(now),
            duplicated_frames=meter.dup_frames,
            uptime_seconds=round(now - meter.started, 3) if is_running else 0.0,
            started_at=utc_text(wall - (now - meter.started)) if is_running else None,
            last_frame_at=utc_text(wall - (now - meter.last_frame_at)) if meter.last_frame_at is not None else None,
            updated_at=utc_text(wall),
            updated_monotonic=round(now, 3),
        )
        sample = attempt.newest.sample if attempt else None
        if sample:
            self.status.update(disk_free_bytes=sample.disk_free_bytes, filesystem=sample.filesystem)
        self._written_at = now
        try:
            write_status(self.status, self._run_directory)
        except OSError as error:
            problem = f"the status cannot be written to {self._run_directory}: {error.strerror}; recording goes on"
            if problem != self._write_problem:
                self.say(ERROR, problem)
            self._write_problem = problem
        else:
            self._write_problem = ""

    @staticmethod
    def _file_counts(attempt: Attempt | None, meter: Meter) -> dict[str, object]:
        """The counts that are the newest file's. Where there was no other one they are FFmpeg's, and not written."""
        if attempt is None or attempt.newest.index == 0:
            return dict.fromkeys(_FILE_COUNTS)
        part = attempt.account.part(meter)
        holes = meter.pace.missing - meter.pace.short - meter.pace.repeated
        counts = (
            attempt.newest.frames_of(meter.frames),
            part.dropped,
            part.duplicated,
            part.missing + part.repeated + max(0, holes - attempt.holes_told),
            part.missing,
        )
        return dict(zip(_FILE_COUNTS, counts, strict=True))


_FILE_COUNTS = tuple(name for name in PortStatus.__annotations__ if name.startswith("file_"))


def _first_status(options: Options, memory: Memory, before: PortStatus | None) -> PortStatus:
    return PortStatus(
        port_index=options.port,
        name=options.name,
        unit=unit_of(options),
        state="starting",
        codec=options.codec,
        boot_id=boot_id(),
        take=memory.request.take,
        request_id=memory.request.request_id,
        take_started_at=memory.take_started_at,
        take_frames=before.take_frames if before and memory.is_restart else 0,
        restarts=memory.restarts,
        pid=os.getpid(),
        invocation_id=os.environ.get("INVOCATION_ID", ""),
        runner_version=__version__,
        revision=options.revision,
        recordings=options.recordings,
    )
