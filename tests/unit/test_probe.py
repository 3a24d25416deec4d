"""Asking an FFmpeg: answers of real ones (5.1.9 of Debian 12, 7.1.5 of Debian 13), and of impostors."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.config.settings import Port, parse_settings
from sdisup.encode.command import build_ffmpeg_arguments
from sdisup.encode.probe import has_hybrid_fragmented, parse_names, parse_version, pcm_in_mp4_problems, probe_ffmpeg
from sdisup.errors import SdisupError

VERSION_5_1 = """\
ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026 the FFmpeg developers
built with gcc 12 (Debian 12.2.0-14+deb12u1)
libavutil      57. 28.100 / 57. 28.100
"""
VERSION_7_1 = """\
ffmpeg version 7.1.5-0+deb13u1 Copyright (c) 2000-2026 the FFmpeg developers
built with gcc 14 (Debian 14.2.0-19)
libavutil      59. 39.100 / 59. 39.100
"""
ENCODERS_7_1 = """\
Encoders:
 V..... = Video
 A..... = Audio
 S..... = Subtitle
 .F.... = Frame-level multithreading
 ..S... = Slice-level multithreading
 ...X.. = Codec is experimental
 ....B. = Supports draw_horiz_band
 .....D = Supports direct rendering method 1
 ------
 V....D libx264              libx264 H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10 (codec h264)
 VF...D prores_aw            Apple ProRes (codec prores)
 VFS..D prores_ks            Apple ProRes (iCodec Pro) (codec prores)
 A....D aac                  AAC (Advanced Audio Coding)
 A....D pcm_s24le            PCM signed 24-bit little-endian
 A..X.D opus                 Opus
 S..... mov_text             3GPP Timed Text subtitle
"""
DEMUXERS_5_1 = """\
File formats:
 D. = Demuxing supported
 .E = Muxing supported
 --
 D  4xm             4X Technologies
 D  lavfi           Libavfilter virtual input device
 D  matroska,webm   Matroska / WebM
 D  mov,mp4,m4a,3gp,3g2,mj2 QuickTime / MOV
 D  video4linux2,v4l2 Video4Linux2 device grab
"""
DEMUXERS_7_1 = """\
Formats:
 D.. = Demuxing supported
 .E. = Muxing supported
 ..d = Is a device
 ---
 D   4xm             4X Technologies
 D d lavfi           Libavfilter virtual input device
 D   matroska,webm   Matroska / WebM
 D   mov,mp4,m4a,3gp,3g2,mj2 QuickTime / MOV
 D d video4linux2,v4l2 Video4Linux2 device grab
"""
MOV_5_1 = """\
  -movflags          <flags>      E.......... MOV muxer flags (default 0)
     frag_custom                  E.......... Flush fragments on caller requests
"""
MOV_7_1 = """\
  -movflags          <flags>      E.......... MOV muxer flags (default 0)
     frag_custom                  E.......... Flush fragments on caller requests
     hybrid_fragmented              E.......... For recoverability, write a fragmented file that is converted
