"""Which finished files are to be copied to a target next, and how they are named there: from ledger lines. Pure.

The ledger alone says what is copied: whatever else an offload remembers may be lost at any moment.
"""

from __future__ import annotations

import hashlib

from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sdisup.ledger.lines import Entry

UNFINISHED = ".sdisup-"
"""How the name of a copy begins that is not complete, or not verified."""


class Recorded(Record):
    """A finished file as the ledger has it, or what is known of its copy.

    `end` is when its last frame came, as the ledger's text; `inode` is 0 where the ledger does not have it. `copy` is
    its path at the target, empty while it waits.
    """

    port_index: int
    path: str
    start: str
    end: str
    size_bytes: int
    inode: int = 0
    take: str | None = None
    copy: str = ""


class Known:
    """What a port's ledger says of one target: its files that are there, the oldest line first, and their copies."""

    def __init__(self, target: str, port_index: int) -> None:
        self.target, self.port_index = target, port_index
        self.files: dict[str, Recorded] = {}
        """By path; what was deleted is none."""
        self.taken: set[str] = set()
        """The paths at the target that this port's copies have, also of files that are deleted here."""

    def add(self, entry: Entry) -> None:
        """Take in the ledger's next line."""
        kind, path = entry.get("kind"), entry.get("path")
        if not isinstance(path, str):
            return
        if kind == "file":
            self._file(path, entry)
        elif kind == "delete":
            self.files.pop(path, None)
        elif kind == "copy" and entry.get("target") == self.target:
            copy = str(entry.get("copy") or "")
            self.taken.add(copy)
            file = self.files.get(path)
            # One whose file was deleted and recorded anew since is of another file.
            if file is not None and (entry.get("bytes"), entry.get("recorded")) == (file.size_bytes, file.start):
                self.files[path] = file.replaced(copy=copy)

    def _file(self, path: str, entry: Entry) -> None:
        size_bytes, inode = entry.get("bytes"), entry.get("inode", 0)
        if not isinstance(size_bytes, int) or size_bytes <= 0 or not path.startswith("/"):
            return
        start, former = str(entry["start"]), self.files.get(path)
        if former is not None and (former.start, former.size_bytes) == (start, size_bytes):
            # Earlier versions could enter a file a second time after a crash.
            return
        take = entry.get("take")
        self.files[path] = Recorded(
            self.port_index, path, start, str(entry["end"]), size_bytes,
            inode if isinstance(inode, int) else 0, take if isinstance(take, str) else None,
        )  # fmt: skip

    def waiting(self) -> list[Recorded]:
        """The files without a copy, in the order in which they ended."""
        return in_order(file for file in self.files.values() if not file.copy)

    def copied(self) -> list[Recorded]:
        return [file for file in self.files.values() if file.copy]


def in_order(files: Iterable[Recorded]) -> list[Recorded]:
    """The oldest one first: it is the first that retention deletes."""
    return sorted(files, key=lambda file: (file.end, file.port_index, file.path))


def due(waiting: Sequence[Recorded], retry_at: Mapping[str, float], now: float) -> list[Recorded]:
    """The files without those that failed and are not to be tried again yet."""
    return [file for file in waiting if retry_at.get(file.path, now) <= now]


def relative_path(path: str, directories: Iterable[str]) -> str:
    """A file's path below its directory of recordings; the whole path of one that is in none of them."""
    above = [directory for directory in directories if path.startswith(f"{directory.rstrip('/')}/")]
    return path.removeprefix(max(above, key=len, default="")).lstrip("/")


def target_path(folder: str, port_name: str, relative: str, taken: Iterable[str] = ()) -> str:
    """Where a file's copy goes, relative to the target.

    Where an earlier file of the port has that name there, since names come again once files are deleted, it gets a
    number, as a recording does.
    """
    wanted = f"{folder}/{port_name}/{relative}"
    # A target may be a share whose names do not differ by capitals.
    used = {path.lower() for path in taken}
    if wanted.lower() not in used:
        return wanted
    start, slash, name = wanted.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    number = 2
    while (found := f"{start}{slash}{stem}_{number}{dot}{ending}").lower() in used:
        number += 1
    return found


def unfinished_path(path: str, machine: str, file: Recorded) -> str:
    """What a file's copy is called until it is complete and verified.

    In the same folder, and the same at each try, so that what an interrupted one left is known by its name: nobody
    else's copy has it, since no other machine has this `machine` id, and no other file is this one.
    """
    text = "\0".join((machine, str(file.port_index), file.path, file.start, str(file.size_bytes)))
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return f"{path.rpartition('/')[0]}/{UNFINISHED}{digest}"


# ---- When it is tried again ----

FIRST_WAIT_S, LONGEST_WAIT_S = 60.0, 3600.0


def wait_s(failures: int) -> float:
    """How long nothing is tried after so many failures in a row: a minute, then twice as long each time, up to an
    hour."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(max(failures - 1, 0), 10))
