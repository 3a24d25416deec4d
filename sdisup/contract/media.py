"""What a file of a recording holds: found by its boxes while it grows, counted by ffprobe once it was cut off."""

from __future__ import annotations

import os
from collections.abc import Callable

MATROSKA_SEGMENT, MATROSKA_CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
"""EBML ids: the Segment holds everything, the Clusters in it the frames (RFC 9559)."""


def holds_media(container: str, size_bytes: int, read: Callable[[int, int], bytes]) -> bool:
    """Whether a growing file holds a frame that a player would find, not only its container's header.

    `read(count, offset)` gives bytes of the file. mp4 and mov are walked box by box (ISO/IEC 14496-12):
    frames are in the first `mdat`, and it has to be whole and described by a whole `moov` or `moof`: before it
    while the file grows, behind it once FFmpeg has made an ordinary file of it.
    """
    if container == "mkv":
        return _holds_cluster(size_bytes, read)
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


def count_frames(ffprobe: str, path: str) -> tuple[int | None, float]:
    """The pictures of a file, counted by reading all of it, and their rate a second (0 if it has none).

    No pictures for a file that cannot be read; None if ffprobe could not tell, or there is no such file. At
    the lowest priority, and without decoding: a day of 50 Mb/s is 500 GB of reading.
    """
    # A last picture that is there in part is a packet too, unless corrupt ones are discarded.
    options = "-v quiet -fflags +discardcorrupt -select_streams v:0 -count_packets -of csv=p=0"
    entries = "stream=avg_frame_rate,nb_read_packets"
    text, code = says(["nice", "-n", "19", ffprobe, *options.split(), "-show_entries", entries, path])
    rate, _, count = text.strip().strip(b",").partition(b",")
    if count.isdigit():
        return int(count), _rate(rate)
    # nice(1) answers 126 and 127 for what it cannot run.
    is_told = code in (0, 1) and os.path.lexists(path)
    return (0 if is_told else None), 0.0


def _rate(text: bytes) -> float:
    """ffprobe's `25/1`; 0 for `0/0`."""
    above, _, below = text.partition(b"/")
    is_rate = above.isdigit() and below.isdigit() and int(below) > 0
    return int(above) / int(below) if is_rate else 0.0


def says(command: list[str]) -> tuple[bytes, int]:
    """What a command writes to stdout, up to 4 KiB, and its exit code (minus the signal that killed it).

    127 if it cannot be run. It waits: for threads only.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, write_end, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    except (OSError, ValueError):
        os.close(read_end)
        return b"", 127
    finally:
        os.close(write_end)
        os.close(null)
    with open(read_end, "rb") as output:
        text = output.read(4096)
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ffprobe_beside(ffmpeg: str) -> str:
    """The ffprobe that belongs to an FFmpeg; it is asked only to count the frames of a file that was cut off."""
    beside = os.path.join(os.path.dirname(ffmpeg), "ffprobe")
    return beside if os.path.dirname(ffmpeg) and os.access(beside, os.X_OK) else "ffprobe"
