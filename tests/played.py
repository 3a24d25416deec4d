"""What tests share: a runner in a played world, what it says and tells, and a machine's time zone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import OPTIONS, World

from sdisup.contract.options import Options
from sdisup.runner import report


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the runner says in the journal."""
    lines: list[str] = []
    monkeypatch.setattr(report.Journal, "_write", lambda _self, line: lines.append(line.decode().rstrip()))
    # The journal's descriptor is pytest's here; a real FFmpeg's log, which some tests have, must not be waited for.
    real = os.set_blocking
    monkeypatch.setattr(os, "set_blocking", lambda number, is_blocking: number == 2 or real(number, is_blocking))
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)
    yield lines


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a runner in a world to its end; returns its exit code. The run directory lives through restarts."""
    (tmp_path / "port-3").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "port-3"))

    def play(world: World, options: Options = OPTIONS, signals: Any = None) -> int:
        return world.start(options.replaced(run_directory=str(tmp_path)), signals).run()

    return play


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """The events that are in the spool."""

    def events() -> list[dict[str, Any]]:
        text = (tmp_path / "ports/3/spool").read_bytes().rstrip(b"\0")
        return [json.loads(line) for line in text.splitlines()]

    return events


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is not UTC, with summer time."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
