"""The status as a table: what an operator reads at 3 a.m."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.cli.tables import COLUMNS, duration_text, status_table
from sdisup.contract.status import STATES, PortStatus


def recording(**values: Any) -> PortStatus:
    known = {
        "port_index": 3, "name": "CAM3", "state": "recording", "frame_count": 4711, "fps": 25.0, "speed": 1.0,
        "bitrate_mbps": 8.04, "dropped_frames": 2, "current_file": "/srv/recordings/CAM3_20260131T120000Z.mp4",
        "state_since_monotonic": 100.0, "disk_remaining_with_retention_seconds": 97200.0,
    }  # fmt: skip
    return PortStatus(**{**known, **values})


def cells(status: PortStatus, now: float = 285.0) -> dict[str, str]:
    """A row's cells by column; found by the header's places, as the eye does."""
    header, row = status_table([status], now, colour=False).split("\n")
    starts = [header.index(name) for name in COLUMNS]
    assert starts == sorted(starts)
    words = row.split("  ")
    return dict(zip(COLUMNS, [word.strip() for word in words if word.strip()], strict=False))


def test_a_recording_port() -> None:
    assert status_table([recording()], 285.0, colour=False).split("\n") == [
        "PORT  NAME  STATE        FOR  FRAMES   FPS  SPEED  Mb/s   LEFT  DROPPED  FILE                       REASON",
        "   3  CAM3  recording  3m05s    4711  25.0  1.00x   8.0  1d03h        2  CAM3_20260131T120000Z.mp4",
    ]


def test_a_port_that_is_stopped_has_no_numbers() -> None:
    status = PortStatus(port_index=0, name="port0", state="stopped")
    assert list(cells(status).values()) == ["0", "port0", "stopped", *["-"] * 8]


def test_a_pending_change_is_said_after_the_reason() -> None:
    assert cells(recording(config_pending=True))["REASON"] == "its next start takes a changed unit"
    both = cells(recording(config_pending=True, reason="cannot keep up: 22.1 of 25 fps"))["REASON"]
    assert cells(recording(config_pending=True, is_locked=True))["REASON"].endswith("changed unit; locked")
    assert both == "cannot keep up: 22.1 of 25 fps; its next start takes a changed unit"


def test_how_long_is_not_said_of_an_unknown_state() -> None:
    assert cells(recording(state="unknown"))["FOR"] == "-"


def test_columns_are_as_wide_as_the_widest_cell() -> None:
    found = [recording(name="A"), recording(port_index=10, name="A" * 32, reason="x")]
    header, *rows = status_table(found, 285.0, colour=False).split("\n")
    for name in ("STATE", "FILE"):
        start = header.index(name)
        assert all(row[start - 2 : start] == "  " and row[start] != " " for row in rows)


def test_no_ports_are_a_header() -> None:
    assert status_table([], 0.0, colour=False).split() == list(COLUMNS)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ["CAM3", "recording", "state", "x"])
def test_colour_marks_the_state_alone_and_changes_nothing_else(state: str, name: str) -> None:
    found = [recording(state=state, name=name), recording(state="stopped", name="A" * 20)]
    plain = status_table(found, 285.0, colour=False)
    coloured = status_table(found, 285.0, colour=True)
    line = coloured.split("\n")[1]
    before, _, rest = line.partition("\x1b[")
    code, _, rest = rest.partition("m")
    marked, _, after = rest.partition("\x1b[0m")
    assert code.isdigit() and marked == state and before + marked + after == plain.split("\n")[1]
    assert "\x1b" not in plain


@pytest.mark.parametrize(
    "text", ["two\nlines", "\x1b[2Jgone", "a\rb", "tab\there", "\x9b31m", "\u2028", "lone \ud800", "\u202egnp"]
)
@pytest.mark.parametrize("field", ["reason", "name", "current_file", "state"])
def test_a_file_of_the_recorders_user_cannot_play_with_roots_terminal(field: str, text: str) -> None:
    table = status_table([recording(**{field: text})], 285.0, colour=False)
    assert table.count("\n") == 1
    assert table.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"), (0, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m00s"), (185, "3m05s"), (3599, "59m59s"),
        (3600, "1h00m"), (7620, "2h07m"), (86399, "23h59m"), (86400, "1d00h"), (356400, "4d03h"), (1e9, "11574d01h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.floats(-1e9, 1e12))
def test_a_duration_is_short_whatever_it_is(seconds: float) -> None:
    assert len(duration_text(seconds)) <= 12


@given(st.lists(st.tuples(st.integers(0, 10**18), st.floats(0, 1e9), st.sampled_from(STATES)), max_size=5))
def test_there_is_a_line_for_each_port(values: list[tuple[int, float, str]]) -> None:
    found = [recording(frame_count=frames, fps=fps, state=state) for frames, fps, state in values]
    assert len(status_table(found, 285.0, colour=True).split("\n")) == 1 + len(found)
