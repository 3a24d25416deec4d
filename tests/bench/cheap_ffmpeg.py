#!/usr/bin/python3 -IS
"""An FFmpeg that costs next to nothing, so that hundreds of ports record on a small machine: it says what FFmpeg says,
and writes bytes that are no pictures. Whatever is no recording goes to the real FFmpeg."""

import os
import select
import sys
import time

FFMPEG = "/usr/bin/ffmpeg"
RATE = 25
DESCRIPTION = (4096).to_bytes(4, "big") + b"moof" + bytes(4088)
FRAMES = (4096).to_bytes(4, "big") + b"mdat" + bytes(4088)
"""What a fragment of mp4 consists of (ISO/IEC 14496-12): a description, and frames."""
BEGINNING = b"""\
[info] Input #0, lavfi, from 'testsrc2=size=320x180:rate=25,realtime':
[info]   Duration: N/A, start: 0.000000, bitrate: N/A
[info]   Stream #0:0: Video: wrapped_avframe, yuv420p, 320x180 [SAR 1:1 DAR 16:9], 25 fps, 25 tbr, 25 tbn
[info] Stream mapping:
[info]   Stream #0:0 -> #0:0 (wrapped_avframe (native) -> h264 (libx264))
[info] Press [q] to stop, [?] for help
[info] Output #0, mp4, to '/proc/self/fd/3':
[info]   Stream #0:0: Video: h264 (avc1 / 0x31637661), yuv420p, 320x180, q=2-31, 500 kb/s, 25 fps, 12800 tbn
"""


def block(frames: int, size: int, state: str) -> bytes:
    return (
        f"frame={frames}\nfps=25.00\ntotal_size={size}\ndup_frames=0\ndrop_frames=0\nspeed=1x\nprogress={state}\n"
    ).encode()


def record(words: list[str]) -> int:
    period_s = float(words[words.index("-stats_period") + 1])
    progress = int(words[words.index("-progress") + 1].removeprefix("pipe:"))
    # The first of several files, of which it writes no other.
    path = words[-1].replace("%d", "0")
    os.write(2, f"[segment @ 0x1] [info] Opening '{path}' for writing\n".encode() + BEGINNING)
    output = os.open(path, os.O_WRONLY)
    began = time.monotonic()
    poll = select.poll()
    poll.register(0, select.POLLIN)
    size = os.write(output, DESCRIPTION)
    while True:
        size += os.write(output, FRAMES)
        frames = int((time.monotonic() - began) * RATE) + 1
        os.write(progress, block(frames, size, "continue"))
        if poll.poll(period_s * 1000) and os.read(0, 16) in (b"", b"q"):
            os.write(progress, block(frames, size, "end"))
            return 0


if __name__ == "__main__":
    if "-progress" in sys.argv:
        sys.exit(record(sys.argv[1:]))
    os.execv(FFMPEG, [FFMPEG, *sys.argv[1:]])
