"""
Three lines that put a live task into any page: `{% load cq %}`, `{% cq_script %}`, `{% cq_task %}`.

What `{% cq_task %}` leaves in the page is the element with a token for just what it shows,
and between its tags a bar and a word that are right without JavaScript.
"""

import json
from typing import Any

from django import template
from django.template import Context
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from cq.definition.status import ERROR, HELD, TERMINAL, Status
from cq.errors import InvalidOption
from cq.models import Progress, Task
from cq.models.sql import database
from cq.web import access
from cq.web.protocol import ACTIONS
from cq.web.tokens import watch_token

register = template.Library()

SHOWN = {"bar": "progress", "log": "log", "tree": "tree", "result": "result", "error": "error"}
WORDS = (
    *(status.label for status in Status),
    *("Retry", "Revoke", "Progress", "Error", "Result", "Subtasks", "Log", "reconnecting…"),
    "Load the page again.",
)
"""What the element says; a project's catalogue may translate it."""

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
    For that user it is renewed while the page is open. Further attributes (`id`, `label`,
    `src`, `class`, `on_success`, …) are those of the element.
    """
    shown = _known(show, SHOWN, "show")
    acts = _known(actions, dict(zip(ACTIONS, ACTIONS, strict=True)), "actions")
    own = {"id": f"cq-{task.id}", "poll": _address("cq:watch", task)}
    if token is None:
        user = getattr(context.get("request"), "user", None)
        bound_to = user if access.is_member(user) else None
        scopes = [*(SHOWN[word] for word in shown), *acts]
        token = watch_token(task, scopes, user=bound_to, renewable=bound_to is not None)
        own["refresh-url"] = _address("cq:renew", task) if bound_to else ""
    own["words"] = _translations()
    given = {name.replace("_", "-"): value for name, value in attributes.items()}
    status = Status(task.status)
    return {
        "task": task,
        "token": token,
        "show": " ".join(shown),
        "actions": " ".join(acts),
        "attributes": {name: value for name, value in (own | given).items() if value != ""},
        "label": attributes.get("label", task.func_name),
        "status": status,
        "status_word": gettext(status.label),
        "value": _value(task, status),
        "error": task.error if "error" in shown and status in ERROR else None,
    }


def _value(task: Task, status: Status) -> str | None:
    """How full the bar is without JavaScript, from 0 to 1; None while nobody can tell."""
    if status is Status.SUCCESS:
        return "1"
    if status in TERMINAL:
        return "0"
    if status not in HELD or task._state.adding:
        return None
    found = Progress.objects.using(database()).filter(task=task.pk).values_list("done", "total")
    done, total = found.first() or (0, None)
    return f"{min(done / total, 1):.2f}" if total else None


def _translations() -> str:
    """The words of the element in the language of the request, where they differ."""
    words = {word: gettext(word) for word in WORDS}
    changed = {word: text for word, text in words.items() if word != text}
    return json.dumps(changed, ensure_ascii=False) if changed else ""


def _known(text: str, known: dict[str, str], name: str) -> list[str]:
    words = text.replace(",", " ").split()
    for word in words:
        if word not in known:
            raise InvalidOption(
                f"{{% cq_task … {name}={text!r} %}} names {word!r}. Expected some of "
                f"{', '.join(known)}. Correct the template."
            )
    return words


def _address(name: str, task: Task) -> str:
    try:
        return reverse(name, args=[task.id])
    except NoReverseMatch:
        return ""
