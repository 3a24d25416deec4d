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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sdisup.config.codecs import AUTO_RATE, CODECS, FASTEST_RATE, FPS, MUXERS, fragment_duration_s
from sdisup.config.settings import Port, Source
from sdisup.sources.custom import parse_inputs

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


def missing_capabilities(ports: Iterable[Port], ffmpeg: str, capabilities: Capabilities) -> list[str]:
    """What `ports` need and this FFmpeg lacks, each once, with the ports and the next step.

    `ports 0-7: /usr/bin/ffmpeg has no input 'videomaster': install …`
    """
    lacking: dict[str, list[Port]] = {}
    for port in ports:
        for text in _lacking(port, ffmpeg, capabilities):
            lacking.setdefault(text, []).append(port)
    return [f"{_label(affected)}: {text}" for text, affected in lacking.items()]


def _lacking(port: Port, ffmpeg: str, capabilities: Capabilities) -> list[str]:
    codec = CODECS[port.codec]
    texts = [
        f"{ffmpeg} has no input '{demuxer}': {_REMEDIES.get(demuxer, _OTHER_REMEDY)}"
        for demuxer in _demuxers(port.source)
        if demuxer not in capabilities.inputs
    ]
    for encoder in (codec.encoder, *([codec.audio_encoder] if has_audio(port.source) else [])):
        if encoder not in capabilities.encoders:
            texts.append(
                f"{ffmpeg} has no encoder '{encoder}', which {port.codec} needs:"
                " install an FFmpeg that has it, or choose another codec"
            )
    return texts


def _label(ports: Sequence[Port]) -> str:
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


def has_audio(source: Source) -> bool:
    return audio_channel_count(source) > 0


def audio_channel_count(source: Source) -> int:
    """How many audio channels the source delivers, in one stream; 0 for none.

    What is in a custom input nobody knows before it runs: stereo is what nearly all of them carry.
    """
    options = source.options
    if source.kind == "test":
        return 1 if options["tone"] else 0
    if source.kind == "custom":
        return 2 if options["audio"] else 0
    if source.kind == "v4l2" and options["audio_device"] == "none":
        return 0
    channels: int = options["audio_channels"]
    return channels


def _audio_map(source: Source) -> str:
    """The first sound of the last input: one that is apart from the picture is named after it."""
    if source.kind == "v4l2":
        return "1:a:0"
    if source.kind == "custom":
        last = len(parse_inputs(source.options["input"])) - 1
        return f"{last}:a:0" + ("?" if source.options["audio"] == "optional" else "")
    return "0:a:0"


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


def _decklink_input(source: Source) -> list[str]:
    """A DeckLink card's input (ffmpeg-devices(1), decklink).

    The card goes on delivering pictures without a signal: black ones, or bars if `draw_bars` says so, the
    default of FFmpeg that makes a lost signal look like a recorded one. From 7.1 on -signal_loss_action
    says more, and -draw_bars 0 is still understood as its `none`. There is always a sound of 2 channels or
    more; with none wanted, it is not mapped.
    """
    options = source.options
    arguments = ["-f", "decklink", "-video_input", options["video_input"], "-audio_input", options["audio_input"]]
    arguments += ["-raw_format", options["raw_format"], "-draw_bars", str(int(options["draw_bars"]))]
    arguments += ["-channels", str(options["audio_channels"] or 2), "-audio_depth", str(options["sample_size"])]
    arguments += ["-queue_size", str(options["queue_mib"] * 1024 * 1024)]
    if options["format_code"] != "auto":
        arguments += ["-format_code", options["format_code"]]
    return [*arguments, "-i", options["device"]]


def _v4l2_input(source: Source) -> list[str]:
    """A Video4Linux device, and an ALSA device beside it (ffmpeg-devices(1), video4linux2 and alsa).

    With two inputs FFmpeg reads each ahead in a thread of its own, whose default of 8 packets a busy
    machine overruns.
    """
    options = source.options
    queue = ["-thread_queue_size", "512"]
    arguments = [*queue, "-f", "v4l2", "-framerate", options["rate"], "-video_size", options["size"]]
    if options["input_format"] != "auto":
        arguments += ["-input_format", options["input_format"]]
    arguments += ["-i", options["device"]]
    if has_audio(source):
        arguments += [*queue, "-f", "alsa", "-sample_rate", "48000", "-channels", str(options["audio_channels"])]
        arguments += ["-i", options["audio_device"]]
    return arguments


def _custom_input(source: Source) -> list[str]:
    """What the operator wrote; custom_input.py has checked that it only opens inputs."""
    return list(source.options["input"])


_INPUTS: dict[str, Callable[[Source], list[str]]] = {
    "test": _test_input,
    "videomaster": _videomaster_input,
    "decklink": _decklink_input,
    "v4l2": _v4l2_input,
    "custom": _custom_input,
}


def _demuxers(source: Source) -> list[str]:
    """The inputs by FFmpeg's names that the source needs."""
    if source.kind == "test":
        return ["lavfi"]
    if source.kind == "custom":
        return [entry.format for entry in parse_inputs(source.options["input"]) if entry.format]
    return ["v4l2", "alsa"] if source.kind == "v4l2" and has_audio(source) else [source.kind]


# What to do where an input is missing.
_OTHER_REMEDY = "install an FFmpeg that has it, or choose another source"
_REMEDIES = {
    "lavfi": "install an FFmpeg with libavfilter's input device",
    "videomaster": "install Deltacast's FFmpeg and name it as ffmpeg in [appliance], or choose another source",
    "decklink": "install an FFmpeg built with --enable-decklink and name it as ffmpeg in [appliance],"
    " or choose another source",
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
    arguments += ["-fps_mode", "cfr", *_rate_arguments(options["rate"])]
    arguments += ["-c:v", CODECS[port.codec].encoder, *_ENCODERS[port.codec](port)]
    arguments += ["-threads:v", str(port.threads), "-pix_fmt", CODECS[port.codec].pix_fmt]
    if scan != "progressive":
        arguments += ["-flags:v", "+ildct+ilme"]
    return arguments


def _rate_arguments(rate: str) -> list[str]:
    """Where nobody stated the rate, FFmpeg takes the stream's own, or its guess, which can be absurd."""
    return ["-fpsmax", FASTEST_RATE] if rate == AUTO_RATE else ["-r", rate]


def _key_frame_arguments(rate: str) -> list[str]:
    """A key frame a second: by counting where the rate is known, by the time where it is not."""
    if rate == AUTO_RATE:
        return ["-g", FASTEST_RATE, "-force_key_frames", "expr:gte(t,n_forced)"]
    return ["-g", str(round(FPS[rate]))]


def _h264_options(port: Port) -> list[str]:
    """libx264 without lookahead, B-frames and frame threads, which would keep 25 frames back (FACTS 3)."""
    rate_k = f"{port.bitrate_kbps}k"
    # libx264 has no weighted prediction for fields and would say so at each start.
    is_progressive = port.source.options.get("scan", "progressive") == "progressive"
    return [
        *("-preset", port.preset, "-tune", "zerolatency"),
        *("-b:v", rate_k, "-maxrate", rate_k, "-bufsize", rate_k),
        *_key_frame_arguments(port.source.options["rate"]),
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
    arguments = ["-map", _audio_map(port.source), "-af", "aresample=async=1", "-c:a", encoder]
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
