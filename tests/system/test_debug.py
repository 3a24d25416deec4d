"""`--debug` on a real systemd: each command shows its files, programs and D-Bus calls; what it prints is the same."""

from __future__ import annotations

import re

import pytest
from drive import Machine, small_ports

pytestmark = pytest.mark.beside

LINE = re.compile(r"sdisup: debug: \+[0-9]+\.[0-9]{3} s  (read|write|rename|link|remove|make|run|become|D-Bus) \S.*")
CALL = r"D-Bus /org/freedesktop/systemd1 {}\(.*\): .* after [0-9]+\.[0-9]{{3}} s"
APPLIED = r"read /var/lib/sdisup/applied\.json \([0-9]+ bytes\)"
STATUS = r"read /run/sdisup/0\.json \([0-9]+ bytes\)"
TOML = r"read /etc/sdisup/sdisup\.toml \([0-9]+ bytes\)"
FFMPEG = r"run /usr/bin/ffmpeg -version: exit 0 after [0-9]+\.[0-9]{3} s"

# Each command, and what it shows at least; in an order in which each has something to do.
COMMANDS = [
    ("start 0", [APPLIED, CALL.format("StartUnit"), CALL.format("Subscribe"), STATUS,
                 r"D-Bus /org/freedesktop/systemd1 JobRemoved: \{'sdi-record@0\.service': 'done'\}"]),
    ("start 0", [APPLIED, STATUS]),
    ("start 1 --take t1", [r"link /run/sdisup/requests/1\.json\.\S+ to /run/sdisup/requests/1\.json \([0-9]+ bytes\)"]),
    ("status", [APPLIED, STATUS]),
    ("restart 0", [CALL.format("RestartUnit")]),
    ("enable 0", [TOML, r"rename /etc/sdisup/sdisup\.toml\.d/\S+ to /etc/sdisup/sdisup\.toml\.d/90-set\.toml.*",
                  CALL.format("EnableUnitFiles"), CALL.format("Reload")]),
    ("disable 0", [CALL.format("DisableUnitFiles")]),
    ("stop 0", [CALL.format("StopUnit")]),
    ("stop --all", [CALL.format("StopUnit")]),
    ("logs 0 --lines 1", [r"become journalctl --unit=sdi-record@0\.service --lines=1"]),
    ("gaps", [r"read /var/lib/sdisup/ledger/0\.jsonl \([0-9]+ bytes\)"]),
    ("recordings", [r"read /var/lib/sdisup/ledger/0\.jsonl \([0-9]+ bytes\)"]),
    ("verify", [r"run ionice -c 3 nice -n 19 \S*ffprobe .* /proc/self/fd/[0-9]+: exit 0 after [0-9]+\.[0-9]{3} s"]),
    ("check", [TOML, FFMPEG, r"run /usr/bin/python3 -I -S -c .*"]),
    ("init --output -", [FFMPEG]),
    ("apply --dry-run", [TOML, FFMPEG, CALL.format("Get")]),
    ("apply", [TOML, FFMPEG, r"read /etc/systemd/system/sdi-record@\.service \([0-9]+ bytes\)"]),
]  # fmt: skip


def split(stderr: str) -> tuple[list[str], list[str]]:
    """What --debug shows, and the rest."""
    debug = [line for line in stderr.splitlines() if line.startswith("sdisup: debug: ")]
    assert all(LINE.fullmatch(line) for line in debug), debug
    return [line.partition(" s  ")[2] for line in debug], [line for line in stderr.splitlines() if line not in debug]


def test_each_command_shows_what_it_does(appliance: Machine) -> None:
    appliance.configure(small_ports(2))
    for number, (words, patterns) in enumerate(COMMANDS):
        result = appliance.sdisup(f"--debug {words}" if number % 2 else f"{words} --debug", timeout_s=120)
        debug, _ = split(result.stderr)
        for pattern in patterns:
            assert any(re.fullmatch(pattern, line) for line in debug), f"{words}: {pattern}\n{result.stderr}"


@pytest.mark.parametrize("words", ["status", "status --json", "gaps", "recordings --json", "check", "apply --dry-run"])
def test_what_is_printed_is_the_same(appliance: Machine, words: str) -> None:
    appliance.configure(small_ports(2))
    plain, debugged = appliance.sdisup(words), appliance.sdisup(f"{words} --debug")
    assert debugged.stdout == plain.stdout
    assert split(debugged.stderr)[1] == plain.stderr.splitlines()


def test_a_call_that_is_refused_is_shown_with_its_error(appliance: Machine) -> None:
    appliance.configure(small_ports(1))
    result = appliance.sdisup("start 0 --debug", code=1, user="nobody")
    refused = r"D-Bus /org/freedesktop/systemd1 \w+\('sdi-record@0\.service'.*\): .*(Auth|Access|Permission).* after .*"
    assert any(re.fullmatch(refused, line) for line in split(result.stderr)[0]), result.stderr
