"""A system bus with a systemd behind it, for tests of what asks it: it answers what its units are told to be.

Real messages by a real socket, little-endian as the D-Bus Specification has them; what it was asked is in `calls`. The
real systemd is asked in tests/system/test_growth.py.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path

UNITS = "a(ssssssouso)"


class Writer:
    """Appends values to a message's body, aligned as their types ask."""

    def __init__(self) -> None:
        self.content = b""

    def pad(self, width: int) -> None:
        self.content += bytes(-len(self.content) % width)

    def number(self, value: int) -> None:
        self.pad(4)
        self.content += struct.pack("<I", value)

    def text(self, value: str) -> None:
        self.number(len(value.encode()))
        self.content += value.encode() + b"\0"

    def signature(self, value: str) -> None:
        self.content += bytes([len(value)]) + value.encode() + b"\0"


def units_body(units: Mapping[str, tuple[str, str, str]]) -> bytes:
    """What ListUnitsByPatterns answers: name → LoadState, ActiveState, SubState."""
    items = Writer()
    for name, (load, active, sub) in units.items():
        items.pad(8)
        for text in (name, "a port", load, active, sub, "", path_of(name)):
            items.text(text)
        items.number(0)
        items.text("")
        items.text("/")
    # The array's own length stands before its first item's padding to 8.
    return struct.pack("<II", len(items.content), 0) + items.content


def path_of(name: str) -> str:
    return "/org/freedesktop/systemd1/unit/" + name.replace("@", "_40").replace(".", "_2e").replace("-", "_2d")


def message(kind: int, serial: int, answered: int, signature: str = "", body: bytes = b"", error: str = "") -> bytes:
    fields = Writer()
    fields.pad(8)
    fields.content += b"\x05\x01u\0"
    fields.number(answered)
    for code, type_, value in ((4, "s", error), (8, "g", signature)):
        if value:
            fields.pad(8)
            fields.content += bytes([code, 1]) + type_.encode() + b"\0"
            (fields.text if type_ == "s" else fields.signature)(value)
    head = struct.pack("<BBBBIII", ord("l"), kind, 0, 1, len(body), serial, len(fields.content)) + fields.content
    return head + bytes(-len(head) % 8) + body


class FakeBus:
    """Listens at a socket until it is closed. `mood` is what it does instead of answering: "silent", "closes",
    "refuses" the user, "denies" the call, sends "garbage", or answers in "pieces"."""

    def __init__(self, path: Path, units: Mapping[str, tuple[str, str, str]], exit_status: int = 0) -> None:
        self.units, self.exit_status, self.mood = dict(units), exit_status, ""
        self.calls: list[str] = []
        self.properties: dict[tuple[str, str], str | bool | list[str]] | None = None
        """Of other objects than units, by path and name; what is not there is an error. None: all of them are units."""
        self.writes = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.address = f"unix:path={path}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                with client, contextlib.suppress(OSError):
                    self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        received = b""
        is_greeted = False
        while part := client.recv(65536):
            self.writes += 1
            received += part
            if self.mood == "silent":
                continue
            if self.mood == "closes":
                return
            if not is_greeted:
                if b"BEGIN\r\n" not in received:
                    continue
                received = received.partition(b"BEGIN\r\n")[2]
                client.sendall(b"REJECTED EXTERNAL\r\n" if self.mood == "refuses" else b"OK 0123456789abcdef\r\n")
                is_greeted = True
            while len(received) >= 16:
                _, _, _, _, body, serial, fields = struct.unpack("<BBBBIII", received[:16])
                length = 16 + fields + -fields % 8 + body
                if len(received) < length:
                    break
                answer = self._answer(received[:length], serial)
                received = received[length:]
                for at in range(len(answer)) if self.mood == "pieces" else [slice(0, len(answer))]:
                    client.sendall(answer[at] if isinstance(at, slice) else answer[at : at + 1])

    def _answer(self, asked: bytes, serial: int) -> bytes:
        if b"Hello" in asked:
            # A signal comes between, as NameAcquired does.
            text = Writer()
            text.text(":1.7")
            return message(2, 1, serial, "s", text.content) + message(4, 2, 0, "s", text.content)
        method = "Get" if b"\0Get\0" in asked else "ListUnitsByPatterns"
        self.calls.append(method)
        if self.mood == "garbage":
            return b"\xff" * 64
        if self.mood == "denies":
            text = Writer()
            text.text("no")
            return message(3, 3, serial, "s", text.content, "org.freedesktop.DBus.Error.AccessDenied")
        if method == "Get" and self.properties is not None:
            return self._property(asked, serial, self.properties)
        if method == "Get":
            return message(2, 3, serial, "v", b"\x01i\0\0" + struct.pack("<i", self.exit_status))
        return message(2, 3, serial, UNITS, units_body(self.units))

    def _property(self, asked: bytes, serial: int, known: Mapping[tuple[str, str], str | bool | list[str]]) -> bytes:
        is_started = asked[2] & 2 == 0
        assert not is_started, "a service that does not run would be started to answer"
        for (path, name), value in known.items():
            if f"{path}\0".encode() in asked and f"{name}\0".encode() in asked:
                return message(2, 3, serial, "v", variant(value))
        text = Writer()
        text.text("no such property")
        return message(3, 3, serial, "s", text.content, "org.freedesktop.DBus.Error.InvalidArgs")


def variant(value: str | bool | list[str]) -> bytes:
    """A path, a truth, or texts, with their type."""
    found = Writer()
    if isinstance(value, bool):
        found.signature("b")
        found.number(value)
    elif isinstance(value, str):
        found.signature("o")
        found.pad(4)
        found.text(value)
    else:
        items = Writer()
        for text in value:
            items.pad(4)
            items.text(text)
        found.signature("as")
        found.number(len(items.content))
        found.content += items.content
    return found.content
