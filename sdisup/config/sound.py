"""Which of the source's channels go into which track of a recording, and what a codec or container does not take. Pure.

The channels of SDI are discrete: each may carry anything, and each is to come out as it went in.
"""

from __future__ import annotations

from collections.abc import Iterator

from sdisup.config.codecs import CODECS
from sdisup.contract.media import COPY
from sdisup.sources.base import Remark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.config.settings import Port

ENCODERS = {
    "aac": ("mp4", "mov", "mkv"),
    "pcm_s16le": ("mp4", "mov", "mkv", "mxf"),
    "pcm_s24le": ("mp4", "mov", "mkv", "mxf"),
    COPY: ("mp4", "mov", "mkv"),
}
"""FFmpeg's encoders of sound, each with the containers that take it; not every FFmpeg has PCM in mp4 (probe.py), and
whether a container takes a sound that is copied, FFmpeg says when it has opened the source."""
ONE, PAIRS, MONO = "one", "pairs", "mono"
CHANNELS_MAX = 16
AAC_TRACK_MAX = 5
"""From six channels on AAC takes one for that of the low frequencies, and cuts it off above 120 Hz (FACTS 7)."""
NO_CHANNEL = 63
"""No source has it: FFmpeg makes silence of it."""


def audio_encoder(port: Port) -> str:
    """FFmpeg's encoder of the port's sound."""
    usual = CODECS[port.codec].audio_encoder
    if usual == COPY and port.container != "mkv":
        usual = "aac"
    elif usual == COPY and port.source.raw_sound_reason():
        usual = "pcm_s24le"
    return port.audio_codec or usual


def channels_of(port: Port) -> tuple[int, ...]:
    """The source's channels that are recorded, counted from 0; () for all where nobody knows how many it has."""
    known = port.source.audio_channel_count() if port.source.knows_channels else 0
    return tuple(channel - 1 for channel in port.audio_channels) or tuple(range(known))


def split_of(port: Port) -> str:
    """ONE, PAIRS or MONO: as the port asks, or else such that no channel loses anything."""
    if port.audio_tracks or CODECS[port.codec].mono_tracks:
        return port.audio_tracks or MONO
    # More than two channels of an input that may have fewer: only one or two of them can be silent (encode/sound.py).
    most = AAC_TRACK_MAX if port.source.knows_channels else 2
    return PAIRS if audio_encoder(port) == "aac" and len(channels_of(port)) > most else ONE


def tracks_of(port: Port) -> list[tuple[int, ...]]:
    """Each track's channels of the source, counted from 0; one track of () is the source's sound as it is."""
    if not port.source.audio_channel_count():
        return []
    channels, split, mono_tracks = channels_of(port), split_of(port), CODECS[port.codec].mono_tracks
    if mono_tracks:
        channels = channels if port.audio_channels else tuple(range(mono_tracks))
        channels += (NO_CHANNEL,) * (mono_tracks - len(channels))
    if split == ONE or not channels:
        is_whole = not port.audio_channels and not (audio_encoder(port) == "aac" and len(channels) > 2)
        return [() if is_whole else channels]
    width = 2 if split == PAIRS else 1
    return [channels[first : first + width] for first in range(0, len(channels), width)]


def sound_problems(port: Port) -> Iterator[Remark]:
    """The settings of the sound with which it would not be recorded, or not as it came."""
    codec, encoder, split, channels = CODECS[port.codec], audio_encoder(port), split_of(port), channels_of(port)
    if not port.source.audio_channel_count():
        return
    if encoder == COPY:
        raw = port.source.raw_sound_reason()
        if raw:
            yield ("audio.codec",), f"copy records what comes encoded, and {raw}: choose another codec"
        if port.audio_channels or port.audio_tracks:
            yield ("audio.channels", "audio.tracks"), "sound that is copied stays in its one track, with its channels"
            return
    if port.container in codec.containers and port.container not in ENCODERS[encoder]:
        possible = ", ".join(name for name, containers in ENCODERS.items() if port.container in containers)
        yield ("audio.codec", "container"), f"{port.container} cannot hold {encoder} (one of: {possible})"
    if len(channels) > codec.audio_channels_max:
        text = f"{port.codec} is recorded with at most {codec.audio_channels_max} channels, not {len(channels)}"
        yield ("audio.channels", "source.audio_channels", "codec"), text
    if codec.mono_tracks and split != MONO:
        yield ("audio.tracks", "codec"), f"{port.codec} has {codec.mono_tracks} tracks of one channel each"
    if encoder == "aac" and split == ONE and len(channels) > AAC_TRACK_MAX:
        text = (
            f"aac takes one of {len(channels)} channels in a track for that of the low frequencies, and cuts off the"
            " rest of it: choose pairs or mono"
        )
        yield ("audio.tracks", "audio.codec"), text
    if split != ONE and not channels and not codec.mono_tracks:
        text = f"{split} of which channels? Nobody knows how many an input has: say so by audio.channels = [1, 2]"
        yield ("audio.tracks",), text
    has = port.source.audio_channel_count()
    if port.source.knows_channels and port.audio_channels and max(port.audio_channels) > has:
        text = f"there is no channel {max(port.audio_channels)}: {has} of the source are recorded"
        yield ("audio.channels", "source.audio_channels"), text
