"""Joins files of a take to one, by copying: what FFmpeg is asked, and what is believed of its answer.

FFmpeg's concat demuxer puts a file behind the one before it, by the later end of its picture and its sound: 21
boundaries made 0.17 s. So each file gets a `duration` line, its frames by their rate; the pictures are stamped by
their number. The sound's own times say where it is, but for AAC in mp4 and mov, whose first packet of each file stands
at 0 whenever it was heard: it follows upon the packet before, unless it is further away from where it should be than a
packet can be. PCM in mp4 and mov has no times at all: where something is missing between two files it is written anew,
sample by sample, with silence where it lacks some.

All files are opened once, and FFmpeg opens what was opened: nobody can put another file in the place of one, and their
names do not matter.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import resource
import signal
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction

from sdisup.contract.files import Fields
from sdisup.contract.pictures import count_pictures
from sdisup.contract.programs import COUNT_GENTLY, DEMUXERS, GIVEN_NAME, Program, count_frames_of, says
from sdisup.contract.timecode import counting
from sdisup.control.pieces import LeftOut, Media, Run, container_of
from sdisup.errors import SdisupError
from sdisup.sources.values import FPS

MUXERS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska", "mxf": "mxf"}
AAC_SAMPLES = 1024
APART_S = 0.05
"""Sound that is further away than this from where it should be does not follow upon what is before it: a packet is up
to 43 ms long, AAC at 24 kHz or a picture's samples at 24 fps."""
EXACT_S = 0.003
CUTS_MOST = 1000
"""So many cuts have room in FFmpeg's arguments, which are up to 128 KiB each. Behind others the sound is right to
APART_S."""
EARLY_S = 0.001
"""A picture's time is looked for by this much before it: Matroska rounds times to milliseconds."""
LOOK_PACKETS = 80
"""Enough to hold two pictures and the sound beside them, in the order in which FFmpeg writes them."""
ANSWER_BYTES = 1 << 20
SAID_BYTES = 64 << 20
"""FFmpeg ends where nobody reads on, and it has some words for each file that was cut off."""
KEYS_BYTES = 256 << 20
LIMIT_STEP = 256
SYNC_S = 1.0
FREE_MIN_BYTES = 1 << 30
"""What an export leaves free: its disk may be one that a port records to."""
HEAD_BYTES = 4 << 20
"""What a file's head and index take more than those of its parts, for an hour or so; and a hundredth of its size."""
INTRA = ("prores", "dnxhd", "ffv1", "v210", "rawvideo", "mjpeg")
"""FFmpeg's names of codecs without any picture that needs another one."""


class Sources:
    """The files of a take, open. `by_path` are their descriptors."""

    def __init__(self) -> None:
        self.by_path: dict[str, int] = {}

    def open(self, path: str) -> LeftOut | None:
        """Open a file for reading; why it cannot be, if so. No link is followed, and nothing but a file opened."""
        if path in self.by_path:
            return None
        if len(self.by_path) % LIMIT_STEP == 0:
            _need_descriptors(len(self.by_path) + 2 * LIMIT_STEP)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            said = {errno.ENOENT: "is gone", errno.ELOOP: "is a link now, and no recording"}
            return LeftOut(path, said.get(error.errno or 0) or f"cannot be read: {error.strerror}")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return LeftOut(path, "is no regular file")
        with suppress(OSError):
            # For retention, where a filesystem cannot tell it that somebody has the file open (retention/disk.py).
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self.by_path[path] = descriptor
        return None

    def size_bytes(self, path: str) -> int:
        return os.fstat(self.by_path[path]).st_size

    def name(self, path: str) -> str:
        """By what name another process opens the same file."""
        return f"/proc/{os.getpid()}/fd/{self.by_path[path]}"

    def close(self) -> None:
        while self.by_path:
            os.close(self.by_path.popitem()[1])


