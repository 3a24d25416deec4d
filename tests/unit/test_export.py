"""A take's files as one file: the pictures' steps and the sound's place by what is in them, and what is never done.

The files are made as segments are: one FFmpeg, cut at key frames. Each second of their sound has a click at a picture
whose number is known, so that a click tells where the sound is, whatever the timestamps say.
"""

from __future__ import annotations

import array
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_accounts import T, entry, mark
from test_hold_back import FFMPEGS

from sdisup.cli.exports import document, lines
from sdisup.cli.main import main
from sdisup.config.codecs import CODECS, Codec
from sdisup.config.settings import parse_settings
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.files import utc_text
from sdisup.contract.pictures import count_pictures
from sdisup.control import export as export_module
from sdisup.control import join as join_module
from sdisup.control.export import Exported, export_take
from sdisup.control.join import arguments, list_text, media_from
from sdisup.control.pieces import COPY, Media, Piece, Run, pieces_of, runs_of
from sdisup.encode.command import build_ffmpeg_arguments
from sdisup.encode.probe import probe_ffmpeg
from sdisup.errors import SdisupError
from sdisup.ledger import present as present_module
from sdisup.ledger.accounts import Row, Window
from sdisup.ledger.lines import Entry, append_entries, ledger_path

RATES = {25: "25", 30: "30000/1001", 60: "60000/1001"}
SEGMENT_S = 2
FRAGMENTS = "movflags=+empty_moov+default_base_moof:frag_duration=200000"
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p")


def cut_by(container: str, options: str = "") -> list[str]:
    """Into files of SEGMENT_S seconds, as ports do (encode/command.py), with these options of the container's muxer."""
    inner = ":".join(option for option in (options, "avoid_negative_ts=make_zero") if option)
    cut = ["-avoid_negative_ts", "disabled", "-f", "segment", "-segment_time", str(SEGMENT_S)]
    return [*cut, "-segment_format", join_module.MUXERS[container], "-segment_format_options", inner]


