"""
The repeating task: a row that says what to run, when, and when it runs next.

People edit the definition (what and when); the scheduler alone moves the clockwork
(`next_run`, `last_run`, `skipped`). Saving writes the definition only, guarded by `version`,
so an edit can neither undo a tick that has just fired nor be fired half-way.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import connections, models, router, transaction
from django.utils import timezone

from cq import conf
from cq.definition import registry
from cq.definition.crontab import Crontab, zone
from cq.definition.options import CallOptions
from cq.definition.payload import check_json, dumps
from cq.definition.signature import TaskFunctionLike, check_call
from cq.errors import CQError, EditConflict, InvalidArguments
from cq.models.verbs import delay, schedule_task

CALL = ("func_name", "args", "kwargs")
SCHEDULE = ("crontab", "timezone", "enabled")
ROUTING = ("queue", "priority", "result_ttl", "coalesce", "on_missed")
DEFINITION = ("name", *CALL, *SCHEDULE, *ROUTING)
CLOCKWORK = ("next_run", "last_run", "skipped", "last_skip")
NAME_LENGTH = 200


def default_timezone() -> str:
    """The project's TIME_ZONE."""
    return timezone.get_default_timezone_name()


def database_now(using: str) -> datetime:
    """The time of the database's clock, the only one that schedules go by."""
    if connections[using].vendor != "postgresql":
        return timezone.now()
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment


def next_run_after(crontab: str, timezone: str, now: datetime) -> datetime:
    """The first tick later than `now`; raises InvalidCrontab or InvalidOption."""
    return Crontab.parse(crontab).next_after(now, zone(timezone))


def default_name(func_name: str, crontab: str, args: list[Any], kwargs: Mapping[str, Any]) -> str:
    """Name an entry after its function, crontab and arguments; equal ones get equal names."""
    spelled = [dumps(arg) for arg in args]
    spelled += [f"{name}={dumps(kwargs[name])}" for name in sorted(kwargs)]
    name = f"{func_name}({', '.join(spelled)}) {' '.join(str(crontab).split())}"
    if len(name) <= NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: NAME_LENGTH - 18]}… {digest}"


