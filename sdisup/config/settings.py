"""sdisup.toml and sdisup.toml.d/*.toml -> checked, frozen values.

`Settings.load` reads the files. `parse_settings` merges them (documents.py), checks each value by its row (table.py),
then checks the values together. Whatever the documents hold, the outcome is Settings or a ConfigError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any

from sdisup.config import codecs, names, rasters
from sdisup.config import retention as retaining
from sdisup.config.documents import (
    Findings,
    Layer,
    Leaf,
    Tree,
    find_leaf,
    is_written_by_commands,
    merge,
    overridden,
    read_documents,
)
from sdisup.config.offloads import NAME, NAME_DOC, Offload, check_together, offload_of
from sdisup.config.planned import Planned, starts_in
from sdisup.config.sound import channels_of, sound_problems
from sdisup.config.table import (
    APPLIANCE,
    MAX_PORTS,
    OFFLOAD,
    PORT,
    RETENTION,
    SOURCE_LIMITS,
    check_layer,
    fold_source,
    rows,
)
from sdisup.contract.files import CONFIGURATION_PATH
from sdisup.contract.names import DEFAULT, replaced
from sdisup.contract.records import Record
from sdisup.contract.retention import NO_RULES, Retention, Rules
from sdisup.contract.timecode import CLOCK, NONE, SOURCE, Counting, counting
from sdisup.errors import ConfigError
from sdisup.sources.base import PROGRESSIVE, Remark, Source
from sdisup.sources.values import AUTO_RATE, FPS, SLOWEST_RATE, show

BURST_S = 40.0
"""A stream's server may send so much at once, as it comes (runner/pace.py, BUFFERED_S)."""

Refusals = Callable[[Sequence[str]], Mapping[str, str]]


class Port(Record):
    """A configured port: every key of the table's "port" section, with its default where the configuration lacks it.

    `bitrate_kbps` is 0 where the codec's profile or `quality` alone decides the bit rate, `quality` where it does not,
    and `gop_frames` for a second's. `stop_start_quit_s` counts in place of `stop_quit_s` while FFmpeg has not delivered
    a frame. `audio_codec`, `audio_tracks` and `audio_channels` are empty where they depend on the codec and the source
    (config/sound.py).
    """

    index: int
    name: str
    source: Source
    codec: str
    container: str
    bitrate_kbps: int
    quality: int
    gop_frames: int
    encoder: str
    pixel_format: str
    preset: str
    prores_profile: str
    dnx_profile: str
    raster: str
    colour: str
    encoder_options: tuple[str, ...]
    timecode: str
    threads: int
    record_at_boot: bool
    lock: bool
    schedule: tuple[Planned, ...]
    pre_roll_s: float
    post_roll_s: float
    recordings: str
    file_name: str
    audio_codec: str
    audio_tracks: str
    audio_channels: tuple[int, ...]
    segment_s: float
    segment_on_clock: bool
    space_warning_h: float
    retention: Rules
    stall_timeout_s: float
    start_timeout_s: float
    sync_interval_s: float
    stop_quit_s: float
    stop_start_quit_s: float
    stop_term_s: float

    @property
    def codec_has_hardware(self) -> bool:
        """Whether graphics cards know the codec."""
        return self.codec in codecs.HARDWARE_PIXEL_FORMATS

    @property
    def fits_hardware(self) -> bool:
        """Whether graphics cards encode what the port records."""
        return self.pixel_format in codecs.HARDWARE_PIXEL_FORMATS.get(self.codec, ()) and not self.source.is_interlaced

    @property
    def ffmpeg_encoder(self) -> str:
        """FFmpeg's name of the encoder; software where it is not chosen yet."""
        is_hardware = self.encoder in codecs.HARDWARE and self.fits_hardware
        return f"{self.codec}_{self.encoder}" if is_hardware else codecs.CODECS[self.codec].encoder

    @property
    def file_s(self) -> float:
        """How long a file is, in seconds; 0 where the recording is one file."""
        is_one = self.container in codecs.ONE_FILE or (codecs.CODECS[self.codec].is_copied and self.container != "mkv")
        return 0.0 if is_one else self.segment_s

    @property
    def is_on_clock(self) -> bool:
        """Whether its files begin by the clock."""
        return self.segment_on_clock and self.file_s > 0

    @property
    def label(self) -> str:
        """The port as messages name it: `port 3 (CAM3)`, or `port 3` when it has no name of its own."""
        own_name = "" if self.name == f"port{self.index}" else f" ({self.name})"
        return f"port {self.index}{own_name}"


