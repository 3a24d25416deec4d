"""install.sh as its users meet it: on a bare Debian, over itself, when something fails, and away again."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from appliance import CHECKOUT, CHECKOUT_INSIDE, CONTAINER_PATH, project_files
from drive import RECORDINGS, Machine, small_ports

pytestmark = pytest.mark.beside

CONFIGURATION = "/etc/sdisup/sdisup.toml"
UNITS = "/etc/systemd/system"
AS_BEFORE = "install.sh: everything is again as it was before\n"
UNCHANGED = "install.sh: nothing was changed\n"

# All that an installation could leave: names, kinds, rights, owners, sizes, times and targets. Not the files
# that systemd, apt and dpkg keep for themselves, nor the copies "passwd-" that every change of users leaves.
SNAPSHOT = r"""
cd / && find usr etc var/lib srv -xdev \
    \( -path var/lib/systemd -o -path var/lib/apt -o -path var/lib/dpkg -o -name .pwd.lock \
       -o -regex 'etc/g?\(passwd\|group\|shadow\)-' \
       -o -path 'usr/share/[!d]*' -o -path 'usr/lib/*-linux-gnu' \) -prune \
    -o \( -type d -o -path 'srv/recordings/*' \) -printf '%p %y %m %U:%G\n' \
    -o -printf '%p %y %m %U:%G %s %T@ %l\n' | sort
