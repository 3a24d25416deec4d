"""The process that copies: what it copies, tells and tries again."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_offload_copying import CONTENT

from sdisup.contract.applied import Applied, AppliedOffload, AppliedPort
from sdisup.contract.files import boot_id
from sdisup.ledger import spool as events
from sdisup.ledger.entries import copy_entry
from sdisup.ledger.lines import append_entries, ledger_path, read_ledger
from sdisup.ledger.moments import Moment
from sdisup.ledger.spool import read_spool, spool_path
from sdisup.offload import main as module
from sdisup.offload.copying import Standing
from sdisup.offload.directory import Directory
from sdisup.offload.main import REFUSED_LIMIT, Places, connect, run
from sdisup.offload.plan import UNFINISHED, Known
from sdisup.offload.source import Refused, Source, TargetProblem
from sdisup.offload.state import load_state, problems_of, save_state, state_path

PORT = 3


class Bench:
    """Two ports' recordings and ledgers, a target, and a clock that only the test moves."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        self.top, self.target = top, top / "target"
        self.now = 1000.0
        for name in ("recordings", "ledger", "run", "target"):
            (top / name).mkdir()
        (top / "machine-id").write_text("0123\n")
        self.places = Places(str(top / "ledger"), str(top / "run"), str(top / "machine-id"))
        self.offload = AppliedOffload("nas", str(self.target), "box")
        recordings = str(top / "recordings")
        ports = {index: AppliedPort(index, f"CAM{index}", "h264", recordings, False, "") for index in (PORT, 4)}
        self.applied = Applied(ports, [], (self.offload,))
        self.said: list[str] = []
        self.freeze(patch)
        self.is_killed = False
        """Whether the process is dead, and saves nothing."""
        patch.setattr(module, "save_state", lambda *words: None if self.is_killed else save_state(*words))
        self.entered: set[int] = set()
        """The sequences of what was told and is in the ledger."""

    def freeze(self, patch: pytest.MonkeyPatch) -> None:
        """Let the clock be the test's."""
        for at in ("main", "state"):
            patch.setattr(f"sdisup.offload.{at}.monotonic", lambda: self.now)

    def record(self, name: str, content: bytes = CONTENT, port: int = PORT, end: str = "12:10:00") -> Path:
        path = self.top / "recordings" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        times = {"start": f"2026-01-30T{end}.000Z", "end": f"2026-01-31T{end}.000Z", "seconds": 600.0}
        entry = {"v": 1, "kind": "file", "port_index": port, "take": None, "path": str(path), "bytes": len(content)}
        self.enter(port, {**entry, **times, "inode": path.stat().st_ino})
        return path

    def enter(self, port: int, *entries: dict[str, Any]) -> None:
        append_entries(ledger_path(port, self.places.ledger), list(entries))

    def enter_what_was_told(self) -> None:
        """As the ledger's process does: each once."""
        at = Moment(1.7e9, 1.0, boot_id())
        for event in self.told():
            if event["sequence"] not in self.entered:
                self.entered.add(event["sequence"])
                names = ("path", "inode", "size_bytes", "recorded", "target", "copy", "digest", "verified")
                of_copy: dict[str, Any] = {name: event[name] for name in names}
                self.enter(PORT, copy_entry(PORT, **of_copy, start=at, end=at))

    def told(self, port: int = PORT) -> list[dict[str, Any]]:
        found, problems = read_spool(spool_path(port, self.places.run, events.OFFLOAD))
        assert not problems
        return found

    def run(self, make: Callable[[], Any] | None = None) -> None:
        target = make or (lambda: connect(self.offload, ""))
        assert run(self.offload, self.applied, target, self.places, self.said.append) == 0

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.target)) for path in self.target.rglob("*") if path.is_file())

    def state(self) -> Any:
        return load_state("nas", self.places.run)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


class Fake(Directory):
    """A directory that misbehaves."""

    def __init__(self, bench: Bench, trouble: Callable[[str], None]) -> None:
        super().__init__(str(bench.target))
        self.trouble, self.written = trouble, 0

    def look(self, path: str) -> Standing | None:
        self.trouble(path)
        return super().look(path)

    def write(self, path: str, source: Source, digest: Any) -> None:
        self.written += 1
        super().write(path, source, digest)


def none_expected() -> Directory:
    raise AssertionError("there is nothing to do at the target")


