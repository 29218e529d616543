"""Timestamps as text (RFC 3339), exact to the nanosecond in both directions."""

from __future__ import annotations

import datetime
import re
import time

from engine.errors import WireError

#: Nanoseconds in a second.
NANO = 1_000_000_000

#: A timestamp by RFC 3339, section 5.6: any offset, no fraction or one of up to nine digits, T or t or a space, Z or z,
#: and a second of 60 for a leap second.
PATTERN = (
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt ](?P<time>\d{2}:\d{2}):(?P<second>\d{2})(?:\.(?P<fraction>\d{1,9}))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<offset_hour>\d{2}):(?P<offset_minute>\d{2}))"
)
_TIMESTAMP = re.compile(PATTERN, re.ASCII)
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()


def rfc3339(unix_nano: int) -> str:
    """``2024-11-08T14:30:00.123456789Z`` for nanoseconds since the epoch, UTC."""
    seconds, nanos = divmod(unix_nano, NANO)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanos:09d}Z"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch, UTC. A leap second counts as the second after it. Raises WireError."""
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        raise WireError(f"timestamp {text!r} is not RFC 3339, such as 2024-11-08T14:30:00.123456789Z")
    hour, minute = (int(part) for part in match["time"].split(":"))
    second = int(match["second"])
    offset_hour, offset_minute = int(match["offset_hour"] or 0), int(match["offset_minute"] or 0)
    try:
        days = datetime.date.fromisoformat(match["date"]).toordinal() - _EPOCH_DAY
    except ValueError as error:
        raise WireError(f"timestamp {text!r}: {error}") from None
    if hour > 23 or minute > 59 or second > 60 or offset_hour > 23 or offset_minute > 59:
        raise WireError(f"timestamp {text!r} names a time that no day has")
    offset = (offset_hour * 60 + offset_minute) * (-60 if match["sign"] == "-" else 60)
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset
    return seconds * NANO + int((match["fraction"] or "").ljust(9, "0"))
