"""
The page of one task: its state, tree, timeline, log, data and attempts, and what can be done.

It is rendered whole on the server and patched by the socket afterwards. The same views serve
it under `cq.urls` and inside the admin; a Mount says where.
"""

from cq.web.task_page.mount import Mount
from cq.web.task_page.views import patterns

__all__ = ["Mount", "patterns"]
