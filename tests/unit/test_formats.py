"""Each codec in each container, in fields and not, as ffprobe finds it in a file whose FFmpeg was killed.

Recorded by the command lines that ports have, by the FFmpeg on the path and the one that SDISUP_TEST_FFMPEG names. The
source pauses after a number of pictures that differs from case to case, then FFmpeg is killed: what is lost is what it
holds back. Each test prints its row of the table in docs/formats.md.

    SDISUP_TEST_FFMPEG=/opt/ffmpeg-7.1/bin/ffmpeg tests/run --slow tests/unit/test_formats.py -s
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_hold_back import FFMPEGS, RATE, SETTLED_S, TOLERANCE_S, Recording, readable_frames
from test_stamp import stamp, timecodes_in

from sdisup.config.codecs import CODECS, HOLD_BACK_LIMIT_S, ONE_FILE
from sdisup.config.settings import Port, parse_settings
from sdisup.contract.media import holds_media
from sdisup.contract.pictures import count_pictures
from sdisup.encode.command import build_ffmpeg_arguments, missing_capabilities
from sdisup.encode.probe import probe_ffmpeg

pytestmark = pytest.mark.slow

SEED = random.randrange(1_000_000)
SEGMENT_S = 2
PICTURES_AT_LEAST, PICTURES_AT_MOST = 75, 100
"""FFmpeg is killed in its second file, where there are several."""
HD = "1920x1080"


@dataclass(frozen=True)
class Case:
    """What a port records, and what ffprobe has to say of its file."""

    codec: str
    container: str
    name: str
    profile: str
    pixel_format: str
    settings: dict[str, Any] = field(default_factory=dict)
    scan: str = "progressive"
    size: str = "640x360"

    def __str__(self) -> str:
        words = [self.codec, self.container, *map(str, self.settings.values()), self.scan]
        return "-".join(word for word in words if word not in ("progressive", HD))

    def port(self) -> Port:
        graph = f"testsrc2=size={self.size}:rate={RATE},realtime[out0];sine=frequency=1000:sample_rate=48000[out1]"
        source = {"kind": "custom", "input": ["-f", "lavfi", "-i", graph], "rate": RATE, "scan": self.scan}
        values: dict[str, Any] = {"source": source, "codec": self.codec, "container": self.container}
        values |= {"timecode": "clock", "segment_s": SEGMENT_S}
        values |= self.settings
        return parse_settings([("test.toml", {"appliance": {"ports": 1}, "defaults": values})]).ports[0]


def cases() -> list[Case]:
    found = []
    for container in ("mp4", "mov", "mkv"):
        found += [
            Case("h264", container, "h264", "High", "yuv420p"),
            Case("h264", container, "h264", "High", "yuv420p", scan="tff"),
            Case("h264", container, "h264", "High", "yuv420p", scan="bff"),
            Case("hevc", container, "hevc", "Main", "yuv420p", {"preset": "ultrafast"}),
        ]
    for pixel_format, of_h264, of_hevc in (
        ("yuv420p10le", "High 10", "Main 10"),
        ("yuv422p", "High 4:2:2", "Rext"),
        ("yuv422p10le", "High 4:2:2", "Rext"),
    ):
        chosen = {"pixel_format": pixel_format, "quality": 25, "preset": "ultrafast", "gop_frames": 12}
        found += [
            Case("h264", "mov", "h264", of_h264, pixel_format, chosen),
            Case("hevc", "mov", "hevc", of_hevc, pixel_format, chosen),
        ]
    for profile, called in (("proxy", "Proxy"), ("lt", "LT"), ("standard", "Standard"), ("hq", "HQ"), ("4444", "4444"),
                            ("4444xq", "XQ")):  # fmt: skip
        # FFmpeg's decoder takes a depth of 12 bit for all of 4444.
        pixel_format = "yuv444p12le" if profile.startswith("4444") else "yuv422p10le"
        found.append(Case("prores", "mov", "prores", called, pixel_format, {"prores_profile": profile}))
    for container in ("mov", "mkv"):
        found += [Case("prores", container, "prores", "HQ", "yuv422p10le", scan=scan) for scan in ("tff", "bff")]
        found += [
            Case("dnxhr", container, "dnxhd", "DNXHR HQ", "yuv422p"),
            Case("dnxhd", container, "dnxhd", "DNXHD", "yuv422p", size=HD),
            Case("dnxhd", container, "dnxhd", "DNXHD", "yuv422p10le", {"dnx_profile": "hqx"}, "tff", size=HD),
        ]
    for profile, pixel_format in (("lb", "yuv422p"), ("sq", "yuv422p"), ("hqx", "yuv422p10le"), ("444", "yuv444p10le")):
        called = f"DNXHR {profile.upper()}"
        found.append(Case("dnxhr", "mov", "dnxhd", called, pixel_format, {"dnx_profile": profile}))
    for scan in ("progressive", "tff", "bff"):
        found += [
            Case("ffv1", "mkv", "ffv1", "", "yuv422p10le", scan=scan),
            Case("v210", "mov", "v210", "", "yuv422p10le", scan=scan),
        ]
    found.append(Case("ffv1", "mkv", "ffv1", "", "yuv420p", {"pixel_format": "yuv420p"}))
    found += [
        Case("xdcam", "mxf", "mpeg2video", "4:2:2", "yuv422p", scan=scan, size=HD) for scan in ("progressive", "tff")
    ]
    return found


FIELD_ORDERS = {"progressive": ("progressive",), "tff": ("tt", "tb"), "bff": ("bb", "bt")}
"""What ffprobe calls them: the second ones are both fields in one picture, with the top or the bottom one first."""


def test_each_combination_has_a_case() -> None:
    found = {(case.codec, case.container) for case in cases()} | {("copy", container) for _, container, _ in COPIES}
    assert found >= {(codec.name, container) for codec in CODECS.values() for container in codec.containers}


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_killed_file_is_what_was_asked_for(case: Case, ffmpeg: str, tmp_path: Path) -> None:
    pictures = random.Random(f"{SEED} {case}").randrange(PICTURES_AT_LEAST, PICTURES_AT_MOST)
    pausing = f",setpts='PTS+gte(N,{pictures})*1000/TB',realtime=limit=10000"
    recording = Recording.start(ffmpeg, probe_ffmpeg(ffmpeg), case.port(), tmp_path, pausing)
    try:
        recording.wait_until(lambda: recording.is_settled(pictures))
    finally:
        recording.end()
    file, received = recording.file, recording.received_frames()
    readable = recording.readable_frames()
    lost_s = (received - readable) / RATE
    print(f"\n| {case} | {ffmpeg} | {received} | {received - readable} | {lost_s:.2f} s |")
    assert received >= pictures, f"seed {SEED}"
    assert lost_s <= HOLD_BACK_LIMIT_S + TOLERANCE_S

    size_bytes, content = file.stat().st_size, file.read_bytes()
    assert holds_media(case.container, size_bytes, lambda count, offset: content[offset : offset + count])
    counted = count_pictures(str(file), case.container)
    assert counted is not None
    assert counted.count == readable_frames(file)
    first = recording.files[0]
    if case.container not in ONE_FILE:
        assert len(recording.files) == 2
        assert readable_frames(first) >= SEGMENT_S * RATE, "it goes on to the next key frame"
    check(case, file)
    check(case, first)


def check(case: Case, file: Path) -> None:
    """That a file is what was asked for."""

    streams = probe(file, "-show_streams")["streams"]
    picture = next(stream for stream in streams if stream["codec_type"] == "video")
    assert (picture["codec_name"], picture["pix_fmt"]) == (case.name, case.pixel_format)
    assert picture.get("profile", "unknown") in (case.profile or "unknown", f"{case.profile} Intra")
    assert (picture["width"], picture["height"]) == tuple(map(int, case.size.split("x")))
    # The first picture of an mp4 is early by the sound's beginning until it is closed; times of mkv are in ms.
    packets = probe(file, "-show_packets", "-select_streams", "v:0")["packets"]
    times = [float(packet["dts_time"]) for packet in packets if "dts_time" in packet][1:]
    assert all(abs(later - time - 1 / RATE) <= 0.0011 for time, later in pairwise(times))
    # The parser of h264 calls both orders of fields tt, and dnxhd in mov has no word of it but in its pictures.
    if case.codec not in ("h264", "dnxhd", "dnxhr"):
        assert picture["field_order"] in FIELD_ORDERS[case.scan]
    frames = probe(file, "-show_frames", "-select_streams", "v:0", "-read_intervals", "%+#4")["frames"]
    has_fields, is_top_first = case.scan != "progressive", case.scan == "tff"
    assert {(frame["interlaced_frame"], frame["top_field_first"]) for frame in frames} == {(has_fields, is_top_first)}

    sounds = [stream for stream in streams if stream["codec_type"] == "audio"]
    codec = CODECS[case.codec]
    assert len(sounds) == (codec.mono_tracks or 1)
    assert {(sound["codec_name"], sound["channels"]) for sound in sounds} == {(codec.audio_encoder, 1)}
    assert {sound["sample_rate"] for sound in sounds} == {"48000"}

    count, written = readable_frames(file), bytearray(file.read_bytes())
    assert stamp(written, case.container, str(RATE), "10:11:12:13").is_found
    file.write_bytes(written)
    assert timecodes_in(file) == {"10:11:12:13"}
    assert readable_frames(file) == count


def probe(file: Path, *what: str) -> dict[str, Any]:
    done = subprocess.run(
        [shutil.which("ffprobe") or "ffprobe", "-v", "error", *what, "-of", "json", str(file)],
        capture_output=True, check=True, timeout=100,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


COPIES = [
    *((source, container, "") for source in ("h264", "hevc", "mpeg2video") for container in ("mkv", "mp4", "mov")),
    *((source, container, "copy") for source in ("h264", "mpeg2video") for container in ("mkv", "mp4", "mov")),
]
ENCODED = {
    "h264": ["-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-bf", "2", "-c:a", "aac"],
    "hevc": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=12:bframes=2",
             "-c:a", "aac"],
    "mpeg2video": ["-vf", "setfield=tff,setparams=colorspace=bt470bg:color_primaries=bt470bg",
                   "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-g", "12", "-bf", "2", "-c:a", "mp2"],
}  # fmt: skip
"""What a sender's FFmpeg is told for each: B frames, and with mpeg2video fields and colours."""
OPEN_GOP_PICTURES = {"hevc": 2, "mpeg2video": 2}
"""So many of a GOP's pictures need the GOP before it, where the encoder leaves GOPs open unless told."""


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize(("source", "container", "sound"), COPIES)
def test_a_killed_copy_is_what_was_sent(source: str, container: str, sound: str, ffmpeg: str, tmp_path: Path) -> None:
    """The sender sends some pictures and then no more, as in the test above. All of them begin with a key frame."""
    capabilities = probe_ffmpeg(ffmpeg)
    pictures = random.Random(f"{SEED} {source} {container}").randrange(PICTURES_AT_LEAST, PICTURES_AT_MOST)
    sent, fifo = tmp_path / "sent.ts", tmp_path / "fifo"
    seconds = str(pictures / RATE)
    # White, and a tone, from its first second on.
    graph = f"color=black:size=320x180:rate={RATE},drawbox=c=white:t=fill:enable='gte(t,1)'"
    tone = "sine=frequency=1000:sample_rate=48000,volume='gte(t,1)':eval=frame"
    inputs = ["-f", "lavfi", "-i", graph, "-f", "lavfi", "-i", tone, "-t", seconds]
    sender = [shutil.which("ffmpeg") or "ffmpeg", "-v", "error", *inputs, *ENCODED[source], "-f", "mpegts", str(sent)]
    subprocess.run(sender, stdin=subprocess.DEVNULL, check=True, timeout=100)
    of_sent = probe(sent, "-show_streams", "-count_packets")["streams"]
    assert of_sent[0]["nb_read_packets"] == str(pictures)

    os.mkfifo(fifo)
    given = ["-analyzeduration", "500000", "-f", "mpegts", "-i", str(fifo)]
    values: dict[str, Any] = {"source": {"kind": "custom", "input": given, "rate": RATE}, "codec": "copy"}
    values |= {"container": container, "segment_s": SEGMENT_S, **({"audio.codec": sound} if sound else {})}
    port = parse_settings([("test.toml", {"appliance": {"ports": 1}, "defaults": values})]).ports[0]
    if sound and source == "h264" and missing_capabilities([port], ffmpeg, capabilities):
        pytest.skip("this FFmpeg does not copy the AAC of an MPEG-TS into it")
    arguments = build_ffmpeg_arguments(port, ffmpeg, capabilities)
    log, first = tmp_path / "log", tmp_path / f"a-100.{container}"
    output = str(first).replace("-100.", "-10%d.") if port.file_s else str(first)
    with log.open("wb") as stderr:
        process = subprocess.Popen([*arguments[:-1], output], stdin=subprocess.PIPE, stderr=stderr)
    try:
        with fifo.open("wb", buffering=0) as feed:
            feed.write(sent.read_bytes())
            recording = Recording(first, log, process)
            recording.wait_until(lambda: first.exists() and time.time() - recording.file.stat().st_mtime > SETTLED_S)
            recording.end()
    finally:
        process.kill()
        process.communicate()
    readable = decoded_frames(recording.files)
    print(f"\n| copy of {source}-{container} {sound} | {ffmpeg} | {pictures} | {pictures - readable} |")
    assert pictures - HOLD_BACK_LIMIT_S * RATE <= readable <= pictures
    assert len(recording.files) == (2 if port.file_s else 1)
    counted = [count_pictures(str(file), container, is_even=False) for file in recording.files]
    alone = list(map(readable_frames, recording.files))
    # Where the source's GOPs are open, a later file's first pictures need the one before it.
    hidden = len(recording.files) - 1 and OPEN_GOP_PICTURES.get(source, 0)
    assert [found and found.count for found in counted] == [*alone[:-1], alone[-1] + hidden]
    assert readable == sum(alone) + hidden
    for file in recording.files:
        check_copy(file, of_sent, source, is_as_sent=sound == "copy" or container == "mkv")
    white_s, tone_s = steps_of(first)
    assert abs(white_s - tone_s) < 0.03


