"""The configuration: what it says, and that nothing that it could say ends otherwise than told."""

from __future__ import annotations

import dataclasses
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdisup.config import codecs
from sdisup.config import table as settings_table
from sdisup.config.settings import (
    Port,
    Settings,
    Source,
    override_port,
    parse_settings,
    settings_markdown,
    starter_toml,
)
from sdisup.config.text import EXAMPLES
from sdisup.errors import ConfigError

Document = dict[str, Any]
TEST = {"kind": "test"}


def parse(*documents: Document) -> Settings:
    return parse_settings([(f"{number}.toml", document) for number, document in enumerate(documents)])


def parse_toml(*texts: str) -> Settings:
    return parse(*[tomllib.loads(text) for text in texts])


def problems_of(*documents: Document) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(*documents)
    return caught.value.problems


# ---- What it says ----


def test_the_example_of_the_design() -> None:
    settings = parse_toml(
        """
        [appliance]
        ports = 8
        recordings = "/srv/recordings"
        ffmpeg = "/usr/bin/ffmpeg"
        [defaults]
        source = { kind = "videomaster" }
        codec = "h264"
        [port.3]
        name = "CAM3"
        record_at_boot = true
        codec = "prores"
        [port.4]
        source = { kind = "test", size = "1280x720", rate = 25 }
        """
    )
    assert settings.deltacast_port_count == settings.port_count == 8
    assert list(settings.ports) == list(range(8))
    cam3 = settings.ports[3]
    assert (cam3.name, cam3.codec, cam3.container, cam3.record_at_boot) == ("CAM3", "prores", "mov", True)
    assert (cam3.source.options["board"], cam3.source.options["channel"]) == (0, 3)
    assert cam3.label == "port 3 (CAM3)"
    assert settings.ports[4].source == Source("test", {"size": "1280x720", "rate": "25", "tone": True})
    assert (settings.ports[0].name, settings.ports[0].container) == ("port0", "mp4")
    assert settings.warnings == ()


def test_an_empty_configuration_is_the_defaults() -> None:
    settings = parse({})
    assert (settings.port_count, settings.recordings, settings.ffmpeg) == (
        8, "/srv/recordings", "/usr/bin/ffmpeg",
    )  # fmt: skip
    assert not any(port.record_at_boot for port in settings.ports.values())


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, {"stall_timeout_s": 12, "stop_quit_s": 12, "stop_start_quit_s": 22}),
        ({"source": TEST}, {"stall_timeout_s": 5, "stop_quit_s": 3, "stop_start_quit_s": 3}),
        ({"source": TEST, "stop_quit_s": 7}, {"stop_quit_s": 7, "stop_start_quit_s": 7}),
        ({"stop_quit_s": 30}, {"stop_quit_s": 30, "stop_start_quit_s": 30}),
        ({"source": TEST, "stop_start_quit_s": 1}, {"stop_quit_s": 3, "stop_start_quit_s": 1}),
        ({}, {"stop_term_s": 2, "sync_interval_s": 1}),
        ({"codec": "prores"}, {"container": "mov", "bitrate_kbps": 0}),
        ({"codec": "prores", "bitrate_kbps": 500}, {"bitrate_kbps": 0}),
        ({"recordings": "/a//b/./c/"}, {"recordings": "/a/b/c"}),
    ],
)
def test_defaults_that_depend_on_other_settings(document: Document, expected: Document) -> None:
    port = parse({"defaults": document}).ports[1]
    assert {key: getattr(port, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (25, "25"), (25.0, "25"), ("25", "25"), (23.976, "24000/1001"), (23.98, "24000/1001"),
        ("29.97", "30000/1001"), ("30000/1001", "30000/1001"), (59.94, "60000/1001"), (60, "60"), (24, "24"),
    ],
)  # fmt: skip
def test_rates_as_people_write_them(value: object, rate: str) -> None:
    document = {"defaults": {"source": {"kind": "test", "rate": value}}}
    assert parse(document).ports[0].source.options["rate"] == rate


