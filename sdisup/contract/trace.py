"""What `--debug` shows on stderr: each file, program and D-Bus call, a line each, with the time since it was begun.

    sdisup: debug: +0.012 s  read /run/sdisup/3.json (412 bytes)

Nothing is shown until `start`. Files are shown by Python's own audit events (PEP 578): no place that reads or writes
has to tell, none is forgotten, and whoever is not asked for it, above all the runner, does not even load this module.
Secrets are left out: what URLs and options hold that gives access.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

LIMIT = 2000
"""Of a line's characters."""
_CODE = (".py", ".pyc", ".so", ".pth")
"""What Python opens for itself."""

_began: float | None = None
_is_hooked = False


def start() -> None:
    """Show what this process does from now on."""
    global _began, _is_hooked
    _began = time.monotonic()
    if not _is_hooked:
        # An audit hook stays as long as the process.
        sys.addaudithook(_on_event)
        _is_hooked = True


def stop() -> None:
    """Show nothing more."""
    global _began
    _began = None


def trace(text: str, *values: object) -> None:
    """Show a line, `text % values`; nothing happens unless --debug was given."""
    if _began is None:
        return
    # It needs the modules re and shlex, which nobody else loads for this.
    from sdisup.contract.secrets import masked

    line = masked(text % values if values else text)
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    line = f"{line[:LIMIT]}…" if len(line) > LIMIT else line
    try:
        print(f"sdisup: debug: +{time.monotonic() - _began:.3f} s  {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        # Who read stderr has gone; what the command does goes on.
        stop()


def trace_command(text: str, command: Sequence[str], *values: object) -> None:
    """The same, of which the first value is a command, without its secrets."""
    if _began is None:
        return
    from sdisup.contract.secrets import shown

    trace(text, shown(command), *values)


# ---- Files ----


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _began is not None and event in _EVENTS:
        _EVENTS[event](*arguments)


def _opened(path: object, _mode: object, flags: int) -> None:
    name = _name(path)
    if not name or name.endswith(_CODE) or name == os.devnull or flags & os.O_DIRECTORY:
        return
    trace("%s %s%s", "write" if flags & (os.O_WRONLY | os.O_RDWR) else "read", name, _size(name, flags))


def _name(path: object) -> str:
    """A path as text; empty for a descriptor, whose file was shown when it was opened."""
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""


def _size(path: str, flags: int = 0) -> str:
    try:
        found = os.stat(path)
    except OSError as error:
        return "" if flags & os.O_CREAT else f": {error.strerror}"
    # What the kernel makes at each reading has no size.
    return f" ({found.st_size} bytes)" if found.st_size and not flags & os.O_TRUNC else ""


_EVENTS: dict[str, Callable[..., None]] = {
    "open": _opened,
    "os.rename": lambda old, new, *_: trace("rename %s to %s%s", _name(old), _name(new), _size(_name(old))),
    "os.link": lambda old, new, *_: trace("link %s to %s%s", _name(old), _name(new), _size(_name(old))),
    "os.remove": lambda path, *_: trace("remove %s", _name(path)),
    "os.mkdir": lambda path, *_: trace("make the directory %s", _name(path)),
    "sdisup.bus": lambda call: trace("D-Bus %s", call),
}
