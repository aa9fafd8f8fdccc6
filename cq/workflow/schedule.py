"""
Repeating tasks fire: an entry whose time has come becomes a task.

Any number of schedulers may do this at once, without a leader and without a lock outside
the database: whoever moves `next_run` from the value it read inserts the task, both in one
transaction, and the pair (entry, tick) is unique besides. Also here is `schedule_task`, by
which code and data migrations make entries.
"""

import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, models, router, transaction
from django.db.models import F

from cq.definition import registry
from cq.definition.crontab import Crontab, zone
from cq.definition.options import CallOptions
from cq.definition.signature import Signature, TaskFunctionLike, listed, named
from cq.errors import CQError, InvalidOption, InvalidTask
from cq.failpoints import reached
from cq.models.queries import database
from cq.models.repeating import (
    NAME_LENGTH,
    ROUTING,
    SCHEDULE,
    OnMissed,
    RepeatingTask,
    check_arguments,
    database_now,
    default_name,
    next_run_after,
)
from cq.models.sql import Dialect, dialect
from cq.models.task import Task
from cq.workflow.enqueue import enqueue
from cq.workflow.transaction import engine_transaction, is_connection_loss, repeated

logger = logging.getLogger("cq.schedule")

MAX_MISSED = 1000
LATE = timedelta(minutes=1)
TRY_AGAIN = timedelta(seconds=5)

_unfit: set[tuple[int, int, str]] = set()


@dataclass(frozen=True, slots=True)
class FireResult:
    """What one look at the clock came to; `next_due` is None when nothing is scheduled."""

    now: datetime
    next_due: datetime | None
    tasks: list[Task] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Firing:
    """One entry at one moment: the tick to run, if any, and when the next one is."""

    tick: datetime | None
    missed: int
    next_run: datetime


def fire_due(now: datetime | None = None, limit: int = 100) -> FireResult:
    """
    Turn every entry that is due into a task, at most `limit` entries, and say what comes next.

    Safe to call from anywhere at any time: each tick yields one task however many call. An
    entry that cannot fire is logged once and left as it is, so that another worker, or this
    one after an edit, fires it late. `now` is the database's clock unless it is given.
    """
    most = limit + len(_unfit)
    now, due, upcoming = _look(dialect(), now, most)
    entries = list(RepeatingTask.objects.using(database()).filter(pk__in=due))
    # Many schedulers wake at the same tick: each begins elsewhere.
    random.shuffle(entries)
    tasks: list[Task] = []
    moments = [upcoming] if upcoming else []
    for entry in entries:
        if len(tasks) == limit:
            moments.append(now)
            break
        task, moment = _try(entry, now)
        tasks += [task] if task else []
        moments += [moment] if moment else []
    if len(due) == most:
        moments.append(now if tasks else now + TRY_AGAIN)
    return FireResult(now, min(moments, default=None), tasks)


def fire_entry(pk: int) -> None:
    """Fire one entry if it is due, as the first act of an edit, so that no tick is lost to it."""
    entry = RepeatingTask.objects.using(database()).filter(pk=pk).first()
    now = database_now(database())
    if entry and entry.enabled and entry.next_run and entry.next_run <= now:
        _try(entry, now)


def problem_of(entry: RepeatingTask) -> str:
    """Say why an entry cannot fire in this process; an empty text if it can."""
    try:
        check_arguments(registry.lookup(entry.func_name), entry.args, entry.kwargs)
        next_run_after(entry.crontab, entry.timezone, datetime.now(UTC))
        CallOptions(queue=entry.queue, priority=entry.priority, result_ttl=entry.result_ttl)
    except CQError as error:
        return str(error)
    return ""


