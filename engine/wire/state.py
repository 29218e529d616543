"""States of cameras and servers as JSON. A camera's state is in its capture process's status page and in the
``cameras`` hash of Redis. Unavailable servers are in the status pages of writer and publisher."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from engine.errors import WireError

#: ``connecting`` is a camera whose state is not known yet; it is shown, but never announced.
State = Literal["connecting", "active", "stalled", "offline"]
Mode = Literal["", "passthrough", "transcode"]
#: Which pictures of an H.264 or H.265 stream become JPEGs; empty for other streams.
Decode = Literal["", "all", "key", "none"]
#: The note of an active camera whose key frames cannot be told apart, or decoded.
NO_SETS = "its key frames have no parameter sets (SPS, PPS)"
#: Characters of an error that are kept: a state must fit a status page and a message.
ERROR_CHARACTERS_MAX = 400
#: The same for a server's outage: several of those must fit a status page.
OUTAGE_CHARACTERS_MAX = 200


class CameraStatus(msgspec.Struct, frozen=True):
    """A camera's state since ``timestamp_nano`` (UTC). Width and height in pixels, 0 until a frame was seen. ``note``
    says what an active camera waits for. ``advice``, which ends ``last_error``, says what to do; empty if unknown."""

    state: State = "connecting"
    timestamp_nano: int = 0
    consecutive_failures: int = 0
    last_error: str = ""
    codec: str = ""
    mode: Mode = ""
    width: int = 0
    height: int = 0
    decode: Decode = ""
    note: str = ""
    advice: str = ""


class ServerAway(msgspec.Struct, frozen=True):
    """An unavailable server: the start of its outage (UTC nanoseconds) and the latest new reason."""

    since_nano: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    error: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CameraStatus)
_outages_decoder = msgspec.json.Decoder(dict[str, ServerAway])


def encode_status(status: CameraStatus) -> bytes:
    """The JSON of a state."""
    return _encoder.encode(status)


def decode_status(text: bytes) -> CameraStatus:
    """Inverse of encode_status; empty text is the state before the first. Raises WireError."""
    if not text:
        return CameraStatus()
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"camera state: {error}") from None


def change_of(text: bytes) -> bytes:
    """The change that an event of this state announces. Another state of the same change is not announced again, even
    if its numbers differ."""
    try:
        status = decode_status(text)
    except WireError:
        return text
    return f"{status.state} {status.timestamp_nano}".encode()


def encode_outages(outages: dict[str, ServerAway]) -> bytes:
    """The JSON of a process's unavailable servers, by name."""
    return _encoder.encode(outages)


def decode_outages(text: bytes) -> dict[str, ServerAway]:
    """Inverse of encode_outages; empty text means no outages. Raises WireError."""
    if not text:
        return {}
    try:
        return _outages_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"servers away: {error}") from None
