"""Every setting of the configuration, one row each.

The checks, the documentation (settings_docs.py) and the starter file all come from these rows. A new
key is a row; a new source kind is its rows, its name in SOURCE_KINDS, and a function in command.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdisup.codecs import CODECS, MUXERS, RATES, find_rate

APPLIANCE = "appliance"
PORT = "port"
SOURCE_KINDS = {
    "videomaster": "an SDI input of a Deltacast card; needs Deltacast's FFmpeg",
    "test": "FFmpeg's test picture and tone, in real time",
}
DEFAULT_SOURCE_KIND = "videomaster"

MAX_PORTS = 64
PATH_MAX_BYTES = 1024  # well below the kernel's 4096, which the take's and the file's name share


@dataclass(frozen=True)
class Setting:
    """A key of the configuration.

    `section` is "appliance", "port", or a source kind. `default` is None where it depends on other
    settings; `default_doc` then says on what. `minimum` and `maximum` are inclusive, in `unit`.
    """

    section: str
    key: str
    type: str
    default: object
    doc: str
    default_doc: str = ""
    allowed: tuple[str | int, ...] = ()
    minimum: float = 0
    maximum: float = 0
    unit: str = ""


X264_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
PRORES_PROFILES = ("proxy", "lt", "standard", "hq")
# The eight that work, of those that the input lists (VIDEOMASTER.md, Choosing the input).
BUFFER_PACKINGS = (
    "YUV422_8", "YUV422_10", "RGB_24", "RGB_32", "RGBA_32", "RGB_64", "PLANAR_NV12", "PLANAR_P010",
)  # fmt: skip
TIMESTAMP_SOURCES = ("osc", "system", "hw", "ltc_on_board", "ltc_companion_card")

SETTINGS: tuple[Setting, ...] = (
    Setting(APPLIANCE, "ports", "integer", 8, "How many ports there are: 0 to one less than this.",
            minimum=1, maximum=MAX_PORTS),
    Setting(APPLIANCE, "recordings", "path", "/srv/recordings",
            "The directory that recordings go to; it has to exist."),
    Setting(APPLIANCE, "ffmpeg", "path", "/usr/bin/ffmpeg", "The FFmpeg that records."),

    Setting(PORT, "enabled", "boolean", True, "Whether the port is configured at all."),
    Setting(PORT, "name", "name", None,
            "What operators call the port; unique, and the beginning of its files' names.",
            default_doc="portN"),
    Setting(PORT, "record_at_boot", "boolean", False, "Whether the port records whenever the machine is up."),
    Setting(PORT, "recordings", "path", None, "The directory that this port's recordings go to.",
            default_doc="that of [appliance]"),
    Setting(PORT, "codec", "choice", "h264", "What the picture is encoded in.", allowed=tuple(CODECS)),
    Setting(PORT, "container", "choice", None,
            "The file format; each is written so that a crash leaves it playable.",
            default_doc="mp4 for h264, mov for prores", allowed=tuple(MUXERS)),
    Setting(PORT, "bitrate_kbps", "integer", None,
            "The bit rate of the picture; prores takes its own from prores_profile.",
            default_doc="8000 for h264", minimum=100, maximum=400_000, unit="kbit/s"),
    Setting(PORT, "preset", "choice", "veryfast",
            "How hard the h264 encoder works: slower is a better picture at the same bit rate.",
            allowed=X264_PRESETS),
    Setting(PORT, "prores_profile", "choice", "hq", "The quality of prores.", allowed=PRORES_PROFILES),
    Setting(PORT, "threads", "integer", 4,
            "How many threads encode the picture; each keeps a frame of prores back, which limits them.",
            minimum=1, maximum=16),
    Setting(PORT, "stall_timeout_s", "number", None,
            "FFmpeg is restarted when no frame has come for so long.",
            default_doc="5; videomaster 12", minimum=1, maximum=600, unit="s"),
    Setting(PORT, "start_timeout_s", "number", 30.0,
            "FFmpeg is restarted when its first frame has not come within so long.",
            minimum=1, maximum=600, unit="s"),
    Setting(PORT, "sync_interval_s", "number", 1.0,
            "How often what was written is forced to the disk; a power cut costs this and half a second.",
            minimum=0.1, maximum=60, unit="s"),
    Setting(PORT, "stop_quit_s", "number", None,
            "At a stop, how long FFmpeg may take after `q` before it gets SIGTERM.",
            default_doc="3; videomaster 12", minimum=0.1, maximum=120, unit="s"),
    Setting(PORT, "stop_start_quit_s", "number", None,
            "The same while FFmpeg has not delivered a frame yet.",
            default_doc="stop_quit_s; videomaster 22", minimum=0.1, maximum=120, unit="s"),
    Setting(PORT, "stop_term_s", "number", 2.0,
            "How long FFmpeg may take after SIGTERM before it is killed.",
            minimum=0.1, maximum=120, unit="s"),

    Setting("videomaster", "board", "integer", 0, "The card, counted from 0.", maximum=63),
    Setting("videomaster", "channel", "integer", None, "The card's input, counted from 0.",
            default_doc="the port's index", maximum=63),
    Setting("videomaster", "rate", "rate", "25",
            "Frames a second of the signal; an interlaced one has half as many as fields.",
            allowed=tuple(RATES)),
    Setting("videomaster", "scan", "choice", "progressive",
            "Interlaced signals come with the top (tff) or the bottom (bff, some SD) field first.",
            allowed=("progressive", "tff", "bff")),
    Setting("videomaster", "buffer_packing", "choice", "YUV422_8", "How the card delivers the picture.",
            allowed=BUFFER_PACKINGS),
    Setting("videomaster", "audio_channels", "integer", 2,
            "How many embedded audio channels are recorded, from the first; 0 for none.", maximum=16),
    Setting("videomaster", "sample_size", "integer", 24, "The audio's sample size.",
            allowed=(16, 24), unit="bit"),
    Setting("videomaster", "sample_rate", "integer", 48000, "The audio's sample rate.",
            allowed=(32000, 44100, 48000), unit="Hz"),
    Setting("videomaster", "timestamp_source", "choice", "osc",
            "The clock of the timestamps; all but osc lose pictures sooner or later.",
            allowed=TIMESTAMP_SOURCES),

    Setting("test", "size", "size", "1280x720", "Width and height of the picture, in even pixels."),
    Setting("test", "rate", "rate", "25", "Frames a second.", allowed=tuple(RATES)),
    Setting("test", "tone", "boolean", True, "Whether there is a 1 kHz tone."),
)  # fmt: skip


def rows(section: str) -> dict[str, Setting]:
    """The settings of a section ("appliance", "port", or a source kind) by key."""
    return {setting.key: setting for setting in SETTINGS if setting.section == section}


def check_value(setting: Setting, value: object) -> object:
    """`value` as the rest of the program takes it. ValueError says what is wrong with it."""
    return _CHECKS[setting.type](setting, value)


def show(value: object) -> str:
    """`value` as it may stand in a message: one line, short, whatever it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return ascii_safe(repr(value[:60])) + ("…" if len(value) > 60 else "")
    if isinstance(value, int) and value.bit_length() > 100:  # repr() itself refuses what is too long
        return "a number with too many digits"
    return str(value)


