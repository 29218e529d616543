"""Who asks: what the token of a request may see."""

from __future__ import annotations

import msgspec


class Reader(msgspec.Struct, frozen=True):
    """A reader of the HTTP interface. ``vhost`` is the tenant whose frames it gets. ``all_tenants`` is True for the
    site's operator, who also sees processes, servers, alerts, metrics and other tenants."""

    vhost: str
    all_tenants: bool = False


#: Who has shown no token where one is needed. It sees no tenant.
NOBODY = Reader("")
