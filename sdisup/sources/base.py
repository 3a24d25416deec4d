"""What a kind of source is: one class in one file of this folder. docs/design.md says how to add one."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import sdisup.sources
from sdisup.contract.options import REQUIRED
from sdisup.contract.records import Record
from sdisup.sources.arguments import Input
from sdisup.sources.values import CHOICE, RATE, RATES, Setting

Remark = tuple[tuple[str, ...], str]
"""The keys that a remark is about ("codec", "source.rate"), first the one to change; and the text."""

# Rows of properties of the signal that only the operator knows.
SIGNAL_RATE = Setting("rate", RATE, "25",
                      "Frames a second of the signal; an interlaced one has half as many as fields.",
                      allowed=tuple(RATES))  # fmt: skip
PROGRESSIVE = "progressive"
SIGNAL_SCAN = Setting("scan", CHOICE, PROGRESSIVE,
                      "Interlaced signals come with the top (tff) or the bottom (bff, some SD) field first.",
                      allowed=(PROGRESSIVE, "tff", "bff"))  # fmt: skip


CODED_FORMATS = ("h264", "hevc", "mjpeg", "jpeg")
"""FFmpeg's names of what a Video4Linux device may deliver encoded (libavcodec's names; v4l2.c, -input_format)."""


class Found(Record):
    """An input that a driver knows: the name that FFmpeg's `-i` takes, and the description for people."""

    name: str
    description: str


