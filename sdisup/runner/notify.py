"""sd_notify(3) in a few lines: tells systemd READY, WATCHDOG and STATUS without ever waiting."""

from __future__ import annotations

import os
import socket


class Notifier:
    """The service's end of systemd's notification socket.

    Taking the variables out of the environment keeps FFmpeg from inheriting them: a child that
    holds NOTIFY_SOCKET can speak in the runner's name.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = os.environ.pop("WATCHDOG_USEC", "")
        os.environ.pop("WATCHDOG_PID", None)
        self.watchdog_interval_s = int(watchdog_us) / 3e6 if watchdog_us.isdecimal() else None
        """How often to send WATCHDOG=1, in seconds; None when systemd does not ask for it."""
        self._socket: socket.socket | None = None
        if address:
            # A leading @ stands for the abstract namespace's NUL byte (sd_notify(3)).
            self._address = "\0" + address[1:] if address.startswith("@") else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def send(self, *assignments: str) -> bool:
        """Send assignments such as `READY=1`; False when systemd could not take them just now."""
        if self._socket is None:
            return True
        message = "\n".join(line.replace("\n", " ") for line in assignments)
        try:
            self._socket.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError:
            return False
        return True
