#!/usr/bin/env python3
"""A real Debian with a real systemd as PID 1, booted in a container in under a second.

Usage, as root:
    python3 tests/appliance.py build [SUITE]      build the Debian tree that everything boots from
    python3 tests/appliance.py shell [SUITE]      boot an appliance with this checkout installed, give a shell in it
    python3 tests/appliance.py demo [--keep DIR]  what `./install.sh --demo` shows
    python3 tests/appliance.py clean [--all]      remove what killed runs left (--all: the cache as well)

How it is put together:
    base tree     one Debian, made by mmdebstrap, never written to again
    layer         what a build (such as ./install.sh) added to the tree: the upper directory of an overlay mount
    appliance     base tree + layers + an upper directory of its own, so that what the appliance writes
                  outlives reboots and power cuts, until close()

Hard facts:
    - nspawn with --register=no --keep-unit stays in the cgroup it was started in. Two containers in one
      cgroup kill each other's processes, so each container gets a cgroup of its own.
    - The overlay is mounted in a mount namespace that only the container has: no mount can outlive it.
    - nspawn says the PID of the container's PID 1, and that its boot is complete, on NOTIFY_SOCKET.
    - SIGTERM to nspawn is a clean shutdown. SIGKILL to the container's PID 1 is a power cut for its
      processes, but keeps the page cache; power_cut(lose_cache=...) loses the page cache as well.
    - SIGKILL to nspawn leaves the container running. Cgroups are named after their launcher, so that
      clean_leftovers() finds those whose launcher is gone.

SDISUP_CACHE names another cache directory than /var/cache/sdisup-appliance, SDISUP_MIRROR another
Debian mirror than mmdebstrap's own. Standard library only.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Self, TypeVar

CHECKOUT = Path(__file__).resolve().parent.parent
CONTAINER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHECKOUT_INSIDE = "/root/sdisup"
NAME_PREFIX = "sdisup"

# What sdisup needs (install.sh would install these itself; in the base tree they cost each installation neither time
# nor a network), then what tests in the appliance need.
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "polkitd",
    "python3", "python3-gi", "python3-pydbus", "python3-jinja2", "python3-tomli-w", "ffmpeg",
    "e2fsprogs", "faketime", "iproute2", "procps", "strace", "util-linux",
)  # fmt: skip
HOST_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
}
ARCHIVE_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Timers and terminals that a recorder in a rack has as well, but that disturb tests.
MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "console-getty.service", "getty.target",
)  # fmt: skip
# All appliances share one machine id: journald's directory is named after it.
MACHINE_ID = hashlib.md5(b"sdisup appliance", usedforsecurity=False).hexdigest()
# Raise it when prepare_base() changes, so that base trees are built again.
BASE_RECIPE = 1

BOOT_TIMEOUT_S = 30.0
SHUTDOWN_TIMEOUT_S = 30.0
POLL_S = 0.015

# A power cut for ext4 and xfs: from here on nothing that is only in memory reaches the disk
# (include/uapi/linux/fs.h: FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)).
FS_IOC_SHUTDOWN = 0x8004587D
FS_SHUTDOWN_FLAGS_NOLOGFLUSH = 2

T = TypeVar("T")


class ApplianceError(Exception):
    """The appliance, or a command in it, failed; the message is for people."""


def say(message: str) -> None:
    """Print a remark on stderr; stdout is for the command's own output."""
    print(message, file=sys.stderr, flush=True)


def wait_for(predicate: Callable[[], T | None], timeout_s: float, what: str, poll_s: float = POLL_S) -> T:
    """Return the first true value of `predicate`; raise, naming `what`, if there is none in time.

    For conditions that nothing announces, such as a file that grows. Wait for anything else by its file descriptor.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise ApplianceError(f"not within {timeout_s:g} s: {what} (last value: {value!r})")
        time.sleep(poll_s)


# ---------------------------------------------------------------- the cache


def cache_directory() -> Path:
    """The directory of base trees, layers and running appliances; made if missing."""
    path = Path(os.environ.get("SDISUP_CACHE") or "/var/cache/sdisup-appliance").resolve()
    if re.search(r"[:,\\\s]", str(path)):
        raise ApplianceError(f"SDISUP_CACHE: {path}: overlay mounts allow no colon, comma or space in it")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock on the file `path`, which is made if missing and stays, empty."""
    with path.open("a") as file:
        fcntl.flock(file, operation)
        yield


def users_lock(tree: Path) -> Path:
    """The file on which each user of a tree or layer of the cache holds a shared lock."""
    return tree.with_name(tree.name + ".users")


def remove_older(newest: Path, pattern: str) -> None:
    """Remove the trees beside `newest` that match `pattern`, except `newest` and trees that an appliance uses."""
    for tree in newest.parent.glob(pattern):
        if tree == newest or not tree.is_dir():
            continue
        with users_lock(tree).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(tree)
            users_lock(tree).unlink()