def _need_descriptors(count: int) -> None:
    """A take of months has more files than a process may have open, unless it asks (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


# ---- What a file holds ----

_ENTRIES = (
    "stream=index,codec_type,codec_name,profile,width,height,pix_fmt,field_order,r_frame_rate,has_b_frames,"
    "sample_rate,channels,extradata_hash:stream_tags=timecode:format_tags=timecode:packet=stream_index,pts_time"
)


def media_of(ffprobe: str, path: str, descriptor: int, *, is_copied: bool = False) -> Media | LeftOut:
    """What ffprobe finds in an open file. One that the source encoded is read to its end."""
    demuxer = DEMUXERS.get(container_of(path), "")
    if not demuxer:
        return LeftOut(path, "is of no container that sdisup records to")
    options = ["-v", "quiet", "-f", demuxer, "-show_data_hash", "md5", "-of", "json"]
    shown = ["-show_entries", _ENTRIES, "-read_intervals", f"%+#{LOOK_PACKETS}"]
    text, code = says([*COUNT_GENTLY, ffprobe, *options, *shown, GIVEN_NAME], ANSWER_BYTES, given=descriptor)
    if code in (126, 127):
        raise SdisupError(f"{ffprobe} cannot be run", "it comes with FFmpeg: apt-get install ffmpeg")
    try:
        return media_from(json.loads(text), times_of(ffprobe, descriptor, demuxer) if is_copied else ())
    except ValueError as error:
        return LeftOut(path, f"cannot be read by ffprobe: {error}")


def media_from(said: object, pictures: Sequence[float] = ()) -> Media:
    """What ffprobe's JSON says. `pictures` are the times of all, and of the last one's end, where the source encoded
    them. Raises ValueError."""
    fields = Fields(said, "ffprobe")
    streams = [Fields(stream, "a stream") for stream in fields.items("streams", [])]
    videos = [stream for stream in streams if stream.text("codec_type", "") == "video"]
    audios = [stream for stream in streams if stream.text("codec_type", "") == "audio"]
    if not videos:
        raise ValueError("it has no picture")
    video = videos[0]
    rate = _rate(video.text("r_frame_rate", ""))
    times: dict[int, list[float]] = {}
    for item in fields.items("packets", []):
        packet = Fields(item, "a packet")
        try:
            times.setdefault(packet.whole("stream_index"), []).append(float(packet.text("pts_time", "")))
        except ValueError:
            # MXF has no times for some pictures.
            continue
    chosen = {stream.whole("index"): times.get(stream.whole("index"), []) for stream in [video, *audios]}
    firsts = [found[0] for found in chosen.values() if found]
    begin_s = pictures[0] if pictures else _begin_s(chosen[video.whole("index")], rate)
    return Media(
        rate,
        max(0.0, begin_s - min(firsts, default=begin_s)),
        tuple(_words(stream) for stream in [video, *audios]),
        video.text("codec_name", ""),
        f"{audios[0].text('codec_name', '')} {audios[0].text('profile', '')}".strip() if audios else "",
        video.whole("has_b_frames", 0),
        _timecode(fields, streams),
        tuple(at - begin_s for at in pictures),
    )


def times_of(ffprobe: str, descriptor: int, demuxer: str) -> tuple[float, ...]:
    """When each picture of an open file comes, and when the last one ends. Raises ValueError."""
    options = ["-v", "quiet", "-fflags", "+discardcorrupt", "-f", demuxer, "-select_streams", "v:0", "-of", "csv=p=0"]
    shown = ["-show_entries", "packet=pts_time,duration_time"]
    text, _ = says([*COUNT_GENTLY, ffprobe, *options, *shown, GIVEN_NAME], KEYS_BYTES, given=descriptor)
    rows = sorted(tuple(float(word) for word in line.split(b",")[:2]) for line in text.split())
    if not rows:
        raise ValueError("it has no picture")
    return (*(row[0] for row in rows), sum(rows[-1]))


def _timecode(fields: Fields, streams: Sequence[Fields]) -> str:
    """The first frame's: mov and mp4 have it with the picture, mkv and MXF with the file; empty if there is none."""
    for part in (*streams, fields.child("format", {})):
        tags = part.child("tags", {})
        found = next((tags.text(name, "") for name in tags.names() if name.lower() == "timecode"), "")
        if found:
            return found
    return ""


def _rate(text: str) -> Fraction:
    """ffprobe's `25/1`. A rate that is next to one that television has is that one."""
    above, _, below = text.partition("/")
    if not (above.isdigit() and below.isdigit() and int(below) and int(above)):
        raise ValueError("its pictures have no rate")
    rate = Fraction(int(above), int(below))
    near = (Fraction(name) for name, fps in FPS.items() if abs(fps - float(rate)) < 0.0005 * fps)
    return min(near, key=lambda known: abs(known - rate), default=rate)


