"""`sdisup enable` and `sdisup disable`: whether ports record at boot, in the configuration and in systemd's links.

Both or neither, for each port: where one cannot be changed, the other is put back. The links are put back by hand,
since the bus may be what has gone away.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sdisup.config.edit import Written
from sdisup.config.edit import set_record_at_boot as write_record_at_boot
from sdisup.config.settings import Settings
from sdisup.contract.applied import APPLIED_PATH, AppliedPort, load_applied, save_applied
from sdisup.contract.files import CONFIGURATION_PATH
from sdisup.contract.records import Record
from sdisup.control.apply import WANTS_DIRECTORY, turn
from sdisup.control.observe import statuses
from sdisup.control.systemd import Systemd
from sdisup.errors import SdisupError, root_hint


class Change(Record):
    """The ports that were changed, those of them that should record now and do not, and what became of the others.

    `remarks` say what the operator should know besides.
    """

    done: tuple[AppliedPort, ...]
    due: tuple[AppliedPort, ...]
    errors: tuple[SdisupError, ...]
    remarks: tuple[str, ...]


def set_record_at_boot(ports: Sequence[AppliedPort], value: bool) -> Change:
    """Let `ports` record at boot, or no longer, and put no other change of the configuration into effect.

    Raises SdisupError where that is possible for no port; then nothing has changed.
    """
    if not ports:
        return Change((), (), (), ())
    # What is there must be valid, and know these ports, before anything is added to it.
    former = Settings.load(CONFIGURATION_PATH)
    gone = [port.label for port in ports if port.index not in former.ports]
    if gone:
        raise SdisupError(f"{', '.join(gone)}: no longer configured", "sdisup apply makes systemd follow the file")
    with Systemd() as systemd:
        links = _links(ports)
        settings, written = _configure(ports, value, former.port_count)
        try:
            units = [port.unit for port in ports]
            errors = turn(systemd, units if value else (), () if value else units)
            done = [port for port in ports if port.unit not in errors]
            if errors:
                written.undo()
            if not done:
                raise next(iter(errors.values()))
            if errors:
                settings, written = _configure(done, value, former.port_count)
            systemd.reload()
            changed = _save(done, value, settings)
        except BaseException:
            written.undo()
            _put_back(links)
            raise
        found = statuses(changed, systemd)
    stopped = [port for port, s in zip(changed, found, strict=True) if s.should_record and s.state == "stopped"]
    # What a power cut ended goes on by hand.
    due = [port for port in stopped if port.record_at_boot]
    remarks = [f"removed port {key} from {written.path}: there is no such port any more" for key in written.dropped]
    remarks += [text for port in changed for text in port.overridden if "record_at_boot:" in text]
    return Change(tuple(changed), tuple(due), tuple(errors.values()), tuple(remarks))


def _configure(ports: Sequence[AppliedPort], value: bool, port_count: int) -> tuple[Settings, Written]:
    """Write the setting; returns what holds then. Raises SdisupError where the setting would not hold."""
    written = write_record_at_boot(CONFIGURATION_PATH, [port.index for port in ports], value, port_count)
    try:
        settings = Settings.load(CONFIGURATION_PATH)
        for port in ports:
            if settings.ports[port.index].record_at_boot is not value:
                hint = "a file that is read later in sdisup.toml.d says otherwise"
                raise SdisupError(f"{port.label}: record_at_boot in {written.path} does not hold", hint)
    except SdisupError:
        written.undo()
        raise
    return settings, written


def _links(ports: Sequence[AppliedPort]) -> dict[str, str]:
    """By the path where systemd has the link of a port that records at boot: what it leads to, empty without one."""
    paths = [f"{WANTS_DIRECTORY}/{port.unit}" for port in ports]
    return {path: os.readlink(path) if os.path.islink(path) else "" for path in paths}


def _put_back(links: Mapping[str, str]) -> None:
    for path, target in links.items():
        now = os.readlink(path) if os.path.islink(path) else ""
        if now and now != target:
            os.unlink(path)
        if target and now != target:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target, path)


def _save(ports: Sequence[AppliedPort], value: bool, settings: Settings) -> list[AppliedPort]:
    """Note it in what was applied; returns these ports as they are noted."""
    applied = load_applied()
    changed = {
        port.index: applied.ports[port.index].replaced(
            record_at_boot=value, overridden=settings.overridden_of(port.index)
        )
        for port in ports
    }
    applied.ports.update(changed)
    try:
        save_applied(applied)
    except OSError as error:
        raise SdisupError(f"{APPLIED_PATH}: {error.strerror}", root_hint(error)) from error
    return list(changed.values())
