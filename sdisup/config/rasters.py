"""What broadcast codecs take: pictures of some sizes, at some rates, in fields or not. Pure.

FFmpeg encodes others without a word in xdcam, and says only at the start of a recording that dnxhd cannot take them.
"""

from __future__ import annotations

from collections.abc import Mapping

RASTERS = ("1920x1080", "1280x720")

# ---- dnxhd ----

_FILM, _24, _25, _30, _50, _60 = "24000/1001", "24", "25", "30000/1001", "50", "60000/1001"

DNXHD_MBITS: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("1920x1080p", "lb"): {_FILM: 36, _24: 36, _25: 36, _30: 45, _50: 75, _60: 90},
    ("1920x1080p", "sq"): {_FILM: 115, _24: 115, _25: 120, _30: 145, _50: 240, _60: 290},
    ("1920x1080p", "hq"): {_FILM: 175, _24: 175, _25: 185, _30: 220, _50: 365, _60: 440},
    ("1920x1080p", "hqx"): {_FILM: 175, _24: 175, _25: 185, _50: 365, _60: 440},
    ("1920x1080i", "sq"): {_25: 120, _30: 145},
    ("1920x1080i", "hq"): {_25: 185, _30: 220},
    ("1920x1080i", "hqx"): {_25: 185, _30: 220},
    ("1280x720p", "sq"): {_FILM: 60, _25: 60, _30: 75, _50: 120, _60: 145},
    ("1280x720p", "hq"): {_FILM: 90, _25: 90, _30: 110, _50: 180, _60: 220},
    ("1280x720p", "hqx"): {_FILM: 90, _25: 90, _50: 180, _60: 220},
}
"""Mbit/s by raster, profile and rate, as FFmpeg 5.1 and 7.1 know them (libavcodec/dnxhddata.c; the encoder lists them
where it is given another). FFmpeg lacks 10 bit at 29.97 frames a second. The profiles are named as those of dnxhr."""


def dnxhd_mbits(raster: str, is_interlaced: bool, profile: str, rate: str) -> int:
    """The bit rate by which FFmpeg finds the kind of dnxhd; 0 where there is none."""
    return DNXHD_MBITS.get((raster + "pi"[is_interlaced], profile), {}).get(rate, 0)


# ---- xdcam ----

XDCAM_GOPS: Mapping[str, Mapping[str, int]] = {
    "1920x1080p": {_25: 12, _30: 15},
    "1920x1080i": {_25: 12, _30: 15},
    "1280x720p": {_50: 24, _60: 30},
}
"""The frames of a GOP by raster and rate: half a second's, which two B frames between others fill."""


def xdcam_gop(raster: str, is_interlaced: bool, rate: str) -> int:
    """The frames of a GOP; 0 where there is no such XDCAM HD422."""
    return XDCAM_GOPS.get(raster + "pi"[is_interlaced], {}).get(rate, 0)


# ---- Both ----


def is_taken(codec: str, profile: str, raster: str, is_interlaced: bool, rate: str) -> bool:
    """Whether the codec, dnxhd or xdcam, takes such pictures."""
    if codec == "xdcam":
        return xdcam_gop(raster, is_interlaced, rate) > 0
    return dnxhd_mbits(raster, is_interlaced, profile, rate) > 0


def choices(codec: str, raster: str, is_interlaced: bool) -> str:
    """In words, what the codec takes of such pictures: `lb, sq, hq at 25, 50; hqx at 25`."""
    scan = raster + "pi"[is_interlaced]
    if codec == "xdcam":
        return f"at {' and '.join(XDCAM_GOPS[scan])}" if scan in XDCAM_GOPS else "none"
    profiles: dict[str, list[str]] = {}
    for (of, profile), rates in DNXHD_MBITS.items():
        if of == scan:
            profiles.setdefault(", ".join(rates), []).append(profile)
    return "; ".join(f"{', '.join(names)} at {rates}" for rates, names in profiles.items()) or "none"
