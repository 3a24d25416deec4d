"""Takes: a program's request for a port's next start, which is checked and left for the port's runner."""

from __future__ import annotations

import os
from collections.abc import Callable

from sdisup.config.codecs import MUXERS
from sdisup.contract.applied import AppliedPort
from sdisup.errors import ConfigError, RootError, SdisupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sdisup.contract.requests import Request
    from sdisup.control.api import FFmpegCommandBuilder, RecorderConfig


def leave_take_request(port: AppliedPort, request: Request) -> None:
    """Leave a request for the port's next start.

    Raises FileExistsError when another program starts the port, RootError or SdisupError when no request can be left.
    """
    from sdisup.contract.requests import leave_request

    try:
        leave_request(port.index, request)
    except FileExistsError:
        raise
    except PermissionError as error:
        hint = "run it as root, or as a member of the group sdisup"
        raise RootError(f"{port.label}: no request can be left: {error.strerror}", hint) from error
    except OSError as error:
        hint = "/run/sdisup/requests is made by: systemd-tmpfiles --create sdisup.conf"
        raise SdisupError(f"{port.label}: no request can be left: {error.strerror}", hint) from error


def make_request(
    port: AppliedPort, config: RecorderConfig | None, builder: Callable[[], FFmpegCommandBuilder]
) -> Request:
    """The request for a take with `config`. The builder is called only for a codec or container of the take's own.

    Raises ConfigError for a wrong value, and RootError for a value that only root may give.
    """
    from sdisup.contract.requests import Request, is_below, is_take_name

    request_id = os.urandom(8).hex()
    if config is None:
        return Request(request_id=request_id)
    problems: list[str] = []
    path, name, container = config.recording_path, config.name, config.container
    if path is not None and _is_relative(path):
        path = os.path.normpath(os.path.join(port.recordings, path))
    if path is not None and is_file_path(path):
        path, name, container = _parts(path, config, problems)
    for what, value in (("take", config.take), ("name", name)):
        if value is not None and not is_take_name(value):
            problems.append(f"{what}: {value!r} is not a letter or digit and up to 63 of A-Z a-z 0-9 . _ -")
    if path is not None and not is_below(path, port.recordings):
        problems.append(f"recording_path: {config.recording_path!r} is not at or below {port.recordings}")
    if problems:
        raise ConfigError([f"{port.label}: {problem}" for problem in problems])
    values: dict[str, Any] = {}
    is_changed = config.codec not in (None, port.codec) or container is not None
    if os.geteuid() and (is_changed or path is not None or name is not None):
        # The runner executes and writes what these values say, so it ignores them in a request that is not root's.
        wanted = "a codec, container, path or name of its own"
        raise RootError(f"{port.label}: only root may give a take {wanted}")
    if is_changed:
        wanted_config = config.replaced(container=container)
        changed = builder().port_for(wanted_config, port.index)
        values = {
            "argv": list(builder().build_command(wanted_config, port.index)),
            "codec": changed.codec,
            "container": changed.container,
        }
    return Request(take=config.take, request_id=request_id, recording_path=path, name=name, **values)


def _is_relative(path: str) -> bool:
    # normpath of Python 3.11.2 ends at a NUL, which is_below refuses.
    return bool(path) and not path.startswith("/") and "\0" not in path


def is_file_path(path: str) -> bool:
    """Whether a `recording_path` names a file: it has the ending of a container, and is no directory."""
    if os.path.splitext(path)[1].removeprefix(".") not in MUXERS:
        return False
    # A disk that hangs must not hang the caller. No path has a NUL, which is_below refuses.
    from sdisup.control.look import look_at

    return "\0" in path or look_at([path])[path].kind != "directory"


def _parts(path: str, config: RecorderConfig, problems: list[str]) -> tuple[str, str, str]:
    """A file path's directory, name and container. A `name` or `container` of `config` that differs is a problem."""
    directory, file_name = os.path.split(path)
    name, _, container = file_name.rpartition(".")
    for what, asked, of_path in (("name", config.name, name), ("container", config.container, container)):
        if asked not in (None, of_path):
            problems.append(f"recording_path: {path!r} asks for the {what} {of_path!r}, and {what} for {asked!r}")
    return directory, name, container
