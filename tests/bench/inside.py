"""The part of the bench that runs in the appliance: takes the samples, and prints each as a line of JSON.

A round is a turn of every peer. In its turn a peer is set up, measured and taken down, so that no peer runs beside
another. Each round begins with another peer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from measure import pss_mb

from bench.peers import CONFIGURATION, CRASHING, KINDS, Peer, clear, text_of, write_jobs
from bench.table import CPU_S
from bench.watch import FFmpegs, NothingCame, Recording, is_ffmpeg, wait_frames, wait_gone

FIRST_FRAME_S = 40.0
SETTLED_S = 1.5
"""Supervisors take a program for started after a second."""
SEEN_AFTER_S = 3.5
"""When after a freeze the status is asked for: before stall_timeout_s, and after the two seconds within which sdisup's
has to be true."""
EIGHT = range(8)
CRASH_S = 10.0
SURVIVAL_S = 10.0
STATUS_CALLS = 5


def emit(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


# ---------------------------------------------------------------- what is counted


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process and of all threads that it ever had, by its CPU clock (clock_getcpuclockid(3))."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise RuntimeError(f"process {pid} has ended while its CPU time was measured") from error


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def cpu_of_the_rest(besides: Iterable[int]) -> float:
    """The CPU time of what lives and is no FFmpeg, without `besides` and this process: PID 1, journald, D-Bus."""
    unwanted = {os.getpid(), *besides}
    total = 0.0
    for pid in pids():
        if pid not in unwanted and not is_ffmpeg(pid):
            try:
                total += cpu_seconds(pid)
            except RuntimeError:
                continue
    return total


def cpu_of_all() -> float:
    """The CPU time of all that ever ran in the appliance and is no child of this process, in seconds.

    A process that has ended is in its parent's count, whoever its parent was (proc_pid_stat(5): cutime, cstime).
    """
    ticks = 0
    for pid in pids():
        if pid != os.getpid():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) != os.getpid():
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def seconds_of(command: list[str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.monotonic() - begun


def status_line(peer: Peer) -> str:
    """What a peer's status says of port 0, in one line without frames and double spaces."""
    output = subprocess.run(peer.status_command(), capture_output=True, text=True, check=False).stdout
    for line in output.splitlines():
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if re.match(r"\W*(?:\S*@0\b|(?:together:)?p0x?\b|0\b)", line):
            return " ".join(re.sub(r"[^\x20-\x7e]", " ", line).split())
    return ""


# ---------------------------------------------------------------- a turn


