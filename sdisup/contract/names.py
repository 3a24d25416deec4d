"""How recordings' files are named: a template such as `{utc_date}/{name}_{utc}`, filled for a port, then at a moment.

Pure. The configuration checks templates (config/names.py), the runner fills them, and the ledger's process knows a
port's files by them.
"""

from __future__ import annotations

import time

from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT = "{name}_{utc}"
UNTITLED = "untitled"
"""What stands for the name of a take that has none."""
COUNTER, SEGMENT = "counter", "segment"
MOMENTS = {
    "utc": "%Y%m%dT%H%M%SZ",
    "utc_date": "%Y-%m-%d",
    "utc_time": "%H%M%SZ",
    "utc_year": "%Y",
    "utc_month": "%m",
    "utc_day": "%d",
    "local": "%Y%m%dT%H%M%S%z",
    "local_date": "%Y-%m-%d",
    "local_time": "%H%M%S%z",
    "local_year": "%Y",
    "local_month": "%m",
    "local_day": "%d",
}
"""The moment at which a file is made, as strftime(3) writes it."""
LONGEST = {"port": 2, "name": 64, "take": 64, "codec": 16, COUNTER: 9, SEGMENT: 9}
"""The fields besides those of MOMENTS, and how many characters each can have."""
FIELDS = (*LONGEST, *MOMENTS)
SAMPLES = {
    field: time.strftime(form.replace("%z", "+0100"), time.gmtime(1769860800 + 3600 * field.startswith("local")))
    for field, form in MOMENTS.items()
}
"""What the fields of MOMENTS look like."""
ENDING_LENGTH = 16
"""Room for the number and the ending: `_99999.mp4`."""
NAME_MAX_BYTES = 255
"""The limit of most filesystems (limits.h, NAME_MAX)."""
PATH_LENGTH = 1024

