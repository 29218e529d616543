"""Definitions for RabbitMQ, as ``rabbitmqctl import_definitions`` takes them: vhosts, users, rights, and the shovel
that passes a site's events on to a centre.

A site's user may write to its exchange, and nothing else. At the centre all sites write to one exchange. There each
event has the property ``user_id`` with the site's name, set by the shovel. RabbitMQ checks it against the user that is
logged in, so no site can speak for another.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from engine.config.sections import MetadataSection
from engine.fleet.site_list import ListedSite
from engine.wire.amqp_url import AmqpAddress
from engine.wire.urls import host_port

Definitions = dict[str, list[dict[str, Any]]]

#: The queue of a site's broker that holds events until the centre has confirmed them, and its shovel.
SITE_QUEUE = "to-centre"
#: The centre's queue with the events of all sites, and the user that may read it.
CENTRE_QUEUE = "events"
CENTRE_USER = "centre"
#: The file of the authorities that a system trusts, on Debian, Alpine and in RabbitMQ's images.
SYSTEM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
#: Events that a shovel may have sent without a confirm.
_SHOVEL_WINDOW = 1000
#: Seconds until a shovel tries again to reach the centre.
_RECONNECT_SECONDS = 5
#: Bytes of salt before the hash of a password.
_SALT_BYTES = 4
_EXCHANGE = MetadataSection().exchange


def password_hash(password: str, salt: bytes) -> str:
    """A password as RabbitMQ stores it: base64 of the salt and of the SHA-256 of salt and password."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def site_definitions(
    sites: Iterable[ListedSite], passwords: Mapping[str, str], salt: Callable[[int], bytes] = os.urandom
) -> Definitions:
    """Vhosts, exchanges and users of sites, for the broker that they publish to. ``passwords`` is by site."""
    chosen = list(sites)
    vhosts = list(dict.fromkeys(site.broker_vhost for site in chosen))
    return {
        "vhosts": [{"name": vhost} for vhost in vhosts],
        "users": [_user(site.name, passwords[site.name], salt) for site in chosen],
        "permissions": [_writer(site.name, site.broker_vhost) for site in chosen],
        "exchanges": [_exchange(vhost) for vhost in vhosts],
    }


def centre_definitions(
    sites: Iterable[ListedSite],
    passwords: Mapping[str, str],
    centre: AmqpAddress,
    salt: Callable[[int], bytes] = os.urandom,
) -> Definitions:
    """The centre's vhost, its exchange and queue, a user for each site, and the user CENTRE_USER that reads the queue.
    ``passwords`` is by user."""
    chosen, vhost = list(sites), centre.vhost
    reader = {"user": CENTRE_USER, "vhost": vhost, "configure": "^$", "write": "^$", "read": f"^{CENTRE_QUEUE}$"}
    return {
        "vhosts": [{"name": vhost}],
        "users": [_user(name, passwords[name], salt) for name in (*(site.name for site in chosen), CENTRE_USER)],
        "permissions": [*(_writer(site.name, vhost) for site in chosen), reader],
        "exchanges": [_exchange(vhost)],
        "queues": [_queue(CENTRE_QUEUE, vhost)],
        "bindings": [_binding(CENTRE_QUEUE, vhost)],
    }


def shovel_definitions(
    site: ListedSite, password: str, centre: AmqpAddress, ca_file: str = SYSTEM_CA_FILE
) -> Definitions:
    """What a site's own broker needs to pass its events on: a queue that collects them and a shovel that empties it. A
    message leaves the queue when the centre has confirmed it. The definitions hold the password in plain text.

    ``ca_file`` is a path on the broker's machine: the authority that has signed the certificate of a centre with TLS.
    """
    vhost = site.broker_vhost
    login = f"{quote(site.name, safe='')}:{quote(password, safe='')}"
    place = f"{host_port(centre.host, centre.port)}/{quote(centre.vhost, safe='')}"
    shovel = {
        "src-protocol": "amqp091",
        "src-uri": f"amqp:///{quote(vhost, safe='')}",
        "src-queue": SITE_QUEUE,
        "src-prefetch-count": _SHOVEL_WINDOW,
        "dest-protocol": "amqp091",
        "dest-uri": f"{centre.scheme}://{login}@{place}{_checks(centre, ca_file)}",
        "dest-exchange": _EXCHANGE,
        "dest-publish-properties": {"user_id": site.name},
        "ack-mode": "on-confirm",
        "reconnect-delay": _RECONNECT_SECONDS,
    }
    return {
        "vhosts": [{"name": vhost}],
        "exchanges": [_exchange(vhost)],
        "queues": [_queue(SITE_QUEUE, vhost)],
        "bindings": [_binding(SITE_QUEUE, vhost)],
        "parameters": [{"vhost": vhost, "component": "shovel", "name": SITE_QUEUE, "value": shovel}],
    }


def _checks(centre: AmqpAddress, ca_file: str) -> str:
    """Query parameters for TLS. Without them RabbitMQ checks neither certificate nor host name."""
    if not centre.tls:
        return ""
    name = quote(centre.host, safe="")
    return f"?verify=verify_peer&cacertfile={quote(ca_file, safe='/')}&server_name_indication={name}"


def _user(name: str, password: str, salt: Callable[[int], bytes]) -> dict[str, Any]:
    return {
        "name": name,
        "password_hash": password_hash(password, salt(_SALT_BYTES)),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [],
    }


def _writer(user: str, vhost: str) -> dict[str, Any]:
    """The rights of a user that publishes."""
    return {"user": user, "vhost": vhost, "configure": "^$", "write": f"^{re.escape(_EXCHANGE)}$", "read": "^$"}


def _exchange(vhost: str) -> dict[str, Any]:
    """Declared here, because a site's user may not."""
    kind = {"type": "topic", "durable": True, "auto_delete": False, "internal": False}
    return {"name": _EXCHANGE, "vhost": vhost, **kind, "arguments": {}}


def _queue(name: str, vhost: str) -> dict[str, Any]:
    return {"name": name, "vhost": vhost, "durable": True, "auto_delete": False, "arguments": {}}


def _binding(queue: str, vhost: str) -> dict[str, Any]:
    """All events of the exchange go to the queue."""
    kind = {"destination": queue, "destination_type": "queue", "routing_key": "#"}
    return {"source": _EXCHANGE, "vhost": vhost, **kind, "arguments": {}}
