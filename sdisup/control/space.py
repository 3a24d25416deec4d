"""How long each disk lasts, by the measured bit rates of all ports that fill it. Pure, and quick to load."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sdisup.contract.status import PortStatus

HOUR_S = 3600.0


def share_space(
    found: Iterable[PortStatus], space_of: Callable[[PortStatus], str], freeable_bytes: Callable[[PortStatus], int]
) -> list[list[PortStatus]]:
    """Set for how long each port that records can go on. Returns the ports that fill one another's space, together.

    `space_of` names what a port fills, such as a pool of several filesystems; `freeable_bytes` is what retention may
    delete there.
    """
    groups: dict[str, list[PortStatus]] = {}
    for status in found:
        if status.filesystem and status.is_recording:
            groups.setdefault(space_of(status), []).append(status)
    for sharing in groups.values():
        freeable = freeable_bytes(sharing[0])
        for status in sharing:
            status.update(
                disk_remaining_seconds=remaining_s(status, sharing),
                disk_remaining_with_retention_seconds=remaining_s(status, sharing, freeable),
            )
    return list(groups.values())


def remaining_s(status: PortStatus, sharing: Sequence[PortStatus], freeable_bytes: int = 0) -> float | None:
    """For how long one of the ports that share a space can go on; None where nobody knows.

    A filesystem of a pool may have a limit of its own, such as a dataset's quota, and is then full before the pool.
    What is free in the pool is what that one has which has most.
    """
    parts: dict[str, list[PortStatus]] = {}
    for other in sharing:
        parts.setdefault(other.filesystem, []).append(other)
    free = {part: _free_bytes(ports) for part, ports in parts.items()}
    most = max((count for count in free.values() if count is not None), default=None)
    own = _length_s(free[status.filesystem], freeable_bytes, parts[status.filesystem])
    pool = _length_s(most, freeable_bytes, sharing)
    return min((length_s for length_s in (own, pool) if length_s is not None), default=None)


def _free_bytes(ports: Iterable[PortStatus]) -> int | None:
    """What is free by the least that a port of a filesystem saw; None where none has looked."""
    return min((port.disk_free_bytes for port in ports if port.disk_free_bytes is not None), default=None)


def _length_s(free_bytes: int | None, freeable_bytes: int, ports: Iterable[PortStatus]) -> float | None:
    bytes_per_s = sum(port.bitrate_mbps for port in ports) * 1e6 / 8
    if free_bytes is None or bytes_per_s <= 0:
        return None
    return round((free_bytes + freeable_bytes) / bytes_per_s, 1)


def space_warning(status: PortStatus, sharing: Sequence[PortStatus], limit_h: float) -> str:
    """That a port's disk is full within so many hours, the same words for all who share it; "" where it is not."""
    left_s, without_s = status.disk_remaining_with_retention_seconds, status.disk_remaining_seconds
    if left_s is None or without_s is None or left_s >= limit_h * HOUR_S:
        return ""
    places = ", ".join(dict.fromkeys(other.recordings for other in sharing))
    free_gb = (status.disk_free_bytes or 0) / 1e9
    mbps = sum(other.bitrate_mbps for other in sharing)
    deleted = f", or {time_text(left_s)} with what retention may delete" if left_s > without_s else ""
    return (
        f"{places}: full in {time_text(without_s)}{deleted} ({free_gb:.1f} GB are free, and {_listed(sharing)} "
        f"{mbps:.1f} Mbit/s); make room"
    )


def _listed(sharing: Sequence[PortStatus]) -> str:
    """`port 3 records`, `ports 0-2, 5 record`."""
    ranges: list[list[int]] = []
    for index in sorted(status.port_index for status in sharing):
        if ranges and ranges[-1][-1] == index - 1:
            ranges[-1].append(index)
        else:
            ranges.append([index])
    words = ", ".join(f"{found[0]}-{found[-1]}" if len(found) > 1 else f"{found[0]}" for found in ranges)
    return f"port {words} records" if len(sharing) == 1 else f"ports {words} record"


def time_text(seconds: float) -> str:
    """`12 minutes`, `5.2 hours`, `3.1 days`."""
    if seconds < HOUR_S:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / HOUR_S:.1f} hours" if seconds < 48 * HOUR_S else f"{seconds / HOUR_S / 24:.1f} days"