class Sandbox(Record):
    """What a source may reach besides files: the network and devices, as lines of its port's drop-in.

    All ports share the rest of the sandbox (units/sdi-record@.service.j2). `devices` are values for DeviceAllow=; None
    leaves all of /dev open, and `reason` says why. `groups` own the device nodes that the source opens.
    """

    network: bool = False
    devices: tuple[str, ...] | None = ()
    groups: tuple[str, ...] = ()
    reason: str = ""

    def directives(self, node_groups: Sequence[str] = ()) -> list[str]:
        """The lines of [Service] (systemd.exec(5), systemd.resource-control(5)).

        `node_groups` own the nodes on this machine; systemd starts no unit with a group that is not there.
        """
        # sd_notify and the journal need AF_UNIX.
        families = "AF_UNIX AF_INET AF_INET6" if self.network else "AF_UNIX"
        lines = [f"RestrictAddressFamilies={families}"]
        groups = dict.fromkeys((*self.groups, *node_groups))
        if groups:
            lines.append(f"SupplementaryGroups={' '.join(groups)}")
        if self.devices is None:
            return [*lines, f"# Devices stay open: {self.reason}."]
        if not self.devices:
            return [*lines, "PrivateDevices=yes"]
        # systemd skips a node that is missing, and looks again at the next start.
        return [*lines, "DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in self.devices)]


class Source(Record):
    """What a port records: a kind, which is a subclass, and a value for each of its `settings`.

    The rest of the program knows of a source only what is below; a kind overrides what differs from here. Every kind
    has the option `rate`, and `scan` where a signal can be interlaced; an option `device` is the input's name.

    Configuration: `kind` is the kind's name, `position` its place in lists of kinds (the first is the default); `doc`
    and `example` (a line of TOML) stand in the reference. `stall_timeout_s`, `stop_quit_s` and `stop_start_quit_s` are
    the defaults of the port's settings of these names. `device_word` is the message's word for what only one port can
    read.
    FFmpeg: `demuxer` is FFmpeg's name of the input device, if the kind has one; `remedy` says what to do where FFmpeg
    lacks it. `without_signal` is what FFmpeg does without a signal (contract/options.py); what FFmpeg logs then is in
    the table of runner/causes.py.
    `knows_channels`: audio_channel_count() is no guess. `no_timecode` says why the input delivers no timecode; "" where
    it does, or may.
    Discovery: `ffmpeg_lists` is whether `ffmpeg -sources DEMUXER` lists the inputs; `opened_by_listing` names what
    FFmpeg opens for that list, since this could disturb a recording. `node_hint` is a command that lists device nodes.
    """

    options: Mapping[str, Any]

    kind: ClassVar[str]
    position: ClassVar[int]
    doc: ClassVar[str]
    example: ClassVar[str]
    settings: ClassVar[tuple[Setting, ...]]
    stall_timeout_s: ClassVar[float] = 5
    stop_quit_s: ClassVar[float] = 3
    stop_start_quit_s: ClassVar[float] = 0
    device_word: ClassVar[str] = "a device"
    demuxer: ClassVar[str] = ""
    remedy: ClassVar[str] = "install an FFmpeg that has it, or choose another source"
    without_signal: ClassVar[str] = ""
    knows_channels: ClassVar[bool] = True
    no_timecode: ClassVar[str] = "this kind of source delivers no timecode"
    ffmpeg_lists: ClassVar[bool] = False
    opened_by_listing: ClassVar[str] = ""
    node_hint: ClassVar[str] = ""

    @property
    def is_interlaced(self) -> bool:
        """Whether the signal comes in fields, as far as the configuration tells."""
        return bool(self.options.get("scan", PROGRESSIVE) != PROGRESSIVE)

    @classmethod
    def defaults(cls, index: int) -> dict[str, object]:
        """Defaults of options that depend on the port's index."""
        return {}

    def __str__(self) -> str:
        """The source in an operator's words, for messages and unit descriptions."""
        return self.options.get("device") or f"{self.kind} source"

    def devices(self) -> dict[str, tuple[str, ...]]:
        """The devices that no other port can read at the same time, by their names in messages, with their keys."""
        return {str(self): ("source.device",)} if "device" in self.options else {}

    def doubts(self, limits_s: Mapping[str, float]) -> Iterable[Remark]:
        """Settings that are valid and hardly do what was meant. `limits_s` are the port's time limits by key."""
        return ()

    def arguments(self) -> list[str]:
        """FFmpeg's arguments that open the input."""
        raise NotImplementedError

    def timecode_arguments(self) -> list[str]:
        """Further options of the input where the recording is to have the source's timecode."""
        return []

    def copied_arguments(self) -> list[str]:
        """Those where the picture is copied: FFmpeg has to find what a decoder needs before it makes the file."""
        return self.arguments()

    def demuxers(self) -> list[str]:
        """FFmpeg's names of the demuxers and input devices that this source needs."""
        return [self.demuxer]

    def audio_channel_count(self) -> int:
        """How many audio channels are recorded; 0 for none."""
        channels: int = self.options["audio_channels"]
        return channels

    def sound(self) -> str:
        """REQUIRED or OPTIONAL (contract/options.py), "" where no sound is recorded."""
        return REQUIRED if self.audio_channel_count() else ""

    def video_map(self) -> str:
        """The picture's stream, as a value for FFmpeg's -map."""
        return "0:v:0"

    def audio_map(self) -> str:
        """The sound's stream, as a value for FFmpeg's -map."""
        return "0:a:0"

    def raw_reason(self) -> str:
        """What is not encoded, as the end of a sentence (`the picture of decklink is not`); "" where there is a picture
        to copy."""
        return f"the picture of {self.kind} is not"

    def raw_sound_reason(self) -> str:
        """The same of the sound."""
        return f"the sound of {self.kind} is not"

    def audio_options(self) -> tuple[str, ...]:
        """Those of `arguments` that ask for the sound; the runner leaves them out where the signal has no sound."""
        return ()

    def sandbox(self) -> Sandbox:
        """What the source may reach. An encoder on a GPU would need more, which is not there yet."""
        return Sandbox()

    def nodes(self) -> list[str]:
        """The device nodes that the options name. The sandbox's first group should own them, and the unit has the group
        that does."""
        return []

    def files(self) -> list[Input]:
        """The inputs that are local files or FIFOs, for `sdisup check`."""
        return []

    @classmethod
    def driver_problem(cls) -> str:
        """What the machine lacks for every source of this kind; "" if nothing. Opens no device."""
        return ""

    def listing_problem(self, found: Sequence[Found]) -> str:
        """What is wrong with this source according to the inputs that FFmpeg lists; "" if nothing is."""
        return ""

    @classmethod
    def discover(cls, sys_root: str, dev_root: str) -> tuple[Found, ...]:
        """The inputs that the kernel knows, for kinds whose inputs FFmpeg does not list. Opens no device."""
        return ()

    @classmethod
    def starters(cls, found: Sequence[Found]) -> dict[str, tuple[str, str]]:
        """A comment and a line `source = …` for each input that was found, by the device, so that none comes twice."""
        return {}


def comment(text: str) -> str:
    """A driver's text as a comment in the configuration."""
    return "# " + "".join(character if character.isprintable() else "?" for character in text)[:90]


@functools.cache
def kinds() -> dict[str, type[Source]]:
    """All kinds by name, by `position`: the classes that the files of this folder define."""
    classes: list[type[Source]] = []
    for module in pkgutil.iter_modules(sdisup.sources.__path__, "sdisup.sources."):
        values = vars(importlib.import_module(module.name)).values()
        classes += [value for value in values if isinstance(value, type) and value.__module__ == module.name]
    found = [value for value in classes if issubclass(value, Source) and value is not Source]
    return {kind.kind: kind for kind in sorted(found, key=lambda kind: kind.position)}
