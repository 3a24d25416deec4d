"""sdisup.toml and sdisup.toml.d/*.toml -> checked, frozen values.

`Settings.load` reads files; everything else is pure. Later files win key by key. Each value remembers
the file it came from, because that is the file that an operator has to edit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from sdisup import codecs, settings_table
from sdisup.errors import ConfigError
from sdisup.settings_docs import settings_markdown, starter_toml
from sdisup.settings_table import APPLIANCE, PORT, SOURCE_KINDS, ascii_safe, show, suggestion

__all__ = [
    "DEFAULT_PATH",
    "Port",
    "Settings",
    "Source",
    "override_port",
    "parse_settings",
    "settings_markdown",
    "starter_toml",
]

DEFAULT_PATH = "/etc/sdisup/sdisup.toml"
MAX_FILE_BYTES = 1024 * 1024

# An SDI input that lost its signal blocks FFmpeg for 10 s, and 20 s while it starts (VIDEOMASTER 7, 8).
VIDEOMASTER_BLOCKS_S = 10.0
_LIMITS_S = {"stall_timeout_s": 5.0, "stop_quit_s": 3.0}
_VIDEOMASTER_LIMITS_S = {"stall_timeout_s": 12.0, "stop_quit_s": 12.0, "stop_start_quit_s": 22.0}


@dataclass(frozen=True)
class Source:
    """What a port records: a kind of settings_table.SOURCE_KINDS and all of its options."""

    kind: str
    options: Mapping[str, Any]

    def __str__(self) -> str:
        """The source in an operator's words, as it stands in messages and descriptions."""
        if self.kind == "videomaster":
            return f"board {self.options['board']} channel {self.options['channel']}"
        return f"{self.kind} source"


@dataclass(frozen=True)
class Port:
    """A configured port: every key of the table's "port" section, with its default where none was given.

    `bitrate_kbps` is 0 where the codec's profile decides. `stop_start_quit_s` stands in for `stop_quit_s`
    while FFmpeg has not delivered a frame.
    """

    index: int
    name: str
    source: Source
    codec: str
    container: str
    bitrate_kbps: int
    preset: str
    prores_profile: str
    threads: int
    record_at_boot: bool
    recordings: str
    stall_timeout_s: float
    start_timeout_s: float
    sync_interval_s: float
    stop_quit_s: float
    stop_start_quit_s: float
    stop_term_s: float

    @property
    def label(self) -> str:
        """The port as messages name it: `port 3 (CAM3)`, or `port 3` when it has no name of its own."""
        return f"port {self.index}" if self.name == f"port{self.index}" else f"port {self.index} ({self.name})"


@dataclass(frozen=True)
class Settings:
    """A whole configuration. `ports` holds the enabled ones by index, ascending."""

    path: str
    port_count: int
    recordings: str
    ffmpeg: str
    ports: Mapping[int, Port]
    warnings: tuple[str, ...] = ()

    @property
    def deltacast_port_count(self) -> int:
        """The same as `port_count`, by the name that the Python interface promised."""
        return self.port_count

    @classmethod
    def load(cls, path: str = DEFAULT_PATH) -> Settings:
        """The configuration of `path` and of the *.toml in `path`.d, in the order of their names.

        Raises ConfigError with all that is wrong in any of the files.
        """
        documents: list[tuple[str, dict[str, Any]]] = []
        problems: list[str] = []
        hint = ""
        for name in [path, *_drop_ins(path)]:
            try:
                documents.append((name, _read_toml(name)))
            except ConfigError as error:
                problems += error.problems
                hint = hint or error.hint
        # What could be read is checked all the same: one run tells everything.
        try:
            settings = parse_settings(documents)
        except ConfigError as error:
            # Without the main file the others' ports and sources are judged against mere defaults.
            main_is_read = bool(documents) and documents[0][0] == path
            raise ConfigError(problems + (error.problems if main_is_read else []), hint) from None
        if problems:
            raise ConfigError(problems, hint)
        return replace(settings, path=path)


