"""A source whose rate is not what the port states, with a real FFmpeg and a real runner: one remark, counted. And rates
that are no whole number, over a day, which a port's command line records as fast as it can.

    SDISUP_TEST_FFMPEG=/opt/ffmpeg-7.1/bin/ffmpeg SDISUP_HOURS=24 tests/run --slow tests/unit/test_rates.py -s
"""

from __future__ import annotations

import json
import os
import subprocess
from array import array
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from record import Stage
from test_hold_back import FFMPEGS

from sdisup.config.settings import parse_settings
from sdisup.contract.status import read_status
from sdisup.encode.command import build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg

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


HOURS = float(os.environ.get("SDISUP_HOURS", "0.5"))
"""So much is recorded of each rate; a day takes some minutes, and 1 GB where temporary files are."""


@pytest.mark.limit(300 + 100 * HOURS)
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize("rate", ["30000/1001", "60000/1001"])
def test_each_picture_stands_where_its_number_says(rate: str, container: str, ffmpeg: str, tmp_path: Path) -> None:
    """The times of mkv are in milliseconds, those of mp4 in parts of the rate."""
    fps = Fraction(rate)
    count = int(HOURS * 3600 * fps)
    source = {"kind": "custom", "input": ["-f", "lavfi", "-i", f"testsrc2=size=64x36:rate={rate}"], "rate": rate}
    values = {"source": {**source, "audio": False}, "container": container, "segment_s": 0}
    values |= {"preset": "ultrafast", "bitrate_kbps": 100}
    port = parse_settings([("x.toml", {"appliance": {"ports": 1}, "defaults": values})]).ports[0]
    command = build_ffmpeg_arguments(port, ffmpeg, probe_ffmpeg(ffmpeg))
    file = tmp_path / f"a.{container}"
    done = subprocess.run(
        [*command[:-1], "-frames:v", str(count), str(file)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counted = [int(line.partition("=")[2]) for line in done.stderr.splitlines() if line.startswith(("dup_", "drop_"))]
    assert set(counted) == {0}
    shown = "ffprobe -v error -select_streams v:0 -show_entries packet=pts:stream=time_base -of csv=p=0".split()
    unit, times = Fraction(0), array("q")
    with subprocess.Popen([*shown, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if "/" in line:
                unit = Fraction(line.strip().strip(","))
            else:
                times.append(int(line.strip().strip(",")))
    file.unlink()
    assert unit and len(times) == count
    assert times[0] == 0
    # In whole numbers, of which there are millions.
    step_ms = 1000 / (unit.denominator * fps.numerator)
    of_time, of_number = unit.numerator * fps.numerator, fps.denominator * unit.denominator
    offs = [abs(at * of_time - number * of_number) for number, at in enumerate(times)]
    off_ms, last_off_ms = max(offs) * step_ms, offs[-1] * step_ms
    print(f"\n{ffmpeg} {container} {rate}: {count:,} pictures in units of {unit} s, the last one is off by"
          f" {last_off_ms:.3f} ms, none by more than {off_ms:.3f} ms")  # fmt: skip
    assert off_ms <= (0.5 if container == "mkv" else 0)
