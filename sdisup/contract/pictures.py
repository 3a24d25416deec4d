"""How many pictures a recording holds, by its own boxes or clusters: of a file that was cut off, quickly.

A day's file is hundreds of gigabytes, in a million fragments. Only its last TAIL_BYTES are walked fragment by fragment:
what a cut may have torn is there, since all before it was synced. The pictures before them are told by their time,
since sdisup's recordings have a constant rate (`-fps_mode cfr`). Where that does not come out even, all is walked;
so is a recording that has the source's own timestamps (`copy`).
"""

from __future__ import annotations

import os
import stat

from sdisup.contract.media import MXF_HEAD_BYTES, MXF_PICTURE, klv
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TAIL_BYTES = 64 << 20
"""More than a recording of 100 Mbit/s writes within 5 s; files are synced each second or two."""
WINDOW_BYTES = 4096
"""A fragment's boxes are smaller, and the disk gives no less."""
PIECE_BYTES = 1 << 20
STEPS = 40_000_000
"""Looks at boxes and samples, some minutes' worth: twice as many as the fragments of a day take, one by one."""
BOX_LIMIT_BYTES = 1 << 20
"""A moof of 0.1 s has some hundred bytes."""
TICKS_OFF, LEAST_TICKS = 1.5, 4
"""Times in Matroska are whole ticks: two of them may be rounded either way; so a picture has to take more of them."""


class Pictures(Record):
    """The pictures of a file, and their rate a second (0 if it tells of none)."""

    count: int
    rate: float


class Uneven(Exception):
    """The pictures of the tail do not come at a constant rate."""


class Unclear(Exception):
    """The file is not as FFmpeg writes it for sdisup: somebody else has to read it."""


def count_pictures(path: str, container: str, *, is_even: bool = True) -> Pictures | None:
    """The whole pictures of a file, as `ffprobe -count_packets -fflags +discardcorrupt` counts those of the first video
    stream; None if its boxes do not tell. `is_even` says that they come at a constant rate. Raises OSError."""
    walks = {"mp4": _count_in_boxes, "mov": _count_in_boxes, "mkv": _count_in_clusters, "mxf": _count_in_keys}
    walk = walks.get(container)
    if walk is None:
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        content = _Content(descriptor, TAIL_BYTES if is_even else None)
        # Read-ahead would read most of the file after all.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return walk(content)
    except Unclear:
        return None
    finally:
        os.close(descriptor)


class _Content:
    """The bytes of a file of the size that it has now. Raises Unclear after STEPS looks."""

    def __init__(self, descriptor: int, tail_bytes: int | None) -> None:
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unclear
        self.size = status.st_size
        self.tail_at = 0 if tail_bytes is None else self.size - tail_bytes
        """From where on pictures are looked at that tell how many are before them; 0 where all are looked at."""
        self._start, self._data = 0, b""
        self._steps = 0

    def step(self, count: int = 1) -> None:
        self._steps += count
        if self._steps > STEPS:
            raise Unclear

    def at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes; fewer at the end of the file."""
        self.step()
        if not 0 <= offset < self.size:
            return b""
        if not self._start <= offset <= offset + count <= self._start + len(self._data):
            self._start, self._data = offset, os.pread(self._descriptor, max(count, WINDOW_BYTES), offset)
        begin = offset - self._start
        return self._data[begin : begin + count]

    def whole(self, offset: int, count: int) -> bytes:
        """All of `count` bytes. Raises Unclear where they are not there, or are too many."""
        data = self.at(offset, count) if count <= BOX_LIMIT_BYTES else b""
        if len(data) < count:
            raise Unclear
        return data

    def find(self, mark: bytes, start: int) -> Iterator[int]:
        """Where these bytes stand, from `start` on."""
        self.step()
        while start < self.size:
            piece = os.pread(self._descriptor, PIECE_BYTES, start)
            at = piece.find(mark)
            while at >= 0:
                self.step()
                yield start + at
                at = piece.find(mark, at + 1)
            if len(piece) < PIECE_BYTES:
                return
            start += PIECE_BYTES - len(mark) + 1


# ---- mp4 and mov: ISO/IEC 14496-12 ----


class _Track(Record, frozen=False):
    """The first video track: ticks a second, the samples that its moov lists, a sample's ticks and bytes by default."""

    number: int
    timescale: int
    listed: int
    ticks: int = 0
    sample_bytes: int = 0


