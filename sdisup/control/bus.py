"""Asks systemd over D-Bus by Python's own socket, for what has to be quick: pydbus takes 100 ms to load (FACTS 5).

Questions alone, to systemd, and to udisks for what it knows of disks: jobs, their signals and all that changes
something are control/systemd.py's. All calls of a question go out in one write, the greeting with the first, so that it
costs one wait however many there are. The messages are those of the D-Bus Specification ("Message Protocol",
"Authentication Protocol").
"""

from __future__ import annotations

import os
import sys
import time

# What `socket` is made of; itself it imports selectors, enum and more.
from _socket import AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_STREAM, socket

from sdisup.contract.records import Record
from sdisup.errors import SdisupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Self

BUS_ADDRESS = "unix:path=/run/dbus/system_bus_socket"
SYSTEMD = "org.freedesktop.systemd1"
MANAGER = "/org/freedesktop/systemd1"
PROPERTIES = "org.freedesktop.DBus.Properties"
CALL_TIMEOUT_S = 10.0
MESSAGE_LIMIT_BYTES = 128 << 20
"""The specification's; what claims to be longer is no message."""
CALL, RETURN, ERROR = 1, 2, 3
NO_AUTO_START = 2
BUS = "org.freedesktop.DBus"
_FIELDS = {"path": (1, "o"), "interface": (2, "s"), "member": (3, "s"), "destination": (6, "s"), "signature": (8, "g")}
_ERROR_NAME, _REPLY_SERIAL = 4, 5


class SystemdError(SdisupError):
    """systemd did not answer, or refused. `name` is the name of the D-Bus error, empty where there is none."""

    def __init__(self, message: str, hint: str = "", name: str = "") -> None:
        super().__init__(message, hint)
        self.name = name


class SystemdPermissionError(SystemdError, PermissionError):
    """systemd refused since the caller has no permission. A PermissionError too, as the Python interface promises."""

    def __init__(self, message: str, hint: str = "", name: str = "") -> None:
        super().__init__(message, hint, name)
        self.errno, self.strerror = 1, message  # EPERM


class UnitState(Record):
    """A unit's LoadState, ActiveState and SubState, and its object's path on the bus."""

    load: str
    active: str
    sub: str
    path: str = ""


def unit_states(listed: Iterable[Sequence[Any]]) -> list[tuple[str, UnitState]]:
    """The name and state of each unit that ListUnitsByPatterns and ListUnitsByNames answer."""
    return [(unit[0], UnitState(unit[2], unit[3], unit[4], unit[6])) for unit in listed]


