"""`[offload.NAME]`, and what is copied next under which name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.config.offloads import Offload
from sdisup.config.settings import parse_settings
from sdisup.errors import ConfigError
from sdisup.offload.plan import (
    UNFINISHED,
    Known,
    Recorded,
    due,
    in_order,
    relative_path,
    target_path,
    unfinished_path,
    wait_s,
)

Document = dict[str, Any]

# ---- The configuration ----


def documents(**offloads: Document) -> list[tuple[str, Document]]:
    base: Document = {"appliance": {"ports": 2}, "defaults": {"source": {"kind": "test"}}}
    return [("a.toml", {**base, "offload": offloads})]


def problems_of(**offloads: Document) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse_settings(documents(**offloads))
    return raised.value.problems


def test_a_target_alone_is_enough() -> None:
    (offload,) = parse_settings(documents(nas={"target": "/mnt/nas/"})).offloads
    assert offload == Offload("nas", "/mnt/nas", ports=(), folder="", bandwidth_mbps=0.0, io_priority="idle")
    assert offload.is_directory


@pytest.mark.parametrize(
    ("given", "target"),
    [("nas:", "nas:"), ("nas:a//b/", "nas:a/b"), ("nas:/srv/a", "nas:/srv/a"), ("s3-1.b:bucket", "s3-1.b:bucket")],
)
def test_a_remote_of_rclone(given: str, target: str) -> None:
    (offload,) = parse_settings(documents(x={"target": given})).offloads
    assert offload.target == target and not offload.is_directory


def test_a_later_document_wins_key_by_key() -> None:
    later = ("b.toml", {"offload": {"nas": {"bandwidth_mbps": 100, "ports": [1, 0]}}})
    (offload,) = parse_settings([*documents(nas={"target": "nas:x", "bandwidth_mbps": 5}), later]).offloads
    assert (offload.target, offload.bandwidth_mbps, offload.ports) == ("nas:x", 100.0, (0, 1))


@pytest.mark.parametrize(
    "target",
    # The first two would carry secrets in the configuration, and in `ps`.
    [":s3,secret_access_key=x:bucket", "s3,secret_access_key=x:bucket", "relative", "", "/", "/a/../b", "nas:../x",
     "nas:a\nb", 3, "nas:" + "x" * 600],
)  # fmt: skip
def test_a_wrong_target(target: object) -> None:
    (problem,) = problems_of(nas={"target": target})
    assert problem.startswith("a.toml: offload.nas.target: ")


def test_all_errors_are_told_at_once() -> None:
    odd: Document = {"a b": {"target": "nas:x"}, "in": {"target": "/srv/recordings/copies", "ports": [7]}, "x": 3}
    found = problems_of(nas={"ports": [7], "bandwidth_mbps": -1, "rate": 3}, **odd)
    assert sorted(text.split(": ")[1] for text in found) == [
        "offload.'a b'", "offload.in.ports", "offload.in.target", "offload.nas.bandwidth_mbps", "offload.nas.rate",
        "offload.nas.target", "offload.x", "offload.x.target",
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["/srv/recordings", "/srv/recordings/x", "/srv"])
def test_recordings_and_their_copies_are_not_one_in_the_other(target: str) -> None:
    (problem,) = problems_of(nas={"target": target})
    assert "are one in the other" in problem


def test_two_offloads_with_one_place() -> None:
    (problem,) = problems_of(a={"target": "nas:x"}, b={"target": "nas:x/"})
    assert problem.startswith("a.toml: offload.b.target: [offload.a] has this target already")
    assert parse_settings(documents(a={"target": "nas:x"}, b={"target": "nas:x", "folder": "b"})).offloads


# ---- What is copied next ----


def file_entry(path: str, end: str = "2026-01-31T12:10:00.000Z", size: int = 1000, **more: object) -> Document:
    return {"kind": "file", "start": "2026-01-31T12:00:00.000Z", "end": end, "path": path, "bytes": size, **more}


def copy_entry(path: str, copy: str, size: int = 1000, target: str = "nas", **more: object) -> Document:
    known = {"kind": "copy", "target": target, "path": path, "copy": copy, "bytes": size}
    return {**known, "recorded": "2026-01-31T12:00:00.000Z", **more}


def known_of(*entries: Document) -> Known:
    known = Known("nas", 3)
    for entry in entries:
        known.add(entry)
    return known


def paths(files: list[Recorded]) -> list[str]:
    return [file.path for file in files]


def test_what_is_recorded_waits_until_it_is_copied_or_deleted() -> None:
    entries = [file_entry("/r/a"), file_entry("/r/b"), {"kind": "gap", "path": "/r/a"}, {"kind": "stop"}]
    assert paths(known_of(*entries).waiting()) == ["/r/a", "/r/b"]
    known = known_of(*entries, copy_entry("/r/a", "x/a"), {"kind": "delete", "path": "/r/b"})
    assert known.waiting() == [] and known.taken == {"x/a"} and paths(known.copied()) == ["/r/a"]


def test_a_copy_at_another_target_is_none_here() -> None:
    known = known_of(file_entry("/r/a"), copy_entry("/r/a", "x/a", target="tape"))
    assert paths(known.waiting()) == ["/r/a"] and not known.taken


def test_a_file_that_has_the_name_of_a_deleted_one_waits_anew() -> None:
    again = file_entry("/r/a", size=5, end="2026-02-01T00:00:00.000Z")
    known = known_of(file_entry("/r/a"), copy_entry("/r/a", "x/a"), {"kind": "delete", "path": "/r/a"}, again)
    assert [file.size_bytes for file in known.waiting()] == [5]
    # Deleted by hand, of which the ledger knows nothing.
    assert [file.size_bytes for file in known_of(file_entry("/r/a"), copy_entry("/r/a", "x/a"), again).waiting()] == [5]


def test_a_copy_that_is_entered_after_its_path_has_another_file_is_not_of_that() -> None:
    """Also where the other one has its size and got its number on the filesystem."""
    again = file_entry("/r/a", start="2026-01-31T13:00:00.000Z")
    known = known_of(file_entry("/r/a"), {"kind": "delete", "path": "/r/a"}, again, copy_entry("/r/a", "x/a"))
    assert paths(known.waiting()) == ["/r/a"] and known.taken == {"x/a"}


def test_a_file_that_was_entered_twice_is_copied_once() -> None:
    assert known_of(file_entry("/r/a"), copy_entry("/r/a", "x/a"), file_entry("/r/a")).waiting() == []


def test_nothing_is_copied_of_an_empty_file() -> None:
    assert known_of(file_entry("/r/a", size=0), file_entry("r/a")).waiting() == []


def test_the_oldest_is_first_and_one_that_failed_is_not_tried_yet() -> None:
    late, early = "2026-01-31T12:20:00.000Z", "2026-01-31T12:10:00.000Z"
    waiting = known_of(file_entry("/r/b", late), file_entry("/r/a", late), file_entry("/r/c", early)).waiting()
    assert paths(waiting) == ["/r/c", "/r/a", "/r/b"]
    assert due(waiting, {"/r/c": 50.0}, 49.0) == waiting[1:]
    assert due(waiting, {"/r/c": 50.0}, 50.0) == waiting


# ---- What copies are called ----


@pytest.mark.parametrize(
    ("path", "relative"),
    [
        ("/srv/r/a.mp4", "a.mp4"),
        ("/srv/r/2026/a.mp4", "2026/a.mp4"),
        ("/srv/r/cup/x/a.mp4", "x/a.mp4"),
        # The recordings went elsewhere then.
        ("/old/a.mp4", "old/a.mp4"),
        ("/srv/recordings/a.mp4", "srv/recordings/a.mp4"),
    ],
)
def test_a_path_at_the_target_is_that_below_the_recordings(path: str, relative: str) -> None:
    assert relative_path(path, ["/srv/r", "/srv/r/cup", "/mnt"]) == relative


def test_a_name_that_an_earlier_copy_has_gets_a_number() -> None:
    assert target_path("box", "CAM3", "2026/a.mp4") == "box/CAM3/2026/a.mp4"
    assert target_path("box", "CAM3", "a.mp4", ["box/CAM3/A.mp4"]) == "box/CAM3/a_2.mp4"
    assert target_path("box", "CAM3", "a.mp4", ["box/CAM3/a.mp4", "box/CAM3/a_2.mp4"]) == "box/CAM3/a_3.mp4"
    assert target_path("box", "CAM3", "a", ["box/CAM3/a"]) == "box/CAM3/a_2"
    assert target_path("box", "CAM3", ".a", ["box/CAM3/.a"]) == "box/CAM3/.a_2"


NAMES = st.text("abAB_2.", min_size=1, max_size=6).filter(lambda name: name.strip("."))


@given(st.lists(NAMES, max_size=8))
def test_no_two_copies_of_a_port_have_one_name(names: list[str]) -> None:
    taken: list[str] = []
    for name in names:
        taken.append(target_path("box", "CAM3", name, taken))
    assert len({path.lower() for path in taken}) == len(taken)
    assert all(path.startswith("box/CAM3/") and "/" not in path.removeprefix("box/CAM3/") for path in taken)


def test_what_is_not_complete_has_a_name_of_its_own_in_the_same_folder() -> None:
    file = Recorded(3, "/r/a", "s", "e", 1000)
    name = unfinished_path("box/CAM3/2026/a.mp4", "machine", file)
    assert name.startswith(f"box/CAM3/2026/{UNFINISHED}") and len(name) < 60
    assert name == unfinished_path("box/CAM3/2026/a.mp4", "machine", file)
    others = [
        unfinished_path("box/CAM3/2026/a.mp4", machine, other)
        for machine, other in [
            ("other", file), ("machine", file.replaced(size_bytes=1)), ("machine", file.replaced(path="/r/b")),
            ("machine", file.replaced(start="t")), ("machine", file.replaced(port_index=4)),
        ]
    ]  # fmt: skip
    assert len({name, *others}) == 6


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["file", "copy", "delete"]), st.integers(1, 3))))
def test_whatever_the_ledger_holds_a_file_waits_or_has_a_copy_of_its_size(lines: list[tuple[str, str, int]]) -> None:
    known = Known("nas", 3)
    for name, kind, size in lines:
        path = f"/r/{name}"
        known.add({"delete": {"kind": "delete", "path": path}, "copy": copy_entry(path, f"x/{name}", size)}.get(
            kind, file_entry(path, size=size)))  # fmt: skip
    waiting, copied = known.waiting(), known.copied()
    assert sorted(paths(waiting) + paths(copied)) == sorted(known.files)
    assert waiting == in_order(waiting)
    # What is entered twice changes nothing.
    again = Known("nas", 3)
    for file in [*waiting, *copied]:
        again.add(file_entry(file.path, file.end, file.size_bytes))
        again.add(file_entry(file.path, file.end, file.size_bytes))
        if file.copy:
            again.add(copy_entry(file.path, file.copy, file.size_bytes))
            again.add(copy_entry(file.path, file.copy, file.size_bytes))
    assert paths(again.waiting()) == paths(waiting)
    assert {file.copy for file in copied} <= known.taken


def test_a_dead_target_is_tried_every_minute_first_and_every_hour_in_the_end() -> None:
    assert [wait_s(failures) for failures in (1, 2, 3, 6, 7, 8, 9000)] == [60, 120, 240, 1920, 3600, 3600, 3600]
