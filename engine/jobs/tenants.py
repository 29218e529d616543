"""Tenants of a server: who there is, and the Redis users of least privilege for each.

A tenant is a vhost; its frames and its journals begin with its name. A user may use the commands that its role needs,
on the keys that begin so, and nothing that speaks of keys without naming them (KEYS, SCAN, RANDOMKEY, keyspace events):
so it learns nothing of its neighbours, not even that they are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, NamedTuple

from engine.errors import ServerRefused, WireError
from engine.servers.redis.session import Session, is_error
from engine.wire import keys

Role = Literal["reader", "writer", "publisher"]


class _Rights(NamedTuple):
    """Commands, and key patterns to read, or to read and write, without the tenant's name."""

    commands: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...] = ()


# ROLE tells who finds a master through Sentinel that it is one; it names replicas, and no tenants.
_RIGHTS: dict[Role, _Rights] = {
    # What FrameStore asks, and what the product page's recipes for a known key do.
    "reader": _Rights(
        (
            *("get", "mget", "strlen", "getrange", "exists", "type", "ttl", "pttl", "ping"),
            *("xrange", "xrevrange", "xread", "xlen", "hget", "hkeys", "hgetall", "role"),
        ),
        ("{vhost}:*", "engine:{vhost}:journal:*", "engine:{vhost}:cameras:*"),
    ),
    # Batches of frames and entries, the upkeep of journals, the cameras' states and leases.
    "writer": _Rights(
        (
            *("multi", "exec", "set", "xadd", "xtrim", "pexpire", "xrange", "xrevrange", "xinfo|stream"),
            *("hset", "hmget", "ping", "role", "getrange", "pttl"),
        ),
        # The cursors tell the start which numbers were used.
        ("engine:{vhost}:cursor:*",),
        ("{vhost}:*", "engine:{vhost}:journal:*", "engine:{vhost}:cameras:*", "engine:{vhost}:lease:*"),
    ),
    # Entries that are not announced yet, whether their frames live, and the cursors.
    "publisher": _Rights(
        ("xread", "xrange", "xrevrange", "exists", "type", "hgetall", "hset", "ping", "role"),
        ("{vhost}:*", "engine:{vhost}:journal:*", "engine:{vhost}:cameras:*"),
        ("engine:{vhost}:cursor:*",),
    ),
}


def acl_rules(
    vhost: str, roles: Iterable[Role], password: str, *, database: int = 0, read_only_patterns: bool = True
) -> list[str]:
    """What follows ``ACL SETUSER name``: the rights of ``roles`` together, and nothing else.

    The password stands there as its SHA-256. ``read_only_patterns`` False is for servers before version 7, which know
    patterns for reading and writing only. Raises WireError for a name that no key can hold.
    """
    rights = [_RIGHTS[role] for role in dict.fromkeys(roles)]
    name = keys.encode_part(vhost)
    writes = {pattern for right in rights for pattern in right.writes}
    reads = {pattern for right in rights for pattern in right.reads} - writes
    commands = {command for right in rights for command in right.commands} | ({"select"} if database else set())
    read_sign = "%R~" if read_only_patterns else "~"
    return [
        "reset",
        "on",
        "#" + hashlib.sha256(password.encode()).hexdigest(),
        "resetchannels",
        *(read_sign + pattern.replace("{vhost}", name) for pattern in sorted(reads)),
        *("~" + pattern.replace("{vhost}", name) for pattern in sorted(writes)),
        "-@all",
        *(f"+{command}" for command in sorted(commands)),
    ]


def apply_rules(session: Session, user: str, rules: list[str]) -> bool:
    """Set the user; True where the server keeps it over a restart. Raises ServerRefused."""
    (reply,) = session.try_call(("ACL", "SETUSER", user, *rules))
    if is_error(reply):
        advice = "; for servers before version 7 give --redis-6" if "Syntax" in str(reply) else ""
        raise ServerRefused(f"Redis at {session.address} does not take the user {user!r}: {reply}{advice}")
    (saved,) = session.try_call(("ACL", "SAVE"))
    return not is_error(saved)


def discover(session: Session) -> list[tuple[str, str]]:
    """(vhost, prefix) of every tenant that has cameras. Walks the keyspace: nothing lists the tenants, so that none can
    read of another."""
    found: set[tuple[str, str]] = set()
    for names in session.scan(f"{keys.ENGINE}:*:cameras:*"):
        for name in names:
            try:
                found.add(keys.parse_cameras_key(name))
            except WireError:
                continue
    return sorted(found)
