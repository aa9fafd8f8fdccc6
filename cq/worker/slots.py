"""
Slots: how many more tasks this process can run, of which kind, and under which names.

Async tasks share one number, sync tasks the threads, those of `pool="process"` the
children. A slot is taken with the claim and freed when the body has really ended, so that
a leaked thread keeps its slot.
"""

from uuid import UUID

from cq.definition import registry
from cq.definition.signature import TaskFunctionLike
from cq.models.transitions import Claimed, Want

MAX_CLAIM = 500


class Slots:
    """The room of one process; used on its loop alone."""

    def __init__(self, *, slots: int, threads: int, processes: int) -> None:
        self._free = {"async": slots, "thread": threads, "process": processes}
        self._taken: dict[UUID, str] = {}
        self._names = _names_by_pool()
        self.names = tuple(sorted(name for names in self._names.values() for name in names))
        """Every name that this process can run."""

    def take(self, claimed: Claimed) -> None:
        """A task was claimed."""
        pool = _pool_of(registry.lookup(claimed.func_name))
        self._taken[claimed.token] = pool
        self._free[pool] -= 1

    def free(self, claimed: Claimed) -> None:
        """Its body has ended; a second call does nothing."""
        pool = self._taken.pop(claimed.token, None)
        if pool is not None:
            self._free[pool] += 1

    def room(self, most: int | None = None) -> list[Want]:
        """What may be claimed now, for each pool that has room; at most `most` tasks in all."""
        open_pools = [pool for pool, free in self._free.items() if free > 0 and self._names[pool]]
        wants = [Want(self._names[pool], min(self._free[pool], MAX_CLAIM)) for pool in open_pools]
        if most is None or sum(want.limit for want in wants) <= most:
            return wants
        # The last ones go out in portions that fit whichever pool they fall into.
        portion = min(most, *(want.limit for want in wants))
        together = tuple(name for want in wants for name in want.names)
        return [Want(together, portion)] if portion > 0 else []


def _pool_of(function: TaskFunctionLike) -> str:
    if function.options.pool == "process":
        return "process"
    return "async" if function.is_async else "thread"


def _names_by_pool() -> dict[str, tuple[str, ...]]:
    names: dict[str, set[str]] = {"async": set(), "thread": set(), "process": set()}
    for function in registry.functions():
        names[_pool_of(function)] |= registry.aliases(function)
    return {pool: tuple(sorted(found)) for pool, found in names.items()}
