"""Faults that an appliance meets in months without an operator: after each fault the port records again by itself,
what was on disk is playable, and the port's reason names the fault."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from drive import MIB, RECORDINGS, Machine, small_ports
from hanging import hanging

RATE = 25
EVERY_CONTAINER = """\
[appliance]
ports = 5
[defaults]
source = { kind = "test", size = "320x180", rate = 25 }
record_at_boot = true
[port.0]
container = "mp4"
[port.1]
container = "mov"
[port.2]
container = "mkv"
[port.3]
codec = "prores"
[port.4]
codec = "prores"
container = "mkv"
"""


@pytest.fixture
def disk_appliance(new_appliance: Callable[..., Machine]) -> Iterator[Machine]:
    own = new_appliance(disks={"disk": 256 * MIB, "other": 64 * MIB})
    assert own.boot() == "running"
    own.mount_disk()
    yield own


def lost_seconds(appliance: Machine, before: dict[int, dict[str, Any]], cut: float) -> dict[str, float]:
    """The seconds that each port had received at the cut and that are not readable, by file.

    A status is up to a second old: the time from its last frame until `cut`, by the wall clock, counts as received.
    """
    lost_s = {}
    for found in before.values():
        path, last_frame = found["current_file"], datetime.fromisoformat(found["last_frame_at"]).timestamp()
        received_s = found["frame_count"] / RATE + cut - last_frame
        lost_s[path] = round(received_s - appliance.count_frames(path) / RATE, 2)
    print("lost, s:", lost_s)
    # More seconds kept than received would mean that this measures something else.
    assert min(lost_s.values()) > -0.2, lost_s
    return lost_s


# ---------------------------------------------------------------- kills


def test_everything_killed_at_once_costs_at_most_a_second_in_every_container(appliance: Machine) -> None:
    appliance.configure(EVERY_CONTAINER)
    for port in range(5):
        appliance.wait_recording(port, frames=50)
    before = {port: appliance.status_file(port) for port in range(5)}
    cut = float(appliance.run("date +%s.%N; systemctl kill --signal=KILL 'sdi-record@*'").stdout)
    for port in range(5):
        appliance.wait_restarts(port, 1)
        appliance.wait_recording(port)
    lost_s = lost_seconds(appliance, before, cut)
    assert max(lost_s.values()) <= 1.0, lost_s
    assert len(appliance.ffmpegs()) == 5


def test_kill_9_of_an_ffmpeg_does_not_cost_its_neighbour_a_frame(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0,1")
    appliance.wait_recording(1, frames=25)
    for _ in range(2):
        found = appliance.wait_recording(0, frames=10)
        appliance.kill(found["ffmpeg_pid"])
        appliance.wait_restarts(0, found["restarts"] + 1)
    appliance.wait_recording(0, frames=10)
    beside = appliance.status(1)
    assert (beside["dropped_frames"], beside["duplicated_frames"], beside["missing_frames"]) == (0, 0, 0)
    assert beside["restarts"] == 0
    appliance.sdisup("stop 1")
    path = appliance.recordings("port1")[0]
    times = appliance.run(
        f"ffprobe -v error -select_streams v:0 -show_entries packet=pts_time -of csv=p=0 {path}"
    ).stdout.split()
    stamps = sorted(float(text.strip(",")) for text in times)
    assert max(later - earlier for earlier, later in pairwise(stamps[1:])) < 1.5 / RATE


# ---------------------------------------------------------------- power


@pytest.mark.journal_allows(
    r"Input/output error|Error|Read-only|muxing|ending segment|I/O|Task finished|Terminating|Failed|disk error"
)
def test_a_power_cut_that_loses_the_page_cache_costs_at_most_two_seconds(disk_appliance: Machine) -> None:
    own = disk_appliance
    own.configure(EVERY_CONTAINER)
    for port in range(5):
        own.wait_recording(port, frames=100, timeout_s=40)
    before = {port: own.status_file(port) for port in range(5)}
    # At the cut the page cache is lost first, and the processes die a moment later.
    cut = time.time()
    own.power_cut(lose_cache=[RECORDINGS])
    own.boot()
    for port in range(5):
        own.wait_recording(port)
    lost_s = lost_seconds(own, before, cut)
    assert max(lost_s.values()) <= 2.0, lost_s


# ---------------------------------------------------------------- disks


@pytest.mark.journal_allows(
    r"No space left on device|[Dd]isk full|Error|Conversion failed|Task finished|muxing|ending segment|Terminating"
)
def test_a_full_disk_is_said_and_recording_resumes_when_there_is_room(disk_appliance: Machine) -> None:
    own = disk_appliance
    own.configure(small_ports(2, "[port.1]\nrecordings = '/srv/elsewhere'\n"), apply=False)
    own.run("install -d -o sdisup -g sdisup -m 2775 /srv/elsewhere")
    own.sdisup("apply")
    own.sdisup("start 0,1")
    own.wait_recording(1, frames=25)
    own.run(f"fallocate -l $(( $(stat -f -c '%a*%S' {RECORDINGS}) )) {RECORDINGS}/ballast", check=False)
    full = own.wait_for(
        lambda: found if "disk full" in (found := own.status(0))["reason"] else None,
        30,
        "the port says disk full",
        poll_s=0.1,
    )
    assert full["is_recording"] is False
    first = own.recordings("port0")[0]
    assert own.count_frames(first) > 0
    own.run(f"rm {RECORDINGS}/ballast")
    own.wait_recording(0, timeout_s=15)
    beside = own.status(1)
    assert (beside["restarts"], beside["missing_frames"], beside["dropped_frames"]) == (0, 0, 0)
    own.sdisup("stop --all")
    # Every file that is left holds frames.
    assert all(own.count_frames(path) > 0 for path in own.recordings("port0"))


@pytest.mark.slow
@pytest.mark.journal_allows(
    r"No space left|[Dd]isk full|Error|Task finished|muxing|ending segment|Terminating|incomplete"
)
def test_a_disk_that_is_full_only_at_the_trailer_is_said_of_the_file(disk_appliance: Machine) -> None:
    own = disk_appliance
    own.configure(small_ports(2, '[port.1]\ncontainer = "mkv"\n'))
    own.sdisup("start 0,1")
    found = {port: own.wait_recording(port, frames=75) for port in (0, 1)}
    # FFmpeg writes nothing while it is frozen; then there is no room for the packets that it holds and for the trailer.
    for port in (0, 1):
        own.kill(found[port]["ffmpeg_pid"], "STOP")
    own.run(f"fallocate -l $(( $(stat -f -c '%a*%S' {RECORDINGS}) )) {RECORDINGS}/ballast", check=False)
    own.run("systemctl stop --no-block sdi-record@0 sdi-record@1")
    own.wait_for(
        lambda: [own.status_file(port)["state"] for port in (0, 1)] == ["stopping"] * 2, 5, "they are stopping"
    )
    for port in (0, 1):
        own.kill(found[port]["ffmpeg_pid"], "CONT")
    for port in (0, 1):
        own.wait_state(port, "stopped")
        file = next(line for line in reversed(own.ledger(port)) if line["kind"] == "file")
        assert file["path"] == found[port]["current_file"]
        assert file["ended"] != "complete"
        readable = own.count_frames(file["path"])
        assert file["frames"] == readable >= found[port]["frame_count"] - RATE


@pytest.mark.journal_allows(
    r"Read-only|read-only|[Dd]isk error|Error|Conversion failed|Task finished|muxing|ending segment|Terminating"
)
def test_a_disk_that_becomes_read_only_is_said_and_heals(disk_appliance: Machine) -> None:
    own = disk_appliance
    own.configure(small_ports(1))
    own.sdisup("start 0")
    own.wait_recording(0, frames=25)
    # As the kernel remounts an ext4 with errors: writes fail, also to open files.
    own.run(f"mount -o remount,ro -f {RECORDINGS} 2>/dev/null; echo u > /proc/sysrq-trigger", check=False)
    own.sdisup("stop 0")
    own.run(f"mount -o remount,ro {RECORDINGS}")
    result = own.sdisup("start 0 --wait 2", code=1)
    assert "read-only" in result.stderr
    own.run(f"mount -o remount,rw {RECORDINGS}")
    own.wait_recording(0, timeout_s=20)


def test_an_unmounted_disk_is_not_replaced_by_its_mount_point(disk_appliance: Machine) -> None:
    own = disk_appliance
    # The mount point is writable; that must not make it the right place, but until a disk is seen there.
    own.run(f"umount {RECORDINGS} && chown sdisup:sdisup {RECORDINGS}")
    own.configure(small_ports(1), apply=False)
    assert f"warning: {RECORDINGS} is on the system's own disk" in own.sdisup("apply").stderr
    own.run(f"mount /dev/disk {RECORDINGS}")
    own.sdisup("start 0")
    own.sdisup("stop 0")
    own.run(f"umount {RECORDINGS}")
    result = own.sdisup("start 0 --wait 2", code=1)
    assert "is on overlay with /, not on ext4:fsid-" in result.stderr
    assert own.recordings() == []
    # An apply while the disk is not mounted does not make the mount point the right place.
    assert "is not recorded to: mount the disk" in own.sdisup("apply").stderr
    assert own.status(0)["is_recording"] is False
    own.run(f"mount /dev/disk {RECORDINGS}")
    own.wait_recording(0, timeout_s=20)
    assert "own disk" not in own.sdisup("apply").stderr
    assert len(own.recordings()) == 2
    own.sdisup("stop 0")
    # `apply --accept-disks` makes another disk the right one.
    own.run(f"umount {RECORDINGS}")
    assert "not recorded to" in own.sdisup("apply --dry-run").stderr
    assert "not recorded to" not in own.sdisup("apply --dry-run --accept-disks").stderr
    own.sdisup("apply --accept-disks")
    own.sdisup("start 0")


@pytest.mark.journal_allows(r"does not answer|SIGKILL|not closed the file")
@pytest.mark.slow
@pytest.mark.journal_allows(r"is on overlay with /")
def test_a_disk_that_was_seen_after_the_first_apply_is_remembered_through_a_reboot(disk_appliance: Machine) -> None:
    own = disk_appliance
    own.run(f"systemctl disable --now mount-disk; umount {RECORDINGS}; chown sdisup:sdisup {RECORDINGS}", check=False)
    own.configure(small_ports(1))
    own.run(f"mount /dev/disk {RECORDINGS}")
    own.sdisup("start 0")
    own.sdisup("stop 0")
    own.wait_for(lambda: own.path("/var/lib/sdisup/ledger/disks/0").exists(), 70, "the disk is remembered")
    own.reboot()
    assert "not on ext4:fsid-" in own.sdisup("start 0 --wait 2", code=1).stderr
    assert own.recordings() == []
    own.run(f"mount /dev/disk {RECORDINGS}")
    own.wait_recording(0, timeout_s=20)


@pytest.mark.slow
@pytest.mark.journal_allows(r"sdi-record@1|port 1|SIGKILL")
def test_a_dead_disk_is_said_in_time_and_the_other_ports_are_configured(fresh_appliance: Machine) -> None:
    own = fresh_appliance
    own.run("mkdir /srv/dead")
    own.configure(small_ports(3, "record_at_boot = true\n[port.1]\nrecordings = '/srv/dead/rec'\n"), apply=False)
    with hanging("/srv/dead", of=own.pid1):
        for command, code in (("check", 1), ("apply --dry-run", 0), ("apply", 0)):
            began = time.monotonic()
            with own.popen(["sdisup", *command.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
                assert process.stdout is not None
                lines = iter(process.stdout.readline, "")
                said = [next(line for line in lines if "/srv/dead/rec: does not answer" in line)]
                assert time.monotonic() - began < 5, said
                said += lines
            assert process.returncode == code, said
        for port in (0, 2):
            own.wait_recording(port, frames=25)
        assert own.status(1)["is_recording"] is False
    # A directory that is there again: the port records by itself.
    own.run("install -d -o sdisup -g sdisup /srv/dead/rec")
    own.wait_recording(1, timeout_s=30)


@pytest.mark.journal_allows(r"does not answer|SIGKILL|not closed the file")
def test_a_frozen_disk_does_not_disturb_another_disks_port(disk_appliance: Machine) -> None:
    own = disk_appliance
    own.mount_disk("/srv/other", "other")
    limits = "stall_timeout_s = 2\nstop_quit_s = 0.5\nstop_term_s = 0.5\n"
    own.configure(small_ports(3, f"{limits}[port.1]\nrecordings = '/srv/other'\n"))
    own.sdisup("start 0,1")
    own.wait_recording(0, frames=50)
    own.wait_recording(1, frames=50)
    own.run(f"fsfreeze --freeze {RECORDINGS}")
    try:
        frozen = own.wait_state(0, "stalled", timeout_s=10)
        assert frozen["is_recording"] is False
        # The runner answers, and a port that is started on this disk now says what it waits for.
        own.run("systemctl start --no-block sdi-record@2")
        waiting = own.wait_for(
            lambda: found if "does not answer" in (found := own.status(2))["reason"] else None,
            15,
            "port 2 says so",
            poll_s=0.2,
        )
        assert waiting["state"] == "starting"
        beside = own.wait_recording(1, frames=own.status_file(1)["frame_count"] + 50)
        assert (beside["restarts"], beside["missing_frames"], beside["dropped_frames"]) == (0, 0, 0)
    finally:
        own.run(f"fsfreeze --unfreeze {RECORDINGS}")
    own.wait_recording(0, frames=25, timeout_s=30)
    own.wait_recording(2, frames=25, timeout_s=30)


def test_a_file_that_is_deleted_or_moved_while_it_is_recorded(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    first = appliance.wait_recording(0, frames=25)
    appliance.run(["mv", first["current_file"], f"{RECORDINGS}/kept.mp4"])
    moved = appliance.wait_for(
        lambda: found if "was moved away" in (found := appliance.status(0))["reason"] else None,
        10,
        "it says so",
        poll_s=0.1,
    )
    assert (moved["state"], moved["ffmpeg_pid"]) == ("recording", first["ffmpeg_pid"])
    appliance.sdisup("restart 0")
    assert appliance.count_frames(f"{RECORDINGS}/kept.mp4") > 25
    second = appliance.wait_recording(0, frames=10)
    appliance.run(["rm", second["current_file"]])
    appliance.wait_for(lambda: appliance.status(0)["restarts"] == 1, 15, "a new file is begun", poll_s=0.1)
    third = appliance.wait_recording(0, frames=10)
    assert third["current_file"] != second["current_file"]
    # The deleted file's time is a gap, and no recording.
    entered = appliance.ledger(0)
    assert second["current_file"] not in [line.get("path") for line in entered]
    (lost,) = [line for line in entered if str(line.get("cause")).startswith("file deleted")]
    assert lost["seconds"] > second["frame_count"] / RATE - 0.5


OTHER = "/srv/other"


@pytest.mark.slow
def test_a_directory_that_is_renamed_is_followed_by_a_file_where_its_path_leads(appliance: Machine) -> None:
    # A directory of the appliance's read-only layer cannot be renamed: mv would copy it and remove the file.
    make = "install -d -o sdisup -g sdisup -m 2775 /srv/own"
    appliance.run(make)
    appliance.configure(small_ports(1).replace("ports = 1", 'ports = 1\nrecordings = "/srv/own"'))
    appliance.sdisup("start 0")
    first = appliance.wait_recording(0, frames=25)["current_file"]
    appliance.run(f"mv /srv/own {OTHER} && {make}")
    _expect_another_file(appliance, first, f"{OTHER}/{first.rpartition('/')[2]}")
    appliance.run(f"systemctl stop sdi-record@0; rm -rf {OTHER} /srv/own")


@pytest.mark.slow
def test_a_directory_that_is_mounted_over_is_followed_by_a_file_in_what_hides_it(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    first = appliance.wait_recording(0, frames=25)["current_file"]
    appliance.run(f"install -d -o sdisup -g sdisup -m 2775 {OTHER} && mount --bind {OTHER} {RECORDINGS}")
    try:
        second = _expect_another_file(appliance, first, "")
        assert appliance.path(f"{OTHER}/{second.rpartition('/')[2]}").exists()
    finally:
        appliance.run(f"systemctl stop sdi-record@0; umount {RECORDINGS}; rm -rf {OTHER}")
    (entry,) = [line for line in appliance.ledger(0) if line.get("path") == first]
    assert (entry["frames"], entry["bytes"]) == (appliance.count_frames(first), appliance.path(first).stat().st_size)


def _expect_another_file(appliance: Machine, first: str, moved_to: str) -> str:
    """A new file begins within sync_interval_s + 5 s, and the ledger has all of the first one; returns the new one."""
    began = appliance.status_file(0)["updated_monotonic"]
    appliance.wait_for(lambda: appliance.status(0)["restarts"] == 1, 20, "a new file begins", poll_s=0.1)
    found = appliance.wait_recording(0, frames=10)
    assert found["current_file"] != first and appliance.path(found["current_file"]).exists()
    assert found["updated_monotonic"] - began < 1.0 + 5.0
    appliance.run("systemctl stop sdi-record@0")
    entered = appliance.ledger(0)
    (entry,) = [line for line in entered if line.get("path") == first]
    assert entry["ended"] == "complete" and entry["frames"] >= 25
    if moved_to:
        assert entry["frames"] == appliance.count_frames(moved_to)
        assert entry["bytes"] == appliance.path(moved_to).stat().st_size
    (gap,) = [line for line in entered if str(line.get("cause")).startswith("directory moved")]
    assert gap["seconds"] < 2
    return str(found["current_file"])


@pytest.mark.slow
@pytest.mark.journal_allows(r"killed|Failed")
def test_what_is_hidden_by_a_disk_that_takes_no_files_goes_on_and_is_entered(appliance: Machine) -> None:
    """No file can be made on that disk, so the recording goes on below it, until runner and FFmpeg are killed."""
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    first = appliance.wait_recording(0, frames=25)["current_file"]
    appliance.run(f"mount -t tmpfs -o mode=755,uid=0 none {RECORDINGS}")
    try:
        said = appliance.wait_for(
            lambda: found if "was moved away" in (found := appliance.status(0))["reason"] else None, 10, "it says so"
        )
        before = appliance.wait_recording(0, frames=said["frame_count"] + 100)
        assert (before["current_file"], before["restarts"]) == (first, 0)
        appliance.run("systemctl kill --kill-whom=all --signal=KILL sdi-record@0")
        appliance.wait_for(lambda: "writable" in appliance.status(0)["reason"], 20, "it says why it waits", poll_s=0.1)
    finally:
        appliance.run(f"umount --lazy {RECORDINGS}")
    appliance.wait_recording(0, frames=10)
    # The ledger's process looks once a minute for a file that is not there; a new one looks at once.
    appliance.run("systemctl stop sdi-record@0; systemctl restart sdi-ledger")
    (entry,) = [line for line in appliance.ledger(0) if line.get("path") == first]
    assert entry["frames"] == appliance.count_frames(first) > before["frame_count"] - RATE
    assert entry["bytes"] == appliance.path(first).stat().st_size


@pytest.mark.journal_allows(r"the status cannot be written|No such file")
def test_a_status_directory_that_vanishes_does_not_stop_the_recording(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    found = appliance.wait_recording(0, frames=25)
    path, size = appliance.path(found["current_file"]), 0
    appliance.run("find /run/sdisup -mindepth 1 -delete", check=False)
    appliance.run("mv /run/sdisup /run/sdisup.gone", check=False)
    size = path.stat().st_size
    appliance.wait_for(lambda: path.stat().st_size > size + 50_000, 10, "the file grows on")
    assert appliance.run(f"kill -0 {found['ffmpeg_pid']}", check=False).returncode == 0
    appliance.run("systemctl stop sdi-record@0; rm -rf /run/sdisup; systemd-tmpfiles --create")
    assert appliance.count_frames(found["current_file"]) > 25
    appliance.sdisup("start 0")


# ---------------------------------------------------------------- misbehaviour that the real FFmpeg cannot be asked for


def replace_ffmpeg(appliance: Machine, port: int, script: str) -> None:
    """Let a port run a script in FFmpeg's place; "$@" are FFmpeg's arguments."""
    appliance.write("/usr/local/bin/misbehaves", script, mode=0o755)
    unit = f"/etc/systemd/system/sdi-record@{port}.service.d"
    text = appliance.read(f"{unit}/10-sdisup.conf").replace("    /usr/bin/ffmpeg ", "    /usr/local/bin/misbehaves ")
    appliance.write(f"{unit}/20-test.conf", text)
    appliance.run("systemctl daemon-reload")


# Ten megabytes without a newline, bytes of any value, and a flood of errors.
NOISE = """#!/bin/sh
(
    head -c 10000000 /dev/zero | tr '\\0' x >&2
    head -c 3000000 /dev/urandom >&2
    yes '[error] the same again' | head -n 200000 >&2
) &
exec /usr/bin/ffmpeg "$@"
"""


@pytest.mark.journal_allows(r"xxx|ffmpeg: |the same again")
def test_output_of_any_bytes_at_any_rate(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    replace_ffmpeg(appliance, 0, NOISE)
    cursor = appliance.journal_cursor()
    appliance.sdisup("start 0")
    found = appliance.wait_recording(0, frames=50)
    assert found["restarts"] == 0
    rss_kb = int(appliance.run(f"awk '/VmHWM/ {{print $2}}' /proc/{found['pid']}/status").stdout)
    assert rss_kb < 40_000
    appliance.sdisup("stop 0")
    assert len(appliance.journal(after_cursor=cursor)) < 400
    assert appliance.count_frames(appliance.recordings()[0]) >= 50


@pytest.mark.journal_allows(r"could have no name|not writable by")
def test_a_directory_that_is_closed_before_the_first_frame_is_named_and_costs_what_it_was_closed(
    appliance: Machine,
) -> None:
    """The file gets its name with its first frame: what FFmpeg writes into one that can have none is lost."""
    appliance.configure(small_ports(1))
    # The first time only.
    close = f"[ -e /run/sdisup/once ] || chmod a-w {RECORDINGS}"
    replace_ffmpeg(appliance, 0, f'#!/bin/bash\n{close}\ntouch /run/sdisup/once\nexec ffmpeg "$@"\n')
    try:
        appliance.run("systemctl start --no-block sdi-record@0")
        appliance.wait_for(lambda: "not writable by" in appliance.status(0)["reason"], 20, "it is named", poll_s=0.1)
    finally:
        appliance.run(f"chmod u+w,g+w {RECORDINGS}")
    found = appliance.wait_recording(0, frames=25)
    assert appliance.recordings() == [found["current_file"]]
    appliance.sdisup("stop 0")
    (file,) = [line for line in appliance.ledger(0) if line["kind"] == "file"]
    assert (file["path"], file["ended"]) == (found["current_file"], "complete")
    causes = [line["cause"] for line in appliance.ledger(0) if line["kind"] == "gap"]
    assert any("could have no name: Permission denied" in cause for cause in causes)
    appliance.run("rm /run/sdisup/once")


@pytest.mark.slow
@pytest.mark.journal_allows(r"File too large|Error muxing")
def test_a_file_at_its_limit_is_followed_by_another(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.write("/etc/systemd/system/sdi-record@0.service.d/20-test.conf", "[Service]\nLimitFSIZE=400K\n")
    appliance.run("systemctl daemon-reload")
    appliance.run("systemctl start sdi-record@0")
    first = appliance.wait_recording(0)["current_file"]
    appliance.wait_for(lambda: appliance.status(0)["restarts"] == 1, 30, "a new file begins", poll_s=0.1)
    assert appliance.wait_recording(0)["current_file"] != first
    appliance.run("systemctl stop sdi-record@0")
    entered = appliance.ledger(0)
    (file,) = [line for line in entered if line.get("path") == first]
    assert file["frames"] == appliance.count_frames(first) > RATE
    (gap,) = [line for line in entered if line["kind"] == "gap" and line["cause"] == "too large"]
    assert gap["seconds"] < 2


# A package that replaces FFmpeg leaves one for a while that lacks an encoder, or a library.
REPLACED_FFMPEG = """#!/bin/bash
[[ " $* " == *" -progress "* ]] || exec /usr/bin/ffmpeg "$@"
exec /usr/bin/ffmpeg "${@/libx264/nonsense}"
"""


@pytest.mark.journal_allows(r"Unknown encoder|cannot work|Error|killed")
def test_an_ffmpeg_that_is_being_replaced_ends_no_port_that_has_recorded(appliance: Machine) -> None:
    own = "/usr/local/bin/own-ffmpeg"
    appliance.write(own, '#!/bin/bash\nexec /usr/bin/ffmpeg "$@"\n', mode=0o755)
    appliance.configure(small_ports(1).replace("ports = 1", f'ports = 1\nffmpeg = "{own}"'))
    appliance.sdisup("start 0")
    first = appliance.wait_recording(0, frames=25)
    appliance.write(own, REPLACED_FFMPEG, mode=0o755)
    appliance.kill(first["ffmpeg_pid"])
    refused = appliance.wait_state(0, "backoff")
    appliance.wait_for(lambda: "Unknown encoder" in appliance.status_file(0)["reason"], 10, "it is refused", poll_s=0.1)
    # A restart by hand is as good as one by systemd: what has recorded since boot is known.
    appliance.run("systemctl restart sdi-record@0")
    appliance.wait_for(lambda: appliance.status_file(0)["pid"] != refused["pid"], 10, "a new runner", poll_s=0.1)
    appliance.wait_state(0, "backoff")
    appliance.write(own, '#!/bin/bash\nexec /usr/bin/ffmpeg "$@"\n', mode=0o755)
    mended_at = time.monotonic()
    appliance.wait_recording(0)
    assert time.monotonic() - mended_at < 15
    appliance.run(f"rm {own}")


@pytest.mark.slow
def test_an_stderr_that_closes_is_a_stall_in_the_end(appliance: Machine) -> None:
    appliance.configure(small_ports(1, "stall_timeout_s = 2\n"))
    # After 2 s nobody reads FFmpeg's stderr: no progress arrives, though the file grows.
    script = '#!/bin/bash\nexec 3>&2\n/usr/bin/ffmpeg "$@" 2> >(timeout 2 cat >&3) 3>&-\n'
    replace_ffmpeg(appliance, 0, script)
    appliance.run("systemctl start sdi-record@0")
    appliance.wait_for(lambda: appliance.status(0)["restarts"] >= 1, 30, "it is judged stalled", poll_s=0.1)
    appliance.sdisup("stop 0")


@pytest.mark.slow
@pytest.mark.journal_allows(r"the card is on fire|Failed to start")
def test_a_crash_loop_backs_off_and_costs_little(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    # The real FFmpeg, since its failing starts are what a crash loop costs.
    fails = "/usr/bin/ffmpeg -v quiet -i /nonexistent -f null -"
    replace_ffmpeg(appliance, 0, f"#!/bin/sh\n{fails}\necho '[fatal] the card is on fire' >&2\nexit 3\n")
    appliance.run("systemctl start sdi-record@0", check=False)
    # 0, 0, 1, 2, 4, 8, 10 s: then the runner itself waits, at the cap.
    slow = appliance.wait_for(
        lambda: found if (found := appliance.status(0))["restarts"] >= 6 and found["pid"] else None,
        60,
        "the cap",
        poll_s=0.2,
    )
    assert slow["reason"] == "FFmpeg exited with 3: the card is on fire"
    cursor = appliance.journal_cursor()
    before = _cpu_seconds(appliance, slow["pid"])
    later = appliance.wait_for(
        lambda: found if (found := appliance.status(0))["restarts"] >= slow["restarts"] + 3 else None,
        60,
        "three more",
        poll_s=0.5,
    )
    assert later["pid"] == slow["pid"]
    # How long it waits between them: unit/test_runner_rules.py.
    a_try_s = (_cpu_seconds(appliance, slow["pid"]) - before) / (later["restarts"] - slow["restarts"])
    by_hand_s = _cpu_seconds_by_hand(appliance)
    print(f"crash loop: {a_try_s:.3f} s a try, {by_hand_s:.3f} s by hand")
    assert a_try_s < 1.5 * by_hand_s
    said = [entry for entry in appliance.journal(after_cursor=cursor) if "sdi-record@0" in str(entry)]
    assert len(said) <= 2, said
    # The port records again by itself.
    appliance.run("ln -sf /usr/bin/ffmpeg /usr/local/bin/misbehaves")
    appliance.wait_recording(0, timeout_s=15)


@pytest.mark.slow
@pytest.mark.journal_allows(r"killed|Failed")
def test_a_crash_loop_that_records_a_little_each_time_says_little(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    replace_ffmpeg(appliance, 0, '#!/bin/sh\nexec timeout --foreground -s KILL 3 /usr/bin/ffmpeg "$@"\n')
    appliance.run("systemctl start sdi-record@0", check=False)

    def wait_rounds(count: int) -> str:
        appliance.wait_for(lambda: appliance.status(0)["restarts"] >= count, 120, f"{count} ends", poll_s=0.2)
        return appliance.journal_cursor()

    cursor = wait_rounds(7)
    wait_rounds(9)
    said = [str(entry["MESSAGE"]) for entry in appliance.journal(after_cursor=cursor) if "sdi-record@0" in str(entry)]
    assert len(said) <= 2 * 4, said
    # Each file is a recording, and all the time between the files is missing.
    files = [line for line in appliance.ledger(0) if line["kind"] == "file"]
    assert len(files) >= 8
    assert all(line["frames"] >= RATE for line in files)


@pytest.mark.slow
@pytest.mark.journal_allows(r"matches no streams")
def test_an_idle_input_costs_little(appliance: Machine) -> None:
    appliance.configure('[appliance]\nports = 1\n[defaults]\nsource = { kind = "videomaster" }\n')
    fails = "/usr/bin/ffmpeg -v quiet -i /nonexistent -f null -; echo >>/srv/recordings/.tries"
    text = "echo \"[fatal] Stream map '' matches no streams.\" >&2"
    replace_ffmpeg(appliance, 0, f"#!/bin/sh\n{fails}\n{text}\nexit 234\n")
    appliance.run("systemctl start sdi-record@0")
    found = appliance.wait_state(0, "no-signal")
    time.sleep(65)

    def spent() -> tuple[float, int]:
        return _cpu_seconds(appliance, found["pid"]), appliance.read("/srv/recordings/.tries").count("\n")

    before_s, tries_before = spent()
    time.sleep(60)
    after_s, tries = spent()
    a_try_s, by_hand_s = (after_s - before_s) / (tries - tries_before), _cpu_seconds_by_hand(appliance)
    print(f"idle input: {tries - tries_before} tries, {a_try_s:.3f} s each, {by_hand_s:.3f} s by hand")
    # At most one each three seconds.
    assert 1 <= tries - tries_before <= 21
    assert a_try_s < 1.5 * by_hand_s
    assert appliance.status(0)["restarts"] == 0


@pytest.mark.slow
@pytest.mark.journal_allows(r"NAMESPACE|mount namespacing|Failed to start|226")
def test_a_loop_that_never_reaches_the_runner_costs_little(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.write("/etc/systemd/system/sdi-record@0.service.d/90.conf", "[Service]\nReadWritePaths=/nonexistent\n")
    cursor = appliance.journal_cursor()
    appliance.run("systemctl daemon-reload; systemctl start sdi-record@0", check=False)

    def wait_rounds(count: int) -> tuple[int, float]:
        """How many tries there were in so many rounds, and the CPU time of systemd and its children by then."""

        def said(text: str) -> int:
            return sum(text in str(entry["MESSAGE"]) for entry in appliance.journal(after_cursor=cursor))

        appliance.wait_for(lambda: said("Starts port 0 again") >= count, 100, f"{count} rounds are over", poll_s=0.5)
        return said("Failed at step NAMESPACE"), _cpu_seconds(appliance, 1)

    (tries_before, before), (tries, after) = wait_rounds(1), wait_rounds(4)
    tries -= tries_before
    appliance.write("/run/systemd/system/fails.service", "[Service]\nReadWritePaths=/nonexistent\nExecStart=true\n")
    appliance.run("systemctl daemon-reload")
    begun = _cpu_seconds(appliance, 1)
    appliance.run("for n in $(seq 20); do systemctl restart fails; systemctl reset-failed fails; done", check=False)
    by_hand_s = (_cpu_seconds(appliance, 1) - begun) / 20
    print(f"never reaches the runner: {tries} tries, {(after - before) / tries:.3f} s each, {by_hand_s:.3f} s by hand")
    # How long it waits between the rounds, the unit says.
    assert 3 <= tries <= 3 * 16
    assert (after - before) / tries < 3 * by_hand_s


def _cpu_seconds_by_hand(appliance: Machine) -> float:
    """The CPU time of the same failing start without sdisup, in the mean of ten."""
    program = "for _ in $(seq 10); do /usr/local/bin/misbehaves >/dev/null 2>&1; done; times"
    children = appliance.run(["bash", "-c", program]).stdout.split()[2:]
    return sum(int(m) * 60 + float(s) for m, s in (word.rstrip("s").split("m") for word in children)) / 10


def _cpu_seconds(appliance: Machine, pid: object) -> float:
    """The CPU time of a process and of the children that it reaped."""
    fields = appliance.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / 100


@pytest.mark.slow
def test_an_encoder_that_does_not_keep_up_is_said_and_counted(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    # Exactly half speed: the real FFmpeg with a source that is slowed down.
    script = '#!/bin/bash\nexec /usr/bin/ffmpeg "${@//,realtime/,realtime=speed=0.5}"\n'
    replace_ffmpeg(appliance, 0, script)
    appliance.sdisup("start 0")
    slow = appliance.wait_for(
        lambda: found if "cannot keep up" in (found := appliance.status(0))["reason"] else None,
        25,
        "it says so",
        poll_s=0.2,
    )
    assert (slow["state"], slow["restarts"]) == ("recording", 0)
    words = slow["reason"].split()
    assert words[:3] == ["cannot", "keep", "up:"]
    assert words[4:] == ["of", "25", "fps"]
    assert 11 < float(words[3]) < 13.5
    # What the file lacks is counted in steps of ten seconds.
    appliance.wait_for(lambda: appliance.status(0)["missing_frames"] > 50, 25, "it is counted", poll_s=0.2)
    assert appliance.sdisup("status", code=3)


CONCAT = """\
[appliance]
ports = 1
[port.0.source]
kind = "custom"
input = ["-re", "-f", "concat", "-safe", "0", "-i", "/srv/list.txt"]
audio = false
rate = 25
"""


@pytest.mark.slow
def test_a_changed_resolution_begins_a_new_file(appliance: Machine) -> None:
    for name, size in (("a", "320x180"), ("b", "640x360")):
        source = f"testsrc2=size={size}:rate=25:duration=4"
        appliance.run(f"ffmpeg -v error -y -f lavfi -i {source} -c:v mpeg2video -q:v 8 /srv/{name}.mpg", timeout_s=60)
    appliance.write("/srv/list.txt", "file a.mpg\nfile b.mpg\n")
    appliance.configure(CONCAT)
    appliance.sdisup("start 0")
    first = appliance.wait_recording(0, frames=50)["current_file"]
    appliance.wait_for(lambda: appliance.status(0)["restarts"] == 1, 20, "a new file is begun", poll_s=0.05)
    appliance.wait_recording(0, frames=10)
    appliance.sdisup("stop 0")
    shown = appliance.run(f"ffprobe -v error -show_entries stream=width -of csv=p=0 {first}").stdout.split()
    assert shown == ["320"]
    # Less than half a second was scaled before the runner saw the change.
    assert 90 <= appliance.count_frames(first) <= 100 + 13
    appliance.run("rm /srv/*.mpg /srv/list.txt")
    gaps = [line["cause"] for line in appliance.ledger(0) if line["kind"] == "gap"]
    assert "format changed" in " ".join(gaps), gaps


# ---------------------------------------------------------------- the clock

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


@pytest.mark.parametrize(
    "step", ["-3600", pytest.param("+3600", marks=pytest.mark.slow), pytest.param("1970", marks=pytest.mark.slow)]
)
def test_the_clock_may_step_either_way(appliance: Machine, step: str) -> None:
    appliance.configure(small_ports(1))
    appliance.write("/run/faketime", "+0")
    appliance.write(
        "/etc/systemd/system/sdi-record@0.service.d/30-clock.conf",
        f"[Service]\nEnvironment=LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE=/run/faketime\n"
        "Environment=FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\n",
    )
    appliance.run("systemctl daemon-reload")
    appliance.sdisup("start 0")
    before = appliance.wait_recording(0, frames=25)
    offset = f"-{int(time.time()) - 86400}" if step == "1970" else step
    appliance.write("/run/faketime", offset)
    after = appliance.wait_recording(0, frames=before["frame_count"] + 50)
    assert (after["pid"], after["restarts"]) == (before["pid"], 0)
    assert appliance.status(0)["state"] == "recording"
    assert after["uptime_seconds"] - before["uptime_seconds"] < 10
    appliance.kill(after["ffmpeg_pid"])
    again = appliance.wait_for(
        lambda: found if (found := appliance.status_file(0))["restarts"] == 1 and found["is_recording"] else None,
        10,
        "it is back",
    )
    year = "1970" if step == "1970" else str(time.gmtime().tm_year)
    assert f"_{year}" in again["current_file"]
    # The clock is back at the second of the first file's name: the new file has another name.
    appliance.write("/run/faketime", "+0")
    appliance.sdisup("stop 0")
    assert len(appliance.recordings()) == 2
    assert all(appliance.count_frames(path) > 0 for path in appliance.recordings())
    steps = [line["seconds"] for line in appliance.ledger(0) if line["kind"] == "clock"]
    assert steps
    assert abs(steps[0] - float(offset)) < 1
