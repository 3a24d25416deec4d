#!/usr/bin/env python3
"""Measures the numbers that sdisup promises, in one run with what they are compared with.

    python3 tests/measure.py [ROUNDS]

Boots an appliance. In each round it starts the same FFmpeg by hand, starts a port by systemctl, kills the port's FFmpeg
and stops the port. Then it runs eight ports, and measures the cost of their runners and of `sdisup status`. Prints
medians; exits with 1 if a number exceeds its limit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CODE = "/usr/lib/sdisup"
RECORDINGS = Path("/srv/recordings")
PORTS = 8
CONFIGURATION = f"""\
[appliance]
ports = {PORTS}
[defaults]
source = {{ kind = "test", size = "640x360", rate = 25 }}
container = "mkv"
preset = "ultrafast"
"""
RUNNER_SECONDS = 20.0


def on_host(rounds: int) -> int:
    """Boot the appliance and run the measurement in it."""
    from appliance import Appliance, installed_layer

    with Appliance(layers=[installed_layer()]) as appliance:
        appliance.boot()
        tests = Path(__file__).resolve().parent
        for file in (tests / "measure.py", *sorted((tests / "bench").glob("*.py"))):
            appliance.push(file, f"/root/{file.relative_to(tests)}")
        appliance.write("/etc/sdisup/sdisup.toml", CONFIGURATION)
        appliance.run("sdisup apply")
        process = appliance.popen(["python3", "/root/measure.py", "--inside", str(rounds)], stdout=None, stderr=None)
        return process.wait(timeout=1200)


def until(predicate: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until the predicate is true, looking every millisecond."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError("what is measured did not happen")
        time.sleep(0.001)


def holds_media(path: Path) -> bool:
    from sdisup.contract.media import holds_media as holds

    try:
        with path.open("rb") as file:
            return holds("mkv", path.stat().st_size, lambda count, offset: os.pread(file.fileno(), count, offset))
    except FileNotFoundError:
        return False


def new_file(before: set[Path]) -> Path | None:
    return next((path for path in RECORDINGS.iterdir() if path not in before), None)


def media_in_new_file(before: set[Path]) -> bool:
    path = new_file(before)
    return path is not None and holds_media(path)


def time_by_hand(command: list[str]) -> float:
    """Seconds from spawning the port's FFmpeg by hand until its first frame is on disk."""
    path = RECORDINGS / "by-hand.mkv"
    path.unlink(missing_ok=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        [str(path) if word == "{output}" else word for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: holds_media(path))
    seconds = time.monotonic() - begun
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()
    path.unlink()
    return seconds


def time_unit() -> tuple[float, float, float]:
    """Seconds from `systemctl start` to the first frame, from kill -9 to the next file's first frame, and of a stop."""
    before = set(RECORDINGS.iterdir())
    begun = time.monotonic()
    start = subprocess.Popen(["systemctl", "start", "sdi-record@0"])
    until(lambda: media_in_new_file(before))
    started = time.monotonic() - begun
    start.wait()
    time.sleep(1.5)
    before = set(RECORDINGS.iterdir())
    pid = json.loads(Path("/run/sdisup/0.json").read_text())["ffmpeg_pid"]
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(lambda: media_in_new_file(before))
    again = time.monotonic() - begun
    time.sleep(1.5)
    begun = time.monotonic()
    subprocess.run(["systemctl", "stop", "sdi-record@0"], check=True)
    return started, again, time.monotonic() - begun


def time_command(command: list[str], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begun = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - begun)
    return statistics.median(times)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure_eight() -> tuple[float, float]:
    """A runner's memory (MiB PSS) and its share of a core (per cent) while eight ports record."""
    subprocess.run(["sdisup", "start", "--all"], check=True, stdout=subprocess.DEVNULL)
    pids = [json.loads(Path(f"/run/sdisup/{port}.json").read_text())["pid"] for port in range(PORTS)]
    time.sleep(2)
    before, begun = [cpu_seconds(pid) for pid in pids], time.monotonic()
    time.sleep(RUNNER_SECONDS)
    elapsed = time.monotonic() - begun
    used = sum(cpu_seconds(pid) - start for pid, start in zip(pids, before, strict=True)) / PORTS
    return statistics.median(pss_mb(pid) for pid in pids), 100 * used / elapsed


def time_python(rounds: int) -> tuple[float, float]:
    """Seconds of `start_recording` and, interleaved, of `systemctl start` of the same port (medians)."""
    from sdisup import RecorderManager, Settings

    manager = RecorderManager(Settings.load())
    manager.initialize()
    by_unit, by_python = [], []
    for _ in range(rounds):
        begun = time.monotonic()
        subprocess.run(["systemctl", "start", "sdi-record@1"], check=True)
        by_unit.append(time.monotonic() - begun)
        manager.stop_recording(1)
        begun = time.monotonic()
        manager.start_recording(1)
        by_python.append(time.monotonic() - begun)
        manager.stop_recording(1)
    return statistics.median(by_unit), statistics.median(by_python)


MANY_FILES = 100_000
# Makes a ledger of so many files, and the files; then says how long a look at them takes, and the largest memory.
RETENTION = """
import json, os, resource, sys, time
sys.path.insert(0, CODE)
from sdisup.contract.applied import Applied, AppliedPort, save_applied
from sdisup.contract.files import utc_text
from sdisup.contract.retention import Retention, Rules, save_rules
from sdisup.retention.survey import Places, survey
base, count = sys.argv[1], int(sys.argv[2])
names = ("ledger", "run", "applied.json", "rules.json", "protected", "confirmed", "believed")
places = Places(*(f"{base}/{name}" for name in names))
if count:
    for name in ("recordings", "ledger", "run", "protected"):
        os.makedirs(f"{base}/{name}")
    ports = {port: AppliedPort(port, f"CAM{port}", "h264", f"{base}/recordings", False, "r") for port in range(8)}
    save_applied(Applied(ports, []), places.applied)
    save_rules(Retention(Rules(max_age=30 * 86400, max_files=count // 2), {}), places.rules)
    ledgers = [open(f"{places.ledgers}/{port}.jsonl", "w") for port in ports]
    for number in range(count):
        port, end = number % 8, utc_text(time.time() - 20 * 86400 + number)
        path = f"{base}/recordings/CAM{port}_{number:08}T120000Z.mp4"
        made = os.open(path, os.O_CREAT | os.O_WRONLY)
        inode = os.fstat(made).st_ino
        entry = {"v": 1, "kind": "file", "port_index": port, "take": None, "boot_id": "b" * 36, "start": end,
                 "end": end, "start_monotonic": 8248.406, "end_monotonic": 8268.567, "seconds": 20.16, "path": path,
                 "frames": 504, "duplicated": 0, "dropped": 0, "bytes": 0, "codec": "h264", "ended": "complete",
                 "ffmpeg_version": "Lavf61.7.103", "inode": inode, "number": number // 8 + 1}
        os.close(made)
        ledgers[port].write(json.dumps(entry, separators=(",", ":")) + "\\n")
else:
    begun = time.monotonic()
    found = survey(places)
    assert found.files and len(found.plan.deletions) == len(found.files) // 2
    print(time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def measure_retention(rounds: int) -> tuple[float, float]:
    """Seconds and MiB of a look at many files of which half are to go (medians)."""
    base = "/var/tmp/many-recordings"
    program = [sys.executable, "-I", "-S", "-c", f"CODE = {CODE!r}\n{RETENTION}", base]
    shutil.rmtree(base, ignore_errors=True)
    subprocess.run([*program, str(MANY_FILES)], check=True)
    found = [subprocess.run([*program, "0"], check=True, capture_output=True, text=True).stdout for _ in range(rounds)]
    shutil.rmtree(base)
    times, sizes = zip(*(map(float, line.split()) for line in found), strict=True)
    return statistics.median(times), statistics.median(sizes)


def report(name: str, value: float, unit: str, limit: float, detail: str = "") -> bool:
    good = value <= limit
    print(f"{name:<58} {value:8.2f} {unit:<4} limit {limit:g} {'' if good else 'EXCEEDED '}{detail}", flush=True)
    return good


def inside(rounds: int) -> int:
    sys.path.insert(0, CODE)
    from bench.peers import port_command

    command = port_command(0)
    hand, started, again, stopped = [], [], [], []
    for _ in range(rounds):
        hand.append(time_by_hand(command))
        one, two, three = time_unit()
        started.append(one)
        again.append(two)
        stopped.append(three)
    floor, start, back, stop = (statistics.median(times) * 1000 for times in (hand, started, again, stopped))
    good = [
        report(
            "systemctl start to first frame, over FFmpeg by hand",
            start - floor,
            "ms",
            100,
            f"{start:.0f} - {floor:.0f}",
        ),
        report(
            "kill -9 of FFmpeg to recording again, over its own start",
            back - floor,
            "ms",
            150,
            f"{back:.0f} - {floor:.0f}",
        ),
        report("systemctl stop", stop, "ms", 500),
    ]
    unit_s, python_s = (seconds * 1000 for seconds in time_python(rounds))
    good.append(
        report("start_recording, over systemctl start", python_s - unit_s, "ms", 50, f"{python_s:.0f} - {unit_s:.0f}")
    )
    check = time_command(["sdisup", "check", "--quick"], 3) * 1000
    good.append(report("sdisup check --quick", check, "ms", 1000))
    memory, cpu = measure_eight()
    bare = time_command(["/usr/bin/python3", "-c", "pass"], 4 * rounds) * 1000
    status = time_command(["sdisup", "status"], 4 * rounds) * 1000
    bare = (bare + time_command(["/usr/bin/python3", "-c", "pass"], 4 * rounds) * 1000) / 2
    subprocess.run(["sdisup", "stop", "--all"], check=True, stdout=subprocess.DEVNULL)
    good += [
        report("runner's memory, PSS, eight ports", memory, "MiB", 6),
        report("runner's share of a core, eight ports", cpu, "%", 0.2),
        report(
            "sdisup status of eight ports, over a bare Python", status - bare, "ms", 30, f"{status:.1f} - {bare:.1f}"
        ),
    ]
    seconds, size = measure_retention(rounds)
    good += [
        report("retention of 100,000 files, half of which go", seconds, "s", 2),
        report("its memory", size, "MiB", 60),
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--inside"]:
        sys.exit(inside(int(words[1])))
    sys.exit(on_host(int(words[0]) if words else 10))
