"""What a port's source may reach beyond the files: the network and devices. Pure.

All ports share the rest of the sandbox (units/sdi-record@.service.j2). Here each gets what its source
needs and no more, as the lines of its drop-in.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdisup.config.settings import Source
from sdisup.sources.custom import parse_inputs


@dataclass(frozen=True)
class Sandbox:
    """`devices` are what DeviceAllow= takes beside the pseudo devices; None leaves all of /dev open.

    `groups` are those whose device nodes the source opens. `reason` says why devices are open.
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


# The class and the nodes that Blackmagic's driver makes, as public units and Dockerfiles name them:
# /dev/blackmagic/io0 and following, one an input of a card.
_BLACKMAGIC = ("char-blackmagic*", *(f"/dev/blackmagic/io{index}" for index in range(8)))


def source_sandbox(source: Source) -> Sandbox:
    """The sandbox of a port that records `source`.

    An encoder that needs a device of its own (a GPU) would have to be added here.
    """
    if source.kind == "videomaster":
        # Of the nodes only /dev/delta-x380N, -x370N and -x350N are public (NVIDIA's Holohub passes them to
        # containers), neither those of other cards nor the class: a guess too few would cost the recording.
        return Sandbox(devices=None, groups=("video",), reason="not all nodes of Deltacast's driver are known")
    if source.kind == "decklink":
        return Sandbox(devices=_BLACKMAGIC, groups=("video",))
    if source.kind == "v4l2":
        has_sound = source.options["audio_device"] != "none"
        sound = ("char-alsa",) if has_sound else ()
        return Sandbox(
            devices=(source.options["device"], *sound), groups=("video", "audio") if has_sound else ("video",)
        )
    if source.kind == "custom":
        return _custom_sandbox(source)
    return Sandbox()


def _custom_sandbox(source: Source) -> Sandbox:
    inputs = parse_inputs(source.options["input"])
    network = any(entry.needs_network for entry in inputs)
    if any(entry.needs_devices for entry in inputs):
        return Sandbox(network, None, ("video", "audio"), "the input arguments name one")
    return Sandbox(network)
