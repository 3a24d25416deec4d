"""Which files go: what no rule may ever take, and that the rules take no more than they need."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract.retention import MAX_AGE, MAX_FILES, MAX_SIZE, MIN_FREE, Retention, Rules
from sdisup.retention.plan import IN_USE, NOT_COPIED, OPEN, PROTECTED, UNCOUNTED, File, Plan, Space, make_plan

NOW = 1_800_000_000.0
DAY = 86400
GB = 1 << 30
DISK = "8:1"


def file(days: float, port: int = 0, size: int = GB, kept: str = "", space: str = DISK) -> File:
    """One that ended so many days ago."""
    end = NOW - days * DAY
    return File(port, f"/srv/recordings/CAM{port}_{days:g}.mp4", end, size, 7, "", space, kept)


def planned(
    files: list[File], common: Rules, own: dict[int, Rules] | None = None, free: int = 100 * GB, **more: bool
) -> Plan:
    spaces = {
        DISK: Space(free, 1000 * GB, "/srv/recordings", frozenset({0})),
        "8:2": Space(500 * GB, 1000 * GB, "/srv/other"),
    }
    files = sorted(files, key=lambda one: one.end)
    return make_plan(files, Retention(common, own or {}), spaces, NOW, **{"is_clock_believed": True, **more})


def names(plan: Plan) -> list[tuple[str, str]]:
    return [(deletion.file.path.rpartition("/")[2], deletion.why) for deletion in plan.deletions]


def test_what_is_too_old_goes() -> None:
    plan = planned([file(31), file(29), file(40, 1)], Rules(max_age=30 * DAY))
    assert names(plan) == [("CAM1_40.mp4", "max_age 30d"), ("CAM0_31.mp4", "max_age 30d")]


def test_a_port_keeps_to_its_own_rule() -> None:
    files = [file(31), file(31, 1), file(91, 1), file(3000, 2)]
    own = {1: Rules(max_age=90 * DAY), 2: Rules(max_age=0)}
    assert names(planned(files, Rules(max_age=30 * DAY), own)) == [
        ("CAM1_91.mp4", "max_age 90d"), ("CAM0_31.mp4", "max_age 30d")
    ]  # fmt: skip


def test_a_clock_that_is_not_believed_deletes_nothing_for_its_age() -> None:
    rules = Rules(max_age=30 * DAY, max_files=2)
    plan = planned([file(days) for days in (31, 32, 33)], rules, is_clock_believed=False)
    assert names(plan) == [("CAM0_33.mp4", "max_files 2")]


def test_the_oldest_of_too_many_and_of_too_much() -> None:
    files = [file(days) for days in (1, 2, 3, 4)]
    assert names(planned(files, Rules(max_files=2))) == [("CAM0_4.mp4", "max_files 2"), ("CAM0_3.mp4", "max_files 2")]
    assert names(planned(files, Rules(max_size=3 * GB))) == [("CAM0_4.mp4", "max_size 3G")]


def test_a_port_with_a_limit_of_its_own_counts_for_itself_alone() -> None:
    files = [*(file(days, 0) for days in (1, 2, 3)), *(file(days, 1) for days in (10, 20))]
    plan = planned(files, Rules(max_files=2), {1: Rules(max_files=1)})
    assert names(plan) == [("CAM1_20.mp4", "max_files 1"), ("CAM0_3.mp4", "max_files 2")]


def test_a_disk_is_kept_free_by_the_oldest_on_it() -> None:
    files = [file(9, space="8:2"), file(3), file(2), file(1)]
    plan = planned(files, Rules(min_free=102 * GB))
    assert names(plan) == [("CAM0_3.mp4", "min_free 102G"), ("CAM0_2.mp4", "min_free 102G")]
    assert (plan.freeable_bytes, plan.problems) == ({DISK: GB, "8:2": GB}, {})


def test_what_goes_for_its_age_is_space_too() -> None:
    plan = planned([file(40), file(1)], Rules(max_age=30 * DAY, min_free=101 * GB))
    assert names(plan) == [("CAM0_40.mp4", "max_age 30d")]


@pytest.mark.parametrize("kept", [PROTECTED, OPEN, NOT_COPIED])
def test_what_is_kept_stays_whatever_the_rules_say(kept: str) -> None:
    files = [file(40, kept=kept), file(39)]
    rules = Rules(max_age=DAY, max_files=1, max_size=1, min_free=900 * GB)
    plan = planned(files, rules)
    assert names(plan) == [("CAM0_39.mp4", "max_age 1d")]
    assert plan.problems[DISK].startswith("/srv/recordings: 101G are free once all is deleted that may be, and min_fr")
    assert "what is left is 1 " in plan.problems[DISK]


def test_what_is_protected_does_not_cost_the_others_their_place() -> None:
    files = [*(file(days, kept=PROTECTED) for days in (10, 20, 30)), file(1), file(2)]
    assert names(planned(files, Rules(max_files=2, max_size=2 * GB))) == []


def test_a_ports_own_rule_is_for_the_disks_that_it_has_to_do_with() -> None:
    plan = planned([file(1)], Rules(), {5: Rules(min_free=900 * GB)})
    assert (plan.deletions, plan.problems) == ([], {})


def test_more_free_than_the_disk_has_is_no_reason_to_delete_all() -> None:
    plan = planned([file(1)], Rules(min_free=1001 * GB))
    assert (plan.deletions, list(plan.problems)) == ([], [DISK])


LIMITS = st.none() | st.integers(0, 12)
RULES = st.builds(
    lambda age, size, count, free: Rules(
        max_age=age and age * DAY, max_size=size and size * GB, max_files=count, min_free=free and (100 + free) * GB
    ),
    LIMITS, LIMITS, LIMITS, LIMITS,
)  # fmt: skip
FILES = st.lists(
    st.builds(
        file, st.integers(0, 20), st.integers(0, 2), st.integers(0, 3 * GB),
        st.sampled_from(["", "", "", PROTECTED, OPEN, IN_USE]), st.sampled_from([DISK, DISK, "8:2"]),
    ),
    max_size=25,
)  # fmt: skip


@given(FILES, RULES, st.dictionaries(st.integers(0, 2), RULES, max_size=2), st.booleans())
def test_whatever_the_rules_are(files: list[File], common: Rules, own: dict[int, Rules], believed: bool) -> None:
    retention, files = Retention(common, own), sorted(files, key=lambda one: one.end)
    plan = planned(files, common, own, is_clock_believed=believed)
    gone = [id(deletion.file) for deletion in plan.deletions]
    assert len(set(gone)) == len(gone)
    assert set(gone) <= {id(one) for one in files}
    assert not any(deletion.file.kept for deletion in plan.deletions)
    left = list(files)
    # Each was needed when it went, and nothing older could have gone for it.
    for deletion in plan.deletions:
        one, rule = deletion.file, deletion.rule
        limit = retention.value(rule, one.port_index)
        assert limit > 0
        is_own = retention.has_own(rule, one.port_index)
        scope = [
            other
            for other in left
            if (other.port_index == one.port_index if is_own else not retention.has_own(rule, other.port_index))
        ]
        counted = [other for other in scope if other.kept not in UNCOUNTED]
        if rule == MAX_AGE:
            assert believed and NOW - one.end > limit
        elif rule == MAX_FILES:
            assert len(counted) > limit
        elif rule == MAX_SIZE:
            assert sum(other.size_bytes for other in counted) > limit
        else:
            assert rule == MIN_FREE and free_of(files, left, one.space) < limit
            scope = [other for other in scope if other.space == one.space]
        if rule != MAX_AGE:
            assert all(other.end >= one.end for other in scope if not other.kept)
        left = [other for other in left if other is not one]
    # And what is left keeps to the rules, as far as it may go.
    may_go = [other for other in left if not other.kept]
    if believed:
        limits = {other.port_index: retention.value(MAX_AGE, other.port_index) for other in may_go}
        assert not any(limits[other.port_index] and NOW - other.end > limits[other.port_index] for other in may_go)
    for port, ports in groupby(sorted(may_go, key=lambda other: other.port_index), key=lambda other: other.port_index):
        limit = retention.value(MAX_FILES, port)
        if limit and retention.has_own(MAX_FILES, port):
            counted = [other for other in left if other.port_index == port and other.kept not in UNCOUNTED]
            assert len(counted) <= limit or not any(not other.kept for other in ports)


def free_of(files: list[File], left: list[File], space: str) -> int:
    free = {DISK: 100 * GB, "8:2": 500 * GB}[space]
    return free + sum(one.size_bytes for one in files if one.space == space) - sum(
        one.size_bytes for one in left if one.space == space
    )  # fmt: skip
