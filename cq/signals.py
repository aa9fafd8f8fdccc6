"""
Public signals, each with the task it is about.

`task_enqueued` is sent inside the transaction that inserts the row, with `task`, a row.
The others are sent by the worker with `task_id`, `func_name` and `attempt`:
`task_started` before a body runs, `task_finished` (with `status`) and `task_retried`
(with `delay` in seconds) after its outcome has committed.
"""

from django.dispatch import Signal

task_enqueued = Signal()
task_started = Signal()
task_finished = Signal()
task_retried = Signal()
