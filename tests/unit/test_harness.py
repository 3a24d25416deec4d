"""The tests' own harness (tests/conftest.py): a pytest of its own runs small tests under it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from appliance import CHECKOUT

HANGING = """
import threading, time
import pytest
from hypothesis import given, settings, strategies

pytestmark = pytest.mark.limit(0.5)

@pytest.fixture
def tidy():
    yield
    print("tidied up")

@pytest.fixture
def never_ready():
    threading.Event().wait()

@pytest.fixture
def never_gone():
    yield
    time.sleep(1000)

def test_one(tidy):
    try:
        time.sleep(1000)
    except Exception:
        pass

@settings(deadline=None, max_examples=5)
@given(strategies.integers())
def test_two(number):
    threading.Event().wait()

def test_three(never_ready): pass
def test_four(tidy, never_gone): pass
def test_five(): pass
"""
SENDS_SIGINT = """
import signal, subprocess

def test_a_child_hears_sigint():
    with subprocess.Popen(["sleep", "1000"]) as child:
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait(20) == -signal.SIGINT
        finally:
            child.kill()
"""


def run_pytest(tmp_path: Path, text: str, *options: str, ignored: bool = False) -> tuple[int, str]:
    """Run tests of that text under the harness; the exit code and what pytest said."""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {CHECKOUT}/tests\nmarkers =\n limit: x\n")
    (tmp_path / "test_inner.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", *options, str(tmp_path)]
    trap = "trap '' INT HUP QUIT; " if ignored else ""
    done = subprocess.run(
        ["sh", "-c", f'{trap}exec "$@"', "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{CHECKOUT}/tests:{CHECKOUT}"},
    )
    return done.returncode, done.stdout + done.stderr


def test_a_test_that_hangs_fails_by_name_and_the_others_run(tmp_path: Path) -> None:
    code, said = run_pytest(tmp_path, HANGING, "-rA")
    assert code == 1
    for name, phase in (("one", "call"), ("two", "call"), ("three", "setup"), ("four", "teardown")):
        assert f"test_inner.py::test_{name} hangs: its {phase} was not over after 0.5 s" in said
    assert "2 failed, 2 passed, 2 errors" in said
    assert "PASSED test_inner.py::test_five" in said
    assert said.count("tidied up") == 2
    # Where it was, of each thread.
    assert "time.sleep(1000)" in said
    assert 'test_inner.py", line' in said


@pytest.mark.parametrize("ignored", [True, False])
def test_sigint_reaches_what_tests_start_even_where_it_was_ignored(tmp_path: Path, ignored: bool) -> None:
    code, said = run_pytest(tmp_path, SENDS_SIGINT, ignored=ignored)
    assert code == 0, said


def test_the_slowest_are_listed_of_a_run_that_took_long(tmp_path: Path) -> None:
    text = "def test_it(): pass\n"
    assert "slowest 10" not in run_pytest(tmp_path, text)[1]
    code, said = run_pytest(tmp_path, f"import conftest\nconftest.LONG_RUN_S = 0\n{text}")
    assert code == 0
    assert "longer than 0 s" in said and "slowest 10 durations" in said, said