def ascii_safe(text: str) -> str:
    """`text` without what cannot be encoded (lone surrogates, which TOML itself cannot hold)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def show_path(path: str) -> str:
    """A path as it may stand in a message: printable and on one line."""
    return path if path.isprintable() else ascii_safe(repr(path))


def suggestion(word: str, words: Sequence[str]) -> str:
    """ "; did you mean 'x'?" when one of `words` is close to `word`, else nothing."""
    import difflib  # only errors need it

    close = difflib.get_close_matches(word[:60].lower(), [w.lower() for w in words], n=1)
    original = next((w for w in words if close and w.lower() == close[0]), "")
    return f"; did you mean '{original}'?" if original else ""


def one_of(setting: Setting) -> str:
    return "one of: " + ", ".join(str(value) for value in setting.allowed)


def _check_boolean(setting: Setting, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {show(value)}")
    return value


def _check_integer(setting: Setting, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {show(value)}")
    if setting.allowed and value not in setting.allowed:
        raise ValueError(f"{show(value)} is not possible ({one_of(setting)})")
    if not setting.allowed:
        _check_range(setting, value)
    return value


def _check_number(setting: Setting, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"must be a number, not {show(value)}")
    _check_range(setting, value)
    return float(value)


def _check_range(setting: Setting, value: float) -> None:
    if not setting.minimum <= value <= setting.maximum:  # a NaN is in no range
        unit = f" {setting.unit}" if setting.unit else ""
        raise ValueError(f"must be {setting.minimum:g} to {setting.maximum:g}{unit}, not {show(value)}")


def _check_string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string in quotes, not {show(value)}")
    return value


def _check_choice(setting: Setting, value: object) -> str:
    text = _check_string(value)
    if text not in setting.allowed:
        close = suggestion(text, [str(word) for word in setting.allowed])
        raise ValueError(f"unknown {setting.key} {show(text)} ({one_of(setting)}){close}")
    return text


def _check_name(setting: Setting, value: object) -> str:
    text = _check_string(value)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,31}", text):
        raise ValueError(f"{show(text)} cannot be a name: a letter, then up to 31 letters, digits, '_', '.' or '-'")
    return text


def _check_path(setting: Setting, value: object) -> str:
    text = _check_string(value)
    if not text.startswith("/"):
        raise ValueError(f"must be an absolute path, beginning with '/', not {show(text)}")
    if any(not char.isprintable() for char in text):
        raise ValueError(f"{show(text)} has characters that cannot be printed")
    if len(text.encode("utf-8")) > PATH_MAX_BYTES:
        raise ValueError(f"is longer than {PATH_MAX_BYTES} bytes")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    # systemd ignores a path with ".." where the sandbox names what may be written.
    if ".." in parts:
        raise ValueError(f"{show(text)} must not contain '..'")
    if not parts:
        raise ValueError("must be below '/', not '/' itself")
    return "/" + "/".join(parts)


def _check_rate(setting: Setting, value: object) -> str:
    rate = None
    if isinstance(value, str):
        decimal = re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", value)
        rate = value if value in RATES else find_rate(float(value)) if decimal else None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        rate = find_rate(value)
    if rate is None:
        raise ValueError(f"{show(value)} is not a frame rate ({one_of(setting)}; 29.97 and the like too)")
    return rate


def _check_size(setting: Setting, value: object) -> str:
    text = _check_string(value)
    match = re.fullmatch(r"([0-9]{2,4})x([0-9]{2,4})", text)
    numbers = [int(number) for number in match.groups()] if match else []
    if not numbers or any(number % 2 or not 64 <= number <= 4096 for number in numbers):
        raise ValueError(f"must be WIDTHxHEIGHT, even and 64 to 4096 each, not {show(text)}")
    return f"{numbers[0]}x{numbers[1]}"


_CHECKS: dict[str, Callable[[Setting, object], object]] = {
    "boolean": _check_boolean,
    "integer": _check_integer,
    "number": _check_number,
    "choice": _check_choice,
    "name": _check_name,
    "path": _check_path,
    "rate": _check_rate,
    "size": _check_size,
}
