"""
Claims whose answer got lost: the rows say that this worker runs tasks it never heard of.

The connection may break after a claim has committed and before its answer arrived, or a
row may hold what cannot be read. No rescuer looks at such rows, since their worker lives.
After a claim that failed, the claimer asks for them here, and runs what it had taken; a
row that cannot be read fails, so that it does not come back for ever.
"""

import logging
from collections.abc import Collection
from uuid import UUID

from django.db import Error

from cq import conf
from cq.definition.failure import describe_exception
from cq.definition.outcome import Failed
from cq.definition.status import Status
from cq.models.queries import database
from cq.models.task import Task
from cq.models.transitions import Claimed
from cq.workflow.completion import Completion, complete

logger = logging.getLogger("cq.worker")

_UNREADABLE = ("args", "kwargs", "previous_result", "result", "errors", "errorbacks")


def lost_claims(worker: UUID, held: Collection[UUID]) -> list[Claimed]:
    """What the rows say this worker runs, but for the claim tokens it knows of."""
    rows = Task.objects.using(database()).filter(worker_id=worker, status=Status.RUNNING)
    found = []
    for row in rows.defer(*_UNREADABLE):
        if row.claim_token in held:
            continue
        try:
            found.append(_claimed(row, row.args, row.kwargs, row.previous_result))
        except Error:
            raise
        except Exception as problem:  # noqa: BLE001 - whatever is in the row, others must run
            _fail(_claimed(row, [], {}, None), problem)
    return found


def _claimed(row: Task, args: list[object], kwargs: dict[str, object], previous: object) -> Claimed:
    return Claimed(
        id=row.id,
        token=row.claim_token,  # type: ignore[arg-type]
        func_name=row.func_name,
        args=args,
        kwargs=kwargs,
        root=row.root_uuid,
        parent=row.parent_id,
        previous=row.previous_id,
        previous_result=previous,
        pass_result=row.pass_result,
        depth=row.depth,
        attempt=row.attempts,
        retries=row.retries,
        crashes=row.crashes,
        releases=row.releases,
        max_retries=row.max_retries,
        timeout=row.timeout,
        queue=row.queue,
        is_root=row.root_id is None,
    )


def _fail(claimed: Claimed, problem: Exception) -> None:
    logger.error("The row of task %s cannot be read.", claimed.id, exc_info=problem)
    error = describe_exception(problem, conf.current().max_error_bytes)
    error["message"] = f"The row of the task cannot be read: {error.get('message')}"
    complete([Completion(claimed, Failed(error=error))])
