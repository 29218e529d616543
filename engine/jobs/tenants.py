"""Lists the tenants of a server, and makes Redis users of least privilege for each.

A tenant is a vhost. The keys of its frames and journals contain its name. A user may use the commands that its role
needs, on these keys only. It may not use commands that reveal keys without naming them (KEYS, SCAN, RANDOMKEY, keyspace
events). So it learns nothing about other tenants, not even that they exist.
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
    """Commands, key patterns to read, and key patterns to read and write. The patterns lack the tenant's name."""

    commands: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...] = ()


# ROLE confirms that a server found through Sentinel is a master. Its reply names replicas, but no tenants.
_RIGHTS: dict[Role, _Rights] = {
    # Commands of FrameStore, and of the product page's recipes for a known key.
    "reader": _Rights(
        (
            *("get", "mget", "strlen", "getrange", "exists", "type", "ttl", "pttl", "ping"),
            *("xrange", "xrevrange", "xread", "xlen", "hget", "hkeys", "hgetall", "role"),
        ),
        ("{vhost}:*", "engine:{vhost}:journal:*", "engine:{vhost}:cameras:*", "engine:{vhost}:video:*"),
    ),
    # Batches of frames and entries, trimming of journals, the cameras' states, and leases. In a cluster: where slots
    # are, and entries whose frame a node has lost.
    "writer": _Rights(
        (
            *("multi", "exec", "set", "xadd", "xtrim", "pexpire", "xrange", "xrevrange", "xinfo|stream"),
            *("hset", "hmget", "ping", "role", "getrange", "pttl"),
            *("cluster|slots", "asking", "exists", "xdel"),
        ),
        # At its start the writer reads from the cursors which sequences were used.
        ("engine:{vhost}:cursor:*",),
        (
            *("{vhost}:*", "engine:{vhost}:journal:*", "engine:{vhost}:cameras:*", "engine:{vhost}:lease:*"),
            "engine:{vhost}:video:*",
        ),
    ),
    # Entries that are not announced yet, whether their frames still exist, and the cursors.
    "publisher": _Rights(
        ("xread", "xrange", "xrevrange", "exists", "type", "hgetall", "hset", "ping", "role"),
        ("{vhost}:*", "engine:{vhost}:journal:*", "engine:{vhost}:cameras:*", "engine:{vhost}:video:*"),
        ("engine:{vhost}:cursor:*",),
    ),
}


def acl_rules(
    vhost: str, roles: Iterable[Role], password: str, *, database: int = 0, read_only_patterns: bool = True
) -> list[str]:
    """The rules after ``ACL SETUSER name``: the combined rights of ``roles``, and nothing else.

    The password is given as its SHA-256. ``read_only_patterns`` False is for servers before version 7, whose patterns
    always allow reading and writing. Raises WireError for a name that no key can hold.
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
    """Set the user. Returns True if the server keeps it over a restart. Raises ServerRefused."""
    (reply,) = session.try_call(("ACL", "SETUSER", user, *rules))
    if is_error(reply):
        advice = "; for servers before version 7 give --redis-6" if "Syntax" in str(reply) else ""
        raise ServerRefused(f"Redis at {session.address} does not take the user {user!r}: {reply}{advice}")
    (saved,) = session.try_call(("ACL", "SAVE"))
    return not is_error(saved)


def discover(session: Session) -> list[tuple[str, str]]:
    """(vhost, prefix) of every tenant that has cameras. Walks the keyspace, because no list of tenants exists: it would
    show one tenant to another."""
    found: set[tuple[str, str]] = set()
    for names in session.scan(f"{keys.ENGINE}:*:cameras:*"):
        for name in names:
            try:
                found.add(keys.parse_cameras_key(name))
            except WireError:
                continue
    return sorted(found)