class Settings(Record):
    """A whole configuration. `ports` holds the enabled ports by index, ascending.

    `warnings` name settings that are valid and hardly do what the operator meant; they have the form of ConfigError's
    problems. `overridden` has by port's index where another file holds against what sdisup.toml says.
    """

    path: str
    port_count: int
    recordings: str
    ffmpeg: str
    ports: Mapping[int, Port]
    warnings: tuple[str, ...] = ()
    overridden: tuple[tuple[int, str], ...] = ()
    offloads: tuple[Offload, ...] = ()
    retention: Retention = NO_RULES

    @property
    def deltacast_port_count(self) -> int:
        """The same as `port_count`, under the name that the Python interface promised."""
        return self.port_count

    def overridden_of(self, *indexes: int) -> tuple[str, ...]:
        """Where another file holds for these ports (all ports without one); each once, also if it is for several."""
        return tuple(dict.fromkeys(text for index, text in self.overridden if index in (indexes or self.ports)))

    def directories(self) -> list[str]:
        """The directories that recordings go to, each once."""
        return list(dict.fromkeys(port.recordings for port in self.ports.values()))

    @classmethod
    def load(cls, path: str = CONFIGURATION_PATH, refusals: Refusals | None = None) -> Settings:
        """The configuration of `path` and of the *.toml in `path`.d, in the order of their names.

        `refusals` has systemd's words for the calendar expressions that it refuses. Raises ConfigError with every
        problem in any of the files.
        """
        documents, problems, hint = read_documents(path)
        if not any(name == path for name, _ in documents):
            # Without the main file the other files would be checked against defaults that nobody chose.
            raise ConfigError(problems, hint)
        try:
            settings = parse_settings(documents, refusals)
        except ConfigError as error:
            raise ConfigError(problems + error.problems, hint, error.valid) from None
        if problems:
            raise ConfigError(problems, hint, settings)
        return settings


def parse_settings(documents: Sequence[tuple[str, Mapping[str, Any]]], refusals: Refusals | None = None) -> Settings:
    """The settings that `documents`, pairs of file name and parsed TOML, hold together; `refusals` as of Settings.load.

    Raises ConfigError with every problem, each with the file that the value came from, and with what is valid.
    """
    found = Findings(documents[0][0] if documents else "sdisup.toml")
    tree = merge(documents, found)
    appliance, wrong = check_layer(tree.appliance, APPLIANCE, found)
    port_count = MAX_PORTS if "ports" in wrong else appliance["ports"]
    for index, leaf in tree.headers.items():
        if index >= port_count:
            _miss_port(leaf, port_count, found)
    # A default has to be valid also where every port overrides it.
    check_layer(tree.defaults.values, PORT, found)
    kind, options, _ = fold_source(tree.defaults.sources, found)
    check_layer(options, kind.kind, found)
    ports: list[Port] = []
    valid: list[Port] = []
    for index in range(port_count):
        before = len(found.problems)
        port = _resolve_port(index, tree, appliance["recordings"], found)
        if port is not None:
            ports.append(port)
            valid += [port] if len(found.problems) == before else []
    _check_names(ports, tree, found)
    _check_devices(ports, tree, found)
    _check_files(ports, tree, found)
    if refusals is not None:
        _check_starts(port_count, tree, found, refusals)
    offloads = _offloads(tree, ports, found)
    retention = _retention(tree, ports, offloads, found)
    main = merge(documents[:1], Findings(found.main_file))
    settings = Settings(
        path=found.main_file,
        port_count=port_count,
        recordings=appliance["recordings"],
        ffmpeg=appliance["ffmpeg"],
        ports=MappingProxyType({port.index: port for port in valid}),
        warnings=tuple(dict.fromkeys(found.warnings)),
        overridden=tuple(overridden(tree, main, [port.index for port in valid])),
        offloads=offloads,
        retention=retention,
    )
    if found.problems:
        raise ConfigError(list(dict.fromkeys(found.problems)), valid=None if wrong else settings)
    return settings