dpkg-query -W
cat /etc/passwd /etc/group /etc/shadow
systemctl list-unit-files 'sdi-record*' --no-legend
systemctl list-units --all --no-legend --plain 'sdi-record*' | grep -v 'not-found inactive'
true
"""
# Stands in for the commands that change things, and fails at the one numbered FAIL_AT. With HOLD_AT it waits
# there instead, with its number in a file to say so.
STAND_IN = r"""#!/bin/sh
PATH=${PATH#/root/stand-ins:}
number=$(($(cat /root/steps 2>/dev/null || echo 0) + 1))
echo "$number" >/root/steps
if [ "$number" = "$FAIL_AT" ]; then
    echo "${0##*/}: No space left on device" >&2
    exit 1
fi
if [ "${0##*/} $*" = "$HOLD_AT" ]; then
    touch /root/holds
    exec sleep 1000
fi
exec "${0##*/}" "$@"
"""
STAND_INS = "mktemp mkdir ln cp mv rm sync xargs systemd-sysusers systemd-tmpfiles".split()
# Those that make the difference between a first installation and an update.
FIRST_STAND_INS = "mv xargs systemd-sysusers systemd-tmpfiles".split()


@pytest.fixture
def bare(new_appliance: Callable[..., Machine]) -> Machine:
    """A Debian without sdisup, and a checkout in it."""
    own = new_appliance(layers=[])
    assert own.boot() == "running"
    own.push_checkout()
    return own


def install(
    appliance: Machine, words: str = "", code: int = 0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ./install.sh, without a network, and insist on its exit code."""
    command = f"cd {CHECKOUT_INSIDE} && exec unshare --net ./install.sh {words}"
    result = appliance.run(command, check=False, env=env, timeout_s=120)
    assert result.returncode == code, f"install.sh {words}: {result.returncode}\n{result.stdout}{result.stderr}"
    assert "Traceback" not in result.stderr, result.stderr
    return result


def snapshot(appliance: Machine) -> set[str]:
    """What is on disk, once the ledgers of all ports that record have their first frames."""
    for port in [int(path.stem) for path in appliance.path("/run/sdisup").glob("[0-9].json")]:
        if appliance.status_file(port)["is_recording"]:
            appliance.wait_for(partial(is_entered, appliance, port), 20, f"port {port}'s ledger is up to date")
    return set(appliance.run(SNAPSHOT).stdout.splitlines())


def is_entered(appliance: Machine, port: int) -> bool:
    try:
        opened = json.loads(appliance.read(f"/var/lib/sdisup/ledger/{port}.open.json"))
    except FileNotFoundError:
        return False
    return bool(opened["file"] and opened["file"]["start"])


def assert_as_before(appliance: Machine, before: set[str], context: object = "") -> None:
    after = snapshot(appliance)
    assert after == before, f"{context}\nnew: {sorted(after - before)}\ngone: {sorted(before - after)}"


def leftovers(appliance: Machine) -> str:
    """What only a run that is still going on may have on disk."""
    return appliance.run(
        "find /usr /etc /var/lib -name '*.sdisup-before' -o -name '*.new'; ls -d /tmp/sdisup-*", check=False
    ).stdout


def new_version(appliance: Machine, version: str) -> None:
    """Make the checkout inside another version, whose units differ too."""
    appliance.write(f"{CHECKOUT_INSIDE}/sdisup/__init__.py", f'"""Another version."""\n\n__version__ = "{version}"\n')
    template = f"{CHECKOUT_INSIDE}/units/sdi-record@.service.j2"
    appliance.write(template, appliance.read(template) + f"# {version}\n")


def make_stand_ins(appliance: Machine, names: Sequence[str] = STAND_INS) -> dict[str, str]:
    """Put the stand-ins in; returns the environment in which they are found first."""
    for name in names:
        appliance.write(f"/root/stand-ins/{name}", STAND_IN, mode=0o755)
    return {"PATH": f"/root/stand-ins:{CONTAINER_PATH}"}


# ---------------------------------------------------------------- installing


def test_a_first_installation_and_a_second_one_that_changes_nothing(bare: Machine) -> None:
    # Whatever root's umask is, everybody may read what is installed.
    first = bare.run(f"umask 077; cd /; unshare --net {CHECKOUT_INSIDE}/install.sh").stdout
    assert first.startswith("sdisup 0.1.0 on Debian GNU/Linux 13 (trixie)\n")
    assert f"wrote {CONFIGURATION}\nconfiguration: a starter; edit it, then run: sdisup apply\n" in first
    assert "packages: all there\n" in first
    rights = {
        "/usr/lib/sdisup/__main__.py": "644 root:root",
        "/usr/bin/sdisup": "755 root:root",
        CONFIGURATION: "644 root:root",
        f"{CONFIGURATION}.d": "755 root:root",
        "/run/sdisup": "755 sdisup:sdisup",
        "/run/sdisup/requests": "3770 sdisup:sdisup",
        "/var/lib/sdisup": "755 root:root",
        "/var/lib/sdisup/applied.json": "644 root:root",
        "/var/lib/sdisup/ledger": "755 sdisup:sdisup",
        "/var/lib/sdisup/protected": "2775 sdisup:sdisup",
        "/var/lib/sdisup/orders": "3770 root:sdisup",
        RECORDINGS: "2775 sdisup:sdisup",
        f"{UNITS}/sdi-record@.service": "644 root:root",
        "/usr/share/doc/sdisup/README.md": "644 root:root",
    }
    found = bare.run(["stat", "-c", "%n %a %U:%G", *rights]).stdout.splitlines()
    assert found == [f"{path} {right}" for path, right in rights.items()]
    unreadable = bare.run("find -L /usr/lib/sdisup ! -perm -o+r; find -L /usr/lib/sdisup -name '*.pyc' | wc -l")
    assert int(unreadable.stdout) > 20
    assert "sdisup" in bare.run("sdisup --version", user="nobody").stdout
    before = snapshot(bare)
    again = install(bare).stdout
    assert ", unchanged\nnothing to change\n" in again
    assert "wrote" not in again
    assert_as_before(bare, before)
    assert leftovers(bare) == ""
    # Code that was changed in place is put right.
    bare.run("echo 'broken = = 1' >>/usr/lib/sdisup/sdisup/runner/main.py; rm /usr/lib/sdisup/sdisup/cli/main.py")
    assert "unchanged" not in install(bare).stdout
    assert bare.sdisup("--version").stdout == "sdisup 0.1.0\n"


OTHER_SYSTEMS = {
    "Ubuntu 24.04 LTS": "ID=ubuntu\nVERSION_ID=24.04\nPRETTY_NAME='Ubuntu 24.04 LTS'\n",
    "Debian GNU/Linux 11 (bullseye)": "ID=debian\nVERSION_ID=11\nPRETTY_NAME='Debian GNU/Linux 11 (bullseye)'\n",
    "Debian GNU/Linux forky/sid": "ID=debian\nPRETTY_NAME='Debian GNU/Linux forky/sid'\n",
    "an unknown system": "",
}


def test_other_systems_are_refused(bare: Machine) -> None:
    for name, text in OTHER_SYSTEMS.items():
        bare.write("/usr/lib/os-release", text)
        before = snapshot(bare)
        refused = install(bare, code=1)
        assert f"install.sh: not supported: this is {name}. sdisup runs on Debian 12 (bookworm)" in refused.stderr
        assert refused.stderr.endswith(UNCHANGED)
        assert_as_before(bare, before)


def test_a_user_without_its_group_is_refused_with_the_next_step(bare: Machine) -> None:
    bare.run("echo 'sdisup:x:990:65534::/:/usr/sbin/nologin' >>/etc/passwd")
    before = snapshot(bare)
    refused = install(bare, code=1)
    assert "a user sdisup without a group of that name: groupadd --system sdisup, then run ./install" in refused.stderr
    assert_as_before(bare, before)


def test_what_it_is_asked_wrongly(bare: Machine) -> None:
    before = snapshot(bare)
    assert "usage:" in install(bare, "--help").stdout
    for words in ("--nonsense", "--uninstall --nonsense", "--uninstall --stop 3"):
        assert "usage:" in install(bare, words, code=2).stderr
    bare.run("chmod a+rX /root")
    refused = bare.run(f"{CHECKOUT_INSIDE}/install.sh", check=False, user="nobody")
    assert (refused.returncode, "must be run as root" in refused.stderr) == (1, True)
    bare.write("/usr/bin/sdisup", "#!/bin/sh\necho something else\n", mode=0o755)
    assert "is another program, and is not overwritten" in install(bare, code=1).stderr
    assert "is another program; nothing was changed" in install(bare, "--uninstall", code=1).stderr
    bare.run("rm /usr/bin/sdisup")
    assert install(bare, "--uninstall").stdout == "sdisup is not installed\n"
    assert_as_before(bare, before)


# ---------------------------------------------------------------- when something fails


@pytest.mark.parametrize("is_update", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["first", "update"])
def test_a_failure_at_any_step_leaves_everything_as_it_was(bare: Machine, is_update: bool) -> None:
    bare.write(CONFIGURATION, small_ports(2))
    if is_update:
        install(bare)
        new_version(bare, "9.9")
    environment = make_stand_ins(bare, STAND_INS if is_update else FIRST_STAND_INS)
    before = snapshot(bare)
    for step in itertools.count(1):
        bare.run("rm -f /root/steps")
        command = f"cd {CHECKOUT_INSIDE} && ./install.sh"
        result = bare.run(command, check=False, env={**environment, "FAIL_AT": str(step)})
        if result.returncode == 0:
            break
        assert result.returncode == 1
        assert "No space left on device\n" in result.stderr
        assert result.stderr.endswith((AS_BEFORE, UNCHANGED)), result.stderr
        assert_as_before(bare, before, f"step {step}: {result.stderr}")
    assert step > 8
    # All was there; at most the tidying up failed.
    assert ("is left" in result.stderr) is is_update
    if is_update:
        install(bare)
        bare.run("rm -rf /tmp/sdisup-install.*")
    assert leftovers(bare) == ""
    assert bare.sdisup("--version").stdout == f"sdisup {'9.9' if is_update else '0.1.0'}\n"


def test_a_configuration_that_is_invalid_or_cannot_be_applied_changes_nothing(fresh_appliance: Machine) -> None:
    fresh_appliance.configure(small_ports(2))
    fresh_appliance.sdisup("start 0")
    pid = fresh_appliance.wait_recording(0)["ffmpeg_pid"]
    new_version(fresh_appliance, "9.9")
    fresh_appliance.write(f"{CONFIGURATION}.d/50-own.toml", "[port.1]\ncodec = 'h265x'\n[port.9]\n")
    before = snapshot(fresh_appliance)
    refused = install(fresh_appliance, code=1)
    assert f"{CONFIGURATION}.d/50-own.toml: port.1.codec: unknown codec 'h265x'" in refused.stderr
    assert "port.9" in refused.stderr
    assert "the configuration is not valid for sdisup 9.9; mend it, then run ./install.sh again\n" in refused.stderr
    assert refused.stderr.endswith(UNCHANGED)
    assert_as_before(fresh_appliance, before)
    # Valid, but a unit is in the way.
    fresh_appliance.run(f"rm {CONFIGURATION}.d/50-own.toml")
    fresh_appliance.write(CONFIGURATION, small_ports(3))
    fresh_appliance.write(f"{UNITS}/sdi-record@2.service.d/10-sdisup.conf", "[Service]\nNice=5\n")
    before = snapshot(fresh_appliance)
    failed = install(fresh_appliance, code=1)
    assert "10-sdisup.conf was not written by sdisup" in failed.stderr
    assert failed.stderr.endswith(AS_BEFORE)
    assert_as_before(fresh_appliance, before)
    assert fresh_appliance.wait_recording(0, frames=25)["ffmpeg_pid"] == pid
    # No D-Bus: a first installation is gone again too.
    fresh_appliance.run(f"rm {UNITS}/sdi-record@2.service.d/10-sdisup.conf; sdisup stop 0")
    install(fresh_appliance, "--uninstall")
    before = snapshot(fresh_appliance)
    failed = install(fresh_appliance, code=1, env={"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"})
    assert "there is no D-Bus system bus here" in failed.stderr
    assert_as_before(fresh_appliance, before)


def test_a_full_disk_leaves_everything_as_it_was(new_appliance: Callable[..., Machine]) -> None:
    own = new_appliance(disks={"small": 8 << 20})
    own.boot()
    own.configure(small_ports(1))
    own.sdisup("start 0")
    pid = own.wait_recording(0)["ffmpeg_pid"]
    new_version(own, "9.9")
    own.run("""
        mkdir /mnt/small && mount /dev/small /mnt/small && mkdir /mnt/small/upper /mnt/small/work
        mount -t overlay -o lowerdir=/usr,upperdir=/mnt/small/upper,workdir=/mnt/small/work overlay /usr""")
    look = "find /usr -xdev ! -type d -printf '%p %y %m %s %T@ %l\\n' | sort"
    before = own.run(look).stdout
    # None at all; for some of the code; for the code but not for its compiled form.
    for free_kib in (0, 60, 400):
        own.run(f"""
            head -c {free_kib}K /dev/zero >/mnt/small/reserved
            cat /dev/zero >/mnt/small/filler 2>/dev/null
            rm /mnt/small/reserved""")
        failed = install(own, code=1)
        assert "No space left on device" in failed.stderr
        assert failed.stderr.endswith(AS_BEFORE)
        assert own.run(look).stdout == before
        own.run("rm /mnt/small/filler")
    assert own.wait_recording(0, frames=25)["ffmpeg_pid"] == pid
    install(own)
    assert own.sdisup("--version").stdout == "sdisup 9.9\n"


# What sdisup asks FFmpeg about itself is answered; the recording hangs.
SILENT_FFMPEG = '#!/bin/sh\ncase "$*" in *progress*) exec sleep 1000 ;; esac\nexec /usr/bin/ffmpeg "$@"\n'


def test_ctrl_c_leaves_everything_as_it_was(bare: Machine) -> None:
    bare.write("/usr/local/bin/ffmpeg-silent", SILENT_FFMPEG, mode=0o755)
    limits = "record_at_boot = true\nstop_quit_s = 0.2\n"
    text = small_ports(1, limits).replace("[defaults]", 'ffmpeg = "/usr/local/bin/ffmpeg-silent"\n[defaults]')
    bare.write(CONFIGURATION, text)
    environment = make_stand_ins(bare)
    before = snapshot(bare)
    command = f"cd {CHECKOUT_INSIDE} && exec ./install.sh"

    def is_starting() -> bool:
        return bare.active_state(0) == "activating"

    def interrupt(hold_at: str, is_there: Callable[[], bool]) -> str:
        with bare.popen(command, env={**environment, "HOLD_AT": hold_at}) as process:
            bare.wait_for(is_there, 20, f"install.sh comes to {hold_at or 'sdisup apply'}")
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=20)
        assert process.returncode == 1, stderr
        assert "install.sh: interrupted\n" in stderr
        return str(stderr)

    stderr = interrupt("systemd-sysusers sdisup.conf", bare.path("/root/holds").exists)
    assert stderr.endswith(AS_BEFORE), stderr
    assert_as_before(bare, before)
    # In the middle of sdisup apply, with a port started already: only what that wrote down stays.
    stderr = interrupt("", is_starting)
    assert stderr.endswith(("install.sh: everything else is again as it was before\n", AS_BEFORE)), stderr
    left = {line.split()[0].partition(":")[0] for line in snapshot(bare) ^ before}
    users = {"etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "sdisup", "video"}
    assert [name for name in left - users if not name.startswith(("var/lib/sdisup", "srv/recordings"))] == []
    assert leftovers(bare) == ""
    assert bare.active_state(0) == "inactive"


def test_after_kill_9_another_run_completes_it(fresh_appliance: Machine) -> None:
    fresh_appliance.configure(small_ports(1))
    fresh_appliance.sdisup("start 0")
    pid = fresh_appliance.wait_recording(0)["ffmpeg_pid"]
    new_version(fresh_appliance, "9.9")
    environment = {**make_stand_ins(fresh_appliance), "HOLD_AT": "systemd-tmpfiles --create sdisup.conf"}
    with fresh_appliance.popen(f"cd {CHECKOUT_INSIDE} && exec ./install.sh", env=environment) as process:
        fresh_appliance.wait_for(
            fresh_appliance.path("/root/holds").exists, 20, "install.sh has turned to the new code"
        )
        held = install(fresh_appliance, code=1)
        assert "another install.sh is running; wait for it\n" + UNCHANGED in held.stderr
        process.send_signal(signal.SIGKILL)
    assert fresh_appliance.sdisup("--version").stdout == "sdisup 9.9\n"
    assert leftovers(fresh_appliance) != ""
    install(fresh_appliance)
    fresh_appliance.run("rm -rf /tmp/sdisup-install.*")
    assert leftovers(fresh_appliance) == ""
    assert fresh_appliance.status(0)["ffmpeg_pid"] == pid


# ---------------------------------------------------------------- Debian's packages

# Takes a package away, and keeps what it was made of.
TAKE_PACKAGE = r"""
set -e
package=python3-tomli-w
mkdir -p /root/repository/tree/DEBIAN
dpkg -L $package | while read -r file; do [ ! -f "$file" ] || cp --parents "$file" /root/repository/tree; done
dpkg-query -W -f='Package: ${Package}\nVersion: ${Version}\nArchitecture: all\nMaintainer: nobody\nDescription: x\n' \
    $package >/root/repository/tree/DEBIAN/control
dpkg --purge $package
rm -f /etc/apt/sources.list.d/*
"""
# Offers it again, in a repository on the machine itself; $after runs when it was unpacked.
OFFER_PACKAGE = r"""
set -e
cd /root/repository
printf '#!/bin/sh\n%s\n' "$after" >tree/DEBIAN/postinst
chmod 755 tree/DEBIAN/postinst
dpkg-deb -b tree package.deb >/dev/null
{ cat tree/DEBIAN/control; echo "Filename: ./package.deb"; stat -c 'Size: %s' package.deb
  echo "SHA256: $(sha256sum package.deb | cut -d ' ' -f 1)"; } >Packages
chmod a+rX /root
echo 'deb [trusted=yes] file:/root/repository ./' >/etc/apt/sources.list
"""


def test_missing_packages_are_installed_or_everything_is_as_before(bare: Machine) -> None:
    bare.run(TAKE_PACKAGE)
    bare.write("/etc/apt/sources.list", "deb [trusted=yes] file:/nonexistent ./\n")
    before = snapshot(bare)
    failed = install(bare, code=1)
    assert "apt-get update failed; is there a network?" in failed.stderr
    assert "install.sh: apt-get cannot install python3-tomli-w" in failed.stderr
    assert failed.stderr.endswith(AS_BEFORE)
    assert_as_before(bare, before)

    bare.run(OFFER_PACKAGE, env={"after": "exit 1"})
    before = snapshot(bare)
    failed = install(bare, code=1)
    assert "error processing package python3-tomli-w" in failed.stderr
    assert "install.sh: apt-get could not install python3-tomli-w" in failed.stderr
    assert failed.stderr.endswith(AS_BEFORE)
    assert_as_before(bare, before)

    bare.run(OFFER_PACKAGE, env={"after": "true"})
    bare.run("dpkg --purge ffmpeg; rm -f /var/cache/apt/archives/*.deb")
    # Another FFmpeg records, as only a file beside the main one says: Debian's is not installed.
    text = '[appliance] # ffmpeg = "/usr/bin/ffmpeg"\n"ffmpeg" = \'/opt/own/ffmpeg\'\n'
    bare.write(f"{CONFIGURATION}.d/60-own.toml", text)
    said = install(bare)
    assert "packages: installing python3-tomli-w\n" in said.stdout
    assert bare.run("dpkg-query -W -f='${db:Status-Status}' python3-tomli-w").stdout == "installed"
    assert "no packages found" in bare.run("dpkg-query -W ffmpeg", check=False).stderr
    assert "warning: /opt/own/ffmpeg: cannot be executed" in said.stderr


# ---------------------------------------------------------------- updating


def test_an_update_does_not_disturb_recordings(fresh_appliance: Machine) -> None:
    fresh_appliance.configure(small_ports(2))
    fresh_appliance.sdisup("start 0,1")
    before = [fresh_appliance.wait_recording(port) for port in (0, 1)]
    writer = fresh_appliance.run("systemctl show -P MainPID sdi-ledger").stdout
    # There is code at every moment: a shell that does nothing but look.
    look = "echo ready; while [ -e /usr/lib/sdisup/sdisup/runner/main.py ]; do :; done; echo gone"
    with fresh_appliance.popen(look) as looking:
        assert looking.stdout is not None
        assert looking.stdout.readline() == "ready\n"
        for version in ("9.1", "9.2"):
            new_version(fresh_appliance, version)
            said = install(fresh_appliance)
            assert "port 0 records on with its former unit" in said.stderr
            assert fresh_appliance.sdisup("--version").stdout == f"sdisup {version}\n"
        assert looking.poll() is None
        looking.kill()
    for port, found in enumerate(before):
        now = fresh_appliance.wait_recording(port, frames=found["frame_count"] + 25)
        assert (now["ffmpeg_pid"], now["restarts"]) == (found["ffmpeg_pid"], 0)
        assert now["runner_version"] == "0.1.0"
    # The version before stays for the commands that still run from it; those before it are gone.
    names = sorted(path.name for path in fresh_appliance.path("/usr/lib").glob("sdisup*"))
    assert [name.rpartition(".")[0] for name in names] == ["", "sdisup-9.1", "sdisup-9.2"]
    assert os.readlink(fresh_appliance.path("/usr/lib/sdisup")) == names[2]
    # The ledger's process is the new version's, and has lost nothing.
    assert fresh_appliance.run("systemctl show -P MainPID sdi-ledger").stdout not in (writer, "0\n")
    # A crash takes the new version.
    fresh_appliance.run(["kill", "-9", str(before[1]["ffmpeg_pid"])])
    fresh_appliance.wait_for(lambda: fresh_appliance.status(1)["restarts"] == 1, 10, "port 1 restarts", poll_s=0.05)
    assert fresh_appliance.wait_recording(1)["runner_version"] == "9.2"
    fresh_appliance.sdisup("stop 1")
    entries = fresh_appliance.ledger(1)
    assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1))
    files = [entry["path"] for entry in entries if entry["kind"] == "file"]
    assert files == fresh_appliance.recordings("port1")


