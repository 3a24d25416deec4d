"""The ledger's file: what was appended is there whole, and what is foreign, torn or newer is kept and skipped."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.ledger import accounts
from sdisup.ledger import lines as ledger
from sdisup.ledger.cut_off import open_path
from sdisup.ledger.entries import clock_entry, file_entries, interval_entries
from sdisup.ledger.lines import (
    LINE_LIMIT_BYTES,
    Entry,
    Problem,
    append_entries,
    encode_entry,
    last_entry,
    ledger_path,
    read_ledger,
)
from sdisup.ledger.moments import FileEnd, Interval, Moment, TakenFile
from sdisup.ledger.open_record import former_path

NOBODY = 65534


def entry(number: int = 0, **values: Any) -> Entry:
    known = {
        "v": 1, "kind": "gap", "port_index": 3, "take": None, "boot_id": "b",
        "start": f"2026-01-31T12:{number // 60:02}:{number % 60:02}.000Z", "end": "2026-01-31T13:00:00.000Z",
        "start_monotonic": float(number), "end_monotonic": 9.5, "seconds": 1.5, "cause": "killed",
    }  # fmt: skip
    return {**known, **values}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return ledger_path(3, str(tmp_path))


def entries(path: str) -> list[Entry]:
    return [found for found in read_ledger(path) if isinstance(found, dict)]


def problems(path: str) -> list[str]:
    return [str(found).removeprefix(path) for found in read_ledger(path) if isinstance(found, Problem)]


def scanned(path: str) -> list[accounts.Line | Problem]:
    return [line for lines in accounts.scan(path) for line in lines]


# ---- Writing ----


def test_what_is_appended_is_read_back_in_its_order(path: str) -> None:
    append_entries(path, [entry(1), entry(2)])
    append_entries(path, [entry(3)])
    assert entries(path) == [entry(1), entry(2), entry(3)]
    assert problems(path) == []
    assert stat.S_IMODE(os.stat(path).st_mode) & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_all_entries_are_one_write_to_a_file_opened_for_appending(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []

    def spy(name: str) -> None:
        real = getattr(os, name)

        def call(descriptor: int, *arguments: Any) -> Any:
            flags = int(Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0], 8)
            calls.append((name, flags & os.O_APPEND))
            return real(descriptor, *arguments)

        monkeypatch.setattr(os, name, call)

    spy("write")
    spy("fdatasync")
    append_entries(path, [entry(number) for number in range(100)])
    assert calls == [("write", os.O_APPEND), ("fdatasync", os.O_APPEND)]


def _append_many(path: str, writer: int) -> None:
    for number in range(40):
        append_entries(path, [entry(number, take=f"w{writer}-{number}-{part}") for part in range(3)])


def test_several_processes_append_at_once(path: str) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, writer)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert problems(path) == []
    found = [str(one["take"]) for one in entries(path)]
    assert len(found) == len(set(found)) == 4 * 40 * 3
    # What one call appends stays together.
    assert all(found[at].rsplit("-", 1)[0] == found[at + 2].rsplit("-", 1)[0] for at in range(0, len(found), 3))


def test_after_a_torn_line_a_new_one_is_begun(path: str) -> None:
    append_entries(path, [entry(1)])
    os.truncate(path, os.path.getsize(path) - 20)
    append_entries(path, [entry(2)])
    assert entries(path) == [entry(2)]
    assert problems(path) == [":1: is no JSON; it may have been cut off; skipped"]


def test_what_stood_there_is_never_changed(path: str) -> None:
    before = b'foreign\n\xff\xfe\n{"v":1,"kind":"gap"'
    Path(path).write_bytes(before)
    append_entries(path, [entry(1)])
    assert Path(path).read_bytes() == before + b"\n" + encode_entry(entry(1))


def test_text_that_no_utf8_can_hold_is_replaced(path: str) -> None:
    append_entries(path, [entry(1, take="a\udcffb ä\n")])
    assert entries(path)[0]["take"] == "a?b ä\n"


def test_a_link_is_not_written_through(path: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    os.symlink(target, path)
    with pytest.raises(OSError) as caught:
        append_entries(path, [entry(1)])
    assert caught.value.errno == errno.ELOOP
    assert target.read_text() == ""


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_written_to(path: str, make: Any) -> None:
    make(path)
    with pytest.raises(OSError):
        append_entries(path, [entry(1)])


def test_a_file_of_somebody_else_is_not_written_to(path: str) -> None:
    Path(path).write_text("")
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match="own user"):
        append_entries(path, [entry(1)])
    assert Path(path).read_text() == ""


def test_no_descriptor_is_left_open_whatever_happens(path: str, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    append_entries(path, [entry(1)])
    list(read_ledger(path))
    next(iter(read_ledger(path)))
    for name in ("link", "other"):
        bad = str(tmp_path / name)
        os.symlink(path, bad) if name == "link" else Path(bad).write_text("")
        os.chown(bad, NOBODY, NOBODY, follow_symlinks=False)
        list(read_ledger(bad))
        with pytest.raises(OSError):
            append_entries(bad, [entry(1)])
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_space_nothing_of_it_is_left_and_the_next_try_is_whole(path: str) -> None:
    """The first write is cut short by the limit, as on a full disk; what is there of it is taken away again."""
    append_entries(path, [entry(1)])
    size = os.path.getsize(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for room in (0, 1, 100, size + 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
            with pytest.raises(OSError):
                append_entries(path, [entry(number) for number in range(2, 5)])
            assert os.path.getsize(path) == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    append_entries(path, [entry(2)])
    assert entries(path) == [entry(1), entry(2)]


def test_lines_that_may_not_be_durable_are_taken_back(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried again, and would be there once more with every try."""
    append_entries(path, [entry(1)])

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        for _ in range(3):
            with pytest.raises(OSError):
                append_entries(path, [entry(2)])
    append_entries(path, [entry(2)])
    assert entries(path) == [entry(1), entry(2)]


