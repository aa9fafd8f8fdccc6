"""
Rows of the page as markup: the tree, the table of the timeline, the log, data as a tree.

Made here rather than in a template, since there may be thousands. Everything a task has said
is escaped on its way in; lengths that come from data are attributes, never styles.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from django.utils import timezone
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from cq.definition.status import Status
from cq.progress.publisher import Line, Node
from cq.web.task_page.forest import Entry
from cq.web.task_page.mount import Mount
from cq.web.task_page.waiting import span

DEEPEST = 12
NOBODY = "00000000-0000-0000-0000-000000000000"
"""Stands for the id in the address of a page that is made for many."""

LARGEST_TREE = 20_000
"""Characters of JSON that are shown as a tree."""

MAX_JSON_DEPTH = 12
MAX_JSON_ITEMS = 200
ESCAPE = "\x1b"
ESCAPE_PICTURE = "\u241b"
"""Stands for an escape character in an attribute, where HTML has no room for the real one."""

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~])?")
_LIBRARY = re.compile(
    r"site-packages|[/\\]lib[/\\]python|<frozen|" + re.escape(str(Path(__file__).parents[2]))
)
"""Places of code that is not the project's own: this package is one of them."""

_LEVELS = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))


def short_name(name: str) -> str:
    """The name people know a function by: the last part of a dotted path."""
    return name.rpartition(".")[2] if re.fullmatch(r"[\w.]+", name) else name


def tree(found: Sequence[Entry], mount: Mount, now: datetime) -> SafeString:
    """The tree as list items."""
    page = mount.page(NOBODY)
    return mark_safe("".join(_tree_row(entry, page, now) for entry in found))


def _tree_row(entry: Entry, page: str, now: datetime) -> str:
    depth = min(entry.depth, DEEPEST)
    if entry.node is None:
        return (
            f'<li class="tp-node tp-fold" data-depth="{depth}"><span class="tp-name">'
            f"{escape(short_name(entry.name))} × {len(entry.many)}</span>"
            f'<span class="tp-detail">{escape(entry.tally)}</span></li>'
        )
    node = entry.node
    status = node["status"]
    return (
        f'<li class="tp-node is-{status}" data-depth="{depth}"><span class="tp-icon" '
        f'aria-hidden="true">{Status[status.upper()].sign}</span><a class="tp-name" '
        f'href="{escape(page.replace(NOBODY, node["id"]))}">{escape(short_name(node["name"]))}</a>'
        f'<span class="tp-detail">{escape(_detail(node, now))}</span></li>'
    )


def _detail(node: Node, now: datetime) -> str:
    progress = node.get("progress") or {}
    parts = [node["status"].capitalize()]
    if node["attempt"] > 1:
        parts.append(f"attempt {node['attempt']}")
    length = seconds_of(node, now)
    if length is not None:
        parts.append(span(length))
    if progress.get("message"):
        parts.append(str(progress["message"]))
    return " · ".join(parts)


def seconds_of(node: Node, now: datetime) -> float | None:
    """How long a task has run, or ran."""
    if not node.get("started"):
        return None
    end = _moment(node["finished"]) if node.get("finished") else now
    return max(0.0, (end - _moment(node["started"])).total_seconds())


def timeline(found: Sequence[Entry], top: Node, now: datetime) -> SafeString:
    """The timeline as rows of a table: what, in which state, from when, how long."""
    rows = [_timeline_row(Entry(0, top), now), *(_timeline_row(entry, now) for entry in found)]
    return format_html_join(
        "", "<tr><th scope='row'>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", rows
    )


