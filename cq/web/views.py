"""
Views: the polling endpoint for pages without a socket, actions, and new tokens.

The endpoint answers with the frames of the socket, made from the rows. Whoever may not
see a task gets the 404 of a task that does not exist. A token comes in the header
`Authorization: Bearer …`, never in the URL.
"""

import hashlib
import json
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_POST

from cq.errors import CQError, InvalidFrame, Refused
from cq.web import access, actions, snapshot
from cq.web.access import Grant
from cq.web.protocol import ACTIONS, Limits, parse_number
from cq.web.subscription import Frame, read_outcome

POLL_RUNNING_MS = 1000
POLL_RESTING_MS = 2500
_LIMITS = Limits()
_MOVING = frozenset({"running", "waiting"})


@require_GET
@never_cache
def watch(request: HttpRequest, task: UUID) -> HttpResponse:
    """
    Answer with every frame after `?since=`, and the milliseconds until the next question.

    The same answer has the same ETag, so an idle poll costs a 304. `next_ms` is null when
    nothing will follow.
    """
    try:
        grant = access.grant(task, user=_user(request), token=_token(request))
        given = request.GET.get("since")
        since = None if given is None else parse_number(_digits(given), "since")
    except Refused as error:
        return _problem(error, 404)
    except InvalidFrame as error:
        return _problem(error, 400)
    body = json.dumps(_poll(grant, since), separators=(",", ":"))
    etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
    if request.headers.get("If-None-Match") == etag:
        response = HttpResponse(status=304)
    else:
        response = HttpResponse(body, content_type="application/json")
    response["ETag"] = etag
    response["Vary"] = "Authorization, Cookie"
    return response


def _poll(grant: Grant, since: int | None) -> Frame:
    rows = _read(grant, since)
    reset = since is not None and since > rows.seq and "log" in grant.scopes
    if reset:
        since = None
        rows = _read(grant, None)
    state = next((node for node in rows.nodes if node["id"] == str(grant.task)), None)
    if state is None:
        raise Http404
    frames = [_snap(grant, rows, state, since) | ({"reset": True} if reset else {})]
    lines = _own_lines(grant, rows)
    if lines:
        seq = rows.lines[-1]["seq"]
        frames.append({"type": "log", "id": str(grant.task), "seq": seq, "lines": lines})
    over = rows.ended if grant.task == grant.root else state["finished"] is not None
    if over and rows.is_complete:
        end: Frame = {"type": "end", "id": str(grant.task), "state": state}
        frames.append(end | read_outcome(grant.task, grant.scopes))
    return {"frames": frames, "next_ms": _next_ms(rows, state, over)}


def _read(grant: Grant, since: int | None) -> snapshot.Rows:
    want = snapshot.Want(
        grant.root,
        tasks=tuple({grant.root, grant.task}),
        since=(since or 0) if "log" in grant.scopes else None,
        tail=_LIMITS.tail if since is None else None,
        tree="tree" in grant.scopes,
    )
    return snapshot.read([want])[grant.root]


def _snap(grant: Grant, rows: snapshot.Rows, state: Any, since: int | None) -> Frame:
    frame: Frame = {
        "type": "snap",
        "id": str(grant.task),
        "state": state,
        "scopes": sorted(grant.scopes),
        "live": False,
    }
    if "tree" in grant.scopes:
        frame["tree"] = rows.nodes
        if rows.truncated:
            frame |= {"truncated": True, "counts": rows.counts}
    if "log" in grant.scopes:
        first = (rows.lines[0]["seq"] or 1) - 1 if rows.lines else rows.seq
        frame |= {"seq": rows.seq, "reset": False, "since": first if since is None else since}
    return frame


def _own_lines(grant: Grant, rows: snapshot.Rows) -> list[Any]:
    if grant.task == grant.root:
        return list(rows.lines)
    return [line for line in rows.lines if line["task"] == str(grant.task)]


def _next_ms(rows: snapshot.Rows, state: Any, over: bool) -> int | None:
    if not rows.is_complete:
        return 0
    if over:
        return None
    return POLL_RUNNING_MS if state["status"] in _MOVING else POLL_RESTING_MS


@csrf_exempt
@require_POST
def act(request: HttpRequest, task: UUID, do: str) -> HttpResponse:
    """
    Revoke or retry a task.

    With a token in the header no CSRF token is needed: no other site can send that header.
    """
    if do not in ACTIONS:
        raise Http404
    if _token(request) is None:
        return _act_by_session(request, task, do)
    return _act(request, task, do)


@csrf_protect
def _act_by_session(request: HttpRequest, task: UUID, do: str) -> HttpResponse:
    return _act(request, task, do)


def _act(request: HttpRequest, task: UUID, do: str) -> HttpResponse:
    try:
        actions.act(do, task, user=_user(request), token=_token(request))
    except Refused as error:
        return _problem(error, 404)
    except CQError as error:
        return _problem(error, 409)
    return JsonResponse({"type": "did", "id": str(task), "do": do})


@csrf_exempt
@require_POST
@never_cache
def renew(request: HttpRequest, task: UUID) -> HttpResponse:
    """
    Answer with a new watch token for the one in the header, to the user it is bound to.

    No CSRF token is needed: no other site can send that header.
    """
    user = _user(request)
    try:
        grant = access.renewed(task, user=user, token=_token(request) or "")
    except Refused as error:
        return _problem(error, 404)
    return JsonResponse({"token": grant})


def _user(request: HttpRequest) -> Any:
    return getattr(request, "user", None)


def _token(request: HttpRequest) -> str | None:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def _digits(text: str) -> object:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def _problem(error: CQError, status: int) -> HttpResponse:
    code = str(error.facts.get("code", "failed"))
    return JsonResponse({"type": "err", "code": code, "message": str(error)}, status=status)
