"""The Python interface on a real systemd, in programs that run inside the appliance."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from drive import PRELUDE, RECORDINGS, Machine, small_ports


def test_the_promises_of_the_interface(appliance: Machine) -> None:
    appliance.configure(small_ports(8))
    found = appliance.python(
        """
out = {"count": settings.deltacast_port_count}
out["started"] = manager.start_recording(3).as_dict()
out["again"] = caught(manager.start_recording, 3)
out["wrong"] = [caught(call, index) for call in (manager.start_recording, manager.stop_recording, manager.get_status)
                for index in (9, -1, 8, True, "3", None)]
out["all"] = [status.port_index for status in manager.get_all_status()]
out["one"] = isinstance(manager.get_status(3), PortStatus)
manager.stop_recording(3)
manager.stop_recording(3)
out["stopped"] = manager.get_status(3).as_dict()
out["command"] = FFmpegCommandBuilder(settings).build_command(RecorderConfig(codec=CodecType.PRORES))
print(json.dumps(out))
""",
    )
    assert found["count"] == 8
    assert found["started"]["state"] == "recording"
    assert found["started"]["is_recording"] is True
    assert "RuntimeError" in found["again"][1]
    for name, kinds, message in found["wrong"]:
        assert "ValueError" in kinds, name
        assert message.startswith("Invalid port index ")
        assert message.endswith("Valid range: 0-7")
    assert found["wrong"][0][2] == "Invalid port index 9. Valid range: 0-7"
    assert found["all"] == list(range(8))
    assert found["one"] is True
    assert (found["stopped"]["state"], found["stopped"]["uptime_seconds"]) == ("stopped", 0)
    assert found["command"][0] == "/usr/bin/ffmpeg"
    assert found["command"][-1] == "{output}"
    assert "prores_aw" in found["command"]
    assert len(appliance.recordings()) == 1


def test_many_threads_at_once(appliance: Machine) -> None:
    appliance.configure(small_ports(4))
    found = appliance.python(
        """
problems = []
def drive(port):
    try:
        for _ in range(3):
            manager.start_recording(port)
            assert manager.get_status(port).state == "recording", manager.get_status(port)
            assert len(manager.get_all_status()) == 4
            manager.stop_recording(port)
    except BaseException as error:
        problems.append(repr(error))
threads = [threading.Thread(target=drive, args=(port,)) for port in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(problems))
""",
    )
    assert found == []
    assert len(appliance.recordings()) == 12
    assert appliance.ffmpegs() == []


def test_two_programs_start_one_port_and_one_wins(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    for _ in range(3):
        found = appliance.python(
            """
results = []
barrier = threading.Barrier(4)
def start():
    own = RecorderManager(settings)
    barrier.wait()
    results.append(caught(own.start_recording, 0))
