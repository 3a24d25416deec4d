"""What a row of the settings table is, and the types of values. Pure.

The types here are those that rows of several files have; a file whose rows need another type defines it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sdisup.contract.records import Record

REQUIRED = "required"

# ---- Frame rates ----

# The keys are exact, as FFmpeg writes them; the values are frames a second.
RATES = {
    "24000/1001": 24000 / 1001,
    "24": 24.0,
    "25": 25.0,
    "30000/1001": 30000 / 1001,
    "30": 30.0,
    "50": 50.0,
    "60000/1001": 60000 / 1001,
    "60": 60.0,
}

LOW_RATES = {"10": 10.0}
"""For test pictures on a small machine only; no SDI signal has such a rate."""

FPS = {**LOW_RATES, **RATES}

AUTO_RATE = "auto"
"""The rate where the operator states none: FFmpeg records at the stream's own rate."""

SLOWEST_RATE = min(RATES, key=RATES.__getitem__)
FASTEST_RATE = max(RATES, key=RATES.__getitem__)


def find_rate(value: float) -> str | None:
    """The key of the rate that people call `value` frames a second (29.97 is "30000/1001"); None if there is none."""
    if not 0 < value < 1000:  # false for a NaN too, and works for an integer that no float can hold
        return None
    return next((rate for rate, exact in FPS.items() if abs(exact - value) < 0.005), None)


# ---- Rows ----


class Type(Record):
    """A type of values. `check` returns a value as the program uses it, or raises ValueError that says what is wrong.

    `doc` says which values are valid, for rows that neither list them nor have a range.
    """

    name: str
    check: Callable[[Setting, object], object]
    doc: str = ""


class Setting(Record):
    """A key of the configuration.

    `default` is None where it depends on other settings, which `default_doc` then names, and where the key is required
    (`is_required`). `minimum` and `maximum` are inclusive, in `unit`.
    """

    key: str
    type: Type
    default: object
    doc: str
    default_doc: str = ""
    allowed: tuple[str | int, ...] = ()
    minimum: float = 0
    maximum: float = 0
    unit: str = ""

    @property
    def is_required(self) -> bool:
        return self.default_doc == REQUIRED

    @property
    def range(self) -> str:
        """The smallest and the largest value in words."""
        return f"{self.minimum:g} to {self.maximum:g} {self.unit}".rstrip()

    def check(self, value: object) -> object:
        """`value` as the rest of the program uses it. Raises ValueError that says what is wrong."""
        return self.type.check(self, value)


# ---- Values in messages ----


def show(value: object) -> str:
    """`value` for a message: one short line, whatever the value is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return ascii_safe(repr(value[:60])) + ("…" if len(value) > 60 else "")
    if isinstance(value, int) and value.bit_length() > 100:  # repr() raises where there are too many digits
        return "a number with too many digits"
    return str(value)


def ascii_safe(text: str) -> str:
    """`text` with an escape for each lone surrogate, which UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def show_path(path: str) -> str:
    """A path for a message: printable and on one line."""
    return path if path.isprintable() else ascii_safe(repr(path))


def suggestion(word: str, words: Sequence[str]) -> str:
    """ "; did you mean 'x'?" when one of `words` is like `word`, else ""."""
    import difflib  # only messages about errors need it

    close = difflib.get_close_matches(word[:60].lower(), [w.lower() for w in words], n=1)
    original = next((w for w in words if close and w.lower() == close[0]), "")
    return f"; did you mean '{original}'?" if original else ""


# ---- Types ----


def _one_of(setting: Setting) -> str:
    return "one of: " + ", ".join(str(value) for value in setting.allowed)


def _check_boolean(setting: Setting, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {show(value)}")
    return value


def _check_integer(setting: Setting, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {show(value)}")
    if setting.allowed and value not in setting.allowed:
        raise ValueError(f"{show(value)} is not possible ({_one_of(setting)})")
    if not setting.allowed:
        check_range(setting, value)
    return value


def check_range(setting: Setting, value: float) -> None:
    if not setting.minimum <= value <= setting.maximum:  # a NaN is in no range
        raise ValueError(f"must be {setting.range}, not {show(value)}")


def check_string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string in quotes, not {show(value)}")
    return value


def _check_choice(setting: Setting, value: object) -> str:
    text = check_string(value)
    if text not in setting.allowed:
        close = suggestion(text, [str(word) for word in setting.allowed])
        raise ValueError(f"unknown {setting.key} {show(text)} ({_one_of(setting)}){close}")
    return text


def _check_rate(setting: Setting, value: object) -> str:
    rate = None
    if value == AUTO_RATE and AUTO_RATE in setting.allowed:
        rate = AUTO_RATE
    elif isinstance(value, str):
        decimal = re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", value)
        rate = value if value in setting.allowed else find_rate(float(value)) if decimal else None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        rate = find_rate(value)
    if rate is None or rate not in setting.allowed:
        raise ValueError(f"{show(value)} is not a frame rate ({_one_of(setting)}; 29.97 and the like too)")
    return rate


def _check_size(setting: Setting, value: object) -> str:
    text = check_string(value)
    match = re.fullmatch(r"([0-9]{2,4})x([0-9]{2,4})", text)
    numbers = [int(number) for number in match.groups()] if match else []
    if not numbers or any(number % 2 or not 64 <= number <= 4096 for number in numbers):
        raise ValueError(f"must be WIDTHxHEIGHT, even and 64 to 4096 each, not {show(text)}")
    return f"{numbers[0]}x{numbers[1]}"


def pattern_type(name: str, pattern: str, what: str, doc: str) -> Type:
    """A type of strings that match `pattern`; `what` describes them in a message."""

    def check(setting: Setting, value: object) -> str:
        text = check_string(value)
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {what}, not {show(text)}")
        return text

    return Type(name, check, doc)


BOOLEAN = Type("boolean", _check_boolean, "true or false")
INTEGER = Type("integer", _check_integer, "a whole number")
CHOICE = Type("choice", _check_choice)
RATE = Type("rate", _check_rate)
SIZE = Type("size", _check_size, "WIDTHxHEIGHT")
WORD = pattern_type("word", r"[A-Za-z0-9_]{1,32}", "letters, digits and '_', at most 32", "letters, digits and `_`")
