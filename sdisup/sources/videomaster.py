"""Deltacast's SDI cards, read by the `videomaster` input of Deltacast's FFmpeg (VIDEOMASTER.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sdisup.contract.options import ENDS, OPTIONAL
from sdisup.sources.base import SIGNAL_RATE, SIGNAL_SCAN, Found, Remark, Sandbox, Source, comment
from sdisup.sources.values import CHOICE, INTEGER, Setting, find_rate

BLOCKS_S = 10.0
"""An SDI input without a signal blocks FFmpeg for this long, and twice as long at the start (VIDEOMASTER.md, 7, 8)."""


class Videomaster(Source):
    kind = "videomaster"
    position = 10
    doc = "an SDI input of a Deltacast card; needs Deltacast's FFmpeg"
    example = 'source = { kind = "videomaster", board = 0, channel = 3, scan = "tff" }'
    settings = (
        Setting("board", INTEGER, 0, "The card, counted from 0.", maximum=63),
        Setting("channel", INTEGER, None, "The card's input, counted from 0.", default_doc="the port's index",
                maximum=63),
        SIGNAL_RATE,
        SIGNAL_SCAN,
        Setting("buffer_packing", CHOICE, "YUV422_8", "How the card delivers the picture.", allowed=(
            # The eight that work; the input lists more (VIDEOMASTER.md, Choosing the input).
            "YUV422_8", "YUV422_10", "RGB_24", "RGB_32", "RGBA_32", "RGB_64", "PLANAR_NV12", "PLANAR_P010",
        )),
        Setting("audio_channels", INTEGER, 2,
                "How many embedded audio channels are recorded, from the first; 0 for none.", maximum=16),
        Setting("sample_size", INTEGER, 24, "The audio's sample size.", allowed=(16, 24), unit="bit"),
        Setting("sample_rate", INTEGER, 48000, "The audio's sample rate.", allowed=(32000, 44100, 48000), unit="Hz"),
        Setting("timestamp_source", CHOICE, "osc",
                "The clock of the timestamps; all but osc lose pictures sooner or later.",
                allowed=("osc", "system", "hw", "ltc_on_board", "ltc_companion_card")),
    )  # fmt: skip
    stall_timeout_s = 12
    stop_quit_s = 12
    stop_start_quit_s = 22
    device_word = "a channel"
    demuxer = "videomaster"
    remedy = "install Deltacast's FFmpeg and name it as ffmpeg in [appliance], or choose another source"
    without_signal = ENDS
    no_timecode = "Deltacast's input delivers no timecode, and takes an LTC for timestamps alone"
    ffmpeg_lists = True
    opened_by_listing = "Deltacast cards"

    @classmethod
    def defaults(cls, index: int) -> dict[str, object]:
        return {"channel": index}

    def __str__(self) -> str:
        return f"board {self.options['board']} channel {self.options['channel']}"

    def devices(self) -> dict[str, tuple[str, ...]]:
        return {str(self): ("source.channel", "source.board")}

    def doubts(self, limits_s: Mapping[str, float]) -> Iterator[Remark]:
        clock = self.options["timestamp_source"]
        if clock != "osc":
            text = f"'{clock}' loses pictures when a clock steps, at midnight or after days; 'osc' does not"
            yield ("source.timestamp_source",), text
        for key in ("stall_timeout_s", "stop_quit_s"):
            if limits_s[key] <= BLOCKS_S:
                text = (
                    f"without a signal FFmpeg answers only after {BLOCKS_S:g} s: with {limits_s[key]:g} s"
                    " it is killed before it can close the file"
                )
                yield (key,), text

    def arguments(self) -> list[str]:
        """FFmpeg's arguments (VIDEOMASTER.md, An argument list that served).

        `buffer_packing` is always given, since its default in the input's code is wrong; the audio options are given
        all or none (trap 2). With `-xerror` and `-abort_on` FFmpeg ends with an exit status of its own where a signal
        is lost or missing (traps 7 and 8).
        """
        options = self.options
        arguments = ["-xerror", "-abort_on", "empty_output", "-f", self.demuxer]
        arguments += ["-timestamp_source", options["timestamp_source"], "-buffer_packing", options["buffer_packing"]]
        if options["audio_channels"]:
            arguments += ["-nb_channels", str(options["audio_channels"])]
            arguments += ["-sample_rate", str(options["sample_rate"]), "-sample_size", str(options["sample_size"])]
        return [*arguments, "-i", f"stream {options['channel']} on board {options['board']}"]

    def sound(self) -> str:
        return OPTIONAL if self.options["audio_channels"] else ""

    def audio_options(self) -> tuple[str, ...]:
        return ("-nb_channels", "-sample_rate", "-sample_size") if self.options["audio_channels"] else ()

    def sandbox(self) -> Sandbox:
        """All of /dev stays open: of the nodes only /dev/delta-x380N, -x370N and -x350N are public.

        NVIDIA's Holohub passes those to containers. The nodes of other cards are not known, nor is the device class. A
        list that lacked a node would cost the recording.
        """
        return Sandbox(devices=None, groups=("video",), reason="not all nodes of Deltacast's driver are known")

    def listing_problem(self, found: Sequence[Found]) -> str:
        """What differs where the signal has another rate or scan than the port. FFmpeg lists locked channels only."""
        name = f"stream {self.options['channel']} on board {self.options['board']}"
        signal = next((source for source in found if source.name == name), None)
        if signal is None:
            return ""
        text, rate, is_interlaced = _signal_of(signal)
        scan = self.options["scan"]
        words = []
        if rate and rate != self.options["rate"]:
            words.append(f'rate = "{rate}", not "{self.options["rate"]}"')
        if rate and is_interlaced != (scan != "progressive"):
            words.append(f'scan = "{"tff" if is_interlaced else "progressive"}", not "{scan}"')
        return f"the signal on {self} is {text}: it needs {' and '.join(words)}" if words else ""

    @classmethod
    def starters(cls, found: Sequence[Found]) -> dict[str, tuple[str, str]]:
        starters = {}
        for source in found:
            place = re.fullmatch(r"stream ([0-9]{1,2}) on board ([0-9]{1,2})", source.name, re.ASCII)
            if not place:
                continue
            device = f"board = {int(place[2])}, channel = {int(place[1])}"
            _, rate, is_interlaced = _signal_of(source)
            options = [f'kind = "videomaster", {device}', *([f'rate = "{rate}"'] if rate else [])]
            if is_interlaced:
                options.append('scan = "tff"')
            starters[device] = (comment(source.description), f"source = {{ {', '.join(options)} }}")
        return starters


def _signal_of(source: Found) -> tuple[str, str | None, bool]:
    """A listed signal in FFmpeg's words (`1920x1080i50.000`), its rate, None if unknown, and whether it is interlaced.

    The description is `SDI video: 1920x1080i50.000 (interface: …`. After an `i` stand fields a second.
    """
    signal = re.search(r"[0-9]+x[0-9]+([ip])([0-9]+(?:\.[0-9]+)?)", source.description)
    if signal is None:
        return "", None, False
    is_interlaced = signal[1] == "i"
    return signal[0], find_rate(float(signal[2]) / (2 if is_interlaced else 1)), is_interlaced
