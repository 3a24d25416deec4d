"""Inputs beside SDI, recorded on a real systemd: a stream, a file in real time, a FIFO; and their sandbox."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from camera import filming, see
from drive import BOTH_DEBIANS, Machine

# The appliance has the host's network: two runs at once must not hear each other.
UDP_PORT = 20000 + os.getpid() % 20000
PICTURE = "-f lavfi -i testsrc2=size=320x180:rate=25 -f lavfi -i sine=frequency=1000:sample_rate=48000"
GOP_FRAMES = 25
ENCODED = f"-c:v libx264 -preset ultrafast -tune zerolatency -g {GOP_FRAMES} -c:a aac"

# Writes what a process in the unit can reach, then runs FFmpeg.
CURIOUS_FFMPEG = """#!/usr/bin/python3 -IS
import os, socket, sys
if "-progress" in sys.argv:
    for family in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"):
        try:
            socket.socket(getattr(socket, family), socket.SOCK_DGRAM).close()
            said = "opens"
        except OSError as error:
            said = os.strerror(error.errno)
        print(f"[warning] {family}: {said}", file=sys.stderr)
    print(f"[warning] devices: {' '.join(sorted(os.listdir('/dev')))}", file=sys.stderr, flush=True)
os.execv("/usr/bin/ffmpeg", ["/usr/bin/ffmpeg", *sys.argv[1:]])
"""


def custom_port(index: int, arguments: str, extra: str = "") -> str:
    return f'[port.{index}]\nsource = {{ kind = "custom", input = [{arguments}]{extra} }}\n'


@pytest.fixture
def media(appliance: Machine) -> Iterator[Machine]:
    """The shared appliance with a short film in /srv/media, which is removed afterwards."""
    appliance.run("install -d -m 0755 /srv/media && mkfifo -m 0644 /srv/media/in.fifo")
    appliance.run(f"ffmpeg -v error {PICTURE} -t 10 {ENCODED} /srv/media/film.mkv")
    try:
        yield appliance
    finally:
        appliance.run("systemctl stop 'sdi-record@*' 'sender-*'; rm -rf /srv/media", check=False)


def send(appliance: Machine, name: str, output: str) -> None:
    """A second FFmpeg that sends a picture and a tone in real time."""
    unit = f"systemd-run --quiet --collect --unit=sender-{name} --property=KillSignal=SIGKILL"
    appliance.run(f"{unit} ffmpeg -y -v error -re {PICTURE} {ENCODED} -f mpegts '{output}'")


def wait_for_rate(appliance: Machine, port: int, fps: float) -> dict[str, Any]:
    def runs() -> dict[str, Any] | None:
        found = appliance.status_file(port)
        return found if abs(found["fps"] - fps) < 3 else None

    return appliance.wait_for(runs, 20, f"port {port} runs at {fps} frames a second", poll_s=0.1)


# A stream joined between two key frames, which FFmpeg reports picture by picture.
JOINED_LATE = r"\[h264 @ |non-existing [PS]PS"


@pytest.mark.journal_allows(JOINED_LATE)
def test_a_stream_a_file_and_a_fifo_record_each_in_its_own_sandbox(media: Machine) -> None:
    ports = [
        custom_port(0, f'"-f", "mpegts", "-i", "udp://127.0.0.1:{UDP_PORT}?fifo_size=50000"'),
        custom_port(1, '"-re", "-stream_loop", "-1", "-i", "/srv/media/film.mkv"', ', audio = "optional"'),
        custom_port(2, '"-f", "mpegts", "-i", "/srv/media/in.fifo"', ", rate = 25"),
        '[port.3]\nsource = { kind = "test", size = "320x180" }\ncodec = "prores"\n',
        '[port.4]\nsource = { kind = "v4l2", device = "/dev/video7", audio_device = "hw:1" }\n',
    ]
    media.configure("[appliance]\nports = 5\n" + "".join(ports))
    media.run("systemctl start --no-block sdi-record@0 sdi-record@1 sdi-record@2 sdi-record@3")
    send(media, "udp", f"udp://127.0.0.1:{UDP_PORT}?pkt_size=1316")
    send(media, "fifo", "/srv/media/in.fifo")
    begun = {}
    for port in (0, 1, 2, 3):
        media.wait_recording(port, frames=50, timeout_s=40)
        # FFmpeg 6.1 and later begins with what the sender had ready. The rate is the stream's own. A stream joined
        # between two key frames has sound before its first picture, and FFmpeg repeats that picture for at most a
        # GOP's length. After that FFmpeg repeats and drops no frame.
        begun[port] = found = wait_for_rate(media, port, 25)
        assert found["dropped_frames"] + found["duplicated_frames"] <= 5 + (GOP_FRAMES if port in (0, 2) else 0), found
    for port, found in begun.items():
        later = media.wait_recording(port, frames=found["frame_count"] + 50)
        for counter in ("dropped_frames", "duplicated_frames"):
            assert later[counter] == found[counter], (found, later)
    expected = {
        0: ("AF_INET AF_INET6 AF_UNIX", "yes"),
        1: ("AF_UNIX", "yes"),
        2: ("AF_UNIX", "yes"),
        3: ("AF_UNIX", "yes"),
        4: ("AF_UNIX", "no"),
    }
    for port, (families, private_devices) in expected.items():
        shown = media.run(f"systemctl show -p RestrictAddressFamilies -p PrivateDevices sdi-record@{port}").stdout
        values = dict(line.split("=", 1) for line in shown.splitlines())
        assert " ".join(sorted(values["RestrictAddressFamilies"].split())) == families
        assert values["PrivateDevices"] == private_devices
    shown = media.run("systemctl show -P DeviceAllow -P DevicePolicy -P SupplementaryGroups sdi-record@4").stdout
    assert {"/dev/video7", "char-alsa", "closed", "video", "audio"} <= set(shown.split())
    media.sdisup("stop 0-3")
    for port in (0, 1, 2):
        (path,) = media.recordings(f"port{port}_")
        assert media.count_frames(path) >= 50
        streams = media.run(f"ffprobe -v error -show_entries stream=codec_name -of csv=p=0 {path}").stdout.split()
        assert {name.strip(",") for name in streams} == {"h264", "aac"}


@pytest.mark.slow
@pytest.mark.journal_allows(JOINED_LATE, r"Error during demuxing: Input/output error")
def test_a_stream_that_ends_is_waited_for_and_recorded_again(media: Machine) -> None:
    arguments = f'"-f", "mpegts", "-i", "udp://127.0.0.1:{UDP_PORT}?timeout=1000000"'
    media.configure("[appliance]\nports = 1\n" + custom_port(0, arguments))
    send(media, "udp", f"udp://127.0.0.1:{UDP_PORT}?pkt_size=1316")
    media.run("systemctl start --no-block sdi-record@0")
    before = media.wait_recording(0, frames=25, timeout_s=30)
    media.run("systemctl stop sender-udp")
    media.wait_for(lambda: media.status(0)["restarts"] >= 1, 15, "the end of the stream is noticed", poll_s=0.1)
    send(media, "udp", f"udp://127.0.0.1:{UDP_PORT}?pkt_size=1316")
    after = media.wait_recording(0, frames=25, timeout_s=40)
    assert after["current_file"] != before["current_file"]


def test_a_picture_of_a_size_that_no_encoder_takes_is_recorded_and_said(media: Machine) -> None:
    """Deltacast's 720x486 has two lines too many for fields; a camera may have an odd width."""
    graphs = {0: "testsrc=size=720x486:rate=25,realtime", 1: "testsrc=size=853x481:rate=25,realtime"}
    ports = [custom_port(index, f'"-f", "lavfi", "-i", "{graph}"', f', rate = 25, scan = "{scan}", audio = false')
             for (index, graph), scan in zip(graphs.items(), ("tff", "progressive"), strict=True)]  # fmt: skip
    media.configure("[appliance]\nports = 3\n" + "".join(ports) + ports[1].replace(".1]", ".2]") + 'codec = "prores"\n')
    media.sdisup("start 0-2")
    recorded = {0: "720x484", 1: "852x480", 2: "852x481"}
    for port, size in recorded.items():
        found = media.wait_recording(port, frames=25)
        assert f"is recorded as {size}, which its codec takes" in found["reason"]
    media.sdisup("stop 0-2")
    for port, size in recorded.items():
        (path,) = media.recordings(f"port{port}_")
        entries = "stream=width,height,field_order"
        shown = media.run(f"ffprobe -v error -show_entries {entries} -of csv=p=0:s=x {path}").stdout.strip()
        assert shown.startswith(size)
        assert media.count_frames(path) >= 25


