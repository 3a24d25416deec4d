"""How well a recording goes, with time as a parameter."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.runner.decide import NO_FRAME_S, NO_GROWTH_S, describe_media
from sdisup.runner.meter import DRIFT, PACE_S, WINDOW_S, Deficit, Meter, Rate

# Zero is a time like any other, also where a value might be taken for "never".
STARTS = pytest.mark.parametrize("start", [0.0, 1000.0])


def grown_late_s(meter: Meter) -> float:
    """For how long the file had not grown when it was looked at last."""
    return meter.growthless_s(1000.0) - meter.look_s(1000.0)


def state(meter: Meter, now: float) -> tuple[str, str]:
    return describe_media(meter.sight(now), meter.rate)


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


# ---- What a source owes ----


def owed(rate: float, counts: list[tuple[float, int]]) -> Deficit:
    """A deficit that was told these counts at these times."""
    deficit = Deficit(rate)
    for now, frames in counts:
        deficit.add(now, frames)
    return deficit


def at_rate(fps: float, seconds: float, begin: float = 0.0, frames: int = 0) -> list[tuple[float, int]]:
    """A block each quarter of a second, `begin` itself left out."""
    return [(begin + n / 4, frames + int(fps * n / 4)) for n in range(1, int(seconds * 4) + 1)]


@pytest.mark.parametrize("rate", [10.0, 25.0, 30000 / 1001, 60.0])
def test_a_source_at_its_rate_owes_nothing(rate: float) -> None:
    deficit = owed(rate, at_rate(rate, 3600))
    assert (deficit.frames, deficit.pace_fps) == (0, None)


@pytest.mark.parametrize(("fps", "missing"), [(12.5, 125), (20.0, 50), (0.5, 245)])
def test_a_source_below_its_rate_is_seen_and_counted_after_ten_seconds(fps: float, missing: int) -> None:
    counts = at_rate(fps, PACE_S + 0.25)
    before = owed(25.0, counts[:-1])
    assert (before.frames, before.pace_fps) == (0, None)
    deficit = owed(25.0, counts)
    assert deficit.frames == pytest.approx(missing, abs=2)
    assert deficit.pace_fps == pytest.approx(fps, abs=0.1)


@given(st.floats(1, 60), st.floats(0.1, 0.9), st.integers(30, 600))
def test_what_is_missing_is_what_did_not_come(rate: float, share: float, seconds: int) -> None:
    counts = at_rate(rate * share, seconds)
    deficit = owed(rate, counts)
    (first_at, first), (last_at, last) = counts[0], counts[-1]
    missing = rate * (last_at - first_at) - (last - first)
    # Of the last step, which may not be over, nothing is known yet; a little is forgiven.
    tolerance = max(4.0, rate * 0.4)
    assert missing - rate * (PACE_S + 0.5) - tolerance - 1 <= deficit.frames <= missing + 1


def test_what_was_slow_and_is_no_longer_remains_counted_and_is_no_longer_said() -> None:
    slow = at_rate(12.5, 20.25)
    again = at_rate(25.0, 60, *slow[-1])
    deficit = owed(25.0, slow + again)
    assert deficit.frames == pytest.approx(250, abs=4)
    assert deficit.pace_fps is None


def test_frames_that_were_missing_and_come_late_do_not_take_back_what_was_counted() -> None:
    """What was owed for more than a step stays counted; but what came late is not owed a second time."""
    slow = at_rate(12.5, 40.25)
    frames = [owed(25.0, slow + at_rate(50.0, seconds, *slow[-1])).frames for seconds in (1, 10, 20, 40)]
    assert frames[0] == pytest.approx(500, abs=4)
    assert frames[1:] == [pytest.approx(375, abs=4)] * 3


def test_what_came_before_the_first_block_does_not_count() -> None:
    """A start that took its time: the meter begins with the first frames that it hears of, however late and many."""
    for begin, frames in ((0.0, 1), (30.0, 1), (5.0, 400)):
        deficit = owed(25.0, [(begin, frames), *at_rate(25.0, 60, begin, frames)])
        assert (deficit.frames, deficit.pace_fps) == (0, None)


def test_frames_ahead_of_their_time_do_not_pay_for_later_ones() -> None:
    """A burst at the start is a buffer that is emptied: what is missing after it is missing."""
    burst = [(0.0, 1), *at_rate(25.0, 20, 0.0, 500)]
    assert owed(25.0, burst).frames == 0
    slow = at_rate(12.5, 20.25, *burst[-1])
    assert owed(25.0, burst + slow).frames == pytest.approx(250, abs=12)


@pytest.mark.parametrize("begin", [15.0, 19.5, 20.0, 20.25])
def test_a_hiccup_that_is_made_up_is_not_counted(begin: float) -> None:
    """A second without frames, wherever it falls in a step, and then those of the second at once."""
    before = at_rate(25.0, begin)
    now, frames = before[-1]
    deficit = owed(25.0, [*before, (now + 1.0, frames + 25), *at_rate(25.0, 60, now + 1.0, frames + 25)])
    assert (deficit.frames, deficit.pace_fps) == (0, None)


def test_a_block_that_is_late_by_little_owes_nothing() -> None:
    """What it lacks the next one has, also where a step ends between the two."""
    late = [(now, frames - 8 if now == 20.25 else frames) for now, frames in at_rate(25.0, 60)]
    deficit = owed(25.0, late)
    assert (deficit.frames, deficit.pace_fps) == (0, None)


@pytest.mark.parametrize("hiccup_s", [0.5, 1.0, 2.0])
def test_a_hiccup_is_not_counted_whose_frames_come_one_block_after_its_end(hiccup_s: float) -> None:
    """An FFmpeg that was blocked tells of one new frame at once, and of those that it catches up with later."""
    counts = at_rate(25.0, 20.0)
    now, frames = counts[-1][0] + hiccup_s, counts[-1][1]
    counts += [(now, frames + 1), *at_rate(25.0, 60, now, frames + int(25 * hiccup_s))]
    assert owed(25.0, counts).frames == 0


def test_a_second_that_is_not_made_up_is_counted_once() -> None:
    before = at_rate(25.0, 15.0)
    now, frames = before[-1]
    after = at_rate(25.0, 600, now + 1.0, frames)
    assert owed(25.0, before + after).frames == pytest.approx(25, abs=2)


def test_a_loss_below_the_tolerance_is_not_counted_until_it_adds_up() -> None:
    """Five frames lost in each minute: not seen in the first, and all but the tolerance's in the end."""
    counts: list[tuple[float, int]] = []
    for minute in range(30):
        counts += at_rate(25.0, 60, 60.0 * minute, 1495 * minute)
    assert owed(25.0, counts[: 4 * 60]).frames == 0
    deficit = owed(25.0, counts)
    # Of each minute 0.3 frames are forgiven as drift.
    assert deficit.frames == pytest.approx(29 * 5 - 9, abs=10)


