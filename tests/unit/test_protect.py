"""What operators protect: in files beside the ledgers, for what is and for what comes."""

from __future__ import annotations

import functools
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.cli import commands
from sdisup.cli import retention as table
from sdisup.cli.main import main
from sdisup.contract import protections as contract
from sdisup.contract.applied import Applied, AppliedPort
from sdisup.contract.files import Unreadable, utc_text
from sdisup.contract.protections import Protection, Protections, load_protections, remove_protection, save_protection
from sdisup.control import protect as module
from sdisup.control.protect import protect, unprotect
from sdisup.errors import SdisupError, UsageError
from sdisup.ledger.accounts import Window
from sdisup.ledger.lines import Entry, append_entries, ledger_path
from sdisup.ledger.present import accounts

T = 1.7e9


def times(start: float, end: float) -> tuple[str, str]:
    return utc_text(T + start), utc_text(T + end)


@pytest.mark.parametrize(
    ("words", "is_covered"),
    [
        ({"path": "/r/a.mp4"}, True),
        ({"path": "/r/b.mp4"}, False),
        ({"take": "final"}, True),
        ({"take": "news"}, False),
        ({"take": "final", "port_index": 3}, True),
        ({"take": "final", "port_index": 4}, False),
        ({"port_index": 3, "since": utc_text(T + 50)}, True),
        ({"port_index": 3, "since": utc_text(T + 100)}, False),
        ({"port_index": 3, "until": utc_text(T)}, False),
        ({"port_index": 3, "until": utc_text(T + 1)}, True),
    ],
)
def test_what_a_protection_covers(words: dict[str, Any], is_covered: bool) -> None:
    protection = Protection(**words)
    file = (3, "/r/a.mp4", ["semi", "final"], *times(0, 100))
    assert protection.covers(*file) == is_covered
    assert (Protections([protection]).of(*file) is protection) == is_covered


def test_they_are_kept_in_files_of_their_own(tmp_path: Path) -> None:
    place = str(tmp_path)
    first = save_protection(Protection(take="final", reason="claim", by="anna", at="1"), place)
    second = save_protection(Protection(path="/r/a.mp4", at="2"), place)
    assert [first.name, second.name] == ["1", "2"]
    assert load_protections(place) == [first, second]
    # A crash may leave what was being written.
    (tmp_path / "new.7.tmp").write_text("{")
    remove_protection(first, place)
    assert load_protections(place) == [second]
    assert save_protection(Protection(take="x", at="3"), place).name == "3"
    assert oct((tmp_path / "3.json").stat().st_mode & 0o777) == "0o664"


def test_two_at_once_get_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "_number", lambda _: 0)
    assert [save_protection(Protection(take="x"), str(tmp_path)).name for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"take": 3}', '{"port_index": -1}'])
def test_one_that_cannot_be_read_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "1.json").write_text(content)
    with pytest.raises(Unreadable, match=r"1\.json"):
        load_protections(str(tmp_path))


