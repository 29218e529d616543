"""Lists the tenants of a server, and makes Redis users of least privilege for each.

A tenant is a vhost. The keys of its frames and journals contain its name. A user may use the commands that its role
needs, on these keys only. It may not use commands that reveal keys without naming them (KEYS, SCAN, RANDOMKEY, keyspace
events). So it learns nothing about other tenants, not even that they exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from typing import Literal, NamedTuple

from engine.errors import EngineError, RedisUnavailable, ServerRefused, WireError
from engine.servers.redis.cluster import find_members
from engine.servers.redis.session import Session, is_error
from engine.servers.redis.side_by_side import all_outcomes
from engine.wire import keys
from engine.wire.redis_address import RedisAddress
from engine.wire.urls import mask

Role = Literal["reader", "writer", "publisher"]


#: Patterns of each kind of keys: all of a tenant's, and those of one prefix of it (of ``site`` alone the site's entry).
#: ``prefix`` is part of names of frames, ``video`` the same of names of video.
_PATTERNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "frames": ("{vhost}:*", ("{vhost}:{prefix}:*",)),
    "journals": (
        "engine:{vhost}:journal:*",
        ("engine:{vhost}:journal:{prefix}:*", "engine:{vhost}:journal:{video}/*"),
    ),
    "cameras": ("engine:{vhost}:cameras:*", ("engine:{vhost}:cameras:{prefix}", "engine:{vhost}:cameras:{prefix}:*")),
    "cursors": ("engine:{vhost}:cursor:*", ("engine:{vhost}:cursor:{prefix}", "engine:{vhost}:cursor:{prefix}:*")),
    "leases": ("engine:{vhost}:lease:*", ("engine:{vhost}:lease:{prefix}:*", "engine:{vhost}:lease:{site}")),
    "video": ("engine:{vhost}:video:*", ("engine:{vhost}:video:{video}/*",)),
}


class Scope(NamedTuple):
    """One site's share of a tenant: the keys under a prefix, and the entry of the site's name."""

    prefix: str
    site: str


class _Rights(NamedTuple):
    """Commands, and kinds of keys (``_PATTERNS``) to read, and to read and write."""

    commands: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...] = ()


#: What every user needs in a cluster: where slots are, and to follow one that is being moved. It names no tenants.
_CLUSTER = ("cluster|slots", "asking")
# ROLE confirms that a server found through Sentinel is a master. Its reply names replicas, but no tenants.
_RIGHTS: dict[Role, _Rights] = {
    # Commands of FrameStore, and of the product page's recipes for a known key.
    "reader": _Rights(
        (
            *("get", "mget", "strlen", "getrange", "exists", "type", "ttl", "pttl", "ping"),
            *("xrange", "xrevrange", "xread", "xlen", "hget", "hkeys", "hgetall", "role"),
            # Reads from replicas of a cluster.
            "readonly",
        ),
        ("frames", "journals", "cameras", "video"),
    ),
    # Batches of frames and entries, trimming of journals, the cameras' states, leases, and the site's entry. In a
    # cluster: entries whose frame a node has lost.
    "writer": _Rights(
        (
            *("multi", "exec", "set", "xadd", "xtrim", "pexpire", "xrange", "xrevrange", "xinfo|stream"),
            *("hset", "hmget", "ping", "role", "getrange", "pttl"),
            *("exists", "xdel"),
        ),
        # At its start the writer reads from the cursors which sequences were used.
        ("cursors",),
        ("frames", "journals", "cameras", "leases", "video"),
    ),
    # Entries that are not announced yet, whether their frames still exist, and the cursors.
    "publisher": _Rights(
        ("xread", "xrange", "xrevrange", "exists", "type", "hgetall", "hset", "ping", "role"),
        ("frames", "journals", "cameras", "video"),
        ("cursors",),
    ),
}


def acl_rules(
    vhost: str,
    roles: Iterable[Role],
    password: str,
    *,
    database: int = 0,
    read_only_patterns: bool = True,
    scope: Scope | None = None,
) -> list[str]:
    """The rules after ``ACL SETUSER name``: the combined rights of ``roles``, and nothing else. With ``scope``, they
    end at one site's share of the tenant.

    The password is given as its SHA-256. ``read_only_patterns`` False is for servers before version 7, whose patterns
    always allow reading and writing. Raises WireError for a name that no key can hold.
    """
    rights = [_RIGHTS[role] for role in dict.fromkeys(roles)]
    writes = {kind for right in rights for kind in right.writes}
    reads = {kind for right in rights for kind in right.reads} - writes
    commands = {*_CLUSTER, *(command for right in rights for command in right.commands)}
    if database:
        commands.add("select")
    read_sign = "%R~" if read_only_patterns else "~"
    return [
        "reset",
        "on",
        "#" + hashlib.sha256(password.encode()).hexdigest(),
        "resetchannels",
        *(read_sign + pattern for pattern in _patterns(vhost, reads, scope)),
        *("~" + pattern for pattern in _patterns(vhost, writes, scope)),
        "-@all",
        *(f"+{command}" for command in sorted(commands)),
    ]


def _patterns(vhost: str, kinds: Iterable[str], scope: Scope | None) -> list[str]:
    """The patterns of kinds of keys, sorted."""
    names = {"vhost": keys.encode_part(vhost)}
    if scope:
        prefix = keys.encode_part(scope.prefix)
        names |= {"prefix": prefix, "video": prefix.replace("/", "%2F"), "site": keys.encode_part(scope.site)}
    found = [pattern for kind in kinds for pattern in (_PATTERNS[kind][1] if scope else _PATTERNS[kind][:1])]
    return sorted(pattern.format(**names) for pattern in found)


def acl_line(user: str, rules: Iterable[str]) -> str:
    """The line that sets a user, as redis-cli reads it."""
    return " ".join(["ACL SETUSER", *map(_quoted, [user, *rules])])


def _quoted(word: str) -> str:
    if not any(letter in "\"'\\" for letter in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def apply_rules(session: Session, user: str, rules: list[str]) -> bool:
    """Set the user. Returns True if the server keeps it over a restart. Raises ServerRefused."""
    (reply,) = session.try_call(("ACL", "SETUSER", user, *rules))
    if is_error(reply):
        advice = "; for servers before version 7 give --redis-6" if "Syntax" in str(reply) else ""
        raise ServerRefused(f"Redis at {session.address} does not take the user {user!r}: {reply}{advice}")
    (saved,) = session.try_call(("ACL", "SAVE"))
    return not is_error(saved)


class Applied(NamedTuple):
    """The servers that have set a user, and those that have not, with the reason. ``kept`` is True if all that have it
    keep it over a restart."""

    done: list[str]
    missing: dict[str, str]
    kept: bool

    def check(self, user: str) -> None:
        """Raises RedisUnavailable if a server is missing."""
        if not self.missing:
            return
        count = len(self.done) + len(self.missing)
        reasons = "; ".join(dict.fromkeys(self.missing.values()))
        raise RedisUnavailable(
            f"user {user!r} is set on {len(self.done)} of {count} nodes ({', '.join(self.done)}) and not on "
            f"{', '.join(self.missing)}: {reasons}; run the same command again when all nodes answer"
        )


def apply_everywhere(address: RedisAddress, timeout_seconds: float, user: str, rules: list[str]) -> Applied:
    """Set the user on every server: nodes of a cluster, replicas too, do not tell each other of users. All are asked,
    whatever one of them answers. Raises ServerRefused, RedisUnavailable if none sets it."""
    members = find_members(address, timeout_seconds) if address.cluster else []
    servers = [address.node(*node) for node in sorted(member.node for member in members)] or [address]

    def apply(where: RedisAddress) -> bool:
        with Session(where, timeout_seconds, checks_mode=not members) as session:
            # A node that hangs would carry out later what it was sent, after another run's password.
            session.hello()
            return apply_rules(session, user, rules)

    outcomes = all_outcomes([partial(apply, where) for where in servers])
    kept: list[bool] = []
    done: list[str] = []
    errors: dict[str, EngineError] = {}
    for where, outcome in zip(servers, outcomes, strict=True):
        if isinstance(outcome, EngineError):
            errors[str(where)] = outcome
        else:
            done.append(str(where))
            kept.append(outcome)
    if not done:
        raise next(iter(errors.values()))
    return Applied(done, {where: mask(error.fact) for where, error in errors.items()}, all(kept))


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