class _Fragment(Record):
    """A track's part of a moof: its first sample's time and how many it has, of which so many are whole."""

    offset: int
    time: int
    ticks: int
    samples: int
    whole: int


def _count_in_boxes(content: _Content) -> Pictures | None:
    track, after, is_last = _moov(content)
    if track.listed:
        # FFmpeg lists samples in a file that it closed: behind them.
        if is_last:
            return Pictures(track.listed, 0.0)
        # With hybrid_fragmented those of the first fragment too, which follows.
        length = int.from_bytes(content.whole(after, 8)[:4], "big")
        if content.at(after + 4, 4) != b"mdat" or length < 8 or after + length > content.size:
            raise Unclear
    fragments = _fragments(content, track, after)
    # The first picture's time may be another: FFmpeg makes room for the sound's beginning.
    first, second = next(fragments, None), next(fragments, None)
    if first is None or second is None:
        return Pictures(track.listed + (first.whole if first else 0), 0.0)
    rate = track.timescale / second.ticks if second.ticks else 0.0
    if content.tail_at > second.offset and second.ticks:
        try:
            tail = next(mark - 4 for mark in content.find(b"moof", content.tail_at) if _is_moof(content, mark - 4))
            return Pictures(track.listed + first.whole + _tail_of_boxes(content, track, second, tail), rate)
        except (StopIteration, Uneven):
            # All is walked.
            pass
    rest = sum(fragment.whole for fragment in fragments)
    return Pictures(track.listed + first.whole + second.whole + rest, rate)


def _is_moof(content: _Content, offset: int) -> bool:
    """Whether these bytes are a moof, and no picture's. It begins with its mfhd; its mdat follows."""
    length = int.from_bytes(content.at(offset, 4), "big")
    return content.at(offset + 8, 8) == b"\0\0\0\x10mfhd" and content.at(offset + length + 4, 4) == b"mdat"


def _tail_of_boxes(content: _Content, track: _Track, first: _Fragment, offset: int) -> int:
    """The pictures from `first` on, of a file that has a moof of its tail here. Raises Uneven."""
    count = expected = -1
    for fragment in _fragments(content, track, offset):
        if count < 0:
            count, odd = divmod(fragment.time - first.time, first.ticks)
            expected = -1 if odd or count < 0 else fragment.time
        if fragment.time != expected:
            raise Uneven
        count += fragment.whole
        expected = fragment.time + fragment.samples * first.ticks
    if count < 0:
        raise Uneven
    return count


def _boxes(content: _Content, start: int, limit: int) -> Iterator[tuple[int, bytes, int, int]]:
    """The boxes from `start` on: where each begins, its kind, where its content begins and ends."""
    while start + 8 <= limit:
        head = content.at(start, 16)
        length, kind, body = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if length == 1:
            length, body = int.from_bytes(head[8:16], "big"), start + 16
        elif length == 0:
            length = limit - start
        if length < body - start:
            return
        yield start, kind, body, start + length
        start += length


def _inner(content: _Content, start: int, limit: int) -> Iterator[tuple[int, bytes, int, int]]:
    """The boxes inside of one, which they fill. Raises Unclear for one that is torn: FFmpeg reads nothing at all of a
    file where it meets that, unless it is lucky."""
    end = start
    for box in _boxes(content, start, limit):
        end = box[3]
        yield box
    if end != limit or limit > content.size:
        raise Unclear


def _moov(content: _Content) -> tuple[_Track, int, bool]:
    """The first video track, where the moov ends, and whether media are before it alone. Raises Unclear."""
    has_media = False
    for _, kind, body, end in _boxes(content, 0, content.size):
        if kind == b"moov" and end <= content.size:
            return _video_track(content, body, end), end, has_media
        has_media = has_media or kind == b"mdat"
    raise Unclear


def _video_track(content: _Content, start: int, limit: int) -> _Track:
    track = None
    defaults: dict[int, tuple[int, int]] = {}
    for _, kind, body, end in _boxes(content, start, limit):
        if kind == b"trak" and track is None:
            track = _track(content, body, end)
        elif kind == b"mvex":
            for _, name, place, _ in _boxes(content, body, end):
                if name == b"trex":
                    number, _, ticks, size_bytes = _numbers(content.whole(place + 4, 16))
                    defaults[number] = (ticks, size_bytes)
    if track is None:
        raise Unclear
    track.ticks, track.sample_bytes = defaults.get(track.number, (0, 0))
    return track


