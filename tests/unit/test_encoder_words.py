"""An operator's own options of the encoder: which are refused, and where they stand in the command line."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.config.encoder_words import FILES, KEEP_BACK, OWN
from sdisup.config.settings import Port, parse_settings
from sdisup.control.check import _option_problems
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments
from sdisup.errors import ConfigError

FFMPEG = shutil.which("ffmpeg") or "ffmpeg"
CAPABILITIES = Capabilities("7.1.5", frozenset(), frozenset(), hybrid_fragmented=True)


def port_with(words: object, codec: str = "h264") -> Port:
    table = {"source": {"kind": "test", "size": "320x180"}, "codec": codec, "encoder_options": words}
    return parse_settings([("a.toml", {"port": {"0": {**table, "segment_s": 0}}})]).ports[0]


def arguments_with(words: list[str], codec: str) -> list[str]:
    return build_ffmpeg_arguments(port_with(words, codec), "ffmpeg", CAPABILITIES)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("-aq-mode 2", "must be a list of strings"),
        (["-aq-mode"], "has no value"),
        (["aq-mode", "2"], "is no option"),
        (["-aq-mode", ""], "is empty"),
        (["-aq-mode", "2"] * 17, "at most 32"),
        (["-bf", "2"], "-bf can keep pictures back"),
        (["-bf:v", "2"], "-bf:v can keep pictures back"),
        (["-rc-lookahead", "40"], "can keep pictures back"),
        (["-x264-params", "aq-mode=2:bframes=3"], "-x264-params: bframes can keep pictures back"),
        (["-x264-params", "no-mbtree=1"], "-x264-params: no-mbtree can keep pictures back"),
        (["-x265-params", "rc_lookahead=3"], "-x265-params: rc_lookahead can keep pictures back"),
        (["-x265-params", "csv=a.csv"], "csv reads or writes a file"),
        (["-stats", "a"], "-stats is FFmpeg's own option"),
        (["-movflags", "+faststart"], "-movflags is set by sdisup"),
        (["-g", "500"], "-g is set by sdisup"),
        (["-y", "/srv/x.mp4"], "-y is FFmpeg's own option"),
        (["-c", "copy"], "-c is FFmpeg's own option"),
        (["-i", "/srv/x.mp4"], "-i is FFmpeg's own option"),
        (["-vf", "null"], "-vf is FFmpeg's own option"),
        (["-aq-mode", "/srv/x.mp4"], "could be a place that is written to"),
        (["-aq-mode", "-y"], "or an option"),
        (["-aq-mode", "{output}"], "could be a place"),
    ],
)
def test_what_would_break_a_promise_is_refused(words: object, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        port_with(words)
    assert caught.value.problems[0].startswith("a.toml: port.0.encoder_options: ")
    assert why in caught.value.problems[0]


@given(st.sampled_from(sorted(KEEP_BACK | OWN | FILES)), st.sampled_from(["", ":v", ":v:0"]), st.booleans())
def test_each_name_is_refused_however_it_is_spelled(name: str, of: str, is_underscored: bool) -> None:
    spelled = name.replace("-", "_") if is_underscored else name
    for words in ([f"-{spelled}{of}", "1"], ["-x264-params", f"a=1:{spelled}=1"], ["-x265-params", f"no-{spelled}=1"]):
        with pytest.raises(ConfigError):
            port_with(words)


def test_they_stand_behind_sdisups_own_and_before_the_container() -> None:
    words = ["-x264-params", "aq-mode=2", "-aq-strength:v", "-0.5"]
    arguments = arguments_with(words, "h264")
    at = arguments.index("-x264-params")
    assert arguments[at : at + 4] == words
    assert arguments.index("-tune") < at < arguments.index("-movflags")


def test_x265_gets_them_in_one_list_with_sdisups_own_last() -> None:
    """FFmpeg takes the last -x265-params alone."""
    arguments = arguments_with(["-x265-params", "aq-mode=1", "-forced-idr", "1", "-x265-params:v", "sao=0"], "hevc")
    assert sum(word.startswith("-x265-params") for word in arguments) == 1
    parameters = arguments[arguments.index("-x265-params") + 1]
    assert parameters.startswith("aq-mode=1:sao=0:frame-threads=1:")
    assert arguments[arguments.index("-forced-idr") + 1] == "1"


def test_ffmpeg_takes_them() -> None:
    for codec, words in (
        ("h264", ["-x264-params", "aq-mode=2:psy-rd=0.5,0.1", "-coder", "vlc"]),
        ("hevc", ["-x265-params", "aq-mode=1:sao=0"]),
    ):
        arguments = arguments_with(words, codec)
        arguments = [FFMPEG, *arguments[1 : arguments.index("-movflags")], "-frames:v", "3", "-f", "null", "-"]
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr


def test_check_says_what_ffmpeg_does_not_take() -> None:
    tables: list[dict[str, object]] = [
        {"encoder_options": ["-no-such-option", "1"]},
        {"encoder_options": ["-aq-mode", "moon"]},
        {"encoder_options": ["-x264-params", "aq-mode=2"], "codec": "h264"},
        {},
    ]
    source = {"source": {"kind": "test", "size": "64x64"}}
    ports = {str(index): source | table for index, table in enumerate(tables)}
    settings = parse_settings([("a.toml", {"appliance": {"ports": 4, "ffmpeg": FFMPEG}, "port": ports})])
    first, second = _option_problems(settings)
    said = "encoder_options: FFmpeg does not take them: "
    assert first.startswith(f"port 0: {said}Unrecognized option 'no-such-option'")
    assert second.startswith(f"port 1: {said}") and "moon" in second


def test_of_what_is_copied_no_encoder_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg 7.1 would copy a test picture for ever."""
    monkeypatch.setattr("sdisup.encode.trial.try_ports", lambda *_: pytest.fail("it is tried"))
    source = {"kind": "custom", "input": ["-i", "udp://h:1"]}
    table = {"source": source, "codec": "copy", "encoder_options": ["-aq-mode", "1"]}
    settings = parse_settings([("a.toml", {"appliance": {"ports": 1, "ffmpeg": FFMPEG}, "port": {"0": table}})])
    assert _option_problems(settings) == []
    assert any("encoder_options: copy has no use for it" in text for text in settings.warnings)
