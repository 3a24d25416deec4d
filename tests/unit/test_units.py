"""Values to unit text, and what has to change on disk for it. What systemd makes of it a system test asks it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.config.settings import Settings, parse_settings
from sdisup.config.table import PORT, rows
from sdisup.control import units
from sdisup.control.bus import SystemdError, explain
from sdisup.control.ports import STOP_LIMIT_S
from sdisup.control.units import (
    HEADER,
    SHARED_UNITS,
    UNIT_DIRECTORY,
    Machine,
    Plan,
    Rendered,
    carry_out,
    drop_in_path,
    make_plan,
    quote,
    quote_all,
    read_current,
    render,
)
from sdisup.encode.command import Capabilities
from sdisup.errors import SdisupError

Document = dict[str, Any]
ENCODERS = frozenset({"libx264", "prores_ks", "prores", "aac", "pcm_s24le"})


def settings_of(*, appliance: Document | None = None, defaults: Document | None = None, **ports: Document) -> Settings:
    document: Document = {
        "appliance": {"ports": 4, **(appliance or {})},
        "defaults": {"source": {"kind": "test"}, **(defaults or {})},
        "port": {name.removeprefix("port"): values for name, values in ports.items()},
    }
    return parse_settings([("test.toml", document)])


def machine(*, hybrid_fragmented: bool = True, systemd_version: int = 257, **filesystems: str) -> Machine:
    capabilities = Capabilities("7.1", ENCODERS, frozenset({"lavfi"}), hybrid_fragmented)
    return Machine(capabilities, systemd_version, filesystems)


def rendered(settings: Settings | None = None, directory: str = UNIT_DIRECTORY, **options: Any) -> Rendered:
    return render(settings or settings_of(), machine(**options), directory)


# ---- quote ----


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "a\udce9", "\udfff"])
def test_what_no_unit_file_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"NUL|UTF-8"):
        quote(text)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("plain/a-b_c.d:e=f,g+1@x", "plain/a-b_c.d:e=f,g+1@x"),
        ("{output}", "{output}"),
        ("a b", '"a b"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$HOME"'),
        ('say "x"', '"say \\"x\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("it's", '"it\'s"'),
        ("two\nlines", '"two\\x0alines"'),
        ("\x7f", '"\\x7f"'),
        (";", '";"'),
        ("#", '"#"'),
        ("Köln", '"Köln"'),
    ],
)
def test_quoting(text: str, quoted: str) -> None:
    assert quote(text) == quoted


@given(
    st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20), max_size=5)
)
def test_a_command_line_is_one_line_of_printable_characters_and_has_no_specifier(words: list[str]) -> None:
    text = quote_all(words)
    assert not any(ord(character) < 0x20 or character in "\x7f\x85\u2028\u2029" for character in text)
    assert "%" not in text.replace("%%", "")
    assert not text.endswith("\\")
    text.encode("utf-8")


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20))
def test_two_texts_are_never_quoted_alike(text: str) -> None:
    for other in (
        text + " ",
        text + "\\",
        text.replace("%", "%%"),
        f'"{text}"',
        text.strip(),
        text.replace("\n", "\\n"),
    ):
        assert (quote(text) == quote(other)) is (text == other)


# ---- render ----


def test_the_files_and_their_header() -> None:
    files = rendered().files
    expected = [f"{UNIT_DIRECTORY}/{name}" for name in SHARED_UNITS] + [drop_in_path(index) for index in range(4)]
    assert sorted(files) == sorted(expected)
    for path, text in files.items():
        assert text.startswith(HEADER + "\n"), path
        assert text.endswith("\n") and not text.endswith("\n\n\n"), path


@pytest.mark.parametrize("systemd_version", [252, 254, 257])
def test_no_braces_are_left_but_the_output(systemd_version: int) -> None:
    for path, text in rendered(systemd_version=systemd_version).files.items():
        left = re.findall(r"\{[^}]*\}|\{\{|\}\}|\{%|%\}", text)
        assert set(left) <= {"{output}"}, (path, left)
        assert left.count("{output}") == (1 if path.endswith("10-sdisup.conf") else 0), path


@pytest.mark.parametrize("systemd_version", [252, 254, 257])
def test_no_port_waits_for_the_ledgers_disk(systemd_version: int) -> None:
    """With an order between them a port that was killed while the ledger hung came back after minutes; and for
    PrivateTmp= PID 1 itself makes a directory in /var/tmp."""
    units = {os.path.basename(path): text for path, text in rendered(systemd_version=systemd_version).files.items()}
    assert [name for name, text in units.items() if re.search(r"^PrivateTmp=", text, re.MULTILINE)] == []

    def words(name: str, *directives: str) -> set[str]:
        lines = (line.partition("=") for line in units[name].splitlines())
        return {word for directive, _, value in lines if directive in directives for word in value.split()}

    port, writer, flush = "sdi-record@.service", "sdi-ledger.service", "sdi-ledger-flush.service"
    order = ("After", "Before", "Requires", "BindsTo", "PartOf", "Requisite")
    assert writer not in words(port, *order)
    assert not [word for word in words(writer, *order) if word.startswith("sdi-record")]
    assert flush in words(port, "After") and flush in words(writer, "After")
    assert {writer, flush} <= words(port, "Wants")
    assert (words(writer, "TimeoutStopSec"), words(flush, "TimeoutStopSec")) == ({"1"}, {"2"})
    assert "/var/lib/sdisup/ledger" not in words(port, "ReadWritePaths")


def test_a_unit_has_the_group_of_the_nodes_that_its_source_names() -> None:
    """A graphics card's node belongs to the group render, which the unit lacked."""
    words = ["-hwaccel", "vaapi", "-hwaccel_device", "/dev/dri/renderD129", "-i", "srt://h:9000"]
    settings = settings_of(
        port0={"source": {"kind": "custom", "input": words}},
        port1={"source": {"kind": "custom", "input": words[:2] + words[4:]}},
        port2={"source": {"kind": "v4l2", "device": "/dev/video7"}},
        port3={"source": {"kind": "custom", "input": ["-f", "v4l2", "-i", "/dev/video9"]}},
    )
    nodes = ["/dev/dri/renderD129", "/dev/dri/renderD128", "/dev/video7", "/dev/video9"]
    assert [port.source.nodes() for port in settings.ports.values()] == [[node] for node in nodes]
    owners = tuple(zip(nodes, ("render", "render", "video", "capture"), strict=True))
    files = render(settings, machine().replaced(node_groups=owners)).files
    groups = [re.findall("^SupplementaryGroups=(.*)$", files[drop_in_path(i)], re.MULTILINE) for i in range(4)]
    assert groups == [["video audio render"], ["video audio render"], ["video"], ["video audio capture"]]