def said_of(appliance: Machine, port: int, words: str) -> bool:
    return any(words in str(entry["MESSAGE"]) for entry in appliance.journal(f"--unit=sdi-record@{port}.service"))


def listener(index: int, start_timeout_s: float) -> str:
    arguments = f'"-f", "mpegts", "-i", "tcp://127.0.0.1:{UDP_PORT + index}?listen"'
    return custom_port(index, arguments) + f"start_timeout_s = {start_timeout_s:g}\n"


def caller(index: int) -> str:
    return f"tcp://127.0.0.1:{UDP_PORT + index}"


@pytest.mark.slow
@pytest.mark.journal_allows(JOINED_LATE, r"no frame within 2 s", r"Error during demuxing|Error opening input")
def test_a_caller_is_recorded_who_comes_after_the_verdict_or_after_any_time(media: Machine) -> None:
    media.configure("[appliance]\nports = 2\n" + listener(0, 2) + listener(1, 0))
    media.run("systemctl start --no-block sdi-record@0 sdi-record@1")
    media.wait_for(lambda: said_of(media, 0, "no frame within 2 s"), 20, "the verdict", poll_s=0.05)
    send(media, "late", caller(0))
    media.wait_for(lambda: said_of(media, 0, "the first frame has come"), 20, "it is taken back", poll_s=0.1)
    waiting = media.wait_state(1, "no-signal")
    assert waiting["reason"].startswith("waits for ")
    send(media, "patient", caller(1))
    for port in (0, 1):
        found = media.wait_recording(port, frames=100)
        assert (found["restarts"], found["state"]) == (0, "recording")
        assert found["current_file"] in media.recordings(f"port{port}_")[-1]
    media.sdisup("stop 0,1")
    for port in (0, 1):
        assert [entry["ended"] for entry in media.ledger(port) if entry["kind"] == "file"] == ["complete"]


