"""The former keys: timestamps as RFC 3339 with nine digits, written and read with ``datetime``.

``datetime`` has microseconds only, so the last three digits are handled separately: both forms are exact to the
nanosecond.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from datetime import UTC, datetime

from engine.wire.rfc3339 import NANO

#: Characters of an RFC 3339 timestamp with nine digits and Z.
RFC3339_CHARACTERS = 30
#: Bytes sent to Redis at a time while keys are loaded.
_LOAD_BYTES = 2**18


def timestamp(unix_nano: int) -> str:
    """``2024-11-08T14:30:00.123456789Z``, made by ``datetime``."""
    seconds, nanos = divmod(unix_nano, NANO)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{nanos:09d}Z"


def nano(text: str) -> int:
    """The nanoseconds of such a timestamp, read by ``datetime.fromisoformat``."""
    return int(datetime.fromisoformat(text[:19] + "Z").timestamp()) * NANO + int(text[20:29])


def build(head: str, unix_nano: int, sequence: int) -> str:
    """Build a key from the part that a camera's keys share; nothing is checked."""
    return f"{head}{timestamp(unix_nano)}:{sequence:05d}"


def parse(key: str) -> tuple[str, str, str, int, int]:
    """Vhost, prefix, camera, nanoseconds and sequence; nothing is checked, and no name is decoded."""
    vhost, prefix, camera, rest = key.split(":", 3)
    text, _, sequence = rest.rpartition(":")
    return vhost, prefix, camera, nano(text), int(sequence)


def go_timestamp(unix_nano: int) -> str:
    """The same as Go's ``time.RFC3339Nano``: without trailing zeros of the fraction."""
    text = timestamp(unix_nano)[:-1].rstrip("0").rstrip(".")
    return f"{text}Z"


def load(socket_path: str, keys: Iterable[bytes], ttl_ms: int) -> None:
    """Store one byte under each key, with a lifetime. Returns when the server has done so."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(socket_path)
        pending = bytearray(b"CLIENT REPLY OFF\r\n")
        tail = b"\r\n$1\r\nx\r\n$2\r\nPX\r\n$%d\r\n%d\r\n" % (len(str(ttl_ms)), ttl_ms)
        for key in keys:
            pending += b"*5\r\n$3\r\nSET\r\n$%d\r\n%b%b" % (len(key), key, tail)
            if len(pending) > _LOAD_BYTES:
                link.sendall(pending)
                pending.clear()
        link.sendall(pending + b"CLIENT REPLY ON\r\n")
        answer = link.recv(64)
        assert answer == b"+OK\r\n", answer
