"""Compares recorded files with the ledger: whether they exist, their size, and how many frames can be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain

from sdisup.config.codecs import MUXERS
from sdisup.contract.applied import AppliedPort
from sdisup.contract.programs import count_frames
from sdisup.contract.records import Record
from sdisup.errors import SdisupError
from sdisup.ledger.accounts import Row, Window, line_of, row_of
from sdisup.ledger.lines import LEDGER_DIRECTORY, Entry, Problem, ledger_path, read_ledger
from sdisup.ledger.present import port_present, rows_of, waiting_entries


class Verdict(Record):
    """What was found out about a file. `is_good` is false where it differs from its entry, or has none."""

    path: str
    text: str
    is_good: bool

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class Known:
    """What the ledgers know of files, by path: `files` are entered, `open` ones not yet; sdisup `deleted` some."""

    def __init__(self) -> None:
        self.files: dict[str, Row] = {}
        self.open: dict[str, Row] = {}
        self.deleted: set[str] = set()
        self.takes: dict[str, list[str | None]] = {}
        """The takes that begin inside of files, by the files' paths."""
        self.problems: list[Problem] = []


def known_files(ports: Sequence[AppliedPort], window: Window, directory: str = LEDGER_DIRECTORY) -> Known:
    """All files of the ports that lie in the window."""
    known = Known()
    for port in ports:
        present, story, problems = port_present(port, directory)
        rows = rows_of(story, present)
        asked = [row for row in rows if window.touches(row) and window.has_take(row.take)]
        known.open.update({row.path: row for row in asked if row.kind == "file" and row.path})
        known.problems += problems
        for entry in chain(read_ledger(ledger_path(port.index, directory)), waiting_entries(story)):
            if isinstance(entry, Problem):
                known.problems.append(entry)
            else:
                _add(known, entry, window)
    for path in known.files:
        # The file was entered after the open record was read.
        known.open.pop(path, None)
    return known


def _add(known: Known, entry: Entry, window: Window) -> None:
    if entry["kind"] == "delete":
        known.deleted.add(str(entry.get("path")))
    elif entry["kind"] == "mark":
        known.takes.setdefault(str(entry.get("path")), []).append(line_of(entry)[1] or None)
    elif entry["kind"] == "file":
        start, end = str(entry["start"]), str(entry["end"])
        row = row_of(line_of(entry), start, end, 0.0)
        known.deleted.discard(row.path or "")
        takes = [row.take, *known.takes.get(row.path or "", ())]
        if row.path and window.cut(start, end, 0.0) and any(map(window.has_take, takes)):
            known.files.setdefault(row.path, row)


def verify(known: Known, paths: Sequence[str], ffprobe: str) -> Iterator[Verdict]:
    """Read files one by one, and give a verdict on each; without `paths` all known files. Raises SdisupError."""
    if not paths:
        paths = [*known.files, *known.open]
    by_place = {_place(path): path for path in [*known.files, *known.open]} if paths else {}
    for path in paths:
        yield _verdict(known, path, by_place.get(_place(path)), ffprobe)


def is_file(word: str) -> bool:
    """Whether an operator means a file and no port: by a directory, an ending of a recording, or what is there."""
    return "/" in word or os.path.splitext(word)[1].removeprefix(".") in MUXERS or os.path.lexists(word)


def _place(path: str) -> tuple[str, str]:
    """A file's real directory, and its name: equal for two paths to one file, also where the file is gone."""
    directory, name = os.path.split(os.path.abspath(path))
    return _real(directory), name


@cache
def _real(directory: str) -> str:
    return os.path.realpath(directory)


def _verdict(known: Known, path: str, named: str | None, ffprobe: str) -> Verdict:
    if named is None:
        is_there = os.path.lexists(path)
        return Verdict(path, "is in no ledger" if is_there else "does not exist, and is in no ledger", is_good=False)
    if named in known.open:
        row = known.open[named]
        text = "is being recorded now" if row.is_open else f"ended; {row.note}"
        return Verdict(path, text, is_good=os.path.lexists(named))
    if named in known.deleted:
        return Verdict(path, "was deleted by sdisup", is_good=True)
    return _compared(path, named, known.files[named], ffprobe)


def _compared(path: str, named: str, row: Row, ffprobe: str) -> Verdict:
    try:
        size_bytes = os.stat(named).st_size
    except OSError as error:
        return Verdict(path, f"differs: {error.strerror}; the ledger has {row.frames} frames", is_good=False)
    frames, _ = count_frames(ffprobe, named)
    if frames is None:
        raise SdisupError(f"{ffprobe} cannot be run to read {named}", "it comes with FFmpeg: apt-get install ffmpeg")
    differences = []
    if frames != row.frames:
        differences.append(f"{frames} frames can be read, the ledger has {row.frames}")
    if size_bytes != row.size_bytes:
        differences.append(f"it has {size_bytes} bytes, the ledger {row.size_bytes}")
    if differences:
        return Verdict(path, f"differs: {'; '.join(differences)}", is_good=False)
    return Verdict(path, f"as the ledger says: {frames} frames, {size_bytes} bytes, {row.what}", is_good=True)


def find_ffprobe() -> str:
    """The ffprobe beside the configured FFmpeg, or the one on PATH."""
    from sdisup.config.settings import Settings
    from sdisup.contract.programs import ffprobe_beside

    try:
        return ffprobe_beside(Settings.load().ffmpeg)
    except SdisupError:
        # An invalid configuration, perhaps one that is being edited, must not keep files from being verified.
        return "ffprobe"
