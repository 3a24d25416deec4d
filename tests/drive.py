"""What system tests do to an appliance, as its users do: systemctl, sdisup, and the files of the contract."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from appliance import Appliance, wait_for

RECORDINGS = "/srv/recordings"
SMALL = 'source = { kind = "test", size = "320x180", rate = 25 }'


def configure(appliance: Appliance, text: str, *, apply: bool = True) -> None:
    """Write the configuration and apply it."""
    appliance.write("/etc/sdisup/sdisup.toml", text)
    if apply:
        appliance.run("sdisup apply")


def small_ports(count: int, extra: str = "") -> str:
    """A configuration of `count` small test ports; `extra` is more TOML."""
    return f"[appliance]\nports = {count}\n[defaults]\n{SMALL}\n{extra}"


def statuses(appliance: Appliance) -> list[dict[str, Any]]:
    """`sdisup status --json`, whatever its exit code says."""
    found: list[dict[str, Any]] = json.loads(appliance.run("sdisup status --json", check=False).stdout)
    return found


def status(appliance: Appliance, port: int) -> dict[str, Any]:
    return next(found for found in statuses(appliance) if found["port_index"] == port)


def status_file(appliance: Appliance, port: int) -> dict[str, Any]:
    """The status file itself: cheap enough to ask often."""
    document: dict[str, Any] = json.loads(appliance.read(f"/run/sdisup/{port}.json"))
    return document


def wait_recording(appliance: Appliance, port: int, frames: int = 1, timeout_s: float = 20) -> dict[str, Any]:
    """Wait until the port's running FFmpeg has counted `frames`; its status then."""

    def is_there() -> dict[str, Any] | None:
        try:
            found = status_file(appliance, port)
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return found if found["is_recording"] and found["frame_count"] >= frames else None

    return wait_for(is_there, timeout_s, f"port {port} has recorded {frames} frames")


def wait_state(appliance: Appliance, port: int, state: str, timeout_s: float = 20) -> dict[str, Any]:
    """Wait until `sdisup status` says that state; the status then."""

    def is_there() -> dict[str, Any] | None:
        found = status(appliance, port)
        return found if found["state"] == state else None

    return wait_for(is_there, timeout_s, f"port {port} is {state}", poll_s=0.1)


def recordings(appliance: Appliance, name: str = "") -> list[str]:
    """The files that a port of that name recorded (all files without one), oldest first."""
    directory = appliance.path(RECORDINGS)
    return sorted(
        str(Path(RECORDINGS, file.name))
        for file in directory.iterdir()
        if file.name.startswith(name) and file.is_file()
    )


def count_frames(appliance: Appliance, path: str) -> int:
    """How many pictures of a file can be decoded, as ffprobe counts them."""
    options = "-v error -select_streams v:0 -count_frames -show_entries stream=nb_read_frames -of csv=p=0"
    return int(appliance.run(["ffprobe", *options.split(), path]).stdout.strip().strip(",") or 0)


def ffmpegs(appliance: Appliance) -> list[int]:
    """All FFmpeg processes that run inside."""
    found = appliance.run(["pgrep", "-x", "ffmpeg"], check=False).stdout
    return [int(pid) for pid in found.split()]


def active_state(appliance: Appliance, port: int) -> str:
    return appliance.run(["systemctl", "show", "-P", "ActiveState", f"sdi-record@{port}.service"]).stdout.strip()


def sdisup(appliance: Appliance, words: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command and insist on its exit code; a traceback is never an answer."""
    result = appliance.run(f"sdisup {words}", check=False, **options)
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == code, f"sdisup {words}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result
