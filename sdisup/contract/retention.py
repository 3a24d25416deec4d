"""What is told of retention: the rules as `apply` left them. Pure but for the files; standard library only.

`apply` writes the rules beside applied.json, and what deletes files reads them there: never the TOML, which somebody
may just be editing.
"""

from __future__ import annotations

import os

from sdisup.contract import lean
from sdisup.contract.files import (
    RUN_DIRECTORY,
    STATE_DIRECTORY,
    Fields,
    Unreadable,
    boot_id,
    read_fields,
    replace_file,
)
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

RULES_PATH = f"{STATE_DIRECTORY}/retention.json"
SCHEMA = 1
MAX_AGE, MAX_SIZE, MAX_FILES, MIN_FREE = "max_age", "max_size", "max_files", "min_free"
"""The rules, by the names that the configuration has for them."""


class Rules(Record):
    """What of finished recordings goes: None where nothing is said of it, 0 where there is no limit.

    `max_age` is in seconds; `max_size` and `min_free` are in bytes. With `after_copy` what was not copied stays.
    """

    max_age: int | None = None
    max_size: int | None = None
    max_files: int | None = None
    min_free: int | None = None
    after_copy: bool | None = None

    def __bool__(self) -> bool:
        """Whether any of them deletes."""
        return any((self.max_age, self.max_size, self.max_files, self.min_free))


class Retention(Record):
    """The rules for all ports, and those of ports that have their own: each of these takes the port out of the same one
    for all."""

    common: Rules
    own: Mapping[int, Rules]

    def __bool__(self) -> bool:
        return bool(self.common) or any(map(bool, self.own.values()))

    def has_own(self, rule: str, port_index: int) -> bool:
        return getattr(self.own.get(port_index), rule, None) is not None

    def value(self, rule: str, port_index: int) -> int:
        """What holds for a port; 0 for nothing."""
        rules = self.own.get(port_index) if self.has_own(rule, port_index) else self.common
        return int(getattr(rules, rule) or 0)


NO_RULES = Retention(Rules(), {})


def load_rules(path: str = RULES_PATH) -> Retention:
    """The rules that were last applied; none before. Raises Unreadable."""
    try:
        fields = read_fields(path)
    except FileNotFoundError:
        return NO_RULES
    own = fields.child("ports", {})
    return Retention(_rules_of(fields.child("all", {})), {int(key): _rules_of(own.child(key)) for key in own.names()})


def _rules_of(fields: Fields) -> Rules:
    return fields.record(Rules)


def save_rules(retention: Retention, path: str = RULES_PATH) -> bool:
    """Write them durably if they differ from what is there; whether they did. Raises OSError."""
    own = {str(index): _said(rules) for index, rules in sorted(retention.own.items()) if _said(rules)}
    document = {"schema": SCHEMA, "all": _said(retention.common), "ports": own}
    content = lean.encode(document).encode() + b"\n"
    try:
        with open(path, "rb") as file:
            if file.read() == content:
                return False
    except FileNotFoundError:
        if not retention and not own:
            return False
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    replace_file(path, content, durable=True)
    return True


def _said(rules: Rules) -> dict[str, int | bool]:
    return {name: value for name, value in rules.as_dict().items() if value is not None}


def size_text(size_bytes: float) -> str:
    """Bytes as rules have them, by powers of 1024: `1.5G`."""
    for unit, factor in SIZES:
        if size_bytes >= factor:
            return f"{size_bytes / factor:.4g}{unit}"
    return f"{size_bytes:.0f}B"


def age_text(seconds: float) -> str:
    """A duration as rules have it: `30d`, `1.5h`."""
    for unit, factor in AGES:
        if seconds >= factor:
            return f"{seconds / factor:.4g}{unit}"
    return f"{seconds:.0f}s"


SIZES = (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10))
AGES = (("d", 86400), ("h", 3600), ("min", 60))


def files_text(count: int) -> str:
    return f"{count} file{'s' if count != 1 else ''}"


def rule_text(rule: str, value: float) -> str:
    """A rule as the ledger and the journal have it: `max_age 30d`."""
    texts = {MAX_AGE: age_text, MAX_SIZE: size_text, MIN_FREE: size_text}
    return f"{rule} {texts[rule](value)}" if rule in texts else f"{rule} {value:g}"


# ---- How it goes ----


class Report(Record):
    """What retention says of itself in /run, for the status: what is wrong, in the operator's words, by the name of
    what it is about (a directory, `clock`); since when (CLOCK_BOOTTIME, seconds); what it deleted last; how much may go
    for want of space, by what files fill; and the files that were to go and stay, each with
    the reason."""

    boot_id: str
    at: float
    problems: Mapping[str, str]
    freeable_bytes: Mapping[str, int]
    deleted: int = 0
    deleted_bytes: int = 0
    kept: tuple[str, ...] = ()
    is_short: bool = False
    """Whether less is free than a rule asks for, and nothing is left that may go."""


def report_path(run_directory: str = RUN_DIRECTORY) -> str:
    return f"{run_directory}/retention.json"


def write_report(report: Report, run_directory: str = RUN_DIRECTORY) -> None:
    """Say how it goes. Raises OSError."""
    document = {**report.as_dict(), "problems": dict(report.problems), "freeable_bytes": dict(report.freeable_bytes)}
    replace_file(report_path(run_directory), lean.encode(document).encode())


def read_report(run_directory: str = RUN_DIRECTORY) -> Report | None:
    """Its word of this boot, if there is one that can be read: nothing depends on it."""
    try:
        fields = read_fields(report_path(run_directory))
        problems, freeable = fields.child("problems"), fields.child("freeable_bytes", {})
        said = fields.record(
            Report,
            problems={name: problems.text(name) for name in problems.names()},
            freeable_bytes={name: freeable.whole(name) for name in freeable.names()},
        )
    except (FileNotFoundError, Unreadable):
        return None
    return said if said.boot_id == boot_id() else None
