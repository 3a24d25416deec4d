"""The codecs that sdisup offers, the containers, and how much of a recording encoder and container may hold back.

A new codec is a row of `CODECS`. Where FFmpeg's encoder needs options of its own, it is also a function in
encode/command.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdisup.contract.media import COPY
from sdisup.contract.records import Record
from sdisup.sources.values import AUTO_RATE, FASTEST_RATE, FPS, SLOWEST_RATE

HOLD_BACK_LIMIT_S = 0.5
"""Encoder and container together hold back at most this much, so that a kill loses no more (FACTS 3)."""

FRAGMENT_TARGET_S = 0.1
"""How long a fragment or cluster is where the encoder leaves room. It is short because the first frame is on disk only
when the first fragment is complete; a fragment costs some 200 bytes."""

AUDIO_DELAY_S = 0.1
"""Room for the sound: FFmpeg's AAC encoder holds back two frames of 1024 samples, the resampler some samples, and the
muxer writes a picture only when the sound of the same time has come."""


class Codec(Record):
    """A video codec as an operator names it, and what FFmpeg needs to know to encode in it.

    `bitrate_kbps` is the default in kilobit/s; 0 where the codec's profile decides the bit rate. `pixel_formats` are
    FFmpeg's names of those that an operator may choose, the default first; `profiles` those of the profiles, which
    leave no choice. `is_frame_threaded`: the encoder works on several frames at once and holds one back per thread.
    `fields` are the scans of interlaced pictures that it encodes as fields. `has_raster`: it takes pictures of some
    sizes alone. `settings` are the port's settings that matter to some codecs only, and to this one. It holds back
    `reordered_frames` for its B frames. `mono_tracks`: so many tracks of one channel each, which are silent where the
    source has fewer channels; 0 where the sound is not split so.
    """

    name: str
    encoder: str
    containers: tuple[str, ...]
    bitrate_kbps: int
    pixel_formats: tuple[str, ...]
    is_frame_threaded: bool
    audio_encoder: str
    audio_channels_max: int
    profiles: Mapping[str, str]
    fields: tuple[str, ...] = ("tff", "bff")
    settings: tuple[str, ...] = ()
    has_raster: bool = False
    reordered_frames: int = 0
    mono_tracks: int = 0

    @property
    def is_copied(self) -> bool:
        """Whether the picture is recorded as the source encoded it."""
        return self.name == COPY

    @property
    def default_container(self) -> str:
        return self.containers[0]

    @property
    def profile_setting(self) -> str:
        """The key of the port's setting that names the profile; "" where the codec has none."""
        return next((key for key in self.settings if key.endswith("_profile")), "")

    def pixel_formats_with(self, profile: str) -> tuple[str, ...]:
        """Those that a port may have, the default first. Of a profile that the codec lacks, all."""
        all_formats = self.pixel_formats or tuple(dict.fromkeys(self.profiles.values()))
        return (self.profiles[profile],) if profile in self.profiles else all_formats

    def default_pixel_format(self, profile: str) -> str:
        """The first of them; "" of what is not encoded here."""
        return next(iter(self.pixel_formats_with(profile)), "")


HARDWARE = ("nvenc", "qsv", "vaapi")
"""The ways to encode on a graphics card (NVIDIA, Intel, Intel and AMD), the preferred first."""
SOFTWARE, AUTO = "software", "auto"

HARDWARE_PIXEL_FORMATS = {"h264": ("yuv420p",), "hevc": ("yuv420p", "yuv420p10le")}
"""What the cards encode, by codec: other pictures, and fields, are encoded by software."""


LONG_GOP = ("bitrate_kbps", "quality", "preset", "gop_frames", "pixel_format", "encoder")

# FFmpeg's pixel formats by profile.
PRORES_PROFILES = dict.fromkeys(("proxy", "lt", "standard", "hq"), "yuv422p10le") | dict.fromkeys(
    ("4444", "4444xq"), "yuv444p10le"
)
DNXHD_PROFILES = dict.fromkeys(("lb", "sq", "hq"), "yuv422p") | {"hqx": "yuv422p10le"}
DNXHR_PROFILES = DNXHD_PROFILES | {"444": "yuv444p10le"}