def test_what_is_finished_is_copied_and_told(bench: Bench) -> None:
    bench.record("2026/b.mp4", end="12:20:00")
    path = bench.record("a.mp4")
    bench.record("a4.mp4", port=4)
    bench.run()
    assert bench.names() == ["box/CAM3/2026/b.mp4", "box/CAM3/a.mp4", "box/CAM4/a4.mp4"]
    first, second = bench.told()
    assert [first["path"], first["copy"]] == [str(path), "box/CAM3/a.mp4"]
    assert (first["inode"], first["size_bytes"], first["target"]) == (path.stat().st_ino, len(CONTENT), "nas")
    assert second["copy"] == "box/CAM3/2026/b.mp4" and len(bench.told(4)) == 1
    assert bench.said == [] and problems_of("nas", bench.state()) == []


def test_what_is_told_is_not_copied_again_before_nor_after_it_is_entered(bench: Bench) -> None:
    bench.record("a.mp4")
    bench.run()
    bench.run(none_expected)
    bench.enter_what_was_told()
    bench.run(none_expected)
    assert bench.state().entered == ()
    # The ledger alone: nothing is known of this boot.
    os.unlink(state_path("nas", bench.places.run))
    bench.run(none_expected)
    assert len(bench.told()) == 1


def test_a_copy_that_nobody_was_told_of_is_found_and_told(bench: Bench) -> None:
    """As after a power cut: /run is empty."""
    bench.record("a.mp4")
    bench.run()
    for path in Path(bench.places.run).rglob("*"):
        if path.is_file():
            path.unlink()
    fake = Fake(bench, lambda _: None)
    bench.run(lambda: fake)
    assert fake.written == 0 and len(bench.told()) == 1 and bench.names() == ["box/CAM3/a.mp4"]


def test_ports_that_are_not_chosen_and_ports_of_the_past(bench: Bench) -> None:
    bench.record("a.mp4")
    bench.record("b.mp4", port=4)
    bench.record("c.mp4", port=5)
    bench.offload = bench.offload.replaced(ports=(4,))
    bench.run()
    assert bench.names() == ["box/CAM4/b.mp4"]
    bench.offload = bench.offload.replaced(ports=())
    os.unlink(state_path("nas", bench.places.run))
    bench.run()
    assert bench.names() == ["box/CAM3/a.mp4", "box/CAM4/b.mp4", "box/port5/c.mp4"]


def test_a_name_that_comes_again_gets_a_number(bench: Bench) -> None:
    path = bench.record("a.mp4")
    bench.run()
    bench.enter_what_was_told()
    path.unlink()
    bench.record("a.mp4", b"another", end="13:00:00")
    bench.run()
    assert bench.names() == ["box/CAM3/a.mp4", "box/CAM3/a_2.mp4"]
    assert bench.told()[-1]["copy"] == "box/CAM3/a_2.mp4"


def test_one_file_that_cannot_be_copied_keeps_no_other(bench: Bench) -> None:
    bench.record("a.mp4")
    bench.record("b.mp4", end="12:20:00")
    (bench.target / "box/CAM3").mkdir(parents=True)
    (bench.target / "box/CAM3/a.mp4").write_bytes(b"somebody's")
    bench.run()
    assert [event["copy"] for event in bench.told()] == ["box/CAM3/b.mp4"]
    assert len(bench.said) == 1 and "a file of 10 bytes stands at box/CAM3/a.mp4" in bench.said[0]
    assert problems_of("nas", bench.state()) == ["1 file cannot be copied; see: sdisup offload nas"]
    # Said once, and tried again later.
    bench.run(none_expected)
    bench.now += 61
    bench.run()
    assert len(bench.said) == 1
    bench.now += 121
    (bench.target / "box/CAM3/a.mp4").unlink()
    bench.run()
    assert len(bench.told()) == 2 and problems_of("nas", bench.state()) == []


def test_a_file_that_was_removed_by_hand_is_nobodys_trouble(bench: Bench) -> None:
    bench.record("a.mp4").unlink()
    bench.record("b.mp4", end="12:20:00")
    bench.run()
    assert bench.names() == ["box/CAM3/b.mp4"]
    assert bench.said == [] and problems_of("nas", bench.state()) == []


