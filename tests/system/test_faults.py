"""Faults as they happen to an appliance that is left alone for months: after each it records again by itself,
what was on disk is playable, and the port says what was wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from appliance import Appliance, wait_for
from drive import (
    RECORDINGS,
    configure,
    count_frames,
    ffmpegs,
    recordings,
    sdisup,
    small_ports,
    status,
    status_file,
    wait_recording,
    wait_state,
)

pytestmark = pytest.mark.system

MIB = 1 << 20
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


MOUNT = """\
[Unit]
Description=Mounts a disk for recordings
DefaultDependencies=no
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/mount /dev/{name} {where}
[Install]
WantedBy=local-fs.target
"""


def with_disk(own: Appliance, where: str = RECORDINGS, name: str = "disk") -> None:
    """Mount a disk now and at each boot; by a unit, since without udev no device unit of fstab's appears."""
    own.write(f"/etc/systemd/system/mount-{name}.service", MOUNT.format(name=name, where=where))
    own.run(f"mkdir -p {where} && systemctl enable --now mount-{name}")
    own.run(f"chown sdisup:sdisup {where} && chmod 2775 {where}")


@pytest.fixture
def disk_appliance(new_appliance: Callable[..., Appliance]) -> Iterator[Appliance]:
    own = new_appliance(disks={"disk": 256 * MIB, "other": 64 * MIB})
    assert own.boot() == "running"
    with_disk(own)
    yield own


def kill(appliance: Appliance, pid: object, signal: str = "KILL") -> None:
    appliance.run(["kill", f"-{signal}", str(pid)])


def wait_restarts(appliance: Appliance, port: int, count: int) -> None:
    """Wait until the port has counted so many restarts."""
    wait_for(lambda: status(appliance, port)["restarts"] >= count, 20, f"port {port} restarts", poll_s=0.1)


def lost_seconds(appliance: Appliance, before: dict[int, dict[str, Any]], cut: float) -> dict[str, float]:
    """What each port had received when it was cut off and is not readable, by file.

    A status is up to a second old: `cut`, by the wall clock, says what came after its last frame.
    """
    lost_s = {}
    for found in before.values():
        path, last_frame = found["current_file"], datetime.fromisoformat(found["last_frame_at"]).timestamp()
        received_s = found["frame_count"] / RATE + cut - last_frame
        lost_s[path] = round(received_s - count_frames(appliance, path) / RATE, 2)
    print("lost, s:", lost_s)
    # To have kept more than there was would mean that this measures something else.
    assert min(lost_s.values()) > -0.2, lost_s
    return lost_s


# ---------------------------------------------------------------- kills


def test_everything_killed_at_once_costs_at_most_a_second_in_every_container(appliance: Appliance) -> None:
    configure(appliance, EVERY_CONTAINER)
    for port in range(5):
        wait_recording(appliance, port, frames=75)
    before = {port: status_file(appliance, port) for port in range(5)}
    cut = float(appliance.run("date +%s.%N; systemctl kill --signal=KILL 'sdi-record@*'").stdout)
    for port in range(5):
        wait_restarts(appliance, port, 1)
        wait_recording(appliance, port)
    lost_s = lost_seconds(appliance, before, cut)
    assert max(lost_s.values()) <= 1.0, lost_s
    assert len(ffmpegs(appliance)) == 5


def test_kill_9_of_an_ffmpeg_does_not_cost_its_neighbour_a_frame(appliance: Appliance) -> None:
    configure(appliance, small_ports(2))
    sdisup(appliance, "start 0,1")
    wait_recording(appliance, 1, frames=25)
    for _ in range(2):
        found = wait_recording(appliance, 0, frames=10)
        kill(appliance, found["ffmpeg_pid"])
        wait_restarts(appliance, 0, found["restarts"] + 1)
    wait_recording(appliance, 0, frames=10)
    beside = status(appliance, 1)
    assert (beside["dropped_frames"], beside["duplicated_frames"], beside["missing_frames"]) == (0, 0, 0)
    assert beside["restarts"] == 0
    sdisup(appliance, "stop 1")
    path = recordings(appliance, "port1")[0]
    times = appliance.run(
        f"ffprobe -v error -select_streams v:0 -show_entries packet=pts_time -of csv=p=0 {path}"
    ).stdout.split()
    stamps = sorted(float(text.strip(",")) for text in times)
    assert max(later - earlier for earlier, later in pairwise(stamps[1:])) < 1.5 / RATE


