"""A take's request: what a program asks of a port's next start, left for its runner in /run/sdisup/requests.

Written before the unit is started, claimed by the runner that starts, and void after 30 s: a controller
that died must not change a later plain start. What it may decide depends on who wrote it: `argv` and
`recording_path` decide what is executed and written, so they count from root only; others may name a take.
Standard library only: the runner imports this.
"""

from __future__ import annotations

import os
import time

from sdisup.contract import lean
from sdisup.contract.files import (
    RUN_DIRECTORY,
    SIZE_LIMIT_BYTES,
    Exhausted,
    Fields,
    Unreadable,
    boot_id,
    boottime_ns,
    monotonic,
    read_fields,
    read_owned_json,
    replace_file,
)
from sdisup.contract.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LIFETIME_S = 30.0
REQUEST_LIMIT_BYTES = SIZE_LIMIT_BYTES // 2
TAKE_LENGTH = 64
TICK_NS = 100_000_000
CLAIM_S = 0.05
"""A runner that records spends no more at once on what somebody has left for it; the rest is for its next look."""
START, CUT = ".json", ".cut"
"""How the names of requests end, for a start and for a cut."""
_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Request(Record):
    """What a start asks for; None where the port's own configuration holds.

    `argv` is FFmpeg's whole argument list with the literal `{output}`; `recording_path` a directory at or
    below the port's recordings; `name`, `codec` and `container` go with them.
    """

    take: str | None = None
    request_id: str = ""
    argv: list[str] | None = None
    recording_path: str | None = None
    name: str | None = None
    codec: str | None = None
    container: str | None = None


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
        replace_file(stop_note_path(port_index, directory), lean.encode(note).encode())
    except OSError:
        return


def forget_stop_note(port_index: int, directory: str = RUN_DIRECTORY) -> None:
    """Take the word back, where no runner has read it."""
    try:
        os.unlink(stop_note_path(port_index, directory))
    except OSError:
        # It was read, which is what it was for; or it is void before long.
        return


def noted_stopper(port_index: int, run_directory: str) -> str:
    """`apply`, `schedule` or `gang` if they left word that it is they who stop the port; empty otherwise.

    Raises Unreadable.
    """
    path = stop_note_path(port_index, run_directory)
    left = _take_away(path)
    if left is None:
        return ""
    note = Fields(left[0], path)
    age_s = _age_s(note)
    # A note whose stop never came must not speak for a later one.
    by = note.text("by") if 0 <= age_s <= LIFETIME_S else ""
    return by if by in ("apply", "schedule", "gang", "") else note.fail("by", f"{by[:80]!r} is nobody who stops ports")


class Cut(Record):
    """What a cut asks of a port that records: at `at` (CLOCK_MONOTONIC) the next take begins, by the name `take`; None
    is for the name that the take before it has."""

    take: str | None
    request_id: str
    at: float


def cut_path(port_index: int, directory: str = RUN_DIRECTORY) -> str:
    return f"{directory}/requests/{port_index}{CUT}"


def leave_cut(port_index: int, cut: Cut, directory: str = RUN_DIRECTORY) -> None:
    """Leave a cut for the port's runner; as leave_request does."""
    _leave(cut_path(port_index, directory), CUT, cut)


def take_back_cut(port_index: int, request_id: str, directory: str = RUN_DIRECTORY) -> bool:
    """Remove our own cut if no runner claimed it; whether that was so."""
    return _take_back(_left(port_index, directory, CUT), request_id)