def parse_settings(documents: Sequence[tuple[str, Mapping[str, Any]]]) -> Settings:
    """The settings that `documents`, pairs of file name and parsed TOML, hold together.

    Raises ConfigError with every problem, each naming the file that the value came from.
    """
    found = _Findings(documents[0][0] if documents else "sdisup.toml")
    tree = _merge(documents, found)
    appliance = _check_layer(tree.appliance, APPLIANCE, found)
    port_count = appliance["ports"] if appliance else settings_table.MAX_PORTS
    _check_indexes(tree, port_count, found)
    _check_layer(tree.defaults.values, PORT, found)
    _fold_source(tree.defaults.sources, found, defaults_only=True)
    resolved = [_resolve_port(index, tree, appliance, found) for index in range(port_count)]
    ports = [port for port in resolved if port is not None]
    _check_names(ports, tree, found)
    _check_channels(ports, tree, found)
    if found.problems or appliance is None:
        raise ConfigError(list(dict.fromkeys(found.problems)))
    return Settings(
        path=found.main_file,
        port_count=port_count,
        recordings=appliance["recordings"],
        ffmpeg=appliance["ffmpeg"],
        ports=MappingProxyType({port.index: port for port in ports}),
        warnings=tuple(dict.fromkeys(found.warnings)),
    )


def override_port(
    port: Port, *, codec: str | None = None, container: str | None = None, recordings: str | None = None
) -> Port:
    """`port` with another codec, container or directory, as one take may ask for.

    A codec brings its own container and bit rate where the port's do not suit it. Raises ConfigError.
    """
    table = settings_table.rows(PORT)
    found = _Findings(port.label)
    given = {"codec": codec, "container": container, "recordings": recordings}
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        try:
            checked[key] = settings_table.check_value(table[key], value)
        except ValueError as error:
            found.problems.append(f"{port.label}: {key}: {error}")
    if not found.problems:
        changed = codecs.CODECS[checked.get("codec", port.codec)]
        if changed.name != port.codec:
            checked["bitrate_kbps"] = changed.bitrate_kbps
        if "container" not in checked and port.container not in changed.containers:
            checked["container"] = changed.default_container
        port = replace(port, **checked)
        found.problems += [f"{port.label}: {keys[0]}: {text}" for keys, text in _combination_problems(port)]
    if found.problems:
        raise ConfigError(found.problems)
    return port


# ---- Files ----


def _drop_ins(path: str) -> list[str]:
    """The files of `path`.d, sorted; none when there is no such directory."""
    directory = path + ".d"
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
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError([f"{name}: {error}"]) from None


def _read_text(path: str) -> str:
    name = show_path(path)
    try:
        data = _read_bytes(path)
    except FileNotFoundError:
        raise ConfigError([f"{name}: there is no such file"], "`sdisup init` writes a starter file") from None
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
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        return file.read(MAX_FILE_BYTES + 1)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def show_path(path: str) -> str:
    """A path as it may stand in a message: printable and on one line."""
    return path if path.isprintable() else ascii_safe(repr(path))


# ---- Merging: the TOML documents, key by key, each value with where it stands ----


@dataclass(frozen=True)
class _Leaf:
    """A value, the file it stands in, and its key path there."""

    value: Any
    file: str
    path: str


_Layer = dict[str, _Leaf]


@dataclass
class _PortLayer:
    """[defaults] or a [port.N]. `sources` are its source tables, in the order of their files."""

    values: _Layer = field(default_factory=dict)
    sources: list[_Layer] = field(default_factory=list)


@dataclass
class _Tree:
    appliance: _Layer = field(default_factory=dict)
    defaults: _PortLayer = field(default_factory=_PortLayer)
    ports: dict[int, _PortLayer] = field(default_factory=dict)
    headers: dict[int, _Leaf] = field(default_factory=dict)  # where each [port.N] was first seen


