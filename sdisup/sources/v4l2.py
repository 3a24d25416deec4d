"""Video4Linux devices, with the sound of an ALSA device (ffmpeg-devices(1), video4linux2 and alsa)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence

from sdisup.sources.base import CODED_FORMATS, SIGNAL_RATE, SIGNAL_SCAN, Found, Sandbox, Source, comment
from sdisup.sources.values import INTEGER, SIZE, WORD, Setting, pattern_type

_DEVICE = r"/dev(/[A-Za-z0-9_:@+-][A-Za-z0-9_.:@+-]{0,100}){1,4}"
DEVICE = pattern_type("device", _DEVICE, "a device's path, such as /dev/video0", "a path below /dev")
_ALSA = r"[A-Za-z][A-Za-z0-9_:,.=+-]{0,127}"
ALSA = pattern_type("alsa", _ALSA, "an ALSA device, such as hw:1, or none", "none, or a device such as hw:1")


class V4l2(Source):
    kind = "v4l2"
    position = 30
    doc = "a Video4Linux device, such as a USB or HDMI grabber, with the sound of an ALSA device"
    example = 'source = { kind = "v4l2", device = "/dev/video0", audio_device = "hw:1" }'
    settings = (
        Setting("device", DEVICE, None, "The device, also one of /dev/v4l/by-id.",
                default_doc="/dev/video and the port's index"),
        Setting("size", SIZE, "1920x1080",
                "Width and height of the picture, in even pixels; the driver takes the nearest that it has."),
        SIGNAL_RATE,
        SIGNAL_SCAN,
        Setting("input_format", WORD, "auto",
                "The pixel format or codec that the device delivers (`ffmpeg -f v4l2 -list_formats all -i DEVICE`"
                " lists them)."),
        Setting("audio_device", ALSA, "none",
                "The ALSA device of the sound (`arecord -L` lists them), such as hw:1; none for no sound."),
        Setting("audio_channels", INTEGER, 2, "How many channels that device delivers.", minimum=1, maximum=16),
    )  # fmt: skip
    demuxer = "v4l2"
    node_hint = "ls /dev/v4l/by-id"

    @classmethod
    def defaults(cls, index: int) -> dict[str, object]:
        return {"device": f"/dev/video{index}"}

    @property
    def has_sound(self) -> bool:
        return bool(self.options["audio_device"] != "none")

    def devices(self) -> dict[str, tuple[str, ...]]:
        sound = {self.options["audio_device"]: ("source.audio_device",)} if self.has_sound else {}
        return {**super().devices(), **sound}

    def arguments(self) -> list[str]:
        """FFmpeg's arguments. With two inputs FFmpeg reads each in a thread of its own.

        By default the thread's queue has room for 8 packets, which is too little on a busy machine.
        """
        options = self.options
        queue = ["-thread_queue_size", "512"]
        arguments = [*queue, "-f", "v4l2", "-framerate", options["rate"], "-video_size", options["size"]]
        if options["input_format"] != "auto":
            arguments += ["-input_format", options["input_format"]]
        arguments += ["-i", options["device"]]
        if self.has_sound:
            arguments += [*queue, "-f", "alsa", "-sample_rate", "48000", "-channels", str(options["audio_channels"])]
            arguments += ["-i", options["audio_device"]]
        return arguments

    def demuxers(self) -> list[str]:
        return [self.demuxer, "alsa"] if self.has_sound else [self.demuxer]

    def audio_channel_count(self) -> int:
        return super().audio_channel_count() if self.has_sound else 0

    def raw_reason(self) -> str:
        is_coded = self.options["input_format"] in CODED_FORMATS
        return "" if is_coded else f"{super().raw_reason()}, unless input_format is one of: {', '.join(CODED_FORMATS)}"

    def audio_map(self) -> str:
        return "1:a:0"

    def sandbox(self) -> Sandbox:
        if self.has_sound:
            return Sandbox(devices=(str(self), "char-alsa"), groups=("video", "audio"))
        return Sandbox(devices=(str(self),), groups=("video",))

    def nodes(self) -> list[str]:
        return [str(self)]

    @classmethod
    def discover(cls, sys_root: str, dev_root: str) -> tuple[Found, ...]:
        """The devices by number. The file `index` has 0 for a device's picture, more for other nodes (metadata).

        Their names are links that outlive a reboot and another order of plugging (udev, 60-persistent-v4l.rules).
        """
        found = []
        for directory in glob.glob(f"{sys_root}/class/video4linux/video*"):
            number = os.path.basename(directory).removeprefix("video")
            if number.isdigit() and _first_line(f"{directory}/index") in ("", "0"):
                found.append((int(number), _first_line(f"{directory}/name")))
        names = _lasting_names({f"video{number}": name for number, name in found}, dev_root)
        return tuple(Found(names[f"video{number}"], name) for number, name in sorted(found))

    @classmethod
    def starters(cls, found: Sequence[Found]) -> dict[str, tuple[str, str]]:
        return {
            source.name: (comment(source.description), f'source = {{ kind = "v4l2", device = "{source.name}" }}')
            for source in found
        }


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(200).strip()
    except OSError:
        return ""


def _lasting_names(models: Mapping[str, str], dev_root: str) -> dict[str, str]:
    """A path for each node: its link in by-id, or in by-path, else /dev/videoN. `models` has the nodes' models.

    Of two devices of a model without serial numbers only one has a link in by-id, and any of them at a boot.
    """
    links = {kind: _links(f"{dev_root}/v4l/{kind}", kind) for kind in ("by-id", "by-path")}
    names = {}
    for node, model in models.items():
        alike = [other for other, its_model in models.items() if its_model == model]
        by_id = links["by-id"].get(node) if all(other in links["by-id"] for other in alike) else None
        names[node] = by_id or links["by-path"].get(node) or links["by-id"].get(node) or f"/dev/{node}"
    return names


def _links(directory: str, kind: str) -> dict[str, str]:
    """By node: the first link to it whose path a configuration can have."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        path = f"/dev/v4l/{kind}/{name}"
        if re.fullmatch(_DEVICE, path):
            found.setdefault(os.path.basename(os.path.realpath(f"{directory}/{name}")), path)
    return found
