"""The defects of the module that sdisup grew from (a web backend that held FFmpeg as its children): none is here.

Others of them have their tests elsewhere: progress that ends in a carriage return and a reader that dies after
64 KiB (test_progress.py, test_faults.py), an FFmpeg whose end nobody notices and that nobody restarts
(test_recording.py), a stall that nobody sees (test_recording.py), files that nobody checks (test_gaps.py).
"""

from __future__ import annotations

import pytest
from appliance import Appliance, wait_for
from drive import configure, sdisup, small_ports, status, status_file, wait_recording
from test_python import PRELUDE, python

pytestmark = pytest.mark.system


def test_a_recording_outlives_the_program_that_started_it(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    program = PRELUDE + "manager.start_recording(0)\nprint('started', flush=True)\ntime.sleep(1000)\n"
    with appliance.popen(["python3", "-c", program]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.kill()
    before = wait_recording(appliance, 0, frames=10)
    after = wait_recording(appliance, 0, frames=before["frame_count"] + 25)
    assert (after["ffmpeg_pid"], after["restarts"]) == (before["ffmpeg_pid"], 0)


def test_the_status_of_a_running_port_can_be_asked(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    found = python(appliance, "manager.start_recording(0)\nprint(json.dumps(manager.get_status(0).is_recording))\n")
    assert found is True


def test_a_port_whose_ffmpeg_ended_is_not_recording_and_can_be_started_again(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    sdisup(appliance, "start 0")
    appliance.run(["kill", "-9", str(wait_recording(appliance, 0)["ffmpeg_pid"])])
    wait_for(lambda: status(appliance, 0)["restarts"] == 1, 10, "its end is noticed", poll_s=0.05)
    sdisup(appliance, "stop 0")
    assert status(appliance, 0)["is_recording"] is False
    sdisup(appliance, "start 0")


def test_numbers_are_those_of_now(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    sdisup(appliance, "start 0")
    live = wait_for(
        lambda: found if (found := status_file(appliance, 0))["bitrate_mbps"] > 0 else None, 10, "there is a bit rate"
    )
    assert 0.1 < live["bitrate_mbps"] < 20
    # Frozen for three seconds: an average since the start would still say 15 fps and more.
    appliance.run(["kill", "-STOP", str(live["ffmpeg_pid"])])
    slow = wait_for(
        lambda: found if (found := status_file(appliance, 0))["fps"] < 8 else None, 10, "the rate is that of now"
    )
    assert slow["is_recording"] is False
    appliance.run(["kill", "-CONT", str(live["ffmpeg_pid"])])
    wait_recording(appliance, 0)
    sdisup(appliance, "stop 0")
    ended = status(appliance, 0)
    assert (ended["uptime_seconds"], ended["fps"], ended["bitrate_mbps"], ended["started_at"]) == (0, 0, 0, None)


def test_the_command_and_the_pid_are_logged(appliance: Appliance) -> None:
    configure(appliance, small_ports(1))
    sdisup(appliance, "start 0")
    pid = wait_recording(appliance, 0)["ffmpeg_pid"]
    appliance.run("journalctl --sync")
    shown = sdisup(appliance, "logs 0 --boot").stdout
    assert f"FFmpeg {pid} started" in shown
    assert "runs /usr/bin/ffmpeg -hide_banner" in shown
