"""The files of a configuration -> parsed TOML. The only part of reading it that touches the disk."""

from __future__ import annotations

import os
import stat
from typing import Any

from sdisup.config.table import show_path
from sdisup.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024

Document = tuple[str, dict[str, Any]]


def read_documents(path: str) -> tuple[list[Document], list[str], str]:
    """`path` and the *.toml in `path`.d by name: what could be read, the problems, and the next step."""
    documents: list[Document] = []
    problems: list[str] = []
    hints: list[str] = []

    def note(error: ConfigError) -> None:
        problems.extend(error.problems)
        hints.extend([error.hint] if error.hint else [])

    def read(name: str) -> None:
        try:
            documents.append((name, _read_toml(name)))
        except ConfigError as error:
            note(error)

    read(path)
    try:
        drop_ins = _drop_ins(path + ".d")
    except ConfigError as error:
        drop_ins = []
        note(error)
    for name in drop_ins:
        read(name)
    return documents, problems, hints[0] if hints else ""


def _drop_ins(directory: str) -> list[str]:
    """The directory's *.toml, sorted; none when there is no such directory. Hidden files are editors' own."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise ConfigError([f"{show_path(directory)}: cannot be listed: {_reason(error)}"]) from None
    return [f"{directory}/{name}" for name in sorted(names) if name.endswith(".toml") and name[0] != "."]


def _read_toml(path: str) -> dict[str, Any]:
    """The parsed file. Raises ConfigError with one problem and, where there is one, the next step."""
    import tomllib  # 12 ms that only this needs (FACTS 5)

    name = show_path(path)
    text = _read_text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name}: {error}"], "the file is not valid TOML at that place") from None
    except RecursionError:
        raise ConfigError([f"{name}: is nested too deeply"]) from None
    except ValueError as error:  # Python's own limit on the digits of a number, 4300
        raise ConfigError([f"{name}: {error}"]) from None


def _read_text(path: str) -> str:
    name = show_path(path)
    try:
        data = _read_bytes(path)
    except FileNotFoundError:
        raise ConfigError([f"{name}: there is no such file"], "`sdisup init` writes a starter file") from None
    except PermissionError:
        raise ConfigError([f"{name}: may not be read by this user"], "run it as root") from None
    except (OSError, ValueError) as error:
        raise ConfigError([f"{name}: cannot be read: {_reason(error)}"]) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([f"{name}: is larger than 1 MiB, which no configuration is"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{name}: is not UTF-8 (at line {line})"], "save it as UTF-8") from None


def _read_bytes(path: str) -> bytes:
    """At most MAX_FILE_BYTES + 1 of a regular file. A FIFO or a device must not block `apply`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