@pytest.mark.parametrize("ppm", [-100, 100])
def test_a_clock_that_differs_by_100_ppm_owes_nothing_in_a_month(ppm: int) -> None:
    fps = 25.0 * (1 + ppm / 1e6)
    deficit = owed(25.0, [(float(s), int(fps * s)) for s in range(0, 30 * 86400, 10)])
    assert (deficit.frames, deficit.pace_fps) == (0, None)


def test_a_source_slower_by_more_than_clocks_differ_owes_frames_in_a_day() -> None:
    """0.1 % is 86 s a day: no clock's doing, and too little to be said of the moment."""
    fps = 25.0 * 0.999
    deficit = owed(25.0, [(float(s), int(fps * s)) for s in range(0, 86400, 10)])
    assert deficit.frames == pytest.approx(25 * 86400 * (0.001 - DRIFT), rel=0.02)
    assert deficit.pace_fps is None


def test_of_a_source_whose_rate_is_unknown_nothing_is_owed() -> None:
    deficit = owed(0.0, at_rate(1.0, 600))
    assert (deficit.frames, deficit.pace_fps) == (0, None)


@given(st.floats(1, 60), st.lists(st.tuples(st.floats(10.001, 60), st.integers(0, 3000)), max_size=60))
def test_what_is_missing_for_two_steps_stays_so(rate: float, steps: list[tuple[float, int]]) -> None:
    deficit, now, frames, before, sure = Deficit(rate), 0.0, 0, 0, 0
    for step, new in steps:
        now, frames = now + step, frames + new
        deficit.add(now, frames)
        sure = max(sure, min(before, deficit.frames))
        assert deficit.frames >= sure
        assert deficit.pace_fps is None or 0 <= deficit.pace_fps < rate
        before = deficit.frames


def test_a_meter_says_of_a_slow_encoder_what_it_reaches() -> None:
    meter = Meter(0.0, 25.0)
    meter.media(0.0)
    for now, frames in at_rate(20.0, PACE_S + 0.5):
        meter.progress(now, frames, 0, 0, 0.8)
        meter.size(now, frames)
    assert state(meter, PACE_S + 0.5) == ("recording", "cannot keep up: 20.0 of 25 fps")


# ---- Frames that are left out ----


def dropping(rate: float, kept: int, dropped: int, seconds: float, clean_s: float = 10.0) -> Meter:
    """A meter after `clean_s` without and `seconds` with so many frames dropped for each `kept`, a quarter each."""
    meter = Meter(0.0, rate)
    frames = drops = 0
    for quarter in range(1, int((clean_s + seconds) * 4) + 1):
        frames += kept
        drops += dropped if quarter > clean_s * 4 else 0
        meter.progress(quarter / 4, frames, 0, drops, 1.0)
    return meter


@pytest.mark.parametrize(
    ("kept", "dropped", "is_half"), [(6, 6, True), (6, 5, True), (6, 3, False), (6, 1, False), (6, 0, False)]
)
def test_half_of_the_frames_are_dropped_when_it_is_about_half(kept: int, dropped: int, is_half: bool) -> None:
    assert dropping(24.0, kept, dropped, 30).drops_half(40.0) is is_half


def test_half_of_the_frames_are_dropped_only_after_seconds_of_it() -> None:
    said = [dropping(24.0, 6, 6, quarters / 4).drops_half(10.0 + quarters / 4) for quarters in range(17)]
    assert said[:12] == [False] * 12
    assert said[16] is True


def test_a_burst_of_dropped_frames_is_not_half_of_them() -> None:
    for burst in (24, 76):
        meter = dropping(24.0, 6, 0, 0)
        meter.progress(10.25, 246, 0, burst, 1.0)
        assert not meter.drops_half(10.25)
    # All of it within the window is a rate above the limit, and is over when the window is.
    meter.progress(10.5, 252, 0, 200, 1.0)
    assert meter.drops_half(10.5)
    for quarter in range(1, 20):
        meter.progress(10.5 + quarter / 4, 252 + 6 * quarter, 0, 200, 1.0)
    assert not meter.drops_half(15.25)


def test_of_a_source_whose_rate_is_unknown_half_is_unknown() -> None:
    assert not dropping(0.0, 6, 6, 30).drops_half(40.0)
