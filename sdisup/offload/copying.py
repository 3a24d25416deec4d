"""How a file is copied to a target, whatever that is: nothing that stands there is overwritten, and nothing is taken
for a copy that was not read there.

1. Remove what an interrupted try left under the unfinished name.
2. Ask whether something stands at the path. If it is this file's content, an earlier try came so far, and it is the
   copy; else it is somebody else's, and stays.
3. Write the file under that name, and count its digest meanwhile.
4. Compare that with the target's own digest, or with what is read back.
5. Give it its name, if that is still free.
"""

from __future__ import annotations

from sdisup.contract.records import Record
from sdisup.offload.digests import Digest, digest_of
from sdisup.offload.source import COMPARED, FileProblem, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Target(Protocol):
        """What each kind of target can do. Paths are relative to it. All raise FileProblem and TargetProblem."""

        digest: str
        """The kind of digest that is counted, one of digests.KINDS."""

        def look(self, path: str) -> Standing | None:
            """What stands there; None for nothing."""

        def write(self, path: str, source: Source, digest: Digest) -> None:
            """Write all of a file to a path where nothing stands."""

        def own_digest(self, path: str, size_bytes: int) -> str:
            """The digest that the target itself has computed of what stands there; empty if it has none."""

        def read(self, path: str, size_bytes: int) -> Iterator[bytes]:
            """What stands there, from the target and no cache."""

        def rename(self, path: str, name: str, size_bytes: int) -> bool:
            """Give another name to what stands there; False if something has that name, which stays as it is."""

        def remove(self, path: str) -> None:
            """Remove what stands there, if something does."""


HASH, READ_BACK = "hash", "read back"


class Standing(Record):
    """What stands at a path of a target: a file with its size, or something else (`size_bytes` is None)."""

    size_bytes: int | None


class Copied(Record):
    """A copy that is there and verified. `digest` is such as `md5:…`, `verified` HASH or READ_BACK; `was_there` says
    that an earlier try had made it."""

    path: str
    digest: str
    verified: str
    was_there: bool = False


def copy(target: Target, source: Source, path: str, unfinished: str) -> Copied:
    """Copy an open recording to a path of the target. Raises FileProblem and TargetProblem."""
    size_bytes = source.file.size_bytes
    if target.look(unfinished) is not None:
        target.remove(unfinished)
    standing = target.look(path)
    if standing is not None:
        if standing.size_bytes == size_bytes:
            digest = digest_of(target.digest, source.chunks())
            verified = _verified(target, path, digest, source)
            if verified:
                return Copied(path, digest, verified, was_there=True)
        raise FileProblem(_stands(path, standing, size_bytes))
    counted = Digest(target.digest)
    target.write(unfinished, source, counted)
    written = target.look(unfinished)
    if written is None or written.size_bytes != size_bytes:
        found = "is not there" if written is None else f"has {written.size_bytes} bytes"
        target.remove(unfinished)
        raise FileProblem(f"the copy {found} after it was written, not {size_bytes} bytes")
    verified = _verified(target, unfinished, counted.text, source)
    if not verified:
        target.remove(unfinished)
        raise FileProblem("the copy differs from the file, as it was read back, and was removed")
    if not target.rename(unfinished, path, size_bytes):
        target.remove(unfinished)
        raise FileProblem(_stands(path, target.look(path), size_bytes))
    return Copied(path, counted.text, verified)


def _verified(target: Target, path: str, digest: str, source: Source) -> str:
    """How the content at a path was compared with a digest; empty if it differs."""
    size_bytes = source.file.size_bytes
    source.told(COMPARED, 0)
    if target.own_digest(path, size_bytes) == digest:
        return HASH
    # What a target calls its digest may be that of something else, as of an object that S3 has encrypted.
    return READ_BACK if digest_of(target.digest, _counted(target.read(path, size_bytes), source)) == digest else ""


def _counted(chunks: Iterator[bytes], source: Source) -> Iterator[bytes]:
    done_bytes, pace = 0, source.pace()
    for data in chunks:
        yield data
        done_bytes += len(data)
        source.told(COMPARED, done_bytes)
        pace.wait(done_bytes)


def _stands(path: str, standing: Standing | None, size_bytes: int) -> str:
    size = standing.size_bytes if standing else None
    what = "something" if size is None else "another file" if size == size_bytes else f"a file of {size} bytes"
    return f"{what} stands at {path}, which is left as it is: move it away, and the file is copied"
