"""What a file's content is known by, where it comes from and where it goes to."""

from __future__ import annotations

import hashlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("sha256", "sha1", "md5")
"""Those that both Python and targets have, the best first."""


class Digest:
    """A digest of what passes by, as `sha256:…`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        # For damage, not against forgery: md5 is what S3 has.
        self._hash = hashlib.new(kind, usedforsecurity=False)

    def add(self, data: bytes) -> bytes:
        """Count the data in; returns it."""
        self._hash.update(data)
        return data

    @property
    def text(self) -> str:
        return f"{self.kind}:{self._hash.hexdigest()}"


def digest_of(kind: str, chunks: Iterable[bytes]) -> str:
    """The digest of all chunks together."""
    digest = Digest(kind)
    for data in chunks:
        digest.add(data)
    return digest.text
