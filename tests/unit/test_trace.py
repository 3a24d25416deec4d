"""What `--debug` shows: files, programs and D-Bus calls, a line each, and no secret."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdisup
from sdisup.cli import commands as cli
from sdisup.contract import trace as module
from sdisup.contract.files import read_json, replace_file
from sdisup.contract.programs import Program, says
from sdisup.contract.secrets import masked, shown
from sdisup.contract.trace import trace

PACKAGE = Path(sdisup.__file__).parent
LINE = re.compile(r"sdisup: debug: \+[0-9]+\.[0-9]{3} s  (read|write|rename|link|remove|make|run|become|D-Bus) \S.*")


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[list[str]]:
    """What is shown, without the beginning of each line; complete after `collect`. The directory is made before."""
    assert tmp_path.exists()
    module.start()
    try:
        yield Lines(capfd)
    finally:
        module.stop()


class Lines(list[str]):
    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        super().__init__()
        self._capfd = capfd

    def collect(self) -> list[str]:
        for line in self._capfd.readouterr().err.splitlines():
            assert LINE.fullmatch(line), line
            # pytest's own files for what is captured have no names.
            if not line.endswith(" write /tmp"):
                self.append(line.partition(" s  ")[2])
        return self


def test_nothing_is_shown_until_it_is_asked_for(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace("read %s", "x")
    replace_file(str(tmp_path / "f"), b"1")
    says(["true"])
    assert capfd.readouterr().err == ""


def test_a_file_that_is_replaced_and_read(lines: Lines, tmp_path: Path) -> None:
    path = str(tmp_path / "3.json")
    replace_file(path, b'{"a": 1}')
    read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(f"{path}.none")
    os.unlink(path)
    written, renamed, read, missing, removed = lines.collect()
    assert re.fullmatch(rf"write {path}\.\d+\.tmp", written)
    assert re.fullmatch(rf"rename {path}\.\d+\.tmp to {path} \(8 bytes\)", renamed)
    assert read == f"read {path} (8 bytes)"
    assert missing == f"read {path}.none: No such file or directory"
    assert removed == f"remove {path}"


def test_what_python_opens_for_itself_is_not_shown(lines: Lines) -> None:
    sys.modules.pop("colorsys", None)
    import colorsys

    assert colorsys and lines.collect() == []


PROGRAMS = [
    (["true"], r"run true: exit 0 after 0\.\d{3} s"),
    (["sh", "-c", "exit 3"], r"run sh -c 'exit 3': exit 3 after 0\.\d{3} s"),
    (["sh", "-c", "kill -9 $$"], r"run sh -c 'kill -9 \$\$': killed by signal 9 after 0\.\d{3} s"),
    (["/nonexistent"], r"run /nonexistent: cannot be executed: \[Errno 2\] No such file or directory: '/nonexistent'"),
    (["echo", "a\nb\x1b\udce9"], r"run echo 'a\\nb\\x1b\\udce9': exit 0 after 0\.\d{3} s"),
    (["true", "rtsp://me:secret@host/x"], r"run true 'rtsp://\*\*\*@host/x': exit 0 after 0\.\d{3} s"),
]


@pytest.mark.parametrize(("command", "pattern"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_that_is_run(lines: Lines, command: list[str], pattern: str) -> None:
    says(command)
    (line,) = lines.collect()
    assert re.fullmatch(pattern, line), line


def test_a_program_that_is_given_up(lines: Lines) -> None:
    assert Program(["sleep", "1000"]).answer(timeout_s=0.2) is None
    (line,) = lines.collect()
    assert re.fullmatch(r"run sleep 1000: killed by signal 9 after 0\.[2-9]\d{2} s", line), line


def test_who_reads_stderr_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    module.start()
    trace("read %s", "x")
    trace("read %s", "y")
    module.stop()


MASKED = [
    ("rtsp://user:pass@10.0.0.1:554/live", "rtsp://***@10.0.0.1:554/live"),
    ("rtsp://user@host/live", "rtsp://***@host/live"),
    ("http://user:p@ss/word@host/a", "http://***@host/a"),
    ("srt://host:9000?mode=caller&passphrase=0123456789&latency=20", "srt://host:9000?mode=caller&passphrase=***&latency=20"),
    ("https://host/x.m3u8?token=abc&api_key=def", "https://host/x.m3u8?token=***&api_key=***"),
    ("tee:a=rtmp://me:x@a/b b=rtmp://me:y@c/d", "tee:a=rtmp://***@a/b b=rtmp://***@c/d"),
    ("udp://239.0.0.1:1234", "udp://239.0.0.1:1234"),
    ("/srv/recordings/a@b.mp4", "/srv/recordings/a@b.mp4"),
    ("keyint=50:monkey=1", "keyint=50:monkey=***"),
]  # fmt: skip


def test_what_a_call_answers_is_shown_whatever_it_is(lines: Lines) -> None:
    trace("D-Bus %s: %.200r after %.3f s", "/x List()", [("unit", 1)], 0.1)
    trace("D-Bus %s: %.200r after %.3f s", "/x Get('password=1')", ["a", "b"], 0.1)
    assert lines.collect() == [
        "D-Bus /x List(): [('unit', 1)] after 0.100 s",
        "D-Bus /x Get('password=***'): ['a', 'b'] after 0.100 s",
    ]


@pytest.mark.parametrize(("text", "shown_text"), MASKED)
def test_what_gives_access_is_not_shown(text: str, shown_text: str) -> None:
    assert masked(text) == shown_text


@pytest.mark.parametrize(
    "option", ["-passphrase", "-password", "-headers", "-cookies", "-decryption_key", "-auth_type"]
)
def test_the_value_of_an_option_that_gives_access_is_not_shown(option: str) -> None:
    assert shown(["ffmpeg", option, "Secret 1", "-i", "x"]) == f"ffmpeg {option} '***' -i x"


@given(
    user=st.text(st.characters(blacklist_categories=["Cs", "Z", "Cc"], blacklist_characters="\"'"), max_size=10),
    secret=st.text(st.characters(whitelist_categories=["L", "N"]), min_size=4, max_size=10),
)
def test_no_login_of_a_url_is_shown(user: str, secret: str) -> None:
    assert secret not in masked(f"rtsp://{user}:{secret}@h/").replace("rtsp", "")


# ---- The command ----


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdisup", *words], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", [["status"], ["gaps"], ["init", "--output", "-"], ["check", "--quick"], ["verify"]])
def test_debug_changes_neither_output_nor_exit_code(words: list[str]) -> None:
    plain = run(*words)
    for debugged in (run("--debug", *words), run(*words, "--debug")):
        assert (debugged.stdout, debugged.returncode) == (plain.stdout, plain.returncode)
        shown_lines = [line for line in debugged.stderr.splitlines() if line.startswith("sdisup: debug: ")]
        assert shown_lines and all(LINE.fullmatch(line) for line in shown_lines)
        remarks = [line for line in debugged.stderr.splitlines() if line not in shown_lines]
        assert remarks == plain.stderr.splitlines()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_it_and_says_so(command: str) -> None:
    assert "--debug" in run(command, "--help").stdout


def test_every_read_of_status_is_shown() -> None:
    assert "read /var/lib/sdisup/applied.json" in run("status", "--debug").stderr


def test_programs_are_started_at_one_door() -> None:
    """The runner's FFmpeg, and the drill's stand-in for a runner's, apart."""
    starters = {"posix_spawn", "posix_spawnp", "system", "popen", "execv", "execve", "execvp", "execvpe"}
    found = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & starters
        imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        if names or imports & {"subprocess", "pty", "multiprocessing"}:
            found[str(path.relative_to(PACKAGE))] = names
    assert found.keys() == {"contract/programs.py", "runner/ffmpeg.py", "drill/lost_signal.py"}


def test_the_runner_and_status_do_not_load_it() -> None:
    modules = ("runner.main", "cli.main", "control.observe", "ledger.health")
    program = f"import sys, {', '.join(f'sdisup.{name}' for name in modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert not {"sdisup.contract.trace", "sdisup.contract.programs"} & set(done.stdout.split())


def test_json_stays_json() -> None:
    assert json.loads(run("status", "--json", "--debug").stdout) == []
