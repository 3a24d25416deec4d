"""What an offload says of itself in /run/sdisup/offload/NAME.json: for people, and for its next run in this boot.

Nothing depends on it. Without it the ledger says what is copied, and what failed is tried again at once.
"""

from __future__ import annotations

import os
import time

from sdisup.contract import lean
from sdisup.contract.files import RUN_DIRECTORY, Fields, Unreadable, boot_id, monotonic, read_fields, replace_file
from sdisup.contract.records import Record
from sdisup.offload.plan import wait_s

LIMIT_BYTES = 16 << 20
FILES_LIMIT = 10_000
"""Troubles that are kept, so that it can be read; files beyond that are tried again by each run."""
STUCK_S, STUCK_S_PER_BYTE = 300.0, 1 / 10e6
"""For how long nothing may go on before people are told: longer than what ends an rclone that hangs (remote.py)."""


GONE, WITH_TARGET = "gone", "with target"
"""Kinds of trouble: the file is not there any more; the target was in trouble while it was copied."""


def offload_directory(run_directory: str = RUN_DIRECTORY) -> str:
    return f"{run_directory}/offload"


def state_path(name: str, run_directory: str = RUN_DIRECTORY) -> str:
    return f"{offload_directory(run_directory)}/{name}.json"


class Trouble(Record):
    """What keeps a file, or all of them, from being copied: since when (Unix time), how often in a row, and when it is
    tried again (CLOCK_MONOTONIC). `kind` is GONE or WITH_TARGET of a file that has no trouble of its own."""

    text: str
    since: float
    failures: int
    retry_at: float
    kind: str = ""


class Going(Record):
    """What is being copied. `doing` is what is done with it, `moved_at` when that last went on, by CLOCK_MONOTONIC."""

    pid: int
    path: str
    size_bytes: int
    doing: str
    done_bytes: int
    moved_at: float


class Entered(Record):
    """A copy that was told to the ledger's process, and is not in the ledger yet."""

    port_index: int
    path: str
    size_bytes: int
    recorded: str
    copy: str


class State(Record, frozen=False):
    """All of it. `files` has the files' own troubles by path; `looked_at` the size of each ledger, by port, of whose
    files none waits. `unfinished` is the copy at the target that was begun last, as long as it may be there."""

    boot_id: str
    trouble: Trouble | None = None
    going: Going | None = None
    files: dict[str, Trouble] | None = None
    entered: tuple[Entered, ...] = ()
    looked_at: dict[str, int] | None = None
    unfinished: str = ""

    def failed(self, path: str, text: str, kind: str = "") -> bool:
        """Note what keeps a file from being copied; whether that is news."""
        files = self.files = self.files or {}
        former = files.get(path)
        if former is None and len(files) >= FILES_LIMIT:
            return True
        files[path] = _again(former, text, kind)
        return former is None or former.text != text

    def in_trouble(self, text: str) -> bool:
        """Note what keeps all files from being copied; whether that is news."""
        former, self.trouble = self.trouble, _again(self.trouble, text)
        return former is None

    def retry_at(self) -> dict[str, float]:
        """When files that failed are tried again, by path."""
        return {path: trouble.retry_at for path, trouble in (self.files or {}).items()}


def _again(former: Trouble | None, text: str, kind: str = "") -> Trouble:
    failures = former.failures + 1 if former else 1
    since = former.since if former else time.time()
    # Behind others where the target was in trouble with it: it may be this file that it cannot take.
    wait = wait_s(failures + 1 if kind == WITH_TARGET else failures)
    return Trouble(text, since, failures, monotonic() + wait, kind)


def load_state(name: str, run_directory: str = RUN_DIRECTORY) -> State:
    """What was said in this boot. Raises Unreadable."""
    try:
        fields = read_fields(state_path(name, run_directory), LIMIT_BYTES)
    except FileNotFoundError:
        return State(boot_id())
    if fields.text("boot_id") != boot_id():
        return State(boot_id())
    files, looked_at = fields.child("files", {}), fields.child("looked_at", {})
    is_said = {name: fields.value(name, None) is not None for name in ("trouble", "going")}
    return State(
        boot_id(),
        trouble=fields.child("trouble").record(Trouble) if is_said["trouble"] else None,
        going=fields.child("going").record(Going) if is_said["going"] else None,
        files={path: files.child(path).record(Trouble) for path in files.names()},
        entered=tuple(Fields(item, fields.where).record(Entered) for item in fields.items("entered", [])),
        looked_at={port: looked_at.whole(port) for port in looked_at.names()},
        unfinished=fields.text("unfinished", ""),
    )


def save_state(state: State, name: str, run_directory: str = RUN_DIRECTORY) -> None:
    """Say it. Raises OSError."""
    document = {
        "boot_id": state.boot_id,
        "trouble": state.trouble and state.trouble.as_dict(),
        "going": state.going and state.going.as_dict(),
        "files": {path: trouble.as_dict() for path, trouble in (state.files or {}).items()},
        "entered": [entered.as_dict() for entered in state.entered],
        "looked_at": state.looked_at or {},
        "unfinished": state.unfinished,
    }
    replace_file(state_path(name, run_directory), lean.encode(document).encode())


# ---- For people ----


def is_running(going: Going, name: str) -> bool:
    """Whether the process that says it copies is there; any process can have got its number since."""
    try:
        with open(f"/proc/{going.pid}/cmdline", "rb") as file:
            return file.read(4096).rstrip(b"\0").split(b"\0")[-2:] == [b"copy", name.encode()]
    except OSError:
        return False


def problems_of(name: str, state: State) -> list[str]:
    """What is wrong with a target, in the operator's words: of the target as a whole, and how many files fail."""
    found = []
    going = state.going
    idle_s = monotonic() - going.moved_at if going is not None and is_running(going, name) else 0.0
    if going is not None and idle_s > STUCK_S + going.size_bytes * STUCK_S_PER_BYTE:
        found.append(f"nothing goes on for {idle_s:.0f} s while {going.path} is {going.doing}: does the target hang?")
    elif state.trouble is not None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.trouble.since))
        found.append(f"{state.trouble.text} (since {since}; it is tried again, and nothing is lost)")
    count = sum(not trouble.kind for trouble in (state.files or {}).values())
    if count:
        found.append(f"{count} file{'s' if count > 1 else ''} cannot be copied; see: sdisup offload {name}")
    return found


def all_problems(run_directory: str = RUN_DIRECTORY) -> list[str]:
    """One line for each target that has a problem."""
    try:
        names = os.listdir(offload_directory(run_directory))
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(name.removesuffix(".json") for name in names if name.endswith(".json")):
        try:
            problems = problems_of(name, load_state(name, run_directory))
        except Unreadable as error:
            problems = [str(error)]
        found += [f"offload {name}: {'; '.join(problems)}"] if problems else []
    return found
