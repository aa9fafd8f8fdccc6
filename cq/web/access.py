"""
Access: who may see which task, and do what with it.

Three ways lead in: staff with `cq.view_task`, the task's owner, and a watch token. What
leaves is a Grant with the scopes of them all, or Refused. A stranger gets the same answer
for a task that exists and for one that does not, after the same one query. Rights are
read afresh each time, so that a reader who is logged out loses them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse
from uuid import UUID

from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_backends,
    get_user_model,
    load_backend,
)
from django.utils.crypto import constant_time_compare

from cq.errors import InvalidToken, Refused
from cq.models import Task
from cq.models.sql import database
from cq.web.tokens import Claims, read_token, renew_token

OWNER_SCOPES = frozenset({"progress", "tree", "log"})
STAFF_SCOPES = {
    "cq.view_task": frozenset({"progress", "tree", "log", "error"}),
    "cq.view_task_payload": frozenset({"result"}),
    "cq.revoke_task": frozenset({"revoke"}),
    "cq.retry_task": frozenset({"retry"}),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a reader may do with one task."""

    task: UUID
    root: UUID
    scopes: frozenset[str]


def grant(task: UUID, *, user: Any = None, token: str | None = None) -> Grant:
    """
    Say what `user` and whoever holds `token` may do with a task.

    Raises Refused with `code` "refused", "expired" (a token that was good once) or "gone"
    (the token is good, its task was pruned). One query, whatever the answer.
    """
    found = Task.objects.using(database()).filter(pk=task).values_list("root_id", "owner").first()
    claims, expired = _claims(token, user)
    if found is None:
        raise _refused("gone" if claims is not None and claims.task == task else "refused")
    root = task if found[0] is None else found[0]
    scopes = _staff_scopes(user) | _owner_scopes(user, found[1]) | _token_scopes(claims, task, root)
    if "progress" not in scopes:
        raise _refused("expired" if expired == task else "refused")
    return Grant(task, root, scopes)


def renewed(task: UUID, *, user: Any, token: str) -> str:
    """Renew a watch token of this task for the user who is logged in, or raise Refused."""
    try:
        fresh = renew_token(token, user=user if is_member(user) else None)
    except InvalidToken as error:
        raise _refused("refused") from error
    if read_token(fresh).task != task:
        raise _refused("refused")
    return fresh


def is_member(user: Any) -> bool:
    """Whether the user is logged in and active."""
    return user is not None and user.is_authenticated and user.is_active


def _staff_scopes(user: Any) -> frozenset[str]:
    if not is_member(user) or not getattr(user, "is_staff", False):
        return frozenset()
    if not user.has_perm("cq.view_task"):
        return frozenset()
    return frozenset().union(*(s for perm, s in STAFF_SCOPES.items() if user.has_perm(perm)))


def _owner_scopes(user: Any, owner: str | None) -> frozenset[str]:
    return OWNER_SCOPES if owner and is_member(user) and owner == str(user.pk) else frozenset()


def _claims(token: str | None, user: Any) -> tuple[Claims | None, object]:
    """The claims of a token that holds for this user, or the task of one that did once."""
    if token is None:
        return None, None
    try:
        claims = read_token(token)
    except InvalidToken as error:
        return None, error.facts.get("task")
    if claims.user is not None and not (is_member(user) and claims.user == str(user.pk)):
        return None, None
    return claims, None


def _token_scopes(claims: Claims | None, task: UUID, root: UUID) -> frozenset[str]:
    if claims is None:
        return frozenset()
    below = claims.task == root and "tree" in claims.scopes
    return claims.scopes if claims.task == task or below else frozenset()


_SENTENCES = {
    "refused": "There is no such task, or not for you. Expected the id of a task that you own "
    "or hold a token for. Log in, or ask for a token of this task.",
    "expired": "The watch token has ended. Expected one that is still valid. Load the page again.",
    "gone": "The task is no longer kept. Expected a task within its retention. Start it again.",
}


def _refused(code: str) -> Refused:
    return Refused(_SENTENCES[code], code=code)


def present_user(scope: Any) -> Any:
    """
    Read the user of a connection again, from the session it came with.

    None when the session has ended, the password was changed, or the user was deleted or
    deactivated since. Writes nothing. A user that came without a session (by a middleware
    of the project) is read again by its key.
    """
    session = scope.get("session")
    if session is not None and session.session_key:
        user = _session_user(session.__class__(session.session_key))
    else:
        user = scope.get("user")
        if is_member(user):
            user = get_user_model()._default_manager.filter(pk=user.pk).first()
    return user if is_member(user) else None


def _session_user(session: Any) -> Any:
    if SESSION_KEY not in session or BACKEND_SESSION_KEY not in session:
        return None
    backend = load_backend(session[BACKEND_SESSION_KEY])
    if not any(type(known) is type(backend) for known in get_backends()):
        return None
    user = backend.get_user(get_user_model()._meta.pk.to_python(session[SESSION_KEY]))
    if user is None or not hasattr(user, "get_session_auth_hash"):
        return user
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    stored = session.get(HASH_SESSION_KEY, "")
    return user if any(constant_time_compare(stored, known) for known in hashes) else None


def is_allowed_origin(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """
    Whether a handshake comes from a page of this site.

    The rule is that of AllowedHostsOriginValidator, which a project may leave out, so it
    is applied here; no Origin and `null` are refused in any case, and ALLOWED_HOSTS=["*"]
    lets in the pages of the very host that is asked, not everybody's.
    """
    given = {name: value.decode("latin1") for name, value in headers if name in _HOST_HEADERS}
    try:
        origin = urlparse(given.get(b"origin", ""))
        port = origin.port
    except ValueError:
        return False
    if origin.scheme not in ("http", "https") or not origin.hostname:
        return False
    validator = AllowedHostsOriginValidator(_nowhere)
    if "*" not in validator.allowed_origins:
        return bool(validator.valid_origin(origin))
    default = {"http": 80, "https": 443}[origin.scheme]
    name = f"[{origin.hostname}]" if ":" in origin.hostname else origin.hostname
    host = f"{name}:{port or default}"
    asked = given.get(b"host", "").lower()
    return host == (asked if _has_port(asked) else f"{asked}:{default}")


_HOST_HEADERS = (b"origin", b"host")


async def _nowhere(scope: Any, receive: Any, send: Any) -> None:
    """Stand where the validator expects an application: it is only asked for its rule."""


def _has_port(host: str) -> bool:
    return host.rpartition("]")[2].rpartition(":")[1] == ":"
