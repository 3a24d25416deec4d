"""Who ends the runner: real signals of real processes. test_runner.py plays what the runner makes of them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdisup

PROGRAM = """
import signal, sys, os
sys.path.insert(0, sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
print("blocked", flush=True)
sys.stdin.readline()
from sdisup.runner import signals
if sys.argv[2] == "without a thread":
    def refuse(*_): raise RuntimeError("can't start new thread")
    signals._thread.start_new_thread = refuse
reader, writer = os.pipe()
come = signals.Signals(lambda: os.write(writer, b"."))
print("asked", flush=True)
while True:
    if sys.argv[2] == "woken":
        os.read(reader, 1)
    for came in come.take():
        print(came.si_signo, came.si_pid, signals.text_of(came), flush=True)
"""


class Process:
    """A process with Signals; `says` gives its next line."""

    def __init__(self, mode: str) -> None:
        place = str(Path(sdisup.__file__).resolve().parent.parent)
        command = [sys.executable, "-I", "-S", "-c", PROGRAM, place, mode]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def says(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 20)[0], "it says nothing"
        return self.process.stdout.readline().decode().rstrip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")


@pytest.fixture(params=["woken", "looking", "without a thread"])
def process(request: pytest.FixtureRequest) -> Iterator[Process]:
    found = Process(request.param)
    yield found
    found.process.kill()
    found.process.communicate()


def test_each_signal_is_found_with_its_sender_also_what_came_before_it_was_asked(process: Process) -> None:
    assert process.says() == "blocked"
    process.process.send_signal(signal.SIGTERM)
    process.go_on()
    assert process.says() == "asked"
    by = f"by process {os.getpid()} ("
    found = process.says()
    assert found.startswith(f"15 {os.getpid()} terminated from outside: SIGTERM {by}"), found
    assert found.endswith(f") of user {os.getuid()}"), found
    process.process.send_signal(signal.SIGINT)
    found = process.says()
    assert found.startswith(f"2 {os.getpid()} terminated from outside: SIGINT {by}"), found
    assert process.process.poll() is None


def test_the_runner_blocks_both_before_it_loads_anything(tmp_path: Path) -> None:
    """Between that and the first look of the runner a stop would kill it, and be no stop for the ledger."""
    trap = tmp_path / "trap.py"
    trap.write_text(
        "import signal, sys\n"
        "class Trap:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.startswith('sdisup.'):\n"
        "            mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "            print(name, {signal.SIGTERM, signal.SIGINT} <= mask, flush=True)\n"
        "            sys.exit(0)\n"
        "import sdisup.__main__\n"
        "sys.meta_path.insert(0, Trap())\n"
        "sys.argv[1:] = ['run']\n"
        "sdisup.__main__.main()\n"
    )
    place = {"PYTHONPATH": str(Path(sdisup.__file__).resolve().parent.parent)}
    found = subprocess.run([sys.executable, str(trap)], env=place, capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == "True", found