def test_without_the_directory_nothing_is_protected(tmp_path: Path) -> None:
    assert load_protections(str(tmp_path / "none")) == []


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.builds(Protection, TEXTS, TEXTS, st.none() | st.integers(0, 63), TEXTS, TEXTS, TEXTS, TEXTS, TEXTS))
def test_what_is_protected_is_read_back(tmp_path_factory: pytest.TempPathFactory, protection: Protection) -> None:
    place = str(tmp_path_factory.mktemp("protected"))
    saved = save_protection(protection, place)
    if protection.path or protection.take or protection.port_index is not None:
        assert load_protections(place) == [saved]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A port with two files, one of which somebody has removed, in place of the appliance."""
    recordings, place = tmp_path / "recordings", tmp_path / "protected"
    recordings.mkdir()
    place.mkdir()
    for index, take in enumerate(["final", "semi"]):
        path = recordings / f"{index}.mp4"
        path.write_bytes(b"x" * 1000)
        start, end = times(100 * index, 100 * index + 90)
        entry: Entry = {
            "v": 1, "kind": "file", "port_index": 3, "take": take, "boot_id": "b", "start": start, "end": end,
            "start_monotonic": 0.0, "end_monotonic": 90.0, "seconds": 90.0, "path": str(path), "frames": 2250,
            "duplicated": 0, "dropped": 0, "bytes": 1000, "codec": "h264", "ended": "complete",
            "ffmpeg_version": "Lavf", "inode": 7 + index,
        }  # fmt: skip
        append_entries(ledger_path(3, str(tmp_path)), [entry])
    applied = Applied({3: AppliedPort(3, "CAM3", "h264", str(recordings), False, "r")}, [])
    here: Any = {"directory": str(place)}
    for where, name in ((module, "load_protections"), (contract, "load_protections")):
        monkeypatch.setattr(where, name, functools.partial(load_protections, **here))
    monkeypatch.setattr(module, "save_protection", functools.partial(save_protection, **here))
    monkeypatch.setattr(module, "remove_protection", functools.partial(remove_protection, **here))
    monkeypatch.setattr(module, "load_applied", lambda: applied)
    monkeypatch.setattr(commands, "load_applied", lambda: applied)
    monkeypatch.setattr(module, "recorded", functools.partial(module.recorded, str(tmp_path)))
    monkeypatch.setenv("SUDO_USER", "anna")
    return recordings


def test_a_file_is_protected_as_the_ledger_names_it(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ledger)
    (found,) = protect(module.of_files(["0.mp4"]), "claim 4711")
    assert (found.path, found.reason, found.by) == (str(ledger / "0.mp4"), "claim 4711", "anna")
    # Once, by another name too.
    ledger.with_name("link").symlink_to(ledger)
    assert protect(module.of_files([f"{ledger.with_name('link')}/0.mp4"])) == [found]
    assert len(module.known_protections()) == 1


def test_what_no_ledger_knows_cannot_be_protected(ledger: Path) -> None:
    with pytest.raises(SdisupError, match=r"strange\.mp4 is in no ledger"):
        module.of_files([str(ledger / "strange.mp4")])


def test_what_is_covered_is_counted(ledger: Path) -> None:
    protect([Protection(take="final"), Protection(port_index=3, since=times(0, 0)[0])])
    (ledger / "1.mp4").unlink()
    found = module.covered(module.known_protections())
    assert [(one.files, one.size_bytes, one.missing) for one in found] == [(1, 1000, 0), (2, 2000, 1)]
    lines = list(table.protection_lines(found))
    assert "take final" in lines[1] and "1 of them removed by somebody else" in lines[2]
    assert [one["files"] for one in json.loads(table.protections_text(found))] == [1, 2]


def test_what_is_no_longer_protected(ledger: Path) -> None:
    take, file = protect([Protection(take="final"), *module.of_files([str(ledger / "1.mp4")])])
    assert unprotect([Protection(take="final")]) == [take]
    assert unprotect([Protection(name=file.name)]) == [file]
    assert module.known_protections() == []


def test_a_file_that_is_protected_by_its_take_says_so(ledger: Path) -> None:
    protect([Protection(take="final")])
    with pytest.raises(SdisupError, match="is not protected by itself") as error:
        unprotect(module.of_files([str(ledger / "0.mp4")]))
    assert error.value.hint == "it is covered by take final (--id 1)"


def test_an_id_that_is_none(ledger: Path) -> None:
    with pytest.raises(SdisupError, match="there is no protection 5"):
        unprotect([Protection(name="5")])


def ask(*words: str, **options: Any) -> list[Protection]:
    known = {"command": "protect", "words": list(words), "take": None, "since": None, "until": None, **options}
    return commands._asked_protections(Namespace(**known))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {}), (["3"], {}), (["/r/a.mp4"], {"take": "x"}), (["/r/a.mp4", "3"], {}), (["/r/a.mp4"], {"since": "-2h"}),
        (["3"], {"id": ["1"]}),
    ],
)  # fmt: skip
def test_what_does_not_say_what_is_meant(ledger: Path, words: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ask(*words, **options)


def test_what_operators_name(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_with_ledgers", lambda words: [Namespace(index=int(word)) for word in words])
    since, until = "2026-01-31T18:00:00Z", "2026-01-31T20:00:00Z"
    (found,) = ask("3", since=since, until=until)
    assert (found.port_index, found.since, found.until) == (3, "2026-01-31T18:00:00.000Z", "2026-01-31T20:00:00.000Z")
    assert ask(take="final") == [Protection(take="final")]
    assert [one.port_index for one in ask("3", "4", take="final")] == [3, 4]
    assert ask(id=["2"]) == [Protection(name="2")]


def test_recordings_show_what_is_protected(ledger: Path, tmp_path: Path) -> None:
    protect([Protection(take="final")], "claim")
    ports = [AppliedPort(3, "CAM3", "h264", str(ledger), False, "r")]
    found, _ = accounts("file", ports, Window(), str(tmp_path))
    assert commands._mark_protected(found) == []
    assert [row.protected for row in found[0][2].rows] == ["claim", ""]


def test_who_may_not_is_told_who_may(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> Protection:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "save_protection", refuses)
    with pytest.raises(SdisupError) as error:
        protect([Protection(take="final")])
    assert "the members of the group sdisup may" in error.value.hint


def test_the_commands_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("protect", "unprotect", "protected", "retention"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "usage: sdisup" in capsys.readouterr().out
