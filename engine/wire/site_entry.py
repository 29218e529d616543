"""A site's entry in Redis: which sites run under a vhost, where, with how many cameras, and when each was last seen.

The entry is also the lease of the site's name: in a list of many sites, two live sites of one name under one
vhost could not be told apart.
"""

from __future__ import annotations

import msgspec

from engine.errors import WireError
from engine.wire.lease import LEASE_BYTES_MAX, Lease


class SiteEntry(Lease, frozen=True, kw_only=True):
    """A lease with what others want to know about the site. ``seen`` is the time of writing (RFC 3339), ``url`` where
    others reach the API; empty if the site file does not say."""

    prefix: str = ""
    cameras: int = 0
    seen: str = ""
    url: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(SiteEntry)


def encode_site_entry(entry: SiteEntry) -> bytes:
    """The JSON of an entry. It is also the JSON of a lease."""
    return _encoder.encode(entry)


def decode_site_entry(data: bytes) -> SiteEntry:
    """Inverse of encode_site_entry. Raises WireError."""
    if len(data) > LEASE_BYTES_MAX:
        raise WireError(f"site entry of {len(data):,} bytes; at most {LEASE_BYTES_MAX:,}")
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"site entry: {error}") from None
