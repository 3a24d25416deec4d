"""`./install.sh --demo`, as a newcomer runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from appliance import CHECKOUT


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
    # Four ports, and a second file of the one whose FFmpeg was killed.
    assert len([path for path in (tmp_path / "kept").rglob("*.mp4") if path.stat().st_size > 10_000]) == 5


def test_a_wrong_option_is_said() -> None:
    result = subprocess.run([str(CHECKOUT / "install.sh"), "--dmeo"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "usage:" in result.stderr
