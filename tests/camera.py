#!/usr/bin/env python3
"""A camera for tests, and the eye that reads its picture back from a recording.

    tests/camera.py [--sound] [--fault AT:NAME[=VALUE]]... mpegts|flv|matroska OUTPUT
    tests/camera.py --read FILE...

Endless and in real time: picture n is of the time n / rate since 1970, and n stands in it in black and white cells,
with the camera's number and a check. So what is missing, copied or late is read from any recording, whatever its
timestamps say. The sound tells the second by its tone. The camera encodes and muxes by itself (H.264 of raw
macroblocks, each picture a key frame): no muxer of FFmpeg's holds anything back. It needs Python, and FFmpeg for its
sound and to read. OUTPUT is tcp://HOST:PORT (it listens; port 0 is any), udp://HOST:PORT, a FIFO, a file, or - (for
other protocols: `| ffmpeg -copyts -f flv -i - -c copy -max_interleave_delta 100000 -f rtsp rtsp://...`).

On stderr it says `PICTURE WORDS`: what it did, and the first picture for which that held. Faults come AT seconds after
the first viewer, or at once as a line NAME[=VALUE] on stdin:

drop=K/N           of each N pictures the first K are missing, without a word; 0/1 ends it
silence=S          nothing for S seconds, then the timestamps of that time, as a cable that was out
pause=S            nothing for S seconds, and the timestamps go on as if nothing had been
slow=F             delivers the share F of its pictures, and timestamps as if those were all; 1 ends it
outlier=X          the timestamp of one picture is X seconds ahead
ahead=N/X          that of each N-th picture is; 1/0 ends it
jump=X             all later timestamps are X seconds ahead (-X: a step back)
picture-jump=X     those of the picture alone
reset              the timestamps begin at 0 again
mute, mute=S       no sound any more; for S seconds. 0:mute: sound that is announced and never sent
dark, dark=S       the same for the picture
close, close=S     ends the connection; and takes no other for S seconds
size=WxH           another size from here on
slate=N/WxH        each new viewer's first N pictures are of that size
range=full|limited the signalled range of the levels

A viewer that does not read misses pictures once it is BACKLOG_S behind.
"""

from __future__ import annotations

import argparse
import binascii
import contextlib
import os
import re
import select
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

# ---------------------------------------------------------------- what stands in a picture

COLUMNS, ROWS = 10, 6
NUMBER_BITS, CAMERA_BITS, CHECK_BITS = 40, 8, 12
BLACK, WHITE = 16, 235
EYE = 4  # the reader sees each cell as so many pixels a side

TONES, TONE_HZ = 24, 100  # in second n the tone is 400 + 100 * (n % 24) Hz
SOUND_HZ, SOUND_FRAME = 48000, 1024  # 24 s are 1125 frames of AAC, without a rest
BACKLOG_S = 10.0


def to_cells(number: int, camera: int) -> int:
    """The cells of a picture as one number, the first cell its highest bit."""
    value = (number % (1 << NUMBER_BITS)) << CAMERA_BITS | camera
    return value << CHECK_BITS | _check(value)


def from_cells(cells: int) -> tuple[int, int] | None:
    """The number of a picture and of its camera; None if it is no picture of a camera, or damaged."""
    value, check = divmod(cells, 1 << CHECK_BITS)
    return divmod(value, 1 << CAMERA_BITS) if check == _check(value) else None


def _check(value: int) -> int:
    return binascii.crc32(value.to_bytes(6, "big")) % (1 << CHECK_BITS)


# ---------------------------------------------------------------- H.264


