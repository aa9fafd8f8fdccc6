"""
Claims whose answer got lost: the rows say that this worker runs tasks it never heard of.

The connection may break after a claim has committed and before its answer arrived. No
rescuer looks at such rows, since their worker lives. After a claim that failed, the
claimer asks for them here, and runs what it had taken.
"""

from collections.abc import Collection
from uuid import UUID

from cq.definition.status import Status
from cq.models.queries import database
from cq.models.task import Task
from cq.models.transitions import Claimed


def lost_claims(worker: UUID, held: Collection[UUID]) -> list[Claimed]:
    """What the rows say this worker runs, but for the claim tokens it knows of."""
    rows = Task.objects.using(database()).filter(worker_id=worker, status=Status.RUNNING)
    return [_claimed(row) for row in rows if row.claim_token not in held]


def _claimed(row: Task) -> Claimed:
    return Claimed(
        id=row.id,
        token=row.claim_token,  # type: ignore[arg-type]
        func_name=row.func_name,
        args=row.args,
        kwargs=row.kwargs,
        root=row.root_uuid,
        parent=row.parent_id,
        previous=row.previous_id,
        previous_result=row.previous_result,
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