def _begin_s(times: Sequence[float], rate: Fraction) -> float:
    """When the first picture comes. Its own time may be an earlier one: where FFmpeg makes room for the sound's
    beginning, it makes that picture last longer."""
    pictures = sorted(times)
    return pictures[1] - float(1 / rate) if len(pictures) > 1 else next(iter(pictures), 0.0)


def _words(stream: Fields) -> str:
    """A stream in words; the hash tells apart what an encoder's settings make different."""
    names = ("codec_name", "profile", "pix_fmt", "field_order")
    said = [str(stream.value(name, "")) for name in names]
    size = f"{stream.value('width', '')}x{stream.value('height', '')}"
    sound = f"{stream.value('sample_rate', '')} Hz, {stream.value('channels', '')} channels"
    said.append(size if stream.text("codec_type") == "video" else sound)
    digest = hashlib.sha256(str(stream.value("extradata_hash", "")).encode()).hexdigest()
    return " ".join(word for word in (*said, f"(settings {digest[:6]})") if word)


def key_frames(ffprobe: str, descriptor: int, container: str, until: int) -> list[int]:
    """The numbers of the key frames before frame `until`, by reading all that is before it: a file in fragments has no
    index."""
    options = ["-v", "quiet", "-f", DEMUXERS[container], "-select_streams", "v:0", "-of", "csv=p=0"]
    shown = ["-show_entries", "packet=flags", "-read_intervals", f"%+#{until}"]
    text, _ = says([*COUNT_GENTLY, ffprobe, *options, *shown, GIVEN_NAME], KEYS_BYTES, given=descriptor)
    return [number for number, flags in enumerate(text.split()[:until]) if flags.startswith(b"K")]


# ---- What is copied ----


def rounded(run: Run, ffprobe: str, sources: Sources) -> Run:
    """The run with the key frame at or before its first frame as the first; where pictures stand in another order than
    they are shown, with all up to the key frame at or behind its last one. Raises SdisupError."""
    first, last = run.pieces[0], run.pieces[-1]
    is_intra = run.media[0].video_codec in INTRA
    if first.first and not is_intra:
        keys = key_frames(ffprobe, sources.by_path[first.path], run.container, first.first + 1)
        if not keys:
            raise SdisupError(f"{first.path}: no key frame can be read before its frame {first.first}")
        run = run.replaced(early=first.first - keys[-1])
    if last.has_more and run.media[-1].reordered:
        end = last.first + (last.frames or 0)
        keys = key_frames(ffprobe, sources.by_path[last.path], run.container, end + LOOK_PACKETS)
        behind = next((key for key in keys if key >= end), None)
        if behind is None:
            raise SdisupError(f"{last.path}: no key frame can be read behind its frame {end}")
        run = run.replaced(late=behind - end)
    return run


def list_text(run: Run, names: Sequence[str]) -> str:
    """The concat demuxer's list: the files under these names, each with the time until the next one begins.

    Each begins with its first picture's place. What is before the first picture of a file, such as the first sound of
    AAC, is before that place.
    """
    lines = ["ffconcat version 1.0"]
    begins = [place - media.offset_s for place, media in zip(run.places(), run.media, strict=True)]
    last = run.pieces[-1]
    begins.append(begins[-1] + run.media[-1].offset_s + run.media[-1].at_s(last.first + (last.frames or 0)))
    whole_us = [round(begin * 1_000_000) for begin in begins]
    for name, begin, following in zip(names, whole_us, whole_us[1:], strict=False):
        lines += [f"file {name}", f"duration {max(0, following - begin)}us"]
    if run.first and run.container == "mxf":
        # Here FFmpeg looks for the first picture: of MXF it would leave out the sound of other pictures.
        skipped_us = round(run.media[0].at_s(run.first) * 1_000_000)
        lines[2:3] = [f"inpoint {skipped_us}us", f"duration {max(0, whole_us[1] - whole_us[0] - skipped_us)}us"]
    return "\n".join(lines) + "\n"


