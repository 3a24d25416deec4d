"""Which finished files go, why, and in which order. Pure.

The oldest go first, and no more than the rules ask for. A file that is kept, whatever for, is passed over: for want of
space the next one goes, while a limit of size or number waits for one that somebody reads.
"""

from __future__ import annotations

from sdisup.contract.records import Record
from sdisup.contract.retention import MAX_AGE, MAX_FILES, MAX_SIZE, MIN_FREE, rule_text, size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sdisup.contract.retention import Retention

PROTECTED, OPEN, NOT_COPIED = "is protected", "is being recorded", "is not copied yet"
IN_USE = "is open: somebody reads it"
UNCOUNTED = (PROTECTED, IN_USE)
"""What counts for no limit, or others would go in its place: recordings that are younger than what goes."""


class File(Record, frozen=False):
    """A finished file of the ledgers: `end` is when its last frame came, in Unix time as the clock has it now, `boot`
    in which boot that was; `inode` is 0 in lines of earlier versions. `space` is what it fills, empty where it is not
    there. `kept` is why it stays whatever the rules say; empty if it may go."""

    port_index: int
    path: str
    end: float
    size_bytes: int
    inode: int = 0
    boot: str = ""
    space: str = ""
    kept: str = ""


class Space(Record):
    """What files fill, a filesystem or a pool: its free and all of its bytes, a directory on it to name it by, and the
    ports that record there."""

    free_bytes: int
    size_bytes: int
    directory: str
    ports: frozenset[int] = frozenset()


class Deletion(Record):
    """A file that goes, the name of the rule, and the rule with its value as the ledger has it: `max_age 30d`."""

    file: File
    rule: str
    why: str


class Plan(Record):
    """What goes, in this order. `problems` are limits that cannot be kept, by what is too full; `freeable_bytes` is
    what may go there for want of space, besides what goes now."""

    deletions: list[Deletion]
    problems: Mapping[str, str]
    freeable_bytes: Mapping[str, int]


def make_plan(
    files: Sequence[File], retention: Retention, spaces: Mapping[str, Space], now: float, *, is_clock_believed: bool
) -> Plan:
    """`files` are in the order of their ends. Where the clock is not believed nothing goes for its age."""
    return _Planner(files, retention, spaces).plan(now if is_clock_believed else None)


class _Planner:
    def __init__(self, files: Sequence[File], retention: Retention, spaces: Mapping[str, Space]) -> None:
        self._files, self._retention, self._spaces = files, retention, spaces
        recording = {port for space in spaces.values() for port in space.ports}
        self._ports = sorted({file.port_index for file in files} | recording)
        self._is_gone = bytearray(len(files))
        self._freed = dict.fromkeys(spaces, 0)
        self._deletions: list[Deletion] = []
        self._problems: dict[str, str] = {}
        self._freeable: dict[str, int] = {}
        self._words: dict[tuple[str, int], str] = {}

    def plan(self, now: float | None) -> Plan:
        if now is not None:
            self._by_age(now)
        for rule, weight in ((MAX_FILES, lambda _: 1), (MAX_SIZE, lambda file: file.size_bytes)):
            for limit, ports in self._scopes(rule):
                self._by_sum(rule, limit, ports, weight)
        for space in self._spaces:
            for limit, ports in self._scopes(MIN_FREE):
                self._by_space(space, limit, ports)
        return Plan(self._deletions, self._problems, self._freeable)

    def _scopes(self, rule: str) -> Iterator[tuple[int, set[int]]]:
        """Each limit of a rule with the ports whose files it is for: those of one port come before the common one."""
        own = {port for port in self._ports if self._retention.has_own(rule, port)}
        for port in sorted(own):
            if limit := self._retention.value(rule, port):
                yield limit, {port}
        if limit := int(getattr(self._retention.common, rule) or 0):
            yield limit, set(self._ports) - own

    def _left(self, ports: set[int]) -> Iterator[tuple[int, File]]:
        for index, file in enumerate(self._files):
            if file.port_index in ports and not self._is_gone[index]:
                yield index, file

    def _delete(self, index: int, rule: str, limit: int) -> None:
        file = self._files[index]
        self._is_gone[index] = True
        if file.space in self._freed:
            self._freed[file.space] += file.size_bytes
        why = self._words.get((rule, limit)) or self._words.setdefault((rule, limit), rule_text(rule, limit))
        self._deletions.append(Deletion(file, rule, why))

    def _by_age(self, now: float) -> None:
        limits = {port: self._retention.value(MAX_AGE, port) for port in self._ports}
        for index, file in self._left({port for port, limit in limits.items() if limit}):
            if not file.kept and now - file.end > limits[file.port_index]:
                self._delete(index, MAX_AGE, limits[file.port_index])

    def _by_sum(self, rule: str, limit: int, ports: set[int], weight: Callable[[File], int]) -> None:
        # Not a list: there may be very many.
        excess = sum(weight(file) for _, file in self._left(ports) if file.kept not in UNCOUNTED) - limit
        for index, file in self._left(ports):
            if excess <= 0:
                return
            if not file.kept:
                self._delete(index, rule, limit)
                excess -= weight(file)

    def _by_space(self, name: str, limit: int, ports: set[int]) -> None:
        space = self._spaces[name]
        if not ports & space.ports and not any(file.space == name for _, file in self._left(ports)):
            return
        if limit > space.size_bytes:
            size = f"{space.directory} is on a disk of {size_text(space.size_bytes)}"
            self._problems[name] = f"{size}, and {MIN_FREE} asks for {size_text(limit)}: nothing is deleted for it"
            return
        missing = limit - space.free_bytes - self._freed[name]
        for index, file in self._left(ports):
            if file.space != name or file.kept:
                continue
            if missing > 0:
                self._delete(index, MIN_FREE, limit)
                missing -= file.size_bytes
            else:
                self._freeable[name] = self._freeable.get(name, 0) + file.size_bytes
        if missing > 0:
            free = size_text(limit - missing)
            self._problems[name] = (
                f"{space.directory}: {free} are free once all is deleted that may be, and {MIN_FREE} is "
                f"{size_text(limit)}: {_left_words(self._left(ports), name)}"
            )


def _left_words(left: Iterable[tuple[int, File]], space: str) -> str:
    """What is left there, and why it stays."""
    sums: dict[str, list[int]] = {}
    for _, file in left:
        if file.space == space and file.kept:
            sums.setdefault(file.kept, []).append(file.size_bytes)
    words = [f"{len(sizes)} {_PLURAL.get(kept, kept)} ({size_text(sum(sizes))})" for kept, sizes in sums.items()]
    return f"what is left is {', '.join(words)}" if words else "no recording is left there but what is being recorded"


_PLURAL = {PROTECTED: "protected", OPEN: "being recorded", NOT_COPIED: "not copied yet", IN_USE: "open"}
