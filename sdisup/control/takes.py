"""Takes: what a program asks of a port's next start, checked and left for its runner."""

from __future__ import annotations

import os
from collections.abc import Callable

from sdisup.contract.applied import AppliedPort
from sdisup.errors import ConfigError, RecordingError, SdisupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sdisup.contract.requests import Request
    from sdisup.control.api import FFmpegCommandBuilder, RecorderConfig


def leave_take_request(port: AppliedPort, request: Request) -> None:
    """Leave a request for the port's next start. Raises RecordingError when another program starts it."""
    from sdisup.contract.requests import leave_request

    try:
        leave_request(port.index, request)
    except FileExistsError as error:
        raise RecordingError(f"{port.label} is just being started by another program") from error
    except OSError as error:
        hint = "run it as root, or as a member of the group sdisup"
        raise SdisupError(f"{port.label}: no request can be left: {error.strerror}", hint) from error


def make_request(
    port: AppliedPort, config: RecorderConfig | None, builder: Callable[[], FFmpegCommandBuilder]
) -> Request:
    """The request that a start with `config` leaves. The builder is only asked for a codec of the take's own.

    Raises ConfigError, which is a wrong value in the operator's words.
    """
    from sdisup.contract.requests import Request, is_below, is_take_name

    request_id = os.urandom(8).hex()
    if config is None:
        return Request(request_id=request_id)
    problems = []
    for what, value in (("take", config.take), ("name", config.name)):
        if value is not None and not is_take_name(value):
            problems.append(f"{what}: {value!r} is not a letter or digit and up to 63 of A-Z a-z 0-9 . _ -")
    path = config.recording_path
    if path is not None and not is_below(path, port.recordings):
        problems.append(f"recording_path: {path!r} is not at or below {port.recordings}")
    if problems:
        raise ConfigError([f"{port.label}: {problem}" for problem in problems])
    values: dict[str, str | list[str] | None] = {}
    is_changed = config.codec not in (None, port.codec) or config.container is not None
    if os.geteuid() and (is_changed or path is not None or config.name is not None):
        # The runner would ignore it: it decides what is executed and written.
        wanted = "a codec, container, path or name of its own"
        raise SdisupError(f"{port.label}: only root may give a take {wanted}", "run it as root")
    if is_changed:
        changed = builder().port_for(config, port.index)
        values = {
            "argv": list(builder().build_command(config, port.index)),
            "codec": changed.codec,
            "container": changed.container,
        }
    return Request(take=config.take, request_id=request_id, recording_path=path, name=config.name, **values)