def test_later_files_win_key_by_key() -> None:
    settings = parse_toml(
        '[appliance]\nports = 2\nrecordings = "/a"\n[port.1]\nname = "CAM1"\ncodec = "prores"',
        '[appliance]\nrecordings = "/b"\n[port.1]\ncodec = "h264"',
    )
    assert (settings.port_count, settings.recordings) == (2, "/b")
    assert (settings.ports[1].name, settings.ports[1].codec) == ("CAM1", "h264")


def test_a_source_of_the_same_or_no_kind_merges_and_another_kind_replaces() -> None:
    settings = parse(
        {
            "appliance": {"ports": 4},
            "defaults": {"source": {"kind": "videomaster", "board": 1, "scan": "tff"}},
            "port": {
                "0": {"source": {"channel": 7}},
                "1": {"source": {"kind": "videomaster", "channel": 6}},
                "2": {"source": {"kind": "test", "size": "320x180"}},
                "3": {"source": {"kind": "test", "tone": False}},
            },
        },
        {"port": {"2": {"source": {"rate": 50}}, "3": {"source": {"kind": "videomaster"}}}},
    )
    options = [settings.ports[index].source.options for index in range(4)]
    assert [(o["board"], o["channel"], o["scan"]) for o in options[:2]] == [(1, 7, "tff"), (1, 6, "tff")]
    assert options[2] == {"size": "320x180", "rate": "50", "tone": True}
    # Back to the first kind: what was said before the other kind is gone.
    assert (options[3]["board"], options[3]["scan"]) == (0, "progressive")


def test_disabled_ports_are_left_out() -> None:
    assert list(parse({"port": {"1": {"enabled": False}}}).ports) == [0, 2, 3, 4, 5, 6, 7]
    only_two = {"defaults": {"enabled": False}, "port": {"2": {"enabled": True}}}
    assert list(parse(only_two).ports) == [2]


