"""Eight ports and a seeded random sequence of faults: at the end every file plays and the ledgers leave out no time.

The normal run plays faults for 20 seconds: some of them, and always a power cut. SDISUP_FAULT_SECONDS=7200
plays all of them again and again for hours. SDISUP_FAULT_SEED=N plays a sequence again; each run prints its seed.
SDISUP_FAULTS="suspended run_full" plays these alone, one after the other.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from appliance import ApplianceError
from drive import LEDGER, MIB, RECORDINGS, STEERING, Machine

pytestmark = [
    # The test makes the faults; the assertions below check the ports, not the journal.
    pytest.mark.journal_allows(r"."),
]

PORTS = 8
CARD_PORTS = (6, 7)
SECONDS = float(os.environ.get("SDISUP_FAULT_SECONDS", "20"))
ONLY = os.environ.get("SDISUP_FAULTS", "").split()
SEED = int(os.environ.get("SDISUP_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
CONFIGURATION = f"""\
[appliance]
ports = {PORTS}
ffmpeg = "/usr/local/bin/ffmpeg-deltacast"
[defaults]
source = {{ kind = "test", size = "320x180", rate = 10 }}
bitrate_kbps = 300
preset = "ultrafast"
record_at_boot = true
stall_timeout_s = 2
stop_quit_s = 1
stop_start_quit_s = 2
stop_term_s = 1
segment_s = 0
[port.1]
container = "mkv"
[port.2]
container = "mov"
[port.3]
segment_s = 5
[port.4]
container = "mkv"
segment_s = 5
[port.5]
container = "mov"
segment_s = 7
segment_on_clock = false
[port.6]
source = {{ kind = "videomaster", channel = 6, rate = 25 }}
[port.7]
source = {{ kind = "videomaster", channel = 7, rate = 25 }}
container = "mkv"
segment_s = 5
"""


ONE_FILE_PORTS = (0, 1, 2, 6)


class Play:
    """Plays faults on one appliance, and after each waits until the port records again."""

    def __init__(self, own: Machine, chance: random.Random) -> None:
        self.own = own
        self.chance = chance
        self.slept_s = 0.0
        self.deleted: dict[str, float] = {}
        """When, by the appliance's clock."""
        self.moved: dict[str, str] = {}

    def port(self) -> int:
        return self.chance.randrange(PORTS)

    def kill(self, what: str, signal: str) -> None:
        """Send a signal to a port's FFmpeg or runner, and wait until the port's status shows it."""
        port = self.port()
        before = self.own.status(port)
        if before[what]:
            self.own.run(["kill", f"-{signal}", str(before[what])], check=False)
        self.wait_noticed(before)

    def wait_noticed(self, before: dict[str, Any], timeout_s: float = 30) -> None:
        """Wait until a port's status shows the fault."""
        port = before["port_index"]
        self.own.wait_for(
            lambda: has_noticed(before, self.own.status(port)), timeout_s, f"port {port} notices", poll_s=0.05
        )

    def wait_reason(self, port: int, words: str, timeout_s: float = 30) -> None:
        what = f"port {port} says: {words}"
        self.own.wait_for(lambda: words in self.own.status_file(port)["reason"], timeout_s, what, poll_s=0.05)

    def ffmpeg_killed(self) -> None:
        self.kill("ffmpeg_pid", "KILL")

    def ffmpeg_crashed(self) -> None:
        self.kill("ffmpeg_pid", "SEGV")

    def ffmpeg_frozen(self) -> None:
        self.kill("ffmpeg_pid", "STOP")

    def runner_killed(self) -> None:
        self.kill("pid", "KILL")

    def runner_frozen(self) -> None:
        self.kill("pid", "STOP")

    def runner_terminated(self) -> None:
        """By somebody else than systemd, which stops nothing."""
        self.kill("pid", self.chance.choice(("TERM", "INT")))

    def runner_killed_through_systemd(self) -> None:
        before = self.own.status(self.port())
        self.own.run(f"systemctl kill --kill-whom=main sdi-record@{before['port_index']}", check=False)
        self.wait_noticed(before)

    def everything_killed(self) -> None:
        self.own.run("systemctl kill --signal=KILL 'sdi-record@*'", check=False)

    def stopped_and_started(self) -> None:
        port = self.port()
        self.own.run(f"sdisup stop {port}; sdisup start {port} --wait 0", check=False, timeout_s=120)

    def restarted(self) -> None:
        self.own.run(f"systemctl restart sdi-record@{self.port()}", check=False, timeout_s=120)

    def file_deleted(self) -> None:
        before = self.own.status(self.port())
        if before["port_index"] not in ONE_FILE_PORTS:
            # One that has just begun: a file that is whole when it is deleted is entered as such.
            before = self.wait_next_file(before)
        path = before["current_file"]
        self.deleted[path] = time.time() + self.slept_s
        # It may have been moved away before, and be recorded still.
        self.own.run(["rm", self.moved.pop(path, path)])
        self.wait_noticed(before)

    def wait_next_file(self, before: dict[str, Any]) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            now = self.own.status_file(before["port_index"])
            is_next = now["current_file"] != before["current_file"] and now["state"] == "recording"
            return now if is_next else None

        return self.own.wait_for(found, 30, "the next file", poll_s=0.1)

    def file_moved(self) -> None:
        """Move a file away: recording goes on in it, which a status may not show where the next one comes soon."""
        found = self.own.status(self.port())
        path = found["current_file"]
        former = self.moved.get(path, path)
        self.moved[path] = f"{RECORDINGS}/moved-{Path(former).name}"
        self.own.run(["mv", former, self.moved[path]])
        if found["port_index"] in ONE_FILE_PORTS:
            self.wait_reason(found["port_index"], "was moved away")

    def steer(self, channel: int, behaviour: str, **parameters: Any) -> None:
        # A reboot empties /run.
        self.own.run("mkdir -p " + STEERING)
        self.own.steer(channel, behaviour, **parameters)

    def card(self, behaviour: str, **parameters: Any) -> None:
        """Give an input of the card a behaviour until its port's status shows it."""
        before = self.own.status(self.chance.choice(CARD_PORTS))
        self.steer(before["port_index"], behaviour, **parameters)
        self.wait_noticed(before)
        self.steer(before["port_index"], "ok")

    def signal_lost(self) -> None:
        port = self.chance.choice(CARD_PORTS)
        self.steer(port, "no-signal", lost_s=1.0)
        self.own.wait_for(
            lambda: self.own.status_file(port)["state"] in ("no-signal", "backoff"), 20, "the signal is missed"
        )
        self.steer(port, "ok")

    def card_crashed(self) -> None:
        self.card("crash")

    def card_without_frames(self) -> None:
        self.card("no-frames", lost_s=1.0, no_frames_s=2.0)

    def card_hung(self) -> None:
        self.card("hang")

    def card_format_changed(self) -> None:
        self.card("format-change", mode=self.chance.choice(("stop", "smaller")), size="160x90", lost_s=1.0)

    def card_slow(self) -> None:
        port = self.chance.choice(CARD_PORTS)
        self.steer(port, "slow")
        # The card loses what FFmpeg does not take, and FFmpeg repeats frames in their place.
        self.wait_reason(port, "of 25 fps")
        self.steer(port, "ok")

    def board_missing(self) -> None:
        """Take the board away and kill FFmpeg: only a start asks for the board."""
        port = self.chance.choice(CARD_PORTS)
        self.steer(port, "board-missing")
        self.own.run(["kill", "-KILL", str(self.own.status(port)["ffmpeg_pid"])], check=False)
        self.wait_reason(port, "board missing")
        self.steer(port, "ok")

    def fill(self, directory: str) -> None:
        """Take all the free space that a disk has for users other than root.

        More of it comes free with the next commit of the filesystem's journal: call it again for that.
        """
        room = "$(( $(stat -f -c '%a*%S' DIRECTORY) ))".replace("DIRECTORY", directory)
        fill = f"sync -f {directory}; fallocate -l {room} $(mktemp {directory}/ballast.XXXXXX)"
        self.own.run(f"{fill}; {fill}", check=False)

    def disk_full(self) -> None:
        self.fill(RECORDINGS)
        self.own.wait_for(
            lambda: any(not self.is_recording(port) for port in range(PORTS)), 20, "a port stops for want of room"
        )
        self.own.run(f"rm -f {RECORDINGS}/ballast.*")

    def ledger_full(self) -> None:
        """Fill the ledger's disk: for a while no entry can be written, not even that of an end."""
        self.fill(LEDGER)
        before = self.own.status(self.port())
        self.own.run(["kill", "-KILL", str(before["ffmpeg_pid"])], check=False)
        self.wait_noticed(before)

        def is_said() -> bool:
            self.fill(LEDGER)
            return "the ledger cannot be written" in self.own.run("sdisup status", check=False).stderr

        self.own.wait_for(is_said, 20, "the ledger's trouble is said", poll_s=0.2)
        self.own.run(f"rm -f {LEDGER}/ballast.*")

    def disk_read_only(self) -> None:
        """Remount a disk read-only, which fails while a process writes to it: kill all of them until it works."""
        attempts = f"for n in $(seq 30); do mount -o remount,ro {RECORDINGS} 2>/dev/null && exit 0; done"
        kill = "systemctl kill --signal=KILL 'sdi-record@*' 2>/dev/null"
        self.own.run(f"for m in $(seq 50); do {kill}; {attempts}; done; exit 1")
        port = self.port()
        self.wait_reason(port, "ead-only")
        self.own.run(f"mount -o remount,rw {RECORDINGS}")

    def disk_frozen(self) -> None:
        self.own.run(f"fsfreeze --freeze {RECORDINGS}")
        try:
            self.own.wait_for(
                lambda: not any(self.is_recording(port) for port in range(PORTS)), 20, "frozen ports are not recording"
            )
        finally:
            self.own.run(f"fsfreeze --unfreeze {RECORDINGS}")

    def power_cut(self) -> None:
        # A new boot has not slept.
        self.own.move_clocks(0.0, None)
        self.own.power_cut(lose_cache=[RECORDINGS, LEDGER])
        self.own.boot(wait="bus")

    def rebooted(self) -> None:
        self.own.move_clocks(0.0, None)
        self.own.reboot(wait="bus")

    def runner_and_ffmpeg_stopped(self) -> None:
        """Both stand still for longer than a picture may fail to come; the watchdog does not notice."""
        found = self.own.status(self.port())
        pids = [str(found[name]) for name in ("pid", "ffmpeg_pid")]
        self.own.run(["kill", "-STOP", *pids])
        time.sleep(self.chance.uniform(2.5, 5.0))
        self.own.run(["kill", "-CONT", *pids], check=False)

    def ledger_frozen(self) -> None:
        """The ledger's disk hangs while a port is killed, records again, is stopped, and records again."""
        with self.own.frozen(LEDGER, at_most_s=60):
            before = self.own.status(self.port())
            self.own.run(["kill", "-KILL", str(before["ffmpeg_pid"])], check=False)
            self.wait_noticed(before)
            self.all_record_again()
            self.own.run(f"systemctl restart sdi-record@{self.port()}", check=False, timeout_s=30)
            self.all_record_again()

    def run_full(self) -> None:
        """Nothing more can be written to /run while an FFmpeg is killed, and the next one begins."""
        self.own.run("mount -o remount,size=48M /run")
        before = self.own.status(self.port())
        self.own.run("fallocate -l $(( $(stat -f -c '%a*%S' /run) )) /run/ballast", check=False)
        try:
            self.own.run(["kill", "-KILL", str(before["ffmpeg_pid"])], check=False)
            gone = self.own.path(f"/proc/{before['ffmpeg_pid']}")
            self.own.wait_for(lambda: not gone.exists(), 20, "FFmpeg is gone")
            time.sleep(self.chance.uniform(0.5, 4.0))
        finally:
            self.own.run("rm -f /run/ballast")

    def no_descriptors(self) -> None:
        """A runner has no descriptor left to begin its next FFmpeg with; nor has the ledger's process."""
        port = self.chance.choice(CARD_PORTS)
        before = self.own.status(port)
        writer = self.own.run("systemctl show -P MainPID sdi-ledger.service").stdout.strip()
        for pid in (str(before["pid"]), writer):
            count = self.own.run(f"ls /proc/{pid}/fd | wc -l", check=False).stdout.strip()
            limit = int(count) + self.chance.randrange(3)
            self.own.run(["prlimit", f"--pid={pid}", f"--nofile={limit}:524288"], check=False)
        self.steer(port, "no-signal", lost_s=0.5)
        self.wait_noticed(before)
        self.steer(port, "ok")
        time.sleep(self.chance.uniform(0.0, 3.0))
        self.own.run(["prlimit", f"--pid={writer}", "--nofile=1024:524288"], check=False)
        self.own.run(["prlimit", f"--pid={before['pid']}", "--nofile=1024:524288"], check=False)

    def cable_pulled(self) -> None:
        """A cable is out for any time: for less than stall_timeout_s the file goes on."""
        port = self.chance.choice(CARD_PORTS)
        self.steer(port, "no-signal", lost_s=4.0)
        time.sleep(self.chance.choice((self.chance.uniform(0.1, 2.0), self.chance.uniform(2.0, 9.0))))
        self.steer(port, "ok")

    def suspended(self) -> None:
        """The clocks are those of a system that slept."""
        seconds = self.chance.uniform(3.0, 60.0)
        self.slept_s += seconds
        self.own.suspend(seconds)
        # Each runner notices it at its next turn.
        time.sleep(3.0)

    def is_recording(self, port: int) -> bool:
        return bool(self.own.status_file(port)["is_recording"])

    def all_record_again(self) -> None:
        try:
            self.own.wait_for(self.is_whole, 90, "all ports record again", poll_s=0.1)
        except ApplianceError as error:
            seen = self.own.run(
                "sdisup status; ps -eo pid,stat,etimes,wchan:20,args; journalctl -b -n 60 -o short-precise"
            )
            raise ApplianceError(f"{error}\n{seen.stdout}") from error

    def is_whole(self) -> bool:
        found = self.own.statuses()
        good = all(entry["is_recording"] and entry["frame_count"] >= 15 for entry in found)
        return good and len(found) == PORTS == len(self.own.ffmpegs())


