"""`encoder_options`: an operator's own options of the encoder, and which are refused. Pure.

FFmpeg reads an option and its value as two words (sources/arguments.py). Refused is what sdisup gives itself, what
could write a file, and what keeps pictures back, which a crash would lose: lookahead, B frames, threads that each hold
a frame, long fragments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sdisup.sources.arguments import FLAGS, OTHERS, VALUED
from sdisup.sources.values import Setting, show

MAX_WORDS, MAX_WORD_BYTES = 32, 1024

KEEP_BACK = frozenset(
    """
    bf b_strategy b_ref_mode b-adapt b_adapt bframes b-pyramid b_pyramid weightb max_b_frames
    lookahead rc-lookahead rc_lookahead sync-lookahead look_ahead look_ahead_depth lookahead_count lookahead_level
    extbrc mbtree tune delay zerolatency async_depth low_delay
    surfaces extra_hw_frames frame-threads thread_type threads lookahead-threads sliced-threads
    """.split()
)
OWN = frozenset(
    """
    g keyint keyint_min min-keyint open-gop open_gop intra-refresh sc_threshold flags flags2 strict interlaced tff bff
    fake-interlaced interlace field_order slices slicecrc level preset crf qp cq
    global_quality rc_mode maxrate minrate bufsize
    color_primaries color_trc colorspace color_range x264opts pools
    movflags moov_size frag_duration frag_size min_frag_duration frag_interleave cluster_time_limit cluster_size_limit
    flush_packets max_interleave_delta fflags avioflags max_delay chunk_duration chunk_size use_editlist
    """.split()
)
FILES = frozenset(
    """
    stats passlogfile pass psnr ssim log-file log_file csv csv-log-level dump recon recon-depth input output qpfile
    analysis-save analysis-load analysis-reuse-file lambda-file scaling-list zonefile tile_config_file
    """.split()
)
PARAMETERS = ("x264-params", "x265-params")
"""Options whose value is a list of the encoder's own: `key=value:key=value`."""

_NAME = re.compile(r"-([A-Za-z][A-Za-z0-9_-]*)(:v(:0)?)?")
_NEGATIVE = re.compile(r"-[0-9.]+")


def check_encoder_options(setting: Setting, value: object) -> tuple[str, ...]:
    """The words. Raises ValueError that says which is refused, and why."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise ValueError(f'must be a list of strings, as in ["-aq-mode", "2"], not {show(value)}')
    if len(value) > MAX_WORDS:
        raise ValueError(f"has {len(value)} words; at most {MAX_WORDS}")
    for word in value:
        if not word or not word.isprintable() or len(word.encode("utf-8", "replace")) > MAX_WORD_BYTES:
            raise ValueError(f"{word[:60]!a} is empty, too long, or has characters that cannot be printed")
    if len(value) % 2:
        raise ValueError(f"{value[-1][:60]!a} has no value: each option is two words")
    for option, argument in zip(value[::2], value[1::2], strict=True):
        _check_option(option, argument)
    return tuple(value)


def _check_option(option: str, argument: str) -> None:
    match = _NAME.fullmatch(option)
    if not match:
        raise ValueError(f"{option[:60]!a} is no option of the encoder: `-name`, and its value as the next word")
    name = match[1]
    if name in FLAGS | OTHERS | VALUED | {"i"}:
        raise ValueError(
            f"{option} is FFmpeg's own option and none of the encoder; sdisup sets what the recording needs"
        )
    if re.search(r"[/\\]|\{output\}", argument) or (argument.startswith("-") and not _NEGATIVE.fullmatch(argument)):
        raise ValueError(f"{option}: {argument[:60]!a} could be a place that is written to, or an option")
    for key in (name, *_parameters(name, argument)):
        _check_key(option, key)


def _parameters(name: str, argument: str) -> Iterator[str]:
    if name in PARAMETERS:
        yield from (pair.partition("=")[0].strip() for pair in argument.split(":"))


def _check_key(option: str, key: str) -> None:
    bare = key.removeprefix("no-").removeprefix("no_")
    spellings = {bare, bare.replace("_", "-"), bare.replace("-", "_")}
    named = option if key == option.lstrip("-").partition(":")[0] else f"{option}: {key}"
    if spellings & KEEP_BACK:
        raise ValueError(f"{named} can keep pictures back, which a crash would lose")
    if spellings & OWN:
        raise ValueError(f"{named} is set by sdisup; a crash, a cut or the signal depends on it")
    if spellings & FILES:
        raise ValueError(f"{named} reads or writes a file")


def take_parameters(words: Sequence[str], name: str) -> tuple[list[str], str]:
    """The words without the options of that name, and their values joined: `key=value:key=value`."""
    pairs = list(zip(words[::2], words[1::2], strict=True))
    is_own = [option.lstrip("-").partition(":")[0] == name for option, _ in pairs]
    others = [word for pair, own in zip(pairs, is_own, strict=True) if not own for word in pair]
    return others, ":".join(value for (_, value), own in zip(pairs, is_own, strict=True) if own)
