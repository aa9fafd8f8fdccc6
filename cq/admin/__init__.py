"""
The admin: tasks to look at, retry and revoke; repeating tasks to write.

Django imports this module when it looks for admins; registering is all that happens here.
"""

from django.contrib import admin

from cq.admin.repeating import RepeatingTaskAdmin
from cq.admin.task import TaskAdmin
from cq.models import RepeatingTask, Task

admin.site.register(Task, TaskAdmin)
admin.site.register(RepeatingTask, RepeatingTaskAdmin)

__all__ = ["RepeatingTaskAdmin", "TaskAdmin"]
