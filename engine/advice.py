"""What to do about an error: one table of advice for each audience.

An error states a fact and names its ``Cause``. These tables turn the cause into advice in the reader's words. For a
person at the command line, advice names keys of the site file, environment variables and options. For a script that
uses the library, it names parameters, because a script may have no site file. ``errors.explain`` joins fact and advice.

Templates take an error's ``details``: ``server`` is the section of the site file (``redis`` or ``amqp``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class Cause(Enum):
    """Why something failed, in as much detail as the advice needs. Code decides by the cause, never by the text."""

    #: The fact says everything: either it names the only way out, or there is none.
    OTHER = auto()

    # Redis
    #: It cannot be reached, or it closed the connection. The engine tries again.
    REDIS_AWAY = auto()
    #: It takes connections, or should, and does not answer in time.
    REDIS_HANGS = auto()
    #: The same at a start, which does not wait: for a server's address, and for Sentinel addresses.
    REDIS_ADDRESS = auto()
    SENTINELS = auto()
    #: It is still loading its data.
    LOADING = auto()
    #: It cannot answer now: a script is running, or it is no longer the master.
    BUSY = auto()
    LOGIN = auto()
    PUBLISHER_LOGIN = auto()
    SENTINEL_LOGIN = auto()
    UNKNOWN_SERVICE = auto()
    #: The address of a plain server belongs to a node of a Redis Cluster, or to a sentinel.
    CLUSTER = auto()
    #: A server was named as a node of a Redis Cluster, and it is none.
    NO_CLUSTER = auto()
    #: No node of a Redis Cluster answers, at a start.
    CLUSTER_NODES = auto()
    SENTINEL_ADDRESS = auto()
    OLD_SERVER = auto()
    #: The user may not send this command.
    FORBIDDEN = auto()
    #: The publisher's user may not read journals and cursors.
    JOURNALS_FORBIDDEN = auto()
    #: This key was not written by the engine.
    WRONG_TYPE = auto()
    #: The scheme of an address is not one of Redis's.
    ADDRESS_FORM = auto()
    #: The address of a sentinel has credentials in it.
    SENTINEL_FORM = auto()

    # TLS, with Redis and with RabbitMQ
    TLS_AUTHORITY = auto()
    TLS_NAME = auto()
    TLS_EXPIRED = auto()
    TLS_CLIENT_CERTIFICATE = auto()
    NOT_TLS = auto()

    # RabbitMQ
    #: It cannot be reached, or it closed the connection. The engine tries again.
    BROKER_AWAY = auto()
    #: It accepts no messages: a memory or disk alarm, or negative confirms.
    BROKER_BLOCKED = auto()
    BROKER_LOGIN = auto()
    VHOST = auto()
    EXCHANGE_FORBIDDEN = auto()
    EXCHANGE_MISSING = auto()
    #: The exchange exists with another property: durable, not durable, another type, or something else.
    EXCHANGE_DURABLE = auto()
    EXCHANGE_TRANSIENT = auto()
    EXCHANGE_TYPE = auto()
    EXCHANGE_MISMATCH = auto()
    QUEUE_MISMATCH = auto()
    #: Something exists with other properties than declared, and the broker's text does not say which.
    PRECONDITION = auto()
    #: Another connection uses the queue exclusively.
    QUEUE_LOCKED = auto()
    #: No queue receives a message that must not get lost.
    UNROUTABLE = auto()
    #: An AMQP URL has parameters, which the engine does not read there.
    URL_PARAMETERS = auto()


class Audience(Enum):
    """Who reads an error's text."""

    #: A script that uses ``FrameStore`` or ``FrameConsumer``.
    LIBRARY = auto()
    #: A person who runs a site, at the command line and in its logs: keys of the site file, environment variables.
    SITE = auto()
    #: A person who names the servers with --redis and --amqp.
    OPTIONS = auto()
    #: A person who runs ``edge-video recover``, which takes the exchange from options.
    RECOVER = auto()


