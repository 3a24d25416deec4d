"""Eight ports and a seeded random sequence of every fault: at the end every file plays and no time is unaccounted for.

Two minutes in the normal run. SDISUP_FAULT_SECONDS=7200 runs it for hours, SDISUP_FAULT_SEED=N plays one again;
the seed is printed.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from appliance import Appliance, ApplianceError, wait_for
from drive import RECORDINGS, configure, count_frames, ffmpegs, sdisup, status, status_file, statuses
from standin_control import install, steer
from test_faults import MIB, with_disk

pytestmark = [
    pytest.mark.system,
    # The faults are the test's own; what they make of the ports is checked below, not in the journal.
    pytest.mark.journal_allows(r"."),
]

PORTS = 8
LEDGER = "/var/lib/sdisup/ledger"
CARD_PORTS = (6, 7)
SECONDS = float(os.environ.get("SDISUP_FAULT_SECONDS", "100"))
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
[port.1]
container = "mkv"
[port.2]
container = "mov"
[port.6]
source = {{ kind = "videomaster", channel = 6, rate = 25 }}
[port.7]
source = {{ kind = "videomaster", channel = 7, rate = 25 }}
container = "mkv"
"""


class Play:
    """Plays faults on one appliance, each followed by the wait until what it broke records again."""

    def __init__(self, own: Appliance, chance: random.Random) -> None:
        self.own = own
        self.chance = chance

    def port(self) -> int:
        return self.chance.randrange(PORTS)

    def kill(self, what: str, signal: str) -> None:
        """Send a signal to a port's FFmpeg or runner, and wait until the port shows that it noticed."""
        port = self.port()
        before = status(self.own, port)
        if before[what]:
            self.own.run(["kill", f"-{signal}", str(before[what])], check=False)
        wait_for(lambda: has_noticed(before, status(self.own, port)), 30, f"port {port} notices", poll_s=0.05)

    def ffmpeg_killed(self) -> None:
        self.kill("ffmpeg_pid", "KILL")

    def ffmpeg_frozen(self) -> None:
        self.kill("ffmpeg_pid", "STOP")

    def runner_killed(self) -> None:
        self.kill("pid", "KILL")

    def runner_frozen(self) -> None:
        self.kill("pid", "STOP")

    def everything_killed(self) -> None:
        self.own.run("systemctl kill --signal=KILL 'sdi-record@*'", check=False)

    def stopped_and_started(self) -> None:
        port = self.port()
        self.own.run(f"sdisup stop {port}; sdisup start {port} --wait 0", check=False, timeout_s=120)

    def restarted(self) -> None:
        self.own.run(f"systemctl restart sdi-record@{self.port()}", check=False, timeout_s=120)

    def signal_lost(self) -> None:
        port = self.chance.choice(CARD_PORTS)
        # A reboot empties /run.
        self.own.run("mkdir -p /run/sdisup-standin")
        steer(self.own, port, "no-signal", lost_s=1.0)
        wait_for(lambda: status_file(self.own, port)["state"] in ("no-signal", "backof"), 20, "the signal is missed")
        steer(self.own, port, "ok")

    def disk_full(self) -> None:
        self.own.run(f"dd if=/dev/zero of={RECORDINGS}/ballast bs=1M status=none; sync", check=False)
        wait_for(lambda: any(not self.is_recording(port) for port in range(PORTS)), 20, "a port stops for want of room")
        self.own.run(f"rm -f {RECORDINGS}/ballast")

    def disk_frozen(self) -> None:
        self.own.run(f"fsfreeze --freeze {RECORDINGS}")
        try:
            wait_for(
                lambda: not any(self.is_recording(port) for port in range(PORTS)), 20, "frozen ports are not recording"
            )
        finally:
            self.own.run(f"fsfreeze --unfreeze {RECORDINGS}")

    def power_cut(self) -> None:
        self.own.power_cut(lose_cache=[RECORDINGS, LEDGER])
        self.own.boot(wait="bus")

    def rebooted(self) -> None:
        self.own.reboot(wait="bus")

    def is_recording(self, port: int) -> bool:
        return bool(status_file(self.own, port)["is_recording"])

    def all_record_again(self) -> None:
        wait_for(self.is_whole, 90, "all ports record again", poll_s=0.1)

    def is_whole(self) -> bool:
        found = statuses(self.own)
        good = all(entry["is_recording"] and entry["frame_count"] >= 15 for entry in found)
        return good and len(found) == PORTS == len(ffmpegs(self.own))


