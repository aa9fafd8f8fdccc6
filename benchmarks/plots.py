"""
The plots of docs/performance.md: SVG bars and lines, from numbers, with nothing to install.

Colours follow the reader's light or dark scheme; each mark has its value as a text, so that the
plot can be read without colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.tables import number

WIDTH = 720
BAR, GAP, TOP, LABELS, VALUES = 20, 8, 44, 190, 90
LINE_HEIGHT, LEFT, RIGHT, BOTTOM = 260, 70, 24, 48
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .quiet { fill: #57606a } .rule { stroke: #d0d7de }
.ours { fill: #0a7d4f } .kept { fill: #6e9bd6 } .other { fill: #b8c0cc }
.line { fill: none; stroke: #0a7d4f; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 } .rule { stroke: #3d444d }
  .ours { fill: #2fb57c } .kept { fill: #4a78b5 } .other { fill: #59626e }
  .line { stroke: #2fb57c }
}
</style>"""


def bars(title: str, values: Mapping[str, float], classes: Mapping[str, str]) -> str:
    """Horizontal bars in the given order, on a linear scale from zero."""
    most = max(values.values(), default=0.0) or 1.0
    room = WIDTH - LABELS - VALUES
    parts = [_text(0, 18, title, "title")]
    for place, (name, value) in enumerate(values.items()):
        top = TOP + place * (BAR + GAP)
        length = max(1.0, room * value / most)
        parts.append(_text(LABELS - 10, top + 15, name, "", "end"))
        parts.append(
            f'<rect class="{classes.get(name, "other")}" x="{LABELS}" y="{top}" '
            f'width="{length:.1f}" height="{BAR}" rx="2"/>'
        )
        parts.append(_text(LABELS + length + 6, top + 15, number(value), "quiet"))
    return _svg(title, TOP + len(values) * (BAR + GAP), parts)


def line(title: str, points: Sequence[tuple[float, float]], across: str) -> str:
    """One line over a logarithmic axis, from zero upwards."""
    points = sorted(points)
    bottom = LINE_HEIGHT - BOTTOM
    most = max((value for _, value in points), default=0.0) or 1.0
    low, high = (math.log10(max(x, 1)) for x in (points[0][0], points[-1][0]))
    span = (high - low) or 1.0

    def place(x: float, value: float) -> tuple[float, float]:
        share = (math.log10(max(x, 1)) - low) / span
        return (
            LEFT + share * (WIDTH - LEFT - RIGHT - 40),
            bottom - value / most * (bottom - TOP),
        )

    spots = [(*place(x, value), x, value) for x, value in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in spots)
    parts = [
        _text(0, 18, title, "title"),
        f'<line class="rule" x1="{LEFT - 20}" x2="{WIDTH}" y1="{bottom}" y2="{bottom}"/>',
        f'<polyline class="line" points="{path}"/>',
    ]
    for x, y, size, value in spots:
        parts.append(f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(_text(x, y - 10, number(value), "", "middle"))
        parts.append(_text(x, bottom + 18, f"{size:,.0f}", "quiet", "middle"))
    parts.append(_text(WIDTH / 2, bottom + 40, across, "quiet", "middle"))
    return _svg(title, LINE_HEIGHT, parts)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'role="img" aria-label="{escape(title)}">\n{STYLE}\n{body}\n</svg>\n'
    )
