"""What apply remembers of the recordings' disks; what it does with systemd is in the system tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdisup.cli import main as cli
from sdisup.config.settings import Settings, parse_settings
from sdisup.contract import disks
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.disks import disk_path, remember_disk
from sdisup.contract.status import PortStatus
from sdisup.control import apply
from sdisup.control.look import NO_ANSWER, Look
from sdisup.errors import SdisupError

DIRECTORY = "/srv/recordings"
SETTINGS = parse_settings(
    [("test.toml", {"appliance": {"ports": 2, "recordings": DIRECTORY}, "defaults": {"source": {"kind": "test"}}})]
)


@pytest.mark.parametrize(
    ("former", "now", "accepted", "remembered"),
    [
        ("", "ext4:fsid-5d1c", False, "ext4:fsid-5d1c"),
        ("ext4:fsid-5d1c", "ext4:fsid-5d1c", False, "ext4:fsid-5d1c"),
        # A name that can be had now replaces none, and is not lost to a kernel that cannot tell it.
        ("xfs", "xfs:uuid-2f3c", False, "xfs:uuid-2f3c"),
        ("xfs:uuid-2f3c", "xfs", False, "xfs:uuid-2f3c"),
        ("xfs", "xfs", False, "xfs"),
        # The disk is missing.
        ("xfs:uuid-2f3c", None, False, "xfs:uuid-2f3c"),
        # The operator's word: this is the disk, also where its name is not told.
        ("xfs:uuid-2f3c", "xfs", True, "xfs"),
        ("xfs:uuid-2f3c", "xfs:uuid-aaaa", True, "xfs:uuid-aaaa"),
        ("xfs:uuid-2f3c", "ext4:fsid-5d1c with /", True, ""),
        # On the system's own disk any other is welcome.
        ("", "ext4:fsid-5d1c with /", False, ""),
    ],
)
def test_what_is_remembered_of_a_disk(former: str, now: str | None, accepted: bool, remembered: str) -> None:
    assert found_after(former, now, accepted) == (remembered, [])


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("xfs:uuid-2f3c", "xfs:uuid-aaaa"),
        ("xfs:uuid-2f3c", "ext4:fsid-5d1c with /"),
        ("xfs", "xfs:uuid-2f3c with /"),
        ("xfs", "ext4:fsid-5d1c"),
    ],
)
def test_another_disk_is_told_and_the_former_one_remembered(former: str, now: str) -> None:
    remembered, warnings = found_after(former, now, accepted=False)
    assert remembered == former
    assert len(warnings) == 1 and warnings[0].startswith(f"{DIRECTORY} is on {now}, not on {former} as when")


def found_after(former: str, now: str | None, accepted: bool) -> tuple[str, list[str]]:
    look = Look(error="No such file or directory") if now is None else Look(kind="directory", filesystem=now)
    warnings: list[str] = []
    filesystems = apply._filesystems({DIRECTORY: look}, {DIRECTORY: former}, warnings, accepted)
    assert list(filesystems) == [DIRECTORY]
    return filesystems[DIRECTORY], warnings


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("recording", "records on"),
        ("backoff", "does not record (backoff) and goes on trying"),
        ("no-signal", "does not record (no-signal) and goes on trying"),
    ],
)
def test_what_a_port_with_an_older_unit_does(monkeypatch: pytest.MonkeyPatch, state: str, words: str) -> None:
    status = PortStatus(port_index=0, state=state, is_recording=state == "recording", config_pending=True)
    monkeypatch.setattr(apply, "statuses", lambda ports, systemd: [status])
    start, pending = apply._due(None, Applied({}, []))  # type: ignore[arg-type]
    assert (start, pending) == ([], {0: words})


def test_a_second_command_waits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "LOCK_PATH", str(tmp_path / "lock"))
    with apply.one_at_a_time():
        refused = pytest.raises(SdisupError, match="another sdisup has been changing the configuration")
        with refused, apply.one_at_a_time(wait_s=0.0):
            raise AssertionError("two at once")
    with apply.one_at_a_time(wait_s=0.0):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(SdisupError, match="Too many levels of symbolic links"), apply.one_at_a_time():
        raise AssertionError("a planted link was followed")
    assert not (tmp_path / "victim").exists()


def test_a_dry_run_shows_what_the_same_apply_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, bool]] = []

    def dry_run(_: object, **options: bool) -> tuple[str, list[str], list[str]]:
        asked.append(options)
        return "", [], []

    monkeypatch.setattr(Settings, "load", lambda *_: SETTINGS)
    monkeypatch.setattr(apply, "dry_run", dry_run)
    for words in (
        ["apply", "--dry-run"],
        ["apply", "--dry-run", "--accept-disks"],
        ["apply", "--dry-run", "--restart"],
    ):
        assert cli.main(words) == 0
    assert [options["accept_disks"] for options in asked] == [False, True, False]
    assert [options["restart"] for options in asked] == [False, False, True]


def test_what_is_doubtful_about_recordings_directories_is_said_and_no_more() -> None:
    free = Look(kind="directory", free_bytes=1 << 40)
    looks = {
        "/srv/dead": Look(error=NO_ANSWER),
        "/srv/none": Look(error="No such file or directory"),
        "/srv/system": free.replaced(filesystem="ext4:fsid-5d1c with /", is_beside_system=True),
        "/srv/unmounted": free.replaced(filesystem="ext4:fsid-5d1c with /", is_beside_system=True),
        "/srv/subvolume": free.replaced(filesystem="btrfs:fsid-9", is_beside_system=True),
        "/srv/good": free.replaced(filesystem="xfs:uuid-2f3c"),
    }
    former = {"/srv/dead": "nfs4:server:/export", "/srv/unmounted": "xfs:uuid-aaaa"}
    warnings: list[str] = []
    filesystems = apply._filesystems(looks, former, warnings, False)
    # What hangs or is not mounted is recorded to when it is back, and nowhere else.
    assert filesystems == {
        **dict.fromkeys(looks, ""),
        **former,
        "/srv/good": "xfs:uuid-2f3c",
        "/srv/subvolume": "btrfs:fsid-9",
    }
    assert [warning.partition(" is on ")[0] for warning in warnings] == ["/srv/unmounted"]
    # A target of copies has a filesystem too, and is no directory of recordings.
    filesystems["/mnt/nas"] = "nfs4:server:/nas"
    said = [text.split()[0].rstrip(":") for text in apply._directory_warnings(looks, filesystems)]
    assert said == ["/srv/dead", "/srv/none", "/srv/system", "/srv/subvolume"]


def test_the_disk_of_the_last_apply_counts_then_the_one_that_a_runner_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "disk_path", lambda port: disk_path(port, str(tmp_path)))
    monkeypatch.setattr(disks, "disk_path", lambda port: disk_path(port, str(tmp_path)))
    monkeypatch.setattr(disks, "KEPT_DIRECTORY", str(tmp_path / "kept"))
    assert apply._remembered_disks(SETTINGS, Applied({}, [])) == {DIRECTORY: ""}
    for directory in (str(tmp_path), str(tmp_path / "kept")):
        remember_disk(f"{directory}/disks/1".replace("kept/disks", "kept"), DIRECTORY, "ext4:fsid-1")
    assert apply._remembered_disks(SETTINGS, Applied({}, [])) == {DIRECTORY: "ext4:fsid-1"}
    known = Applied({0: AppliedPort(0, "port0", "h264", DIRECTORY, False, "rev", "xfs:uuid-2")}, [])
    assert apply._remembered_disks(SETTINGS, known) == {DIRECTORY: "xfs:uuid-2"}
    disks.forget_disks([0, 1])
    assert apply._remembered_disks(SETTINGS, Applied({}, [])) == {DIRECTORY: ""}
    assert os.listdir(tmp_path / "kept") == []
