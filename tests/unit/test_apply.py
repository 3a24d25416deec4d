"""What apply remembers of the recordings' disks; what it does with systemd is in the system tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdisup.cli import main as cli
from sdisup.config.settings import Settings, parse_settings
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.status import PortStatus
from sdisup.control import apply
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
def test_what_is_remembered_of_a_disk(
    monkeypatch: pytest.MonkeyPatch, former: str, now: str | None, accepted: bool, remembered: str
) -> None:
    assert found_after(monkeypatch, former, now, accepted) == (remembered, [])


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("xfs:uuid-2f3c", "xfs:uuid-aaaa"),
        ("xfs:uuid-2f3c", "ext4:fsid-5d1c with /"),
        ("xfs", "xfs:uuid-2f3c with /"),
        ("xfs", "ext4:fsid-5d1c"),
    ],
)
def test_another_disk_is_told_and_the_former_one_remembered(
    monkeypatch: pytest.MonkeyPatch, former: str, now: str
) -> None:
    remembered, warnings = found_after(monkeypatch, former, now, accepted=False)
    assert remembered == former
    assert len(warnings) == 1 and warnings[0].startswith(f"{DIRECTORY} is on {now}, not on {former} as when")


def found_after(monkeypatch: pytest.MonkeyPatch, former: str, now: str | None, accepted: bool) -> tuple[str, list[str]]:
    def identity(path: str) -> str:
        assert path == DIRECTORY
        if now is None:
            raise FileNotFoundError(2, "No such file or directory")
        return now

    monkeypatch.setattr(apply, "filesystem_identity", identity)
    before = Applied({0: AppliedPort(0, "port0", "h264", DIRECTORY, False, "rev", former)}, [])
    warnings: list[str] = []
    filesystems = apply._filesystems(SETTINGS, before, warnings, accepted)
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

    monkeypatch.setattr(Settings, "load", lambda _: SETTINGS)
    monkeypatch.setattr(apply, "dry_run", dry_run)
    for words in (
        ["apply", "--dry-run"],
        ["apply", "--dry-run", "--accept-disks"],
        ["apply", "--dry-run", "--restart"],
    ):
        assert cli.main(words) == 0
    assert [options["accept_disks"] for options in asked] == [False, True, False]
    assert [options["restart"] for options in asked] == [False, False, True]