def _track(content: _Content, start: int, limit: int) -> _Track | None:
    """A track, if it is one of pictures."""
    number = timescale = listed = 0
    is_video = False
    inner = [(start, limit)]
    while inner:
        for _, kind, body, end in _boxes(content, *inner.pop()):
            if kind in (b"mdia", b"minf", b"stbl"):
                inner.append((body, end))
            elif kind in (b"tkhd", b"mdhd"):
                # Version 1 has two times of 8 bytes before it, version 0 of 4.
                place = body + (20 if content.whole(body, 1) == b"\1" else 12)
                value = int.from_bytes(content.whole(place, 4), "big")
                number, timescale = (value, timescale) if kind == b"tkhd" else (number, value)
            elif kind == b"hdlr":
                # A mov has another one inside of minf, of what handles the data.
                is_video = is_video or content.whole(body + 8, 4) == b"vide"
            elif kind == b"stsz":
                listed = int.from_bytes(content.whole(body + 8, 4), "big")
    return _Track(number, timescale, listed) if is_video else None


def _numbers(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))


def _fragments(content: _Content, track: _Track, start: int) -> Iterator[_Fragment]:
    for offset, kind, body, end in _boxes(content, start, content.size):
        if kind == b"moof":
            fragment = _fragment(content, track, offset, body, end)
            if fragment is not None:
                yield fragment


def _fragment(content: _Content, track: _Track, offset: int, start: int, limit: int) -> _Fragment | None:
    """The track's part of a moof; None where it has none. Raises Unclear."""
    if content.at(limit, 8)[4:] not in (b"mdat", b""):
        # It reached the disk in part, or what should follow did not.
        raise Unclear
    found = None
    for _, kind, body, end in _inner(content, start, limit):
        if kind == b"traf":
            found = _traf(content, track, offset, body, end) or found
    return found


def _traf(content: _Content, track: _Track, base: int, start: int, limit: int) -> _Fragment | None:
    moof, time, ticks, sample_bytes, samples, whole = base, -1, track.ticks, track.sample_bytes, 0, 0
    for _, kind, body, end in _inner(content, start, limit):
        data = content.whole(body, max(8, end - body)) if kind in (b"tfhd", b"tfdt", b"trun") else b""
        if kind == b"tfhd":
            flags, number = _numbers(data[:8])
            if number != track.number:
                return None
            at = 8
            if flags & 1:
                base, at = int.from_bytes(data[at : at + 8], "big"), at + 8
            at += 4 if flags & 2 else 0
            if flags & 8:
                ticks, at = int.from_bytes(data[at : at + 4], "big"), at + 4
            if flags & 0x10:
                sample_bytes = int.from_bytes(data[at : at + 4], "big")
        elif kind == b"tfdt":
            time = int.from_bytes(data[4:12] if data[:1] == b"\1" else data[4:8], "big")
        elif kind == b"trun":
            run_ticks, count, there = _run(content, data, base, sample_bytes)
            ticks, samples, whole = (run_ticks if run_ticks and not samples else ticks), samples + count, whole + there
    if time < 0:
        raise Unclear
    return _Fragment(moof, time, ticks, samples, whole)


def _run(content: _Content, data: bytes, base: int, sample_bytes: int) -> tuple[int, int, int]:
    """The first sample's ticks (0 if the run does not tell), the samples of a trun, and how many of them are whole."""
    flags = int.from_bytes(data[1:4], "big")
    count = int.from_bytes(data[4:8], "big")
    if not flags & 1:
        raise Unclear
    place = base + int.from_bytes(data[8:12], "big", signed=True)
    at = 12 + (4 if flags & 4 else 0)
    step = 4 * (flags >> 8 & 0xF).bit_count()
    if count * step > len(data) - at:
        raise Unclear
    ticks = int.from_bytes(data[at : at + 4], "big") if flags & 0x100 else 0
    if not flags & 0x200:
        there = (content.size - place) // sample_bytes if sample_bytes and content.size > place else 0
        return ticks, count, min(count, there)
    at += 4 if flags & 0x100 else 0
    content.step(count)
    whole = 0
    for index in range(count):
        sample_bytes = int.from_bytes(data[at + index * step : at + index * step + 4], "big")
        if not sample_bytes:
            raise Unclear
        place += sample_bytes
        whole += place <= content.size
    return ticks, count, whole


