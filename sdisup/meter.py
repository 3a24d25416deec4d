"""How well a recording goes, from frame counts and file sizes: pure, time passed in.

Progress means that frames advance, not that lines arrive: with a stalled source FFmpeg may go on
reporting the same frame for ever, or fall silent (FACTS 3). All times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 4.0
NO_FRAME_S = 2.0
NO_GROWTH_S = 5.0


class Rate:
    """The rate of a growing count over the last seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        self._points.append((now, count))
        while len(self._points) > 2 and self._points[1][0] <= now - WINDOW_S:
            self._points.popleft()

    def per_second(self, now: float) -> float:
        """Zero until there are two points, and again once nothing was added for the window's length."""
        if len(self._points) < 2 or now - self._points[-1][0] > WINDOW_S:
            return 0.0
        (first_at, first), (last_at, last) = self._points[0], self._points[-1]
        return max(0.0, (last - first) / (last_at - first_at)) if last_at > first_at else 0.0


class Meter:
    """What one running FFmpeg has delivered."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.frames = 0
        self.dup_frames = 0
        self.drop_frames = 0
        self.speed: float | None = None
        self.size_bytes = 0
        self.first_media_at: float | None = None
        self.last_frame_at: float | None = None
        self._last_growth_at = started
        self._frame_rate = Rate()
        self._byte_rate = Rate()

    def progress(self, now: float, frame: int, dup_frames: int, drop_frames: int, speed: float | None) -> int:
        """Take a progress block in; returns how many frames are new."""
        new = max(0, frame - self.frames)
        if new:
            self.last_frame_at = now
            self.frames = frame
        self.dup_frames = max(self.dup_frames, dup_frames)
        self.drop_frames = max(self.drop_frames, drop_frames)
        self.speed = speed
        self._frame_rate.add(now, self.frames)
        return new

    def media(self, now: float) -> None:
        """The first frame is on disk."""
        if self.first_media_at is None:
            self.first_media_at = self._last_growth_at = now

    def size(self, now: float, size_bytes: int) -> None:
        """Take the file's size in."""
        if size_bytes > self.size_bytes:
            self._last_growth_at = now
            self.size_bytes = size_bytes
        self._byte_rate.add(now, self.size_bytes)

    def fps(self, now: float) -> float:
        return self._frame_rate.per_second(now)

    def bitrate_mbps(self, now: float) -> float:
        return self._byte_rate.per_second(now) * 8 / 1e6

    def frameless_s(self, now: float) -> float:
        """For how long no new frame has come, in seconds; since the start if none ever did."""
        for since in (self.last_frame_at, self.first_media_at):
            if since is not None:
                return now - since
        return now - self.started

    def state(self, now: float) -> tuple[str, str]:
        """`starting`, `recording` or `stalled`, and the reason."""
        if self.first_media_at is None:
            return "starting", ""
        if self.frameless_s(now) > NO_FRAME_S:
            return "stalled", f"no new frame for {self.frameless_s(now):.0f} s"
        if now - self._last_growth_at > NO_GROWTH_S:
            return (
                "stalled",
                f"frames arrive, but the file has not grown for {now - self._last_growth_at:.0f} s",
            )
        return "recording", ""
