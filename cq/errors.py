"""
Every exception cq raises, in one tree.

    CQError
    ├─ TaskNotRegistered (LookupError)      a name that no @task function bears
    ├─ DuplicateTask (ValueError)           two functions, one name
    ├─ InvalidTask (TypeError)              @task on something that cannot be a task
    ├─ InvalidOption (ValueError)           an option with an impossible value
    │  └─ InvalidCrontab                    a schedule that cannot be read or never fires
    ├─ InvalidArguments (TypeError)         arguments that do not fit, or are not JSON
    ├─ InvalidSettings (ValueError)         a CQ setting that cannot be used
    ├─ RunningLoop (RuntimeError)           a blocking call on an event loop's thread
    ├─ WaitTimeout (TimeoutError)           wait() gave up; the task goes on
    ├─ WaitInsideTask (RuntimeError)        a task that would block on another task
    ├─ DuplicateSubmit (RuntimeError)       submit() of a task that is no longer held
    ├─ IllegalTransition (RuntimeError)     the state machine has no such arrow
    ├─ EditConflict (RuntimeError)          somebody else saved the repeating task meanwhile
    ├─ AttemptVoid (RuntimeError)           this attempt no longer owns its task
    ├─ TaskTimeout (TimeoutError)           a body ran past its time limit
    ├─ UnfitResult (TypeError)              a return value that cannot be stored
    ├─ CommandNotAllowed (PermissionError)  a management command off the allow-list
    ├─ Refused (PermissionError)            a reader without the right to see or act
    │  └─ InvalidToken                      a watch token that is forged, expired or too narrow
    └─ InvalidFrame (ValueError)            a socket frame outside the protocol

Each also inherits the built-in a caller would guess. A message has three parts: what
came, what was expected, what to do next; the facts are attributes as well, so nobody
has to parse a sentence.
"""


class CQError(Exception):
    """The root of the tree; keyword arguments become attributes."""

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)


class TaskNotRegistered(CQError, LookupError):
    """No task function is registered under the name."""


class DuplicateTask(CQError, ValueError):
    """A second function claims a name that is taken."""


class InvalidTask(CQError, TypeError):
    """The decorated object cannot be a task function."""


class InvalidOption(CQError, ValueError):
    """An option of a task or of a call has an impossible value."""


class InvalidCrontab(InvalidOption):
    """A crontab that cannot be read, or that never fires."""


class InvalidArguments(CQError, TypeError):
    """Arguments that do not fit the function, or that JSON cannot carry."""


class InvalidSettings(CQError, ValueError):
    """A key of the CQ setting that is unknown or of the wrong kind."""


class RunningLoop(CQError, RuntimeError):
    """A blocking call was made on the thread of a running event loop."""


class WaitTimeout(CQError, TimeoutError):
    """The task was not terminal in time; it goes on regardless."""


class WaitInsideTask(CQError, RuntimeError):
    """A running task tried to block on another one, which would eat its slot."""


class DuplicateSubmit(CQError, RuntimeError):
    """The task was submitted before."""


class IllegalTransition(CQError, RuntimeError):
    """The state machine has no arrow from the row's status to the wanted one."""


class EditConflict(CQError, RuntimeError):
    """A repeating task was saved by somebody else after it had been read; nothing was saved."""


class AttemptVoid(CQError, RuntimeError):
    """The claim token of this attempt is no longer valid: roll back and discard."""


class TaskTimeout(CQError, TimeoutError):
    """A body ran past its time limit."""


class UnfitResult(CQError, TypeError):
    """A return value that cannot be stored as JSON."""


class CommandNotAllowed(CQError, PermissionError):
    """A management command that CQ["COMMANDS"] does not list."""


class Refused(CQError, PermissionError):
    """The reader may not see or do this; strangers get the same answer as for nothing."""


class InvalidToken(Refused):
    """A watch token that is forged, expired, bound to somebody else or too narrow."""


class InvalidFrame(CQError, ValueError):
    """A socket frame that the protocol does not know."""
