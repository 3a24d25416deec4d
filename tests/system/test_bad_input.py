"""Mistakes and failures around sdisup give a clear message and the right exit code, and nothing is lost."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from drive import Machine, small_ports

pytestmark = pytest.mark.beside

CONFIGURATION = "/etc/sdisup/sdisup.toml"
WRITTEN = "find /etc/sdisup /etc/systemd/system /var/lib/sdisup -path '*/ledger/*' -prune -o -ls"
NO_BUS = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"}


INVALID = {
    f"rm -f {CONFIGURATION}": ["there is no such file", "sdisup init"],
    f"rm -f {CONFIGURATION}; mkdir {CONFIGURATION}": ["it is not a regular file"],
    f"printf '[appliance]\\nports = = 3\\n' > {CONFIGURATION}": ["sdisup.toml", "line 2"],
    f"printf '\\377\\376' > {CONFIGURATION}": ["UTF-8"],
    f"printf '[appliance]\\nportz = 3\\n[defaults]\\ncodec = \"h265x\"\\n[port.9]\\n' > {CONFIGURATION}": [
        "appliance.portz: unknown key; did you mean 'ports'?",
        "defaults.codec: unknown codec 'h265x'",
        "port.9:",
    ],
    f"printf '[port.1]\\nrecord_at_boot = 1\\n' > {CONFIGURATION}": [
        "port.1.record_at_boot: must be true or false",
    ],
}


def test_an_invalid_configuration_changes_nothing(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0")
    units = appliance.run("cat /etc/systemd/system/sdi-record*/* /var/lib/sdisup/applied.json").stdout
    for prepare, words in INVALID.items():
        appliance.run(f"rm -rf {CONFIGURATION}; {prepare}")
        for command in ("apply", "apply --dry-run", "apply --restart"):
            result = appliance.sdisup(command, code=2)
            assert all(word in result.stderr for word in words), result.stderr
            assert result.stdout == ""
        assert appliance.run("cat /etc/systemd/system/sdi-record*/* /var/lib/sdisup/applied.json").stdout == units
    assert appliance.status(0)["restarts"] == 0
    appliance.sdisup("stop 0")


def test_without_permission_it_says_so_and_changes_nothing(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0")
    for command in ("start 1", "stop 0", "restart 0"):
        result = appliance.sdisup(command, code=1, user="nobody")
        assert "no permission" in result.stderr
        assert "run it as root" in result.stderr
    appliance.configure(small_ports(1), apply=False)
    assert "Permission denied" in appliance.sdisup("apply", code=1, user="nobody").stderr
    # Every user may ask for the status.
    assert "recording" in appliance.sdisup("status", user="nobody").stdout
    assert "--- /etc/systemd/system" in appliance.sdisup("apply --dry-run", user="nobody").stdout
    assert [found["port_index"] for found in appliance.statuses()] == [0, 1]


def test_without_systemd_it_says_so(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0")
    before = appliance.run(WRITTEN).stdout
    for command in ("start 1", "stop 0", "apply", "enable 1", "disable 0"):
        result = appliance.sdisup(command, code=1, env=NO_BUS)
        assert "systemd cannot be reached: there is no D-Bus system bus here" in result.stderr
        assert (result.stdout, appliance.run(WRITTEN).stdout) == ("", before), command
    # The files of a port that records settle its state; only other ports need systemd.
    shown = appliance.sdisup("status", code=3, env=NO_BUS).stdout.splitlines()
    assert shown[1].split()[2] == "recording"
    assert shown[2].split()[2] == "unknown"


@pytest.mark.slow
def test_a_bus_that_does_not_answer_is_said_in_time(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    bus = appliance.run("systemctl show -P MainPID dbus.service").stdout.strip()
    appliance.run(["kill", "-STOP", bus])
    commands = ("start 0", "apply --dry-run", "stop 0", "enable 0")
    before = appliance.run(WRITTEN).stdout
    try:
        with ThreadPoolExecutor() as pool:
            results = list(pool.map(lambda words: appliance.sdisup(words, code=1, timeout_s=40), commands))
        for result in results:
            assert "systemd did not answer in time" in result.stderr, result.stderr
        assert appliance.run(WRITTEN).stdout == before
    finally:
        appliance.run(["kill", "-CONT", bus])


@pytest.mark.slow
@pytest.mark.journal_allows(r".*")
def test_a_bus_that_goes_away_ends_the_wait_for_a_stop(fresh_appliance: Machine) -> None:
    deaf = '#!/bin/sh\ncase "$*" in *progress*) trap "" TERM; while :; do sleep 1; done ;; esac\nexec ffmpeg "$@"\n'
    fresh_appliance.write("/usr/local/bin/ffmpeg-deaf", deaf, mode=0o755)
    text = small_ports(1, "[port.0]\nstop_start_quit_s = 100\nstop_quit_s = 100\n")
    fresh_appliance.configure(text.replace("[defaults]", 'ffmpeg = "/usr/local/bin/ffmpeg-deaf"\n[defaults]'))
    fresh_appliance.sdisup("start 0 --no-wait")
    with fresh_appliance.popen(["sdisup", "stop", "0"]) as stop:
        fresh_appliance.wait_for(lambda: fresh_appliance.active_state(0) == "deactivating" or None, 20, "it stops")
        fresh_appliance.run("kill -KILL $(systemctl show -P MainPID dbus.service)")
        began = time.monotonic()
        out, err = stop.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert (stop.returncode, out) == (1, "")
    assert "D-Bus went away before systemd said how it ended (see: sdisup status)" in err
    fresh_appliance.run("systemctl kill --signal=KILL sdi-record@0", check=False)


def test_a_masked_port_does_not_keep_others_from_being_applied(appliance: Machine) -> None:
    appliance.run("systemctl mask sdi-record@1")
    appliance.configure(small_ports(3, "record_at_boot = true\n"), apply=False)
    result = appliance.sdisup("apply")
    assert "sdi-record@1.service is masked" in result.stderr
    for port in (0, 2):
        appliance.wait_recording(port)
    appliance.run("systemctl unmask sdi-record@1")


def test_a_masked_port_is_named_and_does_not_stop_the_others(appliance: Machine) -> None:
    appliance.configure(small_ports(3))
    appliance.run("systemctl mask sdi-record@1")
    result = appliance.sdisup("start 0-2", code=1)
    assert result.stderr == "port 1: sdi-record@1.service is masked (systemctl unmask sdi-record@1.service)\n"
    assert result.stdout.count("records to") == 2
    appliance.run("systemctl unmask sdi-record@1")


OVERRIDE = "/etc/systemd/system/sdi-record@0.service.d/override.conf"


@pytest.mark.slow
@pytest.mark.journal_allows(r"sdi-record@0|more than one ExecStart=")
def test_a_unit_that_does_not_run_sdisup_is_said(appliance: Machine) -> None:
    """By check, apply, and a restart, which does not wait for a word that never comes."""
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0,1")
    appliance.write(OVERRIDE, "[Service]\nExecStart=\nExecStart=/usr/bin/sleep 1000\n")
    appliance.run("systemctl daemon-reload")
    foreign = "port 0: ExecStart= of sdi-record@0.service is not sdisup's but '/usr/bin/sleep 1000'"
    assert foreign in appliance.sdisup("check", code=1).stdout
    for words in ("apply", "apply --dry-run"):
        assert f"warning: {foreign}" in appliance.sdisup(words).stderr
    restarted = appliance.sdisup("restart 0,1 --wait 2", code=1, timeout_s=30)
    assert f"port 0 does not record: {foreign.removeprefix('port 0: ')}" in restarted.stderr
    assert "port 1 records to" in restarted.stdout
    # Two commands: systemd refuses the unit.
    appliance.write(OVERRIDE, "[Service]\nExecStart=/usr/bin/sleep 1000\n")
    appliance.run("systemctl daemon-reload")
    refused = (
        "systemd does not take sdi-record@0.service (bad-setting); see: systemd-analyze verify sdi-record@0.service"
    )
    assert refused in appliance.sdisup("check", code=1).stdout
    assert refused in appliance.sdisup("apply").stderr
    assert "systemd-analyze verify" in appliance.sdisup("start 0", code=1).stderr
    # What an operator may well do is no problem.
    appliance.write(OVERRIDE, "[Service]\nNice=5\n")
    appliance.run("systemctl daemon-reload")
    assert appliance.sdisup("apply").stderr.count("ExecStart=") == 0
    appliance.sdisup("restart 0")


@pytest.mark.slow
@pytest.mark.journal_allows(r"/srv/late|read-only")
def test_a_directory_that_is_made_later_is_no_read_only_disk(appliance: Machine) -> None:
    appliance.configure(small_ports(1, '[port.0]\nrecordings = "/srv/late"\n'))
    appliance.run("systemctl start --no-block sdi-record@0")
    try:
        # In the middle of a wait, so that the runner of before it looks for the directory.
        appliance.wait_for(lambda: appliance.status(0)["restarts"] >= 4, 60, "its runner waits for some seconds")
        appliance.wait_state(0, "backoff")
        assert "/srv/late does not exist" in appliance.status(0)["reason"]
        appliance.run("install -d -o sdisup -g sdisup -m 2775 /srv/late")
        assert appliance.wait_recording(0, timeout_s=60)["current_file"].startswith("/srv/late/")
        said = " ".join(str(entry["MESSAGE"]) for entry in appliance.journal("-u", "sdi-record@0"))
        assert "/srv/late was made after this runner's start" in said
        assert "see: dmesg" not in said
    finally:
        appliance.sdisup("stop 0")
        appliance.run("rm -rf /srv/late")


@pytest.mark.journal_allows(r"sdi-record@0|Failed to set up mount namespacing")
def test_a_sandbox_that_cannot_be_set_up_is_named_and_its_time_is_a_gap(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    appliance.sdisup("stop 0")
    broken = "/etc/systemd/system/sdi-record@0.service.d/override.conf"
    appliance.write(broken, "[Service]\nBindPaths=/nowhere\n")
    appliance.run("systemctl daemon-reload")
    named = "systemd cannot start the unit: its sandbox cannot be set up (226/NAMESPACE); sdisup logs 0 says more"
    assert named in appliance.sdisup("start 0", code=1).stderr
    assert named in appliance.sdisup("status", code=3).stdout
    appliance.run("journalctl --sync")
    assert "/nowhere" in appliance.sdisup("logs 0").stdout
    appliance.wait_for(lambda: appliance.path("/run/sdisup/ports/0/unstarted").exists(), 20, "the ledger is told")
    appliance.run(f"rm {broken}; systemctl daemon-reload")
    appliance.sdisup("start 0")
    gap = json.loads(appliance.sdisup("gaps 0 --json").stdout)["gaps"][-1]
    assert gap["cause"] == "unit cannot be started", gap


WRONG_USES = [
    ("", 2, "arguments are required"),
    ("frobnicate", 2, "invalid choice"),
    ("start", 2, "which ports?"),
    ("stop", 2, "which ports?"),
    ("start 0 --all", 2, "ports and --all together"),
    ("start 1-0", 2, "from the lower to the higher"),
    ("start 0 --wait -1", 2, "0 to 3600"),
    ("start all", 4, "for all ports: --all"),
    ("start 0,7,CAM9", 4, "7, CAM9: no such port is configured"),
    ("stop 01", 4, "01: no such port"),
    ("status ' '", 4, "no such port"),
    ("restart sdi-record@9.service", 4, "no such port"),
]


def test_a_command_used_wrongly_says_how(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    for words, code, message in WRONG_USES:
        assert message in appliance.sdisup(words, code=code).stderr
    assert not appliance.path("/run/sdisup/0.json").exists()


def test_a_missing_ffmpeg_is_a_warning_then_a_reason_and_heals(appliance: Machine) -> None:
    missing = small_ports(2).replace("ports = 2", 'ports = 2\nffmpeg = "/usr/local/bin/own-ffmpeg"')
    appliance.configure(missing, apply=False)
    assert "warning: /usr/local/bin/own-ffmpeg: cannot be executed" in appliance.sdisup("apply").stderr
    result = appliance.sdisup("start 0 --wait 1", code=1)
    assert "/usr/local/bin/own-ffmpeg cannot be executed: No such file or directory" in result.stderr
    appliance.run("ln -s /usr/bin/ffmpeg /usr/local/bin/own-ffmpeg")
    appliance.wait_recording(0)
    appliance.run("rm /usr/local/bin/own-ffmpeg")


@pytest.mark.journal_allows(r"cannot work|Unknown input format|Unrecognized option|Error|Failed to start")
def test_an_ffmpeg_without_the_input_is_a_warning_and_then_cannot_work(appliance: Machine) -> None:
    appliance.configure("[appliance]\nports = 1\n", apply=False)
    assert "has no input 'videomaster'" in appliance.sdisup("apply").stderr
    result = appliance.sdisup("start 0", code=1)
    assert "port 0 does not record: cannot work: " in result.stderr
    # Nobody starts the port again; `gaps` lists the missing time all the same.
    gap = json.loads(appliance.sdisup("gaps 0 --json").stdout)["gaps"][-1]
    assert (gap["cause"], gap["ongoing"]) == ("cannot work", True)
    # A stop ends the gap, though no runner is there to tell the ledger.
    appliance.sdisup("stop 0")
    gap = json.loads(appliance.sdisup("gaps 0 --json").stdout)["gaps"][-1]
    assert (gap["cause"], gap["ongoing"]) == ("cannot work", False)
    appliance.sdisup("start 0", code=1)
    kinds = [line["kind"] for line in appliance.ledger(0)]
    assert kinds[-2:] == ["stop", "gap"]


TORN = ("", "{", "[]", "null", '{"schema": 1}', '{"schema": 1, "port_index": "0"}', "\x00\xff")


@pytest.mark.journal_allows(r"/run/sdisup/0.json cannot be read: .*; the take's frames are counted anew")
def test_a_torn_status_file_is_said_and_disturbs_nobody(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 1")
    for torn in TORN:
        appliance.path("/run/sdisup/0.json").write_text(torn, encoding="latin-1")
        found = {entry["port_index"]: entry["state"] for entry in appliance.statuses()}
        assert found == {0: "stopped", 1: "recording"}, torn
    appliance.sdisup("start 0")
    appliance.sdisup("stop --all")


KEEP_LOCK = """
import fcntl, os
lock = os.open("/run/sdisup/0.lock", os.O_RDWR | os.O_CREAT, 0o644)
fcntl.lockf(lock, fcntl.LOCK_EX)
os.read(os.open("/run/keeper.fifo", os.O_RDONLY), 1)
"""


@pytest.mark.slow
@pytest.mark.journal_allows(r"another runner records it already|Failed")
def test_a_lock_that_somebody_keeps_makes_no_storm(appliance: Machine) -> None:
    """A killed runner keeps its lock while one of its threads waits for a disk that hangs."""
    appliance.configure(small_ports(1))
    appliance.write("/root/keeper.py", KEEP_LOCK)
    appliance.run("mkfifo /run/keeper.fifo && systemd-run -q --unit=keeper python3 /root/keeper.py")
    appliance.wait_for(lambda: appliance.path("/run/sdisup/0.lock").exists(), 5, "the lock is made")
    cursor = appliance.journal_cursor()
    appliance.run("chown sdisup:sdisup /run/sdisup/0.lock; systemctl start sdi-record@0")
    shown = "systemctl show -P NRestarts sdi-record@0"
    appliance.wait_for(lambda: int(appliance.run(shown).stdout) >= 1, 12, "it was started again", poll_s=0.2)
    said = [str(entry["MESSAGE"]) for entry in appliance.journal("-u", "sdi-record@0", after_cursor=cursor)]
    assert len([text for text in said if "another runner records it already" in text]) in (1, 2), said
    appliance.run("echo > /run/keeper.fifo")
    appliance.wait_recording(0, timeout_s=15)
    appliance.run("rm /run/keeper.fifo")


def test_no_other_user_can_lock_a_port_or_the_ledger_out(appliance: Machine) -> None:
    """A shared lock that waits, on a file that can be read, is granted when the runner dies."""
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    before = appliance.wait_recording(0)
    for lock in ("0.lock", "ledger.lock"):
        tried = appliance.run(f"runuser -u nobody -- flock --shared --nonblock /run/sdisup/{lock} true", check=False)
        assert "Permission denied" in tried.stderr, tried
    appliance.kill(before["pid"])
    appliance.wait_restarts(0, 1)
    appliance.wait_recording(0)
    appliance.sdisup("stop 0")
    assert [entry["seconds"] < 2 for entry in appliance.ledger(0) if entry.get("cause") == "runner killed"] == [True]


def test_a_torn_record_of_what_was_applied_is_written_anew(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0")
    appliance.write("/var/lib/sdisup/applied.json", '{"ports": {"0')
    problem = appliance.sdisup("status", code=1)
    assert "applied.json cannot be read" in problem.stderr
    assert "sdisup apply writes it anew" in problem.stderr
    assert "wrote /var/lib/sdisup/applied.json" in appliance.sdisup("apply").stdout
    assert appliance.status(0)["state"] == "recording"


def test_a_unit_file_of_somebody_else_is_never_overwritten(appliance: Machine) -> None:
    appliance.write("/etc/systemd/system/sdi-record@.service", "[Service]\nExecStart=/bin/true\n")
    appliance.configure(small_ports(1), apply=False)
    result = appliance.sdisup("apply", code=1)
    assert "was not written by sdisup, and is not overwritten" in result.stderr
    assert appliance.read("/etc/systemd/system/sdi-record@.service") == "[Service]\nExecStart=/bin/true\n"