def check_arguments(
    function: TaskFunctionLike, args: object, kwargs: object
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments as plain JSON, or raise InvalidArguments naming the parameter."""
    if not isinstance(args, list | tuple):
        raise InvalidArguments(
            f"args is {args!r:.80}. It must be a list, such as [1, 2]. Write [] for none."
        )
    if not isinstance(kwargs, Mapping):
        raise InvalidArguments(
            f"kwargs is {kwargs!r:.80}. It must be an object, such as {{'a': 1}}. "
            "Write {} for none."
        )
    limit = conf.current().max_args_bytes
    plain_args = check_json(args, "args", max_bytes=limit)
    plain_kwargs = check_json(kwargs, "kwargs", max_bytes=limit)
    check_call(function, plain_args, plain_kwargs)  # type: ignore[arg-type]
    return plain_args, plain_kwargs  # type: ignore[return-value]


class OnMissed(models.TextChoices):
    """What becomes of ticks that no worker was there to fire."""

    RUN = "run", "run once, as soon as possible"
    SKIP = "skip", "wait for the next time"


class RepeatingTask(models.Model):
    """
    A task function that runs again and again, by a crontab in a time zone.

    `name` is filled in when it is empty. `args` and `kwargs` may change at any time without
    moving a tick; a new crontab, zone or `enabled` counts from the moment it is saved.
    """

    name = models.CharField(
        max_length=NAME_LENGTH,
        unique=True,
        blank=True,
        help_text="Left empty, it becomes the function with its arguments and crontab.",
    )
    func_name = models.CharField("task function", max_length=200)
    crontab = models.CharField(
        max_length=100,
        default="* * * * *",
        help_text="Minute, hour, day of month, month, weekday; for example 30 2 * * 1-5.",
    )
    timezone = models.CharField("time zone", max_length=64, default=default_timezone)
    args = models.JSONField("arguments", default=list, blank=True)
    kwargs = models.JSONField("keyword arguments", default=dict, blank=True)
    queue = models.CharField(
        max_length=80, null=True, blank=True, help_text="Left empty, the function's own."
    )
    priority = models.SmallIntegerField(
        null=True, blank=True, help_text="-100 to 100; left empty, the function's own."
    )
    result_ttl = models.IntegerField(
        "result TTL", null=True, blank=True, help_text="Seconds to keep what has ended."
    )
    coalesce = models.BooleanField(
        default=True, help_text="Skip a tick while the previous run has not ended."
    )
    on_missed = models.CharField(
        "after downtime", max_length=8, choices=OnMissed.choices, default=OnMissed.RUN
    )
    enabled = models.BooleanField(default=True)

    next_run = models.DateTimeField(null=True, blank=True, editable=False)
    last_run = models.DateTimeField(null=True, blank=True, editable=False)
    skipped = models.IntegerField(default=0, editable=False)
    last_skip = models.DateTimeField(null=True, blank=True, editable=False)
    version = models.IntegerField(default=1, editable=False)

    class Meta:
        app_label = "cq"
        db_table = "cq_repeatingtask"
        verbose_name = "repeating task"
        ordering: ClassVar[list[str]] = ["name"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["next_run"], name="cq_repeating_due", condition=models.Q(enabled=True)
            )
        ]

    def __str__(self) -> str:
        return self.name

    def save(
        self,
        force_insert: bool | tuple[models.base.ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """
        Write the definition, and set `next_run` later than now if the schedule changed.

        Raises a CQError for a definition that could not fire, and EditConflict, with
        nothing written, when somebody else saved the entry after this one was read.
        """
        alias = using or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=alias):
            if self._state.adding:
                self._complete(DEFINITION, alias)
                super().save(force_insert=force_insert, using=alias)
            else:
                self._update(alias, update_fields)

    @property
    def function(self) -> TaskFunctionLike | None:
        """The task function, looked up among the registered ones; None if it has vanished."""
        return registry.find(self.func_name)

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Check every field on its own and name the wrong ones."""
        super().clean_fields(exclude)
        problems: dict[str, str] = {}
        checks: dict[str, Callable[[], object]] = {
            "crontab": lambda: Crontab.parse(self.crontab),
            "timezone": lambda: zone(self.timezone),
            "func_name": lambda: registry.lookup(self.func_name),
            "queue": lambda: CallOptions(queue=self.queue),
            "priority": lambda: CallOptions(priority=self.priority),
            "result_ttl": lambda: CallOptions(result_ttl=self.result_ttl),
        }
        for field in checks.keys() - set(exclude or ()):
            try:
                checks[field]()
            except CQError as error:
                problems[field] = str(error)
        if problems:
            raise ValidationError(problems)

    def clean(self) -> None:
        """Check that the function takes the arguments, and name the parameter if not."""
        super().clean()
        self.name = self.name or self._default_name()
        if self.function is None:
            return  # clean_fields has said so
        try:
            self.args, self.kwargs = check_arguments(self.function, self.args, self.kwargs)
        except InvalidArguments as error:
            field = "kwargs" if "keyword" in str(error) or "kwargs" in str(error)[:7] else "args"
            raise ValidationError({field: str(error)}) from error

    def submit(self) -> Any:
        """Run it now, beside its schedule: the task, or None if a run has not ended yet."""
        function = registry.lookup(self.func_name)
        task = delay(function, self.args, self.kwargs, **self.call_options())
        return None if task.is_merged else task

    @classmethod
    def schedule(cls, *args: Any, **kwargs: Any) -> Any:
        """Make or update an entry: `RepeatingTask.schedule(crontab, fn, args, kwargs)`."""
        return schedule_task(cls, *args, **kwargs)

    def call_options(self) -> dict[str, Any]:
        """The options of the call that each run of this entry is."""
        return {
            "queue": self.queue,
            "priority": self.priority,
            "result_ttl": self.result_ttl,
            "coalesce": "active" if self.coalesce else False,
            "repeating": self.pk,
        }

    def _update(self, alias: str, fields: Iterable[str] | None) -> None:
        # The lock keeps the scheduler from moving the clockwork between this look and the write.
        rows = type(self)._base_manager.using(alias).select_for_update()
        stored: Mapping[str, Any] = rows.values().get(pk=self.pk)
        if stored["version"] != self.version:
            raise EditConflict(
                f"The repeating task {self.name!r} was read at version {self.version} and is now "
                f"at {stored['version']}. Nothing was saved. Load it again and repeat the change.",
                name=self.name,
                read_version=self.version,
                version=stored["version"],
            )
        for field in CLOCKWORK:
            setattr(self, field, stored[field])
        wanted = DEFINITION if fields is None else tuple(fields)
        changed = {
            field
            for field in DEFINITION
            if field in wanted and getattr(self, field) != stored[field]
        }
        if changed:
            written = changed | self._complete(changed, alias)
            self.version += 1
            super().save(force_update=True, using=alias, update_fields=[*written, "version"])

    def _complete(self, changed: Collection[str], alias: str) -> set[str]:
        """Check what changed and derive what follows from it; return the derived fields."""
        if not set(CALL).isdisjoint(changed):
            function = registry.lookup(self.func_name)
            self.args, self.kwargs = check_arguments(function, self.args, self.kwargs)
        # Made to be checked: a run with these would be refused at every tick.
        CallOptions(queue=self.queue, priority=self.priority, result_ttl=self.result_ttl)
        self.name = self.name or self._default_name()
        if set(SCHEDULE).isdisjoint(changed):
            return {"name"}
        upcoming = next_run_after(self.crontab, self.timezone, database_now(alias))
        self.next_run = upcoming if self.enabled else None
        return {"name", "next_run"}

    def _default_name(self) -> str:
        return default_name(self.func_name, self.crontab, self.args, self.kwargs)
