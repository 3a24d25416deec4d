"""How well a recording goes, with time as a parameter."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.meter import NO_FRAME_S, NO_GROWTH_S, WINDOW_S, Meter, Rate

# Zero is a time like any other, also where a value might be taken for "never".
STARTS = pytest.mark.parametrize("start", [0.0, 1000.0])


def recording(start: float) -> Meter:
    """A meter of a recording that began at `start`, with one frame and one byte."""
    meter = Meter(start)
    meter.progress(start, 1, 0, 0, 1.0)
    meter.media(start)
    meter.size(start, 1)
    return meter


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
    assert meter.state(start + 1000) == ("starting", "")


@STARTS
def test_recording_needs_frames(start: float) -> None:
    meter = recording(start)
    now = start
    for step in range(1, 10):
        now = start + step
        meter.size(now, 1 + step)
        if step == NO_FRAME_S:
            assert meter.state(now) == ("recording", "")
        elif step > NO_FRAME_S:
            assert meter.state(now) == ("stalled", f"no new frame for {step} s")
    meter.progress(now, 2, 0, 0, 1.0)
    assert meter.state(now) == ("recording", "")


@STARTS
def test_the_same_frame_again_and_again_is_no_progress(start: float) -> None:
    meter = recording(start)
    for step in range(1, 30):
        meter.progress(start + step / 10, 1, 0, 0, 1.0)
        meter.size(start + step / 10, 1 + step)
    assert meter.state(start + 2.9)[0] == "stalled"
    assert meter.frameless_s(start + 2.9) == pytest.approx(2.9)


@STARTS
def test_recording_needs_a_file_that_grows(start: float) -> None:
    meter = recording(start)
    for step in range(1, 12):
        meter.progress(start + step / 2, 1 + step, 0, 0, 1.0)
        meter.size(start + step / 2, 1)
    assert meter.state(start + NO_GROWTH_S) == ("recording", "")
    assert meter.state(start + NO_GROWTH_S + 0.5) == ("stalled", "frames arrive, but the file has not grown for 6 s")
    meter.size(start + NO_GROWTH_S + 0.5, 2)
    assert meter.state(start + NO_GROWTH_S + 0.5)[0] == "recording"


@STARTS
def test_a_file_that_shrinks_does_not_grow(start: float) -> None:
    meter = recording(start)
    for step, size in zip(range(1, 13), itertools.cycle([500, 0]), strict=False):
        meter.progress(start + step / 2, 1 + step, 0, 0, 1.0)
        meter.size(start + step / 2, size)
    assert meter.state(start + 6.0)[0] == "stalled"


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
    assert meter.growthless_s() == 0
    meter.size(start + 9, 100)
    assert meter.growthless_s() == 8
    meter.size(start + 10, 101)
    assert meter.growthless_s() == 0


def rate_changes(clean_s: int, kept: int, dropped: int, repeated: int) -> list[str]:
    """What is said each quarter of a second: clean at first, then so many frames in each."""
    meter = Meter(0, 24)
    frames = drops = dups = 0
    said = []
    for quarter in range(1, 4 * 60):
        is_clean = quarter <= 4 * clean_s
        frames += 6 if is_clean else kept
        drops += 0 if is_clean else dropped
        dups += 0 if is_clean else repeated
        meter.progress(quarter / 4, frames, dups, drops, 1.0)
        said.append(meter.rate_change(quarter / 4))
    return said


def test_a_signal_that_changes_to_twice_or_half_its_rate_is_told_within_seconds() -> None:
    for clean_s in (8, 30):
        double, half = rate_changes(clean_s, 6, 6, 0), rate_changes(clean_s, 6, 0, 3)
        assert set(double[: 4 * clean_s]) == set(half[: 4 * clean_s]) == {""}
        assert "dropped: the signal has more than 24 fps" in double[4 * (clean_s + 4)]
        assert "repeated: the signal has less than 24 fps" in half[4 * (clean_s + 4)]


def test_a_signal_that_was_so_from_the_start_has_not_changed() -> None:
    """Another file would be no better; and the next one would be of that kind."""
    assert set(rate_changes(0, 6, 6, 0)) | set(rate_changes(0, 6, 0, 3)) == {""}


def test_some_frames_that_are_left_out_are_no_other_rate() -> None:
    assert set(rate_changes(20, 6, 2, 0)) | set(rate_changes(20, 5, 0, 1)) == {""}
