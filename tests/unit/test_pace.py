"""Pictures against the clock: what is missing, since when, why, and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdisup.ledger.spool import SOURCE_LOSES
from sdisup.runner.pace import (
    DRIFT,
    JUMPED,
    SIGNAL_LOST,
    STANDARD_RATES,
    STEP_S,
    Deficit,
    Hole,
    Pace,
    exact_rate,
)

# ---- What the clock owes ----


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
    assert deficit.frames == 0


@pytest.mark.parametrize(("fps", "missing"), [(12.5, 125), (20.0, 50), (0.5, 245)])
def test_a_source_below_its_rate_is_seen_and_counted_after_ten_seconds(fps: float, missing: int) -> None:
    counts = at_rate(fps, STEP_S + 0.25)
    before = owed(25.0, counts[:-1])
    assert before.frames == 0
    deficit = owed(25.0, counts)
    assert deficit.frames == pytest.approx(missing, abs=2)


@given(st.floats(1, 60), st.floats(0.1, 0.9), st.integers(30, 600))
def test_what_is_missing_is_what_did_not_come(rate: float, share: float, seconds: int) -> None:
    counts = at_rate(rate * share, seconds)
    deficit = owed(rate, counts)
    (first_at, first), (last_at, last) = counts[0], counts[-1]
    missing = rate * (last_at - first_at) - (last - first)
    # Of the last step, which may not be over, nothing is known yet; a little is forgiven.
    tolerance = max(4.0, rate * 0.4)
    assert missing - rate * (STEP_S + 0.5) - tolerance - 1 <= deficit.frames <= missing + 1


def test_what_was_slow_and_is_no_longer_remains_counted() -> None:
    slow = at_rate(12.5, 20.25)
    again = at_rate(25.0, 60, *slow[-1])
    deficit = owed(25.0, slow + again)
    assert deficit.frames == pytest.approx(250, abs=4)


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
        assert deficit.frames == 0


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
    assert deficit.frames == 0


def test_a_block_that_is_late_by_little_owes_nothing() -> None:
    """What it lacks the next one has, also where a step ends between the two."""
    late = [(now, frames - 8 if now == 20.25 else frames) for now, frames in at_rate(25.0, 60)]
    deficit = owed(25.0, late)
    assert deficit.frames == 0


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
    assert deficit.frames == 0


def test_a_source_slower_by_more_than_clocks_differ_owes_frames_in_a_day() -> None:
    """0.1 % is 86 s a day: no clock's doing, and too little to be said of the moment."""
    fps = 25.0 * 0.999
    deficit = owed(25.0, [(float(s), int(fps * s)) for s in range(0, 86400, 10)])
    assert deficit.frames == pytest.approx(25 * 86400 * (0.001 - DRIFT), rel=0.02)


def test_of_a_source_whose_rate_is_unknown_nothing_is_owed() -> None:
    deficit = owed(0.0, at_rate(1.0, 600))
    assert deficit.frames == 0


@given(st.floats(1, 60), st.lists(st.tuples(st.floats(10.001, 60), st.integers(0, 3000)), max_size=60))
def test_what_is_missing_for_two_steps_stays_so(rate: float, steps: list[tuple[float, int]]) -> None:
    deficit, now, frames, before, sure = Deficit(rate), 0.0, 0, 0, 0
    for step, new in steps:
        now, frames = now + step, frames + new
        deficit.add(now, frames)
        sure = max(sure, min(before, deficit.frames))
        assert deficit.frames >= sure
        before = deficit.frames


# ---- Frames, copies and drops ----

Block = tuple[float, int, int, int]
"""Seconds; frames, copies among them, drops, all since FFmpeg's start."""


