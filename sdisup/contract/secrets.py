"""Leaves out of what `--debug` shows what gives access: in URLs, in lists of options, and in options."""

from __future__ import annotations

import re
import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# As FFmpeg takes them: in a URL before the host, in its query or a list of options, and as an option's value.
_LOGIN = re.compile(r"([a-zA-Z][\w+.-]*://)[^\s'\"]*@")
_NAMED = re.compile(
    r"(?<!\w)((?:pass\w*|pwd|\w*key|secret|\w*token|sig\w*|auth\w*|streamid)=)[^&\s'\"]+", re.IGNORECASE
)
_OPTION = re.compile(r"-+\w*(pass|secret|token|headers|cookies|auth|key$)", re.IGNORECASE)


def masked(text: str) -> str:
    """A text without what gives access: `rtsp://***@host/…`, `passphrase=***`."""
    return _NAMED.sub(r"\1***", _LOGIN.sub(r"\1***@", text))


def shown(command: Sequence[str]) -> str:
    """A command as a shell would take it, without secrets."""
    words = [
        "***" if _OPTION.match(before) and not word.startswith("-") else masked(word)
        for before, word in zip(("", *command), command, strict=False)
    ]
    return shlex.join(words)
