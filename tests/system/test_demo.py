"""`./install.sh --demo`, as a user runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from appliance import CHECKOUT

pytestmark = pytest.mark.beside


def test_the_demonstration_shows_what_it_promises_and_keeps_the_files_if_asked(tmp_path: Path) -> None:
    command = [str(CHECKOUT / "install.sh"), "--demo", "--keep", str(tmp_path / "kept")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    for words in (
        "# sdisup status",
        "# kill -9 ",
        "records again",
        "# sdisup stop --all",
        "FRAMES",
        "The container is gone",
    ):
        assert words in result.stdout + result.stderr, words
    # A file of each of the four ports, and a second one of the port whose FFmpeg was killed.
    assert len([path for path in (tmp_path / "kept").rglob("*.mp4") if path.stat().st_size > 10_000]) == 5


@pytest.mark.slow
def test_a_later_demonstration_needs_no_network_and_leaves_nothing_but_the_cache_that_it_names(tmp_path: Path) -> None:
    before = set(os.listdir("/run")) | set(os.listdir("/srv")) | set(os.listdir("/tmp"))
    command = ["unshare", "--net", str(CHECKOUT / "install.sh"), "--demo"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    said = result.stdout + result.stderr
    cache = os.environ.get("SDISUP_CACHE", "/var/cache/sdisup-appliance")
    assert cache in said, said
    assert set(os.listdir("/run")) | set(os.listdir("/srv")) | set(os.listdir("/tmp")) == before
    assert not Path("/etc/sdisup").exists()
    assert not Path("/usr/lib/sdisup").exists()


def test_a_place_that_cannot_keep_recordings_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    command = [str(CHECKOUT / "install.sh"), "--demo", "--keep", str(tmp_path / "file")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    assert result.returncode == 1
    assert "is no directory; name another" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_a_wrong_option_is_said() -> None:
    result = subprocess.run([str(CHECKOUT / "install.sh"), "--dmeo"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "usage:" in result.stderr
