"""
Failpoints: named places at which a test makes the engine die, or raise.

Nothing enters but the environment: `CQ_FAILPOINT="after_claim:kill"` arms a point (several
with commas) when this module is imported. A point bites whenever a task function passes
that has not passed it before. `CQ_FAILPOINT_MARKS` names a directory in which each of them
leaves an empty file `point@function`, so that this holds for all processes together, and a
test knows that it bit. Unset, `reached` is an empty function.
"""

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

POINTS = {
    "before_insert": "a call has been checked, its row is not inserted",
    "after_insert": "the row is inserted, delay() has not returned",
    "before_ring": "a transaction has committed, nobody has been told",
    "before_send": "a bell is about to go to the task layer",
    "after_send": "the task layer has the bell",
    "after_receive": "a worker took a bell off the layer, and has not looked at the rows",
    "before_claim": "there is room for a task, the claim is not sent",
    "after_claim_commit": "the claim has committed, its answer has not arrived",
    "after_claim": "the answer has arrived, nothing has started",
    "before_body": "the attempt is about to run its body",
    "after_body": "the body has ended, its outcome is not handed over",
    "before_completion": "the transaction of a completion has begun",
    "mid_completion": "the own rows have moved, nothing that follows has",
    "mid_spawn": "subtasks are inserted, and not counted at their parents",
    "mid_settle": "successors are released, parents have not been told",
    "mid_errorbacks": "calls of errorbacks are inserted",
    "before_completion_commit": "everything is written, nothing has committed",
    "after_completion_commit": "the completion has committed, its answer has not arrived",
    "before_flush": "log lines are taken from their buffers, and not written",
    "after_flush": "log lines have committed, nobody has been told",
    "before_beat": "a heartbeat is due",
    "after_beat": "a heartbeat has been written",
    "after_declare_dead": "a worker is declared dead, its tasks are not rescued",
    "mid_put_back": "tasks of a dead worker are put back, and not committed",
    "after_put_back": "they are committed, other dead workers may be left",
    "mid_revoke": "a pass of a revoke has moved rows, and not committed",
    "mid_fire": "the clockwork of a repeating task has moved, its task is not inserted",
    "before_fire_commit": "its task is inserted, and not committed",
    "before_answer": "a child process has completed its task, its parent does not know",
    "before_leave": "a worker has drained, and its row is still alive",
}
"""Every point, and what has happened when it is reached."""


class Named(Protocol):
    """Whatever belongs to a task function."""

    @property
    def func_name(self) -> str:
        """The name of the task function."""
        ...


def _nothing(point: str, passing: Iterable[Named] = ()) -> None:
    """Do nothing: no point is armed."""


class _Armed:
    """Bites at the armed points whenever a task function passes for the first time."""

    def __init__(self, actions: Mapping[str, str], marks: Path | None) -> None:
        self._actions = actions
        self._marks = marks
        self._bitten: set[str] = set()

    def __call__(self, point: str, passing: Iterable[Named] = ()) -> None:
        action = self._actions.get(point)
        if action is None:
            return
        names = sorted({one.func_name for one in passing}) or [""]
        first = [name for name in names if self._is_first(f"{point}@{name}")]
        if not first:
            return
        if action == "kill":
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        raise RuntimeError(f"The failpoint {point!r} was reached by {', '.join(first)}.")

    def _is_first(self, mark: str) -> bool:
        if mark in self._bitten:
            return False
        self._bitten.add(mark)
        if self._marks is None:
            return True
        try:
            (self._marks / mark).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def armed(spec: str, marks: Path | None = None) -> Callable[..., None]:
    """What `reached` is under this value of CQ_FAILPOINT."""
    if not spec:
        return _nothing
    actions = dict(part.strip().partition(":")[::2] for part in spec.split(","))
    for point, action in actions.items():
        if point not in POINTS or action not in ("kill", "raise"):
            raise ValueError(
                f"CQ_FAILPOINT has {point!r} with the action {action!r}. Expected one of "
                f"{', '.join(POINTS)}, followed by :kill or :raise. Correct it, or unset it."
            )
    return _Armed(actions, marks)


_marks = os.environ.get("CQ_FAILPOINT_MARKS")
reached = armed(os.environ.get("CQ_FAILPOINT", ""), Path(_marks) if _marks else None)
"""Says that a point is reached, and by the tasks of which functions; called by the engine."""
