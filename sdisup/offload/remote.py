"""A target of rclone's: SFTP, S3, SMB and whatever else it knows.

rclone's exit codes decide nothing where the target can be asked: `rclone copyto --immutable` returned 0 and left
another object standing, and `rclone rcat` fails at some S3 servers with the object in place. Found with rclone 1.60.1,
which Debian 12 and 13 have:

- `lsjson --stat` exits with 3 or 4 where nothing stands at a path. A remote of buckets answers with a directory for
  whatever is no object, since any prefix may be one.
- `rcat` writes what it reads from a pipe, so that a recording is read once, at our pace, and by its descriptor.
- `moveto --ignore-existing` returns 0 and moves nothing where something has the new name. Without a move of its own the
  target makes a copy and removes the former object (S3); where it can do neither, rclone would download all of it.
- of an object that was uploaded in parts S3 has no digest; a file of at most `upload_cutoff` is uploaded as one.
"""

from __future__ import annotations

import fcntl
import os
import select

from sdisup.contract import lean
from sdisup.contract.files import Fields, Unreadable
from sdisup.contract.programs import Program
from sdisup.contract.records import Record
from sdisup.contract.secrets import masked
from sdisup.offload.copying import Standing
from sdisup.offload.digests import KINDS, Digest
from sdisup.offload.source import FileProblem, Refused, Source, TargetProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PIPE_BYTES = 1 << 20
TAIL_BYTES = 4096
TEXT_LENGTH = 300
NOTHING_THERE = (3, 4)
"""rclone's exit codes for a directory and for a file that is not there (its documentation, "Exit Code")."""
# What rclone itself waits for; ours are longer, so that its own words say what is wrong. One try: the next one of ours
# begins with a look at what the last one left.
OPTIONS = (
    *("--ask-password=false", "--retries=1", "--low-level-retries=3", "--contimeout=30s", "--timeout=60s"),
    *("--stats=0", "--log-level=ERROR", "--use-mmap", "--transfers=1", "--checkers=1"),
)


class Limits(Record):
    """For how long nothing may go on before rclone is ended, in seconds: while it is asked something, while it is to
    take or to give content, and for each byte more that a target has to read or to copy on its side."""

    ask_s: float = 120.0
    idle_s: float = 180.0
    per_byte_s: float = 1 / 10e6
    interrupt_s: float = 5.0


