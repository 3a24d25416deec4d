"""What a runner leaves to the next one: its take, through restarts, and which command lines have recorded since boot.

The files are in /run/sdisup. Whether a start goes on with the take that was before, systemd tells: it keeps the unit's
run directory through restarts (RuntimeDirectoryPreserve=restart) and removes it at a stop, so that the next runner
finds its mark there or not. systemd removes it too when the start limit ends the restarts; then
sdi-record-retry@.service leaves a mark of its own just before it starts the port again.
"""

from __future__ import annotations

import os

from sdisup.contract import lean
from sdisup.contract.files import Unreadable, read_fields, read_json, replace_file
from sdisup.contract.records import Record
from sdisup.contract.requests import Request
from sdisup.contract.status import again_path

BACKOFF_S = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 10.0)
"""The wait before a start, by how many ends in a row came before it; the last one is the cap."""


class Memory(Record, frozen=False):
    """The runner's memory. `failures` are the ends in a row without a minute of good recording between them.

    `without_audio`: audio is configured, and the signal was found to carry none; `programme` is the best one of the
    input, where that is not FFmpeg's first; `channels` are those of its sound, where they are recorded in pairs;
    `fruitless` are the attempts since then that brought no picture. `cut_at`
    is when (CLOCK_MONOTONIC) a file was ended for a new one that could have gone on, and `size` the one that the
    picture had then, if it was for that. `from_zero`: the timestamps of picture and sound are so far apart that
    nothing was recorded. `was_asked`: systemd asked the runner to end. `first_frame_at` is when (CLOCK_MONOTONIC) the
    take's first frame came, where its timecode counts from there. `lack` is why the last write failed.
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
    channels: int = 0
    size: str = ""
    from_zero: bool = False
    was_asked: bool = False
    first_frame_at: float | None = None
    request: Request = Request()
    lack: str = ""

    def save(self) -> None:
        """Write the file; where that fails, the next runner finds what was written before."""
        content = {**self.as_dict(), "request": self.request.as_dict()}
        del content["path"], content["lack"]
        try:
            # For nobody else's eyes: a stream's URL may hold a password.
            replace_file(self.path, lean.encode(content).encode(), mode=0o600)
        except OSError as error:
            self.lack = f"{os.path.dirname(self.path)}: {error.strerror}"
        else:
            self.lack = ""

    def begin(self, request: Request) -> None:
        """Keep a take's request. Raises OSError where it cannot be kept, and then has none."""
        self.request = request
        self.save()
        if self.lack:
            self.request = Request()
            raise OSError(0, self.lack)

    def good_minute(self) -> None:
        """After a minute of good recording the next end counts as the first again, and is retried at once."""
        if self.failures >= 0:
            self.failures = -1
            self.reason = ""
            self.save()

    def end_as_asked(self) -> None:
        """Leave the take alone: what was found of the input, and how often it failed, is over with a restart by hand.

        At a stop nobody will read it.
        """
        Memory(
            self.path,
            take_started_at=self.take_started_at,
            request=self.request,
            was_asked=True,
            first_frame_at=self.first_frame_at,
        ).save()


def backoff_s(failures: int) -> float:
    """How long to wait before a start that follows `failures` ends without a good minute between them."""
    return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]


def memory_path(port_index: int, run_directory: str) -> str:
    return f"{run_directory}/{port_index}.take"


def mark_path(directory: str) -> str:
    """The mark of a runner in its unit's run directory."""
    return f"{directory}/began"


def former_path(directory: str) -> str:
    """Where earlier versions kept the memory, which was the mark too."""
    return f"{directory}/runner.json"


def take_up(port_index: int, run_directory: str, directory: str) -> Memory:
    """The memory that the runner before left to this one; a new one after a stop. Raises Unreadable."""
    path = memory_path(port_index, run_directory)
    former = former_path(directory)
    if os.path.lexists(former):
        memory = recall(former)
        memory.path = path
        return memory
    marks = (mark_path(directory), again_path(port_index, run_directory))
    return recall(path) if any(os.path.lexists(mark) for mark in marks) else Memory(path)


def leave_mark(port_index: int, run_directory: str, directory: str) -> None:
    """Let the next runner know of this one; to be called when the memory is written. Raises OSError."""
    os.close(os.open(mark_path(directory), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))
    for used in (again_path(port_index, run_directory), former_path(directory)):
        try:
            os.unlink(used)
        except FileNotFoundError:
            continue


def recall(path: str) -> Memory:
    """The memory in a file. Raises Unreadable."""
    try:
        fields = read_fields(path)
    except FileNotFoundError:
        # /run was full.
        return Memory(path, is_restart=True)
    ends = 0 if fields.flag("was_asked", False) else 1
    # Its values are not checked again: a runner wrote the request into its own file after checking it.
    return fields.record(
        Memory,
        path=path,
        is_restart=True,
        failures=fields.whole("failures", 0, least=-1) + ends,
        restarts=fields.whole("restarts", 0) + ends,
        was_asked=False,
        request=fields.child("request", {}).record(Request),
        lack="",
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
    """Note that this command line has recorded, beside those that did before. Raises OSError."""
    commands = [*(other for other in before if other != command), command]
    # For nobody else's eyes, as above.
    replace_file(path, lean.encode(commands[-COMMANDS_KEPT:]).encode(), mode=0o600)
