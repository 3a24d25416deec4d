"""A small disk that is full, with retention: real runners and FFmpegs, the real ledger's process and retention's own,
and a loop in place of systemd. It tells in half a minute what tests/system/test_retaining.py tells of an appliance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdisup
from sdisup.config.settings import parse_settings
from sdisup.contract.applied import Applied, AppliedPort, save_applied
from sdisup.contract.disks import changed_ns, wanted_path
from sdisup.contract.options import format_options
from sdisup.contract.protections import Protection, save_protection
from sdisup.contract.retention import Retention, Rules, save_rules
from sdisup.control.units import SHORT_SHARE, runner_options
from sdisup.encode.command import build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.ledger.lines import ledger_path, read_ledger
from sdisup.retention.survey import Places

pytestmark = pytest.mark.slow

MIB = 1 << 20
MIN_FREE, DISK = 32 * MIB, 96 * MIB
PACKAGE = Path(sdisup.__file__).resolve().parent
FFMPEG = "/usr/bin/ffmpeg"
PROGRAM = f"""
import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})
part, *words = sys.argv[1:]
if part == "run":
    from sdisup.runner.begin import main
elif part == "ledger":
    from sdisup.ledger.writer import main
else:
    from sdisup.retention.main import main as retain
    from sdisup.retention.survey import Places
    main = lambda words: retain([], Places(*words))
sys.exit(main(words))
"""
# Two ports of 4 MB/s each: uncompressed, so that a few seconds are a file worth deleting.
DOCUMENT = {
    "source": {"kind": "test", "size": "320x180", "rate": 25}, "codec": "v210", "segment_s": 2,
}  # fmt: skip


class Appliance:
    """What systemd would keep running: two ports, the ledger, and retention when a port asks for it."""

    def __init__(self, base: Path) -> None:
        self.base, self.recordings = base, base / "recordings"
        names = ("ledger", "run", "applied.json", "rules.json", "protected", "confirmed", "believed")
        self.places = Places(*(str(base / name) for name in names))
        for name in ("ledger", "run", "protected"):
            (base / name).mkdir()
        settings = parse_settings([("a", {"appliance": {"ports": 2}, "defaults": self._defaults()})])
        self.ports = dict(settings.ports)
        known = {
            port: AppliedPort(port, f"port{port}", "v210", str(self.recordings), False, "r") for port in self.ports
        }
        save_applied(Applied(known, []), self.places.applied)
        save_rules(Retention(Rules(min_free=MIN_FREE), {}), self.places.rules)
        self.ended: list[float] = []
        self._asked_ns, self._retention = 0, self.start("retain", *self.places.as_dict().values())
        self._ledger = self.start("ledger", self.places.run, self.places.ledgers)
        self._runners = {port: self._start_port(port) for port in self.ports}

    def _defaults(self) -> dict[str, object]:
        return {**DOCUMENT, "recordings": str(self.recordings)}

    def start(self, part: str, *words: str, directory: str = "") -> subprocess.Popen[bytes]:
        environment = {**os.environ, "RUNTIME_DIRECTORY": directory, "TRIGGER_PATH": "yes"}
        command = [sys.executable, "-I", "-S", "-c", PROGRAM, part, *words]
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(command, env=environment, stdin=nowhere, stdout=nowhere, stderr=nowhere)

    def _start_port(self, port: int) -> subprocess.Popen[bytes]:
        command = build_ffmpeg_arguments(self.ports[port], FFMPEG, probe_ffmpeg(FFMPEG))
        options = runner_options(self.ports[port], command, "r", "")
        options = options.replaced(run_directory=self.places.run, min_free_bytes=MIN_FREE // SHORT_SHARE)
        directory = f"{self.places.run}/port-{port}"
        os.makedirs(directory, exist_ok=True)
        return self.start("run", *format_options(options), directory=directory)

    def play(self, seconds: float) -> None:
        """Do for so long what systemd does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.05)
            for port, runner in self._runners.items():
                if runner.poll() is not None:
                    self.ended.append(time.monotonic())
                    self._runners[port] = self._start_port(port)
            asked_ns = changed_ns(wanted_path(self.places.run))
            if asked_ns != self._asked_ns and self._retention.poll() is not None:
                self._asked_ns, self._retention = asked_ns, self.start("retain", *self.places.as_dict().values())

    def stop(self) -> None:
        for runner in self._runners.values():
            runner.send_signal(signal.SIGTERM)
        for process in (*self._runners.values(), self._retention):
            process.wait(20)
        time.sleep(0.5)
        self._ledger.terminate()
        self._ledger.wait()

    def entries(self, port: int, kind: str) -> list[dict[str, object]]:
        found = read_ledger(ledger_path(port, self.places.ledgers))
        return [entry for entry in found if isinstance(entry, dict) and entry["kind"] == kind]


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    disk = tmp_path / "recordings"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(disk)], check=True)
    made = None
    try:
        made = Appliance(tmp_path)
        yield made
    finally:
        if made is not None:
            made.stop()
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_every_port_records_again_within_10_s_of_the_first_deletion_and_goes_on(appliance: Appliance) -> None:
    appliance.play(9)
    kept = min(appliance.recordings.glob("*.mov"))
    save_protection(Protection(path=str(kept)), appliance.places.protected)
    with open(appliance.recordings / "ballast", "wb") as ballast:
        space = os.statvfs(appliance.recordings)
        os.posix_fallocate(ballast.fileno(), 0, space.f_bavail * space.f_frsize)
    appliance.play(10)
    ends = len(appliance.ended)
    appliance.play(15)
    assert len(appliance.ended) == ends, "no port stops once there is room"
    deleted = [float(str(one["end_monotonic"])) for port in (0, 1) for one in appliance.entries(port, "delete")]
    assert len(deleted) >= 6
    for port in (0, 1):
        gaps = [float(str(one["end_monotonic"])) for one in appliance.entries(port, "gap")]
        assert max(gaps) - min(deleted) < 10
    assert kept.exists()
