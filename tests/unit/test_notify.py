"""sd_notify(3): what systemd hears of the runner, and what FFmpeg must not inherit."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdisup.runner.notify import Notifier

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """None of the variables to begin with, and none afterwards."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    for name in VARIABLES:
        os.environ.pop(name, None)


def open_descriptors() -> set[int]:
    """This process's descriptors, without the one that reads their list."""
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """systemd's end, at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield made


def test_a_message_arrives(systemd: socket.socket) -> None:
    assert Notifier().send("READY=1") is True
    assert systemd.recv(4096) == b"READY=1"


def test_assignments_are_lines_of_one_message(systemd: socket.socket) -> None:
    assert Notifier().send("READY=1", "STATUS=recording: CAM3.mp4")
    assert systemd.recv(4096) == b"READY=1\nSTATUS=recording: CAM3.mp4"


def test_a_line_end_in_a_status_makes_no_second_assignment(systemd: socket.socket) -> None:
    Notifier().send("STATUS=a\nREADY=1")
    assert systemd.recv(4096) == b"STATUS=a READY=1"


def test_text_that_is_not_utf_8_can_be_sent(systemd: socket.socket) -> None:
    assert Notifier().send("STATUS=caf\udce9 Köln")
    assert systemd.recv(4096).decode() == "STATUS=caf? Köln"


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"sdisup-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(f"\0{name}")
        made.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert Notifier().send("WATCHDOG=1")
        assert made.recv(4096) == b"WATCHDOG=1"


def test_the_variables_are_gone_afterwards(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    Notifier()
    assert not [name for name in VARIABLES if name in os.environ]


def test_the_socket_is_not_inherited(systemd: socket.socket) -> None:
    before = open_descriptors()
    notifier = Notifier()
    notifier.send("STATUS=begins")
    (ours,) = open_descriptors() - before
    assert not os.get_inheritable(ours)
    assert notifier.send("READY=1")


def test_a_full_socket_is_told_and_never_waited_for(systemd: socket.socket) -> None:
    notifier = Notifier()
    sent = 0
    while notifier.send("WATCHDOG=1"):
        sent += 1
        assert sent < 1_000_000
    assert notifier.send("READY=1") is False
    systemd.recv(4096)
    assert notifier.send("READY=1") is True
    for _ in range(sent - 1):
        assert systemd.recv(4096) == b"WATCHDOG=1"
    assert systemd.recv(4096) == b"READY=1"


def test_a_message_that_is_too_long_is_told(systemd: socket.socket) -> None:
    assert Notifier().send("STATUS=" + "x" * (1 << 24)) is False


@pytest.mark.parametrize("address", ["/nonexistent/notify", "/" + "x" * 300, "@" + "x" * 300, "relative", "@"])
def test_a_socket_that_is_not_there_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert Notifier().send("READY=1") is False


def test_systemd_that_was_restarted_is_heard_again(systemd: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier()
    systemd.close()
    assert notifier.send("READY=1") is False
    os.unlink(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(60)
        assert notifier.send("READY=1") is True
        assert made.recv(4096) == b"READY=1"


def test_without_systemd_nothing_is_sent_and_nothing_is_wrong() -> None:
    notifier = Notifier()
    assert notifier.send("READY=1") is True
    assert notifier.watchdog_interval_s is None


@pytest.mark.parametrize(
    ("microseconds", "interval_s"),
    [("10000000", 10 / 3), ("1", 1 / 3e6), ("", None), ("x", None), ("-1", None), ("1.5", None), ("²", None)],
)
def test_the_watchdog_is_fed_three_times_in_its_time(
    microseconds: str, interval_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert Notifier().watchdog_interval_s == (None if interval_s is None else pytest.approx(interval_s))
