"""The configuration: what its values become, and that any document gives settings or told problems.

What units and which problems a file gives: fixtures, which test_fixtures.py reads.
"""

from __future__ import annotations

import os
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
    override_port,
    parse_settings,
)
from sdisup.config.text import settings_markdown, starter_toml
from sdisup.contract.retention import Rules
from sdisup.errors import ConfigError
from sdisup.sources.test import Pattern

Document = dict[str, Any]
ALL_SETTINGS = [setting for rows in settings_table.SETTINGS.values() for setting in rows]


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
    assert settings.ports[4].source == Pattern({"size": "1280x720", "rate": "25", "tone": True})
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
        ({"codec": "prores"}, {"container": "mov", "bitrate_kbps": 0}),
        ({"codec": "prores", "bitrate_kbps": 500}, {"bitrate_kbps": 0}),
        ({"codec": "prores", "prores_profile": "4444"}, {"pixel_format": "yuv444p10le"}),
        ({"codec": "dnxhr", "dnx_profile": "hqx"}, {"container": "mov", "pixel_format": "yuv422p10le"}),
        ({"codec": "ffv1"}, {"container": "mkv", "pixel_format": "yuv422p10le"}),
        ({"codec": "hevc"}, {"container": "mp4", "bitrate_kbps": 6000, "quality": 0, "pixel_format": "yuv420p"}),
        ({"codec": "hevc", "quality": 20}, {"bitrate_kbps": 0, "quality": 20}),
        ({"codec": "h264", "quality": 20, "bitrate_kbps": 900}, {"bitrate_kbps": 900, "quality": 20}),
    ],
)
def test_what_depends_on_the_codec(document: Document, expected: Document) -> None:
    port = parse({"defaults": document}).ports[1]
    assert {key: getattr(port, key) for key in expected} == expected


# ---- What it refuses, and how ----


@pytest.mark.parametrize("path", ["/\ud800", None])
@pytest.mark.parametrize("section", ["appliance", "defaults"])
def test_paths_that_no_file_can_hold_are_refused(section: str, path: object) -> None:
    (problem,) = problems_of({section: {"recordings": path}})
    assert problem.startswith(f"0.toml: {section}.recordings: ")
    assert problem.isprintable()


# ---- A take's own codec, container and directory ----


def test_override_port() -> None:
    port = parse({"defaults": {"bitrate_kbps": 500}}).ports[0]
    prores = override_port(port, codec="prores", recordings="/mnt/x/")
    assert (prores.codec, prores.container, prores.bitrate_kbps) == ("prores", "mov", 0)
    assert (prores.recordings, prores.name) == ("/mnt/x", port.name)
    assert override_port(port) == override_port(port, codec="h264") == port
    assert override_port(prores, codec="h264").container == "mov"
    ten_bit = parse({"defaults": {"quality": 20, "pixel_format": "yuv420p10le"}}).ports[0]
    changed = override_port(ten_bit, codec="prores")
    assert (changed.quality, changed.pixel_format) == (0, "yuv422p10le")
    four = parse({"defaults": {"prores_profile": "4444"}}).ports[0]
    assert override_port(four, codec="prores").pixel_format == "yuv444p10le"


@pytest.mark.parametrize("override", [{"codec": "x"}, {"codec": "prores", "container": "mp4"}, {"recordings": "x"}])
def test_override_port_refuses_what_a_configuration_may_not_say(override: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="port 0: "):
        override_port(parse({}).ports[0], **override)


# ---- The table, and what comes from it ----


def test_a_port_has_exactly_the_keys_of_the_table() -> None:
    fields = set(Port.defaults()) - {"index", "source", "retention"} | {
        f"retention_{name}" for name in Rules.defaults()
    }
    assert fields == {key.replace(".", "_") for key in settings_table.rows("port")} - {"enabled"}


