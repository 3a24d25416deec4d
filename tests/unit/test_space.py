"""For how long each disk lasts: pure arithmetic, and what `sdisup status` makes of the ports' own words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.contract import status as contract
from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import boot_id, boottime_ns, monotonic
from sdisup.contract.mounts import Mount
from sdisup.contract.retention import Report, write_report
from sdisup.contract.status import PortStatus, write_status
from sdisup.control import observe
from sdisup.control.space import remaining_s, share_space, space_warning, time_text

GB = 10**9


def port(index: int, mbps: float = 8.0, free: int | None = 36 * GB, filesystem: str = "ext4:fsid-1") -> PortStatus:
    return PortStatus(
        port_index=index, state="recording", is_recording=True, bitrate_mbps=mbps, disk_free_bytes=free,
        filesystem=filesystem, recordings="/srv/recordings",
    )  # fmt: skip


def own(status: PortStatus) -> str:
    return status.filesystem


def pool(status: PortStatus) -> str:
    return "pool"


def nothing(_: PortStatus) -> int:
    return 0


def on_xfs(status: PortStatus) -> int:
    return GB if status.filesystem == "xfs:uuid-2" else 0


@pytest.mark.parametrize(
    ("ports", "freeable", "expected"),
    [
        # 8 Mbit/s are a megabyte a second.
        ([port(0)], 0, [36000.0]),
        ([port(0), port(1)], 0, [18000.0] * 2),
        ([port(0), port(1, mbps=24.0)], 0, [9000.0] * 2),
        ([port(0), port(1)], 36 * GB, [36000.0] * 2),
        # Ports look at different moments; the least that one saw counts.
        ([port(0), port(1, free=18 * GB)], 0, [9000.0] * 2),
        ([port(0), port(1, free=None)], 0, [18000.0] * 2),
        ([port(0, free=None)], 0, [None]),
        ([port(0, mbps=0.0)], 0, [None]),
        # Two subvolumes of a btrfs: all of them have the same space.
        ([port(0, filesystem="btrfs:a"), port(1, filesystem="btrfs:b")], 0, [18000.0] * 2),
        # A dataset with a quota of 3.6 GB is full first; the other one has the pool.
        ([port(0, filesystem="zfs:a", free=3600 * 10**6), port(1, filesystem="zfs:b")], 0, [3600.0, 18000.0]),
        ([port(0, filesystem="zfs:a", free=None), port(1, filesystem="zfs:b")], 0, [18000.0] * 2),
        ([port(0, mbps=0.0, filesystem="zfs:a"), port(1, filesystem="zfs:b")], 0, [36000.0] * 2),
        ([port(0, free=0)], 0, [0.0]),
    ],
)
def test_the_time_that_is_left(ports: list[PortStatus], freeable: int, expected: list[float | None]) -> None:
    assert [remaining_s(status, ports, freeable) for status in ports] == expected


def test_ports_are_told_apart_by_what_they_fill() -> None:
    ports = [port(0), port(1, filesystem="xfs:uuid-2"), port(2), port(3, filesystem="")]
    ports.append(port(4).replaced(is_recording=False))
    assert [[status.port_index for status in sharing] for sharing in share_space(ports, own, on_xfs)] == [
        [0, 2], [1],
    ]  # fmt: skip
    assert [status.disk_remaining_seconds for status in ports] == [18000.0, 36000.0, 18000.0, None, None]
    assert [status.disk_remaining_with_retention_seconds for status in ports] == [18000.0, 37000.0, 18000.0, None, None]


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1000), st.one_of(st.none(), st.integers(0, 10**15)), st.sampled_from(["zfs:a", "zfs:b", "c"])
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 10**15),
    st.sampled_from([own, pool]),
)
def test_more_ports_never_last_longer_and_retention_never_shortens(
    values: list[tuple[float, int | None, str]], freeable: int, space_of: Callable[[PortStatus], str]
) -> None:
    ports = [port(index, mbps, free, kind) for index, (mbps, free, kind) in enumerate(values)]
    for sharing in share_space(ports, space_of, lambda _: freeable):
        for status in sharing:
            alone = remaining_s(status, [status])
            left, with_retention = status.disk_remaining_seconds, status.disk_remaining_with_retention_seconds
            assert (left is None) == (with_retention is None)
            if left is not None and with_retention is not None:
                assert 0 <= left <= with_retention
                assert alone is None or left <= alone
            space_warning(status, sharing, 24.0)


def test_it_is_said_in_good_time() -> None:
    sharing = [port(index, mbps=10.0, free=540 * GB) for index in (0, 1, 2, 5)]
    share_space(sharing, own, nothing)
    text = "/srv/recordings: full in 30.0 hours (540.0 GB are free, and ports 0-2, 5 record 40.0 Mbit/s); make room"
    assert {space_warning(status, sharing, 31.0) for status in sharing} == {text}
    assert {space_warning(status, sharing, hours) for status in sharing for hours in (30.0, 24.0, 0.0)} == {""}
    # What retention keeps free is no trouble.
    share_space(sharing, own, lambda _: 360 * GB)
    assert {space_warning(status, sharing, 31.0) for status in sharing} == {""}
    assert space_warning(sharing[0], sharing, 51.0).startswith(
        "/srv/recordings: full in 30.0 hours, or 2.1 days with what retention may delete (540.0 GB"
    )


def test_a_port_alone_is_one() -> None:
    sharing = [port(3, mbps=80.0, free=6 * GB)]
    share_space(sharing, own, nothing)
    text = "/srv/recordings: full in 10 minutes (6.0 GB are free, and port 3 records 80.0 Mbit/s); make room"
    assert space_warning(sharing[0], sharing, 24.0) == text


def test_times_have_one_unit() -> None:
    found = [time_text(seconds) for seconds in (0, 59, 3599, 3600, 172799, 172800, 1e6)]
    assert found == ["0 minutes", "1 minutes", "60 minutes", "1.0 hours", "48.0 hours", "2.0 days", "11.6 days"]


APPLIED = [AppliedPort(index, f"port{index}", "h264", "/srv/recordings", True, "r") for index in range(9)]


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that writes the word of a port that lives and records, to be read by `observe`."""
    read, runs = contract.read_status, tmp_path / "proc"
    monkeypatch.setattr(observe, "RUN_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(observe, "read_status", lambda index: read(index, str(tmp_path)))
    monkeypatch.setattr(observe, "find_status", lambda index: contract.find_status(index, str(tmp_path)))
    monkeypatch.setattr(contract, "PROC", str(runs))

    def write(status: PortStatus) -> None:
        unit = f"sdi-record@{status.port_index}.service"
        told = {"boot_id": boot_id(), "pid": 1000 + status.port_index, "unit": unit, "updated_monotonic": monotonic()}
        write_status(status.replaced(**told | {"updated_monotonic": status.updated_monotonic or monotonic()}),
                     str(tmp_path))  # fmt: skip
        (runs / str(told["pid"])).mkdir(parents=True)
        (runs / str(told["pid"]) / "cgroup").write_text(f"0::/system.slice/{unit}")

    return write


def test_ports_that_were_not_asked_for_count_too(recording: Callable[..., None]) -> None:
    for index in range(8):
        recording(port(index))
    recording(port(8).replaced(updated_monotonic=0.001))
    (found,) = observe.statuses(APPLIED[3:4])
    assert (found.disk_remaining_seconds, found.disk_remaining_with_retention_seconds) == (4500.0, 4500.0)
    (text,) = found.warnings
    assert "full in 1.2 hours (36.0 GB are free, and ports 0-7 record 64.0 Mbit/s)" in text
    assert {status.warnings for status in observe.statuses(APPLIED[:8])} == {found.warnings}
    assert observe.space_warnings(APPLIED) == [text]
    assert observe.space_warnings([one.replaced(space_warning_h=0.0) for one in APPLIED]) == []


def test_subvolumes_of_one_btrfs_fill_one_pool(recording: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    from sdisup.contract import mounts

    table = [Mount(f"/srv/{name}", "btrfs", source, "0:47") for name, source in
             (("a", "/dev/sdb"), ("b", "/dev/sdb"), ("c", "/dev/sdc"))]  # fmt: skip
    monkeypatch.setattr(mounts, "read_mounts", lambda: table)
    for index, name in enumerate("abc"):
        recording(port(index, filesystem=f"btrfs:fsid-{index}").replaced(recordings=f"/srv/{name}"))
    found = observe.statuses(APPLIED[:3])
    assert [status.disk_remaining_seconds for status in found] == [18000.0, 18000.0, 36000.0]
    # Where another disk is mounted there by now, nothing is known of the pool.
    monkeypatch.setattr(mounts, "read_mounts", lambda: [table[0], Mount("/srv/b", "xfs", "/dev/sdd", "8:49")])
    found = observe.statuses(APPLIED[:3])
    assert [status.disk_remaining_seconds for status in found] == [36000.0] * 3


def test_what_retention_may_delete_counts(
    recording: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own word, which names disks by their numbers and pools by their names."""
    from sdisup.contract import mounts

    table = [Mount("/srv/a", "xfs", "/dev/sdb1", "8:17"), Mount("/srv/b", "btrfs", "/dev/sdc", "0:47")]
    monkeypatch.setattr(mounts, "read_mounts", lambda: table)
    recording(port(0, filesystem="xfs:uuid-2").replaced(recordings="/srv/a/day"))
    recording(port(1, filesystem="btrfs:fsid-1").replaced(recordings="/srv/b"))
    now = boottime_ns() / 1e9
    for at, expected in ((now, [72000.0, 46000.0]), (now - 9000, [36000.0] * 2)):
        write_report(Report(boot_id(), at, {}, {"8:17": 36 * GB, "btrfs /dev/sdc": 10 * GB, "8:33": GB}), str(tmp_path))
        found = observe.statuses(APPLIED[:2])
        assert [status.disk_remaining_with_retention_seconds for status in found] == expected
        assert [status.disk_remaining_seconds for status in found] == [36000.0] * 2
    # Full in 10 hours, and retention makes room: no warning, but where it does not.
    write_report(Report(boot_id(), now, {}, {"8:17": 360 * GB}), str(tmp_path))
    assert [bool(status.warnings) for status in observe.statuses(APPLIED[:2])] == [False, True]


def test_what_retention_cannot_do_is_told_of_the_ports_that_it_is_about(
    recording: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdisup.contract import mounts

    table = [Mount("/srv/a", "xfs", "/dev/sdb1", "8:17"), Mount("/srv/b", "ext4", "/dev/sdc1", "8:33")]
    monkeypatch.setattr(mounts, "read_mounts", lambda: table)
    recording(port(0, filesystem="xfs:uuid-2").replaced(recordings="/srv/a"))
    recording(port(1, filesystem="ext4:fsid-1").replaced(recordings="/srv/b"))
    problems = {"8:17": "only protected ones are left", "/srv/b/day": "cannot be listed", "clock": "is wrong"}
    write_report(Report(boot_id(), boottime_ns() / 1e9, problems, {}), str(tmp_path))
    found = observe.statuses(APPLIED[:2])
    assert [status.warnings[-2:] for status in found] == [
        ("only protected ones are left", "is wrong"), ("cannot be listed", "is wrong")
    ]  # fmt: skip
    assert [status.reason for status in found] == ["only protected ones are left", ""]


def test_without_a_run_directory_nothing_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "RUN_DIRECTORY", str(tmp_path / "missing"))
    assert observe.space_warnings(APPLIED) == []
