"""Parameters of a request: each is checked and bounded here, and what is refused is named with its limits.

All raise HTTPException 422 (or QueryError, which is answered alike). Parameters that a route does not know are ignored.
"""

from __future__ import annotations

import re
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request

from engine.client.times import NANO_MAX, to_nano, to_span
from engine.wire.rfc3339 import NANO

#: The longest value that is looked at.
_CHARACTERS_MAX = 200
_FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}
#: The end of a time whose ``+`` was not encoded, so that it arrives as a space.
_PLUS = re.compile(r" (\d\d:\d\d)", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def text(request: Request, name: str) -> str:
    """One parameter; empty if it is not there."""
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise HTTPException(422, f"{name} is given {len(values)} times")
    value = values[0] if values else ""
    if len(value) > _CHARACTERS_MAX:
        raise HTTPException(422, f"{name} has {len(value)} characters; at most {_CHARACTERS_MAX}")
    return value


def number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    value = text(request, name)
    if not value:
        return default
    if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
        raise HTTPException(422, f"{name} {value!r} is not a whole number from {low} to {high:,}")
    return int(value)


def flag(request: Request, name: str) -> bool:
    """True or false."""
    value = text(request, name)
    if value not in _FLAGS:
        raise HTTPException(422, f"{name} {value!r} is not true or false")
    return _FLAGS[value]


def span(request: Request, name: str, default: str = "") -> int:
    """Nanoseconds of a duration; 0 if it is not there."""
    value = text(request, name) or default
    if not value:
        return 0
    nano = to_span(value)
    if nano > NANO_MAX:
        raise HTTPException(422, f"{name} {value!r} is longer than {NANO_MAX // NANO} seconds")
    return nano


def moment(request: Request, name: str, now_nano: int) -> int | None:
    """Nanoseconds of a time; None if it is not there."""
    value = text(request, name)
    if not value:
        return None
    head, tail = value[:-6], value[-6:]
    return to_nano(head + _PLUS.sub(r"+\1", tail), now_nano)


def window(request: Request) -> tuple[int | None, int | None]:
    """``start`` and ``end``, None where the range is open. Both ends are part of it."""
    now = time.time_ns()
    start, end = moment(request, "start", now), moment(request, "end", now)
    if start is not None and end is not None and end < start:
        raise HTTPException(422, f"the range is reversed: its end {end} is before its start {start}")
    return start, end