"""
NAMES = {"4xm", "lavfi", "matroska", "webm", "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "video4linux2", "v4l2"}


def test_versions() -> None:
    assert parse_version(VERSION_5_1) == "5.1.9-0+deb12u1"
    assert parse_version(VERSION_7_1) == "7.1.5-0+deb13u1"
    assert parse_version("some loader's warning\nffmpeg version N-117000-gabc Copyright\n") == "N-117000-gabc"
    assert parse_version("ffprobe version 7.1.5 Copyright") == parse_version("") == ""


def test_names() -> None:
    assert parse_names(ENCODERS_7_1) == {
        "libx264", "prores_aw", "prores_ks", "aac", "pcm_s24le", "opus", "mov_text",
    }  # fmt: skip
    assert parse_names(DEMUXERS_5_1) == parse_names(DEMUXERS_7_1) == NAMES
    assert parse_names("") == parse_names("Unknown option") == frozenset()


def test_hybrid_fragmented() -> None:
    assert has_hybrid_fragmented(MOV_7_1)
    assert not has_hybrid_fragmented(MOV_5_1)
    assert not has_hybrid_fragmented("Unknown format 'mov'.")


@given(st.text())
def test_any_answer_can_be_read(answer: str) -> None:
    assert isinstance(parse_version(answer), str)
    assert "" not in parse_names("Encoders:\n --\n" + answer)
    assert has_hybrid_fragmented(answer) in (True, False)


REAL = [name for name in (shutil.which("ffmpeg"), os.environ.get("SDISUP_TEST_FFMPEG")) if name]


@pytest.mark.parametrize("ffmpeg", REAL)
def test_a_real_ffmpeg(ffmpeg: str) -> None:
    capabilities = probe_ffmpeg(ffmpeg)
    assert {"libx264", "prores_aw", "aac", "pcm_s24le"} <= capabilities.encoders
    assert {"lavfi", "mov", "matroska"} <= capabilities.inputs
    major, minor = (int(part) for part in capabilities.version.split("-")[0].split(".")[:2])
    assert capabilities.hybrid_fragmented == ((major, minor) >= (7, 1))


# ---- Impostors ----


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def refusal(path: str, timeout_s: float = 60) -> str:
    with pytest.raises(SdisupError) as caught:
        probe_ffmpeg(path, timeout_s)
    assert caught.value.hint
    assert caught.value.message.startswith(f"{path}: ") or "\x00" in path
    return caught.value.message


def test_what_cannot_be_executed(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    (tmp_path / "empty").touch(mode=0o755)
    missing_interpreter = tmp_path / "script"
    missing_interpreter.write_text("#!/nowhere/sh\n")
    missing_interpreter.chmod(0o755)
    assert "there is no such file" in refusal(str(tmp_path / "none"))
    assert "what it needs to start is missing" in refusal(str(missing_interpreter))
    assert "no execute permission" in refusal(str(tmp_path / "plain"))
    assert "is a directory" in refusal(str(tmp_path))
    assert "Exec format error" in refusal(str(tmp_path / "empty"))
    assert "cannot be executed" in refusal("/a\x00b")


def test_what_is_no_ffmpeg_is_quoted(tmp_path: Path) -> None:
    said = "error while loading shared libraries: libavdevice.so.61: cannot open shared object file"
    assert said in refusal(script(tmp_path / "broken", f"echo '{said}' >&2; exit 127"))
    binary = refusal(script(tmp_path / "binary", "head -c 100000 /dev/urandom"))
    assert binary.isprintable() and len(binary) < 2000
    assert "''" in refusal(script(tmp_path / "silent", "exit 0"))


def test_what_floods_is_cut_off(tmp_path: Path) -> None:
    assert "is not an FFmpeg" in refusal(script(tmp_path / "flood", "exec yes"))


def test_what_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    hanging = script(tmp_path / "hanging", f"sleep 1000 & echo $! > {pid_file}; wait")
    assert "did not answer `-version` within 0.5 s" in refusal(hanging, timeout_s=0.5)
    wait_until_gone(int(pid_file.read_text()))


def test_one_that_hangs_later_is_named_by_its_question(tmp_path: Path) -> None:
    text = 'case "$*" in -version) echo "ffmpeg version 7.1";; *encoders) exec sleep 1000;; esac'
    # Where half a second is too short for the first answer, a longer one is not.
    messages = (refusal(script(tmp_path / "half", text), timeout_s=timeout_s) for timeout_s in (0.5, 5, 50))
    assert any("did not answer `-hide_banner -encoders`" in message for message in messages)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} is still there")


def mp4_ports(**audio: object) -> list[Port]:
    defaults = {"source": {"kind": "test"}, "audio": audio}
    table = {
        "appliance": {"ports": 3},
        "defaults": defaults,
        "port": {"1": {"container": "mov"}, "2": {"name": "CAM2"}},
    }
    return list(parse_settings([("x.toml", table)]).ports.values())


@pytest.mark.parametrize("says", ["", "[mp4 @ 0x1] Could not find tag for codec pcm_s24le in stream #0"])
def test_whether_pcm_goes_into_mp4_is_tried(tmp_path: Path, says: str) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n[ -z "{says}" ] || echo "{says}" >&2\n')
    script.chmod(0o755)
    found = pcm_in_mp4_problems(mp4_ports(codec="pcm_s24le"), str(script))
    wrong = f'ports 0, 2: {script} cannot put pcm_s24le into mp4: choose container = "mov", or audio.codec = "aac"'
    assert found == ([wrong] if says else [])
    assert (tmp_path / "asked").read_text().count("-c:a pcm_s24le -movflags +empty_moov -f mp4") == 1


def test_an_ffmpeg_is_not_asked_for_what_nobody_wants() -> None:
    assert pcm_in_mp4_problems(mp4_ports(codec="aac"), "/nothing") == []


@pytest.mark.parametrize("ffmpeg", REAL)
def test_what_the_try_says_is_so(ffmpeg: str, tmp_path: Path) -> None:
    """A recording of the same tracks, by the port's own command line."""
    port = mp4_ports(codec="pcm_s16le")[0]
    is_refused = bool(pcm_in_mp4_problems([port], ffmpeg))
    words = [*build_ffmpeg_arguments(port, ffmpeg, probe_ffmpeg(ffmpeg))[:-1], "-t", "0.2", str(tmp_path / "x.mp4")]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert (done.returncode != 0) is is_refused
