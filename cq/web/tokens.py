"""
Watch tokens: the right to watch one task, signed, scoped and with an end.

A page that shows a task carries one; the socket gets it in the first frame and the
polling endpoint in the `Authorization` header. It never travels in a URL, where logs and
Referer headers would keep it.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core import signing

from cq import conf
from cq.errors import InvalidOption, InvalidToken
from cq.models import Task

SALT = "cq.watch.v1"
SCOPES = ("progress", "tree", "log", "result", "error", "revoke", "retry")
_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    task: UUID
    scopes: frozenset[str]
    user: str | None
    expires: int


def watch_token(
    task: Task | UUID,
    scopes: Iterable[str] = ("progress",),
    *,
    user: Any = None,
    ttl: float | None = None,
) -> str:
    """
    Sign the right to watch a task, and for a root with "tree" everything below it.

    `progress` is always part of it: the state, the bar and its message. Results, errors,
    log lines and the actions must be named. With a `user` only that user may use it, as
    long as they are logged in and active; without one, whoever holds it may.
    """
    wanted = set(scopes) | {"progress"}
    for scope in wanted.difference(SCOPES):
        raise InvalidOption(
            f"{scope!r} is not a scope of a watch token. Expected some of "
            f"{', '.join(SCOPES)}. Correct the scopes.",
            scope=scope,
        )
    seconds = conf.current().watch_ttl if ttl is None else ttl
    return signing.dumps(
        [
            (task if isinstance(task, UUID) else task.id).hex,
            ",".join(scope for scope in SCOPES if scope in wanted),
            None if user is None or user.pk is None else str(user.pk),
            int(time.time() + seconds),
        ],
        salt=SALT,
    )


def read_token(token: str) -> Claims:
    """Read a token, or raise InvalidToken: `code` "forged", or "expired" with its `task`."""
    try:
        if len(token) > _MAX_LENGTH or not token.isascii():
            raise signing.BadSignature
        task, scopes, user, expires = signing.loads(token, salt=SALT)
        claims = Claims(UUID(hex=task), frozenset(scopes.split(",")), user, int(expires))
    except (signing.BadSignature, ValueError, TypeError, AttributeError) as error:
        raise InvalidToken(
            "The watch token is not one of this site. Expected what cq.watch_token() made "
            "with the present SECRET_KEY. Load the page again for a new one.",
            code="forged",
        ) from error
    if claims.expires <= time.time():
        raise InvalidToken(
            f"The watch token ended at {claims.expires}. Expected one that is still valid. "
            "Load the page again for a new one, or raise CQ['WATCH_TTL'].",
            code="expired",
            task=claims.task,
        )
    return claims
