"""
What the templates of cq's own pages need: times, numbers and small drawings.

Drawings are SVG with attributes, since a style attribute would need a looser policy than
`default-src 'self'`. A moment is a <time> element whose words the page itself keeps fresh.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from cq.definition.status import Status
from cq.web.pages.words import capped, number, relative, span

register = template.Library()
register.filter("span", span)
register.filter("number", number)
register.filter("capped", capped)

_WIDE, _HIGH = 120, 28


@register.simple_tag(takes_context=True)
def moment(context: Any, value: datetime | None, kind: str = "ago") -> SafeString | str:
    """A moment as `<time>`: kind "ago", "in" or "age"; the exact time is its title."""
    if value is None:
        return "–"
    local = timezone.localtime(value)
    place = context.get("place")
    words = "" if place is not None and place.is_live else relative(value, kind)
    return format_html(
        '<time datetime="{}" title="{}" data-cq-{}>{}</time>',
        value.isoformat(timespec="seconds"),
        local.strftime("%Y-%m-%d %H:%M:%S %Z"),
        kind,
        words,
    )


@register.simple_tag
def state(status: Status) -> SafeString:
    """A status as icon and word, in its colour."""
    return format_html(
        '<span class="cq-state cq-{}"><span aria-hidden="true">{}</span> {}</span>',
        status.name.lower(),
        status.sign,
        status.label,
    )


@register.simple_tag
def spark(values: Sequence[float | None], label: str) -> SafeString:
    """A sparkline over the last hour; gaps where nothing is known."""
    known = [value for value in values if value is not None]
    if not known:
        return mark_safe('<svg class="cq-spark" viewBox="0 0 120 28" aria-hidden="true"></svg>')
    top = max([*known, 1e-9])
    step = _WIDE / max(len(values) - 1, 1)
    height = _HIGH - 3
    lines, areas = [], []
    for is_known, stretch in groupby(enumerate(values), lambda pair: pair[1] is not None):
        if not is_known:
            continue
        xy = [(i * step, _HIGH - 1.5 - height * (value or 0) / top) for i, value in stretch]
        # Of a single minute the line would have no length, and nothing would be drawn.
        line = " L".join(f"{x:.1f},{y:.1f}" for x, y in (xy if len(xy) > 1 else xy * 2))
        lines.append(f"M{line}")
        areas.append(f"M{xy[0][0]:.1f},{_HIGH} L{line} L{xy[-1][0]:.1f},{_HIGH} Z")
    return format_html(
        '<svg class="cq-spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}: at most {} in the last hour">'
        '<path class="cq-spark-area" d="{}"/><path d="{}"/></svg>',
        *(_WIDE, _HIGH, label, number(top), " ".join(areas), " ".join(lines)),
    )


@register.simple_tag
def bars(columns: Sequence[Any]) -> SafeString:
    """Stacked columns of what ended well and badly in stretches of time."""
    top = max([column.done for column in columns] + [1])
    width = 600 / max(len(columns), 1)
    parts = []
    for i, column in enumerate(columns):
        good, bad = column.done - column.failed, column.failed
        for kind, size, below in (("ok", good, bad), ("fail", bad, 0)):
            if size:
                high = max(118 * size / top, 1.5)
                parts.append(
                    (
                        *(kind, f"{i * width:.2f}", f"{120 - 118 * below / top - high:.2f}"),
                        *(f"{max(width - 1, 0.6):.2f}", f"{high:.2f}", column.label),
                        *(number(column.done), number(column.failed)),
                    )
                )
    return format_html(
        '<svg class="cq-bars" viewBox="0 0 600 120" preserveAspectRatio="none" '
        'aria-hidden="true">{}</svg>',
        format_html_join(
            "",
            '<rect class="cq-bar-{}" x="{}" y="{}" width="{}" height="{}">'
            "<title>{}: {} ended, {} of them badly</title></rect>",
            parts,
        ),
    )


@register.simple_tag
def meter(part: float, whole: float, label: str) -> SafeString:
    """A thin bar of a part in a whole."""
    share = min(max(part / whole, 0), 1) * 100 if whole else 0
    return format_html(
        '<svg class="cq-meter" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" '
        'aria-label="{}: {} %"><rect class="cq-meter-track" width="100" height="4"/>'
        '<rect class="cq-meter-fill" width="{}" height="4"/></svg>',
        label,
        f"{share:.0f}",
        f"{share:.1f}",
    )
