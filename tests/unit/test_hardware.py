"""Encoders on graphics cards: their options, and which port gets which, with a stand-in for FFmpeg and its cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdisup.config.settings import Port, Settings, parse_settings
from sdisup.control import apply, check
from sdisup.control.look import Look
from sdisup.control.units import Machine, drop_in_path, render
from sdisup.encode import hardware
from sdisup.encode.command import Capabilities, build_ffmpeg_arguments, trial_arguments
from sdisup.encode.trial import choose_encoders, describe
from sdisup.errors import ConfigError

ALL = frozenset(f"{codec}_{way}" for codec in ("h264", "hevc") for way in ("nvenc", "qsv", "vaapi"))
CAPABILITIES = Capabilities("7.1.5", ALL | {"libx264", "libx265", "aac"}, frozenset({"lavfi"}), hybrid_fragmented=True)

# Each card has so many places; who finds none fails as FFmpeg does, and says what its library says.
STAND_IN = """#!/usr/bin/env python3
import fcntl, os, sys, time
words = sys.argv[1:]
encoder = words[words.index("-c:v") + 1]
way = encoder.partition("_")[2]
here = os.path.dirname(os.path.abspath(sys.argv[0]))
def take_place():
    for place in range(int(open(f"{here}/{way}").read())):
        held = open(f"{here}/{way}.{place}", "w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except OSError:
            pass
    return None
is_there = os.path.exists(f"{here}/{way}")
held = take_place() if is_there else None
with open(f"{here}/tried", "a") as tried:
    tried.write(f"{encoder}\\n")
if not is_there:
    sys.exit(f"[{encoder} @ 0x5581] Cannot load lib{way}.so.1\\nError while opening encoder")
if not held:
    sys.exit(f"[{encoder} @ 0x5581] OpenEncodeSessionEx failed: out of memory (10): (no details)")
# All that are tried together hold their places together: until each of them has tried.
until = time.monotonic() + 20
while open(f"{here}/tried").read().count(encoder) < int(os.environ.get(way, 1)) and time.monotonic() < until:
    time.sleep(0.01)
"""


def settings_of(*tables: dict[str, object]) -> Settings:
    ports = {str(index): {"source": {"kind": "test"}, **table} for index, table in enumerate(tables)}
    return parse_settings([("a.toml", {"appliance": {"ports": len(tables)}, "port": ports})])


def port_of(**table: object) -> Port:
    return settings_of(table).ports[0]


class Cards:
    """A stand-in FFmpeg with cards of so many places each."""

    def __init__(self, directory: Path, **places: int) -> None:
        self.ffmpeg = directory / "ffmpeg"
        self.ffmpeg.write_text(STAND_IN)
        self.ffmpeg.chmod(0o755)
        self._tried = directory / "tried"
        self._tried.touch()
        for way, count in places.items():
            (directory / way).write_text(str(count))

    def choose(
        self, settings: Settings, kept: dict[int, str] | None = None, closed: dict[str, str] | None = None
    ) -> dict[int, str]:
        self.choices = choose_encoders(settings.ports.values(), str(self.ffmpeg), CAPABILITIES, kept or {}, closed)
        self.texts = describe(settings.ports, self.choices)
        return {index: choice.encoder for index, choice in self.choices.items()}

    def tried(self) -> list[str]:
        return sorted(self._tried.read_text().split())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def test_what_works_is_taken_and_the_rest_falls_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four ports want a card of two places at once; the next has one; the fourth is left to software, which is said."""
    monkeypatch.setenv("nvenc", "4")
    monkeypatch.setenv("vaapi", "2")
    cards = Cards(directory, nvenc=2, vaapi=1)
    tables: list[dict[str, object]] = [{"encoder": "auto"}] * 4
    chosen = cards.choose(settings_of(*tables))
    assert sorted(chosen.values()) == ["nvenc", "nvenc", "software", "vaapi"]
    assert cards.tried() == ["h264_nvenc"] * 4 + ["h264_qsv"] * 2 + ["h264_vaapi"] * 2
    left = next(index for index, way in chosen.items() if way == "software")
    (text,) = [text for text in cards.texts if text.startswith(f"port {left}")]
    full = "OpenEncodeSessionEx failed: out of memory (10): (no details)"
    reasons = f"nvenc: {full}; qsv: Cannot load libqsv.so.1; vaapi: {full}"
    assert text == f"port {left}: encoder auto takes software ({reasons})"


def test_a_port_that_records_with_a_card_keeps_it_untried(directory: Path) -> None:
    """It holds its place, so that a trial would fail; and a second apply changes nothing."""
    cards = Cards(directory, nvenc=1)
    settings = settings_of({"encoder": "auto"}, {"encoder": "auto"}, {"encoder": "nvenc"}, {"encoder": "qsv"})
    chosen = cards.choose(settings, kept={0: "nvenc", 2: "nvenc", 3: "nvenc"})
    assert chosen == {0: "nvenc", 1: "nvenc", 2: "nvenc", 3: "qsv"}
    assert cards.tried() == ["h264_nvenc", "h264_qsv"]


def test_what_is_asked_for_by_name_stays_and_it_is_said_that_it_fails(directory: Path) -> None:
    cards = Cards(directory)
    assert cards.choose(settings_of({"encoder": "vaapi"}, {})) == {0: "vaapi"}
    (text,) = cards.texts
    assert text.startswith("port 0: encoder vaapi does not work here (vaapi: Cannot load libvaapi.so.1): choose auto")


NODE = "/dev/dri/renderD128"


@pytest.mark.parametrize(("look", "reason"), [
    (Look(error="No such file or directory"), f"{NODE}: No such file or directory; is the card there, and its driver?"),
    (Look(kind="file"), f"{NODE} is not a device"),
    # As a machine without udev's rules has it: root tries it with success, and no port could open it.
    (Look(kind="device", is_readable=False, is_writable=False),
     f"{NODE} may not be opened by the user sdisup: chgrp render {NODE} && chmod 660 {NODE}, as udev does"),
    # Its unit has the group.
    (Look(kind="device", is_readable=False, is_writable=False, group="render"), ""),
    (Look(kind="device"), ""),
])  # fmt: skip
def test_a_card_that_no_port_can_open_is_not_taken(directory: Path, look: Look, reason: str) -> None:
    cards = Cards(directory, qsv=1, vaapi=1)
    settings = settings_of({"encoder": "auto"}, {"encoder": "vaapi"})
    chosen = cards.choose(settings, closed=apply.closed_ways({NODE: look}))
    lacking = "nvenc: Cannot load libnvenc.so.1"
    if not reason:
        assert (chosen, cards.texts) == ({0: "qsv", 1: "vaapi"}, [f"port 0: encoder auto takes qsv ({lacking})"])
        return
    assert chosen == {0: "software", 1: "vaapi"}
    by_auto, by_name = cards.texts
    assert by_auto == f"port 0: encoder auto takes software ({lacking}; qsv: {reason}; vaapi: {reason})"
    assert by_name.startswith(f"port 1: encoder vaapi does not work here (vaapi: {reason}): choose auto or software")
    assert cards.tried() == ["h264_nvenc"]


def test_check_and_apply_ask_of_the_cards_that_ports_may_get(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look at the node as the recorder's user, whom root's trial says nothing about."""
    cards = Cards(directory, qsv=1, vaapi=1)
    closed = Look(kind="device", is_readable=False, is_writable=False)
    settings = settings_of({"encoder": "vaapi"}).replaced(ffmpeg=str(cards.ffmpeg))
    assert hardware.candidate_nodes(settings.ports[0]) == (NODE,)
    for module in (apply, check):
        monkeypatch.setattr(module, "probe_ffmpeg", lambda _: CAPABILITIES)
        monkeypatch.setattr(module, "look_at", lambda paths, *_: dict.fromkeys(paths, closed))
    monkeypatch.setattr(check, "_user_problems", list)
    found, _ = check.report(settings)
    assert any(f"vaapi does not work here (vaapi: {NODE} may not be opened" in text for text in found)
    warnings: list[str] = []
    apply._with_encoders(settings, CAPABILITIES, set(), {NODE: closed}, warnings)
    assert any(f"vaapi does not work here (vaapi: {NODE} may not be opened" in text for text in warnings)
    assert cards.tried() == []


def test_what_no_card_encodes_is_not_tried(directory: Path) -> None:
    cards = Cards(directory, nvenc=9)
    custom = {"kind": "custom", "input": ["-i", "tcp://192.0.2.7:9"], "scan": "tff"}
    tables: list[dict[str, object]] = [{"pixel_format": "yuv422p"}, {"source": custom}, {"codec": "prores"}]
    chosen = cards.choose(settings_of(*(table | {"encoder": "auto"} for table in tables)))
    assert chosen == {0: "software", 1: "software"}
    assert cards.tried() == []


@pytest.mark.parametrize("table", [{"pixel_format": "yuv422p"}, {"pixel_format": "yuv420p10le"}])
def test_by_name_it_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="nvenc takes progressive pictures of yuv420p alone"):
        port_of(encoder="nvenc", **table)
    assert port_of(encoder="nvenc", codec="hevc", pixel_format="yuv420p10le").ffmpeg_encoder == "hevc_nvenc"


def test_an_ffmpeg_that_hangs_or_is_not_there_is_a_reason(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdisup.encode.trial.TRIAL_TIMEOUT_S", 0.2)
    hanging = directory / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    settings = settings_of({"encoder": "vaapi"})
    for ffmpeg, said in ((str(hanging), "gave no second of pictures"), (str(directory / "none"), "cannot be executed")):
        choices = choose_encoders(settings.ports.values(), ffmpeg, CAPABILITIES, {})
        assert said in choices[0].refused[0][1]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("way", ["nvenc", "qsv", "vaapi"])
@pytest.mark.parametrize("quality", [0, 22])
def test_no_card_keeps_pictures_back(codec: str, way: str, quality: int) -> None:
    port = port_of(codec=codec, encoder=way, **({"quality": quality} if quality else {}))
    arguments = build_ffmpeg_arguments(port, "ffmpeg", CAPABILITIES)
    assert arguments[arguments.index("-c:v") + 1] == f"{codec}_{way}"
    assert arguments[arguments.index("-bf") + 1] == "0"
    assert arguments[arguments.index("-g") + 1] == "25"
    assert ("-async_depth" in arguments) == (way != "nvenc")
    if way == "nvenc":
        assert [arguments[arguments.index(word) + 1] for word in ("-delay", "-rc-lookahead")] == ["0", "0"]
    else:
        assert arguments[arguments.index("-async_depth") + 1] == "1"
    assert ("22" in arguments) == (quality == 22)
    assert (f"{8000 if codec == 'h264' else 6000}k" in arguments) == (not quality)
    assert not {"-crf", "-threads:v", "-x265-params"}.intersection(arguments)
    if way == "vaapi":
        assert arguments.index("-init_hw_device") < arguments.index("-i")
        assert arguments[arguments.index("-vf") + 1].endswith(",format=nv12,hwupload")
    assert arguments[arguments.index("-segment_format") + 1] == "mp4"


def test_a_trial_is_a_second_in_real_time_that_goes_nowhere() -> None:
    arguments = trial_arguments(port_of(encoder="nvenc", source={"kind": "test", "rate": 50}), "ffmpeg")
    assert arguments[-5:] == ["-frames:v", "50", "-f", "null", "-"]
    assert "testsrc2=size=1280x720:rate=50,realtime" in arguments
    assert arguments[arguments.index("-c:v") + 1] == "h264_nvenc"


def test_a_unit_may_open_its_card_and_the_next_apply_finds_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of({"encoder": "vaapi"}, {"encoder": "nvenc"}, {"encoder": "software"})
    machine = Machine(CAPABILITIES, 257, {}, (("/dev/dri/renderD128", "render"),))
    files = render(settings, machine, "").files
    texts = [files[drop_in_path(index, "")] for index in range(3)]
    assert "DeviceAllow=/dev/dri/renderD128 rw" in texts[0] and "SupplementaryGroups=render" in texts[0]
    assert "DeviceAllow=/dev/nvidiactl rw" in texts[1] and "render" not in texts[1]
    assert "PrivateDevices=yes" in texts[2]
    for index, text in enumerate(texts):
        (directory / str(index)).write_text(text)
    monkeypatch.setattr(apply, "drop_in_path", lambda index: str(directory / str(index)))
    assert [apply.applied_way(settings.ports[index]) for index in range(3)] == ["vaapi", "nvenc", ""]
