"""The input arguments of a `custom` source: which ones an operator may give, and what they open. Pure.

FFmpeg reads its command line like this (fftools/cmdutils.c, split_commandline; 5.1 to 8.0): a word that begins with
`-` is an option; the option alone decides whether the next word is its value; any other word is an output file. `-re`
has no value. A check that believed it to have one would allow `-re /srv/x.mkv -i URL`, and FFmpeg would write
/srv/x.mkv. Hence:

1. An option is one of FFmpeg's own options for an input (FLAGS have no value, VALUED have one), or none of FFmpeg's
   own: then it belongs to a demuxer, a decoder or a protocol, and those always have one value. FFmpeg's other own
   options are global or for an output; sdisup alone gives them.
2. A later FFmpeg may have an own option without a value that is in no list here (8.0 brought -print_graphs). So the
   value of an option that is in no list must not look like a place that FFmpeg could write to. And no value begins
   with `-`, so that an option is never taken for a value.
3. The last word is the value of the last `-i`: a further option would be one of sdisup's output.
4. libavfilter's graphs can write files (metadata=file=…), so only generators are allowed in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from sdisup.contract.records import Record

MAX_ARGUMENTS = 64
MAX_ARGUMENT_BYTES = 1024

# From `ffmpeg -h long` of 5.1 and 7.1; a test asks the installed FFmpeg about each.
FLAGS = frozenset(
    "re accurate_seek noaccurate_seek find_stream_info nofind_stream_info an sn dn display_hflip display_vflip".split()
)
VALUED = frozenset(
    "f c codec vcodec acodec r s pix_fmt ar ac ch_layout channel_layout guess_layout_max"
    " ss sseof seek_timestamp t to itsoffset itsscale isync stream_loop readrate readrate_initial_burst"
    " thread_queue_size discard display_rotation apply_cropping hwaccel hwaccel_device hwaccel_output_format".split()
)

# All other options of FFmpeg's own, of 5.1, 7.1 and 8.0, without their variants that begin with "no". -autorotate is
# among them because it has a value in some versions and none in others.
OTHERS = frozenset(
    """
    ? L ab abort_on absf adrift_threshold af aframes apad apre aq aspect async atag attach
    auto_conversion_filters autorotate autoscale b benchmark benchmark_all bitexact bits_per_raw_sample bsf bsfs
    buildconf canvas_size chroma_intra_matrix codecs colors copy_unknown copyinkf copypriorss copytb copyts cpucount
    cpuflags dcodec debug_ts decoders demuxers devices dframes disposition dispositions dts_delta_threshold
    dts_error_threshold dump dump_attachment enc_time_base encoders filter filter_buffered_frames filter_complex
    filter_complex_script filter_complex_threads filter_hw_device filter_script filter_threads filters
    fix_sub_duration fix_sub_duration_heartbeat force_fps force_key_frames formats fpre fps_mode fpsmax
    frame_drop_threshold frames fs h help hex hide_banner hwaccels ignore_unknown init_hw_device inter_matrix
    intra_matrix lavfi layouts loglevel map map_channel map_chapters map_metadata max_alloc max_error_rate
    max_muxing_queue_size metadata muxdelay muxers muxing_queue_data_threshold muxpreload n pass passlogfile
    pix_fmts pre print_graphs print_graphs_file print_graphs_format profile program progress protocols psnr q
    qphist qscale qsv_device rc_override recast_media reinit_filter report sample_fmt sample_fmts scodec sdp_file
    shortest shortest_buf_duration sinks sources spre stag start_at_zero stats stats_enc_post stats_enc_post_fmt
    stats_enc_pre stats_enc_pre_fmt stats_mux_pre stats_mux_pre_fmt stats_period stdin stream_group streamid tag
    target time_base timecode timelimit timestamp top v vaapi_device vbsf version vf vframes vn vol vpre vstats
    vstats_file vstats_version vsync vtag xerror y
    """.split()
)

# Options of demuxers and protocols that would break a promise of sdisup, with the message.
UNWANTED = {
    "use_wallclock_as_timestamps": "timestamps of the wall clock break the recording when the clock is set",
    "graph": "give the graph as the value of -i",
    "graph_file": "give the graph as the value of -i",
    "fd": "FFmpeg is given no other file descriptors",
}

# Options of demuxers and protocols whose values are texts, addresses or files that FFmpeg reads.
TEXTS = frozenset(
    "user_agent referer headers cookies http_proxy ca_file cafile cert_file cert key_file key localaddr"
    " interface srt_streamid passphrase secret decryption_key cryptokey rtmp_app rtmp_conn"
    " rtmp_pageurl rtmp_playpath rtmp_subscribe rtmp_swfurl rtmp_swfverify rtmp_tcurl private_key".split()
)

DEVICE_FORMATS = frozenset(
    "alsa decklink fbdev iec61883 jack kmsgrab libcdio libdc1394 openal oss pulse sndio v4l2 video4linux2"
    " videomaster x11grab".split()
)

GENERATORS = frozenset(
    "testsrc testsrc2 smptebars smptehdbars pal75bars pal100bars rgbtestsrc yuvtestsrc color allrgb allyuv"
    " gradients mandelbrot life anullsrc sine anoisesrc realtime arealtime format aformat setsar setfield"
    " interlace tinterlace volume null anull".split()
)

_NAME = re.compile(r"-([A-Za-z][A-Za-z0-9_-]*)(:[A-Za-z0-9_:#.]+)?")
_URL = re.compile(r"[a-z][a-z0-9+.-]*[:,]")
_PLACE = re.compile(r"[/:\\]")
_FRACTION = re.compile(r"[0-9]+[/:][0-9]+")
_NEGATIVE = re.compile(r"-[0-9.:]+[a-z]*")


class Input(Record):
    """One `-i`: its `-f` ("" where FFmpeg finds it out), its URL, the names of its other options, and all its words."""

    format: str
    url: str
    options: frozenset[str] = frozenset()
    arguments: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The local file or FIFO that the input reads; "" where it reads none."""
        if self.format == "lavfi" or self.format in DEVICE_FORMATS:
            return ""
        path = self.url.removeprefix("file:")
        return path if path.startswith("/") else ""

    @property
    def needs_network(self) -> bool:
        """Whether FFmpeg needs the network. A playlist or an SDP file reaches it only with a protocol_whitelist."""
        is_local = self.path or self.format == "lavfi" or self.format in DEVICE_FORMATS
        return not is_local or "protocol_whitelist" in self.options

    @property
    def needs_devices(self) -> bool:
        return (
            self.format in DEVICE_FORMATS
            or self.path.startswith("/dev/")
            or any(name.startswith("hwaccel") for name in self.options)
        )

    @property
    def nodes(self) -> list[str]:
        """The device nodes that the options name, such as a graphics card's; FFmpeg has a default for VA-API."""
        values = dict(zip(self.arguments, self.arguments[1:], strict=False))
        if values.get("-hwaccel") in ("vaapi", "qsv"):
            values.setdefault("-hwaccel_device", "/dev/dri/renderD128")
        options = ("-hwaccel_device", *(["-i"] if self.format in DEVICE_FORMATS else []))
        return [values[option] for option in options if values.get(option, "").startswith("/dev/")]

    def __str__(self) -> str:
        """Where the input comes from, without what may be secret: a password, a stream's key, a query."""
        if self.path or self.format in DEVICE_FORMATS:
            return self.path or self.url
        scheme, separator, _ = self.url.partition("://")
        if not separator:
            return "FFmpeg's generator" if self.format == "lavfi" else f"{scheme.partition(':')[0]} input"
        try:
            host = urlsplit(self.url).netloc.rpartition("@")[2]
        except ValueError:  # brackets that hold no IPv6 address
            host = ""
        return f"{scheme}://{host}" if host.isprintable() else f"{scheme} input"


