"""The linters, each as a test: what they find fails the run like anything else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHELLS = (b"sh", b"bash", b"dash")


def check(*command: str) -> None:
    """Run a linter over the repository; what it says is the test's failure."""
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command[:4])}\n{done.stdout}{done.stderr}", pytrace=False)


def program(name: str) -> str:
    """Where a linter is: beside this Python, or on PATH."""
    found = shutil.which(name, path=f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', '')}")
    assert found, f"{name} is not installed"
    return found


def shell_scripts() -> list[str]:
    """Every file that a shell runs, by its first line; caches and .git are no part of the repository."""
    found = []
    for directory, directories, files in os.walk(REPOSITORY):
        directories[:] = [name for name in directories if not name.startswith(".") or name == ".ci"]
        for name in files:
            path = Path(directory, name)
            if path.is_symlink() or not path.is_file():
                continue
            with open(path, "rb") as file:
                first = file.readline(200)
            words = os.path.basename(first[2:].strip()).split() if first.startswith(b"#!") else []
            if words and (words[0] in SHELLS or words[-1] in SHELLS):
                found.append(str(path.relative_to(REPOSITORY)))
    return sorted(found)


def test_ruff_check() -> None:
    check(sys.executable, "-m", "ruff", "check", "--no-fix", ".")


def test_ruff_format() -> None:
    check(sys.executable, "-m", "ruff", "format", "--check", "--diff", ".")


def test_mypy() -> None:
    check(sys.executable, "-m", "mypy")


def test_shellcheck() -> None:
    scripts = shell_scripts()
    assert {"install.sh", "tests/run", ".ci/run"} <= set(scripts)
    check(program("shellcheck"), *scripts)
