"""What sdisup raises for an operator to read.

Every error says what is wrong, where and why in `message`, and the next step in `hint`. Only the
command line prints them and turns `exit_code` into its own (DESIGN.md, Commands).

This module is imported by nearly everything, also by what has to start fast: it imports nothing.
"""

from __future__ import annotations


class SdisupError(Exception):
    """Something that the operator has to know; the command ends with `exit_code`."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def root_hint(error: OSError, command: str = "") -> str:
    """The next step where `error` is that only root may: `run it as root: sudo COMMAND`; empty for any other."""
    if error.errno not in (1, 13):  # EPERM, EACCES
        return ""
    return f"run it as root: sudo {command}" if command else "run it as root"


class UsageError(SdisupError):
    """The command was called in a way that it does not have."""

    exit_code = 2


class ConfigError(SdisupError):
    """The configuration is missing, unreadable or wrong.

    `problems` holds all that was found in one run, each `FILE: port.3.codec: what is wrong`; `valid` the Settings with
    the ports of which nothing is wrong, None where that cannot be told.
    """

    exit_code = 2

    def __init__(self, problems: list[str], hint: str = "", valid: object = None) -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = problems
        self.valid = valid


class UnknownPortError(SdisupError, ValueError):
    """No such port is configured.

    It is a ValueError too, which is what the Python interface promises for a bad index.
    """

    exit_code = 4


class RootError(SdisupError, PermissionError):
    """Only root may do this, or who has root's rights on it.

    It is a PermissionError too, which is what the Python interface promises.
    """

    def __init__(self, message: str, hint: str = "run it as root") -> None:
        super().__init__(message, hint)
        self.errno, self.strerror = 1, message  # EPERM


class LockedError(SdisupError):
    """The port is locked, and was not stopped: nobody said that it shall be all the same."""


class RecordingError(SdisupError, RuntimeError):
    """A port cannot be started as asked: it records already, or cannot record at all.

    It is a RuntimeError too, which is what the Python interface promises.
    """
