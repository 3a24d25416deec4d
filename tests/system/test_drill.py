"""`sdisup drill`: what it measures is judged rightly, it passes where all is well, and nothing of it ever stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from appliance import Appliance, wait_for
from drive import configure, sdisup, small_ports, status_file, wait_recording

from sdisup.config.settings import Settings
from sdisup.config.table import MAX_PORTS
from sdisup.contract.status import PortStatus
from sdisup.control.units import Machine, render
from sdisup.drill import lost_signal as drill_signal
from sdisup.drill import stage as drill_stage
from sdisup.drill.faults import known_faults, send
from sdisup.drill.report import Limits, Result, exceeded, report_json, report_table, typical
from sdisup.drill.stage import PLAIN_PORT, SIGNAL_PORT, check_machine, render_ports
from sdisup.encode.command import Capabilities
from sdisup.errors import SdisupError

LIMITS = Limits(seen_s=1.0, again_s=0.15, acted_s=6.0)
GOOD = Result("x", "FFmpeg hurt", 0.5, 5.5, 0.4, 0.3, gap_s=0.7, entered_s=0.6, causes=("killed",))
CAPABILITIES = Capabilities("7.1", frozenset({"libx264", "aac"}), frozenset({"lavfi"}), hybrid_fragmented=True)


# ---- What is measured against what is promised ----


def test_what_is_within_its_bounds_is_good() -> None:
    assert exceeded(GOOD, LIMITS, 0.3, "killed") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seen_s": 1.01}, "seen: 1.01 s (limit 1.00 s)"),
        ({"seen_s": None}, "seen: never (limit 1.00 s)"),
        ({"acted_s": 6.5}, "acted upon: 6.50 s (limit 6.00 s)"),
        ({"acted_s": None}, "acted upon: never (limit 6.00 s)"),
        ({"again_s": 0.46}, "recording again: 0.46 s (limit 0.45 s)"),
        ({"again_s": None, "gap_s": None}, "recording again: never (limit 0.45 s)"),
        ({"lost_s": 1.04}, "lost: 1.04 s (limit 1.00 s)"),
        ({"lost_s": None, "gap_s": None}, "lost: never (limit 1.00 s)"),
        ({"causes": ()}, "ledger: no entry"),
        ({"causes": ("cannot keep up", "killed")}, "ledger: the cause is 'cannot keep up', not 'killed'"),
        ({"entered_s": 1.8}, "ledger: gaps of 1.80 s, where 0.70 s are missing"),
        ({"entered_s": 0.0, "gap_s": 1.1}, "ledger: gaps of 0.00 s, where 1.10 s are missing"),
    ],
)
def test_each_bound_that_is_exceeded_is_said(changes: dict[str, Any], words: str) -> None:
    assert exceeded(replace(GOOD, **changes), LIMITS, 0.3, "killed") == [words]


def test_ffmpegs_own_start_is_no_fault_of_ours() -> None:
    slow = replace(GOOD, again_s=2.1)
    assert exceeded(slow, LIMITS, 2.0, "killed") == []
    assert exceeded(slow, LIMITS, 0.3, "killed") != []


def test_of_several_the_median_counts_and_the_worst_loss() -> None:
    others = [replace(GOOD, again_s=9.0, lost_s=0.9), replace(GOOD, again_s=0.2, lost_s=0.1, entered_s=5.0)]
    found = typical([GOOD, *others])
    assert (found.again_s, found.lost_s, found.entered_s) == (0.4, 0.9, 5.0)
    assert typical([GOOD, replace(GOOD, lost_s=None)]).lost_s is None
    assert typical([GOOD, replace(GOOD, gap_s=None, causes=())]).causes == ()


def test_the_table() -> None:
    bad = replace(GOOD, title="disk", acted_s=None, again_s=None, causes=())
    assert report_table([(GOOD, []), (bad, ["ledger: no entry"])]).splitlines() == [
        "FAULT        SEEN AFTER  RECORDING AGAIN AFTER    LOST  LEDGER       VERDICT",
        "FFmpeg hurt      0.50 s                 0.40 s  0.30 s  yes: killed  ok (acted upon after 5.50 s)",
        "disk             0.50 s                  never  0.30 s  no           EXCEEDED",
        "  disk: ledger: no entry",
    ]


def test_the_json() -> None:
    found = report_json([(GOOD, []), (GOOD, ["too late"])], 0.25, "ext4")
    assert (found["ok"], found["own_start_s"], found["disk"]) == (False, 0.25, "ext4")
    faults = json.loads(json.dumps(found))["faults"]
    assert [(fault["ok"], fault["exceeded"]) for fault in faults] == [(True, []), (False, ["too late"])]
    assert faults[0]["recording_again_s"] == 0.4


# ---- A port of its own ----


def real_units() -> dict[str, str]:
    ports = drill_stage.ports("/usr/bin/ffmpeg")
    settings = Settings("x", 1, drill_stage.RECORDINGS, "/usr/bin/ffmpeg", {0: ports[PLAIN_PORT]})
    return dict(render(settings, Machine(CAPABILITIES, 257, {drill_stage.RECORDINGS: "ext4:x"})).files)


def test_its_units_name_nothing_of_a_real_port() -> None:
    own = render_ports("/usr/bin/ffmpeg", CAPABILITIES, 257, "ext4:x")
    assert sorted(os.path.relpath(path, "/run/systemd/system") for path in own) == [
        "sdi-drill@.service",
        f"sdi-drill@{PLAIN_PORT}.service.d/10-sdisup.conf",
        f"sdi-drill@{SIGNAL_PORT}.service.d/10-sdisup.conf",
    ]
    assert min(PLAIN_PORT, SIGNAL_PORT) >= MAX_PORTS
    for path, text in own.items():
        plain = text.replace("/run/sdisup-drill", "").replace("=sdisup-drill/port", "")
        for word in ("sdi-record", "/run/sdisup", "/var/lib", "=sdisup/", "/srv", "[Install]"):
            assert word not in plain, (path, word)


def test_its_unit_is_otherwise_a_real_ports() -> None:
    own = render_ports("/usr/bin/ffmpeg", CAPABILITIES, 257, "ext4:x")["/run/systemd/system/sdi-drill@.service"]
    real = real_units()["/etc/systemd/system/sdi-record@.service"]
    missing = set(real.splitlines()) - set(own.splitlines())
    names = {line.partition("=")[0] for line in missing}
    assert names == {
        "# Written by sdisup apply from /etc/sdisup/sdisup.toml; changes made here are lost.",
        "AssertPathExists", "PartOf", "OnFailure", "SyslogIdentifier", "RuntimeDirectory", "ReadWritePaths",
        "[Install]", "WantedBy",
    }  # fmt: skip


def test_a_real_ports_unit_names_no_places() -> None:
    for text in real_units().values():
        assert not [word for word in ("--run-directory", "--ledger-directory", "--unit=") if word in text]


def test_a_unit_that_would_reach_a_real_port_is_refused() -> None:
    with pytest.raises(SdisupError, match="would still say '/var/lib/sdisup'"):
        drill_stage._as_own("ReadWritePaths=/var/lib/sdisup/other\n")


def test_an_ffmpeg_of_any_path_is_run_as_it_is() -> None:
    ffmpeg = "/opt/sdi-recorder 7/run/sdisup/ffmpeg"
    own = render_ports(ffmpeg, CAPABILITIES, 257, "")
    for index in (PLAIN_PORT, SIGNAL_PORT):
        text = own[f"/run/systemd/system/sdi-drill@{index}.service.d/10-sdisup.conf"]
        assert f'"{ffmpeg}" -hide_banner' in text
        assert ("--source=videomaster" in text) == ("drill/lost_signal.py" in text) == (index == SIGNAL_PORT)


# ---- The played signal ----


def play_signal(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, drill_signal.__file__, str(tmp_path / "signal"), "/bin/sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=20)


def test_without_a_signal_the_input_says_what_a_card_says(tmp_path: Path) -> None:
    done = play_signal(tmp_path, "echo never >&2")
    assert done.returncode == 234
    assert "Stream map '' matches no streams" in done.stderr and "never" not in done.stderr


def test_with_a_signal_all_is_ffmpegs_own(tmp_path: Path) -> None:
    (tmp_path / "signal").touch()
    done = play_signal(tmp_path, "echo words >&2; exit 3")
    assert (done.returncode, done.stderr) == (3, "words\n")


# It takes the signal away itself, and ends as FFmpeg does when it gets SIGTERM.
LOSES_ITS_SIGNAL = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.unlink(sys.argv[1])
signal.sigwait([signal.SIGTERM])
os.write(2, b"frame=7\\nprogress=end\\n")
sys.exit(255)
"""