def _timeline_row(entry: Entry, now: datetime) -> tuple[str, ...]:
    nodes = entry.many if entry.node is None else [entry.node]
    began = min((_moment(one["started"]) for one in nodes if one.get("started")), default=None)
    submitted = min(_moment(one["submitted"]) for one in nodes)
    lengths = [length for one in nodes if (length := seconds_of(one, now)) is not None]
    waited = (began or now) - submitted
    if entry.node is None:
        name, word = f"{short_name(entry.name)} × {len(nodes)}", entry.tally
    else:
        name, word = short_name(entry.node["name"]), entry.node["status"].capitalize()
    return (
        name,
        word,
        clock(began) if began else "–",
        span(waited.total_seconds()) if waited.total_seconds() >= 1 else "–",
        span(sum(lengths)) if lengths else "–",
    )


def clock(moment: datetime) -> str:
    """A moment as the site writes times of the day."""
    return f"{moment.astimezone(timezone.get_current_timezone()):%H:%M:%S}"


def _moment(text: Any) -> datetime:
    return text if isinstance(text, datetime) else datetime.fromisoformat(text)


def log(lines: Iterable[Line]) -> SafeString:
    """Log lines as rows; what has escapes brings them in an attribute, for their colours."""
    return mark_safe("".join(map(_log_row, lines)))


def _log_row(line: Line) -> str:
    seq, message = line["seq"], line["message"]
    level = next((word for least, word in _LEVELS if line["level"] >= least), "debug")
    raw = ""
    if ESCAPE in message:
        raw = f' data-raw="{escape(message.replace(ESCAPE, ESCAPE_PICTURE))}"'
        message = _SEQUENCE.sub("", message)
    mark = f'<b class="tp-level">{level}</b>' if line["level"] >= 30 else ""
    return (
        f'<div class="tp-line is-{level}" id="L{seq}" data-level="{line["level"]}">'
        f'<a class="tp-number" href="#L{seq}">{seq}</a>'
        f'<time datetime="{escape(line["at"])}">{clock(_moment(line["at"]))}</time>'
        f'<span class="tp-who">{escape(short_name(line["name"]))}</span>'
        f'<span class="tp-text"{raw}>{mark}<span>{escape(message)}</span></span></div>'
    )


def traceback(text: str) -> SafeString:
    """A traceback in which the frames of libraries stand back."""
    kind, pieces = "", []
    for row in text.splitlines():
        if row.lstrip().startswith('File "'):
            kind = "lib" if _LIBRARY.search(row) else "own"
        elif not row.startswith((" ", "\t")):
            kind = ""
        pieces.append((f"tp-{kind}" if kind else "tp-said", row))
    return format_html_join("\n", '<span class="{}">{}</span>', pieces)


def payload(value: Any) -> SafeString:
    """Arguments or a result: a tree while it is small, the beginning of its text otherwise."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= LARGEST_TREE:
        return data(value)
    more = f"{len(text) - LARGEST_TREE:,}"
    return format_html("{}<p>… and {} characters more</p>", text[:LARGEST_TREE], more)


def data(value: Any, depth: int = 0) -> SafeString:
    """JSON as a tree that can be folded."""
    if isinstance(value, dict | list) and value:
        if depth >= MAX_JSON_DEPTH:
            return mark_safe('<span class="tp-more">…</span>')
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        shown = ((_key(key), data(one, depth + 1)) for key, one in pairs[:MAX_JSON_ITEMS])
        items = format_html_join("", "<li>{}{}</li>", shown)
        more = len(pairs) - MAX_JSON_ITEMS
        if more > 0:
            items += format_html('<li class="tp-more">… and {} more</li>', more)
        kind = f"{{{len(pairs)}}}" if isinstance(value, dict) else f"[{len(pairs)}]"
        is_open = mark_safe(" open") if depth < 2 and len(pairs) <= 20 else ""
        return format_html(
            "<details{}><summary>{}</summary><ul>{}</ul></details>", is_open, kind, items
        )
    if isinstance(value, str):
        return format_html('<span class="tp-string">{}</span>', f'"{value}"')
    return format_html('<span class="tp-plain">{}</span>', json.dumps(value))


def _key(key: Any) -> SafeString:
    return format_html('<span class="tp-key">{}</span>', key)
