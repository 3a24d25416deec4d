"""A member of the group plants links, FIFOs and directories under every name that he can foresee, where he may write.

Nothing else than these is changed, nothing is made elsewhere, and nothing hangs: each command has its limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from drive import LEDGER, RECORDINGS, Machine, small_ports

pytestmark = pytest.mark.beside

VICTIM, MADE = "/etc/victim", "/etc/made-through-a-link"
PLANTER = """
import os, stat, sys, time
kind, owner, victims, made = sys.argv[1], int(sys.argv[2]), sys.argv[3:-1], sys.argv[-1]
FIXED = ["own.mp4", "own.mkv", "ballast", "signal", "disk", "run", "ledger", "recordings", "cup", "lock", "spool"]
FIXED += [f"{port}{end}" for port in range(2) for end in (".json", ".stop.json", ".lock", ".jsonl")]

def names():
    yield from FIXED
    now = int(time.time())
    for second in range(now - 1, now + 20):
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        yield from (f"{name}_{stamp}.mp4" for name in ("port0", "port1", "drill"))

def plant(path, kind):
    try:
        if kind == "link":
            os.symlink(victims[0], path)
        elif kind == "dangling link":
            os.symlink(made, path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "list":
            with open(path, "x") as file:
                file.write("ffconcat version 1.0\\nfile fifo.ts\\n")
        else:
            os.makedirs(path + "/full")
    except OSError:
        pass  # It is there already, or the directory is gone.

def writable():
    for top in ("/srv", "/run", "/var", "/etc"):
        for directory, below, _ in os.walk(top):
            if os.access(directory, os.W_OK):
                yield directory

def swap(directory):
    for entry in os.scandir(directory):
        try:
            found = entry.stat(follow_symlinks=False)
            # A recording has its name from its first frame on, and FFmpeg has the file open by then.
            is_new = entry.name.endswith(".mp4") or (not found.st_size and not entry.name.endswith(".away"))
            if found.st_uid == owner and stat.S_ISREG(found.st_mode) and is_new:
                os.rename(entry.path, f"{entry.path}.away")
                plant(entry.path, "link")
        except OSError:
            pass

seen, again_at = [], 0.0
while True:
    if time.monotonic() >= again_at:
        seen, again_at = list(writable()), time.monotonic() + 1
        for directory in seen:
            os.path.exists(f"{directory}/fifo.ts") or plant(f"{directory}/fifo.ts", "fifo")
            for name in names():
                plant(f"{directory}/{name}", kind)
        print(*seen, flush=True)
    for directory in seen:
        try:
            swap(directory)
        except OSError:
            pass
"""
AS_MEMBER = "exec setpriv --reuid=nobody --regid=nogroup --groups=$(getent group sdisup | cut -d: -f3) --"
KINDS = ["link", "dangling link", "fifo", "directory", "list"]


@contextlib.contextmanager
def planting(appliance: Machine, kind: str) -> Iterator[None]:
    appliance.write("/usr/local/bin/planter", PLANTER)
    victims = f"{LEDGER}/1.jsonl {VICTIM} {MADE}"
    process = appliance.popen(f"{AS_MEMBER} python3 /usr/local/bin/planter '{kind}' $(id -u sdisup) {victims}")
    try:
        assert process.stdout is not None and RECORDINGS in process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate(timeout=20)
        appliance.run("pkill -f '[p]lanter'; find /srv /run /var /etc -xdev -user nobody -delete; true")
        appliance.run("find /run/lock -xdev -user nobody -delete", check=False)


def untouched(appliance: Machine) -> str:
    """What nobody may change, and where nobody may make anything: apart from port 0's own ledger."""
    return appliance.run(
        f"stat -c '%n %u %g %a %s %Y' {VICTIM}; cat {VICTIM}; ls /etc; ls {LEDGER} | grep -v '^[01]\\.'", check=False
    ).stdout


@pytest.mark.journal_allows(r"cannot be read|is a link or a file|^sdi-drill")
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "link")) for kind in KINDS])
def test_nothing_is_changed_made_or_hung(appliance: Machine, kind: str, request: pytest.FixtureRequest) -> None:
    appliance.configure(small_ports(2))
    appliance.write(VICTIM, "mine")
    appliance.run(f"chmod 600 {VICTIM}")
    appliance.run("systemctl start sdi-record@1")
    appliance.wait_recording(1, frames=10)
    appliance.run("systemctl stop sdi-record@1")
    entered = appliance.ledger(1)
    before = untouched(appliance)
    with planting(appliance, kind):
        appliance.run("sdisup check --quick", check=False, timeout_s=60)
        appliance.sdisup("apply", timeout_s=60)
        # The planter swaps each new file for a link at once; a file that is over before he sees it may escape him.
        for _ in range(10):
            appliance.run("systemctl restart sdi-record@0", timeout_s=30)
            first = appliance.wait_recording(0, frames=25)["current_file"]
            if appliance.path(f"{first}.away").exists():
                break
        appliance.run("sdisup start 1 --path cup --no-wait", check=False, timeout_s=60)
        appliance.run("sdisup verify", check=False, timeout_s=60)
        if request.config.getoption("slow"):
            appliance.run("sdisup drill --fault ffmpeg-killed --fault disk-full", check=False, timeout_s=150)
        appliance.run("systemctl stop sdi-record@0 sdi-record@1", timeout_s=60)
    assert untouched(appliance) == before
    assert appliance.ledger(1)[: len(entered)] == entered
    # All frames are in the file that the runner has made, whatever its name is by now.
    (file,) = [line for line in appliance.ledger(0) if line.get("path") == first]
    assert file["frames"] == appliance.count_frames(f"{first}.away") >= 25