# ---------------------------------------------------------------- power


@pytest.mark.journal_allows(
    r"Input/output error|Error|Read-only|muxing|I/O|Task finished|Terminating|Failed|disk error"
)
def test_a_power_cut_that_loses_the_page_cache_costs_at_most_two_seconds(disk_appliance: Appliance) -> None:
    own = disk_appliance
    configure(own, EVERY_CONTAINER)
    for port in range(5):
        wait_recording(own, port, frames=150, timeout_s=40)
    before = {port: status_file(own, port) for port in range(5)}
    # The page cache is lost in the first moment of the cut, and the processes a moment later.
    cut = time.time()
    own.power_cut(lose_cache=[RECORDINGS])
    own.boot()
    for port in range(5):
        wait_recording(own, port)
    lost_s = lost_seconds(own, before, cut)
    assert max(lost_s.values()) <= 2.0, lost_s


# ---------------------------------------------------------------- disks


@pytest.mark.journal_allows(
    r"No space left on device|[Dd]isk full|Error|Conversion failed|Task finished|muxing|Terminating"
)
def test_a_full_disk_is_said_and_recording_resumes_when_there_is_room(disk_appliance: Appliance) -> None:
    own = disk_appliance
    configure(own, small_ports(2, "[port.1]\nrecordings = '/srv/elsewhere'\n"), apply=False)
    own.run("install -d -o sdisup -g sdisup -m 2775 /srv/elsewhere")
    sdisup(own, "apply")
    sdisup(own, "start 0,1")
    wait_recording(own, 1, frames=25)
    own.run(f"fallocate -l $(( $(stat -f -c '%a*%S' {RECORDINGS}) )) {RECORDINGS}/ballast", check=False)
    full = wait_for(
        lambda: found if "disk full" in (found := status(own, 0))["reason"] else None,
        30,
        "the port says disk full",
        poll_s=0.1,
    )
    assert full["is_recording"] is False
    first = recordings(own, "port0")[0]
    assert count_frames(own, first) > 0
    own.run(f"rm {RECORDINGS}/ballast")
    wait_recording(own, 0, timeout_s=15)
    beside = status(own, 1)
    assert (beside["restarts"], beside["missing_frames"], beside["dropped_frames"]) == (0, 0, 0)
    sdisup(own, "stop --all")
    # No litter: every file that was kept holds frames.
    assert all(count_frames(own, path) > 0 for path in recordings(own, "port0"))


@pytest.mark.journal_allows(r"No space left|[Dd]isk full|Error|Task finished|muxing|Terminating|incomplete")
def test_a_disk_that_is_full_only_at_the_trailer_is_said_of_the_file(disk_appliance: Appliance) -> None:
    own = disk_appliance
    configure(own, small_ports(2, '[port.1]\ncontainer = "mkv"\n'))
    sdisup(own, "start 0,1")
    found = {port: wait_recording(own, port, frames=75) for port in (0, 1)}
    # FFmpeg writes nothing while it is frozen, and then what it has in hand, and the trailer, find no room.
    for port in (0, 1):
        kill(own, found[port]["ffmpeg_pid"], "STOP")
    own.run(f"fallocate -l $(( $(stat -f -c '%a*%S' {RECORDINGS}) )) {RECORDINGS}/ballast", check=False)
    own.run("systemctl stop --no-block sdi-record@0 sdi-record@1")
    wait_for(lambda: [status_file(own, port)["state"] for port in (0, 1)] == ["stopping"] * 2, 5, "they are stopping")
    for port in (0, 1):
        kill(own, found[port]["ffmpeg_pid"], "CONT")
    for port in (0, 1):
        wait_state(own, port, "stopped")
        file = next(line for line in reversed(ledger(own, port)) if line["kind"] == "file")
        assert file["path"] == found[port]["current_file"]
        assert file["ended"] != "complete"
        readable = count_frames(own, file["path"])
        assert file["frames"] == readable >= found[port]["frame_count"] - RATE


@pytest.mark.journal_allows(
    r"Read-only|read-only|[Dd]isk error|Error|Conversion failed|Task finished|muxing|Terminating"
)
def test_a_disk_that_becomes_read_only_is_said_and_heals(disk_appliance: Appliance) -> None:
    own = disk_appliance
    configure(own, small_ports(1))
    sdisup(own, "start 0")
    wait_recording(own, 0, frames=25)
    # What the kernel does to an ext4 with errors: writes fail, open files or not.
    own.run(f"mount -o remount,ro -f {RECORDINGS} 2>/dev/null; echo u > /proc/sysrq-trigger", check=False)
    sdisup(own, "stop 0")
    own.run(f"mount -o remount,ro {RECORDINGS}")
    result = sdisup(own, "start 0 --wait 2", code=1)
    assert "read-only" in result.stderr
    own.run(f"mount -o remount,rw {RECORDINGS}")
    wait_recording(own, 0, timeout_s=20)


