"""What is mounted where, from lines of mountinfo as kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdisup.contract.filesystem import pool_of
from sdisup.contract.mounts import Mount, link_at, mount_of, parse_mounts, read_mounts

# A Debian with a btrfs of two subvolumes, whose directories have devices that are nowhere here, two datasets of a ZFS
# pool, an NFS, a bind mount, a disk that its kernel has made read-only, and one that was mounted so.
MOUNTINFO = """\
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
29 28 0:6 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=4014036k
40 28 8:17 / /srv/failed rw,relatime shared:20 - ext4 /dev/sdb1 ro,errors=remount-ro,stripe=512
41 28 8:33 / /srv/sealed ro,relatime shared:21 - xfs /dev/sdc1 ro,attr2
42 28 8:49 /only /srv/shown ro,relatime shared:22 - ext4 /dev/sdd1 rw
50 28 0:47 /@a /srv/a rw,relatime shared:30 - btrfs /dev/sde1 rw,space_cache=v2,subvolid=256,subvol=/@a
51 28 0:47 /@b /srv/b rw,relatime shared:31 - btrfs /dev/sde1 rw,space_cache=v2,subvolid=257,subvol=/@b
60 28 0:61 / /tank rw,relatime shared:40 - zfs tank rw,xattr,posixacl,casesensitive
61 60 0:62 / /tank/rec rw,relatime shared:41 - zfs tank/rec rw,xattr,posixacl,casesensitive
70 28 0:70 / /srv/nas\\040one rw,relatime shared:50 - nfs4 server:/export/nas\\040one rw,vers=4.2
71 28 8:65 / /srv/twice rw,relatime shared:51 - ext4 /dev/sdf1 rw
72 71 8:81 / /srv/twice rw,relatime shared:52 - ext4 /dev/sdg1 rw
73 28 0:99 broken
"""
MOUNTS = parse_mounts(MOUNTINFO.splitlines(keepends=True))
LINKS = {
    "/recordings": "/srv/a",
    "/srv/relative": "../srv/./b/day",
    "/srv/round": "/srv/round2",
    "/srv/round2": "/srv/round",
    "/srv/a/inside": "/srv/b",
}


def test_the_lines_of_mounts_and_no_others_are_read() -> None:
    assert len(MOUNTS) == 12
    assert MOUNTS[2] == Mount(
        "/srv/failed", "ext4", "/dev/sdb1", "8:17", False, True, ("ro", "errors=remount-ro", "stripe=512")
    )
    assert [(mount.is_read_only, mount.is_filesystem_read_only) for mount in MOUNTS[2:5]] == [
        (False, True), (True, True), (True, False),
    ]  # fmt: skip
    assert (MOUNTS[9].place, MOUNTS[9].source) == ("/srv/nas one", "server:/export/nas one")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/", "/dev/sda1"),
        ("/srv", "/dev/sda1"),
        ("/srv/failed", "/dev/sdb1"),
        ("/srv/failed2", "/dev/sda1"),
        ("/srv/failed/deep/er", "/dev/sdb1"),
        ("/srv/twice/x", "/dev/sdg1"),
        ("/tank/rec/x", "tank/rec"),
        ("/srv/nas one/x", "server:/export/nas one"),
        ("/recordings", "/dev/sde1"),
        ("/recordings/day", "/dev/sde1"),
        ("/srv/relative", "/dev/sde1"),
        # Its disk might hang: a link that is not on the disk of `/` is not looked at.
        ("/srv/a/inside", "/dev/sde1"),
        ("//srv//failed/", "/dev/sdb1"),
    ],
)
def test_what_a_path_is_on(path: str, source: str) -> None:
    asked = []

    def link(path: str) -> str | None:
        asked.append(path)
        return LINKS.get(path)

    found = mount_of(path, MOUNTS, link)
    assert found is not None and found.source == source
    mounted = {mount.place for mount in MOUNTS[1:]}
    assert not [path for path in asked if any(f"{path}/".startswith(f"{place}/") for place in mounted)]


def test_a_circle_of_links_and_no_mounts_are_nothing() -> None:
    assert mount_of("/srv/round/x", MOUNTS, LINKS.get) is None
    assert mount_of("/srv/failed", [], LINKS.get) is None


def test_subvolumes_and_datasets_are_of_one_pool() -> None:
    def pool(path: str) -> str:
        mount = mount_of(path, MOUNTS, LINKS.get)
        assert mount is not None
        return pool_of(mount.kind, mount.source)

    assert pool("/srv/a") == pool("/srv/b/x") == "btrfs /dev/sde1"
    assert pool("/tank") == pool("/tank/rec") == "zfs tank"
    assert pool("/srv/failed") != pool("/")


def test_of_this_machine(tmp_path: Path) -> None:
    assert any(mount.place == "/" for mount in read_mounts())
    assert read_mounts(str(tmp_path / "missing")) == []
    (tmp_path / "link").symlink_to("target")
    assert [link_at(str(tmp_path / name)) for name in ("link", "missing", ".")] == ["target", None, None]
