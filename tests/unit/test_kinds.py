"""A kind of source is one file under sources/: no other module names a kind, and a new file is a new kind."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdisup
from sdisup.sources.base import kinds

PACKAGE = Path(sdisup.__file__).resolve().parent
ELSEWHERE = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "sources"]
# A drill plays one kind's lost signal on another kind's picture: it imports both.
PLAYS_KINDS = PACKAGE / "drill" / "stage.py"


def docstrings(tree: ast.Module) -> Iterator[ast.expr]:
    """All strings that are statements of their own."""
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))


def named_kinds(path: Path) -> set[str]:
    """The kinds that strings and imports of a module name. `custom` and `test` are words too: alone they are kinds."""
    tree = ast.parse(path.read_text())
    prose = set(map(id, docstrings(tree)))
    strings = [
        str(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {kind for kind in kinds() for text in strings if text.strip() == kind or f"={kind}" in text}
    names |= {kind for kind in set(kinds()) - {"custom", "test"} for text in strings if re.search(rf"\b{kind}\b", text)}
    return names | {kind for kind in kinds() if f"sdisup.sources.{kind}" in modules}


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_names_a_kind(path: Path) -> None:
    assert named_kinds(path) == ({"videomaster", "test"} if path == PLAYS_KINDS else set())


def test_each_kind_is_in_a_file_of_its_name() -> None:
    assert {kind: source.__module__ for kind, source in kinds().items()} == {
        kind: f"sdisup.sources.{kind}" for kind in ("videomaster", "decklink", "v4l2", "custom", "test")
    }


TOY = """
from sdisup.sources.base import SIGNAL_RATE, Found, Sandbox, Source
from sdisup.sources.values import INTEGER, Setting

class Toy(Source):
    kind = "toy"
    position = 99
    doc = "a camera that is drawn with a pencil"
    example = 'source = { kind = "toy", pencil = 3 }'
    settings = (
        Setting("pencil", INTEGER, None, "The pencil.", default_doc="the port's index", maximum=9),
        SIGNAL_RATE,
    )
    stall_timeout_s = 77
    demuxer = "pencil"
    remedy = "sharpen it"
    without_signal = "searches"
    node_hint = "ls /dev"

    @classmethod
    def defaults(cls, index):
        return {"pencil": index}

    def __str__(self):
        return f"pencil {self.options['pencil']}"

    def devices(self):
        return {str(self): ("source.pencil",)}

    def doubts(self, limits_s):
        return [(("source.pencil",), "may break")] if limits_s["stall_timeout_s"] > 100 else []

    def arguments(self):
        return ["-f", "pencil", "-i", str(self)]

    def audio_channel_count(self):
        return 0

    def sandbox(self):
        return Sandbox(devices=("/dev/pencil",), groups=("artists",))

    def nodes(self):
        return ["/dev/pencil"]

    @classmethod
    def driver_problem(cls):
        return "there is no paper"

    @classmethod
    def discover(cls, sys_root, dev_root):
        return (Found("4", "a blue one"),)

    @classmethod
    def starters(cls, found):
        return {source.name: (f"# {source.description}", f'source = {{ kind = "toy", pencil = {source.name} }}')
                for source in found}
"""
UNITS = """
import json, sys
from sdisup.config.settings import Settings
from sdisup.control.units import Machine, render
from sdisup.encode.command import Capabilities, missing_capabilities
settings = Settings.load(sys.argv[1])
machine = Machine(Capabilities("7.1", frozenset({"libx264"}), frozenset(), True), 257, {})
files = render(settings, machine).files
missing = missing_capabilities(settings.ports.values(), settings.ffmpeg, machine.capabilities)
port = next(text for path, text in files.items() if "@2.service.d" in path)
json.dump([settings.warnings, missing, port], sys.stdout)
"""


@pytest.fixture(scope="module")
def with_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that has one file more."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(PACKAGE, checkout / "sdisup", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "units", checkout / "units")
    (checkout / "sdisup" / "sources" / "toy.py").write_text(TOY)
    return checkout


def run(checkout: Path, *words: str) -> str:
    """What a Python of that checkout prints, on stdout and stderr."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-B", *words]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def configure(checkout: Path, text: str) -> str:
    path = checkout / "sdisup.toml"
    path.write_text(f'[appliance]\nports = 4\nrecordings = "{checkout}"\n{text}')
    return str(path)


def test_a_new_file_is_configured_and_told_what_is_wrong(with_toy: Path) -> None:
    toml = configure(with_toy, '[port.0]\nsource = { kind = "toys" }\n[port.1]\nsource = { kind = "toy", pencl = 1 }\n')
    said = run(with_toy, "-m", "sdisup", "check", "--quick", "--config", toml)
    known = "videomaster, decklink, v4l2, custom, test, toy"
    assert f"{toml}: port.0.source.kind: unknown kind 'toys' (one of: {known}); did you mean 'toy'?\n" in said
    assert f"{toml}: port.1.source.pencl: unknown key of a toy source; did you mean 'pencil'?\n" in said
    toml = configure(with_toy, '[defaults]\nsource = { kind = "toy" }\n[port.3.source]\npencil = 2\n')
    said = run(with_toy, "-m", "sdisup", "check", "--quick", "--config", toml)
    conflict = "port 3 would read pencil 2, which port 2 reads: a device has one reader"
    assert f"{toml}: port.3.source.pencil: {conflict}\n" in said


def test_a_new_file_is_documented(with_toy: Path) -> None:
    reference = run(with_toy, "-m", "sdisup.config.text")
    assert '## `source = { kind = "toy" }`\n\nA camera that is drawn with a pencil.\n' in reference
    assert '```toml\nsource = { kind = "toy", pencil = 3 }\n```' in reference
    assert "| `pencil` | the port's index | a whole number, 0 to 9 | The pencil. |\n" in reference
    assert "| `stall_timeout_s` | 5; videomaster 12; custom 15; toy 77 |" in reference


def test_a_new_file_gets_units(with_toy: Path) -> None:
    toml = configure(with_toy, '[port.2]\nsource = { kind = "toy" }\nstall_timeout_s = 200\n')
    warnings, missing, unit = json.loads(run(with_toy, "-c", UNITS, toml))
    assert warnings == [f"{toml}: port.2.source.pencil: may break"]
    assert "port 2: /usr/bin/ffmpeg has no input 'pencil': sharpen it" in missing
    assert "DeviceAllow=/dev/pencil rw\n" in unit
    assert "SupplementaryGroups=artists\n" in unit
    assert ' --source=toy "--input=pencil 2" --without-signal=searches --recordings=' in unit
    assert ' -f pencil -i "pencil 2" -map 0:v:0 ' in unit
    assert "aresample" not in unit


def test_a_new_file_is_checked_and_found(with_toy: Path) -> None:
    toml = configure(with_toy, '[port.2]\nsource = { kind = "toy" }\n')
    said = run(with_toy, "-m", "sdisup", "check", "--quick", "--config", toml)
    assert "port 2: /dev/pencil: No such file or directory; is it plugged in? ls /dev\n" in said
    assert "there is no paper\n" in said
    starter = run(with_toy, "-m", "sdisup", "init", "--output", "-")
    assert '# a blue one\nsource = { kind = "toy", pencil = 4 }\n' in starter
    assert "# A camera that is drawn with a pencil:\n" in starter
