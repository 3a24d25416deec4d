"""A port's sound -> FFmpeg's arguments for it. Pure.

What keeps discrete channels apart was tried on FFmpeg 5.1.9 and 7.1.5:

- For three channels of no known layout FFmpeg takes that of 2.1, and AAC, which has none, loses two of them.
- `pan` with one or two channels takes them by their number, whatever layout they have; one that the source lacks is
  silent. With more channels it mixes them where the source has another layout (af_pan.c, pure channel mapping).
- `channelmap` takes any number of channels as they are, and ends FFmpeg where the source lacks one.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdisup.config.codecs import CODECS
from sdisup.config.settings import Port
from sdisup.config.sound import audio_encoder, tracks_of
from sdisup.contract.media import COPY
from sdisup.contract.options import SOUND_MARK

AAC_KBPS_PER_CHANNEL = 96

AAC_LAYOUTS = {3: "3.0", 4: "4.0", 5: "5.0"}
"""Those without a channel of the low frequencies."""

# FFmpeg's progress tells nothing of the sound. So an expression that selects all of it logs a number once a second (of
# twenty pieces where they carry no time). A branch of the graph for it would hold the sound back for that second (7.1).
_IS_DUE = "not(n)+gte(abs(t-ld(0)),1)+isnan(t)*not(mod(n,20))"
_WATCH = f"aselect='1+0*if({_IS_DUE},st(0,t)+print({SOUND_MARK}))',"
# After a loss of pictures the sound would run early without it (VIDEOMASTER 5).
_IN_STEP = "aresample=async=1"


def audio_arguments(port: Port) -> list[str]:
    """Pairs of an option and its value: the runner leaves them out where no sound comes."""
    tracks, encoder = tracks_of(port), audio_encoder(port)
    if not tracks:
        return []
    if encoder == COPY:
        return ["-map", port.source.audio_map(), "-c:a", COPY]
    # A track of one channel each is for cameras' and servers' files, which are at 48 kHz.
    in_step = f"{_IN_STEP}:osr=48000" if CODECS[port.codec].mono_tracks else _IN_STEP
    filters = [f"{'' if track else _WATCH}{_picked(tracks[track], encoder)}{in_step}" for track in range(len(tracks))]
    arguments = ["-map", port.source.audio_map()] * len(tracks)
    if len(tracks) == 1:
        arguments += ["-af", *filters]
    else:
        arguments += [word for track, text in enumerate(filters) for word in (f"-filter:a:{track}", text)]
    channels = len(tracks[0]) or port.source.audio_channel_count()
    bit_rate = ["-b:a", f"{AAC_KBPS_PER_CHANNEL * channels}k"] if encoder == "aac" else []
    return [*arguments, "-c:a", encoder, *bit_rate]


def _picked(channels: Sequence[int], encoder: str) -> str:
    """The filter that makes a track of these channels; "" where the source's sound is the track."""
    if not channels:
        return ""
    if len(channels) == 1:
        return f"pan=mono|c0=c{channels[0]},"
    if len(channels) == 2:
        return f"pan=stereo|c0=c{channels[0]}|c1=c{channels[1]},"
    layout = f":{AAC_LAYOUTS[len(channels)]}" if encoder == "aac" and len(channels) in AAC_LAYOUTS else ""
    return f"channelmap={'|'.join(map(str, channels))}{layout},"
