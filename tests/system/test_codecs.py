"""Each codec in each container all the way: named at its first frame, killed, recorded on, stopped, counted."""

from __future__ import annotations

import re

import pytest
from drive import BOTH_DEBIANS, RECORDINGS, Machine, small_ports

from sdisup.config.codecs import CODECS

KINDS = [(codec, container) for codec in CODECS.values() for container in codec.containers]
HD = '{ kind = "test", size = "1280x720", rate = 50 }'
LOOP = "/srv/loop.ts"
ENCODED = f'{{ kind = "custom", input = ["-re", "-stream_loop", "-1", "-i", "{LOOP}"], rate = 25 }}'
SMALL = '{ kind = "test", size = "320x180", rate = 25 }'
PORTS = [
    f'name = "CAM"\ncodec = "{codec.name}"\ncontainer = "{container}"\npreset = "ultrafast"\nthreads = 2\n'
    f"source = {HD if codec.has_raster else ENCODED if codec.is_copied else SMALL}\n"
    for codec, container in KINDS
]


@pytest.mark.slow
@BOTH_DEBIANS
@pytest.mark.limit(300)
@pytest.mark.parametrize("number", range(len(KINDS)), ids=[f"{codec.name}-{container}" for codec, container in KINDS])
def test_a_killed_and_a_stopped_file_are_counted_right(appliance: Machine, number: int) -> None:
    appliance.configure(small_ports(1, f"[port.0]\n{PORTS[number]}"))
    codec, container = KINDS[number]
    if codec.is_copied:
        lavfi = "testsrc2=size=320x180:rate=25[out0];sine[out1]"
        encoded = "-t 60 -c:v libx264 -preset ultrafast -g 25 -c:a aac"
        appliance.run(f"ffmpeg -v error -y -f lavfi -i '{lavfi}' {encoded} {LOOP}")
    appliance.run("systemctl start sdi-record@0")
    first = appliance.wait_recording(0, frames=40, timeout_s=60)
    assert re.fullmatch(rf"{RECORDINGS}/CAM_\d{{8}}T\d{{6}}Z\.{container}", first["current_file"])
    appliance.kill(first["ffmpeg_pid"])
    appliance.wait_restarts(0, 1, timeout_s=60)
    second = appliance.wait_recording(0, frames=40, timeout_s=60)
    appliance.run("systemctl stop sdi-record@0")
    files = [entry for entry in appliance.ledger(0) if entry["kind"] == "file"]
    assert [entry["path"] for entry in files] == [first["current_file"], second["current_file"]]
    assert [entry["ended"] for entry in files][1] == "complete"
    for entry in files:
        assert entry["frames"] == appliance.count_frames(entry["path"]) >= 40
