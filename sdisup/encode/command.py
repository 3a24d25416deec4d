"""A port's values -> the argument list of the FFmpeg that records it. Pure.

What every list upholds, from FACTS 3 and VIDEOMASTER.md:

- Never `-nostdin`: `q` on stdin is how a recording is ended properly.
- Never a plain mp4 or mov and never faststart: after a crash such a file is not playable.
- `-y`, because the runner has just created the output itself, exclusively and empty; nobody else's
  file can be meant. Without it FFmpeg would stop and ask.
- Log and progress share stderr, so that one pipe is all there is to drain.
- No wall clock: `use_wallclock_as_timestamps` breaks when the clock steps.
- Encoder and container together keep back at most codecs.HOLD_BACK_LIMIT_S.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from sdisup.config.codecs import (
    BT601_525,
    CODECS,
    COLOURS,
    MUXERS,
    PRORES_PROFILES,
    SHORTEST_SEGMENT_S,
    fastest_fps,
    fragment_duration_s,
)
from sdisup.config.encoder_words import take_parameters
from sdisup.config.rasters import dnxhd_mbits, xdcam_gop
from sdisup.config.settings import Port, numbers_at
from sdisup.config.sound import audio_encoder
from sdisup.config.table import SOURCE_KINDS
from sdisup.contract.media import COPY
from sdisup.contract.records import Record
from sdisup.contract.timecode import NONE, SOURCE
from sdisup.encode import hardware
from sdisup.encode.sound import audio_arguments
from sdisup.sources.base import Source
from sdisup.sources.values import AUTO_RATE, FASTEST_RATE, FPS

OUTPUT = "{output}"
"""The last argument, which the runner replaces with the path of the file."""

XDCAM_BUFFER_BITS = "17825792"
"""The decoder's buffer of XDCAM HD422: 1088 units of 16384 bits."""

TRIAL_SIZE = "1920x1080"
PROGRESS_PERIOD_S = 0.25
STEP_S = 120.0
"""A clock that is put forward by less, past the moment at which a file should begin, lets it begin then. One that is
put back within a file lets none begin."""
INTERLEAVE_US = "500000"

SILENT_AT_MOST_S = 10
"""A source may be silent for so long and come back in the same file."""
COPIES_A_SECOND = 30
"""FFmpeg fills a silence with at most so many copies for each second of -dts_error_threshold; beyond, it drops all
pictures that follow (ffmpeg_filter.c, video_sync_process: `frame duplication too large, skipping`)."""


class Capabilities(Record):
    """What an installed FFmpeg can do, as probe.py finds it.

    `inputs` are the names of its demuxers and input devices. `hybrid_fragmented`: its mov and mp4
    muxers have that movflag (FFmpeg 7.1 and later).
    """

    version: str
    encoders: frozenset[str]
    inputs: frozenset[str]
    hybrid_fragmented: bool


def build_ffmpeg_arguments(port: Port, ffmpeg: str, capabilities: Capabilities) -> list[str]:
    """The whole command line of `port`'s FFmpeg, from the program to the literal `{output}`."""
    return [
        *(ffmpeg, "-hide_banner", "-loglevel", "repeat+level+info", "-nostats"),
        *("-progress", "pipe:2", "-stats_period", str(PROGRESS_PERIOD_S)),
        *("-dts_error_threshold", str(_wild_timestamp_s(port.source.options["rate"])), "-y"),
        *hardware.device_arguments(port),
        *(port.source.timecode_arguments() if port.timecode == SOURCE else []),
        *(port.source.copied_arguments() if CODECS[port.codec].is_copied else port.source.arguments()),
        *_video_arguments(port),
        *audio_arguments(port),
        *_timecode_arguments(port),
        *_container_arguments(port, capabilities),
        OUTPUT,
    ]


