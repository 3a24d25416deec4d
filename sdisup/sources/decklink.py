"""Blackmagic's DeckLink cards, read by FFmpeg's `decklink` input device (ffmpeg-devices(1), 5.1 and 7.1)."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence

from sdisup.contract.options import SEARCHES
from sdisup.sources.base import SIGNAL_RATE, SIGNAL_SCAN, Found, Sandbox, Source, comment
from sdisup.sources.values import BOOLEAN, CHOICE, INTEGER, REQUIRED, WORD, Setting, Type, check_string, show

TEXT_MAX_BYTES = 128

# The device class and the nodes of Blackmagic's driver, as public units and Dockerfiles name them. Each input of a card
# has a node: /dev/blackmagic/io0, io1 and so on.
NODES = ("char-blackmagic*", *(f"/dev/blackmagic/io{index}" for index in range(8)))


def _check_text(setting: Setting, value: object) -> str:
    text = check_string(value)
    if not text or not text.isprintable() or len(text.encode("utf-8")) > TEXT_MAX_BYTES:
        raise ValueError(f"{show(text)} must be 1 to {TEXT_MAX_BYTES} bytes that can be printed")
    if text.startswith("-") or "{output}" in text:
        raise ValueError(f"{show(text)} cannot be a device's name")
    return text


DEVICE = Setting("device", Type("text", _check_text, "a name"), None,
                 "The input by its name, as `ffmpeg -sources decklink` shows it: `DeckLink Duo (1)`.",
                 default_doc=REQUIRED)  # fmt: skip


class DeckLink(Source):
    kind = "decklink"
    position = 20
    doc = "an input of a Blackmagic DeckLink card; needs an FFmpeg that was built with its SDK"
    example = 'source = { kind = "decklink", device = "DeckLink Duo (1)", rate = 50 }'
    settings = (
        DEVICE,
        SIGNAL_RATE,
        SIGNAL_SCAN,
        Setting("format_code", WORD, "auto",
                "The signal's format as four letters (`ffmpeg -f decklink -list_formats 1 -i NAME` lists them),"
                " for cards that cannot detect it."),
        Setting("raw_format", CHOICE, "uyvy422", "How the card delivers the picture.",
                allowed=("uyvy422", "yuv422p10", "argb", "bgra", "rgb10")),
        Setting("video_input", CHOICE, "sdi", "The connector of the picture.",
                allowed=("sdi", "hdmi", "optical_sdi", "component", "composite", "s_video")),
        Setting("audio_input", CHOICE, "embedded", "The connector of the sound.",
                allowed=("embedded", "aes_ebu", "analog", "analog_xlr", "analog_rca", "microphone")),
        Setting("audio_channels", INTEGER, 2,
                "How many audio channels are recorded; 0 for none.",
                allowed=(0, 2, 8, 16)),
        Setting("sample_size", INTEGER, 32, "The audio's sample size.", allowed=(16, 32), unit="bit"),
        Setting("timecode_format", CHOICE, "rp188any",
                "Which of the signal's timecodes is recorded with `timecode = \"source\"`: rp188ltc and rp188vitc are"
                " the two in an HD signal (ATC), vitc is that of SD, serial that of the card's connector.",
                allowed=("rp188any", "rp188ltc", "rp188vitc", "rp188vitc2", "vitc", "vitc2", "serial")),
        Setting("queue_mib", INTEGER, 256,
                "How much of the signal waits in memory for a slow encoder before pictures are dropped.", minimum=16,
                maximum=4096, unit="MiB"),
        Setting("draw_bars", BOOLEAN, False,
                "Whether colour bars are recorded while there is no signal, rather than black."),
    )  # fmt: skip
    # A DeckLink card looks for the signal's format for 3 s, during which FFmpeg does not read its stdin
    # (libavdevice/decklink_dec.cpp, decklink_autodetect).
    stop_start_quit_s = 6
    demuxer = "decklink"
    remedy = (
        "install an FFmpeg built with --enable-decklink and name it as ffmpeg in [appliance], or choose another source"
    )
    without_signal = SEARCHES
    no_timecode = ""
    ffmpeg_lists = True

    def arguments(self) -> list[str]:
        """FFmpeg's arguments. Without a signal the card goes on delivering pictures: black, or bars with `draw_bars`.

        FFmpeg's default is bars, which make a lost signal look like a recorded one. FFmpeg 7.1 has
        -signal_loss_action, and still understands -draw_bars 0 as its value `none`. The input always has sound of at
        least 2 channels; where no sound is wanted, it is not mapped.
        """
        options = self.options
        arguments = ["-f", "decklink", "-video_input", options["video_input"], "-audio_input", options["audio_input"]]
        arguments += ["-raw_format", options["raw_format"], "-draw_bars", str(int(options["draw_bars"]))]
        arguments += ["-channels", str(options["audio_channels"] or 2), "-audio_depth", str(options["sample_size"])]
        arguments += ["-queue_size", str(options["queue_mib"] * 1024 * 1024)]
        if options["format_code"] != "auto":
            arguments += ["-format_code", options["format_code"]]
        return [*arguments, "-i", options["device"]]

    def timecode_arguments(self) -> list[str]:
        """The recording has the timecode that the signal has when FFmpeg opens it (decklink_dec.cpp); none where the
        signal has none. With -wait_for_tc such a signal would not be recorded at all."""
        return ["-timecode_format", self.options["timecode_format"]]

    def sandbox(self) -> Sandbox:
        return Sandbox(devices=NODES, groups=("video",))

    @classmethod
    def driver_problem(cls) -> str:
        if glob.glob("/dev/blackmagic/*"):
            return ""
        return "there is no DeckLink card in /dev/blackmagic: is Blackmagic's Desktop Video driver loaded?"

    def listing_problem(self, found: Sequence[Found]) -> str:
        if any(str(self) in (source.name, source.description) for source in found):
            return ""
        names = ", ".join(source.description for source in found) or "none"
        return f"there is no DeckLink input '{self}' (there are: {names})"

    @classmethod
    def starters(cls, found: Sequence[Found]) -> dict[str, tuple[str, str]]:
        """Each input by its name, or by its handle where two cards have the same name; FFmpeg understands both."""
        descriptions = [source.description for source in found]
        starters = {}
        for source in found:
            name = source.description if descriptions.count(source.description) == 1 else source.name
            try:
                DEVICE.check(name)
            except ValueError:
                continue
            device = json.dumps(name, ensure_ascii=False)
            note = comment(source.description) + "; say the rate and the scan of its signal."
            starters[device] = (note, f'source = {{ kind = "decklink", device = {device}, rate = 25 }}')
        return starters
