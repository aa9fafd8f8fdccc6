"""
cq: an asyncio-native task runner for Django on the Channels layer.

This is the facade: every public name, each imported from its room when it is first
used, so that `import cq` loads no model and no settings.
"""

from importlib import import_module
from typing import Any

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

__all__ = [*_HOMES, "__version__"]


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