def _wild_timestamp_s(rate: str) -> int:
    """How far a packet's timestamp has to be from the one before to count for nothing.

    FFmpeg's own 30 hours let one wild timestamp make 940,000 copies of a picture (FACTS 7).
    """
    return max(SILENT_AT_MOST_S, math.ceil(SILENT_AT_MOST_S * fastest_fps(rate) / COPIES_A_SECOND))


def trial_arguments(port: Port, ffmpeg: str) -> list[str]:
    """The command line that encodes a second of a test picture as `port` would, in real time, and throws it away."""
    rate = port.source.options["rate"]
    rate = FASTEST_RATE if rate == AUTO_RATE else rate
    size = port.raster if CODECS[port.codec].has_raster else port.source.options.get("size", TRIAL_SIZE)
    graph = f"testsrc2=size={size}:rate={rate},realtime"
    return [
        *(ffmpeg, "-hide_banner", "-loglevel", "error", "-nostats"),
        *hardware.device_arguments(port),
        *("-f", "lavfi", "-i", graph),
        *_video_arguments(port),
        *("-frames:v", str(round(FPS[rate])), "-f", "null", "-"),
    ]


def missing_capabilities(ports: Iterable[Port], ffmpeg: str, capabilities: Capabilities) -> list[str]:
    """What `ports` need and this FFmpeg lacks, each once, with the ports and the next step.

    `ports 0-7: /usr/bin/ffmpeg has no input 'videomaster': install …`
    """
    lacking: dict[str, list[Port]] = {}
    for port in ports:
        for text in _lacking(port, ffmpeg, capabilities):
            lacking.setdefault(text, []).append(port)
    return [f"{label_of(affected)}: {text}" for text, affected in lacking.items()]


def _lacking(port: Port, ffmpeg: str, capabilities: Capabilities) -> list[str]:
    remedies = {kind.demuxer: kind.remedy for kind in SOURCE_KINDS.values()}
    texts = [
        f"{ffmpeg} has no input '{demuxer}': {remedies.get(demuxer, Source.remedy)}"
        for demuxer in port.source.demuxers()
        if demuxer not in capabilities.inputs
    ]
    coders = [audio_encoder(port)] if port.source.audio_channel_count() else []
    for encoder in (port.ffmpeg_encoder, *coders):
        if encoder not in (*capabilities.encoders, COPY):
            texts.append(
                f"{ffmpeg} has no encoder '{encoder}', which {port.codec} needs:"
                " install an FFmpeg that has it, or choose another codec"
            )
    if COPY in coders and port.container != "mkv" and not capabilities.hybrid_fragmented:
        # `Malformed AAC bitstream detected`: with empty_moov it leaves the sound of an MPEG-TS as it is (5.1).
        texts.append(
            f"{ffmpeg} does not copy each sound into {port.container} (it has no hybrid_fragmented): choose another"
            " audio.codec, or the container mkv"
        )
    return texts


def label_of(ports: Sequence[Port]) -> str:
    """`port 3 (CAM3)`, `ports 0-2, 5`."""
    if len(ports) == 1:
        return ports[0].label
    ranges: list[list[int]] = []
    for index in sorted(port.index for port in ports):
        if ranges and index == ranges[-1][-1] + 1:
            ranges[-1].append(index)
        else:
            ranges.append([index])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ranges]
    return f"ports {', '.join(words)}"


# ---- Output ----


