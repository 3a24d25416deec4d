"""The runner's log lines: their form, their limit, and a journal that does not read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.runner.report import BURST_LINES, LINES_PER_S, TEXT_LIMIT, Journal, shell_text

PAGE_BYTES = 4096


class Pipe:
    """A journal that writes into a pipe of one page, and the end that reads it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PAGE_BYTES)
        os.set_blocking(self.reading, False)
        self.journal = Journal(self.writing)

    def read(self) -> bytes:
        said = b""
        while True:
            try:
                data = os.read(self.reading, 1 << 16)
            except BlockingIOError:
                return said
            if not data:
                return said
            said += data

    def fill(self) -> int:
        """Leave no room at all; returns how many bytes stand before what the journal writes next."""
        written = 0
        while True:
            try:
                written += os.write(self.writing, b"x")
            except BlockingIOError:
                return written

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


# ---- Form ----


@pytest.mark.parametrize("priority", range(8))
def test_a_line_begins_with_its_priority(pipe: Pipe, priority: int) -> None:
    pipe.journal.say(priority, "port 3 (CAM3): stopping")
    assert pipe.read() == f"<{priority}>port 3 (CAM3): stopping\n".encode()


def test_ffmpegs_lines_are_marked(pipe: Pipe) -> None:
    pipe.journal.forward(0.0, 3, "Unknown encoder 'x'")
    assert pipe.read() == b"<3>ffmpeg: Unknown encoder 'x'\n"


@given(st.text(st.characters(), max_size=60))
def test_any_text_is_one_line_with_one_priority(text: str) -> None:
    """A line end in a path would begin a line of another priority, and of whatever text."""
    made = Pipe()
    try:
        made.journal.say(4, text)
        said = made.read()
    finally:
        made.close()
    assert said.startswith(b"<4>") and said.endswith(b"\n") and said.count(b"\n") == 1
    said.decode("utf-8")


def test_a_long_text_is_cut(pipe: Pipe) -> None:
    pipe.journal.say(4, "x" * 100_000)
    assert pipe.read() == b"<4>" + b"x" * TEXT_LIMIT + b"\n"


# ---- Limit ----


def lines_forwarded(pipe: Pipe, times: list[float]) -> list[bytes]:
    said = b""
    for number, now in enumerate(times):
        pipe.journal.forward(now, 6, str(number))
        said += pipe.read()
    return said.splitlines()


def test_a_burst_goes_through_and_a_flood_does_not(pipe: Pipe) -> None:
    lines = lines_forwarded(pipe, [1000.0] * 10_000)
    assert lines == [f"<6>ffmpeg: {number}".encode() for number in range(BURST_LINES)]


def test_what_was_left_out_is_counted_when_there_is_room(pipe: Pipe) -> None:
    lines_forwarded(pipe, [1000.0] * (BURST_LINES + 7))
    lines = lines_forwarded(pipe, [1000.0 + 1 / LINES_PER_S])
    assert lines == [b"<4>7 lines of FFmpeg's log were left out (more than 2/s)", b"<6>ffmpeg: 0"]
    assert lines_forwarded(pipe, [1001.0 + 1 / LINES_PER_S]) == [b"<6>ffmpeg: 0"]


def test_an_hours_flood_stays_within_the_rate(pipe: Pipe) -> None:
    lines = lines_forwarded(pipe, [1000.0 + number / 100 for number in range(60_000)])
    forwarded = [line for line in lines if b"ffmpeg: " in line]
    assert BURST_LINES + 600 * LINES_PER_S - 2 <= len(forwarded) <= BURST_LINES + 600 * LINES_PER_S + 2
    told = sum(int(line[3:].split()[0]) for line in lines if line.startswith(b"<4>"))
    pipe.journal.report_unsaid()
    told += sum(int(line[3:].split()[0]) for line in pipe.read().splitlines())
    assert len(forwarded) + told == 60_000


def test_the_burst_comes_back_and_no_more_of_it(pipe: Pipe) -> None:
    lines_forwarded(pipe, [1000.0] * BURST_LINES)
    assert len(lines_forwarded(pipe, [1e6] * 1000)) == BURST_LINES


def test_the_runners_own_lines_are_not_limited(pipe: Pipe) -> None:
    lines_forwarded(pipe, [1000.0] * 1000)
    for _ in range(50):
        pipe.journal.say(4, "own")
        assert pipe.read() == b"<4>own\n"


def test_nothing_left_out_is_not_reported(pipe: Pipe) -> None:
    pipe.journal.report_unsaid()
    assert pipe.read() == b""


# ---- A journal that does not read ----


