"""`sdisup check` and `sdisup init`: what a machine lacks, what is found on it, and that nothing is disturbed."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdisup.cli import main as cli
from sdisup.config.settings import Settings, parse_settings
from sdisup.contract.applied import Applied, AppliedPort, save_applied
from sdisup.control import check as machine
from sdisup.control import init, look
from sdisup.control.check import problems
from sdisup.control.init import Discovery, starter_toml, write_starter
from sdisup.control.look import Look, directory_doubt, directory_problem, look_at
from sdisup.encode.probe import list_sources, parse_sources
from sdisup.errors import SdisupError
from sdisup.sources.base import Found
from sdisup.sources.v4l2 import V4l2

TESTS = Path(__file__).parent.parent
UNITS = TESTS.parent / "units"
STANDIN = str(TESTS / "standin" / "ffmpeg")
LOCKED = "stream {} on board 0"
SDI = "SDI video: 1920x1080{} (interface: VHD_3G) on board DELTA-12G (SN: 12)"


def make_settings(tmp_path: Path, *sources: dict[str, Any], **appliance: Any) -> Settings:
    recordings = tmp_path / "recordings"
    recordings.mkdir(exist_ok=True)
    document = {
        "appliance": {"ports": len(sources), "recordings": str(recordings), **appliance},
        "port": {str(index): {"source": source} for index, source in enumerate(sources)},
    }
    return parse_settings([("test.toml", document)])


@pytest.fixture(autouse=True)
def as_on_a_machine_with_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests has no user sdisup: whoever runs them stands in."""
    monkeypatch.setattr(look, "USER", pwd.getpwuid(os.geteuid()).pw_name)
    monkeypatch.setattr(machine, "USER", look.USER)
    monkeypatch.setattr(look, "OWN_DIRECTORIES", ("/nowhere",))
    monkeypatch.setattr(init, "anything_records", lambda: False)


# ---- check ----


def test_a_machine_that_has_everything(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    film.touch()
    settings = make_settings(tmp_path, {"kind": "test"}, {"kind": "custom", "input": ["-re", "-i", str(film)]})
    assert problems(settings, quick=True) == []
    assert problems(settings) == []


def test_what_a_machine_lacks_is_said_with_the_next_step(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    film.touch()
    settings = make_settings(
        tmp_path,
        {"kind": "v4l2", "device": "/dev/video97"},
        {"kind": "v4l2", "device": "/dev/fd"},
        {"kind": "custom", "input": ["-re", "-i", str(tmp_path / "none.mkv")]},
        {"kind": "custom", "input": ["-i", str(film)]},
        {"kind": "decklink", "device": "DeckLink Duo (1)"},
        recordings=str(tmp_path / "nowhere"),
        ffmpeg=str(tmp_path / "ffmpeg"),
    )
    make = f"mount it or make it: install -d -o {look.USER} -g {look.USER} -m 2775 {tmp_path}/nowhere"
    assert problems(settings, quick=True) == [
        f"{tmp_path}/nowhere does not exist; {make}",
        "port 0: /dev/video97: No such file or directory; is it plugged in? ls /dev/v4l/by-id",
        "port 1: /dev/fd is not a device; ls /dev/v4l/by-id",
        "there is no DeckLink card in /dev/blackmagic: is Blackmagic's Desktop Video driver loaded?",
        f"port 2: {tmp_path}/none.mkv: No such file or directory",
        f"port 3: {film} is a file and would be read as fast as the disk allows: put -re before its -i",
        f"{tmp_path}/ffmpeg is missing or cannot be executed: install it, or name another in [appliance]",
    ]


def test_recordings_that_are_no_directory_or_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(tmp_path, {"kind": "test"})
    monkeypatch.setattr(look, "FREE_MIN_BYTES", 1 << 70)
    (problem,) = problems(settings, quick=True)
    assert problem.endswith("MiB left; make room")
    (tmp_path / "recordings").rmdir()
    (tmp_path / "recordings").touch()
    (problem,) = problems(settings, quick=True)
    assert "is not a directory" in problem


def test_the_user_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "USER", "nobody-of-that-name")
    (problem,) = problems(make_settings(tmp_path, {"kind": "test"}), quick=True)
    assert problem.startswith("there is no user nobody-of-that-name")


def test_the_group_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", missing)
    (problem,) = problems(make_settings(tmp_path, {"kind": "test"}), quick=True)
    assert problem == f"there is no group {look.USER}, without which no port starts: groupadd --system {look.USER}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_what_the_recorder_may_do_is_asked_as_the_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "USER", "nobody")
    directory = tmp_path / "recordings"
    directory.mkdir(mode=0o700)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o001)
    looks = look_at([str(directory), "/etc/shadow", "/etc/passwd"])
    assert not looks[str(directory)].is_writable
    assert (looks["/etc/shadow"].is_readable, looks["/etc/passwd"].is_readable) == (False, True)
    (problem,) = problems(make_settings(tmp_path, {"kind": "test"}), quick=True)
    assert problem == f"{directory} is not writable by the user nobody: chown nobody:nobody {directory}, or mount it rw"