def test_the_rows_are_sound() -> None:
    for setting in ALL_SETTINGS:
        assert setting.doc.endswith("."), setting
        assert (setting.default is None) == bool(setting.default_doc), setting
        if setting.default is not None:
            assert setting.check(setting.default) == setting.default
        for value in setting.allowed:
            assert setting.check(value) == value


def test_the_starter_file_is_valid_and_names_every_key() -> None:
    starter = starter_toml()
    assert parse_toml(starter) == parse({})
    assert max(map(len, starter.splitlines())) <= 110
    for setting in ALL_SETTINGS:
        assert f"{setting.key} = " in starter or f"{setting.key}:" in starter
        assert f"| `{setting.key}` |" in settings_markdown()


def test_values_are_documented_as_they_are_written() -> None:
    for text in (starter_toml(), settings_markdown()):
        for values in ("h264, hevc, prores", "mp4, mov, mkv", "proxy, lt, standard, hq", "progressive, tff, bff"):
            assert values in " ".join(text.replace("#", " ").split())
        assert not any(word in text for word in ("H264", "Mp4", "Proxy", "Progressive,"))


def test_the_documented_configuration_is_that_of_the_table() -> None:
    documented = Path(__file__).parent.parent.parent / "docs" / "configuration.md"
    # To mend it: python3 -m sdisup.config.text > docs/configuration.md
    assert documented.read_text() == settings_markdown()


@pytest.mark.parametrize("kind", settings_table.SOURCE_KINDS)
def test_the_example_of_each_source_is_valid(kind: str) -> None:
    example = settings_table.SOURCE_KINDS[kind].example
    assert parse_toml(f"[appliance]\nports = 1\n[port.0]\n{example}").ports[0].source.kind == kind


def test_the_starter_file_with_every_comment_taken_away_is_valid_too() -> None:
    lines = [line.removeprefix("# ") for line in starter_toml().splitlines()]
    keys = tuple(f"{setting.key} = " for setting in ALL_SETTINGS)
    document = "\n".join(line for line in lines if line.startswith((*keys, "[")))
    # The name of the example port is all that is not a default.
    changed = parse_toml(document)
    assert changed.ports[0].name == "CAM1"
    assert changed.ports[1] == parse({}).ports[1]


# ---- Whatever it holds ----

KEYS = [*{setting.key for setting in ALL_SETTINGS}, "source", "kind", "codex", "", "a\nb"]
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
        assert None not in port.replaced(source=port.source.kind).as_dict().values()
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
        impossible = ("cannot hold", "threads of", " has no ", "in fields", "there is no dnxhd", "there is no xdcam",
                      " takes p", " to take pictures of ", "channels, not", "copy records what comes encoded",
                      "sound that is copied stays", "tracks of one channel each", "and begin with one",
                      "is no multiple of")  # fmt: skip
        assert all(any(words in text for words in impossible) for text in error.problems), error.problems
        return
    assert not (port.codec in ("hevc", "dnxhr") and port.source.is_interlaced)
    has_rate = bool(codecs.CODECS[port.codec].bitrate_kbps)
    expected = {key: value for key, value in table.items() if has_rate or key != "bitrate_kbps"}
    assert {key: getattr(port, key.replace(".", "_")) for key in expected} == expected


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


