"""From samples to the table: medians, spreads, ratios, and whether what is to be reached is reached. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

TITLES = {
    "hand": "FFmpeg by hand",
    "unit": "plain unit",
    "supervisor": "supervisord",
    "circus": "circus",
    "pm2": "pm2",
    "bare": "bare",
    "sdisup": "sdisup",
}
CPU_S = 20.0
STALL_TIMEOUT_S = 5.0
"""The default of stall_timeout_s for a test picture (docs/configuration.md)."""
TIMES, DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"


class Stats(NamedTuple):
    """The median of some samples, and the smallest and the largest of them."""

    median: float
    low: float
    high: float
    size: int


def summarize(values: Sequence[float]) -> Stats:
    return Stats(statistics.median(values), min(values), max(values), len(values))


class Results:
    """The samples of a run by row and peer: numbers, and what is no number."""

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        numbers: dict[tuple[str, str], list[float]] = {}
        self.texts: dict[tuple[str, str], str] = {}
        self.facts: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.failed: list[str] = []
        for line in lines:
            if "row" in line:
                at = (line["row"], line["peer"])
                if line["value"] is not None:
                    numbers.setdefault(at, []).append(line["value"])
                if line["text"]:
                    self.texts[at] = line["text"]
            elif "failed" in line:
                self.failed.append(f"{line['peer']}: {line['failed']}")
            elif "missing" in line:
                self.missing[line["peer"]] = line["missing"]
            elif "facts" in line:
                self.facts.update(line["facts"])
            elif "versions" in line:
                self.versions.update(line["versions"])
        self._stats = {at: summarize(values) for at, values in numbers.items()}
        pooled = [value for (row, _), values in numbers.items() if row == "python" for value in values]
        self.python = summarize(pooled) if pooled else None
        """A Python that does nothing, measured beside each status command."""
        found = {peer for _, peer in [*self._stats, *self.texts]}
        self.peers = [peer for peer in TITLES if peer in found]

    def stats(self, row: str, peer: str) -> Stats | None:
        return self._stats.get((row, peer))

    def has(self, row: str) -> bool:
        return any(at[0] == row for at in [*self._stats, *self.texts])


class Verdict(NamedTuple):
    """What was measured, in the terms of what is to be reached, and whether it is reached."""

    found: str
    is_reached: bool


Rule = Callable[[Results, str], "Verdict | None"]


def at_most_of(peer: str, ratio: float) -> Rule:
    """At most so many times what another peer takes in the same run."""

    def judge(results: Results, row: str) -> Verdict | None:
        ours, theirs = results.stats(row, "sdisup"), results.stats(row, peer)
        if ours is None or theirs is None:
            return None
        found = ours.median / theirs.median
        return Verdict(f"{found:.3f} {TIMES} {TITLES[peer]}", found <= ratio)

    return judge


def at_most(limit: float, unit: str) -> Rule:
    def judge(results: Results, row: str) -> Verdict | None:
        ours = results.stats(row, "sdisup")
        return None if ours is None else Verdict(f"{ours.median:.2f} {unit}", ours.median <= limit)

    return judge


def at_most_beyond(peer: str, limit_s: float) -> Rule:
    """At most so much longer than what another peer takes in the same run."""

    def judge(results: Results, row: str) -> Verdict | None:
        ours, theirs = results.stats(row, "sdisup"), results.stats(row, peer)
        if ours is None or theirs is None:
            return None
        found = ours.median - theirs.median
        return Verdict(f"{1000 * found:+.0f} ms beside {TITLES[peer]}", found <= limit_s)

    return judge


def at_most_pythons(ratio: float) -> Rule:
    def judge(results: Results, row: str) -> Verdict | None:
        ours = results.stats(row, "sdisup")
        if ours is None or results.python is None:
            return None
        found = ours.median / results.python.median
        return Verdict(f"{found:.2f} {TIMES} a bare Python ({1000 * results.python.median:.0f} ms)", found <= ratio)

    return judge


class Row(NamedTuple):
    """A row of the table. `unit` is `ms`, `s` or `MiB`; samples are in s or MiB.

    `goal` is what issue 11 asks for, which measured on another machine: as a ratio where it was a difference.
    """

    key: str
    title: str
    unit: str
    has_ratio: bool
    goal: str
    judge: Rule | None


# A difference in the issue is a ratio here: 15 ms beside the 359 and 367 ms that bare took there, and 60 beside 1.0 s.
ROWS = (
    Row("start", "start → first frame on disk", "ms", True, "bare + 15 ms: ≤ 1.042 of bare", at_most_of("bare", 1.042)),
    Row("named", "start → that file has a name", "ms", True, "", None),
    Row("start4", "four started → the last one's first frame", "ms", True, "", None),
    Row(
        "start8",
        "eight started → the last one's first frame",
        "ms",
        True,
        "bare + 60 ms: ≤ 1.06 of bare",
        at_most_of("bare", 1.06),
    ),
    Row(
        "gang4",
        "four started → between their first frames",
        "ms",
        False,
        "≤ 150 ms beyond FFmpeg's own",
        at_most_beyond("hand", 0.15),
    ),
    Row("gang8", "eight started → between their first frames", "ms", False, "", None),
    Row("kill", "kill -9 → next frame on disk", "ms", True, "bare + 15 ms: ≤ 1.041 of bare", at_most_of("bare", 1.041)),
    Row("frozen", "FFmpeg frozen → recording", "s", False, "≤ stall_timeout_s + 2", at_most(STALL_TIMEOUT_S + 2, "s")),
    Row("stop", "stop → FFmpeg gone", "ms", True, "keep: ≤ 1.25 of the plain unit", at_most_of("unit", 1.25)),
    Row("cpu", f"CPU of supervision, 8 ports, in {CPU_S:.0f} s", "s", False, "≤ 0.15 s", at_most(0.15, "s")),
    Row("rest", "… of PID 1, journald, D-Bus meanwhile", "s", False, "", None),
    Row("memory", "memory of supervision, 8 ports, PSS", "MiB", False, "≤ 40 MiB", at_most(40, "MiB")),
    Row("status", "status, two of ten ports stopped", "ms", False, "≤ 2.5 of a bare Python", at_most_pythons(2.5)),
    Row("crash", "crash loop, first 10 s, CPU of all", "s", False, "≤ 0.7 s", at_most(0.7, "s")),
    Row("survival", "the supervisor killed by kill -9", "s", False, "", None),
)
ROW_KEYS = tuple(row.key for row in ROWS)


def number(value: float, unit: str) -> str:
    """A value in its unit, without it: whole milliseconds, and two figures of seconds at least."""
    if unit == "ms":
        return f"{1000 * value:.0f}"
    if unit == "s":
        return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
    return f"{value:.1f}"


def cell(results: Results, row: Row, peer: str) -> str:
    """A field of the table: the median, the spread, and the ratio to FFmpeg by hand."""
    text = results.texts.get((row.key, peer))
    if text:
        return text
    found = results.stats(row.key, peer)
    if found is None:
        return DASH
    shown = f"{number(found.median, row.unit)} {row.unit}"
    if found.size > 1:
        shown += f" ({number(found.low, row.unit)}{DASH}{number(found.high, row.unit)})"
    by_hand = results.stats(row.key, "hand")
    if row.has_ratio and by_hand is not None and peer != "hand":
        shown += f", {found.median / by_hand.median:.2f} {TIMES}"
    return shown


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; the first row is the head."""
    head, *body = [[field.replace("|", "\\|") for field in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main_table(results: Results) -> str:
    rows = [["", *(TITLES[peer] for peer in results.peers)]]
    rows += [[row.title, *(cell(results, row, peer) for peer in results.peers)] for row in ROWS if results.has(row.key)]
    return markdown(rows)


def verdicts(results: Results) -> list[tuple[Row, Verdict]]:
    """Each row that has a goal and was measured."""
    judged = [(row, row.judge(results, row.key)) for row in ROWS if row.judge is not None]
    return [(row, verdict) for row, verdict in judged if verdict is not None]


def goals_table(results: Results) -> str:
    rows = [["", "to reach", "sdisup", ""]]
    rows += [
        [row.title, row.goal, verdict.found, "reached" if verdict.is_reached else "**not reached**"]
        for row, verdict in verdicts(results)
    ]
    return markdown(rows)


def knowledge_table(results: Results) -> str:
    """What each status says while FFmpeg is frozen."""
    rows = [["", "its status, 3.5 s after its FFmpeg froze"]]
    rows += [
        [TITLES[peer], f"`{results.texts['knows', peer]}`"]
        for peer in results.peers
        if ("knows", peer) in results.texts
    ]
    return markdown(rows)
