"""Which ports a command is for, and `sdisup status`: what is quick, since people and programs call it all the time.

Whatever this module loads is counted (`tests/unit/test_imports.py`).
"""

from __future__ import annotations

import os
import sys

from sdisup.contract.applied import load_applied
from sdisup.contract.files import RUN_DIRECTORY
from sdisup.contract.lean import encode
from sdisup.contract.records import Record
from sdisup.errors import UnknownPortError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sdisup.contract.applied import Applied, AppliedPort

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_NOT_RECORDING = 0, 1, 2, 3
PORTS_HELP = "ports: 3, 0-3, 0,2, CAM3, sdi-record@3"


class StatusArguments(Record, frozen=False):
    """The arguments of `sdisup status`; `code` is its exit code as soon as that is known."""

    ports: list[str]
    json: bool = False
    code: int = EXIT_DONE


def plain_status(words: Sequence[str]) -> StatusArguments | None:
    """The arguments of `status [PORT ...] [--json]`, without argparse, which takes longer than the answer; None for
    whatever else it may be."""
    if words[:1] != ["status"]:
        return None
    ports = [word for word in words[1:] if not word.startswith("-")]
    if list(words[1:]) in (ports, [*ports, "--json"], ["--json", *ports]):
        return StatusArguments(ports, len(words) > len(ports) + 1)
    return None


def remark(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr)


def selected(arguments: argparse.Namespace | StatusArguments) -> list[AppliedPort]:
    """The ports that the command is for. A command that changes something needs ports or --all."""
    applied = load_applied()
    everything = getattr(arguments, "all", True)
    if arguments.ports and getattr(arguments, "all", False):
        raise UsageError("ports and --all together", "name the ports, or give --all alone")
    if arguments.ports:
        return select(applied, arguments.ports, "--all" if hasattr(arguments, "all") else "")
    if not everything:
        raise UsageError("which ports?", f"{PORTS_HELP}; or --all")
    if not applied.ports:
        remark("no port is configured: write /etc/sdisup/sdisup.toml, then run sdisup apply")
    return list(applied.ports.values())


def select(applied: Applied, words: list[str], all_option: str) -> list[AppliedPort]:
    """The ports of these words. `all` is what people try first, and no port's index."""
    try:
        return applied.select(words)
    except UnknownPortError as error:
        if "all" not in words:
            raise
        hint = f"for all ports: {all_option}" if all_option else "without a port the command is for all of them"
        raise UnknownPortError(error.message, hint) from error


def status(arguments: argparse.Namespace | StatusArguments) -> int:
    """`sdisup status`."""
    from sdisup.control.observe import full_statuses, records_as_it_should
    from sdisup.ledger.health import all_problems

    ports = selected(arguments)
    found = full_statuses(ports)
    code = EXIT_DONE if all(records_as_it_should(port) for port in found) else EXIT_NOT_RECORDING
    arguments.code = code
    if arguments.json:
        print(json_text([port.as_dict() for port in found]))
    elif found:
        from sdisup.cli.tables import status_table
        from sdisup.contract.files import monotonic

        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(status_table(found, monotonic(), colour=colour))
    warnings = dict.fromkeys(text for port in found for text in port.warnings)
    if warnings:
        # The recorder's user wrote a part of them.
        from sdisup.cli.tables import printable

        for text in warnings:
            remark(f"warning: {printable(text)}")
    overridden = dict.fromkeys(text for port in ports for text in port.overridden)
    for text in (*overridden, *all_problems(), *_offload_problems()):
        remark(text)
    return code


def _offload_problems() -> list[str]:
    """One line for each target of copies that has a problem."""
    if not os.path.isdir(f"{RUN_DIRECTORY}/offload"):
        return []
    from sdisup.cli.tables import printable
    from sdisup.offload.state import all_problems

    # The recorder's user, and a server, wrote a part of them.
    return [printable(text) for text in all_problems()]


def json_text(value: object, indent: str = "") -> str:
    """As json.dumps(value, ensure_ascii=False, indent=2) has it, whose module would take as long as all else."""
    inner = f"{indent}  "
    if isinstance(value, dict):
        items = [f"{encode(name, ensure_ascii=False)}: {json_text(item, inner)}" for name, item in value.items()]
        brackets = "{}"
    elif isinstance(value, list | tuple):
        items = [json_text(item, inner) for item in value]
        brackets = "[]"
    else:
        return encode(value, ensure_ascii=False)
    text = ",".join(f"\n{inner}{item}" for item in items)
    return f"{brackets[0]}{text}\n{indent}{brackets[1]}" if items else brackets