threads = [threading.Thread(target=start) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
manager.stop_recording(0)
print(json.dumps(results))
""",
        )
        assert found.count(None) == 1, found
        assert all("RuntimeError" in result[1] for result in found if result)
    assert list(appliance.path("/run/sdisup/requests").iterdir()) == []


RACE = """
import io, itertools, json, multiprocessing, sys, time
from contextlib import redirect_stderr, redirect_stdout
sys.path.insert(0, "/usr/lib/sdisup")
import sdisup.control.systemd
from sdisup import RecorderConfig, RecorderManager, Settings
from sdisup.cli.main import main

def python(**values):
    try:
        print("records to", RecorderManager(settings).start_recording(0, RecorderConfig(**values)).current_file)
    except RuntimeError as error:
        print(error)
        return 1
    return 0

STARTS = {
    "command": lambda number: main(["start", "0"]),
    "command, take": lambda number: main(["start", "0", "--take", f"t{number}"]),
    "Python": lambda number: python(),
    "Python, take": lambda number: python(take=f"t{number}"),
}

def start(kind, number, lag_s):
    said, code = io.StringIO(), 99
    try:
        barrier.wait()
        time.sleep(number * lag_s)
        with redirect_stdout(said), redirect_stderr(said):
            code = STARTS[kind](number)
    finally:
        answers.put([number, code, said.getvalue()])

def stop():
    manager = RecorderManager(settings)
    takes.put(manager.get_status(0).take)
    manager.stop_recording(0)

def run(*programs):
    [program.start() for program in programs]
    [program.join() for program in programs]

# The programs are forks of this one, which therefore does not use D-Bus itself.
fork = multiprocessing.get_context("fork")
settings = Settings.load()
barrier, answers, takes = fork.Barrier(2), fork.SimpleQueue(), fork.SimpleQueue()
found = []
for kinds in itertools.combinations_with_replacement(STARTS, 2):
    for lag_s in LAGS_S:
        run(*(fork.Process(target=start, args=(kind, number, lag_s)) for number, kind in enumerate(kinds)))
        run(fork.Process(target=stop))
        found.append([kinds, sorted(answers.get() for _ in kinds), takes.get()])
print(json.dumps(found))
"""


@pytest.mark.parametrize("lags_s", [[0, 0.002], pytest.param([0, 0, 0.002, 0.05], marks=pytest.mark.slow)], ids=len)
def test_two_programs_that_start_one_port_get_the_same_answers(appliance: Machine, lags_s: list[float]) -> None:
    """A plain command wants the port recording and gets that; of those that want a start of their own one gets it."""
    appliance.configure(small_ports(1))
    found = json.loads(appliance.run(["python3", "-c", f"LAGS_S = {lags_s}\n{RACE}"], timeout_s=120).stdout)
    assert len(found) == 10 * len(lags_s)
    for kinds, answers, take in found:
        winners = [number for number, code, _ in answers if code == 0]
        if "command" not in kinds:
            assert len(winners) == 1, (kinds, answers)
        for number, _, text in answers:
            if kinds[number] == "command":
                assert number in winners, (kinds, answers)
            elif number not in winners:
                assert re.search(r"is already started \([a-z-]+\)|was started by another program", text), answers
            elif "take" in kinds[number]:
                assert take == f"t{number}", (kinds, answers, take)
    said = " ".join(text for _, answers, _ in found for _, _, text in answers)
    assert said.count("was started by another program at the same moment") > 2, said
    assert list(appliance.path("/run/sdisup/requests").iterdir()) == []


def test_an_earlier_take_is_no_other_program(appliance: Machine) -> None:
    """The status file says the request of the take before until the new runner has written its own."""
    appliance.configure(small_ports(1))
    for take in ("one", "two", "three"):
        result = appliance.sdisup(f"start 0 --take {take} --wait 0", code=1)
        assert "another program" not in result.stderr
        assert appliance.wait_recording(0)["take"] == take
        appliance.sdisup("stop 0")


def test_d_bus_goes_away_and_comes_back(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    found = appliance.python(
        """
import subprocess
out = [manager.start_recording(0).state]
subprocess.run(["systemctl", "stop", "dbus.socket", "dbus.service"], check=True)
out.append(manager.get_status(0).state)
out.append(caught(manager.start_recording, 1)[2])
subprocess.run(["systemctl", "start", "dbus.socket", "dbus.service"], check=True)
out.append(manager.start_recording(1).state)
manager.stop_recording(0); manager.stop_recording(1)
out.append([status.state for status in manager.get_all_status()])
print(json.dumps(out))
""",
    )
    assert found[0] == found[1] == found[3] == "recording"
    assert "systemd cannot be reached" in found[2]
    assert found[4] == ["stopped", "stopped"]


def test_a_take_has_a_name_a_codec_and_a_directory(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    found = appliance.python(
        f"""
config = RecorderConfig(codec=CodecType.PRORES, recording_path="{RECORDINGS}/final", name="FINAL", take="final-1")
out = [manager.start_recording(1, config).as_dict()]
for wrong in (dict(take="../../x"), dict(recording_path="/etc"), dict(container="mkv8"), dict(name="a/b"),
              dict(recording_path="{RECORDINGS}/../../etc"), dict(codec=CodecType.PRORES, container="mp4")):
    out.append(caught(manager.start_recording, 0, RecorderConfig(**wrong)))
print(json.dumps(out))
""",
    )
    started = found[0]
    assert (started["take"], started["codec"]) == ("final-1", "prores")
    assert started["current_file"].startswith(f"{RECORDINGS}/final/FINAL_20")
    assert started["current_file"].endswith(".mov")
    assert all("ConfigError" in problem[1] for problem in found[1:]), found[1:]
    # The take survives a crash of FFmpeg and of the runner, and not a stop.
    for number, victim in enumerate(("ffmpeg_pid", "pid"), start=1):
        appliance.run(["kill", "-9", str(appliance.wait_recording(1, frames=5)[victim])])
        after = wait_restart(appliance, number)
        assert (after["take"], after["codec"]) == ("final-1", "prores")
    appliance.sdisup("stop 1")
    appliance.run("systemctl start sdi-record@1")
    plain = appliance.wait_recording(1, frames=5)
    assert (plain["take"], plain["codec"]) == (None, "h264")
    assert plain["current_file"].startswith(f"{RECORDINGS}/port1_20")
    files = appliance.run(f"find {RECORDINGS}/final -type f").stdout.split()
    assert len(files) == 3
    assert all(appliance.count_frames(path) > 0 for path in files)


def wait_restart(appliance: Machine, number: int) -> dict[str, Any]:
    def is_back() -> dict[str, Any] | None:
        found = appliance.status(1)
        return found if found["restarts"] == number and found["is_recording"] else None

    return appliance.wait_for(is_back, 20, f"restart {number}", poll_s=0.05)


def test_takes_on_the_command_line(appliance: Machine) -> None:
    appliance.configure(small_ports(3))
    result = appliance.sdisup("start 0,1 --take final.1 --codec prores --path f")
    assert result.stdout.count(f"records to {RECORDINGS}/f/port") == 2
    assert appliance.status(0)["take"] == "final.1"
    refused = appliance.sdisup("start 0,2 --take other", code=1)
    assert "port 0 is already started (recording); stop it first" in refused.stderr
    assert "port 2 records to" in refused.stdout
    assert (appliance.status(0)["take"], appliance.status(2)["take"]) == ("final.1", "other")
    listed = appliance.sdisup("recordings --take final.1 --json").stdout
    assert {row["port_index"] for row in json.loads(listed)["recordings"]} == {0, 1}
    appliance.sdisup("stop 2")
    assert appliance.sdisup("verify 2").stdout.count(f"{RECORDINGS}/port2_") == 1
    assert "unknown codec 'x'" in appliance.sdisup("start 2 --codec x", code=2).stderr
    appliance.sdisup("stop --all")
    for wrong in ("--take ../../x", "--path /etc", f"--path {RECORDINGS}/../x"):
        appliance.sdisup(f"start 0 {wrong}", code=2)
    assert appliance.ffmpegs() == []


def test_a_take_is_not_lost_for_want_of_patience(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0 --take hasty --no-wait")
    assert appliance.wait_recording(0)["take"] == "hasty"


def test_a_plain_start_that_comes_first_is_not_taken_for_the_take(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    # systemctl starts the port without a request. Then the program starts it, which has just seen it stopped.
    found = appliance.python(
        """
import subprocess
from sdisup.control import ports as module
leave = module.leave_take_request
def late(port, request):
    subprocess.run(["systemctl", "start", "sdi-record@0"], check=True)
    leave(port, request)
module.leave_take_request = late
print(json.dumps(caught(manager.start_recording, 0, RecorderConfig(take="mine"))))
""",
    )
    assert "RuntimeError" in found[1]
    assert "started by another program" in found[2]
    assert appliance.status(0)["take"] is None


HOSTILE = {
    "link": "is not honoured",
    "huge": "cannot be read",
    "yesterday": "another boot",
    "expired": "s old",
    "traversal": "cannot be a take's name",
    "torn": "no JSON",
    "future": "s old",
    "fifo": "cannot be read",
    "path": "is not at or below",
    "argv": "cannot be run",
}
LEAVE_HOSTILE = """
from sdisup.contract.files import boottime_ns
from sdisup.contract.files import boot_id
good = {"take": "t", "created_boottime_ns": boottime_ns(), "boot_id": boot_id(), "argv": None, "recording_path": None}
evils = {"link": {}, "huge": {"take": "x" * (1 << 20)}, "yesterday": {"boot_id": "0" * 36},
         "expired": {"created_boottime_ns": boottime_ns() - 31 * 10**9},
         "future": {"created_boottime_ns": boottime_ns() + 10**12},
         "traversal": {"take": "../../x"}, "torn": {}, "fifo": {}, "path": {"recording_path": "/etc"},
         "argv": {"argv": ["/bin/sh", "-c", "id"]}}
for port, kind in enumerate(sys.argv[1:]):
    path = f"/run/sdisup/requests/{port}.json"
    text = json.dumps({**good, **evils[kind]})
    if kind == "link":
        open("/root/secret.json", "w").write(text); os.symlink("/root/secret.json", path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        open(path, "w").write(text[:40] if kind == "torn" else text)
"""


@pytest.mark.journal_allows(r"/run/sdisup/requests/[0-9]+\.json")
def test_a_hostile_request_changes_nothing(appliance: Machine) -> None:
    appliance.configure(small_ports(len(HOSTILE)))
    appliance.run(["python3", "-c", PRELUDE + LEAVE_HOSTILE, *HOSTILE])
    cursor = appliance.journal_cursor()
    appliance.run("systemctl start " + " ".join(f"sdi-record@{port}" for port in range(len(HOSTILE))))
    for port, (kind, words) in enumerate(HOSTILE.items()):
        found = appliance.wait_recording(port)
        assert (found["take"], found["codec"]) == (None, "h264"), kind
        entries = appliance.journal("-u", f"sdi-record@{port}", after_cursor=cursor)
        said = [str(entry["MESSAGE"]) for entry in entries if "recording as it is configured" in str(entry["MESSAGE"])]
        assert len(said) == 1, kind
        # The runner does not follow a link; the message is the system's.
        assert words in said[0] or kind == "link", said
    assert list(appliance.path("/run/sdisup/requests").iterdir()) == []


def test_a_request_that_is_not_of_root_may_only_name_a_take(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    program = """
from sdisup.contract.requests import Request, leave_request
argv = ["/usr/bin/touch", "/run/sdisup/owned", "{output}"]
leave_request(0, Request(take="mine", request_id="1", argv=argv, recording_path="/tmp", name="OTHER"))
print("[]")
"""
    appliance.python(program, user="sdisup")
    appliance.sdisup("start 0")
    found = appliance.wait_recording(0)
    assert found["take"] == "mine"
    assert found["current_file"].startswith(f"{RECORDINGS}/port0_")
    assert not appliance.path("/run/sdisup/owned").exists()


def test_enable_and_disable(appliance: Machine) -> None:
    appliance.configure(small_ports(3))
    result = appliance.sdisup("enable 1,2")
    assert "port 1 records at boot" in result.stdout
    assert "port 2 records to" in result.stdout
    assert appliance.run("systemctl is-enabled sdi-record@1 sdi-record@2").stdout.split() == ["enabled"] * 2
    assert "record_at_boot = true" in appliance.read("/etc/sdisup/sdisup.toml.d/90-set.toml")
    assert appliance.sdisup("apply").stdout == "nothing to change\n"
    appliance.sdisup("disable 2")
    assert appliance.status(2)["state"] == "recording"
    assert appliance.run("systemctl is-enabled sdi-record@2", check=False).stdout.strip() == "disabled"
    assert appliance.sdisup("apply").stdout == "nothing to change\n"
    appliance.sdisup("enable 7", code=4)
    appliance.sdisup("enable", code=2)
    appliance.write("/etc/sdisup/sdisup.toml.d/95-mine.toml", "[port.1]\nrecord_at_boot = true\n")
    before = appliance.read("/etc/sdisup/sdisup.toml.d/90-set.toml")
    assert "does not hold" in appliance.sdisup("disable 1", code=1).stderr
    # A failed start leaves no request behind, nor does one of a port that is no longer configured.
    assert appliance.read("/etc/sdisup/sdisup.toml.d/90-set.toml") == before
    appliance.run("rm /etc/sdisup/sdisup.toml.d/*")
    appliance.configure(small_ports(1), apply=False)
    assert "no longer configured" in appliance.sdisup("enable 2", code=1).stderr
    assert not appliance.path("/etc/sdisup/sdisup.toml.d/90-set.toml").exists()


def test_logs_shows_the_port_and_no_other(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    appliance.sdisup("start 0,1")
    appliance.run("journalctl --sync")
    shown = appliance.sdisup("logs 1 --boot --lines 200 --since=-5min").stdout
    assert "port 1 (port1): FFmpeg" in shown
    assert "port 0" not in shown
    both = appliance.sdisup("logs -n 400").stdout
    assert "port 0 (port0): FFmpeg" in both
    assert "port 1 (port1): FFmpeg" in both
