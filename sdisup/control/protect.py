"""Protecting recordings from being deleted by rules: what is protected, and which files that is."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterable, Iterator, Sequence

from sdisup.contract.applied import load_applied
from sdisup.contract.files import Unreadable, utc_text
from sdisup.contract.protections import (
    DIRECTORY,
    Protection,
    load_protections,
    remove_protection,
    save_protection,
)
from sdisup.contract.records import Record
from sdisup.errors import SdisupError
from sdisup.ledger.accounts import Row, Window
from sdisup.ledger.lines import LEDGER_DIRECTORY
from sdisup.ledger.present import accounts, with_ledgers


class Covered(Record):
    """A protection and what it covers of what the ledgers have: so many files that are not deleted, of so many bytes,
    of which some are `missing`, since somebody else has removed them."""

    protection: Protection
    files: int
    size_bytes: int
    missing: int


def known_protections() -> list[Protection]:
    """All of them. Raises SdisupError."""
    try:
        return load_protections()
    except Unreadable as error:
        hint = "nothing is deleted by rules until it is mended or removed"
        raise SdisupError(str(error), hint) from error


def protect(asked: Iterable[Protection], reason: str = "") -> list[Protection]:
    """Protect what is asked for; what is protected already stays as it is. Raises SdisupError."""
    known, made = known_protections(), []
    now = utc_text(time.time())
    for one in asked:
        same = next((other for other in known if other.is_same(one)), None)
        if same is None:
            same = _written(one.replaced(reason=reason, by=_operator(), at=now))
            known.append(same)
        made.append(same)
    return made


def _written(protection: Protection) -> Protection:
    try:
        return save_protection(protection)
    except OSError as error:
        raise SdisupError(f"{DIRECTORY}: {error.strerror}", _hint(error)) from error


def unprotect(asked: Iterable[Protection]) -> list[Protection]:
    """Take protections away, each by what it protects; returns them. Raises SdisupError where there is none."""
    known, found = known_protections(), []
    for one in asked:
        same = [other for other in known if other.is_same(one) or (one.name and other.name == one.name)]
        if not same:
            covering = [other for other in known if one.path and other in _covering(one.path, known)]
            hint = "sdisup protected lists what is"
            if covering:
                words = ", ".join(f"{words_of(other)} (--id {other.name})" for other in covering)
                hint = f"it is covered by {words}"
            text = (
                f"{words_of(one)} is not protected by itself" if not one.name else f"there is no protection {one.name}"
            )
            raise SdisupError(text, hint)
        found += [other for other in same if other not in found]
    for one in found:
        try:
            remove_protection(one)
        except FileNotFoundError:
            # Somebody else has taken it away meanwhile.
            continue
        except OSError as error:
            raise SdisupError(f"{DIRECTORY}: {error.strerror}", _hint(error)) from error
    return found


def _covering(path: str, known: Sequence[Protection]) -> list[Protection]:
    files = [(port, row, takes) for port, row, takes in recorded() if row.path == path]
    return [one for one in known if any(covers(one, *file) for file in files)]


def _hint(error: OSError) -> str:
    if error.errno in (1, 13):
        return "root and the members of the group sdisup may: sudo sdisup …"
    return "systemd-tmpfiles --create sdisup.conf makes it" if isinstance(error, FileNotFoundError) else ""


def _operator() -> str:
    """Who asks, as far as that is known."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def recorded(directory: str = LEDGER_DIRECTORY) -> Iterator[tuple[int, Row, list[str]]]:
    """Each file that the ledgers know, or that is being recorded, and that was not deleted: its port and takes."""
    ports = list(with_ledgers(load_applied(), directory).ports.values())
    found, _ = accounts("file", ports, Window(), directory)
    for port_index, _, account in found:
        for row in account.rows:
            if row.path and not row.deleted:
                yield port_index, row, account.takes(row)


def covers(protection: Protection, port_index: int, row: Row, takes: Sequence[str]) -> bool:
    """Whether a protection is for a file. One that goes on ends later than anything."""
    return protection.covers(port_index, row.path or "", takes, row.start or row.not_before, row.end_or_open())


def covered(protections: Sequence[Protection]) -> list[Covered]:
    """What each protection covers now."""
    sums = {one.name: [0, 0, 0] for one in protections}
    for port_index, row, takes in recorded() if protections else ():
        for one in protections:
            if covers(one, port_index, row, takes):
                found = sums[one.name]
                found[0] += 1
                found[1] += row.size_bytes or 0
                found[2] += not os.path.lexists(row.path or "")
    return [Covered(one, *sums[one.name]) for one in protections]


def of_files(paths: Iterable[str]) -> list[Protection]:
    """Protections of files, each as the ledgers name it. Raises SdisupError for what no ledger knows."""
    wanted = [os.path.abspath(path) for path in paths]
    known = {row.path or "" for _, row, _ in recorded()}
    places = {(os.path.realpath(os.path.dirname(path)), os.path.basename(path)): path for path in known}
    found = []
    for path in wanted:
        place = os.path.realpath(os.path.dirname(path)), os.path.basename(path)
        if path not in known and place not in places:
            hint = "sdisup recordings lists the files; what no ledger knows is never deleted by rules"
            raise SdisupError(f"{path} is in no ledger", hint)
        found.append(Protection(path=path if path in known else places[place]))
    return found


def words_of(protection: Protection) -> str:
    """What is protected, in words; times are the ledger's."""
    if protection.path:
        return protection.path
    words = [f"take {protection.take}"] if protection.take else []
    words += [f"port {protection.port_index}"] if protection.port_index is not None else []
    return ", ".join(words)
