"""FFmpeg's encoders on graphics cards: their options, and the device nodes that they need. Pure.

Like the software encoders they get no B frames, no lookahead and no queue of pictures, which a crash would lose. The
options are those that FFmpeg 5.1 and 7.1 list; none of them was run on a card.
"""

from __future__ import annotations

from sdisup.config.codecs import AUTO, HARDWARE
from sdisup.config.settings import Port
from sdisup.sources.base import Sandbox

RENDER_NODE, RENDER_GROUP = "/dev/dri/renderD128", "render"
"""The first card's node for programs without a screen, and the group that udev gives it to (50-udev-default.rules)."""
NODES = {
    "nvenc": ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"),
    "qsv": (RENDER_NODE,),
    "vaapi": (RENDER_NODE,),
}
"""The device nodes of each way: those of the first card."""

NVENC_PRESETS = {
    "ultrafast": "p1", "superfast": "p1", "veryfast": "p2", "faster": "p3", "fast": "p4", "medium": "p4", "slow": "p5",
    "slower": "p6", "veryslow": "p7",
}  # fmt: skip
QSV_PRESETS = {"ultrafast": "veryfast", "superfast": "veryfast"}


def candidate_nodes(port: Port) -> tuple[str, ...]:
    """The device nodes of each way that the port may get."""
    ways = HARDWARE if port.encoder == AUTO else (port.encoder,)
    return tuple(dict.fromkeys(node for name in ways if port.fits_hardware for node in NODES.get(name, ())))


def way(port: Port) -> str:
    """How the port is encoded on a card: nvenc, qsv or vaapi; "" by software."""
    return port.encoder if port.encoder in HARDWARE and port.fits_hardware else ""


def nodes(port: Port) -> tuple[str, ...]:
    """The device nodes that the port's encoder opens."""
    return NODES.get(way(port), ())


def sandbox(port: Port) -> Sandbox:
    """What the port's source and its encoder may reach together."""
    of_source = port.source.sandbox()
    if of_source.devices is None or not nodes(port):
        return of_source
    return of_source.replaced(devices=tuple(dict.fromkeys((*of_source.devices, *nodes(port)))))


def device_arguments(port: Port) -> list[str]:
    """What FFmpeg has to be told before the input."""
    if way(port) == "vaapi":
        return ["-init_hw_device", f"vaapi=card:{RENDER_NODE}", "-filter_hw_device", "card"]
    return []


def filters(port: Port) -> list[str]:
    """What brings the picture to the card."""
    if way(port) == "vaapi":
        return [f"format={_samples(port)}", "hwupload"]
    return []


def _samples(port: Port) -> str:
    """The cards have both colours of a sample side by side."""
    return "p010le" if port.pixel_format == "yuv420p10le" else "nv12"


def options(port: Port) -> list[str]:
    """The options of FFmpeg's encoder, without those of key frames."""
    return {"nvenc": _nvenc_options, "qsv": _qsv_options, "vaapi": _vaapi_options}[way(port)](port)


def _limit(port: Port) -> list[str]:
    rate_k = f"{port.bitrate_kbps}k"
    return ["-maxrate", rate_k, "-bufsize", rate_k] if port.bitrate_kbps else []


def _nvenc_options(port: Port) -> list[str]:
    if port.quality:
        quality = ["-rc", "vbr", "-cq", str(port.quality), "-b:v", "0", *_limit(port)]
    else:
        quality = ["-rc", "cbr", "-b:v", f"{port.bitrate_kbps}k", *_limit(port)]
    return [
        *("-preset", NVENC_PRESETS[port.preset], "-tune", "ull", "-zerolatency", "1", "-delay", "0"),
        *("-bf", "0", "-rc-lookahead", "0", "-forced-idr", "1"),
        *quality,
        *("-pix_fmt", _samples(port)),
    ]


def _qsv_options(port: Port) -> list[str]:
    # With 0 the first key frame of hevc alone could be entered at.
    idr = ["-idr_interval", "1"] if port.codec == "hevc" else []
    quality = ["-global_quality", str(port.quality)] if port.quality else ["-b:v", f"{port.bitrate_kbps}k"]
    return [
        *("-preset", QSV_PRESETS.get(port.preset, port.preset), "-async_depth", "1", "-bf", "0", "-forced_idr", "1"),
        *idr,
        *quality,
        *_limit(port),
        *("-pix_fmt", _samples(port)),
    ]


def _vaapi_options(port: Port) -> list[str]:
    if port.quality:
        quality = ["-rc_mode", "CQP", "-global_quality", str(port.quality)]
    else:
        quality = ["-rc_mode", "VBR", "-b:v", f"{port.bitrate_kbps}k", *_limit(port)]
    return ["-async_depth", "1", "-bf", "0", *quality]