def test_what_holds_against_sdisup_toml_is_said_with_both_files() -> None:
    """`sdisup disable 1` wins over the file that the owner writes, and nobody said so."""
    main = tomllib.loads("""
        [defaults]
        record_at_boot = true
        source = { kind = "test", rate = 25 }
        [port.1]
        codec = "prores"
        name = "CAM1"
        """)
    written = tomllib.loads("[port.0]\nrecord_at_boot = false\n[port.1]\nrecord_at_boot = true\nthreads = 2\n")
    site = tomllib.loads("[defaults]\nsource.rate = 50\n[port.1]\nname = 'CAM1'\ncodec = 'h264'\n")
    settings = parse_settings([("/e/sdisup.toml", main), ("/e/d/50.toml", site), ("/e/d/90-set.toml", written)])
    boot = "/e/d/90-set.toml: port.0.record_at_boot: false holds, not true as defaults.record_at_boot in {} says"
    rate = "/e/d/50.toml: defaults.source.rate: 50 holds, not 25 as defaults.source.rate in {} says"
    codec = "/e/d/50.toml: port.1.codec: 'h264' holds, not 'prores' as port.1.codec in {} says"
    boot, rate, codec = (text.format("/e/sdisup.toml") for text in (boot, rate, codec))
    assert [settings.overridden_of(index) for index in (0, 1, 2)] == [(boot, rate), (rate, codec), (rate,)]
    assert settings.overridden_of() == (boot, rate, codec)
    assert settings.warnings == ()
    assert parse_settings([("/e/sdisup.toml", {}), ("/e/d/90-set.toml", written)]).overridden == ()


def test_a_port_that_only_a_command_wrote_is_no_problem_of_the_owner() -> None:
    documents = [("/e/sdisup.toml", {"appliance": {"ports": 2}})]
    gone = {"port": {"5": {"record_at_boot": True}, "1": {"record_at_boot": True}}}
    settings = parse_settings([*documents, ("/e/sdisup.toml.d/90-set.toml", gone)])
    assert settings.warnings == (
        "/e/sdisup.toml.d/90-set.toml: port.5: there is no such port ([appliance] ports = 2 makes 0 to 1); "
        "the next sdisup enable or disable removes it",
    )
    assert [port.record_at_boot for port in settings.ports.values()] == [False, True]
    for later in ("/e/sdisup.toml.d/10-own.toml", "/e/sdisup.toml.d/95-own.toml"):
        both = sorted([("/e/sdisup.toml.d/90-set.toml", gone), (later, gone)])
        with pytest.raises(ConfigError) as caught:
            parse_settings([*documents, *both])
        assert [problem.partition(": port")[0] for problem in caught.value.problems] == [later]


@pytest.mark.parametrize(("segment_s", "is_doubted"), [(0, False), (2, True), (39, True), (40, False)])
def test_files_that_a_streams_buffer_fills_at_once_are_doubted(segment_s: int, is_doubted: bool) -> None:
    """Copied, 30 s that a server holds are there in half a second, and FFmpeg ended at its first boundary."""
    source = {"kind": "custom", "input": ["-i", "https://example.org/a.m3u8"]}
    port = {"codec": "copy", "container": "mkv", "segment_s": segment_s, "source": source}
    found = parse_settings([("a.toml", {"appliance": {"ports": 1}, "defaults": port})])
    assert any("faster than the next one can be made" in text for text in found.warnings) is is_doubted


def test_an_error_has_what_is_valid_all_the_same() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(
            {"appliance": {"ports": 3}, "port": {"1": {"codec": "h265"}, "2": {"source": {"kind": "test", "rate": 7}}}}
        )
    assert isinstance(caught.value.valid, Settings)
    assert list(caught.value.valid.ports) == [0]
    with pytest.raises(ConfigError) as caught:
        parse({"appliance": {"recordings": "x"}})
    assert caught.value.valid is None


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


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "directory").mkdir()
    for name in ("fifo", "loop", "dangling", "directory"):
        problems, _ = load_problems(tmp_path / name)
        assert len(problems) == 1
    assert load_problems("/dev/zero")[0] == ["/dev/zero: cannot be read: it is not a regular file"]
    assert all(problem.isprintable() for problem in load_problems("a\x00b")[0])


def test_a_symbolic_link_to_a_file_is_followed(tmp_path: Path, toml: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(toml)
    assert Settings.load(str(link)).port_count == 2


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(data)
    try:
        Settings.load(str(path))
    except ConfigError as error:
        assert error.problems[0].startswith(f"{path}: ")
