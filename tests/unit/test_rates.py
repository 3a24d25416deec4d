"""A source whose rate is not what the port states, with a real FFmpeg and a real runner: one remark, counted.

SDISUP_TEST_FFMPEG=/opt/ffmpeg-7.1/bin/ffmpeg tests/run --slow tests/unit/test_rates.py
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from record import Stage
from test_hold_back import FFMPEGS

from sdisup.contract.status import read_status

pytestmark = [pytest.mark.slow, pytest.mark.limit(120)]

SECONDS = 16
CASES = [
    (30, 25, "the source delivers 29.97 fps; 25 are recorded"),
    (21, 25, "the source delivers 21.0 of 25 fps"),
    (50, 25, "the source delivers 50 fps; 25 are recorded"),
    (25, 50, "the source delivers 25.0 of 50 fps"),
]


def encoded(path: Path, rate: int) -> list[str]:
    """A file in real time, again and again, which is copied."""
    graph = f"testsrc2=size=160x90:rate={rate}"
    made = [
        "-f",
        "lavfi",
        "-i",
        graph,
        "-t",
        "40",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        str(rate),
        str(path),
    ]
    subprocess.run(["ffmpeg", "-v", "error", *made], check=True, timeout=100)
    return ["-re", "-i", str(path)]


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize("codec", ["h264", "copy"])
@pytest.mark.parametrize(("delivered", "stated", "said"), CASES)
def test_a_rate_that_is_not_the_stated_one(
    delivered: int, stated: int, said: str, codec: str, ffmpeg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDISUP_STANDIN_FFMPEG", ffmpeg)
    stage = Stage(ffmpeg, tmp_path)
    graph = f"testsrc2=size=160x90:rate={delivered},realtime"
    given = encoded(tmp_path / "a.mkv", delivered) if codec == "copy" else ["-f", "lavfi", "-i", graph]
    source = {"kind": "custom", "input": given, "rate": stated, "audio": False}
    seen: list[Any] = []

    def act(stage: Stage) -> None:
        stage.records(SECONDS)
        seen.append(read_status(0, str(tmp_path / "run")))
        stage.stop()

    options = stage.options(source, codec=codec)
    stage.run(options, act)
    spooled = (tmp_path / "run/ports/0/spool").read_bytes().rstrip(b"\0").splitlines()
    events = [json.loads(line) for line in spooled]
    closed = next(event for event in events if event.get("kind") == "closed")
    (status,) = seen
    assert status.state == "recording"
    if codec == "copy" and delivered > stated:
        # What is late may come all at once: it is judged by a minute.
        assert (status.reason, closed["missing"]) == ("", 0)
        return
    assert status.reason == said
    assert status.is_losing
    if delivered < stated:
        lost = SECONDS * (stated - delivered)
        counted = closed["missing"] if codec == "copy" else closed["repeated"]
        assert counted == pytest.approx(lost, rel=0.3)
        assert closed["repeated_cause"] == "source loses frames"
    else:
        assert closed["dropped"] == pytest.approx(SECONDS * (delivered - stated), rel=0.3)
