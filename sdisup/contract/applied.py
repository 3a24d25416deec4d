"""/var/lib/sdisup/applied.json: what `sdisup apply` last did. Commands rely on it, not on the TOML.

So a configuration that somebody is just editing, or has broken, stops nobody from starting, stopping
and looking at ports. Standard library only: `sdisup status` reads it.
"""

from __future__ import annotations

import os

from sdisup.contract.files import STATE_DIRECTORY, Fields, Unreadable, read_fields, replace_file
from sdisup.contract.records import Record
from sdisup.errors import SdisupError, UnknownPortError, UsageError

APPLIED_PATH = f"{STATE_DIRECTORY}/applied.json"
SCHEMA = 1
WRITTEN = "Written by sdisup apply from /etc/sdisup/sdisup.toml; changes made here are lost."
"""What the files of apply say of themselves in their first line."""


class AppliedPort(Record):
    """A port as it was last applied.

    `revision` is what its next start will take, `filesystem` the identity of what its recordings are on; `overridden`
    says where another file holds against what sdisup.toml says. Below `space_warning_h` hours of room the status warns.
    With `lock` nobody stops the port who does not say so.
    """

    index: int
    name: str
    codec: str
    recordings: str
    record_at_boot: bool
    revision: str
    filesystem: str = ""
    overridden: tuple[str, ...] = ()
    space_warning_h: float = 24.0
    lock: bool = False

    @property
    def unit(self) -> str:
        return f"sdi-record@{self.index}.service"

    @property
    def label(self) -> str:
        """The port as messages name it: `port 3 (CAM3)`."""
        return f"port {self.index}" if self.name == f"port{self.index}" else f"port {self.index} ({self.name})"


class AppliedOffload(Record):
    """A target that finished files are copied to. `ports` is empty for all; `filesystem` is the identity of what a
    directory has to be on, empty for any."""

    name: str
    target: str
    folder: str
    ports: tuple[int, ...] = ()
    bandwidth_mbps: float = 0.0
    filesystem: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether the target is a directory of this machine; else it is rclone's."""
        return self.target.startswith("/")

    @property
    def unit(self) -> str:
        return f"sdi-offload@{self.name}.service"

    @property
    def timer(self) -> str:
        return f"sdi-offload@{self.name}.timer"


class Applied(Record):
    """All applied ports by index, the files that apply wrote, and the targets of copies."""

    ports: dict[int, AppliedPort]
    files: list[str]
    offloads: tuple[AppliedOffload, ...] = ()

    def revisions(self) -> dict[int, str]:
        """What each port's next start takes."""
        return {index: port.revision for index, port in self.ports.items()}

    def select(self, words: list[str]) -> list[AppliedPort]:
        """The ports that an operator means by `3`, `0-3`, `0,2`, `CAM3`, `sdi-record@3[.service]`, in order.

        Raises UnknownPortError that names all that are not configured, UsageError for what is no port.
        """
        found: dict[int, AppliedPort] = {}
        unknown = []
        for word in ",".join(words).split(","):
            for index in self._indexes(word):
                if index in self.ports:
                    found[index] = self.ports[index]
                else:
                    unknown.append(word)
        if unknown:
            names = ", ".join(dict.fromkeys(unknown))
            raise UnknownPortError(f"{names}: no such port is configured", self._configured())
        return [found[index] for index in sorted(found)]

    def _indexes(self, word: str) -> list[int]:
        by_name = [port.index for port in self.ports.values() if port.name.lower() == word.lower()]
        if by_name:
            return by_name
        number = word.removeprefix("sdi-record@").removesuffix(".service")
        first, dash, last = number.partition("-")
        if is_port_number(first) and (is_port_number(last) if dash else number == first):
            low, high = int(first), int(last or first)
            if high < low:
                raise UsageError(f"{word}: a range of ports goes from the lower to the higher", f"{high}-{low}")
            return list(range(low, high + 1))
        if not word:
            raise UsageError("an empty port", "name ports as 3, 0-3, 0,2, CAM3 or sdi-record@3")
        return [-1]

    def _configured(self) -> str:
        if not self.ports:
            return "no port is: write /etc/sdisup/sdisup.toml, then run sdisup apply"
        labels = ", ".join(port.label.removeprefix("port ") for port in self.ports.values())
        return f"configured are {labels}"


def is_port_number(text: str) -> bool:
    """Whether `text` is a port in its one spelling: `01` is another unit than `1`."""
    return text.isascii() and text.isdigit() and len(text) <= 3 and (text == "0" or not text.startswith("0"))


def load_applied(path: str = APPLIED_PATH) -> Applied:
    """What apply last did; nothing at all before the first apply. Raises SdisupError if it is unreadable."""
    try:
        return applied_from(read_fields(path))
    except FileNotFoundError:
        return Applied({}, [])
    except Unreadable as error:
        raise SdisupError(str(error), "sdisup apply writes it anew") from error


def applied_from(fields: Fields) -> Applied:
    """Decode it. Raises Unreadable for what no apply wrote."""
    listed = fields.child("ports")
    ports = {}
    for key in listed.names():
        if not is_port_number(key):
            listed.fail(key[:80], "no port")
        ports[int(key)] = listed.child(key).record(AppliedPort, index=int(key))
    offloads = [
        Fields(item, f"{fields.where}: offloads").record(AppliedOffload) for item in fields.items("offloads", [])
    ]
    return Applied(dict(sorted(ports.items())), fields.texts("files", []), tuple(offloads))


def is_same(one: Applied, other: Applied) -> bool:
    """Whether save_applied() would write the same of both."""
    return one.ports == other.ports and sorted(one.files) == sorted(other.files)


def save_applied(applied: Applied, path: str = APPLIED_PATH) -> bool:
    """Write it durably, if it differs from what is there; whether it did. Raises OSError."""
    # Only apply and its kin write it; all others read it quickly.
    import json

    document = {
        "schema": SCHEMA,
        "ports": {
            str(port.index): {name: value for name, value in sorted(port.as_dict().items()) if name != "index"}
            for port in applied.ports.values()
        },
        "files": sorted(applied.files),
    }
    if applied.offloads:
        document["offloads"] = [offload.as_dict() for offload in applied.offloads]
    content = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
    try:
        with open(path, "rb") as file:
            if file.read() == content:
                return False
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    replace_file(path, content, durable=True)
    return True
