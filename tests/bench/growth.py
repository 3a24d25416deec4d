"""What sdisup costs as ports become more: `tests/bench/growth`, as root, from a clone.

It boots the appliance with 1, 8, 64, 256 ports in turn, all of which record at boot, and measures each. Their FFmpeg is
cheap_ffmpeg.py, so that what grows is sdisup; for more than 64 ports the limit of the configuration is lifted there.
The table is written into docs/performance.md with --write.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance import CHECKOUT, end_on_sigterm, installed_layer, is_root_or_raise
from drive import Machine

from bench.page import GROWTH_BEGIN, GROWTH_END, replace_between

PAGE = CHECKOUT / "docs" / "performance.md"
FFMPEG = "/usr/local/bin/cheap-ffmpeg"
RECORDING_WITHIN_S = 240.0

CONFIGURATION = """\
[appliance]
ports = {count}
ffmpeg = "{ffmpeg}"
[defaults]
source = {{ kind = "test", size = "320x180", rate = 25, tone = false }}
record_at_boot = true
"""

# Runs in the appliance: prints one line of JSON.
INSIDE = """
import json, os, statistics, subprocess, time
count, seconds, rounds = {count}, {seconds}, {rounds}
BARE = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]

def cpu_s(pid):
    # The CPU time of a process and of all threads that it ever had (clock_getcpuclockid(3)).
    return time.clock_gettime((~pid << 3) | 2)

