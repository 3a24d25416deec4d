"""What is mounted where, by /proc/self/mountinfo (proc(5)).

It asks no disk but that of `/`, so that one that hangs keeps nobody waiting. Standard library only.
"""

from __future__ import annotations

import os
import stat

from sdisup.contract.filesystem import LINKS, MOUNTINFO, unescaped
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class Mount(Record):
    """One mount. `device` is such as `8:17`, `source` such as `/dev/sdb1`, `tank/recordings`, `server:/export`.

    `is_read_only` is the mount itself, `is_filesystem_read_only` what is mounted: its kernel writes to it no more.
    """

    place: str
    kind: str
    source: str
    device: str
    is_read_only: bool = False
    is_filesystem_read_only: bool = False
    options: tuple[str, ...] = ()
    """Those of the filesystem, such as errors=remount-ro."""


def read_mounts(path: str = MOUNTINFO) -> list[Mount]:
    """What this process sees mounted; nothing where /proc does not say."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return parse_mounts(file)
    except OSError:
        return []


def parse_mounts(lines: Iterable[str]) -> list[Mount]:
    """The mounts of mountinfo's lines, in their order; a line that is none is left out.

    36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    """
    found = []
    for line in lines:
        own, _, rest = line.rstrip("\n").partition(" - ")
        words, of_filesystem = own.split(" "), rest.split(" ")
        if len(words) < 6 or len(of_filesystem) < 3:
            continue
        options = tuple(of_filesystem[2].split(","))
        found.append(
            Mount(
                unescaped(words[4]),
                of_filesystem[0],
                unescaped(of_filesystem[1]),
                words[2],
                "ro" in words[5].split(","),
                "ro" in options,
                options,
            )
        )
    return found


def link_at(path: str) -> str | None:
    """Where a link leads; None for what is no link, or is not there."""
    try:
        return os.readlink(path) if stat.S_ISLNK(os.lstat(path).st_mode) else None
    except OSError:
        return None


def mount_of(path: str, mounts: Sequence[Mount], link_at: Callable[[str], str | None] = link_at) -> Mount | None:
    """What an absolute path leads to. Links are followed as far as they are on the filesystem of `/`, whose disk alone
    is asked: what is on another one is taken for a directory."""
    # Of two mounts on one place the later one counts.
    by_place = {mount.place: mount for mount in mounts}
    at, links, names = "", 0, path.split("/")[::-1]
    while names:
        name = names.pop()
        if name in ("", ".", ".."):
            at = at.rpartition("/")[0] if name == ".." else at
            continue
        below = f"{at}/{name}"
        is_on_root = below not in by_place and _above(at, by_place) == "/"
        target = link_at(below) if is_on_root else None
        if target is None:
            at = below
            continue
        links += 1
        if links > LINKS:
            return None
        names += target.split("/")[::-1]
        at = "" if target.startswith("/") else at
    return by_place.get(_above(at, by_place))


def _above(path: str, by_place: Mapping[str, Mount]) -> str:
    """The place of the mount that a path is on; `/` where there is no other."""
    while path and path not in by_place:
        path = path.rpartition("/")[0]
    return path or "/"