# ---- What it refuses, and how ----


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"port": {"3": {"codec": "h265x"}}},
         "0.toml: port.3.codec: unknown codec 'h265x' (one of: h264, prores); did you mean 'h264'?"),
        ({"port": {"3": {"codek": "h264"}}}, "0.toml: port.3.codek: unknown key; did you mean 'codec'?"),
        ({"appliance": {"prots": 3}}, "0.toml: appliance.prots: unknown key; did you mean 'ports'?"),
        ({"default": {}}, "0.toml: default: unknown key (one of: appliance, defaults, port.N);"
         " did you mean 'defaults'?"),
        ({"appliance": {"ports": True}}, "0.toml: appliance.ports: must be a whole number, not true"),
        ({"appliance": {"ports": 65}}, "0.toml: appliance.ports: must be 1 to 64, not 65"),
        ({"appliance": {"ports": 4}, "port": {"9": {}}},
         "0.toml: port.9: there is no such port: [appliance] ports = 4 makes 0 to 3"),
        ({"port": {"01": {}}}, "0.toml: port.01: a port is a number without leading zeros, as in [port.3]"),
        ({"port": {"\u0661": {}}},
         "0.toml: port.'\u0661': a port is a number without leading zeros, as in [port.3]"),
        ({"port": 3}, "0.toml: port: must be a table, not 3"),
        ({"defaults": {"source": "test"}}, "0.toml: defaults.source: must be a table, not 'test'"),
        ({"defaults": {"source": {"kind": "tset"}}},
         "0.toml: defaults.source.kind: unknown kind 'tset' (one of: videomaster, decklink, v4l2, custom, test);"
         " did you mean 'test'?"),
        ({"defaults": {"source": {"kind": "test", "channel": 1}}},
         "0.toml: defaults.source.channel: unknown key of a test source (one of: size, rate, tone)"),
        ({"defaults": {"name": "CAM"}}, "0.toml: defaults.name: a name is unique: it belongs in a [port.N]"),
        ({"port": {"1": {"name": "A"}, "2": {"name": "a"}}},
         "0.toml: port.2.name: port 1 is called 'A' already (capitals do not matter)"),
        ({"port": {"1": {"name": "PORT2"}}},
         "0.toml: port.1.name: port 2 is called 'port2' already (capitals do not matter)"),
        ({"port": {"3": {"codec": "prores", "container": "mp4"}}},
         "0.toml: port.3.container: mp4 cannot hold prores (one of: mov, mkv)"),
        ({"defaults": {"container": "mp4"}, "port": {"3": {"codec": "prores"}}},
         "0.toml: port.3.codec: mp4 cannot hold prores (one of: mov, mkv)"),
        ({"defaults": {"threads": 16, "codec": "prores"}},
         "0.toml: defaults.threads: 16 threads of prores at 25 frames a second keep back more than 0.5 s,"
         " which a crash would lose: at most 8"),
        ({"port": {"2": {"source": {"audio_channels": 16}}}},
         "0.toml: port.2.source.audio_channels: h264 is recorded with at most 8 channels, not 16"),
        ({"port": {"2": {"source": {"channel": 1}}}},
         "0.toml: port.2.source.channel: port 2 would read board 0 channel 1, which port 1 reads:"
         " a channel has one reader"),
        ({"defaults": {"stall_timeout_s": float("nan")}},
         "0.toml: defaults.stall_timeout_s: must be 1 to 600 s, not nan"),
        ({"defaults": {"stall_timeout_s": "5"}},
         "0.toml: defaults.stall_timeout_s: must be a number, not '5'"),
        ({"defaults": {"record_at_boot": 1}},
         "0.toml: defaults.record_at_boot: must be true or false, not 1"),
        ({"defaults": {"bitrate_kbps": 16**5000}},
         "0.toml: defaults.bitrate_kbps: must be 100 to 400000 kbit/s, not a number with too many digits"),
        ({"defaults": {"source": {"sample_rate": 22050}}},
         "0.toml: defaults.source.sample_rate: 22050 is not possible (one of: 32000, 44100, 48000)"),
    ],
)  # fmt: skip
def test_messages(document: Document, problem: str) -> None:
    assert problem in problems_of(document)


@pytest.mark.parametrize(
    "path",
    [
        *("", "relative", "./x", "~/x", "/", "//", "/a/../b", "/" + "x" * 2000),
        *("/a\x00b", "/a\nb", "/a\x1b[2Jb", "/\ud800", 3, None, ["/a"]),
    ],
)
@pytest.mark.parametrize("section", ["appliance", "defaults"])
def test_paths_that_are_refused(section: str, path: object) -> None:
    (problem,) = problems_of({section: {"recordings": path}})
    assert problem.startswith(f"0.toml: {section}.recordings: ")
    assert problem.isprintable()


@pytest.mark.parametrize("name", ["3", "0-3", "", "a b", "a\n", "-a", "x" * 33, "ä", "a/b", "sdi-record@3", "a%n"])
def test_names_that_are_refused(name: str) -> None:
    (problem,) = problems_of({"port": {"1": {"name": name}}})
    assert problem.startswith("0.toml: port.1.name: ")


@pytest.mark.parametrize("size", ["", "720", "0x0", "1281x720", "99999x2", "-2x2", "720x576\n", "1280X720", 720])
def test_sizes_that_are_refused(size: object) -> None:
    assert len(problems_of({"defaults": {"source": {"kind": "test", "size": size}}})) == 1


@pytest.mark.parametrize("rate", [0, -25, 12, 10**400, float("inf"), float("nan"), True, "", "25/1", "1e1", [25]])
def test_rates_that_are_refused(rate: object) -> None:
    assert len(problems_of({"defaults": {"source": {"kind": "test", "rate": rate}}})) == 1


