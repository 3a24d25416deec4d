"""The `sdisup` command: its beginning and its end, which are the same for all commands."""

from __future__ import annotations

import io
import os
import sys

from sdisup.cli.status import EXIT_DONE, EXIT_FAILED, plain_status, remark, status
from sdisup.errors import ConfigError, SdisupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def _parsed(words: Sequence[str]) -> Any:
    """The arguments, and what all commands but `status` need besides.

    /usr/bin/sdisup begins without `site`, which takes as long as half of `sdisup status`; only the others need
    Debian's packages (pydbus, jinja2).
    """
    if "site" not in sys.modules:
        import site

        site.main()
    from sdisup.cli.commands import parse

    return parse(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if words is None else words
    quick = plain_status(words)
    arguments: Any = quick or _parsed(words)
    # A file's name may hold bytes that are not UTF-8; they are printed as escapes, also in JSON.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not quick and arguments.debug:
        from sdisup.contract.trace import start

        start()
    try:
        code: int = status(quick) if quick else arguments.run(arguments)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        for problem in error.problems:
            remark(problem)
        if error.hint:
            remark(f"hint: {error.hint}")
        return error.exit_code
    except SdisupError as error:
        remark(f"sdisup: {error.message}")
        if error.hint:
            remark(f"hint: {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of the pipe has closed it (`sdisup status | head`). Python must not try to flush again; the exit
        # code stays what it would have been.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(getattr(arguments, "code", EXIT_DONE))
    except OSError as error:
        remark(f"sdisup: {error.filename or 'the system'}: {error.strerror or error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
