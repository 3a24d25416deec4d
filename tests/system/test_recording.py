"""The main path on a real systemd and a real FFmpeg: configured ports record, and their status is true."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from drive import BOTH_DEBIANS, DEBIAN_12_IF_SLOW, RECORDINGS, Machine, small_ports

from sdisup.contract.status import FIELDS

# An FFmpeg whose card blocks at its opening: only SIGKILL ends it.
HANGING_FFMPEG = "#!/bin/sh\ntrap '' TERM INT\nexec sleep 1000\n"
CRASHING_FFMPEG = "#!/bin/sh\necho '[fatal] the card is on fire' >&2\nexit 3\n"


KINDS = [("h264", "mp4"), ("h264", "mkv"), ("prores", "mov")]
EACH_KIND = "".join(
    f'[port.{port}]\nname = "CAM{port}"\ncodec = "{codec}"\ncontainer = "{container}"\n'
    for port, (codec, container) in enumerate(KINDS)
)


@BOTH_DEBIANS
def test_a_port_records_a_playable_file_with_all_its_frames(appliance: Machine) -> None:
    appliance.configure(small_ports(3, EACH_KIND))
    appliance.run("systemctl start sdi-record@0 sdi-record@1 sdi-record@2")
    for port in range(3):
        appliance.wait_recording(port, frames=50)
    living = appliance.statuses()
    for port, (live, (codec, container)) in enumerate(zip(living, KINDS, strict=True)):
        assert set(live) == set(FIELDS)
        known = (live["state"], live["is_recording"], live["name"], live["codec"], live["reason"])
        assert known == ("recording", True, f"CAM{port}", codec, "")
        assert 20 < live["fps"] < 30
        assert live["bitrate_mbps"] >= 0
        assert live["bytes_written"] > 0
        assert live["dropped_frames"] == live["restarts"] == 0
        assert re.fullmatch(rf"{RECORDINGS}/CAM{port}_\d{{8}}T\d{{6}}Z\.{container}", live["current_file"])
    appliance.run("systemctl stop sdi-record@0 sdi-record@1 sdi-record@2")
    assert appliance.recordings() == [live["current_file"] for live in living]
    for live, stopped in zip(living, appliance.statuses(), strict=True):
        assert (stopped["state"], stopped["frame_count"], stopped["current_file"]) == ("stopped", 0, None)
        # take_frames outlives FFmpeg: the closed file holds as many frames as the last progress block said.
        assert appliance.count_frames(live["current_file"]) == stopped["take_frames"] >= 50


@DEBIAN_12_IF_SLOW
def test_start_waits_for_the_first_frame_on_disk(appliance: Machine) -> None:
    appliance.configure(small_ports(3))
    result = appliance.sdisup("start 0,1-2")
    assert [line.split(" records to ")[0] for line in result.stdout.splitlines()] == ["port 0", "port 1", "port 2"]
    for path in appliance.recordings():
        # A copy made now is like the file after a power cut: it holds a frame.
        appliance.run(["cp", path, "/root/cut.mp4"])
        assert appliance.count_frames("/root/cut.mp4") > 0
    again = appliance.sdisup("start --all")
    assert again.stdout.count("records already") == 3
    assert len(appliance.ffmpegs()) == 3
    appliance.sdisup("stop --all")
    assert appliance.sdisup("stop 0-2").stdout.count("is stopped") == 3
    assert appliance.ffmpegs() == []


@DEBIAN_12_IF_SLOW
@pytest.mark.journal_allows(r"Assertion failed")
def test_a_port_that_is_not_configured_does_not_start(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    cursor = appliance.journal_cursor()
    words = "not configured (put it into /etc/sdisup/sdisup.toml, then run: sdisup apply)"
    for port in ("99", "abc", "01", "-1", "0x1", "1 "):
        unit = appliance.run(["systemd-escape", "--template=sdi-record@.service", "--", port]).stdout.strip()
        result = appliance.run(["systemctl", "start", "--", unit], check=False)
        assert result.returncode != 0, port
        assert len(result.stderr.splitlines()) == 1
        said = [entry["MESSAGE"] for entry in appliance.journal(after_cursor=cursor) if entry.get("UNIT") == unit]
        assert any(words in text for text in said), port
    assert "no such port is configured" in appliance.sdisup("start 99", code=4).stderr
    assert appliance.ffmpegs() == []


def reloads(appliance: Machine, cursor: str) -> int:
    said = [str(entry["MESSAGE"]) for entry in appliance.journal(after_cursor=cursor)]
    return len([text for text in said if text.startswith("Reloading finished")])


def test_apply_twice_changes_nothing_the_second_time(appliance: Machine) -> None:
    appliance.configure(small_ports(3, "[port.2]\nrecord_at_boot = true\n"), apply=False)
    shown = appliance.sdisup("apply --dry-run")
    assert "+++ /etc/systemd/system/sdi-record@2.service.d/10-sdisup.conf" in shown.stdout
    assert "would enable sdi-record@2.service for boot\n" in shown.stderr
    assert "would start port 2\n" in shown.stderr
    assert appliance.active_state(2) == "inactive"
    cursor = appliance.journal_cursor()
    first = appliance.sdisup("apply")
    assert "enabled sdi-record@2.service for boot" in first.stdout
    assert "started port 2\n" in first.stdout
    assert reloads(appliance, cursor) == 1
    appliance.wait_recording(2)
    pid = appliance.status(2)["ffmpeg_pid"]
    cursor = appliance.journal_cursor()
    assert appliance.sdisup("apply").stdout == "nothing to change\n"
    assert appliance.sdisup("apply --dry-run").stdout == ""
    assert reloads(appliance, cursor) == 0
    assert appliance.status(2)["ffmpeg_pid"] == pid


def test_apply_leaves_a_recording_port_alone_unless_asked(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0,1")
    before = appliance.status(0)
    appliance.configure(small_ports(2, '[port.0]\ncontainer = "mkv"\n'), apply=False)
    result = appliance.sdisup("apply")
    assert "port 0 records on with its former unit" in result.stderr
    after = appliance.status(0)
    assert (after["ffmpeg_pid"], after["config_pending"]) == (before["ffmpeg_pid"], True)
    assert not appliance.status(1)["config_pending"]
    assert "restarted port 0" in appliance.sdisup("apply --restart").stdout
    appliance.wait_recording(0)
    restarted = appliance.status(0)
    assert restarted["files"] == [restarted["current_file"]]
    assert restarted["current_file"].endswith(".mkv")
    assert (restarted["config_pending"], appliance.status(1)["restarts"]) == (False, 0)

    # It is entered with the first frame after it.
    def stoppers() -> list[str]:
        return [line["by"] for line in appliance.ledger(0) if line["kind"] == "stop"]

    appliance.wait_for(lambda: stoppers() == ["apply"], 20, "the restart is entered")


def test_apply_removes_only_what_it_wrote_and_no_port_that_records(appliance: Machine) -> None:
    appliance.configure(small_ports(3))
    appliance.write("/etc/systemd/system/sdi-record@2.service.d/override.conf", "[Service]\nNice=5\n")
    appliance.write("/etc/systemd/system/sdi-record@7.service.d/10-sdisup.conf", "[Service]\nNice=6\n")
    appliance.sdisup("start 1")
    appliance.configure(small_ports(1), apply=False)
    result = appliance.sdisup("apply")
    assert "port 1 is no longer configured but records" in result.stderr
    assert appliance.status(1)["state"] == "recording"
    units = appliance.path("/etc/systemd/system")
    assert (units / "sdi-record@1.service.d/10-sdisup.conf").exists()
    assert not (units / "sdi-record@2.service.d/10-sdisup.conf").exists()
    assert (units / "sdi-record@2.service.d/override.conf").exists()
    assert (units / "sdi-record@7.service.d/10-sdisup.conf").exists()
    appliance.sdisup("stop 1")
    appliance.sdisup("apply")
    assert not (units / "sdi-record@1.service.d").exists()
    assert [found["port_index"] for found in appliance.statuses()] == [0]


def test_systemctl_edit_wins(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.write("/etc/systemd/system/sdi-record@0.service.d/override.conf", "[Service]\nEnvironment=MINE=1\n")
    appliance.run("systemctl daemon-reload && systemctl start sdi-record@0")
    found = appliance.wait_recording(0)
    assert "MINE=1" in appliance.read(f"/proc/{found['pid']}/environ")
    shown = appliance.run("systemctl cat sdi-record@0").stdout
    assert "/usr/bin/ffmpeg -hide_banner" in shown
    assert shown.rstrip().endswith("MINE=1")


@BOTH_DEBIANS
def test_a_recording_goes_on_from_file_to_file_and_a_cut_names_the_next_ones(appliance: Machine) -> None:
    """In the unit's sandbox, and through a kill of FFmpeg in the middle of a file."""
    own = appliance
    own.configure(small_ports(1, 'segment_s = 2\nfile_name = "{take}_{name}_{utc}"\n'))
    own.sdisup("start 0 --take first")
    own.wait_for(lambda: len(own.recordings("first")) >= 2, 30, "it goes on in the next file")
    own.wait_recording(0, frames=60)
    said = own.sdisup("cut 0 --take next").stdout
    path, frame = re.search(r"begins with frame (\d+) of (\S+)", said).group(2, 1)  # type: ignore[union-attr]
    own.wait_for(lambda: len(own.recordings("next")) >= 2, 30, "the next files have the next take's name")
    own.run(f"kill -9 {own.status(0)['ffmpeg_pid']}")
    own.wait_for(lambda: own.status(0)["restarts"] == 1, 20, "it is started again")
    own.wait_recording(0, frames=10)
    assert own.status(0)["take"] == "next"
    own.sdisup("stop 0")
    entries = own.ledger(0)
    files = [entry for entry in entries if entry["kind"] == "file"]
    assert sorted(entry["path"] for entry in files) == sorted(own.recordings("first") + own.recordings("next"))
    assert all(own.count_frames(entry["path"]) == entry["frames"] for entry in files)
    assert files[0]["frames"] == 50
    # The mark is in the file that FFmpeg wrote at that moment, or where the next one begins.
    assert path in [entry["path"] for entry in files]
    marks = [(entry["path"], entry["frame"], entry["take"]) for entry in entries if entry["kind"] == "mark"]
    assert marks == [(path, int(frame), "next")]
    # Between two files of one FFmpeg there is no time; the kill is the only gap since the start.
    gaps = [entry["cause"] for entry in entries if entry["kind"] == "gap" and entry["cause"] != "start"]
    assert gaps == ["killed"]
    whole = own.sdisup("export --take first /root").stdout
    assert own.count_frames("/root/port0_first.mp4") > 0, whole