def test_all_problems_come_in_one_run_each_once_and_with_its_own_file() -> None:
    problems = problems_of(
        {"appliance": {"ports": 4, "ffmpeg": "ffmpeg"}, "defaults": {"codec": "h266", "threads": 0}},
        {"port": {"1": {"container": "mp4", "codec": "prores", "source": {"kind": "x"}, "preset": "best"}}},
        {"port": {"2": {"name": "1"}, "7": {}}, "defaults": {"source": {"board": -1}}},
    )
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["0.toml", "appliance.ffmpeg"],
        ["2.toml", "port.7"],
        ["0.toml", "defaults.codec"],
        ["0.toml", "defaults.threads"],
        ["2.toml", "defaults.source.board"],
        ["1.toml", "port.1.preset"],
        ["1.toml", "port.1.source.kind"],
        ["1.toml", "port.1.container"],
        ["2.toml", "port.2.name"],
    ]


@pytest.mark.parametrize(
    ("defaults", "key"),
    [
        ({"source": {"timestamp_source": "hw"}}, "source.timestamp_source"),
        ({"stall_timeout_s": 5}, "stall_timeout_s"),
        ({"stop_quit_s": 3}, "stop_quit_s"),
        ({"sync_interval_s": 5}, "sync_interval_s"),
    ],
)
def test_what_works_but_hardly_is_a_warning(defaults: Document, key: str) -> None:
    (warning,) = parse({"defaults": defaults}).warnings
    assert warning.startswith(f"0.toml: defaults.{key}: ")


def test_a_bit_rate_without_effect_is_a_warning_only_where_it_was_meant_for_that_port() -> None:
    prores = {"codec": "prores"}
    assert parse({"defaults": {"bitrate_kbps": 500}, "port": {"1": prores}}).warnings == ()
    assert len(parse({"port": {"1": {**prores, "bitrate_kbps": 500}}}).warnings) == 1


# ---- A take's own codec, container and directory ----


def test_override_port() -> None:
    port = parse({"defaults": {"bitrate_kbps": 500}}).ports[0]
    prores = override_port(port, codec="prores", recordings="/mnt/x/")
    assert (prores.codec, prores.container, prores.bitrate_kbps) == ("prores", "mov", 0)
    assert (prores.recordings, prores.name) == ("/mnt/x", port.name)
    assert override_port(port) == override_port(port, codec="h264") == port
    assert override_port(prores, codec="h264").container == "mov"


@pytest.mark.parametrize("override", [{"codec": "x"}, {"codec": "prores", "container": "mp4"}, {"recordings": "x"}])
def test_override_port_refuses_what_a_configuration_may_not_say(override: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="port 0: "):
        override_port(parse({}).ports[0], **override)


# ---- The table, and what comes from it ----


def test_a_port_has_exactly_the_keys_of_the_table() -> None:
    fields = {field.name for field in dataclasses.fields(Port)} - {"index", "source"}
    assert fields == set(settings_table.rows("port")) - {"enabled"}


def test_the_rows_are_sound() -> None:
    for setting in settings_table.SETTINGS:
        assert setting.doc.endswith("."), setting
        assert (setting.default is None) == bool(setting.default_doc), setting
        if setting.default is not None:
            assert settings_table.check_value(setting, setting.default) == setting.default
        for value in setting.allowed:
            assert settings_table.check_value(setting, value) == value


def test_the_starter_file_is_valid_and_names_every_key() -> None:
    starter = starter_toml()
    assert parse_toml(starter) == parse({})
    assert max(map(len, starter.splitlines())) <= 110
    for setting in settings_table.SETTINGS:
        assert f"{setting.key} = " in starter or f"{setting.key}:" in starter
        assert f"| `{setting.key}` |" in settings_markdown()


def test_values_are_documented_as_they_are_written() -> None:
    for text in (starter_toml(), settings_markdown()):
        for values in ("h264, prores", "mp4, mov, mkv", "proxy, lt, standard, hq", "progressive, tff, bff"):
            assert values in " ".join(text.replace("#", " ").split())
        assert not any(word in text for word in ("H264", "Mp4", "Proxy", "Progressive,"))


