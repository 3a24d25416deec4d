"""Measures how well a recording goes, by frame counts and file sizes. Pure; the time is a parameter.

Progress means that frames advance, not that lines arrive: with a stalled source FFmpeg may report the same frame for
ever, or fall silent (FACTS 3). All times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

from collections import deque

from sdisup.runner.decide import Sight

WINDOW_S = 4.0
PACE_S = 10.0
TOO_SLOW = 0.01
"""An encoder that is slower than its source by more than this share does not keep up."""
DRIFT = 0.0002
"""The share of each step's frames that may be missing: twice the 100 ppm by which clocks may differ."""


class Rate:
    """The rate of a growing count over the last seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        self._points.append((now, count))
        while len(self._points) > 2 and self._points[1][0] <= now - WINDOW_S:
            self._points.popleft()

    def per_second(self, now: float) -> float:
        """The rate; zero with fewer than two points, and when the last point is older than WINDOW_S."""
        if len(self._points) < 2 or now - self._points[-1][0] > WINDOW_S:
            return 0.0
        (first_at, first), (last_at, last) = self._points[0], self._points[-1]
        return max(0.0, (last - first) / (last_at - first_at)) if last_at > first_at else 0.0


class Deficit:
    """Counts the frames that a source of a known rate should have delivered and did not.

    It compares frames with monotonic time, in steps of at least PACE_S between progress blocks. A late block makes one
    step short and the next one long; so the frames that a step owes are carried on, and count as missing for good only
    after the next step. A card's clock may differ from the system's by 100 ppm for months; so each step may owe a
    little (DRIFT; DESIGN.md, Ledger).
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._owed = 0.0
        self._missing = 0
        self._at: float | None = None
        self._frames = 0
        self.frames = 0
        """How many frames are missing so far. The frames of the last step may still come."""
        self.pace_fps: float | None = None
        """The rate of the last step, in frames per second, if it was too low; else None."""

    def add(self, now: float, frames: int) -> None:
        if not self._rate:
            return
        if self._at is None:
            self._at, self._frames = now, frames
            return
        elapsed_s = now - self._at
        if elapsed_s < PACE_S:
            return
        expected, got = self._rate * elapsed_s, frames - self._frames
        owed_before = self._owed
        self._owed = max(-self._tolerance(), self._owed + expected - got - expected * DRIFT)
        # Frames that two steps in a row owe are missing; frames that one step owes may come a block late.
        self._missing = max(self._missing, self._counted(min(owed_before, self._owed)))
        self.frames = max(self._missing, self._counted(self._owed))
        self.pace_fps = got / elapsed_s if got < expected * (1 - TOO_SLOW) else None
        self._at, self._frames = now, frames

    def _counted(self, owed: float) -> int:
        return int(owed) if owed > self._tolerance() else 0

    def _tolerance(self) -> float:
        return max(4.0, self._rate * 0.4)


class Meter:
    """What one running FFmpeg has delivered. `rate` is that of its source in frames a second, 0 if unknown."""

    def __init__(self, started: float, rate: float = 0.0) -> None:
        self.started = started
        self.rate = rate
        self.deficit = Deficit(rate)
        self.blocks = 0
        self._drop_rate, self._dup_rate = Rate(), Rate()
        self.frames = 0
        self.dup_frames = 0
        self.drop_frames = 0
        self.speed: float | None = None
        self.size_bytes = 0
        self.first_media_at: float | None = None
        self.last_frame_at: float | None = None
        self._last_growth_at = self._sized_at = started
        self._frame_rate = Rate()
        self._byte_rate = Rate()

    def progress(self, now: float, frame: int, dup_frames: int, drop_frames: int, speed: float | None) -> int:
        """Take in a progress block; returns how many frames are new."""
        self.blocks += 1
        new = max(0, frame - self.frames)
        if new:
            self.last_frame_at = now
            self.frames = frame
            # Only with new frames: blocks go on while no frame comes, and the gap that follows counts that time.
            self.deficit.add(now, frame)
        self.dup_frames = max(self.dup_frames, dup_frames)
        self.drop_frames = max(self.drop_frames, drop_frames)
        self.speed = speed
        self._frame_rate.add(now, self.frames)
        self._drop_rate.add(now, self.drop_frames)
        self._dup_rate.add(now, self.dup_frames)
        return new

    def drops_half(self, now: float) -> bool:
        """Whether FFmpeg drops about as many frames as it keeps: the source has twice the configured rate."""
        return self.rate > 0 and self._drop_rate.per_second(now) > 0.8 * self.rate

    def rate_change(self, now: float) -> str:
        """Why the source must have changed to twice or half the configured rate during this file; "" if it did not.

        FFmpeg then keeps the rate by dropping or repeating every second frame (VIDEOMASTER.md 9). If a file began so,
        the source is configured wrong, and a new file would be no better.
        """
        if self.drops_half(now) and 1.5 * self.drop_frames < self.frames:
            return f"half of the frames are dropped: the signal has more than {self.rate:g} fps"
        if self.rate > 0 and self._dup_rate.per_second(now) > 0.4 * self.rate and 3 * self.dup_frames < self.frames:
            return f"half of the frames are repeated: the signal has less than {self.rate:g} fps"
        return ""

    def growthless_s(self, now: float) -> float:
        """For how long the file has not grown, in seconds."""
        return now - self._last_growth_at

    def look_s(self, now: float) -> float:
        """How long ago the file's size was looked at, in seconds."""
        return now - self._sized_at

    def media(self, now: float) -> None:
        """The first frame is on disk."""
        if self.first_media_at is None:
            self.first_media_at = self._last_growth_at = self._sized_at = now

    def size(self, now: float, size_bytes: int) -> None:
        """Take in the file's size."""
        if size_bytes > self.size_bytes:
            self._last_growth_at = now
            self.size_bytes = size_bytes
        self._sized_at = now
        self._byte_rate.add(now, self.size_bytes)

    def fps(self, now: float) -> float:
        return self._frame_rate.per_second(now)

    def bitrate_mbps(self, now: float) -> float:
        return self._byte_rate.per_second(now) * 8 / 1e6

    def frameless_s(self, now: float) -> float:
        """For how long no new frame has come, in seconds; since FFmpeg's start if no frame ever came."""
        for since in (self.last_frame_at, self.first_media_at):
            if since is not None:
                return now - since
        return now - self.started

    def sight(self, now: float) -> Sight:
        """What decide gets to see of the recording now."""
        media_at = self.first_media_at
        return Sight(
            running_s=now - self.started,
            recording_s=None if media_at is None else now - media_at,
            blocks=self.blocks,
            frames=self.frames,
            frameless_s=self.frameless_s(now),
            growthless_s=self.growthless_s(now),
            look_s=self.look_s(now),
            pace_fps=self.deficit.pace_fps,
        )
