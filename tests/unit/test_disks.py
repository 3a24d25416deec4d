"""What runners note of the disks that recordings are on, and that it is kept beside the ledgers."""

from __future__ import annotations

import os
from pathlib import Path

from sdisup.contract.disks import disk_path, disks_directory, keep_disks, remember_disk, remembered_disk
from sdisup.ledger.writer import Writer


def test_a_note_is_of_one_directory(tmp_path: Path) -> None:
    path = disk_path(3, str(tmp_path))
    assert remembered_disk(path, "/srv/a") == ""
    remember_disk(path, "/srv/a", "ext4:fsid-1")
    assert (remembered_disk(path, "/srv/a"), remembered_disk(path, "/srv/b")) == ("ext4:fsid-1", "")
    for garbage in ("", "[]", "{", '{"recordings": "/srv/a"}', '{"recordings": "/srv/a", "filesystem": 3}'):
        Path(path).write_text(garbage)
        assert remembered_disk(path, "/srv/a") == ""


def test_notes_are_kept_once_and_nothing_else_is(tmp_path: Path) -> None:
    run, kept = str(tmp_path / "run"), tmp_path / "ledger" / "disks"
    remember_disk(disk_path(3, run), "/srv/a", "ext4:fsid-1")
    Path(f"{disks_directory(run)}/5.tmp").write_text("torn")
    keep_disks(disks_directory(run), str(kept))
    assert os.listdir(kept) == ["3"]
    first = (kept / "3").stat()
    keep_disks(disks_directory(run), str(kept))
    assert (kept / "3").stat().st_ino == first.st_ino
    assert remembered_disk(str(kept / "3"), "/srv/a") == "ext4:fsid-1"


def test_the_ledgers_process_keeps_them(tmp_path: Path) -> None:
    run, ledger = tmp_path / "run", tmp_path / "ledger"
    run.mkdir()
    ledger.mkdir()
    writer = Writer(str(ledger), str(run))
    try:
        writer.turn()
        assert os.listdir(ledger) == []
        for index, name in enumerate(("ext4:fsid-1", "xfs:uuid-2")):
            remember_disk(disk_path(index, str(run)), "/srv/a", name)
            writer.turn()
            assert remembered_disk(f"{ledger}/disks/{index}", "/srv/a") == name
        # A ledger's disk that is away is looked for again.
        os.rename(ledger / "disks", tmp_path / "gone")
        (ledger / "disks").write_text("")
        remember_disk(disk_path(2, str(run)), "/srv/a", "btrfs")
        writer.turn()
        os.unlink(ledger / "disks")
        writer.turn()
        assert sorted(os.listdir(ledger / "disks")) == ["0", "1", "2"]
    finally:
        os.close(writer.lock)