def is_root_or_raise() -> None:
    if os.geteuid() != 0:
        raise ApplianceError("containers need root; run this as root (sudo)")


def missing_packages() -> list[str]:
    """The Debian packages whose tools this machine lacks."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = {package for tool, package in HOST_TOOLS.items() if not shutil.which(tool, path=search)}
    if not ARCHIVE_KEYS.exists():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def ensure_host_tools() -> None:
    """Install the tools for building and booting that this machine lacks; needs no network if none is missing."""
    is_root_or_raise()
    packages = missing_packages()
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise ApplianceError(f"this machine lacks {', '.join(packages)} and has no apt-get to install them")
    say(f"installing {' '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    for command in (["apt-get", "update"], install):
        result = subprocess.run(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if result.returncode:
            raise ApplianceError(f"{shlex.join(command)} failed:\n{tail(result.stdout)}")
    if missing_packages():
        raise ApplianceError(f"apt-get installed {packages}, yet missing: {missing_packages()}")


def tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.splitlines()[-lines:])


# ---------------------------------------------------------------- the base tree


def base_key(suite: str) -> str:
    """A short hash of what a base tree is made from: a change makes another base tree."""
    recipe = [suite, *PACKAGES, *MASKED_UNITS, MACHINE_ID, str(BASE_RECIPE)]
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]


def base_tree(suite: str = "trixie") -> Path:
    """The Debian tree of `suite`, built if it is not in the cache: about a minute and 700 MB, once."""
    tree = cache_directory() / f"base-{suite}-{base_key(suite)}"
    if tree.exists():
        return tree
    ensure_host_tools()
    with locked(cache_directory() / f"base-{suite}.lock"):
        if not tree.exists():
            build_base(suite, tree)
            remove_older(tree, f"base-{suite}-*")
    return tree


def build_base(suite: str, tree: Path) -> None:
    """Build a tree under another name and rename it, so that no appliance uses an incomplete tree."""
    started = time.monotonic()
    say(f"building Debian {suite} in {tree.parent} (about a minute, 700 MB, this once) ...")
    partial = tree.with_name(f"partial-{suite}")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    log = tree.with_name(f"build-{suite}.log")
    with log.open("w") as output:
        command = debian_command(suite, partial)
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if result.returncode:
        raise ApplianceError(f"building Debian {suite} failed; the end of {log}:\n{tail(log.read_text())}")
    prepare_base(partial)
    partial.rename(tree)
    say(f"building Debian {suite} took {time.monotonic() - started:.0f} s")


def debian_command(suite: str, tree: Path) -> list[str]:
    """The command that makes a Debian tree, in a mount namespace of its own, so that no mount outlives it."""
    unneeded = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
    mirror = os.environ.get("SDISUP_MIRROR")
    return [
        "unshare", "--mount", "--propagation", "private",
        "mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(PACKAGES)}",
        "--aptopt=Apt::Install-Recommends \"false\"",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in unneeded),
        suite, str(tree), *([mirror] if mirror else []),
    ]  # fmt: skip


def prepare_base(tree: Path) -> None:
    """Let the tree boot without first-boot questions, without terminals, and with a journal on disk."""
    (tree / "etc/machine-id").write_text(MACHINE_ID + "\n")
    (tree / "etc/hostname").write_text("appliance\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 appliance\n")
    units = tree / "etc/systemd/system"
    for unit in MASKED_UNITS:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    (tree / "var/log/journal").mkdir(exist_ok=True)
    journald = tree / "etc/systemd/journald.conf.d/10-appliance.conf"
    journald.parent.mkdir(exist_ok=True)
    journald.write_text("[Journal]\nStorage=persistent\n")
    # As systemd-update-done(8) does, which Debian 12 does not have: otherwise the first boot of each appliance rebuilds
    # the linker's cache and the journal's catalog.
    usr_changed_ns = (tree / "usr").stat().st_mtime_ns
    for stamp in (tree / "etc/.updated", tree / "var/.updated"):
        stamp.touch()
        os.utime(stamp, ns=(usr_changed_ns, usr_changed_ns))


# ---------------------------------------------------------------- layers


def layer(name: str, key: str, build: Callable[[Appliance], None], suite: str = "trixie") -> Path:
    """What `build` adds to the base tree, from the cache if it was built with the same `key` before.

    `build` gets a booted appliance, which is shut down cleanly afterwards. The journal of the build is removed, since
    it is not that of the appliances made from the layer. Older layers of this name are removed.
    """
    layers = cache_directory() / "layers"
    layers.mkdir(exist_ok=True)
    content = hashlib.sha256(f"{base_key(suite)} {key}".encode()).hexdigest()[:12]
    tree = layers / f"{name}-{suite}-{content}"
    with locked(layers / f"{name}-{suite}.lock"):
        if not tree.exists():
            with Appliance(suite) as appliance:
                appliance.boot()
                build(appliance)
                appliance.shutdown()
                shutil.rmtree(appliance.upper / "var/log/journal", ignore_errors=True)
                appliance.upper.rename(tree)
            remove_older(tree, f"{name}-{suite}-*")
    return tree


def project_files(checkout: Path = CHECKOUT) -> list[Path]:
    """The files of the checkout that an installation can use, by relative path: all but tests and caches."""
    unwanted = {"tests", "__pycache__", "build", "dist"}
    files: list[Path] = []
    for directory, subdirectories, names in os.walk(checkout):
        subdirectories[:] = sorted(n for n in subdirectories if n not in unwanted and not n.startswith("."))
        here = Path(directory).relative_to(checkout)
        files += [here / name for name in sorted(names) if not name.startswith(".") and name[-4:] != ".pyc"]
    return files


def project_key(checkout: Path = CHECKOUT) -> str:
    """A hash of the files that an installation can use: their names, contents, and whether each is executable."""
    digest = hashlib.sha256()
    for file in project_files(checkout):
        content = (checkout / file).read_bytes()
        executable = os.access(checkout / file, os.X_OK)
        digest.update(f"{file}\0{executable}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def push_checkout(appliance: Appliance, checkout: Path = CHECKOUT) -> None:
    """Copy the checkout into the appliance, as a clone of the repository."""
    for file in project_files(checkout):
        appliance.push(checkout / file, f"{CHECKOUT_INSIDE}/{file}")


def install_checkout(appliance: Appliance) -> None:
    """Run ./install.sh in a checkout, as a user does."""
    push_checkout(appliance)
    appliance.run(f"cd {CHECKOUT_INSIDE} && ./install.sh", timeout_s=300)


def installed_layer(suite: str = "trixie") -> Path:
    """The layer of an appliance in which ./install.sh of this checkout ran."""
    return layer("installed", project_key(), install_checkout, suite)


# ---------------------------------------------------------------- cgroups


def cgroup_roots() -> list[Path]:
    """The hierarchies that systemd in a container uses: that of v2, or those of v1's hybrid layout."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    roots = [top / name for name in ("systemd", "unified") if (top / name / "cgroup.procs").exists()]
    if not roots:
        raise ApplianceError("no cgroup hierarchy for systemd in /sys/fs/cgroup; mount cgroup2 there")
    return roots