def _miss_port(leaf: Leaf, port_count: int, found: Findings) -> None:
    """Tell of a [port.N] that is not there; one that a command wrote is none of the owner's, and is left out."""
    there_is = f"[appliance] ports = {port_count} makes 0 to {port_count - 1}"
    if is_written_by_commands(leaf):
        found.warning(leaf, f"there is no such port ({there_is}); the next sdisup enable or disable removes it")
    else:
        found.problem(leaf, f"there is no such port: {there_is}")


def override_port(
    port: Port, *, codec: str | None = None, container: str | None = None, recordings: str | None = None
) -> Port:
    """`port` with another codec, container or directory, which one take may ask for.

    Another codec has its default bit rate and pixel format, no options of the encoder, and its default container where
    it cannot be in the port's. Raises ConfigError.
    """
    table = rows(PORT)
    given = {"codec": codec, "container": container, "recordings": recordings}
    checked: dict[str, Any] = {}
    problems = []
    for key, value in given.items():
        try:
            if value is not None:
                checked[key] = table[key].check(value)
        except ValueError as error:
            problems.append(f"{port.label}: {key}: {error}")
    if problems:
        raise ConfigError(problems)
    changed = codecs.CODECS[checked.get("codec", port.codec)]
    if changed.name != port.codec:
        pixel_format = changed.default_pixel_format(getattr(port, changed.profile_setting, ""))
        checked |= {"bitrate_kbps": changed.bitrate_kbps, "quality": 0, "pixel_format": pixel_format}
        checked |= {"encoder_options": (), "encoder": codecs.SOFTWARE}
        if port.container not in changed.containers:
            checked.setdefault("container", changed.default_container)
    port = port.replaced(**checked)
    problems = [f"{port.label}: {keys[0]}: {text}" for keys, text in _combination_problems(port)]
    if problems:
        raise ConfigError(problems)
    return port


def _resolve_port(index: int, tree: Tree, recordings: str, found: Findings) -> Port | None:
    """The port; None when it is disabled or its source is wrong.

    A wrong value is replaced by its default, so that the other values are checked all the same.
    """
    own = tree.port(index)
    sources = [*tree.defaults.sources, *own.sources]
    values, wrong = check_layer({**tree.defaults.values, **own.values}, PORT, found)
    source, wrong_options = _build_source(index, sources, found)
    if not values.pop("enabled"):
        return None
    wrong_options |= _check_required(index, source, wrong_options, tree, found)
    wrong |= {f"source.{key}" for key in wrong_options}
    port = _build_port(index, values, source, recordings)
    for keys, text in _combination_problems(port):
        if not wrong.intersection(keys):
            found.problem(find_leaf(tree, index, keys, found), text)
    if wrong_options:
        return None
    for keys, text in _doubts(port, set(own.values)):
        found.warning(find_leaf(tree, index, keys, found), text)
    return port


def _build_source(index: int, layers: Iterable[Layer], found: Findings) -> tuple[Source, set[str]]:
    """The source, and which of its options are wrong: all of them where its kind is wrong."""
    kind, layer, is_known = fold_source(layers, found)
    given, wrong = check_layer(layer, kind.kind, found)
    defaults = kind.defaults(index)
    options = {key: defaults.get(key) if value is None else value for key, value in given.items()}
    return kind(MappingProxyType(options)), wrong if is_known else set(options)


