"""Starts of several ports that belong together: all of them record, or none is left recording."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from sdisup.contract.applied import AppliedPort
from sdisup.contract.requests import Request, forget_stop_note, leave_stop_note
from sdisup.control.ports import (
    CANNOT_RECORD,
    IS_STARTED,
    NO_SIGNAL,
    NOT_BEGUN,
    NOT_STOPPED,
    STARTED_BY_ANOTHER,
    TAKEN_BACK,
    WAITS,
    Outcome,
    start_ports,
    stop_ports,
)
from sdisup.errors import RootError, SdisupError

NOT_OURS = (NOT_BEGUN, IS_STARTED, STARTED_BY_ANOTHER)
"""What became of ports that this start has not started."""


def start_all_or_none(
    ports: Sequence[AppliedPort], wait_s: float, request: Callable[[AppliedPort], Request] | None = None
) -> list[Outcome]:
    """Start all ports at once; where one has no frame on disk within `wait_s` seconds, stop again what was started.

    A port cannot record where its start is refused, it has no signal, it fails, or it is started already: whose it is
    could not be told afterwards. Then the others are stopped as soon as systemd has started them, 5 s later at most.
    What they have recorded is kept, and their stops are in the ledger by `gang`. So it is where the operator interrupts
    the wait. Raises RootError for locked ports where this is not root, who alone could stop them again.
    """
    locked = [port.label for port in ports if port.lock]
    if locked and os.geteuid():
        text = f"{', '.join(locked)}: locked, and only root could stop it again if another port cannot record"
        raise RootError(text, "run it as root, or without --all-or-none")
    asked: list[AppliedPort] = []

    def ask(port: AppliedPort) -> Request:
        made = request(port) if request else Request(request_id=os.urandom(8).hex())
        asked.append(port)
        return made

    try:
        outcomes = start_ports(ports, wait_s, request=ask, gives_up=lambda ends: bool(_bad(ends.values())))
    except KeyboardInterrupt:
        # Whether all would have recorded nobody knows: those that were stopped before are stopped again.
        _stop(asked)
        raise
    bad = _bad(outcomes)
    if not bad:
        return outcomes
    why = _final(bad[0]).as_error().message
    stops = _stop([outcome.port for outcome in outcomes if outcome.kind not in NOT_OURS])
    return [_taken_back(outcome, stops, why) for outcome in outcomes]


def _bad(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if not outcome.ok and outcome.kind != NOT_BEGUN]


def _stop(ports: Sequence[AppliedPort]) -> Mapping[int, Outcome]:
    """Stop ports, for the reason that the ledger has. A port that cannot be stopped is told as one that goes on."""
    if not ports:
        return {}
    for port in ports:
        leave_stop_note(port.index, "gang")
    try:
        return {outcome.port.index: outcome for outcome in stop_ports(ports, unlock=True, goes_on=True)}
    except SdisupError as error:
        return {port.index: Outcome(port, NOT_STOPPED, str(error)) for port in ports}
    finally:
        for port in ports:
            # What no runner lived to read must not speak for the next stop.
            forget_stop_note(port.index)


def _taken_back(outcome: Outcome, stops: Mapping[int, Outcome], why: str) -> Outcome:
    """What became of a port in the end; `why` is said of those that could have recorded."""
    stop = stops.get(outcome.port.index)
    if stop is not None and not stop.ok:
        return stop
    if outcome.kind == NOT_BEGUN:
        return Outcome(outcome.port, NOT_BEGUN, why)
    return Outcome(outcome.port, TAKEN_BACK, why, outcome.status) if outcome.ok else _final(outcome)


def _final(outcome: Outcome) -> Outcome:
    """A port that has no signal or no frame yet goes on trying no more."""
    is_trying = outcome.kind in (NO_SIGNAL, WAITS)
    return Outcome(outcome.port, CANNOT_RECORD, outcome.detail, outcome.status) if is_trying else outcome
