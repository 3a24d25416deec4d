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

from collections.abc import Callable
from dataclasses import dataclass

from sdisup.codecs import CODECS, MUXERS, RATES, fragment_duration_s
from sdisup.config import Port, Source

OUTPUT = "{output}"
"""The last argument, which the runner replaces with the path of the file."""

PROGRESS_PERIOD_S = 0.25


@dataclass(frozen=True)
class Capabilities:
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
        *("-progress", "pipe:2", "-stats_period", str(PROGRESS_PERIOD_S), "-y"),
        *_INPUTS[port.source.kind](port.source),
        *_video_arguments(port),
        *_audio_arguments(port),
        *_container_arguments(port, capabilities),
        OUTPUT,
    ]


def missing_capabilities(port: Port, ffmpeg: str, capabilities: Capabilities) -> list[str]:
    """What `port` needs and this FFmpeg lacks, each in the operator's words with the next step."""
    codec = CODECS[port.codec]
    demuxer, remedy = _DEMUXERS[port.source.kind]
    missing = []
    if demuxer not in capabilities.inputs:
        missing.append(f"{port.label}: {ffmpeg} has no input '{demuxer}': {remedy}")
    for encoder in (codec.encoder, *([codec.audio_encoder] if has_audio(port.source) else [])):
        if encoder not in capabilities.encoders:
            missing.append(
                f"{port.label}: {ffmpeg} has no encoder '{encoder}', which {port.codec} needs:"
                " install an FFmpeg that has it, or choose another codec"
            )
    return missing


def container_suffix(port: Port) -> str:
    """The ending of the port's files, with its dot."""
    return f".{port.container}"


def has_audio(source: Source) -> bool:
    return audio_channel_count(source) > 0


def audio_channel_count(source: Source) -> int:
    """How many audio channels the source delivers, in one stream; 0 for none."""
    if source.kind == "test":
        return 1 if source.options["tone"] else 0
    channels: int = source.options["audio_channels"]
    return channels


# ---- Inputs: one function a source kind ----


def _test_input(source: Source) -> list[str]:
    """FFmpeg's test picture and tone.

    The `realtime` filter paces it rather than `-re`, which from FFmpeg 6.1 on delivers the first half
    second at once: counted frames and time would differ by that from the start.
    """
    options = source.options
    graph = f"testsrc2=size={options['size']}:rate={options['rate']},realtime[out0]"
    if options["tone"]:
        graph += ";sine=frequency=1000:sample_rate=48000[out1]"
    return ["-f", "lavfi", "-i", graph]


def _videomaster_input(source: Source) -> list[str]:
    """A Deltacast card's channel (VIDEOMASTER.md, An argument list that served).

    `buffer_packing` is always given, its default being wrong in the input's code; the audio options
    all or none (trap 2). `-xerror` and `-abort_on` make a lost and a missing signal end with an exit
    status that says so (traps 7 and 8).
    """
    options = source.options
    arguments = ["-xerror", "-abort_on", "empty_output", "-f", "videomaster"]
    arguments += ["-timestamp_source", options["timestamp_source"]]
    arguments += ["-buffer_packing", options["buffer_packing"]]
    if has_audio(source):
        arguments += ["-nb_channels", str(options["audio_channels"])]
        arguments += ["-sample_rate", str(options["sample_rate"])]
        arguments += ["-sample_size", str(options["sample_size"])]
    return [*arguments, "-i", f"stream {options['channel']} on board {options['board']}"]


_INPUTS: dict[str, Callable[[Source], list[str]]] = {
    "test": _test_input,
    "videomaster": _videomaster_input,
}

# The input by FFmpeg's name, and what to do where it is missing.
_DEMUXERS = {
    "test": ("lavfi", "install an FFmpeg with libavfilter's input device"),
    "videomaster": (
        "videomaster",
        "install Deltacast's FFmpeg and name it as ffmpeg in [appliance], or choose another source",
    ),
}


# ---- Output ----


def _video_arguments(port: Port) -> list[str]:
    options = port.source.options
    scan = options.get("scan", "progressive")
    arguments = ["-map", "0:v:0"]
    if scan != "progressive":
        # Interlaced arrives marked progressive; the flag alone gives the wrong order (trap 4).
        # Without interl=1 the conversion to 4:2:0 would mix the colours of the two fields.
        arguments += ["-vf", f"setfield={scan},scale=interl=1"]
    # Constant rate also where the source skips: only so lost frames show in dup_frames (trap 5).
    arguments += ["-fps_mode", "cfr", "-r", options["rate"]]
    arguments += ["-c:v", CODECS[port.codec].encoder, *_ENCODERS[port.codec](port)]
    arguments += ["-threads:v", str(port.threads), "-pix_fmt", CODECS[port.codec].pix_fmt]
    if scan != "progressive":
        arguments += ["-flags:v", "+ildct+ilme"]
    return arguments


def _h264_options(port: Port) -> list[str]:
    """libx264 without lookahead, B-frames and frame threads, which would keep 25 frames back (FACTS 3)."""
    rate_k = f"{port.bitrate_kbps}k"
    # libx264 has no weighted prediction for fields and would say so at each start.
    is_progressive = port.source.options.get("scan", "progressive") == "progressive"
    return [
        *("-preset", port.preset, "-tune", "zerolatency"),
        *("-b:v", rate_k, "-maxrate", rate_k, "-bufsize", rate_k),
        *("-g", str(round(RATES[port.source.options["rate"]]))),
        *([] if is_progressive else ["-weightp", "none"]),
    ]


def _prores_options(port: Port) -> list[str]:
    """Every frame is a key frame; the profile sets the bit rate."""
    profiles = {"proxy": "0", "lt": "1", "standard": "2", "hq": "3"}
    return ["-profile:v", profiles[port.prores_profile]]


_ENCODERS: dict[str, Callable[[Port], list[str]]] = {
    "h264": _h264_options,
    "prores": _prores_options,
}

AAC_KBPS_PER_CHANNEL = 96


def _audio_arguments(port: Port) -> list[str]:
    if not has_audio(port.source):
        return []
    encoder = CODECS[port.codec].audio_encoder
    # After a loss of pictures the sound would run early without it (VIDEOMASTER 5).
    arguments = ["-map", "0:a:0", "-af", "aresample=async=1", "-c:a", encoder]
    if encoder == "aac":
        arguments += ["-b:a", f"{AAC_KBPS_PER_CHANNEL * audio_channel_count(port.source)}k"]
    return arguments


def _container_arguments(port: Port, capabilities: Capabilities) -> list[str]:
    """A container that a kill leaves playable, cut into pieces as long as the encoder leaves room for."""
    fragment_s = fragment_duration_s(CODECS[port.codec], port.threads, port.source.options["rate"])
    if port.container == "mkv":
        options = ["-cluster_time_limit", str(max(1, round(fragment_s * 1000)))]
    else:
        # hybrid_fragmented is fragmented while it grows and an ordinary file once it is closed.
        flags = "+hybrid_fragmented" if capabilities.hybrid_fragmented else "+empty_moov+default_base_moof"
        options = ["-movflags", flags, "-frag_duration", str(round(fragment_s * 1_000_000))]
    return [*options, "-flush_packets", "1", "-f", MUXERS[port.container]]