#: Causes without advice, on purpose: the engine tries again by itself, or the fact says what is needed.
SILENT = frozenset({
    Cause.OTHER, Cause.REDIS_AWAY, Cause.REDIS_HANGS, Cause.LOADING, Cause.BUSY, Cause.OLD_SERVER, Cause.WRONG_TYPE,
    Cause.BROKER_AWAY, Cause.BROKER_BLOCKED,
})  # fmt: skip

_DELETE = "or delete it once (`{command}`), which unbinds its queues"
_QUEUE = "attempts and dead_letter are fixed when it is made: give the same, name another, or delete it with its "
_QUEUE += "messages (`{command}`)"

_SITE = {
    Cause.REDIS_ADDRESS: "check redis.address and that the server runs",
    Cause.SENTINELS: "check redis.sentinels and redis.service, and that the servers run",
    Cause.LOGIN: "set redis.username and redis.password, or REDIS_USERNAME and REDIS_PASSWORD",
    Cause.PUBLISHER_LOGIN: "set redis.publisher_username and redis.publisher_password, or REDIS_PUBLISHER_USERNAME and "
    "REDIS_PUBLISHER_PASSWORD",
    Cause.SENTINEL_LOGIN: "set redis.sentinel_username and redis.sentinel_password, or REDIS_SENTINEL_PASSWORD",
    Cause.UNKNOWN_SERVICE: "check redis.service",
    Cause.CLUSTER: "name its nodes in redis.cluster instead of redis.address",
    Cause.NO_CLUSTER: "name it in redis.address instead of redis.cluster",
    Cause.CLUSTER_NODES: "check redis.cluster and that its nodes run",
    Cause.SENTINEL_ADDRESS: "name it in redis.sentinels, and its service in redis.service",
    Cause.FORBIDDEN: "give this user the rights that `edge-video tenants acl` lists",
    Cause.JOURNALS_FORBIDDEN: "give this user the publisher's rights that `edge-video tenants acl` lists",
    Cause.ADDRESS_FORM: "use host:port, redis://, rediss://, unix:// or 'embedded'",
    Cause.SENTINEL_FORM: "credentials go into redis.sentinel_username and redis.sentinel_password",
    Cause.TLS_AUTHORITY: "set {server}.tls_ca_file to the authority that signed the server's certificate",
    Cause.TLS_NAME: "set {server}.tls_server_name to a name in the server's certificate",
    Cause.TLS_EXPIRED: "the server needs another certificate",
    Cause.TLS_CLIENT_CERTIFICATE: "the server wants another client certificate: set {server}.tls_certificate_file and "
    "tls_key_file",
    Cause.NOT_TLS: "check that the server speaks TLS on that port",
    Cause.BROKER_LOGIN: "check user and password in amqp.amqp_url or AMQP_URL",
    Cause.VHOST: "check the vhost in amqp.amqp_url, and the user's permissions on it",
    Cause.EXCHANGE_FORBIDDEN: "give the user write permission on the exchange, and configure permission or declare it "
    "beforehand",
    Cause.EXCHANGE_MISSING: "declare the exchange beforehand, or give the user configure permission on it",
    Cause.EXCHANGE_DURABLE: f"set `metadata.exchange_durable = true`, {_DELETE}",
    Cause.EXCHANGE_TRANSIENT: f"set `metadata.exchange_durable = false`, {_DELETE}",
    Cause.EXCHANGE_TYPE: f"name another in metadata.exchange, {_DELETE}",
    Cause.EXCHANGE_MISMATCH: f"name another in metadata.exchange, {_DELETE}",
    Cause.QUEUE_MISMATCH: "it was made by another consumer: name another, or delete it with its messages (`{command}`)",
    Cause.PRECONDITION: "set metadata.exchange_durable as the exchange has it, or delete the exchange once",
    Cause.QUEUE_LOCKED: "another connection has this queue to itself: name another queue",
    Cause.UNROUTABLE: "bind a queue that keeps the messages to metadata.exchange",
    Cause.URL_PARAMETERS: "remove them{instead} (a ? in a vhost is written %3F)",
}  # fmt: skip

