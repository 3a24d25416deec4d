"""Sound that stops, comes late or never comes: the rules, as tables. test_runner.py has a runner that acts by them."""

from __future__ import annotations

import cmath
import subprocess
from array import array
from pathlib import Path

import pytest
from test_fixtures import FFMPEGS
from test_hold_back import FFMPEGS as FFMPEG_PROGRAMS

from sdisup.config.codecs import MUXERS
from sdisup.config.settings import Port, parse_settings
from sdisup.contract.options import OPTIONAL, REQUIRED, Options
from sdisup.control.units import runner_options
from sdisup.encode.command import build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.runner.causes import NO_FRAME, NO_SOUND, RETRY, STALLED, Cause, Fault
from sdisup.runner.command import in_pairs, is_whole_aac, sound_input, without_audio
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
from sdisup.runner.meter import Meter
from sdisup.runner.progress import cut_channels, is_sound_mapping, parse_log_line
from sdisup.runner.streams import Streams

PICTURE = ["-f", "mpegts", "-i", "tcp://camera:1"]
SOUND = ["-f", "mpegts", "-i", "tcp://desk:2"]


def custom(audio: object, *inputs: list[str]) -> Port:
    source = {"kind": "custom", "input": [word for words in inputs for word in words], "audio": audio, "rate": 25}
    return parse_settings([("x", {"appliance": {"ports": 1}, "defaults": {"source": source, "segment_s": 0}})]).ports[0]


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


# ---- Channels ----

LABELS = {3: ["3c", "2.1", "3.0"], 4: ["4c", "quad", "3.1"], 5: ["5c", "4.1"], 7: ["7c"], 8: ["8c", "7.1"],
          16: ["16c", "hexadecagonal"]}  # fmt: skip
"""FFmpeg's layouts of so many channels: unknown, and those that it would mix, or code as low frequencies."""
ALL = [("h264", {}), ("prores", {}), ("prores", {"tracks": "mono"}), ("h264", {"channels": [2, 3, 1]})]
CASES = [
    *((8, layout, codec, audio) for layout in LABELS[8] for codec, audio in ALL),
    *((16, layout, codec, audio) for layout in LABELS[16] for codec, audio in ALL[:3]),
    *((count, layout, "h264", {}) for count in (3, 4, 5, 7) for layout in LABELS[count]),
    (8, "7.1", "h264", {"tracks": "mono"}),
    (8, "7.1", "prores", {"channels": [4, 1, 8], "codec": "pcm_s16le"}),
    (16, "16c", "prores", {"channels": [16, 4, 9, 1, 2, 3, 5, 6, 7]}),
    (2, "stereo", "xdcam", {"channels": [2]}),
]
USUAL = [("7.1", 8), ("16c", 16), ("hexadecagonal", 16), ("2.1", 3), ("3c", 3), ("stereo", 2)]
CHANNEL_CASES = [pytest.param(*case, marks=[pytest.mark.slow] * ((case[1], case[0]) not in USUAL)) for case in CASES]


@pytest.mark.parametrize("ffmpeg", FFMPEG_PROGRAMS)
@pytest.mark.parametrize(("count", "layout", "codec", "audio"), CHANNEL_CASES)
def test_each_channel_comes_out_as_it_went_in(
    ffmpeg: str, count: int, layout: str, codec: str, audio: dict[str, object], tmp_path: Path
) -> None:
    """Each carries its own tone at 5 kHz, which AAC cuts off where it takes a channel for that of low frequencies."""
    source = {"kind": "videomaster", "audio_channels": count, "scan": "tff"}
    defaults = {"source": source, "codec": codec, "audio": audio, "raster": "1920x1080", "segment_s": 0}
    port = parse_settings([("x", {"appliance": {"ports": 1}, "defaults": defaults})]).ports[0]
    words = build_ffmpeg_arguments(port, ffmpeg, FFMPEGS["7.1"])
    at = [index for index, word in enumerate(words) if word == "-map"][1]
    sound = words[at : words.index("-c:a") + (4 if "-b:a" in words else 2)]
    tones = "|".join(f"0.5*sin(2*PI*{5000 + 100 * channel}*t)" for channel in range(count))
    muxer = ["-f", "matroska" if port.container == "mxf" else MUXERS[port.container]]
    made = tmp_path / f"tone.{port.container}"
    tone = ["-f", "lavfi", "-i", f"aevalsrc={tones}:c={layout}:s=48000:d=0.5"]
    subprocess.run([ffmpeg, "-v", "error", *tone, *sound, *muxer, made], check=True, timeout=60)
    wanted = [channel - 1 for channel in port.audio_channels] or list(range(count))
    wanted += [SILENT] * (8 - len(wanted)) if codec == "xdcam" else []
    assert [tone for track in heard_in(made) for tone in track] == wanted