def test_an_unmounted_disk_is_not_replaced_by_its_mount_point(disk_appliance: Appliance) -> None:
    own = disk_appliance
    # The mount point itself could be written to: that alone must not make it the right place.
    own.run(f"umount {RECORDINGS} && chown sdisup:sdisup {RECORDINGS} && mount /dev/disk {RECORDINGS}")
    configure(own, small_ports(1))
    own.run(f"umount {RECORDINGS}")
    result = sdisup(own, "start 0 --wait 2", code=1)
    assert "is on overlay with /, not on ext4:fsid-" in result.stderr
    assert recordings(own) == []
    # An apply while the disk is away does not make its mount point the right place.
    assert "is not recorded to: mount the disk" in sdisup(own, "apply").stderr
    assert status(own, 0)["is_recording"] is False
    own.run(f"mount /dev/disk {RECORDINGS}")
    wait_recording(own, 0, timeout_s=20)
    assert len(recordings(own)) == 1
    sdisup(own, "stop 0")
    # The operator's word makes another disk the right one.
    own.run(f"umount {RECORDINGS}")
    sdisup(own, "apply --accept-disks")
    sdisup(own, "start 0")


@pytest.mark.journal_allows(r"does not answer|SIGKILL|not closed the file")
def test_a_frozen_disk_does_not_disturb_another_disks_port(disk_appliance: Appliance) -> None:
    own = disk_appliance
    with_disk(own, "/srv/other", "other")
    configure(own, small_ports(3, "stall_timeout_s = 3\n[port.1]\nrecordings = '/srv/other'\n"))
    sdisup(own, "start 0,1")
    wait_recording(own, 0, frames=50)
    wait_recording(own, 1, frames=50)
    own.run(f"fsfreeze --freeze {RECORDINGS}")
    try:
        frozen = wait_state(own, 0, "stalled", timeout_s=10)
        assert frozen["is_recording"] is False
        # Its runner answers, and a port that is only now started there says what it waits for.
        own.run("systemctl start --no-block sdi-record@2")
        waiting = wait_for(
            lambda: found if "does not answer" in (found := status(own, 2))["reason"] else None,
            15,
            "port 2 says so",
            poll_s=0.2,
        )
        assert waiting["state"] == "starting"
        beside = wait_recording(own, 1, frames=status_file(own, 1)["frame_count"] + 50)
        assert (beside["restarts"], beside["missing_frames"], beside["dropped_frames"]) == (0, 0, 0)
    finally:
        own.run(f"fsfreeze --unfreeze {RECORDINGS}")
    wait_recording(own, 0, frames=25, timeout_s=30)
    wait_recording(own, 2, frames=25, timeout_s=30)