class Bits:
    """Bits as H.264 writes them (ITU-T H.264, 7.3 and 9.1)."""

    def __init__(self) -> None:
        self.text = ""

    def u(self, count: int, value: int) -> Bits:
        self.text += f"{value:0{count}b}"
        return self

    def ue(self, *values: int) -> Bits:
        for value in values:
            self.text += "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"
        return self

    def aligned(self) -> bytes:
        text = self.text + "0" * (-len(self.text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def unit(kind: int, content: bytes) -> bytes:
    """A NAL unit. The content is escaped; raw macroblocks need no escape, since no level is 0."""
    return bytes((kind,)) + re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", content)


class Picture:
    """Encodes the pictures of one size, as units of H.264: the two headers and a slice of raw macroblocks."""

    def __init__(self, width: int, height: int, rate: Fraction, *, is_full: bool = False) -> None:
        if width < 16 * COLUMNS or height < 16 * ROWS or width % 2 or height % 2:
            raise ValueError(f"{width}x{height}: a picture is at least {16 * COLUMNS}x{16 * ROWS}, both even")
        self.width, self.height = width, height
        across, down = -(-width // 16), -(-height // 16)
        self.headers = [self._sequence(width, height, across, down, rate, is_full), self._pictures()]
        # Which cell each macroblock belongs to, by its centre.
        columns = [min(COLUMNS - 1, (16 * x + 8) * COLUMNS // width) for x in range(across)]
        rows = [min(ROWS - 1, (16 * y + 8) * ROWS // height) for y in range(down)]
        self._cells = [COLUMNS * ROWS - 1 - (COLUMNS * row + column) for row in rows for column in columns]
        # mb_type 25 is I_PCM: 9 bits, 7 to align, then 256 levels of luma and 128 of chroma.
        self._blocks = [b"\x0d\0" + bytes((level,)) * 256 + b"\x80" * 128 for level in (BLACK, WHITE)]

    def _sequence(self, width: int, height: int, across: int, down: int, rate: Fraction, is_full: bool) -> bytes:
        bits = Bits().u(8, 66).u(8, 0xC0).u(8, 40)  # baseline, level 4
        bits.ue(0, 0, 2, 1).u(1, 0).ue(across - 1, down - 1).u(2, 3)  # order of output is the order of decoding
        bits.u(1, 1).ue(0, (16 * across - width) // 2, 0, (16 * down - height) // 2)
        bits.u(1, 1).u(2, 0)  # usability information: no aspect ratio, no overscan
        bits.u(1, 1).u(3, 5).u(1, is_full).u(1, 0).u(1, 0)
        bits.u(1, 1).u(32, rate.denominator).u(32, 2 * rate.numerator).u(1, 0).u(4, 0)
        return unit(0x67, bits.u(1, 1).aligned())

    def _pictures(self) -> bytes:
        return unit(0x68, Bits().ue(0, 0).u(2, 0).ue(0, 0, 0).u(3, 0).ue(0, 0, 0).u(4, 0b1001).aligned())

    def encode(self, number: int, camera: int) -> list[bytes]:
        # An I slice of an IDR picture; two in a row differ in idr_pic_id. No deblocking.
        begin = Bits().ue(0, 7, 0).u(4, 0).ue(number % 2).u(2, 0).ue(0, 1).ue(25)
        cells = to_cells(number, camera)
        blocks = b"".join([self._blocks[cells >> cell & 1] for cell in self._cells])
        return [*self.headers, unit(0x65, begin.aligned()) + blocks[2:] + b"\x80"]


def encode_sound(ffmpeg: str = "ffmpeg") -> list[bytes]:
    """24 s of tones as frames of AAC, in a ring: frame n sounds in the second of n * 1024 / 48000."""
    cycle = TONES * SOUND_HZ // SOUND_FRAME
    tone = f"aevalsrc='0.2*sin(2*PI*(400+{TONE_HZ}*mod(floor(t),{TONES}))*t)':s={SOUND_HZ}:d={2 * TONES + 1}"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", tone, "-c:a", "aac", "-b:a", "64k", "-f", "adts", "-"]
    stream = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    frames = []
    while stream:
        length = int.from_bytes(stream[3:6], "big") >> 5 & 0x1FFF
        frames.append(stream[7:length])
        stream = stream[length:]
    # The encoder's first frame is silence, before the time begins.
    return frames[cycle + 1 : 2 * cycle + 1]


SOUND_CONFIG = bytes((0x11, 0x88))  # AAC LC, 48 kHz, one channel


# ---------------------------------------------------------------- containers


class Muxer(Protocol):
    wraps_s: float

    def header(self, picture: Picture) -> bytes: ...
    def picture(self, units: list[bytes], at_s: float) -> bytes: ...
    def sound(self, frame: bytes, at_s: float) -> bytes: ...


def _configuration(headers: list[bytes]) -> bytes:
    """avcC, as FLV and Matroska have it."""
    sequence, pictures = headers
    sets = b"\x01" + sequence[1:4] + b"\xff\xe1" + struct.pack(">H", len(sequence)) + sequence
    return sets + b"\x01" + struct.pack(">H", len(pictures)) + pictures


def _with_lengths(units: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(data)) + data for data in units)


class Flv:
    wraps_s = 2**32 / 1000

    def __init__(self, *, has_sound: bool) -> None:
        self._has_sound = has_sound
        self._headers: list[bytes] = []

    def header(self, picture: Picture) -> bytes:
        begin = b"FLV\x01" + bytes((5 if self._has_sound else 1,)) + struct.pack(">II", 9, 0)
        sound = self._tag(8, 0, b"\xaf\0" + SOUND_CONFIG) if self._has_sound else b""
        return begin + self._configure(picture.headers, 0) + sound

    def _configure(self, headers: list[bytes], at_s: float) -> bytes:
        self._headers = headers
        return self._tag(9, at_s, b"\x17\0\0\0\0" + _configuration(headers))

    def picture(self, units: list[bytes], at_s: float) -> bytes:
        change = self._configure(units[:2], at_s) if units[:2] != self._headers else b""
        return change + self._tag(9, at_s, b"\x17\1\0\0\0" + _with_lengths(units))

    def sound(self, frame: bytes, at_s: float) -> bytes:
        return self._tag(8, at_s, b"\xaf\1" + frame)

    def _tag(self, kind: int, at_s: float, data: bytes) -> bytes:
        time_ms = round(at_s * 1000) % 2**32
        begin = bytes((kind,)) + struct.pack(">I", len(data))[1:] + struct.pack(">I", time_ms)[1:]
        tag = begin + bytes((time_ms >> 24, 0, 0, 0)) + data
        return tag + struct.pack(">I", len(tag))


class Matroska:
    wraps_s = float("inf")

    def __init__(self, *, has_sound: bool) -> None:
        self._has_sound = has_sound

    def header(self, picture: Picture) -> bytes:
        size = _element("E0", _element("B0", picture.width) + _element("BA", picture.height))
        video = _track(1, 1, b"V_MPEG4/ISO/AVC", _configuration(picture.headers), size)
        rate = _element("B5", struct.pack(">d", SOUND_HZ)) + _element("9F", 1)
        tracks = video + (_track(2, 2, b"A_AAC", SOUND_CONFIG, _element("E1", rate)) if self._has_sound else b"")
        begin = _element("1A45DFA3", _element("4282", b"matroska")) + bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7
        return begin + _element("1549A966", _element("2AD7B1", 10**6)) + _element("1654AE6B", tracks)

    def picture(self, units: list[bytes], at_s: float) -> bytes:
        return self._cluster(1, _with_lengths(units), at_s)

    def sound(self, frame: bytes, at_s: float) -> bytes:
        return self._cluster(2, frame, at_s)

    def _cluster(self, track: int, data: bytes, at_s: float) -> bytes:
        block = _element("A3", bytes((0x80 | track, 0, 0, 0x80)) + data)
        return _element("1F43B675", _element("E7", max(0, round(at_s * 1000))) + block)


def _track(number: int, kind: int, codec: bytes, configuration: bytes, more: bytes) -> bytes:
    content = _element("D7", number) + _element("73C5", number) + _element("83", kind) + _element("86", codec)
    return _element("AE", content + _element("63A2", configuration) + more)


def _element(identity: str, content: bytes | int) -> bytes:
    """One of Matroska's: its identity, its length in eight bytes, its content."""
    if isinstance(content, int):
        content = content.to_bytes(8, "big")
    return bytes.fromhex(identity) + b"\x01" + len(content).to_bytes(7, "big") + content


class MpegTs:
    """A transport stream (ISO/IEC 13818-1), with its tables before each picture."""

    wraps_s = 2**33 / 90000
    TABLES, PICTURE, SOUND = 0x1000, 0x100, 0x101

    def __init__(self, *, has_sound: bool) -> None:
        self._counts: dict[int, int] = {}
        programmes = self._table(0, 1, struct.pack(">HH", 1, 0xE000 | self.TABLES))
        streams = struct.pack(">HHBHH", 0xE000 | self.PICTURE, 0xF000, 0x1B, 0xE000 | self.PICTURE, 0xF000)
        if has_sound:
            streams += struct.pack(">BHH", 0x0F, 0xE000 | self.SOUND, 0xF000)
        self._tables = [(0, programmes), (self.TABLES, self._table(2, 1, streams))]

    def header(self, picture: Picture) -> bytes:
        return b""

    def picture(self, units: list[bytes], at_s: float) -> bytes:
        tables = b"".join(self._packets(where, (b"\0" + table).ljust(184, b"\xff")) for where, table in self._tables)
        data = b"".join(b"\0\0\0\1" + data for data in [b"\x09\x10", *units])
        time_90k = round(at_s * 90000) % 2**33
        clock = (time_90k - 9000) % 2**33  # a tenth of a second before the picture is due
        reference = b"\x50" + (clock << 15 | 0x3F << 9).to_bytes(6, "big")
        return tables + self._packets(self.PICTURE, self._elementary(0xE0, time_90k, data), reference)

    def sound(self, frame: bytes, at_s: float) -> bytes:
        length = len(frame) + 7
        header = bytes((0xFF, 0xF1, 0x4C, 0x40 | length >> 11, length >> 3 & 0xFF, (length & 7) << 5 | 0x1F, 0xFC))
        time_90k = round(at_s * 90000) % 2**33
        return self._packets(self.SOUND, self._elementary(0xC0, time_90k, header + frame), b"\x40")

    @staticmethod
    def _table(identity: int, extension: int, content: bytes) -> bytes:
        table = struct.pack(">BHHBBB", identity, 0xB000 | len(content) + 9, extension, 0xC1, 0, 0) + content
        check = 0xFFFFFFFF
        for byte in table:
            check ^= byte << 24
            for _ in range(8):
                check = (check << 1 ^ (0x04C11DB7 if check & 0x80000000 else 0)) & 0xFFFFFFFF
        return table + struct.pack(">I", check)

    @staticmethod
    def _elementary(identity: int, time_90k: int, data: bytes) -> bytes:
        stamp = struct.pack(
            ">BHH", 0x21 | time_90k >> 29 & 0xE, time_90k >> 14 & 0xFFFE | 1, time_90k << 1 & 0xFFFE | 1
        )
        length = len(data) + 8 if identity == 0xC0 else 0
        return struct.pack(">IHBBB", 0x100 | identity, length, 0x84, 0x80, 5) + stamp + data

    def _packets(self, where: int, data: bytes, first_field: bytes = b"") -> bytes:
        """Packets of 188 bytes; the first has that adaptation field, the last one that fills it up."""
        packets = []
        begins, field = 0x4000, first_field
        while data:
            part, data = data[: 184 - bool(field) - len(field)], data[184 - bool(field) - len(field) :]
            room = 183 - len(part)  # for the field, behind the byte of its length; -1: none
            stuffed = b"" if room < 0 else bytes((room,)) + (field or b"\0"[:room]).ljust(room, b"\xff")
            count = self._counts[where] = (self._counts.get(where, -1) + 1) % 16
            control = 0x30 if stuffed else 0x10
            packets.append(struct.pack(">BHB", 0x47, begins | where, control | count) + stuffed + part)
            begins, field = 0, b""
        return b"".join(packets)


MUXERS: dict[str, type[Flv] | type[Matroska] | type[MpegTs]] = {"flv": Flv, "matroska": Matroska, "mpegts": MpegTs}

# ---------------------------------------------------------------- the camera


class Camera:
    """The camera's stream, slot by slot, with its faults; it knows no clock and no viewer."""

    def __init__(
        self,
        container: str,
        *,
        first: int,
        rate: Fraction = Fraction(25),
        size: str = "160x96",
        camera: int = 0,
        start_s: float = 0.0,
        sound: Sequence[bytes] = (),
    ) -> None:
        self.rate, self.camera, self.first = rate, camera, first
        self.muxer: Muxer = MUXERS[container](has_sound=bool(sound))
        self.closes_s = -1.0  # to be done by whoever has the viewers
        self._size, self._is_full = size, False
        self._slate_size, self._slate_pictures, self._slate_left = "", 0, 0
        self._sound, self._next_sound = sound, self._sounds_before(first)
        # The faults that hold: until when; of what period, and since when; how far ahead the timestamps are.
        self._until = dict.fromkeys(("silence", "pause", "mute", "dark"), first)
        self._every = {"drop": (0.0, 1.0, first), "ahead": (1.0, 0.0, first)}
        self._shifts_s = {"jump": start_s, "picture-jump": 0.0, "outlier": 0.0}
        self._share, self._credit = 1.0, 0.0
        self._picture = self._make_picture()

    def _make_picture(self) -> Picture:
        width, _, height = (self._slate_size if self._slate_left else self._size).partition("x")
        return Picture(int(width), int(height), self.rate, is_full=self._is_full)

    def _sounds_before(self, number: int) -> int:
        """How many frames of sound have begun by the time of that picture."""
        return -(-number * self.rate.denominator * SOUND_HZ // (self.rate.numerator * SOUND_FRAME))

    def header(self) -> bytes:
        """What a new viewer has to have first."""
        self._slate_left = self._slate_pictures
        self._picture = self._make_picture()
        return self.muxer.header(self._picture)

    def do(self, fault: str, number: int) -> None:
        """Let a fault hold from picture `number` on."""
        name, _, value = fault.partition("=")
        if name in self._until:
            self._until[name] = number + round(float(value) * self.rate) if value else sys.maxsize
        elif name in self._every:
            first, _, second = value.partition("/")
            self._every[name] = (float(first), float(second), number)
        elif name in self._shifts_s:
            self._shifts_s[name] += float(value)
        elif name == "reset":
            self._shifts_s["jump"] = -float((number - self.first) / self.rate)
        elif name == "slow":
            self._share, self._credit = float(value), 0.0
        elif name == "close":
            self.closes_s = float(value or 0)
        elif name == "slate":
            pictures, _, self._slate_size = value.partition("/")
            self._slate_pictures = int(pictures)
        elif name in ("size", "range"):
            self._size = value if name == "size" else self._size
            self._is_full = value == "full" if name == "range" else self._is_full
            self._picture = self._make_picture()
        else:
            raise ValueError(f"a camera has no fault {fault!r}; see the top of tests/camera.py")

    def slot(self, number: int) -> bytes:
        """What goes out in the time of picture `number`."""
        last_sound = self._sounds_before(number + 1)
        sounds, self._next_sound = range(self._next_sound, last_sound), last_sound
        self._credit += self._share
        if number < self._until["pause"] or self._credit < 0.999:
            self._shifts_s["jump"] -= float(1 / self.rate)
            return b""
        self._credit = max(0.0, self._credit - 1)
        if number < self._until["silence"]:
            return b""
        begun_s = float(self.first / self.rate) - self._shifts_s["jump"]
        out = [
            self.muxer.sound(self._sound[at % len(self._sound)], at * SOUND_FRAME / SOUND_HZ - begun_s)
            for at in (sounds if self._sound and number >= self._until["mute"] else ())
        ]
        count, of, since = self._every["drop"]
        if number >= self._until["dark"] and (number - since) % of >= count:
            out.append(self._encode(number))
        return b"".join(out)

    def _encode(self, number: int) -> bytes:
        at_s = float((number - self.first) / self.rate) + sum(self._shifts_s.values())
        self._shifts_s["outlier"] = 0.0
        of, ahead_s, since = self._every["ahead"]
        if (number - since) % of == 0:
            at_s += ahead_s
        units = self._picture.encode(number, self.camera)
        if self._slate_left:
            self._slate_left -= 1
            self._picture = self._make_picture()
        return self.muxer.picture(units, at_s)


class Viewer:
    """Whoever looks: a descriptor that never blocks, and what it has not taken yet."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._waiting: list[bytes] = []
        self._bytes, self._backlog_bytes = 0, 0.0
        os.set_blocking(descriptor, False)

    def take(self, data: bytes, rate: Fraction) -> None:
        self._backlog_bytes = max(self._backlog_bytes, len(data) * float(rate) * BACKLOG_S)
        if self._bytes <= self._backlog_bytes:
            self._waiting.append(data)
            self._bytes += len(data)

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    def write(self) -> bool:
        """Send what can be sent; False once the viewer is gone."""
        try:
            while self._waiting:
                sent = os.write(self.descriptor, self._waiting[0])
                self._bytes -= sent
                self._waiting[0] = self._waiting[0][sent:]
                if not self._waiting[0]:
                    self._waiting.pop(0)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class Datagrams(Viewer):
    """UDP: seven packets of a transport stream each, whoever listens."""

    def __init__(self, socket_: socket.socket) -> None:
        super().__init__(socket_.fileno())

    def take(self, data: bytes, rate: Fraction) -> None:
        for at in range(0, len(data), 7 * 188):
            with contextlib.suppress(OSError):
                os.write(self.descriptor, data[at : at + 7 * 188])


class Studio:
    """The camera in real time, before its viewers."""

    def __init__(self, camera: Camera, output: str, faults: Sequence[tuple[float, str]]) -> None:
        self.camera, self.output = camera, output
        self.faults = sorted(faults)
        self.viewers: list[Viewer] = []
        self.listener: socket.socket | None = None
        self._first_viewer: int | None = None
        self._closed_until_s = 0.0
        self._commands: list[int] = [0]
        self._clock = time.time() - time.monotonic()  # a step of the clock is none of the camera's
        kind, _, where = output.partition("://")
        host, _, port = where.rpartition(":")
        if kind == "tcp":
            self.listener = socket.create_server((host, int(port)))
            self.say(camera.first, f"listens {self.listener.getsockname()[1]}")
        elif kind == "udp":
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.connect((host, int(port)))
            self._admit(Datagrams(self._socket), camera.first)
        elif output == "-":
            self._admit(Viewer(os.dup(1)), camera.first)
        elif not os.path.exists(output) or not stat.S_ISFIFO(os.stat(output).st_mode):
            self._admit(Viewer(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)), camera.first)

    def say(self, number: int, text: str) -> None:
        print(number, text, file=sys.stderr, flush=True)

    def run(self) -> None:
        rate = self.camera.rate
        number = self.camera.first
        while True:
            due_s = float((number + 1) / rate) - self._clock  # a picture is whole when its time is over
            while (left_s := due_s - time.monotonic()) > 0:
                self._wait(left_s, number)
            self._receive(number)
            self._play_faults(number)
            data = self.camera.slot(number)
            for viewer in list(self.viewers) if data else ():
                viewer.take(data, rate)
                self._push(viewer, number)
            if self.output == "-" and not self.viewers:
                return
            number += 1

    def _wait(self, left_s: float, number: int) -> None:
        waiting = {viewer.descriptor: viewer for viewer in self.viewers if viewer.waits}
        readable, writable, _ = select.select(self._commands, list(waiting), [], left_s)
        for descriptor in writable:
            self._push(waiting[descriptor], number)
        if readable:
            lines = os.read(0, 4096).decode()
            if not lines:
                self._commands = []
            for line in lines.split():
                self._do(line, number)

    def _push(self, viewer: Viewer, number: int) -> None:
        if not viewer.write():
            self._dismiss(viewer, number)

    def _receive(self, number: int) -> None:
        """Let a viewer in that waits at the door."""
        if time.monotonic() < self._closed_until_s:
            return
        try:
            if self.listener and select.select([self.listener], [], [], 0)[0]:
                self._admit(Viewer(self.listener.accept()[0].detach()), number)
            elif not self.listener and not self.viewers and self.output != "-":
                # Of a FIFO, which cannot be opened before somebody reads.
                self._admit(Viewer(os.open(self.output, os.O_WRONLY | os.O_NONBLOCK)), number)
        except OSError:
            return

    def _admit(self, viewer: Viewer, number: int) -> None:
        viewer.take(self.camera.header(), self.camera.rate)
        self.viewers.append(viewer)
        self._first_viewer = number if self._first_viewer is None else self._first_viewer
        self.say(number, "viewer")

    def _dismiss(self, viewer: Viewer, number: int) -> None:
        os.close(viewer.descriptor)
        self.viewers.remove(viewer)
        self.say(number, "viewer gone")

    def _play_faults(self, number: int) -> None:
        while self.faults and self._first_viewer is not None:
            if number < self._first_viewer + round(self.faults[0][0] * self.camera.rate):
                return
            self._do(self.faults.pop(0)[1], number)

    def _do(self, fault: str, number: int) -> None:
        self.camera.do(fault, number)
        self.say(number, fault)
        if self.camera.closes_s >= 0:
            self._closed_until_s, self.camera.closes_s = time.monotonic() + self.camera.closes_s, -1.0
            for viewer in list(self.viewers):
                self._dismiss(viewer, number)


# ---------------------------------------------------------------- the eye


class Seen:
    """The pictures of recordings in the order in which they are there, by their numbers; None: unreadable."""

    def __init__(self, numbers: Sequence[int | None], cameras: Sequence[int] = ()) -> None:
        self.numbers, self.cameras = list(numbers), set(cameras)
        self.readable = [number for number in numbers if number is not None]

    @property
    def unreadable(self) -> int:
        return len(self.numbers) - len(self.readable)

    @property
    def distinct(self) -> int:
        return len(set(self.readable))

    @property
    def copies(self) -> int:
        """Pictures that were there already."""
        return len(self.readable) - self.distinct

    @property
    def backwards(self) -> int:
        """Pictures that are older than the one before."""
        return sum(later < earlier for earlier, later in zip(self.readable, self.readable[1:], strict=False))

    def missing(self, first: int | None = None, last: int | None = None) -> list[tuple[int, int]]:
        """The runs (first number, how many) that are missing from `first` to `last`, by default of those seen."""
        there = sorted(set(self.readable))
        before = there[0] - 1 if first is None else first - 1
        after = there[-1] + 1 if last is None else last + 1
        found = []
        for number in [*(n for n in there if before < n < after), after]:
            if number > before + 1:
                found.append((before + 1, number - before - 1))
            before = number
        return found

    def __str__(self) -> str:
        if not self.readable:
            return f"no picture of a camera in {len(self.numbers)}"
        runs = self.missing()
        listed = ", ".join(f"{count} from {first}" for first, count in runs[:8]) + (", ..." if runs[8:] else "")
        told = (
            f"{len(self.numbers)} pictures, {min(self.readable)} to {max(self.readable)}: {self.copies} copies, "
            f"{sum(count for _, count in runs)} missing{f' ({listed})' if listed else ''}"
        )
        others = {"older than the one before": self.backwards, "unreadable": self.unreadable}
        return told + "".join(f", {count} {what}" for what, count in others.items() if count)


def decode(path: str | Path, options: Sequence[str], ffmpeg: str) -> bytes:
    """A recording as FFmpeg decodes it; one that breaks off, as far as it goes."""
    command = [ffmpeg, "-v", "error", "-nostdin", "-i", str(path), *options, "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if not done.stdout:
        raise ValueError(f"{path}: FFmpeg decodes nothing of it: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout


def see(*paths: str | Path, ffmpeg: str = "ffmpeg") -> Seen:
    """Read the pictures of recordings, one after another."""
    width, height = EYE * COLUMNS, EYE * ROWS
    graph = f"scale={width}:{height}:flags=area,format=gray"
    options = ["-map", "0:v:0", "-fps_mode", "passthrough", "-vf", graph, "-f", "rawvideo"]
    numbers: list[int | None] = []
    cameras = []
    # The four pixels in the middle of each cell.
    corners = [EYE * width * row + EYE * column for row in range(ROWS) for column in range(COLUMNS)]
    middles = [[corner + y * width + x for y in (1, 2) for x in (1, 2)] for corner in corners]
    for path in paths:
        pixels = decode(path, options, ffmpeg)
        for at in range(0, len(pixels), width * height):
            cells = 0
            for middle in middles:
                cells = cells << 1 | (sum(pixels[at + offset] for offset in middle) > 2 * (BLACK + WHITE))
            found = from_cells(cells)
            numbers.append(found and found[0])
            cameras += [found[1]] if found else []
    return Seen(numbers, cameras)


def hear(path: str | Path, ffmpeg: str = "ffmpeg") -> list[int | None]:
    """The second (modulo 24) that each tenth of a second of a recording's sound tells; None: silence."""
    window = SOUND_HZ // 10
    options = ["-map", "0:a:0", "-ac", "1", "-ar", str(SOUND_HZ), "-f", "s16le"]
    data = decode(path, options, ffmpeg)
    levels = memoryview(data[: len(data) // (2 * window) * 2 * window]).cast("h")
    return [_tone(levels[at : at + window]) for at in range(0, len(levels), window)]


def _tone(levels: Sequence[int]) -> int | None:
    if max(levels) < 500:
        return None
    rises = [at for at in range(1, len(levels)) if levels[at - 1] < 0 <= levels[at]]
    hertz = (len(rises) - 1) * SOUND_HZ / (rises[-1] - rises[0]) if len(rises) > 1 else 0
    second = round((hertz - 400) / TONE_HZ)
    return second if 0 <= second < TONES else None


# ---------------------------------------------------------------- the command


def _fault(text: str) -> tuple[float, str]:
    at, colon, fault = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not AT:NAME[=VALUE]")
    return float(at), fault


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="camera.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--read", nargs="+", metavar="FILE", help="tell what is in recordings, and do nothing else")
    parser.add_argument("--rate", type=Fraction, default=Fraction(25), help="pictures a second: 25, 30000/1001, 1/20")
    parser.add_argument("--size", default="160x96")
    parser.add_argument("--number", type=int, default=0, help="of this camera, 0 to 255; each picture has it")
    parser.add_argument("--sound", action="store_true")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="the first timestamp")
    parser.add_argument("--wrap-after", type=float, metavar="S", help="let the container's timestamps wrap then")
    parser.add_argument("--fault", type=_fault, action="append", default=[], metavar="AT:NAME[=VALUE]")
    parser.add_argument("--ffmpeg", default="ffmpeg")
    parser.add_argument("container", nargs="?", choices=[*MUXERS])
    parser.add_argument("output", nargs="?")
    given = parser.parse_args(words)
    if given.read:
        for path in given.read:
            print(f"{path}: {see(path, ffmpeg=given.ffmpeg)}")
        return
    if not given.output:
        parser.error("a container and an OUTPUT are needed")
    if given.wrap_after is not None and given.container == "matroska":
        parser.error("the timestamps of Matroska do not wrap")
    sound = encode_sound(given.ffmpeg) if given.sound else ()
    start_s = given.start
    if given.wrap_after is not None:
        start_s = MUXERS[given.container].wraps_s - given.wrap_after
    first = int(Fraction(time.time()) * given.rate)
    options = {"rate": given.rate, "size": given.size, "camera": given.number, "start_s": start_s, "sound": sound}
    with contextlib.suppress(KeyboardInterrupt):
        Studio(Camera(given.container, first=first, **options), given.output, given.fault).run()


@contextlib.contextmanager
def filming(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A camera as a process, until the block is left; its stdin takes faults, its stderr tells what it did."""
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


if __name__ == "__main__":
    main(sys.argv[1:])