def test_a_lost_signal_stands_still_and_then_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "signal"
    path.touch()
    monkeypatch.setattr(drill_signal, "CARD_WAITS_S", 0.6)
    code = drill_signal.main([str(path), sys.executable, "-c", LOSES_ITS_SIGNAL, str(path)])
    said = capfd.readouterr().err
    assert code == 251
    assert said.count("frame=7\nprogress=continue\n") >= 2
    assert said.index("Timeout while waiting for slot lock") < said.index("progress=end")


# ---- Clear errors ----


def refusal(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> str:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    monkeypatch.setattr(os if name != "isdir" else os.path, name, lambda *_: value)
    with pytest.raises(SdisupError) as caught:
        check_machine()
    return str(caught.value)


def test_where_it_cannot_be_played_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "run it as root: sudo sdisup drill" in refusal(monkeypatch, "geteuid", 1000)
    assert "systemd does not run on this machine" in refusal(monkeypatch, "isdir", False)
    full = os.statvfs_result((4096, 4096, 1000, 1000, 1000, 0, 0, 0, 0, 255))
    assert "/run has 4 MB free, and a drill needs 67 MB" in refusal(monkeypatch, "statvfs", full)


def test_a_process_of_anybody_elses_is_not_touched() -> None:
    kill = send("pid", signal.SIGKILL)
    with pytest.raises(SdisupError, match=r"is none of sdi-drill@64\.service's; it is left alone"):
        kill(PortStatus(port_index=PLAIN_PORT, pid=os.getpid()))
    for pid in (-1, 0, None):
        with pytest.raises(OSError, match="Invalid argument"):
            kill(PortStatus(port_index=PLAIN_PORT, pid=pid))


def test_the_promised_numbers() -> None:
    found = {fault.name: fault.limits for fault in known_faults(drill_stage.ports("/usr/bin/ffmpeg")[PLAIN_PORT])}
    assert list(found) == FAULTS
    assert found["ffmpeg-killed"].again_s == 0.15
    assert found["ffmpeg-frozen"].acted_s == 6.0
    assert 10.0 <= found["runner-frozen"].seen_s <= 11.0


# ---- In the appliance ----

# In the order in which they are played.
FAULTS = ["ffmpeg-killed", "ffmpeg-frozen", "signal-lost", "runner-killed", "runner-frozen", "disk-full"]
# Without what a port that records writes itself: its status, and its memory after a good minute.
SNAPSHOT = """
cd / && find etc/systemd/system etc/sdisup var/lib/sdisup -printf '%p %m %u %s %T@ %l\\n' | sort
find etc/systemd/system etc/sdisup var/lib/sdisup -type f | sort | xargs sha256sum
find run/sdisup ! -name '[0-9].json' ! -name runner.json ! -name '*.tmp' -printf '%p %i %m %u %s\\n' | sort
find srv/recordings -printf '%p %i %m %u\\n' | sort
"""


def leftovers(appliance: Appliance) -> str:
    """All that there is of a drill; empty if there is nothing."""
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


def wait_nothing_left(appliance: Appliance, timeout_s: float) -> None:
    wait_for(lambda: not leftovers(appliance), timeout_s, "nothing of the drill is left", poll_s=0.1)


def start_drill(appliance: Appliance, state: str = "recording") -> Any:
    """A drill whose port is in that state: it records, or (stalled) its FFmpeg was frozen 2 s ago."""
    process = appliance.popen("exec sdisup drill --fault ffmpeg-frozen")
    status = appliance.path(f"/run/sdisup-drill/run/{PLAIN_PORT}.json")

    def is_there() -> bool:
        try:
            return bool(json.loads(status.read_text())["state"] == state)
        except (OSError, ValueError):
            assert process.poll() is None, process.communicate()
            return False

    wait_for(is_there, 30, f"the drill's port is {state}")
    return process


QUICK = ("ffmpeg-killed", "runner-killed", "disk-full")


@pytest.mark.system
@pytest.mark.journal_allows(r"^sdi-drill")
@pytest.mark.parametrize("faults", [QUICK, pytest.param((), marks=pytest.mark.slow, id="all, a minute")])
def test_a_drill_passes_and_real_ports_beside_it_notice_nothing(appliance: Appliance, faults: tuple[str, ...]) -> None:
    configure(appliance, small_ports(2, "record_at_boot = true\n"))
    # What somebody is just changing in a port's unit does not take effect by a drill.
    appliance.write("/etc/systemd/system/sdi-record@1.service.d/30-later.conf", "[Service]\nNice=5\n")
    before = [wait_recording(appliance, port, frames=25) for port in (0, 1)]
    snapshot = appliance.run(SNAPSHOT).stdout
    chosen = "".join(f" --fault {name}" for name in faults)
    begun = time.monotonic()
    result = sdisup(appliance, f"drill --json{chosen}", timeout_s=150)
    elapsed_s = time.monotonic() - begun
    after = [status_file(appliance, port) for port in (0, 1)]
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
        assert now["frame_count"] > was["frame_count"] + (elapsed_s - 3) * 25
    assert appliance.run("systemctl show -P NeedDaemonReload sdi-record@1").stdout.strip() == "yes"


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.journal_allows(r"^sdi-drill")
def test_a_drill_that_is_interrupted_leaves_nothing(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    process = start_drill(appliance)
    assert "a drill is running already" in sdisup(appliance, "drill", code=1).stderr
    # A command that hangs is ended too.
    assert appliance.run("systemctl show -P RuntimeMaxUSec sdi-drill.scope").stdout.strip() == "5min"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert leftovers(appliance) == ""
    process = start_drill(appliance, "stalled")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    # The frozen FFmpeg is ended by the runner's ladder, as a real port's.
    wait_nothing_left(appliance, 15)
    # And the next one plays as if nothing had been.
    process = start_drill(appliance)
    appliance.run("systemctl stop sdi-drill.scope")
    process.communicate(timeout=20)
    wait_nothing_left(appliance, 15)


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.journal_allows(r"^sdi-drill")
def test_a_loop_device_goes_with_the_drill_and_with_the_power(new_appliance: Callable[..., Appliance]) -> None:
    loops = ["/dev/loop-control", *sorted(str(path) for path in Path("/dev").glob("loop[0-9]*"))]
    own = new_appliance(binds=loops)
    assert own.boot() == "running"
    configure(own, small_ports(1))
    report = json.loads(sdisup(own, "drill --json --fault disk-full").stdout)
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
@pytest.mark.system
@pytest.mark.journal_allows(r"^sdi-drill")
def test_a_bound_that_is_exceeded_is_exit_1(appliance: Appliance) -> None:
    appliance.write("/usr/local/bin/slow-ffmpeg", SLOW_FOR_PORTS, mode=0o755)
    configure(appliance, '[appliance]\nffmpeg = "/usr/local/bin/slow-ffmpeg"\nports = 1\n[defaults]\n'
              'source = { kind = "test" }\n')  # fmt: skip
    result = sdisup(appliance, "drill --fault runner-killed", code=1)
    assert "EXCEEDED" in result.stdout
    assert "runner killed: recording again: " in result.stdout
    assert leftovers(appliance) == ""


@pytest.mark.system
def test_what_is_asked_wrongly_starts_nothing(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    assert "no fault is called 'fire'" in sdisup(appliance, "drill --fault fire", code=2).stderr
    assert "run it as root" in sdisup(appliance, "drill", code=1, user="nobody").stderr
    appliance.run("mount -o remount,size=30M /run")
    try:
        assert "free, and a drill needs 67 MB" in sdisup(appliance, "drill", code=1).stderr
    finally:
        appliance.run("mount -o remount,size=50% /run")
    appliance.write("/etc/sdisup/sdisup.toml", "[appliance]\nffmpeg = '/nowhere/ffmpeg'\n")
    assert "/nowhere/ffmpeg" in sdisup(appliance, "drill", code=1).stderr
    assert leftovers(appliance) == ""
