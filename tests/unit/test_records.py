"""The one idiom for a record."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sdisup.contract.records import Record

REPOSITORY = Path(__file__).resolve().parent.parent.parent


class Place(Record):
    directory: str
    name: str = "CAM"

    LIMIT: ClassVar[int] = 3

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.name}"


class Numbered(Place):
    number: int = 0


class Renamed(Place):
    name: str = "X"


class Meter(Record, frozen=False):
    frames: int = 0


MAKE: Any = Place
"""Place for the calls that mypy would refuse."""


@pytest.mark.parametrize(
    "place",
    [
        Place("/r", "CAM"),
        Place("/r"),
        Place(directory="/r"),
        Place("/r", name="CAM"),
        Place(name="CAM", directory="/r"),
    ],
)
def test_fields_come_in_their_order_or_by_name(place: Place) -> None:
    assert place == Place("/r", "CAM")
    assert (place.directory, place.name, place.path) == ("/r", "CAM", "/r/CAM")


@pytest.mark.parametrize(
    ("args", "values", "words"),
    [
        ((), {}, "Place: no value for directory"),
        ((), {"name": "x"}, "Place: no value for directory"),
        (("/r",), {"flux": 1}, "Place: no field flux"),
        (("/r", "a"), {"flux": 1}, "Place: no field flux"),
        ((), {"flux": 1}, "Place: no value for directory; no field flux"),
        (("/r",), {"directory": "/s"}, "Place: directory is given twice"),
        (("/r", "a", "b"), {}, "Place: 3 values for 2 fields"),
    ],
)
def test_a_wrong_call_names_what_is_wrong(args: tuple[str, ...], values: dict[str, object], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        MAKE(*args, **values)
    assert str(caught.value) == words


def test_records_are_equal_by_type_and_values() -> None:
    assert Place("/r") == Place("/r") != Place("/s")
    assert Place("/r") != Numbered("/r")
    assert len({Place("/r"), Place("/r"), Place("/s")}) == 2


def test_what_a_record_says_of_itself() -> None:
    assert repr(Place("/r")) == "Place(directory='/r', name='CAM')"
    assert Place("/r").as_dict() == {"directory": "/r", "name": "CAM"}


def test_a_record_is_frozen_and_has_no_other_attributes() -> None:
    place: Any = Place("/r")
    for name in ("name", "flux", "LIMIT"):
        with pytest.raises(AttributeError, match=f"Place is frozen: {name} cannot be set"):
            setattr(place, name, "x")
    assert place == Place("/r")
    assert not hasattr(place, "__dict__")


def test_one_that_is_not_frozen_can_be_changed_and_has_no_hash() -> None:
    meter = Meter()
    meter.frames += 1
    assert meter == Meter(1) != Meter()
    with pytest.raises(TypeError):
        hash(meter)
    unknown: Any = meter
    with pytest.raises(AttributeError):
        unknown.flux = 1


def test_a_copy_with_other_values_leaves_the_record_as_it_is() -> None:
    place = Numbered("/r", number=7)
    assert place.replaced(name="A") == Numbered("/r", "A", 7)
    assert place == Numbered("/r", "CAM", 7)
    with pytest.raises(TypeError, match="no field flux"):
        place.replaced(flux=1)


@pytest.mark.parametrize("of", [copy.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))])
@pytest.mark.parametrize("record", [Place("/r", name="A"), Meter(frames=3)])
def test_a_record_can_be_copied_and_pickled(of: Any, record: Record) -> None:
    copied = of(record)
    assert copied == record
    assert copied is not record


def test_fields_are_inherited_first_and_may_get_another_default() -> None:
    assert Numbered("/r", "A", 1).as_dict() == {"directory": "/r", "name": "A", "number": 1}
    assert Renamed("/r").path == "/r/X"
    assert Place("/r").path == "/r/CAM"


@pytest.mark.parametrize("default", [[], {}, set(), [1], Meter()])
def test_a_default_that_all_records_would_share_is_refused(default: object) -> None:
    make: Any = type(Record)
    with pytest.raises(TypeError, match=r"Bad\.values: all records would share the default"):
        make("Bad", (Record,), {"__annotations__": {"values": "object"}, "values": default})


SNIPPET = """
from __future__ import annotations
from sdisup.contract.records import Record

class Place(Record):
    directory: str
    name: str = "CAM"

class Meter(Record, frozen=False):
    frames: int = 0

place, meter = Place("/r", name="A"), Meter()
meter.frames = 1
renamed: Place = place.replaced(name="B")
Place()                     # wrong
Place("/r", flux=1)         # wrong
Place(5)                    # wrong
place.name = "B"            # wrong
meter.frames = "1"          # wrong
"""


def test_mypy_refuses_wrong_calls(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(snippet)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    refused = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line}
    wrong = {number for number, line in enumerate(SNIPPET.splitlines(), 1) if "# wrong" in line}
    assert refused == wrong, done.stdout
