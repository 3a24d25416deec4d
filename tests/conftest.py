"""What holds for every test, and the fixtures of system tests. One test: `tests/run -k NAME`.

appliance       one appliance for the whole run, with sdisup installed by ./install.sh; put back to that state before
                each test that uses it
new_appliance   makes an appliance for one test, with the options of Appliance(); not yet booted
fresh_appliance a booted appliance for one test, such as a test that reboots it or cuts its power

After each test that uses an appliance, its journal must hold no message of priority err or worse, but for those that
the test announces with @pytest.mark.journal_allows(r"pattern", ...). After the run no process, mount or file of its
appliances may be left. A system test that cannot run (no root, no nspawn) is an error and never a skip.

A test that hangs fails at its limit (limit_of(); @pytest.mark.limit(SECONDS) sets another), and the run goes on.
No other absolute time decides in a test: a loaded or slow machine must not fail it. measure.py measures seconds.

What a fault looks like to a runner is recorded (record.py) and replayed by a scripted clock (unit/test_replay.py); each
kind of fault is played for real once in the normal run, and in all its variants under --slow.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import hypothesis
import pytest
from appliance import installed_layer, leftovers_of
from drive import Machine

pytest_plugins = ["played"]

# Its own 200 ms for an example fail on a machine that does something else.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

PRISTINE = "/root/pristine.tar"
LONG_RUN_S = 480
BEGAN = pytest.StashKey[float]()

# What tests change, beside the recordings and /run/sdisup: put back from an archive.
SAVE_STATE = f"""
mkdir -p /etc/sdisup /var/lib/sdisup
tar -cf {PRISTINE} -C / etc/sdisup etc/systemd/system var/lib/sdisup
"""
# Killing while the stop jobs wait makes even a port that hangs end at once, and none restarts.
RESET_STATE = f"""
systemctl stop 'sdi-schedule*'
systemctl --no-block stop sdi-record.target 'sdi-record@*'
systemctl kill --signal=KILL 'sdi-record@*' 2>/dev/null
systemctl stop 'sdi-record@*' 'sdi-record-retry@*' 'sdi-retention*' 'sdi-ledger*'
systemctl reset-failed
set -e
rm -rf /etc/sdisup /etc/systemd/system /var/lib/sdisup /run/systemd/system/sdi-record*
tar -xf {PRISTINE} -C /
find /srv/recordings /run/sdisup -mindepth 1 -delete 2>/dev/null || true
systemctl daemon-reload
systemd-tmpfiles --create
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BEGAN] = time.monotonic()
    # SystemExit would only fail the test that it hits; this ends the run, and its fixtures clean up.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("ended by SIGTERM", 128 + signal.SIGTERM))
    # nohup and `&` let a process ignore these signals, and its children would ignore them too, to which tests send
    # them. A handler that does nothing ends no run either, and each child has the default (execve(2)).
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Let pytest list the slowest ten after a run that took too long."""
    if config.option.durations is None and time.monotonic() - config.stash[BEGAN] > LONG_RUN_S:
        terminalreporter.write_line(f"This run took longer than {LONG_RUN_S} s.")
        config.option.durations = 10


# ---------------------------------------------------------------- a test that hangs


class Hangs(BaseException):
    """A test has reached its limit. Not an Exception, so that neither the test nor hypothesis handles it."""


def limit_of(item: pytest.Item, phase: str) -> float:
    """After how many seconds a phase of a test fails; a setup may have to build a Debian tree."""
    mark = item.get_closest_marker("limit")
    if mark:
        return float(mark.args[0])
    if item.get_closest_marker("slow") or (item.get_closest_marker("system") and phase == "setup"):
        return 900
    return 300 if item.get_closest_marker("system") else 120


@contextlib.contextmanager
def limited(item: pytest.Item, phase: str) -> Iterator[None]:
    """Fail a phase of a test at its limit, with the test's name and where each thread was."""
    limit_s = limit_of(item, phase)

    def fail(*_: object) -> None:
        faulthandler.dump_traceback(sys.__stderr__.fileno() if sys.__stderr__ else 2)
        what = f"{item.nodeid} hangs: its {phase} was not over after {limit_s:g} s"
        # In setup and teardown pytest handles only its own exceptions.
        raise Hangs(what) if phase == "call" else pytest.fail.Exception(what)

    former = signal.signal(signal.SIGALRM, fail)
    # With an interval, since the test's own cleaning up may hang as well.
    signal.setitimer(signal.ITIMER_REAL, limit_s, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    with limited(item, "setup"):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    with limited(item, "call"):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    with limited(item, "teardown"):
        yield


# ---------------------------------------------------------------- which tests run


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests in tests/system as `system`, those in tests/unit as `beside`, unless they are `alone`; leave out
    `slow` tests unless --slow is given."""
    unasked = []
    for item in items:
        if item.path.parent.name == "system":
            item.add_marker("system")
        elif item.path.parent.name == "unit" and not item.get_closest_marker("alone"):
            item.add_marker("beside")
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            unasked.append(item)
    if unasked:
        config.hook.pytest_deselected(items=unasked)
        items[:] = [item for item in items if item not in unasked]


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail the run if a process, mount, cgroup, loop device or directory of its appliances is left over."""
    yield
    left = leftovers_of(os.getpid())
    if left:
        pytest.fail("left behind by this run:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def descriptors_are_closed() -> Iterator[None]:
    """Close what a process keeps open until it ends, where a test plays the process: select(2) knows no descriptor
    above 1023, and the whole run is one process."""
    # The one by which the directory was listed is closed again, and its number free.
    before = {number for number in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{number}")}
    yield
    for number in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{number}").removesuffix(" (deleted)")
            if target.startswith("/tmp/") and target.endswith(("/spool", "/ledger.lock", "/ledger.wake")):
                os.close(int(number))


# ---------------------------------------------------------------- the shared appliances


@pytest.fixture
def suite() -> str:
    """The Debian of a test's appliances; BOTH_DEBIANS of drive.py names others."""
    return "trixie"


@pytest.fixture(scope="session")
def shared_appliances() -> Iterator[Callable[[str], Machine]]:
    """Gives the shared appliance of a suite, which is booted at the first call."""
    with contextlib.ExitStack() as opened:

        @functools.cache
        def shared(suite: str) -> Machine:
            machine = opened.enter_context(Machine(suite, [installed_layer(suite)]))
            boot(machine)
            machine.run(SAVE_STATE)
            return machine

        yield shared


@pytest.fixture
def appliance(
    request: pytest.FixtureRequest, suite: str, shared_appliances: Callable[[str], Machine]
) -> Iterator[Machine]:
    """The shared appliance as ./install.sh left it; its journal is checked afterwards."""
    shared = shared_appliances(suite)
    reset(shared)
    cursor = shared.journal_cursor()
    yield shared
    check_journal(request, shared, cursor)


def boot(machine: Machine) -> None:
    assert machine.boot() == "running", machine.run("systemctl --failed", check=False).stdout


def reset(shared: Machine) -> None:
    """Put a shared appliance back to the state after ./install.sh: no port runs, no recordings are there."""
    if not shared.is_running:
        shared.boot()
    shared.run(RESET_STATE, timeout_s=120)


# ---------------------------------------------------------------- appliances of a test's own


@pytest.fixture
def new_appliance(request: pytest.FixtureRequest, suite: str) -> Iterator[Callable[..., Machine]]:
    """Makes appliances with sdisup installed; they are checked and closed when the test ends."""
    made: list[Machine] = []

    def make(**options: Any) -> Machine:
        options.setdefault("layers", [installed_layer(suite)])
        made.append(Machine(suite, **options))
        return made[-1]

    try:
        yield make
        for own in made:
            check_journal(request, own, "")
    finally:
        for own in made:
            own.close()


@pytest.fixture
def fresh_appliance(new_appliance: Callable[..., Machine]) -> Machine:
    own = new_appliance()
    boot(own)
    return own


# ---------------------------------------------------------------- the journal


def check_journal(request: pytest.FixtureRequest, machine: Machine, cursor: str) -> None:
    """Fail if the journal since `cursor` holds an error that the test did not announce."""
    if machine.is_closed:
        return
    if not machine.is_running:
        machine.boot()
    allowed = [p for mark in request.node.iter_markers("journal_allows") for p in mark.args]
    entries = machine.journal("-p", "err", since_boot=False, after_cursor=cursor)
    lines = [journal_line(entry) for entry in entries]
    unexpected = [line for line in lines if not any(re.search(pattern, line) for pattern in allowed)]
    if unexpected:
        pytest.fail("unexpected errors in the journal:\n" + "\n".join(unexpected), pytrace=False)


def journal_line(entry: dict[str, Any]) -> str:
    """An entry as `unit or program: message`, which is what journal_allows matches."""
    source = entry.get("UNIT") or entry.get("_SYSTEMD_UNIT") or entry.get("SYSLOG_IDENTIFIER", "?")
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # journalctl's JSON of what is not UTF-8
        message = bytes(message).decode(errors="replace")
    return f"{source}: {message}"