# ---- Matroska: RFC 8794, RFC 9559 ----

SEGMENT, CLUSTER, TRACKS, TRACK = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\xae"
INFO, SCALE, CUES = b"\x15\x49\xa9\x66", b"\x2a\xd7\xb1", b"\x1c\x53\xbb\x6b"
NUMBER, KIND, DURATION, VIDEO = b"\xd7", b"\x83", b"\x23\xe3\x83", 1
TIME, SIMPLE_BLOCK, GROUP, BLOCK = b"\xe7", b"\xa3", b"\xa0", b"\xa1"
DEFAULT_SCALE_NS = 1_000_000
UNKNOWN = -1


class _Stream(Record):
    """The first video track: its number, nanoseconds a tick and a picture (0 if it has no constant rate)."""

    number: int
    scale_ns: int
    picture_ns: int


def _count_in_clusters(content: _Content) -> Pictures | None:
    stream, first_at = _stream(content)
    rate = 1e9 / stream.picture_ns if stream.picture_ns else 0.0
    if first_at is None:
        return Pictures(0, rate)
    first = next(_blocks(content, stream, first_at), None)
    is_told = stream.scale_ns and stream.picture_ns >= LEAST_TICKS * stream.scale_ns
    if first is not None and content.tail_at > first_at and is_told:
        try:
            tail = next(mark for mark in content.find(CLUSTER, content.tail_at) if _is_cluster(content, mark))
            return Pictures(_tail_of_clusters(content, stream, first, tail), rate)
        except (StopIteration, Uneven):
            # All is walked.
            pass
    return Pictures(sum(1 for _ in _blocks(content, stream, first_at)), rate)


def _is_cluster(content: _Content, offset: int) -> bool:
    """Whether these bytes are a Cluster, and no picture's. It begins with its time; another one follows, or the end."""
    _, body, end = next(_elements(content, offset, content.size), (b"", 0, 0))
    following = content.at(end, 4) if end > 0 else b"\0"
    return end > 0 and content.at(body, 1) == TIME and following in (CLUSTER, CUES, b"")


def _tail_of_clusters(content: _Content, stream: _Stream, first: int, offset: int) -> int:
    """The pictures of a file that has a Cluster of its tail here. Raises Uneven."""
    ticks = stream.picture_ns / stream.scale_ns
    count = before = 0
    for time in _blocks(content, stream, offset):
        if not count:
            before = round((time - first) / ticks)
        # The times of a constant rate never leave it.
        if abs(time - first - (before + count) * ticks) > TICKS_OFF or before < 0:
            raise Uneven
        count += 1
    if not count:
        raise Uneven
    return before + count


def _elements(content: _Content, start: int, limit: int) -> Iterator[tuple[bytes, int, int]]:
    """The elements from `start` on: the id of each, where its content begins and ends (UNKNOWN if it has no size)."""
    while start + 2 <= limit:
        head = content.at(start, 12)
        id_bytes = 9 - head[0].bit_length()
        if id_bytes > 4 or len(head) <= id_bytes or not head[id_bytes]:
            return
        size_bytes = 9 - head[id_bytes].bit_length()
        body = start + id_bytes + size_bytes
        unknown = (1 << 7 * size_bytes) - 1
        length = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & unknown
        if body > limit:
            return
        yield head[:id_bytes], body, UNKNOWN if length == unknown else body + length
        if length == unknown:
            return
        start = body + length


def _number(content: _Content, body: int, end: int) -> int:
    return int.from_bytes(content.whole(body, end - body), "big") if 0 <= end - body <= 8 else 0


def _stream(content: _Content) -> tuple[_Stream, int | None]:
    """The first video track, and where the first Cluster is. Raises Unclear."""
    segment = next((body for kind, body, _ in _elements(content, 0, content.size) if kind == SEGMENT), None)
    if segment is None:
        raise Unclear
    scale_ns, found, at = DEFAULT_SCALE_NS, None, segment
    for kind, body, end in _elements(content, segment, content.size):
        if kind == CLUSTER:
            break
        if kind == TRACKS:
            found = _video(content, body, end)
        elif kind == INFO:
            values = {name: _number(content, *place) for name, *place in _elements(content, body, end)}
            scale_ns = values.get(SCALE, scale_ns)
        if end == UNKNOWN:
            raise Unclear
        at = end
    if found is None:
        raise Unclear
    return _Stream(found[0], scale_ns, found[1]), at if at < content.size else None


