"""What a service tells systemd: READY, STATUS, WATCHDOG (sd_notify(3)). It never waits."""

from __future__ import annotations

import os

# The module `socket` would load four more, for what is not needed here.
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, socket


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
        self._socket: socket | None = None
        # A leading @ stands for the abstract namespace's NUL byte (sd_notify(3)).
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def send(self, *assignments: str) -> bool:
        """Send assignments such as `READY=1`; False when systemd could not take them just now."""
        if not self._address:
            return True
        message = "\n".join(line.replace("\n", " ") for line in assignments)
        try:
            if self._socket is None:
                self._socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError:
            return False
        return True