def test_a_disk_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_LOOKER", "import time; time.sleep(1000)")
    looks = look_at(["/a", "/b", "/c"], timeout_s=0.3)
    assert all("does not answer" in look.error for look in looks.values())


HANGS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from sdisup.control.look import look_at
looks = look_at(sys.argv[2:], timeout_s=1.0)
print(json.dumps([look.error for look in looks.values()]))
"""


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and FUSE, to mount a disk")
def test_a_dead_disk_is_said_and_the_others_are_looked_at(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    dead.mkdir()
    paths = [f"{dead}/a", str(tmp_path), str(dead), f"{dead}/b"]
    hanging = ["unshare", "--mount", sys.executable, str(TESTS / "hanging.py"), str(dead)]
    command = [*hanging, sys.executable, "-c", HANGS, look.LIBRARY, *paths]
    errors = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert errors == [look.NO_ANSWER, "", look.NO_ANSWER, look.NO_ANSWER]


def test_recordings_where_the_unit_has_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, it was said of a directory that is there that it does not exist."""
    (line,) = re.findall("^TemporaryFileSystem=(.*)$", (UNITS / "sdi-record@.service.j2").read_text(), re.MULTILINE)
    monkeypatch.undo()
    assert tuple(line.split()) == look.OWN_DIRECTORIES
    there = Look(kind="directory", free_bytes=1 << 40)
    for path, real_path in (("/tmp/rec", ""), ("/var/tmp", "/var/tmp"), ("/srv/rec", "/tmp/rec"), ("/tmp", "/tmp")):
        problem = directory_problem(path, there.replaced(real_path=real_path))
        assert re.fullmatch(rf"{path} is below (/var)?/tmp, of which each port's unit has one of its own; .*", problem)
    for path in ("/srv/tmp", "/tmpfs", "/var/tmpx/rec"):
        assert directory_problem(path, there.replaced(real_path=path)) == ""


def test_recordings_beside_the_system_are_doubted() -> None:
    there = Look(kind="directory", free_bytes=1 << 40)
    doubt = directory_doubt("/srv/rec", there.replaced(is_beside_system=True))
    assert doubt.startswith("/srv/rec is on the system's own disk, the filesystem of /, which recordings can fill up")
    assert directory_doubt("/srv/rec", there) == ""
    assert directory_doubt("/srv/rec", Look(error="No such file or directory")) == ""
    looks = look_at(["/", "/proc"])
    assert [look.is_beside_system for look in looks.values()] == [True, False]
    assert looks["/"].filesystem.endswith(" with /")


def test_a_look() -> None:
    looks = look_at(["/", "/dev/null", "/etc/passwd", "/nonexistent", "/a\udc80"])
    assert [look.kind for look in looks.values()] == ["directory", "device", "file", "", ""]
    assert looks["/"].free_bytes > 0
    assert looks["/nonexistent"] == Look(error="No such file or directory", real_path="/nonexistent")


