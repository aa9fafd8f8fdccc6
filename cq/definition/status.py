"""
The ten statuses of a task and the arrows between them.

This table is the state machine: `models/transitions.py` writes by it, the tests walk it
row by row and docs/inside/state-machine.md is drawn from it. A status is stored as one
letter; the words are for people.
"""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Where a task stands; the value is the letter in the row."""

    PENDING = "P"
    QUEUED = "Q"
    RUNNING = "R"
    RETRY = "Y"
    WAITING = "W"
    SUCCESS = "S"
    FAILURE = "F"
    INCOMPLETE = "I"
    LOST = "L"
    REVOKED = "E"

    @property
    def label(self) -> str:
        """The word for people: `Status.SUCCESS.label == "Success"`."""
        return self.name.capitalize()

    @property
    def sign(self) -> str:
        """The sign beside that word, as `cq.js` draws it too."""
        return _SIGNS[self]

    @property
    def counted(self) -> str:
        """The word behind a count of such tasks, "38 ok, 2 failed", as `cq.js` says it too."""
        return _COUNTED.get(self, self.name.lower())


_SIGNS = {
    Status.PENDING: "○",
    Status.QUEUED: "◌",
    Status.RUNNING: "◐",
    Status.RETRY: "↻",
    Status.WAITING: "◔",
    Status.SUCCESS: "✔",
    Status.FAILURE: "✖",
    Status.INCOMPLETE: "◪",
    Status.LOST: "?",
    Status.REVOKED: "⊘",
}

_COUNTED = {Status.SUCCESS: "ok", Status.RETRY: "in retry", Status.FAILURE: "failed"}

CLAIMABLE = frozenset({Status.QUEUED, Status.RETRY})
NOT_STARTED = frozenset({Status.PENDING, Status.QUEUED, Status.RETRY})
HELD = frozenset({Status.RUNNING, Status.WAITING})
ACTIVE = NOT_STARTED | HELD
ERROR = frozenset({Status.FAILURE, Status.INCOMPLETE, Status.LOST, Status.REVOKED})
TERMINAL = ERROR | {Status.SUCCESS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One arrow: who may move a row from which statuses to which, and under what guard."""

    id: str
    sources: frozenset[Status]
    targets: frozenset[Status]
    who: str
    guard: str


def _arrow(id: str, sources: str, targets: str, who: str, guard: str) -> Transition:
    return Transition(
        id=id,
        sources=frozenset(map(Status, sources)),
        targets=frozenset(map(Status, targets)),
        who=who,
        guard=guard,
    )


TRANSITIONS = (
    _arrow("T1", "", "Q", "delay()", "known name, storable arguments, unique key free"),
    _arrow("T2", "", "P", "chain(), delay(submit=False)", "predecessor or parent given"),
    _arrow("T3", "P", "Q", "the predecessor's completion, submit()", "status is Pending"),
    _arrow("T4", "QY", "R", "a worker", "due, registered, room in the pool, worker alive"),
    _arrow("T5", "R", "S", "the worker", "claim token"),
    _arrow("T6", "R", "WSI", "the worker", "claim token, children given; S or I when none is open"),
    _arrow("T7", "R", "Y", "the worker", "claim token, retries left, exception wanted"),
    _arrow("T8", "R", "F", "the worker", "claim token"),
    _arrow("T9", "R", "Q", "the worker, stopping", "claim token, releases left"),
    _arrow("T10", "R", "Q", "a rescuer", "worker dead, crashes left, not at_most_once"),
    _arrow("T11", "R", "L", "a rescuer", "worker dead, budget spent or at_most_once"),
    _arrow("T12", "W", "SI", "the last child's completion", "no child open"),
    _arrow("T13", "PQY", "E", "revoke()", "not started"),
    _arrow("T14", "RW", "E", "revoke()", "the claim token is voided"),
    _arrow("T15", "P", "E", "the predecessor's end without success", "no force_chain"),
    _arrow("T16", "QY", "F", "a worker or rescuer", "expired, or unroutable for too long"),
    _arrow("T17", "FILE", "Q", "retry() of a root", "no active descendant, unique key free"),
    _arrow("T18", "SFILE", "", "retention", "the whole tree is terminal and past its expiry"),
    _arrow("T19", "FLE", "Q", "retry of failed subtasks", "root terminal"),
)
"""The state machine, T1 to T19; an empty side means the row does not exist."""
