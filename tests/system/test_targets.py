"""Finished files are copied by their own units, as systemd runs them: to a directory, and to a real S3 server."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3
from drive import Machine, small_ports

pytestmark = [pytest.mark.slow]
STATE = "/run/sdisup/offload/nas.json"


def with_target(target: str, more: str = "") -> str:
    return small_ports(1, f'[port.0]\nname = "CAM1"\n[offload.nas]\ntarget = "{target}"\nfolder = "box"\n{more}')


def record(machine: Machine) -> str:
    """A file of a second; its path."""
    machine.sdisup("start 0")
    machine.wait_recording(0, 25)
    machine.sdisup("stop 0")
    return str([entry for entry in machine.ledger(0) if entry["kind"] == "file"][-1]["path"])


def copies(machine: Machine) -> list[dict[str, Any]]:
    return [entry for entry in machine.ledger(0) if entry["kind"] == "copy"]


def wait_copies(machine: Machine, count: int) -> list[dict[str, Any]]:
    machine.wait_for(lambda: len(copies(machine)) == count, 60, f"{count} copies are in the ledger")
    return copies(machine)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_directory(new_appliance: Callable[..., Machine]) -> None:
    machine = new_appliance()
    assert machine.boot() == "running"
    machine.run("install -d -o sdisup -g sdisup /mnt/nas")
    machine.configure(with_target("/mnt/nas"))
    assert machine.run("systemctl is-active sdi-offload@nas.timer").stdout == "active\n"
    assert machine.run("systemctl is-enabled sdi-offload@nas.timer").stdout == "enabled\n"
    assert "nothing to change" in machine.sdisup("apply").stdout
    path = record(machine)
    machine.run("systemctl start sdi-offload@nas.service")
    (entry,) = wait_copies(machine, 1)
    copy = machine.path(f"/mnt/nas/{entry['copy']}")
    assert entry["copy"] == f"box/CAM1/{Path(path).name}"
    assert entry["digest"] == f"sha256:{digest_of(copy)}" == f"sha256:{digest_of(machine.path(path))}"
    assert "copied to nas" in machine.sdisup("recordings 0").stdout
    (found,) = json.loads(machine.sdisup("offload --json").stdout)
    assert (found["copied_files"], found["waiting_files"], found["problems"]) == (1, 0, [])
    # Without the target a recording goes on, and one line says so.
    machine.run("mv /mnt/nas /mnt/gone")
    machine.sdisup("start 0")
    machine.wait_recording(0, 25)
    machine.sdisup("cut 0 --now")
    machine.ledger(0)
    machine.run("systemctl start sdi-offload@nas.service")
    told = machine.wait_for(
        lambda: [line for line in machine.sdisup("status").stderr.splitlines() if line.startswith("offload")],
        60, "the status says that the target is away",
    )  # fmt: skip
    assert len(told) == 1 and told[0].startswith("offload nas: /mnt/nas: No such file or directory (since ")
    assert machine.sdisup("offload", code=1)
    assert machine.run("systemctl is-system-running").stdout == "running\n"
    # It comes back.
    assert machine.run("systemctl show -P NextElapseUSecRealtime sdi-offload@nas.timer").stdout.strip()
    machine.run(f"mv /mnt/gone /mnt/nas && rm {STATE} && systemctl start sdi-offload@nas.service")
    assert len(wait_copies(machine, 2)) == 2
    machine.sdisup("stop 0")
    # Nothing of it is left but the copies.
    machine.configure(small_ports(1))
    assert machine.run("systemctl list-units --all --plain --no-legend 'sdi-offload@*'").stdout == ""
    assert machine.run("find /etc/systemd/system /run/sdisup -name '*nas*' -not -name '*.lock'").stdout == ""
    assert copy.exists()


@pytest.mark.skipif(not shutil.which("rclone"), reason="no rclone is installed: apt-get install rclone")
def test_s3_with_a_credential_that_nobody_sees(new_appliance: Callable[..., Machine], tmp_path: Path) -> None:
    machine = new_appliance()
    assert machine.boot() == "running"
    with s3.serving(tmp_path / "log") as server:
        machine.configure(with_target("s3:archive"), apply=False)
        told = machine.sdisup("apply").stderr
        assert "apt-get install rclone" in told and "/etc/sdisup/credentials/nas.conf does not exist" in told
        path = record(machine)
        machine.run("systemctl start sdi-offload@nas.service")
        machine.wait_for(
            lambda: "has no section [s3]" in machine.sdisup("status").stderr, 60, "the status says what is missing"
        )
        machine.push(Path(shutil.which("rclone") or ""), "/usr/bin/rclone")
        machine.path("/usr/bin/rclone").chmod(0o755)
        machine.run("install -d -m 700 /etc/sdisup/credentials")
        machine.write("/etc/sdisup/credentials/nas.conf", server.configuration(), mode=0o600)
        assert "credentials" not in machine.sdisup("apply").stderr
        machine.run(f"rm {STATE}; systemctl start sdi-offload@nas.service")
        (entry,) = wait_copies(machine, 1)
        assert (entry["copy"], entry["verified"]) == (f"box/CAM1/{Path(path).name}", "hash")
        content = machine.path(path).read_bytes()
        assert entry["digest"] == f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
        # A dead server is one line, without a secret.
        server.stop()
        path = record(machine)
        machine.run("systemctl start sdi-offload@nas.service")
        machine.wait_for(lambda: "refused" in machine.sdisup("status").stderr, 60, "the status says so")
        files = "/proc/*/cmdline /etc/sdisup/sdisup.toml /var/lib/sdisup/applied.json /run/sdisup/offload/*"
        units = "systemctl cat 'sdi-offload@*'; systemctl show 'sdi-offload@*'; journalctl"
        everything = f"{units}; sdisup offload --json; cat {files} | tr '\\0' ' '"
        assert "x7secret" not in machine.run(everything, check=False).stdout
        found = machine.run("find /run/credentials /etc/sdisup/credentials", user="nobody", check=False)
        assert "rclone.conf" not in found.stdout and "nas.conf" not in found.stdout
