"""What a file of a recording holds, found by its boxes while it grows."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


COPY = "copy"
"""The codec of recordings that are as the source encoded them, with its timestamps; FFmpeg's name for it too."""

MATROSKA_SEGMENT, MATROSKA_CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
"""EBML ids: the Segment holds everything, the Clusters in it the frames (RFC 9559)."""

MXF_PICTURE = b"\x06\x0e\x2b\x34\x01\x02\x01\x01\x0d\x01\x03\x01\x15"
"""How the key of a picture's bytes begins in an MXF file (SMPTE 379-2; the last three bytes number it)."""
MXF_KEY_BYTES, MXF_HEAD_BYTES = 16, 25


def holds_media(container: str, size_bytes: int, read: Callable[[int, int], bytes]) -> bool:
    """Whether a growing file holds a frame that a player would find, not only its container's header.

    `read(count, offset)` gives bytes of the file. mp4 and mov are walked box by box (ISO/IEC 14496-12):
    frames are in the first `mdat`, and it has to be whole and described by a whole `moov` or `moof`: before it
    while the file grows, behind it once FFmpeg has made an ordinary file of it.
    """
    if container == "mkv":
        return _holds_cluster(size_bytes, read)
    if container == "mxf":
        return _holds_picture(size_bytes, read)
    offset, described, has_frames = 0, False, False
    while offset + 8 <= size_bytes:
        head = read(16, offset)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            # Zero means "to the end of the file": it is being written.
            return False
        if offset + length > size_bytes:
            return False
        has_frames = has_frames or (kind == b"mdat" and length > 16)
        described = described or kind in (b"moov", b"moof")
        if has_frames and described:
            return True
        offset += length
    return False


def klv(head: bytes) -> tuple[int, int]:
    """Where the value behind the beginning of a key begins, and its length (SMPTE 336M); (0, 0) if it is none."""
    if len(head) <= MXF_KEY_BYTES or not head.startswith(b"\x06\x0e\x2b\x34"):
        return 0, 0
    size = head[MXF_KEY_BYTES]
    if size < 0x80:
        return MXF_KEY_BYTES + 1, size
    begin = MXF_KEY_BYTES + 1 + (size & 0x7F)
    return (begin, int.from_bytes(head[MXF_KEY_BYTES + 1 : begin], "big")) if begin <= len(head) else (0, 0)


def _holds_picture(size_bytes: int, read: Callable[[int, int], bytes]) -> bool:
    """MXF is walked key by key: the first picture has to be whole."""
    offset = 0
    while offset < size_bytes:
        head = read(MXF_HEAD_BYTES, offset)
        begin, length = klv(head)
        if not begin or offset + begin + length > size_bytes:
            return False
        if head.startswith(MXF_PICTURE):
            return True
        offset += begin + length
    return False


def _holds_cluster(size_bytes: int, read: Callable[[int, int], bytes]) -> bool:
    """Matroska is walked element by element (RFC 8794): frames are in the first Cluster, and it has to be whole."""
    offset = 0
    while offset + 12 <= size_bytes:
        head = read(12, offset)
        if len(head) < 12:
            return False
        id_bytes, size_byte_count = 9 - head[0].bit_length(), 0
        if id_bytes <= 4:
            size_byte_count = 9 - head[id_bytes].bit_length()
        if not 1 <= size_byte_count <= 8:
            return False
        identifier = head[:id_bytes]
        unknown = (1 << 7 * size_byte_count) - 1
        length = int.from_bytes(head[id_bytes : id_bytes + size_byte_count], "big") & unknown
        offset += id_bytes + size_byte_count
        if identifier == MATROSKA_CLUSTER:
            # Without a size it is a live stream's, whose frames follow one by one.
            return length == unknown or offset + length <= size_bytes
        if identifier != MATROSKA_SEGMENT:
            offset += length
    return False