def arguments(run: Run, ffmpeg: str, list_name: str) -> list[str]:
    """FFmpeg's arguments: it reads the list of that name, and writes the descriptor GIVEN_NAME."""
    rate, is_copied = run.rate, run.pieces[0].is_copied
    # The concat demuxer's time of the first picture, and of the first one that is copied.
    begin_s = run.media[0].offset_s
    first_s = begin_s + (run.media[0].at_s(run.first) if run.container != "mxf" else 0.0)
    is_skipped = run.first > 0 and run.container != "mxf"
    # FFmpeg looks at the time at which a picture is decoded.
    decoded_s = run.media[0].reordered / float(rate)
    start_s = max(0.0, first_s - decoded_s - EARLY_S) if is_skipped else 0.0
    early_s = EARLY_S if is_skipped else 0.0 if is_copied else begin_s
    end_s = first_s + run.seconds - float(1 / rate / 2) - start_s
    is_cut = run.pieces[-1].has_more
    words = [ffmpeg, "-v", "error", "-nostdin", "-fflags", "+discardcorrupt"]
    # What a file names is not opened.
    words += ["-protocol_whitelist", "file", "-format_whitelist", "concat,mov,matroska,mxf"]
    words += ["-f", "concat", "-safe", "0", "-auto_convert", "0", "-i", list_name]
    words += ["-map", "0:v:0", "-map", "0:a?", "-c", "copy"]
    words += ["-ss", f"{start_s:.6f}"] if is_skipped else []
    if is_cut and run.media[0].reordered and run.container != "mxf":
        words += ["-frames:v", str(run.frames)]
    elif is_cut:
        words += ["-t", f"{end_s:.6f}"]
    words += ["-metadata", f"timecode={timecode}"] if (timecode := _first_number(run)) else []
    # MXF counts its pictures in the order in which they stand, and has no other times.
    words += [] if is_copied else ["-bsf:v", f"setts=ts=round(N*{rate.denominator}/{rate.numerator}/TB)"]
    words += _sound_arguments(run, early_s, start_s)
    words += ["-y", "-f", MUXERS[run.container], GIVEN_NAME]
    return words


def _first_number(run: Run) -> str:
    """The timecode of the first picture that is copied; empty if it has none."""
    numbers, text = counting(float(run.rate)), run.media[0].timecode
    try:
        return numbers.text(numbers.frame(text) + run.first) if numbers and text else ""
    except ValueError:
        # What somebody else has put there.
        return ""


def _sound_arguments(run: Run, early_s: float, start_s: float) -> list[str]:
    codec, is_in_boxes = run.media[0].audio_codec, run.container in ("mp4", "mov")
    time = f"(TS-round({early_s:.6f}/TB))"
    if codec.startswith("aac") and is_in_boxes:
        # HE-AAC, which a source may deliver, has longer packets.
        place = _place(run, time, f"(PREV_OUTDTS+{AAC_SAMPLES})", 0.0) if codec == "aac LC" else time
        return ["-bsf:a", f"setts=ts='max({place},PREV_OUTDTS+1)'"]
    is_counted = is_in_boxes or run.container == "mxf"
    if codec.startswith("pcm_") and is_counted and (run.cuts() or (run.first and is_in_boxes)):
        # A filter sees the times from the first file's beginning on.
        place = _place(run, time.replace("TS", "PTS"), "ld(1)", start_s)
        follow = f"st(0,if(N,{place},{time.replace('TS', 'PTS')}));st(1,ld(0)+NB_SAMPLES/SR/TB);ld(0)"
        silence = "aresample=async=1:min_comp=0.0001:min_hard_comp=0.0001:first_pts=0"
        return ["-c:a", codec, "-af", f"asetpts='{follow}',{silence}"]
    return ["-bsf:a", f"setts=ts={time}"] if codec and early_s else []


def _place(run: Run, time: str, follows: str, start_s: float) -> str:
    """An expression: sound follows upon what is before it, unless that is too far from its own time. At the beginning
    and behind a cut, where the time of all but the first packet is right, a little is too far."""
    cuts = [cut.at_s + start_s for cut in run.cuts()[:CUTS_MOST]]
    near = [f"lt({time}*TB,0.3)", *(f"between({time}*TB,{at + 0.03:.3f},{at + 0.3:.3f})" for at in cuts)]
    apart = f"{APART_S}-{APART_S - EXACT_S}*({'+'.join(near)})"
    return f"if(lt(abs({time}-{follows})*TB,{apart}),{follows},{time})"


# ---- The file ----