def parse_inputs(arguments: Sequence[str]) -> tuple[Input, ...]:
    """The inputs that `arguments` open, at least one. Raises ValueError that says which is refused, and why."""
    if len(arguments) > MAX_ARGUMENTS:
        raise ValueError(f"has {len(arguments)} arguments; at most {MAX_ARGUMENTS}")
    for word in arguments:
        _check_word(word)
    inputs: list[Input] = []
    given: dict[str, str] = {}
    own: list[str] = []
    words = iter(arguments)
    for word in words:
        name = _option_name(word)
        own.append(word)
        if name in FLAGS:
            given[name] = ""
            continue
        value = next(words, None)
        if value is None:
            raise ValueError(f"{word} has no value")
        own.append(value)
        if name == "i":
            inputs.append(_input(value, given, own))
            given, own = {}, []
        else:
            given[name] = _check_option_value(word, name, value)
    if given:
        raise ValueError(f"{', '.join('-' + name for name in given)}: options stand before the -i they are for")
    if not inputs:
        raise ValueError('opens nothing: an input is "-i" and its URL, as in ["-re", "-i", "srt://…"]')
    return tuple(inputs)


def _check_word(word: str) -> None:
    if not word or not word.isprintable():
        raise ValueError(f"{word[:60]!a} is empty or has characters that cannot be printed")
    if len(word.encode("utf-8", "replace")) > MAX_ARGUMENT_BYTES:
        raise ValueError(f"'{word[:30]}…' is longer than {MAX_ARGUMENT_BYTES} bytes")
    if "{output}" in word:
        raise ValueError("must not name {output}: sdisup alone says where the recording goes")


