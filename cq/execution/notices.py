"""
The public signals around a run: started and retried.

Sent by whoever runs the attempt or has written its end, after the commit. A receiver that
raises is logged by Django and harms nobody. Ends are told by `cq.workflow.aftermath`, since
not every task is ended by an attempt of its own.
"""

from django.dispatch import Signal

from cq.definition.outcome import Outcome, Retrying
from cq.definition.status import TERMINAL, Status
from cq.models.task import Task
from cq.models.transitions import Claimed
from cq.signals import task_retried, task_started


def tell_started(claimed: Claimed) -> None:
    """A body is about to run."""
    _send(task_started, claimed)


def tell_ended(claimed: Claimed, outcome: Outcome, status: Status) -> None:
    """The outcome of an attempt is in the rows, and this is the status that resulted."""
    if status not in TERMINAL and isinstance(outcome, Retrying):
        _send(task_retried, claimed, delay=outcome.delay)


def _send(signal: Signal, claimed: Claimed, **facts: object) -> None:
    if signal.receivers:
        signal.send_robust(
            sender=Task,
            task_id=claimed.id,
            func_name=claimed.func_name,
            attempt=claimed.attempt,
            **facts,
        )