def pss_mib(pid):
    lines = open(f"/proc/{{pid}}/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

def cost(command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    return 1000 * (used.ru_utime + used.ru_stime), status

def shown(words):
    done = subprocess.run(["sdisup", *words, "--debug"], capture_output=True, text=True)
    assert done.returncode in (0, 3) and "Traceback" not in done.stderr, done.stderr
    said = done.stderr.splitlines()
    lines = [line.partition(" s  ")[2] for line in said if line.startswith("sdisup: debug: ")]
    return [sum(line.startswith(kind) for line in lines) for kind in ("D-Bus ", ("read ", "write "))]

# What the boot took beside the ports' own processes.
ledger = json.load(open("/run/sdisup/ledger.json"))["pid"]
main_pid = ["systemctl", "show", "-p", "MainPID", "--value", "systemd-journald"]
journal = int(subprocess.run(main_pid, capture_output=True, text=True).stdout)
found = {{name: 1000 * cpu_s(pid) / count for name, pid in (("pid_1", 1), ("ledger", ledger), ("journal", journal))}}
statuses = [json.load(open(f"/run/sdisup/{{port}}.json")) for port in range(count)]
runners = [status["pid"] for status in statuses]
time.sleep(3)
before, begun = [cpu_s(pid) for pid in runners], time.monotonic()
time.sleep(seconds)
used = sum(cpu_s(pid) - was for pid, was in zip(runners, before)) / (time.monotonic() - begun) / count
commands = {{"bare": BARE, "status": ["sdisup", "status"], "apply": ["sdisup", "apply"]}}
cpu = {{name: [] for name in commands}}
for _ in range(rounds):
    for name, command in commands.items():
        cpu[name].append(cost(command)[0])
found |= {{name: statistics.median(values) for name, values in cpu.items()}}
found["apply_says"] = subprocess.run(["sdisup", "apply"], capture_output=True, text=True).stdout
found["runner_cpu"] = 1000 * used
found["runner_mib"] = sum(map(pss_mib, runners)) / count
found["status_calls"], found["status_files"] = shown(["status"])
found["apply_calls"], found["apply_files"] = shown(["apply"])
# Half of them stopped: of those the files do not tell whether they failed.
half = f"0-{{max(count // 2 - 1, 0)}}"
found["stop"] = cost(["sdisup", "stop", half])[0]
found["status_half"] = statistics.median(cost(["sdisup", "status"])[0] for _ in range(rounds))
found["half_calls"], found["half_files"] = shown(["status"])
found["start"] = cost(["sdisup", "start", half, "--wait", "60"])[0]
print(json.dumps(found))
"""

ROWS = (
    ("boot to all recording, s", "boot_s", "{:.1f}"),
    ("of that systemd's CPU (PID 1), ms a port", "pid_1", "{:.0f}"),
    ("the journal's CPU, ms a port", "journal", "{:.0f}"),
    ("the CPU of the ledger's process, ms a port", "ledger", "{:.0f}"),
    ("a runner's memory, MiB PSS", "runner_mib", "{:.2f}"),
    ("a runner's CPU, ms each second", "runner_cpu", "{:.2f}"),
    ("`sdisup status`, CPU ms", "status", "{:.0f}"),
    ("`sdisup status`, half of them stopped, CPU ms", "status_half", "{:.0f}"),
    ("`sdisup stop` of half of them, CPU ms", "stop", "{:.0f}"),
    ("`sdisup start` of these, CPU ms", "start", "{:.0f}"),
    ("`sdisup apply` with nothing to change, CPU ms", "apply", "{:.0f}"),
    ("`python3 -I -S -c pass`, CPU ms", "bare", "{:.0f}"),
    ("D-Bus calls of `status`", "status_calls", "{:.0f}"),
    ("D-Bus calls of `status`, half of them stopped", "half_calls", "{:.0f}"),
    ("D-Bus calls of `apply`", "apply_calls", "{:.0f}"),
    ("files that `status` reads", "status_files", "{:.0f}"),
    ("files that `apply` reads", "apply_files", "{:.0f}"),
)


def say(text: str) -> None:
    print(f"growth: {text}", file=sys.stderr, flush=True)


def prepare(machine: Machine, most: int) -> None:
    machine.boot()
    machine.push(Path(__file__).parent / "cheap_ffmpeg.py", FFMPEG)
    machine.path(FFMPEG).chmod(0o755)
    if most > 64:
        table = machine.run("readlink -f /usr/lib/sdisup").stdout.strip() + "/sdisup/config/table.py"
        machine.run(f"sed -i 's/^MAX_PORTS = 64$/MAX_PORTS = {most}/' {table}")


def measure(machine: Machine, count: int, seconds: float, rounds: int) -> dict[str, float]:
    """Boot with so many ports that all record, and measure what they cost."""
    machine.configure(CONFIGURATION.format(count=count, ffmpeg=FFMPEG))
    machine.shutdown()
    began = time.monotonic()
    machine.boot(timeout_s=RECORDING_WITHIN_S)
    machine.wait_for(lambda: records(machine, count) or None, RECORDING_WITHIN_S, f"{count} ports record", 0.1)
    boot_s = time.monotonic() - began
    program = INSIDE.format(count=count, seconds=seconds, rounds=rounds)
    found = json.loads(machine.run(["python3", "-c", program], timeout_s=600).stdout)
    if found.pop("apply_says") != "nothing to change\n":
        raise SystemExit("growth: apply had something to change")
    return {"boot_s": boot_s, **found}


def records(machine: Machine, count: int) -> bool:
    """Whether all record, by the runners' own word."""
    for port in range(count):
        try:
            status = json.loads(machine.path(f"/run/sdisup/{port}.json").read_text())
        except (FileNotFoundError, ValueError):
            return False
        if not status["is_recording"]:
            return False
    return True


def table(found: Mapping[int, Mapping[str, float]]) -> list[str]:
    """A row for each thing that was measured, a column for each number of ports."""
    lines = ["| ports | " + " | ".join(map(str, found)) + " |", "|---|" + "---|" * len(found)]
    return lines + [
        f"| {name} | " + " | ".join(text.format(values[key]) for values in found.values()) + " |"
        for name, key, text in ROWS
    ]


def versions(machine: Machine) -> str:
    python = machine.run("/usr/bin/python3 --version").stdout.strip()
    systemd = machine.run("systemctl --version").stdout.split()[1]
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    processor = model[1] if model else platform.machine()
    return f"{cores} cores of {processor}, Linux {platform.release()}, systemd {systemd}, {python}."


def growth_of(found: Mapping[int, Mapping[str, float]], key: str, of_python: bool) -> float:
    """How much more a port costs among the most ports than among fewer: 1 is linear, more is worse."""
    (few, less), (many, more) = sorted(found.items())[-2:]
    base = statistics.median(values["bare"] for values in found.values()) if of_python else 0.0
    return ((more[key] - base) / many) / ((less[key] - base) / few)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/growth", description=__doc__.partition("\n")[0])
    parser.add_argument("--ports", default="1,8,64,256", metavar="N,N", help="how many ports, in turn")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="for how long runners are watched")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="how often a command is run")
    parser.add_argument("--suite", default="trixie", help="the Debian")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(CHECKOUT)}")
    options = parser.parse_args(words)
    is_root_or_raise()
    end_on_sigterm()
    counts = [int(word) for word in options.ports.split(",")]
    found: dict[int, dict[str, float]] = {}
    with Machine(options.suite, layers=[installed_layer(options.suite)]) as machine:
        prepare(machine, max(counts))
        where = versions(machine)
        for count in counts:
            say(f"{count} ports")
            found[count] = measure(machine, count, options.seconds, options.rounds)
            say(json.dumps(found[count]))
    lines = table(found)
    print("\n".join([where, "", *lines]))
    if len(found) > 1:
        for key in ("status", "status_half", "stop", "start", "apply"):
            say(f"a port's part of {key} among the most, over that among fewer: {growth_of(found, key, True):.2f}")
    if options.write:
        text = "\n".join([where, "", *lines])
        PAGE.write_text(replace_between(PAGE.read_text(), text, GROWTH_BEGIN, GROWTH_END))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
