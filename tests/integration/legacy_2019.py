"""
The tables of the 2019 package, as its migrations left them, with rows in them.

Written from what is known of its models: a uuid key, one letter of status, signature and details as
JSON, self-references, the expiry; and the repeating task with its five columns of cron. JSON was
jsonb on PostgreSQL; SQLite gets text.
"""

from __future__ import annotations

CREATE = """
CREATE TABLE cq_task (
    id {uuid} NOT NULL PRIMARY KEY,
    status varchar(1) NOT NULL,
    signature {json} NOT NULL,
    details {json} NOT NULL,
    parent_id {uuid} NULL REFERENCES cq_task (id) DEFERRABLE INITIALLY DEFERRED,
    previous_id {uuid} NULL REFERENCES cq_task (id) DEFERRABLE INITIALLY DEFERRED,
    waiting_on_id {uuid} NULL REFERENCES cq_task (id) DEFERRABLE INITIALLY DEFERRED,
    submitted {time} NOT NULL,
    started {time} NULL,
    finished {time} NULL,
    result_ttl integer NOT NULL,
    result_expiry {time} NULL,
    at_risk varchar(1) NOT NULL,
    retries integer NOT NULL,
    last_retry {time} NULL,
    force_chain boolean NOT NULL
);
CREATE INDEX cq_task_parent_id_5f1c4b1d ON cq_task (parent_id);
CREATE INDEX cq_task_previous_id_0a9d3c77 ON cq_task (previous_id);
CREATE INDEX cq_task_waiting_on_id_7be2d901 ON cq_task (waiting_on_id);
CREATE TABLE cq_repeatingtask (
    id {serial} PRIMARY KEY,
    crontab varchar(100) NOT NULL,
    func_name varchar(256) NOT NULL,
    args {json} NOT NULL,
    kwargs {json} NOT NULL,
    result_ttl integer NOT NULL,
    last_run {time} NULL,
    next_run {time} NULL,
    coalesce boolean NOT NULL
);
INSERT INTO cq_task VALUES (
    '{one}', 'S', '{{"func_name": "shop.tasks.send", "args": [1], "kwargs": {{}}}}',
    '{{"result": 5, "logs": []}}', NULL, NULL, NULL, '2019-05-01 10:00:00', '2019-05-01 10:00:01',
    '2019-05-01 10:00:02', 1800, '2019-05-01 10:30:02', 'N', 0, NULL, false
);
INSERT INTO cq_task VALUES (
    '{two}', 'Q', '{{"func_name": "shop.tasks.send", "args": [2], "kwargs": {{}}}}',
    '{{}}', '{one}', NULL, NULL, '2019-05-01 10:00:00', NULL, NULL, 1800, NULL, 'N', 0, NULL, false
);
INSERT INTO cq_repeatingtask (crontab, func_name, args, kwargs, result_ttl, coalesce) VALUES
    ('*/5 * * * *', 'tests.sampleapp.tasks.echo', '["tick"]', '{{"n": 1}}', 1800, true),
    ('30 2 * * 1', 'tests.sampleapp.tasks.noop', '[]', '{{}}', 1800, false)
"""

MIGRATIONS = ["0001_initial", "0002_auto_20180412_0345", "0003_repeatingtask_coalesce"]

_WORDS = {
    "postgresql": {
        "uuid": "uuid",
        "json": "jsonb",
        "time": "timestamp with time zone",
        "serial": "serial NOT NULL",
        "one": "6e9a1a0e-5b1f-4a57-8a1b-0f4f9a2f0001",
        "two": "6e9a1a0e-5b1f-4a57-8a1b-0f4f9a2f0002",
    },
    "sqlite": {
        "uuid": "char(32)",
        "json": "text",
        "time": "datetime",
        "serial": "integer NOT NULL",
        "one": "6e9a1a0e5b1f4a578a1b0f4f9a2f0001",
        "two": "6e9a1a0e5b1f4a578a1b0f4f9a2f0002",
    },
}


def statements(vendor: str) -> list[str]:
    """The SQL that makes the tables of 2019 and fills them."""
    made = [part.strip() for part in CREATE.format(**_WORDS[vendor]).split(";\n")]
    rows = ", ".join(f"('cq', '{name}', '2019-05-01 09:00:00')" for name in MIGRATIONS)
    return [*made, f"INSERT INTO django_migrations (app, name, applied) VALUES {rows}"]
