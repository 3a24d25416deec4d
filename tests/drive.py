"""An appliance with sdisup, and what its users do to it: systemctl, sdisup, Python, and the files of the contract.

The fixtures of conftest.py are of this class, so that a test needs no other import to drive one.
"""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from appliance import Appliance, push_checkout, wait_for
from standin_control import STANDIN, write_steering

from sdisup.contract.files import read_json
from sdisup.ledger.lines import last_entry
from sdisup.ledger.present import has_waiting

RECORDINGS = "/srv/recordings"
LEDGER = "/var/lib/sdisup/ledger"
LEDGER_DISK = "/srv/system"
"""Where mount_ledger_disk mounts what carries the ledger and /var/tmp."""
STANDIN_INSTALLED = "/usr/local/bin/ffmpeg-deltacast"
STEERING = "/run/sdisup-standin"
MIB = 1 << 20
# The Debians of tests that do not run on trixie alone.
DEBIAN_12 = pytest.mark.parametrize("suite", ["bookworm"])
BOTH_DEBIANS = pytest.mark.parametrize("suite", ["trixie", "bookworm"])
DEBIAN_12_IF_SLOW = pytest.mark.parametrize("suite", ["trixie", pytest.param("bookworm", marks=pytest.mark.slow)])
SMALL = 'source = { kind = "test", size = "320x180", rate = 25 }'

MOUNT = """\
[Unit]
Description=Mounts a disk for recordings
DefaultDependencies=no
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/mount /dev/{name} {where}
{more}[Install]
WantedBy=local-fs.target
"""

CLOCK = "/usr/local/lib/sdisup-clock.py"
CLOCK_OFFSETS = "/usr/local/lib/sdisup-clock.offsets"
# What sdisup's processes load before all else: by how many nanoseconds CLOCK_REALTIME and CLOCK_BOOTTIME are ahead.
CLOCK_SHIM = f"""\
import os, time
_offsets = os.open({CLOCK_OFFSETS!r}, os.O_RDONLY | os.O_CLOEXEC)
_time, _ns = time.time, time.clock_gettime_ns
def _ahead(clock):
    at = {{time.CLOCK_REALTIME: 0, time.CLOCK_BOOTTIME: 8}}.get(clock)
    return 0 if at is None else int.from_bytes(os.pread(_offsets, 8, at), "little", signed=True)
time.time = lambda: _time() + _ahead(time.CLOCK_REALTIME) / 1e9
time.time_ns = lambda: _ns(time.CLOCK_REALTIME) + _ahead(time.CLOCK_REALTIME)
time.clock_gettime_ns = lambda clock: _ns(clock) + _ahead(clock)
time.clock_gettime = lambda clock: time.clock_gettime_ns(clock) / 1e9
"""

# The beginning of a test's Python programs.
PRELUDE = """\
import json, os, sys, threading, time
sys.path.insert(0, "/usr/lib/sdisup")
from sdisup import RecorderManager, RecorderConfig, PortStatus, CodecType, Settings, FFmpegCommandBuilder
from sdisup import SdisupError

def caught(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return [type(error).__mro__[0].__name__, [kind.__name__ for kind in type(error).__mro__], str(error)]
    return None

settings = Settings.load()
manager = RecorderManager(settings)
manager.initialize()
"""


def small_ports(count: int, extra: str = "") -> str:
    """A configuration of `count` small test ports; `extra` is more TOML."""
    return f"[appliance]\nports = {count}\n[defaults]\n{SMALL}\n{extra}"


