"""What a schedule asks for, when: tables, and what holds of any schedule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdisup.contract.orders import scheduled_until
from sdisup.control.schedules import (
    CUT,
    END,
    NOTHING,
    START,
    Now,
    Slot,
    Step,
    decide,
    next_moment,
    scheduled,
)

HOUR = 3600.0


def clock(text: str) -> float:
    """Seconds of a day: `18:00` or `18:00:05`."""
    hours, minutes, seconds = [*map(float, text.split(":")), 0.0][:3]
    return hours * HOUR + minutes * 60 + seconds


def slot(start: str, end: str, take: str = "news", pre_roll_s: float = 5.0, post_roll_s: float = 0.0) -> Slot:
    return scheduled(clock(start), clock(end) - clock(start), take, pre_roll_s, post_roll_s)


NEWS, SPORT = slot("18:00", "19:00"), slot("19:00", "20:00", "sport")
FILM = slot("18:30", "20:00", "film")
ROLLED = slot("18:00", "19:00", post_roll_s=10.0)
LATER = slot("19:00:12", "20:00", "later")
ORDER = Slot(clock("18:00"), math.inf, None, "start:1")


@pytest.mark.parametrize(
    ("slots", "time", "owner", "step"),
    [
        ([], "18:00", None, Step(NOTHING)),
        ([NEWS], "17:59:54.9", None, Step(NOTHING)),
        ([NEWS], "17:59:55", None, Step(START, NEWS)),
        ([NEWS], "18:00", NEWS, Step(NOTHING)),
        ([NEWS], "19:00", NEWS, Step(END, NEWS)),
        # A start that was missed is caught up inside its time.
        ([NEWS], "18:59:59", None, Step(START, NEWS)),
        ([NEWS], "19:00", None, Step(NOTHING)),
        ([ROLLED], "19:00:05", None, Step(NOTHING)),
        # What an operator has started is never ended, nor cut.
        ([NEWS], "18:30", "", Step(NOTHING)),
        ([NEWS], "19:00", "", Step(NOTHING)),
        ([NEWS, SPORT], "19:00", "a3f1", Step(NOTHING)),
        # Back to back: a mark, and the recording goes on through the next one's pre-roll.
        ([NEWS, SPORT], "18:59:55", NEWS, Step(NOTHING)),
        ([NEWS, SPORT], "19:00:00.3", NEWS, Step(CUT, SPORT, clock("19:00"))),
        ([NEWS, SPORT], "19:00:01", SPORT, Step(NOTHING)),
        ([NEWS, SPORT], "20:00", SPORT, Step(END, SPORT)),
        # The one that began first keeps its take to its end.
        ([NEWS, FILM], "18:30", NEWS, Step(NOTHING)),
        ([NEWS, FILM], "19:00:00.2", NEWS, Step(CUT, FILM, clock("19:00"))),
        ([NEWS, FILM], "18:40", None, Step(START, NEWS)),
        # A pre-roll that overlaps what is before it goes on with it, without a take of its own yet.
        ([ROLLED, LATER], "19:00:08", ROLLED, Step(NOTHING)),
        ([ROLLED, LATER], "19:00:11", ROLLED, Step(NOTHING)),
        ([ROLLED, LATER], "19:00:12", ROLLED, Step(CUT, LATER, clock("19:00:12"))),
        ([ROLLED], "19:00:09", ROLLED, Step(NOTHING)),
        ([ROLLED], "19:00:10", ROLLED, Step(END, ROLLED)),
        # An entry that the configuration has no more: what it began ends when it was to.
        ([], "18:59", NEWS, Step(NOTHING)),
        # A start without an end is the operator's from then on.
        ([ORDER], "18:00", None, Step(START, ORDER)),
        ([ORDER], "23:00", ORDER, Step(NOTHING)),
        ([ORDER, NEWS], "23:00", ORDER, Step(NOTHING)),
    ],
)  # fmt: skip
def test_what_is_to_be_done(slots: list[Slot], time: str, owner: Slot | str | None, step: Step) -> None:
    request_id = owner.request_id if isinstance(owner, Slot) else owner
    found = decide(slots, Now(clock(time), request_id))
    assert (found.kind, found.slot) == (step.kind, step.slot)
    assert found.kind != CUT or found.at == step.at


def test_what_an_entry_began_that_is_gone_is_ended_all_the_same() -> None:
    step = decide([], Now(clock("19:00"), NEWS.request_id))
    assert (step.kind, step.slot and step.slot.request_id) == (END, NEWS.request_id)
    assert next_moment([], Now(clock("18:30"), NEWS.request_id)) == clock("19:00")


def test_what_an_operator_took_over_goes_on() -> None:
    assert decide([NEWS, SPORT], Now(clock("19:30"), NEWS.request_id, is_held=True)).kind == NOTHING
    assert decide([NEWS], Now(clock("19:30"), NEWS.request_id)).kind == END


@pytest.mark.parametrize(
    ("stopped_at", "stopped", "time", "kind"),
    [
        ("18:10", NEWS.request_id, "18:20", NOTHING),
        ("18:10", "", "18:20", NOTHING),
        ("17:59:58", NEWS.request_id, "18:00", NOTHING),
        # What was stopped then was something else, and the news are still to come.
        ("17:59:58", "", "18:00", START),
        ("17:00", "", "17:59:55", START),
        ("18:10", NEWS.request_id, "18:59:55", START),
    ],
)
def test_a_stop_by_an_operator_holds_until_the_next_time(stopped_at: str, stopped: str, time: str, kind: str) -> None:
    now = Now(clock(time), None, stopped_at=clock(stopped_at), stopped=stopped)
    assert decide([NEWS, SPORT], now).kind == kind


@pytest.mark.parametrize(
    ("slots", "time", "following"),
    [
        ([NEWS], "12:00", "17:59:55"),
        ([NEWS], "17:59:55", "18:00"),
        ([NEWS], "18:00", "19:00"),
        ([NEWS], "19:00", None),
        ([NEWS, SPORT], "18:00", "18:59:55"),
        ([NEWS, SPORT], "18:59:55", "19:00"),
        ([NEWS, SPORT], "19:00", "20:00"),
        ([ORDER], "18:00", None),
        ([ROLLED], "18:10", "19:00:10"),
    ],
)
def test_when_there_is_something_to_do_next(slots: list[Slot], time: str, following: str | None) -> None:
    assert next_moment(slots, Now(clock(time))) == (following and clock(following))


def test_the_request_id_says_when_it_ends() -> None:
    assert ROLLED.request_id == f"schedule:{18 * 3600}:{19 * 3600 + 10}" and len(ROLLED.request_id) <= 64
    assert scheduled_until(ROLLED.request_id) == ROLLED.until
    long = scheduled(datetime(9999, 1, 1).timestamp() + 0.125, 31 * 86400.125, "x", 5.0, 0.5)
    assert len(long.request_id) <= 64 and scheduled_until(long.request_id) == pytest.approx(long.until, abs=1e-3)
    assert [scheduled_until(text) for text in ("", "a3f1", "schedule:", "schedule:1", "schedule:1:x")] == [None] * 5


SLOTS = st.lists(
    st.builds(
        lambda start, length, pre, post, take: scheduled(start, length, take, pre, post),
        st.integers(0, 60), st.integers(1, 30), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from([0.0, 0.5, 4.0]),
        st.sampled_from(["a", "b"]),
    ),
    max_size=6, unique_by=lambda slot: slot.request_id,
)  # fmt: skip


def live(
    slots: Sequence[Slot], events: Sequence[tuple[float, str | None]] = ()
) -> list[tuple[float, Step, str | None]]:
    """What is done from -5 to 120, waking as next_moment says: each step with what ran before. `events` are an
    operator's: at a time a manual recording begins (""), or whatever runs is stopped (None)."""
    time: float | None = -5.0
    owner: str | None = None
    stopped_at: float | None = None
    stopped, waiting = "", sorted(events, key=lambda event: event[0])
    done: list[tuple[float, Step, str | None]] = []
    while time is not None:
        for _ in range(len(slots) + 2):
            now = Now(time, owner, stopped_at=stopped_at, stopped=stopped)
            step = decide(slots, now)
            if step.kind == NOTHING:
                break
            done.append((time, step, owner))
            owner = None if step.kind == END else step.slot.request_id if step.slot else None
            stopped_at = None
        else:
            raise AssertionError(f"it does not settle at {time}")
        following = next_moment(slots, Now(time, owner))
        while waiting and (following is None or waiting[0][0] <= following):
            at, what = waiting.pop(0)
            if what is None and owner is not None:
                stopped_at, stopped = at, owner
                owner = None
            elif what is not None and owner is None:
                owner, stopped_at = what, None
        time = following
    return done


