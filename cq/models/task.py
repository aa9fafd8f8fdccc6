"""
The task row: one requested run of a task function, with its whole history.

A row may be inserted by anybody who can write to the table, in SQL too: every column
has a database default that makes a plain row a queued task. Who may change `status`
afterwards, and under which guard, is the business of `transitions.py` alone.
"""

from typing import Any, ClassVar
from uuid import UUID

from django.db import models
from django.db.models.functions import Now

from cq.definition.status import ACTIVE, ERROR, TERMINAL, Status
from cq.models.columns import EmptyArray, EmptyObject, RandomUUID, new_id
from cq.models.verbs import TaskVerbs

_SHORT = 200


class TaskQuerySet(models.QuerySet["Task"]):
    """The task table, with the few questions everybody asks."""

    def active(self) -> "TaskQuerySet":
        """Tasks that are not terminal."""
        return self.filter(status__in=sorted(ACTIVE))

    def roots(self) -> "TaskQuerySet":
        """Tasks that head a tree of their own."""
        return self.filter(root__isnull=True)


class Task(TaskVerbs, models.Model):
    """
    One requested run of a task function, from `delay()` to its terminal status.

    Read what you like; change it only through the verbs (`wait`, `revoke`, `retry`,
    `chain`, …). Saving an instance by hand is refused, since it would overwrite what a
    worker wrote in the meantime.
    """

    STATUS_PENDING = Status.PENDING
    STATUS_QUEUED = Status.QUEUED
    STATUS_RUNNING = Status.RUNNING
    STATUS_RETRY = Status.RETRY
    STATUS_WAITING = Status.WAITING
    STATUS_SUCCESS = Status.SUCCESS
    STATUS_COMPLETE = Status.SUCCESS
    STATUS_FAILURE = Status.FAILURE
    STATUS_INCOMPLETE = Status.INCOMPLETE
    STATUS_LOST = Status.LOST
    STATUS_REVOKED = Status.REVOKED
    STATUS_DONE: ClassVar[frozenset[Status]] = TERMINAL
    STATUS_ERROR: ClassVar[frozenset[Status]] = ERROR
    STATUS_ACTIVE: ClassVar[frozenset[Status]] = ACTIVE
    STATUS_CHOICES: ClassVar[list[tuple[str, str]]] = [(s.value, s.label) for s in Status]

    id = models.UUIDField(primary_key=True, default=new_id, db_default=RandomUUID(), editable=False)
    func_name = models.CharField("task function", max_length=_SHORT)
    args = models.JSONField(default=list, db_default=EmptyArray(), blank=True)
    kwargs = models.JSONField(default=dict, db_default=EmptyObject(), blank=True)
    status = models.CharField(
        max_length=1, choices=STATUS_CHOICES, default="Q", db_default="Q", editable=False
    )
    queue = models.CharField(max_length=80, default="default", db_default="default")
    priority = models.SmallIntegerField(default=0, db_default=0)
    run_at = models.DateTimeField("due", db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    parked = models.BooleanField(default=False, db_default=False, editable=False)

    parent = models.ForeignKey(
        "self",
        models.DO_NOTHING,
        related_name="subtasks",
        null=True,
        blank=True,
        db_index=False,
        db_constraint=False,
    )
    root = models.ForeignKey(
        "self",
        models.DO_NOTHING,
        related_name="tree",
        null=True,
        blank=True,
        db_index=False,
        db_constraint=False,
    )
    previous = models.ForeignKey(
        "self",
        models.DO_NOTHING,
        related_name="next",
        null=True,
        blank=True,
        db_index=False,
        db_constraint=False,
    )
    depth = models.SmallIntegerField(default=0, db_default=0)
    generation = models.SmallIntegerField(default=0, db_default=0)
    previous_result = models.JSONField(null=True, blank=True)
    pass_result = models.BooleanField(default=False, db_default=False)
    force_chain = models.BooleanField(default=False, db_default=False)
    children_open = models.IntegerField(default=0, db_default=0)
    children_failed = models.IntegerField(default=0, db_default=0)
    waiting_on = models.UUIDField(null=True, blank=True)

    attempts = models.SmallIntegerField(default=0, db_default=0)
    retries = models.SmallIntegerField(default=0, db_default=0)
    crashes = models.SmallIntegerField(default=0, db_default=0)
    releases = models.SmallIntegerField(default=0, db_default=0)
    max_retries = models.SmallIntegerField(null=True, blank=True)
    timeout = models.FloatField(null=True, blank=True)
    at_most_once = models.BooleanField(default=False, db_default=False)

    claim_token = models.UUIDField(null=True, blank=True, editable=False)
    done_token = models.UUIDField(null=True, blank=True, editable=False)
    worker = models.ForeignKey(
        "cq.Worker",
        models.DO_NOTHING,
        related_name="tasks",
        null=True,
        blank=True,
        db_index=False,
        db_constraint=False,
    )
    submitted = models.DateTimeField(db_default=Now())
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)

    result = models.JSONField(null=True, blank=True)
    error = models.TextField(null=True, blank=True)
    errors = models.JSONField(default=list, db_default=EmptyArray(), blank=True)
    errorbacks = models.JSONField(default=list, db_default=EmptyArray(), blank=True)
    result_ttl = models.IntegerField(null=True, blank=True)
    result_expiry = models.DateTimeField(null=True, blank=True)

    unique_key = models.CharField(max_length=64, null=True, blank=True)
    unique_running = models.BooleanField(default=False, db_default=False)
    repeating = models.ForeignKey(
        "cq.RepeatingTask",
        models.DO_NOTHING,
        related_name="tasks",
        null=True,
        blank=True,
        db_index=False,
        db_constraint=False,
    )
    tick = models.DateTimeField(null=True, blank=True)
    missed = models.IntegerField(default=0, db_default=0)
    owner = models.CharField(max_length=_SHORT, null=True, blank=True)
    traceparent = models.CharField(max_length=64, null=True, blank=True)

    objects = TaskQuerySet.as_manager()

    is_merged = False
    """Whether a coalesced delay() returned this row instead of making one."""

    class Meta:
        app_label = "cq"
        db_table = "cq_task"
        permissions = (
            ("view_task_payload", "Can see the arguments and results of tasks"),
            ("retry_task", "Can retry tasks"),
            ("revoke_task", "Can revoke tasks"),
            ("run_task", "Can start tasks by hand"),
        )
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["queue", "-priority", "run_at", "id"],
                name="cq_task_due",
                condition=models.Q(status__in=["Q", "Y"], parked=False),
            ),
            models.Index(
                fields=["func_name"], name="cq_task_parked", condition=models.Q(parked=True)
            ),
            models.Index(
                fields=["parent"], name="cq_task_parent", condition=models.Q(parent__isnull=False)
            ),
            models.Index(
                fields=["root"], name="cq_task_root", condition=models.Q(root__isnull=False)
            ),
            models.Index(
                fields=["previous"],
                name="cq_task_previous",
                condition=models.Q(previous__isnull=False),
            ),
            models.Index(
                fields=["worker"], name="cq_task_worker", condition=models.Q(worker__isnull=False)
            ),
            # Of roots alone: children whose root is kept for longer would be read at each prune.
            models.Index(
                fields=["result_expiry"],
                name="cq_task_expiry",
                condition=models.Q(result_expiry__isnull=False, root__isnull=True),
            ),
            models.Index(
                fields=["expires_at"],
                name="cq_task_expires",
                condition=models.Q(expires_at__isnull=False, status__in=["Q", "Y"]),
            ),
            # For people who look for what is not as it should be: no task that is queued,
            # claimed and ends well ever has an entry.
            models.Index(
                fields=["status", "id"],
                name="cq_task_aside",
                condition=models.Q(status__in=["P", "W", "F", "I", "L", "E"]),
            ),
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["func_name", "unique_key"],
                name="cq_task_unique_waiting",
                condition=models.Q(
                    unique_key__isnull=False, unique_running=False, status__in=["P", "Q", "Y"]
                ),
            ),
            models.UniqueConstraint(
                fields=["func_name", "unique_key"],
                name="cq_task_unique_active",
                condition=models.Q(
                    unique_key__isnull=False,
                    unique_running=True,
                    status__in=["P", "Q", "Y", "R", "W"],
                ),
            ),
            models.UniqueConstraint(
                fields=["repeating", "tick"],
                name="cq_task_tick",
                condition=models.Q(tick__isnull=False),
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=[s.value for s in Status]), name="cq_task_status"
            ),
            models.CheckConstraint(
                condition=(
                    models.Q(status="R", claim_token__isnull=False)
                    | (~models.Q(status="R") & models.Q(claim_token__isnull=True))
                ),
                name="cq_task_claimed",
            ),
            models.CheckConstraint(
                condition=(
                    models.Q(status__in=sorted(TERMINAL), finished__isnull=False)
                    | (~models.Q(status__in=sorted(TERMINAL)) & models.Q(finished__isnull=True))
                ),
                name="cq_task_finished",
            ),
            models.CheckConstraint(
                condition=~models.Q(status="W") | models.Q(children_open__gt=0),
                name="cq_task_waiting",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    children_open__gte=0,
                    children_failed__gte=0,
                    attempts__gte=0,
                    retries__gte=0,
                    crashes__gte=0,
                    releases__gte=0,
                ),
                name="cq_task_counters",
            ),
            models.CheckConstraint(
                condition=models.Q(priority__gte=-100, priority__lte=100), name="cq_task_priority"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.func_name} {self.id} ({Status(self.status).label})"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert a new row; an existing one is changed by its verbs only."""
        if not self._state.adding:
            raise TypeError(
                f"Task {self.id} was to be saved over its row. A row belongs to whoever holds "
                "its claim; use its verbs (revoke(), retry(), submit()) instead of save()."
            )
        super().save(*args, **kwargs)

    @property
    def root_uuid(self) -> UUID:
        """The id of the top-level parent, which is the row's own for a root."""
        return self.root_id or self.id

    @property
    def is_terminal(self) -> bool:
        """Whether the status can change only by a retry."""
        return self.status in TERMINAL
