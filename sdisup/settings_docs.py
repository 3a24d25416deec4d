"""The settings table as text: the reference for people, and the file that they start from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from sdisup.settings_table import APPLIANCE, DEFAULT_SOURCE_KIND, PORT, SOURCE_KINDS, Setting, rows


def settings_markdown() -> str:
    """The reference of all settings, in Markdown."""
    parts = ["## `[appliance]`", "", *_table(rows(APPLIANCE).values()), ""]
    parts += ["## `[defaults]` and `[port.N]`", ""]
    parts += ["`[defaults]` holds for every port (all keys but `name`), `[port.N]` for port N alone.", ""]
    parts += [*_table(rows(PORT).values()), ""]
    for kind, doc in SOURCE_KINDS.items():
        default = " The default kind." if kind == DEFAULT_SOURCE_KIND else ""
        parts += [f'## `source = {{ kind = "{kind}" }}`', "", f"{_capital(doc)}.{default}", ""]
        parts += [*_table(rows(kind).values()), ""]
    return "\n".join(parts)


def starter_toml() -> str:
    """A commented configuration with every key at its default; all but the sections are comments."""
    lines = ["# sdisup's configuration: `sdisup check` checks it, `sdisup apply` puts it into effect.", ""]
    lines += ["[appliance]", *_commented(rows(APPLIANCE).values()), ""]
    lines += ["# What holds for every port; a [port.N] overrides it.", "[defaults]"]
    for kind, doc in SOURCE_KINDS.items():
        lines += [f"# {_capital(doc)}:", f'# source = {{ kind = "{kind}" }}']
        lines += [line for setting in rows(kind).values() for line in _summary(setting)]
    lines += ["", *_commented(setting for setting in rows(PORT).values() if setting.key != "name"), ""]
    lines += ["# One port's own settings: any of the above, and its name.", "# [port.0]", '# name = "CAM1"']
    return "\n".join(lines) + "\n"


def _table(settings: Iterable[Setting]) -> list[str]:
    lines = ["| key | default | values | |", "|---|---|---|---|"]
    for setting in settings:
        default = f"`{_toml(setting.default)}`" if setting.default is not None else setting.default_doc
        lines.append(f"| `{setting.key}` | {default} | {_values(setting)} | {setting.doc} |")
    return lines


def _commented(settings: Iterable[Setting]) -> list[str]:
    lines: list[str] = []
    for setting in settings:
        text = f"{setting.doc} ({_values(setting)})"
        lines += ["", *textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")]
        if setting.default is not None:
            lines.append(f"# {setting.key} = {_toml(setting.default)}")
        else:
            lines.append(f"# {setting.key}: by default {setting.default_doc}")
    return lines[1:]


def _summary(setting: Setting) -> list[str]:
    default = _toml(setting.default) if setting.default is not None else setting.default_doc
    text = f"{setting.key}: {setting.doc} ({_values(setting)}; by default {default})"
    return textwrap.wrap(text, 100, initial_indent="#   ", subsequent_indent="#     ")


def _values(setting: Setting) -> str:
    if setting.allowed:
        return ", ".join(str(value) for value in setting.allowed)
    if setting.type in ("integer", "number"):
        kind = "a number" if setting.type == "number" else "a whole number"
        unit = f" {setting.unit}" if setting.unit else ""
        return f"{kind}, {setting.minimum:g} to {setting.maximum:g}{unit}"
    return {
        "boolean": "true or false",
        "path": "an absolute path",
        "name": "a letter, then up to 31 letters, digits, `_`, `.` or `-`",
        "size": "WIDTHxHEIGHT",
    }[setting.type]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
