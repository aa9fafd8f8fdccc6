"""
Public signals, each with the task it is about.

`task_enqueued` is sent with `task`, a row: by the caller of `delay()` inside the
transaction that inserts it, for what a body plans after the commit that made it. The others
are sent with `task_id`, `func_name` and `attempt`: `task_started` before a body runs,
`task_retried` (with `delay` in seconds) after a failure has committed that will be followed
by another attempt, `task_finished` (with `status`) after any end of a task has committed,
whoever brought it; `attempt` is None there if no attempt did.
"""

from django.dispatch import Signal

task_enqueued = Signal()
task_started = Signal()
task_finished = Signal()
task_retried = Signal()
