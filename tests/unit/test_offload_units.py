"""Targets as units, what the machine lacks for them, and what people are told."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from appliance import CHECKOUT

from sdisup.cli import commands
from sdisup.cli import offloads as table
from sdisup.cli import status as status_module
from sdisup.config.settings import Settings, parse_settings
from sdisup.contract.applied import Applied, AppliedOffload, AppliedPort, load_applied, save_applied
from sdisup.contract.files import boot_id, monotonic
from sdisup.control import offloads
from sdisup.control.bus import SystemdError, UnitState
from sdisup.control.look import Look
from sdisup.control.systemd import DONE
from sdisup.control.units import HEADER, UNIT_DIRECTORY, offload_files
from sdisup.errors import UsageError
from sdisup.ledger.lines import append_entries, ledger_path
from sdisup.offload import state as state_module
from sdisup.offload.report import reports
from sdisup.offload.state import GONE, Entered, Going, State, Trouble, all_problems, save_state

WELL = Look(kind="directory", free_bytes=1 << 40)


def settings_of(**targets: Any) -> Settings:
    base = {"appliance": {"ports": 4}, "defaults": {"source": {"kind": "test"}}}
    return parse_settings([("a.toml", {**base, "offload": targets})])


def units_of(**target: Any) -> tuple[str, str]:
    files = offload_files(settings_of(nas=target))
    assert list(files) == [f"{UNIT_DIRECTORY}/sdi-offload@nas.service", f"{UNIT_DIRECTORY}/sdi-offload@nas.timer"]
    service, timer = files.values()
    return service, timer


# ---- Units ----


def test_a_directory_gets_no_network_and_no_credentials() -> None:
    service, timer = units_of(target="/mnt/my nas")
    assert service.startswith(HEADER) and timer.startswith(HEADER)
    assert '\nReadWritePaths=-/run/sdisup "-/mnt/my nas"\n' in service
    assert "\nRestrictAddressFamilies=AF_UNIX\n" in service and "Credential" not in service
    assert "\nIOSchedulingClass=idle\n" in service


def test_a_remote_gets_roots_file_and_may_write_nowhere() -> None:
    service, _ = units_of(target="s3:archive", io_priority="low")
    assert "\nLoadCredential=rclone.conf:/etc/sdisup/credentials/nas.conf\n" in service
    assert "\nReadWritePaths=-/run/sdisup\n" in service and "AF_INET6" in service
    assert "\nIOSchedulingClass=best-effort\n" in service
    # What it copies where is in no command line.
    assert re.findall("^ExecStart=(.*)$", service, re.MULTILINE) == [
        "/usr/bin/python3 -I -S /usr/lib/sdisup/__main__.py copy nas"
    ]


@pytest.mark.parametrize("target", ["/mnt/100% x", "s3:a%b", "/mnt/nas"])
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_takes_them(tmp_path: Path, target: str) -> None:
    files = offload_files(settings_of(nas={"target": target}), str(tmp_path))
    for path, text in files.items():
        Path(path).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *files]
    shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"})
    # On a machine without sdisup its user, and its program, are not there.
    of_ours = [line for line in shown.stderr.splitlines() if "sdi-offload" in line and "is not executable" not in line]
    assert of_ours == []


def test_what_apply_remembers_outlives_it(tmp_path: Path) -> None:
    settings = settings_of(nas={"target": "/mnt/nas", "ports": [0, 2], "bandwidth_mbps": 5}, s3={"target": "s3:x"})
    found = offloads.applied_offloads(settings, {"/mnt/nas": "ext4:fsid-1"})
    host = offloads.folder_of(os.uname().nodename)
    assert found == (
        AppliedOffload("nas", "/mnt/nas", host, (0, 2), 5.0, "ext4:fsid-1"),
        AppliedOffload("s3", "s3:x", host),
    )
    path = str(tmp_path / "applied.json")
    assert save_applied(Applied({}, [], found), path) and load_applied(path).offloads == found
    assert not save_applied(Applied({}, [], found), path)


@pytest.mark.parametrize(("host", "folder"), [("studio-a", "studio-a"), ("a.example", "a.example"), ("é", "sdisup"),
                                              ("-x/y.", "x_y"), ("x" * 64, "x" * 63)])  # fmt: skip
def test_a_host_name_as_a_folder(host: str, folder: str) -> None:
    assert offloads.folder_of(host) == folder


# ---- What the machine lacks ----


def problems_of(tmp_path: Path, target: str, **looks: Look) -> list[str]:
    return offloads.problems(settings_of(nas={"target": target}), {target: looks.get("look", WELL)}, str(tmp_path))


def test_what_a_directory_lacks(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "/mnt/nas") == []
    (problem,) = problems_of(tmp_path, "/mnt/nas", look=Look(error="No such file or directory"))
    assert problem.startswith("offload nas: /mnt/nas does not exist")
    (problem,) = problems_of(tmp_path, "/mnt/nas", look=WELL.replaced(is_writable=False))
    assert "not writable by the user sdisup" in problem


def test_what_a_remote_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    rclone, file = problems_of(tmp_path, "s3:x")
    assert rclone.endswith("apt-get install rclone")
    assert file.startswith(f"offload nas: {tmp_path}/nas.conf does not exist") and "[s3]" in file
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/rclone")
    path = tmp_path / "nas.conf"
    path.write_text("[s3]\n")
    path.chmod(0o640)
    (problem,) = problems_of(tmp_path, "s3:x")
    assert "by others than root" in problem
    path.chmod(0o600)
    is_root = stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_uid == 0
    assert problems_of(tmp_path, "s3:x") == ([] if is_root else [problem])


# ---- What apply does with their units ----


class FakeSystemd:
    """systemd, with the timers that run."""

    def __init__(self, *active: str) -> None:
        self.active, self.jobs = set(active), [("", "")][:0]
        self.results: dict[str, Any] = {}

    def units(self, pattern: str) -> dict[str, UnitState]:
        assert pattern == "sdi-offload@*.timer"
        return {name: UnitState("loaded", "active", "waiting", "/x") for name in self.active}

    def run_jobs(self, verb: str, units: Any, limit_s: float) -> dict[str, Any]:
        self.jobs += [(verb, unit) for unit in units]
        return {unit: self.results.get(unit, DONE) for unit in units}


NAS, TAPE = AppliedOffload("nas", "/mnt/nas", "box"), AppliedOffload("tape", "tape:", "box")


def test_a_timer_that_does_not_run_is_started() -> None:
    warnings: list[str] = []
    systemd = FakeSystemd("sdi-offload@nas.timer")
    assert offloads.start_timers(cast(Any, systemd), [NAS], warnings.append) == []
    assert offloads.start_timers(cast(Any, systemd), [NAS, TAPE], warnings.append) == ["sdi-offload@tape.timer"]
    assert systemd.jobs == [("Start", "sdi-offload@tape.timer")] and not warnings
    systemd.results = {"sdi-offload@tape.timer": "failed"}
    assert offloads.start_timers(cast(Any, systemd), [NAS, TAPE], warnings.append) == []
    assert warnings[0].startswith("sdi-offload@tape.timer has not been started (failed)")


def test_what_is_no_longer_configured_is_stopped_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, state = tmp_path / "sdi-offload@tape.timer", tmp_path / "tape.json"
    link.symlink_to("/nowhere")
    state.write_text("{}")
    monkeypatch.setattr(offloads, "WANTS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(offloads, "state_path", lambda name: f"{tmp_path}/{name}.json")
    warnings: list[str] = []
    systemd = FakeSystemd()
    offloads.stop_former(cast(Any, systemd), Applied({}, [], (NAS, TAPE)), [NAS], warnings.append)
    assert systemd.jobs == [("Stop", "sdi-offload@tape.timer"), ("Stop", "sdi-offload@tape.service")]
    assert not os.path.lexists(link) and not state.exists() and not warnings
    systemd.results = dict.fromkeys(("sdi-offload@tape.timer", "sdi-offload@tape.service"), SystemdError("no bus"))
    offloads.stop_former(cast(Any, systemd), Applied({}, [], (TAPE,)), [], warnings.append)
    assert len(warnings) == 2
    offloads.stop_former(cast(Any, FakeSystemd()), Applied({}, [], (NAS,)), [NAS], warnings.append)


# ---- What people are told ----


class Bench:
    """An appliance's files, with one port and one target."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        self.ledger, self.run = str(top / "ledger"), str(top / "run")
        (top / "ledger").mkdir()
        (top / "run" / "offload").mkdir(parents=True)
        port = AppliedPort(3, "CAM3", "h264", "/r", False, "")
        self.applied = Applied({3: port}, [], (AppliedOffload("nas", "nas:x", "box"),))
        patch.setattr(commands, "load_applied", lambda: self.applied)
        for number, name in enumerate("abc"):
            at = f"2026-01-31T12:{number}0:00.000Z"
            append_entries(ledger_path(3, self.ledger), [
                {"v": 1, "kind": "file", "start": at, "end": at, "seconds": 0, "path": f"/r/{name}", "bytes": 10**9}
            ])  # fmt: skip

    def say(self, **more: Any) -> None:
        save_state(State(boot_id(), **more), "nas", self.run)

    def lines(self) -> list[str]:
        return list(table.lines(reports(self.applied, self.ledger, self.run)))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def trouble(text: str, kind: str = "") -> Trouble:
    return Trouble(text, 1.7e9, 3, monotonic() + 60, kind)


