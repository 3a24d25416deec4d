"""What a runner leaves to the next one through restarts, but not past a stop: a file in the unit's run directory.

systemd keeps RuntimeDirectory= through restarts (RuntimeDirectoryPreserve=restart) and removes it at a stop. So a start
is a restart if the file is there.
"""

from __future__ import annotations

import json
import os

from sdisup.contract.files import read_json, replace_file
from sdisup.contract.requests import Request


class Memory:
    """The runner's memory. `failures` are the ends in a row without a minute of good recording between them.

    `without_audio`: audio is configured, and the signal was found to carry none.
    """

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/runner.json"
        self.is_restart = False
        self.failures = 0
        self.restarts = 0
        self.take_started_at = ""
        self.reason = ""
        self.without_audio = False
        self.request = Request()
        try:
            document = read_json(self._path)
        except (OSError, ValueError):
            return
        if isinstance(document, dict):
            self._recall(document)

    def _recall(self, document: dict[str, object]) -> None:
        self.is_restart = True
        self.failures = _whole(document.get("failures")) + 1
        self.restarts = _whole(document.get("restarts")) + 1
        self.take_started_at = str(document.get("take_started_at", ""))
        self.reason = str(document.get("reason", ""))
        self.without_audio = document.get("without_audio") is True
        request = document.get("request")
        if isinstance(request, dict):
            # Not checked again: a runner wrote the request into its own directory after checking it.
            self.request.__dict__.update({key: request.get(key) for key in self.request.as_dict()})

    def save(self) -> None:
        """Write the file; where that fails, the next runner starts as after a stop."""
        content = {name: value for name, value in self.__dict__.items() if name not in ("_path", "request")}
        content["request"] = self.request.as_dict()
        try:
            replace_file(self._path, json.dumps(content).encode())
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
            os.unlink(self._path)
        except OSError:
            return


def _whole(value: object) -> int:
    return value if isinstance(value, int) and -1 <= value < 1 << 40 else 0