def _check_required(index: int, source: Source, wrong: set[str], tree: Tree, found: Findings) -> set[str]:
    """Report the required options that no table gives, and return them. `wrong` are those that were reported before."""
    table = rows(source.kind)
    missing = {key for key, row in table.items() if row.is_required and source.options[key] is None} - wrong
    for key in sorted(missing):
        found.problem(find_leaf(tree, index, (f"source.{key}",), found), f"is missing: {table[key].doc}")
    return missing


def _build_port(index: int, values: Mapping[str, Any], source: Source, recordings: str) -> Port:
    """The port, with the defaults that depend on other settings."""
    codec = codecs.CODECS[values["codec"]]
    container = values["container"] or codec.default_container
    has_timecode = container in codecs.TIMECODE_CONTAINERS and source.options["rate"] in FPS
    limits_s = {key: getattr(source, key) for key in SOURCE_LIMITS}
    stop_quit_s = values["stop_quit_s"] or limits_s["stop_quit_s"]
    derived: dict[str, Any] = {
        **limits_s,
        "stop_start_quit_s": max(limits_s["stop_start_quit_s"], stop_quit_s),
        "name": f"port{index}",
        "recordings": recordings,
        "audio_codec": "",
        "audio_tracks": "",
        "audio_channels": (),
        "container": container,
        "timecode": CLOCK if has_timecode else NONE,
        "bitrate_kbps": 0 if values["quality"] else codec.bitrate_kbps,
        "quality": 0,
        "gop_frames": 0,
        "pixel_format": codec.default_pixel_format(values.get(codec.profile_setting, "")),
        "encoder_options": (),
        "raster": source.options.get("size", rasters.RASTERS[0]),
    }
    derived["retention"] = retaining.rules_of(values, "retention.")
    given = {
        key.replace(".", "_"): value
        for key, value in values.items()
        if value is not None and not key.startswith("retention.")
    }
    if codec.bitrate_kbps == 0:
        given["bitrate_kbps"] = 0
    return Port(index=index, source=source, **{**derived, **given})


def _retention(tree: Tree, ports: Sequence[Port], offloads: Sequence[Offload], found: Findings) -> Retention:
    """The rules by which finished recordings go."""
    values, wrong = check_layer(tree.retention, RETENTION, found)
    own = {port.index: port.retention for port in ports if port.retention != Rules()}
    retention = Retention(retaining.rules_of(values), MappingProxyType(own))
    for text in retaining.doubts(retention, ports):
        found.warning(tree.retention.get("min_free", Leaf(None, found.main_file, "retention.min_free")), text)
    for key, text in retaining.common_problems(retention, ports):
        if key not in wrong:
            found.problem(tree.retention[key], text)
    copied = {index for offload in offloads for index in offload.ports or [port.index for port in ports]}
    for index in [
        port.index for port in ports if port.index not in copied and retention.value("after_copy", port.index)
    ]:
        is_own = retention.has_own("after_copy", index)
        leaf = find_leaf(tree, index, ("retention.after_copy",), found) if is_own else tree.retention["after_copy"]
        found.problem(leaf, f"no [offload.NAME] copies the files of port {index}, so that none of them would ever go")
    return retention


def _offloads(tree: Tree, ports: Iterable[Port], found: Findings) -> tuple[Offload, ...]:
    """The valid [offload.NAME], by name."""
    checked = []
    for name, (table, layer) in sorted(tree.offloads.items()):
        if not NAME.fullmatch(name):
            found.problem(table, f"{show(name)} cannot be a target's name: {NAME_DOC}")
            continue
        values, wrong = check_layer(layer, OFFLOAD, found)
        missing = [key for key, row in rows(OFFLOAD).items() if row.is_required and key not in layer]
        for key in missing:
            found.problem(Leaf(None, table.file, f"{table.path}.{key}"), f"is missing: {rows(OFFLOAD)[key].doc}")
        if not missing and "target" not in wrong:
            checked.append((offload_of(name, values), layer, table))
    check_together(checked, {port.index: port for port in ports}, found)
    return tuple(offload for offload, _, _ in checked)


