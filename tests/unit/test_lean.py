"""The lean JSON says and reads what the standard library's does; so it does with a `_json` that is another one."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract import lean

WORDS = st.text(st.characters())  # lone surrogates too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=20)


def known() -> Any:
    import _json

    return SimpleNamespace(**vars(_json))


def other(*_: object, **__: object) -> Any:
    raise TypeError("function missing required argument 'array_hook' (pos 12)")


# No `_json` at all, and such as other versions of Python may have.
OTHERS: dict[str, Any] = {
    "none": None,
    "no encoder": SimpleNamespace(make_scanner=known().make_scanner),
    "another scanner": SimpleNamespace(**{**vars(known()), "make_scanner": other}),
    "another encoder": SimpleNamespace(**{**vars(known()), "make_encoder": other}),
    "other pieces": SimpleNamespace(**{**vars(known()), "make_encoder": lambda *_: lambda *_: [b"{}"]}),
    "another answer": SimpleNamespace(**{**vars(known()), "make_scanner": lambda _: lambda words, _: ({}, len(words))}),
}


def lean_with(private: Any) -> ModuleType:
    """The module, loaded beside such a `_json`."""
    assert lean.__file__
    spec = importlib.util.spec_from_file_location("lean_anew", lean.__file__)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"_json": private}):
        spec.loader.exec_module(module)
    return module


LEANS: dict[str, Any] = {"": lean} | {name: lean_with(private) for name, private in OTHERS.items()}
each = pytest.mark.parametrize("lean", [LEANS[""], LEANS["none"]], ids=["_json", "json"])


def test_json_itself_is_the_last_resort_alone() -> None:
    assert {name for name, module in LEANS.items() if module.decode is json.loads} == {*OTHERS}
    assert {name for name, module in LEANS.items() if module.encode is json.dumps} == {*OTHERS}


def test_a_runner_and_the_ledger_start_on_a_python_without_it() -> None:
    program = "import sys; sys.modules['_json'] = None; sys.path.insert(0, sys.argv[1]); "
    program += "import sdisup.runner.begin, sdisup.runner.main, sdisup.ledger.writer"
    root = lean.__file__.rpartition("/sdisup/")[0]
    subprocess.run([sys.executable, "-I", "-S", "-c", program, root], check=True)


@each
@given(VALUES)
def test_a_value_is_written_as_json_writes_it(lean: Any, value: object) -> None:
    assert lean.encode(value) == json.dumps(value)
    assert lean.encode(value, ensure_ascii=False) == json.dumps(value, ensure_ascii=False)
    assert lean.encode(value, separators=(",", ":")) == json.dumps(value, separators=(",", ":"))


@each
@given(VALUES, st.text(" \t\r\n"))
def test_a_value_is_read_as_json_reads_it(lean: Any, value: object, space: str) -> None:
    text = f"{space}{json.dumps(value, indent=1)}{space}"
    assert lean.decode(text) == lean.decode(text.encode()) == value


NO_JSON = ["", " ", "{", '{"a"', '{"a":}', "[1,]", "[1 2]", "nul", "01", "1 2", "'a'", '"\n"', '"\\x"', "\ufeff1", "+1"]


@each
@pytest.mark.parametrize("text", NO_JSON)
def test_what_json_refuses_is_refused(lean: Any, text: str) -> None:
    for read in (json.loads, lean.decode):
        with pytest.raises(ValueError, match=r"."):
            read(text)


@each
@given(st.text('{}[]",:.-+ \t\n01eEtrufalsn\\x'))
def test_no_text_is_read_otherwise(lean: Any, text: str) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            lean.decode(text)
    else:
        assert lean.decode(text) == value


@each
def test_bytes_that_are_no_text_are_refused(lean: Any) -> None:
    with pytest.raises(ValueError, match="decode"):
        lean.decode(b'"\xff"')


@each
def test_what_nests_for_ever_is_refused(lean: Any) -> None:
    with pytest.raises(RecursionError):
        lean.decode("[" * 200_000)


@each
def test_what_json_does_not_have_is_refused_or_given_as_it_is_said(lean: Any) -> None:
    with pytest.raises(TypeError, match="bytes"):
        lean.encode({"a": b""})
    assert lean.encode([b"x"], default=str) == json.dumps([b"x"], default=str)


@each
def test_numbers_without_a_value_are_read_as_python_writes_them(lean: Any) -> None:
    assert math.isnan(lean.decode(json.dumps(math.nan)))
    assert lean.decode(json.dumps([math.inf, -math.inf])) == [math.inf, -math.inf]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL", "SIGPIPE", "SIG_BLOCK"])
def test_the_signals_are_those_of_the_library(name: str) -> None:
    import signal

    assert getattr(lean.signal, name) == getattr(signal, name)
