"""The stop of a file that was written for a day: a real FFmpeg copies tiny pictures as fast as it can, without -re.

A stand-in for the slow disk are limits that are far too short: without patience FFmpeg is killed at the end.

    SDISUP_TEST_FFMPEG=/opt/ffmpeg-7.1/bin/ffmpeg tests/run --slow tests/unit/test_large_files.py -s
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from scripted import OPTIONS
from test_hold_back import FFMPEGS

from sdisup.contract.pictures import count_pictures
from sdisup.contract.status import read_status
from sdisup.encode.probe import probe_ffmpeg
from sdisup.runner import attempt as attempt_module
from sdisup.runner import report
from sdisup.runner.begin import Beginning
from sdisup.runner.main import Runner

pytestmark = [pytest.mark.slow, pytest.mark.limit(300)]

FRAMES = int(os.environ.get("SDISUP_FRAMES", "2000000"))


def loop(path: Path) -> None:
    source = "testsrc2=size=64x36:rate=50[out0];sine=sample_rate=48000[out1]"
    encoded = "-t 20 -c:v libx264 -preset ultrafast -tune zerolatency -g 50 -crf 45 -c:a aac -b:a 32k".split()
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, *encoded, str(path)], check=True, timeout=100)


@pytest.mark.parametrize("is_patient", [True, False])
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_the_stop_of_millions_of_frames(
    ffmpeg: str, is_patient: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, recordings, run = tmp_path / "loop.mkv", tmp_path / "recordings", tmp_path / "run"
    for directory in (recordings, run / "port-3"):
        directory.mkdir(parents=True)
    loop(source)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(run / "port-3"))
    is_hybrid = probe_ffmpeg(ffmpeg).hybrid_fragmented
    if not is_patient and not is_hybrid:
        pytest.skip("it has next to nothing to do at the end of a fragmented file")
    monkeypatch.setattr(attempt_module, "EFFORT_S", 0.05)
    if not is_patient:
        monkeypatch.setattr(attempt_module, "PATIENCE_AT_MOST_S", 0.0)
    flags = "+hybrid_fragmented" if is_hybrid else "+empty_moov+default_base_moof"
    muxer = ["-movflags", flags, "-frag_duration", "100000"]
    command = [
        *(ffmpeg, "-hide_banner", "-loglevel", "repeat+level+info", "-nostats", "-progress", "pipe:2"),
        *("-stats_period", "0.25", "-y", "-stream_loop", "-1", "-i", str(source), "-map", "0:v:0", "-map", "0:a:0"),
        *("-c:v", "copy", "-c:a", "copy", *muxer, "-flush_packets", "1", "-f", "mp4", "{output}"),
    ]
    options = OPTIONS.replaced(
        command=command, container="mp4", recordings=str(recordings), run_directory=str(run), rate=0.0,
        stop_quit_s=0.1, stop_term_s=0.1, start_timeout_s=0.0, stall_timeout_s=100.0,
    )  # fmt: skip
    beginning = Beginning(options)
    runner = Runner(beginning)
    began: list[float] = []

    def act() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            status = read_status(3, str(run))
            if status is not None and status.frame_count >= FRAMES:
                break
            time.sleep(0.1)
        began.append(time.monotonic())
        runner.stop()
        beginning.wake()

    said: list[str] = []
    actor = threading.Thread(target=act, daemon=True)
    with mock.patch.object(report.Journal, "_write", lambda _, *words: said.append(str(words))):
        actor.start()
        runner.run()
    took_s = time.monotonic() - began[0]
    actor.join(5)
    (file,) = recordings.iterdir()
    closed = next(text for text in said if "closed " in text)
    print(f"\n{ffmpeg} patient={is_patient}: {took_s:.1f} s, {closed}")
    assert ("complete" in closed) == is_patient
    if is_patient:
        found = count_pictures(str(file), "mp4")
        assert found is not None
        assert found.count >= FRAMES