def _check_names(ports: Iterable[Port], tree: Tree, found: Findings) -> None:
    owners: dict[str, Port] = {}
    for port in ports:
        other = owners.setdefault(port.name.lower(), port)
        if other is not port:
            # An operator can change only a name that is written down, so the problem is reported there.
            is_given = "name" in tree.port(port.index).values
            wrong, right = (port, other) if is_given else (other, port)
            text = f"port {right.index} is called '{right.name}' already (capitals do not matter)"
            found.problem(find_leaf(tree, wrong.index, ("name",), found), text)


def _check_devices(ports: Iterable[Port], tree: Tree, found: Findings) -> None:
    owners: dict[str, Port] = {}
    for port in ports:
        for device, keys in port.source.devices().items():
            other = owners.setdefault(device, port)
            if other is not port:
                text = f"port {port.index} would read {device}, which port {other.index} reads"
                leaf = find_leaf(tree, port.index, keys, found)
                found.problem(leaf, f"{text}: {port.source.device_word} has one reader")


def _check_files(ports: Sequence[Port], tree: Tree, found: Findings) -> None:
    """Report ports whose files could get one name: nobody could tell whose a file is."""
    # The default template tells ports apart by their names, which are unique, and their directories.
    if all(port.file_name == DEFAULT for port in ports):
        return
    relative = [names.paths_of(port.file_name, port.index, port.name) for port in ports]
    absolute = [names.paths_of(port.file_name, port.index, port.name, port.recordings) for port in ports]
    for (at, port), (other_at, other) in combinations(enumerate(ports), 2):
        paths = relative if port.recordings == other.recordings else absolute
        path = names.common_path(paths[at], paths[other_at])
        # That two ports have one name is said already.
        if path and port.name.lower() != other.name.lower():
            wrong = port if other.file_name == DEFAULT else other
            text = (
                f"{show(wrong.file_name)} could give files of port {port.index} and of port {other.index} one name,"
                f" such as {path}; tell them apart, as '{DEFAULT}' does"
            )
            found.problem(find_leaf(tree, wrong.index, ("file_name",), found), text)
            return


def _check_starts(port_count: int, tree: Tree, found: Findings, refusals: Refusals) -> None:
    """Report the calendar expressions that systemd does not take; it is asked for all of them at once."""
    leaves = [find_leaf(tree, index, ("schedule",), found) for index in range(port_count)]
    starts = [(leaf, number, start) for leaf in leaves for number, start in starts_in(leaf.value)]
    refused = refusals([start for _, _, start in starts])
    for leaf, number, start in starts:
        if start in refused:
            found.problem(leaf, f"entry {number}: start: {refused[start]}")


# ---- The values of a port together ----


def _combination_problems(port: Port) -> Iterator[Remark]:
    """The combinations of values with which no FFmpeg can record as sdisup promises."""
    codec = codecs.CODECS[port.codec]
    rate = port.source.options["rate"]
    rate_text = f"at least {SLOWEST_RATE}" if rate == AUTO_RATE else rate
    if port.container not in codec.containers:
        text = f"{port.container} cannot hold {port.codec} (one of: {', '.join(codec.containers)})"
        yield ("container", "codec"), text
    yield from _picture_problems(port, codec)
    threads_max = codecs.max_threads(codec, rate)
    if port.threads > threads_max:
        text = (
            f"{port.threads} threads of {port.codec} at {rate_text} frames a second keep back more than"
            f" {codecs.HOLD_BACK_LIMIT_S} s, which a crash would lose: at most {threads_max}"
        )
        yield ("threads", "codec", "source.rate"), text
    yield from _timecode_problems(port)
    yield from sound_problems(port)
    yield from _segment_problems(port)
    yield from retaining.port_problems(port)


