"""The runner's log: lines on stderr with their priority, which systemd hands to the journal.

Never blocks, never floods. The journal's rate limit is per unit, and one FFmpeg with a flood of
messages would silence everything else (FACTS 2); so FFmpeg's lines are limited here, at the source.
"""

from __future__ import annotations

import os

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
BURST_LINES = 120
LINES_PER_S = 2.0
TEXT_LIMIT = 2000


class Journal:
    """Writes lines as sd-daemon(3) has them: `<4>text`. Times are CLOCK_MONOTONIC seconds."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._tokens = float(BURST_LINES)
        self._filled_at = 0.0
        self._unsaid = 0
        self._rest = b""
        # The descriptor is the journal's stream (or a terminal) and nobody else's: FFmpeg gets a pipe.
        os.set_blocking(descriptor, False)

    def say(self, priority: int, text: str) -> None:
        """A line of the runner's own: not limited, since the runner says little."""
        # A line end inside would begin a line of its own, with a priority that it names itself.
        line = text[:TEXT_LIMIT].replace("\n", " ").replace("\r", " ").replace("\0", " ")
        self._write(f"<{priority}>{line}\n".encode("utf-8", "replace"))

    def forward(self, now: float, priority: int, text: str) -> None:
        """A line of FFmpeg's, limited; how many were left out is said when there is room again."""
        self._tokens = min(float(BURST_LINES), self._tokens + (now - self._filled_at) * LINES_PER_S)
        self._filled_at = now
        if self._tokens < 1:
            self._unsaid += 1
            return
        self._tokens -= 1
        self.report_unsaid()
        self.say(priority, f"ffmpeg: {text}")

    def report_unsaid(self) -> None:
        """Say how many of FFmpeg's lines were left out, if any."""
        if self._unsaid:
            self.say(WARNING, f"{self._unsaid} lines of FFmpeg's log were left out (more than {LINES_PER_S:.0f}/s)")
            self._unsaid = 0

    def _write(self, line: bytes) -> None:
        """A line that the journal does not take at once is lost: the recording must not wait for it."""
        data = self._rest + line
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            return
        # A torn line is completed before the next one begins; none begins before that, or a journal that
        # reads slowly would make a heap of them.
        self._rest = data[written:] if written >= len(self._rest) else self._rest[written:]


class FFmpegLog:
    """FFmpeg's log on its way to the journal: held back while it would say the same again and again.

    Without a signal, and in a crash loop, every attempt logs the same lines. They are kept, and said only
    when the attempt turns out to be something else.
    """

    KEPT_LINES = 80

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held_back: list[tuple[int, str]] = []
        self.is_quiet = False

    def take(self, now: float, priority: int, text: str) -> None:
        if not self.is_quiet:
            self._journal.forward(now, priority, text)
            return
        self._held_back.append((priority, text))
        del self._held_back[: -self.KEPT_LINES]

    def release(self, now: float, *, only_errors: bool = False) -> None:
        """Say what was held back; of a repeated failure only its last errors."""
        lines = self._held_back
        if only_errors:
            lines = [line for line in lines if line[0] <= ERROR][-4:]
        for priority, text in lines:
            self._journal.forward(now, priority, text)
        self.discard()

    def discard(self) -> None:
        self._held_back = []
