"""Makes a take's files one file by copying: what `sdisup export` and RecorderManager.export do.

No recording is disturbed: the files are read and the result is written at the lowest priority, bit by bit. Nothing is
overwritten, and what is not finished is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from sdisup.contract.applied import AppliedPort
from sdisup.contract.files import RUN_DIRECTORY
from sdisup.contract.programs import count_frames_of, ffprobe_beside
from sdisup.contract.records import Record
from sdisup.control.join import Sources, join, media_of, room_problem, rounded
from sdisup.control.pieces import Cut, LeftOut, Media, Piece, Run, container_of, pieces_of, runs_of
from sdisup.errors import SdisupError
from sdisup.ledger.accounts import Window
from sdisup.ledger.lines import LEDGER_DIRECTORY
from sdisup.ledger.present import port_account

AAC_IS_CUT = "its sound is cut between packets of AAC, which are 21 ms long"


class Exported(Record):
    """A file that was made of a take's `files`, in their order: its `frames`, and how long they are.

    At each of the `cuts` something is missing. The first `early_frames` and the last `late_frames` are not of the take;
    they are there since a copy begins, and in some codecs ends, with a key frame. `sound` says how its sound is off, if
    it is. `why` it is not one file with the one before it; empty for the first. `left_out` are the take's files that
    are in none.
    """

    path: str
    port_index: int
    take: str
    frames: int
    seconds: float
    files: tuple[str, ...]
    cuts: tuple[Cut, ...] = ()
    early_frames: int = 0
    late_frames: int = 0
    why: str = ""
    left_out: tuple[LeftOut, ...] = ()
    sound: str = ""


def export_take(
    port: AppliedPort,
    window: Window,
    directory: str,
    ffmpeg: str,
    *,
    partial: bool = False,
    ledger_directory: str = LEDGER_DIRECTORY,
    run_directory: str = RUN_DIRECTORY,
) -> Iterator[Exported]:
    """Make the files of a port's take one file in `directory`, or several where they do not fit together.

    Raises SdisupError where a file of the take is missing or not over (`partial` leaves such files out), a name is
    taken, there is no room, or FFmpeg fails. Nothing is made for a port that has nothing of the take.
    """
    ffprobe = ffprobe_beside(ffmpeg)
    sources = Sources()
    try:
        pieces, left_out = _pieces(port, window, ledger_directory, run_directory)
        media: dict[str, Media] = {}
        found = [_opened(piece, ffprobe, sources, media, left_out) for piece in pieces]
        if left_out and not (partial and media):
            text = "\n".join(f"{port.label}: {one}" for one in left_out)
            raise SdisupError(text, "--partial leaves such files out" if media else "nothing is left to be exported")
        runs = [rounded(run, ffprobe, sources) for run in runs_of(found, media)]
        take = window.take or ""
        names = [f"{port.name}_{take}{f'_{number}' if number > 1 else ''}" for number in range(1, len(runs) + 1)]
        names = [f"{name}.{run.container}" for name, run in zip(names, runs, strict=True)]
        _check_place(directory, names, sum(sources.size_bytes(path) for path in media))
        for run, name in zip(runs, names, strict=True):
            path = join(run, ffmpeg, ffprobe, sources, directory, name)
            yield _exported(path, port, take, run, left_out)
    finally:
        sources.close()


def _pieces(
    port: AppliedPort, window: Window, ledger_directory: str, run_directory: str
) -> tuple[list[Piece], list[LeftOut]]:
    files, _ = port_account("file", port, window, ledger_directory, run_directory)
    # Of a gap whose account was lost nobody knows the take.
    gaps, _ = port_account("gap", port, Window(with_short=True), ledger_directory, run_directory)
    return pieces_of(files.rows, gaps.rows)


def _opened(piece: Piece, ffprobe: str, sources: Sources, media: dict[str, Media], left_out: list[LeftOut]) -> Piece:
    """Open a piece's file and look into it; the piece with its frames counted. What cannot be is left out."""
    deleted = LeftOut(piece.path, f"was deleted ({piece.deleted})") if piece.deleted else None
    problem = deleted or sources.open(piece.path)
    if problem is None and piece.size_bytes not in (None, sources.size_bytes(piece.path)):
        size_bytes = sources.size_bytes(piece.path)
        problem = LeftOut(piece.path, f"has {size_bytes} bytes, and {piece.size_bytes} by the ledger: sdisup verify")
    if problem is None and piece.path not in media:
        found = media_of(ffprobe, piece.path, sources.by_path[piece.path], is_copied=piece.is_copied)
        if isinstance(found, Media):
            media[piece.path] = found
        else:
            problem = found
    if problem is None and piece.frames is None:
        count, _ = count_frames_of(ffprobe, sources.by_path[piece.path], container_of(piece.path))
        piece = piece.replaced(frames=max(0, (count or 0) - piece.first))
    if problem is not None:
        media.pop(piece.path, None)
        left_out.append(problem)
    return piece


def _check_place(directory: str, names: Sequence[str], size_bytes: int) -> None:
    """Raises SdisupError where a name is taken, or there is no room for what is to be written."""
    try:
        taken = next((name for name in names if os.path.lexists(f"{directory}/{name}")), None)
        problem = room_problem(directory, size_bytes)
    except OSError as error:
        raise SdisupError(f"{directory}: {error.strerror}", "name a directory that is there") from error
    if taken is not None:
        raise SdisupError(
            f"{directory}/{taken} exists and is not overwritten", "move it away, or name another directory"
        )
    if problem:
        raise SdisupError(problem, "name a directory on another disk, or make room")


def _exported(path: str, port: AppliedPort, take: str, run: Run, left_out: Sequence[LeftOut]) -> Exported:
    is_cut = bool(run.cuts() or run.first or run.pieces[-1].has_more)
    return Exported(
        path,
        port.index,
        take,
        run.frames,
        round(run.seconds, 3),
        tuple(piece.path for piece in run.pieces),
        tuple(run.cuts()),
        run.early,
        run.late,
        run.why,
        tuple(left_out),
        AAC_IS_CUT if run.media[0].audio_codec.startswith("aac") and is_cut else "",
    )


def find_ffmpeg() -> str:
    """The configured FFmpeg, or the one on PATH."""
    from sdisup.config.settings import Settings

    try:
        return Settings.load().ffmpeg
    except SdisupError:
        # An invalid configuration, perhaps one that is being edited, must not keep takes from being exported.
        return "ffmpeg"