class _Findings:
    """The problems and warnings so far."""

    def __init__(self, main_file: str) -> None:
        self.main_file = main_file
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def problem(self, leaf: _Leaf, text: str) -> None:
        self.problems.append(f"{show_path(leaf.file)}: {leaf.path}: {text}")

    def warning(self, leaf: _Leaf, text: str) -> None:
        self.warnings.append(f"{show_path(leaf.file)}: {leaf.path}: {text}")


def _merge(documents: Iterable[tuple[str, Mapping[str, Any]]], found: _Findings) -> _Tree:
    tree = _Tree()
    for file, document in documents:
        for leaf in _leaves(_Leaf(document, file, ""), found).values():
            if leaf.path == "appliance":
                tree.appliance.update(_leaves(leaf, found))
            elif leaf.path == "defaults":
                _merge_port(tree.defaults, leaf, found)
            elif leaf.path == "port":
                _merge_ports(tree, leaf, found)
            else:
                close = suggestion(leaf.path, ["appliance", "defaults", "port"])
                found.problem(leaf, f"unknown key (one of: appliance, defaults, port.N){close}")
    return tree


def _leaves(table: _Leaf, found: _Findings) -> _Layer:
    """The entries of a table, each with its own key path."""
    if not isinstance(table.value, Mapping):
        found.problem(table, f"must be a table, not {show(table.value)}")
        return {}
    prefix = f"{table.path}." if table.path else ""
    return {
        key: _Leaf(value, table.file, prefix + _show_key(key)) for key, value in table.value.items()
    }


def _show_key(key: str) -> str:
    """A key as TOML writes it."""
    is_bare = key != "" and key.isascii() and all(char.isalnum() or char in "_-" for char in key)
    return key if is_bare else show(key)


def _merge_ports(tree: _Tree, table: _Leaf, found: _Findings) -> None:
    for key, leaf in _leaves(table, found).items():
        is_index = key.isascii() and key.isdigit() and len(key) <= 9 and str(int(key)) == key
        if not is_index:
            found.problem(leaf, "a port is a number without leading zeros: [port.3]")
            continue
        tree.headers.setdefault(int(key), leaf)
        _merge_port(tree.ports.setdefault(int(key), _PortLayer()), leaf, found)


def _merge_port(layer: _PortLayer, table: _Leaf, found: _Findings) -> None:
    entries = _leaves(table, found)
    source = entries.pop("source", None)
    layer.values.update(entries)
    if source is not None:
        layer.sources.append(_leaves(source, found))
    if table.path == "defaults" and "name" in entries:
        found.problem(layer.values.pop("name"), "a name is unique: it belongs in [port.N]")


# ---- Checking ----


def _check_layer(layer: _Layer, section: str, found: _Findings) -> dict[str, Any] | None:
    """The layer's values with the table's defaults for the missing; None when one of them is wrong."""
    table = settings_table.rows(section)
    values = {key: setting.default for key, setting in table.items()}
    is_good = True
    for key, leaf in layer.items():
        try:
            if key not in table:
                raise ValueError(_unknown_key(key, section))
            values[key] = settings_table.check_value(table[key], leaf.value)
        except ValueError as error:
            found.problem(leaf, str(error))
            is_good = False
    return values if is_good else None


def _unknown_key(key: str, section: str) -> str:
    keys = list(settings_table.rows(section)) + {PORT: ["source"]}.get(section, [])
    close = suggestion(key, keys)
    place = f" of a {section} source" if section in SOURCE_KINDS else ""
    return f"unknown key{place}{close}" if close else f"unknown key{place} (one of: {', '.join(keys)})"


def _check_indexes(tree: _Tree, port_count: int, found: _Findings) -> None:
    for index, leaf in tree.headers.items():
        if index >= port_count:
            found.problem(leaf, f"there is no such port: [appliance] ports = {port_count} makes 0 to {port_count - 1}")


