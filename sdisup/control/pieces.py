"""What a take's files are joined to: which parts of which files, in which order, with which gaps. Pure.

The ledger says what a take is; control/export.py asks for it, and control/join.py makes files of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from sdisup.contract.files import unix_time
from sdisup.contract.records import Record
from sdisup.ledger.accounts import Row

LEAST_BREAK_S = 2.0
"""Files whose times are further apart than this, and the gaps between them, were recorded before and after a stop."""
STOPPED = "stopped"
COPY = "copy"
"""The codec, as ledgers have it, of what the source has encoded."""
LEFT_OUT = "left out"


class Piece(Record):
    """A take's part of a file: so many `frames` from `first` on, None where they have to be counted. `has_more`: the
    file goes on with another take. `missing_s` is what is missing before it, None if nothing is, and `cause` why.
    `is_copied`: its source has encoded it. `deleted` is the rule by which its file went.
    """

    path: str
    first: int = 0
    frames: int | None = None
    has_more: bool = False
    size_bytes: int | None = None
    missing_s: float | None = None
    cause: str = ""
    is_copied: bool = False
    deleted: str = ""


class Media(Record):
    """What an open file holds: pictures a second; by how many seconds the first of them comes after what comes first;
    and its `streams` in words, which have to be the same of files that are joined.

    `times_s` are those of the pictures after the first one, and of the last one's end, where the source encoded them
    and may have lost some; all others come at a constant rate. `timecode` is that of the first. With B frames a picture
    stands up to so many places from where it is shown (`reordered`).
    """

    rate: Fraction
    offset_s: float
    streams: tuple[str, ...]
    video_codec: str = ""
    audio_codec: str = ""
    reordered: int = 0
    timecode: str = ""
    times_s: tuple[float, ...] = ()

    def at_s(self, frame: int) -> float:
        """When a picture comes, in seconds after the first one; of the number of all, when the last one ends."""
        if not self.times_s:
            return float(frame / self.rate)
        return self.times_s[min(frame, len(self.times_s) - 1)]


class LeftOut(Record):
    """A file that cannot be joined, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class Cut(Record):
    """Where two files of the result meet and something is missing: the first `frame` behind it, when that comes in the
    result, how much is missing, and why."""

    frame: int
    at_s: float
    missing_s: float
    cause: str


class Run(Record):
    """Pieces that fit together, each with its frames. A copy begins with a key frame: `early` frames are there that are
    before those that were asked for, and `late` ones behind them. `why` it is no part of the run before."""

    pieces: tuple[Piece, ...]
    media: tuple[Media, ...]
    early: int = 0
    late: int = 0
    why: str = ""

    @property
    def container(self) -> str:
        return container_of(self.pieces[0].path)

    @property
    def rate(self) -> Fraction:
        return self.media[0].rate

    @property
    def first(self) -> int:
        """The number in the first file of the first frame that is copied."""
        return self.pieces[0].first - self.early

    @property
    def frames(self) -> int:
        """How many are copied."""
        return sum(piece.frames or 0 for piece in self.pieces) + self.early + self.late

    @property
    def seconds(self) -> float:
        """How long the result is."""
        last, media = self.pieces[-1], self.media[-1]
        return self.places()[-1] + media.at_s(last.first + (last.frames or 0) + self.late)

    def places(self) -> list[float]:
        """When the first picture of each file comes, in seconds after the first one that is copied; those of the first
        file before it."""
        places = [-self.media[0].at_s(self.first)]
        for before, piece, media in zip(self.pieces, self.pieces[1:], self.media, strict=False):
            places.append(places[-1] + media.at_s(before.first + (before.frames or 0)))
            if piece.is_copied and piece.missing_s is not None:
                # Its sound may begin long before its picture, and has to be behind what is before.
                places[-1] += self.media[len(places) - 1].offset_s
        return places

    def cuts(self) -> list[Cut]:
        """Where something is missing."""
        found, frame = [], self.early
        for piece, at_s in zip(self.pieces, self.places(), strict=True):
            if piece.missing_s is not None and piece is not self.pieces[0]:
                found.append(Cut(frame, at_s, piece.missing_s, piece.cause))
            frame += piece.frames or 0
        return found


