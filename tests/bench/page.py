"""The page of the results: what the bench writes stands between two markers, the rest is written by hand. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bench.table import TITLES, Results, goals_table, knowledge_table, main_table

BEGIN, END = "<!-- written by tests/bench/run: begin -->", "<!-- written by tests/bench/run: end -->"


def replace_between(text: str, new: str) -> str:
    """The page with `new` between its markers. Raises ValueError if it has not one pair of them."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail:
        raise ValueError(f"the page needs these two lines once, in this order:\n{BEGIN}\n{END}")
    return f"{head}{BEGIN}\n\n{new.strip()}\n\n{END}{tail}"


def report(results: Results, facts: Mapping[str, str]) -> str:
    """All that the bench has to say, as Markdown."""
    parts = [main_table(results), goals_table(results)]
    if results.has("knows"):
        parts.append(knowledge_table(results))
    parts += [f"{TITLES[peer]} is left out: {why}." for peer, why in results.missing.items()]
    parts += [f"Not measured: {what}" for what in results.failed]
    versions = ", ".join(f"{TITLES.get(key, key)} {version}" for key, version in results.versions.items())
    parts.append("\n".join(f"- {name}: {fact}" for name, fact in {**facts, "versions": versions}.items()))
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)
