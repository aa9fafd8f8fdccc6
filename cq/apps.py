"""
The Django app: finds the tasks.py of every installed app and registers the checks.

`ready()` touches no row and no socket, so a `manage.py` command costs no more with cq
installed than without.
"""

import logging
from importlib import import_module

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules

from cq import conf
from cq.worker.reloading import watch as watch_reloader

logger = logging.getLogger("cq")


class CQConfig(AppConfig):
    """cq as an installed app."""

    name = "cq"
    label = "cq"
    verbose_name = "Task queue"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import every app's tasks.py: a typo in one is an error here, not a lost task."""
        checks = import_module("cq.checks")
        watch_reloader()
        autodiscover_modules("tasks")
        # A setting that cannot be read is reported by the checks, with a hint.
        if not conf.problems():
            for module in conf.current().task_modules:
                if checks.is_there(module):
                    import_module(module)
                else:
                    logger.error("CQ['TASK_MODULES'] has %r, and there is no such module.", module)