# ---------------------------------------------------------------- uninstalling


def test_uninstall_leaves_what_was_recorded(fresh_appliance: Machine) -> None:
    fresh_appliance.configure(small_ports(3, "[port.2]\nrecord_at_boot = true\n"))
    fresh_appliance.write(f"{UNITS}/sdi-record@1.service.d/override.conf", "[Service]\nNice=5\n")
    fresh_appliance.write("/var/lib/sdisup/ledger/0.jsonl", "{}\n")
    fresh_appliance.run("chown sdisup:sdisup /var/lib/sdisup/ledger/0.jsonl")
    fresh_appliance.sdisup("start 0")
    found = [fresh_appliance.wait_recording(port, frames=25) for port in (0, 2)]
    before = snapshot(fresh_appliance)
    refused = install(fresh_appliance, "--uninstall", code=1)
    assert "sdi-record@0.service\nsdi-record@2.service\n" in refused.stderr
    assert "install.sh --uninstall --stop; nothing was changed" in refused.stderr
    assert_as_before(fresh_appliance, before)
    assert fresh_appliance.wait_recording(0)["ffmpeg_pid"] == found[0]["ffmpeg_pid"]

    said = install(fresh_appliance, "--uninstall --stop").stdout
    for line in ("ledger         /var/lib/sdisup/ledger", "configuration  /etc/sdisup", f"recordings     {RECORDINGS}"):
        assert line in said
    assert f"left {UNITS}/sdi-record@1.service.d/override.conf, which sdisup did not write" in said
    assert all(fresh_appliance.count_frames(port["current_file"]) >= 25 for port in found)
    assert fresh_appliance.read("/var/lib/sdisup/ledger/0.jsonl").startswith("{}\n")
    left = fresh_appliance.run(f"find / -xdev -path {CHECKOUT_INSIDE} -prune -o -name '*sd[i]*up*' -print -o "
                               "-name 'sdi-record*' -print").stdout  # fmt: skip
    assert sorted(left.split()) == sorted([
        "/etc/sdisup", CONFIGURATION, f"{CONFIGURATION}.d", "/var/lib/sdisup", f"{UNITS}/sdi-record@1.service.d",
    ])  # fmt: skip
    assert "sdisup" in fresh_appliance.run("getent passwd sdisup").stdout
    assert fresh_appliance.run("systemctl list-units --all --plain --no-legend 'sdi-*.target'").stdout == ""
    assert fresh_appliance.reboot() == "running"
    assert install(fresh_appliance, "--uninstall").stdout == "sdisup is not installed\n"
    # And back: the configuration is there still.
    install(fresh_appliance)
    fresh_appliance.wait_recording(2)
    assert fresh_appliance.active_state(0) == "inactive"


