"""How well a recording goes, with time as a parameter."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.runner.decide import NO_FRAME_S, NO_GROWTH_S, describe_media
from sdisup.runner.meter import WINDOW_S, Meter, Rate

# Zero is a time like any other, also where a value might be taken for "never".
STARTS = pytest.mark.parametrize("start", [0.0, 1000.0])


def grown_late_s(meter: Meter) -> float:
    """For how long the file had not grown when it was looked at last."""
    return meter.growthless_s(1000.0) - meter.look_s(1000.0)


def state(meter: Meter, now: float) -> tuple[str, str]:
    return describe_media(meter.sight(now))


def recording(start: float) -> Meter:
    """A meter of a recording that began at `start`, with one frame and one byte."""
    meter = Meter(start)
    meter.progress(start, 1, 0, 0, 1.0)
    meter.media(start)
    meter.size(start, 1)
    return meter


def test_a_copy_begins_with_its_first_picture_and_not_with_its_sound() -> None:
    meter = Meter(0.0, 25.0, is_copied=True)
    meter.media(1.0)
    assert (meter.first_media_at, state(meter, 2.0)) == (None, ("starting", ""))
    meter.progress(3.0, 5, 0, 0, 1.0)
    assert meter.first_media_at == 3.0
    assert state(meter, 3.0) == ("recording", "")


# ---- Rates ----


def test_a_rate_needs_two_points() -> None:
    rate = Rate()
    assert rate.per_second(5.0) == 0.0
    rate.add(5.0, 100)
    assert rate.per_second(5.0) == 0.0
    rate.add(6.0, 125)
    assert rate.per_second(6.0) == 25.0


def test_a_rate_is_of_the_last_seconds() -> None:
    rate = Rate()
    for tenth in range(1000):
        rate.add(tenth / 10, tenth * 10)
    for tenth in range(1000, 1050):
        rate.add(tenth / 10, 10_000 + (tenth - 1000))
    assert rate.per_second(104.9) == pytest.approx(10.0)


def test_a_rate_falls_to_nothing_when_nothing_is_added() -> None:
    rate = Rate()
    rate.add(0.0, 0)
    rate.add(1.0, 25)
    assert rate.per_second(1.0 + WINDOW_S) == 25.0
    assert rate.per_second(1.0 + WINDOW_S + 0.01) == 0.0


def test_two_points_at_one_moment_are_no_division_by_zero() -> None:
    rate = Rate()
    rate.add(1.0, 0)
    rate.add(1.0, 25)
    assert rate.per_second(1.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10**18)), max_size=60))
def test_a_rate_is_never_negative_and_keeps_little(steps: list[tuple[float, int]]) -> None:
    rate = Rate()
    now = 0.0
    for step, count in steps:
        now += step
        rate.add(now, count)
        assert rate.per_second(now) >= 0.0
    assert len([at for at, _ in rate._points if at <= now - WINDOW_S]) <= 1 or len(rate._points) <= 2


# ---- Counts ----


def test_new_frames_are_counted_once() -> None:
    meter = Meter(0.0)
    assert meter.progress(1.0, 10, 0, 0, 1.0) == 10
    assert meter.progress(2.0, 10, 0, 0, 1.0) == 0
    assert meter.progress(3.0, 35, 1, 2, 1.0) == 25
    assert (meter.frames, meter.dup_frames, meter.drop_frames, meter.last_frame_at) == (35, 1, 2, 3.0)


def test_counts_never_go_back() -> None:
    meter = Meter(0.0)
    meter.progress(1.0, 10, 5, 5, 1.0)
    assert meter.progress(2.0, 0, 0, 0, None) == 0
    assert (meter.frames, meter.dup_frames, meter.drop_frames, meter.speed) == (10, 5, 5, None)
    assert meter.last_frame_at == 1.0
    meter.size(3.0, 100)
    meter.size(4.0, 50)
    assert meter.size_bytes == 100


@given(st.lists(st.integers(0, 10**18), max_size=30))
def test_the_new_frames_are_all_frames(counts: list[int]) -> None:
    meter = Meter(0.0)
    new = [meter.progress(float(at), count, 0, 0, None) for at, count in enumerate(counts)]
    assert sum(new) == meter.frames == max(counts, default=0)


def test_fps_and_bit_rate_are_those_of_the_last_seconds() -> None:
    meter = Meter(0.0)
    for second in range(20):
        meter.progress(float(second), second * 25, 0, 0, 1.0)
        meter.size(float(second), second * 1_000_000)
    assert meter.fps(19.0) == pytest.approx(25.0)
    assert meter.bitrate_mbps(19.0) == pytest.approx(8.0)
    assert (meter.fps(30.0), meter.bitrate_mbps(30.0)) == (0.0, 0.0)


# ---- States ----


@STARTS
def test_before_the_first_media_it_is_starting_whatever_is_counted(start: float) -> None:
    meter = Meter(start)
    meter.progress(start + 1, 100, 0, 0, 1.0)
    meter.size(start + 1, 1 << 30)
    assert state(meter, start + 1000) == ("starting", "")


@STARTS
def test_recording_needs_frames(start: float) -> None:
    meter = recording(start)
    now = start
    for step in range(1, 10):
        now = start + step
        meter.size(now, 1 + step)
        if step == NO_FRAME_S:
            assert state(meter, now) == ("recording", "")
        elif step > NO_FRAME_S:
            assert state(meter, now) == ("stalled", f"no new frame for {step} s")
    meter.progress(now, 2, 0, 0, 1.0)
    assert state(meter, now) == ("recording", "")


@STARTS
def test_the_same_frame_again_and_again_is_no_progress(start: float) -> None:
    meter = recording(start)
    for step in range(1, 30):
        meter.progress(start + step / 10, 1, 0, 0, 1.0)
        meter.size(start + step / 10, 1 + step)
    assert state(meter, start + 2.9)[0] == "stalled"
    assert meter.frameless_s(start + 2.9) == pytest.approx(2.9)


@STARTS
def test_recording_needs_a_file_that_grows(start: float) -> None:
    meter = recording(start)
    for step in range(1, 12):
        meter.progress(start + step / 2, 1 + step, 0, 0, 1.0)
        meter.size(start + step / 2, 1)
    assert state(meter, start + NO_GROWTH_S) == ("recording", "")
    assert state(meter, start + NO_GROWTH_S + 0.5) == ("stalled", "frames arrive, but the file has not grown for 6 s")
    meter.size(start + NO_GROWTH_S + 0.5, 2)
    assert state(meter, start + NO_GROWTH_S + 0.5)[0] == "recording"


@STARTS
def test_a_file_that_shrinks_does_not_grow(start: float) -> None:
    meter = recording(start)
    for step, size in zip(range(1, 13), itertools.cycle([500, 0]), strict=False):
        meter.progress(start + step / 2, 1 + step, 0, 0, 1.0)
        meter.size(start + step / 2, size)
    assert state(meter, start + 6.0)[0] == "stalled"


@STARTS
def test_frameless_counts_from_the_last_frame_the_first_media_or_the_start(start: float) -> None:
    meter = Meter(start)
    assert meter.frameless_s(start + 7) == 7
    meter.media(start + 4)
    assert meter.frameless_s(start + 7) == 3
    meter.progress(start + 6, 1, 0, 0, None)
    assert meter.frameless_s(start + 7) == 1


@STARTS
def test_frames_at_the_very_start_count(start: float) -> None:
    """A time of 0.0 s is a time, and not the absence of one."""
    meter = Meter(start)
    meter.progress(start, 1, 0, 0, None)
    meter.media(start + 5)
    assert meter.frameless_s(start + 7) == 7


@STARTS
def test_media_is_told_once(start: float) -> None:
    meter = recording(start)
    meter.media(start + 100)
    assert meter.first_media_at == start


@STARTS
def test_a_file_whose_size_nobody_can_tell_is_not_one_that_does_not_grow(start: float) -> None:
    """To end FFmpeg for that would cost a recording that may be good."""
    meter = recording(start)
    meter.size(start + 1, 100)
    assert grown_late_s(meter) == 0
    meter.size(start + 9, 100)
    assert grown_late_s(meter) == 8
    meter.size(start + 10, 101)
    assert grown_late_s(meter) == 0


def test_a_meter_says_of_a_slow_encoder_what_it_reaches() -> None:
    meter = Meter(0.0, 25.0)
    meter.media(0.0)
    for now, frames in ((n / 4, 5 * n) for n in range(1, 42)):
        meter.progress(now, frames, 0, 0, 0.8)
        meter.size(now, frames)
    assert state(meter, 10.25) == ("recording", "cannot keep up: 20.0 of 25 fps")


@pytest.mark.parametrize("hole_s", [1.5, 3.7])
def test_a_hole_at_the_beginning_moves_no_first_frame(hole_s: float) -> None:
    """FFmpeg writes the copies that fill it a block after the first picture behind it."""
    meter = Meter(0.0, 25.0)
    for number in range(1, 5):
        meter.progress(1.0 + number / 4, number * 25 // 4, 0, 0, 1.0)
    meter.media(1.3)
    back_at = 2.0 + hole_s
    meter.progress(back_at, 26, 0, 0, 1.0)
    assert meter.first_frame_at(back_at) == pytest.approx(1.0, abs=0.02)
