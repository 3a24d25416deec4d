"""Plays an input that loses its signal, around the real FFmpeg: for the drill's own port, and for nothing else.

    python3 lost_signal.py SIGNAL FFMPEG ARGUMENTS…

There is a signal while the file SIGNAL exists. No real input loses its signal on request, so this program prints what
Deltacast's `videomaster` input prints, at the same times (its FFmpeg of 2025-09-29). Without a signal that FFmpeg ends
at once with 234. When the signal is lost, its progress goes on and its frame count stands still for 10 s; then it
closes its file, complete, and ends with 251 (-xerror). Here the real FFmpeg closes the file at the loss already, and
this program holds the last words of that FFmpeg back for those 10 s. Standard library only.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Sequence

NO_SIGNAL_STATUS, LOST_STATUS = 234, 251
CARD_WAITS_S, PROGRESS_S, LOOK_S = 10.0, 0.25, 0.05
NO_SIGNAL = b"""\
[fatal] Stream map '' matches no streams.
[fatal] Error opening output files: Invalid argument
[videomaster @ 0x5581c0de0000] [error] Failed to stop stream
"""
LOST = b"""\
[videomaster @ 0x5581c0de0000] [error] Timeout while waiting for slot lock
[videomaster @ 0x5581c0de0000] [error] Failed to get data buffers
[in#0/videomaster @ 0x5581c0de1000] [error] Error during demuxing: Input/output error
"""
BLOCK_BEGIN, BLOCK_END = b"frame=", b"progress=end\n"


def main(words: Sequence[str]) -> int:
    """Run FFmpeg as long as there is a signal; returns the exit code of a `videomaster` input."""
    path, *command = words
    if not os.path.exists(path):
        os.write(2, NO_SIGNAL)
        return NO_SIGNAL_STATUS
    output, into = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, into, 2)]
    # FFmpeg has this process's stdin, so that the runner's `q` reaches it.
    ffmpeg = os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE])
    os.close(into)
    while os.path.exists(path):
        if select.select([output], [], [], LOOK_S)[0]:
            data = os.read(output, 1 << 16)
            if not data:
                return os.waitstatus_to_exitcode(os.waitpid(ffmpeg, 0)[1]) & 0xFF
            os.write(2, data)
    os.kill(ffmpeg, signal.SIGTERM)
    with open(output, "rb") as file:
        last_words = file.read()
    os.waitpid(ffmpeg, 0)
    stand_still(last_words)
    os.write(2, LOST + last_words)
    return LOST_STATUS


def stand_still(last_words: bytes) -> None:
    """Repeat the last progress block for as long as the card waits for the next frame."""
    end = last_words.rfind(BLOCK_END)
    block = last_words[last_words.rfind(BLOCK_BEGIN, 0, end) : end] + b"progress=continue\n"
    until = time.monotonic() + CARD_WAITS_S
    while time.monotonic() < until:
        os.write(2, block)
        time.sleep(PROGRESS_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
