"""The files of a configuration -> parsed TOML -> one tree, each value with the file and the key path where it stands.

An operator needs both to mend a value, also one that a port has from [defaults] or from a file in sdisup.toml.d. Only
`read_documents` touches the disk; `merge` is pure.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sdisup.contract.records import Record
from sdisup.errors import ConfigError
from sdisup.sources.values import show, show_path, suggestion

MAX_FILE_BYTES = 1024 * 1024
SET_NAME = "90-set.toml"
"""The file in sdisup.toml.d that commands write (edit.py)."""

Document = tuple[str, dict[str, Any]]


# ---- Files ----


def read_documents(path: str) -> tuple[list[Document], list[str], str]:
    """Read `path`, then the *.toml in `path`.d by name. Returns the documents, the problems, and the next step."""
    documents: list[Document] = []
    errors: list[ConfigError] = []
    for name in _file_names(path, errors):
        try:
            documents.append((name, _read_toml(name)))
        except ConfigError as error:
            errors.append(error)
    hints = [error.hint for error in errors if error.hint]
    return documents, [problem for error in errors for problem in error.problems], hints[0] if hints else ""


def _file_names(path: str, errors: list[ConfigError]) -> Iterator[str]:
    """`path`, then the *.toml in `path`.d, sorted. It may be missing; hidden files in it belong to editors."""
    yield path
    directory = path + ".d"
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        errors.append(ConfigError([f"{show_path(directory)}: cannot be listed: {_reason(error)}"]))
    else:
        yield from (f"{directory}/{name}" for name in sorted(names) if name.endswith(".toml") and name[0] != ".")


def _read_toml(path: str) -> dict[str, Any]:
    """The parsed file. Raises ConfigError with one problem and, where there is one, the next step."""
    import tomllib  # takes 12 ms, and only this function needs it (FACTS 5)

    name = show_path(path)
    text = _read_text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name}: {error}"], "the file is not valid TOML at that place") from None
    except RecursionError:
        raise ConfigError([f"{name}: is nested too deeply"]) from None
    except ValueError as error:  # a number of more than 4300 digits, Python's limit
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
    """Read a regular file, at most MAX_FILE_BYTES + 1. A FIFO or a device must not block `apply`."""
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


# ---- Merging ----


class Leaf(Record):
    """A value, the file it stands in, and its key path there."""

    value: Any
    file: str
    path: str


Layer = dict[str, Leaf]


class PortLayer:
    """[defaults] or a [port.N]. `sources` are its source tables, in the order of their files."""

    def __init__(self) -> None:
        self.values: Layer = {}
        self.sources: list[Layer] = []


class Tree:
    """All documents together. `headers` says where each [port.N] stands first, in a file of people's if in any."""

    def __init__(self) -> None:
        self.appliance: Layer = {}
        self.defaults = PortLayer()
        self.ports: dict[int, PortLayer] = {}
        self.headers: dict[int, Leaf] = {}
        self.retention: Layer = {}
        self.offloads: dict[str, tuple[Leaf, Layer]] = {}
        """Each [offload.NAME]: its table where it stands first, and its values."""

    def port(self, index: int) -> PortLayer:
        return self.ports.get(index) or PortLayer()


class Findings:
    """The problems and warnings so far, each `FILE: port.3.codec: text`."""

    def __init__(self, main_file: str) -> None:
        self.main_file = main_file
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def problem(self, leaf: Leaf, text: str) -> None:
        self.problems.append(f"{show_path(leaf.file)}: {leaf.path}: {text}")

    def warning(self, leaf: Leaf, text: str) -> None:
        self.warnings.append(f"{show_path(leaf.file)}: {leaf.path}: {text}")