def _video_arguments(port: Port) -> list[str]:
    source = port.source
    if CODECS[port.codec].is_copied:
        # FFmpeg begins with a key frame, and keeps the timestamps that come.
        return ["-map", source.video_map(), "-c:v", COPY]
    port = _with_long_gop(port)
    filters = [_crop(port)]
    if source.is_interlaced:
        # Interlaced arrives marked progressive; the flag alone gives the wrong order (trap 4).
        filters.append(f"setfield={source.options['scan']}")
    filters += [*_colour_filters(port), *hardware.filters(port)]
    arguments = ["-map", source.video_map(), "-vf", ",".join(filters)]
    # Constant rate also where the source skips: only so lost frames show in dup_frames (trap 5).
    arguments += ["-fps_mode", "cfr", *_rate_arguments(source.options["rate"])]
    if hardware.way(port):
        quality = [*hardware.options(port), *_key_frame_arguments(port), *_tag_arguments(port)]
        return [*arguments, "-c:v", port.ffmpeg_encoder, *quality, *_own_options(port)]
    arguments += ["-c:v", port.ffmpeg_encoder, *_ENCODERS[port.codec](port)]
    arguments += [*_own_options(port), "-threads:v", str(port.threads), "-pix_fmt", port.pixel_format]
    if port.codec == "h264" and port.is_on_clock:
        # A change of scene would be a key frame; hevc has none there.
        arguments += ["-sc_threshold", "0"]
    flags = "+ildct+ilme" if source.is_interlaced else ""
    if CODECS[port.codec].reordered_frames:
        flags += "+cgop"
    return [*arguments, *(["-flags:v", flags] if flags else [])]


def _with_long_gop(port: Port) -> Port:
    """A file by the clock ends with the first key frame after the moment, also right after the recording's start or a
    step of the clock: so key frames are as far apart as a file has to be long. -min_seg_duration (7.1) has no say
    in that (libavformat/segment.c, seg_write_packet: cut_pending)."""
    if not port.is_on_clock or port.gop_frames or "gop_frames" not in CODECS[port.codec].settings:
        return port
    return port.replaced(gop_frames=math.ceil(SHORTEST_SEGMENT_S * fastest_fps(port.source.options["rate"])))


def _colour_filters(port: Port) -> list[str]:
    """The conversion to the encoder's samples, and what the recording says of its colours.

    Without interl=1 a conversion to 4:2:0 would mix the colours of the two fields. With one matrix for both sides only
    RGB is converted. The words come last: each conversion takes the picture's own.
    """
    interlaced = ["interl=1"] if port.source.is_interlaced else []
    primaries, transfer, matrix = COLOURS[port.colour]
    if not matrix:
        return [f"scale={option}" for option in interlaced]
    if port.colour == "bt601" and port.source.options["rate"] in ("30000/1001", "60000/1001"):
        primaries, transfer, matrix = BT601_525
    scale = port.colour if port.colour in ("bt601", "bt709") else "bt2020"
    options = [*interlaced, f"in_color_matrix={scale}", f"out_color_matrix={scale}"]
    said = f"color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}"
    return [f"scale={':'.join(options)}", f"format={port.pixel_format}", f"setparams={said}"]


def _own_options(port: Port) -> list[str]:
    """The operator's options of the encoder, but for those that are part of sdisup's own list for x265."""
    return take_parameters(port.encoder_options, "x265-params")[0] if port.codec == "hevc" else [*port.encoder_options]


def _crop(port: Port) -> str:
    """A picture of a size that its encoder takes (VIDEOMASTER 18), without the column or the lines that are too much.

    Those go at the right and at the bottom, so that fields keep their order. A picture of a good size is not copied.
    With 4:2:0 two lines share their colours; of two fields each has its own.
    """
    if CODECS[port.codec].has_raster:
        width, height = port.raster.split("x")
        # FFmpeg ends with `Invalid too big or non positive size for width '0'` where the picture has another size.
        return f"crop=if(eq(iw\\,{width})*eq(ih\\,{height})\\,iw\\,0):ih:0:0"
    is_halved = "420" in port.pixel_format
    step = (2 if is_halved else 1) * (2 if is_halved and port.source.is_interlaced else 1)
    return f"crop=trunc(iw/2)*2:trunc(ih/{step})*{step}:0:0"


def _rate_arguments(rate: str) -> list[str]:
    """Where nobody stated the rate, FFmpeg takes the stream's own, or its guess, which can be absurd."""
    return ["-fpsmax", FASTEST_RATE] if rate == AUTO_RATE else ["-r", rate]


