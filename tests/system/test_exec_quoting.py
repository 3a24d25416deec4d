"""systemd hands every argument list on as it was: hypothesis makes the arguments, and /proc shows what arrived."""

from __future__ import annotations

import pytest
from drive import Machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdisup.control.units import quote_all

pytestmark = pytest.mark.beside

# A program that takes any arguments, ignores them, and runs until it is stopped.
COMMAND = ["/usr/bin/python3", "-I", "-S", "-c", "import signal; signal.pause()"]
UNITS = "/run/systemd/system"

SPECIAL = " \t\n\r\v\f\"'\\%$;#={}[]()<>|&*?~!^`@:,-/\x01\x1b\x7f\x85\u2028\u00e9\u6f22\U0001f3a5"
FRAGMENTS = [
    "%i",
    "%%",
    "$HOME",
    "${HOME}",
    "$$",
    "\\;",
    ";",
    "\\n",
    "\\x41",
    "\\",
    "#",
    "{output}",
    "",
    " ",
    "-",
    "+",
    "@",
    ":",
    "!",
    "'",
    '"',
    "\n\n",
    "\\\n",
]
argument = st.one_of(
    st.sampled_from(FRAGMENTS),
    st.text(st.sampled_from(SPECIAL), max_size=12),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.lists(st.sampled_from(FRAGMENTS), max_size=5).map("".join),
)
argument_list = st.lists(argument, max_size=12)


def unit_text(arguments: list[str]) -> str:
    """A command as in a port's drop-in: `:` before the program, the words on a line of their own."""
    return f"[Service]\nType=exec\nExecStart=:{quote_all(COMMAND)} \\\n    {quote_all(arguments)}\n"


def read_back(appliance: Machine, unit: str) -> list[str]:
    pid = appliance.run(["systemctl", "show", "-P", "MainPID", unit]).stdout.strip()
    words = appliance.path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    return [word.decode() for word in words[len(COMMAND) :]]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(batch=st.lists(argument_list, min_size=8, max_size=8))
def test_any_argument_list_arrives_as_it_was_given(appliance: Machine, batch: list[list[str]]) -> None:
    names = [f"sdi-record-quoting-{number}.service" for number in range(len(batch))]
    for name, arguments in zip(names, batch, strict=True):
        appliance.path(f"{UNITS}/{name}").parent.mkdir(exist_ok=True, parents=True)
        appliance.path(f"{UNITS}/{name}").write_bytes(unit_text(arguments).encode())
    appliance.run("systemctl daemon-reload")
    try:
        appliance.run(["systemctl", "start", *names])
        for name, arguments in zip(names, batch, strict=True):
            assert read_back(appliance, name) == arguments
    finally:
        appliance.run(["systemctl", "stop", *names], check=False)
        for name in names:
            appliance.path(f"{UNITS}/{name}").unlink()
