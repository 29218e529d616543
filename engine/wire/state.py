"""What a camera's state is on its way: JSON in the capture process's slate, and in the ``cameras`` hash of Redis."""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.errors import WireError

#: ``connecting`` is a camera of which nothing is known yet; it is shown, and never announced.
State = Literal["connecting", "active", "stalled", "offline"]
Mode = Literal["", "passthrough", "transcode"]
#: Characters of an error that are kept: a state must fit a slate and a message.
ERROR_CHARACTERS_MAX = 400


class CameraStatus(msgspec.Struct, frozen=True):
    """A camera's state since ``timestamp_nano`` (UTC). Width and height in pixels, 0 until a frame was seen."""

    state: State = "connecting"
    timestamp_nano: int = 0
    consecutive_failures: int = 0
    last_error: str = ""
    codec: str = ""
    mode: Mode = ""
    width: int = 0
    height: int = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CameraStatus)


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