def test_a_full_pipe_never_blocks(pipe: Pipe) -> None:
    pipe.fill()
    waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for number in range(10_000):
        pipe.journal.say(4, f"lost {number}")
        pipe.journal.forward(number, 4, "lost too")
    # Who waits gives the processor away, once a wait.
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - waits < 100
    assert set(pipe.read()) == {ord("x")}
    pipe.journal.say(4, "heard again")
    assert pipe.read() == b"<4>heard again\n"


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    journal = Journal(writing)
    os.close(reading)
    try:
        journal.say(3, "nobody hears this")
    finally:
        os.close(writing)


def test_a_descriptor_that_is_closed_is_no_error() -> None:
    reading, writing = os.pipe()
    journal = Journal(writing)
    os.close(reading)
    os.close(writing)
    journal.say(3, "nobody hears this")


# A write into a pipe is whole or not at all up to 4096 bytes, and may be cut short above (pipe(7)).
WIDE = "\N{GRINNING FACE}" * TEXT_LIMIT
WIDE_LINE = b"<4>" + WIDE.encode()


def test_a_torn_line_is_completed_before_the_next_begins(pipe: Pipe) -> None:
    pipe.journal.say(4, WIDE)
    said = pipe.read()
    assert len(said) == PAGE_BYTES and WIDE_LINE.startswith(said)
    for _ in range(3):
        pipe.journal.say(5, "next")
        said += pipe.read()
    assert said.split(b"\n") == [WIDE_LINE, b"<5>next", b"<5>next", b"<5>next", b""]


def test_a_reader_that_is_slower_than_the_runner_costs_no_memory(pipe: Pipe) -> None:
    said = b""
    for _ in range(500):
        pipe.journal.say(4, WIDE)
        said += pipe.read()
        assert len(pipe.journal._rest) <= len(WIDE_LINE) + 1
    pipe.journal.say(5, "end")
    said += pipe.read()
    assert set(said.split(b"\n")) <= {WIDE_LINE, b"<5>end", b""}


STEPS = st.one_of(st.tuples(st.just("say"), st.integers(1, 3000)), st.tuples(st.just("read"), st.integers(1, 9000)))


@given(st.lists(STEPS, max_size=30))
def test_however_it_is_read_only_whole_lines_are_lost(steps: list[tuple[str, int]]) -> None:
    made = Pipe()
    said = b""
    offered = {b"<6>end"}
    try:
        for step, amount in steps:
            if step == "say":
                text = WIDE[:amount] if amount % 2 else "z" * min(amount, TEXT_LIMIT)
                made.journal.say(6, text)
                offered.add(b"<6>" + text.encode())
            else:
                with contextlib.suppress(BlockingIOError):
                    said += os.read(made.reading, amount)
        for _ in range(5):
            said += made.read()
            made.journal.say(6, "end")
        said += made.read()
    finally:
        made.close()
    assert said.endswith(b"<6>end\n") and set(said.splitlines()) <= offered


@given(st.lists(st.text()))
def test_a_shell_takes_a_command_as_it_is_written(command: list[str]) -> None:
    assert shell_text(command) == shlex.join(command)


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """What listens at /run/systemd/journal/stdout."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "stdout"))
        listening.listen()
        yield listening


HEAD = b"sdi-record@3\n\n6\n1\n0\n0\n0\n"
"""As systemd writes it: sd_journal_stream_fd in src/libsystemd/sd-journal/journal-send.c."""


def test_a_journal_that_is_started_again_is_written_to_again(tmp_path: Path, journald: socket.socket) -> None:
    ours, theirs = socket.socketpair()
    journal = Journal(ours.fileno(), "sdi-record@3", str(tmp_path / "stdout"))
    with ours, theirs:
        journal.say(6, "before")
        assert theirs.recv(100) == b"<6>before\n"
        theirs.close()
        journal.say(6, "after")
        journal.say(4, "and on")
        stream, _ = journald.accept()
        with stream:
            assert stream.recv(1000) == HEAD + b"<6>after\n<4>and on\n"
        # Once more.
        journal.say(6, "again")
        stream, _ = journald.accept()
        with stream:
            assert stream.recv(1000) == HEAD + b"<6>again\n"


def test_a_journal_that_is_away_costs_its_lines_and_no_descriptor(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    journal = Journal(ours.fileno(), "sdi-record@3", str(tmp_path / "stdout"))
    with ours:
        theirs.close()
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            journal.say(6, "to nobody")
        assert len(os.listdir("/proc/self/fd")) == descriptors
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "stdout"))
            listening.listen()
            journal.say(6, "after")
            stream, _ = listening.accept()
            with stream:
                assert stream.recv(1000) == HEAD + b"<6>after\n"