def test_quick_runs_no_ffmpeg(tmp_path: Path) -> None:
    trap = tmp_path / "ffmpeg"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nsleep 30\n")
    trap.chmod(0o755)
    settings = make_settings(tmp_path, *[{"kind": "videomaster"}] * 8, ffmpeg=str(trap))
    assert problems(settings, quick=True) == []
    assert not (tmp_path / "ran").exists()


def test_cards_are_asked_only_while_nothing_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_card = tmp_path / "ffmpeg"
    no_card.write_text(
        f'#!/bin/sh\ncase "$*" in *sources*) touch {tmp_path}/asked; echo "Auto-detected sources for videomaster:";'
        f' echo "Cannot list sources: Input/output error"; exit 0;; esac\nexec {STANDIN} "$@"\n'
    )
    no_card.chmod(0o755)
    settings = make_settings(tmp_path, {"kind": "videomaster"}, ffmpeg=str(no_card))
    monkeypatch.setattr(machine, "anything_records", lambda: True)
    assert problems(settings) == []
    assert not (tmp_path / "asked").exists()
    monkeypatch.setattr(machine, "anything_records", lambda: False)
    assert problems(settings) == [f"{no_card}: finds no videomaster card (is it plugged in, and its driver loaded?)"]


def test_a_decklink_input_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    answers = tmp_path / "ffmpeg"
    answers.write_text(
        '#!/bin/sh\ncase "$*" in *sources*) echo "Auto-detected sources for decklink:";'
        ' echo "  81:76669a80:00000000 [DeckLink Duo (1)] (none)"; exit 0;; esac\n'
        'ffmpeg "$@" | sed "s/^ D  *lavfi .*/&\\n D d decklink        Blackmagic/"\n'
    )
    answers.chmod(0o755)
    sources = [{"kind": "decklink", "device": name} for name in ("DeckLink Duo (1)", "DeckLink Duo (2)")]
    found = problems(make_settings(tmp_path, *sources, ffmpeg=str(answers)))
    assert "port 1: there is no DeckLink input 'DeckLink Duo (2)' (there are: DeckLink Duo (1))" in found
    assert not any("DeckLink Duo (1)'" in problem for problem in found)


def test_units_are_applied_or_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(tmp_path, {"kind": "test"})
    port = settings.ports[0]
    applied = AppliedPort(0, port.name, port.codec, port.recordings, False, "r")
    path = str(tmp_path / "applied.json")
    monkeypatch.setattr(machine, "load_applied", lambda: machine_load(path))
    assert machine.pending(settings, quick=True) == "nothing was applied yet: sdisup apply"
    save_applied(Applied({0: applied}, []), path)
    assert machine.pending(settings, quick=True) == ""
    save_applied(Applied({0: applied.replaced(codec="prores")}, []), path)
    assert "sdisup apply" in machine.pending(settings, quick=True)
    save_applied(Applied({0: applied}, [str(tmp_path / "gone.service")]), path)
    assert "sdisup apply" in machine.pending(settings, quick=True)


def machine_load(path: str) -> Applied:
    from sdisup.contract.applied import load_applied

    return load_applied(path)


# ---- Lists of sources ----


def test_the_stand_ins_channels() -> None:
    found = list_sources(STANDIN, "videomaster")
    assert found[0].name == "stream 0 on board 0"
    assert "on board DELTA" in found[0].description


def test_lines_of_sources() -> None:
    answer = (
        "Auto-detected sources for decklink:\n"
        "* 81:76669a80:00000000 [DeckLink Duo (1)] (none)\n"
        "  82:76669a80:00000000 [Odd [name] (2)] (video, audio)\n"
        "  x11 [no media types]\n"
    )
    assert parse_sources(answer) == (
        Found("81:76669a80:00000000", "DeckLink Duo (1)"),
        Found("82:76669a80:00000000", "Odd [name] (2)"),
        Found("x11", "no media types"),
    )
    assert parse_sources("Auto-detected sources for videomaster:\n") == ()


def test_a_driver_that_hangs_is_given_up(tmp_path: Path) -> None:
    hanging = tmp_path / "ffmpeg"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    with pytest.raises(SdisupError, match="did not answer `-hide_banner -sources decklink`"):
        list_sources(str(hanging), "decklink", timeout_s=0.3)