class Feed:
    """FFmpeg's progress blocks, one each quarter of a second, and what a pace makes of them."""

    def __init__(self, rate: float = 25.0, *, is_stated: bool = True, is_copied: bool = False) -> None:
        self.pace = Pace(rate, SIGNAL_LOST, is_stated=is_stated, is_copied=is_copied)
        self.now = 0.0
        self.frames = self.copies = self.drops = 0.0
        self.said: list[str] = []
        self.jumps: list[str] = []
        self.holes: list[Hole] = []

    def block(self, frames: float = 0.0, copies: float = 0.0, drops: float = 0.0, after_s: float = 0.25) -> Feed:
        """So many pictures, copies and drops more, that long after the block before."""
        self.now += after_s
        self.frames, self.copies, self.drops = self.frames + frames + copies, self.copies + copies, self.drops + drops
        self.pace.add(self.now, self.now, int(self.frames), int(self.copies), int(self.drops))
        for found, seen in ((self.said, self.pace.remark), (self.jumps, self.pace.jump(self.now))):
            if seen and seen not in found[-1:]:
                found.append(seen)
        self.holes += self.pace.holes
        self.pace.holes.clear()
        return self

    def run(self, seconds: float, fps: float | None = None, copies: float = 0.0, drops: float = 0.0) -> Feed:
        """So many pictures, copies and drops a second for so long."""
        fps = self.pace.rate if fps is None else fps
        for _ in range(round(seconds * 4)):
            self.block(fps / 4, copies / 4, drops / 4)
        return self

    def silence(self, seconds: float) -> Feed:
        """Blocks that stand still."""
        return self.run(seconds, 0.0)

    def pull(self, seconds: float) -> Feed:
        """A cable that is out for so long: all the copies come at once, with the first picture."""
        return self.silence(seconds).block(self.pace.rate / 4, seconds * self.pace.rate)

    def missing(self) -> int:
        self.pace.finish()
        self.holes += self.pace.holes
        self.pace.holes.clear()
        return self.pace.missing

    def is_clean(self) -> bool:
        return not (self.missing() or self.said or self.jumps or self.holes)


def test_what_was_buffered_at_the_start_offsets_nothing_that_is_missing_later() -> None:
    feed = Feed().block(1).block(39).block(40).block(40).block(20)
    assert feed.pace.is_in_first_burst
    feed.run(0.5)
    assert not feed.pace.is_in_first_burst
    assert feed.run(7, 7.5).missing() == pytest.approx(7 * 17.5, abs=5)


def test_copies_among_what_was_buffered_are_lost_pictures() -> None:
    feed = Feed().block(1).block(30, 13).block(30, 13).run(60)
    assert feed.missing() == 26


@pytest.mark.parametrize("rate", STANDARD_RATES)
def test_a_source_at_its_rate_is_clean(rate: float) -> None:
    assert Feed(rate).run(600).is_clean()


@pytest.mark.parametrize(("fps", "copies", "said"), [
    (17.5, 7.5, "the source delivers 17.5 of 25 fps"),
    (12.5, 12.5, "the source delivers 12.5 of 25 fps"),
    (23.75, 1.25, "the source delivers 23.8 of 25 fps"),
    (7.5, 0.0, "cannot keep up: 7.5 of 25 fps"),
])  # fmt: skip
def test_lost_pictures_are_said_and_counted(fps: float, copies: float, said: str) -> None:
    feed = Feed().run(61, fps, copies)
    assert said in feed.said
    assert {re.sub("[0-9.]+", "N", text, count=1) for text in feed.said} == {re.sub("[0-9.]+", "N", said, count=1)}
    assert feed.missing() == pytest.approx((25 - fps) * 61, rel=0.05)
    assert feed.pace.repeated == (0 if not copies else feed.pace.missing)
    assert feed.pace.repeated_cause == SOURCE_LOSES
    assert feed.jumps == []
    assert feed.holes == []


def test_lost_pictures_are_said_within_ten_seconds() -> None:
    assert "the source delivers 17." in Feed().run(10, 17.5, 7.5).said[0]
    assert Feed().run(120).run(4, 12.5, 12.5).said != []


def test_what_is_over_is_no_longer_said_and_remains_counted() -> None:
    feed = Feed().run(30, 17.5, 7.5).run(80)
    assert feed.pace.remark == ""
    assert feed.missing() == pytest.approx(225, rel=0.05)