def _segment_problems(port: Port) -> Iterator[Remark]:
    """Lengths of files that FFmpeg cannot keep: it begins a file with a key frame."""
    if not port.file_s:
        return
    rate = port.source.options["rate"]
    gop_s = port.gop_frames / codecs.slowest_fps(rate)
    if gop_s > port.file_s:
        text = f"a key frame comes each {gop_s:.4g} s at {rate} frames a second, and a file is to be {port.file_s:g} s"
        yield ("gop_frames", "segment_s", "source.rate"), f"{text} and begin with one"
    if port.segment_on_clock and codecs.LONGEST_SEGMENT_S % port.file_s:
        text = f"a day is no multiple of {port.file_s:g} s, so that files would begin at other times each day"
        yield ("segment_s", "segment_on_clock"), f"{text}; choose such as 600, 900, 1800 or 3600"


def _timecode_problems(port: Port) -> Iterator[Remark]:
    rate = port.source.options["rate"]
    if port.timecode == SOURCE and port.source.no_timecode:
        yield ("timecode",), f"{port.source.no_timecode}; there is clock, none, or a start such as 10:00:00:00"
    elif port.timecode not in (NONE, SOURCE) and rate == AUTO_RATE:
        yield ("timecode", "source.rate"), "frames are numbered by their rate, which is not known: say it (source.rate)"
    elif port.timecode not in (NONE, SOURCE, CLOCK):
        try:
            numbers_at(rate).frame(port.timecode)
        except ValueError as error:
            yield ("timecode", "source.rate"), f"{error} ({rate} frames a second)"


def numbers_at(rate: str) -> Counting:
    """How frames are numbered at one of the rates."""
    found = counting(FPS[rate])
    assert found is not None
    return found


def _picture_problems(port: Port, codec: codecs.Codec) -> Iterator[Remark]:
    """What the codec does not take: samples, fields, sizes, rates."""
    if codec.is_copied:
        raw = port.source.raw_reason()
        if raw:
            yield ("codec", "source.kind"), f"copy records what comes encoded, and {raw}: choose another codec"
        return
    profile = getattr(port, codec.profile_setting, "")
    pixel_formats = codec.pixel_formats_with(profile)
    with_profile = f" with the profile {profile}" if profile else ""
    if profile and profile not in codec.profiles:
        text = f"{codec.name} has no profile {profile} (one of: {', '.join(codec.profiles)})"
        yield ("dnx_profile", "codec"), text
    elif port.pixel_format not in pixel_formats:
        text = f"{codec.name}{with_profile} has no {port.pixel_format} (one of: {', '.join(pixel_formats)})"
        yield ("pixel_format", "codec"), text
    scan = port.source.options.get("scan", PROGRESSIVE)
    if scan not in (PROGRESSIVE, *codec.fields):
        others = ", ".join(other.name for other in codecs.CODECS.values() if scan in other.fields)
        text = f"FFmpeg does not encode a picture in fields ({scan}) in {codec.name}; it does in: {others}"
        yield ("codec", "source.scan"), text
    elif port.encoder in codecs.HARDWARE and port.codec_has_hardware and not port.fits_hardware:
        taken = f"progressive pictures of {' and '.join(codecs.HARDWARE_PIXEL_FORMATS[codec.name])}"
        text = f"{port.encoder} takes {taken} alone in {codec.name}; auto takes software for others"
        yield ("encoder", "codec", "pixel_format", "source.scan"), text
    elif codec.has_raster and (not profile or profile in codec.profiles):
        yield from _raster_problems(port, profile)


def _raster_problems(port: Port, profile: str) -> Iterator[Remark]:
    rate, is_interlaced = port.source.options["rate"], port.source.is_interlaced
    size = port.source.options.get("size", port.raster)
    if size != port.raster:
        text = f"{port.codec} is to take pictures of {port.raster}, and the source's are {size}"
        yield ("raster", "source.size", "codec"), text
    elif port.raster not in rasters.RASTERS:
        text = f"{port.codec} takes pictures of {' and '.join(rasters.RASTERS)}, and the source's are {size}"
        yield ("codec", "source.size"), text
    elif not rasters.is_taken(port.codec, profile, port.raster, is_interlaced, rate):
        named = f"{port.codec} {profile}".strip()
        scan = "interlaced" if is_interlaced else "progressive"
        choices = rasters.choices(port.codec, port.raster, is_interlaced)
        text = f"there is no {named} of {port.raster} {scan} at {rate} (there is: {choices})"
        yield ("codec", "dnx_profile", "raster", "source.rate", "source.scan", "source.size"), text