def has_noticed(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a port's status differs from that before a fault."""
    return not now["is_recording"] or any(now[name] != before[name] for name in ("restarts", "pid", "ffmpeg_pid"))


FAULTS = [
    Play.ffmpeg_killed, Play.ffmpeg_killed, Play.ffmpeg_crashed, Play.ffmpeg_frozen,
    Play.runner_killed, Play.runner_terminated, Play.runner_killed_through_systemd, Play.runner_frozen,
    Play.everything_killed, Play.stopped_and_started, Play.restarted,
    Play.file_deleted, Play.file_moved,
    Play.signal_lost, Play.card_crashed, Play.card_without_frames, Play.card_hung, Play.card_format_changed,
    Play.card_slow, Play.board_missing,
    Play.disk_full, Play.disk_frozen, Play.disk_read_only, Play.ledger_full,
    Play.runner_and_ffmpeg_stopped, Play.ledger_frozen, Play.run_full, Play.no_descriptors,
    Play.cable_pulled, Play.cable_pulled, Play.suspended,
    Play.power_cut, Play.rebooted,
]  # fmt: skip


def shuffled(chance: random.Random) -> Iterator[Callable[[Play], None]]:
    """All faults in random order, again and again; a power cut is the first or the second of each round."""
    while ONLY:
        yield from (getattr(Play, name) for name in ONLY)
    while True:
        order = chance.sample(FAULTS, len(FAULTS))
        order.remove(Play.power_cut)
        order.insert(chance.randrange(2), Play.power_cut)
        yield from order


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def unaccounted(lines: list[dict[str, Any]]) -> list[str]:
    """Where a port's entries leave out time or count it twice, by more than a second each."""
    timeline = [line for line in lines if line["kind"] in ("file", "gap", "stop") and "frames_missing" not in line]
    timeline.sort(key=lambda line: (at(line["start"]), at(line["end"])))
    holes = []
    for before, after in pairwise(timeline):
        hole_s = at(after["start"]) - at(before["end"])
        if abs(hole_s) > 1.0:
            holes.append(f"{hole_s:+.2f} s between\n  {before}\n  {after}")
    return holes


@pytest.mark.limit(300 + 1.25 * SECONDS)
def test_no_fault_leaves_time_unaccounted_for(new_appliance: Callable[..., Machine], tmp_path: Path) -> None:
    print(f"SDISUP_FAULT_SEED={SEED}")
    room = max(192, int(SECONDS / 2)) * MIB
    own = new_appliance(disks={"disk": room, "ledger": 32 * MIB})
    own.boot()
    own.mount_disk()
    own.mount_disk(LEDGER, "ledger")
    own.install_standin()
    own.install_clock()
    own.configure(CONFIGURATION)
    applied = time.time()
    play = Play(own, random.Random(SEED))
    play.all_record_again()
    begun = time.monotonic()
    faults, played = shuffled(play.chance), []
    failed: ApplianceError | None = None
    while time.monotonic() - begun < SECONDS and failed is None:
        fault = next(faults)
        played.append(fault.__name__)
        print(f"{time.time():.0f} {fault.__name__}", flush=True)
        try:
            fault(play)
            play.all_record_again()
        except ApplianceError as error:
            # What was entered until then is looked at all the same.
            failed = error
    print(f"{len(played)} faults in {time.monotonic() - begun:.0f} s: {', '.join(played)}")
    own.sdisup("stop --all", timeout_s=120)
    check_accounts(play, played, applied, tmp_path)
    if failed is not None:
        raise failed


def check_accounts(play: Play, played: list[str], applied: float, kept: Path) -> None:
    """All problems of all ports; the ledgers are `kept` for whoever looks for their cause."""
    own = play.own
    problems: list[str] = []
    files = 0
    # Files that were cut off are counted after the next start: one more start and stop enter the last of them.
    own.sdisup("start --all", timeout_s=120)
    stop_asked = time.time() + play.slept_s
    own.sdisup("stop --all", timeout_s=120)
    stopped = time.time() + play.slept_s
    for port in range(PORTS):
        lines = own.ledger(port)
        (kept / f"{port}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        problems += [f"port {port}: {hole}" for hole in unaccounted(lines)]
        files += check_files(play, port, lines, problems)
        total_s = sum(line["seconds"] for line in lines if line["kind"] in ("file", "gap", "stop"))
        first, last = min(at(line["start"]) for line in lines), max(at(line["end"]) for line in lines)
        # By this test's own clock, since no sum holds the time before the first entry or after the last one.
        if first - applied > 2.0:
            problems.append(f"port {port}: the first entry begins {first - applied:+.1f} s after the apply")
        if not stop_asked - 1.0 < last < stopped + 1.0:
            problems.append(f"port {port}: the last entry ends {last - stop_asked:+.1f} s after the stop was asked for")
        interruptions = sum(line["kind"] == "file" for line in lines)
        if abs(total_s - (last - first)) > interruptions:
            what = f"{total_s:.1f} s entered of {last - first:.1f} s, {interruptions} interruptions"
            problems.append(f"port {port}: {what}")
        edges = f"first {first - applied:+.2f} s, last {last - stop_asked:+.2f} s"
        print(
            f"port {port}: {interruptions} files, {total_s:.1f} s entered of {last - first:.1f} s; {edges}", flush=True
        )
    assert not problems, f"seed {SEED}, {played}, ledgers in {kept}\n" + "\n".join(problems)
    assert files > len(played)


def readable_frames(own: Machine, path: str) -> int:
    """The frames of a file; 0 where a power cut in its first second left an incomplete header."""
    try:
        return own.count_frames(path)
    except ApplianceError:
        return 0


def check_files(play: Play, port: int, lines: list[dict[str, Any]], problems: list[str]) -> int:
    """Each file of the ledger is there, plays, and has as many frames as the ledger says."""
    found = [line for line in lines if line["kind"] == "file"]
    paths = [play.moved.get(line["path"], line["path"]) for line in found]
    # Reading a short file is the start of a program, mostly.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(lambda path: readable_frames(play.own, path), paths))
    for line, path, frames in zip(found, paths, counts, strict=True):
        # A file that was moved and then cut off cannot be counted; FFmpeg's own count is up to a second too high.
        tolerance = 1 if path == line["path"] or line["ended"] == "complete" else 26
        if abs(frames - line["frames"]) > tolerance or (line["ended"] == "complete" and not frames):
            problems.append(f"port {port}: {path} has {frames} frames, {line['frames']} were entered")
    entered = {line["path"] for line in found}
    # The next file may get the name of a deleted one, within the same second.
    deleted = [line for line in found if at(line["start"]) < play.deleted.get(line["path"], 0.0)]
    problems += [f"port {port}: {line['path']} was deleted and is entered: {line}" for line in deleted]
    there = play.own.run(f"find {RECORDINGS} -name 'port{port}_*' -type f -printf '%p %s\\n'").stdout.splitlines()
    problems += [f"port {port}: {path} bytes is in no entry" for path in there if path.split()[0] not in entered]
    return len(found)
