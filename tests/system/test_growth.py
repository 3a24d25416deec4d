"""What a command asks and reads as ports become more: counts, which hold on a busy machine. `tests/bench/growth` has
the times and the memory, up to 256 ports."""

from __future__ import annotations

import re

from drive import Machine, small_ports


def shown(appliance: Machine, words: str, code: int = 0) -> tuple[list[str], list[str]]:
    """The D-Bus calls of a command, and the files that it reads or writes."""
    debug = [line.partition(" s  ")[2] for line in appliance.sdisup(f"{words} --debug", code).stderr.splitlines()]
    calls = [re.split("[(:]", line.removeprefix("D-Bus "))[0] for line in debug if line.startswith("D-Bus ")]
    return calls, [line.split()[1] for line in debug if line.startswith(("read ", "write "))]


def test_status_and_apply_ask_as_much_of_eight_ports_as_of_two(appliance: Machine) -> None:
    found: dict[tuple[str, int], tuple[list[str], list[str]]] = {}
    for count in (2, 4, 8):
        appliance.configure(small_ports(count))
        # One that records, so that the two ways to settle a state are both there.
        appliance.sdisup("start 0")
        assert appliance.sdisup("apply").stdout == "nothing to change\n"
        for words in ("status", "status --json", "apply", "apply --dry-run"):
            found[words, count] = shown(appliance, words)
    for words in ("status", "status --json", "apply", "apply --dry-run"):
        two, four, eight = (found[words, count] for count in (2, 4, 8))
        assert two[0] == four[0] == eight[0], words
        assert len(eight[0]) == 1 if words.startswith("status") else 1 < len(eight[0]) < 10, (words, eight[0])
        # Files grow by as many for each port.
        more = len(four[1]) - len(two[1])
        assert 2 * more == len(eight[1]) - len(four[1]), (words, four[1], eight[1])
        assert more <= 2 * (3 if words.startswith("status") else 6), (words, more)
