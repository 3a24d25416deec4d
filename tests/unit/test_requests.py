"""Requests for takes: what another program, or an enemy of it, may leave, and what a runner makes of it."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract import requests
from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import Unreadable, boot_id, boottime_ns
from sdisup.contract.requests import (
    Request,
    claim_request,
    is_below,
    is_take_name,
    leave_request,
    leave_stop_note,
    noted_stopper,
    request_path,
    take_back,
)
from sdisup.control.api import CodecType, FFmpegCommandBuilder, RecorderConfig
from sdisup.control.takes import make_request
from sdisup.errors import ConfigError, SdisupError

RECORDINGS = "/srv/recordings"
ARGV = ["/usr/bin/ffmpeg", "-i", "x", "{output}"]
NOBODY = 65534


@pytest.fixture
def run(tmp_path: Path) -> str:
    (tmp_path / "requests").mkdir()
    return str(tmp_path)


def good(**values: Any) -> dict[str, Any]:
    return {"take": "t", "created_boottime_ns": boottime_ns(), "boot_id": boot_id(), **values}


def put(run: str, document: object, *, owner: int = 0) -> Path:
    path = Path(request_path(3, run))
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    os.chown(path, owner, owner)
    return path


def claim(run: str) -> Request | None:
    return claim_request(3, RECORDINGS, run)


def refused(run: str, words: str) -> None:
    """It is not honoured, says why, and is gone: the next start is the configured one."""
    with pytest.raises(Unreadable, match=words):
        claim(run)
    assert os.listdir(f"{run}/requests") == []
    assert claim(run) is None


# ---- Leaving and claiming ----


def test_what_is_left_is_claimed_once_and_whole(run: str) -> None:
    asked = Request(take="final", request_id="7", argv=ARGV, recording_path=f"{RECORDINGS}/f", name="CAM", codec="h264")
    leave_request(3, asked, run)
    assert os.listdir(f"{run}/requests") == ["3.json"]
    found = claim(run)
    assert found is not None
    assert found.as_dict() == asked.as_dict()
    assert claim(run) is None
    assert os.listdir(f"{run}/requests") == []


def test_the_second_of_two_gets_an_error(run: str) -> None:
    leave_request(3, Request(take="first"), run)
    with pytest.raises(FileExistsError):
        leave_request(3, Request(take="second"), run)
    found = claim(run)
    assert found is not None
    assert found.take == "first"


def test_of_many_at_once_one_wins(run: str) -> None:
    lost: list[str] = []
    barrier = threading.Barrier(8)

    def leave(number: int) -> None:
        barrier.wait()
        try:
            leave_request(3, Request(take=f"t{number}", request_id=str(number)), run)
        except FileExistsError:
            lost.append(str(number))

    threads = [threading.Thread(target=leave, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(lost) == 7
    assert os.listdir(f"{run}/requests") == ["3.json"]


def test_one_whose_time_is_over_gives_way(run: str) -> None:
    put(run, good(take="old", created_boottime_ns=boottime_ns() - 31 * 10**9))
    leave_request(3, Request(take="new"), run)
    found = claim(run)
    assert found is not None
    assert found.take == "new"


@pytest.mark.parametrize("rubbish", ["", "{", "[]", "[" * 100_000, '{"created_boottime_ns": 1' + "0" * 400 + "}"])
def test_rubbish_gives_way_too(run: str, rubbish: str) -> None:
    put(run, rubbish)
    leave_request(3, Request(take="new"), run)
    found = claim(run)
    assert found is not None
    assert found.take == "new"


def test_a_link_gives_way_and_what_it_points_at_stays(run: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    os.symlink(target, request_path(3, run))
    leave_request(3, Request(take="new"), run)
    assert target.read_text() == "mine"


def test_taking_back_is_for_ones_own(run: str) -> None:
    leave_request(3, Request(take="t", request_id="a"), run)
    take_back(3, "b", run)
    assert os.path.exists(request_path(3, run))
    take_back(3, "a", run)
    assert not os.path.exists(request_path(3, run))
    take_back(3, "a", run)


@pytest.mark.parametrize("rubbish", ["", "[]", "[" * 100_000])
def test_taking_back_passes_rubbish_over(run: str, rubbish: str) -> None:
    path = put(run, rubbish)
    take_back(3, "a", run)
    assert path.exists()


# ---- What is not honoured ----

REFUSED = [
    ("", "no JSON"),
    ('{"take": "t', "no JSON"),
    ("[" * 100_000, "no JSON"),
    ("[]", "not an object"),
    ("null", "not an object"),
    (good(boot_id="0" * 36), "another boot"),
    (good(boot_id=None), "boot_id: not text"),
    (good(created_boottime_ns="1"), "3.json: created_boottime_ns: not a whole number"),
    (good(created_boottime_ns=10**400), "created_boottime_ns: not from"),
    (good(created_boottime_ns=-(10**400)), "created_boottime_ns: not from"),
    (good(take="../../x"), "cannot be a take's name"),
    (good(take=""), "cannot be a take's name"),
    (good(take=7), "take: not text"),
    (good(request_id=[1]), "request_id: not text"),
    (good(name="a/b"), "cannot begin a file's name"),
    (good(recording_path="/etc"), "is not at or below"),
    (good(recording_path=f"{RECORDINGS}/../x"), "is not at or below"),
    (good(recording_path=f"{RECORDINGS}/a\0b"), "is not at or below"),
    (good(recording_path=f"{RECORDINGS}/\ud800"), "is not at or below"),
    (good(container="../../x"), "cannot end a file's name"),
    (good(argv=[]), "cannot be run"),
    (good(argv="ls {output}"), "argv: not a list"),
    (good(argv=["{output}"]), "cannot be run"),
    (good(argv=["ls", "x"]), "cannot be run"),
    (good(argv=["ls", "a\0b", "{output}"]), "cannot be run"),
    (good(argv=["ls", "\ud800", "{output}"]), "cannot be run"),
    (good(argv=["ls", 7, "{output}"]), "argv: not a list of texts"),
]


@pytest.mark.parametrize(("document", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_wrong_is_refused(run: str, document: object, words: str) -> None:
    if isinstance(document, dict) and isinstance(document["created_boottime_ns"], int):
        age_ns = boottime_ns() - document["created_boottime_ns"]
        document = {**document, "created_boottime_ns": boottime_ns()} if abs(age_ns) < 10**15 else document
    put(run, document)
    refused(run, words)


@pytest.mark.parametrize("age_s", [30.5, 3600, -1.0, -1e6])
def test_what_is_too_old_or_of_the_future_is_refused(run: str, age_s: float) -> None:
    put(run, good(created_boottime_ns=boottime_ns() - int(age_s * 1e9)))
    refused(run, "s old; 30 s is the limit")


def test_a_link_is_refused_and_not_followed(run: str, tmp_path: Path) -> None:
    target = tmp_path / "secret.json"
    target.write_text(json.dumps(good()))
    os.symlink(target, request_path(3, run))
    refused(run, "cannot be read")
    assert target.exists()


def test_a_fifo_is_refused_and_not_waited_for(run: str) -> None:
    os.mkfifo(request_path(3, run))
    refused(run, "cannot be read")


def test_a_file_that_is_too_large_is_refused(run: str) -> None:
    put(run, good(take="x" * (1 << 20)))
    refused(run, "cannot be read")


def test_a_directory_is_refused_and_no_descriptor_is_lost(run: str) -> None:
    os.makedirs(f"{request_path(3, run)}/inside")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(Unreadable, match="cannot be read"):
            claim(run)
    assert len(os.listdir("/proc/self/fd")) == before


def directory_with_a_file(path: str) -> None:
    os.makedirs(f"{path}/inside")


def link_to_another_ports(path: str) -> None:
    Path(path.replace("3.json", "4.json")).write_text(json.dumps(good(take="of-4")))
    os.symlink("4.json", path)


def rest_of_an_earlier_program(path: str) -> None:
    Path(f"{path}.99.x.tmp").write_text('{"take": "half')
    Path(path.replace("3.json", "3.0123456789abcdef.json")).write_text('{"take": "half')


IN_THE_WAY = [directory_with_a_file, os.mkdir, os.mkfifo, link_to_another_ports, rest_of_an_earlier_program]


@pytest.mark.parametrize("put_in_the_way", IN_THE_WAY)
@pytest.mark.parametrize("comes_first", [True, False])
def test_takes_go_on_working_whatever_is_in_the_way(run: str, put_in_the_way: Any, comes_first: bool) -> None:
    """A member of the group makes entries in this directory, which the others may not remove (mode 3770)."""
    if comes_first:
        put_in_the_way(request_path(3, run))
    for number in range(3):
        leave_request(3, Request(take=f"t{number}", request_id=str(number)), run)
        if not comes_first and number == 0:
            # What the runner finds first is none; its name was free before.
            os.rename(request_path(3, run), f"{run}/requests/3.aa.json")
            put_in_the_way(request_path(3, run))
        found = claim(run)
        assert found is not None and found.take == f"t{number}"
    left = {name.partition(".")[2] for name in os.listdir(f"{run}/requests") if name.startswith("3.")}
    assert left <= {"json", "json.99.x.tmp", "0123456789abcdef.json"}


def test_what_cannot_be_removed_is_no_request_of_a_program_that_has_no_right_to(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory with the sticky bit a member removes its own files alone (unlink(2), EPERM)."""
    put(run, good(take="old", created_boottime_ns=boottime_ns() - 31 * 10**9))

    def refuse(_: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as member:
        member.setattr(requests, "_remove", refuse)
        leave_request(3, Request(take="mine", request_id="a"), run)
        leave_request(3, Request(take="withdrawn", request_id="b"), run)
    assert take_back(3, "b", run) and not take_back(3, "b", run)
    found = claim(run)
    assert found is not None and found.take == "mine"


def test_a_request_that_cannot_be_kept_stays(run: str) -> None:
    def full(_: Request) -> None:
        raise OSError(28, "No space left on device")

    leave_request(3, Request(take="cup"), run)
    with pytest.raises(OSError, match="No space left"):
        claim_request(3, RECORDINGS, run, full)
    found = claim(run)
    assert found is not None and found.take == "cup"


# ---- Whose it is ----


def test_another_than_root_may_only_name_a_take(run: str) -> None:
    everything = good(argv=["/bin/sh", "-c", "{output}"], recording_path="/etc", name="X", codec="c", container="mkv")
    put(run, everything, owner=NOBODY)
    found = claim(run)
    assert found is not None
    assert found.as_dict() == {**Request().as_dict(), "take": "t", "request_id": ""}


def test_what_another_may_not_ask_is_not_even_looked_at(run: str) -> None:
    put(run, good(argv=["x"], recording_path="/etc", name="../x"), owner=NOBODY)
    found = claim(run)
    assert found is not None
    assert found.take == "t"


def test_another_than_root_cannot_name_anything_either(run: str) -> None:
    put(run, good(take="../x"), owner=NOBODY)
    refused(run, "cannot be a take's name")


# ---- Who stops a port ----


@pytest.mark.parametrize("by", ["apply", "schedule"])
def test_who_stops_it_is_left_beside_and_read_once(run: str, by: str) -> None:
    leave_stop_note(3, by, run)
    assert noted_stopper(3, run) == by
    assert os.listdir(f"{run}/requests") == []
    assert noted_stopper(3, run) == ""


@pytest.mark.parametrize("created", [1, 9_000_000_000_000_000_000])
def test_a_note_whose_stop_never_came_or_of_the_future_is_no_note(run: str, created: int) -> None:
    Path(f"{run}/requests/3.stop.json").write_text(json.dumps({"by": "apply", "created_boottime_ns": created}))
    assert noted_stopper(3, run) == ""
    assert os.listdir(f"{run}/requests") == []


WRONG_NOTES = [
    ("", " cannot be read: it is no JSON"),
    ("[]", ": not an object"),
    ("[" * 100_000, " cannot be read: it is no JSON"),
    ('{"by": "apply"}', ": created_boottime_ns: not there"),
    (json.dumps({"by": 7, "created_boottime_ns": boottime_ns()}), ": by: not text"),
    (json.dumps({"by": "evil", "created_boottime_ns": boottime_ns()}), ": by: 'evil' is nobody who stops ports"),
]


@pytest.mark.parametrize(("note", "words"), WRONG_NOTES, ids=range(len(WRONG_NOTES)))
def test_what_is_wrong_with_a_note_is_said_once(
    run: str, monkeypatch: pytest.MonkeyPatch, note: str, words: str
) -> None:
    # The notes above were made when the tests were collected.
    monkeypatch.setattr(requests, "LIFETIME_S", 1e9)
    path = Path(f"{run}/requests/3.stop.json")
    path.write_text(note)
    with pytest.raises(Unreadable, match=re.escape(f"{path}{words}")):
        noted_stopper(3, run)
    assert noted_stopper(3, run) == ""


# ---- Words and paths ----


@pytest.mark.parametrize("name", ["a", "A1", "final.2-b_c", "0" * 64])
def test_names_of_takes(name: str) -> None:
    assert is_take_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "ä", "٣", "a" * 65, "a\0"])
