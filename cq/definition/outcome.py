"""
What an attempt came to, before anybody writes it down.

The executor returns one of these and touches no row; `workflow/completion.py` is the
only reader, and turns it into rows under the claim token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from cq.definition.payload import JSON
from cq.definition.signature import NewTask


@dataclass(slots=True)
class Succeeded:
    """The body returned: a value, or the id of the child whose result it adopts."""

    result: JSON = None
    adopts: UUID | None = None
    children: list[NewTask] = field(default_factory=list)
    errorbacks: Sequence[dict[str, JSON]] = ()


@dataclass(slots=True)
class Failed:
    """The body raised, and will not be tried again."""

    error: dict[str, JSON]
    errorbacks: Sequence[dict[str, JSON]] = ()


@dataclass(slots=True)
class Retrying:
    """The body raised; the next attempt is due after `delay` seconds."""

    error: dict[str, JSON]
    delay: float


@dataclass(slots=True)
class Released:
    """The worker hands the task back uncharged: it stops, or lost its right to go on."""

    reason: str


@dataclass(slots=True)
class Crashed:
    """The child process that ran the body died; charged like the death of a worker."""

    reason: str


Outcome = Succeeded | Failed | Retrying | Released | Crashed