# ---- init ----


def parse_starter(found: Discovery) -> Settings:
    return parse_settings([("starter.toml", tomllib.loads(starter_toml(found)))])


def test_a_starter_without_any_input_is_the_defaults() -> None:
    assert parse_starter(Discovery("/usr/bin/ffmpeg", {})) == parse_settings([("starter.toml", {})])


def test_a_starter_has_a_port_for_each_input() -> None:
    settings = parse_starter(
        Discovery(
            "/opt/ffmpeg/bin/ffmpeg",
            {
                "videomaster": (
                    Found(LOCKED.format(0), SDI.format("i50.000")),
                    Found(LOCKED.format(3), SDI.format("p59.940")),
                    Found(LOCKED.format(4), "HDMI video: odd"),
                    Found("something else", "new"),
                ),
                "decklink": (
                    Found("81:1:0", "DeckLink Duo (1)"),
                    Found("82:1:0", "DeckLink Mini Recorder"),
                    Found("83:1:0", "DeckLink Mini Recorder"),
                    Found("84:1:0", 'Card "quoted" \\ odd'),
                ),
                "v4l2": (Found("/dev/video0", "USB grabber"),),
            },
        )
    )
    assert settings.ffmpeg == "/opt/ffmpeg/bin/ffmpeg"
    assert settings.warnings == ()
    options = [port.source.options for port in settings.ports.values()]
    assert [(o["channel"], o["rate"], o["scan"]) for o in options[:3]] == [
        (0, "25", "tff"), (3, "60000/1001", "progressive"), (4, "25", "progressive"),
    ]  # fmt: skip
    devices = [o["device"] for o in options[3:]]
    assert devices == ["DeckLink Duo (1)", "82:1:0", "83:1:0", 'Card "quoted" \\ odd', "/dev/video0"]