def claim_cut(port_index: int, directory: str = RUN_DIRECTORY) -> Cut | None:
    """Take away the port's cut, if there is one. Raises Unreadable where there is one, and none that is honoured."""
    problem: Unreadable | None = None
    began = monotonic()
    for path in _left(port_index, directory, CUT):
        if monotonic() - began > CLAIM_S:
            break
        try:
            left = _take_away(path)
            if left is None:
                continue
            fields = Fields(left[0], path)
            _check_age(fields)
            take, request_id = fields.text_or_none("take"), fields.text("request_id")[:64]
            if take is not None and not is_take_name(take):
                fields.fail("take", f"{take[:80]!r} cannot be a take's name")
            now = monotonic()
            return Cut(take, request_id, fields.number("at", least=now - LIFETIME_S, most=now))
        except Unreadable as error:
            problem = problem or error
    if problem:
        raise problem
    return None


class CutWatch:
    """Looks for a port's cut where something has been left since the last look: a look at each turn has to be cheap."""

    def __init__(self, port_index: int, directory: str = RUN_DIRECTORY) -> None:
        self._port_index, self._directory = port_index, directory
        self._changed_ns = 0

    def look(self) -> Cut | None:
        """The port's cut, which is taken away; None if there is none. Raises Unreadable."""
        try:
            changed_ns = os.stat(f"{self._directory}/requests").st_mtime_ns
        except OSError:
            return None
        if changed_ns == self._changed_ns:
            return None
        # Two changes within a tick of the kernel's clock have one time.
        self._changed_ns = changed_ns if time.time_ns() - changed_ns > TICK_NS else 0
        return claim_cut(self._port_index, self._directory)


def leave_request(port_index: int, request: Request, directory: str = RUN_DIRECTORY) -> None:
    """Leave a request for the port's next start.

    Exclusive: of two programs that start one port at the same moment, one gets FileExistsError. A request whose time is
    over is taken away first. What cannot be (a directory, another member's file) is no request, and keeps nobody from
    leaving one: it gets a name that nobody could know. Raises OSError.
    """
    _leave(request_path(port_index, directory), START, request)


def _leave(path: str, suffix: str, request: Request | Cut) -> None:
    document = {"created_boottime_ns": boottime_ns(), "boot_id": boot_id(), **request.as_dict()}
    temporary = f"{path}.{os.getpid()}.{request.request_id or 'x'}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o644)
            file.write(lean.encode(document))
        if not _make_way(path):
            path = f"{path.removesuffix(suffix)}.{os.urandom(8).hex()}{suffix}"
        # link(2) makes the name appear with its whole content, or fails because it is taken.
        os.link(temporary, path)
    finally:
        os.unlink(temporary)


def _requests(port_index: int, directory: str) -> list[str]:
    """The paths of what may be the port's requests for a start."""
    return _left(port_index, directory, START)


def _left(port_index: int, directory: str, suffix: str) -> list[str]:
    """The paths of what may be the port's requests of a kind; first the one with the name that all programs know."""
    try:
        names = os.listdir(f"{directory}/requests")
    except FileNotFoundError:
        return []
    first, note = f"{port_index}{suffix}", os.path.basename(stop_note_path(port_index))
    ours = [name for name in names if name.startswith(f"{port_index}.") and name.endswith(suffix) and name != note]
    return [f"{directory}/requests/{name}" for name in sorted(ours, key=lambda name: (name != first, name))]


def take_back(port_index: int, request_id: str, directory: str = RUN_DIRECTORY) -> bool:
    """Remove our own request if no runner claimed it; whether that was so."""
    return _take_back(_requests(port_index, directory), request_id)


def _take_back(paths: list[str], request_id: str) -> bool:
    for path in paths:
        try:
            if read_fields(path).text("request_id", "") == request_id:
                os.unlink(path)
                return True
        except (OSError, Unreadable):
            # It was claimed, which is what it was for; what else is there is not ours.
            continue
    return False


def _make_way(path: str) -> bool:
    """Remove what is no request any more; whether the name is free, or a request has it."""
    try:
        _check_age(read_fields(path, REQUEST_LIMIT_BYTES))
    except FileNotFoundError:
        return True
    except Unreadable:
        try:
            _remove(path)
        except OSError:
            return False
    return True


