"""A real S3 server on the loopback, for slow tests: moto, in an environment of its own beside that of tests/run."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from appliance import cache_directory, locked

MOTO = "moto[s3,server]==5.2.5"
BEGIN_LIMIT_S = 120.0
"""It takes two seconds, and the machine may be busy."""


def environment() -> Path:
    """Where it is installed; made at first, which needs a network or a package index of the machine."""
    path = cache_directory() / f"moto-{MOTO.rpartition('=')[2]}"
    with locked(path.with_suffix(".lock")):
        if not (path / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", path], check=True)
            subprocess.run([path / "bin" / "python", "-m", "pip", "install", "-qq", MOTO], check=True)
            (path / "complete").touch()
    return path


class Server:
    """It serves what it holds in memory, until it is stopped."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self.start()

    def start(self) -> None:
        """Start it, also again after a stop, without what it held."""
        with self._log.open("ab") as output:
            words = [f"{environment()}/bin/moto_server", "-H", "127.0.0.1", "-p", str(self.port)]
            self.process = subprocess.Popen(words, stdout=output, stderr=output)

    def wait(self) -> None:
        deadline = time.monotonic() + BEGIN_LIMIT_S
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "moto does not serve"
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def configuration(self, **more: str) -> str:
        """A remote `s3` of rclone's."""
        known = {
            "type": "s3", "provider": "Other", "endpoint": self.url, "region": "us-east-1",
            "access_key_id": "x7access", "secret_access_key": "x7secret",
        }  # fmt: skip
        return "[s3]\n" + "".join(f"{name} = {value}\n" for name, value in {**known, **more}.items())


@contextlib.contextmanager
def serving(log: Path) -> Iterator[Server]:
    """A server that answers. rclone knows nothing of this machine's own S3."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    server = Server(log)
    try:
        server.wait()
        yield server
    finally:
        server.stop()