def merge(documents: Iterable[tuple[str, Mapping[str, Any]]], found: Findings) -> Tree:
    """Merge the documents into one tree: key by key, the later document wins."""
    tree = Tree()
    for file, document in documents:
        for key, leaf in _entries(Leaf(document, file, ""), found).items():
            if key == "appliance":
                tree.appliance.update(_entries(leaf, found))
            elif key == "defaults":
                _merge_port(tree.defaults, leaf, found)
            elif key == "port":
                _merge_ports(tree, leaf, found)
            elif key == "retention":
                tree.retention.update(_entries(leaf, found))
            elif key == "offload":
                for name, table in _entries(leaf, found).items():
                    _, layer = tree.offloads.setdefault(name, (table, {}))
                    layer.update(_entries(table, found))
            else:
                close = suggestion(key, ["appliance", "defaults", "port", "retention", "offload"])
                known = "appliance, defaults, port.N, retention, offload.NAME"
                found.problem(leaf, f"unknown key (one of: {known}){close}")
    return tree


def _entries(table: Leaf, found: Findings) -> Layer:
    """The entries of a table, each with its own key path."""
    if not isinstance(table.value, Mapping):
        found.problem(table, f"must be a table, not {show(table.value)}")
        return {}
    prefix = f"{table.path}." if table.path else ""
    return {key: Leaf(value, table.file, prefix + _show_key(key)) for key, value in table.value.items()}


def _show_key(key: str) -> str:
    """A key as TOML writes it."""
    is_bare = key != "" and key.isascii() and all(char.isalnum() or char in "_-" for char in key)
    return key if is_bare and len(key) <= 60 else show(key)


def _merge_ports(tree: Tree, table: Leaf, found: Findings) -> None:
    for key, leaf in _entries(table, found).items():
        is_index = key.isascii() and key.isdigit() and len(key) <= 9 and str(int(key)) == key
        if not is_index:
            found.problem(leaf, "a port is a number without leading zeros, as in [port.3]")
            continue
        if int(key) not in tree.headers or is_written_by_commands(tree.headers[int(key)]):
            tree.headers[int(key)] = leaf
        _merge_port(tree.ports.setdefault(int(key), PortLayer()), leaf, found)


def _merge_port(layer: PortLayer, table: Leaf, found: Findings) -> None:
    entries = _entries(table, found)
    source = entries.pop("source", None)
    if source is not None:
        layer.sources.append(_entries(source, found))
    if table.path == "defaults" and "name" in entries:
        found.problem(entries.pop("name"), "a name is unique: it belongs in a [port.N]")
    for name in ("audio", "retention"):
        table_of = entries.pop(name, None)
        if table_of is not None:
            entries.update({f"{name}.{key}": leaf for key, leaf in _entries(table_of, found).items()})
    layer.values.update(entries)


def is_written_by_commands(leaf: Leaf) -> bool:
    return os.path.basename(leaf.file) == SET_NAME


def overridden(tree: Tree, main: Tree, indexes: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Each port that has another value than sdisup.toml says in so many words, and which. `main` is that file alone."""
    for index in indexes:
        of_main = _values(main, index)
        for key, leaf in _values(tree, index).items():
            was = of_main.get(key)
            if was is not None and was.value != leaf.value:
                here, there = show_path(leaf.file), show_path(was.file)
                text = f"{leaf.path}: {show(leaf.value)} holds, not {show(was.value)} as {was.path} in {there} says"
                yield index, f"{here}: {text}"


def _values(tree: Tree, index: int) -> Layer:
    """A port's values, each by its key; [defaults] and the port's own together, those of a source as `source.KEY`."""
    values: Layer = {}
    for layer in (tree.defaults, tree.port(index)):
        values.update(layer.values)
        for source in layer.sources:
            values.update({f"source.{key}": leaf for key, leaf in source.items()})
    return values


def find_leaf(tree: Tree, index: int, keys: Sequence[str], found: Findings) -> Leaf:
    """The value that an operator would change to mend one of `keys` ("codec", "source.rate") of a port.

    It is the first of `keys` that a document has, and the port's own table comes before [defaults].
    """
    for layer in (tree.port(index), tree.defaults):
        for key in keys:
            name = key.removeprefix("source.")
            tables = [layer.values] if name == key else layer.sources[::-1]
            for table in tables:
                if name in table:
                    return table[name]
    header = tree.headers.get(index)
    return Leaf(None, header.file if header else found.main_file, f"port.{index}.{keys[0]}")
