"""What the runner tells the world: the status file, systemd's READY, STATUS and WATCHDOG, the journal."""

from __future__ import annotations

import os
import time

from sdisup import __version__
from sdisup.contract.files import boot_id, utc_text
from sdisup.contract.options import Options
from sdisup.contract.status import PortStatus, find_status, write_status
from sdisup.runner.attempt import Attempt
from sdisup.runner.journal import ERROR, Journal
from sdisup.runner.memory import Memory
from sdisup.runner.meter import Meter
from sdisup.runner.notify import Notifier

PUBLISH_INTERVAL_S, IDLE_INTERVAL_S = 1.0, 2.5
"""A reader takes a status of 5 s for one of a runner that hangs, and systemd wants its watchdog fed each 3.3 s."""


class Reporter:
    """One port's status, written when its state changes and once a second, less often while it only waits.

    Times are CLOCK_MONOTONIC.
    """

    def __init__(self, options: Options, memory: Memory, run_directory: str) -> None:
        self._options = options
        self._run_directory = run_directory
        self._notifier = Notifier()
        self.journal = Journal()
        self.status = _first_status(options, memory, run_directory)
        self.is_ready = False
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

    def publish(self, now: float, state: str, reason: str, attempt: Attempt | None) -> None:
        """Tell the port's state; cheap when nothing changed and nothing is due."""
        has_changed = self._set_state(now, state, reason, attempt)
        # The first count is news too: until then a port that records shows no frame.
        is_first_count = attempt is not None and attempt.meter.frames > 0 and self.status.frame_count == 0
        if has_changed or is_first_count or now >= self.next_at():
            self._write(now, attempt)
        if self.is_ready and not self._is_ready_told:
            self._is_ready_told = self._notifier.send("READY=1", f"STATUS={self._text}")
        elif has_changed:
            self._notifier.send(f"STATUS={self._text}")
        interval_s = self._notifier.watchdog_interval_s
        if interval_s and now >= self._watchdog_at and self._notifier.send("WATCHDOG=1"):
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
            current_file=attempt.path if attempt and is_running else None,
            frame_count=meter.frames,
            fps=round(meter.fps(now), 2),
            speed=meter.speed,
            bitrate_mbps=round(meter.bitrate_mbps(now), 3),
            bytes_written=meter.size_bytes,
            dropped_frames=meter.drop_frames,
            missing_frames=meter.deficit.frames,
            duplicated_frames=meter.dup_frames,
            uptime_seconds=round(now - meter.started, 3) if is_running else 0.0,
            started_at=utc_text(wall - (now - meter.started)) if is_running else None,
            last_frame_at=utc_text(wall - (now - meter.last_frame_at)) if meter.last_frame_at is not None else None,
            updated_at=utc_text(wall),
            updated_monotonic=round(now, 3),
        )
        if attempt and attempt.sample:
            sample = attempt.sample
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


def _first_status(options: Options, memory: Memory, run_directory: str) -> PortStatus:
    # A torn file costs the frame count of the take, nothing else.
    before = find_status(options.port, run_directory) if memory.is_restart else None
    return PortStatus(
        port_index=options.port,
        name=options.name,
        unit=options.unit or f"sdi-record@{options.port}.service",
        state="starting",
        codec=options.codec,
        boot_id=boot_id(),
        take=memory.request.take,
        request_id=memory.request.request_id,
        take_started_at=memory.take_started_at,
        take_frames=before.take_frames if before else 0,
        restarts=memory.restarts,
        pid=os.getpid(),
        invocation_id=os.environ.get("INVOCATION_ID", ""),
        runner_version=__version__,
        revision=options.revision,
        recordings=options.recordings,
    )
