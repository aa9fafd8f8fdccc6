"""
Actions: what a reader may do to a task from a browser.

The right is checked at the moment of the action, then the engine's own verb is called,
which tells every watcher of the tree to look, and the audit gets an entry. The verbs are a
table: no name from the wire reaches an attribute.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from cq.errors import Refused
from cq.web import access, audit
from cq.workflow import retry, revoke

_VERBS: dict[str, Callable[[UUID], object]] = {"revoke": revoke.revoke, "retry": retry.retry}
_SAID = {"revoke": "Revoked.", "retry": "Retried."}


def act(do: str, task: UUID, *, user: Any, token: str | None) -> UUID:
    """
    Revoke or retry a task for a reader, and return the root of its tree.

    Raises Refused when the reader lacks the scope, and the engine's own error when the
    task's status does not allow it.
    """
    grant = access.grant(task, user=user, token=token)
    if do not in grant.scopes:
        raise Refused(
            f"You may see task {task} but not {do} it. Expected the permission cq.{do}_task "
            f"or a token with the scope {do!r}. Ask for one.",
            code="refused",
        )
    _VERBS[do](task)
    audit.note(user if access.is_member(user) else None, task, _SAID[do])
    return grant.root