def test_the_documented_configuration_is_that_of_the_table() -> None:
    documented = Path(__file__).parent.parent.parent / "docs" / "configuration.md"
    # To mend it: python3 -m sdisup.config.text > docs/configuration.md
    assert documented.read_text() == settings_markdown()


@pytest.mark.parametrize("kind", settings_table.SOURCE_KINDS)
def test_the_example_of_each_source_is_valid(kind: str) -> None:
    assert parse_toml(f"[appliance]\nports = 1\n[port.0]\n{EXAMPLES[kind]}").ports[0].source.kind == kind


def test_the_starter_file_with_every_comment_taken_away_is_valid_too() -> None:
    lines = [line.removeprefix("# ") for line in starter_toml().splitlines()]
    keys = tuple(f"{setting.key} = " for setting in settings_table.SETTINGS)
    document = "\n".join(line for line in lines if line.startswith((*keys, "[")))
    # The name of the example port is all that is not a default.
    changed = parse_toml(document)
    assert changed.ports[0].name == "CAM1"
    assert changed.ports[1] == parse({}).ports[1]


# ---- Whatever it holds ----

KEYS = [*{setting.key for setting in settings_table.SETTINGS}, "source", "kind", "codex", "", "a\nb"]
SCALARS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["test", "videomaster", "h264", "prores", "mp4", "mkv", "/srv/x", "320x180", "CAM1", "tff"]),
    st.integers(),
    st.integers(-2, 70),
    st.floats(),
    st.booleans(),
    st.datetimes(),
    st.builds(lambda: 16**5000),  # too long for its own repr()
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
)
TABLES = st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=6)
PORT_TABLES = st.dictionaries(st.sampled_from(["0", "1", "7", "8", "01", "-1", "x", "9" * 5000]), TABLES | ANYTHING)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={"appliance": TABLES | ANYTHING, "defaults": TABLES | ANYTHING, "port": PORT_TABLES | ANYTHING},
) | st.dictionaries(st.text(max_size=5), ANYTHING, max_size=3)


