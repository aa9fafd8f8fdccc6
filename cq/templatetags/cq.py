"""
Three lines that put a live task into any page: `{% load cq %}`, `{% cq_script %}`, `{% cq_task %}`.

What `{% cq_task %}` leaves in the page is the element with a token for just what it shows,
and between its tags a bar and a word that are right without JavaScript.
"""

from typing import Any

from django import template
from django.template import Context
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from cq.definition.status import TERMINAL, Status
from cq.errors import InvalidOption
from cq.models import Task
from cq.web import access
from cq.web.protocol import ACTIONS
from cq.web.tokens import watch_token

register = template.Library()

SHOWN = {"bar": "progress", "log": "log", "tree": "tree", "result": "result", "error": "error"}
_WRITTEN = "cq_script_is_written"


@register.simple_tag(takes_context=True)
def cq_script(context: Context) -> SafeString | str:
    """Write the one script tag that the elements of a page need, the first time it is asked."""
    if context.render_context.get(_WRITTEN):
        return ""
    context.render_context[_WRITTEN] = True
    # A lazy nonce is false until it has been used once, so it is not asked for its truth.
    nonce = context.get("csp_nonce", getattr(context.get("request"), "csp_nonce", None))
    address = static("cq/cq.js")
    if nonce is not None and str(nonce):
        return format_html('<script type="module" src="{}" nonce="{}"></script>', address, nonce)
    return format_html('<script type="module" src="{}"></script>', address)


@register.inclusion_tag("cq/cq_task.html", takes_context=True)
def cq_task(
    context: Context,
    task: Task,
    show: str = "bar",
    actions: str = "",
    *,
    token: str | None = None,
    **attributes: Any,
) -> dict[str, Any]:
    """
    Show a task: `{% cq_task task show="bar log tree" actions="revoke retry" %}`.

    The token it makes allows what is shown and nothing else, for the user who is logged in.
    Further attributes (`id`, `label`, `src`, `class`, …) are those of the element.
    """
    shown = _known(show, SHOWN, "show")
    acts = _known(actions, dict(zip(ACTIONS, ACTIONS, strict=True)), "actions")
    if token is None:
        user = getattr(context.get("request"), "user", None)
        scopes = [SHOWN[word] for word in shown] + acts
        token = watch_token(task, scopes, user=user if access.is_member(user) else None)
    status = Status(task.status)
    return {
        "task": task,
        "token": token,
        "show": " ".join(shown),
        "actions": " ".join(acts),
        "poll": _poll_address(task),
        "attributes": {
            "id": f"cq-{task.id}",
            **{name.replace("_", "-"): value for name, value in attributes.items()},
        },
        "label": attributes.get("label", task.func_name),
        "status": status,
        "is_over": status in TERMINAL,
        "is_full": status is Status.SUCCESS,
    }


def _known(text: str, known: dict[str, str], name: str) -> list[str]:
    words = text.replace(",", " ").split()
    for word in words:
        if word not in known:
            raise InvalidOption(
                f"{{% cq_task … {name}={text!r} %}} names {word!r}. Expected some of "
                f"{', '.join(known)}. Correct the template."
            )
    return words


def _poll_address(task: Task) -> str:
    try:
        return reverse("cq:watch", args=[task.id])
    except NoReverseMatch:
        return ""