def test_a_dead_target_is_said_once_and_tried_less_and_less(bench: Bench) -> None:
    bench.record("a.mp4")
    tried = []

    def dead() -> Directory:
        tried.append(bench.now)
        raise TargetProblem("no route to host")

    for _ in range(600):
        bench.run(dead)
        bench.now += 60
    assert bench.said == ["nothing can be copied: no route to host; it is tried again"]
    gaps = [round((b - a) / 60) for a, b in pairwise(tried)]
    assert gaps[:7] == [1, 2, 4, 8, 16, 32, 60] and set(gaps[6:]) == {60}
    (problem,) = problems_of("nas", bench.state())
    assert problem.startswith("no route to host (since ")
    bench.now += 3600
    bench.run()
    assert len(bench.said) == 2 and bench.said[1].startswith("the target is well again")
    assert problems_of("nas", bench.state()) == [] and bench.names() == ["box/CAM3/a.mp4"]


def test_a_target_that_fails_with_one_file_gets_the_others(bench: Bench) -> None:
    """Such as one that hangs where it reads that file."""
    bench.record("a.mp4")
    bench.record("b.mp4", end="12:20:00")

    def trouble(path: str) -> None:
        if path.endswith("a.mp4"):
            raise TargetProblem("rclone lsjson did not end")

    for _ in range(5):
        bench.run(lambda: Fake(bench, trouble))
        bench.now += 60
    assert bench.names() == ["box/CAM3/b.mp4"]


def test_a_target_that_refuses_all_files_is_in_trouble(bench: Bench) -> None:
    for number in range(10):
        bench.record(f"{number}.mp4", end=f"12:1{number}:00")
    fake = Fake(bench, lambda _: None)

    def refuse(path: str, source: Source, digest: Any) -> None:
        fake.written += 1
        raise Refused("quota exceeded")

    fake.write = refuse  # type: ignore[method-assign]
    bench.run(lambda: fake)
    assert fake.written == REFUSED_LIMIT
    assert "quota exceeded" in problems_of("nas", bench.state())[0]


def test_two_processes_do_not_copy_to_one_target(bench: Bench) -> None:
    bench.record("a.mp4")

    def meanwhile() -> Directory:
        bench.run(none_expected)
        return Directory(str(bench.target))

    bench.run(meanwhile)
    assert bench.said == ["another process copies to this target"] and bench.names() == ["box/CAM3/a.mp4"]


def test_ledgers_without_news_are_not_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.record("a.mp4")
    bench.run()
    bench.enter_what_was_told()
    bench.run()
    read: list[str] = []

    def noted(path: str) -> Iterator[Any]:
        read.append(path)
        return iter(())

    monkeypatch.setattr(module, "read_ledger", noted)
    bench.run()
    assert read == []
    bench.record("b.mp4", port=4)
    bench.run()
    assert [os.path.basename(path) for path in read] == ["4.jsonl"]


def test_a_file_that_waits_is_found_by_the_next_process(bench: Bench) -> None:
    bench.record("a.mp4")

    def dead() -> Directory:
        raise TargetProblem("no route to host")

    bench.run(dead)
    bench.now += 61
    bench.run()
    assert bench.names() == ["box/CAM3/a.mp4"]


@pytest.mark.parametrize("content", ["", "[]", '{"boot_id": "x"}', '{"boot_id": 7}'])
def test_a_state_that_nobody_can_use_is_made_anew(bench: Bench, content: str) -> None:
    bench.record("a.mp4")
    (bench.top / "run" / "offload").mkdir()
    Path(state_path("nas", bench.places.run)).write_text(content)
    bench.run()
    assert bench.names() == ["box/CAM3/a.mp4"]
    assert json.loads(Path(state_path("nas", bench.places.run)).read_text())["boot_id"] == boot_id()


