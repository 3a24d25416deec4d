"""`[offload.NAME]`: where finished files are copied to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sdisup.contract.records import Record
from sdisup.sources.values import Setting, Type, check_string, show

if TYPE_CHECKING:
    from sdisup.config.documents import Findings, Leaf
    from sdisup.config.settings import Port

IDLE, LOW = "idle", "low"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""As a unit's name, a credential's and a file's name take it."""
NAME_DOC = "letters, digits, '_' and '-', at most 32, not '_' or '-' first"
REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,63}:")
TARGET_MAX_BYTES = 512


class Offload(Record):
    """A target: every key of the table's "offload" section. `ports` is empty for all, `folder` for the host's name."""

    name: str
    target: str
    ports: tuple[int, ...] = ()
    folder: str = ""
    bandwidth_mbps: float = 0.0
    io_priority: str = IDLE

    @property
    def is_directory(self) -> bool:
        """Whether the target is a directory of this machine; else it is rclone's."""
        return self.target.startswith("/")


def _check_target(setting: Setting, value: object) -> str:
    text = check_string(value)
    remote = REMOTE.match(text)
    if not text.startswith("/") and not remote:
        # rclone would also take `:s3,secret_access_key=…:path`, and a secret has no place here.
        raise ValueError(f"must be an absolute directory, or a remote of rclone and a path, as in nas:recordings, "
                         f"not {show(text)}")  # fmt: skip
    if any(not char.isprintable() for char in text):
        raise ValueError(f"{show(text)} has characters that cannot be printed")
    if len(text.encode("utf-8")) > TARGET_MAX_BYTES:
        raise ValueError(f"is longer than {TARGET_MAX_BYTES} bytes")
    head = remote[0] if remote else "/"
    rest = text[len(head) :]
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"{show(text)} must not contain '..'")
    if not remote and not parts:
        raise ValueError("must be below '/', not '/' itself")
    # Where a remote is a server's filesystem, nas:/srv is another directory than nas:srv.
    return head + ("/" if remote and rest.startswith("/") else "") + "/".join(parts)


def _check_ports(setting: Setting, value: object) -> tuple[int, ...]:
    ports = tuple(value) if isinstance(value, list | tuple) else ()
    if not ports or not all(type(port) is int and port >= 0 for port in ports):
        raise ValueError(f"must be a list of ports, as in [0, 1], not {show(value)}")
    if len(set(ports)) < len(ports):
        raise ValueError("has a port twice")
    return tuple(sorted(ports))


def _check_folder(setting: Setting, value: object) -> str:
    text = check_string(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", text) or text.endswith("."):
        raise ValueError(f"{show(text)} cannot be a folder's name: a letter or digit, then letters, digits, '_', '.' "
                         "or '-', 63 at most")  # fmt: skip
    return text


TARGET = Type("target", _check_target, "an absolute directory, or `remote:path` of rclone")
PORTS = Type("ports", _check_ports, "a list of ports, as in `[0, 1]`")
FOLDER = Type("folder", _check_folder, "a letter or digit, then letters, digits, `_`, `.` or `-`")


def check_together(
    offloads: Iterable[tuple[Offload, Mapping[str, Leaf], Leaf]], ports: Mapping[int, Port], found: Findings
) -> None:
    """Report what is wrong with offloads together, and with the ports: each with its own values and its table."""
    owners: dict[tuple[str, str], str] = {}
    for offload, layer, table in offloads:
        for index in offload.ports:
            if index not in ports:
                found.problem(layer["ports"], f"port {index} is not configured")
        target = layer.get("target", table)
        owner = owners.setdefault((offload.target, offload.folder), offload.name)
        if owner != offload.name:
            found.problem(target, f"[offload.{owner}] has this target already; each needs a `folder` of its own there")
        if offload.is_directory:
            for directory in dict.fromkeys(port.recordings for port in ports.values()):
                if _is_within(offload.target, directory) or _is_within(directory, offload.target):
                    found.problem(target, f"{offload.target} and the recordings in {directory} are one in the other")


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def offload_of(name: str, values: Mapping[str, Any]) -> Offload:
    """The offload of checked values; None among them stands for what depends on others."""
    return Offload(name, **{key: value for key, value in values.items() if value is not None})
