"""The words of the command: what operators type first, and what they are told."""

from __future__ import annotations

import pytest

from sdisup.cli import main as cli
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
