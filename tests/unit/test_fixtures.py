"""The folder fixtures: configurations, each beside the units or the errors that it has to give.

    units/NAME.toml     NAME.expected, or NAME.ffmpeg-5.1.expected and NAME.ffmpeg-7.1.expected where they differ
    errors/NAME.toml    NAME.expected
    NAME.toml.d/        further files of a configuration, as in /etc/sdisup/sdisup.toml.d

A new case is a new NAME.toml. This writes its expected files, and those of all other cases anew; `git diff` then
shows what changed:

    SDISUP_REWRITE=1 tests/run tests/unit/test_fixtures.py

A line `#machine KEY = VALUE` in a TOML file sets a field of Machine. Each port's drop-in is expected to the letter,
but for its revision, which test_units.py tests.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path

import pytest

from sdisup.config.codecs import CODECS
from sdisup.config.settings import Settings
from sdisup.contract.media import COPY
from sdisup.control.units import Machine, drop_in_path, render
from sdisup.encode.command import Capabilities
from sdisup.errors import ConfigError
from sdisup.sources.base import kinds

FIXTURES = Path(__file__).parent / "fixtures"
ENCODERS, INPUTS = frozenset({*(codec.encoder for codec in CODECS.values()), "aac", "pcm_s24le"}), frozenset({"lavfi"})
FFMPEGS = {
    "5.1": Capabilities("5.1.9-0+deb12u1", ENCODERS, INPUTS, hybrid_fragmented=False),
    "7.1": Capabilities("7.1.5-0+deb13u1", ENCODERS, INPUTS, hybrid_fragmented=True),
}


def cases_in(folder: str) -> list[str]:
    return sorted(path.stem for path in (FIXTURES / folder).glob("*.toml"))


@pytest.mark.parametrize("case", cases_in("units"))
def test_units(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES / "units")
    texts = {version: units_of(f"{case}.toml", capabilities) for version, capabilities in FFMPEGS.items()}
    if len(set(texts.values())) == 1:
        compare(case, {f"{case}.expected": texts["7.1"]})
    else:
        compare(case, {f"{case}.ffmpeg-{version}.expected": text for version, text in texts.items()})


@pytest.mark.parametrize("case", cases_in("errors"))
def test_errors(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES / "errors")
    with pytest.raises(ConfigError) as caught:
        Settings.load(f"{case}.toml")
    assert all(problem.isprintable() for problem in caught.value.problems)
    hint = [f"hint: {caught.value.hint}"] if caught.value.hint else []
    compare(case, {f"{case}.expected": "".join(f"{line}\n" for line in [*caught.value.problems, *hint])})


@pytest.mark.parametrize("folder", ["units", "errors"])
def test_every_file_belongs_to_a_case(folder: str) -> None:
    names = {path.name.partition(".")[0] for path in (FIXTURES / folder).iterdir()}
    assert names == set(cases_in(folder))


def test_every_kind_codec_and_container_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind with each codec, and each container that a codec may have."""
    monkeypatch.chdir(FIXTURES / "units")
    ports = [port for case in cases_in("units") for port in Settings.load(f"{case}.toml").ports.values()]
    raw = {(kind, COPY) for kind in kinds() if kind not in ("custom", "v4l2")}
    expected = {(kind, codec) for kind in kinds() for codec in CODECS} - raw
    assert {(port.source.kind, port.codec) for port in ports} >= expected
    containers = {(name, container) for name, codec in CODECS.items() for container in codec.containers}
    assert {(port.codec, port.container) for port in ports} == containers
    assert len(cases_in("units")) >= 40


def units_of(toml: str, capabilities: Capabilities) -> str:
    """The configuration's warnings, and the drop-in of each port."""
    settings = Settings.load(toml)
    lines = Path(toml).read_text().splitlines()
    fields = tomllib.loads("\n".join(line.removeprefix("#machine ") for line in lines if line.startswith("#machine ")))
    files = render(settings, Machine(capabilities, **{"systemd_version": 257, "filesystems": {}, **fields}), "").files
    drop_ins = {path: files[path] for path in (drop_in_path(index, "") for index in settings.ports)}
    parts = ["".join(f"warning: {warning}\n" for warning in settings.warnings)]
    parts += [f"==== {path.removeprefix('/')}\n{text}" for path, text in drop_ins.items()]
    return re.sub(r"--revision=[0-9a-f]{12} ", "--revision=REVISION ", "\n".join(part for part in parts if part))


def compare(case: str, wanted: dict[str, str]) -> None:
    """Fail unless the case's expected files hold this and no others are there; SDISUP_REWRITE=1 makes it so."""
    expected = {path.name: path.read_text() for path in Path().glob(f"{case}.*expected")}
    if os.environ.get("SDISUP_REWRITE"):
        for name in expected:
            os.unlink(name)
        for name, text in wanted.items():
            Path(name).write_text(text)
        return
    differences = [
        line
        for name in sorted({*expected, *wanted})
        for line in difflib.unified_diff(
            expected.get(name, "").replace(" -", "\n-").splitlines(),
            wanted.get(name, "").replace(" -", "\n-").splitlines(),
            name if name in expected else f"{name} (missing)",
            "what it gives now" if name in wanted else "no such file is needed",
            lineterm="",
        )
    ]
    if differences:
        pytest.fail("\n".join([*differences, "", "How to rewrite them: test_fixtures.py"]), pytrace=False)
