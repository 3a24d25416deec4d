"""The page of the results: what the bench writes stands between two markers, the rest is written by hand. Pure."""

from __future__ import annotations

from bench.plot import ABOUT, PLOTTED
from bench.table import TITLES, Results, goals_table, knowledge_table, main_table, verdicts

BEGIN, END = "<!-- written by tests/bench/run: begin -->", "<!-- written by tests/bench/run: end -->"
GROWTH_BEGIN, GROWTH_END = (
    "<!-- written by tests/bench/growth: begin -->",
    "<!-- written by tests/bench/growth: end -->",
)

NAMES = {"hand": "FFmpeg", "bare": "Python"}
"""Of what a peer's version is, where the peer is no program."""


def replace_between(text: str, new: str, first: str = BEGIN, last: str = END) -> str:
    """The page with `new` between its markers. Raises ValueError if it has not one pair of them."""
    head, begin, rest = text.partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end or first in rest or last in tail:
        raise ValueError(f"the page needs these two lines once, in this order:\n{first}\n{last}")
    return f"{head}{first}\n\n{new.strip()}\n\n{last}{tail}"


def report(results: Results) -> str:
    """All that the bench has to say, as Markdown."""
    parts = [main_table(results)]
    if any(results.stats(row, "hand") for row in PLOTTED):
        parts.append(f"![{ABOUT}](performance.svg)")
    if verdicts(results):
        parts.append(goals_table(results))
    if results.has("knows"):
        parts.append(knowledge_table(results))
    parts += [f"{TITLES[peer]} is left out: {why}." for peer, why in results.missing.items()]
    parts += [f"Not measured: {what}" for what in results.failed]
    versions = ", ".join(f"{NAMES.get(key, key)} {version}" for key, version in results.versions.items())
    parts.append("\n".join(f"- {name}: {fact}" for name, fact in {**results.facts, "versions": versions}.items()))
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)