def decoded_frames(files: Sequence[Path]) -> int:
    """How many pictures are decoded of files of one recording, one upon the other."""
    listed = files[0].with_name("listed")
    listed.write_text("".join(f"file '{file}'\n" for file in files))
    command = [shutil.which("ffmpeg") or "ffmpeg", "-v", "error", "-f", "concat", "-safe", "0", "-i", str(listed)]
    command += ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framecrc", "-"]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100).stdout
    return sum(not line.startswith("#") for line in said.splitlines())


def check_copy(file: Path, of_sent: list[dict[str, Any]], source: str, *, is_as_sent: bool) -> None:
    """That picture and sound of a file are what was sent."""
    # The timecode is a stream of data.
    picture, heard = [part for part in probe(file, "-show_streams")["streams"] if part["codec_type"] != "data"]
    alike = ("codec_name", "profile", "pix_fmt", "width", "height", "color_space", "color_primaries", "r_frame_rate")
    assert [picture.get(key) for key in alike] == [of_sent[0].get(key) for key in alike]
    if source == "mpeg2video":
        # Of those of a GOP that is cut off the last ones are not shown.
        frames = probe(file, "-show_frames", "-select_streams", "v:0", "-read_intervals", "%+#4")["frames"]
        assert {(frame["interlaced_frame"], frame["top_field_first"]) for frame in frames} == {(1, 1)}
    # In mp4 one number is for all layers of MPEG audio.
    name = "mp2" if heard["codec_name"] == "mp3" else heard["codec_name"]
    assert name == (of_sent[1]["codec_name"] if is_as_sent else "aac")


