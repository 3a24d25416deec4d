"""What cannot work, or hardly, although each value by itself can. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdisup.config import codecs
from sdisup.sources.custom import parse_inputs

if TYPE_CHECKING:
    from sdisup.config.settings import Port

Remark = tuple[tuple[str, ...], str]
"""The keys that it is about, the one to change first, and the text."""

# An SDI input that lost its signal blocks FFmpeg for 10 s (VIDEOMASTER 8).
VIDEOMASTER_BLOCKS_S = 10.0


def combination_problems(port: Port) -> list[Remark]:
    """The combinations of the port's values that no FFmpeg could record as promised."""
    problems: list[Remark] = []
    codec = codecs.CODECS[port.codec]
    rate = port.source.options["rate"]
    rate_text = f"at least {codecs.SLOWEST_RATE}" if rate == codecs.AUTO_RATE else rate
    if port.container not in codec.containers:
        text = f"{port.container} cannot hold {port.codec} (one of: {', '.join(codec.containers)})"
        problems.append((("container", "codec"), text))
    threads_max = codecs.max_threads(codec, rate)
    if port.threads > threads_max:
        text = (
            f"{port.threads} threads of {port.codec} at {rate_text} frames a second keep back more than"
            f" {codecs.HOLD_BACK_LIMIT_S} s, which a crash would lose: at most {threads_max}"
        )
        problems.append((("threads", "codec", "source.rate"), text))
    has_sound = port.source.options.get("audio_device") != "none"
    channels = port.source.options.get("audio_channels", 0) if has_sound else 0
    if channels > codec.audio_channels_max:
        text = f"{port.codec} is recorded with at most {codec.audio_channels_max} channels, not {channels}"
        problems.append((("source.audio_channels", "codec"), text))
    return problems


def doubts(port: Port, own_keys: set[str]) -> list[Remark]:
    """What works, but hardly as it was meant. `own_keys` are those of the port's own table."""
    remarks: list[Remark] = []
    if codecs.CODECS[port.codec].bitrate_kbps == 0 and "bitrate_kbps" in own_keys:
        text = f"{port.codec} takes its bit rate from prores_profile; this has no effect"
        remarks.append((("bitrate_kbps",), text))
    if port.source.kind == "videomaster":
        remarks += _videomaster_doubts(port)
    if port.source.kind == "custom" and port.source.options["input"]:
        remarks += _custom_doubts(port)
    if port.sync_interval_s > 1:
        text = f"a power cut may cost {port.sync_interval_s + codecs.HOLD_BACK_LIMIT_S:g} s of material"
        remarks.append((("sync_interval_s",), text))
    return remarks


def _custom_doubts(port: Port) -> list[Remark]:
    paths = [entry.path for entry in parse_inputs(port.source.options["input"])]
    hidden = [path for path in paths if path.startswith(("/tmp/", "/var/tmp/"))]
    if not hidden:
        return []
    text = f"{hidden[0]} is not seen by the recorder, whose unit has a /tmp of its own; put it elsewhere"
    return [(("source.input",), text)]


def _videomaster_doubts(port: Port) -> list[Remark]:
    remarks: list[Remark] = []
    clock = port.source.options["timestamp_source"]
    if clock != "osc":
        text = f"'{clock}' loses pictures when a clock steps, at midnight or after days; 'osc' does not"
        remarks.append((("source.timestamp_source",), text))
    for key, value_s in (("stall_timeout_s", port.stall_timeout_s), ("stop_quit_s", port.stop_quit_s)):
        if value_s <= VIDEOMASTER_BLOCKS_S:
            text = (
                f"without a signal FFmpeg answers only after {VIDEOMASTER_BLOCKS_S:g} s: with {value_s:g} s"
                " it is killed before it can close the file"
            )
            remarks.append(((key,), text))
    return remarks
