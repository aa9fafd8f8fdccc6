"""
Every write of a task's status, each an update guarded by the status it moves from.

A function in this room is one arrow of `definition/status.py`, or several that share a
statement. All work on sets: rows go in as one JSON parameter, what really moved comes
back, and a row that does not come back was not there to be moved. Nothing here opens a
transaction or knows what follows; `workflow/` does.
"""

from cq.models.transitions.claim import (
    Claimed,
    Want,
    claim,
    claim_named,
    next_due,
    park_heads,
    unpark,
)
from cq.models.transitions.end import Ending, end_attempts, end_from
from cq.models.transitions.insert import Inserted, insert
from cq.models.transitions.moved import PREDECESSOR_FAILED, REVOKED_BY_HAND, Moved
from cq.models.transitions.revive import (
    hold_again,
    put_back,
    queue_pending,
    run_again,
    wait_again,
)
from cq.models.transitions.settle import (
    EndedChild,
    forget_results,
    release_successors,
    settle_parents,
)

__all__ = [
    "PREDECESSOR_FAILED",
    "REVOKED_BY_HAND",
    "Claimed",
    "EndedChild",
    "Ending",
    "Inserted",
    "Moved",
    "Want",
    "claim",
    "claim_named",
    "end_attempts",
    "end_from",
    "forget_results",
    "hold_again",
    "insert",
    "next_due",
    "park_heads",
    "put_back",
    "queue_pending",
    "release_successors",
    "run_again",
    "settle_parents",
    "unpark",
    "wait_again",
]
