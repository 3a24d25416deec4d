"""What a kill -9 costs and what a clean stop leaves, with the real FFmpeg and the commands we build.

Recorded with every codec, and with --slow in every container: the FFmpeg on the path, and the one (or a wrapper of
it) that SDISUP_TEST_FFMPEG names. All recordings of one FFmpeg run side by side, as ports do.

`showinfo` behind the test source logs each picture when it is delivered, so what was received at the
moment of the kill is known to the frame. The source of those that are killed then pauses, so that what is
lost is what FFmpeg holds back, and not what a busy machine has not encoded yet.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdisup.config.codecs import CODECS, HOLD_BACK_LIMIT_S
from sdisup.config.settings import Port, parse_settings
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg

FFMPEGS = [name for name in (shutil.which("ffmpeg"), os.environ.get("SDISUP_TEST_FFMPEG")) if name]
ENCODED = [codec for codec in CODECS.values() if not codec.is_copied]
COMBINATIONS = [(codec.name, container) for codec in ENCODED for container in codec.containers]
"""What is encoded here; test_formats.py has what is copied."""
CHEAP = ("h264-mp4", "h264-mov", "h264-mkv", "hevc-mp4", "prores-mov", "dnxhr-mov", "ffv1-mkv", "v210-mov")
COSTLY = [key for key in COMBINATIONS if "-".join(key) not in CHEAP]
"""What needs a large picture, or is as another combination of its codec, is tried by --slow."""
KEYS = [pytest.param(key, id="-".join(key), marks=[pytest.mark.slow] * (key in COSTLY)) for key in COMBINATIONS]
SIZES = {"dnxhd": "1280x720", "xdcam": "1920x1080"}
"""Small pictures, but for codecs that take no other."""
RATE = 25
FRAMES = 75
# The picture that was being written.
TOLERANCE_S = 1 / RATE
SETTLED_S = 0.5
# After so many frames the next one is due in a quarter of an hour.
PAUSING = f",setpts='PTS+gte(N,{FRAMES})*1000/TB',realtime=limit=10000"


def test_there_is_an_ffmpeg_to_test_with() -> None:
    assert FFMPEGS, "no ffmpeg on the path: install it, or name one in SDISUP_TEST_FFMPEG"


def make_port(codec: str, container: str) -> Port:
    source = {"kind": "test", "size": SIZES.get(codec, "320x180"), "rate": RATE}
    defaults = {"source": source, "codec": codec, "container": container}
    return parse_settings([("test.toml", {"appliance": {"ports": 1}, "defaults": defaults})]).ports[0]


@dataclass
class Recording:
    """An FFmpeg that records into `first`, and into other files where the port has several; its stderr is in `log`."""

    first: Path
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, ffmpeg: str, capabilities: Capabilities, port: Port, directory: Path, pacing: str) -> Recording:
        # FFmpeg numbers the files, if there are several.
        file = directory / f"{port.codec}-{'100' if port.file_s else ''}.{port.container}"
        file.touch()  # as the runner does
        arguments = build_ffmpeg_arguments(port, ffmpeg, capabilities)
        arguments = [word.replace(",realtime", f"{pacing},showinfo") for word in arguments]
        arguments = [str(file).replace("-100.", "-10%d.") if word == "{output}" else word for word in arguments]
        log = file.with_suffix(file.suffix + ".log")
        with log.open("wb") as stderr:
            process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr)
        return cls(file, log, process)

    @property
    def files(self) -> list[Path]:
        """All files, the newest last."""
        return sorted(self.first.parent.glob(self.first.name.replace("-100.", "-10?.")))

    @property
    def file(self) -> Path:
        """The newest file."""
        return self.files[-1]

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 100
        while not is_so():
            text = self.log.read_text(errors="replace")
            assert self.process.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.05)

    def is_settled(self, frames: int = FRAMES) -> bool:
        """Whether the source pauses after so many pictures, and nothing more comes into the file."""
        return self.received_frames() >= frames and time.time() - self.file.stat().st_mtime > SETTLED_S

    def has_reported_all(self) -> bool:
        return self.reported_frames() >= FRAMES

    def received_frames(self) -> int:
        """How many pictures the source has delivered."""
        return sum(b"showinfo" in line and b" n:" in line for line in self.log.read_bytes().splitlines())

    def reported_frames(self) -> int:
        """`frame` of the last progress block."""
        lines = self.log.read_bytes().splitlines()
        return int(([b"=0"] + [line for line in lines if line.startswith(b"frame=")])[-1].split(b"=")[1])

    def readable_frames(self) -> int:
        """How many pictures can be decoded from what is in the files."""
        return sum(map(readable_frames, self.files))

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def readable_frames(file: Path) -> int:
    """How many pictures can be decoded from what is in a file."""
    answer = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries",
         "stream=nb_read_frames", "-of", "csv=p=0", str(file)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    text = answer.stdout.strip().split("\n")[0].strip(",")
    return int(text) if text.isdigit() else 0


Recordings = dict[tuple[str, str], Recording]


def record_all(ffmpeg: str, directory: Path, pacing: str, keys: set[tuple[str, str]]) -> Recordings:
    capabilities = probe_ffmpeg(ffmpeg)
    return {key: Recording.start(ffmpeg, capabilities, make_port(*key), directory, pacing) for key in sorted(keys)}


def wanted(request: pytest.FixtureRequest) -> set[tuple[str, str]]:
    """The combinations that tests of this run ask for."""
    calls = [item.callspec.params for item in request.session.items if isinstance(item, pytest.Function)
             and item.path == request.path and hasattr(item, "callspec")]  # fmt: skip
    asked = [params["key"] for params in calls if "key" in params]
    return {key for key in COMBINATIONS if key in asked}


@pytest.fixture(scope="module", params=FFMPEGS)
def recordings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Recordings, Recordings]]:
    """The recordings that were killed, and those that were asked to quit."""
    killed = record_all(request.param, tmp_path_factory.mktemp("killed"), PAUSING, wanted(request))
    quitted = record_all(request.param, tmp_path_factory.mktemp("quitted"), ",realtime", wanted(request))
    try:
        for recording in killed.values():
            recording.wait_until(recording.is_settled)
            recording.process.send_signal(signal.SIGKILL)
        for recording in quitted.values():
            recording.wait_until(recording.has_reported_all)
            recording.process.communicate(b"q", timeout=100)
        yield killed, quitted
    finally:
        for recording in [*killed.values(), *quitted.values()]:
            recording.end()


@pytest.mark.parametrize("key", KEYS)
def test_a_kill_loses_at_most_half_a_second(recordings: tuple[Recordings, Recordings], key: tuple[str, str]) -> None:
    recording = recordings[0][key]
    received, readable = recording.received_frames(), recording.readable_frames()
    lost_s = (received - readable) / RATE
    print(f"{key}: received {received}, readable {readable}, lost {lost_s:.2f} s")
    assert readable > 0
    assert lost_s <= HOLD_BACK_LIMIT_S + TOLERANCE_S


@pytest.mark.parametrize("key", KEYS)
def test_a_clean_stop_loses_nothing(recordings: tuple[Recordings, Recordings], key: tuple[str, str]) -> None:
    recording = recordings[1][key]
    assert recording.process.returncode == 0
    assert recording.readable_frames() == recording.reported_frames() >= FRAMES


@pytest.mark.parametrize("key", KEYS)
def test_a_closed_file_is_ordinary_where_ffmpeg_can_do_that(
    recordings: tuple[Recordings, Recordings], key: tuple[str, str]
) -> None:
    recording = recordings[1][key]
    arguments = recording.process.args
    assert isinstance(arguments, list)
    if key[1] in ("mkv", "mxf"):
        assert {"mkv": "matroska", "mxf": "mxf"}[key[1]] in arguments
        return
    is_fragmented = b"moof" in top_level_boxes(recording.file)
    assert is_fragmented == (not any("+hybrid_fragmented" in word for word in arguments))


def top_level_boxes(file: Path) -> list[bytes]:
    """The types of the boxes of an mp4 or mov (ISO/IEC 14496-12, 4.2)."""
    boxes = []
    data = file.read_bytes()
    position = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        boxes.append(kind)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
        position += max(size, 8)
    return boxes
