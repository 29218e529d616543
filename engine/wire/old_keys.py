"""Keys of the Go edition before 1.2: ``{prefix}:{vhost}:{camera}:{RFC 3339}:{sequence}``.

The timestamp contains colons, and a camera's name may. So the fixed parts are read from the right, and the rest between
the vhost and the timestamp is the camera. Names are not percent-encoded.
"""

from __future__ import annotations

import re

from engine.errors import WireError
from engine.wire import rfc3339
from engine.wire.keys import DEFAULT_VHOST, SEQUENCE_MAX, FrameKey, frame_key_suffix

#: A sequence with more digits is not parsed as a number.
_DIGITS_MAX = 18
#: The camera is greedy, so that the last timestamp counts if a camera's name contains one.
_OLD_KEY = re.compile(
    rf"(?P<vhost>[^:]*):(?P<camera>.+):(?P<timestamp>{rfc3339.PATTERN}):(?P<sequence>\d+)", re.ASCII | re.DOTALL
)


def parse_old_key(text: str | bytes, prefix: str) -> FrameKey:
    """The frame that an old key under ``prefix`` names. Raises WireError naming the part that is wrong."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise WireError(f"key {text!r} is not UTF-8") from None
    if not text.startswith(f"{prefix}:"):
        raise WireError(f"key {text!r} does not begin with {prefix!r}")
    match = _OLD_KEY.fullmatch(text, len(prefix) + 1)
    if not match:
        raise WireError(f"key {text!r} is not {prefix}:vhost:camera:timestamp:sequence with an RFC 3339 timestamp")
    if len(match["sequence"]) > _DIGITS_MAX:
        raise WireError(f"key {text[:200]!r}: sequence {match['sequence'][:_DIGITS_MAX]}… has too many digits")
    vhost, camera, sequence = match["vhost"], match["camera"], int(match["sequence"])
    try:
        unix_nano = rfc3339.parse_rfc3339(match["timestamp"])
        frame_key_suffix(unix_nano, sequence)
    except WireError as error:
        raise WireError(f"key {text!r}: {error}") from None
    assert sequence <= SEQUENCE_MAX
    return FrameKey(DEFAULT_VHOST if vhost in ("", "/") else vhost, prefix, camera, unix_nano, sequence)
