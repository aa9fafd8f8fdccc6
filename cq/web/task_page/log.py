"""
The log of a task beyond what its page has loaded: older lines, hits of a search, downloads.

Lines leave as JSON, or as a file that is made page by page, whatever its length.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from cq.aio import in_db
from cq.errors import InvalidFrame
from cq.progress.publisher import Line
from cq.web.access import Grant
from cq.web.protocol import parse_number
from cq.web.task_page.entrance import granted
from cq.web.task_page.mount import Mount
from cq.web.task_page.reads import own_lines

PAGE = 500
LONGEST_SEARCH = 200

_KINDS: dict[str, tuple[str, Callable[[Line], str]]] = {
    "txt": (
        "text/plain; charset=utf-8",
        lambda line: f"{line['at']} {line['level']:>3} {line['name']} {line['message']}\n",
    ),
    "jsonl": ("application/jsonl", lambda line: json.dumps(line, ensure_ascii=False) + "\n"),
}


@require_GET
@never_cache
def lines(request: HttpRequest, task: UUID, mount: Mount) -> HttpResponse:
    """
    Answer with up to 500 lines `?before=` or `?after=` a number, at least `?level=`, with `?q=`.

    `more` says that there are others in that direction.
    """
    grant = _grant(request, task)
    query = request.GET
    try:
        wanted = {
            name: parse_number(int(query[name]) if query[name].isdecimal() else query[name], name)
            for name in ("before", "after", "level")
            if query.get(name)
        }
    except InvalidFrame as error:
        return JsonResponse({"message": str(error)}, status=400)
    found = own_lines(grant, text=query.get("q", "")[:LONGEST_SEARCH], limit=PAGE + 1, **wanted)
    more = len(found) > PAGE
    if more:
        found = found[:PAGE] if "after" in wanted else found[1:]
    return JsonResponse({"lines": found, "more": more})


@require_GET
def download(request: HttpRequest, task: UUID, kind: str, mount: Mount) -> StreamingHttpResponse:
    """Send the whole log as a file, as text or as one JSON object a line."""
    grant = _grant(request, task)
    if kind not in _KINDS:
        raise Http404
    content_type, spell = _KINDS[kind]
    pages = _pages_async(grant, spell) if hasattr(request, "scope") else _pages(grant, spell)
    response = StreamingHttpResponse(pages, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{task}.{kind}"'
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _grant(request: HttpRequest, task: UUID) -> Grant:
    grant = granted(request, task)
    if "log" not in grant.scopes:
        raise Http404
    return grant


def _pages(grant: Grant, spell: Callable[[Line], str]) -> Iterator[str]:
    after: Any = 0
    while found := own_lines(grant, after=after):
        yield "".join(map(spell, found))
        after = found[-1]["seq"]


async def _pages_async(grant: Grant, spell: Callable[[Line], str]) -> AsyncIterator[str]:
    after: Any = 0
    while found := await in_db(own_lines, grant, after=after):
        yield "".join(map(spell, found))
        after = found[-1]["seq"]