CODECS = {
    codec.name: codec
    for codec in (
        Codec("h264", "libx264", ("mp4", "mov", "mkv"), 8000, ("yuv420p", "yuv420p10le", "yuv422p", "yuv422p10le"),
              False, "aac", 16, {}, settings=LONG_GOP),
        # x265 encodes fields as pictures of half the height, which players show as such.
        Codec("hevc", "libx265", ("mp4", "mov", "mkv"), 6000, ("yuv420p", "yuv420p10le", "yuv422p", "yuv422p10le"),
              False, "aac", 16, {}, fields=(), settings=LONG_GOP),
        # prores_ks encodes better and cannot do 1080p in real time on four cores (FACTS 3, Cost).
        Codec("prores", "prores_aw", ("mov", "mkv"), 0, (), True, "pcm_s24le", 16, PRORES_PROFILES,
              settings=("prores_profile",)),
        # With `-thread_type slice` FFmpeg's encoder works on one frame at a time. It writes fields as "progressive".
        Codec("dnxhr", "dnxhd", ("mov", "mkv"), 0, (), False, "pcm_s24le", 16, DNXHR_PROFILES, fields=(),
              settings=("dnx_profile",)),
        Codec("dnxhd", "dnxhd", ("mov", "mkv"), 0, (), False, "pcm_s24le", 16, DNXHD_PROFILES,
              fields=("tff",), settings=("dnx_profile", "raster"), has_raster=True),
        # Each picture is a key frame, in slices, which are encoded side by side and have checksums.
        Codec("ffv1", "ffv1", ("mkv",), 0, ("yuv422p10le", "yuv422p", "yuv420p"), False, "pcm_s24le", 16, {},
              settings=("pixel_format",)),
        Codec("v210", "v210", ("mov",), 0, ("yuv422p10le",), True, "pcm_s24le", 16, {}),
        # XDCAM HD422 at 50 Mbit/s. Its GOPs have two B frames between others.
        Codec("xdcam", "mpeg2video", ("mxf",), 0, ("yuv422p",), False, "pcm_s24le", 8, {}, fields=("tff",),
              settings=("raster",), has_raster=True, reordered_frames=2, mono_tracks=8),
        # mp4 and mov do not take each sound that a source may have: there it is encoded (config/sound.py).
        Codec(COPY, COPY, ("mkv", "mp4", "mov"), 0, (), False, COPY, 16, {}, fields=()),
    )
}  # fmt: skip

CODEC_SETTINGS = tuple(dict.fromkeys(key for codec in CODECS.values() for key in codec.settings))
"""The settings of a port that matter to some codecs only."""

PIXEL_FORMATS = tuple(dict.fromkeys(name for codec in CODECS.values() for name in codec.pixel_formats_with("")))

COLOURS = {
    "source": ("", "", ""),
    "bt601": ("bt470bg", "smpte170m", "bt470bg"),
    "bt709": ("bt709", "bt709", "bt709"),
    "bt2020": ("bt2020", "bt2020-10", "bt2020nc"),
    "hlg": ("bt2020", "arib-std-b67", "bt2020nc"),
    "pq": ("bt2020", "smpte2084", "bt2020nc"),
}
"""FFmpeg's names of the primaries, the transfer and the matrix (ITU-R BT.601, 709, 2020, 2100)."""
BT601_525 = ("smpte170m", "smpte170m", "smpte170m")
"""Those of BT.601 at 29.97 and 59.94 frames a second, where 525 lines are."""

# FFmpeg's name of the muxer, for `-f`: FFmpeg never has to guess the muxer by the file's ending.
ONE_FILE = ("mxf",)
"""The containers of which no recording is in several files: FFmpeg 7.1 loses a picture of the first one."""
SEGMENT_S, LONGEST_SEGMENT_S, SHORTEST_SEGMENT_S = 3600.0, 86400, 2

MUXERS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska", "mxf": "mxf"}

TIMECODE_CONTAINERS = ("mov", "mkv", "mxf")
"""Those that have a timecode by default. In mp4 it is a third track, of which other programs than editors know little.
"""


def slowest_fps(rate: str) -> float:
    """Frames a second at `rate`; for AUTO_RATE those of the slowest rate."""
    return FPS[SLOWEST_RATE if rate == AUTO_RATE else rate]


def fastest_fps(rate: str) -> float:
    """Frames a second at `rate`; for AUTO_RATE those of the fastest rate."""
    return FPS[FASTEST_RATE if rate == AUTO_RATE else rate]


def encoder_delay_s(codec: Codec, threads: int, rate: str) -> float:
    """Seconds of pictures that the encoder holds back: one frame a thread and those it reorders, or none."""
    threaded = threads if codec.is_frame_threaded and threads > 1 else 0
    return (threaded + codec.reordered_frames) / slowest_fps(rate)


def fragment_duration_s(codec: Codec, threads: int, rate: str) -> float:
    """How long a fragment or cluster may be, in seconds; 0 or less when the limit leaves no time for one.

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
