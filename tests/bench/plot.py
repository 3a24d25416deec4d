"""The plot of the results, as an SVG that is readable on light and on dark pages. Pure."""

from __future__ import annotations

from html import escape

from bench.table import ROWS, TIMES, TITLES, Results, Row, number

ABOUT = "Time to the first frame on disk, in multiples of FFmpeg by hand"
PLOTTED = ("start", "kill", "start8")
WIDTH, LABEL, VALUE = 760, 130, 150
BAR, STEP, HEAD, GAP = 14, 22, 28, 18
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.bar { fill: #8c959f; }
.bare { fill: #d0d7de; }
.sdisup { fill: #0969da; }
.spread { stroke: #1f2328; stroke-width: 1; }
.floor { stroke: #8c959f; stroke-dasharray: 3 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .bar { fill: #6e7681; }
  .bare { fill: #3d444d; }
  .sdisup { fill: #4493f8; }
  .spread { stroke: #e6edf3; }
  .floor { stroke: #6e7681; }
}
"""


def plot(results: Results) -> str:
    """Bars of the plotted rows, each in multiples of FFmpeg by hand, with the spread as a line."""
    parts: list[str] = []
    top = 0
    for row in ROWS:
        if row.key in PLOTTED and results.stats(row.key, "hand") is not None:
            height = panel(results, row, top, parts)
            top += height + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {max(top, 1)}" role="img" '
        f'aria-label="{ABOUT}">\n<title>{ABOUT}</title>\n<style>\n{STYLE}</style>\n' + "".join(parts) + "</svg>\n"
    )


def panel(results: Results, row: Row, top: int, parts: list[str]) -> int:
    """Append a row's bars, drawn from `top` on; returns their height."""
    by_hand = results.stats(row.key, "hand")
    assert by_hand is not None
    found = [(peer, stats) for peer in results.peers if (stats := results.stats(row.key, peer)) is not None]
    per_second = (WIDTH - LABEL - VALUE) / max(stats.high for _, stats in found)
    parts.append(text(0, top + 15, row.title, "title"))
    for line, (peer, stats) in enumerate(found):
        y = top + HEAD + line * STEP
        kind = f"bar {peer}" if peer in ("bare", "sdisup") else "bar"
        low, end, high = (LABEL + per_second * value for value in (stats.low, stats.median, stats.high))
        middle = y + BAR / 2
        parts.append(text(0, y + 12, TITLES[peer]))
        parts.append(f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{end - LABEL:.1f}" height="{BAR}"/>\n')
        parts.append(f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:g}" y2="{middle:g}"/>\n')
        shown = f"{stats.median / by_hand.median:.2f} {TIMES} ({number(stats.median, row.unit)} {row.unit})"
        parts.append(text(max(end, high) + 8, y + 12, shown))
    height = HEAD + len(found) * STEP
    at = LABEL + per_second * by_hand.median
    parts.append(f'<line class="floor" x1="{at:.1f}" x2="{at:.1f}" y1="{top + HEAD - 6}" y2="{top + height}"/>\n')
    return height


def text(x: float, y: float, words: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:g}"{attribute}>{escape(words)}</text>\n'