def test_a_stop_waits_for_longer_than_any_unit_may_take() -> None:
    longest = {key: setting.maximum for key, setting in rows(PORT).items() if key.startswith("stop_")}
    assert len(longest) == 3
    document = {"appliance": {"ports": 1}, "defaults": {"source": {"kind": "test"}, **longest}}
    (port,) = parse_settings([("test.toml", document)]).ports.values()
    assert units.timeout_stop_s(port) < STOP_LIMIT_S


def test_every_template_that_is_there_is_rendered_or_copied_as_it_is() -> None:
    names = os.listdir(units.template_directory())
    templates = {name.removesuffix(".j2") for name in names if name.endswith(".j2")}
    assert templates == {
        *SHARED_UNITS,
        *units.RETENTION_UNITS,
        "sdi-record-port.conf",
        "sdi-drill.service",
        "sdi-offload.service",
        "sdi-offload.timer",
    }
    for name in names:
        if not name.endswith((".j2", ".py", "__pycache__")):
            assert "{{" not in (Path(units.template_directory()) / name).read_text(), name


@pytest.mark.parametrize("systemd_version", [252, 257])
def test_every_line_is_a_section_a_setting_a_comment_or_continues_one(systemd_version: int) -> None:
    for path, text in rendered(systemd_version=systemd_version).files.items():
        continues = False
        for line in text.splitlines():
            if not continues:
                assert re.fullmatch(r"|#.*|\[[A-Z][a-z]+\]|[A-Z][A-Za-z0-9]*=.*", line), (path, line)
            continues = line.endswith("\\")
        assert not continues, path