def cgroup_pids(group: Path) -> set[int]:
    """The processes in `group` and below it."""
    pids: set[int] = set()
    for procs in [*group.rglob("cgroup.procs"), group / "cgroup.procs"]:
        with contextlib.suppress(OSError):
            pids.update(int(line) for line in procs.read_text().split())
    return pids - {0}


def kill_cgroup(group: Path, timeout_s: float = 10.0) -> None:
    """Kill every process in `group`, wait until they are dead, and remove it."""
    deadline = time.monotonic() + timeout_s

    def is_gone() -> bool:
        # wait_for repeats this: a process may have been forked while the others were killed.
        for pid in cgroup_pids(group):
            kill_and_wait(pid, deadline)
        return remove_cgroup(group)

    wait_for(is_gone, timeout_s, f"the processes of {group} die and it can be removed")


def kill_and_wait(pid: int, deadline: float) -> None:
    """Kill a process and wait until it is dead. A container's PID 1 dies only after all its other processes."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(descriptor)


def remove_cgroup(group: Path) -> bool:
    """Remove an empty cgroup and those below it; False if the kernel still holds one."""
    directories = [Path(directory) for directory, _, _ in os.walk(group, topdown=False)]
    for directory in directories:
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return not group.exists()


# ---------------------------------------------------------------- the appliance


class ContainerProcess(subprocess.Popen[str]):
    """A command in an appliance. send_signal reaches the command and its children, but not nsenter.

    nsenter waits for the command and ends with its exit status. Without nsenter the dead command would stay visible
    inside until the host's PID 1 collects it, which may take seconds.
    """

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            for pid in descendants(self.pid) or [self.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)


def descendants(pid: int) -> list[int]:
    """The children of a process, and their children (proc_pid_task(5): the file `children`)."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [pid for child in children for pid in descendants(child)]


_numbers = itertools.count(1)
_open_appliances: set[Appliance] = set()


