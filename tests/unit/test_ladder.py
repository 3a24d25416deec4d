"""Ending FFmpeg: the steps as pure time, and the process that they are taken on, with small stand-ins."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdisup
from sdisup.runner.ffmpeg import Arrivals, FFmpegProcess, Ladder

DEADLINE_S = 60.0
Spawn = Callable[..., FFmpegProcess]


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def python(program: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", program]


def open_descriptors() -> set[str]:
    """This process's descriptors, without the one that reads their list."""
    return {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


def read_until(process: FFmpegProcess, end: bytes | None = None) -> bytes:
    """What it says on stderr up to `end`, or up to the end of stderr."""
    said = b""
    poll = select.poll()
    poll.register(process.stderr, select.POLLIN)
    limit = time.monotonic() + DEADLINE_S
    while end is None or end not in said:
        assert poll.poll(max(0.0, limit - time.monotonic()) * 1000), f"nothing more after {said!r}"
        data = process.read()
        if data == b"":
            break
        said += data or b""
    return said


def wait_end(process: FFmpegProcess) -> int:
    poll = select.poll()
    poll.register(process.pidfd, select.POLLIN)
    assert poll.poll(DEADLINE_S * 1000), "it does not end"
    status = process.reap()
    assert status is not None
    return status


def signal_mask(process: FFmpegProcess, name: bytes) -> int:
    """One of the masks in the /proc/PID/status that the stand-in prints (proc(5))."""
    (line,) = [line for line in read_until(process).splitlines() if line.startswith(name)]
    return int(line.split()[1], 16)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Spawns stand-ins; whatever a failed test leaves running is killed."""
    spawned: list[FFmpegProcess] = []
    output = os.open(os.devnull, os.O_RDWR)

    def make(arguments: list[str]) -> FFmpegProcess:
        spawned.append(FFmpegProcess(arguments, output))
        return spawned[-1]

    yield make
    for process in spawned:
        try:
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
            wait_end(process)
        except (ProcessLookupError, ChildProcessError):
            pass  # The test has reaped it.
        process.close()
    os.close(output)


# ---- The ladder ----


def test_each_step_comes_once_and_in_its_time() -> None:
    ladder = Ladder(100.0, 3.0, 2.0)
    assert ladder.next_at() == 100.0
    assert [ladder.due(100.0), ladder.due(100.0), ladder.due(102.9)] == ["quit", "", ""]
    assert ladder.next_at() == 103.0
    assert [ladder.due(103.0), ladder.due(104.9)] == ["term", ""]
    assert ladder.next_at() == 105.0
    assert [ladder.due(105.0), ladder.due(1e9)] == ["kill", ""]
    assert ladder.next_at() is None


def test_a_ladder_without_a_q_begins_where_the_q_would_be_over() -> None:
    ladder = Ladder(100.0, 3.0, 2.0, quits=False)
    assert (ladder.due(102.9), ladder.is_at_rest, ladder.next_at()) == ("", True, 103.0)
    assert (ladder.due(103.0), ladder.is_at_rest, ladder.next_at()) == ("term", False, 105.0)


def test_nothing_is_due_before_its_time() -> None:
    assert Ladder(100.0, 3.0, 2.0).due(99.9) == ""


@given(
    quit_s=st.floats(0, 1000),
    term_s=st.floats(0, 1000),
    times=st.lists(st.floats(0, 3000), max_size=30),
)
def test_any_clock_sees_the_steps_in_order_and_never_early(quit_s: float, term_s: float, times: list[float]) -> None:
    ladder = Ladder(0.0, quit_s, term_s)
    due_at = {"quit": 0.0, "term": quit_s, "kill": quit_s + term_s}
    taken = []
    for now in [*sorted(times), 4000.0, 4000.0, 4000.0]:
        step = ladder.due(now)
        if step:
            assert now >= due_at[step]
            taken.append(step)
    assert taken == ["quit", "term", "kill"]


# ---- The process ----


def test_q_is_written_on_its_stdin(spawn: Spawn) -> None:
    process = spawn(sh('key=$(head -c 1); echo "got $key" >&2; exit 7'))
    assert process.reap() is None
    process.step("quit")
    assert read_until(process) == b"got q\n"
    assert wait_end(process) == 7


def test_stdin_stays_open_until_it_is_closed(spawn: Spawn) -> None:
    process = spawn(sh("head -c 1 >/dev/null; echo once >&2; head -c 1 >/dev/null; echo twice >&2"))
    process.step("quit")
    assert read_until(process, b"once\n") == b"once\n"
    process.step("quit")
    assert read_until(process) == b"twice\n"


def test_nothing_to_read_just_now_is_none_and_the_end_is_empty(spawn: Spawn) -> None:
    process = spawn(sh("head -c 1 >/dev/null"))
    assert process.read() is None
    process.step("quit")
    assert read_until(process) == b""
    assert process.read() == b""


def test_stderr_may_end_before_the_process(spawn: Spawn) -> None:
    process = spawn(sh("exec 2>&-; head -c 1 >/dev/null; exit 3"))
    assert read_until(process) == b""
    assert process.reap() is None
    process.step("quit")
    assert wait_end(process) == 3


def test_sigterm_and_sigkill_reach_it(spawn: Spawn) -> None:
    process = spawn(sh("trap 'echo term >&2' TERM; echo ready >&2; while :; do sleep 0.01; done"))
    read_until(process, b"ready\n")
    process.step("term")
    read_until(process, b"term\n")
    assert process.reap() is None
    process.step("kill")
    assert wait_end(process) == -signal.SIGKILL


def test_sigterm_ends_what_does_not_catch_it(spawn: Spawn) -> None:
    process = spawn(sh("exec head -c 1"))
    process.step("term")
    assert wait_end(process) == -signal.SIGTERM


@pytest.mark.parametrize("action", ["quit", "term", "kill"])
def test_a_step_on_one_that_is_gone_is_no_error(spawn: Spawn, action: str) -> None:
    """FFmpeg may end by itself between two turns of the loop, before it is reaped."""
    process = spawn(sh("exit 0"))
    poll = select.poll()
    poll.register(process.pidfd, select.POLLIN)
    assert poll.poll(DEADLINE_S * 1000)
    process.step(action)
    assert process.reap() == 0


def test_q_to_one_that_does_not_read_never_blocks(spawn: Spawn) -> None:
    process = spawn(sh("echo ready >&2; trap '' TERM; while :; do sleep 0.01; done"))
    read_until(process, b"ready\n")
    for _ in range(70_000):  # More than a pipe holds.
        process.step("quit")
    assert process.reap() is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/nonexistent/ffmpeg"], FileNotFoundError),
        (["sdisup-no-such-program"], FileNotFoundError),
        (["/etc/passwd"], PermissionError),
        (["/"], PermissionError),
        (["/bin/sh", "x" * (1 << 20)], OSError),  # One argument may have 128 KiB, execve(2).
    ],
)
def test_what_cannot_be_executed_is_an_oserror_and_leaks_nothing(arguments: list[str], expected: type[OSError]) -> None:
    before = open_descriptors()
    for _ in range(5):
        with pytest.raises(expected):
            FFmpegProcess(arguments, 2)
    assert open_descriptors() == before


def test_a_full_life_leaks_nothing() -> None:
    before = open_descriptors()
    for _ in range(5):
        process = FFmpegProcess(sh("exit 0"), 2)
        read_until(process)
        assert wait_end(process) == 0
        process.close()
    assert open_descriptors() == before


def test_it_has_the_five_descriptors_and_no_other(spawn: Spawn) -> None:
    """An inherited pipe would keep others from seeing its end, an inherited lock outlive the runner."""
    held = [*os.pipe(), os.open("/dev/null", os.O_RDONLY)]
    program = """
import os, sys
found = []
for number in range(4096):
    try:
        os.fstat(number)
    except OSError:
        continue
    found.append(number)
kinds = [os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in found[:5]]
print(*kinds, *found, file=sys.stderr)
"""
    # What pytest itself was given by its parent goes through; under systemd there is nothing of that kind.
    given = [number for number in map(int, open_descriptors()) if number > 4 and os.get_inheritable(number)]
    try:
        process = spawn(python(program))
        words = ["pipe", "/dev/null", "pipe", "/dev/null", "socket", 0, 1, 2, 3, 4, *sorted(given)]
        assert read_until(process).decode().split() == [str(word) for word in words]
    finally:
        for descriptor in held:
            os.close(descriptor)


def test_its_output_is_the_file_itself_whatever_its_name_leads_to(tmp_path: Path) -> None:
    """Also where the runner has something else under that number, or the file itself. In a process of its own, since
    pytest has descriptors of its own."""
    program = f"""
import os, select, sys
sys.path.insert(0, {str(Path(sdisup.__file__).parents[1])!r})
from sdisup.runner.ffmpeg import OUTPUT_DESCRIPTOR, OUTPUT_NAME, FFmpegProcess
os.chdir({str(tmp_path)!r})
os.closerange(OUTPUT_DESCRIPTOR, 99)
for name, number in (("same", 3), ("other", 0), ("next", 4)):
    made = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    if number:
        os.dup2(made, number)
        made = number
    os.rename(name, f"moved-{{name}}")
    os.symlink("/dev/full", name)
    process = FFmpegProcess(["/bin/sh", "-c", f"echo recorded >{{OUTPUT_NAME}}; echo counted >&4"], made)
    select.select([process.pidfd], [], [], 60)
    assert process.reap() == 0
    assert [block for _, block in process.blocks()[0]] == [b"counted\\n"]
    if number:
        os.close(number)
    process.close()
"""
    subprocess.run(python(program), check=True)
    assert [(tmp_path / f"moved-{name}").read_text() for name in ("same", "other", "next")] == ["recorded\n"] * 3


SAYS_TWICE = """
import os, time
for block in (b"frame=1", b"frame=2"):
    os.write(4, block)
    os.write(2, str(time.monotonic()).encode() + b" ")
    time.sleep(0.1)
"""


def test_of_its_blocks_it_is_known_when_each_came_however_late_they_are_read(spawn: Spawn) -> None:
    """And the poll that is told of none of them is told of their end (poll(2), POLLHUP)."""
    process = spawn(python(SAYS_TWICE))
    poll = select.poll()
    poll.register(process.progress, 0)
    assert poll.poll(DEADLINE_S * 1000) == [(process.progress, select.POLLHUP)]
    blocks, is_open = process.blocks()
    now = time.monotonic()
    assert ([block for _, block in blocks], is_open) == ([b"frame=1", b"frame=2"], False)
    said_at = [float(word) for word in read_until(process).split()]
    for (age_s, _), at in zip(blocks, said_at, strict=True):
        # It is said after it was counted; and the age is that of a moment before `now`.
        assert -0.2 < now - age_s - at < 0.02
    assert 0.1 <= blocks[0][0] - blocks[1][0] < said_at[1] - said_at[0] + 0.1
    assert process.blocks() == ([], False)


def test_it_is_seen_when_its_log_may_fill_the_pipe(spawn: Spawn) -> None:
    process = spawn(sh("head -c 20000 /dev/zero >&2; echo done >&4; cat >/dev/null"))
    assert select.select([process.progress], [], [], DEADLINE_S)[0]
    assert process.is_pressing()
    while process.read():
        continue
    assert not process.is_pressing()


def test_a_command_line_has_its_blocks_apart(spawn: Spawn) -> None:
    words = ["-progress", "pipe:2", "-i", "pipe:2", "-progress", "x"]
    said = read_until(spawn([*sh('printf "%s\\n" "$@" >&2'), "sh", *words])).decode()
    assert said.split() == ["-progress", "pipe:4", *words[2:]]


@given(st.lists(st.floats(0, 1), max_size=5), st.floats(-1e6, 1e6), st.floats(0, 1))
def test_a_moved_clock_makes_no_block_older_or_newer_than_it_can_be(
    moments: list[float], step_s: float, stepped_at: float
) -> None:
    """Blocks come between 0 and 1 by the clock that nobody moves. The wall clock is moved meanwhile."""
    moments.sort()
    stamps = [at + 1000.0 + (step_s if at >= stepped_at else 0.0) for at in moments]
    ages = Arrivals(0.0, 1000.0).ages(stamps, 1.0, 1001.0 + step_s)
    found = [1.0 - age for age in ages]
    assert found == sorted(found)
    assert all(0 <= at <= 1 for at in found)
    if abs(step_s) > 1:
        assert found == pytest.approx(moments, abs=1e-6)
    elif not step_s:
        assert found == pytest.approx(moments)


def test_what_came_before_a_suspension_is_not_older_than_what_came_before_it() -> None:
    arrivals = Arrivals(0.0, 1000.0)
    assert arrivals.ages([1000.5], 1.0, 1001.0) == [pytest.approx(0.5)]
    # Eight hours asleep, by the wall clock alone.
    assert arrivals.ages([1001.2, 1000.0 + 8 * 3600 + 1.5], 2.0, 1000.0 + 8 * 3600 + 2.0) == [
        pytest.approx(0.8),
        pytest.approx(0.5),
    ]


def test_stdin_can_be_read_and_the_others_written(spawn: Spawn) -> None:
    program = """
import fcntl, os, sys
modes = [fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE for number in range(3)]
blocking = [os.get_blocking(number) for number in range(3)]
print(modes == [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY], blocking, file=sys.stderr)
"""
    assert read_until(spawn(python(program))) == b"True [True, True, True]\n"


def test_no_signal_is_ignored_or_blocked_that_python_or_the_runner_does(spawn: Spawn) -> None:
    """Python ignores SIGPIPE; FFmpeg that does so too goes on writing for a reader that has gone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    try:
        # A shell would unblock all by itself, and a Python ignore SIGPIPE.
        blocked = spawn(python("import sys; sys.stderr.write(open('/proc/self/status').read())"))
        ignored = spawn(sh("cat /proc/self/status >&2"))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])
    assert signal_mask(blocked, b"SigBlk:") == 0
    assert signal_mask(ignored, b"SigIgn:") & (1 << (signal.SIGPIPE - 1)) == 0


def test_its_arguments_are_what_was_given(spawn: Spawn) -> None:
    words = ["a b", "$HOME", "'", '"', "", "%", "ü", "\n", "{output}"]
    process = spawn([*python("import sys; print(ascii(sys.argv[1:]), file=sys.stderr)"), *words])
    assert read_until(process).decode() == ascii(words) + "\n"


def test_a_file_at_its_limit_is_an_error_and_no_death(spawn: Spawn) -> None:
    """FFmpeg that SIGXFSZ kills cannot finish its file; Python ignores that signal, and its child does so too."""
    process = spawn(sh("cat /proc/self/status >&2"))
    assert signal_mask(process, b"SigIgn:") & (1 << (signal.SIGXFSZ - 1))


def test_a_stamp_by_another_clock_tells_nothing() -> None:
    """What is read came by now: or else each picture would count as the first one's moment, and stall the port."""
    arrivals = Arrivals(100.0, 1000.0)
    assert arrivals.ages([1000.0 + 0.5 - 40], 101.0, 1001.0) == [0.0]
    assert arrivals.ages([1001.5 - 40], 102.0, 1002.0) == [0.0]
    assert arrivals.ages([1002.25], 103.0, 1003.0) == pytest.approx([0.75])
