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
"""The keys that it is about ("codec", "source.rate"), the one to change first, and the text."""

# Rows of a signal that only the operator knows.
SIGNAL_RATE = Setting("rate", RATE, "25",
                      "Frames a second of the signal; an interlaced one has half as many as fields.",
                      allowed=tuple(RATES))  # fmt: skip
SIGNAL_SCAN = Setting("scan", CHOICE, "progressive",
                      "Interlaced signals come with the top (tff) or the bottom (bff, some SD) field first.",
                      allowed=("progressive", "tff", "bff"))  # fmt: skip


class Found(Record):
    """An input that a driver knows: the name that FFmpeg's `-i` takes, and the description for people."""

    name: str
    description: str


class Sandbox(Record):
    """What a source may reach beyond the files: the network and devices, as lines of its port's drop-in.

    All ports share the rest of the sandbox (units/sdi-record@.service.j2). `devices` are what DeviceAllow= takes
    beside the pseudo devices; None leaves all of /dev open, and `reason` says why. `groups` are those whose device
    nodes the source opens.
    """

    network: bool = False
    devices: tuple[str, ...] | None = ()
    groups: tuple[str, ...] = ()
    reason: str = ""

    def directives(self) -> list[str]:
        """The lines of [Service] (systemd.exec(5), systemd.resource-control(5))."""
        # AF_UNIX is sd_notify's and the journal's.
        families = "AF_UNIX AF_INET AF_INET6" if self.network else "AF_UNIX"
        lines = [f"RestrictAddressFamilies={families}"]
        if self.groups:
            lines.append(f"SupplementaryGroups={' '.join(self.groups)}")
        if self.devices is None:
            return [*lines, f"# Devices stay open: {self.reason}."]
        if not self.devices:
            return [*lines, "PrivateDevices=yes"]
        # A node that is not there is passed over; the next start looks again.
        return [*lines, "DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in self.devices)]


class Source(Record):
    """What a port records: a kind, which is a subclass, and a value for each of its `settings`.

    All that the rest of the program knows of a source is below; what a kind does not say is as here. Every kind has
    the option `rate`, and `scan` where a signal can be interlaced; an option `device` is the input's name.

    Configuration: `kind` is its name, `position` its place where kinds are listed (the first is the default), `doc`
    and `example` (a line of TOML) stand in the reference. The times are defaults of the port's settings of these
    names; `device_word` says in a message what has only one reader.
    FFmpeg: `demuxer` is FFmpeg's name of the input device, if the kind has one, and `remedy` what to do where FFmpeg
    lacks it. `without_signal` is what FFmpeg does without a signal (contract/options.py); the runner's table of causes
    knows what FFmpeg says then.
    Discovery: `ffmpeg_lists` is whether `ffmpeg -sources DEMUXER` lists the inputs, and `opened_by_listing` what
    FFmpeg opens for that list, which could disturb a recording. `node_hint` is a command that lists device nodes.
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
    ffmpeg_lists: ClassVar[bool] = False
    opened_by_listing: ClassVar[str] = ""
    node_hint: ClassVar[str] = ""

    @classmethod
    def defaults(cls, index: int) -> dict[str, object]:
        """The options' defaults that depend on the port's index."""
        return {}

    def __str__(self) -> str:
        """The source in an operator's words, as it stands in messages and descriptions."""
        return self.options.get("device") or f"{self.kind} source"

    def devices(self) -> dict[str, tuple[str, ...]]:
        """What no other port can read at the same time, as messages name it, with its keys in the configuration."""
        return {str(self): ("source.device",)} if "device" in self.options else {}

    def doubts(self, limits_s: Mapping[str, float]) -> Iterable[Remark]:
        """What works, but hardly as it was meant. `limits_s` are the port's time limits by their keys."""
        return ()

    def arguments(self) -> list[str]:
        """FFmpeg's arguments that open the input."""
        raise NotImplementedError

    def demuxers(self) -> list[str]:
        """FFmpeg's names of all inputs that it needs to have."""
        return [self.demuxer]

    def audio_channel_count(self) -> int:
        """How many audio channels are recorded, in one stream; 0 for none."""
        channels: int = self.options["audio_channels"]
        return channels

    def sound(self) -> str:
        """REQUIRED or OPTIONAL (contract/options.py), "" where no sound is recorded."""
        return REQUIRED if self.audio_channel_count() else ""

    def audio_map(self) -> str:
        """The stream of the sound, as FFmpeg's -map takes it."""
        return "0:a:0"

    def audio_options(self) -> tuple[str, ...]:
        """Those of `arguments` that ask for the sound in the signal, and are left out where the signal has none."""
        return ()

    def sandbox(self) -> Sandbox:
        """What the source may reach. An encoder that needs a device of its own (a GPU) would have to be added."""
        return Sandbox()

    def nodes(self) -> list[str]:
        """The device nodes that the options name, for `sdisup check`; their group is the first of the sandbox's."""
        return []

    def files(self) -> list[Input]:
        """The local files and FIFOs that are read, for `sdisup check`."""
        return []

    @classmethod
    def driver_problem(cls) -> str:
        """What the machine lacks for any source of this kind; "" if nothing. Opens nothing."""
        return ""

    def listing_problem(self, found: Sequence[Found]) -> str:
        """Why this source cannot be one of the inputs that FFmpeg lists; "" if it can."""
        return ""

    @classmethod
    def discover(cls, sys_root: str) -> tuple[Found, ...]:
        """The inputs that the kernel knows, where FFmpeg does not list them. Opens none."""
        return ()

    @classmethod
    def starters(cls, found: Sequence[Found]) -> dict[str, tuple[str, str]]:
        """For each input that was found a comment and a `source = …`, by what no two ports can read."""
        return {}


def comment(text: str) -> str:
    """A driver's text as a comment of the configuration."""
    return "# " + "".join(character if character.isprintable() else "?" for character in text)[:90]


@functools.cache
def kinds() -> dict[str, type[Source]]:
    """All kinds by name, in their order: the classes that the files of this folder define."""
    classes: list[type[Source]] = []
    for module in pkgutil.iter_modules(sdisup.sources.__path__, "sdisup.sources."):
        values = vars(importlib.import_module(module.name)).values()
        classes += [value for value in values if isinstance(value, type) and value.__module__ == module.name]
    found = [value for value in classes if issubclass(value, Source) and value is not Source]
    return {kind.kind: kind for kind in sorted(found, key=lambda kind: kind.position)}