@pytest.mark.slow
@pytest.mark.journal_allows(JOINED_LATE, r"no frame within 30 s", r"Error during demuxing|Error opening input")
def test_a_caller_in_the_thirtieth_second_is_recorded(media: Machine) -> None:
    media.configure("[appliance]\nports = 1\n" + listener(0, 30))
    media.run("systemctl start --no-block sdi-record@0")
    media.wait_for(lambda: said_of(media, 0, "no frame within 30 s"), 60, "the verdict", poll_s=0.05)
    send(media, "late", caller(0))
    found = media.wait_recording(0, frames=250, timeout_s=30)
    assert found["restarts"] == 0
    media.sdisup("stop 0")
    assert [entry["ended"] for entry in media.ledger(0) if entry["kind"] == "file"] == ["complete"]


@pytest.mark.slow
@pytest.mark.journal_allows(r"Error during demuxing|Error opening input|SIGTERM|SIGKILL")
def test_a_picture_every_twenty_seconds_is_recorded_with_a_remark(media: Machine) -> None:
    media.configure("[appliance]\nports = 1\n[defaults]\nstall_timeout_s = 60\n" + listener(0, 0))
    toml = media.read("/etc/sdisup/sdisup.toml").replace('?listen"]', '?listen"], audio = false')
    media.configure(toml)
    media.run("systemctl start --no-block sdi-record@0")
    media.wait_state(0, "no-signal")
    unit = "systemd-run --quiet --collect --unit=sender-slow --property=KillSignal=SIGKILL"
    slow = "-re -f lavfi -i testsrc2=size=320x180:rate=1/20 -c:v libx264 -tune zerolatency -g 1 -flush_packets 1"
    media.run(f"{unit} ffmpeg -v error {slow} -f mpegts {caller(0)}")
    found = media.wait_recording(0, frames=6, timeout_s=240)
    assert (found["restarts"], found["reason"]) == (0, "a picture every 20 s")
    media.sdisup("stop 0")
    # FFmpeg waits for the next picture and hears nothing: the stop is a kill, which costs the newest picture, since mp4
    # writes one when the next one tells how long it lasts. The ledger says what the file has.
    (file,) = [entry for entry in media.ledger(0) if entry["kind"] == "file"]
    assert file["frames"] == media.count_frames(file["path"]) >= found["frame_count"] - 1