class Remote:
    """A remote and a path, such as `nas:recordings`, by the settings in a file of rclone's."""

    def __init__(
        self,
        target: str,
        configuration: str,
        rclone: str = "rclone",
        limits: Limits | None = None,
        origin: str = "",
    ) -> None:
        """Asks the target what it can do. `origin` is where people find the configuration. Raises TargetProblem."""
        self._target, self._rclone, self._limits = target, rclone, limits or Limits()
        self._options = (f"--config={configuration}", *OPTIONS)
        text = _text_of(configuration)
        remote = target.partition(":")[0]
        if f"[{remote}]" not in (line.strip() for line in text.splitlines()):
            raise TargetProblem(f"{origin or configuration} is not there, or has no section [{remote}]")
        self._secrets = secrets_in(text)
        features = self._answer(["backend", "features", target])
        try:
            fields = Fields(features, "what rclone says of the target")
            hashes, able = fields.texts("Hashes", ()), fields.child("Features")
            self._has_buckets = able.flag("BucketBased", False)
            can_rename = able.flag("Move", False) or able.flag("Copy", False)
        except Unreadable as error:
            raise TargetProblem(str(error)) from error
        if not can_rename:
            raise TargetProblem("the target cannot rename files, and a copy is named only once it is verified")
        self.digest = next((kind for kind in KINDS if kind in hashes), KINDS[0])
        self._has_digest = self.digest in hashes

    def close(self) -> None:
        """Nothing is open between two questions."""

    def look(self, path: str) -> Standing | None:
        found = self._stat(path)
        if found is None:
            return None
        if found.flag("IsDir"):
            return None if self._has_buckets else Standing(None)
        return Standing(found.whole("Size", least=-1))

    def write(self, path: str, source: Source, digest: Digest) -> None:
        size_bytes = source.file.size_bytes
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(os.memfd_create("rclone"), "w+b", buffering=0) as errors:
            try:
                words = ["rcat", f"--size={size_bytes}", self._at(path)]
                program = self._start(words, stdin=reading, stderr=errors.fileno())
            except BaseException:
                os.close(writing)
                raise
            finally:
                os.close(reading)
            try:
                self._pump(source, digest, writing)
                limit_s = self._limits.idle_s + size_bytes * self._limits.per_byte_s
                if not program.is_over(limit_s):
                    raise TargetProblem(
                        f"rclone did not end within {limit_s:.0f} s after it had read all; it was ended"
                    )
            finally:
                program.interrupt(self._limits.interrupt_s)
                code = program.end()
            said = self._said(errors.fileno())
        # Whether the file is there, and all of it, the target is asked; why it is not, only rclone knows.
        if code and self.look(path) != Standing(size_bytes):
            raise Refused(said or f"rclone ended with {code}")

    def _pump(self, source: Source, digest: Digest, writing: int) -> None:
        """Give rclone all of a file, unless it ends before that: then it says why."""
        try:
            os.set_blocking(writing, False)
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            poll = select.poll()
            poll.register(writing, select.POLLOUT)
            for data in source.chunks():
                view = memoryview(digest.add(data))
                while view:
                    if not poll.poll(self._limits.idle_s * 1000):
                        raise TargetProblem(f"nothing was taken for {self._limits.idle_s:.0f} s; rclone was ended")
                    try:
                        view = view[os.write(writing, view) :]
                    except BrokenPipeError:
                        return
                    except BlockingIOError:
                        continue
        finally:
            os.close(writing)

    def own_digest(self, path: str, size_bytes: int) -> str:
        if not self._has_digest:
            return ""
        # A server that has no digests kept reads all of the file for one.
        found = self._stat(path, f"--hash-type={self.digest}", size_bytes=size_bytes)
        value = found.child("Hashes", {}).text(self.digest, "") if found is not None else ""
        return f"{self.digest}:{value}" if value else ""

    def read(self, path: str, size_bytes: int) -> Iterator[bytes]:
        with os.fdopen(os.memfd_create("rclone"), "w+b", buffering=0) as errors:
            program = self._start(["cat", self._at(path)], stderr=errors.fileno())
            try:
                yield from program.chunks(self._limits.idle_s)
                program.is_over(self._limits.idle_s)
            except TimeoutError as error:
                text = f"nothing came for {self._limits.idle_s:.0f} s while {path} was read back; rclone was ended"
                raise TargetProblem(text) from error
            finally:
                code = program.end()
            if code:
                raise TargetProblem(self._said(errors.fileno()) or f"rclone ended with {code}")

    def rename(self, path: str, name: str, size_bytes: int) -> bool:
        words = ["moveto", "--ignore-existing", "--no-traverse", self._at(path), self._at(name)]
        _, code, said = self._run(words, size_bytes)
        former, found = self.look(path), self.look(name)
        if former is None and found is not None and found.size_bytes == size_bytes:
            return True
        if found is not None and former is not None:
            return False
        if found is not None:
            raise FileProblem(f"the copy lost its unfinished name, and what stands at {name} is another file")
        raise FileProblem(said or f"rclone ended with {code}, and the copy has not got its name")

    def remove(self, path: str) -> None:
        _, code, said = self._run(["deletefile", self._at(path)])
        if code and self.look(path) is not None:
            raise TargetProblem(said or f"rclone ended with {code}, and {path} is still there")

    def _stat(self, path: str, *options: str, size_bytes: int = 0) -> Fields | None:
        words = ["lsjson", "--stat", "--no-modtime", "--no-mimetype", *options, self._at(path)]
        text, code, said = self._run(words, size_bytes)
        if code in NOTHING_THERE:
            return None
        return self._fields(text, code, said)

    def _answer(self, words: Sequence[str]) -> object:
        text, code, said = self._run(words)
        if code:
            raise TargetProblem(said or f"rclone ended with {code}")
        try:
            return lean.decode(text)
        except ValueError as error:
            raise TargetProblem(f"rclone's answer cannot be read: {error}") from error

    def _fields(self, text: bytes, code: int, said: str) -> Fields | None:
        if code:
            raise TargetProblem(said or f"rclone ended with {code}")
        try:
            found = lean.decode(text)
            return None if found is None else Fields(found, "rclone's answer")
        except ValueError as error:
            raise TargetProblem(f"rclone's answer cannot be read: {error}") from error

    def _at(self, path: str) -> str:
        return f"{self._target}{'' if self._target.endswith((':', '/')) else '/'}{path}"

    def _run(self, words: Sequence[str], size_bytes: int = 0) -> tuple[bytes, int, str]:
        """What rclone answers, its exit code, and what it says on stderr. Raises TargetProblem if it hangs."""
        limit_s = self._limits.ask_s + size_bytes * self._limits.per_byte_s
        with os.fdopen(os.memfd_create("rclone"), "w+b", buffering=0) as errors:
            answer = self._start(words, stderr=errors.fileno()).answer(1 << 20, limit_s)
            said = self._said(errors.fileno())
        if answer is None:
            raise TargetProblem(f"rclone {words[0]} did not end within {limit_s:.0f} s; it was ended")
        return *answer, said

    def _start(self, words: Sequence[str], *, stdin: int | None = None, stderr: int) -> Program:
        try:
            return Program([self._rclone, *self._options, *words], stdin=stdin, stderr=stderr)
        except OSError as error:
            text = f"{self._rclone} cannot be run: {error.strerror}; install it: apt-get install rclone"
            raise TargetProblem(text) from error

    def _said(self, errors: int) -> str:
        """What rclone said last, on one line, and without a secret."""
        size = os.fstat(errors).st_size
        text = os.pread(errors, TAIL_BYTES, max(0, size - TAIL_BYTES)).decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        line = " ".join(lines[-1].split()) if lines else ""
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return "".join(char if char.isprintable() else "?" for char in masked(_without_time(line)))[:TEXT_LENGTH]


def _without_time(line: str) -> str:
    """Without the time that rclone's log puts first: `2026/01/31 12:00:00 `."""
    head, rest = line[:20], line[20:]
    is_time = len(head) == 20 and head[4] == head[7] == "/" and head[13] == head[16] == ":" and head[0].isdigit()
    return rest if is_time else line


NO_SECRETS = ("type", "provider", "region", "host", "port", "endpoint", "user", "domain", "share", "path", "env_auth")


def _text_of(configuration: str) -> str:
    try:
        with open(configuration, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise TargetProblem(f"{configuration}: {error.strerror}") from error


def secrets_in(text: str) -> tuple[str, ...]:
    """The values in a file of rclone's that nobody is to read elsewhere, the longest first."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    values = {value.strip() for key, _, value in pairs if key.strip() not in NO_SECRETS}
    return tuple(sorted((value for value in values if len(value) >= 6), key=len, reverse=True))
