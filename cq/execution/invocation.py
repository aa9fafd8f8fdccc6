"""
From a body to an outcome: arguments in, value or exception out.

Whatever a body does ends its own attempt only: SystemExit, a result that is not JSON, an
exception whose text cannot be made. What its end means (a value, a retry, a failure) is
decided here and written elsewhere.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from cq import conf
from cq.definition.failure import describe_exception
from cq.definition.outcome import Failed, Retrying, Succeeded
from cq.definition.payload import JSON, check_json
from cq.definition.signature import TaskFunctionLike
from cq.errors import InvalidArguments, UnfitResult
from cq.execution.context import Context, Draft
from cq.models.task import Task
from cq.models.transitions import Claimed

logger = logging.getLogger("cq.task")


def arguments(claimed: Claimed) -> list[Any]:
    """
    The positional arguments behind cqt, the predecessor's result first where it is passed.

    Raises InvalidArguments for a row whose arguments are no list and no object, as only
    plain SQL can make one.
    """
    args, kwargs = claimed.args, claimed.kwargs
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise InvalidArguments(
            f"Task {claimed.id} has args of type {type(args).__name__} and kwargs of type "
            f"{type(kwargs).__name__}. A row needs a JSON list and a JSON object."
        )
    return [claimed.previous_result, *args] if claimed.pass_result else args


def bound(function: TaskFunctionLike, context: Context) -> Callable[[], Any]:
    """The call of a body with what its row says."""
    claimed = context.claimed
    return partial(function.body, context, *arguments(claimed), **claimed.kwargs)


def _explained(
    function: TaskFunctionLike, claimed: Claimed, problem: BaseException
) -> BaseException:
    """What to say of a body that could not even be called; else the problem itself."""
    if not isinstance(problem, TypeError) or isinstance(problem, InvalidArguments):
        return problem
    try:
        function.call_signature.bind(*arguments(claimed), **claimed.kwargs)
    except TypeError as misfit:
        explained = InvalidArguments(
            f"{claimed.func_name}{function.call_signature} cannot take the arguments of its row: "
            f"{misfit}. They fitted when it was enqueued, so the task was changed since; let it "
            "accept the old arguments until no such row is left."
        )
        explained.__cause__ = problem
        return explained
    return problem


def succeeded(context: Context, value: Any) -> Succeeded:
    """
    The outcome of a body that returned `value`.

    A subtask of its own, or a delayed task, is adopted: its result becomes this one's.
    Raises UnfitResult for what JSON cannot carry, and for a link behind the task itself.
    """
    if isinstance(value, Draft) and value.parent != context.id:
        raise UnfitResult(
            f"{context.func_name} returned {value!r}, which runs after it has ended, so that its "
            "result cannot be this one's. Return a subtask, or do not return the link."
        )
    told = context.buffer.errorbacks
    if isinstance(value, Draft | Task):
        return Succeeded(adopts=value.id, children=context.drafts, errorbacks=told)
    try:
        result = check_json(value, "result", max_bytes=conf.current().max_result_bytes)
    except InvalidArguments as problem:
        raise UnfitResult(
            f"{context.func_name} returned what cannot be stored: {problem} "
            "Return plain JSON values, or store the data and return its id."
        ) from problem
    return Succeeded(result=result, children=context.drafts, errorbacks=told)


def failed(
    function: TaskFunctionLike,
    claimed: Claimed,
    problem: BaseException,
    errorbacks: Sequence[dict[str, JSON]] = (),
) -> Failed | Retrying:
    """
    The outcome of a body that raised: another attempt if the policy wants one.

    The errorbacks that the body asked for are told of a final failure; another attempt
    asks for its own.
    """
    problem = _explained(function, claimed, problem)
    error = describe_exception(problem, conf.current().max_error_bytes)
    error["at"] = datetime.now(UTC).isoformat()
    policy = function.options.retry
    budget = policy.retries if claimed.max_retries is None else claimed.max_retries
    extra = {"cq_task_id": str(claimed.id)}
    if claimed.retries < budget and policy.wants(problem):
        delay = policy.delay(claimed.retries + 1)
        logger.warning(
            "%s failed in attempt %d and is retried in %.1f s: %s",
            claimed.func_name,
            claimed.attempt,
            delay,
            error.get("message"),
            extra=extra,
        )
        return Retrying(error=error, delay=delay)
    logger.error(
        "%s failed: %s",
        claimed.func_name,
        error.get("message"),
        exc_info=(type(problem), problem, problem.__traceback__),
        extra=extra,
    )
    return Failed(error=error, errorbacks=errorbacks)