def test_while_a_file_is_copied_it_is_told_how_far(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.record("a.mp4")
    seen: list[tuple[str, int]] = []
    going = module._Run._going

    def told(self: Any, file: Any, doing: str, done: int) -> None:
        bench.now += 2
        going(self, file, doing, done)
        seen.append((bench.state().going.doing, bench.state().going.done_bytes))
        assert bench.state().going.path == str(path)

    monkeypatch.setattr(module._Run, "_going", told)
    bench.run()
    steps = [1 << 20, 2 << 20, len(CONTENT)]
    assert seen == [
        ("copied", 0),
        *(("copied", at) for at in steps),
        ("compared", 0),
        *(("compared", at) for at in steps),
    ]
    assert bench.state().going is None


# ---- Whatever happens ----


class Killed(BaseException):
    """The process is gone."""


class Doomed(Directory):
    """A directory at whose nth call, or right after it, the target fails or the process is killed."""

    def __init__(self, bench: Bench, at: int, after: bool, kind: type[BaseException]) -> None:
        super().__init__(str(bench.target))
        self.bench, self.left, self.after, self.kind = bench, at, after, kind

    def step(self, do: Callable[..., Any], *words: Any) -> Any:
        self.left -= 1
        found = do(*words) if self.left or self.after else None
        if self.left == 0:
            self.bench.is_killed = self.kind is Killed
            raise self.kind("now")
        return found

    def look(self, path: str) -> Standing | None:
        return cast(Standing | None, self.step(super().look, path))

    def write(self, path: str, source: Source, digest: Any) -> None:
        def half(path: str, source: Source, digest: Any) -> None:
            # It has written a part of it.
            super(Doomed, self).write(path, source, digest)
            if self.left == 0:
                os.truncate(f"{self._path}/{path}", 1000)

        self.step(half, path, source, digest)

    def rename(self, path: str, name: str, size_bytes: int) -> bool:
        return bool(self.step(super().rename, path, name, size_bytes))

    def remove(self, path: str) -> None:
        self.step(super().remove, path)


TIMES = {"start": "2026-01-31T12:00:00.000Z", "end": "2026-01-31T12:10:00.000Z"}
STEPS = st.one_of(
    st.tuples(st.just("record"), st.sampled_from("abc"), st.integers(1, 3)),
    st.tuples(st.just("run"), st.integers(1, 8), st.booleans(), st.sampled_from([Killed, TargetProblem])),
    st.just(("enter",)),
    st.just(("power cut",)),
    st.tuples(st.just("delete"), st.sampled_from("abc")),
    st.tuples(st.just("stands"), st.sampled_from("abc")),
)


DELETED_MEANWHILE = [("record", "a", 1), ("run", 3, True, Killed), ("delete", "a")]
STANDS_MEANWHILE = [("record", "b", 1), ("run", 3, True, Killed), ("stands", "b")]
ENTERED_LATE = [("record", "a", 1), ("run", 8, True, Killed), ("delete", "a"), ("record", "a", 1)]


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=12))
@example(DELETED_MEANWHILE)
@example(STANDS_MEANWHILE)
@example(ENTERED_LATE)
def test_whatever_happens_all_is_copied_in_the_end_and_nothing_is_overwritten(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        bench = Bench(Path(top), patch)
        recorded: dict[str, bytes] = {}
        theirs: dict[Path, bytes] = {}
        for number, (what, *words) in enumerate(steps):
            bench.now += 4000
            path = str(bench.top / "recordings" / str(words[0])) if words else ""
            if what == "record" and path not in recorded:
                content = bytes([number]) * words[1] * 1000
                bench.record(words[0], content, end=f"13:{number:02}:00")
                recorded[path] = content
            elif what == "run":
                at, after, kind = words
                doomed = functools.partial(Doomed, bench, at, after, kind)
                with contextlib.suppress(Killed):
                    bench.run(doomed)
                bench.is_killed = False
            elif what == "enter":
                bench.enter_what_was_told()
            elif what == "power cut":
                for file in [*Path(bench.places.run).rglob("*")]:
                    if file.is_file():
                        file.unlink()
            elif what == "delete" and path in recorded:
                del recorded[path]
                Path(path).unlink()
                bench.enter(PORT, {"v": 1, "kind": "delete", "path": path, "inode": 0, "seconds": 0, **TIMES})
            elif what == "stands":
                there = bench.target / "box" / "CAM3" / words[0]
                if not there.exists():
                    there.parent.mkdir(parents=True, exist_ok=True)
                    there.write_bytes(b"somebody's")
                    theirs[there] = b"somebody's"
        for _ in range(3):
            bench.now += 4000
            bench.run()
            bench.enter_what_was_told()
        assert {there: there.read_bytes() for there in theirs} == theirs
        known = Known("nas", PORT)
        for entry in read_ledger(ledger_path(PORT, bench.places.ledger)):
            known.add(cast(Any, entry))
        for path, content in recorded.items():
            copy = known.files[path].copy
            # What else stands there may be a copy of a file that was deleted before anybody was told of it.
            their = bench.target / "box" / "CAM3" / os.path.basename(path)
            assert copy or (their.exists() and their.read_bytes() != content), path
            assert not copy or (bench.target / copy).read_bytes() == content
        assert {file.copy for file in known.copied()} <= set(bench.names())
        # Only of a file that is deleted before it is copied a power cut may leave what a try had begun.
        if not {"delete", "power cut"} <= {step[0] for step in steps}:
            assert not [name for name in bench.names() if UNFINISHED in name]