# Answers each request in words that FFmpeg would say of its own command line.
ODD_SERVER = """#!/usr/bin/python3 -IS
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    caller, _ = server.accept()
    asked = caller.recv(4096).decode()
    number = asked.partition("CSeq: ")[2].partition("\\r")[0] or "1"
    caller.sendall(f"RTSP/1.0 451 Option not found\\r\\nCSeq: {number}\\r\\n\\r\\n".encode())
    caller.close()
"""


@pytest.mark.slow
@pytest.mark.journal_allows(r"Option not found|Error|4XX|Server returned")
def test_a_servers_words_end_no_port(media: Machine) -> None:
    media.write("/srv/media/server", ODD_SERVER, mode=0o755)
    media.run(f"systemd-run --quiet --collect --unit=sender-odd /srv/media/server {UDP_PORT}")
    media.configure("[appliance]\nports = 1\n" + custom_port(0, f'"-i", "rtsp://127.0.0.1:{UDP_PORT}/1"'))
    media.run("systemctl start --no-block sdi-record@0")
    media.wait_for(lambda: media.status(0)["restarts"] >= 3, 30, "it is tried again", poll_s=0.1)
    assert said_of(media, 0, "Option not found")
    assert media.active_state(0) in ("active", "activating")


@contextlib.contextmanager
def camera_with_sound(*faults: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The input's arguments, in TOML, and the camera."""
    with filming("--sound", *faults, "mpegts", "tcp://127.0.0.1:0") as camera:
        assert camera.stderr is not None
        port = camera.stderr.readline().split()[-1]
        yield f'"-f", "mpegts", "-i", "tcp://127.0.0.1:{port}"', camera


def fault(camera: subprocess.Popen[str], name: str) -> None:
    assert camera.stdin is not None
    camera.stdin.write(f"{name}\n")
    camera.stdin.flush()


# What FFmpeg says where it is stopped before its first frame, or killed while it reads.
@pytest.mark.journal_allows(r"sdi-record@1.*ffmpeg: ", r"sdi-record@2.*Immediate exit requested")
def test_sound_that_stops_or_never_comes_keeps_no_picture_from_the_file(media: Machine) -> None:
    with camera_with_sound("--fault", "0:mute") as (never, _), camera_with_sound() as (stops, camera):
        ports = [
            custom_port(0, never, ', audio = "optional", rate = 25'),
            custom_port(1, never, ", rate = 25"),
            custom_port(2, stops, ", rate = 25"),
        ]
        media.configure("[appliance]\nports = 3\n" + "".join(ports))
        media.run("systemctl start --no-block sdi-record@0 sdi-record@1 sdi-record@2")
        assert media.wait_recording(0, frames=25)["reason"].startswith("without audio: none came from the input")
        media.wait_for(lambda: "waits for it" in media.status_file(1)["reason"], 20, "what is waited for is said")
        assert media.status_file(1)["state"] == "starting"
        assert "no sound" not in media.wait_recording(2, frames=100)["reason"]
        fault(camera, "mute")
        media.wait_for(lambda: "no sound for" in media.status_file(2)["reason"], 20, "the sound is missed")
        silent = media.status_file(2)
        file = media.path(silent["current_file"])
        for _ in range(5):
            size = file.stat().st_size
            media.wait_for(lambda: file.stat().st_size > size, 10, "it grows")  # noqa: B023
        grown = media.status_file(2)
        assert (grown["state"], grown["restarts"], grown["ffmpeg_pid"]) == ("recording", 0, silent["ffmpeg_pid"])
        fault(camera, "mute=0")
        killed = media.status_file(2)
        media.run(["kill", "-9", str(killed["ffmpeg_pid"])])
        media.wait_for(lambda: media.status_file(2)["restarts"] == 1, 20, "it is restarted")
        media.sdisup("stop --all")
    seen = see(media.path(killed["current_file"]))
    assert seen.distinct >= killed["frame_count"] - 25
    assert (seen.copies, seen.missing()) == (0, [])


@BOTH_DEBIANS
@pytest.mark.slow
@pytest.mark.journal_allows(r"sdi-record@.*ffmpeg: |killed")
def test_sound_that_comes_and_goes_ends_nothing_and_a_kill_loses_a_second(media: Machine) -> None:
    with camera_with_sound() as (comes_and_goes, camera):
        media.configure("[appliance]\nports = 1\n" + custom_port(0, comes_and_goes, ", rate = 25"))
        media.run("systemctl start --no-block sdi-record@0")
        began = media.wait_recording(0, frames=50)
        for pause_s in (1, 3, 6, 12, 2):
            fault(camera, f"mute={pause_s}")
            frames = media.status_file(0)["frame_count"] + 25 * (pause_s + 2)
            media.wait_recording(0, frames=frames, timeout_s=pause_s + 20)
        fault(camera, "mute")
        media.wait_for(lambda: "no sound for" in media.status_file(0)["reason"], 20, "the sound is missed")
        killed = media.status_file(0)
        assert (killed["current_file"], killed["restarts"]) == (began["current_file"], 0)
        media.run(["kill", "-9", str(killed["ffmpeg_pid"])])
        media.wait_for(lambda: media.status_file(0)["restarts"] == 1, 20, "it is restarted")
        media.sdisup("stop 0")
    seen = see(media.path(killed["current_file"]))
    assert seen.distinct >= killed["frame_count"] - 25
    assert (seen.copies, seen.missing()) == (0, [])


@BOTH_DEBIANS
@pytest.mark.slow
@pytest.mark.journal_allows(r"sdi-record@.*ffmpeg: |mp3|Error|error|Invalid|Header missing")
def test_broken_sound_ends_no_port_for_good(media: Machine) -> None:
    unit = "systemd-run --quiet --collect --property=KillSignal=SIGKILL --property=Restart=always"
    noise = f"ffmpeg -v error -re {PICTURE} -c:v libx264 -preset ultrafast -g {GOP_FRAMES} -c:a libmp3lame"
    for port in (0, 1):
        output = f"-bsf:a noise=amount=1 -f mpegts 'udp://127.0.0.1:{UDP_PORT + port}?pkt_size=1316'"
        media.run(f"{unit} --unit=sender-broken{port} {noise} {output}")
    udp = "udp://127.0.0.1:{}?overrun_nonfatal=1"
    ports = [
        custom_port(0, f'"-i", "{udp.format(UDP_PORT)}"', ', audio = "optional", rate = 25'),
        custom_port(1, f'"-i", "{udp.format(UDP_PORT + 1)}"', ", rate = 25"),
    ]
    media.configure("[appliance]\nports = 2\n" + "".join(ports))
    media.run("systemctl start --no-block sdi-record@0 sdi-record@1")
    media.wait_recording(0, frames=250, timeout_s=60)
    media.wait_for(
        lambda: media.status_file(1)["state"] == "recording" or media.status_file(1)["restarts"] >= 2,
        120, "it records or is tried again", poll_s=0.2,
    )  # fmt: skip
    assert media.active_state(1) in ("active", "activating")


@pytest.mark.slow
@pytest.mark.journal_allows(r"sdi-record@.*ffmpeg: ")
@pytest.mark.parametrize("trouble", ["stalls", "ends", "does not open"])
def test_a_sound_of_its_own_keeps_no_picture_from_the_file(media: Machine, trouble: str) -> None:
    with camera_with_sound() as (picture, _), camera_with_sound() as (sound, other):
        if trouble == "does not open":
            other.terminate()
        media.configure("[appliance]\nports = 1\n" + custom_port(0, f"{picture}, {sound}", ', audio = "optional"'))
        media.run("systemctl start --no-block sdi-record@0")
        began = time.monotonic()
        before = media.wait_recording(0, frames=100, timeout_s=40)
        assert time.monotonic() - began < 20
        if trouble == "stalls":
            other.send_signal(signal.SIGSTOP)
        elif trouble == "ends":
            other.terminate()
        said = "without audio" if trouble == "does not open" else "no sound for"
        media.wait_for(lambda: said in media.status_file(0)["reason"], 30, "the sound is missed", poll_s=0.2)
        media.wait_recording(0, frames=before["frame_count"] + 500, timeout_s=60)
        other.send_signal(signal.SIGCONT)
        media.sdisup("stop 0")
    files = [media.path(name) for name in media.recordings("port0_")]
    assert len(files) == 1 and see(*files).missing() == []


@pytest.mark.slow
def test_a_slate_at_each_connection_is_cut_once_and_colours_never(media: Machine) -> None:
    with camera_with_sound() as (slate, slating), camera_with_sound() as (colours, changing):
        fault(slating, "slate=5/320x240")
        media.configure("[appliance]\nports = 2\n" + custom_port(0, slate) + custom_port(1, colours))
        media.run("systemctl start --no-block sdi-record@0 sdi-record@1")
        media.wait_recording(1, frames=25, timeout_s=40)
        for number in range(15):
            fault(changing, "range=full" if number % 2 else "range=limited")
            media.wait_recording(1, frames=media.status_file(1)["frame_count"] + 50)
        media.wait_recording(0, frames=1000, timeout_s=90)
        media.sdisup("stop 0 1")
    slated, coloured = (
        [media.path(name) for name in media.recordings(f"port{port}_") if media.path(name).stat().st_size]
        for port in (0, 1)
    )
    assert len(coloured) == 1 and see(*coloured).missing() == []
    assert len(slated) <= 2
    seen = see(*slated)
    assert seen.distinct > 0.9 * (seen.readable[-1] - seen.readable[0])


@pytest.mark.journal_allows(r"Error opening input")
def test_only_a_port_that_needs_the_network_can_open_a_socket(media: Machine) -> None:
    media.write("/usr/local/bin/ffmpeg-curious", CURIOUS_FFMPEG, mode=0o755)
    udp = custom_port(1, f'"-i", "udp://127.0.0.1:{UDP_PORT}"')
    test = '[port.0]\nsource = { kind = "test", size = "320x180" }\n'
    media.configure(f'[appliance]\nports = 2\nffmpeg = "/usr/local/bin/ffmpeg-curious"\n{test}{udp}')
    media.run("systemctl start --no-block sdi-record@0 sdi-record@1")
    refused, allowed = said(media, 0), said(media, 1)
    assert refused["AF_UNIX"] == allowed["AF_UNIX"] == "opens"
    assert {refused[name] for name in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET")} == {
        "Address family not supported by protocol"
    }
    assert allowed["AF_INET"] == "opens"
    assert allowed["AF_PACKET"] == "Address family not supported by protocol"
    devices = set(refused["devices"].split())
    assert {"null", "zero", "urandom"} <= devices
    assert not devices & {"console", "kmsg", "mem", "fuse", "net", "snd", "video0"}
    media.wait_recording(0)


def said(appliance: Machine, port: int) -> dict[str, str]:
    """What the curious FFmpeg of a port wrote to the journal, by its first word."""

    def lines() -> dict[str, str]:
        entries = appliance.journal(f"--unit=sdi-record@{port}.service")
        found = [re.search(r"(AF_[A-Z0-9]+|devices): (.*)", str(entry["MESSAGE"])) for entry in entries]
        return {match[1]: match[2] for match in found if match}

    appliance.wait_for(lambda: "devices" in lines(), 20, f"port {port} says what it may reach", poll_s=0.1)
    return lines()


def test_a_unit_takes_a_custom_line_as_it_was_written(media: Machine) -> None:
    odd = "/srv/media/a $HOME %i 'quoted' \\\\ name.mkv"
    arguments = '"-re", "-stream_loop", "-1", "-i", "/srv/media/a $HOME %i \'quoted\' \\\\\\\\ name.mkv"'
    media.run(["cp", "/srv/media/film.mkv", odd])
    media.configure("[appliance]\nports = 1\n" + custom_port(0, arguments))
    media.run("systemctl start --no-block sdi-record@0")
    found = media.wait_recording(0)
    assert odd in media.read(f"/proc/{found['ffmpeg_pid']}/cmdline").split("\0")


def test_custom_arguments_that_write_are_refused_and_change_nothing(media: Machine) -> None:
    media.configure("[appliance]\nports = 1\n" + custom_port(0, '"-re", "-i", "/srv/media/film.mkv"'))
    unit = media.read("/etc/systemd/system/sdi-record@0.service.d/10-sdisup.conf")
    for arguments in (
        '"-i", "udp://h:1", "-f", "nut", "/srv/recordings/x"',
        '"-progress", "/srv/x", "-i", "udp://h:1"',
    ):
        media.configure("[appliance]\nports = 1\n" + custom_port(0, arguments), apply=False)
        assert "/etc/sdisup/sdisup.toml: port.0.source.input: " in media.sdisup("apply", code=2).stderr
    assert media.read("/etc/systemd/system/sdi-record@0.service.d/10-sdisup.conf") == unit
    assert media.active_state(0) == "inactive"


def test_init_check_and_apply(media: Machine) -> None:
    media.run("rm -f /etc/sdisup/sdisup.toml")
    assert media.sdisup("init").stdout.startswith("wrote /etc/sdisup/sdisup.toml")
    media.sdisup("init", code=1)
    starter = media.read("/etc/sdisup/sdisup.toml")
    # Deltacast's FFmpeg is not here, and that is all that is missing.
    (problem,) = media.sdisup("check", code=1).stdout.splitlines()
    assert problem.startswith("ports 0-7: /usr/bin/ffmpeg has no input 'videomaster'")
    assert media.sdisup("check --quick").stdout == ""
    assert media.sdisup("apply").stderr.count("has no input 'videomaster'") == 1
    said = media.sdisup("check", code=1).stderr
    assert "the units are not" not in said and "nothing was applied" not in said
    assert media.read("/etc/sdisup/sdisup.toml") == starter
    media.run("chown root:root /srv/recordings && chmod 0755 /srv/recordings")
    try:
        (problem,) = media.sdisup("check --quick", code=1).stdout.splitlines()
        assert problem.startswith("/srv/recordings is not writable by the user sdisup")
    finally:
        media.run("chown sdisup:sdisup /srv/recordings && chmod 2775 /srv/recordings")
