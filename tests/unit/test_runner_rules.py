"""The runner's pure rules: waits, what is said of a finished file, and the command for a signal without audio."""

from __future__ import annotations

import pytest

from sdisup.config.settings import Port, parse_settings
from sdisup.control.units import runner_options
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments
from sdisup.runner.causes import End, file_verdict, is_format_change
from sdisup.runner.command import with_output, with_size, without_audio
from sdisup.runner.decide import loop_wait_s, no_signal_wait_s
from sdisup.runner.memory import backoff_s
from sdisup.runner.progress import changed_size, found_size, muxer_version

CAPABLE = Capabilities("7.1", frozenset(), frozenset(), hybrid_fragmented=True)


def test_the_first_retry_comes_at_once_and_later_ones_are_capped() -> None:
    waits = [backoff_s(failures) for failures in range(40)]
    assert waits[:2] == [0, 0]
    assert waits == sorted(waits)
    assert waits[-1] == max(waits) == 10
    # After a good minute the memory says -1, and the next start reads 0.
    assert backoff_s(-1 + 1) == 0


@pytest.mark.parametrize("cpu_s", [0.0, 0.02, 0.07, 0.09, 0.5, 60.0])
def test_an_idle_input_costs_at_most_two_per_cent_of_a_core_or_is_looked_at_each_five_seconds(cpu_s: float) -> None:
    assert [no_signal_wait_s(waited, cpu_s) for waited in (0, 30, 59.9)] == [1, 1, 1]
    later_s = no_signal_wait_s(60, cpu_s)
    assert 3 <= later_s <= 5
    assert cpu_s / (later_s + cpu_s) < 0.02 or later_s == 5


@pytest.mark.parametrize("cpu_s", [0.0, 0.03, 0.08, 0.0974, 0.2, 0.999, 1.0, 60.0])
def test_a_crash_loop_waits_longer_where_ffmpeg_is_slow_to_fail_but_never_beyond_its_limit(cpu_s: float) -> None:
    """Whatever a start costs: what may record again must not wait for what it costs to find out."""
    wait_s = loop_wait_s(20, cpu_s)
    assert 10 <= wait_s <= 15
    assert cpu_s / (wait_s + cpu_s) < 0.0065 or wait_s == 15


def end(status: int = 0, *, finished: bool = True, said: str = "") -> End:
    return End(status=status, frames=25, lines=((3, said),) if said else (), finished=finished)


@pytest.mark.parametrize(
    ("how", "frames", "verdict"),
    [
        (end(0), 25, "complete"),
        (end(255), 25, "complete"),
        # A lost signal with -xerror closes the file complete (VIDEOMASTER.md 8).
        (end(251), 25, "complete"),
        # FACTS 3: all of these exit 0.
        (
            end(0, said="Error writing trailer of x.mov: No space left on device"),
            25,
            "incomplete: Error writing trailer",
        ),
        (end(0, said="[tee @ 0x55] Slave muxer #1 failed"), 25, "incomplete: "),
        (end(0, said="Error writing trailer: Connection timed out"), 25, "incomplete: "),
        # A source that timed out, or a word in a camera's name, is nothing that a file lacks.
        (end(0, said="srt://x: Connection timed out"), 25, "complete"),
        (end(255, said="[rtsp @ 0x55] session timed out"), 25, "complete"),
        (end(0, said="Error closing file: I/O"), 25, "incomplete: "),
        (end(0), 0, "empty: "),
        (end(0, finished=False), 25, "cut off: "),
        (end(-9, finished=False), 25, "cut off: FFmpeg was killed by signal 9"),
        (end(123, finished=False), 25, "cut off: FFmpeg exited with 123"),
        (end(228), 25, "incomplete: FFmpeg exited with 228"),
        # With -xerror a smaller picture ends FFmpeg with 234, and the file is complete (VIDEOMASTER.md 15).
        (end(234, said="[rawvideo @ 0x1] Invalid buffer size, packet size 9 < expected frame_size 99"), 25, "complete"),
        (end(234), 25, "incomplete: FFmpeg exited with 234"),
    ],
)
def test_a_finished_file_is_judged_by_what_ffmpeg_said_not_by_its_exit_code(
    how: End, frames: int, verdict: str
) -> None:
    assert file_verdict(how, frames).startswith(verdict)


