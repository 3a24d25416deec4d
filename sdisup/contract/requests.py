"""A take's request: what a program asks of a port's next start, left for its runner in /run/sdisup/requests.

Written before the unit is started, claimed by the runner that starts, and void after 30 s: a controller
that died must not change a later plain start. What it may decide depends on who wrote it: `argv` and
`recording_path` decide what is executed and written, so they count from root only; others may name a take.
Standard library only: the runner imports this.
"""

from __future__ import annotations

import errno
import json
import os
import stat

from sdisup.contract.files import RUN_DIRECTORY, SIZE_LIMIT_BYTES, boot_id, boottime_ns, read_json, replace_file

LIFETIME_S = 30.0
TAKE_LENGTH = 64
_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_FIELDS = ("take", "request_id", "argv", "recording_path", "name", "codec", "container")


class RequestError(ValueError):
    """A request that is not honoured; says why, in the operator's words."""


class Request:
    """What a start asks for; None where the port's own configuration holds.

    `argv` is FFmpeg's whole argument list with the literal `{output}`; `recording_path` a directory at or
    below the port's recordings; `name`, `codec` and `container` go with them.
    """

    take: str | None
    request_id: str
    argv: list[str] | None
    recording_path: str | None
    name: str | None
    codec: str | None
    container: str | None

    def __init__(self, **values: str | list[str] | None) -> None:
        self.__dict__.update(dict.fromkeys(_FIELDS, None), request_id="")
        self.__dict__.update(values)

    def as_dict(self) -> dict[str, object]:
        return {name: self.__dict__[name] for name in _FIELDS}


def is_take_name(text: str) -> bool:
    """`[A-Za-z0-9][A-Za-z0-9._-]{0,63}`: nothing that could lead out of a directory."""
    return (
        0 < len(text) <= TAKE_LENGTH
        and text[0] in _ALNUM
        and all(character in _ALNUM or character in "._-" for character in text)
    )


def is_below(path: str, directory: str) -> bool:
    """Whether an absolute, normal path is the directory or lies in it, by its words alone."""
    is_normal = _is_word(path) and path == os.path.normpath(path)
    return is_normal and (path == directory or path.startswith(directory.rstrip("/") + "/"))


def _is_word(text: str) -> bool:
    """Whether the system can take it as an argument or a path: no NUL, and nothing that has no bytes."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def request_path(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    return f"{directory}/requests/{port_index}.json"


def stop_note_path(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    """Where a controller says who stops the port, `{"by": "apply", "created_boottime_ns": …}`, just before it does."""
    return f"{directory}/requests/{port_index}.stop.json"


def leave_stop_note(port_index: int, by: str, directory: str = RUN_DIRECTORY) -> None:
    """Say who is about to stop the port, for its ledger. Without the right to, it is entered as the operator's."""
    note = {"by": by, "created_boottime_ns": boottime_ns()}
    try:
        replace_file(stop_note_path(port_index, directory), json.dumps(note).encode())
    except OSError:
        return


def noted_stopper(port_index: int, run_directory: str) -> str:
    """`apply` or `schedule` if they left word that it is they who stop the port; empty otherwise."""
    path = stop_note_path(port_index, run_directory)
    try:
        note = read_json(path)
        os.unlink(path)
    except (OSError, ValueError):
        return ""
    if not isinstance(note, dict):
        return ""
    created = note.get("created_boottime_ns")
    age_s = (boottime_ns() - created) / 1e9 if isinstance(created, int) else -1.0
    # A note whose stop never came must not speak for a later one.
    by = note.get("by") if 0 <= age_s <= LIFETIME_S else None
    return by if by in ("apply", "schedule") else ""


def leave_request(port_index: int, request: Request, directory: str = RUN_DIRECTORY) -> None:
    """Leave a request for the port's next start.

    Exclusive: of two programs that start one port at the same moment, one gets FileExistsError. A request
    whose time is over is taken away first. Raises OSError.
    """
    path = request_path(port_index, directory)
    document = {"created_boottime_ns": boottime_ns(), "boot_id": boot_id(), **request.as_dict()}
    temporary = f"{path}.{os.getpid()}.{request.request_id or 'x'}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o644)
            json.dump(document, file)
        _remove_expired(path)
        # link(2) makes the name appear with its whole content, or fails because it is taken.
        os.link(temporary, path)
    finally:
        os.unlink(temporary)