def segments(
    directory: Path, seconds: float, *, ffmpeg: str = FFMPEGS[0], container: str = "mov", sound: str = "pcm_s24le",
    rate: int = 25, options: str = FRAGMENTS, picture: Sequence[str] = H264, size: str = "320x180",
) -> list[Path]:  # fmt: skip
    """Files of SEGMENT_S seconds each, with a click of 2 ms at the beginning of each second."""
    directory.mkdir()
    clicks = "aevalsrc='if(lt(mod(t,1),0.002),0.8,0)':s=48000:c=mono"
    source = ["-f", "lavfi", "-i", f"testsrc2=s={size}:r={RATES[rate]}", "-f", "lavfi", "-i", clicks]
    coded = [*picture, "-g", str(rate), "-c:a", sound, "-t", str(seconds)]
    command = [ffmpeg, "-v", "error", *source, *coded, *cut_by(container, options), f"{directory}/%03d.{container}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return sorted(directory.iterdir())


def probe(path: str | Path, shown: str, *options: str) -> list[str]:
    command = ["ffprobe", "-v", "error", *options, "-show_entries", shown, "-of", "csv=p=0", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.replace(",", " ").split()


def frames_of(path: Path) -> int:
    shown = "stream=nb_read_packets"
    return int(probe(path, shown, "-fflags", "+discardcorrupt", "-count_packets", "-select_streams", "v:0")[0])


def picture_times(path: str) -> list[float]:
    return sorted(map(float, probe(path, "packet=pts_time", "-select_streams", "v:0")))


def clicks(path: str) -> list[float]:
    """When clicks are heard, in seconds after the first picture."""
    placed = "aresample=async=1:min_comp=0.0001:min_hard_comp=0.0001:first_pts=0"
    # FFmpeg would count from the first sound, where that is before the first picture.
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-copyts",
        "-i",
        path,
        "-map",
        "0:a:0",
        "-af",
        placed,
        "-ac",
        "1",
        "-f",
        "s16le",
        "-",
    ]
    samples = array.array("h")
    samples.frombytes(subprocess.run(command, check=True, capture_output=True).stdout)
    first = picture_times(path)[0]
    loud = [number for number, sample in enumerate(samples) if abs(sample) > 6000]
    return [one / 48000 - first for before, one in zip([-48000, *loud], loud, strict=False) if one - before > 4800]


def step_s(path: str, rate: int) -> float:
    """By how much the most irregular picture is off."""
    times = picture_times(path)
    return max(abs(later - earlier - 1 / float(Fraction(RATES[rate]))) for earlier, later in pairwise(times))


def whole_pictures(path: Path) -> int:
    found = count_pictures(str(path), path.suffix[1:])
    return found.count if found else frames_of(path)


class Take:
    """A port whose ledger has these files as the take `final`, one upon the other unless told otherwise."""

    def __init__(self, directory: Path, files: Sequence[Path], **changes: Any) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self.files = directory, files
        self.port = AppliedPort(3, "CAM3", "h264", str(directory), record_at_boot=True, revision="")
        self.out = directory / "out"
        self.out.mkdir()
        self.frames = [whole_pictures(path) for path in files]
        self.marks: list[Entry] = changes.get("marks", [])
        self.gaps: dict[int, Entry] = {}
        at = 0.0
        entries = [*self.marks]
        for number, (path, count) in enumerate(zip(files, self.frames, strict=True)):
            if number in changes.get("gaps_before", ()):
                entries.append(entry("gap", at, at + 1.5, "killed", take="final"))
                at += 1.5
            size_bytes = path.stat().st_size
            take = changes.get("takes", ["final"] * len(files))[number]
            more = {"path": str(path), "frames": count, "bytes": size_bytes, "take": take, **changes.get("more", {})}
            entries.append(entry("file", at, at + count / 25, "complete", **more))
            at += count / 25
        append_entries(ledger_path(3, str(directory)), entries)

    def export(self, take: str = "final", *, ffmpeg: str = FFMPEGS[0], partial: bool = False) -> list[Exported]:
        places = {"ledger_directory": str(self.directory), "run_directory": str(self.directory)}
        window = Window(take=take)
        return list(export_take(self.port, window, str(self.out), ffmpeg, partial=partial, **places))

    def left(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four files of PCM in mov, made once: what a test changes it copies."""
    return segments(tmp_path_factory.mktemp("recorded") / "files", 8)


@pytest.fixture
def files(recorded: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copy(path, tmp_path)) for path in recorded]


# ---- By contents ----


def test_segments_are_one_file_with_every_frame_and_the_sound_in_its_place(tmp_path: Path, files: list[Path]) -> None:
    take = Take(tmp_path, files)
    (made,) = take.export()
    assert (made.path, made.frames, made.seconds, made.cuts) == (str(take.out / "CAM3_final.mov"), 200, 8.0, ())
    assert made.files == tuple(map(str, files))
    assert frames_of(Path(made.path)) == 200
    assert step_s(made.path, 25) < 0.0001
    assert clicks(made.path) == pytest.approx(range(8), abs=0.001)
    assert take.left() == ["CAM3_final.mov"]


def test_a_take_begins_and_ends_at_its_marks(tmp_path: Path, files: list[Path]) -> None:
    marks = [mark(1, str(files[0]), 30, "final", "cup"), mark(5, str(files[2]), 40, "cup", "next")]
    take = Take(tmp_path, files, marks=marks, takes=["final", "cup", "cup", "next"])
    (cup,) = take.export("cup")
    # A key frame each second: from 25 on instead of 30.
    assert (cup.frames, cup.early_frames, cup.files) == (115, 5, tuple(map(str, files[:3])))
    assert frames_of(Path(cup.path)) == 115
    assert clicks(cup.path)[:4] == pytest.approx(range(4), abs=0.001)
    assert "  it begins 5 frames before the take, with a key frame" in list(lines(cup))


@pytest.mark.slow
def test_a_take_with_another_one_in_its_middle_is_two_files(tmp_path: Path, files: list[Path]) -> None:
    marks = [mark(1, str(files[0]), 30, "final", "cup"), mark(1.4, str(files[0]), 40, "cup", "final")]
    take = Take(tmp_path, files[:2], marks=marks)
    assert [(one.frames, one.early_frames, one.why) for one in take.export("final")] == [
        (30, 0, ""), (75, 15, "another take is between them"),
    ]  # fmt: skip
    assert take.left() == ["CAM3_final.mov", "CAM3_final_2.mov"]


def test_what_is_missing_is_a_cut_that_is_told(tmp_path: Path, files: list[Path]) -> None:
    """The second file was cut off: what comes after it is heard where it is seen."""
    files[1].write_bytes(files[1].read_bytes()[: files[1].stat().st_size * 4 // 5])
    take = Take(tmp_path, files, gaps_before=[2])
    (made,) = take.export()
    at = sum(take.frames[:2])
    assert [(cut.frame, cut.missing_s, cut.cause) for cut in made.cuts] == [(at, 1.5, "killed")]
    assert made.frames == sum(take.frames)
    assert clicks(made.path)[-3:] == pytest.approx([at / 25 + second for second in (1, 2, 3)], abs=0.005)
    assert f"  at {at / 25:.1f}s (frame {at}) 1.5 s are missing: killed" in list(lines(made))
    assert json.loads(json.dumps(document(made)))["cuts"] == [
        {"frame": at, "at_seconds": at / 25, "missing_seconds": 1.5, "cause": "killed"}
    ]


# ---- What is never done ----


def test_nothing_is_overwritten(tmp_path: Path, files: list[Path]) -> None:
    take = Take(tmp_path, files[:1])
    (take.out / "CAM3_final.mov").write_bytes(b"mine")
    with pytest.raises(SdisupError, match="exists and is not overwritten"):
        take.export()
    assert (take.out / "CAM3_final.mov").read_bytes() == b"mine"


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Take(tmp_path, files[:1])
    monkeypatch.setattr(join_module, "_check", lambda *_: (take.out / "CAM3_final.mov").write_bytes(b"mine"))
    with pytest.raises(SdisupError, match="exists by now, and is not overwritten"):
        take.export()
    assert (take.out / "CAM3_final.mov").read_bytes() == b"mine"
    assert take.left() == ["CAM3_final.mov"]


def test_on_a_filesystem_without_hard_links_neither(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    take = Take(tmp_path, files[:1])
    monkeypatch.setattr(os, "link", refused)
    assert [made.frames for made in take.export()] == [50]
    assert take.left() == ["CAM3_final.mov"]
    taken = join_module.Unfinished(str(take.out), "taken.mov")
    (take.out / "taken.mov").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        taken.publish()
    taken.close()
    assert (take.out / "taken.mov").read_bytes() == b"mine"
    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(SdisupError, match="cannot be written"):
        Take(tmp_path / "again", files[:1]).export()
    assert list((tmp_path / "again" / "out").iterdir()) == []


@pytest.mark.parametrize("how", ["gone", "a link", "a fifo", "a directory"])
def test_only_a_file_is_opened(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.mov"
    if how == "a link":
        path.symlink_to(__file__)
    elif how == "a fifo":
        os.mkfifo(path)
    elif how == "a directory":
        path.mkdir()
    said = {"gone": "is gone", "a link": "is a link now, and no recording"}.get(how, "is no regular file")
    assert str(join_module.Sources().open(str(path))) == f"{path} {said}"


def test_a_file_that_is_not_what_was_recorded_is_told_or_left_out(tmp_path: Path, files: list[Path]) -> None:
    take = Take(tmp_path, files)
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-9])
    with pytest.raises(SdisupError, match=rf"{files[1].name} is gone\n.*{files[2].name} has .* sdisup verify") as error:
        take.export()
    assert error.value.hint == "--partial leaves such files out"
    assert take.left() == []
    (made,) = take.export(partial=True)
    assert made.files == (str(files[0]), str(files[3]))
    assert [(cut.frame, cut.cause) for cut in made.cuts] == [(50, "left out")]
    assert [one.path for one in made.left_out] == [str(files[1]), str(files[2])]


def test_a_file_that_a_rule_has_deleted_says_so(tmp_path: Path, files: list[Path]) -> None:
    take = Take(tmp_path, files)
    files[1].unlink()
    gone = entry("delete", 900, 900, rule="max_age 30d", path=str(files[1]), inode=1)
    append_entries(ledger_path(3, str(tmp_path)), [gone])
    with pytest.raises(SdisupError, match=rf"{files[1].name} was deleted \(max_age 30d\)"):
        take.export()


def test_a_result_that_lacks_frames_is_no_result(tmp_path: Path, files: list[Path]) -> None:
    take = Take(tmp_path, files[:2])
    path = ledger_path(3, str(tmp_path))
    Path(path).write_text(Path(path).read_text().replace('"frames":50', '"frames":51', 1))
    with pytest.raises(SdisupError, match="has 100 frames, and its files have 101 by the ledger"):
        take.export()
    assert take.left() == []


def test_without_room_nothing_begins(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    take = Take(tmp_path, files[:2])
    monkeypatch.setattr(join_module, "FREE_MIN_BYTES", 1 << 60)
    with pytest.raises(SdisupError, match=r"has \d+ MiB left, and \d+ MiB are needed"):
        take.export()
    assert take.left() == []


def test_an_ffmpeg_that_fails_is_told_and_leaves_nothing(tmp_path: Path, files: list[Path]) -> None:
    take = Take(tmp_path, files[:2])
    broken = tmp_path / "bin" / "ffmpeg"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho this is broken >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(SdisupError, match=r"exit code 3\): this is broken"):
        take.export(ffmpeg=str(broken))
    assert take.left() == []


def test_an_ffmpeg_that_says_much_is_heard_to_the_end(tmp_path: Path, files: list[Path]) -> None:
    take = Take(tmp_path, files[:2])
    talks = tmp_path / "bin" / "ffmpeg"
    talks.parent.mkdir()
    talks.write_text(
        f'#!/bin/bash\nset -eo pipefail\nhead -c 3000000 /dev/zero | tr "\\0" "x" >&2\nexec {FFMPEGS[0]} "$@"\n'
    )
    talks.chmod(0o755)
    assert [made.frames for made in take.export(ffmpeg=str(talks))] == [100]


def test_recordings_go_first(tmp_path: Path, files: list[Path]) -> None:
    """FFmpeg runs at the lowest priority, of the processor and of the disk."""
    take = Take(tmp_path, files[:2])
    gentle = tmp_path / "bin" / "ffmpeg"
    gentle.parent.mkdir()
    gentle.write_text('#!/bin/sh\necho "$(ionice -p $$) $(nice)" >&2\nexit 3\n')
    gentle.chmod(0o755)
    with pytest.raises(SdisupError, match=r"idle 19$"):
        take.export(ffmpeg=str(gentle))


MANY = """
import resource, sys
from sdisup.control.join import Sources
resource.setrlimit(resource.RLIMIT_NOFILE, (600, 4096))
sources = Sources()
problems = [sources.open(f"{sys.argv[1]}/{number}") for number in range(1200)]
print(sum(problem is None for problem in problems), len(sources.by_path))
"""


def test_a_take_of_months_has_more_files_than_a_process_may_have_open(tmp_path: Path) -> None:
    for number in range(1200):
        (tmp_path / str(number)).touch()
    command = [sys.executable, "-c", MANY, str(tmp_path)]
    root = str(Path(join_module.__file__).parents[2])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1200", "1200"]


def is_running(pid: int) -> bool:
    """Whether a process is there that has not ended; who has to reap it may take a moment."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


INTERRUPTED = """
import sys
from sdisup.cli import exports
from sdisup.control.export import export_take
from sdisup.contract.applied import AppliedPort
from sdisup.ledger.accounts import Window
directory, ffmpeg = sys.argv[1:]
port = AppliedPort(3, "CAM3", "h264", directory, record_at_boot=True, revision="")
with exports.ended_well():
    places = {"ledger_directory": directory, "run_directory": directory}
    list(export_take(port, Window(take="final"), directory + "/out", ffmpeg, **places))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGHUP))]
)
def test_an_export_that_is_interrupted_leaves_nothing(tmp_path: Path, files: list[Path], number: int) -> None:
    take = Take(tmp_path, files[:2])
    slow, began = tmp_path / "bin" / "ffmpeg", tmp_path / "began"
    slow.parent.mkdir()
    slow.write_text(f"#!/bin/sh\necho part >&3\necho $$ > {began}.new; mv {began}.new {began}\nexec sleep 600\n")
    slow.chmod(0o755)
    root = str(Path(join_module.__file__).parents[2])
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path), str(slow)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.DEVNULL) as export:
        deadline = time.monotonic() + 60
        while not began.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        child = int(began.read_text())
        assert [name.endswith(".part") for name in take.left()] == [True]
        export.send_signal(number)
        assert export.wait(60) != 0
    assert take.left() == []
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)


def test_names_are_data(tmp_path: Path, recorded: list[Path]) -> None:
    """No name of a file reaches FFmpeg."""
    directory = tmp_path / "-i \n'file' %03d"
    directory.mkdir()
    odd = [Path(shutil.copy(path, directory / f"-y '\\\n{number}.mov")) for number, path in enumerate(recorded[:2])]
    (made,) = Take(directory, odd).export()
    assert made.frames == 100
    assert "\n" not in next(iter(lines(made)))


# ---- The command ----


def command(take: Take, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    place = str(take.directory)
    export = functools.partial(export_take, ledger_directory=place, run_directory=place)
    monkeypatch.setattr(export_module, "export_take", export)
    monkeypatch.setattr(present_module, "with_ledgers", lambda _: Applied({3: take.port}, []))
    return main(["export", *words])


def test_the_command(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take = Take(tmp_path, files[:2])
    assert command(take, monkeypatch, "--take", "final", str(take.out)) == 0
    assert capsys.readouterr().out == f"{take.out}/CAM3_final.mov: 100 frames, 4.0s, of 2 files\n"
    assert command(take, monkeypatch, "--take", "final", str(take.out)) == 1
    assert "hint: move it away, or name another directory" in capsys.readouterr().err
    (take.out / "CAM3_final.mov").unlink()
    assert command(take, monkeypatch, "--json", "--port", "CAM3", "--take", "final", str(take.out)) == 0
    assert [(one["frames"], one["port_index"]) for one in json.loads(capsys.readouterr().out)] == [(100, 3)]


def test_what_the_command_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take = Take(tmp_path, [])
    assert command(take, monkeypatch, "--take", "cup", str(take.out)) == 1
    assert "there is no recording of a take 'cup'" in capsys.readouterr().err
    assert command(take, monkeypatch, "--take", "cup", "--port", "9", str(take.out)) == 4
    with pytest.raises(SystemExit) as ended:
        command(take, monkeypatch, str(take.out))
    assert ended.value.code == 2


def test_a_directory_that_is_not_there(tmp_path: Path, files: list[Path]) -> None:
    take = Take(tmp_path, files[:1])
    take.out.rmdir()
    with pytest.raises(SdisupError, match="out: No such file or directory"):
        take.export()


def test_a_take_that_ended_in_a_file_that_goes_on_is_exported(tmp_path: Path, files: list[Path]) -> None:
    """As after a cut, while the next take is recorded into the same file."""
    growing = files[1]
    growing.write_bytes(growing.read_bytes()[: growing.stat().st_size * 9 // 10])
    rows = [row(str(files[0]), 0, 2), row(str(growing), 2, 3.2, is_part=True, has_more=True, what="")]
    for one, path in zip(rows, files, strict=False):
        one.path = str(path)
    pieces, left_out = pieces_of(rows, [])
    assert left_out == []
    take = Take(tmp_path, files)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export_module, "_pieces", lambda *_: (pieces, left_out))
        (made,) = take.export()
    assert (made.frames, frames_of(Path(made.path)), made.early_frames) == (80, 80, 0)
    assert clicks(made.path) == pytest.approx([0, 1, 2, 3], abs=0.001)


# ---- What is joined ----

MEDIA = Media(Fraction(25), 0.0, ("h264 640x360", "pcm_s24le 48000 Hz"), "h264", "pcm_s24le")


def row(name: str, start: float, end: float, **values: Any) -> Row:
    known: dict[str, Any] = {"what": "complete", "path": f"/r/{name}", "frames": round((end - start) * 25)}
    known.update(start=utc_text(T + start), end=utc_text(T + end), seconds=end - start, take="final")
    return Row("file", **{**known, **values})


def gap(start: float, end: float, cause: str, **values: Any) -> Row:
    return Row("gap", cause, utc_text(T + start), utc_text(T + end), end - start, **values)


def test_what_is_missing_between_files() -> None:
    rows = [row("a", 0, 10), row("b", 10.1, 20), row("c", 21.5, 30), row("d", 90, 99)]
    gaps = [gap(20, 21, "killed"), gap(21, 21.5, "start"), gap(3, 4, "signal lost", path="/r/a")]
    pieces, left_out = pieces_of(rows, gaps)
    assert [(piece.missing_s, piece.cause) for piece in pieces] == [
        (None, ""), (None, ""), (1.5, "killed, start"), (60.0, "stopped"),
    ]  # fmt: skip
    assert left_out == []


def test_what_is_being_recorded_is_left_out() -> None:
    rows = [row("a", 0, 10), row("b", 10, 20, what="", is_open=True)]
    pieces, left_out = pieces_of(rows, [])
    assert [piece.path for piece in pieces] == ["/r/a"]
    assert [str(one) for one in left_out] == ["/r/b is being recorded"]


@pytest.mark.parametrize(
    ("other", "name", "why"),
    [
        (MEDIA.replaced(rate=Fraction(50)), "b.mov", "it has 50 pictures a second, and not 25 as before"),
        (MEDIA.replaced(streams=("h264 720x576",)), "b.mov", "it is h264 720x576, and not h264 640x360 as before"),
        (MEDIA.replaced(streams=MEDIA.streams[:1]), "b.mov", "it is no more, and not pcm_s24le 48000 Hz as before"),
        (MEDIA, "b.mkv", "it is mkv, and not mov as before"),
    ],
)
def test_what_does_not_fit_is_a_file_of_its_own(other: Media, name: str, why: str) -> None:
    pieces = [Piece("a.mov", frames=50), Piece(name, frames=50), Piece(f"2{name}", frames=50)]
    runs = list(runs_of(pieces, {"a.mov": MEDIA, name: other, f"2{name}": other}))
    assert [(len(run.pieces), run.why) for run in runs] == [(1, ""), (2, why)]


def test_places_are_whole_frames_and_no_rounding_adds_up() -> None:
    media = MEDIA.replaced(rate=Fraction(30000, 1001))
    pieces = tuple(Piece(f"{number}.mov", frames=61) for number in range(1000))
    text = list_text(Run(pieces, (media,) * 1000), [piece.path for piece in pieces])
    durations = [int(line.removeprefix("duration ").removesuffix("us")) for line in text.splitlines()[2::2]]
    assert len(durations) == 1000
    assert abs(sum(durations) - 61_000 * 1001 / 30000 * 1e6) <= 1


def test_what_comes_before_the_first_picture_is_before_its_place() -> None:
    """FFmpeg's first packet of AAC is before all sound: the file's first picture comes 21 ms after it."""
    first = MEDIA.replaced(offset_s=0.021)
    run = Run((Piece("a", frames=50), Piece("b", frames=50)), (first, MEDIA))
    found = list_text(run, ["a", "b"]).splitlines()
    assert found[1:] == ["file a", "duration 2021000us", "file b", "duration 2000000us"]


def stream(kind: str, **values: object) -> dict[str, object]:
    known = {"video": {"codec_name": "h264", "width": 640, "height": 360, "r_frame_rate": "25/1"}, "audio": {}}[kind]
    return {"index": 0 if kind == "video" else 1, "codec_type": kind, **known, **values}


@pytest.mark.parametrize(
    ("videos", "sounds", "offset_s"),
    [
        (["0.000000", "0.040000"], ["0.000000", "0.021333"], 0.0),
        # FFmpeg makes the first picture last longer, or tells its true time, or tells the sound's.
        (["0.000000", "0.061406"], ["0.000000", "0.021333"], 0.021406),
        (["0.021000", "0.061000"], ["0.000000", "0.021000"], 0.021),
        (["0.000000", "0.040000"], ["-0.021000", "0.000000"], 0.021),
        (["0.000000", "0.040000"], ["0.005000", "0.026000"], 0.0),
        (["0.010000"], [], 0.0),
        ([], [], 0.0),
    ],
)
def test_where_the_first_picture_is(videos: list[str], sounds: list[str], offset_s: float) -> None:
    packets = [{"stream_index": index, "pts_time": at} for index, found in enumerate([videos, sounds]) for at in found]
    media = media_from({"streams": [stream("video"), stream("audio")], "packets": packets})
    assert media.offset_s == pytest.approx(offset_s)


@pytest.mark.parametrize(
    ("said", "rate"), [("30000/1001", "30000/1001"), ("2997/100", "30000/1001"), ("24/1", "24"), ("17/1", "17")]
)
def test_a_rate_next_to_one_of_television_is_that_one(said: str, rate: str) -> None:
    media = media_from({"streams": [stream("video", r_frame_rate=said)], "packets": []})
    assert media.rate == Fraction(rate)


@pytest.mark.parametrize(
    "said",
    [{}, [], {"streams": 3}, {"streams": [stream("audio")]}, {"streams": [stream("video", r_frame_rate="0/0")]}],
)  # fmt: skip
def test_what_ffprobe_cannot_say_is_a_problem(said: object) -> None:
    with pytest.raises(ValueError, match=r"stream|rate|picture|object|list"):
        media_from(said)


def test_ffmpeg_opens_what_was_opened_and_nothing_that_a_file_names() -> None:
    run = Run((Piece("/r/a.mov", frames=50), Piece("/r/b.mov", frames=50)), (MEDIA, MEDIA))
    words = arguments(run, "ffmpeg", "/proc/7/fd/9")
    assert not [word for word in words if "/r/" in word]
    assert words[words.index("-protocol_whitelist") + 1] == "file"
    assert words[words.index("-format_whitelist") + 1] == "concat,mov,matroska,mxf"
    assert words[-4:] == ["-y", "-f", "mov", "/proc/self/fd/3"]
    assert "-af" not in words


@pytest.mark.parametrize(
    ("timecode", "rate", "first", "expected"),
    [("10:00:00:00", "25", 30, "10:00:01:05"), ("23:59:59;29", "30000/1001", 1, "00:00:00;00"),
     ("", "25", 30, None), ("what", "25", 0, None), ("01:00:00:00", "24", 0, "01:00:00:00")],
)  # fmt: skip
def test_the_timecode_is_that_of_the_first_picture(timecode: str, rate: str, first: int, expected: str | None) -> None:
    media = MEDIA.replaced(timecode=timecode, rate=Fraction(rate))
    words = arguments(Run((Piece("a.mov", first, 100),), (media,)), "ffmpeg", "list")
    found = [word for word in words if word.startswith("timecode=")]
    assert found == ([f"timecode={expected}"] if expected else [])


@pytest.mark.parametrize("where", ["a stream", "the file"])
def test_a_timecode_is_found(where: str) -> None:
    tags = {"tags": {"TIMECODE" if where == "the file" else "timecode": "10:00:00:00"}}
    said = {"streams": [stream("video", **(tags if where == "a stream" else {}))], "packets": [], "format": tags}
    assert media_from(said).timecode == "10:00:00:00"


@pytest.mark.parametrize(("profile", "is_placed"), [("LC", True), ("HE-AAC", False)])
def test_sound_whose_packets_are_of_another_length_keeps_its_times(profile: str, is_placed: bool) -> None:
    media = media_from(
        {"streams": [stream("video"), stream("audio", codec_name="aac", profile=profile)], "packets": []}
    )
    words = arguments(Run((Piece("a.mp4", frames=100),), (media,)), "ffmpeg", "list")
    assert ("PREV_OUTDTS+1024" in words[words.index("-bsf:a") + 1]) == is_placed


def test_sound_that_begins_a_gop_before_the_picture_is_before_it() -> None:
    """Of what a source encoded ffprobe's first packets may be of the sound alone."""
    sounds = [{"stream_index": 1, "pts_time": str(number * 0.021)} for number in range(80)]
    media = media_from({"streams": [stream("video"), stream("audio")], "packets": sounds}, (2.0, 2.1, 2.14))
    assert media.offset_s == 2.0
    assert media.times_s == pytest.approx((0.0, 0.1, 0.14))


def test_pictures_that_the_source_encoded_come_when_they_come() -> None:
    media = MEDIA.replaced(times_s=(0.0, 0.04, 0.5, 0.54), offset_s=0.3)
    pieces = tuple(Piece(name, frames=3, missing_s=at, is_copied=True) for name, at in (("a", None), ("b", 9.0)))
    run = Run(pieces, (media, media))
    # The sound of the second file begins 0.3 s before its picture, and has to be behind the first file.
    assert run.places() == [0.0, 0.54 + 0.3]
    assert [(cut.frame, cut.at_s) for cut in run.cuts()] == [(3, 0.54 + 0.3)]
    assert run.seconds == pytest.approx(0.54 + 0.3 + 0.54)


# ---- All containers, on all FFmpegs ----

HYBRID = FRAGMENTS.replace("empty_moov+default_base_moof", "hybrid_fragmented")
MATRIX: dict[str, dict[str, Any]] = {
    "mov-pcm": {}, "mp4-aac": {"container": "mp4", "sound": "aac"}, "mkv-pcm": {"container": "mkv"},
    "mkv-aac": {"container": "mkv", "sound": "aac"}, "mov-29.97": {"rate": 30}, "mp4-aac-59.94": {
        "container": "mp4", "sound": "aac", "rate": 60}, "mkv-59.94": {"container": "mkv", "rate": 60},
    "mov-hybrid": {"options": HYBRID}, "mp4-aac-hybrid": {"container": "mp4", "sound": "aac", "options": HYBRID},
    "mov-prores": {"picture": ("-c:v", "prores_aw", "-profile:v", "0")},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", MATRIX)
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_the_sound_is_in_its_place_behind_24_segments(tmp_path: Path, ffmpeg: str, case: str) -> None:
    given = dict(MATRIX[case])
    if given.get("container") == "mkv":
        given["options"] = "cluster_time_limit=100"
    try:
        found = segments(tmp_path / "files", 48, ffmpeg=ffmpeg, **given)
    except subprocess.CalledProcessError:
        assert "hybrid" in case
        pytest.skip("this FFmpeg has no hybrid_fragmented")
    take = Take(tmp_path, found)
    (made,) = take.export(ffmpeg=ffmpeg)
    rate, is_matroska = given.get("rate", 25), given.get("container") == "mkv"
    times = clicks(made.path)
    offsets_ms = [1000 * (at - second) for second, at in enumerate(times)]
    off_s = step_s(made.path, rate)
    print(f"{case}: {made.frames} frames of {len(found)} files, step off by {1000 * off_s:.2f} ms, sound off by "
          f"{min(offsets_ms):.2f} to {max(offsets_ms):.2f} ms")  # fmt: skip
    assert made.frames == sum(take.frames)
    assert off_s < (0.0011 if is_matroska else 0.0001)
    assert len(times) == 48
    assert max(map(abs, offsets_ms)) < 5


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mov-pcm", "mp4-aac", "mkv-pcm", "mkv-aac"])
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_the_sound_is_in_its_place_behind_files_that_were_cut_off(tmp_path: Path, ffmpeg: str, case: str) -> None:
    """Of the files 1, 3, 5 and 7 a part is there, and a gap comes after it; the take begins and ends at marks."""
    given = dict(MATRIX[case])
    if given.get("container") == "mkv":
        given["options"] = "cluster_time_limit=100"
    found = segments(tmp_path / "files", 18, ffmpeg=ffmpeg, **given)
    for number in (1, 3, 5, 7):
        content = found[number].read_bytes()
        found[number].write_bytes(content[: len(content) * (60 + 4 * number) // 100])
    marks = [mark(1, str(found[0]), 30, "final", "cup"), mark(15, str(found[8]), 40, "cup", "next")]
    takes = ["final", *["cup"] * 8]
    take = Take(tmp_path, found, gaps_before=(2, 4, 6, 8), marks=marks, takes=takes)
    (made,) = take.export("cup", ffmpeg=ffmpeg)
    assert made.frames == sum(take.frames) - take.frames[8] + 40 - 25
    assert len(made.cuts) == 4
    begins = [sum(take.frames[:number]) - 25 for number in range(len(found))]
    # The click in a file's middle is heard, where it was recorded; those at its edges may be its neighbour's.
    expected = [begin / 25 + 1 for begin, count in zip(begins[1:], take.frames[1:], strict=True) if count > 30]
    heard = clicks(made.path)
    offsets_ms = [1000 * (min(heard, key=lambda at: abs(at - second)) - second) for second in expected]
    print(case, " ".join(f"{one:.1f}" for one in offsets_ms))
    assert step_s(made.path, 25) < 0.0011
    assert max(map(abs, offsets_ms)) < 5


@pytest.mark.slow
@pytest.mark.parametrize("container", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_what_a_source_encoded_keeps_its_own_times(tmp_path: Path, ffmpeg: str, container: str) -> None:
    """B frames stay in their order, and where the source lost pictures the time goes on."""
    stream, directory = tmp_path / "source.ts", tmp_path / "files"
    holes = ["-vf", "select='not(between(n,60,79)+eq(n,130))'", "-fps_mode", "passthrough"]
    sound = "aevalsrc='0.8*lt(mod(t,1),0.002)':s=48000:c=mono"
    source = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25", "-f", "lavfi", "-i", sound, "-t", "12"]
    coded = [*holes, "-c:v", "libx264", "-g", "25", "-bf", "2", "-c:a", "aac", str(stream)]
    subprocess.run(["ffmpeg", "-v", "error", *source, *coded], check=True)
    directory.mkdir()
    if container == "mkv":
        cut = cut_by(container, "cluster_time_limit=100")
    else:
        # A port makes one file a recording of them, which FFmpeg's input lets begin at 0.
        cut = ["-f", "segment", "-segment_time", str(SEGMENT_S), "-segment_format", join_module.MUXERS[container]]
        cut += ["-reset_timestamps", "1", "-avoid_negative_ts", "disabled", "-segment_format_options", FRAGMENTS]
    # As ports do: 5.1 does not copy the AAC of an MPEG-TS into mp4 and mov.
    codecs = ["-c:v", "copy", "-c:a", "copy" if container == "mkv" else "aac"]
    command = [ffmpeg, "-v", "error", "-i", str(stream), *codecs, *cut]
    subprocess.run([*command, f"{directory}/%03d.{container}"], check=True)
    take = Take(tmp_path, sorted(directory.iterdir()), more={"codec": "copy"})
    made, *_ = every = take.export(ffmpeg=ffmpeg)
    own, joined = picture_times(str(stream)), picture_times(made.path)
    off_ms = [1000 * ((a - own[0]) - (b - joined[0])) for a, b in zip(own, joined, strict=True)]
    heard = clicks(made.path)
    offsets_ms = [1000 * ((at + 0.5) % 1 - 0.5) for at in heard]
    print(f"{container}: {len(own)} pictures of {len(take.files)} files, off by {min(off_ms):.1f} to {max(off_ms):.1f}"
          f" ms, sound by {min(offsets_ms):.1f} to {max(offsets_ms):.1f} ms, {len(heard)} clicks")  # fmt: skip
    assert [one.why for one in every] == [""]
    assert max(map(abs, off_ms)) < 2
    assert max(map(abs, offsets_ms)) < 5
    first = take.frames[0]
    marks = [mark(1, str(take.files[0]), first - 20, "final", "cup"), mark(6, str(take.files[3]), 20, "cup", "next")]
    (tmp_path / "marked").mkdir()
    files = [Path(shutil.copy(path, tmp_path / "marked")) for path in take.files[:4]]
    for one, path in zip(marks, (files[0], files[3]), strict=True):
        one["path"] = str(path)
    takes = ["final", "cup", "cup", "cup"]
    marked = Take(tmp_path / "marked", files, marks=marks, takes=takes, more={"codec": "copy"})
    (cup,) = marked.export("cup", ffmpeg=ffmpeg)
    # Key frames are each second, and the last file's next one is that of the second 1.
    assert (cup.early_frames, cup.late_frames) == (5, 5)
    joined = picture_times(cup.path)
    begin = own.index(next(at for at in own if at - own[0] > (first - 25 - 0.5) / 25))
    off_ms = [1000 * ((a - own[begin]) - (b - joined[0])) for a, b in zip(own[begin:], joined, strict=False)]
    print(f"  between marks: {len(joined)} pictures, off by {min(off_ms):.1f} to {max(off_ms):.1f} ms")
    assert len(joined) == cup.frames == 25 + sum(take.frames[1:3]) + 25
    assert max(map(abs, off_ms)) < 2
    assert max(1000 * abs((at + 0.5) % 1 - 0.5) for at in clicks(cup.path)) < 5


SIZES = {"dnxhd": "1280x720", "xdcam": "1920x1080"}
KEPT = (
    "codec_name,profile,codec_tag_string,pix_fmt,field_order,color_range,color_space,color_transfer,color_primaries,"
    "width,height,r_frame_rate,sample_rate,channels,channel_layout,sample_aspect_ratio"
)
ENCODED = [(codec, container) for codec in CODECS.values() if codec.name != COPY for container in codec.containers]


def recorded_by_a_port(directory: Path, ffmpeg: str, codec: str, container: str) -> list[Path]:
    """By a port's command line, in files of two seconds; mxf, of which a port makes one file, is cut as the others."""
    source = {"kind": "test", "size": SIZES.get(codec, "320x180"), "rate": 25}
    values = {"source": source, "codec": codec, "container": container, "timecode": "10:00:00:00"}
    table = {"appliance": {"ports": 1}, "defaults": {**values, "segment_s": SEGMENT_S}}
    port = parse_settings([("test.toml", table)]).ports[0]
    words = list(build_ffmpeg_arguments(port, ffmpeg, probe_ffmpeg(ffmpeg)))
    output = words.index("-max_interleave_delta")
    ends = words[output:-1] if port.file_s else cut_by(container)
    directory.mkdir()
    words[output:] = ["-t", "6", *ends, f"{directory}/%03d.{container}"]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return sorted(directory.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "container"), ENCODED, ids=[f"{one.name}-{container}" for one, container in ENCODED])
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_nothing_of_a_codec_changes(tmp_path: Path, ffmpeg: str, codec: Codec, container: str) -> None:
    take = Take(tmp_path, recorded_by_a_port(tmp_path / "files", ffmpeg, codec.name, container))
    made, *_ = every = take.export(ffmpeg=ffmpeg)
    assert [(one.frames, one.why) for one in every] == [(sum(take.frames), "")]
    for shown in (f"stream={KEPT}", "stream_tags=timecode:format_tags=timecode"):
        assert probe(made.path, shown) == probe(take.files[0], shown) != []


@pytest.mark.slow
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_xdcam_is_cut_at_key_frames(tmp_path: Path, ffmpeg: str) -> None:
    """A GOP has ten pictures; the sound of the first one that is kept is the first that is heard."""
    files = recorded_by_a_port(tmp_path / "files", ffmpeg, "xdcam", "mxf")
    marks = [mark(1.4, str(files[0]), 35, "final", "cup"), mark(4.8, str(files[2]), 22, "cup", "next")]
    take = Take(tmp_path, files, marks=marks, takes=["final", "cup", "cup"])
    (cup,) = take.export("cup", ffmpeg=ffmpeg)
    assert (cup.early_frames, cup.late_frames) == (5, 8)
    assert cup.frames == frames_of(Path(cup.path)) == take.frames[0] - 30 + take.frames[1] + 30
    assert "it ends 8 frames after the take, before a key frame" in "".join(lines(cup))
    heard = []
    for path, begin_s in ((str(files[0]), 1.2), (cup.path, 0)):
        command = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:a:0", "-af", f"atrim={begin_s}", "-f", "s24le", "-"]
        heard.append(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(heard[0]) > 48000
    assert heard[1].startswith(heard[0][:48000])


@pytest.mark.slow
@pytest.mark.parametrize("ffmpeg", FFMPEGS)
def test_each_track_of_xdcam_is_as_long_as_the_picture_behind_files_that_were_cut_off(
    tmp_path: Path, ffmpeg: str
) -> None:
    """MXF has no times: the sound of a picture that a cut took from one track would be that track's from then on."""
    files = recorded_by_a_port(tmp_path / "files", ffmpeg, "xdcam", "mxf")
    for path, share in ((files[0], 50), (files[1], 73)):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * share // 100])
    take = Take(tmp_path, files, gaps_before=(1, 2))
    (made,) = take.export(ffmpeg=ffmpeg)
    assert made.frames == sum(take.frames) == frames_of(Path(made.path))
    for track in range(8):
        command = ["ffmpeg", "-v", "error", "-i", made.path, "-map", f"0:a:{track}", "-f", "s24le", "-"]
        heard = subprocess.run(command, check=True, capture_output=True).stdout
        assert len(heard) == made.frames * 1920 * 3
