"""Steers the stand-in for Deltacast's FFmpeg (tests/standin/ffmpeg), on this machine or in an appliance.

The behaviours and their parameters stand at the beginning of that file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

STANDIN = Path(__file__).resolve().parent / "standin" / "ffmpeg"


def write_steering(directory: Path, channel: int, behaviour: str, *, board: int = 0, **parameters: Any) -> None:
    """Replace a channel's steering file, so that nobody ever reads half of it."""
    path = directory / f"board{board}-channel{channel}.json"
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps({"behaviour": behaviour, **parameters}))
    partial.chmod(0o644)
    os.replace(partial, path)
