"""
Reading the record of a task: its log lines, and for a root those of its whole tree.
"""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from cq.models.log_line import LogLine


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
        lines = LogLine.objects.filter(root=self.root_id or self.id).order_by("seq")
        if self.root_id is not None:
            lines = lines.filter(task=self.id)
        return [
            {"message": message, "timestamp": at, "level": level, "origin": str(task)}
            for message, at, level, task in lines.values_list("message", "at", "level", "task")
        ]

    def format_logs(self) -> str:
        """The messages of `logs` alone, one a line."""
        return "\n".join(line["message"] for line in self.logs)
