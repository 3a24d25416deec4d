"""Which picture and which sound are recorded where an input has several: by lines of a log, and of FFmpeg's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_hold_back import FFMPEGS

from sdisup.runner.command import with_programme
from sdisup.runner.programmes import Choice, asked_by, choose
from sdisup.runner.streams import Streams

NUMBERS = {"v": "Video: h264 (Main), yuv420p(tv, progressive), {} [SAR 1:1 DAR 16:9], 25 fps", "a": "Audio: aac, fltp"}


def log(text: str) -> list[str]:
    """The lines of a log by what is in it: `P7 v160x90 a P8 a v320x180 - a`; `=9000` is a variant's bit rate."""
    lines, streams = ["Duration: N/A, start: 1.4, bitrate: N/A"], 0
    for word in text.split():
        if word[0] == "P":
            lines += [f"Program {word[1:]}", "Metadata:", "service_name    : Program 99"]
        elif word[0] == "=":
            lines.append(f"variant_bitrate : {word[1:]}")
        elif word == "-":
            lines.append("No Program")
        else:
            lines.append(f"Stream #0:{streams}[0x10{streams}](deu): {NUMBERS[word[0]].format(word[1:])}")
            streams += 1
    return lines


@pytest.mark.parametrize(
    ("text", "number", "remark"),
    [
        ("v160x90 a", "", ""),
        ("P1 v160x90 a", "", ""),
        ("P1 v320x180 a P2 v160x90 a", "", "records programme 1 of 2, 320x180"),
        ("P1 v160x90 a P2 v320x180 a", "2", "records programme 2 of 2, 320x180"),
        # FFmpeg's first picture and first sound are not of one programme.
        ("P1 a P2 v160x90 a", "2", "records programme 2 of 2, 160x90"),
        ("P1 v160x90 P2 v160x90 a", "2", "records programme 2 of 2, 160x90"),
        # Of equals the first; of variants of a size the one with more bits.
        ("P4 v160x90 a P3 v160x90 a", "", "records programme 4 of 2, 160x90"),
        ("P0 =100 v160x90 a P1 =900 v160x90 a", "1", "records programme 1 of 2, 160x90"),
        ("P0 =broken v160x90 a P1 v160x90 a", "", "records programme 0 of 2, 160x90"),
        # A programme of the radio is none for a picture.
        ("P1 a P2 a - v160x90 a", "", "records the first of 3 sounds"),
        ("v160x90 v320x180 a a a", "", "records the first of 2 pictures and the first of 3 sounds"),
        ("", "", ""),
    ],
)
def test_what_is_chosen(text: str, number: str, remark: str) -> None:
    assert choose(log(text), with_sound=True) == Choice(number, remark)


TWO = "P1 v160x90 a a P7 v320x180 a"


@pytest.mark.parametrize(
    ("text", "maps", "number", "remark"),
    [
        (TWO, "0:p:1:v:0 0:p:1:a:1", "", "records programme 1 of 2, 160x90"),
        (TWO, "0:p:9:v:0", "", "records programme 9 of 2"),
        (TWO, "0:v:0 0:a:1", "7", "records programme 7 of 2, 320x180"),
        # Who names a picture names one of all.
        (TWO, "0:v:1 0:a:0?", "", "records picture 2 of 2 and the first of 3 sounds"),
        ("v160x90 v320x180 a a a", "0:v:0 0:a:2?", "", "records the first of 2 pictures and sound 3 of 3"),
        ("v160x90 a a", "0:v:0 1:a:1", "", "records the first of 2 sounds"),
        ("v160x90 a", "[v]", "", ""),
    ],
)
def test_what_is_asked_is_recorded(text: str, maps: str, number: str, remark: str) -> None:
    command = ["ffmpeg", *(word for value in maps.split() for word in ("-map", value)), "{output}"]
    asked = asked_by(command)
    assert choose(log(text), with_sound=True, asked=asked) == Choice(number, remark)
    assert asked.is_choice is Streams(command).has_choice is (maps.startswith(("0:p:", "0:v:1")))


def test_another_input_counts_for_nothing() -> None:
    lines = [*log("P1 v160x90 a"), "Input #1, mpegts, from 'udp://x':", *log("P1 v320x180 a a")]
    assert choose(lines, with_sound=True) == Choice()


def test_without_sound_only_the_picture_counts() -> None:
    assert choose(log("P1 v160x90 a P2 v320x180"), with_sound=False).number == "2"
    assert choose(log("v160x90 a a"), with_sound=False) == Choice()


def test_the_command_for_a_programme() -> None:
    words = ["ffmpeg", "-i", "x", "-map", "0:v:0", "-c:v", "libx264", "-map", "0:a:0?", "-map", "1:a:0", "{output}"]
    found = with_programme(words, "9")
    assert [found[4], found[8], found[10]] == ["0:p:9:v:0", "0:p:9:a:0?", "1:a:0"]
    assert [word for word in found if word not in words] == [found[4], found[8]]


PICTURE = "-f lavfi -i testsrc2=rate=25:size="
MADE = f"{PICTURE}160x90 -f lavfi -i sine {PICTURE}320x180 -f lavfi -i sine"
CODED = "-t 1 -c:v libx264 -preset ultrafast -tune zerolatency -b:v:0 100k -b:v:1 600k -c:a aac"
KINDS = {
    # The sound of the second programme comes first.
    "programmes.ts": "-map 0 -map 3 -map 2 -map 1 -program title=One:st=0:st=3 -program title=Two:st=2:st=1 -f mpegts",
    "variants.m3u8": "-map 0 -map 1 -map 2 -map 3 -f hls -hls_list_size 0 -master_pl_name all.m3u8"
    " -hls_segment_filename %v-%d.ts -var_stream_map",
}


@pytest.mark.parametrize("ffmpeg", FFMPEGS)
@pytest.mark.parametrize("kind", KINDS)
def test_ffmpegs_own_log_and_maps(ffmpeg: str, kind: str, tmp_path: Path) -> None:
    name = "all.m3u8" if kind.endswith("m3u8") else kind
    extra = ["v:0,a:0 v:1,a:1", "v%v.m3u8"] if kind.endswith("m3u8") else [kind]
    words = [ffmpeg, "-v", "error", *MADE.split(), *CODED.split(), *KINDS[kind].split(), *extra]
    subprocess.run(words, cwd=tmp_path, check=True, timeout=60)
    maps = ["-map", "0:v:0", "-map", "0:a:0"]
    told = record(ffmpeg, tmp_path / name, maps)
    choice = choose(told, with_sound=True)
    assert (choice.number, choice.remark.rpartition(", ")[2]) == ("1" if name == "all.m3u8" else "2", "320x180")
    told = record(ffmpeg, tmp_path / name, with_programme([*maps, "x"], choice.number)[:-1])
    mapped = [line.split()[1].rpartition(":")[2] for line in told if " -> " in line]
    shown = [line for line in told if any(line.startswith(f"Stream #0:{number}") for number in mapped)]
    assert "320x180" in " ".join(shown) and len(mapped) == 2


def record(ffmpeg: str, source: Path, maps: list[str]) -> list[str]:
    """What FFmpeg logs of its input and its mapping."""
    words = [ffmpeg, "-hide_banner", "-loglevel", "repeat+level+info", "-i", str(source), *maps, "-t", "0.2"]
    told = subprocess.run([*words, "-f", "null", "-"], capture_output=True, text=True, check=True, timeout=60).stderr
    lines = [line.replace("[info]", "").strip() for line in told.splitlines()]
    return lines[: lines.index("Press [q] to stop, [?] for help")]