def steps_of(file: Path) -> tuple[float, float]:
    """When a file's picture becomes white, and when its sound begins."""
    filters = ["-vf", "blackdetect=d=0.1", "-af", "silencedetect=n=-40dB:d=0.1"]
    command = [shutil.which("ffmpeg") or "ffmpeg", "-nostats", "-copyts", "-i", str(file), *filters, "-f", "null", "-"]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=100).stderr.decode()
    white_s, tone_s = (float(said.partition(word)[2].split()[0]) for word in ("black_end:", "silence_end: "))
    return white_s, tone_s


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize("codec", [codec.name for codec in CODECS.values() if not codec.is_copied])
def test_colours_are_what_the_port_says(codec: str, ffmpeg: str, tmp_path: Path) -> None:
    """Red of an RGB source has the luma of BT.709, 63; by BT.601, which FFmpeg takes if nothing is said, it is 81."""
    graph = f"color=red:size={HD}:rate={RATE},format=gbrp"
    source = {"kind": "custom", "input": ["-f", "lavfi", "-i", graph], "rate": RATE, "audio": False}
    values = {"source": source, "codec": codec, "colour": "bt709"}
    port = parse_settings([("test.toml", {"appliance": {"ports": 1}, "defaults": {"segment_s": 0, **values}})]).ports[0]
    file = tmp_path / f"a.{port.container}"
    arguments = build_ffmpeg_arguments(port, ffmpeg, probe_ffmpeg(ffmpeg))
    arguments = [*arguments[:-1], "-frames:v", "3", str(file)]
    subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=100)
    picture = probe(file, "-show_streams")["streams"][0]
    assert [picture[f"color_{what}"] for what in ("space", "primaries", "transfer")] == ["bt709"] * 3
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv422p", "-frames:v", "1", "-"]
    command = [shutil.which("ffmpeg") or "ffmpeg", "-v", "error", "-i", str(file), *raw]
    luma = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=100).stdout[0]
    assert abs(luma - 63) <= 2


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize("codec", [one.name for one in CODECS.values() if not (one.has_raster or one.is_copied)])
def test_of_an_odd_picture_a_line_and_a_column_are_left_out(codec: str, ffmpeg: str, tmp_path: Path) -> None:
    """4:2:0 has a colour for two lines, 4:2:2 for each."""
    graph = f"testsrc=size=853x479:rate={RATE}"
    source = {"kind": "custom", "input": ["-f", "lavfi", "-i", graph], "rate": RATE, "audio": False}
    values = {"source": source, "codec": codec}
    port = parse_settings([("test.toml", {"appliance": {"ports": 1}, "defaults": {"segment_s": 0, **values}})]).ports[0]
    file = tmp_path / f"a.{port.container}"
    arguments = build_ffmpeg_arguments(port, ffmpeg, probe_ffmpeg(ffmpeg))
    done = subprocess.run(
        [*arguments[:-1], "-frames:v", "5", str(file)], stdin=subprocess.DEVNULL, capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    picture = probe(file, "-show_streams", "-count_frames")["streams"][0]
    height = 478 if "420" in port.pixel_format else 479
    assert (picture["width"], picture["height"], picture["nb_read_frames"]) == (852, height, "5")


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001", "60000/1001"])
@pytest.mark.parametrize(("codec", "container"), [("h264", "mp4"), ("h264", "mov"), ("h264", "mkv"), ("xdcam", "mxf")])
def test_fractional_rates_stay_exact(codec: str, container: str, rate: str, ffmpeg: str, tmp_path: Path) -> None:
    """A picture's time is its number times 1001/30000 s, to the millisecond also at the end: nothing adds up."""
    size = {"xdcam": "1280x720" if rate == "60000/1001" else HD}.get(codec, "64x64")
    if codec == "xdcam" and rate == "24000/1001":
        pytest.skip("there is no such xdcam")
    graph = f"testsrc2=size={size}:rate={rate}"
    source = {"kind": "custom", "input": ["-f", "lavfi", "-i", graph], "rate": rate, "audio": False}
    values = {"source": source, "codec": codec, "container": container, "preset": "ultrafast"}
    values |= {"raster": size} if codec == "xdcam" else {}
    port = parse_settings([("test.toml", {"appliance": {"ports": 1}, "defaults": {"segment_s": 0, **values}})]).ports[0]
    file = tmp_path / f"a.{container}"
    pictures = 60 if codec == "xdcam" else 3000
    arguments = build_ffmpeg_arguments(port, ffmpeg, probe_ffmpeg(ffmpeg))
    arguments = [*arguments[:-1], "-frames:v", str(pictures), str(file)]
    subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=100)
    packets = probe(file, "-show_packets", "-select_streams", "v:0")["packets"]
    times = sorted(float(packet["pts_time"]) for packet in packets if "pts_time" in packet)
    assert len(packets) == pictures
    assert all(abs(time - times[0] - number / float(Fraction(rate))) < 0.0011 for number, time in enumerate(times))
    # Of the milliseconds of mkv ffprobe makes 19001/317.
    assert abs(Fraction(probe(file, "-show_streams")["streams"][0]["r_frame_rate"]) - Fraction(rate)) < 0.0001