def take_back(port_index: int, request_id: str, directory: str = RUN_DIRECTORY) -> bool:
    """Remove our own request if no runner claimed it; whether that was so."""
    path = request_path(port_index, directory)
    try:
        document = json.loads(_read(path)[0])
        if isinstance(document, dict) and document.get("request_id") == request_id:
            os.unlink(path)
            return True
    except (OSError, ValueError, RecursionError):
        # It was claimed, which is what it was for.
        return False
    return False


def _remove_expired(path: str) -> None:
    try:
        _check_age(json.loads(_read(path)[0]))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        os.unlink(path)


def claim_request(port_index: int, recordings: str, directory: str = RUN_DIRECTORY) -> Request | None:
    """Take the port's request, if there is one; it is gone afterwards, honoured or not.

    Raises RequestError for one that is not honoured: the port then starts as it is configured.
    """
    path = request_path(port_index, directory)
    try:
        try:
            content, owner = _read(path)
        finally:
            os.unlink(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestError(f"the request for a take cannot be read: {error.strerror}") from error
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request for a take is no JSON: {error}") from error
    _check_age(document)
    return _checked(document, owner, recordings)


def _read(path: str) -> tuple[bytes, int]:
    """The content and its owner. Raises OSError, also for what is no regular file or too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > SIZE_LIMIT_BYTES // 2:
            raise OSError(errno.EINVAL, "it is no file of a request's size")
        return os.read(descriptor, SIZE_LIMIT_BYTES), status.st_uid
    finally:
        os.close(descriptor)


def _check_age(document: object) -> None:
    if not isinstance(document, dict):
        raise RequestError("the request for a take is no JSON object")
    created = document.get("created_boottime_ns")
    # JSON's numbers may be of any length; a clock's have 64 bits.
    if document.get("boot_id") != boot_id() or not isinstance(created, int) or abs(created) >= 1 << 63:
        raise RequestError("the request for a take is of another boot")
    age_s = (boottime_ns() - created) / 1e9
    if not 0 <= age_s <= LIFETIME_S:
        raise RequestError(f"the request for a take is {age_s:.0f} s old; {LIFETIME_S:.0f} s is the limit")


def _checked(document: dict[str, object], owner: int, recordings: str) -> Request:
    """The request as far as its owner may ask. A wrong value voids it all: half a take is none."""
    texts: dict[str, str | None] = {}
    for field in ("take", "request_id", "recording_path", "name", "codec", "container"):
        value = document.get(field)
        if value is not None and not isinstance(value, str):
            raise RequestError(f"the request for a take has a {field} that is no text")
        texts[field] = value
    take, name, path, container = (texts[field] for field in ("take", "name", "recording_path", "container"))
    if take is not None and not is_take_name(take):
        raise RequestError(f"{take[:80]!r} cannot be a take's name")
    request = Request(take=take, request_id=(texts["request_id"] or "")[:64])
    if owner != 0:
        return request
    if name is not None and not is_take_name(name):
        raise RequestError(f"{name[:80]!r} cannot begin a file's name")
    if container is not None and not (container.isascii() and container.isalnum()):
        raise RequestError(f"{container[:80]!r} cannot end a file's name")
    if path is not None and not is_below(path, recordings):
        raise RequestError(f"{path[:200]!r} is not at or below {recordings}")
    argv = document.get("argv")
    if argv is not None and not _is_argv(argv):
        raise RequestError("the request for a take has an argument list that cannot be run")
    request.__dict__.update(argv=argv, recording_path=path, name=name)
    request.__dict__.update(codec=texts["codec"], container=container)
    return request


def _is_argv(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(word, str) and _is_word(word) for word in value)
        and value[-1] == "{output}"
    )