def has_noticed(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a port is no longer what it was before a fault."""
    return not now["is_recording"] or any(now[name] != before[name] for name in ("restarts", "pid", "ffmpeg_pid"))


FAULTS = [
    Play.ffmpeg_killed, Play.ffmpeg_killed, Play.ffmpeg_frozen, Play.runner_killed, Play.runner_frozen,
    Play.everything_killed, Play.stopped_and_started, Play.restarted, Play.signal_lost, Play.disk_full,
    Play.disk_frozen, Play.power_cut, Play.rebooted,
]  # fmt: skip


def entries(own: Appliance, port: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in own.read(f"{LEDGER}/{port}.jsonl").splitlines()]


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def unaccounted(lines: list[dict[str, Any]]) -> list[str]:
    """The places where a port's entries leave time out or count it twice, by more than a second each."""
    timeline = [line for line in lines if line["kind"] in ("file", "gap", "stop") and "frames_missing" not in line]
    timeline.sort(key=lambda line: (at(line["start"]), at(line["end"])))
    holes = []
    for before, after in pairwise(timeline):
        hole_s = at(after["start"]) - at(before["end"])
        if abs(hole_s) > 1.0:
            holes.append(f"{hole_s:+.2f} s between\n  {before}\n  {after}")
    return holes


def test_no_fault_leaves_time_unaccounted_for(new_appliance: Callable[..., Appliance]) -> None:
    print(f"SDISUP_FAULT_SEED={SEED}")
    own = new_appliance(disks={"disk": 192 * MIB, "ledger": 32 * MIB})
    own.boot()
    with_disk(own)
    with_disk(own, LEDGER, "ledger")
    install(own)
    configure(own, CONFIGURATION)
    play = Play(own, random.Random(SEED))
    play.all_record_again()
    begun = time.monotonic()
    # Every fault at least once, in an order of chance, and then as many as the time allows.
    order = play.chance.sample(FAULTS, len(FAULTS))
    played = []
    while order or time.monotonic() - begun < SECONDS:
        fault = order.pop() if order else play.chance.choice(FAULTS)
        played.append(fault.__name__)
        fault(play)
        play.all_record_again()
    print(f"{len(played)} faults in {time.monotonic() - begun:.0f} s: {', '.join(played)}")
    sdisup(own, "stop --all", timeout_s=120)
    check_accounts(own, played)


def check_accounts(own: Appliance, played: list[str]) -> None:
    problems: list[str] = []
    files = 0
    for port in range(PORTS):
        # What was cut off is counted by the next runner: one more start and stop enter the last of it.
        sdisup(own, f"start {port}")
        sdisup(own, f"stop {port}")
        assert json.loads(own.read(f"{LEDGER}/{port}.open.json"))["queue"] == []
        lines = entries(own, port)
        problems += [f"port {port}: {hole}" for hole in unaccounted(lines)]
        files += check_files(own, port, lines, problems)
        total_s = sum(line["seconds"] for line in lines if line["kind"] in ("file", "gap", "stop"))
        elapsed_s = max(at(line["end"]) for line in lines) - min(at(line["start"]) for line in lines)
        interruptions = sum(line["kind"] == "file" for line in lines)
        if abs(total_s - elapsed_s) > interruptions:
            problems.append(f"port {port}: {total_s:.1f} s entered of {elapsed_s:.1f} s, {interruptions} interruptions")
        print(f"port {port}: {interruptions} files, {total_s:.1f} s entered of {elapsed_s:.1f} s")
    assert not problems, f"seed {SEED}, {played}\n" + "\n".join(problems)
    assert files > len(played)


def readable_frames(own: Appliance, path: str) -> int:
    """The frames of a file; none of one that a power cut left without a whole header, in its first second."""
    try:
        return count_frames(own, path)
    except ApplianceError:
        return 0


def check_files(own: Appliance, port: int, lines: list[dict[str, Any]], problems: list[str]) -> int:
    """Every file of the ledger is there, plays, and has the frames that were entered."""
    found = [line for line in lines if line["kind"] == "file"]
    for line in found:
        frames = readable_frames(own, line["path"])
        if abs(frames - line["frames"]) > 1 or (line["ended"] == "complete" and not frames):
            problems.append(f"port {port}: {line['path']} has {frames} frames, {line['frames']} were entered")
    entered = {line["path"] for line in found}
    there = own.run(f"find {RECORDINGS} -name 'port{port}_*' -type f").stdout.split()
    problems += [f"port {port}: {path} is in no entry" for path in there if path not in entered]
    return len(found)
