"""Sound that stops, comes late or never comes: the rules, as tables. test_runner.py has a runner that acts by them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from test_fixtures import FFMPEGS
from test_hold_back import FFMPEGS as FFMPEG_PROGRAMS

from sdisup.config.settings import Port, parse_settings
from sdisup.contract.options import OPTIONAL, REQUIRED, Options
from sdisup.control.units import runner_options
from sdisup.encode.command import build_ffmpeg_arguments
from sdisup.runner.causes import NO_FRAME, NO_SOUND, RETRY, STALLED, Cause, Fault
from sdisup.runner.command import sound_input, without_audio
from sdisup.runner.decide import (
    EXIT_FOR_RETRY,
    GO_ON_WITHOUT_AUDIO,
    Ended,
    Sight,
    Situation,
    decide,
    find_fault,
    sound_remark,
)
from sdisup.runner.progress import is_sound_mapping

PICTURE = ["-f", "mpegts", "-i", "tcp://camera:1"]
SOUND = ["-f", "mpegts", "-i", "tcp://desk:2"]


def custom(audio: object, *inputs: list[str]) -> Port:
    source = {"kind": "custom", "input": [word for words in inputs for word in words], "audio": audio, "rate": 25}
    return parse_settings([("x", {"appliance": {"ports": 1}, "defaults": {"source": source}})]).ports[0]


def command(audio: object, *inputs: list[str]) -> list[str]:
    return build_ffmpeg_arguments(custom(audio, *inputs), "/usr/bin/ffmpeg", FFMPEGS["7.1"])


def options(audio: object, *inputs: list[str]) -> Options:
    return runner_options(custom(audio, *inputs), command(audio, *inputs), "", "")


TOGETHER, APART = options("optional", PICTURE), options("optional", PICTURE, SOUND)
NEEDED = options(True, PICTURE)


def test_a_port_knows_whether_its_sound_may_be_left_out() -> None:
    assert (TOGETHER.sound, APART.sound, NEEDED.sound) == (OPTIONAL, OPTIONAL, REQUIRED)
    assert options(False, PICTURE).sound == ""


@pytest.mark.parametrize("inputs", [[PICTURE], [PICTURE, SOUND], [PICTURE, SOUND, SOUND]])
def test_the_command_without_sound_is_that_of_a_port_without(inputs: list[list[str]]) -> None:
    silent = command(False, PICTURE)
    limit = silent.index("-analyzeduration") + 1
    found = without_audio(command("optional", *inputs), "")
    assert [*found[:limit], silent[limit], *found[limit + 1 :]] == silent
    assert without_audio(found, "") == found


def test_which_input_has_the_sound_for_itself() -> None:
    assert [sound_input(command(audio, *inputs)) for audio, inputs in (
        ("optional", [PICTURE]), (True, [PICTURE, SOUND]), ("optional", [PICTURE, SOUND]), (False, [PICTURE, SOUND]),
    )] == [0, 1, 1, 0]  # fmt: skip


NEVER = Sight(starting_s=4.1, frameless_s=4.1, soundless_s=2.1)
RECORDS = Sight(starting_s=60, recording_s=58, blocks=200, frames=1500, soundless_s=0.4, has_sounded=True)
BOTH_STALL = RECORDS.replaced(frameless_s=7.1, soundless_s=7.5)


@pytest.mark.parametrize(
    ("sight", "port", "kind"),
    [
        (NEVER, TOGETHER, NO_SOUND),
        (NEVER.replaced(soundless_s=1.9), TOGETHER, ""),
        # Frames are counted once the sound has begun; none is watched where none is recorded.
        (NEVER.replaced(blocks=1), TOGETHER, ""),
        (NEVER.replaced(has_sounded=True), TOGETHER, ""),
        (NEVER.replaced(soundless_s=None), TOGETHER, ""),
        (NEVER, NEEDED, ""),
        (NEVER.replaced(starting_s=30.1), NEEDED, NO_FRAME),
        # It stops: the picture goes on.
        (RECORDS.replaced(soundless_s=600.0), TOGETHER, ""),
        (RECORDS.replaced(soundless_s=600.0), APART, ""),
        # An input of its own that stalls keeps FFmpeg from the picture; one for both that stalls is a stall.
        (BOTH_STALL, APART, NO_SOUND),
        (BOTH_STALL.replaced(soundless_s=2.0), APART, ""),
        # A picture that pauses for 10 s holds the sound up too, and comes back.
        (BOTH_STALL.replaced(frameless_s=5.2, soundless_s=5.9), APART, ""),
        (BOTH_STALL, TOGETHER, ""),
        (RECORDS.replaced(frameless_s=15.1, soundless_s=15.1), TOGETHER, STALLED),
        (Sight(starting_s=6.0, frameless_s=6.0, opening_s=5.1), APART, NO_SOUND),
        (Sight(starting_s=6.0, frameless_s=6.0, opening_s=4.9), APART, ""),
    ],
)
def test_what_ffmpeg_is_ended_for(sight: Sight, port: Options, kind: str) -> None:
    fault = find_fault(sight, port)
    assert (fault.kind if fault else "") == kind
    if kind == NO_FRAME:
        assert fault is not None and "waits for the sound" in fault.text


# [error] Error setting option time_base to value 1/0.
UNREADABLE = Ended(Cause("crash", RETRY, "FFmpeg exited with 1"), was_silent=True)
REFUSED = Ended(Cause("network", RETRY, "network: Connection refused"), lacks_input=True)


@pytest.mark.parametrize(
    ("ended", "port", "step"),
    [
        (Ended(Cause("no sound", RETRY, ""), fault=Fault(NO_SOUND, "")), TOGETHER, GO_ON_WITHOUT_AUDIO),
        (REFUSED, APART, GO_ON_WITHOUT_AUDIO),
        (REFUSED, options(True, PICTURE, SOUND), EXIT_FOR_RETRY),
        (REFUSED.replaced(lacks_input=False), APART, EXIT_FOR_RETRY),
        (UNREADABLE, TOGETHER, GO_ON_WITHOUT_AUDIO),
        (UNREADABLE, NEEDED, EXIT_FOR_RETRY),
        (UNREADABLE.replaced(frames=25), TOGETHER, EXIT_FOR_RETRY),
        (UNREADABLE.replaced(was_silent=False), TOGETHER, EXIT_FOR_RETRY),
        (UNREADABLE.replaced(cause=Cause("disk full", RETRY, "")), TOGETHER, EXIT_FOR_RETRY),
    ],
)
def test_what_an_end_leads_to(ended: Ended, port: Options, step: str) -> None:
    assert decide(Situation(now=9.0, phase="ended", sight=Sight(), ended=ended), port).step == step


@pytest.mark.parametrize(
    ("sight", "words"),
    [
        (RECORDS, ""),
        (RECORDS.replaced(soundless_s=5.5), "no sound for 6 s"),
        # An HLS segment brings both at once, and then nothing for 10 s.
        (RECORDS.replaced(soundless_s=9.0, frameless_s=8.5), ""),
        (RECORDS.replaced(soundless_s=None), ""),
        (NEVER, "no sound has come for 2 s, and the picture waits for it"),
        (NEVER.replaced(soundless_s=1.0), ""),
    ],
)
def test_what_is_said_of_the_sound(sight: Sight, words: str) -> None:
    assert sound_remark(sight) == words


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("Stream #0:1 -> #0:1 (aac (native) -> aac (native))", True),
        ("Stream #1:0 -> #0:1 (pcm_s24le (native) -> aac (native))", True),
        ("Stream #0:0 -> #0:0 (h264 (native) -> h264 (libx264))", False),
        ("Stream #0:1: Audio: aac (LC), 48000 Hz, stereo, fltp", False),
    ],
)
def test_that_sound_is_recorded_is_read_from_the_log(text: str, is_one: bool) -> None:
    assert is_sound_mapping(text) is is_one


@pytest.mark.parametrize("ffmpeg", FFMPEG_PROGRAMS)
@pytest.mark.parametrize(("channels", "tracks"), [(2, "2"), (6, "2 2 2"), (7, "2 2 2 1"), (8, "2 2 2 2")])
def test_each_channel_keeps_what_it_carries(ffmpeg: str, channels: int, tracks: str, tmp_path: Path) -> None:
    """AAC takes the fourth of six and more channels for that of the low frequencies: -91 dB remain of 5 kHz."""
    source = {"kind": "videomaster", "audio_channels": channels}
    port = parse_settings([("x", {"appliance": {"ports": 1}, "defaults": {"source": source}})]).ports[0]
    words = build_ffmpeg_arguments(port, ffmpeg, FFMPEGS["7.1"])
    sound = words[words.index("yuv420p") + 1 : words.index("-movflags")]
    tone = f"aevalsrc={'|'.join(['0.5*sin(2*PI*5000*t)'] * channels)}:c={channels}c:s=48000:d=1"
    made = tmp_path / "tone.mkv"
    subprocess.run([ffmpeg, "-v", "error", "-f", "lavfi", "-i", tone, *sound, made], check=True, timeout=60)
    found = probe(made, "stream=channels").replace("\n", " ").strip()
    assert found == tracks
    for track, count in enumerate(found.split()):
        for channel in range(int(count)):
            heard = ["-map", f"0:a:{track}", "-af", f"pan=mono|c0=c{channel},highpass=f=4000,volumedetect"]
            told = subprocess.run(
                [ffmpeg, "-i", made, *heard, "-f", "null", "-"], capture_output=True, text=True, check=True, timeout=60
            )
            (volume_db,) = re.findall(r"mean_volume: (-?[0-9.]+) dB", told.stderr)
            assert float(volume_db) > -15, (track, channel)


def probe(file: Path, entries: str) -> str:
    words = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", str(file)]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