def _look(
    db: Dialect, now: datetime | None, limit: int
) -> tuple[datetime, list[int], datetime | None]:
    """Read the clock, the ids of the entries that are due, and the tick after those."""
    clock = db.now if now is None else ("%(at)s::timestamptz" if db.is_postgres else "%(at)s")
    rows = db.run(
        f"""SELECT c.now, r.id, (
            SELECT MIN(u.next_run) FROM cq_repeatingtask AS u WHERE u.enabled AND u.next_run > c.now
        ) FROM (SELECT {clock} AS now) AS c LEFT JOIN cq_repeatingtask AS r
        ON r.enabled AND (r.next_run <= c.now OR r.next_run IS NULL)
        ORDER BY r.next_run LIMIT %(limit)s""",
        {"limit": limit, "at": db.moment(now)},
    )
    moment: datetime = now or db.time(rows[0][0])  # type: ignore[assignment]
    return moment, [id for _, id, _ in rows if id is not None], db.time(rows[0][2])


def _try(entry: RepeatingTask, now: datetime) -> tuple[Task | None, datetime | None]:
    """Fire one entry; return its task, if any, and when to look at it again."""
    try:
        if entry.next_run is None:
            return None, _wind(entry, now)
        if entry.next_run > now:  # somebody fired it between the look and the reading
            return None, entry.next_run
        firing = _plan(entry, entry.next_run, now)
        return repeated(lambda: _fire(entry, firing, now)), firing.next_run
    except CQError as error:
        once = (entry.pk, entry.version, str(error))
        if once not in _unfit:
            _unfit.add(once)
            logger.error("The repeating task %r cannot fire here: %s", entry.name, error)
        return None, None
    except DatabaseError as error:
        if is_connection_loss(error):
            raise
        # One entry that the database refuses must not keep the others from firing.
        logger.exception("The repeating task %r could not be fired.", entry.name)
        return None, now + TRY_AGAIN


def _plan(entry: RepeatingTask, tick: datetime, now: datetime) -> Firing:
    """
    Decide what an entry that was due at `tick` does at `now`.

    Ticks that passed meanwhile become one run, for the latest of them, that says how many
    others it stands for; an entry that does not want late runs waits for the next tick.
    """
    crontab, where = Crontab.parse(entry.crontab), zone(entry.timezone)
    missed = 0
    upcoming = crontab.next_after(tick, where)
    while upcoming <= now and missed < MAX_MISSED:
        tick, missed = upcoming, missed + 1
        upcoming = crontab.next_after(tick, where)
    if upcoming <= now:
        upcoming = crontab.next_after(now, where)
    if entry.on_missed == OnMissed.SKIP and now - tick > LATE:
        return Firing(None, missed + 1, upcoming)
    return Firing(tick, missed, upcoming)


def _fire(entry: RepeatingTask, firing: Firing, now: datetime) -> Task | None:
    """Move the clockwork and insert the task in one transaction; None if another one did."""
    function = registry.lookup(entry.func_name)
    with engine_transaction(lock_timeout_ms=1000):
        rows = RepeatingTask.objects.using(database()).filter(pk=entry.pk)
        moved = rows.filter(next_run=entry.next_run, version=entry.version, enabled=True).update(
            next_run=firing.next_run
        )
        if not moved:
            return None
        if firing.tick is None:
            rows.update(skipped=F("skipped") + firing.missed, last_skip=now)
            return None
        options = CallOptions(**entry.call_options(), tick=firing.tick, missed=firing.missed)
        reached("mid_fire", [entry])
        task = enqueue(Signature(function, tuple(entry.args), entry.kwargs, options))
        if task.is_merged:
            rows.update(skipped=F("skipped") + 1, last_skip=now)
            return None
        rows.update(last_run=now)
        reached("before_fire_commit", [entry])
        return task


def _wind(entry: RepeatingTask, now: datetime) -> datetime:
    """Give an entry that came by plain SQL, or from a fixture, its first `next_run`."""
    upcoming = next_run_after(entry.crontab, entry.timezone, now)
    rows = RepeatingTask.objects.using(database())
    rows.filter(pk=entry.pk, next_run=None, version=entry.version).update(next_run=upcoming)
    return upcoming


