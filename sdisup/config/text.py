"""The settings table as text: the reference in docs, and the starter file of `sdisup init`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from sdisup.config.table import APPLIANCE, DEFAULT_SOURCE_KIND, OFFLOAD, PORT, RETENTION, SOURCE_KINDS, rows
from sdisup.contract.names import COUNTER, FIELDS, SAMPLES, SEGMENT, UNTITLED
from sdisup.sources.values import REQUIRED, Setting

TITLE = """# Configuration

Made from sdisup/config/table.py by `python3 -m sdisup.config.text > docs/configuration.md`.

`/etc/sdisup/sdisup.toml` is read first, then the `*.toml` in `/etc/sdisup/sdisup.toml.d` in the order of their
names; a later file wins key by key. `sdisup check` checks it all, `sdisup apply` puts it into effect, and
`sdisup init` writes a file to start from.
"""


FILE_NAMES = """### `file_name`

```toml
file_name = "{utc_date}/{name}_{utc}"       # /srv/recordings/2026-01-31/CAM3_20260131T120000Z.mp4
file_name = "{name}/{take}_{counter}"       # /srv/recordings/CAM3/final-1_0001.mp4
```

A template is relative to the port's `recordings`; the ending is that of the container. What stands before a `/` is a
folder, which is made with the first frame of a file in it. No file is ever overwritten: where a name is in use, the
next file gets `_2`, `_3` and so on at its end, unless the template says with `{counter}` where the number is. Where two
ports could give their files one name, that is an error: `{name}_{utc}` tells them apart, and `{name}{port}` does not
(port 1 called `A1`, port 11 called `A`). A take that asks for a path or a name of its own is named `{name}_{utc}`.

