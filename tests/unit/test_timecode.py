"""Timecode: how frames are numbered, and the clock's time of day as such a number."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdisup.contract.timecode import DAY_S, Counting, counting
from sdisup.sources.values import FPS

COUNTED = {name: found for name, fps in FPS.items() if (found := counting(fps))}
DROPPING = ("30000/1001", "60000/1001")
RATES = st.sampled_from(list(COUNTED))


def of(rate: str) -> Counting:
    return COUNTED[rate]


def test_which_rates_drop_numbers() -> None:
    assert list(COUNTED) == list(FPS)
    assert {rate: (found.base, found.dropped) for rate, found in COUNTED.items()} == {
        "10": (10, 0), "24000/1001": (24, 0), "24": (24, 0), "25": (25, 0), "30000/1001": (30, 2), "30": (30, 0),
        "50": (50, 0), "60000/1001": (60, 4), "60": (60, 0),
    }  # fmt: skip


@pytest.mark.parametrize("fps", [0.0, -25.0, 0.3, 99.7, 120.0, 1e9, float("nan")])
def test_a_rate_without_timecode(fps: float) -> None:
    assert counting(fps) is None


@pytest.mark.parametrize(
    ("rate", "frame", "text"),
    [
        ("25", 0, "00:00:00:00"),
        ("25", 25 * 36000 - 1, "09:59:59:24"),
        ("25", 25 * DAY_S, "00:00:00:00"),
        ("24000/1001", 24 * 60, "00:01:00:00"),
        ("30", 30 * 60, "00:01:00:00"),
        # SMPTE ST 12-1: the numbers 00 and 01 of each minute but the tenth are skipped, and 00 to 03 at 59.94.
        ("30000/1001", 1799, "00:00:59;29"),
        ("30000/1001", 1800, "00:01:00;02"),
        ("30000/1001", 17981, "00:09:59;29"),
        ("30000/1001", 17982, "00:10:00;00"),
        ("30000/1001", 17982 + 1800, "00:11:00;02"),
        ("30000/1001", 107892, "01:00:00;00"),
        ("30000/1001", 2589407, "23:59:59;29"),
        ("30000/1001", 2589408, "00:00:00;00"),
        ("60000/1001", 3599, "00:00:59;59"),
        ("60000/1001", 3600, "00:01:00;04"),
        ("60000/1001", 35964, "00:10:00;00"),
        ("60000/1001", 215784, "01:00:00;00"),
    ],
)
def test_a_frame_s_number(rate: str, frame: int, text: str) -> None:
    assert of(rate).text(frame) == text
    assert of(rate).frame(text) == frame % of(rate).a_day


@given(RATES, st.integers(0, 10**9))
@example("30000/1001", 2589407)
@example("60000/1001", 3599)
def test_each_frame_has_one_number_and_the_next_one_another(rate: str, frame: int) -> None:
    found = of(rate)
    text = found.text(frame)
    assert found.frame(text) == frame % found.a_day
    assert found.frame(text.replace(";", ":")) == frame % found.a_day
    following = found.text(frame + 1)
    assert following > text or following == found.zero


@given(st.sampled_from(DROPPING), st.integers(0, 10**7))
@example("30000/1001", 1800)
@example("60000/1001", 3600)
def test_no_skipped_number_appears(rate: str, frame: int) -> None:
    text = of(rate).text(frame)
    assert text[8] == ";"
    is_skipped = text[6:8] == "00" and int(text[9:]) < of(rate).dropped and text[4] != "0"
    assert not is_skipped


@pytest.mark.parametrize("rate", DROPPING)
def test_a_minute_that_skips_numbers_has_all_the_others(rate: str) -> None:
    found = of(rate)
    numbers = range(found.dropped, 60 * found.base)
    begin = found.frame(f"07:23:00;{found.dropped:02d}")
    texts = [found.text(begin + frame) for frame in range(len(numbers))]
    assert texts == [f"07:23:{number // found.base:02d};{number % found.base:02d}" for number in numbers]


@pytest.mark.parametrize(
    ("rate", "text", "why"),
    [
        ("25", "", "is no timecode"),
        ("25", "10:00:00", "is no timecode"),
        ("25", "10:00:00:0", "is no timecode"),
        ("25", "10:00:00:000", "is no timecode"),
        ("25", "10;00:00:00", "is no timecode"),
        ("25", "10:00:00.00", "is no timecode"),
        ("25", "-1:00:00:00", "is no timecode"),
        ("25", "\u0661\u0660:00:00:00", "is no timecode"),
        ("25", " 10:00:00:00", "is no timecode"),
        ("25", "10:00:00:00\n", "is no timecode"),
        ("25", "24:00:00:00", "no time of a day"),
        ("25", "10:60:00:00", "no time of a day"),
        ("25", "10:00:60:00", "no time of a day"),
        ("25", "10:00:00:25", "a second's are 00 to 24"),
        ("60", "10:00:00:60", "a second's are 00 to 59"),
        ("30000/1001", "10:01:00;00", "the next one is 10:01:00;02"),
        ("30000/1001", "10:01:00:01", "the next one is 10:01:00;02"),
        ("60000/1001", "10:59:00;03", "the next one is 10:59:00;04"),
    ],
)
def test_what_is_no_timecode(rate: str, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        of(rate).frame(text)


@given(RATES, st.text(alphabet="0123456789:;", max_size=14))
def test_whatever_is_taken_is_that_frame_s_number(rate: str, text: str) -> None:
    try:
        frame = of(rate).frame(text)
    except ValueError:
        return
    assert of(rate).text(frame).replace(";", ":") == text.replace(";", ":")


def clock_of(text: str, base: int) -> float:
    hours, minutes, seconds, frames = (int(field) for field in text.replace(";", ":").split(":"))
    return hours * 3600 + minutes * 60 + seconds + frames / base


@given(RATES, st.floats(0, DAY_S, exclude_max=True))
@example("30000/1001", DAY_S - 0.001)
@example("60000/1001", 86400 - 1 / 120)
@example("25", 36000.04)
def test_the_clock_s_number_shows_the_clock(rate: str, second: float) -> None:
    """Drop-frame timecode is off by its skipped numbers within ten minutes, and by 0.09 s at the end of the day."""
    found = of(rate)
    text = found.text(found.at_clock(second))
    allowed = (2.5 * found.dropped + 2) / found.base if found.dropped else 1 / found.base
    assert abs(clock_of(text, found.base) - second) <= allowed + 1e-6


@given(st.sampled_from(DROPPING), st.floats(0, DAY_S - 1), st.floats(0, 3600))
def test_two_that_began_at_different_times_have_one_number_for_a_moment(rate: str, second: float, later: float) -> None:
    found, fps = of(rate), FPS[rate]
    later = min(later, DAY_S - 1 - second)
    runs_on = found.at_clock(second) + int(later * fps)
    assert abs(runs_on - found.at_clock(second + later)) <= 1


@pytest.mark.parametrize("rate", DROPPING)
def test_a_day_of_frames_ends_with_the_clock(rate: str) -> None:
    assert abs(round(DAY_S * FPS[rate]) - of(rate).a_day) <= 3 * of(rate).dropped / 2


@given(RATES)
def test_the_clock_at_midnight(rate: str) -> None:
    found = of(rate)
    assert found.text(found.at_clock(0)) == found.zero
    assert found.text(found.at_clock(DAY_S - 1e-9)) == found.text(found.a_day - 1)
