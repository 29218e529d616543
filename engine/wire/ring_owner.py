"""The owner of a ring's frames: the tenant, the prefix and the server under which they must be stored.

    {vhost}:{prefix}:{server}
    {vhost}:{prefix}:{server}:tags      if keys under the prefix have hash tags

Each part is percent-encoded as in a key, so the text is unambiguous for all names. If names are too long for a ring's
header, it holds a digest of the text, then as much of the text as fits:

    :{SHA-256 in hex}:{the text's beginning}
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from engine.errors import WireError
from engine.wire.keys import decode_part, encode_part, is_tagged, prefix_of

#: Room for the text in a ring's header, in bytes.
OWNER_BYTES_MAX = 510
#: Begins the text if the names are too long. No other text begins so, because no part is empty.
_DIGEST = ":"
#: The last part of the text if keys have hash tags.
_TAGS = "tags"
#: Characters of such a text that a message shows.
_SHOWN_MAX = 160


class RingOwner(NamedTuple):
    """Names in Redis, and the server: ``host:port/database``, with a socket's path or a Sentinel service in place of
    the host; ``embedded`` for a site's own server. It contains no credentials."""

    vhost: str
    prefix: str
    server: str

    def __str__(self) -> str:
        tags = " with key tags" if is_tagged(self.prefix) else ""
        return f"vhost {self.vhost!r}, prefix {self.prefix!r}{tags}, Redis {self.server}"


def build_owner(owner: RingOwner) -> bytes:
    """The text for a ring's header; different owners have different texts. Raises WireError for an empty name."""
    tags = [_TAGS] if is_tagged(owner.prefix) else []
    text = ":".join([*map(encode_part, owner), *tags]).encode()
    if len(text) <= OWNER_BYTES_MAX:
        return text
    head = f"{_DIGEST}{hashlib.sha256(text).hexdigest()}{_DIGEST}".encode()
    return (head + text)[:OWNER_BYTES_MAX].decode("utf-8", "ignore").encode()


def show_owner(text: bytes) -> str:
    """The owner in a ring's header, formatted for a message."""
    if not text:
        return "nobody"
    shown = text.decode("utf-8", "replace")
    try:
        vhost, prefix, server, *tags = shown.split(":")
        if tags not in ([], [_TAGS]):
            return repr(shown[:_SHOWN_MAX])
        prefix = prefix_of(decode_part(prefix), tagged=bool(tags))
        return str(RingOwner(decode_part(vhost), prefix, decode_part(server)))
    except (ValueError, WireError):
        return repr(f"{shown.removeprefix(_DIGEST)[:_SHOWN_MAX]}…")
