"""The numbers behind the pages: queues, workers, rates and samples, on both databases."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from cq.definition.status import Status
from cq.models import Sample, Tally, Task, Worker, figures, minutes
from cq.models.minutes import KEPT_MINUTES, Ended
from cq.models.sql import dialect
from cq.worker.tallier import Tallier, sample
from tests.sampleapp.tasks import noop
from tests.waiting import wait_until
from tests.workers import WorkerFactory

pytestmark = pytest.mark.usefixtures("database")


def running(worker: Worker, seconds: float = 0.0, late: float = 0.0) -> Task:
    started = timezone.now() - timedelta(seconds=seconds)
    return Task.objects.create(
        func_name=noop.name,
        status=Status.RUNNING,
        worker=worker,
        claim_token=uuid4(),
        started=started,
        run_at=started - timedelta(seconds=late),
    )


def read() -> tuple[list[figures.QueueFigure], list[figures.WorkerFigure]]:
    db = dialect()
    workers = figures.workers(db)
    now = figures.moment(db)
    return figures.queues(db, workers, minutes.tallies(db, 60), now), workers


def test_a_queue_counts_what_is_due_by_itself_and_names_the_oldest() -> None:
    now = timezone.now()
    for priority, ago in ((0, 10), (5, 90), (5, 20), (-3, 30)):
        Task.objects.create(
            func_name="a", queue="mail", priority=priority, run_at=now - timedelta(seconds=ago)
        )
    Task.objects.create(func_name="a", queue="mail", run_at=now + timedelta(hours=1))
    Task.objects.create(func_name="a", queue="video", run_at=now + timedelta(hours=1))
    Task.objects.create(func_name="a", queue="nowhere", parked=True)
    mail, video = read()[0]
    assert (mail.name, mail.depth, mail.later) == ("mail", 4, 1)
    assert mail.oldest is not None
    assert abs((now - mail.oldest).total_seconds() - 90) < 1
    assert (video.name, video.depth, video.later, video.oldest) == ("video", 0, 1, None)
    assert [(p.func_name, p.count) for p in figures.parked(dialect())] == [("a", 1)]


def test_any_number_of_queues_is_one_query() -> None:
    Task.objects.bulk_create(
        Task(func_name="a", queue=f"q{n % 30}", priority=n % 4) for n in range(120)
    )
    with CaptureQueriesContext(connection) as captured:
        found = figures.queues(dialect(), [], [], timezone.now())
    assert len(captured) == 1
    assert [queue.depth for queue in found] == [4] * 30


def test_workers_come_with_what_they_run_and_the_dead_stay_a_day() -> None:
    here = Worker.objects.create(hostname="web-1", pid=7, slots=4, queues=["mail"])
    Worker.objects.create(hostname="web-2", pid=8, slots=4, alive=False, state="dead")
    long_ago = timezone.now() - timedelta(days=2)
    Worker.objects.create(hostname="web-3", pid=9, alive=False, beat_at=long_ago)
    task = running(here)
    alive, dead = read()[1]
    assert (alive.name, alive.slots, alive.is_alive) == ("web-1:7", 4, True)
    assert [one.id for one in alive.running] == [task.id]
    assert alive.serves("mail")
    assert not alive.serves("video")
    assert (dead.name, dead.is_alive, dead.running) == ("web-2:8", False, ())
    assert read()[0][0].workers == 1


def test_tallies_of_one_minute_add_up_and_give_the_rate() -> None:
    db, one, other = dialect(), uuid4(), uuid4()
    minutes.add_tallies(db, one, {"mail": Ended(3, 1), "video": Ended(1, 0)})
    minutes.add_tallies(db, one, {"mail": Ended(2, 0)})
    minutes.add_tallies(db, other, {"mail": Ended(5, 2)})
    minutes.add_tallies(db, other, {})
    rows = minutes.tallies(db, 60)
    assert sum(row.done for row in rows if row.queue == "mail") == 10
    now = figures.moment(db)
    seconds = 60 * (figures.RATE_MINUTES - 1) + now.timestamp() % 60
    assert figures.per_minute(rows, now, queue="mail") == pytest.approx(600 / seconds)
    assert figures.per_minute(rows, now, failed=True) == pytest.approx(180 / seconds)
    assert len({row.minute for row in minutes.tallies(db, 24 * 60, step=60)}) <= 2


def test_a_minute_is_sampled_once_and_a_week_is_kept() -> None:
    old = int(time.time() // 60) - KEPT_MINUTES - 5
    Sample.objects.create(minute=old)
    Tally.objects.create(minute=old, worker=uuid4(), queue="mail")
    worker = Worker.objects.create(hostname="web-1", slots=3)
    running(worker, late=2)
    Task.objects.create(func_name="a", run_at=timezone.now() - timedelta(seconds=30))
    sample(dialect())
    Task.objects.create(func_name="a")
    sample(dialect())
    kept = Sample.objects.get()
    assert (kept.waiting, kept.running, kept.slots) == (1, 1, 3)
    assert kept.oldest == pytest.approx(30, abs=5)
    assert kept.latency_p95 == pytest.approx(2, abs=0.1)
    assert not Tally.objects.exists()


def test_latency_is_of_what_started_lately_also_behind_a_backlog() -> None:
    assert figures.latency(dialect()) == figures.Latency(None, None)
    worker = Worker.objects.create(slots=3)
    running(worker, late=7)
    running(worker, seconds=7200, late=500)
    Task.objects.bulk_create(Task(func_name="a") for _ in range(figures.SAMPLED + 10))
    assert figures.latency(dialect()).p50 == pytest.approx(7, abs=0.1)


def test_the_tallier_counts_ends_only_and_writes_each_once() -> None:
    worker = uuid4()
    tallier = Tallier(lambda work: work, lambda: worker)  # type: ignore[arg-type,return-value]
    for status in (Status.SUCCESS, Status.FAILURE, Status.RETRY, Status.WAITING, Status.QUEUED):
        tallier.count("mail", status)
    tallier.flush()
    tallier.flush()
    assert Tally.objects.values_list("worker", "queue", "done", "failed").get() == (
        *(worker, "mail"),
        *(2, 1),
    )


def test_a_worker_tells_what_it_did(worker_process: WorkerFactory) -> None:
    for _ in range(3):
        noop.delay()
    worker_process()
    wait_until(lambda: sum(Tally.objects.values_list("done", flat=True)) == 3, timeout=15)
    assert Sample.objects.exists()