def test_a_full_disk(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        path = ledger_path(3, str(tmp_path))
        append_entries(path, [entry(1)])
        (tmp_path / "ballast").write_bytes(bytes(56 << 10))
        with pytest.raises(OSError) as caught:
            append_entries(path, [entry(number, take="x" * 1000) for number in range(100)])
        assert caught.value.errno == errno.ENOSPC
        (tmp_path / "ballast").unlink()
        append_entries(path, [entry(2)])
        assert entries(path) == [entry(1), entry(2)]
        assert problems(path) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# ---- Reading ----


def test_a_ledger_that_is_not_there_is_empty(path: str) -> None:
    assert list(read_ledger(path)) == []


FOREIGN = [
    (b"hello", "is no JSON"),
    (b"\xff\xfe\x00", "is no JSON"),
    (b"[" * 5000, "is no JSON"),
    (b'{"v":1', "is no JSON"),
    (b"7", "is no entry of a ledger"),
    (b"{}", "is no entry of a ledger"),
    (b'{"v":"1"}', "is no entry of a ledger"),
    (b'{"v":true}', "is no entry of a ledger"),
    (encode_entry(entry(v=2)), "is of version 2, newer than this sdisup's 1"),
    (encode_entry(entry(v=10**30)), "is of version 1000"),
    (encode_entry(entry(kind="x")), "has a wrong kind"),
    (encode_entry(entry(kind=["gap"])), "has a wrong kind"),
    (encode_entry(entry(start=7)), "has a wrong start"),
    (encode_entry(entry(end="yesterday")), "has a wrong end"),
    (encode_entry(entry(end=None)), "has a wrong end"),
    (encode_entry(entry(seconds="1")), "has wrong seconds"),
    (encode_entry(entry(seconds=True)), "has wrong seconds"),
    (encode_entry(entry(seconds=float("nan"))), "has wrong seconds"),
    (encode_entry(entry(seconds=float("inf"))), "has wrong seconds"),
    (encode_entry(entry(seconds=10**400)), "has wrong seconds"),
    (encode_entry(entry(take="x" * LINE_LIMIT_BYTES)), "is too long"),
    (b"x" * (5 * ledger.READ_BYTES), "is too long"),
]


@pytest.mark.parametrize(("line", "words"), FOREIGN, ids=range(len(FOREIGN)))
def test_a_foreign_line_is_told_and_skipped(path: str, line: bytes, words: str) -> None:
    content = encode_entry(entry(1)) + line.rstrip(b"\n") + b"\n" + encode_entry(entry(2))
    Path(path).write_bytes(content)
    assert entries(path) == [entry(1), entry(2)]
    assert [problem.startswith(f":2: {words}") for problem in problems(path)] == [True]
    assert Path(path).read_bytes() == content
    assert [type(found) for found in scanned(path)] == [tuple, Problem, tuple]


def test_empty_lines_are_nothing(path: str) -> None:
    Path(path).write_bytes(b"\n\n" + encode_entry(entry(1)) + b"\n\n")
    assert entries(path) == [entry(1)]
    assert problems(path) == []


def test_a_last_line_that_is_whole_counts_without_its_end(path: str) -> None:
    Path(path).write_bytes(encode_entry(entry(1)) + encode_entry(entry(2)).rstrip(b"\n"))
    assert entries(path) == [entry(1), entry(2)]
    assert [found[4] for found in scanned(path) if isinstance(found, tuple)] == ["1.0", "2.0"]


@pytest.mark.parametrize("cut", [1, 2, 50, 150])
def test_a_last_line_that_is_cut_off(path: str, cut: int) -> None:
    Path(path).write_bytes(encode_entry(entry(1)) + encode_entry(entry(2))[: -1 - cut])
    assert entries(path) == [entry(1)]
    assert problems(path) == [":2: is no JSON; it may have been cut off; skipped"]


def test_a_link_is_not_followed(path: str, tmp_path: Path) -> None:
    append_entries(str(tmp_path / "other"), [entry(1)])
    os.symlink("other", path)
    assert entries(path) == []
    assert problems(path) == [":0: is a symbolic link; skipped"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_told_at_once(path: str, make: Any) -> None:
    make(path)
    assert problems(path) == [":0: is no regular file; skipped"]


def test_a_ledger_of_somebody_else_is_told_and_skipped(path: str) -> None:
    append_entries(path, [entry(1)])
    os.chown(path, NOBODY, NOBODY)
    assert entries(path) == []
    assert problems(path) == [f":0: belongs to the user {NOBODY}, who does not record; skipped"]


def test_a_ledger_of_the_directorys_owner_is_read_by_everybody(path: str, tmp_path: Path) -> None:
    append_entries(path, [entry(1)])
    for name in (path, tmp_path):
        os.chown(name, NOBODY, NOBODY)
    assert entries(path) == [entry(1)]


def test_lines_that_lie_across_two_reads(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    append_entries(path, [entry(number) for number in range(20)])
    for size in (1, 7, 100, 263, 264, 5000):
        monkeypatch.setattr(ledger, "READ_BYTES", size)
        assert entries(path) == [entry(number) for number in range(20)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
lines = st.lists(
    st.binary(max_size=30)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(sorted(entry())), json_values, max_size=3).map(
        lambda v: encode_entry({**entry(), **v})
    )
    | st.builds(lambda number: encode_entry(entry(number)), st.integers(0, 50)),
    max_size=6,
)


@given(lines)
def test_both_readers_agree_on_any_content(tmp_path_factory: pytest.TempPathFactory, content: list[bytes]) -> None:
    path = str(tmp_path_factory.getbasetemp() / "any.jsonl")
    Path(path).write_bytes(b"\n".join(content))
    slow = [accounts.line_of(found) if isinstance(found, dict) else str(found) for found in read_ledger(path)]
    fast = [found if isinstance(found, tuple) else str(found) for found in scanned(path)]
    assert fast == slow


def test_what_the_runner_writes_is_read_without_decoding_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a query of 100,000 lines takes five times as long, and nothing but a clock would show it."""
    start, end = Moment(1.7e9, 5.0, "b"), Moment(1.7e9 + 60, 65.0, "b")
    file = TakenFile("/srv/aufnahmen/Süd/CAM3_20260131T120000Z.mp4", "final", "h264", 25.0, start)
    file.ffmpeg_version = "Lavf61.7.103"
    verdict = FileEnd(file.path, "cut off: FFmpeg was killed", "killed", missing=100, dropped=3)
    gap, stop = Interval("gap", "disk full, then power", start, None), Interval("stop", "operator", start, "t-1")
    gap.end = stop.end = end
    written = [
        *file_entries(3, file, verdict, 1400, 10**10, start, end),
        *interval_entries(3, gap),
        *interval_entries(12, stop),
        clock_entry(3, start, end, -3600.0),
    ]
    assert [entry["kind"] for entry in written] == ["file", "gap", "gap", "stop", "clock"]
    append_entries(path, written)
    expected = [accounts.line_of(entry) for entry in read_ledger(path) if isinstance(entry, dict)]
    monkeypatch.delattr(accounts, "decode_chunk")
    assert scanned(path) == expected


def test_memory_is_that_of_a_few_lines(path: str) -> None:
    """100,000 lines, a foreign one of 8 MB among them, within a few MB: measured by a process of its own."""
    with open(path, "wb") as file:
        for number in range(1000):
            file.write(b"".join(encode_entry(entry(number)) for _ in range(100)))
        file.write(b"x" * (8 << 20) + b"\n")
        file.write(encode_entry(entry(7)))
    program = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from sdisup.ledger.lines import read_ledger\n"
        # Not ru_maxrss: that of a process that was just forked is its parent's.
        "def peak(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM'))\n"
        "before = peak()\n"
        "count = sum(isinstance(found, dict) for found in read_ledger(sys.argv[2]))\n"
        "print(count, peak() - before)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", program, str(Path(ledger.__file__).parent.parent.parent), path]
    count, grown_kib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(count) == 100_001
    assert int(grown_kib) < 8 << 10


@pytest.mark.parametrize("after", [b"", b'{"v":1,"kind":"ga', b"x\n\xff\n\n", b'{"v":9,"kind":"gap"}\n'])
def test_the_last_entry(path: str, after: bytes) -> None:
    assert last_entry(path) is None
    append_entries(path, [entry(1), entry(2)])
    with open(path, "ab") as file:
        file.write(after)
    assert last_entry(path) == entry(2)
    with open(path, "ab") as file:
        file.write(b"x" * LINE_LIMIT_BYTES)
    assert last_entry(path) is None


def test_the_last_entry_of_no_file(path: str) -> None:
    os.mkdir(path)
    assert last_entry(path) is None


def test_places() -> None:
    assert former_path(3) == "/run/sdisup/3.ledger.json"
    assert ledger_path(3) == "/var/lib/sdisup/ledger/3.jsonl"
    assert open_path(3) == "/var/lib/sdisup/ledger/3.open.json"
