"""Every setting of the configuration, a row each. The checks, the reference and the starter file are made of the rows.

This file has the rows of [appliance] and of a port. The rows of a source are in the file of its kind (sources/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from sdisup.config import retention
from sdisup.config.codecs import (
    AUTO,
    CODECS,
    COLOURS,
    DNXHR_PROFILES,
    HARDWARE,
    LONGEST_SEGMENT_S,
    MUXERS,
    PIXEL_FORMATS,
    PRORES_PROFILES,
    SEGMENT_S,
    SHORTEST_SEGMENT_S,
    SOFTWARE,
    TIMECODE_CONTAINERS,
    Codec,
)
from sdisup.config.documents import Findings, Layer
from sdisup.config.encoder_words import check_encoder_options
from sdisup.config.offloads import FOLDER, IDLE, LOW, PORTS, TARGET
from sdisup.config.planned import SCHEDULE
from sdisup.config.rasters import RASTERS
from sdisup.config.sound import CHANNELS_MAX, ENCODERS, MONO, ONE, PAIRS
from sdisup.contract.names import DEFAULT, problem_of
from sdisup.contract.timecode import CLOCK, NONE, SOURCE, fields_of
from sdisup.sources.base import Source, kinds
from sdisup.sources.values import (
    BOOLEAN,
    CHOICE,
    INTEGER,
    REQUIRED,
    Setting,
    Type,
    check_range,
    check_string,
    show,
    suggestion,
)

APPLIANCE = "appliance"
PORT = "port"
OFFLOAD = "offload"
RETENTION = "retention"
SOURCE_KINDS = kinds()
DEFAULT_SOURCE_KIND = next(iter(SOURCE_KINDS))

MAX_PORTS = 64
PATH_MAX_BYTES = 1024  # the kernel's limit of 4096 has to hold a take's directory and the file's name too

X264_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip

SOURCE_LIMITS = ("stall_timeout_s", "stop_quit_s", "stop_start_quit_s")
"""The settings of a port whose defaults come from its kind of source."""


def _limits_doc(key: str, common: str = "") -> str:
    """The defaults of a time limit in words: the common one, then the kinds of source that have another."""
    usual = getattr(Source, key)
    own = {kind: getattr(source, key) for kind, source in SOURCE_KINDS.items()}
    return "; ".join([common or f"{usual:g}", *(f"{kind} {limit:g}" for kind, limit in own.items() if limit != usual)])


def _by_codec(value: Callable[[Codec], object]) -> str:
    """Defaults in words: `mp4 for h264, hevc; mov for prores`. Codecs whose value is None are left out."""
    names: dict[object, list[str]] = {}
    for codec in CODECS.values():
        names.setdefault(value(codec), []).append(codec.name)
    return "; ".join(f"{default} for {', '.join(codecs)}" for default, codecs in names.items() if default is not None)


def _check_number(setting: Setting, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"must be a number, not {show(value)}")
    check_range(setting, value)
    return float(value)


def _check_limit(setting: Setting, value: object) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else _check_number(setting, value)


def _check_name(setting: Setting, value: object) -> str:
    text = check_string(value)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,31}", text):
        raise ValueError(f"{show(text)} cannot be a name: a letter, then up to 31 letters, digits, '_', '.' or '-'")
    return text


def _check_path(setting: Setting, value: object) -> str:
    text = check_string(value)
    if not text.startswith("/"):
        raise ValueError(f"must be an absolute path, beginning with '/', not {show(text)}")
    if any(not char.isprintable() for char in text):
        raise ValueError(f"{show(text)} has characters that cannot be printed")
    if len(text.encode("utf-8")) > PATH_MAX_BYTES:
        raise ValueError(f"is longer than {PATH_MAX_BYTES} bytes")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    # systemd ignores a path with ".." in ReadWritePaths=.
    if ".." in parts:
        raise ValueError(f"{show(text)} must not contain '..'")
    if not parts:
        raise ValueError("must be below '/', not '/' itself")
    return "/" + "/".join(parts)


def _check_channels(setting: Setting, value: object) -> tuple[int, ...]:
    channels = tuple(value) if isinstance(value, (list, tuple)) else ()
    if not all(type(channel) is int and 1 <= channel <= CHANNELS_MAX for channel in channels) or not channels:
        raise ValueError(
            f"must be a list of channels, counted from 1 to {CHANNELS_MAX}, as in [1, 2], not {show(value)}"
        )
    if len(set(channels)) < len(channels):
        raise ValueError("has a channel twice")
    return channels


def _check_template(setting: Setting, value: object) -> str:
    text = check_string(value)
    problem = problem_of(text)
    if problem:
        raise ValueError(f"{show(text)} {problem}")
    return text


def _check_timecode(setting: Setting, value: object) -> str:
    text = check_string(value)
    if text in (NONE, CLOCK, SOURCE):
        return text
    try:
        fields_of(text)
    except ValueError as error:
        raise ValueError(f"{error}; or one of: {NONE}, {CLOCK}, {SOURCE}") from None
    return text


NUMBER = Type("number", _check_number, "a number")
LIMIT = Type("limit", _check_limit, "0 for none, or a number")
NAME = Type("name", _check_name, "a letter, then up to 31 letters, digits, `_`, `.` or `-`")
ENCODER_WORDS = Type("encoder options", check_encoder_options, "a list of strings")
TEMPLATE = Type("template", _check_template, "text with fields such as `{name}`")
TIMECODE = Type("timecode", _check_timecode, f"{NONE}, {CLOCK}, {SOURCE}, or HH:MM:SS:FF")
CHANNELS = Type("channels", _check_channels, f"a list of numbers, 1 to {CHANNELS_MAX}, each once")
PATH = Type("path", _check_path, "an absolute path")

SETTINGS: dict[str, tuple[Setting, ...]] = {
    APPLIANCE: (
        Setting("ports", INTEGER, 8, "How many ports there are: 0 to one less than this.", minimum=1,
                maximum=MAX_PORTS),
        Setting("recordings", PATH, "/srv/recordings", "The directory that recordings go to; it has to exist."),
        Setting("ffmpeg", PATH, "/usr/bin/ffmpeg", "The FFmpeg that records. Where a recording is one "
                "file, a script in its place passes descriptor 3 on, which is that file."),
    ),
    PORT: (
        Setting("enabled", BOOLEAN, True, "Whether the port is configured at all."),
        Setting("name", NAME, None, "What operators call the port; unique, and what begins its files' names unless"
                " `file_name` is otherwise.",
                default_doc="portN"),
        Setting("record_at_boot", BOOLEAN, False, "Whether the port records whenever the machine is up."),
        Setting("schedule", SCHEDULE, (), "When the port records by itself, in systemd's calendar words and local time:"
                ' `[{ start = "Mon..Fri 18:00", duration = "1h", take = "news" }]` (docs/schedules.md).'),
        Setting("pre_roll_s", LIMIT, 5.0, "How long before the time of a schedule, or of `sdisup start --at`, the port"
                " is started, so that the first frame is on disk by then.", minimum=0.1, maximum=600, unit="s"),
        Setting("post_roll_s", LIMIT, 0.0, "How long a schedule's recording goes on after its time.", minimum=0.1,
                maximum=3600, unit="s"),
        Setting("lock", BOOLEAN, False, "Whether the port goes on unless it is stopped or restarted with `--unlock`,"
                " which is root's. Root's `systemctl stop` stops it too."),
        Setting("recordings", PATH, None, "The directory that this port's recordings go to.",
                default_doc="that of [appliance]"),
        Setting("file_name", TEMPLATE, DEFAULT, "How the port's files are named, with folders where it has a `/`; its"
                " fields are in docs/configuration.md."),
        Setting("codec", CHOICE, "h264", "What the picture is encoded in. copy records what a custom source or a camera"
                " delivers encoded as it is.", allowed=tuple(CODECS)),
        Setting("container", CHOICE, None, "The file format; each is written so that a crash leaves it playable. An mxf"
                " has its duration and footer only when it is closed.",
                default_doc=_by_codec(lambda codec: codec.default_container), allowed=tuple(MUXERS)),
        Setting("bitrate_kbps", INTEGER, None, "The bit rate of the picture; the codecs that are not named here take"
                " their own from a profile.", default_doc=_by_codec(lambda codec: codec.bitrate_kbps or None),
                minimum=100, maximum=400_000, unit="kbit/s"),
        Setting("quality", INTEGER, None, "For h264 and hevc: a constant quality (CRF) in place of the bit rate; 18 is"
                " very good, 28 poor. A bit rate beside it is what the picture may take at most.", default_doc="none",
                minimum=1, maximum=51),
        Setting("gop_frames", INTEGER, None, "For h264 and hevc: how many frames there are from one key frame to the"
                " next. A recording can be entered and cut at key frames.",
                default_doc="a second's; two of files by the clock", minimum=1, maximum=600),
        Setting("pixel_format", CHOICE, None, "The picture's samples: 8 or 10 bit, 4:2:0, 4:2:2 or 4:4:4. Codecs with a"
                " profile have that of the profile.",
                default_doc=_by_codec(lambda codec: next(iter(codec.pixel_formats), None)), allowed=PIXEL_FORMATS),
        Setting("encoder", CHOICE, SOFTWARE, "Who encodes h264 or hevc: software, or a graphics card by NVENC (NVIDIA),"
                " QSV (Intel) or VA-API. auto takes the first that works here, which `sdisup apply` tries with a test"
                " picture, as many at once as ports want it, and software for what is left.",
                allowed=(SOFTWARE, AUTO, *HARDWARE)),
        Setting("preset", CHOICE, "veryfast",
                "How hard the encoder of h264 or hevc works: slower is a better picture at the same bit rate.",
                allowed=X264_PRESETS),
        Setting("prores_profile", CHOICE, "hq", "The quality of prores.", allowed=tuple(PRORES_PROFILES)),
        Setting("dnx_profile", CHOICE, "hq", "The quality of dnxhr and dnxhd: hqx has 10 bit; 444, which dnxhd lacks,"
                " has all of the colour.", allowed=tuple(DNXHR_PROFILES)),
        Setting("raster", CHOICE, None, "For dnxhd and xdcam, the size of the source's pictures; others are not"
                " recorded.",
                default_doc=f"the source's, where it has a setting for it; else {RASTERS[0]}", allowed=RASTERS),
        Setting("colour", CHOICE, "source", "What the recording says of its colours: what the source says, or one of"
                " these. RGB is converted by it, and other pictures are as they were.", allowed=tuple(COLOURS)),
        Setting("encoder_options", ENCODER_WORDS, None, 'Further options of FFmpeg\'s encoder, such as'
                ' ["-x264-params", "aq-mode=2"]. What keeps pictures back, writes a file or is set by sdisup is'
                " refused.", default_doc="none"),
        Setting("timecode", TIMECODE, None, "The timecode of a recording's first frame: the clock's time of day, as the"
                " machine's time zone has it; the source's, where the input delivers one; a number of yours, such as"
                " 10:00:00:00; or none. At 29.97 and 59.94 frames a second it is drop-frame.",
                default_doc=f"clock in {', '.join(TIMECODE_CONTAINERS)} where the rate is known, else none"),
        Setting("threads", INTEGER, 4,
                "How many threads encode the picture; each keeps a frame of prores back, which limits them.", minimum=1,
                maximum=16),
        Setting("audio.codec", CHOICE, None, "What the sound is encoded in. Not every FFmpeg has PCM in mp4; `sdisup"
                " check` tries. copy leaves a sound that comes encoded as it is.",
                default_doc=_by_codec(lambda codec: None if codec.is_copied else codec.audio_encoder)
                + "; for copy: copy in mkv, aac in mp4 and mov", allowed=tuple(ENCODERS)),
        Setting("audio.tracks", CHOICE, None, "Whether all channels are in one track, in a track a pair, or in a track"
                " each. AAC has at most five in one: it cuts the high frequencies off one of six.",
                default_doc="one; pairs for aac of six and more, also where a stream has them; mono for xdcam",
                allowed=(ONE, PAIRS, MONO)),
        Setting("audio.channels", CHANNELS, None, "Which of the source's channels are recorded, and in which order.",
                default_doc="all of the source's"),
        Setting("segment_s", LIMIT, SEGMENT_S, "How long a file is, and up to the next key frame, before the recording"
                " goes on in another one without a lost frame. 0 is for one file; mxf is one in any case.",
                minimum=SHORTEST_SEGMENT_S, maximum=LONGEST_SEGMENT_S, unit="s"),
        Setting("segment_on_clock", BOOLEAN, False, "Whether files begin by the clock, in local time: with `segment_s ="
                " 600` at 10:00:00, 10:10:00 and so on, so that the first one is shorter."),
        Setting("space_warning_h", LIMIT, 24.0, "`sdisup status` and `check` warn where the disk is full within so many"
                " hours, by the bit rates of all ports that record there. 0 is for never.", minimum=0.1, maximum=8760,
                unit="h"),
        Setting("stall_timeout_s", NUMBER, None, "FFmpeg is restarted when no frame has come for so long.",
                default_doc=_limits_doc("stall_timeout_s"), minimum=1, maximum=600, unit="s"),
        Setting("start_timeout_s", LIMIT, 30.0,
                "FFmpeg is restarted when its first frame has not come within so long after its start, or after its"
                " input was opened. 0 is for a source that may take for ever, such as a listener (`tcp://…?listen`,"
                " `srt://…?mode=listener`): until it comes the port has no signal.", minimum=1, maximum=600, unit="s"),
        Setting("sync_interval_s", NUMBER, 1.0,
                "How often what was written is forced to the disk; a power cut costs this and half a second.",
                minimum=0.1, maximum=60, unit="s"),
        Setting("stop_quit_s", NUMBER, None, "At a stop, how long FFmpeg may take after `q` before it gets SIGTERM.",
                default_doc=_limits_doc("stop_quit_s"), minimum=0.1, maximum=120, unit="s"),
        Setting("stop_start_quit_s", NUMBER, None, "The same while FFmpeg has not delivered a frame yet.",
                default_doc=_limits_doc("stop_start_quit_s", "stop_quit_s"), minimum=0.1, maximum=120, unit="s"),
        Setting("stop_term_s", NUMBER, 2.0, "How long FFmpeg may take after SIGTERM before it is killed.", minimum=0.1,
                maximum=120, unit="s"),
        *retention.settings("retention.", "that of [retention]"),
    ),
    RETENTION: retention.settings(),
    OFFLOAD: (
        Setting("target", TARGET, None, "Where finished files are copied to: a directory, such as a mounted share, or a"
                " remote of rclone, whose settings and secrets are in /etc/sdisup/credentials/NAME.conf alone.",
                default_doc=REQUIRED),
        Setting("ports", PORTS, None, "The ports whose files are copied.", default_doc="all"),
        Setting("folder", FOLDER, None, "The folder at the target that this machine's copies are in, each in a folder"
                " with its port's name.", default_doc="the machine's host name"),
        Setting("bandwidth_mbps", LIMIT, 0.0, "How much is copied or read back a second at most, in 10^6 bits; 0"
                " for no limit.",
                minimum=0.1, maximum=100_000, unit="Mb/s"),
        Setting("io_priority", CHOICE, IDLE, "When the disks are read for it: idle reads when nobody else does, where"
                " the disk's scheduler knows of that; low reads as the last in a row.", allowed=(IDLE, LOW)),
    ),
    **{kind: source.settings for kind, source in SOURCE_KINDS.items()},
}  # fmt: skip


def rows(section: str) -> dict[str, Setting]:
    """The settings of a section ("appliance", "port", or a source kind) by key."""
    return {setting.key: setting for setting in SETTINGS[section]}


def check_layer(layer: Layer, section: str, found: Findings) -> tuple[dict[str, Any], set[str]]:
    """The section's values, with the table's default for a key that is missing or wrong; and the wrong keys."""
    table = rows(section)
    values = {key: setting.default for key, setting in table.items()}
    wrong = set()
    for key, leaf in layer.items():
        try:
            if key not in table:
                raise ValueError(_unknown_key(key, section))
            values[key] = table[key].check(leaf.value)
        except ValueError as error:
            found.problem(leaf, str(error))
            wrong.add(key)
    return values, wrong


def _unknown_key(key: str, section: str) -> str:
    keys = [*rows(section), *(["source"] if section == PORT else [])]
    place = f" of a {section} source" if section in SOURCE_KINDS else ""
    return f"unknown key{place}" + (suggestion(key, keys) or f" (one of: {', '.join(keys)})")


def fold_source(layers: Iterable[Layer], found: Findings) -> tuple[type[Source], Layer, bool]:
    """The kind and the options that source tables give together, and whether that kind exists.

    A table with another kind replaces the tables before it. One with the same kind, or with none, adds to them.
    """
    kind = DEFAULT_SOURCE_KIND
    options: Layer = {}
    for layer in layers:
        leaf = layer.get("kind")
        if leaf is not None and leaf.value != kind:
            if not isinstance(leaf.value, str) or leaf.value not in SOURCE_KINDS:
                found.problem(leaf, _unknown_kind(leaf.value))
                return SOURCE_KINDS[DEFAULT_SOURCE_KIND], {}, False
            kind, options = leaf.value, {}
        options = {**options, **{key: value for key, value in layer.items() if key != "kind"}}
    return SOURCE_KINDS[kind], options, True


def _unknown_kind(value: object) -> str:
    close = suggestion(value, list(SOURCE_KINDS)) if isinstance(value, str) else ""
    return f"unknown kind {show(value)} (one of: {', '.join(SOURCE_KINDS)}){close}"
