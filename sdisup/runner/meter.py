"""Measures how well a recording goes, by frame counts and file sizes. Pure; the time is a parameter.

Progress means that frames advance, not that lines arrive: with a stalled source FFmpeg may report the same frame for
ever, or fall silent (FACTS 3). All times are CLOCK_MONOTONIC seconds.
"""

from __future__ import annotations

import math

from sdisup.contract.lean import deque
from sdisup.runner.decide import Sight
from sdisup.runner.pace import BURST_LIMIT_S, SOURCE_SILENT, STANDARD_RATES, Pace

WINDOW_S = 4.0


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


class Meter:
    """What one running FFmpeg has delivered. `rate` is that of its source in frames a second, 0 if nobody stated it;
    `silent` is the cause of a time without pictures, `is_copied` whether the pictures are recorded as they come."""

    def __init__(
        self, started: float, rate: float = 0.0, silent: str = SOURCE_SILENT, *, is_copied: bool = False
    ) -> None:
        self.started = started
        self.pace = Pace(rate, silent, started, is_copied=is_copied)
        self.blocks = 0
        self.frames = 0
        self.dup_frames = 0
        self.drop_frames = 0
        self.speed: float | None = None
        self.size_bytes = 0
        self.first_media_at: float | None = None
        self.last_frame_at: float | None = None
        self.silent = silent
        self._first_frame_at = math.inf
        """When the first frame came at the latest, by each block so far."""
        self._last_growth_at = self._sized_at = started
        self._has_sound_alone = False
        """Whether the file holds sound, and no picture yet: a copy begins with the first key frame."""
        self._frame_rate = Rate()
        self._byte_rate = Rate()

    @property
    def rate(self) -> float:
        """The recording's frames a second, 0 while nobody knows."""
        return self.pace.rate

    def find_rate(self, fps: float) -> None:
        """FFmpeg has found the rate that nobody stated."""
        if not self.rate and 0 < fps < 1000:
            self.pace = Pace(fps, self.silent, self.started, is_stated=False, is_copied=self.pace.is_copied)

    @property
    def is_rate_exact(self) -> bool:
        """Whether the rate is more than what FFmpeg prints of it, two places."""
        return self.pace.is_stated or self.rate in STANDARD_RATES or self.rate == int(self.rate)

    def is_beginning(self, now: float) -> bool:
        """Whether it is too early to tell when the first frame came, by what FFmpeg has counted so far."""
        if not self.rate or self.first_media_at is None:
            return False
        return self.pace.is_in_first_burst and now - self.first_media_at < BURST_LIMIT_S

    def progress(
        self,
        now: float,
        frame: int,
        dup_frames: int,
        drop_frames: int,
        speed: float | None,
        raw: float | None = None,
    ) -> int:
        """Take in a progress block; returns how many frames are new. `raw` is now by CLOCK_MONOTONIC_RAW."""
        self.blocks += 1
        new = max(0, frame - self.frames)
        if new:
            self.last_frame_at = now
            self.frames = frame
            if self._has_sound_alone:
                self.media(now)
            if self.rate:
                self._first_frame_at = min(self._first_frame_at, now - frame / self.rate)
        self.dup_frames = max(self.dup_frames, dup_frames)
        self.drop_frames = max(self.drop_frames, drop_frames)
        self.speed = speed
        self._frame_rate.add(now, self.frames)
        self.pace.add(now, now if raw is None else raw, frame, dup_frames, drop_frames)
        return new

    def first_frame_at(self, now: float) -> float:
        """When the first frame came, by what FFmpeg has counted; now where it has counted none.

        What FFmpeg still buffers, and what it has not filled yet after a hole, let it seem to have come later.
        """
        if not self.rate or self.last_frame_at is None:
            return now
        return max(self.started, min(self._first_frame_at, self.last_frame_at - self.frames / self.rate))

    def moment_of(self, frame: int) -> float | None:
        """When FFmpeg's frame of this number came, counted from 0; None before it is counted."""
        if frame >= self.frames or self.last_frame_at is None:
            return None
        return self.last_frame_at - (self.frames - frame) / self.rate if self.rate else self.last_frame_at

    def frame_at(self, moment: float) -> int:
        """The number of the frame that came at a moment, counted from 0; of the last seconds."""
        if self.last_frame_at is None:
            return 0
        return min(self.frames, max(0, round(self.frames - (self.last_frame_at - moment) * self.rate)))

    def growthless_s(self, now: float) -> float:
        """For how long the file has not grown, in seconds."""
        return now - self._last_growth_at

    def look_s(self, now: float) -> float:
        """How long ago the file's size was looked at, in seconds."""
        return now - self._sized_at

    def media(self, now: float) -> None:
        """The first frame is on disk."""
        self._has_sound_alone = self.pace.is_copied and not self.frames
        if self.first_media_at is None and not self._has_sound_alone:
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

    def sight(self, now: float, awake_s: float = math.inf, **seen: object) -> Sight:
        """What decide gets to see of the recording now, with what else is `seen`. The runner has been awake for
        `awake_s`: what did not come for longer had no time to come."""
        media_at = self.first_media_at
        return Sight(
            recording_s=None if media_at is None else now - media_at,
            blocks=self.blocks,
            frames=self.frames,
            frameless_s=min(self.frameless_s(now), awake_s),
            growthless_s=min(self.growthless_s(now), awake_s),
            look_s=self.look_s(now),
            pace=self.pace.remark,
            jump=self.pace.jump(now),
            **seen,  # type: ignore[arg-type]
        )