@pytest.mark.parametrize(("rate", "signal", "said"), [
    (25.0, 30000 / 1001, "the source delivers 29.97 fps; 25 are recorded"),
    (25.0, 50.0, "the source delivers 50 fps; 25 are recorded"),
    (50.0, 25.0, "the source delivers 25.0 of 50 fps"),
    (30000 / 1001, 25.0, "the source delivers 25.0 of 29.97 fps"),
    (25.0, 24000 / 1001, "the source delivers 24.0 of 25 fps"),
])  # fmt: skip
def test_a_rate_that_is_stated_wrong_is_one_remark_with_both(rate: float, signal: float, said: str) -> None:
    feed = Feed(rate).run(90, min(signal, rate), max(0.0, rate - signal), max(0.0, signal - rate))
    assert feed.said[-1].removesuffix("; is source.rate right?") == said
    assert all(float(text.split()[3]) == pytest.approx(signal, abs=0.3) for text in feed.said)
    assert feed.jumps == []
    # After a minute of it.
    asked = "; is source.rate right?"
    assert [text for text in feed.said if text.endswith(asked)] == [said + asked]
    assert feed.pace.remark == feed.said[-1]


@pytest.mark.parametrize("is_copied", [True, False])
@pytest.mark.parametrize("fps", [21.0, 17.5, 12.5])
def test_a_source_that_keeps_no_standard_rate_is_not_asked_for_it(fps: float, is_copied: bool) -> None:
    feed = Feed(is_copied=is_copied).run(150, fps, 0.0 if is_copied else 25.0 - fps)
    assert feed.pace.remark == f"the source delivers {fps} of 25 fps"
    assert not any("source.rate" in text for text in feed.said)
    assert feed.missing() == pytest.approx(150 * (25 - fps), rel=0.12)


def test_a_rate_that_nobody_stated_may_change() -> None:
    feed = Feed(is_stated=False).run(60).run(60, 12.5, 12.5)
    assert (feed.missing(), feed.holes) == (0, [])
    assert feed.pace.remark == "the source delivers 12.5 of 25 fps"


def test_of_a_rate_that_nobody_stated_time_is_missed_all_the_same() -> None:
    feed = Feed(is_stated=False).run(20).pull(4).run(20)
    assert feed.missing() == pytest.approx(100, abs=7)
    assert Feed(is_stated=False).run(45, 7.5).missing() == pytest.approx(45 * 17.5, rel=0.05)


@pytest.mark.parametrize("slew", [-0.083, 0.083])
def test_a_clock_that_is_slewed_changes_nothing(slew: float) -> None:
    """chrony moves CLOCK_MONOTONIC by up to 83 ms a second: counts go by the clock that it does not move."""
    pace = Pace(25.0, SIGNAL_LOST)
    for quarter in range(1, 4 * 600):
        raw = quarter / 4
        pace.add(raw * (1 + slew), raw, int(raw * 25), 0, 0)
    pace.finish()
    assert (pace.missing, pace.remark, pace.holes) == (0, "", [])


# ---- What is copied: FFmpeg makes no copies, and drops nothing ----


@pytest.mark.parametrize("is_stated", [True, False])
def test_a_copied_source_at_its_rate_is_clean(is_stated: bool) -> None:
    assert Feed(is_stated=is_stated, is_copied=True).run(600).is_clean()


@pytest.mark.parametrize(("rate", "fps", "said"), [
    (25.0, 17.5, "the source delivers 17.5 of 25 fps"),
    (25.0, 21.0, "the source delivers 21.0 of 25 fps"),
    (25.0, 24.5, "the source delivers 24.5 of 25 fps"),
    (50.0, 25.0, "the source delivers 25.0 of 50 fps"),
])  # fmt: skip
def test_what_a_copied_source_lacks_by_its_stated_rate_is_said_and_counted(rate: float, fps: float, said: str) -> None:
    feed = Feed(rate, is_copied=True).run(90, fps)
    assert said in feed.said
    assert feed.missing() == pytest.approx(90 * (rate - fps), rel=0.12)
    assert (feed.pace.repeated, feed.pace.repeated_cause) == (0, SOURCE_LOSES)
    assert (feed.jumps, feed.holes) == ([], [])