def test_a_file_that_is_deleted_or_moved_while_it_is_recorded(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    sdisup(appliance, "start 0")
    first = wait_recording(appliance, 0, frames=25)
    appliance.run(["mv", first["current_file"], f"{RECORDINGS}/kept.mp4"])
    moved = wait_for(
        lambda: found if "was moved away" in (found := status(appliance, 0))["reason"] else None,
        10,
        "it says so",
        poll_s=0.1,
    )
    assert (moved["state"], moved["ffmpeg_pid"]) == ("recording", first["ffmpeg_pid"])
    sdisup(appliance, "restart 0")
    assert count_frames(appliance, f"{RECORDINGS}/kept.mp4") > 25
    second = wait_recording(appliance, 0, frames=10)
    appliance.run(["rm", second["current_file"]])
    wait_for(lambda: status(appliance, 0)["restarts"] == 1, 15, "a new file is begun", poll_s=0.1)
    third = wait_recording(appliance, 0, frames=10)
    assert third["current_file"] != second["current_file"]
    # What was in it is missing, and no recording.
    entered = ledger(appliance, 0)
    assert second["current_file"] not in [line.get("path") for line in entered]
    (lost,) = [line for line in entered if str(line.get("cause")).startswith("file deleted")]
    assert lost["seconds"] > second["frame_count"] / RATE - 0.5


@pytest.mark.journal_allows(r"the status cannot be written|No such file")
def test_a_status_directory_that_vanishes_does_not_stop_the_recording(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    sdisup(appliance, "start 0")
    found = wait_recording(appliance, 0, frames=25)
    path, size = appliance.path(found["current_file"]), 0
    appliance.run("find /run/sdisup -mindepth 1 -delete", check=False)
    appliance.run("mv /run/sdisup /run/sdisup.gone", check=False)
    size = path.stat().st_size
    wait_for(lambda: path.stat().st_size > size + 50_000, 10, "the file grows on")
    assert appliance.run(f"kill -0 {found['ffmpeg_pid']}", check=False).returncode == 0
    appliance.run("systemctl stop sdi-record@0; rm -rf /run/sdisup; systemd-tmpfiles --create")
    assert count_frames(appliance, found["current_file"]) > 25
    sdisup(appliance, "start 0")


# ---------------------------------------------------------------- misbehaviour that the real FFmpeg cannot be asked for


def replace_ffmpeg(appliance: Appliance, port: int, script: str) -> None:
    """Let a port run a script in FFmpeg's place; "$@" are the arguments FFmpeg would have had."""
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
def test_output_of_any_bytes_at_any_rate(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    replace_ffmpeg(appliance, 0, NOISE)
    cursor = appliance.journal_cursor()
    sdisup(appliance, "start 0")
    found = wait_recording(appliance, 0, frames=50)
    assert found["restarts"] == 0
    rss_kb = int(appliance.run(f"awk '/VmHWM/ {{print $2}}' /proc/{found['pid']}/status").stdout)
    assert rss_kb < 40_000
    sdisup(appliance, "stop 0")
    assert len(appliance.journal(after_cursor=cursor)) < 400
    assert count_frames(appliance, recordings(appliance)[0]) >= 50


@pytest.mark.journal_allows(r"removed, or moved away")
def test_a_file_that_is_taken_away_before_its_first_frame_costs_no_more_than_a_moment(appliance: Appliance) -> None:
    """FFmpeg opens it by its name, a moment after the runner made it, and would write where nobody looks."""
    configure(appliance, small_ports(1))
    # The first time only.
    script = '#!/bin/bash\n[ -e /run/sdisup/once ] || rm "${@: -1}"\ntouch /run/sdisup/once\nexec ffmpeg "$@"\n'
    replace_ffmpeg(appliance, 0, script)
    appliance.run("systemctl start sdi-record@0")
    found = wait_recording(appliance, 0, frames=25)
    assert found["restarts"] == 1
    appliance.run("rm /run/sdisup/once")


def test_an_stderr_that_closes_is_a_stall_in_the_end(appliance: Appliance) -> None:
    configure(appliance, small_ports(1, "stall_timeout_s = 2\n"))
    # The log goes nowhere after a second: no progress is seen any more, though the file grows.
    script = '#!/bin/bash\nexec 3>&2\n/usr/bin/ffmpeg "$@" 2> >(timeout 2 cat >&3) 3>&-\n'
    replace_ffmpeg(appliance, 0, script)
    appliance.run("systemctl start sdi-record@0")
    wait_for(lambda: status(appliance, 0)["restarts"] >= 1, 30, "it is judged stalled", poll_s=0.1)
    sdisup(appliance, "stop 0")


@pytest.mark.slow
@pytest.mark.journal_allows(r"the card is on fire|Failed to start")
def test_a_crash_loop_backs_off_and_costs_little(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    # The real FFmpeg's failing start, since that is what a crash loop costs.
    fails = "/usr/bin/ffmpeg -v quiet -i /nonexistent -f null -"
    replace_ffmpeg(appliance, 0, f"#!/bin/sh\n{fails}\necho '[fatal] the card is on fire' >&2\nexit 3\n")
    appliance.run("systemctl start sdi-record@0", check=False)
    # 0, 0, 1, 2, 4, 8, 10 s: then the runner itself waits, at the cap.
    slow = wait_for(
        lambda: found if (found := status(appliance, 0))["restarts"] >= 6 and found["pid"] else None,
        60,
        "the cap",
        poll_s=0.2,
    )
    assert slow["reason"] == "FFmpeg exited with 3: the card is on fire"
    cursor = appliance.journal_cursor()
    before, begun = _cpu_seconds(appliance, slow["pid"]), time.monotonic()
    later = wait_for(
        lambda: found if (found := status(appliance, 0))["restarts"] >= slow["restarts"] + 3 else None,
        60,
        "three more",
        poll_s=0.5,
    )
    assert later["pid"] == slow["pid"]
    share = (_cpu_seconds(appliance, slow["pid"]) - before) / (time.monotonic() - begun)
    print(f"crash loop: {100 * share:.2f} % of a core")
    assert share < 0.008
    said = [entry for entry in appliance.journal(after_cursor=cursor) if "sdi-record@0" in str(entry)]
    assert len(said) <= 2, said
    # And it heals by itself.
    appliance.run("ln -sf /usr/bin/ffmpeg /usr/local/bin/misbehaves")
    wait_recording(appliance, 0, timeout_s=15)


@pytest.mark.slow
@pytest.mark.journal_allows(r"killed|Failed")
def test_a_crash_loop_that_records_a_little_each_time_says_little(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    replace_ffmpeg(appliance, 0, '#!/bin/sh\nexec timeout --foreground -s KILL 3 /usr/bin/ffmpeg "$@"\n')
    appliance.run("systemctl start sdi-record@0", check=False)

    def wait_rounds(count: int) -> str:
        wait_for(lambda: status(appliance, 0)["restarts"] >= count, 120, f"{count} ends", poll_s=0.2)
        return appliance.journal_cursor()

    cursor = wait_rounds(7)
    wait_rounds(9)
    said = [str(entry["MESSAGE"]) for entry in appliance.journal(after_cursor=cursor) if "sdi-record@0" in str(entry)]
    assert len(said) <= 2 * 4, said
    # Each of them is a recording, and all that lies between them is missing.
    files = [line for line in ledger(appliance, 0) if line["kind"] == "file"]
    assert len(files) >= 8
    assert all(line["frames"] >= RATE for line in files)


@pytest.mark.slow
@pytest.mark.journal_allows(r"matches no streams")
def test_an_idle_input_costs_little(appliance: Appliance) -> None:
    configure(appliance, '[appliance]\nports = 1\n[defaults]\nsource = { kind = "videomaster" }\n')
    fails = "/usr/bin/ffmpeg -v quiet -i /nonexistent -f null -"
    text = "echo \"[fatal] Stream map '' matches no streams.\" >&2"
    replace_ffmpeg(appliance, 0, f"#!/bin/sh\n{fails}\n{text}\nexit 234\n")
    appliance.run("systemctl start sdi-record@0")
    found = wait_state(appliance, 0, "no-signal")
    time.sleep(65)
    before, begun = _cpu_seconds(appliance, found["pid"]), time.monotonic()
    time.sleep(60)
    share = (_cpu_seconds(appliance, found["pid"]) - before) / (time.monotonic() - begun)
    print(f"idle input: {100 * share:.2f} % of a core")
    assert share < 0.02
    assert status(appliance, 0)["restarts"] == 0


@pytest.mark.slow
@pytest.mark.journal_allows(r"NAMESPACE|mount namespacing|Failed to start|226")
def test_a_loop_that_never_reaches_the_runner_costs_little(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    appliance.write("/etc/systemd/system/sdi-record@0.service.d/90.conf", "[Service]\nReadWritePaths=/nonexistent\n")
    cursor = appliance.journal_cursor()
    appliance.run("systemctl daemon-reload; systemctl start sdi-record@0", check=False)

    def wait_rounds(count: int) -> tuple[float, float]:
        """When so many rounds of tries had ended, and what systemd and all that it reaped had used by then."""

        def are_over() -> bool:
            said = [str(entry["MESSAGE"]) for entry in appliance.journal(after_cursor=cursor)]
            return len([text for text in said if "Starts port 0 again" in text]) >= count

        wait_for(are_over, 60, f"{count} rounds are over", poll_s=0.2)
        return time.monotonic(), _cpu_seconds(appliance, 1)

    (begun, before), (ended, after) = wait_rounds(1), wait_rounds(4)
    share = (after - before) / (ended - begun)
    print(f"a loop that never reaches the runner: {100 * share:.2f} % of a core")
    assert 0 < share < 0.05


def _cpu_seconds(appliance: Appliance, pid: object) -> float:
    """A process's CPU time, with that of the children that it reaped."""
    fields = appliance.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / 100


def test_an_encoder_that_does_not_keep_up_is_said_and_counted(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    # Half speed, exactly: the real FFmpeg, whose source is slowed down behind its own back.
    script = '#!/bin/bash\nexec /usr/bin/ffmpeg "${@//,realtime/,realtime=speed=0.5}"\n'
    replace_ffmpeg(appliance, 0, script)
    sdisup(appliance, "start 0")
    slow = wait_for(
        lambda: found if "cannot keep up" in (found := status(appliance, 0))["reason"] else None,
        25,
        "it says so",
        poll_s=0.2,
    )
    assert (slow["state"], slow["restarts"]) == ("recording", 0)
    words = slow["reason"].split()
    assert words[:3] == ["cannot", "keep", "up:"]
    assert words[4:] == ["of", "25", "fps"]
    assert 11 < float(words[3]) < 13.5
    assert slow["missing_frames"] > 50
    assert sdisup(appliance, "status", code=3)


CONCAT = """\
[appliance]
ports = 1
[port.0.source]
kind = "custom"
input = ["-re", "-f", "concat", "-safe", "0", "-i", "/srv/list.txt"]
audio = false
rate = 25
"""


def test_a_changed_resolution_begins_a_new_file(appliance: Appliance) -> None:
    for name, size in (("a", "320x180"), ("b", "640x360")):
        source = f"testsrc2=size={size}:rate=25:duration=4"
        appliance.run(f"ffmpeg -v error -y -f lavfi -i {source} -c:v mpeg2video -q:v 8 /srv/{name}.mpg", timeout_s=60)
    appliance.write("/srv/list.txt", "file a.mpg\nfile b.mpg\n")
    configure(appliance, CONCAT)
    sdisup(appliance, "start 0")
    first = wait_recording(appliance, 0, frames=50)["current_file"]
    wait_for(lambda: status(appliance, 0)["restarts"] == 1, 20, "a new file is begun", poll_s=0.05)
    wait_recording(appliance, 0, frames=10)
    sdisup(appliance, "stop 0")
    shown = appliance.run(f"ffprobe -v error -show_entries stream=width -of csv=p=0 {first}").stdout.split()
    assert shown == ["320"]
    # What was scaled before the change was seen is less than half a second.
    assert 90 <= count_frames(appliance, first) <= 100 + 13
    appliance.run("rm /srv/*.mpg /srv/list.txt")
    gaps = [line["cause"] for line in ledger(appliance, 0) if line["kind"] == "gap"]
    assert "format changed" in " ".join(gaps), gaps


# ---------------------------------------------------------------- the clock

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


@pytest.mark.parametrize(
    "step", ["-3600", pytest.param("+3600", marks=pytest.mark.slow), pytest.param("1970", marks=pytest.mark.slow)]
)
def test_the_clock_may_step_either_way(appliance: Appliance, step: str) -> None:
    configure(appliance, small_ports(1))
    appliance.write("/run/faketime", "+0")
    appliance.write(
        "/etc/systemd/system/sdi-record@0.service.d/30-clock.conf",
        f"[Service]\nEnvironment=LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE=/run/faketime\n"
        "Environment=FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\n",
    )
    appliance.run("systemctl daemon-reload")
    sdisup(appliance, "start 0")
    before = wait_recording(appliance, 0, frames=50)
    offset = f"-{int(time.time()) - 86400}" if step == "1970" else step
    appliance.write("/run/faketime", offset)
    after = wait_recording(appliance, 0, frames=100)
    assert (after["pid"], after["restarts"]) == (before["pid"], 0)
    assert status(appliance, 0)["state"] == "recording"
    assert after["uptime_seconds"] - before["uptime_seconds"] < 10
    kill(appliance, after["ffmpeg_pid"])
    again = wait_for(
        lambda: found if (found := status_file(appliance, 0))["restarts"] == 1 and found["is_recording"] else None,
        10,
        "it is back",
    )
    year = "1970" if step == "1970" else str(time.gmtime().tm_year)
    assert f"_{year}" in again["current_file"]
    # Back to the very second of the first file's name: still a file of its own.
    appliance.write("/run/faketime", "+0")
    sdisup(appliance, "stop 0")
    assert len(recordings(appliance)) == 2
    assert all(count_frames(appliance, path) > 0 for path in recordings(appliance))
    steps = [line["seconds"] for line in ledger(appliance, 0) if line["kind"] == "clock"]
    assert steps
    assert abs(steps[0] - float(offset)) < 1


def ledger(appliance: Appliance, port: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in appliance.read(f"/var/lib/sdisup/ledger/{port}.jsonl").splitlines()]
