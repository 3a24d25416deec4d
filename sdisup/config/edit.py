"""sdisup.toml.d/90-set.toml: the settings that commands write, apart from the files that people write."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Iterable

import tomli_w

from sdisup.config.documents import SET_NAME
from sdisup.contract.files import replace_file
from sdisup.contract.records import Record
from sdisup.errors import ConfigError, SdisupError, root_hint

HEADER = "# Written by sdisup enable and sdisup disable; read after sdisup.toml, key by key.\n"


class Written(Record):
    """The file, what puts it back as it was, and the entries of ports that are gone, which it has no more."""

    path: str
    undo: Callable[[], None]
    dropped: tuple[str, ...]


def set_record_at_boot(config_path: str, ports: Iterable[int], value: bool, port_count: int) -> Written:
    """Write `record_at_boot` of some ports, and keep the file's other settings of the first `port_count` ports.

    Raises ConfigError if the file cannot be understood, SdisupError if it cannot be written.
    """
    path = os.path.join(f"{config_path}.d", SET_NAME)
    document = _read(path)
    former = tomli_w.dumps(document) if os.path.lexists(path) else None
    tables = document.setdefault("port", {})
    if not isinstance(tables, dict):
        raise ConfigError([f"{path}: port: must be a table"])
    for port in ports:
        table = tables.setdefault(str(port), {})
        if not isinstance(table, dict):
            raise ConfigError([f"{path}: port.{port}: must be a table"])
        table["record_at_boot"] = value
    dropped = tuple(key for key in tables if key.isdecimal() and int(key) >= port_count)
    for key in dropped:
        del tables[key]
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        replace_file(path, (HEADER + tomli_w.dumps(document)).encode(), durable=True)
    except OSError as error:
        raise SdisupError(f"{path}: {error.strerror}", root_hint(error)) from error

    def undo() -> None:
        if former is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        else:
            replace_file(path, (HEADER + former).encode(), durable=True)

    return Written(path, undo, dropped)


def _read(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: {error}"], "mend the file or remove it") from error
