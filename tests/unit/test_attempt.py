"""What an attempt hands over for its end to be explained."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdisup.contract.options import ENDS, Options
from sdisup.runner.attempt import Attempt

LOST = "[videomaster @ 0x5581d2b0c0c0] Timeout while waiting for slot lock"


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    """One that never begins an FFmpeg: nobody takes its disk's events."""
    options = Options(
        ["/bin/false", "{output}"],
        port=0, name="CAM0", codec="h264", container="mkv", source="videomaster", input="board 0 channel 0",
        without_signal=ENDS, audio_options="", recordings=str(tmp_path), revision="r1", filesystem="", rate=25.0,
        stall_timeout_s=12.0, start_timeout_s=30.0, sync_interval_s=0.1, stop_quit_s=12.0, stop_start_quit_s=22.0,
        stop_term_s=2.0,
    )  # fmt: skip
    made = Attempt(options, str(tmp_path), 0.0, select.poll(), lambda: None, lambda *_: None)
    yield made
    made.newest.thread.finish()


@pytest.mark.parametrize(
    ("said_at", "ending_since", "ended_at", "counts"),
    [
        (110.0, None, 110.1, True),
        (110.0, None, 124.9, True),
        (110.0, None, 125.1, False),
        # The cable was pulled at 100: judged at 112, deaf to `q` for 12 s and to SIGTERM for 2, then closed.
        (110.0, 112.0, 127.0, True),
        (98.0, 112.0, 127.0, True),
        (96.0, 112.0, 127.0, False),
        (120.0, 112.0, 127.0, True),
    ],
)
def test_what_ffmpeg_said_before_it_was_to_end_explains_its_end(
    attempt: Attempt, said_at: float, ending_since: float | None, ended_at: float, counts: bool
) -> None:
    attempt._lines.append((said_at, 3, LOST))
    if ending_since is not None:
        attempt.wind_down(ending_since)
        attempt.wind_down(ending_since + 10)
    assert attempt.end(ended_at).lines == (((3, LOST),) if counts else ())
