"""SIGTERM and SIGINT, with who sent them: only systemd stops a port.

Both are blocked in all threads from the runner's first moment on (`__main__.py`), and FFmpeg gets an empty mask.
A thread waits for them, since Python has no signalfd(2); what it gets is looked at in the runner's loop.
"""

from __future__ import annotations

import _thread

from sdisup.contract.lean import signal
from sdisup.ledger.spool import TERMINATED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STOPS, RESTARTS = signal.SIGTERM, signal.SIGINT
"""What systemd sends by KillSignal= and RestartKillSignal= of units/sdi-record@.service.j2."""
BOTH = (STOPS, RESTARTS)
SYSTEMD = 1
"""The process id of the systemd that runs the units."""


class Signals:
    """The signals that have come. `wake` is called, in another thread, when there is one."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._come: list[signal.struct_siginfo] = []
        try:
            _thread.start_new_thread(self._wait, ())
        except RuntimeError:
            # No thread is to be had just now: `take` asks for them, as often as the runner's loop turns.
            return

    def _wait(self) -> None:
        while True:
            self._come.append(signal.sigwaitinfo(BOTH))
            self._wake()

    def take(self) -> list[signal.struct_siginfo]:
        """Those that have come since it was asked last, also one that the thread does not have yet."""
        found = [self._come.pop(0) for _ in range(len(self._come))]
        while (late := signal.sigtimedwait(BOTH, 0)) is not None:
            found.append(late)
        return found


def text_of(came: signal.struct_siginfo) -> str:
    """In the operator's words what a signal is that systemd did not send."""
    name = "SIGTERM" if came.si_signo == STOPS else "SIGINT"
    if not came.si_pid:
        # The kernel, or a process that this PID namespace does not show (pid_namespaces(7)).
        return f"{TERMINATED}: {name}, nobody knows whose"
    return f"{TERMINATED}: {name} by process {came.si_pid}{_program(came.si_pid)} of user {came.si_uid}"


def _program(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f" ({file.read().strip()})"
    except OSError:
        # It has ended meanwhile, as kill(1) does.
        return ""
