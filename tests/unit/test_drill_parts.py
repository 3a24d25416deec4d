"""`sdisup drill`: what it measures is judged rightly, its units reach no real port, and its errors are clear."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdisup.config.settings import Settings
from sdisup.config.table import MAX_PORTS
from sdisup.contract.status import PortStatus
from sdisup.control.units import Machine, render
from sdisup.drill import lost_signal as drill_signal
from sdisup.drill import stage as drill_stage
from sdisup.drill.faults import Fault, known_faults, send
from sdisup.drill.main import Drill
from sdisup.drill.report import Limit, Limits, Result, exceeded, report_json, report_table, typical
from sdisup.drill.stage import PLAIN_PORT, SIGNAL_PORT, check_machine, render_ports
from sdisup.encode.command import Capabilities
from sdisup.errors import SdisupError

LIMITS = Limits(Limit(), Limit(0.0, 0.15, 1.0), acted=Limit(5.0))
GOOD = Result("x", "FFmpeg hurt", 0.5, 5.5, 0.4, 0.3, gap_s=0.7, entered_s=0.6, causes=("killed",))
CAPABILITIES = Capabilities("7.1", frozenset({"libx264", "aac"}), frozenset({"lavfi"}), hybrid_fragmented=True)


# In the order in which they are played.
FAULTS = ["ffmpeg-killed", "ffmpeg-frozen", "signal-lost", "runner-killed", "runner-frozen", "disk-full"]


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
        ({"again_s": 0.41}, "recording again: 0.41 s (limit 0.40 s)"),
        ({"again_s": None, "gap_s": None}, "recording again: never (limit 0.40 s)"),
        ({"lost_s": 1.04}, "lost: 1.04 s (limit 1.00 s)"),
        ({"lost_s": None, "gap_s": None}, "lost: never (limit 1.00 s)"),
        ({"causes": ()}, "ledger: no entry"),
        ({"causes": ("cannot keep up", "killed")}, "ledger: the cause is 'cannot keep up', not 'killed'"),
        ({"entered_s": 1.8}, "ledger: gaps of 1.80 s, where 0.70 s are missing"),
        ({"entered_s": 0.0, "gap_s": 1.1}, "ledger: gaps of 0.00 s, where 1.10 s are missing"),
    ],
)
def test_each_bound_that_is_exceeded_is_said(changes: dict[str, Any], words: str) -> None:
    assert exceeded(GOOD.replaced(**changes), LIMITS, 0.2, "killed") == [words]


@pytest.mark.parametrize(
    ("again_s", "own_start_s", "is_good"),
    [
        # What a healthy machine measured: idle, and with eight ports that record, and with busy loops besides.
        (0.29, 0.23, True),
        (0.50, 0.30, True),
        (0.885, 0.419, True),
        # A second of systemd's own before each start, as RestartSec=1 would be.
        (1.29, 0.23, False),
        (0.70, 0.23, False),
    ],
)
def test_the_limits_are_those_of_the_machine(again_s: float, own_start_s: float, is_good: bool) -> None:
    plain = drill_stage.ports("/usr/bin/ffmpeg")[PLAIN_PORT]
    killed = next(fault for fault in known_faults(plain) if fault.name == "ffmpeg-killed")
    found = exceeded(GOOD.replaced(again_s=again_s, acted_s=None), killed.limits, own_start_s, "killed")
    assert (found == []) == is_good, found


def test_a_busy_machine_has_more_room_and_an_idle_one_what_was_promised() -> None:
    assert [round(Limit(10.0).limit_s(own_s), 2) for own_s in (0.05, 0.25, 0.5)] == [11.0, 11.0, 12.0]


PLAYED = [
    # The own starts beside each round, when the port recorded again, how often the fault was played, and the verdict.
    pytest.param(False, [0.2], [0.5], True, id="all is well: once"),
    pytest.param(True, [0.2, 0.2, 0.2], [0.3, 0.3, 0.3], True, id="a quick fault: three times"),
    pytest.param(False, [0.2, 0.2, 0.2], [1.9, 0.5, 0.5], True, id="once too late: the median counts"),
    pytest.param(False, [0.2, 0.6, 0.6], [1.9, 1.9, 2.5], True, id="the machine is busy: so are FFmpeg's own starts"),
    pytest.param(False, [0.2, 0.2, 0.2], [1.9, 0.5, 1.9], False, id="too late"),
    pytest.param(True, [0.2], [None], False, id="never"),
]


@pytest.mark.parametrize(("is_quick", "own_starts_s", "again_s", "is_good"), PLAYED)
def test_a_fault_is_judged_by_the_median_of_three(
    monkeypatch: pytest.MonkeyPatch,
    is_quick: bool,
    own_starts_s: list[float],
    again_s: list[float | None],
    is_good: bool,
) -> None:
    drill = Drill.__new__(Drill)
    drill._own_starts_s, drill._remark = [], lambda _: None
    starts, ends = iter(own_starts_s), iter(again_s)

    def play(_: Fault) -> Result:
        drill._own_starts_s.append(next(starts))
        return GOOD.replaced(again_s=next(ends), acted_s=None)

    monkeypatch.setattr(drill, "_round", play)
    fault = Fault("x", "x", "killed", Limits(Limit(), Limit()), lambda _: None, is_quick=is_quick)
    ((_, problems),) = drill.play([fault])
    assert (problems == []) == is_good, problems
    assert list(ends) == []


def test_ffmpegs_own_start_is_no_fault_of_ours() -> None:
    slow = GOOD.replaced(again_s=2.1)
    assert exceeded(slow, LIMITS, 2.0, "killed") == []
    assert exceeded(slow, LIMITS, 0.3, "killed") != []


def test_of_several_the_median_counts_and_the_worst_loss() -> None:
    others = [GOOD.replaced(again_s=9.0, lost_s=0.9), GOOD.replaced(again_s=0.2, lost_s=0.1, entered_s=5.0)]
    found = typical([GOOD, *others])
    assert (found.again_s, found.lost_s, found.entered_s) == (0.4, 0.9, 5.0)
    assert typical([GOOD, GOOD.replaced(lost_s=None)]).lost_s is None
    assert typical([GOOD, GOOD.replaced(gap_s=None, causes=())]).causes == ()


def test_the_table() -> None:
    bad = GOOD.replaced(title="disk", acted_s=None, again_s=None, causes=())
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
        "sdi-drill-ledger.service",
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
    names = {line.partition("=")[0] for line in missing if not line.startswith("#")}
    assert names == {
        "AssertPathExists", "PartOf", "OnFailure", "SyslogIdentifier", "RuntimeDirectory", "ReadWritePaths",
        "After", "Wants", "[Install]", "WantedBy",
    }  # fmt: skip


def test_a_real_ports_unit_names_no_places() -> None:
    for text in real_units().values():
        assert not [word for word in ("--run-directory", "--unit=") if word in text]


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
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


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
    own_start_s = 0.2
    assert found["ffmpeg-killed"].again.limit_s(own_start_s) == 0.4
    assert found["ffmpeg-frozen"].acted is not None
    assert found["ffmpeg-frozen"].acted.limit_s(own_start_s) == 6.0
    assert found["ffmpeg-frozen"].again.limit_s(own_start_s) == 12.0
    assert 10.0 <= found["runner-frozen"].seen.limit_s(own_start_s) <= 11.0
