"""
`cqt`: what a task function sees of its own run.

It is the first argument of every body. Subtasks, links and errorbacks that a body asks
for are plans in memory until the attempt has ended well; an attempt that fails leaves
none behind. Everything here may be used from a thread and from a coroutine alike.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from cq import conf
from cq.aio import in_db, refuse_on_loop
from cq.definition.errorbacks import errorback_entry
from cq.definition.link import plan_link, plan_subtask
from cq.definition.payload import JSON
from cq.definition.signature import NewTask
from cq.definition.status import Status
from cq.definition.text import clean_text
from cq.errors import InvalidOption, WaitInsideTask
from cq.models.queries import rows_by_id
from cq.models.streams import Line
from cq.models.task import Task
from cq.models.transitions import Claimed
from cq.progress.buffer import AttemptBuffer, ProgressValue

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger("cq.task")

_HIGHEST_LEVEL = 32_767  # the column
_ROWS = ("task", "parent", "root", "previous")


class Draft:
    """A subtask or link that becomes a row when the body has ended well."""

    instead_of_json = "return it alone to pass its result on, or pass str(NAME.id)"

    def __init__(self, context: "Context", plan: NewTask) -> None:
        self._context = context
        self._plan = plan
        self.id: UUID = plan.id
        self.parent: UUID | None = plan.parent
        self.func_name: str = plan.func_name

    def chain(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Draft":
        """Run `fn` after this one has succeeded; see `cq.chain` for the forms."""
        return self._context.link(self.id, self.parent, fn, args, kwargs)

    def errorback(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Draft":
        """Call `fn(task, error, *args)` once if this one ends badly."""
        entries = self._plan.errorbacks or []
        self._plan.errorbacks = [*entries, _errorback(fn, args, kwargs)]
        return self

    def wait(self, timeout: float | None = None) -> Any:
        """Refused: a subtask starts when the body has returned."""
        raise WaitInsideTask(
            f"The subtask {self.func_name} was waited for in its parent's body, but it starts "
            "only after the body has returned. Return it, or chain what is to follow."
        )

    def __await__(self) -> Generator[Any, None, Any]:
        """Refused, like `wait`."""
        return self.wait()  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<Draft {self.func_name} {self.id}>"


class Predecessor:
    """The task that this one is chained behind: its result without a query, its row with one."""

    def __init__(self, id: UUID, result: Any, row: Callable[[], Any]) -> None:
        self.id = id
        self.result = result
        self._row = row

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._row(), name)


def _row(id: UUID, which: str) -> Task:
    refuse_on_loop(f"cqt.{which}", f"'await cqt.aload({which!r})'")
    found = rows_by_id([id]).get(id)
    if found is None:
        raise Task.DoesNotExist(f"Task {id} is no longer in the database: it was pruned.")
    return found


@dataclass(slots=True)
class Commit:
    """What `cqt.commit` needs of the executor: run a function with the completion."""

    run: Callable[["Context", Callable[[], Any]], Awaitable[Any]]


@dataclass
class Context:
    """The run of a task as its body sees it."""

    claimed: Claimed
    buffer: AttemptBuffer
    committer: Commit | None = None
    drafts: list[NewTask] = field(default_factory=list)
    has_committed: bool = False

    @property
    def id(self) -> UUID:
        """The id of the task."""
        return self.claimed.id

    @property
    def attempt(self) -> int:
        """The number of this try, from 1."""
        return self.claimed.attempt

    @property
    def func_name(self) -> str:
        """The registered name of the task function."""
        return self.claimed.func_name

    @property
    def task(self) -> Task:
        """The task's row, read now (a query: in an async body use `await cqt.aload()`)."""
        return _row(self.claimed.id, "task")

    @property
    def parent(self) -> Task | None:
        """The row of the parent, read now, or None for a top-level task."""
        return _row(self.claimed.parent, "parent") if self.claimed.parent else None

    @property
    def root(self) -> Task:
        """The row of the top-level parent, read now."""
        return _row(self.claimed.root, "root")

    @property
    def previous(self) -> Predecessor | None:
        """The predecessor in a chain, or None; `cqt.previous.result` costs no query."""
        id = self.claimed.previous
        if id is None:
            return None
        return Predecessor(id, self.claimed.previous_result, partial(_row, id, "previous"))

    async def aload(self, which: str = "task") -> Any:
        """Read the row of "task", "parent", "root" or "previous" in an async body."""
        if which not in _ROWS:
            raise InvalidOption(
                f"cqt.aload({which!r}) names no row. Load one of {', '.join(map(repr, _ROWS))}."
            )
        return await in_db(self._load, which)

    def _load(self, which: str) -> Any:
        found = getattr(self, which)
        return found._row() if isinstance(found, Predecessor) else found

    def log(
        self,
        message: object,
        level: int | str = logging.INFO,
        publish: bool = True,
        limit: int | None = None,
    ) -> None:
        """
        Add a line to the record of the top-level parent, and to Python logging.

        With `publish=False` it is kept back until the next published line or the end of
        the attempt. `limit` keeps only so many of the lines not yet recorded, this one
        included, before they are numbered.
        """
        number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
        if not isinstance(number, int) or not 0 <= number <= _HIGHEST_LEVEL:
            raise InvalidOption(
                f"level is {level!r}, which is no logging level. Use a number such as 30, or a "
                "name such as 'WARNING'."
            )
        if limit is not None and not (type(limit) is int and limit > 0):
            raise InvalidOption(
                f"limit is {limit!r}, which is not a whole number above 0. Give how many lines "
                "to keep, such as limit=40."
            )
        claimed = self.claimed
        text = clean_text(str(message), conf.current().max_line_bytes)
        logger.log(number, "%s", text, extra={"cq_task_id": str(claimed.id)})
        self.buffer.add(
            Line(
                task=claimed.id,
                token=claimed.token,
                attempt=claimed.attempt,
                func_name=claimed.func_name,
                level=number,
                message=text,
                at=datetime.now(UTC),
                root=claimed.root,
            ),
            publish=publish,
            limit=limit,
        )

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the task has come; cheap enough for every turn of a loop."""
        value = ProgressValue(
            _finite("done", done),
            None if total is None else _finite("total", total),
            clean_text(str(message), conf.current().max_line_bytes),
        )
        self.buffer.set_progress(value)

    def track(
        self, iterable: Iterable[T], message: str = "", total: float | None = None
    ) -> Iterator[T]:
        """Pass items through and report each as progress; the total is the length if known."""
        if total is None:
            total = len(iterable) if isinstance(iterable, Sized) else None
        done = 0
        self.progress(done, total, message)
        for item in iterable:
            yield item
            done += 1
            self.progress(done, total, message)

    def subtask(self, fn: Any, /, *args: Any, **kwargs: Any) -> Draft:
        """
        Plan a child that starts when this body has returned; this task waits for it.

        Write `subtask(fn, 1, x=2)` or the historic `subtask(fn, (1,), {"x": 2})`.
        Return it to make its result this task's result.
        """
        settings = conf.current()
        if self.claimed.depth + 1 >= settings.max_depth:
            raise InvalidOption(
                f"A subtask of {self.func_name} would be {self.claimed.depth + 1} levels below "
                f"its root, and CQ['MAX_DEPTH'] is {settings.max_depth}. Build a wider tree, or "
                "chain instead of nesting."
            )
        plan = plan_subtask(fn, args, kwargs, max_args_bytes=settings.max_args_bytes)
        plan.parent = self.id
        return self._draft(plan)

    def chain(self, fn: Any, /, *args: Any, **kwargs: Any) -> Draft:
        """Plan a task that runs after this one has succeeded, with its result if it takes it."""
        return self.link(self.id, self.claimed.parent, fn, args, kwargs)

    def errorback(self, fn: Any, /, *args: Any, **kwargs: Any) -> None:
        """
        Call `fn(task, error, *args, **kwargs)` once if this task ends badly with this attempt.

        That is as a Failure by what the body raises from now on or by its time limit, or
        later as Incomplete by its subtasks. The next attempt has to ask for it again. What
        takes the body along unseen (the death of its worker, of its child process) takes
        this along as well; an errorback given where the task is delayed outlives that.
        """
        self._refuse_after_commit("An errorback")
        self.buffer.errorbacks.append(_errorback(fn, args, kwargs))

    def link(
        self,
        previous: UUID,
        parent: UUID | None,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Draft:
        """Plan a link behind a planned task, or behind this one."""
        plan = plan_link(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)
        plan.previous, plan.parent, plan.status = previous, parent, Status.PENDING
        return self._draft(plan)

    def _draft(self, plan: NewTask) -> Draft:
        limit = conf.current().max_children
        if len(self.drafts) >= limit:
            raise InvalidOption(
                f"Task {self.id} asked for more than {limit} subtasks and links, which is "
                "CQ['MAX_CHILDREN']. Give each subtask a chunk of the work instead."
            )
        self._refuse_after_commit(plan.func_name)
        self.drafts.append(plan)
        return Draft(self, plan)

    def _refuse_after_commit(self, what: str) -> None:
        if self.has_committed:
            raise InvalidOption(
                f"{what} was planned after cqt.commit(), with which {self.func_name} has ended. "
                "Plan it before, or inside the function that commits."
            )

    def commit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """
        Run the writes of an async body and its completion in one transaction.

        `fn` runs in a thread; its value is the result of the task. It must be the body's
        last act: `return await cqt.commit(save, rows)`. Exactly-once, like an atomic
        sync task; raises AttemptVoid, with everything rolled back, if the claim is void.
        """
        if self.committer is None:
            raise InvalidOption(
                f"cqt.commit() was called in {self.func_name}, which is a def. Leave it out: an "
                "atomic def commits its writes with its completion anyway."
            )
        if iscoroutinefunction(fn):
            raise InvalidOption(
                f"cqt.commit() was given {fn!r}, an async def, but Django's transactions are "
                "synchronous. Pass a def that does the writes."
            )
        if self.has_committed:
            raise InvalidOption(
                f"cqt.commit() was called a second time by {self.func_name}, which the first one "
                "has ended. Do all writes in one function."
            )
        return self._commit(self.committer, partial(fn, *args, **kwargs))

    async def _commit(self, committer: Commit, fn: Callable[[], T]) -> T:
        planned, told = len(self.drafts), len(self.buffer.errorbacks)
        try:
            value: T = await committer.run(self, fn)
        except BaseException:
            # What `fn` planned goes with what it wrote.
            del self.drafts[planned:], self.buffer.errorbacks[told:]
            raise
        return value


def _errorback(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, JSON]:
    return errorback_entry(fn, args, kwargs, max_args_bytes=conf.current().max_args_bytes)


def _finite(name: str, number: float) -> float:
    try:
        value = float(number)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise InvalidOption(
            f"cqt.progress() got {name}={number!r}, which is no amount. Give a finite number, or "
            "leave the total out while it is unknown."
        )
    return value
