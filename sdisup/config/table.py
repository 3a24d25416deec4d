"""Every setting of the configuration, one row each.

The checks, the documentation (settings_docs.py) and the starter file all come from these rows. A new
key is a row; a new source kind is its rows, its name in SOURCE_KINDS, and a function in command.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdisup.config.codecs import AUTO_RATE, CODECS, LOW_RATES, MUXERS, RATES, find_rate
from sdisup.sources.custom import parse_inputs

APPLIANCE = "appliance"
PORT = "port"
SOURCE_KINDS = {
    "videomaster": "an SDI input of a Deltacast card; needs Deltacast's FFmpeg",
    "decklink": "an input of a Blackmagic DeckLink card; needs an FFmpeg that was built with its SDK",
    "v4l2": "a Video4Linux device, such as a USB or HDMI grabber, with the sound of an ALSA device",
    "custom": "any FFmpeg input arguments: a stream, a file in real time, a FIFO",
    "test": "FFmpeg's test picture and tone, in real time",
}
DEFAULT_SOURCE_KIND = "videomaster"

MAX_PORTS = 64

# What a kind of source needs where a port does not say otherwise; "" is for the kinds that are not named.
SOURCE_LIMITS_S: dict[str, dict[str, float]] = {
    # An SDI input without a signal blocks FFmpeg for 10 s, and 20 s while it starts (VIDEOMASTER 7, 8).
    # A DeckLink card looks for the signal's format for 3 s, during which FFmpeg hears nothing
    # (libavdevice/decklink_dec.cpp, decklink_autodetect). A stream is late for reasons that heal by
    # themselves: an HLS segment of up to 10 s comes at once and then nothing, a lost packet costs the
    # pictures until the next key frame, a sender is restarted. A new connection would take as long.
    "stall_timeout_s": {"": 5, "videomaster": 12, "custom": 15},
    "stop_quit_s": {"": 3, "videomaster": 12},
    "stop_start_quit_s": {"": 0, "videomaster": 22, "decklink": 6},
}
TEXT_MAX_BYTES = 128
PATH_MAX_BYTES = 1024  # well below the kernel's 4096, which the take's and the file's name share


@dataclass(frozen=True)
class Setting:
    """A key of the configuration.

    `section` is "appliance", "port", or a source kind. `default` is None where it depends on other
    settings, and `default_doc` then says on what, or where the key must be given (`is_required`).
    `minimum` and `maximum` are inclusive, in `unit`.
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

    @property
    def is_required(self) -> bool:
        return self.default_doc == REQUIRED


REQUIRED = "required"


def limit_s(key: str, kind: str) -> float:
    """The default of a time limit in SOURCE_LIMITS_S for that kind of source."""
    limits = SOURCE_LIMITS_S[key]
    return limits.get(kind, limits[""])


def _limits_doc(key: str, common: str = "") -> str:
    limits = SOURCE_LIMITS_S[key]
    return "; ".join([common or f"{limits['']:g}", *(f"{kind} {limits[kind]:g}" for kind in limits if kind)])


def _rate(kind: str) -> Setting:
    return Setting(kind, "rate", "rate", "25",
                   "Frames a second of the signal; an interlaced one has half as many as fields.",
                   allowed=tuple(RATES))  # fmt: skip