def _close_keys(port: Port) -> str:
    """Why key frames may be nearer to each other than the shortest file is long; "" where they are not."""
    codec = codecs.CODECS[port.codec]
    if codec.is_copied:
        return "key frames come as the source has them"
    if "gop_frames" not in codec.settings:
        return f"each frame of {codec.name} is a key frame"
    gop_s = port.gop_frames / codecs.fastest_fps(port.source.options["rate"])
    return f"a key frame comes each {gop_s:.4g} s (gop_frames)" if 0 < gop_s < codecs.SHORTEST_SEGMENT_S else ""


def _one_file(port: Port) -> str:
    if port.container in codecs.ONE_FILE:
        return f"FFmpeg loses a picture between two files of {port.container}, so that the recording is one file"
    if codecs.CODECS[port.codec].is_copied:
        return (
            f"a player loses pictures between two files of {port.container} with B frames, so that a copy is one file"
        )
    return "the recording is one file, without segment_s"


def _doubts(port: Port, own_keys: set[str]) -> Iterator[Remark]:
    """Settings that are valid and hardly do what the operator meant. `own_keys` are those of the port's own table."""
    is_copied = codecs.CODECS[port.codec].is_copied
    for key in (*codecs.CODEC_SETTINGS, *(("colour", "encoder_options", "threads") if is_copied else ())):
        if key in own_keys and key not in codecs.CODECS[port.codec].settings:
            yield (key,), f"{port.codec} has no use for it; this has no effect"
    if port.container == "mxf" and port.record_at_boot:
        text = "an mxf file that a crash or power cut ends has neither footer nor duration, and some programs refuse it"
        yield ("codec", "container", "record_at_boot"), text
    if port.schedule and port.record_at_boot:
        text = "the port records whenever the machine is up: its schedule begins and ends nothing until it is stopped"
        yield ("schedule", "record_at_boot"), text
    if port.segment_on_clock and not port.file_s:
        yield ("segment_on_clock", "segment_s", "container"), f"{_one_file(port)}; this has no effect"
    elif port.segment_s and not port.file_s and "segment_s" in own_keys:
        yield ("segment_s", "container"), f"{_one_file(port)}; this has no effect"
    elif port.segment_s and not port.file_s and port.record_at_boot:
        text = f"{_one_file(port)}, for as long as the port records: until it is restarted or cut --now"
        yield ("record_at_boot", "codec", "container"), text
    if port.is_on_clock and _close_keys(port):
        text = f"{_close_keys(port)}, so that a file which begins just before the moment, by the recording's start or a"
        yield ("segment_on_clock", "gop_frames", "codec"), f"{text} step of the clock, is as short as that"
    if is_copied and 0 < port.file_s < BURST_S:
        text = (
            f"a stream that begins with what its server holds, as HLS does, may fill files below {BURST_S:g} s faster"
        )
        yield ("segment_s", "codec"), f"{text} than the next one can be made, and FFmpeg then ends"
    channels, tracks = len(channels_of(port)), codecs.CODECS[port.codec].mono_tracks
    if 0 < channels < tracks:
        text = f"{port.codec} has {tracks} tracks of sound, and {channels} channels are recorded: the others are silent"
        yield ("audio.channels", "source.audio_channels", "codec"), text
    refused = replaced(port.file_name)
    if refused:
        yield ("file_name",), f"has {show(refused)}, which not every disk or Windows share takes: each becomes '_'"
    yield from port.source.doubts({key: getattr(port, key) for key in SOURCE_LIMITS})
    if port.sync_interval_s > 1:
        lost_s = port.sync_interval_s + codecs.HOLD_BACK_LIMIT_S
        yield ("sync_interval_s",), f"a power cut may cost {lost_s:g} s of material"