def _video(content: _Content, start: int, limit: int) -> tuple[int, int] | None:
    """The number of the first video track, and nanoseconds a picture."""
    for kind, body, end in _elements(content, start, min(limit, content.size)):
        if kind == TRACK:
            inner = {name: place for name, *place in _elements(content, body, end)}
            values = {name: _number(content, *inner[name]) for name in (NUMBER, KIND, DURATION) if name in inner}
            if values.get(KIND) == VIDEO:
                return values.get(NUMBER, 0), values.get(DURATION, 0)
    return None


def _blocks(content: _Content, stream: _Stream, start: int) -> Iterator[int]:
    """The times of the stream's whole pictures, from the Cluster at `start` on. Raises Unclear for what has no size."""
    for kind, body, end in _elements(content, start, content.size):
        if kind == CLUSTER:
            if end == UNKNOWN:
                raise Unclear
            yield from _blocks_of_cluster(content, stream, body, min(end, content.size))


def _blocks_of_cluster(content: _Content, stream: _Stream, start: int, limit: int) -> Iterator[int]:
    time = 0
    for kind, body, end in _elements(content, start, limit):
        if end > content.size or end == UNKNOWN:
            return
        if kind == TIME:
            time = _number(content, body, end)
        elif kind == SIMPLE_BLOCK:
            yield from _picture(content, stream, time, body)
        elif kind == GROUP:
            for name, place, _ in _elements(content, body, end):
                if name == BLOCK:
                    yield from _picture(content, stream, time, place)


def _picture(content: _Content, stream: _Stream, time: int, body: int) -> Iterator[int]:
    head = content.whole(body, 4)
    # A track's number has one byte up to 126; FFmpeg counts from 1.
    if head[0] == 0x80 | stream.number:
        yield time + int.from_bytes(head[1:3], "big", signed=True)


# ---- MXF: SMPTE 336M (keys), 377-1 (index tables) ----

INDEX = b"\x06\x0e\x2b\x34\x02\x53\x01\x01\x0d\x01\x02\x01\x01\x10\x01\x00"
INDEX_START, INDEX_COUNT = 0x3F0C, 0x3F0D
EDIT_RATE = b"\x4b\x01\x00\x08"
"""A track's tag and its length, two numbers of four bytes."""
INDEXED_BYTES = 256 << 20
"""FFmpeg writes an index of the pictures before it every 250 pictures, which are 95 MB at 50 Mbit/s and 24 fps."""
HEADER_BYTES = 64 << 10


def _count_in_keys(content: _Content) -> Pictures | None:
    """The pictures from the first index of the tail on, which tells how many are before it. Raises Unclear."""
    if not klv(content.at(0, MXF_HEAD_BYTES))[0]:
        raise Unclear
    start, count = next(content.find(INDEX, max(0, content.size - INDEXED_BYTES)), 0), 0
    while start < content.size:
        head = content.at(start, MXF_HEAD_BYTES)
        begin, length = klv(head)
        end = start + begin + length
        if not begin and len(head) == MXF_HEAD_BYTES:
            raise Unclear
        if not begin or end > content.size:
            # It was being written.
            break
        if head.startswith(MXF_PICTURE):
            count += 1
        elif head.startswith(INDEX):
            count = _indexed(content.whole(start + begin, length))
        start = end
    return Pictures(count, _edit_rate(content.at(0, HEADER_BYTES)))


def _indexed(table: bytes) -> int:
    """How many pictures there are before the index's end: its local set has tags and lengths of two bytes each."""
    values, at = {INDEX_START: 0, INDEX_COUNT: 0}, 0
    while at + 4 <= len(table):
        tag, length = (int.from_bytes(table[place : place + 2], "big") for place in (at, at + 2))
        if tag in values:
            values[tag] = int.from_bytes(table[at + 4 : at + 4 + length], "big")
        at += 4 + length
    return values[INDEX_START] + values[INDEX_COUNT]


def _edit_rate(header: bytes) -> float:
    """Pictures a second, as a track of the header states them; 0 if none does."""
    at = header.find(EDIT_RATE)
    above, below = _numbers(header[at + 4 : at + 12]) if at >= 0 and len(header) >= at + 12 else (0, 0)
    return above / below if below else 0.0
