"""
`cqt`: what a task function sees of its own run.

It is the first argument of every body. Subtasks, links and errorbacks that a body asks
for are plans in memory until the attempt has ended well; an attempt that fails leaves
none behind. Everything here may be used from a thread and from a coroutine alike.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from cq import conf
from cq.aio import in_db
from cq.definition.errorbacks import errorback_entry
from cq.definition.link import plan_link, plan_subtask
from cq.definition.signature import NewTask
from cq.definition.status import Status
from cq.definition.text import clean_text
from cq.errors import InvalidOption, WaitInsideTask
from cq.models.queries import rows_by_id
from cq.models.streams import Line
from cq.models.task import Task
from cq.models.transitions import Claimed
from cq.progress.buffer import AttemptBuffer, ProgressValue

T = TypeVar("T")
logger = logging.getLogger("cq.task")


class Draft:
    """A subtask or link that becomes a row when the body has ended well."""

    def __init__(self, context: "Context", plan: NewTask) -> None:
        self._context = context
        self._plan = plan
        self.id: UUID = plan.id
        self.func_name: str = plan.func_name

    def chain(self, fn: Any, *args: Any, **kwargs: Any) -> "Draft":
        """Run `fn` after this one has succeeded; see `cq.chain` for the forms."""
        return self._context.link(self.id, self._plan.parent, fn, args, kwargs)

    def errorback(self, fn: Any, *args: Any, **kwargs: Any) -> "Draft":
        """Call `fn(task, error, *args)` once if this one ends badly."""
        entries = self._plan.errorbacks or []
        self._plan.errorbacks = [*entries, errorback_entry(fn, args, kwargs)]
        return self

    def wait(self, timeout: float | None = None) -> Any:
        """Refused: a subtask starts when the body has returned."""
        raise WaitInsideTask(
            f"The subtask {self.func_name} was waited for in its parent's body, but it starts "
            "only after the body has returned. Return it, or chain what is to follow."
        )

    def __repr__(self) -> str:
        return f"<Draft {self.func_name} {self.id}>"


class Predecessor:
    """The task that this one is chained behind: its result without a query, its row with one."""

    def __init__(self, id: UUID, result: Any) -> None:
        self.id = id
        self.result = result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_row(self.id), name)


def _row(id: UUID) -> Task:
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
        return _row(self.claimed.id)

    @property
    def parent(self) -> Task | None:
        """The row of the parent, read now, or None for a top-level task."""
        return _row(self.claimed.parent) if self.claimed.parent else None

    @property
    def root(self) -> Task:
        """The row of the top-level parent, read now."""
        return _row(self.claimed.root)

    @property
    def previous(self) -> Predecessor | None:
        """The predecessor in a chain, or None; `cqt.previous.result` costs no query."""
        if self.claimed.previous is None:
            return None
        return Predecessor(self.claimed.previous, self.claimed.previous_result)

    async def aload(self, which: str = "task") -> Task | None:
        """Read the row of "task", "parent" or "root" in an async body."""
        return await in_db(getattr, self, which)

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
        if not isinstance(number, int):
            raise InvalidOption(
                f"level is {level!r}, which is no logging level. Use a number, or a name such "
                "as 'WARNING'."
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
        limit = conf.current().max_line_bytes
        self.buffer.set_progress(
            ProgressValue(
                float(done),
                None if total is None else float(total),
                clean_text(str(message), limit),
            )
        )

    def track(
        self, iterable: Iterable[T], message: str = "", total: float | None = None
    ) -> Iterator[T]:
        """Pass items through and report each as progress; the total is the length if known."""
        if total is None:
            total = len(iterable) if hasattr(iterable, "__len__") else None
        done = 0
        self.progress(done, total, message)
        for item in iterable:
            yield item
            done += 1
            self.progress(done, total, message)

    def subtask(self, fn: Any, *args: Any, **kwargs: Any) -> Draft:
        """
        Plan a child that starts when this body has returned; this task waits for it.

        Write `subtask(fn, 1, x=2)` or the historic `subtask(fn, (1,), {"x": 2})`.
        Return it to make its result this task's result.
        """
        settings = conf.current()
        if len(self.drafts) >= settings.max_children:
            raise InvalidOption(
                f"Task {self.id} asked for more than {settings.max_children} subtasks, which is "
                "CQ['MAX_CHILDREN']. Give each subtask a chunk of the work instead."
            )
        if self.claimed.depth + 1 >= settings.max_depth:
            raise InvalidOption(
                f"A subtask of {self.func_name} would be {self.claimed.depth + 1} levels below "
                f"its root, and CQ['MAX_DEPTH'] is {settings.max_depth}. Build a wider tree, or "
                "chain instead of nesting."
            )
        plan = plan_subtask(fn, args, kwargs, max_args_bytes=settings.max_args_bytes)
        plan.parent = self.id
        self.drafts.append(plan)
        return Draft(self, plan)

    def chain(self, fn: Any, *args: Any, **kwargs: Any) -> Draft:
        """Plan a task that runs after this one has succeeded, with its result if it takes it."""
        return self.link(self.id, self.claimed.parent, fn, args, kwargs)

    def errorback(self, fn: Any, *args: Any, **kwargs: Any) -> None:
        """Refused on a running task: errorbacks are given before it runs, or to subtasks."""
        raise InvalidOption(
            f"errorback({fn!r}) was called in the body of {self.func_name}. Give a task its "
            "errorback where it is delayed or planned, as in cqt.subtask(f).errorback(g)."
        )

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
        self.drafts.append(plan)
        return Draft(self, plan)

    async def commit(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """
        Run the writes of an async body and its completion in one transaction.

        `fn` runs in a thread; its value is the result of the task. It must be the body's
        last act: `return await cqt.commit(save, rows)`. Exactly-once, like an atomic
        sync task; raises AttemptVoid, with everything rolled back, if the claim is void.
        """
        if self.committer is None:
            return await in_db(fn, *args, **kwargs)
        value: T = await self.committer.run(self, lambda: fn(*args, **kwargs))
        return value