@pytest.mark.parametrize(("rate", "fps"), [(25.0, 30000 / 1001), (25.0, 50.0), (50.0, 60000 / 1001)])
def test_a_copied_source_that_is_faster_than_stated_is_one_remark_with_both(rate: float, fps: float) -> None:
    feed = Feed(rate, is_copied=True).run(150, fps)
    by_which = f"; {rate:g} are stated, by which missing pictures are counted"
    assert feed.said == [f"the source delivers {fps:.4g} fps{by_which}; is source.rate right?"]
    assert feed.missing() == 0


def test_what_a_network_brings_late_makes_no_copied_source_too_fast() -> None:
    """HLS begins with 30 s at once; later nothing comes for 20 s, and then all of it."""
    feed = Feed(is_copied=True).block(1).block(749).run(300)
    assert feed.said == []
    assert feed.silence(20).block(500).run(300).said == []


def test_the_rate_of_a_copied_source_may_vary_where_nobody_states_it() -> None:
    feed = Feed(30.0, is_stated=False, is_copied=True).run(60).run(300, 7.5).run(60, 15).run(60, 45)
    assert feed.is_clean()


@pytest.mark.parametrize("every_s", [2, 5])
def test_a_copied_source_that_sends_a_picture_now_and_then_has_no_holes(every_s: int) -> None:
    feed = Feed(is_stated=False, is_copied=True).run(2, 4)
    for _ in range(40):
        feed.run(every_s - 0.25, 0).block(1)
    assert len(feed.holes) <= 3
    feed = Feed(1.0, is_stated=False, is_copied=True)
    for _ in range(40):
        feed.block(1).run(every_s - 0.25, 0)
    assert feed.is_clean()


@pytest.mark.parametrize("is_stated", [True, False])
def test_a_hole_of_a_copied_source_is_missing_and_nothing_fills_it(is_stated: bool) -> None:
    feed = Feed(is_stated=is_stated, is_copied=True).run(20).silence(4).run(20)
    assert feed.missing() == pytest.approx(100, abs=7)
    (hole,) = feed.holes
    assert hole.start == pytest.approx(20, abs=0.3)
    assert hole.end == pytest.approx(24, abs=0.3)
    assert hole.filled == 0
    assert (feed.said, feed.pace.short) == ([], 0)


def test_two_fields_of_a_copied_picture_may_count_each() -> None:
    assert Feed(is_stated=False, is_copied=True).run(300, 50).is_clean()
    assert "nothing paces it" in Feed(is_stated=False, is_copied=True).run(60, 250).said[0]


# ---- Holes ----


@pytest.mark.parametrize("seconds", [1.5, 2.0, 3.0, 9.0])
@pytest.mark.parametrize("before_s", [0.5, 3.0, 12.0, 70.0])
def test_a_cable_that_is_out_is_one_hole_at_its_time(before_s: float, seconds: float) -> None:
    feed = Feed().run(before_s).pull(seconds).run(30)
    assert feed.missing() == pytest.approx(25 * seconds, abs=7)
    (hole,) = feed.holes
    assert hole.start == pytest.approx(before_s, abs=0.3)
    assert hole.end == pytest.approx(before_s + seconds, abs=0.3)
    assert hole.filled == pytest.approx(hole.frames, abs=7)
    assert hole.cause == SIGNAL_LOST
    assert (feed.said, feed.jumps) == ([], [])


