"""What apply last did, and the ports that an operator means."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract.applied import (
    Applied,
    AppliedPort,
    applied_from,
    is_port_number,
    is_same,
    load_applied,
    save_applied,
)
from sdisup.contract.files import Fields
from sdisup.errors import SdisupError, UnknownPortError, UsageError


def port(index: int, name: str = "") -> AppliedPort:
    return AppliedPort(index, name or f"port{index}", "h264", "/srv/recordings", index % 2 == 0, f"rev{index}")


FOUR = Applied({index: port(index, name) for index, name in enumerate(("", "CAM1", "Studio-2", "CAM3"))}, ["/a", "/b"])


def selected(*words: str, applied: Applied = FOUR) -> list[int]:
    return [found.index for found in applied.select(list(words))]


# ---- select ----


@pytest.mark.parametrize(
    ("words", "indexes"),
    [
        (["3"], [3]),
        (["0"], [0]),
        (["0-3"], [0, 1, 2, 3]),
        (["1-1"], [1]),
        (["0,2"], [0, 2]),
        (["2,0"], [0, 2]),
        (["0,0-1,port0"], [0, 1]),
        (["3", "1"], [1, 3]),
        (["0-1,3", "CAM1"], [0, 1, 3]),
        (["CAM3"], [3]),
        (["cam3"], [3]),
        (["port0"], [0]),
        (["Studio-2"], [2]),
        (["sdi-record@3"], [3]),
        (["sdi-record@3.service"], [3]),
    ],
)
def test_ports_as_an_operator_names_them(words: list[str], indexes: list[int]) -> None:
    assert selected(*words) == indexes


@pytest.mark.parametrize(
    "word",
    [
        "4", "01", "00", "-1", "+1", " 1", "1 ", "1.0", "1e0", "0x1", "³", "٣", "\uff11", "CAM", "CAM33", "port1", "0-",
        "-", "0-1-2", "1-٣", "01-2", "0-03", "999999999999999999999", "0-999999999999999999999", "9" * 10_000,
        "sdi-record@", "sdi-record@01", "sdi-record@CAM3", "sdi-record@.service", "sdi-record-3", "*", "0-*", "\n",
        "\x00", "all",
    ],
)  # fmt: skip
def test_what_is_not_configured_is_unknown_and_named(word: str) -> None:
    with pytest.raises(UnknownPortError) as caught:
        FOUR.select([word])
    assert caught.value.exit_code == 4
    assert caught.value.message == f"{word}: no such port is configured"
    assert caught.value.hint == "configured are 0, 1 (CAM1), 2 (Studio-2), 3 (CAM3)"


def test_all_that_is_unknown_is_named_once() -> None:
    with pytest.raises(UnknownPortError) as caught:
        FOUR.select(["7,CAM9,1", "7", "0-1"])
    assert caught.value.message == "7, CAM9: no such port is configured"


def test_a_range_that_is_partly_configured_selects_nothing() -> None:
    with pytest.raises(UnknownPortError, match="2-5"):
        FOUR.select(["2-5"])


def test_a_range_is_never_longer_than_the_ports_that_can_be() -> None:
    with pytest.raises(UnknownPortError) as caught:
        FOUR.select(["0-999"] * 50)
    assert caught.value.message == "0-999: no such port is configured"


@pytest.mark.parametrize("word", ["3-1", "1-0", "999-0"])
def test_a_range_the_wrong_way_round_is_a_usage_error(word: str) -> None:
    with pytest.raises(UsageError, match="from the lower to the higher") as caught:
        FOUR.select([word])
    low, high = sorted(int(end) for end in word.split("-"))
    assert (caught.value.exit_code, caught.value.hint) == (2, f"{low}-{high}")


@pytest.mark.parametrize("word", ["", ",", "1,", ",1", "1,,2"])
def test_an_empty_port_is_a_usage_error(word: str) -> None:
    with pytest.raises(UsageError, match="empty port"):
        FOUR.select([word])


def test_before_the_first_apply_the_next_step_is_said() -> None:
    with pytest.raises(UnknownPortError, match=r"write /etc/sdisup/sdisup.toml, then run sdisup apply"):
        Applied({}, []).select(["0"])


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_any_words_are_ports_or_an_error_for_the_operator(words: list[str]) -> None:
    try:
        found = FOUR.select(words)
    except (UnknownPortError, UsageError) as error:
        assert error.message and error.hint
    else:
        assert [one.index for one in found] == sorted({one.index for one in found})


@pytest.mark.parametrize(("text", "is_one"), [
    ("0", True), ("7", True), ("63", True), ("999", True), ("1000", False), ("", False), ("00", False), ("07", False),
    ("-1", False), ("²", False), ("٣", False), ("1_0", False), ("1\n", False),
])  # fmt: skip
def test_a_port_number_has_one_spelling(text: str, is_one: bool) -> None:
    assert is_port_number(text) is is_one


def test_labels() -> None:
    assert [FOUR.ports[index].label for index in (0, 3)] == ["port 0", "port 3 (CAM3)"]
    assert FOUR.ports[3].unit == "sdi-record@3.service"


# ---- The file ----


def as_dict(applied: Applied) -> dict[str, object]:
    return {
        "files": sorted(applied.files),
        "ports": {
            index: (one.index, one.name, one.codec, one.recordings, one.record_at_boot, one.revision)
            for index, one in applied.ports.items()
        },
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "applied.json")
    assert save_applied(FOUR, path) is True
    assert as_dict(load_applied(path)) == as_dict(FOUR)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert list(load_applied(path).ports) == [0, 1, 2, 3]
    assert is_same(load_applied(path), Applied(FOUR.ports, ["/b", "/a"]))
    assert not is_same(FOUR, Applied({**FOUR.ports, 0: FOUR.ports[0].replaced(space_warning_h=1.0)}, FOUR.files))


def test_saving_the_same_again_touches_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "applied.json")
    save_applied(FOUR, path)
    before = os.stat(path)
    assert save_applied(FOUR, path) is False
    assert save_applied(Applied(FOUR.ports, ["/b", "/a"]), path) is False
    assert os.stat(path).st_ino == before.st_ino
    assert save_applied(Applied({}, []), path) is True
    assert os.listdir(tmp_path) == ["applied.json"]


def test_ports_are_in_their_order_however_the_file_has_them(tmp_path: Path) -> None:
    path = str(tmp_path / "applied.json")
    save_applied(Applied({index: port(index) for index in (10, 9, 0)}, []), path)
    assert list(load_applied(path).ports) == [0, 9, 10]


def test_nothing_was_applied_yet(tmp_path: Path) -> None:
    assert as_dict(load_applied(str(tmp_path / "none.json"))) == {"files": [], "ports": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"{}", b'{"ports": []}', b'{"ports": {"x": {}}}', b'{"ports": {"01": {}}}',
        b'{"ports": {"-1": {}}}', '{"ports": {"³": {}}}'.encode(), b'{"ports": {"1": 7}}', b'{"ports": {"1": null}}',
        b'{"ports": {}, "files": "x"}', b'{"ports": {}, "files": {"a": 1}}', b"\xff", b"\0" * 100, b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_no_apply_wrote_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "applied.json").write_bytes(content)
    with pytest.raises(SdisupError, match=r"applied\.json( cannot be read)?: ") as caught:
        load_applied(str(tmp_path / "applied.json"))
    assert (caught.value.exit_code, caught.value.hint) == (1, "sdisup apply writes it anew")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.one_of(JSON, st.fixed_dictionaries({"ports": st.dictionaries(st.integers(0, 9).map(str), JSON), "files": JSON}))
)
def test_any_json_is_an_applied_or_a_valueerror(document: object) -> None:
    try:
        found = applied_from(Fields(json.loads(json.dumps(document)), "applied.json"))
    except ValueError:
        return
    for index, one in found.ports.items():
        assert one.index == index and isinstance(one.name, str) and isinstance(one.record_at_boot, bool)
    assert all(isinstance(file, str) for file in found.files)
