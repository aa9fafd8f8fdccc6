"""
An explorer of interleavings: the engine's real statements, in every order that is asked for.

Each actor is a thread with a connection of its own and stops before every statement and
before every COMMIT, until it is told to go on. One moves at a time; who waits for a row lock
is seen in pg_locks. A schedule that breaks a promise is raised with its steps. `explore`
walks the tree of schedules by replay: first those without a preemption, then those with one,
and so on up to a bound.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, connections

ENOUGH_SECONDS = 20.0
MOST_STEPS = 400
COMMIT, PAUSE, START = "COMMIT", "pause", "start"

Act = Callable[[], object]
Look = Callable[["Step"], None]


class BrokenSchedule(AssertionError):
    """A promise did not hold; the message is the schedule that broke it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: who could have moved, who did, and what it did."""

    actor: str
    did: str
    enabled: tuple[str, ...]
    is_preemption: bool


class Actor:
    """A thread with a connection of its own, which moves when it is told to."""

    def __init__(self, name: str, world: threading.Condition) -> None:
        self.name = name
        self.at = ""
        self.error: BaseException | None = None
        self.pid = 0
        self._world = world
        self._act: Act | None = None
        self._may_go = self._runs_free = False
        self.is_over = False
        self._state = "idle"
        self._thread = threading.Thread(target=self._main, name=f"actor-{name}", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it stands before a step."""
        return self._state == "ready"

    @property
    def is_running(self) -> bool:
        return self._state == "running"

    def begin(self, act: Act) -> None:
        with self._world:
            self._act, self.error, self.at = act, None, START
            self._state, self._may_go, self._runs_free = "running", False, False
            self._world.notify_all()

    def go(self) -> None:
        """Let it make its step; returns at once."""
        self._state, self._may_go = "running", True
        self._world.notify_all()

    def run_free(self) -> None:
        self._runs_free = True
        if self.is_ready:
            self.go()

    def close(self) -> None:
        with self._world:
            self.is_over = True
            self._world.notify_all()
        self._thread.join(10)

    def stop_before(self, what: str) -> None:
        """Stand before a step until told to make it."""
        with self._world:
            if self._runs_free:
                return
            self.at, self._state = what, "ready"
            self._world.notify_all()
            self._world.wait_for(lambda: self._may_go)
            self._may_go = False

    def _main(self) -> None:
        try:
            connection.ensure_connection()
            self.pid = connection.connection.info.backend_pid
            commit = connection._commit

            def commit_when_told() -> None:
                self.stop_before(COMMIT)
                commit()

            connection._commit = commit_when_told
            with connection.execute_wrapper(self._execute):
                while self._await_act():
                    self._play()
        finally:
            connections.close_all()

    def _await_act(self) -> bool:
        with self._world:
            self._world.wait_for(lambda: self._act is not None or self.is_over)
            return not self.is_over

    def _play(self) -> None:
        act, self._act = self._act, None
        try:
            self.stop_before(START)
            act()  # type: ignore[misc]
        except BaseException as problem:  # noqa: BLE001 - told to whoever looks at the schedule
            self.error = problem
        with self._world:
            self._state = "idle"
            self._world.notify_all()

    def _execute(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.stop_before(brief(sql))
        return execute(sql, params, many, context)


def brief(sql: str) -> str:
    """The first words of a statement."""
    text = re.sub(r"\s+", " ", sql).strip()
    writes = re.search(r"(?<!FOR )(?<!KEY )\b(?:UPDATE|INSERT INTO|DELETE FROM) \w+", text)
    if writes:
        return writes[0]
    table = re.search(r" FROM (cq_\w+)", text)
    lock = " and lock" if "FOR " in text else ""
    return f"SELECT {table[1]}{lock}" if table else text[:40]


@dataclass
class Explorer:
    """Some actors, and what each schedule of theirs has to keep."""

    names: Sequence[str]
    actors: dict[str, Actor] = field(default_factory=dict)
    world: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.actors = {name: Actor(name, self.world) for name in self.names}

    def close(self) -> None:
        for actor in self.actors.values():
            actor.close()

    def run(self, acts: Mapping[str, Act], wanted: Sequence[str], look: Look) -> list[Step]:
        """Play one schedule: the wanted moves first, then each actor to its end."""
        cast = {name: self.actors[name] for name in acts}
        steps: list[Step] = []
        try:
            for name, actor in cast.items():
                actor.begin(acts[name])
            self._settle(cast)
            while enabled := [name for name, actor in cast.items() if actor.is_ready]:
                steps.append(self._move(cast, enabled, wanted, steps))
                look(steps[-1])
            stuck = [name for name, actor in cast.items() if actor.is_running]
            assert not stuck, f"{stuck} wait for each other"
            for actor in cast.values():
                if actor.error is not None:
                    raise actor.error
        except BaseException as problem:
            told = "\n".join(f"  {step.actor}: {step.did}" for step in steps)
            raise BrokenSchedule(f"{problem!r} after\n{told}") from problem
        finally:
            self._end(cast)
        return steps

    def _move(
        self,
        cast: Mapping[str, Actor],
        enabled: list[str],
        wanted: Sequence[str],
        steps: Sequence[Step],
    ) -> Step:
        assert len(steps) < MOST_STEPS, "it goes on for ever"
        last = steps[-1].actor if steps else None
        # One that only looks again gives way to those that can change what it sees.
        goes_on = last in enabled and cast[last].at != PAUSE
        others = [name for name in enabled if cast[name].at != PAUSE] or enabled
        name = wanted[len(steps)] if len(steps) < len(wanted) else last if goes_on else others[0]
        assert name in enabled, f"{name} cannot move here: a schedule is not repeatable"
        step = Step(name, cast[name].at, tuple(enabled), goes_on and name != last)
        with self.world:
            cast[name].go()
        self._settle(cast)
        return step

    def _settle(self, cast: Mapping[str, Actor]) -> None:
        """Wait until each actor stands, has ended, or waits for a lock."""
        with self.world:
            while running := [actor for actor in cast.values() if actor.is_running]:
                if self.world.wait(0.005):
                    continue
                waiting = self._waiting()
                if all(actor.pid in waiting for actor in running if actor.is_running):
                    return

    def _waiting(self) -> set[int]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pid FROM pg_locks WHERE NOT granted")
            return {pid for (pid,) in cursor.fetchall()}

    def _end(self, cast: Mapping[str, Actor]) -> None:
        with self.world:
            for actor in cast.values():
                actor.run_free()
            ended = self.world.wait_for(
                lambda: not any(actor.is_running or actor.is_ready for actor in cast.values()),
                ENOUGH_SECONDS,
            )
            assert ended, "an actor does not end"

    def explore(
        self, play: Callable[[Sequence[str]], list[Step]], *, preemptions: int, limit: int = 10**9
    ) -> int:
        """Play every schedule with at most so many preemptions; return how many there were."""
        levels: list[list[list[str]]] = [[[]], *([] for _ in range(preemptions))]
        played = 0
        for level, prefixes in enumerate(levels):
            while prefixes and played < limit:
                prefix = prefixes.pop()
                steps = play(prefix)
                played += 1
                for again, taken in _alternatives(steps, len(prefix)):
                    if level + taken <= preemptions:
                        levels[level + taken].append(again)
        return played


def _alternatives(steps: Sequence[Step], start: int) -> Iterator[tuple[list[str], int]]:
    """Other moves at each decision that a schedule left to chance, with their cost."""
    moves = [step.actor for step in steps]
    for number in range(start, len(steps)):
        step = steps[number]
        last = moves[number - 1] if number else None
        can_go_on = last in step.enabled and step.actor == last
        for other in step.enabled:
            if other != step.actor:
                yield [*moves[:number], other], int(can_go_on)


class StandsStill:
    """In the place of an event that is waited for: a step that others may come before."""

    def __init__(self, explorer: Explorer) -> None:
        self._actors = {actor._thread: actor for actor in explorer.actors.values()}

    def wait(self, seconds: float | None = None) -> None:
        actor = self._actors.get(threading.current_thread())  # type: ignore[arg-type]
        if actor is not None:
            actor.stop_before(PAUSE)


@contextmanager
def exploring(names: Sequence[str]) -> Iterator[Explorer]:
    """Actors of these names, whose connections are closed at the end."""
    explorer = Explorer(names)
    try:
        yield explorer
    finally:
        explorer.close()
