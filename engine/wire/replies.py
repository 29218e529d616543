"""Checks that replies of Redis have the shapes that their commands return.

The peer may be another server or a proxy, or replies may be out of step with commands. Shapes are checked once, here,
and code that reads replies relies on them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import WireError
from engine.wire.journal import parse_entry_id
from engine.wire.keys import check_numbers

#: The most characters of a reply in an error.
_SHOWN_MAX = 80


def check_reply(command: Sequence[Any], reply: Any) -> None:
    """Raises WireError if ``reply``, as RESP2 returns it, is not a valid answer to ``command``.

    Commands not listed here pass. The caller must handle error replies first.
    """
    name = _text(command[0])
    good = _SHAPES.get(name)
    if good and not good(command, reply):
        raise WireError(f"it answered {shown(reply)} to {name}")


def first_numbers(reply: Any) -> tuple[int, int]:
    """(unix_nano, sequence) of the first entry of an XRANGE or XREVRANGE reply.

    (0, 0) if there is none, or if it is not a frame's: numbers beyond those of keys would block all later frames.
    """
    try:
        unix_nano, sequence = parse_entry_id(reply[0][0])
        check_numbers(unix_nano, sequence)
    except (IndexError, TypeError, WireError):
        return 0, 0
    return unix_nano, sequence


def foreign_key(key: str, kind: str = "") -> str:
    """The error text for a key of the engine that holds another type; ``kind`` is that type, if known."""
    what = f"a {kind}" if kind else "something of another type"
    return f"{key} holds {what}, which is not the engine's; remove it: redis-cli DEL {shlex.quote(key)}"


def shown(reply: Any) -> str:
    """A reply for an error, shortened."""
    if isinstance(reply, list):
        return f"a list of {len(reply)}"
    text = repr(reply[:_SHOWN_MAX] if isinstance(reply, bytes | str) else reply)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _text(word: Any) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)


def _number(_: Sequence[Any], reply: Any) -> bool:
    return isinstance(reply, int)


def _names(_: Sequence[Any], reply: Any) -> bool:
    return isinstance(reply, list) and all(isinstance(name, bytes) for name in reply)


def _pairs(command: Sequence[Any], reply: Any) -> bool:
    return _names(command, reply) and len(reply) % 2 == 0


def _words(_: Sequence[Any], reply: Any) -> bool:
    """Names, each followed by any value."""
    return isinstance(reply, list) and len(reply) % 2 == 0 and _names((), reply[0::2])


def _values(command: Sequence[Any], reply: Any) -> bool:
    """One value for each requested key."""
    if not isinstance(reply, list) or len(reply) != len(command) - 1:
        return False
    return all(value is None or isinstance(value, bytes) for value in reply)


def _entries(_: Sequence[Any], reply: Any) -> bool:
    """Entries of a stream; fields are checked when they are parsed."""
    if not isinstance(reply, list):
        return False
    for entry in reply:
        if not (isinstance(entry, list) and len(entry) == 2):
            return False
        identifier, fields = entry
        if not (isinstance(identifier, bytes) and isinstance(fields, list)):
            return False
    return not reply or _is_id(reply[-1][0])


def _is_id(identifier: bytes) -> bool:
    """The last id of a page must be valid, because it is sent back to Redis unchanged."""
    try:
        parse_entry_id(identifier)
    except WireError:
        return False
    return True


def _streams(command: Sequence[Any], reply: Any) -> bool:
    """Requested streams, each with entries."""
    if reply is None:
        return True
    if not isinstance(reply, list):
        return False
    asked = {name.encode() if isinstance(name, str) else name for name in command}
    return all(
        isinstance(stream, list)
        and len(stream) == 2
        and isinstance(stream[0], bytes)
        and stream[0] in asked
        and bool(stream[1])
        and _entries(command, stream[1])
        for stream in reply
    )


def _fields(command: Sequence[Any], reply: Any) -> bool:
    """One value for each requested field."""
    return _values(command[1:], reply)


def _step(_: Sequence[Any], reply: Any) -> bool:
    return isinstance(reply, list) and len(reply) == 2 and isinstance(reply[0], bytes) and _names((), reply[1])


_SHAPES: dict[str, Callable[[Sequence[Any], Any], bool]] = {
    "DBSIZE": _number,
    "EXISTS": _number,
    "HELLO": _words,
    "HGETALL": _pairs,
    "HKEYS": _names,
    "HMGET": _fields,
    "MGET": _values,
    "PTTL": _number,
    "SCAN": _step,
    "XRANGE": _entries,
    "XREAD": _streams,
    "XREVRANGE": _entries,
}
