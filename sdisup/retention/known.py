"""What the ledgers know of finished files, read line by line: 100,000 files have to fit into a small process."""

from __future__ import annotations

import re
from sys import intern

from sdisup.contract.files import unix_time
from sdisup.contract.lean import deque
from sdisup.contract.records import Record
from sdisup.ledger.lines import Problem, decode_line, read_chunks
from sdisup.retention.plan import NOT_COPIED, PROTECTED, File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sdisup.ledger.lines import Entry
    from sdisup.ledger.moments import Moment

TOLD_MOST = 4096
"""So many of a port's last deletions may have been told and not done, when a crash came between."""
BEHIND_S = 86400.0
"""A file that ends by so much before the one before it ended while the clock was behind."""
STEP_S = 1.0

_OWN_FILE = re.compile(
    rb'\{"v":1,"kind":"file","port_index":\d+,"take":(?:null|"([^"\\]*)"),"boot_id":"([^"\\]*)",'
    rb'"start":"([^"\\]*)","end":"([^"\\]*)","start_monotonic":[-\d.]+,"end_monotonic":([-\d.]+),"seconds":[-\d.]+,'
    rb'"path":"([^"\\]*)","frames":\d+,"duplicated":\d+,"dropped":\d+,"bytes":(\d+),"codec":"[^"\\]*",'
    rb'"ended":"[^"\\]*","ffmpeg_version":"[^"\\]*"(?:,"inode":(\d+))?(?:,"number":\d+)?\}'
)
"""A line as sdisup itself writes it, without a backslash; any other one is decoded."""
_OTHERS = (b'{"v":1,"kind":"gap"', b'{"v":1,"kind":"stop"')
"""Beginnings of lines that say nothing of files."""


class Told(Record):
    """A deletion that a ledger has: whether it was done, the disk says."""

    file: File
    rule: str


class Known:
    """All finished files that no ledger says to be deleted, by path, and what else retention has to know of ledgers.

    `now` is the moment of asking. `is_protected` says whether a file is, by its port, path, takes, start and end.
    """

    def __init__(self, now: Moment, is_protected: Callable[[int, str, Sequence[str], str, str], object]) -> None:
        self.files: dict[str, File] = {}
        self.told: deque[Told] = deque()
        self.last_end = 0.0
        """When the newest file of an earlier boot ended, in Unix time; 0 if there is none."""
        self.problems = 0
        """How many lines cannot be understood."""
        self._now, self._is_protected = now, is_protected
        self._port_index = 0
        self._waits_for: Collection[str] | None = None
        self._missing: dict[str, set[str]] = {}
        """Which targets have no copy yet of files that have some, by path."""
        self._marks: dict[str, tuple[str, ...]] = {}
        self._former_end = self._last_end = 0.0

    def read(self, port_index: int, path: str, *, waits_for: Collection[str] | None = None) -> None:
        """Take in a port's ledger. Files are kept until each of the targets `waits_for` has a copy; None for none, and
        any one counts where none is named."""
        self._port_index, self._waits_for = port_index, waits_for
        self._missing.clear()
        self._former_end = self._last_end = 0.0
        self._marks.clear()
        told = self.told
        self.told = deque(maxlen=TOLD_MOST)
        for found in read_chunks(path):
            if isinstance(found, Problem):
                self.problems += 1
                continue
            number, _, chunk = found
            for index, line in enumerate(chunk.split(b"\n")):
                if line and not line.startswith(_OTHERS):
                    self._take(path, number + index, line)
        told.extend(self.told)
        self.told = told
        self.last_end = max(self.last_end, self._last_end)

    def _take(self, path: str, number: int, line: bytes) -> None:
        own = _OWN_FILE.fullmatch(line)
        if own is not None:
            take, boot, start, end, monotonic, file, size_bytes, inode = own.groups(b"")
            takes = (take.decode(),) if take else ()
            self._add(file.decode(), start.decode(), end.decode(), float(monotonic), boot.decode(), int(size_bytes),
                      int(inode or 0), takes)  # fmt: skip
            return
        entry = decode_line(path, number, line)
        if isinstance(entry, Problem):
            self.problems += 1
        else:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Take in an entry of the port."""
        kind, path, boot, monotonic = entry["kind"], entry.get("path"), entry.get("boot_id"), entry.get("end_monotonic")
        take, inode = entry.get("take"), entry.get("inode", 0)
        if kind == "clock":
            self._stepped(boot, float(str(entry["seconds"])))
        elif not isinstance(path, str) or type(inode) is not int:
            return
        elif kind == "file":
            size_bytes, takes = entry.get("bytes"), (take,) if isinstance(take, str) else ()
            at = float(monotonic) if isinstance(monotonic, int | float) else 0.0
            if type(size_bytes) is int and isinstance(boot, str):
                self._add(path, str(entry["start"]), str(entry["end"]), at, boot, size_bytes, inode, takes)
        elif kind == "mark" and isinstance(take, str):
            self._marks[path] = (*self._marks.get(path, ()), take)
        elif kind == "delete":
            self._deleted(path, inode, str(entry.get("rule")))
        elif kind == "copy":
            self._copied(path, inode, str(entry.get("target")))

    def _copied(self, path: str, inode: int, target: str) -> None:
        file = self.files.get(path)
        if file is None or file.kept != NOT_COPIED or (file.inode and inode and file.inode != inode):
            return
        missing = self._missing.setdefault(path, set(self._waits_for or ()))
        missing.discard(target)
        if not missing:
            file.kept = ""
            del self._missing[path]

    def _add(
        self, path: str, start: str, end: str, at: float, boot: str, size_bytes: int, inode: int, takes: Sequence[str]
    ) -> None:
        boot, takes = intern(boot), (*takes, *self._marks.pop(path, ()))
        is_protected = self._is_protected(self._port_index, path, takes, start, end)
        kept = PROTECTED if is_protected else NOT_COPIED if self._waits_for is not None else ""
        self._missing.pop(path, None)
        when = self._end_s(end, at, boot)
        if boot != self._now.boot:
            self._last_end = when
        other = self.files.get(path)
        if other is None or other.port_index == self._port_index or other.end <= when:
            # The newest one has the name now.
            self.files[path] = File(self._port_index, path, when, size_bytes, inode, boot, "", kept)

    def _end_s(self, end: str, at: float, boot: str) -> float:
        """When a file ended, as the clock has it now."""
        now = self._now
        if boot == now.boot:
            # So old as CLOCK_MONOTONIC says, whatever became of the clock since.
            return now.wall - (now.monotonic - at)
        try:
            found = unix_time(end)
        except ValueError:
            # It looks like a time and is none: nobody knows how old the file is.
            found = now.wall
        if found < self._former_end - BEHIND_S and self._former_end <= now.wall:
            # A clock without a battery: nobody knows by how much it was behind.
            found = self._former_end
        self._former_end = found
        return found

    def _stepped(self, boot: object, step_s: float) -> None:
        """The clock was put right, or wrong: what was recorded in that boot before is so much later by the clock now.
        Of this boot that is known already."""
        if abs(step_s) < STEP_S or boot == self._now.boot:
            return
        self._former_end, self._last_end = self._former_end + step_s, self._last_end + step_s
        for file in reversed(self.files.values()):
            if file.port_index != self._port_index or file.boot != boot:
                break
            file.end += step_s

    def _deleted(self, path: str, inode: int, rule: str) -> None:
        file = self.files.get(path)
        if file is not None and file.port_index == self._port_index and file.inode == inode:
            self.told.append(Told(self.files.pop(path), rule))
