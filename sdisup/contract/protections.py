"""What operators protect from being deleted by rules: a file each in /var/lib/sdisup/protected, made by root or by a
member of the group sdisup, who may delete recordings too.

A protection names a file, or a take and a port within a time, so that it also holds for what is recorded later.
Whoever deletes by rules and cannot read one of them deletes nothing. Standard library only.
"""

from __future__ import annotations

import os

from sdisup.contract import lean
from sdisup.contract.files import STATE_DIRECTORY, Unreadable, read_fields, stage_file, sync_directory
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DIRECTORY = f"{STATE_DIRECTORY}/protected"
ENDING = ".json"


class Protection(Record):
    """What is protected: the file at `path`, or what of a `port_index`, a `take`, or both, is within `since` and
    `until`, as the ledger's texts (UTC); empty for no limit. `by` is who protected it, `at` when."""

    path: str = ""
    take: str = ""
    port_index: int | None = None
    since: str = ""
    until: str = ""
    reason: str = ""
    by: str = ""
    at: str = ""
    name: str = ""
    """What it is called: its file's name, without the ending."""

    def covers(self, port_index: int, path: str, takes: Sequence[str], start: str, end: str) -> bool:
        """Whether it is for a file. One that reaches into its time is protected as a whole."""
        if self.path:
            return path == self.path
        if self.port_index is not None and port_index != self.port_index:
            return False
        if self.take and self.take not in takes:
            return False
        return (not self.until or start < self.until) and (not self.since or end > self.since)

    def is_same(self, other: Protection) -> bool:
        """Whether both are for the same files."""
        return self._what() == other._what()

    def _what(self) -> tuple[object, ...]:
        return self.path, self.take, self.port_index, self.since, self.until


class Protections:
    """All of them, to be asked for very many files."""

    def __init__(self, known: Sequence[Protection]) -> None:
        self.known = list(known)
        self._paths = {one.path: one for one in known if one.path}
        self._others = [one for one in known if not one.path]

    def of(self, port_index: int, path: str, takes: Sequence[str], start: str, end: str) -> Protection | None:
        """One that covers a file; None if there is none."""
        found = self._paths.get(path)
        if found is None and self._others:
            found = next((one for one in self._others if one.covers(port_index, path, takes, start, end)), None)
        return found


def load_protections(directory: str = DIRECTORY) -> list[Protection]:
    """All protections, in the order in which they were made. Raises Unreadable where one may be and cannot be read."""
    try:
        names = [name for name in os.listdir(directory) if name.endswith(ENDING)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unreadable(f"{directory} cannot be read: {error.strerror}") from error
    found = []
    for name in names:
        try:
            known = read_fields(f"{directory}/{name}").record(Protection, name=name.removesuffix(ENDING))
        except FileNotFoundError:
            # It was taken away meanwhile.
            continue
        if not (known.path or known.take or known.port_index is not None):
            raise Unreadable(f"{directory}/{name}: it does not say what is protected")
        found.append(known)
    return sorted(found, key=lambda one: (one.at, one.name))


def save_protection(protection: Protection, directory: str = DIRECTORY) -> Protection:
    """Write it durably, under a name of its own; returns it with the name. Raises OSError."""
    document = {name: value for name, value in protection.as_dict().items() if value not in ("", None)}
    staged = stage_file(f"{directory}/new", lean.encode(document).encode() + b"\n", mode=0o664)
    try:
        number = 1 + max(map(_number, os.listdir(directory)), default=0)
        while True:
            try:
                os.link(staged, f"{directory}/{number}{ENDING}", follow_symlinks=False)
                break
            except FileExistsError:
                # Somebody else protects something at this moment.
                number += 1
    finally:
        os.unlink(staged)
    sync_directory(directory)
    return protection.replaced(name=str(number))


def _number(name: str) -> int:
    word = name.removesuffix(ENDING)
    return int(word) if name.endswith(ENDING) and word.isascii() and word.isdigit() and len(word) < 10 else 0


def remove_protection(protection: Protection, directory: str = DIRECTORY) -> None:
    """Take it away durably. Raises OSError."""
    os.unlink(f"{directory}/{protection.name}{ENDING}")
    sync_directory(directory)
