"""The lean JSON says and reads what the standard library's does."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract import lean

WORDS = st.text(st.characters())  # lone surrogates too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=20)


@given(VALUES)
def test_a_value_is_written_as_json_writes_it(value: object) -> None:
    assert lean.encode(value) == json.dumps(value)
    assert lean.encode(value, ensure_ascii=False) == json.dumps(value, ensure_ascii=False)
    assert lean.encode(value, separators=(",", ":")) == json.dumps(value, separators=(",", ":"))


@given(VALUES, st.text(" \t\r\n"))
def test_a_value_is_read_as_json_reads_it(value: object, space: str) -> None:
    text = f"{space}{json.dumps(value, indent=1)}{space}"
    assert lean.decode(text) == lean.decode(text.encode()) == value


NO_JSON = ["", " ", "{", '{"a"', '{"a":}', "[1,]", "[1 2]", "nul", "01", "1 2", "'a'", '"\n"', '"\\x"', "\ufeff1", "+1"]


@pytest.mark.parametrize("text", NO_JSON)
def test_what_json_refuses_is_refused(text: str) -> None:
    for read in (json.loads, lean.decode):
        with pytest.raises(ValueError, match=r"."):
            read(text)


@given(st.text('{}[]",:.-+ \t\n01eEtrufalsn\\x'))
def test_no_text_is_read_otherwise(text: str) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            lean.decode(text)
    else:
        assert lean.decode(text) == value


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="decode"):
        lean.decode(b'"\xff"')


def test_what_nests_for_ever_is_refused() -> None:
    with pytest.raises(RecursionError):
        lean.decode("[" * 200_000)


def test_what_json_does_not_have_is_refused_or_given_as_it_is_said() -> None:
    with pytest.raises(TypeError, match="bytes"):
        lean.encode({"a": b""})
    assert lean.encode([b"x"], default=str) == json.dumps([b"x"], default=str)


def test_numbers_without_a_value_are_read_as_python_writes_them() -> None:
    assert math.isnan(lean.decode(json.dumps(math.nan)))
    assert lean.decode(json.dumps([math.inf, -math.inf])) == [math.inf, -math.inf]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL", "SIGPIPE", "SIG_BLOCK"])
def test_the_signals_are_those_of_the_library(name: str) -> None:
    import signal

    assert getattr(lean.signal, name) == getattr(signal, name)