def schedule_task(
    model: type[models.Model],
    crontab: str,
    fn: TaskFunctionLike | str,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    using: str | None = None,
    **options: Any,
) -> Any:
    """
    Make a repeating task, or bring an existing one of the same name up to date, and return it.

    `model` is RepeatingTask, or its historical model in a data migration. The name defaults
    to the function with its arguments and crontab, so a second call with the same three
    changes nothing. What is not given here is left as it is: an entry that somebody has
    disabled stays disabled. Options: timezone, enabled, queue, priority, result_ttl,
    coalesce, on_missed.
    """
    _check_model(model)
    function = _function(fn)
    _check_options(name, options)
    Crontab.parse(crontab)
    plain_args, plain_kwargs = check_arguments(function, listed(args), named(kwargs))
    name = name or default_name(function.name, crontab, plain_args, plain_kwargs)
    wanted = {
        "func_name": function.name,
        "crontab": crontab,
        "args": plain_args,
        "kwargs": plain_kwargs,
        **options,
    }
    alias = using or router.db_for_write(model)
    with transaction.atomic(using=alias):
        return _make_or_update(model, alias, name, wanted)


def _check_model(model: Any) -> None:
    # Known by its label: the historical model of a migration is another class.
    label = getattr(getattr(model, "_meta", None), "label_lower", None)
    if label != "cq.repeatingtask":
        raise InvalidOption(
            f"schedule_task() got {model!r:.100} as its model, which is no RepeatingTask. Pass "
            "RepeatingTask, or in a migration apps.get_model('cq', 'RepeatingTask')."
        )


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known = {*ROUTING, *SCHEDULE} - {"crontab"}
    for option in options:
        if option not in known:
            raise InvalidOption(
                f"{option!r} is not an option of schedule_task(). The options are "
                f"{', '.join(sorted(known))}. Remove it.",
                option=option,
            )
    if len(name) > NAME_LENGTH:
        raise InvalidOption(
            f"The name {name[:40]!r}… has {len(name)} characters. It may have {NAME_LENGTH}. "
            "Give a shorter one.",
            name=name,
        )
    CallOptions(
        queue=options.get("queue"),
        priority=options.get("priority"),
        result_ttl=options.get("result_ttl"),
    )


def _make_or_update(
    model: type[models.Model], alias: str, name: str, wanted: dict[str, Any]
) -> Any:
    # A historical model has fields, and none of our methods.
    rows = model._default_manager.using(alias)
    blank: Any = model(name=name, **wanted)
    entry, made = rows.get_or_create(name=name, defaults={**wanted, **_clockwork(blank, alias)})
    if made:
        return entry
    entry = rows.select_for_update().get(pk=entry.pk)
    changed = {key: value for key, value in wanted.items() if getattr(entry, key) != value}
    if not changed:
        return entry
    for key, value in changed.items():
        setattr(entry, key, value)
    changed |= {} if changed.keys().isdisjoint(SCHEDULE) else _clockwork(entry, alias)
    rows.filter(pk=entry.pk).update(version=F("version") + 1, **changed)
    return rows.get(pk=entry.pk)


def _clockwork(entry: Any, alias: str) -> dict[str, datetime | None]:
    upcoming = next_run_after(entry.crontab, entry.timezone, database_now(alias))
    return {"next_run": upcoming if entry.enabled else None}


def _function(fn: TaskFunctionLike | str) -> TaskFunctionLike:
    if isinstance(fn, str):
        return registry.lookup(fn)
    name = getattr(fn, "name", None)
    if not isinstance(name, str) or registry.find(name) is not fn:
        raise InvalidTask(
            f"schedule_task() got {fn!r}, which is no task function. It needs a function with "
            "@task, or the name of a registered one. Put @task above it.",
            function=fn,
        )
    return fn