def test_copies_that_are_counted_a_block_before_they_are_written_make_the_same_hole() -> None:
    feed = Feed().run(12).silence(2.75)
    feed.copies += 74
    feed.pace.add(feed.now, feed.now, int(feed.frames), int(feed.copies), 0)
    feed.copies -= 74
    feed.block(6, 74).run(20)
    (hole,) = feed.holes
    assert hole.frames == hole.filled == pytest.approx(74, abs=2)
    assert feed.missing() == pytest.approx(75, abs=2)


@pytest.mark.parametrize("blocks", [1, 4])
def test_copies_that_come_some_blocks_after_the_first_picture_make_the_same_hole(blocks: int) -> None:
    feed = Feed().run(12).silence(4).block(1)
    feed = feed.run(0.25 * (blocks - 1)).block(6, 100).run(20)
    (hole,) = feed.holes
    assert (hole.frames, hole.filled) == (105, 100)
    assert feed.missing() == 105
    assert (feed.jumps, feed.said) == ([], [])


def test_six_pulls_are_six_holes() -> None:
    feed = Feed().run(12)
    for _ in range(6):
        feed.pull(1.75).run(6.25)
    assert len(feed.holes) == 6
    assert feed.missing() == pytest.approx(6 * 1.75 * 25, rel=0.05)
    assert (feed.said, feed.jumps) == ([], [])


def test_a_source_that_pauses_leaves_a_hole_without_copies() -> None:
    feed = Feed().run(20).silence(4).run(30)
    (hole,) = feed.holes
    assert hole.frames == pytest.approx(100, abs=7)
    assert hole.filled == 0
    assert feed.missing() == pytest.approx(100, abs=7)
    assert feed.pace.short == 0
    assert feed.said == []


@pytest.mark.parametrize("late_s", [0.25, 2.0])
def test_pictures_that_come_late_leave_no_hole(late_s: float) -> None:
    """A segment of a stream: nothing for nine seconds, and then all that was not there."""
    feed = Feed().run(20)
    for _ in range(6):
        feed.silence(9 - late_s).run(late_s, 25 * 9 / late_s)
    assert feed.is_clean(), (feed.said, feed.jumps, feed.holes, feed.pace.missing)


def test_half_of_what_was_late_is_half_a_hole() -> None:
    feed = Feed().run(20).silence(4).run(1, 75).run(20)
    (hole,) = feed.holes
    assert hole.end - hole.start == pytest.approx(2, abs=0.3)


def test_a_hole_that_ends_with_the_file_is_the_gap_after_it() -> None:
    assert Feed().run(20).silence(4).is_clean()


@pytest.mark.parametrize("second", [n / 4 for n in range(1, 240)])
def test_a_hiccup_is_nothing(second: float) -> None:
    """A second without frames, and then those of it at once, at any moment."""
    assert Feed().run(second).silence(1).block(31).run(20).is_clean()


@pytest.mark.parametrize("copies", [3, 10])
def test_some_copies_in_one_block_are_no_jump_and_nothing_to_say(copies: int) -> None:
    for second in range(40):
        feed = Feed().run(second / 4).block(6.25, copies).run(90)
        assert (feed.said, feed.jumps, feed.holes) == ([], [], [])


def test_a_burst_at_the_start_is_no_other_rate() -> None:
    """What a card has buffered, and what a stream sends first: up to three segments."""
    for burst in (20, 40, 750):
        assert Feed().block(burst).run(60).is_clean()
        assert Feed().run(1.25, burst / 1.25).run(60).is_clean()
        assert Feed().run(6, burst / 6 + 25).run(60).is_clean()


def test_what_was_held_back_comes_late_and_fast_and_is_paced() -> None:
    held = Feed()
    held.now = 24.0
    assert held.block(2).run(10, 25 * 3).run(30).is_clean()


# ---- The last step ----


@pytest.mark.parametrize("seconds", [2, 8, 14, 19.75])
def test_what_a_short_take_lacks_is_counted(seconds: float) -> None:
    feed = Feed().run(seconds, 7.5)
    feed.pace.stop(feed.now)
    assert feed.missing() == pytest.approx((seconds - 0.25) * 17.5, abs=4)


