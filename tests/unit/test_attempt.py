"""What an attempt hands over for its end to be explained."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdisup.contract.options import ENDS, Options
from sdisup.runner.attempt import Attempt

LOST = "[videomaster @ 0x5581d2b0c0c0] Timeout while waiting for slot lock"


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    """One that never begins an FFmpeg: nobody takes its disk's events."""
    options = Options(
        ["/bin/false", "{output}"],
        port=0, name="CAM0", codec="h264", container="mkv", source="videomaster", input="board 0 channel 0",
        without_signal=ENDS, audio_options="", recordings=str(tmp_path), revision="r1", filesystem="", rate=25.0,
        stall_timeout_s=12.0, start_timeout_s=30.0, sync_interval_s=0.1, stop_quit_s=12.0, stop_start_quit_s=22.0,
        stop_term_s=2.0,
    )  # fmt: skip
    made = Attempt(options, str(tmp_path), 0.0, select.poll(), lambda: None, lambda *_: None)
    yield made
    made.newest.thread.finish()


@pytest.mark.parametrize(
    ("said_at", "ending_since", "ended_at", "counts"),
    [
        (110.0, None, 110.1, True),
        (110.0, None, 124.9, True),
        (110.0, None, 125.1, False),
        # The cable was pulled at 100: judged at 112, deaf to `q` for 12 s and to SIGTERM for 2, then closed.
        (110.0, 112.0, 127.0, True),
        (98.0, 112.0, 127.0, True),
        (96.0, 112.0, 127.0, False),
        (120.0, 112.0, 127.0, True),
    ],
)
def test_what_ffmpeg_said_before_it_was_to_end_explains_its_end(
    attempt: Attempt, said_at: float, ending_since: float | None, ended_at: float, counts: bool
) -> None:
    attempt._lines.append((said_at, 3, LOST))
    if ending_since is not None:
        attempt.wind_down(ending_since)
        attempt.wind_down(ending_since + 10)
    assert attempt.end(ended_at).lines == (((3, LOST),) if counts else ())


def told(attempt: Attempt, text: str) -> Attempt:
    """An attempt that got these words from FFmpeg, and its first frame before."""
    attempt.meter.media(1.0)
    attempt._take_records(attempt._parser.feed(text.encode()), 2.0)
    return attempt


END = "frame={}\nfps=25\nspeed=1x\nprogress=end\n"


@pytest.mark.parametrize(
    ("said", "is_empty"),
    [
        (END.format(0), True),
        ("frame=0\nspeed=N/A\nprogress=continue\n" + END.format(0), True),
        # All of these once removed a recording, or might have.
        (END.format("N/A"), False),
        ("progress=end\n", False),
        ("speed=1x\nprogress=end\n", False),
        ("frame=N/A\nspeed=1x\nprogress=continue\n" + END.format("N/A"), False),
        ("frame=0\nspeed=N/A\nprogress=continue\n" + END.format("N/A"), False),
        ("frame=50\nspeed=1x\nprogress=continue\n" + END.format(0), False),
        (END.format(0) + "frame=1\nspeed=1x\nprogress=continue\n", False),
        ("[info] title=a\nframe=0\n[info] comment=b\nprogress=end\n", False),
    ],
)
def test_a_recording_is_removed_only_where_ffmpeg_counted_no_frame(attempt: Attempt, said: str, is_empty: bool) -> None:
    assert told(attempt, said)._has_counted_none() is is_empty


def test_an_end_that_is_followed_by_a_block_was_none(attempt: Attempt) -> None:
    assert told(attempt, END.format(50)).end(2.0).finished
    assert not told(attempt, "frame=51\nspeed=1x\nprogress=continue\n").end(2.0).finished


def test_a_count_that_cannot_be_true_is_not_counted(attempt: Attempt) -> None:
    for frames in (40, 10**15, 47):
        told(attempt, f"frame={frames}\nspeed=1x\nprogress=continue\n")
    assert attempt.meter.frames == 47


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [
        (["853x480"], "852x480", "853x480 is recorded as 852x480, which its codec takes"),
        (["720x486"], "720x484", "720x486 is recorded as 720x484, which its codec takes"),
        (["1920x1080", "853x481"], "852x480", "853x481 is recorded as 852x480, which its codec takes"),
        (["1920x1080"], "1920x1080", ""),
        (["1921x1080", "1920x1080"], "1920x1080", ""),
        (["1920x1080"], "640x360", ""),
        ([], "640x360", ""),
    ],
)
def test_a_picture_that_is_cut_is_said(attempt: Attempt, inputs: list[str], output: str, said: str) -> None:
    lines = [f"[info]   Stream #0:{at}: Video: rawvideo (I420 / 0x30323449), yuv420p, {size} [SAR 1:1 DAR 16:9], 25 tbr"
             for at, size in enumerate(inputs)]  # fmt: skip
    lines += ["[info] Output #0, matroska, to 'x':", f"[info]   Stream #0:0: Video: h264, yuv420p, {output}, q=2-31"]
    lines += ["[info]   Stream #0:1: Audio: aac (LC), 48000 Hz, stereo, fltp, 192 kb/s"]
    told(attempt, "\n".join(lines) + "\n")
    assert attempt.streams.cropped == said
