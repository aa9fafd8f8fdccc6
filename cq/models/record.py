"""
Reading the record of a task: its log lines, and for a root those of its whole tree.
"""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from cq.aio import refuse_on_loop
from cq.models.log_line import LogLine
from cq.models.sql import database


class TreeRecord:
    """The log of a task row, read from the record of its tree."""

    if TYPE_CHECKING:
        id: UUID
        root_id: UUID | None

    @property
    def logs(self) -> list[dict[str, Any]]:
        """
        The recorded lines, oldest first: {message, timestamp, level, origin}.

        A root gives the lines of its tree, any other task its own. `origin` is the id of
        the task that wrote the line.
        """
        refuse_on_loop("task.logs", "'await task.alogs()'")
        # Where the rows are written: a replica may not have the lines of a task just ended.
        lines = LogLine.objects.using(database()).filter(root=self.root_id or self.id)
        if self.root_id is not None:
            lines = lines.filter(task=self.id)
        return [
            {"message": message, "timestamp": at, "level": level, "origin": str(task)}
            for message, at, level, task in lines.order_by("seq").values_list(
                "message", "at", "level", "task"
            )
        ]

    def format_logs(self) -> str:
        """The messages of `logs` alone, one a line."""
        refuse_on_loop("task.format_logs()", "'await task.aformat_logs()'")
        return "\n".join(line["message"] for line in self.logs)
