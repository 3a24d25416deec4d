"""A disk that hangs: a FUSE filesystem whose daemon answers nothing, as an NFS whose server is gone. Needs root.

    with hanging("/srv/dead"): ...              # in this process's mount namespace
    with hanging("/srv/dead", of=pid): ...      # in that of another process, such as an appliance's PID 1
    unshare --mount python3 tests/hanging.py DIRECTORY COMMAND...

Whoever touches the directory waits until the filesystem goes, or is killed. It goes when this process ends, however it
ends: the kernel aborts a FUSE connection that nobody has open.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

MOUNT = """
import ctypes, os, sys
directory, descriptor = sys.argv[1].encode(), int(sys.argv[2])
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % descriptor
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"dead:/export", directory, b"fuse", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
"""

# Not umount(8): in another process's mount namespace /proc does not know who asks.
UNMOUNT = """
import ctypes, sys
MNT_DETACH = 2
ctypes.CDLL(None).umount2(sys.argv[1].encode(), MNT_DETACH)
"""


@contextlib.contextmanager
def hanging(directory: str, of: int | None = None) -> Iterator[None]:
    """Let all that touches `directory` hang, in the mount namespace of process `of`."""
    enter = [] if of is None else ["nsenter", f"--target={of}", "--mount"]
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        mount = [*enter, "python3", "-c", MOUNT, directory, str(device)]
        subprocess.run(mount, check=True, pass_fds=(device,), timeout=20)
        yield
    finally:
        os.close(device)
        subprocess.run([*enter, "python3", "-c", UNMOUNT, directory], check=False, timeout=20)


if __name__ == "__main__":
    with hanging(sys.argv[1]):
        sys.exit(subprocess.run(sys.argv[2:], check=False).returncode)