@pytest.mark.journal_allows(r"the card is on fire|Failed to start sdi-record@0")
def test_uninstall_minds_ports_that_only_try_to_record(fresh_appliance: Machine) -> None:
    crashing = '#!/bin/sh\ncase "$*" in *progress*) exit 3 ;; esac\nexec /usr/bin/ffmpeg "$@"\n'
    fresh_appliance.write("/usr/local/bin/ffmpeg-crash", crashing, mode=0o755)
    extra = "[port.0]\nrecord_at_boot = true\n"
    text = small_ports(1, extra).replace("[defaults]", 'ffmpeg = "/usr/local/bin/ffmpeg-crash"\n[defaults]')
    fresh_appliance.configure(text)
    fresh_appliance.sdisup("start 0 --wait 0.5", code=1)
    assert "sdi-record@0.service" in install(fresh_appliance, "--uninstall", code=1).stderr
    install(fresh_appliance, "--uninstall --stop")
    assert fresh_appliance.run("systemctl list-units --all --plain --no-legend 'sdi-record*'").stdout == ""
    # And back: what was stopped stays so until somebody starts it, or the next boot.
    assert "stopped before: stays so until the next boot, or: sdisup start 0\n" in install(fresh_appliance).stdout
    assert (fresh_appliance.active_state(0), fresh_appliance.status(0)["state"]) == ("inactive", "stopped")
    assert fresh_appliance.sdisup("apply").stdout == "nothing to change\n"
    assert fresh_appliance.run("systemctl is-enabled sdi-record@0").stdout == "enabled\n"