def _fold_source(layers: Iterable[_Layer], found: _Findings, defaults_only: bool = False) -> tuple[str, _Layer] | None:
    """The kind and options that `layers` give together; None when the kind is wrong.

    A source with another kind replaces what was before it, the same or no kind adds to it.
    """
    kind = settings_table.DEFAULT_SOURCE_KIND
    options: _Layer = {}
    for layer in layers:
        leaf = layer.get("kind")
        if leaf is not None and leaf.value != kind:
            if not isinstance(leaf.value, str) or leaf.value not in SOURCE_KINDS:
                close = suggestion(leaf.value, list(SOURCE_KINDS)) if isinstance(leaf.value, str) else ""
                found.problem(leaf, f"unknown kind {show(leaf.value)} (one of: {', '.join(SOURCE_KINDS)}){close}")
                return None
            kind, options = leaf.value, {}
        options = {**options, **{key: value for key, value in layer.items() if key != "kind"}}
    if defaults_only:
        _check_layer(options, kind, found)
    return kind, options


def _resolve_port(
    index: int, tree: _Tree, appliance: Mapping[str, Any] | None, found: _Findings
) -> Port | None:
    """The port, or None when it is disabled or something is wrong with it."""
    own = tree.ports.get(index, _PortLayer())
    layer = {**tree.defaults.values, **own.values}
    values = _check_layer(layer, PORT, found)
    source = _resolve_source(index, [*tree.defaults.sources, *own.sources], found)
    if values is None or source is None or appliance is None or not values.pop("enabled"):
        return None
    port = _build_port(index, values, source, appliance["recordings"])
    problems = _combination_problems(port)
    for keys, text in problems:
        found.problem(_find_leaf(index, keys, tree), text)
    for keys, text in _doubts(port, own):
        found.warning(_find_leaf(index, keys, tree), text)
    return None if problems else port


def _resolve_source(index: int, layers: list[_Layer], found: _Findings) -> Source | None:
    folded = _fold_source(layers, found)
    if folded is None:
        return None
    kind, layer = folded
    options = _check_layer(layer, kind, found)
    if options is None:
        return None
    if kind == "videomaster" and options["channel"] is None:
        options["channel"] = index
    return Source(kind, MappingProxyType(options))


def _build_port(index: int, values: dict[str, Any], source: Source, recordings: str) -> Port:
    """The port, with the defaults that depend on other settings."""
    codec = codecs.CODECS[values["codec"]]
    limits_s = {**_LIMITS_S, **(_VIDEOMASTER_LIMITS_S if source.kind == "videomaster" else {})}
    own_quit_s = values["stop_quit_s"] or 0.0
    start_quit_s = max(limits_s.get("stop_start_quit_s", 0.0), own_quit_s or limits_s["stop_quit_s"])
    derived: dict[str, Any] = {
        "name": f"port{index}",
        "recordings": recordings,
        "container": codec.default_container,
        "bitrate_kbps": codec.bitrate_kbps,
        **limits_s,
        "stop_start_quit_s": start_quit_s,
    }
    complete: dict[str, Any] = {key: derived[key] if value is None else value for key, value in values.items()}
    if codec.bitrate_kbps == 0:
        complete["bitrate_kbps"] = 0
    return Port(index=index, source=source, **complete)


def _find_leaf(index: int, keys: Sequence[str], tree: _Tree) -> _Leaf:
    """Where an operator would mend one of `keys`: the first that is written down, the port's own first."""
    for layer in (tree.ports.get(index, _PortLayer()), tree.defaults):
        for key in keys:
            tables = [layer.values] if "." not in key else list(reversed(layer.sources))
            for table in tables:
                if key.removeprefix("source.") in table:
                    return table[key.removeprefix("source.")]
    header = tree.headers.get(index)
    return _Leaf(None, header.file if header else _any_file(tree), f"port.{index}.{keys[0]}")