class Unfinished:
    """A new file beside its final name, open as `descriptor`; it is gone unless it was given that name."""

    def __init__(self, directory: str, name: str) -> None:
        self.path = f"{directory}/{name}"
        self._part = f".{name}.{os.getpid()}.part"
        self.part_path = f"{directory}/{self._part}"
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.descriptor = os.open(self._part, flags, 0o664, dir_fd=self._directory)
        except BaseException:
            os.close(self._directory)
            raise

    def publish(self) -> None:
        """Make it durable under its final name. Raises FileExistsError where something has that name by now."""
        os.fsync(self.descriptor)
        name = os.path.basename(self.path)
        where = {"src_dir_fd": self._directory, "dst_dir_fd": self._directory}
        try:
            os.link(self._part, name, **where, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            # A filesystem without hard links, such as exFAT. The name is taken first: rename(2) replaces what has it.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o664, dir_fd=self._directory))
            try:
                os.rename(self._part, name, **where)
            except BaseException:
                os.unlink(name, dir_fd=self._directory)
                raise
        os.fsync(self._directory)

    def close(self) -> None:
        """What is left of it is removed."""
        with suppress(FileNotFoundError):
            # It is not there where it was renamed.
            os.unlink(self._part, dir_fd=self._directory)
        os.close(self.descriptor)
        os.close(self._directory)


def room_problem(directory: str, size_bytes: int) -> str:
    """Why a directory has no room for so many bytes of recordings; "" if it has. Raises OSError."""
    space = os.statvfs(directory)
    free = space.f_bavail * space.f_frsize
    needed = size_bytes + size_bytes // 100 + HEAD_BYTES + FREE_MIN_BYTES
    if free >= needed:
        return ""
    kept = f"{FREE_MIN_BYTES >> 20} MiB of which stay free"
    return f"{directory} has {free >> 20} MiB left, and {needed >> 20} MiB are needed, {kept}"


def join(run: Run, ffmpeg: str, ffprobe: str, sources: Sources, directory: str, name: str) -> str:
    """Copy the run to a new file of this name; returns its path. Raises SdisupError, and then leaves nothing behind."""
    try:
        unfinished = Unfinished(directory, name)
    except OSError as error:
        raise SdisupError(f"{directory}: no file can be made: {error.strerror}") from error
    try:
        _copy(run, ffmpeg, sources, unfinished.descriptor)
        _check(run, ffprobe, unfinished)
        unfinished.publish()
    except FileExistsError as error:
        raise SdisupError(f"{unfinished.path} exists by now, and is not overwritten") from error
    except OSError as error:
        raise SdisupError(f"{unfinished.path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.close()
    return unfinished.path


INTERRUPTIONS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _copy(run: Run, ffmpeg: str, sources: Sources, output: int) -> None:
    listed, mask = os.memfd_create("files"), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        os.write(listed, list_text(run, [sources.name(piece.path) for piece in run.pieces]).encode())
        words = arguments(run, ffmpeg, f"/proc/{os.getpid()}/fd/{listed}")
        # An interruption between its start and the wait for its end would leave FFmpeg behind.
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
        program = Program([*COUNT_GENTLY, *words], with_stderr=True, given=output)
        with _synced(output):
            text, code = program.answer(SAID_BYTES, mask=mask) or (b"", 127)
    except (OSError, ValueError) as error:
        raise SdisupError(f"{ffmpeg} cannot be run: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(listed)
    if code:
        lines = text.decode("utf-8", "replace").strip().splitlines()
        raise SdisupError(f"FFmpeg could not join the files (exit code {code}): {lines[-1] if lines else 'no word'}")


@contextmanager
def _synced(descriptor: int) -> Iterator[None]:
    """What is written goes to the disk bit by bit: all at once would hold up what ports write there."""
    is_over = threading.Event()

    def sync() -> None:
        while not is_over.wait(SYNC_S):
            try:
                os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            except OSError:
                # The last sync, before the file gets its name, tells of it.
                return

    thread = threading.Thread(target=sync, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _check(run: Run, ffprobe: str, unfinished: Unfinished) -> None:
    """Compare the frames of the result with those of its pieces. Raises SdisupError."""
    found = count_pictures(unfinished.part_path, run.container)
    count = found.count if found is not None else None
    if count is None:
        count, _ = count_frames_of(ffprobe, unfinished.descriptor, run.container)
    if count != run.frames:
        raise SdisupError(
            f"the joined file has {count} frames, and its files have {run.frames} by the ledger",
            "sdisup verify --take NAME tells which file differs from the ledger",
        )