@given(SLOTS)
@settings(max_examples=300, deadline=None)
def test_all_that_is_scheduled_is_recorded_and_nothing_else(slots: list[Slot]) -> None:
    recorded: list[tuple[float, float]] = []
    began = math.nan
    for time, step, _ in live(slots):
        if step.kind == START:
            began = time
        elif step.kind == END:
            recorded.append((began, time))
            began = math.nan
    assert math.isnan(began)
    for slot in slots:
        assert any(first <= slot.begin and slot.until <= last for first, last in recorded)
    for first, last in recorded:
        # Each begins with a slot and ends with one, and all between belongs to one.
        assert first in [slot.begin for slot in slots] and last in [slot.until for slot in slots]
        points = sorted({first, last, *(x for s in slots for x in (s.begin, s.until) if first < x < last)})
        for one, other in itertools.pairwise(points):
            middle = (one + other) / 2
            assert any(slot.begin <= middle < slot.until for slot in slots)


@given(SLOTS)
@settings(max_examples=300, deadline=None)
def test_a_mark_is_where_one_time_ends_and_another_goes_on(slots: list[Slot]) -> None:
    by_id = {slot.request_id: slot for slot in slots}
    for time, step, owner in live(slots):
        if step.kind == CUT and step.slot is not None and owner is not None:
            assert step.at == max(by_id[owner].end, step.slot.start) == time
            assert step.slot.start <= step.at < step.slot.end


@given(SLOTS, st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["", None])), max_size=4))
@settings(max_examples=300, deadline=None)
def test_what_an_operator_started_is_never_ended_nor_cut(
    slots: list[Slot], events: list[tuple[float, str | None]]
) -> None:
    assert all(owner is None or owner.startswith("schedule:") for _, _, owner in live(slots, events))


@given(SLOTS, st.floats(-10, 120), st.sampled_from([None, "", "other"]))
@settings(max_examples=300, deadline=None)
def test_to_decide_twice_changes_nothing(slots: list[Slot], time: float, owner: str | None) -> None:
    for running in (owner, *(slot.request_id for slot in slots)):
        step = decide(slots, Now(time, running))
        after = running if step.kind == NOTHING else None if step.kind == END or not step.slot else step.slot.request_id
        assert decide(slots, Now(time, after)).kind == NOTHING