@pytest.mark.parametrize("ffmpeg", FFMPEG_PROGRAMS)
@pytest.mark.parametrize(("layout", "count", "tracks"), [
    ("5.1", 6, 3), ("stereo", 2, 1),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("7.1", 8, 4), ("2.1", 3, 2), ("5.1(side)", 6, 3), ("mono", 1, 1), ("5.0", 5, 1),
    )),
])  # fmt: skip
def test_of_a_stream_no_channel_is_cut_off(ffmpeg: str, layout: str, count: int, tracks: int, tmp_path: Path) -> None:
    """Nobody has stated its channels: by FFmpeg's log the runner begins again in pairs where AAC would cut one off."""
    tones = "|".join(f"0.5*sin(2*PI*{5000 + 100 * channel}*t)" for channel in range(count))
    source = ["-f", "lavfi", "-i", f"aevalsrc={tones}:c={layout}:s=48000:d=0.5", "-f", "lavfi", "-i", "color=d=0.5"]
    sent, made = tmp_path / "sent.mkv", tmp_path / "made.mp4"
    encoded = ["-map", "1:v", "-map", "0:a", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "pcm_s16le"]
    subprocess.run([ffmpeg, "-v", "error", *source, *encoded, sent], check=True, timeout=60)
    words = build_ffmpeg_arguments(custom(True, ["-i", str(sent)]), ffmpeg, probe_ffmpeg(ffmpeg))
    words = [*words[:-1], str(made)]
    done = subprocess.run(words, capture_output=True, check=True, timeout=60)
    streams = Streams(words)
    for line in done.stderr.splitlines():
        streams.take(0.0, parse_log_line(line).text, Meter(0.0))
    assert streams.cut_channels == (count if tracks > 1 else 0)
    if streams.cut_channels:
        words = in_pairs(words, streams.cut_channels)
        assert not Streams(words)._is_whole_aac
        subprocess.run(words, capture_output=True, check=True, timeout=60)
    heard = heard_in(made)
    assert [tone for track in heard for tone in track] == list(range(count))
    assert len(heard) == tracks


@pytest.mark.parametrize(("layout", "channels"), [
    ("5.1", 6), ("5.1(side)", 6), ("7.1.4", 12), ("22.2", 24), ("6 channels", 6), ("16 channels", 16), ("2.1", 3),
    ("stereo", 0), ("mono", 0), ("5.0", 0), ("quad", 0), ("6.0(front)", 0), ("octagonal", 0), ("5 channels", 0),
    ("x channels", 0), ("", 0), ("1.", 0), (".1", 0), ("5.1\u0662", 0),
])  # fmt: skip
def test_of_which_layouts_aac_cuts_a_channel_off(layout: str, channels: int) -> None:
    assert cut_channels(layout) == channels


def test_only_what_is_recorded_whole_in_aac_is_split_later() -> None:
    """And all that the runner knows of a command holds for the one in pairs."""
    whole = command("optional", PICTURE)
    pairs = in_pairs(whole, 5)
    assert (is_whole_aac(whole), is_whole_aac(pairs), in_pairs(pairs, 6)) == (True, False, pairs)
    assert [word for word in pairs if "pan=" in word][-1].startswith("pan=mono|c0=c4,")
    assert pairs.count("-map") == 4
    assert without_audio(pairs, "") == without_audio(whole, "")
    for table in ({"codec": "pcm_s24le"}, {"channels": [1, 2, 3]}, {"channels": [1, 2], "tracks": "mono"}):
        defaults = {"source": {"kind": "custom", "input": PICTURE}, "audio": table, "segment_s": 0}
        port = parse_settings([("x", {"appliance": {"ports": 1}, "defaults": defaults})]).ports[0]
        words = build_ffmpeg_arguments(port, "/usr/bin/ffmpeg", FFMPEGS["7.1"])
        assert in_pairs(words, 6) == words


SILENT = -1


def heard_in(file: Path) -> list[list[int]]:
    """The tone on each channel of each track: 0 for that of 5 kHz, 1 for that of 5.1 kHz and so on."""
    counts = [int(line.strip(",")) for line in probe(file, "stream=channels").split()]
    outputs = [file.with_suffix(f".{track}") for track in range(len(counts))]
    form = ["-c:a", "pcm_s16le", "-ss", "0.2", "-t", "0.1", "-f", "s16le"]
    words = [word for track, output in enumerate(outputs) for word in ("-map", f"0:a:{track}", *form, str(output))]
    subprocess.run([FFMPEG_PROGRAMS[0], "-v", "error", "-y", "-i", file, *words], check=True, timeout=60)
    tracks = []
    for count, output in zip(counts, outputs, strict=True):
        samples = array("h", output.read_bytes())
        tracks.append([loudest_tone(samples[channel::count]) for channel in range(count)])
    return tracks


def loudest_tone(samples: array[int]) -> int:
    """The one tone that is in a channel; SILENT without any. In 0.01 s each makes whole waves."""
    levels = []
    for tone in range(16):
        wave = [cmath.exp(-2j * cmath.pi * (5000 + 100 * tone) * at / 48000) for at in range(480)]
        levels.append(abs(sum(sample * turn for sample, turn in zip(samples[:480], wave, strict=True))) / 480 / 32768)
    loud = [tone for tone, level in enumerate(levels) if level > 0.1]
    assert len(loud) < 2, levels
    return loud[0] if loud else SILENT


def probe(file: Path, entries: str) -> str:
    words = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", str(file)]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