_REFUSED = frozenset('<>:"\\|?*{}/')
_RESERVED = frozenset(
    ("con", "prn", "aux", "nul", *(f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789"))
)
"""Names that Windows keeps for devices, also before an ending ("Naming Files, Paths, and Namespaces" of Microsoft)."""
_NUMBER, _COUNTED = "\0", "\1"
"""Stand where the number will be; the second where each name has one."""


class FileName(Record):
    """A file's name but for its number, which stands between `before` and `after`.

    `folder` is relative to where the port's files go; empty for right there. `is_counted`: the template says where the
    number is; it is in every name then.
    """

    folder: str
    before: str
    after: str
    is_counted: bool

    def numbered(self, number: int) -> str:
        """The name with its number, counted from 1. Where none is asked for, only a second file of a name has one."""
        text = f"{number:04d}" if self.is_counted else f"_{number}" if number > 1 else ""
        return f"{self.before}{text}{self.after}"

    def next_number(self, names: Iterable[str]) -> int:
        """One more than the highest number that is in use among the names of a folder, whatever their endings."""
        end = self.after.rpartition(".")[0]
        before = self.before if self.is_counted else f"{self.before}_"
        highest = 0 if self.is_counted else 1
        for name in names:
            stem = name.rpartition(".")[0]
            text = stem[len(before) : len(stem) - len(end)]
            if stem.startswith(before) and stem.endswith(end) and text.isdecimal() and len(text) <= LONGEST[COUNTER]:
                highest = max(highest, int(text))
        return highest + 1


def split(template: str) -> list[tuple[str, str]]:
    """Its texts, each with the field that follows; the last one with none. Raises ValueError for a brace too many."""
    first, *rest = template.split("{")
    texts, fields = [first], []
    for piece in rest:
        field, brace, text = piece.partition("}")
        if not brace:
            raise ValueError("a '{' has no '}'")
        fields.append(field)
        texts.append(text)
    if any("}" in text for text in texts):
        raise ValueError("a '}' has no '{'")
    return list(zip(texts, [*fields, ""], strict=True))


def problem_of(template: str) -> str:
    """Why a template cannot name files; "" if it can."""
    try:
        pairs = split(template)
    except ValueError as error:
        return str(error)
    unknown = next((field for text, field in pairs[:-1] if field not in FIELDS), None)
    if unknown is not None:
        return f"there is no field '{{{unknown[:40]}}}' (one of: {', '.join(FIELDS)})"
    if any(not text.isprintable() for text, _ in pairs):
        return "has characters that cannot be printed"
    parts = template.split("/")
    if template.startswith("/"):
        return "begins with '/': it is relative to the port's recordings"
    if ".." in parts:
        return "leaves the port's recordings by '..'"
    if "" in parts or "." in parts:
        return "has a folder or a file without a name"
    if template.count(f"{{{COUNTER}}}") != parts[-1].count(f"{{{COUNTER}}}"):
        return f"{{{COUNTER}}} counts files, and cannot be in a folder's name"
    if template.count(f"{{{COUNTER}}}") > 1:
        return f"{{{COUNTER}}} is in it twice"
    lengths = [_longest(part) for part in parts]
    lengths[-1] += ENDING_LENGTH
    if max(lengths) > NAME_MAX_BYTES or sum(lengths) > PATH_LENGTH:
        return f"may become longer than a name can be ({NAME_MAX_BYTES} characters, {PATH_LENGTH} in all)"
    return ""


def _longest(part: str) -> int:
    return sum(len(text) + (LONGEST.get(field) or len(SAMPLES.get(field, ""))) for text, field in split(part))


def replaced(template: str) -> str:
    """The characters of its texts that no Windows share takes, and that some filesystems do not: each becomes `_`."""
    texts = "".join(text.replace("/", "") for text, _ in split(template))
    return "".join(sorted(set(texts) - set(_plain(texts))))


def fill(template: str, values: Mapping[str, object]) -> str:
    """The template with these fields filled in, and those of MOMENTS and the counter left."""
    return "".join(
        text + (_plain(str(values[field])) if field in values else f"{{{field}}}" if field else "")
        for text, field in split(template)
    )


def name_at(template: str, container: str, now: float, segment: int = 1) -> FileName:
    """The name of a file that is made at a moment, in seconds of the Unix epoch, as its FFmpeg's `segment`-th one. All
    other fields are filled in."""
    utc, local = time.gmtime(now), time.localtime(now)
    values = {
        field: time.strftime(form, utc if field.startswith("utc") else local)
        for field, form in MOMENTS.items()
        if f"{{{field}}}" in template
    }
    values[SEGMENT] = f"{segment:04d}"
    is_counted = f"{{{COUNTER}}}" in template
    ending = f".{container}" if is_counted else f"{_NUMBER}.{container}"
    folder, _, name = _written(split(template), {**values, COUNTER: _COUNTED}, ending).rpartition("/")
    before, _, after = name.partition(_COUNTED if is_counted else _NUMBER)
    return FileName(folder, before, after, is_counted)


def shape(template: str, values: Mapping[str, object]) -> list[tuple[str, str]]:
    """What a file's path looks like, without its number and ending: texts, each with a field of no known value."""
    pairs = split(fill(template, values))
    # Characters that nobody types hold the fields' places.
    marks = {field: chr(0xE000 + at) for at, field in enumerate(FIELDS)}
    fields = {mark: f"{{{field}}}" for field, mark in marks.items()}
    ending = "" if f"{{{COUNTER}}}" in template else _NUMBER
    path = _written(pairs, marks, f"{ending}.x").removesuffix(f"{ending}.x")
    return split("".join(fields.get(character, character) for character in path))


def _written(pairs: list[tuple[str, str]], values: Mapping[str, str], ending: str) -> str:
    """The path that texts and the fields' values make, as every filesystem takes it."""
    path = "".join("/".join(map(_plain, text.split("/"))) + values.get(field, "") for text, field in pairs) + ending
    return "/".join(map(_usable, path.split("/")))


def _plain(text: str) -> str:
    """The text with `_` for what Windows shares refuse, and for all but ASCII, which some filesystems do."""
    return "".join(char if " " <= char <= "~" and char not in _REFUSED else "_" for char in text)


def _usable(part: str) -> str:
    """A folder's or a file's name that Windows takes too: without a dot or a space at its end, and of no device."""
    stem = part.rstrip(". ")
    part = stem + "_" * (len(part) - len(stem))
    device, dot, rest = part.partition(".")
    mark = _NUMBER if device.endswith(_NUMBER) else ""
    device = device.removesuffix(mark)
    is_reserved = device.rstrip(" ").lower() in _RESERVED
    return f"{device}_{mark}{dot}{rest}" if is_reserved else part
