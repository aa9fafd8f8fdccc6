"""
The rows, and the only statements that change them.

`cq.models` is the historic home of `delay` and `schedule_task`; both are doors into the
rooms above, resolved when they are called.
"""

from cq.models.log_line import LogLine, Progress, Stream
from cq.models.minutes import Sample, Tally
from cq.models.repeating import RepeatingTask
from cq.models.task import Task, TaskQuerySet
from cq.models.verbs import delay, schedule_task
from cq.models.worker import Worker

__all__ = [
    "LogLine",
    "Progress",
    "RepeatingTask",
    "Sample",
    "Stream",
    "Tally",
    "Task",
    "TaskQuerySet",
    "Worker",
    "delay",
    "schedule_task",
]