What Windows shares and some disks refuse becomes `_`: any of `< > : " \\ | ? *`, all but ASCII, a dot or a space at the
end of a folder's name; and a name that Windows keeps for a device, such as `AUX`, becomes `AUX_`.
"""


RETENTION_TEXT = """Which finished recordings go, the oldest first: [retention.md](retention.md). What is set here
holds for the files of all ports together. A port with a value of its own is left out of the same rule here, and 0 keeps
its files from it: `retention = { max_age = "90d" }` in its `[port.N]`, or in `[defaults]` for each port alone.
"""


def settings_markdown() -> str:
    """The reference of all settings, in Markdown."""
    parts = [TITLE, "## `[appliance]`", "", *_table(rows(APPLIANCE).values()), ""]
    parts += ["## `[defaults]` and `[port.N]`", ""]
    parts += ["`[defaults]` holds for every port (all keys but `name`), `[port.N]` for port N alone.", ""]
    parts += ['`audio = { codec = "aac" }` and `audio.codec = "aac"` are the same to TOML.', ""]
    parts += [*_table(rows(PORT).values()), ""]
    parts += [FILE_NAMES, "| field | such as |", "|---|---|", *_fields(), ""]
    for kind, source in SOURCE_KINDS.items():
        default = " The default kind." if kind == DEFAULT_SOURCE_KIND else ""
        parts += [f'## `source = {{ kind = "{kind}" }}`', "", f"{_capital(source.doc)}.{default}", ""]
        parts += ["```toml", source.example, "```", "", *_table(rows(kind).values()), ""]
    parts += ["## `[retention]`", "", RETENTION_TEXT, *_table(rows(RETENTION).values()), ""]
    parts += ["## `[offload.NAME]`", "", "Where finished files are copied to: [offload.md](offload.md).", ""]
    parts += [*_table(rows(OFFLOAD).values()), ""]
    return "\n".join(parts)


def starter_toml(active: Mapping[str, object] | None = None, ports: Sequence[str] = ()) -> str:
    """A configuration with every key at its default, in which all but the section headers is a comment.

    `active` are keys of [appliance] that are set, `ports` the lines of [port.N] tables at the end.
    """
    lines = ["# sdisup's configuration: `sdisup check` checks it, `sdisup apply` puts it into effect.", ""]
    lines += ["[appliance]", *_commented(rows(APPLIANCE).values(), active or {}), ""]
    bare = f'# source = {{ kind = "{DEFAULT_SOURCE_KIND}" }}'
    lines += ["# What holds for every port; a [port.N] overrides it.", "[defaults]"]
    for kind, source in SOURCE_KINDS.items():
        lines += [f"# {_capital(source.doc)}:", f"# {source.example}" if kind != DEFAULT_SOURCE_KIND else bare]
        lines += [line for setting in rows(kind).values() for line in _summary(setting)]
    lines += ["", *_commented(setting for setting in rows(PORT).values() if setting.key != "name"), ""]
    if ports:
        lines += ["# What was found on this machine; any of the above may stand here too.", *ports]
    else:
        lines += ["# One port's own settings: any of the above, and its name.", "# [port.0]", '# name = "CAM1"']
    lines += ["", "# Which finished recordings go, of all ports together (docs/retention.md); nothing by default:"]
    lines += ["# [retention]", '# max_age = "30d"', '# min_free = "200G"']
    lines += [line for setting in rows(RETENTION).values() for line in _summary(setting)]
    lines += ["", "# Where finished files are copied to (docs/offload.md):", "# [offload.nas]", '# target = "/mnt/nas"']
    lines += [line for setting in rows(OFFLOAD).values() for line in _summary(setting)]
    return "\n".join(lines) + "\n"


def _fields() -> list[str]:
    """The rows of the fields of `file_name`."""
    samples = {"port": "3", "name": "CAM3", "take": f"final-1; {UNTITLED} where it has no name", "codec": "h264"}
    count = "0001, then one more than the highest number in the folder; at most once, in the file's name"
    segment = "0001, then the number of the file in its recording, which begins anew with each start of FFmpeg"
    rest = {**samples, COUNTER: count, SEGMENT: segment, **SAMPLES}
    notes = {
        "utc": "; UTC when FFmpeg was started, or began the next file",
        "local": "; the machine's time zone, with its offset from UTC",
    }
    return [f"| `{{{field}}}` | {rest[field]}{notes.get(field, '')} |" for field in FIELDS]


def _table(settings: Iterable[Setting]) -> list[str]:
    lines = ["| key | default | values | |", "|---|---|---|---|"]
    for setting in settings:
        default = f"`{_toml(setting.default)}`" if setting.default is not None else setting.default_doc
        lines.append(f"| `{setting.key}` | {default} | {_values(setting)} | {setting.doc} |")
    return lines


def _commented(settings: Iterable[Setting], active: Mapping[str, object] = MappingProxyType({})) -> list[str]:
    lines: list[str] = []
    for setting in settings:
        text = f"{setting.doc} ({_values(setting)})"
        lines += ["", *textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")]
        if setting.key in active:
            lines.append(f"{setting.key} = {_toml(active[setting.key])}")
        elif setting.default is not None:
            lines.append(f"# {setting.key} = {_toml(setting.default)}")
        else:
            usual = f"{setting.key}: by default {setting.default_doc}"
            lines += textwrap.wrap(usual, 108, initial_indent="# ", subsequent_indent="#   ")
    return lines[1:]


def _summary(setting: Setting) -> list[str]:
    default = _toml(setting.default) if setting.default is not None else setting.default_doc
    usual = REQUIRED if setting.is_required else f"by default {default}"
    text = f"{setting.key}: {setting.doc} ({_values(setting)}; {usual})"
    return textwrap.wrap(text, 100, initial_indent="#   ", subsequent_indent="#     ")


def _values(setting: Setting) -> str:
    if setting.allowed:
        # As the configuration has to spell them: h264, not H264.
        return ", ".join(str(value) for value in setting.allowed) + (f" {setting.unit}" if setting.unit else "")
    return f"{setting.type.doc}, {setting.range}" if setting.maximum else setting.type.doc


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    sys.stdout.write(settings_markdown())
