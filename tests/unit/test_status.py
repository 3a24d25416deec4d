"""Status files and locks: what readers see while others write, crash, or mean no good."""

from __future__ import annotations

import json
import os
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdisup.cli.tables import status_table
from sdisup.contract import status as status_module
from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import SIZE_LIMIT_BYTES, Fields, Unreadable, boot_id, read_json, replace_file, utc_text
from sdisup.contract.status import (
    FIELDS,
    STALE_AFTER_S,
    STATES,
    PortStatus,
    is_alive,
    is_going_on,
    lock_path,
    read_status,
    settle,
    status_path,
    take_lock,
    write_status,
)
from sdisup.control import observe
from sdisup.ledger import cut_off, open_record
from sdisup.ledger.moments import Interval, Moment, TakenFile
from sdisup.ledger.story import Story

PACKAGE_PARENT = str(Path(status_module.__file__).resolve().parent.parent.parent)
DEADLINE_S = 60.0


def open_descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


def a_status(**values: Any) -> PortStatus:
    return PortStatus(**{"port_index": 3, "name": "CAM3", "state": "recording", "boot_id": "B", **values})


PROMISED = """
port_index is_recording frame_count fps bitrate_mbps uptime_seconds current_file codec schema name state reason
dropped_frames duplicated_frames missing_frames speed bytes_written last_frame_at started_at updated_at
updated_monotonic boot_id take take_started_at take_frames restarts pid invocation_id runner_version unit
config_pending disk_free_bytes disk_remaining_seconds
"""


def test_no_field_that_programs_rely_on_is_missing_or_renamed() -> None:
    """Written out: a field that is renamed everywhere at once would pass every other test."""
    assert set(PROMISED.split()) <= set(PortStatus(port_index=3).as_dict())


# ---- replace_file ----


def test_a_reader_never_sees_a_torn_file(tmp_path: Path) -> None:
    path = str(tmp_path / "3.json")
    contents = [letter * 50_000 for letter in (b"a", b"b")]
    replace_file(path, contents[0])
    seen: list[bytes] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            with open(path, "rb") as file:
                seen.append(file.read())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(300):
            replace_file(path, contents[turn % 2])
    finally:
        ended.set()
        reader.join()
    assert seen and set(seen) <= set(contents)


def test_writers_in_several_threads_do_not_tear_each_others_files(tmp_path: Path) -> None:
    """RecorderManager is callable from any thread, and two may write one port's file at once."""
    path = str(tmp_path / "3.json")
    contents = [letter * 100_000 for letter in (b"a", b"b", b"c", b"d")]
    problems: list[object] = []
    replace_file(path, contents[0])

    def write(content: bytes) -> None:
        for _ in range(50):
            try:
                replace_file(path, content)
            except OSError as error:
                problems.append(error)
            with open(path, "rb") as file:
                found = file.read()
            if found not in contents:
                problems.append(f"torn: {len(found)} bytes")

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert problems == []
    assert os.listdir(tmp_path) == ["3.json"]


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664])
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_the_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_file(str(tmp_path / "f"), b"x", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode


@pytest.mark.parametrize("durable", [False, True])
def test_it_replaces_a_link_and_not_what_the_link_names(tmp_path: Path, durable: bool) -> None:
    (tmp_path / "victim").write_bytes(b"victim")
    (tmp_path / "f").symlink_to("victim")
    replace_file(str(tmp_path / "f"), b"new", durable=durable)
    assert (tmp_path / "victim").read_bytes() == b"victim"
    assert not (tmp_path / "f").is_symlink() and (tmp_path / "f").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "left over"])