def test_no_names_of_takes(name: str) -> None:
    assert not is_take_name(name)


@pytest.mark.parametrize("path", [RECORDINGS, f"{RECORDINGS}/a", f"{RECORDINGS}/a/b c", f"{RECORDINGS}/..a"])
def test_at_or_below(path: str) -> None:
    assert is_below(path, RECORDINGS)


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "/", "/srv", "/srv/recordings2", "/srv/recordings/../x", "/srv/recordings/..", "/srv/recordings/.",
        "/srv/recordings/", "//srv/recordings", "/srv//recordings/a", "srv/recordings", "/srv/recordings/a/",
        "/srv/recordings/a//b", "/srv/recordings\0/a", "/srv/recordings/a\0b", "/srv/recordings/\ud800",
    ],
)  # fmt: skip
def test_not_below(path: str) -> None:
    assert not is_below(path, RECORDINGS)


def test_everything_is_below_the_root() -> None:
    assert is_below("/a", "/")
    assert is_below("/", "/")


@given(st.lists(st.sampled_from(["srv", "recordings", "..", ".", "", "a"]), max_size=6))
def test_what_is_below_stays_there(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    if is_below(path, RECORDINGS):
        assert os.path.commonpath([os.path.abspath(path), RECORDINGS]) == RECORDINGS


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*Request().as_dict(), "created_boottime_ns"]), json_values))
def test_no_document_breaks_a_runner(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    run = str(tmp_path_factory.getbasetemp())
    os.makedirs(f"{run}/requests", exist_ok=True)
    put(run, {**good(), **values})
    try:
        found = claim(run)
    except Unreadable:
        return
    assert found is not None
    assert found.take is None or is_take_name(found.take)
    assert found.recording_path is None or is_below(found.recording_path, RECORDINGS)


def test_the_limit_is_designs() -> None:
    assert requests.LIFETIME_S == 30


# ---- Making ----


def never_asked() -> FFmpegCommandBuilder:
    raise AssertionError("only a codec or container of its own needs the configuration")


PORT = AppliedPort(3, "CAM3", codec="prores", recordings=RECORDINGS, record_at_boot=False, revision="")


def test_a_take_without_a_codec_keeps_the_ports() -> None:
    made = make_request(PORT, RecorderConfig(codec=None, take="final"), never_asked)
    assert (made.take, made.codec, made.argv) == ("final", None, None)


@pytest.mark.parametrize(
    "config",
    [
        RecorderConfig(CodecType.H264),
        RecorderConfig(None, container="mkv"),
        RecorderConfig(None, recording_path=f"{RECORDINGS}/a"),
        RecorderConfig(None, name="CAM"),
    ],
)
def test_what_a_runner_would_ignore_is_refused(config: RecorderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root decides what is executed and written; anybody else would get another recording than asked for."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    with pytest.raises(SdisupError, match="only root may give a take a codec, container, path or name"):
        make_request(PORT, config, never_asked)
    assert make_request(PORT, RecorderConfig(CodecType.PRORES, take="t"), never_asked).take == "t"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RecorderConfig(take="../../x"), "take: '../../x' is not a letter or digit"),
        (RecorderConfig(name="a b"), "name: 'a b' is not a letter or digit"),
        (RecorderConfig(recording_path="/etc"), "recording_path: '/etc' is not at or below /srv/recordings"),
    ],
)
def test_an_impossible_take_is_refused(config: RecorderConfig, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_request(PORT, config, never_asked)
    assert str(caught.value).startswith(f"port 3 (CAM3): {words}")
