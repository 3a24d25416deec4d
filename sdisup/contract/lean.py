"""What runner and ledger need of the standard library, from the modules in C that do the work.

`json`, `signal`, `collections` and `contextlib` themselves load `re`, `enum` and `functools`, for what is not needed
here: a runner of eight would be 1.6 MiB larger, and start 6 ms later. The modules below are those that they call
(CPython's Lib/json/decoder.py and encoder.py, Lib/signal.py, Lib/collections/__init__.py); tests/unit/test_lean.py
compares them.

`_json` is CPython's own affair and may change with any version. Where it does not do what it does today, `json` itself
is loaded: a port that starts a little later is better than one that does not start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections import deque
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    import _signal as signal
    from _collections import deque

__all__ = ["decode", "deque", "encode", "signal"]

SPACE = " \t\n\r"


class _Context:
    """How JSON is read: as json.loads does (_json.c, scanner_new)."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}.__getitem__


def decode(text: str | bytes) -> Any:
    """The value of a JSON text, as json.loads has it; bytes are UTF-8. Raises ValueError, and RecursionError."""
    words = (text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text).strip(SPACE)
    try:
        value, end = _scan(words, 0)
    except StopIteration as error:
        raise ValueError(f"Expecting value (char {error.value})") from None
    except ImportError as error:
        # The scanner asks the module `json` for its exception, and Python itself is being replaced just now.
        raise ValueError("no value can be read") from error
    if end != len(words):
        raise ValueError(f"Extra data (char {end})")
    return value


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def encode(
    value: object,
    *,
    ensure_ascii: bool = True,
    separators: tuple[str, str] = (", ", ": "),
    default: Callable[[object], object] = _refuse,
) -> str:
    """A value as JSON text, as json.dumps has it, whose options these are."""
    return encoder(ensure_ascii=ensure_ascii, separators=separators, default=default)(value)


def encoder(
    *,
    ensure_ascii: bool = True,
    separators: tuple[str, str] = (", ", ": "),
    default: Callable[[object], object] = _refuse,
) -> Callable[[object], str]:
    """What writes a value as `encode` does: for very many, since to make it takes a fifth of the time."""
    quote = encode_basestring_ascii if ensure_ascii else encode_basestring
    between, after_name = separators
    write = make_encoder({}, default, quote, None, after_name, between, False, False, True)
    return lambda value: "".join(write(value, 0))


def _do_as_json() -> bool:
    """Whether the two above do what `json` does."""
    value = {"a": [1.5, "\xe4", None], "b": {}}
    ascii_text, text = '{"a": [1.5, "\\u00e4", null], "b": {}}', '{"a": [1.5, "\xe4", null], "b": {}}'
    is_written = encode(value) == ascii_text and encode(value, ensure_ascii=False) == text
    return is_written and decode(ascii_text) == decode(text.encode()) == value


try:
    from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner

    _context: Any = _Context
    _scan = make_scanner(_context)
    _is_json = _do_as_json()
except Exception:
    # No `_json`, other names in it, or other arguments: whatever it is, `json` knows it.
    _is_json = False
if not _is_json:
    import json

    decode, encode = json.loads, json.dumps  # type: ignore[assignment]

    def encoder(**options: Any) -> Callable[[object], str]:  # type: ignore[misc]
        return json.JSONEncoder(**options).encode
