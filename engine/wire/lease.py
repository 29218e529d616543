"""What stands in Redis under a camera's lease: who stores its frames, for people and for other sites."""

from __future__ import annotations

import msgspec

from engine.errors import WireError

#: Bytes of a lease that is read; ours have some hundreds.
LEASE_BYTES_MAX = 8192
#: Characters of a name in a lease that are shown.
_SHOWN_MAX = 120


class Lease(msgspec.Struct, frozen=True):
    """Who stores a camera's frames, since ``since`` (RFC 3339).

    ``holder`` tells sites apart, and is kept when a killed site is started again. ``machine`` and ``started`` say on
    which kernel, in which namespace, ``pid`` means a process, and when that process began: only who has the same
    ``machine`` can see whether it lives.
    """

    site: str
    host: str
    pid: int
    run_directory: str
    version: str
    since: str
    holder: str
    machine: str = ""
    started: int = 0

    def __str__(self) -> str:
        shown = (
            ("site", self.site), ("host", self.host), ("pid", str(self.pid)), ("run directory", self.run_directory),
            ("version", self.version), ("since", self.since),
        )  # fmt: skip
        return ", ".join(f"{name} {_shown(text)}" for name, text in shown)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Lease)


def encode_lease(lease: Lease) -> bytes:
    """The JSON of a lease."""
    return _encoder.encode(lease)


def decode_lease(data: bytes) -> Lease:
    """Inverse of encode_lease. Raises WireError."""
    if len(data) > LEASE_BYTES_MAX:
        raise WireError(f"lease of {len(data):,} bytes; at most {LEASE_BYTES_MAX:,}")
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"lease: {error}") from None


def _shown(text: str) -> str:
    """Text of another's on one line, and not too much of it."""
    plain = "".join(character if character.isprintable() else "?" for character in text[:_SHOWN_MAX])
    return plain or "-"
