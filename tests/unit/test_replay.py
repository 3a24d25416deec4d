"""What a fault looks like to a runner, recorded from a real FFmpeg, and what the runner makes of it.

recordings/NAME-VERSION.txt is what FFmpeg and its file told; the .expected file beside it is what the runner decides,
by a scripted clock. `tests/record.py FFMPEG NAME` records anew; `tests/record.py --expect` only replays anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from record import CASES
from replay import RECORDINGS, is_same, replayed

PATHS = sorted(RECORDINGS.glob("*.txt"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recorded_fault_leads_to_what_stands_beside_it(path: Path) -> None:
    assert replayed(path) == path.with_suffix(".expected").read_text()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_however_stderr_is_cut_the_decisions_are_the_same(path: Path) -> None:
    assert is_same(path.with_suffix(".expected").read_text(), replayed(path, piece_bytes=61))


def test_each_kind_of_fault_is_recorded() -> None:
    assert {path.stem.rpartition("-")[0] for path in PATHS} == set(CASES)
    assert {path.stem for path in RECORDINGS.glob("*.expected")} == {path.stem for path in PATHS}