class Appliance:
    """A container of its own upper directory, cgroup and mount namespace. Not running until boot().

    layers: directories from layer(), the uppermost first. binds: host directories to mount inside, as
    nspawn's --bind= wants them ("/host:/inside"). disks: name -> size in bytes; each is an empty ext4
    filesystem on a loop device, inside as /dev/NAME, not mounted. power_cut(lose_cache=...) needs such a disk.
    """

    def __init__(
        self,
        suite: str = "trixie",
        layers: Sequence[Path] = (),
        binds: Sequence[str] = (),
        disks: Mapping[str, int] | None = None,
        nspawn_options: Sequence[str] = (),
    ) -> None:
        self.suite = suite
        self.name = f"{NAME_PREFIX}-{launcher_id(os.getpid())}-{next(_numbers)}"
        self.directory = cache_directory() / "run" / self.name
        self.upper = self.directory / "upper"
        self.console_log = self.directory / "console.log"
        self.pid1: int | None = None
        self.boot_seconds = 0.0
        self._owner = os.getpid()
        self._binds, self._nspawn_options = tuple(binds), tuple(nspawn_options)
        self._disks: dict[str, str] = {}
        self._lowers = [*layers]
        self._locks: list[IO[str]] = []
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._pid1_fd = self._nspawn_fd = -1
        self._closed = False
        try:
            self._prepare(disks or {})
        except BaseException:
            self.close()
            raise

    def _prepare(self, disks: Mapping[str, int]) -> None:
        ensure_host_tools()
        clean_leftovers()
        self._lowers.append(base_tree(self.suite))
        _open_appliances.add(self)
        for lower in self._lowers:
            lock = users_lock(lower).open("a")
            self._locks.append(lock)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if not lower.is_dir():
                raise ApplianceError(f"{lower} was removed by another run; run this again")
        for name in ("upper", "work", "root", "disks"):
            (self.directory / name).mkdir(parents=True)
        for name, size_bytes in disks.items():
            self._disks[name] = attach_disk(self.directory / "disks" / name, size_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------ booting

    def boot(self, wait: str = "running", timeout_s: float = BOOT_TIMEOUT_S) -> str:
        """Boot, and return what `systemctl is-system-running` says then.

        wait: "running" waits until no start job is left (state `running` or `degraded`); "bus" only until systemd
        answers on D-Bus.
        """
        if self.is_running:
            raise ApplianceError(f"{self.name} is already running")
        started = time.monotonic()
        deadline = started + timeout_s
        address = f"{self.name}-notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.bind(b"\0" + address.encode())
            self._launch("@" + address)
            leader = self._await_notification(notify, "X_NSPAWN_LEADER_PID", deadline)
            self.pid1 = int(leader)
            self._pid1_fd = os.pidfd_open(self.pid1)
            if wait == "running":
                self._await_notification(notify, "READY", deadline)
        if wait == "bus":
            bus = self.path("/run/dbus/system_bus_socket")
            wait_for(bus.is_socket, deadline - time.monotonic(), f"{self.name} has a D-Bus")
        state = self.run(["systemctl", "is-system-running"], check=False).stdout.strip()
        self.boot_seconds = time.monotonic() - started
        return state

    def _launch(self, notify_address: str) -> None:
        groups = [root / self.name for root in cgroup_roots()]
        for group in groups:
            group.mkdir(exist_ok=True)
        # The shell execs unshare, which execs a shell, which execs nspawn: one PID, a child of this process.
        mount_and_boot = f"mount -t overlay -o {self._overlay_options()} {self.name} {self.directory}/root\n"
        mount_and_boot = "set -e\n" + mount_and_boot + f"exec {shlex.join(self._nspawn_command())}"
        enter_groups = "".join(f"echo $$ > {shlex.quote(str(group))}/cgroup.procs\n" for group in groups)
        unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount_and_boot]
        with self.console_log.open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", f"set -e\n{enter_groups}exec {shlex.join(unshare)}"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "NOTIFY_SOCKET": notify_address},
                # A Ctrl-C in the terminal reaches only the launcher, which closes its appliances.
                start_new_session=True,
            )
        self._nspawn_fd = os.pidfd_open(self._nspawn.pid)

    def _overlay_options(self) -> str:
        lowers = ":".join(str(lower) for lower in self._lowers)
        # Without redirects and without metadata that is copied up alone, an upper directory is a complete tree, which
        # can be a layer below another one.
        return (
            f"lowerdir={lowers},upperdir={self.upper},workdir={self.directory}/work"
            ",redirect_dir=off,metacopy=off,index=off"
        )

    def _nspawn_command(self) -> list[str]:
        return [
            "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no",
            f"--directory={self.directory}/root", f"--machine={self.name}", "--hostname=appliance",
            "--console=pipe", "--notify-ready=yes", "--link-journal=no", "--timezone=off",
            "--resolv-conf=copy-host",
            *(f"--bind={bind}" for bind in self._binds),
            *(f"--bind={device}:/dev/{name}" for name, device in self._disks.items()),
            *self._nspawn_options,
        ]  # fmt: skip

    def _await_notification(self, notify: socket.socket, key: str, deadline: float) -> str:
        """The value of `key` in nspawn's notifications, or an error that quotes the console."""
        while True:
            remaining_s = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([notify.fileno(), self._nspawn_fd], [], [], remaining_s)
            if notify.fileno() in ready:
                for line in notify.recv(4096).decode(errors="replace").splitlines():
                    if line.startswith(key + "="):
                        return line.partition("=")[2]
            else:
                problem = "ended while it booted" if ready else "did not boot in time"
                console = tail(self.console_log.read_text(errors="replace"))
                raise ApplianceError(f"{self.name} {problem} (no {key}); its console:\n{console}")

    @property
    def is_running(self) -> bool:
        """Whether the container's PID 1 lives."""
        return self._pid1_fd >= 0 and not select.select([self._pid1_fd], [], [], 0)[0]

    @property
    def is_closed(self) -> bool:
        """Whether close() has removed the appliance."""
        return self._closed

    # ------------------------------------------------ ending

    def shutdown(self, timeout_s: float = SHUTDOWN_TIMEOUT_S) -> None:
        """Shut down as by the power button: systemd stops every unit."""
        self._running_pid1()
        assert self._nspawn is not None
        self._nspawn.send_signal(signal.SIGTERM)
        self._await_end(timeout_s)

    def wait_off(self, timeout_s: float = SHUTDOWN_TIMEOUT_S) -> None:
        """Wait until the appliance is off, after a `systemctl poweroff` in it."""
        self._await_end(timeout_s)

    def reboot(self, wait: str = "running", timeout_s: float = BOOT_TIMEOUT_S) -> str:
        """Shut down cleanly and boot again."""
        self.shutdown()
        return self.boot(wait, timeout_s)

    def power_cut(self, lose_cache: Sequence[str] = ()) -> None:
        """Kill all processes at once. boot() switches the appliance on again.

        lose_cache: mount points of `disks` whose filesystems lose what was not flushed to the disk.
        """
        self._running_pid1()
        for mount_point in lose_cache:
            lose_page_cache(self.path(mount_point))
        signal.pidfd_send_signal(self._pid1_fd, signal.SIGKILL)
        self._await_end(10.0)

    def _await_end(self, timeout_s: float) -> None:
        if self._nspawn is None:
            return
        if not select.select([self._nspawn_fd], [], [], timeout_s)[0]:
            console = tail(self.console_log.read_text(errors="replace"))
            raise ApplianceError(f"{self.name} did not end within {timeout_s:g} s; its console:\n{console}")
        self._forget_processes()

    def _forget_processes(self) -> None:
        """Reap an nspawn that ended, and kill what is still in its cgroups."""
        if self._nspawn is not None:
            self._nspawn.wait(SHUTDOWN_TIMEOUT_S)
        for descriptor in (self._nspawn_fd, self._pid1_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._nspawn, self._nspawn_fd, self._pid1_fd, self.pid1 = None, -1, -1, None
        for root in cgroup_roots():
            if (root / self.name).exists():
                kill_cgroup(root / self.name)

    def close(self) -> None:
        """Kill the appliance's processes and remove its files. Allowed at any moment, and more than once."""
        if self._closed or os.getpid() != self._owner:
            return
        if self._nspawn is not None:
            if self.is_running:
                signal.pidfd_send_signal(self._pid1_fd, signal.SIGKILL)
            # While PID 1 is not known, nspawn may be anywhere in its start; killing the cgroup ends the rest.
            if self.pid1 is None or not select.select([self._nspawn_fd], [], [], 5.0)[0]:
                self._nspawn.kill()
        try:
            self._forget_processes()
        finally:
            remove_run_directory(self.directory)
            for lock in self._locks:
                lock.close()
        _open_appliances.discard(self)
        self._closed = True

    # ------------------------------------------------ working in it

    def _running_pid1(self) -> int:
        if not self.is_running or self.pid1 is None:
            raise ApplianceError(f"{self.name} is not running")
        return self.pid1

    def enter_command(
        self, argv: Sequence[str] | str, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> list[str]:
        """The host's command that runs `argv` inside, in the cgroup of the container's PID 1."""
        pid1 = self._running_pid1()
        command = ["sh", "-c", argv] if isinstance(argv, str) else list(argv)
        if user is not None:
            command = ["/usr/sbin/runuser", "-u", user, "--", *command]
        variables = {"PATH": CONTAINER_PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
        assignments = [f"{name}={value}" for name, value in {**variables, **(env or {})}.items()]
        enter = "".join(f"echo $$ > {shlex.quote(str(procs))}\n" for procs in pid1_cgroup_files(pid1))
        nsenter = ["nsenter", "-t", str(pid1), "-a", "/usr/bin/env", "-i", *assignments, *command]
        return ["sh", "-c", f'{enter}exec "$@"', "enter", *nsenter]

    def popen(
        self,
        argv: Sequence[str] | str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
    ) -> ContainerProcess:
        """Start a command inside, as root unless `user` is given; a string is run by sh."""
        return ContainerProcess(
            self.enter_command(argv, user, env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,
        )

    def run(
        self,
        argv: Sequence[str] | str,
        input: str | None = None,
        check: bool = True,
        timeout_s: float = 60.0,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end. Raises, quoting its output, when it fails and `check` is set."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        shown = argv if isinstance(argv, str) else shlex.join(argv)
        with self.popen(argv, user, env, stdin=stdin) as process:
            try:
                stdout, stderr = process.communicate(input, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                stdout, stderr = process.communicate()
                output = tail(stdout + stderr)
                raise ApplianceError(f"{shown}: did not end within {timeout_s:g} s\n{output}") from None
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            output = tail(stdout + stderr, 40)
            raise ApplianceError(f"{shown}: exit code {process.returncode}\n{output}")
        return subprocess.CompletedProcess(shown, process.returncode, stdout, stderr)

    def path(self, inside: str | Path) -> Path:
        """The host's path of a file inside a running appliance.

        An absolute symbolic link on the way leads to the host's files: name the link's target instead.
        """
        return Path(f"/proc/{self._running_pid1()}/root", str(inside).lstrip("/"))

    def push(self, source: Path, inside: str | Path) -> None:
        """Copy a file or a tree in, with its modes; parents are made, and the copies are root's."""
        destination = self.path(inside)
        destination.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, destination)

    def pull(self, inside: str | Path, destination: Path) -> None:
        """Copy a file or a tree out."""
        source = self.path(inside)
        if source.is_dir():
            shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, destination)

    def write(self, inside: str | Path, text: str, mode: int = 0o644) -> None:
        """Write a file inside; its directory is made if missing, and a link in its place is replaced.

        A command inside writes it, since a link that is followed from the host would lead to the host's files.
        """
        script = 'mkdir -p "$(dirname "$1")" && rm -f "$1" && cat > "$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "write", str(inside), f"{mode:o}"], input=text)

    def read(self, inside: str | Path) -> str:
        """The text of a file inside."""
        return self.path(inside).read_text(errors="surrogateescape")

    # ------------------------------------------------ its journal

    def journal(self, *options: str, since_boot: bool = True, after_cursor: str = "") -> list[dict[str, Any]]:
        """The journal's entries, oldest first; `options` are journalctl's ("-u", "sdi-record@3")."""
        choice = [f"--after-cursor={after_cursor}"] if after_cursor else ["-b"] if since_boot else []
        self.run(["journalctl", "--sync"])
        result = self.run(["journalctl", "-o", "json", "--all", "--no-pager", "-q", *choice, *options])
        return [json.loads(line) for line in result.stdout.splitlines()]

    def journal_cursor(self) -> str:
        """The cursor of the journal's last entry, for journal(after_cursor=...); valid over boots."""
        self.run(["journalctl", "--sync"])
        last = self.run(["journalctl", "-o", "json", "-n", "1", "--no-pager", "-q"]).stdout
        return str(json.loads(last)["__CURSOR"]) if last.strip() else ""


def pid1_cgroup_files(pid1: int) -> list[Path]:
    """The cgroup.procs files through which a process joins the container's PID 1."""
    files = []
    for line in Path(f"/proc/{pid1}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root in cgroup_roots():
            is_its_own = (controllers == "name=systemd") if root.name == "systemd" else not controllers
            if is_its_own:
                files.append(root / path.lstrip("/") / "cgroup.procs")
    return files


# ---------------------------------------------------------------- disks


def attach_disk(image: Path, size_bytes: int) -> str:
    """Make an ext4 filesystem in a file and return the loop device that shows it."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, stdin=subprocess.DEVNULL)
    command = ["losetup", "--find", "--show", str(image)]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    if result.returncode:
        raise ApplianceError(f"no loop device for a disk of the appliance: {result.stderr.strip()}")
    return result.stdout.strip()


def attached_disks(prefix: str) -> list[str]:
    """The loop devices of files whose path begins with `prefix`."""
    devices = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(prefix):
                devices.append(f"/dev/{backing.parent.parent.name}")
    return devices


def lose_page_cache(mount_point: Path) -> None:
    """Cut a filesystem off its disk: what was not flushed to the disk is lost, as at a power cut."""
    descriptor = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", FS_SHUTDOWN_FLAGS_NOLOGFLUSH))
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- leaving nothing behind


def launcher_id(pid: int) -> str:
    """A process's PID and start time, which no later process of the same PID has."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    start_ticks = stat.rpartition(")")[2].split()[19]
    return f"{pid}-{start_ticks}"


def launcher_lives(name: str) -> bool:
    """Whether the process that made the appliance called `name` still lives."""
    match = re.fullmatch(rf"{NAME_PREFIX}-(\d+)-(\d+)-\d+", name)
    if match is None:
        return True
    try:
        return launcher_id(int(match[1])) == f"{match[1]}-{match[2]}"
    except (FileNotFoundError, ProcessLookupError):
        return False


def leftover_names(pattern: str = f"{NAME_PREFIX}-*-*-*") -> set[str]:
    """The names of appliances of which a cgroup or a directory exists, running ones included."""
    parents = [*cgroup_roots(), cache_directory() / "run"]
    return {path.name for parent in parents for path in parent.glob(pattern) if path.is_dir()}


def leftovers_of(launcher_pid: int) -> list[str]:
    """What is left of the appliances of a launcher, one line each, so that tests can see that nothing is."""
    pattern = f"{NAME_PREFIX}-{launcher_pid}-*"
    found = [f"appliance {name}" for name in sorted(leftover_names(pattern))]
    run_directory = f"{cache_directory()}/run/{NAME_PREFIX}-{launcher_pid}-"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # A zombie is dead, and waits for this machine's PID 1, which may be slow.
            if (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue
            if f"/{NAME_PREFIX}-{launcher_pid}-" in (process / "cgroup").read_text():
                found.append(f"process {process.name}: {(process / 'comm').read_text().strip()}")
            if run_directory in (process / "mountinfo").read_text():
                found.append(f"a mount below {run_directory}* in the namespace of process {process.name}")
    found += [f"loop device {device}" for device in attached_disks(run_directory)]
    return found


def clean_leftovers() -> list[str]:
    """Remove the appliances whose launcher no longer lives, and return their names."""
    dead = sorted(name for name in leftover_names() if not launcher_lives(name))
    for name in dead:
        # Another run may be removing the same appliance.
        for root in cgroup_roots():
            if (root / name).exists():
                kill_cgroup(root / name)
        remove_run_directory(cache_directory() / "run" / name)
    return dead


def remove_run_directory(directory: Path) -> None:
    """Remove an appliance's files, its loop devices, and nspawn's own files of it."""
    for device in attached_disks(f"{directory}/"):
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
    if directory.exists():
        shutil.rmtree(directory, ignore_errors=True)
    for notes in Path("/run/systemd/nspawn").glob(f"*/{directory.name}"):
        with contextlib.suppress(OSError):
            notes.rmdir()


@atexit.register
def close_all() -> None:
    """Close every appliance of this process that is still open."""
    for appliance in list(_open_appliances):
        appliance.close()


def end_on_sigterm() -> None:
    """Let SIGTERM unwind this process, so that it closes its appliances."""

    def leave(signal_number: int, _: object) -> NoReturn:
        sys.exit(128 + signal_number)

    signal.signal(signal.SIGTERM, leave)


# ---------------------------------------------------------------- the demonstration

DEMO_PORTS = 4
DEMO_CONFIGURATION = f"""\
# Four ports that record FFmpeg's test picture and tone.
[appliance]
ports = {DEMO_PORTS}

[defaults]
source = {{ kind = "test", size = "640x360", rate = 25 }}
codec = "h264"
"""


def demo(keep_recordings: Path | None = None) -> None:
    """Show on a real Debian what sdisup does, from its installation to the files. Leaves only the cache."""
    started = time.monotonic()
    if keep_recordings is not None and keep_recordings.exists() and not keep_recordings.is_dir():
        raise ApplianceError(f"--keep {keep_recordings}: is no directory; name another")
    ensure_host_tools()
    clean_leftovers()
    say("A real Debian with a real systemd, in a container of its own; your machine stays as it is.")
    layers = [installed_layer()]
    with Appliance(layers=layers) as appliance:
        appliance.boot()
        say(f"booted in {appliance.boot_seconds:.2f} s, sdisup installed in it by ./install.sh")
        record_four_ports(appliance)
        show_crash(appliance)
        show(appliance, "sdisup stop --all")
        list_recordings(appliance)
        show(appliance, "sdisup gaps 2")
        if keep_recordings is not None:
            appliance.pull("/srv/recordings", keep_recordings)
            say(f"\nthe recordings are in {keep_recordings}")
    say(f"\n{time.monotonic() - started:.0f} s. The container is gone. What is left is the cache in")
    say(f"{cache_directory()}; `python3 tests/appliance.py clean --all` removes it.")


def show(appliance: Appliance, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command, and show it with its output."""
    print(f"\n# {command}", flush=True)
    result = appliance.run(command, check=False)
    output = (result.stdout + result.stderr).rstrip()
    if output:
        print(output, flush=True)
    if check and result.returncode:
        raise ApplianceError(f"{command}: exit code {result.returncode}")
    return result


def record_four_ports(appliance: Appliance) -> None:
    appliance.write("/etc/sdisup/sdisup.toml", DEMO_CONFIGURATION)
    show(appliance, "cat /etc/sdisup/sdisup.toml")
    show(appliance, "sdisup apply")
    show(appliance, "sdisup start --all")
    wait_for(lambda: all_record(appliance, 75), 20, "all four ports have recorded 3 s")
    show(appliance, "sdisup status")


def all_record(appliance: Appliance, frames: int) -> bool:
    """Whether every port records and its running FFmpeg has as many frames as `frames`."""
    ports = port_states(appliance)
    return len(ports) == DEMO_PORTS and all(p["is_recording"] and p["frame_count"] >= frames for p in ports)


def port_states(appliance: Appliance) -> list[dict[str, Any]]:
    """What `sdisup status --json` says; its exit code does not matter here."""
    ports: list[dict[str, Any]] = json.loads(appliance.run("sdisup status --json", check=False).stdout)
    return ports


def ffmpeg_pids(appliance: Appliance, port_index: int) -> list[int]:
    """The FFmpeg processes of a port, by the container's PIDs: children of its runner."""
    runner = port_states(appliance)[port_index]["pid"]
    children = appliance.run(["pgrep", "--parent", str(runner)], check=False).stdout
    return [int(pid) for pid in children.split()]


def show_crash(appliance: Appliance, port_index: int = 2) -> None:
    """Kill one FFmpeg, and show that its port records again and that the other ports never stopped."""
    victims = ffmpeg_pids(appliance, port_index)
    if len(victims) != 1:
        raise ApplianceError(f"port {port_index} has {len(victims)} FFmpeg processes instead of one")
    print(f"\n(port {port_index}'s FFmpeg is process {victims[0]})")
    show(appliance, f"kill -9 {victims[0]}")
    killed = time.monotonic()

    def is_back() -> bool:
        # By the status file: running `sdisup status` again and again would disturb the measurement.
        port = json.loads(appliance.read(f"/run/sdisup/{port_index}.json"))
        return bool(port["is_recording"]) and port["restarts"] > 0

    wait_for(is_back, 20, f"port {port_index} records again")
    print(f"(port {port_index} records again, {time.monotonic() - killed:.2f} s after the kill)")
    wait_for(lambda: all_record(appliance, 50), 20, "all four ports record")
    show(appliance, "sdisup status")


def list_recordings(appliance: Appliance) -> None:
    """Show every file with its duration and frames, as ffprobe finds them."""
    print("\n# ffprobe of every file in /srv/recordings")
    print(f"{'FILE':<44} {'MB':>6} {'SECONDS':>8} {'FRAMES':>7}")
    files = appliance.run("find /srv/recordings -type f | sort").stdout.splitlines()
    if len(files) != DEMO_PORTS + 1:
        raise ApplianceError(f"{DEMO_PORTS + 1} files expected, one more than ports; found: {files}")
    for file in files:
        frames, seconds = probe(appliance, file)
        size_mb = appliance.path(file).stat().st_size / 1e6
        print(f"{Path(file).name:<44} {size_mb:>6.1f} {seconds:>8.2f} {frames:>7}", flush=True)


def probe(appliance: Appliance, file: str) -> tuple[int, float]:
    """The frames and the seconds of a recording's picture, counted by reading all of it."""
    options = "-v error -select_streams v:0 -show_entries packet=pts_time,duration_time -of json"
    result = appliance.run(["ffprobe", *options.split(), file])
    packets = json.loads(result.stdout)["packets"]
    if not packets:
        raise ApplianceError(f"{file}: no frame in it")
    times = [float(packet["pts_time"]) for packet in packets]
    # By the frames' times: the header of a killed file may lack the duration.
    frame_s = (max(times) - min(times)) / max(1, len(times) - 1)
    return len(packets), max(times) - min(times) + frame_s


# ---------------------------------------------------------------- the command line


def shell(suite: str = "trixie") -> int:
    """Boot an appliance with this checkout installed, and run a shell in it."""
    layers = [installed_layer(suite)] if (CHECKOUT / "install.sh").exists() else []
    with Appliance(suite, layers) as appliance:
        appliance.boot()
        say(f"booted in {appliance.boot_seconds:.2f} s; from outside its files are in {appliance.path('/')}")
        environment = {"TERM": os.environ.get("TERM", "dumb")}
        return subprocess.call(appliance.enter_command(["bash", "-l"], env=environment))


def clean(everything: bool) -> None:
    """Remove what killed runs left; with `everything` the cache as well, but no other files in its directory."""
    for name in clean_leftovers():
        say(f"removed what {name} left")
    if not everything:
        return
    cache = cache_directory()
    running = sorted(path.name for path in (cache / "run").glob("*"))
    if running:
        raise ApplianceError(f"still in use: {', '.join(running)}")
    for pattern in ("base-*", "partial-*", "build-*.log", "venv*", "layers", "run"):
        for path in cache.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with contextlib.suppress(OSError):
        cache.rmdir()
    say(f"removed the cache in {cache}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    description = "A real Debian with a real systemd, booted in a container."
    parser = argparse.ArgumentParser(prog="appliance.py", description=description)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, purpose in (
        ("build", "build the Debian tree that everything boots from"),
        ("shell", "boot one with this checkout installed, and give a shell in it"),
    ):
        commands.add_parser(command, help=purpose).add_argument("suite", nargs="?", default="trixie")
    demonstration = commands.add_parser("demo", help="install, record, kill one FFmpeg, stop, list the files")
    demonstration.add_argument("--keep", type=Path, metavar="DIR", help="copy the recordings to DIR")
    cleaning = commands.add_parser("clean", help="remove what killed runs left")
    cleaning.add_argument("--all", action="store_true", help="remove the cache as well")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    end_on_sigterm()
    try:
        is_root_or_raise()
        if options.command == "build":
            print(base_tree(options.suite))
        elif options.command == "shell":
            return shell(options.suite)
        elif options.command == "demo":
            demo(options.keep)
        else:
            clean(options.all)
    except ApplianceError as error:
        say(f"appliance: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
