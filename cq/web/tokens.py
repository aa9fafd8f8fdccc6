"""
Watch tokens: the right to watch one task, signed, scoped and with an end.

A page that shows a task carries one; the socket gets it in the first frame and the
polling endpoint in the `Authorization` header. It never travels in a URL, where logs and
Referer headers would keep it. One that was made renewable can be renewed by the user it is
bound to, for a week.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.core import signing

from cq import conf
from cq.errors import InvalidOption, InvalidToken
from cq.models import Task

SALT = "cq.watch.v1"
SCOPES = ("progress", "tree", "log", "result", "error", "revoke", "retry")
RENEWABLE_SECONDS = 7 * conf.DAY
"""How long a renewable token can be renewed; then the page must ask its own view again."""

_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    task: UUID
    scopes: frozenset[str]
    user: str | None
    expires: int
    renewable: int = 0
    """Until when its user may renew it; 0 is never."""


def watch_token(
    task: Task | UUID,
    scopes: Iterable[str] = ("progress",),
    *,
    user: Any = None,
    ttl: float | None = None,
    renewable: bool = False,
) -> str:
    """
    Sign the right to watch a task, and for a root with "tree" everything below it.

    `progress` is always part of it: the state, the bar and its message. Results, errors,
    log lines and the actions must be named. With a `user` only that user may use it, as
    long as they are logged in and active; without one, whoever holds it may. That user may
    exchange a `renewable` one for a fresh one as long as the page is open, for a week.
    """
    wanted = set(scopes) | {"progress"}
    for scope in wanted.difference(SCOPES):
        raise InvalidOption(
            f"{scope!r} is not a scope of a watch token. Expected some of "
            f"{', '.join(SCOPES)}. Correct the scopes.",
            scope=scope,
        )
    seconds = conf.current().watch_ttl if ttl is None else ttl
    now = time.time()
    return _sign(
        Claims(
            task=task if isinstance(task, UUID) else task.id,
            scopes=frozenset(wanted),
            user=None if user is None or user.pk is None else str(user.pk),
            expires=int(now + seconds),
            renewable=int(now + RENEWABLE_SECONDS) if renewable else 0,
        )
    )


def renew_token(token: str, *, user: Any) -> str:
    """
    Sign a renewable token anew, for the user it is bound to and who must be the one who asks.

    It may have ended meanwhile. Raises InvalidToken for a forged one, for one that is bound
    to nobody or to somebody else, and when its time to be renewed is over.
    """
    claims = _claims(token)
    now = time.time()
    if claims.user is None or user is None or claims.user != str(user.pk):
        raise InvalidToken(
            "The watch token cannot be renewed by you. Expected one that is bound to the user "
            "who is logged in. Load the page again for a new one.",
            code="refused",
        )
    if now >= claims.renewable:
        raise InvalidToken(
            f"The watch token could be renewed until {claims.renewable}. Expected one that was "
            "made renewable in the last week. Load the page again for a new one.",
            code="expired",
            task=claims.task,
        )
    return _sign(replace(claims, expires=int(now + conf.current().watch_ttl)))


def _sign(claims: Claims) -> str:
    return signing.dumps(
        [
            claims.task.hex,
            ",".join(scope for scope in SCOPES if scope in claims.scopes),
            claims.user,
            claims.expires,
            claims.renewable,
        ],
        salt=SALT,
    )


def read_token(token: str) -> Claims:
    """Read a token, or raise InvalidToken: `code` "forged", or "expired" with its `task`."""
    claims = _claims(token)
    if claims.expires <= time.time():
        raise InvalidToken(
            f"The watch token ended at {claims.expires}. Expected one that is still valid. "
            "Load the page again for a new one, or raise CQ['WATCH_TTL'].",
            code="expired",
            task=claims.task,
        )
    return claims


def _claims(token: str) -> Claims:
    try:
        if len(token) > _MAX_LENGTH or not token.isascii():
            raise signing.BadSignature
        task, scopes, user, expires, renewable = signing.loads(token, salt=SALT)
        return Claims(
            UUID(hex=task), frozenset(scopes.split(",")), user, int(expires), int(renewable)
        )
    except (signing.BadSignature, ValueError, TypeError, AttributeError) as error:
        raise InvalidToken(
            "The watch token is not one of this site. Expected what cq.watch_token() made "
            "with the present SECRET_KEY. Load the page again for a new one.",
            code="forged",
        ) from error