def test_settings_of_newer_systemds_are_left_out_for_older_ones() -> None:
    shared = f"{UNIT_DIRECTORY}/sdi-record@.service"
    assert "\nRestartMode=" in rendered(systemd_version=254).files[shared]
    assert "\nRestartMode=" not in rendered(systemd_version=253).files[shared]


def test_what_the_runner_is_told_stands_in_the_unit() -> None:
    result = rendered(settings_of(port3={"name": "CAM3"}))
    text = result.files[drop_in_path(3)]
    assert "--port=3 --name=CAM3 " in text
    assert f"--revision={result.revisions[3]} " in text
    assert "\nExecStart=\nExecStart=:/usr/bin/python3 -I -S /usr/lib/sdisup/__main__.py run " in text
    assert text.rstrip().endswith("{output}")


def test_another_directory(tmp_path: Path) -> None:
    files = rendered(directory=str(tmp_path)).files
    assert all(path.startswith(f"{tmp_path}/") for path in files)


# ---- Revisions: they change exactly when the unit would differ ----


def without_revision(text: str) -> str:
    return re.sub(r"--revision=\S*", "", text)


CHANGES: list[dict[str, Any]] = [
    {},
    {"port3": {"name": "CAM3"}},
    {"port3": {"codec": "prores"}},
    {"port3": {"container": "mkv"}},
    {"port3": {"bitrate_kbps": 4000}},
    {"port3": {"source": {"kind": "test", "rate": "50"}}},
    {"port3": {"recordings": "/srv/other"}},
    {"port3": {"stop_term_s": 3}},
    {"port3": {"stall_timeout_s": 30}},
    {"port3": {"record_at_boot": True}},
    {"port0": {"name": "CAM0"}},
    {"appliance": {"ffmpeg": "/opt/ffmpeg/bin/ffmpeg"}},
    {"appliance": {"ports": 8}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_revision_changes_exactly_with_its_unit(change: dict[str, Any]) -> None:
    before, after = rendered(), rendered(settings_of(**change))
    for index in before.revisions:
        path = drop_in_path(index)
        differs = without_revision(before.files[path]) != without_revision(after.files[path])
        assert (before.revisions[index] != after.revisions[index]) is differs
        assert (before.files[path] != after.files[path]) is differs


@pytest.mark.parametrize("change", [change for change in CHANGES if "appliance" not in change], ids=str)
def test_a_change_of_one_port_leaves_the_others_alone(change: dict[str, Any]) -> None:
    before, after = rendered().revisions, rendered(settings_of(**change)).revisions
    changed = {index for index in before if before[index] != after[index]}
    assert changed <= {int(key.removeprefix("port")) for key in change}


def test_record_at_boot_alone_changes_no_unit() -> None:
    """`sdisup enable` on a port that records must not make its next start another one."""
    assert rendered().revisions == rendered(settings_of(port3={"record_at_boot": True})).revisions


def test_the_shared_unit_counts_for_all_and_the_ffmpeg_where_it_matters() -> None:
    assert not set(rendered().revisions.values()) & set(rendered(systemd_version=252).revisions.values())
    assert rendered().revisions[0] != rendered(hybrid_fragmented=False).revisions[0]


def test_revisions_are_unlike_and_the_same_each_time() -> None:
    revisions = rendered().revisions
    assert len(set(revisions.values())) == 4 and revisions == rendered().revisions
    assert all(re.fullmatch(r"[0-9a-f]{12}", revision) for revision in revisions.values())


# ---- Plans ----

OURS, OTHER = f"{HEADER}\nnew\n", f"{HEADER}\nold\n"
FOREIGN = "[Service]\n# by hand\n"


def test_what_is_missing_or_different_is_written_and_the_same_is_not() -> None:
    plan = make_plan({"/a": OURS, "/b": OURS, "/c": OURS}, {"/b": OTHER, "/c": OURS}, [])
    assert (plan.write, plan.remove) == ({"/a": OURS, "/b": OURS}, ())
    assert plan and not make_plan({"/c": OURS}, {"/c": OURS}, ["/c"])


@pytest.mark.parametrize("text", [FOREIGN, "", f"\n{OURS}", OURS.lower(), f"\ufeff{OURS}"])
def test_a_foreign_file_is_never_overwritten_and_never_removed(text: str) -> None:
    with pytest.raises(SdisupError, match=r"/etc/x\.conf was not written by sdisup") as caught:
        make_plan({"/etc/x.conf": OURS}, {"/etc/x.conf": text}, ["/etc/x.conf"])
    assert caught.value.hint
    assert make_plan({}, {"/etc/x.conf": text}, ["/etc/x.conf"]).remove == ()


def test_only_what_an_earlier_apply_wrote_is_removed() -> None:
    current = {"/ours": OTHER, "/theirs": OTHER, "/wanted": OTHER}
    plan = make_plan({"/wanted": OURS}, current, ["/ours", "/ours", "/gone", "/wanted"])
    assert plan.remove == ("/ours",)


def test_a_difference_is_a_unified_diff() -> None:
    plan = make_plan({"/a": OURS, "/b": OURS}, {"/b": OTHER, "/c": OTHER}, ["/c"])
    assert plan.diff().splitlines() == [
        "--- /dev/null", "+++ /a", "@@ -0,0 +1,2 @@", f"+{HEADER}", "+new",
        "--- /b", "+++ /b", "@@ -1,2 +1,2 @@", f" {HEADER}", "-old", "+new",
        "--- /c", "+++ /dev/null", "@@ -1,2 +0,0 @@", f"-{HEADER}", "-old",
    ]  # fmt: skip
    assert make_plan({"/c": OURS}, {"/c": OURS}, []).diff() == ""


def test_a_file_without_a_last_line_end_does_not_run_into_the_next_line() -> None:
    plan = make_plan({"/b": OURS}, {"/b": OTHER.rstrip("\n")}, [])
    lines = plan.diff().splitlines()
    assert "-old" in lines and "+new" in lines


# ---- On disk ----


def paths_and_texts(directory: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in directory.rglob("*") if path.is_file()}


def apply_to(directory: Path, settings: Settings | None, ours: list[str]) -> list[str]:
    """What apply does with files, below a directory of the test's; returns the files that are ours then."""
    wanted = rendered(settings, str(directory)).files if settings else {}
    carry_out(make_plan(wanted, read_current({*wanted, *ours}), ours))
    return list(wanted)


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    ours = apply_to(tmp_path, settings_of(), [])
    before = {path: os.stat(path).st_ino for path in paths_and_texts(tmp_path)}
    assert sorted(before) == sorted(ours)
    apply_to(tmp_path, settings_of(), ours)
    assert {path: os.stat(path).st_ino for path in paths_and_texts(tmp_path)} == before


def test_modes(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        apply_to(tmp_path, settings_of(), [])
    finally:
        os.umask(before)
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in paths_and_texts(tmp_path)} == {0o644}
    assert os.stat(tmp_path / "sdi-record@0.service.d").st_mode & 0o700 == 0o700


def test_a_port_that_is_no_longer_configured_loses_its_file_and_an_empty_directory(tmp_path: Path) -> None:
    ours = apply_to(tmp_path, settings_of(), [])
    (tmp_path / "sdi-record@2.service.d" / "override.conf").write_text(FOREIGN)
    apply_to(tmp_path, settings_of(appliance={"ports": 2}), ours)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        f"sdi-record@{index}.service.d" for index in range(3)
    ]
    assert os.listdir(tmp_path / "sdi-record@2.service.d") == ["override.conf"]


def test_all_can_be_removed_and_only_what_is_ours(tmp_path: Path) -> None:
    (tmp_path / "other.service").write_text(FOREIGN)
    ours = apply_to(tmp_path, settings_of(), [])
    apply_to(tmp_path, None, [*ours, str(tmp_path / "other.service")])
    assert os.listdir(tmp_path) == ["other.service"]


def test_a_failure_changes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(OTHER)
    (tmp_path / "file").write_text("not a directory")
    plan = Plan({f"{tmp_path}/a": OURS, f"{tmp_path}/file/b": OURS}, (f"{tmp_path}/a",), {})
    with pytest.raises(OSError, match="file"):
        carry_out(plan)
    assert paths_and_texts(tmp_path) == {f"{tmp_path}/a": OTHER, f"{tmp_path}/file": "not a directory"}


def test_files_are_durable_before_any_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    true_sync, true_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        true_sync(descriptor)

    def replace(source: str, target: str) -> None:
        steps.append("rename")
        true_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    carry_out(Plan({f"{tmp_path}/a": OURS, f"{tmp_path}/b": OURS}, (), {}))
    assert steps == ["file", "file", "rename", "rename", "directory"]


@pytest.mark.parametrize(
    "kind", ["symlink", "dangling", "directory", "fifo", "fifo with a writer", "not UTF-8", "masked"]
)
def test_what_is_no_plain_text_file_reads_as_foreign(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "unit"
    (tmp_path / "ours").write_text(OURS)
    writer = -1
    if kind == "symlink":
        path.symlink_to("ours")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "masked":  # as systemctl mask leaves it
        path.symlink_to("/dev/null")
    elif kind == "directory":
        path.mkdir()
    elif kind.startswith("fifo"):
        os.mkfifo(path)
        writer = os.open(path, os.O_RDWR) if kind == "fifo with a writer" else -1
    else:
        path.write_bytes(HEADER.encode() + b"\n\xff\n")
    before = os.listdir("/proc/self/fd")
    try:
        current = read_current([str(path)])
        assert len(os.listdir("/proc/self/fd")) == len(before)
    finally:
        if writer >= 0:
            os.close(writer)
    assert current == {str(path): ""}
    with pytest.raises(SdisupError, match="not written by sdisup"):
        make_plan({str(path): OURS}, current, [str(path)])
    assert make_plan({}, current, [str(path)]).remove == ()


def test_what_is_missing_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(OURS.replace("\n", "\r\n").encode())
    assert read_current([f"{tmp_path}/none", f"{tmp_path}/a"]) == {f"{tmp_path}/a": OURS.replace("\n", "\r\n")}


# ---- What systemd answers, in the operator's words ----

UNIT = "sdi-record@3.service"
DBUS, MANAGER = "org.freedesktop.DBus.Error.", "org.freedesktop.systemd1."


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (f"{MANAGER}NoSuchUnit", "Unit x not found.", "sdi-record@3.service is not loaded"),
        (f"{MANAGER}UnitMasked", "Unit x is masked.", "systemctl unmask sdi-record@3.service"),
        (f"{DBUS}InteractiveAuthorizationRequired", "Interactive authentication required.", "sudo sdisup"),
        (f"{DBUS}AccessDenied", "Permission denied", "sudo sdisup"),
        (f"{DBUS}ServiceUnknown", "The name is not activatable", "systemd does not run on this machine"),
        (f"{DBUS}NoReply", "Did not receive a reply.", "did not answer in time"),
        ("", "Could not connect: No such file or directory", "there is no D-Bus system bus here"),
        ("", "Could not connect: Connection refused", "there is no D-Bus system bus here"),
        ("", "The connection is closed", "there is no D-Bus system bus here"),
        ("", "Sending failed: Broken pipe", "sdi-record@3.service: Sending failed: Broken pipe"),
        ("", "", "sdi-record@3.service: "),
        (f"{MANAGER}NewOne", f"GDBus.Error:{MANAGER}NewOne: It did not work: twice",
         "sdi-record@3.service: It did not work: twice"),
        (f"{MANAGER}NewOne", "It did not work", "sdi-record@3.service: It did not work"),
    ],
)  # fmt: skip
def test_what_systemd_says_is_explained(name: str, text: str, words: str) -> None:
    error = explain(name, text, UNIT)
    assert isinstance(error, SystemdError) and error.name == name and error.exit_code == 1
    assert words in str(error)


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_any_answer_is_explained(name: str, text: str, subject: str) -> None:
    assert explain(name, text, subject).message
