"""What the documentation says is so: its commands run as printed, its example runs, its tables are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from appliance import CHECKOUT, Appliance
from drive import SMALL, configure

import sdisup
from sdisup.contract.requests import Request
from sdisup.contract.status import FIELDS, STATES

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
DOCS = CHECKOUT / "docs"

# What is run by tests of its own: the demonstration, the installation, the tests themselves.
ELSEWHERE = ("./install.sh", "tests/run", "python3 tests/measure.py", "python3 -m venv", "/opt/sdisup-env")
CONFIGURATION = f"""\
[appliance]
ports = 4
[defaults]
{SMALL}
[port.3]
name = "CAM3"
"""


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command line of the README, without its comment."""
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


@pytest.mark.system
def test_every_command_of_the_readme_runs_as_printed(appliance: Appliance) -> None:
    configure(appliance, CONFIGURATION)
    assert len(commands()) > 12
    for command in commands():
        result = appliance.run(command, check=False, timeout_s=120)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        assert "Traceback" not in result.stderr


@pytest.mark.system
def test_the_example_of_the_readme_runs(appliance: Appliance) -> None:
    configure(appliance, CONFIGURATION)
    (example,) = blocks("python")
    appliance.write("/root/example.py", 'import sys\nsys.path.insert(0, "/usr/lib/sdisup")\n' + example)
    shown = appliance.run("python3 /root/example.py").stdout.splitlines()
    assert shown[0].startswith("recording /srv/recordings/port2_")
    assert len(shown) == 1 + 4


@pytest.mark.system
def test_the_configuration_of_the_readme_is_valid(appliance: Appliance) -> None:
    (toml,) = blocks("toml")
    configure(appliance, toml, apply=False)
    result = appliance.run("sdisup apply --dry-run")
    assert "sdi-record@5.service.d" in result.stdout
    assert appliance.run("systemctl is-active sdi-record@3", check=False).stdout.strip() == "inactive"


def test_every_state_is_in_the_readme() -> None:
    for state in STATES:
        assert f"| `{state}` |" in README


def documented(path: Path) -> set[str]:
    """The field names in the first column of a page's tables."""
    rows = re.findall(r"^\| (`[^|]*`) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row)}


def test_every_field_of_the_status_and_of_a_request_is_documented() -> None:
    fields = set(FIELDS) | set(Request().as_dict()) | {"created_boottime_ns", "boot_id"}
    assert documented(DOCS / "files.md") == fields


def test_every_command_is_in_the_readme() -> None:
    shown = subprocess.run([sys.executable, "-m", "sdisup", "--help"], capture_output=True, text=True, cwd=CHECKOUT)
    names = re.findall(r"^    ([a-z]+)(?: |$)", shown.stdout, re.MULTILINE)
    assert len(names) >= 14, shown.stdout + shown.stderr
    for name in names:
        assert f"sdisup {name}" in README, name


def test_every_method_is_documented() -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    names = [name for name in vars(sdisup.RecorderManager) if not name.startswith("_")]
    assert len(names) == 5
    for name in names:
        assert f"`{name}(" in page, name


def test_every_public_name_is_documented() -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    for name in sdisup.__all__:
        assert name in page
        assert getattr(sdisup, name)
