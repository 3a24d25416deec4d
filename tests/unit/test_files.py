"""What is read from files of JSON that others write: a record, or one error that names file and field."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdisup.contract.applied import Applied as AppliedFile
from sdisup.contract.applied import AppliedPort, load_applied, save_applied
from sdisup.contract.files import SIZE_LIMIT_BYTES, Fields, Unreadable, boot_id, boottime_ns, read_fields, read_json
from sdisup.contract.records import Record
from sdisup.contract.requests import Request, claim_request, noted_stopper
from sdisup.contract.status import PortStatus, read_status
from sdisup.errors import SdisupError
from sdisup.runner.memory import Memory, recall

# ---- One field ----


class Sample(Record):
    name: str
    count: int = 0
    rate: float = 0.0
    is_on: bool = False
    words: list[str] | None = None
    note: str | None = None


GOOD = {"name": "CAM3", "count": 7, "rate": 25, "is_on": True, "words": ["a", "b"], "note": None}
WRONG = [
    ({"name": None}, "name: not text"),
    ({"name": 7}, "name: not text"),
    ({"count": "7"}, "count: not a whole number"),
    ({"count": 7.0}, "count: not a whole number"),
    ({"count": True}, "count: not a whole number"),
    ({"count": None}, "count: not a whole number"),
    ({"count": 1 << 63}, "count: not from 0 to 9223372036854775807"),
    ({"count": -2}, "count: not from 0 to 9223372036854775807"),
    ({"rate": "25"}, "rate: not a number"),
    ({"rate": False}, "rate: not a number"),
    ({"rate": float("nan")}, "rate: not from -1e+300 to 1e+300"),
    ({"rate": float("inf")}, "rate: not from -1e+300 to 1e+300"),
    ({"rate": 10**400}, "rate: not from -1e+300 to 1e+300"),
    ({"is_on": 1}, "is_on: not true or false"),
    ({"is_on": "yes"}, "is_on: not true or false"),
    ({"words": "a b"}, "words: not a list"),
    ({"words": ["a", 7]}, "words: not a list of texts"),
    ({"note": ["a"]}, "note: not text"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_field_is_named_with_its_file(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(Unreadable) as caught:
        Fields({**GOOD, **wrong}, "requests/3.json").record(Sample)
    assert str(caught.value) == f"requests/3.json: {words}"


def test_what_is_not_there_has_its_default_if_it_has_one() -> None:
    assert Fields({"name": "A", "newer": [1]}, "f").record(Sample) == Sample("A")
    with pytest.raises(Unreadable, match=r"^f: name: not there$"):
        Fields({"count": 1}, "f").record(Sample)


def test_a_record_is_what_was_written() -> None:
    found = Fields(GOOD, "f").record(Sample)
    assert found == Sample("CAM3", 7, 25.0, True, ["a", "b"])
    assert isinstance(found.rate, float)
    assert Fields(GOOD, "f").record(Sample, count=3).count == 3


def test_the_way_to_a_field_of_an_object_inside_is_named() -> None:
    fields = Fields({"ports": {"3": {"name": 7}}, "files": 1}, "applied.json").child("ports")
    assert fields.names() == ["3"]
    with pytest.raises(Unreadable, match=r"^applied\.json: ports: 3: name: not text$"):
        fields.child("3").text("name")
    with pytest.raises(Unreadable, match=r"^applied\.json: files: not an object$"):
        Fields({"files": 1}, "applied.json").child("files")


# ---- Whole files ----

CONTENTS = {
    "empty": (b"", "it is no JSON: Expecting value"),
    "torn": (b'{"name": "CAM', "it is no JSON: Unterminated string"),
    "two documents": (b"{}{}", "it is no JSON: Extra data"),
    "zeros after a power cut": (b"\0" * 4096, "it is no JSON"),
    "not UTF-8": (b'{"name": "\xff"}', "it is no JSON: 'utf-8' codec can't decode byte 0xff"),
    "nested too deeply": (b"[" * 100_000, "it is no JSON that can be meant"),
    "an endless number": (b"9" * 10_000, "it is no JSON: Exceeds the limit"),
    "huge": (b" " * (SIZE_LIMIT_BYTES + 1), f"it is larger than {SIZE_LIMIT_BYTES} bytes"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_what_is_no_json_names_its_file(tmp_path: Path, case: str) -> None:
    content, words = CONTENTS[case]
    path = tmp_path / "3.json"
    path.write_bytes(content)
    with pytest.raises(Unreadable) as caught:
        read_fields(str(path))
    text = str(caught.value)
    assert text.startswith(f"{path} cannot be read: {words}") and len(text) < 400 and "\n" not in text


def test_what_is_just_small_enough_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b'"x"'.ljust(SIZE_LIMIT_BYTES))
    assert read_json(str(tmp_path / "f")) == "x"


# ---- Every reader ----


def read_a_status(path: Path) -> object:
    return read_status(3, str(path.parent))


def read_a_request(path: Path) -> object:
    return claim_request(3, "/srv/recordings", str(path.parent.parent))


def read_a_note(path: Path) -> object:
    return noted_stopper(3, str(path.parent.parent))


def now() -> dict[str, object]:
    return {"created_boottime_ns": boottime_ns(), "boot_id": boot_id()}


READERS: dict[str, tuple[Callable[[Path], object], Callable[[], dict[str, Any]]]] = {
    "3.json": (read_a_status, lambda: PortStatus(port_index=3).as_dict()),
    "requests/3.json": (read_a_request, lambda: {**Request(take="t").as_dict(), **now()}),
    "requests/3.stop.json": (read_a_note, lambda: {"by": "apply", **now()}),
    "runner.json": (lambda path: recall(str(path)), lambda: memory_document()),
    "applied.json": (lambda path: load_applied(str(path)), lambda: {"schema": 1, "ports": {"3": port()}, "files": []}),
}


def memory_document() -> dict[str, Any]:
    return {**Memory("").as_dict(), "request": Request(take="t", argv=["ffmpeg", "{output}"]).as_dict()}


def port() -> dict[str, Any]:
    return AppliedPort(3, "CAM3", "h264", "/srv/recordings", True, "r1", "ext4:1").as_dict()


@pytest.fixture(params=READERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "requests").mkdir()
    return tmp_path / str(request.param)


def outcome(path: Path) -> object:
    """The record, or the text of the one error, which names the file."""
    read, _ = READERS[path.name if path.parent.name != "requests" else f"requests/{path.name}"]
    try:
        return read(path)
    except (Unreadable, SdisupError) as error:
        assert str(error).startswith(str(path)), error
        return str(error)


def document_of(path: Path) -> dict[str, Any]:
    return READERS[path.name if path.parent.name != "requests" else f"requests/{path.name}"][1]()


def test_what_is_written_is_a_record(place: Path) -> None:
    place.write_text(json.dumps(document_of(place)))
    assert isinstance(outcome(place), Record) or outcome(place) == ""


def test_what_is_missing_is_no_error(place: Path) -> None:
    found = outcome(place)
    assert not isinstance(found, str) or found == ""


def test_what_a_newer_version_added_is_not_looked_at(place: Path) -> None:
    place.write_text(json.dumps({**document_of(place), "flux": {"a": [1]}}))
    found = outcome(place)
    assert not isinstance(found, str) or found == "apply"


@pytest.mark.parametrize("case", CONTENTS)
def test_what_is_no_json_is_said_of_each_file(place: Path, case: str) -> None:
    place.write_bytes(CONTENTS[case][0])
    assert "cannot be read: it is" in str(outcome(place))


@pytest.mark.parametrize("content", ["null", "[]", '"x"', "7"])
def test_what_is_no_object_is_said_of_each_file(place: Path, content: str) -> None:
    place.write_text(content)
    assert str(outcome(place)).startswith(f"{place}: not an object")


def test_a_link_is_not_followed(place: Path) -> None:
    target = place.parent / "target"
    target.write_text(json.dumps(document_of(place)))
    place.symlink_to(target)
    assert "symbolic links" in str(outcome(place))


def test_a_fifo_keeps_nobody_waiting(place: Path) -> None:
    os.mkfifo(place)
    assert "no regular file" in str(outcome(place))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=JSON)
def test_whatever_a_field_holds_there_is_a_record_or_its_name(place: Path, data: st.DataObject, value: object) -> None:
    document: dict[str, Any] = {
        key: list(of) if isinstance(of, tuple) else of for key, of in document_of(place).items()
    }
    name = data.draw(st.sampled_from(list(document)))
    inside = document[name] if isinstance(document[name], dict) else {}
    if inside and data.draw(st.booleans()):
        inner = data.draw(st.sampled_from(list(inside)))
        document[name] = {**inside, inner: value}
    else:
        document[name] = value
    place.write_text(json.dumps(document))
    found = outcome(place)
    if isinstance(found, str) and found not in ("", "apply", "schedule"):
        assert f": {name}: " in found
    elif isinstance(found, Record) and not isinstance(found, AppliedFile):
        # Nothing was made of another value: each field is as it was written.
        kept = {key: value for key, value in found.as_dict().items() if key not in ("path", "request")}
        kept = {key: value for key, value in kept.items() if key in document}
        for key in kept.keys() - {"is_restart", "failures", "restarts", "request_id", "was_asked", "lack"}:
            assert (list(kept[key]) if isinstance(kept[key], tuple) else kept[key]) == document[key], key


def test_the_applied_file_reads_back(tmp_path: Path) -> None:
    path = str(tmp_path / "applied.json")
    applied = AppliedFile({3: AppliedPort(**port())}, ["/a"])
    save_applied(applied, path)
    assert load_applied(path) == applied
