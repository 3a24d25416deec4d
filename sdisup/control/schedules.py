"""What a port's schedule asks for at a moment, and when it asks for something next: pure.

A slot is one time of a schedule, or of a start with a time (`sdisup start --until 23:00`). What runs tells whose it is
by the request id of its take, which outlives restarts of runner and controller: so nothing has to be remembered, and to
decide twice changes nothing.

Slots that overlap are one recording. Its take is that of the slot that began first; where that one's time ends and
another slot's goes on, the other's take begins, with a mark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sdisup.contract.orders import scheduled_until
from sdisup.contract.records import Record
from sdisup.contract.status import SCHEDULED

NOTHING, START, CUT, END = "nothing", "start", "cut", "end"


class Slot(Record):
    """A time in which a port is to record: from `start` to `end`, and the rolls before and after it (Unix times and
    seconds). `request_id` is that of its take."""

    start: float
    end: float
    take: str | None
    request_id: str
    pre_roll_s: float = 0.0
    post_roll_s: float = 0.0

    @property
    def begin(self) -> float:
        """When it is started."""
        return self.start - self.pre_roll_s

    @property
    def until(self) -> float:
        """When it is ended."""
        return self.end + self.post_roll_s


class Now(Record):
    """What a port does at the moment `time`.

    `owner` is the request id of the take that runs, empty for a plain start and None where the port is stopped.
    `is_held`: an operator has taken it over. `stopped_at` is when an operator stopped the port, and `stopped` the
    request id of what it was, where nothing ran since; None where nobody has stopped it.
    """

    time: float
    owner: str | None = None
    is_held: bool = False
    stopped_at: float | None = None
    stopped: str = ""


class Step(Record):
    """What is to be done now: one of the constants above. `at` is when the take of a CUT begins."""

    kind: str
    slot: Slot | None = None
    at: float = 0.0


def scheduled(start: float, duration_s: float, take: str | None, pre_roll_s: float, post_roll_s: float) -> Slot:
    """The slot of a schedule's entry. Its request id says when it ends, also to those who know the entry no more."""
    end = start + duration_s
    request_id = f"{SCHEDULED}{_text(start)}:{_text(end + post_roll_s)}"
    return Slot(start, end, take, request_id, pre_roll_s, post_roll_s)


def _text(time: float) -> str:
    return f"{time:.3f}".rstrip("0").rstrip(".")


def decide(slots: Sequence[Slot], now: Now) -> Step:
    """What is to be done now."""
    time = now.time
    if now.owner is None:
        due = [slot for slot in slots if slot.begin <= time < slot.end and not is_refused(slot, now)]
        first = _first(slot for slot in due if slot.start <= time) or _first(due)
        return Step(START, first, time) if first else Step(NOTHING)
    own = _own(slots, now)
    if own is None or now.is_held or time < own.end:
        return Step(NOTHING)
    others = [slot for slot in slots if slot.request_id != own.request_id]
    following = _first(slot for slot in others if slot.start <= time < slot.end)
    if following:
        return Step(CUT, following, max(following.start, own.end))
    if time < own.until or any(slot.begin <= time < slot.until for slot in others):
        return Step(NOTHING)
    return Step(END, own, time)


def _own(slots: Iterable[Slot], now: Now) -> Slot | None:
    """The slot whose take runs, also one that the configuration has no more; None for an operator's recording."""
    known = next((slot for slot in slots if slot.request_id == now.owner), None)
    until = scheduled_until(now.owner or "")
    return known or (None if until is None else Slot(until, until, None, now.owner or ""))


def _first(slots: Iterable[Slot]) -> Slot | None:
    return min(slots, key=lambda slot: (slot.start, -slot.end, slot.request_id), default=None)


def is_refused(slot: Slot, now: Now) -> bool:
    """Whether an operator has stopped the port in this slot's time: that holds until the next one's."""
    if now.stopped_at is None:
        return False
    return slot.start <= now.stopped_at or (slot.begin <= now.stopped_at and now.stopped == slot.request_id)


def next_moment(slots: Sequence[Slot], now: Now) -> float | None:
    """When there may be something to do next; None if never, as far as the slots say."""
    own = _own(slots, now)
    moments = [own.until] if own else []
    for slot in slots:
        moments += [slot.begin, slot.until]
        others = [other for other in slots if other is not slot]
        # Where another recording goes on, a take may begin with a mark. In its pre-roll what failed is tried again.
        if slot.begin <= now.time or any(other.begin <= slot.start <= other.until for other in others):
            moments.append(slot.start)
        if any(other.start <= slot.end <= other.end for other in others):
            moments.append(slot.end)
    return min((moment for moment in moments if now.time < moment < math.inf), default=None)
