"""What a runner leaves to the next one through restarts, but not past a stop: a file in the unit's run directory.

systemd keeps RuntimeDirectory= through restarts (RuntimeDirectoryPreserve=restart) and removes it at a stop. So a start
is a restart if the file is there. Which command lines have recorded is left past a stop too, until the next boot.
"""

from __future__ import annotations

import json
import os

from sdisup.contract.files import Unreadable, read_fields, read_json, replace_file
from sdisup.contract.records import Record
from sdisup.contract.requests import Request


class Memory(Record, frozen=False):
    """The runner's memory. `failures` are the ends in a row without a minute of good recording between them.

    `without_audio`: audio is configured, and the signal was found to carry none; `programme` is the best one of the
    input, where that is not FFmpeg's first; `fruitless` are the attempts since then that brought no picture. `cut_at`
    is when (CLOCK_MONOTONIC) a file was ended for a new one that could have gone on, and `size` the one that the
    picture had then, if it was for that. `from_zero`: the timestamps of picture and sound are so far apart that
    nothing was recorded.
    """

    path: str
    is_restart: bool = False
    failures: int = 0
    restarts: int = 0
    take_started_at: str = ""
    reason: str = ""
    without_audio: bool = False
    cut_at: float | None = None
    cuts: int = 0
    fruitless: int = 0
    programme: str = ""
    size: str = ""
    from_zero: bool = False
    request: Request = Request()

    def save(self) -> None:
        """Write the file; where that fails, the next runner starts as after a stop."""
        content = {**self.as_dict(), "request": self.request.as_dict()}
        del content["path"]
        try:
            replace_file(self.path, json.dumps(content).encode())
        except OSError:
            return

    def good_minute(self) -> None:
        """After a minute of good recording the next end counts as the first again, and is retried at once."""
        if self.failures >= 0:
            self.failures = -1
            self.reason = ""
            self.save()

    def forget(self) -> None:
        """Remove the file at a stop: the next start is no restart, also where systemd keeps the directory."""
        try:
            os.unlink(self.path)
        except OSError:
            return


def memory_path(directory: str) -> str:
    return f"{directory}/runner.json"


def recall(path: str) -> Memory:
    """The memory that the runner before left; a new one where it left none. Raises Unreadable."""
    try:
        fields = read_fields(path)
    except FileNotFoundError:
        return Memory(path)
    # Its values are not checked again: a runner wrote the request into its own directory after checking it.
    return fields.record(
        Memory,
        path=path,
        is_restart=True,
        failures=fields.whole("failures", 0, least=-1) + 1,
        restarts=fields.whole("restarts", 0) + 1,
        request=fields.child("request", {}).record(Request),
    )


COMMANDS_KEPT = 8
"""A port has one command line, and one for each codec that takes are recorded in."""


def recorded_path(port_index: int, run_directory: str) -> str:
    return f"{run_directory}/{port_index}.recorded"


def recorded_commands(path: str) -> list[list[str]]:
    """The command lines that have recorded since boot, the last one last. Raises Unreadable."""
    try:
        found = read_json(path)
    except FileNotFoundError:
        return []
    if not isinstance(found, list) or not all(isinstance(command, list) for command in found):
        raise Unreadable(f"{path}: no list of command lines")
    return found


def note_recorded(path: str, command: list[str], before: list[list[str]]) -> None:
    """Note that this command line has recorded, beside those that did before. Raises OSError.

    For nobody else's eyes: a stream's URL may hold a password.
    """
    commands = [*(other for other in before if other != command), command]
    replace_file(path, json.dumps(commands[-COMMANDS_KEPT:]).encode(), mode=0o600)
