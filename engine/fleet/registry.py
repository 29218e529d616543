"""The sites that a Redis knows: the entries that live sites keep there (``engine/wire/site_entry.py``)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from engine.errors import WireError
from engine.servers.redis.session import Session, batches
from engine.wire import keys
from engine.wire.lease import LEASE_BYTES_MAX
from engine.wire.site_entry import SiteEntry, decode_site_entry


class RegisteredSite(NamedTuple):
    """A vhost and the entry of a site that stores under it."""

    vhost: str
    entry: SiteEntry


def registered_sites(session: Session) -> list[RegisteredSite]:
    """All live sites of a server, by vhost and name. Walks the keyspace, because no list of sites exists: it would show
    one tenant to another. Values that are no entries are left out. Raises RedisUnavailable, ServerRefused."""
    names: set[tuple[str, str]] = set()
    for found in session.scan(f"{keys.ENGINE}:*:lease:*"):
        for key in found:
            try:
                names.add(keys.parse_site_key(key))
            except WireError:
                # The lease of a camera.
                continue
    sites: list[RegisteredSite] = []
    for part in batches(sorted(names)):
        replies = session.try_call(*(("GETRANGE", keys.site_key(*pair), 0, LEASE_BYTES_MAX) for pair in part))
        for (vhost, name), reply in zip(part, replies, strict=True):
            try:
                entry = decode_site_entry(reply if isinstance(reply, bytes) else b"")
            except WireError:
                continue
            # A site's user may write any text, but only under its own names.
            sites.append(RegisteredSite(vhost, msgspec.structs.replace(entry, site=name)))
    return sites
