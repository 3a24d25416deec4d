"""The timecode of a recording's file, which is written into the file while FFmpeg writes it. Pure.

When the first frame came is known only once it has come, and FFmpeg asks for the timecode before it opens its input. So
FFmpeg is given `00:00:00:00`, for which it makes a place of the right size, with the rate and the drop-frame flag. What
is written here is what FFmpeg would have written there (tests/unit/test_stamp.py compares the files).

FFmpeg writes the header of mkv and mxf anew when it closes the file, so this is done again after that; in mov and mp4
the place is among the frames, which stay as they are.
"""

from __future__ import annotations

from sdisup.contract.media import MXF_HEAD_BYTES, klv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sdisup.contract.timecode import Counting

    Read = Callable[[int, int], bytes]
    Writes = Iterator[tuple[int, bytes]]

CONTAINERS = ("mov", "mp4", "mkv", "mxf")
HEADER_LIMIT_BYTES = 1 << 20
"""What of a header is read at once; those of growing files have some kilobytes."""

MKV_TAGS, MKV_CRC, MKV_TAG_NAME = b"\x12\x54\xc3\x67", b"\xbf\x84", b"\x45\xa3\x88TIMECODE\x44\x87\x8b"
"""EBML ids with sizes (RFC 9559): all tags; their checksum; a name of 8 and a text of 11 bytes."""
MKV_SEGMENT, MKV_CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"

MXF_TIMECODE = bytes.fromhex("060e2b34025301010d01010101011400")
"""The key of a TimecodeComponent (SMPTE ST 377-1)."""
MXF_START = b"\x15\x01\x00\x08"
"""The local tag of its first frame's number, and the length."""
MXF_SYSTEM = bytes.fromhex("060e2b34020501010d01030104010100")
"""The key of the system item that comes with each frame (SMPTE ST 385)."""
MXF_SYSTEM_TIMECODE = 41
"""Where in it the timecode stands (SMPTE ST 331)."""