def _scan(kind: str) -> Setting:
    return Setting(kind, "scan", "choice", "progressive",
                   "Interlaced signals come with the top (tff) or the bottom (bff, some SD) field first.",
                   allowed=("progressive", "tff", "bff"))  # fmt: skip


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
            default_doc=_limits_doc("stall_timeout_s"), minimum=1, maximum=600, unit="s"),
    Setting(PORT, "start_timeout_s", "number", 30.0,
            "FFmpeg is restarted when its first frame has not come within so long.",
            minimum=1, maximum=600, unit="s"),
    Setting(PORT, "sync_interval_s", "number", 1.0,
            "How often what was written is forced to the disk; a power cut costs this and half a second.",
            minimum=0.1, maximum=60, unit="s"),
    Setting(PORT, "stop_quit_s", "number", None,
            "At a stop, how long FFmpeg may take after `q` before it gets SIGTERM.",
            default_doc=_limits_doc("stop_quit_s"), minimum=0.1, maximum=120, unit="s"),
    Setting(PORT, "stop_start_quit_s", "number", None,
            "The same while FFmpeg has not delivered a frame yet.",
            default_doc=_limits_doc("stop_start_quit_s", "stop_quit_s"), minimum=0.1, maximum=120, unit="s"),
    Setting(PORT, "stop_term_s", "number", 2.0,
            "How long FFmpeg may take after SIGTERM before it is killed.",
            minimum=0.1, maximum=120, unit="s"),

    Setting("videomaster", "board", "integer", 0, "The card, counted from 0.", maximum=63),
    Setting("videomaster", "channel", "integer", None, "The card's input, counted from 0.",
            default_doc="the port's index", maximum=63),
    _rate("videomaster"),
    _scan("videomaster"),
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

    # FFmpeg's documentation of its devices, decklink, 5.1 and 7.1 (ffmpeg-devices(1)).
    Setting("decklink", "device", "text", None,
            "The input by its name, as `ffmpeg -sources decklink` shows it: `DeckLink Duo (1)`.",
            default_doc=REQUIRED),
    _rate("decklink"),
    _scan("decklink"),
    Setting("decklink", "format_code", "word", "auto",
            "The signal's format as four letters (`ffmpeg -f decklink -list_formats 1 -i NAME` lists them),"
            " for cards that cannot detect it."),
    Setting("decklink", "raw_format", "choice", "uyvy422", "How the card delivers the picture.",
            allowed=("uyvy422", "yuv422p10", "argb", "bgra", "rgb10")),
    Setting("decklink", "video_input", "choice", "sdi", "The connector of the picture.",
            allowed=("sdi", "hdmi", "optical_sdi", "component", "composite", "s_video")),
    Setting("decklink", "audio_input", "choice", "embedded", "The connector of the sound.",
            allowed=("embedded", "aes_ebu", "analog", "analog_xlr", "analog_rca", "microphone")),
    Setting("decklink", "audio_channels", "integer", 2, "How many audio channels are recorded; 0 for none.",
            allowed=(0, 2, 8, 16)),
    Setting("decklink", "sample_size", "integer", 32, "The audio's sample size.", allowed=(16, 32), unit="bit"),
    Setting("decklink", "queue_mib", "integer", 256,
            "How much of the signal waits in memory for a slow encoder before pictures are dropped.",
            minimum=16, maximum=4096, unit="MiB"),
    Setting("decklink", "draw_bars", "boolean", False,
            "Whether colour bars are recorded while there is no signal, rather than black."),

    # ffmpeg-devices(1), video4linux2 and alsa.
    Setting("v4l2", "device", "device", None, "The device, also one of /dev/v4l/by-id.",
            default_doc="/dev/video and the port's index"),
    Setting("v4l2", "size", "size", "1920x1080",
            "Width and height of the picture, in even pixels; the driver takes the nearest that it has."),
    _rate("v4l2"),
    _scan("v4l2"),
    Setting("v4l2", "input_format", "word", "auto",
            "The pixel format or codec that the device delivers (`ffmpeg -f v4l2 -list_formats all -i DEVICE`"
            " lists them)."),
    Setting("v4l2", "audio_device", "alsa", "none",
            "The ALSA device of the sound (`arecord -L` lists them), such as hw:1; none for no sound."),
    Setting("v4l2", "audio_channels", "integer", 2, "How many channels that device delivers.",
            minimum=1, maximum=16),

    Setting("custom", "input", "arguments", None,
            'FFmpeg\'s arguments for the input, such as ["-re", "-i", "/srv/media/loop.mkv"]. A file needs'
            " -re, which reads it in real time. What is in them can be read by every user of the machine,"
            " a password too.", default_doc=REQUIRED),
    Setting("custom", "rate", "rate", AUTO_RATE,
            "Frames a second of the recording; auto takes the stream's own, which should not be below 23.976:"
            " a crash may lose more of a slower one.", allowed=(AUTO_RATE, *RATES)),
    _scan("custom"),
    Setting("custom", "audio", "audio", True,
            "Whether the sound of the last input is recorded; an input without any then fails to start,"
            " unless it is optional."),

    Setting("test", "size", "size", "1280x720", "Width and height of the picture, in even pixels."),
    Setting("test", "rate", "rate", "25", "Frames a second.", allowed=(*LOW_RATES, *RATES)),
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


def _check_text(setting: Setting, value: object) -> str:
    text = _check_string(value)
    if not text or not text.isprintable() or len(text.encode("utf-8")) > TEXT_MAX_BYTES:
        raise ValueError(f"{show(text)} must be 1 to {TEXT_MAX_BYTES} bytes that can be printed")
    if text.startswith("-") or "{output}" in text:
        raise ValueError(f"{show(text)} cannot be a device's name")
    return text


def _check_word(setting: Setting, value: object) -> str:
    text = _check_string(value)
    if not re.fullmatch(r"[A-Za-z0-9_]{1,32}", text):
        raise ValueError(f"must be letters, digits and '_', at most 32, not {show(text)}")
    return text


def _check_device(setting: Setting, value: object) -> str:
    text = _check_string(value)
    if not re.fullmatch(r"/dev(/[A-Za-z0-9_:@+-][A-Za-z0-9_.:@+-]{0,100}){1,4}", text):
        raise ValueError(f"must be a device's path, such as /dev/video0, not {show(text)}")
    return text


def _check_alsa(setting: Setting, value: object) -> str:
    text = _check_string(value)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_:,.=+-]{0,127}", text):
        raise ValueError(f"must be an ALSA device, such as hw:1, or none, not {show(text)}")
    return text


def _check_audio(setting: Setting, value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    if value == "optional":
        return "optional"
    raise ValueError(f"must be true, false or 'optional', not {show(value)}")


def _check_arguments(setting: Setting, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise ValueError(f'must be a list of strings, as in ["-re", "-i", "srt://…"], not {show(value)}')
    words = tuple(value)
    parse_inputs(words)
    return words


def _check_rate(setting: Setting, value: object) -> str:
    rate = None
    if value == AUTO_RATE and AUTO_RATE in setting.allowed:
        rate = AUTO_RATE
    elif isinstance(value, str):
        decimal = re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", value)
        rate = value if value in setting.allowed else find_rate(float(value)) if decimal else None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        rate = find_rate(value)
    if rate is None or rate not in setting.allowed:
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
    "text": _check_text,
    "word": _check_word,
    "device": _check_device,
    "alsa": _check_alsa,
    "audio": _check_audio,
    "arguments": _check_arguments,
}