def container_of(path: str) -> str:
    return path.rpartition(".")[2]


def pieces_of(rows: Iterable[Row], gaps: Sequence[Row]) -> tuple[list[Piece], list[LeftOut]]:
    """A take's pieces in order, and its files that are not over. `gaps` are those of the port."""
    pieces: list[Piece] = []
    left_out: list[LeftOut] = []
    before: Row | None = None
    for row in rows:
        path = row.path or ""
        if row.frames == 0:
            continue
        if row.is_open or (row.frames is None and row.end is None and not row.what):
            left_out.append(LeftOut(path, "is being recorded" if row.is_open else f"is not over: {row.note}"))
            continue
        missing_s, cause = _between(before, row, gaps) if before is not None else (None, "")
        pieces.append(
            Piece(
                *(path, row.first_frame, row.frames, row.has_more, row.size_bytes, missing_s, cause, row.codec == COPY),
                row.deleted,
            )
        )
        before = row
    return pieces, left_out


def _between(before: Row, row: Row, gaps: Sequence[Row]) -> tuple[float | None, str]:
    """What is missing between two files, and why; None for nothing."""
    since, until = before.start or before.not_before, row.start or row.not_before
    found = [gap for gap in gaps if not gap.path and since <= (gap.start or gap.not_before) < until]
    missing_s, apart_s = sum(gap.seconds or 0.0 for gap in found), _apart_s(before.end, row.start)
    causes = list(dict.fromkeys(gap.what for gap in found))
    if apart_s > missing_s + LEAST_BREAK_S:
        missing_s = apart_s
        causes.append(STOPPED)
    return (missing_s, ", ".join(causes)) if causes else (None, "")


def _apart_s(end: str | None, start: str | None) -> float:
    try:
        return unix_time(start or "") - unix_time(end or "")
    except ValueError:
        # Not known, or it looks like a time and is none.
        return 0.0


def runs_of(pieces: Sequence[Piece], media: Mapping[str, Media]) -> Iterator[Run]:
    """The pieces that fit together, one run after the other. What has no media was left out."""
    together: list[Piece] = []
    why, missing = "", False
    for piece in pieces:
        if piece.path not in media:
            missing = True
            continue
        if missing:
            cause = f"{piece.cause}, {LEFT_OUT}" if piece.cause else LEFT_OUT
            piece = piece.replaced(missing_s=piece.missing_s or 0.0, cause=cause)
            missing = False
        reason = _why_apart(together[-1], piece, media) if together else ""
        if reason:
            yield _run(together, media, why)
            together, why = [], reason
        together.append(piece)
    if together:
        yield _run(together, media, why)


def _run(pieces: Sequence[Piece], media: Mapping[str, Media], why: str) -> Run:
    return Run(tuple(pieces), tuple(media[piece.path] for piece in pieces), why=why)


def _why_apart(before: Piece, piece: Piece, media: Mapping[str, Media]) -> str:
    """Why a piece cannot be joined to the one before it; "" if it can."""
    if before.has_more or piece.first:
        return "another take is between them"
    if container_of(before.path) != container_of(piece.path):
        return f"it is {container_of(piece.path)}, and not {container_of(before.path)} as before"
    one, other = media[before.path], media[piece.path]
    # Of pictures that do not come at a constant rate ffprobe guesses one.
    if one.rate != other.rate and not piece.is_copied:
        return f"it has {float(other.rate):.6g} pictures a second, and not {float(one.rate):.6g} as before"
    pairs = zip((*one.streams, "no more"), (*other.streams, "no more"), strict=False)
    return next((f"it is {new}, and not {old} as before" for old, new in pairs if old != new), "")