# ---------------------------------------------------------------- pip


def test_pip_installs_the_command_and_the_interface(appliance: Machine) -> None:
    """In an environment that sees Debian's gi. pip and setuptools come from the tests' own: no network."""
    for name in ("pip", "setuptools"):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            appliance.push(Path(str(distribution.locate_file(top))), f"/root/tools/{top}")
    appliance.run("rm -rf /root/pip && python3 -m venv --without-pip --system-site-packages /root/pip")
    options = "--no-index --no-build-isolation --no-cache-dir --disable-pip-version-check"
    command = f"cd {CHECKOUT_INSIDE} && unshare --net /root/pip/bin/python -m pip install {options} ."
    appliance.run(command, env={"PYTHONPATH": "/root/tools"})
    assert appliance.run("/root/pip/bin/sdisup --version").stdout == "sdisup 0.1.0\n"
    appliance.configure(small_ports(2))
    # The templates are in it: it finds nothing that differs from what the installed one applied.
    dry = appliance.run("/root/pip/bin/sdisup apply --dry-run")
    assert (dry.stdout, dry.stderr.splitlines()[-1]) == ("", "nothing to change")
    where = "import sdisup; print(sdisup.__file__, sdisup.Settings.load().deltacast_port_count)"
    found = appliance.run(["/root/pip/bin/python", "-I", "-c", where]).stdout.split()
    assert (found[0].startswith("/root/pip/lib/"), found[1]) == (True, "2")


def test_the_wheel_holds_all_and_only_what_is_needed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for file in project_files():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / file, source / file)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "sdisup").rglob("*.py")} | {"sdisup/py.typed"}
    expected |= {f"sdisup/units/{path.name}" for path in (CHECKOUT / "units").iterdir()}
    assert names == expected
