"""What a fault does, seen from outside the port: by its status, the end of its FFmpeg, and frames in its files."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress

from sdisup.contract.files import monotonic
from sdisup.contract.media import holds_media
from sdisup.contract.status import PortStatus, is_alive, read_status
from sdisup.drill.faults import Fault
from sdisup.drill.stage import RECORDINGS, RUN
from sdisup.errors import SdisupError

LOOK_S = 0.002
AGAIN_LIMIT_S = 45.0
FAULT_LASTS_S = 1.0
"""How long a lost signal or a full disk lasts after the status has said so."""


class Watch:
    """One fault and the moments at which it was seen; CLOCK_MONOTONIC seconds, None for what has not happened."""

    def __init__(self, fault: Fault, status: PortStatus, container: str) -> None:
        self.fault = fault
        self.path = status.current_file or ""
        self._status = status
        self._container = container
        self._files = set(os.listdir(RECORDINGS))
        self._told_at: float | None = None
        self.seen_at: float | None = None
        self.ended_at: float | None = None
        self.repaired_at: float | None = None
        self.again_at: float | None = None
        self.began = 0.0

    def play(self) -> None:
        """Play the fault, and look until the port records again or AGAIN_LIMIT_S have passed."""
        ffmpeg = os.pidfd_open(self._status.ffmpeg_pid or 0)
        try:
            self.began = monotonic()
            self.fault.begin(self._status)
            deadline = self.began + AGAIN_LIMIT_S
            while self.again_at is None and monotonic() < deadline:
                self._look(ffmpeg)
                time.sleep(LOOK_S)
        finally:
            os.close(ffmpeg)

    def _look(self, ffmpeg: int) -> None:
        now, fault = monotonic(), self.fault
        status = port_status(fault.port)
        if self.seen_at is None and status is not None and self._tells(status):
            self.seen_at = now
        if self.ended_at is None and select.select([ffmpeg], [], [], 0)[0]:
            self.ended_at = now
        if fault.repair is None or self.repaired_at is not None:
            self.again_at = monotonic() if self._records_again() else None
            return
        if self._told_at is None and status is not None and fault.is_told is not None and fault.is_told(status):
            self._told_at = now
        if self._told_at is not None and now - self._told_at >= FAULT_LASTS_S:
            fault.repair()
            self.repaired_at = monotonic()

    def _tells(self, status: PortStatus) -> bool:
        """Whether the status shows the fault: the port does not record, or has another runner or FFmpeg, or its runner
        is dead, as readers of the status find out."""
        before = self._status
        if not is_alive(status):
            return True
        return not status.is_recording or (status.pid, status.ffmpeg_pid) != (before.pid, before.ffmpeg_pid)

    def _records_again(self) -> bool:
        new = [name for name in os.listdir(RECORDINGS) if name.startswith("drill") and name not in self._files]
        return any(has_media(f"{RECORDINGS}/{name}", self._container) for name in new)


def port_status(port: int) -> PortStatus | None:
    with suppress(ValueError):
        return read_status(port, RUN)
    return None


def has_media(path: str, container: str) -> bool:
    """Whether a file holds a frame that a player finds."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return holds(file, container)
    finally:
        os.close(file)


def holds(file: int, container: str) -> bool:
    """Whether an open file holds such a frame."""
    try:
        size = os.fstat(file).st_size
        return holds_media(container, size, lambda count, offset: os.pread(file, count, offset))
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], limit_s: float, problem: str, hint: str = "") -> None:
    """Wait until the condition is true. Raises SdisupError with the problem when it is not true in time."""
    deadline = monotonic() + limit_s
    while not condition():
        if monotonic() > deadline:
            raise SdisupError(f"{problem} within {limit_s:.0f} s", hint)
        time.sleep(LOOK_S)
