"""
Text that every database stores and no reader should fear.

Whatever users, tasks and exceptions say passes here on its way into a row: characters
that PostgreSQL refuses are replaced, lengths are cut in the middle and the cut is
counted, credentials are masked. Nothing in this file raises on any input.
"""

import re
from collections.abc import Callable, Collection

MASK = "***"
_MARKER_BYTES = 64
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SENSITIVE = (
    r"(?:pass(?:word|wd|phrase)|pwd|secret|token|credentials?|authorization|cookie|dsn"
    r"|session_?(?:id|key)|(?:api|access|private|secret|signing|encryption)[_-]?key)"
)
_SENSITIVE_KEY = re.compile(rf"{_SENSITIVE}[_-]?\d*\Z", re.IGNORECASE)
# A raw "/", "?" or "#" ends the userinfo of a URL for every parser, so none is in a password.
_URL_PASSWORD = re.compile(r"""(?<=://)([^\s/?#:@"'<>]*):[^\s/?#"'<>]*@""")
_NAMED_SECRET = re.compile(
    rf"""({_SENSITIVE}["']?\s{{0,3}}(?:=>|=(?!=)|:(?!:))\s{{0,3}})"""
    r"""(?:(?:Bearer|Basic|Token|Digest)\s{1,3})?"""
    r"""("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s"',;&)}\]]+)""",
    re.IGNORECASE | re.DOTALL,
)


def clean_text(text: str, limit: int) -> str:
    """Return text that any database stores, at most `limit` bytes long in UTF-8."""
    if type(text) is str and len(text) <= limit and text.isascii() and "\0" not in text:
        return text
    return _fit(text_of(text), limit, storable)


def safe_text(text: str, limit: int) -> str:
    """Do what `clean_text` does, and mask credentials before the cut can split one."""
    return _fit(text_of(text), limit, lambda part: mask_text(storable(part)))


def storable(text: str) -> str:
    """Replace NUL and lone surrogates, which PostgreSQL refuses, by U+FFFD."""
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def mask_text(text: str) -> str:
    """Mask passwords in URLs, and values that a sensitive name introduces."""
    return _NAMED_SECRET.sub(rf"\1{MASK}", mask_url(text))


def mask_url(text: str) -> str:
    """Mask the password of every URL in a text."""
    return _URL_PASSWORD.sub(rf"\1:{MASK}@", text)


def is_sensitive(key: str, sensitive: Collection[str] = ()) -> bool:
    """Tell whether a value under this key is shown to nobody."""
    return key in sensitive or _SENSITIVE_KEY.search(key[-80:]) is not None


def text_of(value: object) -> str:
    """Return `str(value)` as a plain string, or words that say why there is none."""
    try:
        return str.__str__(str(value))
    except BaseException as exc:  # noqa: BLE001 - a user's __str__ may raise anything, SystemExit too
        return f"<{type(value).__name__}.__str__ raised {type(exc).__name__}>"


def _fit(text: str, limit: int, polish: Callable[[str], str]) -> str:
    """
    Polish a text and cut its middle.

    A huge text is reduced to its two ends first, wide enough for the polish to see what
    surrounds the later cut: the cost depends on the limit, not on the text.
    """
    limit = max(limit, 0)
    if len(text) <= 4 * limit:
        head = tail = polish(text)
        if len(head.encode()) <= limit:
            return head
        count = len(head)
    else:
        head, tail = polish(text[: 2 * limit]), polish(text[len(text) - 2 * limit :])
        count = len(head) + len(tail) + len(text) - 4 * limit
    room = limit - _MARKER_BYTES
    if room < _MARKER_BYTES:
        return head.encode()[:limit].decode(errors="ignore")
    first = head.encode()[: room // 2].decode(errors="ignore")
    last = tail.encode()[-(room // 2) :].decode(errors="ignore")
    return f"{first} [... {count - len(first) - len(last)} characters cut ...] {last}"
