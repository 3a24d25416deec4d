"""The documentation is complete: every state, field, command and method is in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from appliance import CHECKOUT

import sdisup
from sdisup.contract.requests import Request
from sdisup.contract.status import FIELDS, STATES
from sdisup.ledger.health import write_health

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
DOCS = CHECKOUT / "docs"


def test_every_state_is_in_the_readme() -> None:
    for state in STATES:
        assert f"| `{state}` |" in README


def documented(path: Path) -> set[str]:
    """The field names in the first column of a page's tables."""
    rows = re.findall(r"^\| (`[^|]*`) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row)}


def test_every_field_of_the_status_of_a_request_and_of_the_ledgers_health_is_documented(tmp_path: Path) -> None:
    write_health(str(tmp_path), {}, None)
    health = json.loads((tmp_path / "ledger.json").read_text())
    fields = {*FIELDS, *Request().as_dict(), "created_boottime_ns", "boot_id", *health}
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
    assert len(names) == 11
    for name in names:
        assert f"`{name}(" in page, name


def test_every_public_name_is_documented() -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    for name in sdisup.__all__:
        assert name in page
        assert getattr(sdisup, name)
