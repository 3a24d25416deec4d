"""Several TOML documents -> one, key by key, each value with the file and the key path where it stands.

The path and the file are what an operator needs to mend it, also when the value reached a port from
[defaults] or from a drop-in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdisup.config import table as settings_table
from sdisup.config.table import PORT, SOURCE_KINDS, show, show_path, suggestion


@dataclass(frozen=True)
class Leaf:
    """A value, the file it stands in, and its key path there."""

    value: Any
    file: str
    path: str


Layer = dict[str, Leaf]


@dataclass
class PortLayer:
    """[defaults] or a [port.N]. `sources` are its source tables, in the order of their files."""

    values: Layer = field(default_factory=dict)
    sources: list[Layer] = field(default_factory=list)


@dataclass
class Tree:
    """All documents together. `headers`: where each [port.N] was first seen."""

    appliance: Layer = field(default_factory=dict)
    defaults: PortLayer = field(default_factory=PortLayer)
    ports: dict[int, PortLayer] = field(default_factory=dict)
    headers: dict[int, Leaf] = field(default_factory=dict)

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
    """The documents as one, a later one winning key by key."""
    tree = Tree()
    for file, document in documents:
        for key, leaf in _entries(Leaf(document, file, ""), found).items():
            if key == "appliance":
                tree.appliance.update(_entries(leaf, found))
            elif key == "defaults":
                _merge_port(tree.defaults, leaf, found)
            elif key == "port":
                _merge_ports(tree, leaf, found)
            else:
                close = suggestion(key, ["appliance", "defaults", "port"])
                found.problem(leaf, f"unknown key (one of: appliance, defaults, port.N){close}")
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
        tree.headers.setdefault(int(key), leaf)
        _merge_port(tree.ports.setdefault(int(key), PortLayer()), leaf, found)


def _merge_port(layer: PortLayer, table: Leaf, found: Findings) -> None:
    entries = _entries(table, found)
    source = entries.pop("source", None)
    if source is not None:
        layer.sources.append(_entries(source, found))
    if table.path == "defaults" and "name" in entries:
        found.problem(entries.pop("name"), "a name is unique: it belongs in a [port.N]")
    layer.values.update(entries)


def check_layer(layer: Layer, section: str, found: Findings) -> tuple[dict[str, Any], set[str]]:
    """The section's values, with the table's default for what is missing or wrong; and what is wrong."""
    table = settings_table.rows(section)
    values = {key: setting.default for key, setting in table.items()}
    wrong = set()
    for key, leaf in layer.items():
        try:
            if key not in table:
                raise ValueError(_unknown_key(key, section))
            values[key] = settings_table.check_value(table[key], leaf.value)
        except ValueError as error:
            found.problem(leaf, str(error))
            wrong.add(key)
    return values, wrong


def _unknown_key(key: str, section: str) -> str:
    keys = [*settings_table.rows(section), *(["source"] if section == PORT else [])]
    place = f" of a {section} source" if section in SOURCE_KINDS else ""
    return f"unknown key{place}" + (suggestion(key, keys) or f" (one of: {', '.join(keys)})")


def fold_source(layers: Iterable[Layer], found: Findings) -> tuple[str, Layer] | None:
    """The kind and the options that source tables give together; None when a kind is wrong.

    A source with another kind replaces what was before it, the same or no kind adds to it.
    """
    kind = settings_table.DEFAULT_SOURCE_KIND
    options: Layer = {}
    for layer in layers:
        leaf = layer.get("kind")
        if leaf is not None and leaf.value != kind:
            if not isinstance(leaf.value, str) or leaf.value not in SOURCE_KINDS:
                found.problem(leaf, _unknown_kind(leaf.value))
                return None
            kind, options = leaf.value, {}
        options = {**options, **{key: value for key, value in layer.items() if key != "kind"}}
    return kind, options


def _unknown_kind(value: object) -> str:
    close = suggestion(value, list(SOURCE_KINDS)) if isinstance(value, str) else ""
    return f"unknown kind {show(value)} (one of: {', '.join(SOURCE_KINDS)}){close}"


def find_leaf(tree: Tree, index: int, keys: Sequence[str], found: Findings) -> Leaf:
    """Where an operator would mend one of `keys` ("codec", "source.rate") of a port.

    The first of them that is written down, the port's own before the defaults.
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
