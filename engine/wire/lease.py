"""A camera's lease in Redis: it tells people and other sites which site stores the camera's frames."""

from __future__ import annotations

import msgspec

from engine.errors import WireError

#: Longer leases are not read; the engine's have some hundred bytes.
LEASE_BYTES_MAX = 8192
#: The most characters of a lease's name that are shown.
_SHOWN_MAX = 120


class Lease(msgspec.Struct, frozen=True):
    """The site that stores a camera's frames, since ``since`` (RFC 3339).

    ``holder`` identifies the site and stays the same when a killed site is restarted. ``machine`` is the kernel and
    namespace in which ``pid`` is valid, and ``started`` the time at which that process began. Only a site with the same
    ``machine`` can check whether the process is alive.
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
    """Text of another site, on one line and shortened."""
    plain = "".join(character if character.isprintable() else "?" for character in text[:_SHOWN_MAX])
    return plain or "-"