@given(st.lists(DOCUMENTS, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_documents_give_settings_or_a_config_error(documents: list[Document]) -> None:
    try:
        result = parse(*documents)
    except ConfigError as error:
        assert error.problems
        assert all(problem.split(":")[0] in {"0.toml", "1.toml", "2.toml"} for problem in error.problems)
        assert all("\n" not in problem and len(problem) < 1000 for problem in error.problems)
        str(error).encode()
        return
    assert set(result.ports) <= set(range(result.port_count))
    for port in result.ports.values():
        assert None not in dataclasses.astuple(dataclasses.replace(port, source=port.source.kind))  # type: ignore[arg-type]
        assert None not in port.source.options.values()
        assert port.container in codecs.CODECS[port.codec].containers


VALID_PORT = st.fixed_dictionaries(
    {},
    optional={
        key: st.sampled_from(setting.allowed)
        if setting.allowed
        else st.integers(int(setting.minimum) + 1, int(setting.maximum))
        for key, setting in settings_table.rows("port").items()
        if setting.allowed or setting.maximum
    },
)


@given(VALID_PORT, st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_values_that_the_table_allows_arrive_or_are_an_impossible_combination(table: Document, index: int) -> None:
    try:
        port = parse({"port": {str(index): table}}).ports[index]
    except ConfigError as error:
        assert all("cannot hold" in text or "threads of" in text for text in error.problems)
        return
    expected = {key: value for key, value in table.items() if (key, port.codec) != ("bitrate_kbps", "prores")}
    assert {key: getattr(port, key) for key in expected} == expected


def test_deep_nesting_is_no_recursion() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert problems_of({"defaults": {"codec": deep}}) == [
        "0.toml: defaults.codec: must be a string in quotes, not a list"
    ]


# ---- Files ----


def load_problems(path: Path | str) -> tuple[list[str], str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(str(path))
    return caught.value.problems, caught.value.hint


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "sdisup.toml"
    path.write_text("[appliance]\nports = 2\n")
    return path


def test_drop_ins_are_read_in_the_order_of_their_names(toml: Path) -> None:
    drop_ins = Path(f"{toml}.d")
    drop_ins.mkdir()
    (drop_ins / "90-set.toml").write_text("[port.1]\nrecord_at_boot = true\n[appliance]\nports = 5\n")
    (drop_ins / "10-cams.toml").write_text('[port.1]\nname = "CAM1"\nrecord_at_boot = false\n')
    (drop_ins / ".10-cams.toml.swp").write_text("torn [[[")
    (drop_ins / ".hidden.toml").write_text("torn [[[")
    (drop_ins / "notes.txt").write_text("torn [[[")
    settings = Settings.load(str(toml))
    assert (settings.path, settings.port_count) == (str(toml), 5)
    assert (settings.ports[1].name, settings.ports[1].record_at_boot) == ("CAM1", True)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    problems, hint = load_problems(tmp_path / "none.toml")
    assert problems == [f"{tmp_path}/none.toml: there is no such file"]
    assert "sdisup init" in hint


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[appliance]\nports = \n", "(at line 2, column 9)"),
        (b"[appliance]\nports = 3\nports = 4\n", "(at line 3"),
        (b'[appliance]\nrecordings = "/srv/re', "(at "),
        (b"\x00\x00\x00\x00", "(at line 1"),
        (b"[appliance]\n# caf\xe9\n", "is not UTF-8 (at line 2)"),
        (b"\xff\xfe[\x00a\x00]\x00", "is not UTF-8 (at line 1)"),
        (b"# " + b"x" * 1024 * 1024, "larger than 1 MiB"),
        (b"x = " + b"[" * 100_000, "nested too deeply"),
        (b"x = " + b"9" * 100_000, "digits"),
        (b"[defaults]\nbitrate_kbps = 0x" + b"f" * 100_000, "a number with too many digits"),
    ],
)
def test_broken_files(toml: Path, content: bytes, expected: str) -> None:
    toml.write_bytes(content)
    (problem,), _ = load_problems(toml)
    assert problem.startswith(f"{toml}: ")
    assert expected in problem


def test_a_byte_order_mark_and_windows_line_ends_are_harmless(toml: Path) -> None:
    toml.write_bytes(b"\xef\xbb\xbf[appliance]\r\nports = 3\r\n")
    assert Settings.load(str(toml)).port_count == 3


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "directory").mkdir()
    began = time.monotonic()
    for name in ("fifo", "loop", "dangling", "directory"):
        problems, _ = load_problems(tmp_path / name)
        assert len(problems) == 1
    assert load_problems("/dev/zero")[0] == ["/dev/zero: cannot be read: it is not a regular file"]
    assert all(problem.isprintable() for problem in load_problems("a\x00b")[0])
    assert time.monotonic() - began < 2


def test_a_symbolic_link_to_a_file_is_followed(tmp_path: Path, toml: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(toml)
    assert Settings.load(str(link)).port_count == 2


def test_a_broken_drop_in_does_not_hide_the_other_problems(toml: Path) -> None:
    toml.write_text("[defaults]\ncodec = 3\n")
    drop_ins = Path(f"{toml}.d")
    drop_ins.mkdir()
    (drop_ins / "a.toml").write_text("[[[")
    (drop_ins / "b.toml").write_text("colour = true")
    problems, _ = load_problems(toml)
    files = [problem.split(": ")[0] for problem in problems]
    assert files == [f"{drop_ins}/a.toml", f"{drop_ins}/b.toml", str(toml)]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(data)
    try:
        Settings.load(str(path))
    except ConfigError as error:
        assert error.problems[0].startswith(f"{path}: ")