class Machine(Appliance):
    """An appliance with sdisup in it."""

    wait_for = staticmethod(wait_for)
    push_checkout = push_checkout

    # ------------------------------------------------ changing it

    def configure(self, text: str, *, apply: bool = True) -> None:
        """Write the configuration and apply it."""
        self.write("/etc/sdisup/sdisup.toml", text)
        if apply:
            self.run("sdisup apply")

    def sdisup(self, words: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of sdisup, which has to exit with that code and without a traceback."""
        result = self.run(f"sdisup {words}", check=False, **options)
        assert "Traceback" not in result.stderr, result.stderr
        assert result.returncode == code, f"sdisup {words}: {result.returncode}\n{result.stdout}{result.stderr}"
        return result

    def python(self, program: str, **options: Any) -> Any:
        """Run a program after PRELUDE; returns the JSON that it prints."""
        result = self.run(["python3", "-c", PRELUDE + program], timeout_s=120, **options)
        assert "Traceback" not in result.stderr, result.stderr
        return json.loads(result.stdout)

    def kill(self, pid: object, signal: str = "KILL") -> None:
        self.run(["kill", f"-{signal}", str(pid)])

    def mount_disk(self, where: str = RECORDINGS, name: str = "disk", more: str = "") -> None:
        """Mount a disk now and at each boot; by a unit, since an entry of fstab waits for udev, which is not there."""
        self.write(f"/etc/systemd/system/mount-{name}.service", MOUNT.format(name=name, where=where, more=more))
        self.run(f"mkdir -p {where} && systemctl enable --now mount-{name}")
        self.run(f"chown sdisup:sdisup {where} && chmod 2775 {where}")

    def mount_ledger_disk(self, name: str = "ledger") -> None:
        """Put the ledger and /var/tmp on a disk of their own, as a system disk has them beside the recordings'."""
        self.run("systemctl stop 'sdi-ledger*'")
        commands = (
            f"install -d -o sdisup -g sdisup {LEDGER_DISK}/ledger",
            f"install -d -m 1777 {LEDGER_DISK}/tmp",
            f"mount --bind {LEDGER_DISK}/ledger {LEDGER}",
            f"mount --bind {LEDGER_DISK}/tmp /var/tmp",
        )
        self.mount_disk(LEDGER_DISK, name, "".join(f"ExecStart=/usr/bin/{command}\n" for command in commands))

    @contextlib.contextmanager
    def frozen(self, directory: str, at_most_s: float = 20.0) -> Iterator[None]:
        """Let writes to a directory's filesystem hang; for the ledger's disk: `mount_ledger_disk()`, LEDGER_DISK.

        A process outside of the appliance thaws it at the latest after that time, and when this process ends,
        however it ends: what is frozen would outlive the appliance.
        """
        place = str(self.path(directory))
        script = 'exec 3<"$1"; read -t "$2" -r _; exec fsfreeze --unfreeze /proc/self/fd/3'
        thaw = ["bash", "-c", script, "thaw", place, f"{at_most_s:g}"]
        # In a session of its own, which Ctrl-C does not reach.
        options: dict[str, Any] = {"stderr": subprocess.DEVNULL, "start_new_session": True}
        with subprocess.Popen(thaw, stdin=subprocess.PIPE, **options) as watchdog:
            subprocess.run(["fsfreeze", "--freeze", place], check=True)
            try:
                yield
                assert watchdog.poll() is None, f"{directory} was frozen for longer than {at_most_s:g} s"
            finally:
                watchdog.communicate(b"\n")

    def install_standin(self) -> None:
        """Install the stand-in for Deltacast's FFmpeg, with a signal on every channel."""
        self.push(STANDIN, STANDIN_INSTALLED)
        self.path(STANDIN_INSTALLED).chmod(0o755)
        self.run(f"rm -rf {STEERING}; mkdir {STEERING}")

    def install_clock(self) -> None:
        """Let sdisup's processes see a suspended system when the test says so; nothing here can suspend a container."""
        self.write(CLOCK, CLOCK_SHIM)
        self.path(CLOCK_OFFSETS).write_bytes(bytes(16))
        for entry in (f"{self.run('readlink -f /usr/lib/sdisup').stdout.strip()}/__main__.py", "/usr/bin/sdisup"):
            first, rest = self.read(entry).split("\n", 1)
            self.path(entry).write_text(f"{first}\nexec(open({CLOCK!r}).read(), {{}})\n{rest}")
        self.run("systemctl try-restart sdi-ledger.service")

    def suspend(self, seconds: float) -> None:
        """CLOCK_REALTIME and CLOCK_BOOTTIME are ahead by so much more, and CLOCK_MONOTONIC is not."""
        self.move_clocks(seconds, seconds)

    def move_clocks(self, wall_s: float, boottime_s: float | None) -> None:
        """None for the CLOCK_BOOTTIME of a new boot."""
        with self.path(CLOCK_OFFSETS).open("r+b") as file:
            wall, boottime = struct.unpack("<qq", file.read(16))
            file.seek(0)
            boottime = 0 if boottime_s is None else boottime + int(boottime_s * 1e9)
            file.write(struct.pack("<qq", wall + int(wall_s * 1e9), boottime))

    def steer(self, channel: int, behaviour: str, *, board: int = 0, **parameters: Any) -> None:
        """Give an input of the card a behaviour; a running stand-in notices it within 50 ms."""
        write_steering(self.path(STEERING), channel, behaviour, board=board, **parameters)

    # ------------------------------------------------ asking it

    def statuses(self) -> list[dict[str, Any]]:
        """The list of `sdisup status --json`, whatever the exit code."""
        found: list[dict[str, Any]] = json.loads(self.run("sdisup status --json", check=False).stdout)
        return found

    def status(self, port: int) -> dict[str, Any]:
        return next(found for found in self.statuses() if found["port_index"] == port)

    def status_file(self, port: int) -> dict[str, Any]:
        """The port's status file, which is cheap to read often."""
        document: dict[str, Any] = json.loads(self.read(f"/run/sdisup/{port}.json"))
        return document

    def ledger(self, port: int) -> list[dict[str, Any]]:
        """A port's entries, after the ledger's process has entered the runner's events and counted all files."""
        run_directory = str(self.path("/run/sdisup"))
        opened = str(self.path(f"{LEDGER}/{port}.open.json"))

        def is_entered() -> bool:
            # The spool first: what leaves it meanwhile is in the queue that is read then.
            if has_waiting(port, run_directory):
                return False
            queue = read_json(opened)["queue"]  # type: ignore[index]
            if not all("v" in item or "kind" in item for item in queue):
                return False
            # The open record has the entries before the ledger has them.
            last = last_entry(str(self.path(f"{LEDGER}/{port}.jsonl"))) or {}
            return all(item.get("number", 0) <= last.get("number", 0) for item in queue)

        wait_for(is_entered, 20, f"what port {port}'s runner told is in its ledger")
        return [json.loads(line) for line in self.read(f"{LEDGER}/{port}.jsonl").splitlines()]

    def active_state(self, port: int) -> str:
        return self.run(["systemctl", "show", "-P", "ActiveState", f"sdi-record@{port}.service"]).stdout.strip()

    def recordings(self, name: str = "") -> list[str]:
        """The files that a port of that name recorded (all files without a name), oldest first."""
        directory = self.path(RECORDINGS)
        return sorted(
            str(Path(RECORDINGS, file.name))
            for file in directory.iterdir()
            if file.name.startswith(name) and file.is_file()
        )

    def count_frames(self, path: str) -> int:
        """How many pictures of a file can be decoded, as ffprobe counts them."""
        options = "-v error -select_streams v:0 -count_frames -show_entries stream=nb_read_frames -of csv=p=0"
        counted = self.run(["ffprobe", *options.split(), path]).stdout.strip().strip(",")
        # It says N/A of a file with a head and no picture.
        return int(counted) if counted not in ("", "N/A") else 0

    def ffmpegs(self) -> list[int]:
        """All FFmpeg processes that run inside."""
        found = self.run(["pgrep", "-x", "ffmpeg"], check=False).stdout
        return [int(pid) for pid in found.split()]

    # ------------------------------------------------ waiting for it

    def wait_recording(self, port: int, frames: int = 1, timeout_s: float = 20) -> dict[str, Any]:
        """Wait until the port's running FFmpeg has counted `frames`; returns the status at that moment."""

        def is_there() -> dict[str, Any] | None:
            try:
                found = self.status_file(port)
            except (FileNotFoundError, json.JSONDecodeError):
                return None
            return found if found["is_recording"] and found["frame_count"] >= frames else None

        return wait_for(is_there, timeout_s, f"port {port} has recorded {frames} frames")

    def wait_state(self, port: int, state: str, timeout_s: float = 20) -> dict[str, Any]:
        """Wait until `sdisup status` shows that state; returns the status at that moment."""

        def is_there() -> dict[str, Any] | None:
            found = self.status(port)
            return found if found["state"] == state else None

        return wait_for(is_there, timeout_s, f"port {port} is {state}", poll_s=0.1)

    def wait_restarts(self, port: int, count: int, timeout_s: float = 20) -> None:
        """Wait until the port has counted so many restarts."""
        wait_for(lambda: self.status(port)["restarts"] >= count, timeout_s, f"port {port} restarts", poll_s=0.1)
