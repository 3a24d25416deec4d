"""Steers the stand-in for Deltacast's FFmpeg (tests/standin/ffmpeg), on this machine or in an appliance.

The behaviours and their parameters stand at the beginning of that file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance import Appliance

STANDIN = Path(__file__).resolve().parent / "standin" / "ffmpeg"
INSTALLED = "/usr/local/bin/ffmpeg-deltacast"
DIRECTORY = "/run/sdisup-standin"


def install(appliance: Appliance) -> None:
    """Put the stand-in where a site would put Deltacast's FFmpeg, every channel being ok."""
    appliance.push(STANDIN, INSTALLED)
    appliance.path(INSTALLED).chmod(0o755)
    appliance.run(f"rm -rf {DIRECTORY}; mkdir {DIRECTORY}")


def steer(appliance: Appliance, channel: int, behaviour: str, *, board: int = 0, **parameters: Any) -> None:
    """Make an input of the card behave so; a running stand-in notices within 50 ms."""
    write_steering(appliance.path(DIRECTORY), channel, behaviour, board=board, **parameters)


def write_steering(directory: Path, channel: int, behaviour: str, *, board: int = 0, **parameters: Any) -> None:
    """Replace a channel's steering file, so that nobody ever reads half of it."""
    path = directory / f"board{board}-channel{channel}.json"
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps({"behaviour": behaviour, **parameters}))
    partial.chmod(0o644)
    os.replace(partial, path)
