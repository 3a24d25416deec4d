"""The README is true: its commands run as printed, its example runs, its configuration is valid."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from appliance import CHECKOUT, CHECKOUT_INSIDE
from drive import SMALL, Machine

pytestmark = pytest.mark.beside

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")

# Commands with tests of their own, and the tests themselves.
ELSEWHERE = (
    "./install.sh",
    "tests/run",
    "python3 tests/measure.py",
    "tests/bench/run",
    "apt-get install -y python3-venv",
    "python3 -m venv",
    "/opt/sdisup-env",
)
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
    appliance.write("/root/example.py", example)
    shown = appliance.run("cd / && /usr/bin/python3 /root/example.py").stdout.splitlines()
    assert shown[0].startswith("recording /srv/recordings/port2_")
    assert len(shown) == 1 + 4
    # An environment imports what is installed too. Its package would be its own.
    appliance.run("python3 -m venv --without-pip --system-site-packages /root/env")
    found = "import sdisup; print(sdisup.__file__, sdisup.RecorderManager)"
    assert appliance.run(["/root/env/bin/python", "-c", found]).stdout.startswith("/usr/lib/sdisup-0.1.0.")


@pytest.mark.slow
def test_the_readmes_environment_can_be_made(fresh_appliance: Machine) -> None:
    """As printed, with packages from Debian and PyPI."""
    (recipe,) = [block for block in blocks("sh") if "python3 -m venv" in block]
    fresh_appliance.configure(CONFIGURATION)
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt"
    fresh_appliance.push(Path(certificates), "/root/certificates")
    environment = {
        name: value for name, value in os.environ.items() if "proxy" in name.lower() or name.startswith("PIP_")
    }
    environment |= {"PIP_CERT": "/root/certificates", "DEBIAN_FRONTEND": "noninteractive"}
    for line in ("apt-get update", *recipe.splitlines()):
        fresh_appliance.run(f"cd {CHECKOUT_INSIDE} && {line}", env=environment, timeout_s=300)
    (example,) = blocks("python")
    fresh_appliance.write("/root/example.py", example)
    shown = fresh_appliance.run("/opt/sdisup-env/bin/python /root/example.py").stdout.splitlines()
    assert shown[0].startswith("recording /srv/recordings/port2_")


def test_the_configuration_of_the_readme_is_valid(appliance: Machine) -> None:
    toml = "\n".join(blocks("toml"))
    appliance.configure(toml, apply=False)
    result = appliance.run("sdisup apply --dry-run")
    assert "sdi-record@5.service.d" in result.stdout
    assert appliance.run("systemctl is-active sdi-record@3", check=False).stdout.strip() == "inactive"