def test_the_time_that_a_disk_has_left_is_the_same_for_any_selection(appliance: Machine) -> None:
    appliance.configure(small_ports(3))
    appliance.sdisup("start --all")
    for port in range(3):
        appliance.wait_recording(port, frames=50)
    of_all = json.loads(appliance.sdisup("status --json").stdout)[0]["disk_remaining_seconds"]
    of_one = json.loads(appliance.sdisup("status 0 --json").stdout)[0]["disk_remaining_seconds"]
    assert 0.7 < of_one / of_all < 1.4


OPERATORS = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.freedesktop.systemd1.manage-units" && subject.isInGroup("operators") &&
        /^sdi-record@(0|1)\\.service$/.test(action.lookup("unit")) &&
        ["start", "stop", "restart"].indexOf(action.lookup("verb")) >= 0) return polkit.Result.YES;
});
"""


def test_who_may_start_and_stop_some_ports_restarts_them(fresh_appliance: Machine) -> None:
    """polkit has a verb of its own for what a start does first; a port that is refused holds up no other."""
    own = fresh_appliance
    own.write("/etc/sysusers.d/op.conf", "g operators -\nu op - - /tmp\nm op operators\n")
    own.run("systemd-sysusers")
    own.write("/etc/polkit-1/rules.d/50-sdisup.rules", OPERATORS)
    own.configure(small_ports(3))
    for words, ports in (("start", (0, 1)), ("restart", (0, 1)), ("stop", (0, 1)), ("start", (0, 1))):
        result = own.run(f"runuser -u op -- sdisup {words} 0-2", check=False, timeout_s=60)
        assert "port 2" in result.stderr and "no permission" in result.stderr, result.stderr
        for port in ports:
            if words == "stop":
                assert own.active_state(port) == "inactive", result.stderr
            else:
                own.wait_recording(port)
        assert own.active_state(2) == "inactive"
    # A locked port is stopped by root alone, who says so.
    own.configure(small_ports(3, "[port.1]\nlock = true\n"))
    result = own.run("runuser -u op -- sdisup stop 0-1", check=False, timeout_s=60)
    assert "port 1 is locked and goes on (recording)" in result.stderr, result.stderr
    result = own.run("runuser -u op -- sdisup stop 1 --unlock", check=False)
    assert "locked, and only root stops it all the same" in result.stderr
    assert own.run("runuser -u op -- systemctl stop --no-ask-password sdi-record@1", check=False).returncode != 0
    own.sdisup("stop 1", code=1)
    assert [own.active_state(port) for port in (0, 1)] == ["inactive", "active"]
    # An apply leaves it as it is, and says how it is restarted.
    own.configure(small_ports(3, "[port.1]\nlock = true\nthreads = 3\n"))
    text = "port 1 is locked and records on with its former unit; sdisup apply --restart --unlock"
    assert text in own.sdisup("apply --restart").stderr
    own.sdisup("stop 1 --unlock")
    assert own.active_state(1) == "inactive"
    own.configure(small_ports(3))
    assert own.run("ls /etc/polkit-1/rules.d").stdout.split() == ["50-sdisup.rules"]


def test_commands_at_once_lose_nothing(appliance: Machine) -> None:
    appliance.configure(small_ports(3))
    for number in range(4):
        command = "disable" if number % 2 else "enable"
        appliance.run(f"for port in 0 1 2; do sdisup {command} $port & done; wait", timeout_s=60)
        assert {status["port_index"] for status in appliance.statuses() if status["should_record"]} == {0, 1, 2}
        known = json.loads(appliance.read("/var/lib/sdisup/applied.json"))["ports"].values()
        assert [port["record_at_boot"] for port in known] == [command == "enable"] * 3
        wanted = appliance.run("ls /etc/systemd/system/sdi-record.target.wants", check=False).stdout.split()
        assert len(wanted) == (3 if command == "enable" else 0)


def test_a_plain_systemctl_enable_is_reported_and_undone(appliance: Machine) -> None:
    appliance.configure(small_ports(2, "[port.0]\nrecord_at_boot = true\n"))
    appliance.run("systemctl enable sdi-record@1 && systemctl disable sdi-record@0")
    result = appliance.sdisup("apply")
    assert "sdi-record@1.service was enabled with systemctl" in result.stderr
    assert "sdi-record@0.service was disabled with systemctl" in result.stderr
    state = appliance.run("systemctl is-enabled sdi-record@0 sdi-record@1", check=False).stdout.split()
    assert state == ["enabled", "disabled"]


@BOTH_DEBIANS
def test_after_a_reboot_the_ports_that_should_record_do(fresh_appliance: Machine) -> None:
    fresh_appliance.configure(small_ports(3, "[port.0]\nrecord_at_boot = true\n[port.2]\nrecord_at_boot = true\n"))
    for port in (0, 2):
        fresh_appliance.wait_recording(port)
    # An operator's stop holds until the next boot, not longer; apply respects it.
    fresh_appliance.sdisup("stop 2")
    assert fresh_appliance.sdisup("apply").stdout == "nothing to change\n"
    assert fresh_appliance.sdisup("status").returncode == 0
    assert fresh_appliance.reboot() == "running"
    for port in (0, 2):
        fresh_appliance.wait_recording(port)
    assert fresh_appliance.active_state(1) == "inactive"
    assert fresh_appliance.sdisup("status").returncode == 0
    assert len(fresh_appliance.recordings()) == 4
    for path in fresh_appliance.recordings()[:1]:
        assert fresh_appliance.count_frames(path) > 0


def test_after_a_power_cut_they_record_again(fresh_appliance: Machine) -> None:
    fresh_appliance.configure(small_ports(2, "[port.1]\nrecord_at_boot = true\n"))
    before = fresh_appliance.wait_recording(1, frames=50)
    fresh_appliance.power_cut()
    assert fresh_appliance.boot() == "running"
    after = fresh_appliance.wait_recording(1, frames=25)
    assert after["current_file"] != before["current_file"]
    assert fresh_appliance.count_frames(before["current_file"]) >= 50 - 13


@BOTH_DEBIANS
def test_after_kill_9_it_records_again_with_exactly_one_ffmpeg(appliance: Machine) -> None:
    appliance.configure(small_ports(3))
    appliance.sdisup("start 0-2")
    # FFmpeg of one port is killed, and the runner of another port.
    victims = {1: "ffmpeg_pid", 2: "pid"}
    other = appliance.wait_recording(0, frames=50)
    before = {port: appliance.wait_recording(port, frames=50) for port in victims}
    appliance.run(["kill", "-9", *(str(before[port][victim]) for port, victim in victims.items())])
    for port in victims:
        appliance.wait_for(lambda: appliance.status(port)["restarts"] == 1, 10, "it counts a restart", poll_s=0.05)  # noqa: B023
        after = appliance.wait_recording(port, frames=25)
        assert after["current_file"] != before[port]["current_file"]
        assert after["take_frames"] >= before[port]["frame_count"] + 25
        # At most half a second of the frames that FFmpeg had counted is lost.
        assert appliance.count_frames(before[port]["current_file"]) >= before[port]["frame_count"] - 13
    assert len(appliance.ffmpegs()) == 3
    assert appliance.status(0)["ffmpeg_pid"] == other["ffmpeg_pid"]


def test_ports_that_hang_and_crash_do_not_hold_up_the_boot(new_appliance: Callable[..., Machine]) -> None:
    own = new_appliance()
    own.boot()
    for name, text in (("hang", HANGING_FFMPEG), ("crash", CRASHING_FFMPEG)):
        own.write(f"/usr/local/bin/ffmpeg-{name}", text, mode=0o755)
    own.configure(small_ports(4, "record_at_boot = true\n"))
    for port, name in ((1, "hang"), (2, "crash")):
        unit = f"/etc/systemd/system/sdi-record@{port}.service.d"
        line = own.read(f"{unit}/10-sdisup.conf").replace("    /usr/bin/ffmpeg ", f"    /usr/local/bin/ffmpeg-{name} ")
        own.write(f"{unit}/20-test.conf", line)
    own.shutdown()
    own.boot(wait="bus")
    own.wait_for(
        lambda: own.run("systemctl is-active multi-user.target", check=False).returncode == 0, 60, "multi-user"
    )
    # By systemd's own clock: READY comes 5 s after the first spawn, not at TimeoutStartSec=.
    shown = own.run("systemctl show -P InactiveExitTimestampMonotonic -P ActiveEnterTimestampMonotonic sdi-record@1")
    began, active = (int(text) for text in shown.stdout.split())
    assert 5e6 <= active - began < 2 * 5e6
    assert own.run("systemctl is-system-running --wait", check=False).stdout.strip() in ("running", "degraded")
    for port in (0, 3):
        own.wait_recording(port)
    own.wait_state(1, "starting")
    crashed = own.wait_state(2, "backoff")
    assert crashed["reason"] == "FFmpeg exited with 3: the card is on fire"
    assert own.sdisup("status", code=3).stdout.count("recording") == 2


test_ports_that_hang_and_crash_do_not_hold_up_the_boot = pytest.mark.journal_allows(
    r"the card is on fire", r"Failed to start sdi-record@2"
)(test_ports_that_hang_and_crash_do_not_hold_up_the_boot)


@DEBIAN_12_IF_SLOW
@pytest.mark.journal_allows(r"Unknown encoder|cannot work|Failed to start|Error|maybe incorrect parameters")
def test_what_cannot_work_is_said_at_once_and_not_retried(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    unit = "/etc/systemd/system/sdi-record@1.service.d"
    broken = appliance.read(f"{unit}/10-sdisup.conf").replace("-c:v libx264", "-c:v nonsense")
    appliance.write(f"{unit}/20-test.conf", broken)
    appliance.run("systemctl daemon-reload")
    result = appliance.sdisup("start 0,1", code=1)
    assert "port 1 does not record: cannot work: Unknown encoder 'nonsense'" in result.stderr
    assert "port 0 records to" in result.stdout
    plain = appliance.run("systemctl start sdi-record@1", check=False)
    assert plain.returncode != 0
    shown = appliance.run("systemctl show -P StatusText -P ExecMainStatus -P NRestarts sdi-record@1").stdout
    assert "cannot work: Unknown encoder 'nonsense'" in shown
    assert "78" in shown.split()
    failed = appliance.status(1)
    assert (failed["state"], failed["should_record"]) == ("failed", True)
    # A stop ends the state `failed`, and apply respects the stop.
    appliance.sdisup("stop 1")
    assert appliance.status(1)["state"] == "stopped"
    # Nor is a port left recording that belongs together with it; what it recorded is kept.
    appliance.sdisup("stop 0")
    result = appliance.sdisup("start 0,1 --all-or-none --take gang", code=1)
    why = "port 1 does not record: cannot work: Unknown encoder 'nonsense'"
    assert f"port 0 is stopped again: {why}" in result.stderr and f"\n{why}" in f"\n{result.stderr}"
    assert [appliance.active_state(port) for port in (0, 1)] == ["inactive", "inactive"]
    appliance.sdisup("start 0")
    entries = appliance.ledger(0)
    assert [entry["by"] for entry in entries if entry["kind"] == "stop"][-1] == "gang", entries
    (file,) = [entry for entry in entries if entry["kind"] == "file" and entry["take"] == "gang"]
    assert appliance.count_frames(file["path"]) == file["frames"] > 0
    assert appliance.recordings("port1") == []


def test_status_is_said_in_a_table_and_by_its_exit_code(appliance: Machine) -> None:
    appliance.configure(small_ports(2, '[port.1]\nname = "CAM1"\n'))
    appliance.sdisup("start CAM1")
    appliance.wait_recording(1, frames=25)
    table = appliance.sdisup("status").stdout.splitlines()
    assert table[0].split() == "PORT NAME STATE FOR FRAMES FPS SPEED Mb/s LEFT DROPPED FILE REASON".split()
    assert table[1].split()[:3] == ["0", "port0", "stopped"]
    assert table[2].split()[:3] == ["1", "CAM1", "recording"]
    assert json.loads(appliance.sdisup("status 0 --json").stdout)[0]["port_index"] == 0
    unknown = appliance.sdisup("status 5", code=4)
    assert "5: no such port is configured" in unknown.stderr


@pytest.mark.journal_allows(r"watchdog|Watchdog|Failed with result")
def test_a_frozen_runner_and_a_frozen_ffmpeg_are_seen_and_replaced(appliance: Machine) -> None:
    appliance.configure(small_ports(2, "stall_timeout_s = 4\nstop_quit_s = 0.5\nstop_term_s = 0.5\n"))
    appliance.sdisup("start 0,1")
    before = {port: appliance.wait_recording(port, frames=25) for port in (0, 1)}
    appliance.run(["kill", "-STOP", str(before[0]["pid"]), str(before[1]["ffmpeg_pid"])])
    assert appliance.wait_state(1, "stalled", timeout_s=6)["is_recording"] is False
    # When which step is taken: unit/test_replay.py.
    appliance.wait_for(lambda: appliance.status(1)["restarts"] == 1, 30, "the stall is acted upon", poll_s=0.05)
    # The runner's status is old by then, and systemd's watchdog ends the runner.
    assert "no word from the runner" in appliance.wait_state(0, "unknown", timeout_s=9)["reason"]
    appliance.wait_for(lambda: appliance.status(0)["restarts"] == 1, 20, "the watchdog has acted", poll_s=0.2)
    for port in (0, 1):
        appliance.wait_recording(port, frames=10)
    assert len(appliance.ffmpegs()) == 2


# What happens to a directory, and what the status says; the last one is all right.
BROKEN = {
    "/srv/a": ("rmdir /srv/a", "does not exist; mount it or make it: install -d"),
    "/srv/b": ("chown root:root /srv/b; chmod 0755 /srv/b", "is not writable by the user sdisup"),
    "/srv/c": ("rmdir /srv/c; touch /srv/c", "no file can be made in"),
    "/srv/d": ("true", ""),
}


def test_a_recordings_directory_that_is_missing_heals_by_itself(appliance: Machine) -> None:
    ports = "".join(f"[port.{port}]\nrecordings = '{directory}'\n" for port, directory in enumerate(BROKEN))
    make = "".join(f"rm -rf {path}; install -d -o sdisup -g sdisup -m 2775 {path};" for path in BROKEN)
    try:
        appliance.run(make)
        appliance.configure(small_ports(4, ports))
        appliance.run("; ".join(prepare for prepare, _ in BROKEN.values()))
        result = appliance.sdisup("start --all --wait 1", code=1)
        said = {line.split(":")[0]: line for line in result.stderr.splitlines()}
        for port, (directory, (_, words)) in enumerate(BROKEN.items()):
            assert words in said.get(f"port {port}", ""), result.stderr
            assert directory in said.get(f"port {port}", directory)
        assert "port 3 records to" in result.stdout
        appliance.run(make.partition("rm -rf /srv/d")[0])
        for port in range(4):
            appliance.wait_recording(port)
        assert appliance.status(3)["restarts"] == 0
    finally:
        appliance.run(f"sdisup stop --all; rm -rf {' '.join(BROKEN)}")


@DEBIAN_12_IF_SLOW
@pytest.mark.journal_allows(r"NAMESPACE|mount namespacing|Failed to start|226")
def test_a_runner_that_cannot_be_executed_heals(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.write("/etc/systemd/system/sdi-record@0.service.d/90.conf", "[Service]\nReadWritePaths=/nonexistent\n")
    appliance.run("systemctl daemon-reload; systemctl start sdi-record@0", check=False)
    cursor = appliance.journal_cursor()
    appliance.wait_for(
        lambda: any("Starts port 0 again" in str(entry["MESSAGE"]) for entry in appliance.journal(after_cursor=cursor)),
        20,
        "the loop ended and another try is due",
        poll_s=0.5,
    )
    # The unit is mended while the port waits: the try that waits already succeeds.
    appliance.run("rm /etc/systemd/system/sdi-record@0.service.d/90.conf; systemctl daemon-reload")
    cursor = appliance.journal_cursor()
    appliance.wait_recording(0, timeout_s=60)
    tries = [e for e in appliance.journal(after_cursor=cursor) if "Starts port 0 again" in str(e["MESSAGE"])]
    assert len(tries) <= 1


@BOTH_DEBIANS
@pytest.mark.journal_allows(r"NAMESPACE|mount namespacing|Failed to start|226")
def test_a_stop_ends_the_wait_of_a_runner_that_cannot_be_executed(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.write("/etc/systemd/system/sdi-record@0.service.d/90.conf", "[Service]\nReadWritePaths=/nonexistent\n")
    appliance.run("systemctl daemon-reload; systemctl start sdi-record@0", check=False)
    retry = ["systemctl", "is-active", "sdi-record-retry@0.service"]
    appliance.wait_for(lambda: appliance.run(retry, check=False).returncode == 0, 20, "the wait has begun", poll_s=0.05)
    appliance.run("systemctl stop sdi-record@0")
    assert appliance.run(retry, check=False).stdout.strip() == "inactive"
    assert appliance.active_state(0) in ("failed", "inactive")
    appliance.sdisup("stop 0")
    assert appliance.status(0)["state"] == "stopped"


@pytest.mark.journal_allows(r"SIGKILL|Failed with result|does not answer")
def test_a_stop_that_had_to_kill_stays_a_stop(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    appliance.run(
        "systemctl --no-block stop sdi-record@0; systemctl kill -s KILL --kill-whom=all sdi-record@0", check=False
    )
    appliance.wait_for(lambda: appliance.active_state(0) in ("failed", "inactive"), 15, "it is down", poll_s=0.1)
    # sdi-record-retry@.service would start the port again after 8 s.
    asked = "systemctl is-active sdi-record-retry@0"
    appliance.wait_for(
        lambda: appliance.run(asked, check=False).stdout.strip() != "activating", 5, "its condition was looked at"
    )
    assert appliance.run(asked, check=False).stdout.strip() in ("inactive", "failed")
    assert appliance.ffmpegs() == []


def test_two_recordings_in_one_second_do_not_share_a_file(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    for _ in range(3):
        appliance.sdisup("start 0")
        appliance.sdisup("stop 0")
    files = appliance.recordings()
    assert len(files) == 3
    assert all(appliance.count_frames(path) > 0 for path in files)


def test_recordings_survive_a_broken_configuration_and_a_new_installation(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0")
    before = appliance.wait_recording(0)
    appliance.write("/etc/sdisup/sdisup.toml", "ports = = 3\n")
    problem = appliance.sdisup("apply", code=2)
    assert "/etc/sdisup/sdisup.toml" in problem.stderr
    assert "line 1" in problem.stderr
    # Commands read what apply did, and the runner reads its unit.
    assert appliance.sdisup("start 1").stdout.startswith("port 1 records to")
    appliance.sdisup("stop 1")
    appliance.write("/etc/sdisup/sdisup.toml", small_ports(2))
    appliance.run("cd /root/sdisup && ./install.sh")
    after = appliance.wait_recording(0, frames=before["frame_count"] + 25)
    assert (after["ffmpeg_pid"], after["restarts"]) == (before["ffmpeg_pid"], 0)