def _remove(path: str) -> None:
    """Remove whatever has this name, but for a directory that is not empty. Raises OSError."""
    try:
        os.unlink(path)
    except IsADirectoryError:
        os.rmdir(path)


def claim_request(
    port_index: int,
    recordings: str,
    directory: str = RUN_DIRECTORY,
    keep: Callable[[Request], None] = lambda _: None,
) -> Request | None:
    """Take the port's request, if there is one; it is gone afterwards, honoured or not.

    `keep` is called before it is removed; where that raises OSError the request stays, and so does what it raises.
    Raises Unreadable where there is one, and none that is honoured: the port then starts as it is configured. Raises
    Exhausted too, and then leaves what it could not read.
    """
    problem: Unreadable | None = None
    for path in _requests(port_index, directory):
        try:
            request = _read_request(path, recordings)
        except FileNotFoundError:
            continue
        except Exhausted:
            raise
        except Unreadable as error:
            problem = problem or error
            continue
        keep(request)
        os.unlink(path)
        return request
    if problem:
        raise problem
    return None


def _read_request(path: str, recordings: str) -> Request:
    """A request that is honoured. Raises Unreadable for any other, which is removed if that is possible."""
    try:
        document, owner = read_owned_json(path, REQUEST_LIMIT_BYTES)
        fields = Fields(document, path)
        _check_age(fields)
        return checked_request(fields, owner, recordings)
    except Exhausted:
        raise
    except Unreadable:
        try:
            _remove(path)
        except OSError as stays:
            # What stays would be read again, and is.
            raise Unreadable(f"{path} cannot be read and removed: {stays.strerror}") from stays
        raise


def _take_away(path: str) -> tuple[object, int] | None:
    """Read a file and remove it, whatever it holds: its JSON and its owner; None for no file. Raises Unreadable.

    Raises Exhausted too, and then leaves it.
    """
    is_read = True
    try:
        try:
            return read_owned_json(path, REQUEST_LIMIT_BYTES)
        except Exhausted:
            is_read = False
            raise
        finally:
            if is_read:
                _remove(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        # What stays would be read again.
        raise Unreadable(f"{path} cannot be read and removed: {error.strerror}") from error


def _age_s(fields: Fields) -> float:
    return (boottime_ns() - fields.whole("created_boottime_ns")) / 1e9


def _check_age(fields: Fields) -> None:
    if fields.text("boot_id") != boot_id():
        fields.fail("boot_id", "it is of another boot")
    age_s = _age_s(fields)
    if not 0 <= age_s <= LIFETIME_S:
        fields.fail("created_boottime_ns", f"it is {age_s:.0f} s old; {LIFETIME_S:.0f} s is the limit")


def checked_request(fields: Fields, owner: int, recordings: str) -> Request:
    """The request as far as its owner may ask. A wrong value voids it all: half a take is none."""
    take = fields.text_or_none("take")
    if take is not None and not is_take_name(take):
        fields.fail("take", f"{take[:80]!r} cannot be a take's name")
    if owner != 0:
        return Request(take, fields.text("request_id", "")[:64])
    asked = fields.record(Request)
    name, path, container = asked.name, asked.recording_path, asked.container
    if name is not None and not is_take_name(name):
        fields.fail("name", f"{name[:80]!r} cannot begin a file's name")
    if container is not None and not (container.isascii() and container.isalnum()):
        fields.fail("container", f"{container[:80]!r} cannot end a file's name")
    if path is not None and not is_below(path, recordings):
        fields.fail("recording_path", f"{path[:200]!r} is not at or below {recordings}")
    if asked.argv is not None and not _is_argv(asked.argv):
        fields.fail("argv", "it is an argument list that cannot be run")
    return asked.replaced(request_id=asked.request_id[:64])


def _is_argv(words: list[str]) -> bool:
    return len(words) > 1 and all(map(_is_word, words)) and words[-1] == "{output}"