def _option_name(word: str) -> str:
    match = _NAME.fullmatch(word)
    if not match:
        raise ValueError(f"'{word[:60]}' would be an output file or is no option; inputs are given with -i")
    name = match[1]
    if name in UNWANTED:
        raise ValueError(f"-{name} is not possible: {UNWANTED[name]}")
    if name in OTHERS or (name.startswith("no") and name[2:] in OTHERS | FLAGS and name not in FLAGS):
        raise ValueError(f"-{name} is no option of an input; what concerns the recording, sdisup sets itself")
    if name in FLAGS | {"i"} and match[2]:
        raise ValueError(f"{word} is not an option that FFmpeg has")
    return name


def _check_option_value(word: str, name: str, value: str) -> str:
    if value.startswith("-") and not _NEGATIVE.fullmatch(value):
        raise ValueError(f"{word} needs a value, and '{value[:60]}' is an option")
    is_known = name in VALUED or name in TEXTS
    if not is_known and _PLACE.search(value) and not _FRACTION.fullmatch(value):
        raise ValueError(
            f"{word} is not known to sdisup, and its value '{value[:60]}' could be an output;"
            " many options can stand in the URL instead: ?name=value"
        )
    return value


def _input(url: str, given: dict[str, str], arguments: Sequence[str]) -> Input:
    format_name = given.get("f", "")
    if re.fullmatch(r"-|pipe:.*|fd:.*|/dev/(std.*|fd/.*|tty)|/proc/.*", url.removeprefix("file:")):
        raise ValueError(f"-i {url}: FFmpeg's standard input is sdisup's; give the path of a FIFO instead")
    if url.startswith("-"):
        raise ValueError(f"-i needs a URL, and '{url[:60]}' is an option")
    if format_name == "lavfi":
        _check_graph(url)
    elif format_name not in DEVICE_FORMATS and not url.startswith("/") and not _URL.match(url):
        raise ValueError(f"-i {url[:60]}: must be a URL or an absolute path")
    return Input(format_name, url, frozenset(given) - {"f"}, tuple(arguments))


def _check_graph(graph: str) -> None:
    """Refuse all but generators; quotes and escapes too, since they could hide a filter's name."""
    if re.search(r"['\"\\]", graph):
        raise ValueError("a lavfi graph must not have quotes or backslashes")
    for part in re.split(r"[,;]", re.sub(r"\[[^\[\]]*\]", " ", graph)):
        name = re.split(r"[=@]", part.strip())[0].strip()
        if name not in GENERATORS:
            known = ", ".join(sorted(GENERATORS))
            raise ValueError(f"the lavfi filter '{name[:60]}' is not possible (one of: {known})")