class Bus:
    """A connection to the system bus, for one question after the other; use it in a `with` statement."""

    def __init__(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Raises SystemdError where there is no bus."""
        self._serial = 0
        self._received = bytearray()
        self._until = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(bus_path())
        except OSError as error:
            self._socket.close()
            raise explain("", error.strerror or str(error), "systemd") from error
        user = str(os.geteuid()).encode().hex()
        hello = self._message("/org/freedesktop/DBus", BUS, "Hello", (), BUS)
        # The bus takes what follows BEGIN as messages, once it has agreed to what came before.
        self._greeting = f"\0AUTH EXTERNAL {user}\r\nBEGIN\r\n".encode() + hello

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def units(self, pattern: str) -> dict[str, UnitState]:
        """The units in systemd's memory whose names match a glob pattern, by name."""
        (listed,) = self._ask([(MANAGER, f"{SYSTEMD}.Manager", "ListUnitsByPatterns", ([], [pattern]))])
        if isinstance(listed, SystemdError):
            raise listed
        return dict(unit_states(listed))

    def exit_statuses(self, units: Sequence[UnitState]) -> list[int]:
        """ExecMainStatus of each: how a service's last process exited. From 200 on: systemd could not start it."""
        asked = (f"{SYSTEMD}.Service", "ExecMainStatus")
        found = self._ask([(unit.path, PROPERTIES, "Get", asked) for unit in units])
        errors = [answer for answer in found if isinstance(answer, SystemdError)]
        if errors:
            raise errors[0]
        return [int(answer) for answer in found]

    def properties(self, service: str, asked: Sequence[tuple[str, str, str]]) -> list[Any]:
        """Properties of another service's objects, by path, interface and name: the value or a SystemdError of each.

        It is not started for that.
        """
        return self._ask([(path, PROPERTIES, "Get", (interface, name)) for path, interface, name in asked], service)

    # ---- Messages ----

    def _ask(self, calls: Sequence[tuple[str, str, str, tuple[str | list[str], ...]]], to: str = SYSTEMD) -> list[Any]:
        """Make all calls (path, interface, method, arguments) at once; returns the first value or error of each."""
        if not calls:
            return []
        began = time.monotonic()
        self._until = began + self._timeout_s
        try:
            sent = [self._message(*call, to) for call in calls]
            first = self._serial - len(calls) + 1
            self._send(self._greeting + b"".join(sent))
            if self._greeting:
                self._greeting = b""
                self._accepted()
            answers: dict[int, Any] = {}
            while len(answers) < len(calls):
                self._answer(answers, range(first, first + len(calls)))
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or str(error)
            sys.audit("sdisup.bus", f"{calls[0][0]} {calls[0][2]}: {text} after {time.monotonic() - began:.3f} s")
            raise explain("", text, "systemd") from error
        found = [answers[serial] for serial in sorted(answers)]
        took = time.monotonic() - began
        for (path, _, method, arguments), answer in zip(calls, found, strict=True):
            call = f"{path} {method}({', '.join(map(repr, arguments))})"
            # For --debug (contract/trace.py); nobody hears it otherwise.
            sys.audit("sdisup.bus", f"{call}: {answer!r:.200} after {took:.3f} s")
        return found

    def _message(
        self, path: str, interface: str, member: str, arguments: tuple[str | list[str], ...], to: str = SYSTEMD
    ) -> bytes:
        self._serial += 1
        body = bytearray()
        for argument in arguments:
            _put(body, argument)
        signature = "".join("s" if isinstance(argument, str) else "as" for argument in arguments)
        header = {"path": path, "interface": interface, "member": member, "destination": to, "signature": signature}
        fields = bytearray()
        for name, value in header.items():
            if value:
                code, kind = _FIELDS[name]
                _pad(fields, 8)
                fields += bytes((code, 1)) + kind.encode() + b"\0"
                if kind == "g":
                    fields += bytes((len(value),)) + value.encode() + b"\0"
                else:
                    _put(fields, value)
        message = bytearray((ord("l"), CALL, 0 if to in (SYSTEMD, BUS) else NO_AUTO_START, 1))
        message += len(body).to_bytes(4, "little") + self._serial.to_bytes(4, "little")
        message += len(fields).to_bytes(4, "little") + fields
        _pad(message, 8)
        return bytes(message + body)

    def _send(self, content: bytes) -> None:
        while content:
            content = content[self._socket.send(content, MSG_NOSIGNAL) :]

    def _receive(self, length: int) -> None:
        """Read until so many bytes are there. Raises OSError."""
        while len(self._received) < length:
            left_s = self._until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(0, "timed out")
            self._socket.settimeout(left_s)
            part = self._socket.recv(65536)
            if not part:
                raise OSError(0, "The connection is closed")
            self._received += part

    def _accepted(self) -> None:
        """The bus's answer to the greeting, a line. Raises OSError and ValueError."""
        while b"\r\n" not in self._received:
            self._receive(len(self._received) + 1)
        line, _, self._received = self._received.partition(b"\r\n")
        if not line.startswith(b"OK "):
            raise ValueError(f"the bus refuses this user: {line[:80].decode(errors='replace')}")

    def _answer(self, answers: dict[int, Any], serials: range) -> None:
        """Read a message, and note its value if it answers one of these calls. Raises OSError and ValueError."""
        self._receive(16)
        order = "little" if self._received[:1] == b"l" else "big"
        head = _Reader(self._received, order, 4)
        body_length, _, fields_length = head.value("u"), head.value("u"), head.value("u")
        begin = 16 + fields_length + -fields_length % 8
        if begin + body_length > MESSAGE_LIMIT_BYTES:
            raise ValueError("what the bus sends is no message")
        self._receive(begin + body_length)
        message, self._received = self._received[: begin + body_length], self._received[begin + body_length :]
        fields = dict(_Reader(message, order, 12).value("a(yv)"))
        serial = fields.get(_REPLY_SERIAL, 0)
        if message[1] not in (RETURN, ERROR) or serial not in serials:
            # Such as the signal NameAcquired, and the answer to Hello.
            if message[1] == ERROR:
                raise ValueError(str(fields.get(_ERROR_NAME)))
            return
        values = _Reader(message[begin:], order).values(fields.get(8, ""))
        if message[1] == ERROR:
            name = str(fields.get(_ERROR_NAME, ""))
            answers[serial] = explain(name, str(values[0]) if values else name, "systemd")
        else:
            answers[serial] = values[0] if values else None


def bus_path() -> str:
    """Where the system bus listens: the first unix:path= of its address."""
    for address in os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", BUS_ADDRESS).split(";"):
        kind, _, values = address.partition(":")
        path = dict(pair.partition("=")[::2] for pair in values.split(",")).get("path", "")
        if kind == "unix" and path:
            return path
    return BUS_ADDRESS.partition("=")[2]


def _pad(content: bytearray, width: int) -> None:
    content += bytes(-len(content) % width)


def _put(content: bytearray, value: str | list[str]) -> None:
    """Append a text, or an array of texts."""
    _pad(content, 4)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape")
        content += len(text).to_bytes(4, "little") + text + b"\0"
        return
    items = bytearray()
    for item in value:
        _put(items, item)
    content += len(items).to_bytes(4, "little") + items


_WIDTHS = {"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "h": 4, "x": 8, "t": 8, "d": 8}
_ALIGNMENTS = {**_WIDTHS, "s": 4, "o": 4, "a": 4, "g": 1, "v": 1, "(": 8, "{": 8}
_SIGNED = "nix"


class _Reader:
    """Takes values out of a message, by the signature of their type."""

    def __init__(self, content: bytes | bytearray, order: str, at: int = 0) -> None:
        self._content, self._order, self._at = content, order, at

    def values(self, signature: str) -> list[Any]:
        """One of each type of a signature. Raises ValueError for what is no message."""
        found, at = [], 0
        while at < len(signature):
            end = _end_of(signature, at)
            found.append(self.value(signature[at:end]))
            at = end
        return found

    def value(self, kind: str) -> Any:
        """One of this type; a variant is what it holds, a double its bits."""
        first = kind[:1]
        if first not in _ALIGNMENTS:
            raise ValueError(f"what the bus sends has a value of no type, {kind!r}")
        self._at += -self._at % _ALIGNMENTS[first]
        if first in _WIDTHS:
            part = self._take(_WIDTHS[first])
            return int.from_bytes(part, self._order, signed=first in _SIGNED)  # type: ignore[arg-type]
        if first in "so":
            return self._text(int.from_bytes(self._take(4), self._order))  # type: ignore[arg-type]
        if first == "g":
            return self._text(self._take(1)[0])
        if first == "v":
            return self.value(self._text(self._take(1)[0]))
        if first in "({":
            return tuple(self.values(kind[1:-1]))
        return self._array(kind[1:])

    def _array(self, kind: str) -> list[Any]:
        length = int.from_bytes(self._take(4), self._order)  # type: ignore[arg-type]
        self._at += -self._at % _ALIGNMENTS.get(kind[:1], 1)
        end = self._at + length
        found = []
        while self._at < end:
            found.append(self.value(kind))
        return found

    def _text(self, length: int) -> str:
        return self._take(length + 1)[:-1].decode("utf-8", "surrogateescape")

    def _take(self, length: int) -> bytes | bytearray:
        part = self._content[self._at : self._at + length]
        if len(part) < length:
            raise ValueError("what the bus sends ends too early")
        self._at += length
        return part


def _end_of(signature: str, at: int) -> int:
    """Where the one complete type ends that begins there."""
    while signature[at : at + 1] == "a":
        at += 1
    depth = 0
    for end in range(at, len(signature)):
        depth += (signature[end] in "({") - (signature[end] in ")}")
        if not depth:
            return end + 1
    raise ValueError(f"{signature!r} is no signature")


# ---- Errors ----

_EXPLANATIONS: Mapping[str, tuple[str, str]] = {
    "NoSuchUnit": ("{subject} is not loaded", "is the port configured? sdisup apply writes the units"),
    "UnitMasked": ("{subject} is masked", "systemctl unmask {subject}"),
    "InteractiveAuthorizationRequired": ("no permission to do this to {subject}", "run it as root: sudo sdisup …"),
    "AccessDenied": ("no permission to do this to {subject}", "run it as root: sudo sdisup …"),
    "AuthFailed": ("no permission to do this to {subject}", "run it as root: sudo sdisup …"),
    "ServiceUnknown": ("systemd does not run on this machine", "sdisup needs a system booted with systemd"),
    "NameHasNoOwner": ("systemd does not run on this machine", "sdisup needs a system booted with systemd"),
    "NoReply": ("systemd did not answer in time", "see: journalctl -b -p warning"),
    "TimedOut": ("systemd did not answer in time", "see: journalctl -b -p warning"),
    "Timeout": ("systemd did not answer in time", "see: journalctl -b -p warning"),
    "BadUnitSetting": ("{subject} has a setting that systemd refuses", "see: systemd-analyze verify {subject}"),
    "JobTypeNotApplicable": ("{subject} cannot do that", "see: systemctl status {subject}"),
}  # fmt: skip
NO_PERMISSION = ("InteractiveAuthorizationRequired", "AccessDenied", "AuthFailed")


def explain(name: str, text: str, subject: str) -> SystemdError:
    """A D-Bus error in an operator's words; `name` is its D-Bus name, empty for a transport error."""
    message, hint = _EXPLANATIONS.get(name.rpartition(".")[2], ("", ""))
    if message:
        of = SystemdPermissionError if name.rpartition(".")[2] in NO_PERMISSION else SystemdError
        return of(message.format(subject=subject), hint.format(subject=subject), name)
    if not name and ("No such file" in text or "refused" in text or "closed" in text):
        return SystemdError(
            "systemd cannot be reached: there is no D-Bus system bus here",
            "sdisup needs a system booted with systemd, and its dbus.service",
        )
    if not name and ("cancelled" in text or "Timeout" in text or "timed out" in text):
        # The bus hangs: the time-out of _connect ended the handshake, or that of GLib ended the call.
        return SystemdError(*_EXPLANATIONS["NoReply"])
    detail = (text.partition(f"{name}:")[2].strip() if name else "") or text
    return SystemdError(f"{subject}: {detail}", "", name)
