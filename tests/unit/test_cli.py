"""The words of the command: what operators type first, and what they are told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdisup.cli import main as cli
from sdisup.cli.commands import parse
from sdisup.cli.status import json_text, plain_status
from sdisup.contract.applied import Applied, AppliedPort

PORT = AppliedPort(3, "CAM3", "h264", "/r", False, "rev")


@pytest.fixture(autouse=True)
def one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdisup.cli.status.load_applied", lambda: Applied({3: PORT}, []))


def test_all_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stop", "all"]) == 4
    assert capsys.readouterr().err.splitlines()[-1] == "hint: for all ports: --all"
    assert cli.main(["status", "all"]) == 4
    assert capsys.readouterr().err.splitlines()[-1] == "hint: without a port the command is for all of them"
    assert cli.main(["stop", "9"]) == 4
    assert capsys.readouterr().err.splitlines()[-1] == "hint: configured are 3 (CAM3)"


def test_help_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words, as_option in ((["help"], ["--help"]), (["help", "start"], ["start", "--help"])):
        shown = []
        for arguments in (words, as_option):
            with pytest.raises(SystemExit) as ended:
                cli.main(arguments)
            assert ended.value.code == 0
            shown.append(capsys.readouterr().out)
        assert shown[0] == shown[1]
        assert "exit codes" in shown[0] or "--take NAME" in shown[0]
    with pytest.raises(SystemExit) as ended:
        cli.main(["help", "nonsense"])
    assert ended.value.code == 2


def test_files_and_a_choice_of_files_are_not_verified_together(capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["3"], ["--take", "final"], ["--since", "today"]):
        assert cli.main(["verify", "/r/a.mp4", *more]) == 2
        assert "together" in capsys.readouterr().err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=9,
)


@given(JSON)
def test_the_json_of_status_is_that_of_the_module_json(value: object) -> None:
    assert json_text(value) == json.dumps(value, ensure_ascii=False, indent=2)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("status", ([], False)),
        ("status 0 CAM3 --json", (["0", "CAM3"], True)),
        ("status --json 0-3", (["0-3"], True)),
        ("status 0 --json 1", None),
        ("status --debug", None),
        ("status -- 0", None),
        ("status --js", None),
        ("--debug status", None),
        ("start 0", None),
    ],
)
def test_what_status_reads_itself_argparse_reads_alike(words: str, arguments: tuple[list[str], bool] | None) -> None:
    found = plain_status(words.split())
    assert (found and (found.ports, found.json)) == arguments
    if found:
        parsed = parse(words.split())
        assert (parsed.ports, parsed.json) == arguments
