"""Locked ports (`lock = true`): who stops one says so, and is root.

The commands and the Python interface refuse. Whom a rule of polkit lets stop ports by systemctl is kept from it by a
rule of ours, which is asked first: polkit asks in the order of the files' names (polkit(8)). systemd does not ask for
root.
"""

from __future__ import annotations

import os

from sdisup.contract.applied import WRITTEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sdisup.config.settings import Port
    from sdisup.contract.applied import AppliedPort

RULES_DIRECTORY = "/etc/polkit-1/rules.d"
RULES_NAME = "00-sdisup-lock.rules"
RULES = """\
// {written}
// Whoever may start, stop and restart ports may only start those with lock = true. Root needs no rule.
polkit.addRule(function(action, subject) {{
    if (action.id == "org.freedesktop.systemd1.manage-units" && action.lookup("verb") != "start" &&
        {units}.indexOf(action.lookup("unit")) >= 0)
        return polkit.Result.AUTH_ADMIN;
}});
"""


def rules(ports: Iterable[Port | AppliedPort], directory: str = RULES_DIRECTORY) -> Mapping[str, str]:
    """polkit's rules for locked ports, by path; nothing where no port is locked, or there is no polkit."""
    units = ", ".join(f'"sdi-record@{port.index}.service"' for port in ports if port.lock)
    if not units or not os.path.isdir(directory):
        return {}
    return {f"{directory}/{RULES_NAME}": RULES.format(written=WRITTEN, units=f"[{units}]")}


def is_hidden(path: str) -> bool:
    """Whether this user may not look for a file, as none but root and polkit may look for polkit's rules."""
    directory = os.path.dirname(path)
    return os.path.isdir(directory) and not os.access(directory, os.X_OK)
