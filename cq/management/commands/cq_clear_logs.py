"""
cq_clear_logs: delete log lines and progress that belong to no task any more.

Lines go with their tree, so this finds something only after task rows were deleted by hand.
"""

from typing import Any

from cq.management.base import TaskCommand
from cq.workflow.retention import clear_orphans
from cq.workflow.upkeep import exhaust


class Command(TaskCommand):
    """Delete log lines, progress and streams that no task owns."""

    help = "Delete log lines, progress and streams without a task."

    def handle(self, **options: Any) -> None:
        self.stdout.write(f"{exhaust(clear_orphans)} rows deleted.")
