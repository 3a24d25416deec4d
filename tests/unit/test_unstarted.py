"""A start that systemd could not make is told to the ledger once, by whom systemd starts for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sdisup.ledger.spool import STOPPED, WAITS, Spool, read_spool, spool_path
from sdisup.ledger.unstarted import CAUSE, main


def test_it_is_told_once_until_a_runner_tells_something(tmp_path: Path) -> None:
    run = str(tmp_path)
    now = time.monotonic()
    words = ["3", str(round(now * 1e6))]
    # No runner has told anything since the boot.
    assert main(words, run) == 0
    assert not os.path.exists(spool_path(3, run))
    runner = Spool(3, run)
    runner.tell(STOPPED, now - 1, by="operator", take=None)
    for _ in range(3):
        assert main(words, run) == 0
    Spool(3, run).tell(STOPPED, now + 1, by="operator", take=None)
    assert main(words, run) == 0
    events, problems = read_spool(spool_path(3, run))
    assert not problems
    assert [event["kind"] for event in events] == [STOPPED, WAITS, STOPPED, WAITS]
    assert events[1]["cause"] == CAUSE
    assert abs(events[1]["at"][1] - now) < 0.01  # type: ignore[index]
