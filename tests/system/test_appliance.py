"""Tries to break the appliance in which the other system tests run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from appliance import (
    MACHINE_ID,
    Appliance,
    ApplianceError,
    base_tree,
    cgroup_pids,
    cgroup_roots,
    clean_leftovers,
    layer,
    leftovers_of,
    wait_for,
)
from drive import MIB, RECORDINGS, Machine


@pytest.fixture
def bare() -> Iterator[Appliance]:
    """A booted appliance without sdisup."""
    with Appliance() as machine:
        assert machine.boot() == "running", machine.run("systemctl --failed", check=False).stdout
        yield machine


@pytest.fixture(scope="module")
def kept() -> Iterator[Appliance]:
    """One for all tests that leave it as it is."""
    with Appliance() as machine:
        assert machine.boot() == "running", machine.run("systemctl --failed", check=False).stdout
        yield machine


def assert_nothing_is_left_of(machine: Appliance) -> None:
    assert not machine.directory.exists()
    assert not [root / machine.name for root in cgroup_roots() if (root / machine.name).exists()]
    assert not [line for line in leftovers_of(os.getpid()) if machine.name in line]
    assert not list(Path("/run/systemd/nspawn").glob(f"*/{machine.name}"))


# ---------------------------------------------------------------- booting


def test_boots_a_real_systemd(kept: Appliance, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f" [booted in {kept.boot_seconds:.3f} s]", end="")
    assert kept.read("/proc/1/comm").strip() == "systemd"
    assert kept.run("systemctl is-active multi-user.target").stdout.strip() == "active"
    assert kept.read("/etc/machine-id").strip() == MACHINE_ID


def test_first_boot_logs_no_warning(kept: Appliance) -> None:
    assert [entry["MESSAGE"] for entry in kept.journal("-p", "warning")] == []


def test_everything_that_sdisup_needs_is_installed(kept: Appliance) -> None:
    kept.run(["python3", "-c", "import jinja2, pydbus, tomli_w, tomllib"])
    version = kept.run("ffmpeg -version").stdout
    assert "ffmpeg version 7." in version, version


@pytest.mark.slow
def test_boots_debian_12_as_well() -> None:
    with Appliance("bookworm") as machine:
        assert machine.boot() == "running"
        assert machine.run("cat /etc/debian_version").stdout.startswith("12.")
        assert [entry["MESSAGE"] for entry in machine.journal("-p", "err")] == []
        assert machine.reboot() == "running"


def test_returns_before_the_boot_is_complete_if_asked(bare: Appliance) -> None:
    unit = "[Service]\nType=notify\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    bare.write("/etc/systemd/system/never-ready.service", unit)
    bare.run("systemctl enable never-ready.service")
    bare.shutdown()
    assert bare.boot(wait="bus") == "starting"


def test_a_boot_that_never_completes_is_told_with_its_console(bare: Appliance) -> None:
    unit = "[Service]\nType=notify\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    bare.write("/etc/systemd/system/never-ready.service", unit)
    bare.run("systemctl enable never-ready.service")
    bare.shutdown()
    with pytest.raises(ApplianceError, match="did not boot in time"):
        bare.boot(timeout_s=1)


def test_a_tree_that_cannot_boot_is_told_before_its_time_is_over() -> None:
    with Appliance() as machine:
        (machine.upper / "usr").mkdir()
        os.setxattr(machine.upper / "usr", "trusted.overlay.opaque", b"y")
        with pytest.raises(ApplianceError, match="ended while it booted"):
            machine.boot()


# ---------------------------------------------------------------- ending and keeping


def test_shutdown_stops_units_properly(bare: Appliance) -> None:
    unit = "[Service]\nExecStart=sleep infinity\nExecStop=touch /var/lib/stopped-properly\n"
    bare.write("/run/systemd/system/probe.service", unit)
    bare.run("systemctl start probe.service")
    bare.shutdown()
    assert (bare.upper / "var/lib/stopped-properly").exists()
    with pytest.raises(ApplianceError, match="not running"):
        bare.run("true")


def test_reboot_keeps_files_and_journals(bare: Appliance) -> None:
    first_boot = bare.read("/proc/sys/kernel/random/boot_id")
    cursor = bare.journal_cursor()
    bare.write("/srv/kept", "kept")
    bare.run("logger before the reboot; touch /run/volatile")
    assert bare.reboot() == "running"
    assert bare.read("/srv/kept") == "kept"
    assert not bare.path("/run/volatile").exists()
    assert bare.read("/proc/sys/kernel/random/boot_id") != first_boot
    messages = [entry["MESSAGE"] for entry in bare.journal(after_cursor=cursor)]
    assert "before the reboot" in messages
    assert "before the reboot" not in [entry["MESSAGE"] for entry in bare.journal()]


def test_power_cut_keeps_files_and_stops_nothing_properly(bare: Appliance) -> None:
    unit = "[Service]\nExecStart=sleep infinity\nExecStop=touch /var/lib/stopped-properly\n"
    bare.write("/run/systemd/system/probe.service", unit)
    bare.run("systemctl start probe.service; echo kept >/srv/kept")
    bare.power_cut()
    assert bare.boot() == "running"
    assert bare.read("/srv/kept") == "kept\n"
    assert not bare.path("/var/lib/stopped-properly").exists()


def test_power_cut_that_loses_the_page_cache() -> None:
    with Appliance(disks={"recordings": 64 * MIB}) as machine:
        machine.boot()
        machine.run("mount /dev/recordings /srv && echo data >/srv/flushed && sync -f /srv")
        machine.run("echo data >/srv/not-flushed && cat /srv/not-flushed")
        machine.power_cut(lose_cache=["/srv"])
        assert machine.boot() == "running"
        machine.run("mount /dev/recordings /srv")
        assert machine.read("/srv/flushed") == "data\n"
        assert not machine.path("/srv/not-flushed").exists()
    assert_nothing_is_left_of(machine)


def test_poweroff_from_inside(bare: Appliance) -> None:
    bare.run("systemctl poweroff --no-block")
    bare.wait_off()
    assert not bare.is_running
    assert bare.boot() == "running"


def test_a_frozen_disk_is_thawed_in_time_and_when_the_test_is_killed(new_appliance: Callable[..., Machine]) -> None:
    own = new_appliance(disks={"disk": 64 * MIB})
    own.boot()
    own.mount_disk()
    with pytest.raises(AssertionError, match=r"was frozen for longer than 0\.5 s"), own.frozen(RECORDINGS, 0.5):
        own.run(f"touch {RECORDINGS}/written")
        time.sleep(1)
    child = os.fork()
    if child == 0:
        with own.frozen(RECORDINGS, 100):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    own.run(f"touch {RECORDINGS}/written-again")
    assert own.recordings() == [f"{RECORDINGS}/written", f"{RECORDINGS}/written-again"]


# ---------------------------------------------------------------- working in it


def test_run_gives_output_exit_code_and_user(kept: Appliance) -> None:
    awkward = ["printf", "%s|", "a b", "$HOME", "'\"", "%s", "\\", "ü"]
    assert kept.run(awkward).stdout == "a b|$HOME|'\"|%s|\\|ü|"
    assert kept.run("cat", input="given").stdout == "given"
    assert kept.run("exit 7", check=False).returncode == 7
    assert kept.run("id -un", user="nobody").stdout == "nobody\n"
    assert kept.run("echo $COLOUR", env={"COLOUR": "red"}).stdout == "red\n"
    with pytest.raises(ApplianceError, match=r"exit code 3\nwhy it failed"):
        kept.run("echo why it failed >&2; exit 3")


def test_run_ends_what_takes_too_long(kept: Appliance) -> None:
    with pytest.raises(ApplianceError, match=r"did not end within 0\.2 s"):
        kept.run("sleep 4711; true", timeout_s=0.2)
    assert kept.run("pgrep -f 'sleep 471[1]'", check=False).stdout == ""


def test_a_command_left_in_the_background_can_be_killed(kept: Appliance) -> None:
    process = kept.popen(["sleep", "4712"])
    wait_for(lambda: kept.run("pgrep -x sleep", check=False).stdout, 2, "sleep runs")
    process.kill()
    assert process.wait(2) == -signal.SIGKILL
    wait_for(lambda: not kept.run("pgrep -x sleep", check=False).stdout, 2, "sleep is gone")


def test_host_directories_can_be_seen_inside(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    with Appliance(binds=[f"{tmp_path}:/mnt"]) as machine:
        machine.boot()
        assert machine.read("/mnt/file") == "from the host"
    assert (tmp_path / "file").exists()


def test_push_and_pull_keep_modes(kept: Appliance, tmp_path: Path) -> None:
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/below/script").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree/below/script").chmod(0o755)
    kept.push(tmp_path / "tree", "/opt/tree")
    assert kept.run("/opt/tree/below/script").stdout == "ran\n"
    kept.pull("/opt/tree", tmp_path / "back")
    assert os.access(tmp_path / "back/below/script", os.X_OK)


def test_wait_for_names_what_it_waited_for() -> None:
    with pytest.raises(ApplianceError, match=r"not within 0\.05 s: pigs fly \(last value: 0\)"):
        wait_for(lambda: 0, 0.05, "pigs fly")


# ---------------------------------------------------------------- several, layers, what is left


def test_two_at_once_do_not_disturb_each_other(bare: Appliance) -> None:
    with Appliance() as other:
        assert other.boot() == "running"
        other.write("/srv/mine", "other")
        assert not bare.path("/srv/mine").exists()
        other.power_cut()
        assert bare.run("systemctl is-system-running").stdout.strip() == "running"
        assert other.boot() == "running"
        bare.shutdown()
        assert other.run("systemctl is-system-running").stdout.strip() == "running"


def test_a_layer_is_built_once_per_key_and_older_ones_go() -> None:
    built: list[str] = []

    def build(machine: Appliance) -> None:
        built.append(machine.name)
        machine.write("/srv/layer", str(len(built)))

    name = f"selftest{os.getpid()}"
    first = layer(name, "first", build)
    assert layer(name, "first", build) == first
    assert len(built) == 1
    with Appliance(layers=[first]) as machine:
        machine.boot()
        assert machine.read("/srv/layer") == "1"
        second = layer(name, "second", build)
        assert first.exists(), "a layer that is in use must stay"
        machine.write("/srv/layer", "changed")
    assert (first / "srv/layer").read_text() == "1"
    third = layer(name, "third", build)
    assert third.exists()
    assert not first.exists()
    assert not second.exists()
    remove_layers(name)


def remove_layers(name: str) -> None:
    for path in (base_tree().parent / "layers").glob(f"{name}-*"):
        subprocess.run(["rm", "-rf", "--", str(path)], check=True)


def test_a_build_that_fails_leaves_no_layer() -> None:
    def build(machine: Appliance) -> None:
        machine.run("echo the reason; false")

    name = f"selftest{os.getpid()}"
    with pytest.raises(ApplianceError, match="the reason"):
        layer(name, "fails", build)
    assert [p for p in (base_tree().parent / "layers").glob(f"{name}-*") if p.is_dir()] == []
    remove_layers(name)


def test_close_in_any_state_leaves_nothing() -> None:
    never_booted = Appliance()
    never_booted.close()
    running = Appliance()
    running.boot()
    running.popen("sleep 4713")
    running.close()
    running.close()
    cut = Appliance()
    cut.boot()
    cut.power_cut()
    cut.close()
    for machine in (never_booted, running, cut):
        assert machine.is_closed
        assert_nothing_is_left_of(machine)


def test_an_exception_at_any_moment_of_a_boot_leaves_nothing() -> None:
    for delay_s in (0.002, 0.01, 0.03, 0.1, 0.25):
        with contextlib.suppress(InterruptedError), Appliance() as machine, interrupted_after(delay_s):
            machine.boot()
        assert_nothing_is_left_of(machine)


@contextlib.contextmanager
def interrupted_after(delay_s: float) -> Iterator[None]:
    """Raise InterruptedError in the body after that time."""

    def interrupt(*_: object) -> None:
        raise InterruptedError

    previous = signal.signal(signal.SIGALRM, interrupt)
    limit = signal.setitimer(signal.ITIMER_REAL, delay_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *limit)
        signal.signal(signal.SIGALRM, previous)


LAUNCHER = """
import signal, sys
from appliance import Appliance, end_on_sigterm
end_on_sigterm()
machine = Appliance(disks={"disk": 1 << 24})
machine.boot()
machine.popen("sleep 4714")
print(machine.name, flush=True)
signal.pause()
"""


@contextlib.contextmanager
def launcher() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process with an appliance of its own, and the appliance's name."""
    command = [sys.executable, "-c", LAUNCHER]
    here = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_launcher_killed_with_sigkill_is_cleaned_up_after() -> None:
    with launcher() as (process, name):
        assert clean_leftovers() == [], "a living launcher's appliance is none of our business"
        process.kill()
        process.wait()
        assert any(cgroup_pids(root / name) for root in cgroup_roots()), "nothing to clean up"
        assert name in clean_leftovers()
        assert leftovers_of(process.pid) == []


def test_a_launcher_ended_with_sigterm_cleans_up_itself() -> None:
    with launcher() as (process, _):
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
        assert leftovers_of(process.pid) == []


def test_writing_never_follows_a_link_to_the_hosts_files(tmp_path: Path) -> None:
    """From outside, an absolute link inside leads to the host's files: so a test once overwrote the host's FFmpeg."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    with Appliance() as machine:
        machine.boot()
        machine.run(["ln", "-s", str(victim), "/root/link"])
        machine.write("/root/link", "inside")
        assert machine.read("/root/link") == "inside"
    assert victim.read_text() == "untouched"