@pytest.mark.parametrize(("codec", "count"), [("h264", 2), ("h264", 7), ("prores", 16)])
def test_a_signal_without_audio_gets_the_command_of_a_port_without_audio(codec: str, count: int) -> None:
    def port(channels: int) -> Port:
        source = {"kind": "videomaster", "audio_channels": channels}
        settings = parse_settings([("x", {"appliance": {"ports": 1}, "defaults": {"source": source, "codec": codec}})])
        return settings.ports[0]

    with_sound, silent = (build_ffmpeg_arguments(port(channels), "/usr/bin/ffmpeg", CAPABLE) for channels in (count, 0))
    audio_options = runner_options(port(count), with_sound, "", "").audio_options
    assert without_audio(with_sound, audio_options) == silent
    assert without_audio(silent, audio_options) == silent
    assert runner_options(port(0), silent, "", "").audio_options == ""


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("[rawvideo @ 0x1] Invalid buffer size, packet size 414720 < expected frame_size 4147200", True),
        ("Reconfiguring filter graph because video parameters changed to yuv420p(tv), 640x480", False),
        ("Changing video frame properties on the fly is not supported by all filters", True),
        ("Reconfiguring filter graph because audio parameters changed to 48000 Hz", False),
        ("frame=  100 fps= 25", False),
    ],
)
def test_a_changed_format_is_known_by_ffmpegs_words(text: str, is_one: bool) -> None:
    assert is_format_change(text) is is_one


@pytest.mark.parametrize(
    ("text", "found", "changed"),
    [
        ("Stream #0:0: Video: h264, yuv420p(tv, progressive), 160x90 [SAR 1:1 DAR 16:9], 25 fps", "160x90", ""),
        ("Stream #0:0: Video: prores (apcs / 0x73637061), yuv422p10le, 1920x1080, q=2-31, 25 fps", "1920x1080", ""),
        ("Stream #0:1: Audio: aac (LC), 48000 Hz, stereo", "", ""),
        ("[vf#0:0 @ 0x55] Reconfiguring filter graph because video parameters changed to yuv420p(tv, unknown), 320x180",
         "", "320x180"),
        ("[vf#0:0 @ 0x55] Reconfiguring filter graph because hwaccel changed", "", ""),
        ("Reconfiguring filter graph because audio parameters changed to 48000 Hz", "", ""),
    ],
)  # fmt: skip
def test_a_size_is_read_from_the_log(text: str, found: str, changed: str) -> None:
    assert (found_size(text), changed_size(text)) == (found, changed)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("encoder         : Lavf61.7.103", "Lavf61.7.103"),
        ("encoder         : Lavc61.19.101 libx264", ""),
        ("encoder", ""),
        ("Stream #0:0: Video: h264", ""),
    ],
)
def test_the_muxers_version_is_read_from_the_log(text: str, version: str) -> None:
    assert muxer_version(text) == version


def test_a_file_is_given_a_size_that_its_encoder_takes_and_no_interlaced_one() -> None:
    assert with_size(["ffmpeg", "-vf", "crop=2:2", "{output}"], "641x361")[-3:] == ["-s", "640x360", "{output}"]
    interlaced = ["ffmpeg", "-vf", "crop=2:2,setfield=tff,scale=interl=1", "{output}"]
    assert with_size(interlaced, "640x360") == interlaced


def test_the_muxer_is_named_where_the_output_is_a_descriptor() -> None:
    words = ["ffmpeg", "-f", "lavfi", "-i", "x", "-c:v", "ffv1", "{output}"]
    made = with_output(words, "mkv", "/proc/self/fd/3")
    assert made == ["ffmpeg", "-f", "lavfi", "-i", "x", "-c:v", "ffv1", "-f", "matroska", "/proc/self/fd/3"]
    named = [*words[:-1], "-f", "mov", "-s", "640x360", "{output}", "-f", "null", "-"]
    assert with_output(named, "mov", "X") == ["X" if word == "{output}" else word for word in named]
    assert with_output(["ffmpeg", "{output}"], "mp4", "X") == ["ffmpeg", "-f", "mp4", "X"]