_LIBRARY = {
    Cause.REDIS_ADDRESS: "check the Redis address and that the server runs",
    Cause.SENTINELS: "check sentinels and service, and that the servers run",
    Cause.LOGIN: "put user and password into the Redis address; FrameStore also takes username and password",
    Cause.PUBLISHER_LOGIN: "",
    Cause.SENTINEL_LOGIN: "give sentinel_username and sentinel_password",
    Cause.UNKNOWN_SERVICE: "check service",
    Cause.CLUSTER: "give its nodes as cluster=[...], or as cluster://host:port,host:port",
    Cause.NO_CLUSTER: "give it as the address of one server",
    Cause.CLUSTER_NODES: "check the cluster's addresses and that its nodes run",
    Cause.SENTINEL_ADDRESS: "give it as one of sentinels, with its service",
    Cause.FORBIDDEN: "give this user a reader's rights (`edge-video tenants acl` lists them)",
    Cause.JOURNALS_FORBIDDEN: "give this user a reader's rights (`edge-video tenants acl` lists them)",
    Cause.ADDRESS_FORM: "use host:port, redis://, rediss:// or unix://",
    Cause.SENTINEL_FORM: "credentials go into sentinel_username and sentinel_password",
    Cause.TLS_AUTHORITY: "give TlsFiles(ca_file=...) with the authority that signed the server's certificate",
    Cause.TLS_NAME: "give TlsFiles(server_name=...) with a name in the server's certificate",
    Cause.TLS_EXPIRED: "the server needs another certificate",
    Cause.TLS_CLIENT_CERTIFICATE: "the server wants another client certificate: give TlsFiles(certificate_file=..., "
    "key_file=...)",
    Cause.NOT_TLS: "check that the server speaks TLS on that port",
    Cause.BROKER_LOGIN: "check user and password of the AMQP URL",
    Cause.VHOST: "check the vhost in the AMQP URL, and the user's permissions on it",
    Cause.EXCHANGE_FORBIDDEN: "give the user configure, write and read permissions on the exchange and the queues",
    Cause.EXCHANGE_MISSING: "declare the exchange beforehand, or give the user configure permission on it",
    Cause.EXCHANGE_DURABLE: f"give exchange_durable=True, {_DELETE}",
    Cause.EXCHANGE_TRANSIENT: f"give exchange_durable=False, {_DELETE}",
    Cause.EXCHANGE_TYPE: f"name another with exchange, {_DELETE}",
    Cause.EXCHANGE_MISMATCH: f"name another with exchange, {_DELETE}",
    Cause.QUEUE_MISMATCH: _QUEUE,
    Cause.PRECONDITION: "an exchange or a queue exists with other properties: name another, or delete it once",
    Cause.QUEUE_LOCKED: "another connection has this queue to itself: name another queue",
    Cause.UNROUTABLE: "bind a queue that keeps the messages",
    Cause.URL_PARAMETERS: "remove them{instead} (a ? in a vhost is written %3F)",
}  # fmt: skip

