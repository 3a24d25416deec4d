"""`[retention]` and a port's `retention`: which finished recordings go, and when. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sdisup.contract.retention import MAX_AGE, MAX_FILES, MAX_SIZE, MIN_FREE, Retention, Rules, size_text
from sdisup.sources.values import BOOLEAN, Setting, Type, show

if TYPE_CHECKING:
    from sdisup.config.settings import Port

SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT])(iB|B)?", re.ASCII)
AGE = re.compile(r"(\d+(?:\.\d+)?) ?(min|h|d|w)", re.ASCII)
AGE_S = {"min": 60, "h": 3600, "d": 86400, "w": 604800}
POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
LONGEST_AGE_S = 100 * 365 * 86400
LARGEST_BYTES = 1 << 60
LEAST_FREE_S = 120.0
"""For how long the ports should be able to write what is to be free."""


def _none(value: object) -> bool:
    return value == 0 and not isinstance(value, bool)


def _check_size(setting: Setting, value: object) -> int:
    """As coreutils and systemd have them: G and GiB are 1024^3 bytes, GB is 1000^3."""
    if _none(value):
        return 0
    found = SIZE.fullmatch(value) if isinstance(value, str) else None
    size_bytes = float(found[1]) * (1000 if found[3] == "B" else 1024) ** POWERS[found[2]] if found else 0
    if not 1 <= size_bytes <= LARGEST_BYTES:
        raise ValueError(f"must be a size such as '500G' or '2T', or 0 for none, not {show(value)}")
    return round(size_bytes)


def _check_age(setting: Setting, value: object) -> int:
    if _none(value):
        return 0
    found = AGE.fullmatch(value) if isinstance(value, str) else None
    seconds = float(found[1]) * AGE_S[found[2]] if found else 0
    if not 60 <= seconds <= LONGEST_AGE_S:
        raise ValueError(f"must be a duration such as '30d', '12h' or '90min', or 0 for none, not {show(value)}")
    return round(seconds)


def _check_count(setting: Setting, value: object) -> int:
    if type(value) is not int or not 0 <= value <= 1_000_000_000:
        raise ValueError(f"must be a number of files, or 0 for none, not {show(value)}")
    return value


BYTES = Type("size", _check_size, "0 for none, or text such as `500G`, `1.5T`: 1024 to the next; `GB` is 1000^3 bytes")
DURATION = Type("age", _check_age, "0 for none, or text such as `30d`, `12h`, `90min`, `2w`")
COUNT = Type("count", _check_count, "0 for none, or a number of files")

_DOCS = {
    MAX_AGE: (DURATION, "A finished file goes so long after its last frame."),
    MAX_SIZE: (BYTES, "How much finished files may take; then the oldest go."),
    MAX_FILES: (COUNT, "How many finished files are kept; then the oldest go."),
    MIN_FREE: (BYTES, "How much of the disk is to be free; else the oldest finished files on it go."),
    "after_copy": (BOOLEAN, "Whether a file stays until each target of its port ([offload.NAME]) has a copy."),
}


def settings(prefix: str = "", default_doc: str = "none") -> tuple[Setting, ...]:
    """The rows of the rules, each with its key below `prefix`."""
    return tuple(
        Setting(f"{prefix}{name}", kind, None, doc, default_doc=default_doc) for name, (kind, doc) in _DOCS.items()
    )


def rules_of(values: Mapping[str, Any], prefix: str = "") -> Rules:
    """The rules of checked values."""
    return Rules(**{name: values.get(f"{prefix}{name}") for name in _DOCS})


# ---- The rules together ----


def file_bytes(port: Port) -> float:
    """How large a file of the port becomes, by its bit rate; 0 where nobody can tell."""
    return port.bitrate_kbps * 125 * port.file_s


def port_problems(port: Port) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rules of a port's own that it cannot keep."""
    limit = port.retention.max_size or 0
    if 0 < limit < file_bytes(port):
        keys = ("retention.max_size", "segment_s", "bitrate_kbps")
        yield keys, f"{size_text(limit)} is less than one file of {file_text(port)}: each would go as soon as it ended"


def doubts(retention: Retention, ports: Iterable[Port]) -> Iterator[str]:
    """A `min_free` that a disk may use up before anything is deleted: ports ask for room at half of it."""
    shared: dict[str, list[Port]] = {}
    for port in ports:
        shared.setdefault(port.recordings, []).append(port)
    for directory, sharing in shared.items():
        limit = max(retention.value(MIN_FREE, port.index) for port in sharing)
        written = sum(port.bitrate_kbps for port in sharing) * 125 * LEAST_FREE_S
        if 0 < limit < written:
            text = f"{size_text(limit)} is less than the {size_text(written)} that {len(sharing)} ports write to"
            minutes = f"{LEAST_FREE_S / 60:g} minutes"
            yield f"{text} {directory} in {minutes}: the disk may be full before anything is deleted"


def file_text(port: Port) -> str:
    return f"{port.file_s:g} s at {port.bitrate_kbps} kbit/s, {size_text(file_bytes(port))}"


def common_problems(retention: Retention, ports: Iterable[Port]) -> Iterator[tuple[str, str]]:
    """Rules for all that cannot be kept, each with its key."""
    rules, known = retention.common, list(ports)
    sharing = [port for port in known if not retention.has_own(MAX_SIZE, port.index)]
    needed = sum(map(file_bytes, sharing))
    if 0 < (rules.max_size or 0) < needed:
        text = f"{size_text(rules.max_size or 0)} is less than one file of each of {len(sharing)} ports"
        yield MAX_SIZE, f"{text}, {size_text(needed)}: each would go as soon as it ended"
    counted = [port for port in known if not retention.has_own(MAX_FILES, port.index)]
    if 0 < (rules.max_files or 0) < len(counted):
        yield MAX_FILES, f"{rules.max_files} is less than one file of each of {len(counted)} ports"