class Turn:
    """One peer in one round."""

    def __init__(self, peer: Peer, round_number: int, plan: dict[str, Any]) -> None:
        self.peer, self.round, self.plan = peer, round_number, plan
        self.ffmpegs = FFmpegs()

    def wants(self, *rows: str) -> bool:
        return any(row in self.plan["rows"] for row in rows)

    def sample(self, row: str, value: float | None, text: str = "") -> None:
        emit(peer=self.peer.key, row=row, round=self.round, value=value, text=text)

    def run(self) -> None:
        """Take all samples that are due in this round."""
        # What takes long, or is the same each time, is not measured in each round.
        is_even, is_first, is_supervisor = self.round % 2 == 0, self.round == 0, self.peer.is_supervisor
        due = [self.started] if self.wants("start", "named", "kill", "stop", "start4", "gang4") else []
        if is_even and self.wants("start8", "gang8", "cpu", "rest", "memory", "status"):
            due.append(self.eight)
        elif self.wants("start8", "gang8"):
            due.append(self.last_of_eight)
        if is_even and is_supervisor and self.peer.key != "bare" and self.wants("crash"):
            due.append(self.crash_loop)
        if is_first and self.wants("frozen"):
            due.append(self.freeze)
        self.measure(due)
        if is_first and self.peer.can_be_killed and self.wants("survival"):
            self.measure([self.survive], runs=True)

    def measure(self, due: list[Callable[[], None]], *, runs: bool = False) -> None:
        """Set the peer up, measure, and take it down. What cannot be measured is said, and is no number."""
        while due:
            part = "up"
            try:
                self.peer.up(runs=runs)
                while due:
                    measure = due.pop(0)
                    part = measure.__name__
                    measure()
            except (NothingCame, RuntimeError, subprocess.SubprocessError, OSError) as error:
                emit(peer=self.peer.key, round=self.round, failed=f"{part}: {error}")
                if part == "up":
                    due = []
            finally:
                self.peer.down()
                clear()

    def frames(self, ports: Iterable[int]) -> list[Recording]:
        """Start ports, and wait for the first frame of each."""
        wanted = list(ports)
        self.peer.prepare(wanted)
        known = self.ffmpegs.find()
        self.begun = time.monotonic()
        self.peer.start(wanted)
        return wait_frames(self.ffmpegs, len(wanted), known, FIRST_FRAME_S)

    def time_start(self, ports: Iterable[int], row: str, gang_row: str = "") -> None:
        """Sample the last first frame of ports that are started together, and leave them running; `gang_row` is the
        time between the first and the last of them."""
        there = self.frames(ports)
        moments = [recording.first_frame_at for recording in there]
        self.sample(row, max(moments) - self.begun)
        if gang_row:
            self.sample(gang_row, max(moments) - min(moments))
        if row == "start":
            self.sample("named", there[0].named_at - self.begun)
        for recording in there:
            recording.close()
        self.peer.finish()

    def time_stop(self, ports: Iterable[int], row: str = "") -> None:
        """Stop ports, and wait until their FFmpegs are gone."""
        running = self.ffmpegs.find()
        begun = time.monotonic()
        self.peer.stop(list(ports))
        gone = wait_gone(running)
        if row:
            self.sample(row, gone - begun)
        self.peer.finish()

    # ------------------------------------------------ what is measured

    def started(self) -> None:
        if self.wants("start", "named", "kill", "stop"):
            for _ in range(self.plan["repeats"]):
                self.time_start([0], "start")
                time.sleep(SETTLED_S)
                if self.wants("kill"):
                    self.time_kill()
                    time.sleep(SETTLED_S)
                self.time_stop([0], "stop")
        if self.wants("start4", "gang4"):
            self.time_start(range(4), "start4", "gang4")
            time.sleep(SETTLED_S)
            self.time_stop(range(4))

    def time_kill(self) -> None:
        known = self.ffmpegs.find()
        begun = time.monotonic()
        for pid in known:
            os.kill(pid, signal.SIGKILL)
        self.peer.revive(0)
        there = wait_frames(self.ffmpegs, 1, known, FIRST_FRAME_S)
        self.sample("kill", there[0].first_frame_at - begun)
        there[0].close()

    def last_of_eight(self) -> None:
        self.time_start(EIGHT, "start8", "gang8")
        time.sleep(SETTLED_S)
        self.time_stop(EIGHT)

    def eight(self) -> None:
        self.time_start(EIGHT, "start8", "gang8")
        time.sleep(SETTLED_S)
        if self.wants("cpu", "rest", "memory") and self.peer.is_supervisor:
            self.supervision()
        if self.wants("status") and self.peer.status_command():
            for _ in range(STATUS_CALLS):
                self.sample("python", seconds_of(["/usr/bin/python3", "-c", "pass"]))
                self.sample("status", seconds_of(self.peer.status_command()))
        self.time_stop(EIGHT)

    def supervision(self) -> None:
        """CPU and memory of what supervises eight ports that record."""
        supervisors = self.peer.processes(EIGHT)
        self.sample("memory", sum(map(pss_mb, supervisors)))
        if self.wants("cpu", "rest"):
            before, rest = sum(map(cpu_seconds, supervisors)), cpu_of_the_rest(supervisors)
            time.sleep(self.plan["cpu_s"])
            # A quick run looks for a shorter time.
            share = CPU_S / self.plan["cpu_s"]
            self.sample("cpu", share * (sum(map(cpu_seconds, supervisors)) - before))
            self.sample("rest", share * (cpu_of_the_rest(supervisors) - rest))

    def crash_loop(self) -> None:
        before = cpu_of_all()
        self.peer.start([CRASHING])
        time.sleep(CRASH_S)
        self.sample("crash", cpu_of_all() - before)
        self.peer.stop([CRASHING])
        self.peer.finish()

    def freeze(self) -> None:
        """Stop FFmpeg by SIGSTOP: it lives and does nothing. See who notices, and what the status knows meanwhile."""
        for recording in self.frames([0]):
            recording.close()
        self.peer.finish()
        time.sleep(2 * SETTLED_S)
        frozen = self.ffmpegs.find()
        begun = time.monotonic()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            there = self.await_thaw(frozen)
        except NothingCame:
            self.sample("frozen", None, "never")
        else:
            self.sample("frozen", there[0].first_frame_at - begun)
            there[0].close()
        for pid in self.ffmpegs.find() & frozen:
            os.kill(pid, signal.SIGKILL)
        time.sleep(SETTLED_S)
        self.time_stop([0])

    def await_thaw(self, frozen: set[int]) -> list[Recording]:
        try:
            return wait_frames(self.ffmpegs, 1, frozen, SEEN_AFTER_S)
        except NothingCame:
            if self.peer.status_command():
                self.sample("knows", None, status_line(self.peer))
            return wait_frames(self.ffmpegs, 1, frozen, self.plan["freeze_s"] - SEEN_AFTER_S)

    def survive(self) -> None:
        """Kill the supervisor, and see what becomes of the recording."""
        there = wait_frames(self.ffmpegs, 1, [], FIRST_FRAME_S)
        time.sleep(2 * SETTLED_S)
        known, begun = self.ffmpegs.find(), time.monotonic()
        for pid in self.peer.killed():
            os.kill(pid, signal.SIGKILL)
        try:
            again = wait_frames(self.ffmpegs, 1, known, SURVIVAL_S)
        except NothingCame:
            new_s = None
        else:
            new_s = again[0].first_frame_at - begun
            again[0].close()
        before = there[0].size_bytes()
        time.sleep(1)
        goes_on = is_ffmpeg(there[0].pid) and there[0].size_bytes() > before
        there[0].close()
        self.sample("survival", new_s, survival(goes_on, new_s))


def survival(goes_on: bool, new_s: float | None) -> str:
    """What became of a recording, in words."""
    if goes_on:
        return "FFmpeg goes on" if new_s is None else f"FFmpeg goes on, and a second one after {new_s:.1f} s"
    return f"next file after {new_s:.1f} s" if new_s is not None else "records no more"


def main(plan: dict[str, Any]) -> int:
    Path("/etc/sdisup/sdisup.toml").write_text(CONFIGURATION)
    text_of("sdisup", "apply")
    write_jobs()
    peers = []
    versions = {"systemd": text_of("systemctl", "--version").split()[1]}
    for kind in KINDS:
        peer = kind()
        if peer.key not in plan["peers"]:
            continue
        missing = peer.missing()
        if missing:
            emit(peer=peer.key, missing=missing)
            continue
        if peer.version():
            versions[peer.key] = peer.version()
        peers.append(peer)
    emit(versions=versions)
    for round_number in range(plan["rounds"]):
        at = round_number % max(1, len(peers))
        for peer in peers[at:] + peers[:at]:
            emit(turn=peer.key, round=round_number)
            Turn(peer, round_number, plan).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