WORDS = st.text(max_size=30) | st.sampled_from([LOCKED.format(1), SDI.format("i50.000"), '"', "\\", "a\nb", "-i"])
ENTRIES = st.lists(st.builds(Found, WORDS, WORDS), max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(ENTRIES, ENTRIES, st.lists(st.integers(0, 99), unique=True, max_size=3), WORDS)
def test_a_starter_is_valid_whatever_the_drivers_say(
    videomaster: tuple[Found, ...], decklink: tuple[Found, ...], numbers: list[int], name: str
) -> None:
    v4l2 = tuple(Found(f"/dev/video{number}", name) for number in numbers)
    inputs = {"videomaster": videomaster, "decklink": decklink, "v4l2": v4l2}
    assert parse_starter(Discovery("/usr/bin/ffmpeg", inputs)).port_count >= 1


def test_video_devices_are_found_without_opening_them(tmp_path: Path) -> None:
    for node, index, name in (
        ("video10", "0", "B"),
        ("video2", "0", "A"),
        ("video3", "1", "A"),
        ("v4l-subdev0", "0", "x"),
    ):
        directory = tmp_path / "class" / "video4linux" / node
        directory.mkdir(parents=True)
        (directory / "index").write_text(f"{index}\n")
        (directory / "name").write_text(f"{name}\n")
    dev = str(tmp_path / "dev")
    assert V4l2.discover(str(tmp_path), dev) == (Found("/dev/video2", "A"), Found("/dev/video10", "B"))
    assert V4l2.discover(str(tmp_path / "none"), dev) == ()


LINKS = {
    "by-id/usb-Grabber_0001-video-index0": "video2",
    "by-id/usb-Grabber_0001-video-index1": "video3",
    "by-id/usb-Plain-video-index0": "video4",
    "by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0": "video2",
    "by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0": "video4",
    "by-path/pci-0000:00:14.0-usb-0:3:1.0-video-index0": "video6",
    "by-id/usb-Gone-video-index0": "video99",
    "by-id/usb-with space-video-index0": "video8",
}


def test_a_device_has_a_name_that_outlives_a_reboot(tmp_path: Path) -> None:
    """Two grabbers of a model without serial numbers take turns in by-id; a name that no configuration may have is
    left out."""
    models = {"video2": "Grabber", "video4": "Plain", "video6": "Plain", "video8": "Odd"}
    for node, name in models.items():
        (tmp_path / "class" / "video4linux" / node).mkdir(parents=True)
        (tmp_path / "class" / "video4linux" / node / "name").write_text(name)
    for link, node in LINKS.items():
        (tmp_path / "v4l" / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v4l" / link).symlink_to(f"../../{node}")
    found = V4l2.discover(str(tmp_path), str(tmp_path))
    assert [source.name for source in found] == [
        "/dev/v4l/by-id/usb-Grabber_0001-video-index0",
        "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0",
        "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:3:1.0-video-index0",
        "/dev/video8",
    ]
    assert [
        port.source.options["device"] for port in parse_starter(Discovery("/x", {"v4l2": found})).ports.values()
    ] == [source.name for source in found]


def test_the_ffmpeg_that_knows_the_card_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = init.discover(["/usr/bin/ffmpeg", STANDIN], str(tmp_path), str(tmp_path))
    assert found.ffmpeg == STANDIN
    assert len(found.inputs["videomaster"]) == 8
    assert parse_starter(found).ports[7].source.options["channel"] == 7
    monkeypatch.setattr(init, "anything_records", lambda: True)
    recording = init.discover([STANDIN], str(tmp_path))
    assert "videomaster" not in recording.inputs
    assert "a port records" in recording.remarks[0]


def test_without_any_ffmpeg_there_is_a_starter_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = init.discover([str(tmp_path / "none")], str(tmp_path))
    assert "there is no FFmpeg" in found.remarks[0]
    assert parse_starter(found).ffmpeg == str(tmp_path / "none")


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sdisup.toml"
    write_starter("one", str(path))
    with pytest.raises(SdisupError, match="exists and is not overwritten"):
        write_starter("two", str(path))
    dangling = tmp_path / "dangling.toml"
    dangling.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SdisupError, match="exists and is not overwritten"):
        write_starter("two", str(dangling))
    assert (path.read_text(), os.listdir(path.parent)) == ("one", ["sdisup.toml"])


# ---- The commands ----


def test_init_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(init, "discover", lambda: Discovery("/usr/bin/ffmpeg", {}, ("a remark",)))
    monkeypatch.setattr(machine, "load_applied", lambda: Applied({}, []))
    path = str(tmp_path / "sdisup.toml")
    assert cli.main(["init", "--output", path]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"wrote {path}; edit it, then run: sdisup check, sdisup apply\n", "a remark\n")
    assert cli.main(["init", "--output", path]) == 1
    assert cli.main(["init", "--output", "-"]) == 0
    assert tomllib.loads(capsys.readouterr().out) == {"appliance": {}, "defaults": {}}

    Path(path).write_text(
        f'[appliance]\nports = 1\nrecordings = "{tmp_path}"\n[defaults]\nsource = {{ kind = "test" }}\n'
    )
    assert cli.main(["check", "--quick", "--config", path]) == 0
    assert "this machine has what it needs" in capsys.readouterr().err
    Path(path).write_text(f'[appliance]\nports = 1\nrecordings = "{tmp_path}/none"\n[defaults]\nstall_timeout_s = 5\n')
    assert cli.main(["check", "--quick", "--config", path]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{tmp_path}/none does not exist; ")
    assert f"warning: {path}: defaults.stall_timeout_s" in said.err
    Path(path).write_text("ports = 3\n")
    assert cli.main(["check", "--config", path]) == 2
    capsys.readouterr()
    # What the machine lacks for what is valid is said beside what is not.
    Path(path).write_text(f'[appliance]\nports = 2\n[defaults]\nrecordings = "{tmp_path}/none"\n[port.5]\n')
    assert cli.main(["check", "--quick", "--config", path]) == 2
    said = capsys.readouterr()
    assert f"{tmp_path}/none does not exist" in said.out
    assert f"{path}: port.5: there is no such port" in said.err