def _any_file(tree: _Tree) -> str:
    layers = [tree.defaults.values, *tree.defaults.sources, tree.appliance]
    return next((leaf.file for layer in layers for leaf in layer.values()), "sdisup.toml")


_Remark = tuple[tuple[str, ...], str]  # the keys that it is about, the first being the one to change; the text


def _combination_problems(port: Port) -> list[_Remark]:
    """What cannot work although each value by itself can."""
    problems: list[_Remark] = []
    codec = codecs.CODECS[port.codec]
    rate = port.source.options["rate"]
    if port.container not in codec.containers:
        text = f"{port.container} cannot hold {port.codec} (one of: {', '.join(codec.containers)})"
        problems.append((("container", "codec"), text))
    threads_max = codecs.max_threads(codec, rate)
    if port.threads > threads_max:
        text = (
            f"{port.threads} threads of {port.codec} at {rate} frames a second keep back more than"
            f" {codecs.HOLD_BACK_LIMIT_S} s, which a crash would lose: at most {threads_max}"
        )
        problems.append((("threads", "codec", "source.rate"), text))
    channels = port.source.options.get("audio_channels", 0)
    if channels > codec.audio_channels_max:
        text = f"{port.codec} is recorded with at most {codec.audio_channels_max} audio channels, not {channels}"
        problems.append((("source.audio_channels", "codec"), text))
    return problems


def _doubts(port: Port, own: _PortLayer) -> list[_Remark]:
    """What works, but hardly as it was meant."""
    doubts: list[_Remark] = []
    if port.bitrate_kbps == 0 and "bitrate_kbps" in own.values:
        text = f"{port.codec} takes its bit rate from prores_profile; this has no effect"
        doubts.append((("bitrate_kbps",), text))
    if port.source.kind == "videomaster":
        doubts += _videomaster_doubts(port)
    if port.sync_interval_s > 1:
        text = f"a power cut may cost {port.sync_interval_s + codecs.HOLD_BACK_LIMIT_S:g} s of material"
        doubts.append((("sync_interval_s",), text))
    return doubts


def _videomaster_doubts(port: Port) -> list[_Remark]:
    doubts: list[_Remark] = []
    clock = port.source.options["timestamp_source"]
    if clock != "osc":
        text = f"'{clock}' loses pictures when a clock steps, at midnight or after days; 'osc' does not"
        doubts.append((("source.timestamp_source",), text))
    for key, value in (("stall_timeout_s", port.stall_timeout_s), ("stop_quit_s", port.stop_quit_s)):
        if value <= VIDEOMASTER_BLOCKS_S:
            text = f"an SDI input without a signal blocks FFmpeg for {VIDEOMASTER_BLOCKS_S:g} s; {value:g} s is too"
            doubts.append(((key,), text + " short to close the file properly"))
    return doubts


def _check_names(ports: Iterable[Port], tree: _Tree, found: _Findings) -> None:
    owners: dict[str, Port] = {}
    for port in ports:
        other = owners.setdefault(port.name.lower(), port)
        if other is not port:
            # The default name of a port is not what an operator can change; the given one is.
            given = port if "name" in tree.ports.get(port.index, _PortLayer()).values else other
            rival = other if given is port else port
            leaf = _find_leaf(given.index, ("name",), tree)
            found.problem(leaf, f"port {rival.index} is called {rival.name!r} already (capitals do not matter)")


def _check_channels(ports: Iterable[Port], tree: _Tree, found: _Findings) -> None:
    owners: dict[tuple[int, int], Port] = {}
    for port in ports:
        if port.source.kind != "videomaster":
            continue
        options = port.source.options
        other = owners.setdefault((options["board"], options["channel"]), port)
        if other is not port:
            leaf = _find_leaf(port.index, ("source.channel", "source.board"), tree)
            text = f"port {port.index} would read {port.source}, which port {other.index} reads"
            found.problem(leaf, f"{text}: a channel has one reader")