def _key_frame_arguments(port: Port) -> list[str]:
    """A key frame a second: by counting where the rate is known, by the time where it is not."""
    rate = port.source.options["rate"]
    if port.gop_frames:
        return ["-g", str(port.gop_frames)]
    if rate == AUTO_RATE:
        return ["-g", FASTEST_RATE, "-force_key_frames", "expr:gte(t,n_forced)"]
    return ["-g", str(round(FPS[rate]))]


def _quality_arguments(port: Port) -> list[str]:
    """A bit rate, or a quality with or without a bit rate that it may not exceed."""
    rate_k = f"{port.bitrate_kbps}k"
    limit = ["-maxrate", rate_k, "-bufsize", rate_k] if port.bitrate_kbps else []
    return ["-crf", str(port.quality), *limit] if port.quality else ["-b:v", rate_k, *limit]


def _h264_options(port: Port) -> list[str]:
    """libx264 without lookahead, B-frames and frame threads, which would keep 25 frames back (FACTS 3)."""
    return [
        *("-preset", port.preset, "-tune", "zerolatency"),
        *_quality_arguments(port),
        *_key_frame_arguments(port),
        # libx264 has no weighted prediction for fields and would say so at each start.
        *(["-weightp", "none"] if port.source.is_interlaced else []),
    ]


def _hevc_options(port: Port) -> list[str]:
    """libx265 without lookahead, B-frames and frame threads: its own defaults held 141 of 160 frames back.

    FFmpeg gives its threads to x265 as frame threads. x265 opens a GOP unless told, and logs its options to stderr.
    """
    parameters = f"frame-threads=1:pools={port.threads}:scenecut=0:open-gop=0:lookahead-slices=0:log-level=warning"
    own = take_parameters(port.encoder_options, "x265-params")[1]
    if own:
        # FFmpeg takes the last -x265-params alone, and x265 the last of a key.
        parameters = f"{own}:{parameters}"
    return [
        *("-preset", port.preset, "-tune", "zerolatency"),
        *_quality_arguments(port),
        *_key_frame_arguments(port),
        *("-x265-params", parameters),
        *_tag_arguments(port),
    ]


def _tag_arguments(port: Port) -> list[str]:
    """Without this tag QuickTime does not play hevc; Matroska has no tags."""
    return ["-tag:v", "hvc1"] if port.codec == "hevc" and port.container != "mkv" else []


def _prores_options(port: Port) -> list[str]:
    """Every frame is a key frame; the profile sets the bit rate."""
    return ["-profile:v", str(list(PRORES_PROFILES).index(port.prores_profile))]


def _dnxhr_options(port: Port) -> list[str]:
    return ["-profile:v", f"dnxhr_{port.dnx_profile}", "-thread_type", "slice"]


def _dnxhd_options(port: Port) -> list[str]:
    """FFmpeg finds the kind of dnxhd by the picture and the bit rate."""
    rate = port.source.options["rate"]
    mbits = dnxhd_mbits(port.raster, port.source.is_interlaced, port.dnx_profile, rate)
    return ["-b:v", f"{mbits}M", "-thread_type", "slice"]


def _ffv1_options(port: Port) -> list[str]:
    """Version 3, whose slices have checksums; a slice at least for each thread (ffv1enc.c takes 4, 6, 9, 12, 16, …)."""
    slices = next(count for count in (4, 6, 9, 12, 16) if count >= port.threads)
    return ["-level", "3", "-slices", str(slices), "-slicecrc", "1", "-g", "1"]


