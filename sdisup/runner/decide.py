"""The runner's rules, pure: how long it waits before what, and with which command it goes on.

DESIGN.md, "What restarts what".
"""

from __future__ import annotations

from collections.abc import Sequence

from sdisup.contract.options import Options
from sdisup.runner.causes import VIDEOMASTER

BACKOFF_S = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 10.0)
"""The wait before a start, by how many ends in a row came before it; the last one is the cap."""
NO_SIGNAL_RETRY_S, NO_SIGNAL_LATER_S, NO_SIGNAL_EAGER_S = 1.0, 3.0, 60.0
NO_SIGNAL_SHARE, LOOP_SHARE = 0.018, 0.0065
"""Of a core: what FFmpeg's failing starts may cost without a signal, and in a crash loop."""


def backoff_s(failures: int) -> float:
    """How long to wait before a start that follows `failures` ends without a good minute between them."""
    return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]


def loop_wait_s(failures: int, cpu_s: float) -> float:
    """How long to wait in a crash loop at its slowest, where FFmpeg's failing start cost `cpu_s` of a core."""
    return max(backoff_s(failures), cpu_s / LOOP_SHARE if cpu_s < 1.0 else 0.0)


def expects_audio(options: Options) -> bool:
    """Whether the command reads a card's embedded audio, without which FFmpeg 7.1's fork holds all frames back."""
    return options.source == VIDEOMASTER and "-nb_channels" in options.command


_AUDIO_OPTIONS = {"-nb_channels", "-sample_rate", "-sample_size", "-af", "-c:a", "-b:a"}


def without_audio(command: Sequence[str]) -> list[str]:
    """The same command for a signal without embedded audio: none of the input's audio options, no track."""
    words = list(command)
    kept: list[str] = []
    index = 0
    while index < len(words):
        is_audio_map = words[index] == "-map" and words[index + 1 : index + 2] == ["0:a:0"]
        if words[index] in _AUDIO_OPTIONS or is_audio_map:
            index += 2
        else:
            kept.append(words[index])
            index += 1
    return kept


def no_signal_wait_s(waited_s: float, cpu_s: float) -> float:
    """How long to wait for a signal before the next look, which costs `cpu_s` of a core.

    A cable that was just pulled is soon back; an input that has been idle for a minute may stay so for
    months, and must not cost more than NO_SIGNAL_SHARE of a core whatever FFmpeg's start costs here.
    """
    if waited_s < NO_SIGNAL_EAGER_S:
        return NO_SIGNAL_RETRY_S
    return max(NO_SIGNAL_LATER_S, cpu_s / NO_SIGNAL_SHARE)
