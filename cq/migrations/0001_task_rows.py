import django.db.models.deletion
import django.db.models.functions.datetime
from django.core.management.base import CommandError
from django.db import migrations, models

import cq.definition.status
import cq.models.columns
import cq.models.repeating
import cq.models.verbs


def refuse_legacy_tables(apps, schema_editor):
    """Stop before the tables of the 2019 package, which bear the same names, are touched."""
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
    if "cq_task" in tables or "cq_repeatingtask" in tables:
        raise CommandError(
            f"The database {connection.settings_dict['NAME']!r} still holds the tables of the 2019 "
            "django-cq (cq_task, cq_repeatingtask), whose rows this version cannot read; rename "
            "or drop them first, as docs/guides/upgrade-from-2019.md says."
        )


def tune_storage(apps, schema_editor):
    """Let autovacuum follow a table whose every row is updated twice within seconds."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE cq_task SET (autovacuum_vacuum_scale_factor = 0.02, "
            "autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)"
        )
        schema_editor.execute("ALTER TABLE cq_worker SET (fillfactor = 50)")
        schema_editor.execute("ALTER TABLE cq_stream SET (fillfactor = 50)")


class Migration(migrations.Migration):
    """The rows of cq: tasks, streams, lines, progress, workers and repeating tasks."""

    initial = True

    dependencies = []

    operations = [
        migrations.RunPython(refuse_legacy_tables, migrations.RunPython.noop),
        migrations.CreateModel(
            name="LogLine",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "root", "seq", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("root", models.UUIDField()),
                ("seq", models.BigIntegerField()),
                ("task", models.UUIDField()),
                ("func_name", models.CharField(max_length=200)),
                ("attempt", models.SmallIntegerField(default=0)),
                ("level", models.SmallIntegerField(default=20)),
                ("message", models.TextField()),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "cq_logline",
            },
        ),
        migrations.CreateModel(
            name="Stream",
            fields=[
                ("root", models.UUIDField(primary_key=True, serialize=False)),
                ("seq", models.BigIntegerField(db_default=0, default=0)),
                ("open", models.BooleanField(db_default=True, default=True)),
                ("tree_open", models.IntegerField(db_default=0, default=0)),
            ],
            options={
                "db_table": "cq_stream",
            },
        ),
        migrations.CreateModel(
            name="Progress",
            fields=[
                ("task", models.UUIDField(primary_key=True, serialize=False)),
                ("root", models.UUIDField()),
                ("done", models.FloatField(default=0)),
                ("total", models.FloatField(null=True)),
                ("message", models.TextField(blank=True, default="")),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "cq_progress",
                "indexes": [models.Index(fields=["root"], name="cq_progress_root")],
            },
        ),
        migrations.CreateModel(
            name="RepeatingTask",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        blank=True,
                        help_text="Left empty, it becomes the function with its arguments and crontab.",
                        max_length=200,
                        unique=True,
                    ),
                ),
                ("func_name", models.CharField(max_length=200, verbose_name="task function")),
                (
                    "crontab",
                    models.CharField(
                        default="* * * * *",
                        help_text="Minute, hour, day of month, month, weekday; for example 30 2 * * 1-5.",
                        max_length=100,
                    ),
                ),
                (
                    "timezone",
                    models.CharField(
                        default=cq.models.repeating.default_timezone,
                        max_length=64,
                        verbose_name="time zone",
                    ),
                ),
                ("args", models.JSONField(blank=True, default=list, verbose_name="arguments")),
                (
                    "kwargs",
                    models.JSONField(blank=True, default=dict, verbose_name="keyword arguments"),
                ),
                (
                    "queue",
                    models.CharField(
                        blank=True,
                        help_text="Left empty, the function's own.",
                        max_length=80,
                        null=True,
                    ),
                ),
                (
                    "priority",
                    models.SmallIntegerField(
                        blank=True,
                        help_text="-100 to 100; left empty, the function's own.",
                        null=True,
                    ),
                ),
                (
                    "result_ttl",
                    models.IntegerField(
                        blank=True,
                        help_text="Seconds to keep what has ended.",
                        null=True,
                        verbose_name="result TTL",
                    ),
                ),
                (
                    "coalesce",
                    models.BooleanField(
                        default=True, help_text="Skip a tick while the previous run has not ended."
                    ),
                ),
                (
                    "on_missed",
                    models.CharField(
                        choices=[
                            ("run", "run once, as soon as possible"),
                            ("skip", "wait for the next time"),
                        ],
                        default="run",
                        max_length=8,
                        verbose_name="after downtime",
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                ("next_run", models.DateTimeField(blank=True, editable=False, null=True)),
                ("last_run", models.DateTimeField(blank=True, editable=False, null=True)),
                ("skipped", models.IntegerField(default=0, editable=False)),
                ("last_skip", models.DateTimeField(blank=True, editable=False, null=True)),
                ("version", models.IntegerField(default=1, editable=False)),
            ],
            options={
                "verbose_name": "repeating task",
                "db_table": "cq_repeatingtask",
                "ordering": ["name"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("enabled", True)),
                        fields=["next_run"],
                        name="cq_repeating_due",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=cq.models.columns.new_id, primary_key=True, serialize=False
                    ),
                ),
                ("alive", models.BooleanField(default=True)),
                ("beat", models.BigIntegerField(default=0)),
                (
                    "beat_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "started",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("state", models.CharField(default="running", max_length=12)),
                ("hostname", models.CharField(default="", max_length=200)),
                ("host_id", models.CharField(default="", max_length=200)),
                ("boot_id", models.CharField(default="", max_length=200)),
                ("pid_namespace", models.CharField(default="", max_length=200)),
                ("pid", models.IntegerField(default=0)),
                ("pid_started", models.CharField(default="", max_length=200)),
                ("queues", models.JSONField(null=True)),
                ("names", models.JSONField(default=list)),
                ("slots", models.IntegerField(default=0)),
            ],
            options={
                "db_table": "cq_worker",
                "indexes": [models.Index(fields=["alive"], name="cq_worker_alive")],
            },
        ),
        migrations.CreateModel(
            name="Task",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=cq.models.columns.RandomUUID(),
                        default=cq.models.columns.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("func_name", models.CharField(max_length=200, verbose_name="task function")),
                (
                    "args",
                    models.JSONField(
                        blank=True, db_default=cq.models.columns.EmptyArray(), default=list
                    ),
                ),
                (
                    "kwargs",
                    models.JSONField(
                        blank=True, db_default=cq.models.columns.EmptyObject(), default=dict
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("P", "Pending"),
                            ("Q", "Queued"),
                            ("R", "Running"),
                            ("Y", "Retry"),
                            ("W", "Waiting"),
                            ("S", "Success"),
                            ("F", "Failure"),
                            ("I", "Incomplete"),
                            ("L", "Lost"),
                            ("E", "Revoked"),
                        ],
                        db_default="Q",
                        default="Q",
                        editable=False,
                        max_length=1,
                    ),
                ),
                ("queue", models.CharField(db_default="default", default="default", max_length=80)),
                ("priority", models.SmallIntegerField(db_default=0, default=0)),
                (
                    "run_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), verbose_name="due"
                    ),
                ),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("parked", models.BooleanField(db_default=False, default=False, editable=False)),
                ("depth", models.SmallIntegerField(db_default=0, default=0)),
                ("generation", models.SmallIntegerField(db_default=0, default=0)),
                ("previous_result", models.JSONField(blank=True, null=True)),
                ("pass_result", models.BooleanField(db_default=False, default=False)),
                ("force_chain", models.BooleanField(db_default=False, default=False)),
                ("children_open", models.IntegerField(db_default=0, default=0)),
                ("children_failed", models.IntegerField(db_default=0, default=0)),
                ("waiting_on", models.UUIDField(blank=True, null=True)),
                ("attempts", models.SmallIntegerField(db_default=0, default=0)),
                ("retries", models.SmallIntegerField(db_default=0, default=0)),
                ("crashes", models.SmallIntegerField(db_default=0, default=0)),
                ("releases", models.SmallIntegerField(db_default=0, default=0)),
                ("max_retries", models.SmallIntegerField(blank=True, null=True)),
                ("timeout", models.FloatField(blank=True, null=True)),
                ("at_most_once", models.BooleanField(db_default=False, default=False)),
                ("claim_token", models.UUIDField(blank=True, editable=False, null=True)),
                ("done_token", models.UUIDField(blank=True, editable=False, null=True)),
                (
                    "submitted",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("started", models.DateTimeField(blank=True, null=True)),
                ("finished", models.DateTimeField(blank=True, null=True)),
                ("result", models.JSONField(blank=True, null=True)),
                ("error", models.TextField(blank=True, null=True)),
                (
                    "errors",
                    models.JSONField(
                        blank=True, db_default=cq.models.columns.EmptyArray(), default=list
                    ),
                ),
                (
                    "errorbacks",
                    models.JSONField(
                        blank=True, db_default=cq.models.columns.EmptyArray(), default=list
                    ),
                ),
                ("result_ttl", models.IntegerField(blank=True, null=True)),
                ("result_expiry", models.DateTimeField(blank=True, null=True)),
                ("unique_key", models.CharField(blank=True, max_length=64, null=True)),
                ("unique_running", models.BooleanField(db_default=False, default=False)),
                ("tick", models.DateTimeField(blank=True, null=True)),
                ("missed", models.IntegerField(db_default=0, default=0)),
                ("owner", models.CharField(blank=True, max_length=200, null=True)),
                ("traceparent", models.CharField(blank=True, max_length=64, null=True)),
                (
                    "parent",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="subtasks",
                        to="cq.task",
                    ),
                ),
                (
                    "previous",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="next",
                        to="cq.task",
                    ),
                ),
                (
                    "repeating",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="tasks",
                        to="cq.repeatingtask",
                    ),
                ),
                (
                    "root",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="tree",
                        to="cq.task",
                    ),
                ),
                (
                    "worker",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="tasks",
                        to="cq.worker",
                    ),
                ),
            ],
            options={
                "db_table": "cq_task",
                "permissions": (
                    ("view_task_payload", "Can see the arguments and results of tasks"),
                    ("retry_task", "Can retry tasks"),
                    ("revoke_task", "Can revoke tasks"),
                    ("run_task", "Can start tasks by hand"),
                ),
                "indexes": [
                    models.Index(
                        condition=models.Q(("parked", False), ("status__in", ["Q", "Y"])),
                        fields=["queue", "-priority", "run_at", "id"],
                        name="cq_task_due",
                    ),
                    models.Index(
                        condition=models.Q(("parked", True)),
                        fields=["func_name"],
                        name="cq_task_parked",
                    ),
                    models.Index(
                        condition=models.Q(("parent__isnull", False)),
                        fields=["parent"],
                        name="cq_task_parent",
                    ),
                    models.Index(
                        condition=models.Q(("root__isnull", False)),
                        fields=["root"],
                        name="cq_task_root",
                    ),
                    models.Index(
                        condition=models.Q(("previous__isnull", False)),
                        fields=["previous"],
                        name="cq_task_previous",
                    ),
                    models.Index(
                        condition=models.Q(("worker__isnull", False)),
                        fields=["worker"],
                        name="cq_task_worker",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("result_expiry__isnull", False), ("root__isnull", True)
                        ),
                        fields=["result_expiry"],
                        name="cq_task_expiry",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("expires_at__isnull", False), ("status__in", ["Q", "Y"])
                        ),
                        fields=["expires_at"],
                        name="cq_task_expires",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(
                            ("status__in", ["P", "Q", "Y"]),
                            ("unique_key__isnull", False),
                            ("unique_running", False),
                        ),
                        fields=("func_name", "unique_key"),
                        name="cq_task_unique_waiting",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(
                            ("status__in", ["P", "Q", "Y", "R", "W"]),
                            ("unique_key__isnull", False),
                            ("unique_running", True),
                        ),
                        fields=("func_name", "unique_key"),
                        name="cq_task_unique_active",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("tick__isnull", False)),
                        fields=("repeating", "tick"),
                        name="cq_task_tick",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status__in", ["P", "Q", "R", "Y", "W", "S", "F", "I", "L", "E"])
                        ),
                        name="cq_task_status",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("claim_token__isnull", False), ("status", "R")),
                            models.Q(
                                models.Q(("status", "R"), _negated=True),
                                ("claim_token__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="cq_task_claimed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("finished__isnull", False),
                                (
                                    "status__in",
                                    [
                                        cq.definition.status.Status["REVOKED"],
                                        cq.definition.status.Status["FAILURE"],
                                        cq.definition.status.Status["INCOMPLETE"],
                                        cq.definition.status.Status["LOST"],
                                        cq.definition.status.Status["SUCCESS"],
                                    ],
                                ),
                            ),
                            models.Q(
                                models.Q(
                                    (
                                        "status__in",
                                        [
                                            cq.definition.status.Status["REVOKED"],
                                            cq.definition.status.Status["FAILURE"],
                                            cq.definition.status.Status["INCOMPLETE"],
                                            cq.definition.status.Status["LOST"],
                                            cq.definition.status.Status["SUCCESS"],
                                        ],
                                    ),
                                    _negated=True,
                                ),
                                ("finished__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="cq_task_finished",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("status", "W"), _negated=True),
                            ("children_open__gt", 0),
                            _connector="OR",
                        ),
                        name="cq_task_waiting",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("attempts__gte", 0),
                            ("children_failed__gte", 0),
                            ("children_open__gte", 0),
                            ("crashes__gte", 0),
                            ("releases__gte", 0),
                            ("retries__gte", 0),
                        ),
                        name="cq_task_counters",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("priority__gte", -100), ("priority__lte", 100)),
                        name="cq_task_priority",
                    ),
                ],
            },
            bases=(cq.models.verbs.TaskVerbs, models.Model),
        ),
        migrations.RunPython(tune_storage, migrations.RunPython.noop),
    ]