_OPTIONS = _SITE | {
    Cause.REDIS_ADDRESS: "check --redis and that the server runs",
    Cause.LOGIN: "put user and password into --redis, or set REDIS_USERNAME and REDIS_PASSWORD",
    Cause.CLUSTER: "give --redis cluster://host:port,host:port with its nodes, or --config a site file with "
    "redis.cluster",
    Cause.NO_CLUSTER: "give it as --redis host:port",
    Cause.CLUSTER_NODES: "check --redis and that the cluster's nodes run",
    Cause.SENTINEL_ADDRESS: "give --config a site file that names it in redis.sentinels, and its redis.service",
    Cause.ADDRESS_FORM: "use host:port, redis://, rediss:// or unix://",
    Cause.TLS_AUTHORITY: "give --config a site file that sets {server}.tls_ca_file to the authority that signed the "
    "server's certificate",
    Cause.TLS_NAME: "give --config a site file that sets {server}.tls_server_name to a name in the server's "
    "certificate",
    Cause.TLS_CLIENT_CERTIFICATE: "the server wants another client certificate: give --config a site file that sets "
    "{server}.tls_certificate_file and tls_key_file",
    Cause.BROKER_LOGIN: "check user and password in --amqp or AMQP_URL",
    Cause.VHOST: "check the vhost in --amqp or AMQP_URL, and the user's permissions on it",
    Cause.EXCHANGE_DURABLE: f"give --config a site file with `metadata.exchange_durable = true`, {_DELETE}",
    Cause.EXCHANGE_TRANSIENT: f"give --config a site file with `metadata.exchange_durable = false`, {_DELETE}",
    Cause.EXCHANGE_TYPE: f"give --config a site file with another metadata.exchange, {_DELETE}",
    Cause.EXCHANGE_MISMATCH: f"give --config a site file with another metadata.exchange, {_DELETE}",
}

_RECOVER = _SITE | {
    Cause.BROKER_LOGIN: "check user and password in --amqp, AMQP_URL or amqp.amqp_url",
    Cause.VHOST: "check the vhost in --amqp, AMQP_URL or amqp.amqp_url, and the user's permissions on it",
    Cause.EXCHANGE_DURABLE: f"give --durable, {_DELETE}",
    Cause.EXCHANGE_TRANSIENT: f"give --no-durable, {_DELETE}",
    Cause.EXCHANGE_TYPE: f"give --exchange-type {{kind}}, {_DELETE}",
    Cause.EXCHANGE_MISMATCH: f"name another with --exchange, {_DELETE}",
    Cause.UNROUTABLE: "bind a queue that keeps the frames, or name another exchange or key",
}

TABLES = {
    Audience.LIBRARY: _LIBRARY,
    Audience.SITE: _SITE,
    Audience.OPTIONS: _OPTIONS,
    Audience.RECOVER: _RECOVER,
}

#: What each audience calls a setting. Settings that are not listed keep the site file's key.
_LIBRARY_NAMES = {
    "redis.address": "Redis address",
    "redis.sentinels": "sentinels",
    "redis.service": "service",
    "redis.cluster": "cluster",
    "amqp.amqp_url": "AMQP URL",
    "amqp.heartbeat_seconds": "heartbeat_seconds",
    "amqp.timeout_seconds": "timeout_seconds",
} | {
    f"{section}.tls_{field}": f"tls_files.{field}"
    for section in ("redis", "amqp")
    for field in ("ca_file", "certificate_file", "key_file", "server_name")
}
NAMES: dict[Audience, Mapping[str, str]] = {
    Audience.LIBRARY: _LIBRARY_NAMES,
    Audience.SITE: {},
    Audience.OPTIONS: {"redis.address": "--redis"},
    Audience.RECOVER: {},
}


def advise(cause: Cause, audience: Audience, details: Mapping[str, str]) -> str:
    """The advice for a cause; empty if there is none."""
    if cause in SILENT:
        return ""
    filled = dict(details)
    if cause is Cause.URL_PARAMETERS:
        filled["instead"] = _instead(audience, details.get("settings", ""))
    return TABLES[audience][cause].format_map(filled)


def name_of(setting: str, audience: Audience) -> str:
    """What ``audience`` calls a key of the site file, or several keys joined by ``and``."""
    return " and ".join(NAMES[audience].get(key, key) for key in setting.split(" and "))


def _instead(audience: Audience, settings: str) -> str:
    """Which settings replace URL parameters; ``settings`` is ``parameter=key key,parameter=key``."""
    pairs = [part.partition("=")[::2] for part in settings.split(",") if part]
    return "".join(
        f"; in place of {parameter} set {_listed([name_of(key, audience) for key in keys.split()])}"
        for parameter, keys in pairs
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
