"""The faults that a drill plays: what is promised for each, and the cause that the ledger has to give it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from sdisup.config.settings import Port
from sdisup.contract.records import Record
from sdisup.contract.status import PortStatus
from sdisup.drill.report import ROOM_S, ROOM_STARTS, Limit, Limits
from sdisup.drill.stage import PLAIN_PORT, RECORDINGS, SIGNAL, SIGNAL_PORT, unit
from sdisup.errors import SdisupError
from sdisup.runner.decide import NO_FRAME_S, NO_SIGNAL_RETRY_S
from sdisup.runner.memory import BACKOFF_S

KILL_TO_RECORDING = Limit(least_s=0.150, starts=2.0)
"""From kill -9 of FFmpeg until the port records again, on top of FFmpeg's own start.

A busy machine slows the starts of programs more than FFmpeg's own start, of which a part is waiting for frames.
Measured on two cores: 0.30 s beside 0.22 s, and with eight 720p ports and four busy loops 0.89 s beside 0.42 s.
"""
WATCHDOG_S = 10.0
BALLAST = f"{RECORDINGS}/ballast"


class Fault(Record):
    """`begin` plays the fault. Of a fault that lasts, `is_told` says whether the status shows it, and `repair` ends it.

    `cause` is the beginning of the ledger's first cause. `is_quick`: it is over at once, and always played three times.
    `is_stall`: the runner ends FFmpeg by the ladder. `receives_on`: FFmpeg receives material until it ends, not only
    until the fault.
    """

    name: str
    title: str
    cause: str
    limits: Limits
    begin: Callable[[PortStatus], None]
    port: int = PLAIN_PORT
    is_quick: bool = False
    is_stall: bool = False
    receives_on: bool = False
    is_told: Callable[[PortStatus], bool] | None = None
    repair: Callable[[], None] | None = None


def send(name: str, number: signal.Signals) -> Callable[[PortStatus], None]:
    """A fault that sends a signal to the process in that field of the status, if it belongs to the drill's port."""

    def to_process(status: PortStatus) -> None:
        pid = getattr(status, name) or 0
        process = os.pidfd_open(pid)
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                if f"/{unit(status.port_index)}" not in file.read():
                    raise SdisupError(f"process {pid} is none of {unit(status.port_index)}'s; it is left alone")
            signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)

    return to_process


def lose_signal(_: PortStatus) -> None:
    os.unlink(SIGNAL)


def give_signal() -> None:
    with open(SIGNAL, "w", encoding="ascii"):
        return


def fill_disk(_: PortStatus) -> None:
    """Take all free space, in ever smaller pieces, since FFmpeg writes meanwhile."""
    descriptor = os.open(BALLAST, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    space = os.fstatvfs(descriptor)
    size = space.f_bavail * space.f_frsize
    while size >= space.f_frsize:
        try:
            os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, size)
        except OSError:
            size //= 2
    os.close(descriptor)


def empty_disk() -> None:
    os.unlink(BALLAST)


def _twice(wait_s: float) -> Limit:
    """Room for what has no limit of its own before the wait and behind it."""
    return Limit(wait_s, 2 * ROOM_S, 2 * ROOM_STARTS)


def known_faults(plain: Port) -> list[Fault]:
    """All faults, in the order in which they are played."""
    stall_s, ladder_s = plain.stall_timeout_s, plain.stop_quit_s + plain.stop_term_s
    stall = Limits(Limit(NO_FRAME_S), _twice(stall_s + ladder_s), acted=Limit(stall_s))
    return [
        Fault("ffmpeg-killed", "FFmpeg killed", "killed", Limits(Limit(), KILL_TO_RECORDING),
              send("ffmpeg_pid", signal.SIGKILL), is_quick=True),
        Fault("ffmpeg-frozen", "FFmpeg frozen", "stalled", stall,
              send("ffmpeg_pid", signal.SIGSTOP), is_stall=True),
        Fault("signal-lost", "signal lost and back", "signal lost",
              Limits(Limit(NO_FRAME_S), Limit(NO_SIGNAL_RETRY_S)), lose_signal,
              port=SIGNAL_PORT, is_told=lambda status: status.state == "no-signal", repair=give_signal),
        Fault("runner-killed", "runner killed", "runner killed", Limits(Limit(), Limit()),
              send("pid", signal.SIGKILL), receives_on=True),
        Fault("runner-frozen", "runner frozen", "stood still", Limits(Limit(WATCHDOG_S), _twice(WATCHDOG_S)),
              send("pid", signal.SIGSTOP), receives_on=True),
        Fault("disk-full", "disk full, then room", "disk full",
              Limits(Limit(NO_FRAME_S), Limit(max(BACKOFF_S))), fill_disk, receives_on=True,
              is_told=lambda status: "disk full" in status.reason, repair=empty_disk),
    ]  # fmt: skip