class Stamp:
    """The timecode of one file: that of its first frame, `run_frame`, which is counted from a midnight.

    `is_found` is whether its place was found.
    """

    def __init__(self, container: str, counting: Counting, frame: int) -> None:
        self.counting, self.run_frame = counting, frame
        self.frame = frame % counting.a_day
        self.is_found = False
        self._container = container
        self._box_at = 0
        """Where it stands in a mov or mp4; there it stays, and the list of a day's frames need not be read for it."""
        self._mxf_at, self._mxf_frame = 0, 0
        """Where the next key of an mxf is, and how many frames are before it."""

    @property
    def text(self) -> str:
        return self.counting.text(self.frame)

    @property
    def goes_on(self) -> bool:
        """Whether there is a place in each frame."""
        return self._container == "mxf"

    def due(self, size_bytes: int, read: Read) -> list[tuple[int, bytes]]:
        """What is to be written, and where, into a file of this size as it is now.

        `read(count, offset)` gives bytes of the file. Called again, what was written since is not asked for.
        """
        find = {"mkv": self._in_mkv, "mxf": self._in_mxf}.get(self._container, self._in_boxes)
        found = [(at, data) for at, data in find(size_bytes, read) if at + len(data) <= size_bytes]
        return [(at, data) for at, data in found if read(len(data), at) != data]

    def begin_again(self) -> None:
        """FFmpeg has closed the file, and may have written its header anew."""
        self.is_found = False

    # ---- mov and mp4: ISO/IEC 14496-12; Apple's QuickTime File Format, Timecode media ----

    def _in_boxes(self, size_bytes: int, read: Read) -> Writes:
        at = self._box_at or _timecode_sample(size_bytes, read)
        if at and at + 4 <= size_bytes:
            self._box_at, self.is_found = at, True
            yield at, self.frame.to_bytes(4, "big")

    # ---- mkv ----

    def _in_mkv(self, size_bytes: int, read: Read) -> Writes:
        begin, end = _mkv_tags(size_bytes, read)
        content = read(end - begin, begin)
        at = content.find(MKV_TAG_NAME) + len(MKV_TAG_NAME)
        if len(content) < end - begin or at < len(MKV_TAG_NAME):
            return
        self.is_found = True
        text = self.text.encode()
        changed = content[:at] + text + content[at + len(text) :]
        yield begin + at, text
        if content.startswith(MKV_CRC):
            yield begin + 2, crc32(changed[6:]).to_bytes(4, "little")

    # ---- mxf ----

    def _in_mxf(self, size_bytes: int, read: Read) -> Writes:
        if not self.is_found:
            yield from self._in_mxf_header(size_bytes, read)
        while self._mxf_at < size_bytes:
            head = read(MXF_HEAD_BYTES, self._mxf_at)
            begin, length = klv(head)
            following = self._mxf_at + begin + length
            if not begin or following > size_bytes:
                return
            if head.startswith(MXF_SYSTEM) and length > MXF_SYSTEM_TIMECODE + 3:
                yield self._mxf_at + begin + MXF_SYSTEM_TIMECODE, self._in_system_item(self.frame + self._mxf_frame)
                self._mxf_frame += 1
            self._mxf_at = following

    def _in_mxf_header(self, size_bytes: int, read: Read) -> Writes:
        """FFmpeg writes the header in one piece, before the first frame; its footer has none of it."""
        at = 0
        while at < size_bytes:
            head = read(MXF_HEAD_BYTES, at)
            begin, length = klv(head)
            if not begin or head.startswith(MXF_SYSTEM) or length > HEADER_LIMIT_BYTES:
                return
            if head.startswith(MXF_TIMECODE):
                start = read(length, at + begin).find(MXF_START)
                if start >= 0:
                    self.is_found = True
                    yield at + begin + start + len(MXF_START), self.frame.to_bytes(8, "big")
            at += begin + length

    def _in_system_item(self, frame: int) -> bytes:
        """SMPTE ST 12-1, as libavutil/timecode.c has it: of more than 30 frames a second two have one number, and a bit
        tells them apart."""
        counting = self.counting
        hours, minutes, seconds, frames = (int(field) for field in counting.text(frame).replace(";", ":").split(":"))
        second_of_two = counting.base > 30 and frames % 2
        fields = [_bcd(frames // 2 if counting.base > 30 else frames), _bcd(seconds), _bcd(minutes), _bcd(hours)]
        if counting.dropped:
            fields[0] |= 0x40
        if second_of_two:
            fields[3 if counting.base == 50 else 1] |= 0x80
        return bytes(fields)


def _bcd(number: int) -> int:
    return number // 10 << 4 | number % 10


def crc32(data: bytes) -> int:
    """CRC-32 of ISO 3309, as zlib has it: no module is loaded for a few hundred bytes a file."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _mkv_tags(size_bytes: int, read: Read) -> tuple[int, int]:
    """Where the content of the tags begins and ends; (0, 0) where there are none before the frames."""
    offset = 0
    while offset + 12 <= size_bytes:
        head = read(12, offset)
        if len(head) < 12 or not head[0]:
            break
        id_bytes = 9 - head[0].bit_length()
        size_byte_count = 9 - head[id_bytes].bit_length()
        if id_bytes > 4 or not 1 <= size_byte_count <= 8:
            break
        identifier = head[:id_bytes]
        known = (1 << 7 * size_byte_count) - 1
        length = int.from_bytes(head[id_bytes : id_bytes + size_byte_count], "big") & known
        offset += id_bytes + size_byte_count
        if identifier == MKV_CLUSTER:
            break
        if identifier == MKV_TAGS:
            return (offset, offset + length) if length <= HEADER_LIMIT_BYTES else (0, 0)
        if identifier != MKV_SEGMENT:
            offset += length
    return 0, 0


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes in `data`: the kind of each, where its content begins and ends."""
    while start + 8 <= end:
        length = int.from_bytes(data[start : start + 4], "big")
        if length < 8 or start + length > end:
            return
        yield data[start + 4 : start + 8], start + 8, start + length
        start += length


def _inside(data: bytes, place: tuple[int, int], *path: bytes) -> tuple[int, int]:
    """The first box on this path: where its content begins and ends; (0, 0) if it is not there."""
    for kind in path:
        place = next(((begin, end) for found, begin, end in _boxes(data, *place) if found == kind), (0, 0))
    return place


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _timecode_sample(size_bytes: int, read: Read) -> int:
    """Where the timecode stands; 0 if it is not there yet.

    The track of a growing file may list it, as that of a closed file does (hybrid_fragmented), or the first moof does.
    """
    offset = track = 0
    while offset + 16 <= size_bytes:
        head = read(16, offset)
        length, kind = _number(head, 0), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or (kind == b"moof" and not track):
            return 0
        if kind in (b"moov", b"moof"):
            data = read(length, offset) if length <= HEADER_LIMIT_BYTES else b""
            if len(data) < length:
                return 0
            if kind == b"moof":
                return _in_fragment(data, offset, track)
            track, at = _in_track(data)
            if at or not track:
                return at
        offset += length
    return 0


def _in_track(moov: bytes) -> tuple[int, int]:
    """The number of the timecode's track, and where its one sample is by the track's list; 0 for what is not there."""
    for kind, begin, end in _boxes(moov, 8, len(moov)):
        handler = _inside(moov, (begin, end), b"mdia", b"hdlr")[0]
        if kind != b"trak" or not handler or moov[handler + 8 : handler + 12] != b"tmcd":
            continue
        header = _inside(moov, (begin, end), b"tkhd")[0]
        number = _number(moov, header + (20 if _number(moov, header) >> 24 else 12))
        table = _inside(moov, (begin, end), b"mdia", b"minf", b"stbl")
        sizes, chunks = _inside(moov, table, b"stsz")[0], _inside(moov, table, b"stco")[0]
        is_listed = sizes and chunks and _number(moov, sizes + 4) == 4 and _number(moov, chunks + 4)
        return number, _number(moov, chunks + 8) if is_listed else 0
    return 0, 0


def _in_fragment(moof: bytes, offset: int, track: int) -> int:
    """Where the first sample of a track is by a moof."""
    for kind, begin, end in _boxes(moof, 8, len(moof)):
        header, run = _inside(moof, (begin, end), b"tfhd")[0], _inside(moof, (begin, end), b"trun")[0]
        if kind != b"traf" or not header or not run or _number(moof, header + 4) != track:
            continue
        # Without a base of its own (0x1) it is the moof; the run's offset (0x1) counts from there.
        has_base = _number(moof, header) & 1
        base = int.from_bytes(moof[header + 8 : header + 16], "big") if has_base else offset
        return base + _number(moof, run + 8) if _number(moof, run) & 1 else 0
    return 0