def test_nothing_is_copied_yet(bench: Bench) -> None:
    assert bench.lines() == [
        "NAME  TARGET     COPIED   GB  WAIT   GB  NOW",
        "nas   nas:x/box       0  0.0     3  3.0  -",
    ]


def test_what_is_copied_what_waits_and_what_is_wrong(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdisup.offload.report.is_running", lambda *_: True)
    files = {"/r/b": trouble("a file of 3 bytes stands at box/CAM3/b"), "/r/c": trouble("/r/c is not there", GONE)}
    going = Going(os.getpid(), "/r/b", 10**9, "copied", 41 * 10**7, monotonic())
    bench.say(files=files, entered=(Entered(3, "/r/a", 10**9, "2026-01-31T12:00:00.000Z", "box/CAM3/a"),), going=going)
    assert bench.lines() == [
        "NAME  TARGET     COPIED   GB  WAIT   GB  NOW",
        "nas   nas:x/box       1  1.0     1  1.0  41% copied of /r/b",
        "nas: 1 file cannot be copied; see: sdisup offload nas",
        "nas: a file of 3 bytes stands at box/CAM3/b",
        "nas: 1 that waited are no longer there; the ledger does not know who removed them",
    ]
    (found,) = table.document(reports(bench.applied, bench.ledger, bench.run))
    assert json.loads(json.dumps(found)) == found
    assert (found["copied_files"], found["waiting_files"], found["gone_files"]) == (1, 1, 1)
    assert found["oldest_waiting"] == "2026-01-31T12:10:00.000Z"
    assert found["failed"] == [{"path": "/r/b", "problem": "a file of 3 bytes stands at box/CAM3/b"}]


def test_a_dead_target_is_one_line_in_the_status(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all_problems(bench.run) == []
    bench.say(trouble=trouble("no route to host"), files={"/r/a": trouble("no route to host", "with target")})
    (line,) = all_problems(bench.run)
    assert line.startswith("offload nas: no route to host (since 2023-11-1")
    assert "in trouble" in bench.lines()[1]
    monkeypatch.setattr(status_module, "RUN_DIRECTORY", bench.run)
    monkeypatch.setattr(state_module, "all_problems", lambda: [line])
    assert status_module._offload_problems() == [line]
    # Of another boot nothing counts.
    Path(state_module.state_path("nas", bench.run)).write_text('{"boot_id": "x"}')
    assert all_problems(bench.run) == []


def test_a_target_that_hangs_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.say(going=Going(os.getpid(), "/r/b", 10**9, "compared", 5, monotonic() - 1000))
    # This process does not copy.
    assert all_problems(bench.run) == []
    monkeypatch.setattr(state_module, "is_running", lambda *_: True)
    (line,) = all_problems(bench.run)
    assert re.fullmatch(
        r"offload nas: nothing goes on for 1\d\d\d s while /r/b is compared: does the target hang\?", line
    )


def test_a_state_that_cannot_be_read_is_told(bench: Bench) -> None:
    Path(state_module.state_path("nas", bench.run)).write_text("[")
    assert len(all_problems(bench.run)) == 1
    assert "in trouble" in bench.lines()[1]


def test_the_command(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = reports(bench.applied, bench.ledger, bench.run)
    monkeypatch.setattr("sdisup.offload.report.reports", lambda applied: made if applied.offloads else [])
    arguments = commands.parse(["offload", "nas", "--json"])
    assert arguments.run(arguments) == 0
    assert json.loads(capsys.readouterr().out)[0]["waiting_bytes"] == 3 * 10**9
    arguments = commands.parse(["offload"])
    assert arguments.run(arguments) == 0 and "nas:x/box" in capsys.readouterr().out
    with pytest.raises(UsageError, match="tape: no such target"):
        arguments = commands.parse(["offload", "tape"])
        arguments.run(arguments)
    bench.applied = bench.applied.replaced(offloads=())
    arguments = commands.parse(["offload"])
    assert arguments.run(arguments) == 0 and "nothing is copied anywhere" in capsys.readouterr().err


def test_the_process_of_a_target_that_is_not_configured() -> None:
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); "
             "sys.argv[1:] = ['copy', 'none']; from sdisup.__main__ import main; sys.exit(main())"]  # fmt: skip
    shown = subprocess.run(words, capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (2, "there is no target none: sdisup apply\n")
