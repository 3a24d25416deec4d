"""sdisup has none of the defects of its origin, a module of a web backend whose child processes were the FFmpegs.

Other defects of the origin have their tests elsewhere: progress that ends in a carriage return and a reader that dies
after 64 KiB (test_progress.py, test_faults.py), an FFmpeg whose end nobody notices and that nobody restarts
(test_recording.py), a stall that nobody sees (test_recording.py), files that nobody checks (test_gaps.py).
"""

from __future__ import annotations

import json
import re

from appliance import CHECKOUT
from drive import PRELUDE, Machine, small_ports

PAGE = (CHECKOUT / "docs" / "python.md").read_text(encoding="utf-8")
PATH = 'import sys; sys.path.insert(0, "/usr/lib/sdisup")\n'


def test_a_recording_outlives_the_program_that_started_it(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    program = PRELUDE + "manager.start_recording(0)\nprint('started', flush=True)\ntime.sleep(1000)\n"
    with appliance.popen(["python3", "-c", program]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.kill()
    before = appliance.wait_recording(0, frames=10)
    after = appliance.wait_recording(0, frames=before["frame_count"] + 25)
    assert (after["ffmpeg_pid"], after["restarts"]) == (before["ffmpeg_pid"], 0)


BACKEND = """\
import asyncio, json
from sdisup import CodecType, RecorderConfig, Settings
from sdisup.aio import PortRecorder, RecorderManager

async def refused(what, expected):
    try:
        await what
    except expected as error:
        return str(error)

def tell(**words):
    print(json.dumps(words), flush=True)

async def main():
    settings = Settings.load()
    manager = RecorderManager(settings)
    manager.initialize()
    recorder = PortRecorder(1, settings)
    config = RecorderConfig(codec=CodecType.PRORES, recording_path="/srv/recordings/day/FINAL.mov")
    await asyncio.gather(manager.start_recording(0), recorder.start(config))
    tell(
        again=await refused(recorder.start(config), RuntimeError),
        wrong=await refused(manager.start_recording(9), ValueError),
        wrong_status=await refused(asyncio.to_thread(manager.get_status, 9), ValueError),
    )
    while not all(status.frame_count >= 25 for status in manager.get_all_status()):
        await asyncio.sleep(0.05)
    tell(recorded={status.port_index: [status.is_recording, status.codec, status.current_file]
                   for status in manager.get_all_status()}, fps=recorder.get_status().fps)
    await recorder.stop()
    await recorder.stop()
    await manager.stop_recording(0)
    tell(stopped=[status.is_recording for status in manager.get_all_status()])
    status = await recorder.start()
    tell(started=status.is_recording)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_a_backend_that_used_the_origin_changes_an_import(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    with appliance.popen(["python3", "-c", PATH + BACKEND]) as backend:
        assert backend.stdout is not None
        told = [json.loads(backend.stdout.readline()) for _ in range(4)]
        backend.kill()
    refusals, recorded, stopped, started = told
    assert re.search(r"^port 1 .*is already started \(recording\)", refusals["again"])
    assert refusals["wrong"] == refusals["wrong_status"] == "Invalid port index 9. Valid range: 0-1"
    assert recorded["recorded"]["0"][:2] == [True, "h264"]
    assert recorded["recorded"]["1"][:2] == [True, "prores"]
    assert re.fullmatch(r"/srv/recordings/day/FINAL_\w+\.mov", recorded["recorded"]["1"][2])
    assert 20 < recorded["fps"] < 30
    assert stopped["stopped"] == [False, False]
    assert started["started"] is True
    # It is dead, and the port records on.
    before = appliance.wait_recording(1, frames=10)
    after = appliance.wait_recording(1, frames=before["frame_count"] + 25)
    assert (after["ffmpeg_pid"], after["restarts"]) == (before["ffmpeg_pid"], 0)


def test_the_example_of_the_documentation_runs(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    imports, example = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    appliance.run(["python3", "-c", f"{PATH}{imports}"])
    shown = appliance.run(["python3", "-c", f"{PATH}{example}"]).stdout
    state, path, frames = shown.split()
    assert (state, appliance.status(0)["state"]) == ("recording", "stopped")
    assert appliance.count_frames(path) >= int(frames) > 25


def test_who_is_not_root_is_told_so(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    found = appliance.python("print(json.dumps(caught(manager.start_recording, 0)))\n", user="nobody")
    assert "PermissionError" in found[1], found
    assert "run it as root" in found[2], found


def test_the_status_of_a_running_port_can_be_asked(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    found = appliance.python("manager.start_recording(0)\nprint(json.dumps(manager.get_status(0).is_recording))\n")
    assert found is True


def test_a_port_whose_ffmpeg_ended_is_not_recording_and_can_be_started_again(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    appliance.run(["kill", "-9", str(appliance.wait_recording(0)["ffmpeg_pid"])])
    appliance.wait_for(lambda: appliance.status(0)["restarts"] == 1, 10, "its end is noticed", poll_s=0.05)
    appliance.sdisup("stop 0")
    assert appliance.status(0)["is_recording"] is False
    appliance.sdisup("start 0")


def test_numbers_are_those_of_now(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    live = appliance.wait_for(
        lambda: found if (found := appliance.status_file(0))["bitrate_mbps"] > 0 else None, 10, "there is a bit rate"
    )
    assert 0.1 < live["bitrate_mbps"] < 20
    # FFmpeg is frozen for 3 s: an average since the start would still be 15 fps or more.
    appliance.run(["kill", "-STOP", str(live["ffmpeg_pid"])])
    slow = appliance.wait_for(
        lambda: found if (found := appliance.status_file(0))["fps"] < 8 else None, 10, "the rate is that of now"
    )
    assert slow["is_recording"] is False
    appliance.run(["kill", "-CONT", str(live["ffmpeg_pid"])])
    appliance.wait_recording(0)
    appliance.sdisup("stop 0")
    ended = appliance.status(0)
    assert (ended["uptime_seconds"], ended["fps"], ended["bitrate_mbps"], ended["started_at"]) == (0, 0, 0, None)


def test_the_command_and_the_pid_are_logged(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    appliance.sdisup("start 0")
    pid = appliance.wait_recording(0)["ffmpeg_pid"]
    appliance.run("journalctl --sync")
    shown = appliance.sdisup("logs 0 --boot").stdout
    assert f"FFmpeg {pid} started" in shown
    assert "runs /usr/bin/ffmpeg -hide_banner" in shown