def _xdcam_options(port: Port) -> list[str]:
    """XDCAM HD422: MPEG-2 4:2:2 at High Level, 50 Mbit/s constant, in closed GOPs with two B frames between others.

    A closed GOP is possible only without the detection of scene changes (mpegvideo_enc.c).
    """
    gop = xdcam_gop(port.raster, port.source.is_interlaced, port.source.options["rate"])
    return [
        *("-profile:v", "0", "-level:v", "2"),
        *("-b:v", "50M", "-minrate", "50M", "-maxrate", "50M"),
        *("-bufsize", XDCAM_BUFFER_BITS, "-rc_init_occupancy", XDCAM_BUFFER_BITS),
        *("-g", str(gop), "-bf", "2", "-b_strategy", "0", "-sc_threshold", "1000000000"),
        *("-intra_vlc", "1", "-non_linear_quant", "1", "-dc", "10", "-qmin", "1", "-qmax", "12"),
    ]


def _no_options(port: Port) -> list[str]:
    return []


_ENCODERS: dict[str, Callable[[Port], list[str]]] = {
    "h264": _h264_options,
    "hevc": _hevc_options,
    "prores": _prores_options,
    "dnxhr": _dnxhr_options,
    "dnxhd": _dnxhd_options,
    "ffv1": _ffv1_options,
    "v210": _no_options,
    "xdcam": _xdcam_options,
}


def _timecode_arguments(port: Port) -> list[str]:
    """The first number of a day, for which FFmpeg makes a place: the runner writes the right one there
    (runner/stamp.py). FFmpeg passes on a source's own timecode unasked."""
    if port.timecode in (NONE, SOURCE):
        return []
    return ["-metadata", f"timecode={numbers_at(port.source.options['rate']).zero}"]


def _container_arguments(port: Port, capabilities: Capabilities) -> list[str]:
    """A container that a kill leaves playable, cut into pieces as long as the encoder leaves room for.

    Where one stream stops, the muxer would hold the other one back for 10 s (FACTS 7), which a kill would lose.
    """
    options = [*_muxer_options(port, capabilities), "-max_interleave_delta", INTERLEAVE_US, "-flush_packets", "1"]
    muxer = MUXERS[port.container]
    if not port.file_s:
        return [*options, "-f", muxer]
    # What is not among these does not reach the muxer of the files (FACTS 7).
    # Each file begins at 0 by its own muxer; -reset_timestamps would hold a frame back besides (FFmpeg 7.1).
    options += ["-avoid_negative_ts", "make_zero"]
    inner = ":".join(f"{option.removeprefix('-')}={value}" for option, value in zip(*[iter(options)] * 2, strict=True))
    # Without a shift of the timestamps, which the muxer of each file does, the list of files has the pictures' times.
    outer = ["-max_interleave_delta", INTERLEAVE_US, "-avoid_negative_ts", "disabled", "-f", "segment"]
    files = ["-segment_format", muxer, "-segment_time", f"{port.file_s:g}"]
    if port.is_on_clock:
        files += ["-segment_atclocktime", "1", "-segment_clocktime_wrap_duration", f"{min(STEP_S, port.file_s / 2):g}"]
    # How the runner names files and hears of them: runner/segments.py.
    told = ["-segment_wrap", "10", "-segment_list", "pipe:2", "-segment_list_type", "csv"]
    return [*outer, *files, *told, "-segment_format_options", inner]


def _muxer_options(port: Port, capabilities: Capabilities) -> list[str]:
    fragment_s = fragment_duration_s(CODECS[port.codec], port.threads, port.source.options["rate"])
    if port.container == "mkv":
        options = ["-cluster_time_limit", str(max(1, round(fragment_s * 1000)))]
    elif port.container == "mxf":
        # It writes each picture with the sound beside it at once, and for both it waits.
        options = []
    else:
        # hybrid_fragmented is fragmented while it grows and an ordinary file once it is closed.
        flags = "+hybrid_fragmented" if capabilities.hybrid_fragmented else "+empty_moov+default_base_moof"
        if not capabilities.hybrid_fragmented and CODECS[port.codec].encoder == "dnxhd":
            # What players need to know of it stands in its first picture.
            flags += "+delay_moov"
        options = ["-movflags", flags, "-frag_duration", str(round(fragment_s * 1_000_000))]
    return options
