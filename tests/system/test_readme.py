"""The README is true: its commands run as printed, its example runs, its configuration is valid."""

from __future__ import annotations

import re

from appliance import CHECKOUT
from drive import SMALL, Machine

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")

# Commands with tests of their own, and the tests themselves.
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


def test_every_command_of_the_readme_runs_as_printed(appliance: Machine) -> None:
    appliance.configure(CONFIGURATION)
    assert len(commands()) > 12
    for command in commands():
        result = appliance.run(command, check=False, timeout_s=120)
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        assert "Traceback" not in result.stderr


def test_the_example_of_the_readme_runs(appliance: Machine) -> None:
    appliance.configure(CONFIGURATION)
    (example,) = blocks("python")
    appliance.write("/root/example.py", 'import sys\nsys.path.insert(0, "/usr/lib/sdisup")\n' + example)
    shown = appliance.run("python3 /root/example.py").stdout.splitlines()
    assert shown[0].startswith("recording /srv/recordings/port2_")
    assert len(shown) == 1 + 4


def test_the_configuration_of_the_readme_is_valid(appliance: Machine) -> None:
    (toml,) = blocks("toml")
    appliance.configure(toml, apply=False)
    result = appliance.run("sdisup apply --dry-run")
    assert "sdi-record@5.service.d" in result.stdout
    assert appliance.run("systemctl is-active sdi-record@3", check=False).stdout.strip() == "inactive"
