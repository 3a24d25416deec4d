"""What `sdisup check --probe` shows of inputs: FFmpeg's words in the configuration's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_hold_back import FFMPEGS

from sdisup.cli.main import main
from sdisup.config.settings import Port, parse_settings
from sdisup.control import streams
from sdisup.control.streams import Listing, choices, listings

LOG = """\
Input #0, mpegts, from 'udp://239.0.0.1:5000':
  Duration: N/A, start: 1.429089, bitrate: N/A
  Program 1
    Metadata:
      service_name    : One\x1b[2J
      service_provider: FFmpeg
  Stream #0:0[0x100]: Video: h264 (High), yuv420p, 320x180, 25 fps
    Side data:
      cpb: bitrate max/min/avg: 0/0/0 buffer size: 49152 vbv_delay: N/A
  Stream #0:1[0x102](deu): Audio: mp2, 48000 Hz, stereo, fltp, 384 kb/s
  Stream #0:2[0x103](eng): Audio: mp2, 48000 Hz, stereo, fltp, 384 kb/s
  Program 7
    Metadata:
      variant_bitrate : 185900
  Stream #0:3: Video: h264, yuv420p, 160x90
  No Program
  Stream #0:4[0x200]: Data: bin_data
  Stream #0:5[0x201]: Audio: aac, 44100 Hz, mono
Input #1, alsa, from 'hw:1':
  Stream #1:0: Audio: pcm_s16le, 48000 Hz, 2 channels
At least one output file must be specified
"""
SHOWN = """\
input 0
  program = 1
    service_name: One?[2J
    video_stream = 0: h264 (High), yuv420p, 320x180, 25 fps
    audio_stream = 0 (deu): mp2, 48000 Hz, stereo, fltp, 384 kb/s
    audio_stream = 1 (eng): mp2, 48000 Hz, stereo, fltp, 384 kb/s
  program = 7
    variant_bitrate: 185900
    video_stream = 0: h264, yuv420p, 160x90
  in no programme
  audio_stream = 0: aac, 44100 Hz, mono
input 1
  audio_stream = 0: pcm_s16le, 48000 Hz, 2 channels
"""


def test_what_ffmpeg_logs_in_the_configurations_words() -> None:
    assert list(choices(LOG.splitlines())) == SHOWN.splitlines()


def ports(*inputs: str) -> list[Port]:
    table = {str(index): {"source": {"kind": "custom", "input": ["-i", url]}} for index, url in enumerate(inputs)}
    test = {str(len(inputs)): {"source": {"kind": "test"}}}
    return list(
        parse_settings([("x", {"appliance": {"ports": len(inputs) + 1}, "port": {**table, **test}})]).ports.values()
    )


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_what_is_shown_selects(ffmpeg: str, tmp_path: Path) -> None:
    made = tmp_path / "two.ts"
    picture = "-f lavfi -i testsrc2=rate=25:size="
    words = f"{picture}160x90 {picture}320x180 -f lavfi -i sine -map 0 -map 1 -map 2 -t 0.5 -c:v mpeg2video -c:a mp2"
    programmes = ["-program", "program_num=3:title=A:st=0", "-program", "program_num=9:title=B:st=1:st=2"]
    subprocess.run([ffmpeg, "-v", "error", *words.split(), *programmes, made], check=True, timeout=60)
    good, bad = listings(ports(str(made), str(tmp_path / "nothing.ts")), ffmpeg)
    assert [line.split(",")[0] for line in good.lines if "=" in line or ":" in line][:2] == [
        "  program = 3",
        "    service_name: A",
    ]
    assert [line.strip()[:16] for line in good.lines if "_stream" in line] == ["video_stream = 0"] * 2 + [
        "audio_stream = 0"
    ]
    assert good.problem == "" and bad.lines == ()
    assert bad.label == "port 1" and bad.problem.endswith("No such file or directory")


def test_an_input_is_not_opened_beside_its_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "find_status", lambda index: index)
    monkeypatch.setattr(streams, "is_alive", lambda status: status == 0)
    first, second = listings(ports("udp://127.0.0.1:1", "udp://127.0.0.1:2"), "/nothing/ffmpeg")
    assert first == Listing("port 0", (), "is started, and its input is not opened a second time; stop it first")
    assert second.problem.startswith("/nothing/ffmpeg cannot be executed: ")


def test_an_input_that_does_not_open_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(streams, "OPENING_S", 0.2)
    (listing,) = listings(ports("udp://127.0.0.1:1"), str(script))
    assert listing.problem == "its input does not open within 0 s"


def test_the_command_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.toml").write_text("[appliance]\nports = 1\n")
    found = [Listing("port 0", ("input 0", "  program = 1")), Listing("port 1", problem="its input does not open")]
    monkeypatch.setattr(streams, "listings", lambda ports, ffmpeg: iter(found))
    assert main(["check", "--quick", "--probe", "--config", str(tmp_path / "x.toml")]) == 1
    assert "port 0\n  input 0\n    program = 1\nport 1: its input does not open\n" in capsys.readouterr().out
