"""The codecs that sdisup offers, the containers, and how much of a recording may be in flight.

A new codec is a row of `CODECS`, and where FFmpeg's encoder needs options of its own, one function
in command.py.
"""

from __future__ import annotations

from sdisup.contract.records import Record
from sdisup.sources.values import AUTO_RATE, FPS, SLOWEST_RATE

HOLD_BACK_LIMIT_S = 0.5
"""Encoder and container together keep at most this much back, so a kill loses no more (FACTS 3)."""

FRAGMENT_TARGET_S = 0.1
"""How long a fragment or cluster is where the encoder leaves room: the first frame is on disk only
when the first fragment is complete, and what a fragment costs (some 200 bytes) is nothing."""

AUDIO_DELAY_S = 0.1
"""Room for the sound: FFmpeg's AAC encoder keeps two frames of 1024 samples, the resampler some,
and the muxer writes a picture only when the sound that belongs beside it has come."""


class Codec(Record):
    """A video codec as an operator names it, and what FFmpeg needs to know for it.

    `bitrate_kbps` is the default in kilobit/s; 0 where the codec's profile decides the bit rate.
    `is_frame_threaded`: FFmpeg encodes several frames at once and keeps one back per thread. A picture's height has to
    be a multiple of `line_step`, of `field_line_step` where it is interlaced; its width is even.
    """

    name: str
    encoder: str
    containers: tuple[str, ...]
    bitrate_kbps: int
    pix_fmt: str
    is_frame_threaded: bool
    audio_encoder: str
    audio_channels_max: int
    line_step: int
    field_line_step: int

    @property
    def default_container(self) -> str:
        return self.containers[0]


CODECS = {
    codec.name: codec
    for codec in (
        Codec("h264", "libx264", ("mp4", "mov", "mkv"), 8000, "yuv420p", False, "aac", 8, 2, 4),
        # prores_ks encodes better and cannot do 1080p in real time on four cores (FACTS 3, Cost).
        Codec("prores", "prores_aw", ("mov", "mkv"), 0, "yuv422p10le", True, "pcm_s24le", 16, 1, 1),
    )
}

# The muxer's own name for `-f`; a file's ending is never what decides.
MUXERS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska"}


def slowest_fps(rate: str) -> float:
    """Frames a second at `rate`, and the fewest that there may be where it is AUTO_RATE."""
    return FPS[SLOWEST_RATE if rate == AUTO_RATE else rate]


def encoder_delay_s(codec: Codec, threads: int, rate: str) -> float:
    """Seconds of pictures that the encoder keeps back: one frame a thread, or none (libx264 as we run it)."""
    return threads / slowest_fps(rate) if codec.is_frame_threaded and threads > 1 else 0.0


def fragment_duration_s(codec: Codec, threads: int, rate: str) -> float:
    """How long a fragment or cluster may be, in seconds; 0 or less when nothing is left for it.

    A fragment is written when the first frame of the next one arrives, hence one frame more.
    """
    frame_s = 1 / slowest_fps(rate)
    room_s = HOLD_BACK_LIMIT_S - AUDIO_DELAY_S - encoder_delay_s(codec, threads, rate) - frame_s
    return min(FRAGMENT_TARGET_S, room_s)


def max_threads(codec: Codec, rate: str, limit: int = 16) -> int:
    """The most encoder threads that keep within HOLD_BACK_LIMIT_S, with a fragment of one frame."""
    frame_s = 1 / slowest_fps(rate)
    fitting = (n for n in range(limit, 1, -1) if fragment_duration_s(codec, n, rate) >= frame_s)
    return next(fitting, 1)
