"""
The protocol `cq.v1`: what a client may say, what it may not, and how much of it.

What enters is the text of one frame; what leaves is one value of the five verbs, or
InvalidFrame with a `code` for the client. A verb is looked up in a table of parsers, so
nothing that came over the wire ever names an attribute. Server frames are plain dicts.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cq.errors import InvalidFrame

SUBPROTOCOL = "cq.v1"
ACTIONS = ("revoke", "retry")
MAX_TOKEN = 1024
MAX_NUMBER = 2**63 - 1

_UUID = re.compile(
    r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.I | re.A
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one socket may ask for; the defaults are the protocol's."""

    frame_bytes: int = 4096
    """Size of a client frame."""
    frames_per_second: float = 20.0
    """Client frames a second in the long run; acks that move the window are free."""
    burst: int = 80
    """Client frames at once: a page subscribes to all its tasks in one go."""
    offences: int = 5
    """Frames outside the protocol before the socket is closed."""
    subscriptions: int = 50
    """Tasks watched over one socket."""
    sockets_per_user: int = 20
    """Sockets of one user in one process."""
    window: int = 500
    """Log lines and other frames sent but not acked; then the server waits."""
    window_chars: int = 512 * 1024
    """Their text, likewise: lines may be long."""
    stall: float = 10.0
    """Seconds the window may stay full before the socket is closed."""
    idle: float = 30.0
    """Seconds a socket may live without a subscription."""
    lines_per_frame: int = 200
    """Log lines in one frame."""
    chars_per_frame: int = 64 * 1024
    """Their text, unless a single line has more."""
    tail: int = 200
    """Log lines that a subscription without `since` starts with."""
    max_tail: int = 1000
    """Log lines that it may ask for."""
    reauthorise: float = 25.0
    """Seconds after which the right to every subscription is checked again."""
    tick: float = 1.0
    """Seconds between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Sub:
    """Watch a task: every line after `since`, or without it the last `tail` ones."""

    id: UUID
    token: str | None
    since: int | None
    tail: int | None


@dataclass(frozen=True, slots=True)
class Unsub:
    """Stop watching."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Act:
    """Revoke or retry a task; it need not be watched, for what has ended is not."""

    id: UUID
    do: str
    token: str | None


@dataclass(frozen=True, slots=True)
class Ack:
    """Every server frame up to this number has been handled."""

    frame: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""


Verb = Sub | Unsub | Act | Ack | Ping


def parse(text: str) -> Verb:
    """Read one client frame; raises InvalidFrame, whose `code` the client is told."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid("bad_frame", "The frame is not JSON.") from error
    if not isinstance(frame, dict):
        raise _invalid("bad_frame", f"The frame is a {type(frame).__name__}, not an object.")
    kind = frame.get("type")
    parser = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        raise _invalid("unknown_type", f"The frame's type is {str(kind)[:40]!r}.")
    return parser(frame)


def parse_id(value: object) -> UUID:
    """Read a task's id in either of its two spellings, and nothing else."""
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise _invalid("bad_id", f"{str(value)[:60]!r} is not the id of a task.")
    return UUID(hex=value)


def parse_number(value: object, name: str) -> int:
    """Read a count from 0 up that fits the database."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
        raise _invalid(f"bad_{name}", f"{name!r} is {str(value)[:40]!r}, not a number from 0 up.")
    return value


def _token(frame: Mapping[str, Any]) -> str | None:
    token = frame.get("token")
    if token is not None and not (isinstance(token, str) and len(token) <= MAX_TOKEN):
        raise _invalid("bad_token", "The token is not a text of at most 1,024 characters.")
    return token or None


def _sub(frame: Mapping[str, Any]) -> Sub:
    since, tail = frame.get("since"), frame.get("tail")
    return Sub(
        parse_id(frame.get("id")),
        _token(frame),
        None if since is None else parse_number(since, "since"),
        None if tail is None else parse_number(tail, "tail"),
    )


def _unsub(frame: Mapping[str, Any]) -> Unsub:
    return Unsub(parse_id(frame.get("id")))


def _act(frame: Mapping[str, Any]) -> Act:
    do = frame.get("do")
    if not isinstance(do, str) or do not in ACTIONS:
        raise _invalid("bad_action", f"The action is {str(do)[:40]!r}, not revoke or retry.")
    return Act(parse_id(frame.get("id")), do, _token(frame))


def _ack(frame: Mapping[str, Any]) -> Ack:
    return Ack(parse_number(frame.get("frame"), "frame"))


def _ping(frame: Mapping[str, Any]) -> Ping:
    return Ping()


_PARSERS: dict[str, Callable[[Mapping[str, Any]], Verb]] = {
    "sub": _sub,
    "unsub": _unsub,
    "act": _act,
    "ack": _ack,
    "ping": _ping,
}


def _invalid(code: str, sentence: str) -> InvalidFrame:
    return InvalidFrame(
        f"{sentence} Expected a frame of {SUBPROTOCOL}. See docs/reference/socket.md.", code=code
    )


def error_frame(code: str, message: str, *, id: UUID | None = None) -> dict[str, Any]:
    """Make the frame that says what went wrong, and whether to try again later."""
    frame: dict[str, Any] = {"type": "err", "code": code, "message": message}
    if id is not None:
        frame["id"] = str(id)
    frame["retryable"] = code in RETRYABLE
    return frame


RETRYABLE = frozenset({"unavailable", "moved"})
"""Codes after which the same frame may succeed a little later."""


class Shared:
    """A part of the frames of many sockets: whichever is sent first writes it for them all."""

    __slots__ = ("_text", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._text = ""

    def __bool__(self) -> bool:
        return bool(self.value)

    @property
    def text(self) -> str:
        """The value as JSON."""
        self._text = self._text or _dump(self.value)
        return self._text


def encode(frame: Mapping[str, Any]) -> str:
    """Write a frame as text that can be sent, whatever a forged event has put into it."""
    shared = {name: value.text for name, value in frame.items() if isinstance(value, Shared)}
    text = _dump({name: value for name, value in frame.items() if name not in shared})
    parts = "".join(f',"{name}":{part}' for name, part in shared.items())
    return text[:-1] + parts + "}" if parts else text


def _dump(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


class Allowance:
    """A bucket of frames that refills steadily; `now` is any monotonic clock in seconds."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._left = self._burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one frame from the bucket, or say that it is empty."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