def test_what_is_written_after_the_stop_came_before_it() -> None:
    feed = Feed().run(8)
    feed.pace.stop(feed.now)
    assert feed.run(4, 2).missing() == 0


# ---- Timestamps ----


def test_copies_without_a_time_are_a_jump() -> None:
    assert Feed().run(10).block(6, 500).jumps == ["20 s ahead, which FFmpeg filled with copies"]
    assert Feed().run(10).block(6, 60).jumps != []
    assert Feed().run(10).block(6, 500).missing() == 0


def test_copies_that_are_taken_back_are_none() -> None:
    """One picture a second ahead: a second of copies, and then nothing until the others have caught up."""
    feed = Feed().run(10)
    for _ in range(30):
        feed.block(6, 25)
        for _ in range(4):
            feed.block(0, 0, 6)
        feed.run(1)
    assert feed.jumps == []
    assert feed.pace.repeated_cause == JUMPED
    assert "the timestamps jump: " in feed.pace.remark
    assert feed.missing() == pytest.approx(30 * 25, rel=0.07)


def test_copies_ahead_at_the_end_are_missing_to_nobody() -> None:
    assert Feed().run(10).block(6, 25).missing() == 0


def test_a_step_back_is_a_jump_once_a_second_of_pictures_was_dropped() -> None:
    feed = Feed().run(10)
    for n in range(8):
        feed.block(0, 0, 6.25)
        assert bool(feed.jumps) == (n >= 5 - 1)
    assert feed.jumps[0].startswith("back; ")


def test_a_step_back_that_is_over_is_a_hole_for_that_cause() -> None:
    feed = Feed().run(20)
    for _ in range(8 * 4):
        feed.block(0, 0, 6.25)
    (hole,) = feed.run(20).holes
    assert hole.frames == pytest.approx(200, abs=7)
    assert (hole.cause, hole.filled) == (JUMPED, 0)


def test_a_jump_is_worth_a_new_file_only_for_seconds() -> None:
    feed = Feed().run(10).block(6, 500)
    assert feed.pace.jump(feed.now + 5)
    assert not feed.pace.jump(feed.now + 5.1)


def test_a_source_that_nothing_paces_is_said_within_five_seconds() -> None:
    (said,) = Feed().run(4.75, 25 * 9910).said
    assert said == "the source runs at 9.91e+03 times its rate: nothing paces it (a file needs -re)"


def test_nothing_is_known_without_a_rate() -> None:
    assert Feed(0.0).run(60, 3, 20, 7).is_clean()


def blocks(chance: st.DataObject) -> Iterator[tuple[float, float, float, float]]:
    steps = st.tuples(st.floats(0, 30), st.integers(0, 100), st.integers(0, 10**5), st.integers(0, 100))
    yield from chance.draw(st.lists(steps, max_size=60))


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([0.05, 10.0, 25.0, 60.0]), st.booleans())
def test_whatever_is_counted_holes_are_apart_and_sums_are_sums(
    chance: st.DataObject, rate: float, stated: bool
) -> None:
    feed = Feed(rate, is_stated=stated)
    for after_s, frames, copies, drops in blocks(chance):
        feed.block(frames, copies, drops, after_s)
        assert feed.pace.missing >= 0
    missing = feed.missing()
    assert missing == feed.pace.short + feed.pace.repeated + sum(hole.frames for hole in feed.holes)
    assert all(0 <= hole.filled <= hole.frames for hole in feed.holes)
    assert all(hole.start < hole.end for hole in feed.holes)
    assert all(one.end <= two.start + 0.001 for one, two in zip(feed.holes, feed.holes[1:], strict=False))


@pytest.mark.parametrize(
    ("printed", "rate"), [(23.98, 24000 / 1001), (29.97, 30000 / 1001), (25.0, 25.0), (12.5, 12.5)]
)
def test_a_rate_is_exact_though_ffmpeg_rounds_it(printed: float, rate: float) -> None:
    assert exact_rate(printed) == rate
