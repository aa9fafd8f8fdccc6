"""
cq: an asyncio-native task runner for Django on the Channels layer.

This is the facade: every public name, each imported from its room when it is first
used, so that `import cq` loads no model and no settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cq.decorators import TaskFunction, delay, task
    from cq.definition.signature import Signature
    from cq.definition.status import Status
    from cq.errors import CQError
    from cq.execution.context import Context
    from cq.models import RepeatingTask, Task
    from cq.web.tokens import watch_token
    from cq.workflow.chain import chain, errorback
    from cq.workflow.enqueue import submit
    from cq.workflow.results import wait, wait_async
    from cq.workflow.retry import retry
    from cq.workflow.revoke import revoke
    from cq.workflow.schedule import schedule_task
    from cq.workflow.subtasks import subtask

__version__ = "1.0.0a1"

_HOMES = {
    "task": "cq.decorators",
    "TaskFunction": "cq.decorators",
    "Context": "cq.execution.context",
    "delay": "cq.decorators",
    "Signature": "cq.definition.signature",
    "Status": "cq.definition.status",
    "Task": "cq.models",
    "RepeatingTask": "cq.models",
    "schedule_task": "cq.workflow.schedule",
    "submit": "cq.workflow.enqueue",
    "revoke": "cq.workflow.revoke",
    "retry": "cq.workflow.retry",
    "chain": "cq.workflow.chain",
    "errorback": "cq.workflow.chain",
    "subtask": "cq.workflow.subtasks",
    "wait": "cq.workflow.results",
    "wait_async": "cq.workflow.results",
    "watch_token": "cq.web.tokens",
    "CQError": "cq.errors",
}

# Written out, so that type checkers can read it; the names are those of _HOMES.
__all__ = [
    "CQError",
    "Context",
    "RepeatingTask",
    "Signature",
    "Status",
    "Task",
    "TaskFunction",
    "__version__",
    "chain",
    "delay",
    "errorback",
    "retry",
    "revoke",
    "schedule_task",
    "submit",
    "subtask",
    "task",
    "wait",
    "wait_async",
    "watch_token",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'cq' has no attribute {name!r}.") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
