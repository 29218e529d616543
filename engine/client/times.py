"""Converts times and durations as people write them to integer nanoseconds."""

from __future__ import annotations

import datetime
import re

from engine.errors import QueryError, WireError
from engine.wire.rfc3339 import NANO, parse_rfc3339

#: A time: int nanoseconds since the epoch (UTC), an aware datetime, RFC 3339 text with an offset, "now", or an offset
#: from now: "-30s", "-5m", or a timedelta that is not positive.
When = int | datetime.datetime | datetime.timedelta | str
#: A span: int nanoseconds, a timedelta, or text such as "500ms", "30s", "5m", "1h", "2d".
Span = int | datetime.timedelta | str

_UNITS = {"ns": 1, "us": 1000, "ms": 1_000_000, "s": NANO, "m": 60 * NANO, "h": 3600 * NANO, "d": 86_400 * NANO}
_SPAN = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)(ns|us|ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,20})?", re.ASCII)
#: Digits of the latest possible time.
_DIGITS_MAX = 20
#: Number of digits -> the unit that was probably meant, for an int that is too short for nanoseconds (19 digits).
_LIKELY = {9: "seconds", 10: "seconds", 12: "milliseconds", 13: "milliseconds", 15: "microseconds", 16: "microseconds"}
#: The end of 1970. No frame is older, so a smaller int must have meant something else. 0 is allowed: the beginning.
_FIRST_YEAR_NANO = 365 * 86_400 * NANO
#: The smallest int that is a span: frames come no faster, so a smaller one meant seconds or milliseconds.
_SPAN_NANO_MIN = 1_000_000
#: The latest possible time: a stream's ids have 64 bits.
NANO_MAX = 2**64 - 1
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def to_nano(when: When, now_nano: int) -> int:
    """Nanoseconds since the epoch. Raises QueryError if ``when`` is ambiguous or not a time."""
    if isinstance(when, bool):
        raise QueryError(f"{when!r} is no time")
    if isinstance(when, int):
        if when < 0 or when > NANO_MAX:
            raise QueryError(f"time {when} is not in 0..{NANO_MAX} nanoseconds")
        if unit := _LIKELY.get(len(str(when))):
            raise QueryError(f"time {when} looks like {unit}; give nanoseconds since the epoch")
        if 0 < when < _FIRST_YEAR_NANO:
            raise QueryError(
                f"time {when} is in 1970 as nanoseconds; for an offset from now write '-30s' or a timedelta"
            )
        return when
    if isinstance(when, datetime.timedelta):
        offset = when // _MICROSECOND * 1000
        if offset > 0:
            raise QueryError(f"time {when!r} is in the future; an offset from now is negative: -{when!r}")
        return _bounded(now_nano + offset, when)
    if isinstance(when, datetime.datetime):
        if when.utcoffset() is None:
            raise QueryError(
                f"datetime {when.isoformat()} is naive: it does not say in which time zone; "
                "use datetime.now(timezone.utc), or .astimezone() for local time"
            )
        return _bounded((when - _EPOCH) // _MICROSECOND * 1000, when)
    if isinstance(when, str):
        if when == "now":
            return now_nano
        if when.startswith("-"):
            return _bounded(now_nano - _text_span(when[1:], "time", when), when)
        if _SPAN.fullmatch(when.removeprefix("+")):
            raise QueryError(
                f"time {when!r} is a span, not a moment; write '-{when.removeprefix('+')}' for so long ago"
            )
        if when.isascii() and when.isdigit() and len(when) <= _DIGITS_MAX:
            return to_nano(int(when), now_nano)
        if re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ][\d:.]+", when):
            raise QueryError(f"time {when!r} has no time zone; add Z or an offset such as -03:00")
        try:
            return _bounded(parse_rfc3339(when), when)
        except WireError:
            pass
    raise QueryError(
        f"time {when!r} is not int nanoseconds, an aware datetime, 'now', an offset such as '-30s' or a timedelta, or "
        "RFC 3339 text"
    )


def to_span(span: Span) -> int:
    """Nanoseconds of a duration, at least one. Raises QueryError."""
    if isinstance(span, str):
        return _text_span(span, "duration", span)
    nano = 0
    if isinstance(span, datetime.timedelta):
        nano = span // _MICROSECOND * 1000
    elif isinstance(span, int) and not isinstance(span, bool):
        nano = span
        if 0 < nano < _SPAN_NANO_MIN:
            raise QueryError(
                f"duration {span!r} is nanoseconds, less than a millisecond; write '{span}s' or '{span}ms'"
            )
    if nano < 1:
        raise QueryError(f"duration {span!r} is not positive nanoseconds, a timedelta, or text such as '30s' or '5m'")
    return nano


def _text_span(text: str, what: str, given: str) -> int:
    """Nanoseconds of a number with a unit; ``given`` is shown in errors. Raises QueryError."""
    shown = f"{what} {given!r}"
    match = _SPAN.fullmatch(text)
    if not match:
        if _NUMBER.fullmatch(text):
            raise QueryError(f"{shown} has no unit; write '{given}s' for seconds, or ms, m, h, d")
        raise QueryError(f"{shown} is not a number and a unit (ns, us, ms, s, m, h, d), such as '30s' or '5m'")
    # Decimal text times an integer: exact for whole numbers, and within a nanosecond otherwise.
    whole, _, fraction = match[1].partition(".")
    unit = _UNITS[match[2]]
    nano = int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
    if nano < 1:
        raise QueryError(f"{shown} is not positive")
    return nano


def window(start: When | None, end: When | None, now_nano: int) -> tuple[int, int]:
    """(first, last) nanosecond of a range; None leaves an end open.

    Raises QueryError if the end is before the start.
    """
    first = 0 if start is None else to_nano(start, now_nano)
    last = NANO_MAX if end is None else to_nano(end, now_nano)
    if last < first:
        raise QueryError(f"the range is reversed: its end {end!r} is before its start {start!r}")
    return first, last


def _bounded(nano: int, when: object) -> int:
    if not 0 <= nano <= NANO_MAX:
        raise QueryError(f"time {when!r} is out of range: before 1970 or after 2554")
    return nano
