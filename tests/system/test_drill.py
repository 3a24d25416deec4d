"""`sdisup drill` on a real systemd: it passes where all is well, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drive import Machine, small_ports

from sdisup.drill.stage import PLAIN_PORT

# The faults in the order in which a drill plays them.
FAULTS = ["ffmpeg-killed", "ffmpeg-frozen", "signal-lost", "runner-killed", "runner-frozen", "disk-full"]
# Without the files that a recording port rewrites: its status, and its memory after a good minute.
SNAPSHOT = """
cd / && find etc/systemd/system etc/sdisup var/lib/sdisup -printf '%p %m %u %s %T@ %l\\n' | sort
find etc/systemd/system etc/sdisup var/lib/sdisup -type f | sort | xargs sha256sum
find run/sdisup ! -name '[0-9].json' ! -name '[0-9].take' ! -name '*.tmp' -printf '%p %i %m %u %s\\n' | sort
find srv/recordings -printf '%p %i %m %u\\n' | sort
"""


def leftovers(appliance: Machine) -> str:
    """The units, mounts and files of a drill that are there; empty if there are none."""
    found = appliance.run(
        """
        systemctl list-units --all --no-legend --plain '*drill*'
        find /run /etc /var/lib /srv /tmp -name '*drill*' ! -path '/run/log/*' 2>/dev/null
        grep -l -a -e sdi-drill -e sdisup-drill -e drill_signal /proc/[0-9]*/cgroup 2>/dev/null
        grep drill /proc/self/mountinfo
        """,
        check=False,
    ).stdout
    loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return found + "".join(loop for loop in loops if "sdisup-drill" in loop)


def wait_nothing_left(appliance: Machine, timeout_s: float) -> None:
    appliance.wait_for(lambda: not leftovers(appliance), timeout_s, "nothing of the drill is left", poll_s=0.1)


def start_drill(appliance: Machine, state: str = "recording") -> Any:
    """A drill whose port is in that state: `recording`, or `stalled` 2 s after its FFmpeg was frozen."""
    process = appliance.popen("exec sdisup drill --fault ffmpeg-frozen")
    status = appliance.path(f"/run/sdisup-drill/run/{PLAIN_PORT}.json")

    def is_there() -> bool:
        try:
            return bool(json.loads(status.read_text())["state"] == state)
        except (OSError, ValueError):
            assert process.poll() is None, process.communicate()
            return False

    appliance.wait_for(is_there, 30, f"the drill's port is {state}")
    return process


# One that is over at once, and one that lasts. `ffmpeg-killed` is played three times: its median is tabled in
# unit/test_drill_parts.py.
QUICK = ("runner-killed", "disk-full")


@pytest.mark.journal_allows(r"^sdi-drill")
@pytest.mark.parametrize("faults", [QUICK, pytest.param((), marks=pytest.mark.slow, id="all, a minute")])
def test_a_drill_passes_and_real_ports_beside_it_notice_nothing(appliance: Machine, faults: tuple[str, ...]) -> None:
    appliance.configure(small_ports(2, "record_at_boot = true\n"))
    # A drill does not make systemd read a change that somebody is making in a real port's unit.
    appliance.write("/etc/systemd/system/sdi-record@1.service.d/30-later.conf", "[Service]\nNice=5\n")
    before = [appliance.wait_recording(port, frames=25) for port in (0, 1)]
    snapshot = appliance.run(SNAPSHOT).stdout
    chosen = "".join(f" --fault {name}" for name in faults)
    result = appliance.sdisup(f"drill --json{chosen}", timeout_s=150)
    after = [appliance.status_file(port) for port in (0, 1)]
    print(result.stdout)
    report = json.loads(result.stdout)
    assert [fault["fault"] for fault in report["faults"]] == (list(faults) or FAULTS)
    assert report["ok"] and all(fault["ok"] for fault in report["faults"])
    assert report["disk"] in ("ext4", "tmpfs")
    assert leftovers(appliance) == ""
    assert appliance.run(SNAPSHOT).stdout == snapshot
    for was, now in zip(before, after, strict=True):
        assert [now[name] for name in ("pid", "ffmpeg_pid", "restarts", "current_file")] == [
            was[name] for name in ("pid", "ffmpeg_pid", "restarts", "current_file")
        ]
        assert (now["dropped_frames"], now["missing_frames"], now["duplicated_frames"]) == (0, 0, 0)
        elapsed_s = now["updated_monotonic"] - was["updated_monotonic"]
        assert now["frame_count"] > was["frame_count"] + (elapsed_s - 3) * 25
    assert appliance.run("systemctl show -P NeedDaemonReload sdi-record@1").stdout.strip() == "yes"


BUSY = "for i in $(seq $(nproc)); do while :; do :; done & done; wait"


@pytest.mark.slow
@pytest.mark.journal_allows(r"^sdi-drill")
def test_a_drill_passes_on_a_healthy_machine_that_is_busy(appliance: Machine) -> None:
    appliance.configure(small_ports(8, "record_at_boot = true\n").replace("320x180", "1280x720"))
    appliance.run(["systemd-run", "--quiet", "--collect", "--unit=busy", "bash", "-c", BUSY])
    try:
        result = appliance.sdisup("drill --json --fault ffmpeg-killed --fault runner-killed", timeout_s=150)
        assert appliance.run("systemctl is-active busy").stdout == "active\n"
    finally:
        appliance.run("systemctl kill --signal=KILL busy", check=False)
    print(result.stdout)


@pytest.mark.slow
@pytest.mark.journal_allows(r"^sdi-drill")
def test_a_drill_that_is_interrupted_leaves_nothing(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    process = start_drill(appliance)
    assert "a drill is running already" in appliance.sdisup("drill", code=1).stderr
    # RuntimeMaxSec= ends a command that hangs.
    assert appliance.run("systemctl show -P RuntimeMaxUSec sdi-drill.scope").stdout.strip() == "5min"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert leftovers(appliance) == ""
    process = start_drill(appliance, "stalled")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    # The runner's ladder ends the frozen FFmpeg, as that of a real port.
    wait_nothing_left(appliance, 15)
    # The next drill runs as if there had been none before.
    process = start_drill(appliance)
    appliance.run("systemctl stop sdi-drill.scope")
    process.communicate(timeout=20)
    wait_nothing_left(appliance, 15)


@pytest.mark.slow
@pytest.mark.journal_allows(r"^sdi-drill")
def test_a_loop_device_goes_with_the_drill_and_with_the_power(new_appliance: Callable[..., Machine]) -> None:
    loops = ["/dev/loop-control", *sorted(str(path) for path in Path("/dev").glob("loop[0-9]*"))]
    own = new_appliance(binds=loops)
    assert own.boot() == "running"
    own.configure(small_ports(1))
    report = json.loads(own.sdisup("drill --json --fault disk-full").stdout)
    assert report["disk"] == "ext4"
    assert leftovers(own) == ""
    process = start_drill(own)
    assert "sdisup-drill" in leftovers(own)
    own.power_cut()
    process.communicate(timeout=20)
    own.boot()
    wait_nothing_left(own, 5)


SLOW_FOR_PORTS = """\
#!/bin/sh
# By hand it starts at once; under a runner, late.
[ -z "$RUNTIME_DIRECTORY" ] || sleep 1.5
exec /usr/bin/ffmpeg "$@"
"""


@pytest.mark.slow
@pytest.mark.journal_allows(r"^sdi-drill")
def test_a_bound_that_is_exceeded_is_exit_1(appliance: Machine) -> None:
    appliance.write("/usr/local/bin/slow-ffmpeg", SLOW_FOR_PORTS, mode=0o755)
    appliance.configure('[appliance]\nffmpeg = "/usr/local/bin/slow-ffmpeg"\nports = 1\n[defaults]\n'
              'source = { kind = "test" }\n')  # fmt: skip
    result = appliance.sdisup("drill --fault runner-killed", code=1)
    assert "EXCEEDED" in result.stdout
    assert "runner killed: recording again: " in result.stdout
    assert leftovers(appliance) == ""


def test_what_is_asked_wrongly_starts_nothing(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    assert "no fault is called 'fire'" in appliance.sdisup("drill --fault fire", code=2).stderr
    assert "run it as root" in appliance.sdisup("drill", code=1, user="nobody").stderr
    appliance.run("mount -o remount,size=30M /run")
    try:
        assert "free, and a drill needs 67 MB" in appliance.sdisup("drill", code=1).stderr
    finally:
        appliance.run("mount -o remount,size=50% /run")
    appliance.write("/etc/sdisup/sdisup.toml", "[appliance]\nffmpeg = '/nowhere/ffmpeg'\n")
    assert "/nowhere/ffmpeg" in appliance.sdisup("drill", code=1).stderr
    assert leftovers(appliance) == ""