def test_what_lies_where_the_temporary_file_goes_is_not_written_to(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is the recorder's user's, and root writes there too: a link must lead root nowhere."""
    temporaries: list[str] = []
    true_replace = os.replace

    def note(source: str, target: str) -> None:
        temporaries.append(source)
        true_replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    path, victim = str(tmp_path / "f"), tmp_path / "victim"
    replace_file(path, b"old")
    victim.write_bytes(b"victim")
    temporary = temporaries.pop()
    if kind == "symlink":
        os.symlink(victim, temporary)
    elif kind == "hard link":
        os.link(victim, temporary)
    elif kind == "fifo":
        os.mkfifo(temporary)
    else:
        Path(temporary).write_bytes(b"left over by a process of the same number" * 10)
    try:
        replace_file(path, b"new")
    except OSError:
        assert Path(path).read_bytes() == b"old"
    else:
        assert Path(path).read_bytes() == b"new"
        assert stat.S_ISREG(os.lstat(path).st_mode) and not os.path.islink(path)
    assert victim.read_bytes() == b"victim" and victim.stat().st_mode & 0o777 == 0o644


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    before = open_descriptors()
    with pytest.raises(IsADirectoryError):
        replace_file(str(tmp_path / "f"), b"new")
    with pytest.raises(FileNotFoundError):
        replace_file(str(tmp_path / "missing" / "f"), b"new")
    assert os.listdir(tmp_path) == ["f"]
    assert open_descriptors() == before


def test_no_space_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "f")
    replace_file(path, b"old")
    before = open_descriptors()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]
    assert open_descriptors() == before


def test_a_write_that_is_cut_short_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: true_write(descriptor, data[:3]))
        replace_file(str(tmp_path / "f"), b"0123456789")
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_an_empty_file_is_written(tmp_path: Path) -> None:
    replace_file(str(tmp_path / "f"), b"", durable=True)
    assert (tmp_path / "f").read_bytes() == b""


# ---- Reading ----


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = a_status(reason='Störung "x" \n', speed=None, fps=25.0, disk_remaining_seconds=1e9)
    write_status(written, str(tmp_path))
    assert read_status(3, str(tmp_path)) == written
    assert stat.S_IMODE((tmp_path / "3.json").stat().st_mode) == 0o644


def test_no_file_is_no_status(tmp_path: Path) -> None:
    assert read_status(3, str(tmp_path)) is None


def test_text_that_is_not_utf_8_can_be_written(tmp_path: Path) -> None:
    write_status(a_status(reason="caf\udce9"), str(tmp_path))
    status = read_status(3, str(tmp_path))
    assert status is not None and status.reason == "caf?"


def valid() -> dict[str, Any]:
    return dict(a_status().as_dict())


BAD_CONTENTS = {
    "empty": b"",
    "torn": json.dumps(valid()).encode()[:-40],
    "two documents": json.dumps(valid()).encode() * 2,
    "zeros after a power cut": b"\0" * 4096,
    "not UTF-8": b'{"schema": 1, "name": "\xff\xfe"}',
    "byte order mark of UTF-16": b"\xff\xfe{\x00",
    "no object": b"[1, 2]",
    "null": b"null",
    "no schema": b"{}",
    "nested too deeply": b"[" * 100_000,
    "nested too deeply inside": b'{"schema":' + b'{"a":' * 100_000,
    "huge": b" " * (SIZE_LIMIT_BYTES + 1),
    "another port's": json.dumps({**valid(), "port_index": 4}).encode(),
    "frames as text": json.dumps({**valid(), "frame_count": "7"}).encode(),
    "frames as a truth value": json.dumps({**valid(), "frame_count": True}).encode(),
    "frames as a float": json.dumps({**valid(), "frame_count": 7.5}).encode(),
    "recording as a number": json.dumps({**valid(), "is_recording": 1}).encode(),
    "no name": json.dumps({**valid(), "name": None}).encode(),
    "state as a list": json.dumps({**valid(), "state": ["recording"]}).encode(),
    "fps as an object": json.dumps({**valid(), "fps": {}}).encode(),
    "schema as a truth value": json.dumps({**valid(), "schema": True}).encode(),
    "an endless number": b'{"schema": 1, "port_index": ' + b"9" * 10_000 + b"}",
    "a time that is no number": json.dumps({**valid(), "updated_monotonic": float("nan")}).encode(),
    "a time without end": json.dumps({**valid(), "updated_monotonic": float("inf")}).encode(),
    "a time too large for a float": json.dumps({**valid(), "updated_monotonic": 10**400}).encode(),
}


@pytest.mark.parametrize("case", BAD_CONTENTS)
def test_a_file_that_is_no_status_is_a_valueerror_that_names_it(tmp_path: Path, case: str) -> None:
    (tmp_path / "3.json").write_bytes(BAD_CONTENTS[case])
    with pytest.raises(ValueError, match=r"3\.json") as caught:
        read_status(3, str(tmp_path))
    text = str(caught.value)
    assert text.startswith((f"{tmp_path}/3.json ", f"{tmp_path}/3.json: ")) and len(text) < 500 and "\n" not in text


def test_fields_of_a_newer_version_are_ignored_and_missing_ones_have_defaults(tmp_path: Path) -> None:
    document = {"schema": 2, "port_index": 3, "state": "recording", "flux": {"a": 1}}
    (tmp_path / "3.json").write_text(json.dumps(document))
    status = read_status(3, str(tmp_path))
    assert status is not None and status.state == "recording" and status.frame_count == 0


@pytest.mark.parametrize("kind", ["symlink", "dangling symlink", "fifo", "fifo with a writer", "directory", "socket"])
def test_what_is_no_regular_file_is_a_valueerror(tmp_path: Path, kind: str) -> None:
    """Nobody but the recorder's user can make these, and root must not hang or follow them all the same."""
    path = tmp_path / "3.json"
    writer = -1
    if kind == "symlink":
        (tmp_path / "real").write_text(json.dumps(valid()))
        path.symlink_to("real")
    elif kind == "dangling symlink":
        path.symlink_to("nowhere")
    elif kind.startswith("fifo"):
        os.mkfifo(path)
        if kind == "fifo with a writer":
            writer = os.open(path, os.O_RDWR)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mknod(path, stat.S_IFSOCK | 0o644)
    before = open_descriptors()
    try:
        with pytest.raises(ValueError, match=r"3\.json cannot be read: "):
            read_status(3, str(tmp_path))
        assert open_descriptors() == before
    finally:
        if writer >= 0:
            os.close(writer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
NEARLY = st.dictionaries(st.sampled_from(list(FIELDS)), JSON, max_size=8).map(lambda wrong: {**valid(), **wrong})


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=st.one_of(JSON, NEARLY), state=st.sampled_from([None, "active", "failed"]), alive=st.booleans())
def test_any_json_is_a_status_that_can_be_used_or_a_valueerror(
    tmp_path: Path, document: object, state: str | None, alive: bool
) -> None:
    (tmp_path / "3.json").write_text(json.dumps(document))
    try:
        found = read_status(3, str(tmp_path))
    except ValueError:
        return
    assert found is not None
    settle(found, alive=alive, unit_state=state, now_monotonic=100.0, this_boot=found.boot_id)
    json.dumps(found.as_dict(), allow_nan=False)
    (header, line) = status_table([found], 100.0, colour=False).split("\n")
    (header + line).encode()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_valueerror(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "3.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"3\.json"):
        read_status(3, str(tmp_path))


def test_files_that_cannot_be_read_are_told_from_missing_ones(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(str(tmp_path / "none"))
    (tmp_path / "link").symlink_to("none")
    with pytest.raises(Unreadable, match="symbolic links"):
        read_json(str(tmp_path / "link"))


# ---- PortStatus ----


def test_every_field_is_annotated_and_documented_in_one_order() -> None:
    assert list(PortStatus.__annotations__) and set(PortStatus.__annotations__) == set(FIELDS)
    assert list(a_status().as_dict()) == list(FIELDS)


def test_the_defaults_have_their_fields_types() -> None:
    assert Fields(PortStatus(port_index=3).as_dict(), "3.json").record(PortStatus) == PortStatus(port_index=3)


def test_an_unknown_field_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="flux"):
        PortStatus(flux=1)  # type: ignore[call-arg]
    status = PortStatus()
    with pytest.raises(TypeError, match="flux"):
        status.update(name="CAM3", flux=1)
    assert status == PortStatus()


def test_times_are_utc_with_milliseconds() -> None:
    assert utc_text(0) == "1970-01-01T00:00:00.000Z"
    assert utc_text(1769860800.0004) == "2026-01-31T12:00:00.000Z"
    assert utc_text(1769860799.9996) == "2026-01-31T12:00:00.000Z"
    assert utc_text(1769860800.0425) in ("2026-01-31T12:00:00.042Z", "2026-01-31T12:00:00.043Z")


def test_the_boot_id_is_the_kernels() -> None:
    assert len(boot_id()) == 36 and boot_id() == boot_id()


# ---- The lock ----

HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from sdisup.contract.status import take_lock
try:
    take_lock(3, sys.argv[2])
except BlockingIOError:
    print("refused", flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(directory: Path) -> Iterator[str]:
    """Another process that tries to take the lock, and what came of it; gone afterwards."""
    command = [sys.executable, "-I", "-S", "-c", HOLDER, PACKAGE_PARENT, str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(DEADLINE_S)
        process.stdout.close()


def test_a_held_lock_is_refused_and_a_free_one_taken(tmp_path: Path) -> None:
    with holder(tmp_path):
        before = open_descriptors()
        with pytest.raises(BlockingIOError):
            take_lock(3, str(tmp_path))
        assert open_descriptors() == before
    descriptor = take_lock(3, str(tmp_path))
    try:
        assert not os.get_inheritable(descriptor)
        with holder(tmp_path) as said:
            assert said == "refused"
    finally:
        os.close(descriptor)


def test_a_lock_file_that_root_cannot_trust_is_not_followed(tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", lock_path(3, str(tmp_path)))
    with pytest.raises(OSError, match="symbolic links"):
        take_lock(3, str(tmp_path))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [None, 0o644, 0o666])
def test_nobody_else_can_open_a_lock_and_so_hold_it(tmp_path: Path, mode: int | None) -> None:
    """A shared lock on a file that can be read keeps an exclusive one out. Earlier versions made it readable."""
    if mode is not None:
        Path(lock_path(3, str(tmp_path))).touch()
        os.chmod(lock_path(3, str(tmp_path)), mode)
    os.close(take_lock(3, str(tmp_path)))
    assert stat.S_IMODE(os.stat(lock_path(3, str(tmp_path))).st_mode) == 0o600


def test_a_fifo_in_the_locks_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(lock_path(3, str(tmp_path)))
    os.close(take_lock(3, str(tmp_path)))


# ---- Whether its runner lives ----

UNIT = "sdi-record@3.service"
SLICE = "0::/system.slice/system-sdi\\x2drecord.slice"
LIVES = [
    # The process's cgroups, whether that is the runner of port 3.
    (f"{SLICE}/{UNIT}\n", True),
    (f"1:name=systemd:/system.slice/{UNIT}\n0::/\n", True),
    (f"{SLICE}/sdi-record@33.service\n", False),
    (f"{SLICE}/{UNIT}/inner\n", False),
    (f"{SLICE}/x{UNIT}\n", False),
    ("0::/user.slice/user-1000.slice\n", False),
    ("0::/\n", False),
    ("", False),
]


@pytest.mark.parametrize(("cgroup", "lives"), LIVES)
def test_a_runner_lives_if_its_process_is_the_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, lives: bool
) -> None:
    monkeypatch.setattr(status_module, "PROC", str(tmp_path))
    (tmp_path / "4711").mkdir()
    (tmp_path / "4711/cgroup").write_text(cgroup)
    status = a_status(pid=4711, unit=UNIT, boot_id=boot_id())
    assert is_alive(status) is lives
    # Its number is another process's after a reboot; nobody knows a process of whom nothing is known.
    for other in (None, status.replaced(boot_id="A"), status.replaced(pid=None), status.replaced(pid=4712)):
        assert not is_alive(other)


def test_a_process_of_this_machine_is_asked_and_nothing_is_left_open() -> None:
    unit = Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition("/")[2]
    before = open_descriptors()
    assert is_alive(a_status(pid=os.getpid(), unit=unit, boot_id=boot_id()))
    assert not is_alive(a_status(pid=os.getpid(), unit="sdi-record@3.service", boot_id=boot_id()))
    assert open_descriptors() == before


# ---- Whether it was stopped ----


@pytest.mark.parametrize("state", STATES)
def test_a_unit_that_has_run_since_boot_and_is_inactive_was_stopped_whatever_its_status_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """apply starts what should record and does not: never a port that somebody stopped."""
    monkeypatch.setattr(observe, "lock_path", lambda port: lock_path(port, str(tmp_path)))
    port = AppliedPort(3, "CAM3", "h264", "/srv/recordings", True, "r1")

    def seen(record: PortStatus | None) -> PortStatus:
        entry = observe._Observation(port, record, "", boot_id())
        entry.settle("inactive")
        return entry.result()

    this_boot = seen(a_status(state=state, boot_id=boot_id()))
    assert (this_boot.state, this_boot.should_record) == ("stopped", False)
    before_boot = seen(a_status(state=state, boot_id="A"))
    assert (before_boot.state, before_boot.should_record) == ("stopped", True)
    # One that was killed before it could write a status has made its lock.
    Path(lock_path(3, str(tmp_path))).touch()
    assert not seen(None).should_record


FINAL = Interval("gap", "signal lost", Moment(1.0, 1.0, "A"), "final")
RECORDED = TakenFile("/r/a.mp4", "cup", "h264", 25.0, Moment(1.0, 1.0, "A"), start=Moment(2.0, 2.0, "A"))


@pytest.mark.parametrize(
    ("files", "interval", "what"),
    [
        ([RECORDED], None, "take cup"),
        ([RECORDED.replaced(take=None)], None, "the recording"),
        ([], FINAL, "take final"),
        # Its file had no frame yet.
        ([RECORDED.replaced(start=None)], FINAL, "take final"),
        ([], FINAL.replaced(kind="stop", what="shutdown"), ""),
        ([], FINAL.replaced(what="cannot work"), ""),
        ([], None, ""),
    ],
)
def test_what_a_power_cut_ended_is_said_until_somebody_starts_or_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[TakenFile], interval: Interval | None, what: str
) -> None:
    monkeypatch.setattr(observe, "lock_path", lambda port: lock_path(port, str(tmp_path)))
    real = cut_off.cut_off
    monkeypatch.setattr(cut_off, "cut_off", lambda port, boot: real(port, boot, str(tmp_path)))
    story = Story(3)
    story.files, story.interval = files, interval
    open_record.save_story(cut_off.open_path(3, str(tmp_path)), story)
    port = AppliedPort(3, "CAM3", "h264", "/srv/recordings", False, "r1")

    def seen(record: PortStatus | None) -> PortStatus:
        entry = observe._Observation(port, record, "", boot_id())
        entry.settle("inactive")
        return entry.result()

    for former in (None, a_status(boot_id="A")):
        found = seen(former)
        assert (found.state, found.should_record) == ("stopped", bool(what))
        assert observe.records_as_it_should(found) is not bool(what)
        take = f" --take {what.removeprefix('take ')}" if what.startswith("take") else ""
        text = f"{what} was cut off by a power cut; go on: sdisup start 3{take}, or not: sdisup stop 3"
        assert found.reason == (text if what else "")
    stopped = seen(a_status(state="stopped", boot_id=boot_id()))
    assert (stopped.reason, stopped.should_record) == ("", False)


def test_a_port_is_going_on_while_systemd_keeps_its_run_directory_or_starts_it_once_more(tmp_path: Path) -> None:
    assert not is_going_on(3, str(tmp_path))
    for name in ("port-3", "3.again"):
        (tmp_path / name).mkdir()
        assert is_going_on(3, str(tmp_path))
        (tmp_path / name).rmdir()


# ---- The state: first that holds ----

NOW = 1000.0


def told(state: str, reason: str = "", age_s: float = 0.0, boot: str = "B") -> PortStatus:
    return a_status(state=state, reason=reason, updated_monotonic=NOW - age_s, boot_id=boot)


def settled(
    status: PortStatus | None, *, alive: bool, unit_state: str | None = None, now: float = NOW
) -> tuple[str, str] | None:
    return settle(status, alive=alive, unit_state=unit_state, now_monotonic=now, this_boot="B")


DEAD = [
    # unit, what the status file still says, the state, the reason
    ("failed", None, "failed", "the unit failed before its runner could say why; see sdisup logs"),
    ("failed", told("failed", "no encoder"), "failed", "no encoder"),
    ("failed", told("recording"), "failed", "the unit failed before its runner could say why; see sdisup logs"),
    ("failed", told("failed", "no encoder", boot="A"), "failed",
     "the unit failed before its runner could say why; see sdisup logs"),
    ("inactive", None, "stopped", ""),
    ("inactive", told("recording", "old"), "stopped", ""),
    ("inactive", told("stopped"), "stopped", ""),
    ("deactivating", told("recording"), "stopping", ""),
    ("auto-restart", None, "backoff", "the runner is not running; systemd starts it again"),
    ("auto-restart", told("backoff", "disk full"), "backoff", "disk full"),
    ("auto-restart", told("recording", age_s=3600), "backoff", "the runner is not running; systemd starts it again"),
    ("activating", None, "starting", ""),
    ("activating", told("stopped"), "starting", ""),
    ("activating", told("backoff", "disk full"), "backoff", "disk full"),
    ("activating", told("backoff", "disk full", boot="A"), "starting", ""),
    ("active", told("recording"), "starting", ""),
    ("active", told("recording", "x", boot="A"), "starting", ""),
]  # fmt: skip


@pytest.mark.parametrize(("unit", "status", "state", "reason"), DEAD)
def test_of_a_dead_runners_port_systemd_decides(unit: str, status: PortStatus | None, state: str, reason: str) -> None:
    assert settled(status, alive=False, unit_state=unit) == (state, reason)


@pytest.mark.parametrize("status", [None, *(told(state) for state in STATES)])
def test_of_a_dead_runners_port_nothing_is_settled_until_systemd_is_asked(status: PortStatus | None) -> None:
    assert settled(status, alive=False) is None


@pytest.mark.parametrize("state", [state for state in STATES if state != "stopped"])
def test_a_fresh_word_of_a_living_runner_counts(state: str) -> None:
    assert settled(told(state, "why"), alive=True) == (state, "why")
    assert settled(told(state, "why", age_s=STALE_AFTER_S), alive=True) == (state, "why")


@pytest.mark.parametrize("state", [state for state in STATES if state != "stopped"])
def test_an_old_word_of_a_living_runner_is_unknown_whatever_it_said(state: str) -> None:
    assert settled(told(state, "why", age_s=6.0), alive=True) == ("unknown", "no word from the runner for 6 s")


@pytest.mark.parametrize("status", [None, told("recording", boot="A"), told("stopped"), told("stopped", age_s=3600)])
def test_a_living_runner_that_has_not_written_yet_is_starting(status: PortStatus | None) -> None:
    assert settled(status, alive=True) == ("starting", "")


def test_the_age_is_measured_in_this_boot_alone() -> None:
    """CLOCK_MONOTONIC begins anew at each boot: an old file's number may look fresh, or be of the future."""
    for age in (0.0, -3600.0, 3600.0):
        assert settled(told("recording", age_s=age, boot="A"), alive=True) == ("starting", "")


def test_the_path_of_a_port() -> None:
    assert (status_path(3), lock_path(3)) == ("/run/sdisup/3.json", "/run/sdisup/3.lock")


@pytest.mark.alone
def test_64_statuses_are_read_as_fast_as_files_of_their_size(tmp_path: Path) -> None:
    for port in range(64):
        write_status(a_status(port_index=port), str(tmp_path))

    def reading_s() -> float:
        began = time.process_time()
        assert all(read_status(port, str(tmp_path)) for port in range(64))
        return time.process_time() - began

    def parsing_s() -> float:
        began = time.process_time()
        for port in range(64):
            json.loads(Path(status_path(port, str(tmp_path))).read_bytes())
        return time.process_time() - began

    ratios = [reading_s() / parsing_s() for _ in range(15)]
    assert statistics.median(ratios) < 3


@pytest.mark.parametrize(("missing", "is_losing"), [(0, False), (30, True)])
def test_a_runner_of_an_earlier_version_is_understood(tmp_path: Path, missing: int, is_losing: bool) -> None:
    """A port records on with its runner while sdisup is updated."""
    document = a_status(frame_count=70, missing_frames=missing).as_dict()
    del document["is_losing"], document["short_frames"]
    (tmp_path / "3.json").write_text(json.dumps(document))
    read = read_status(3, str(tmp_path))
    assert read is not None
    assert (read.is_losing, read.short_frames) == (is_losing, missing)
