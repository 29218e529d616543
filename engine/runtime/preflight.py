"""Checks of the servers before a start: they must answer and accept the site."""

from __future__ import annotations

import re
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import BrokerUnavailable, Cause, RedisUnavailable, ServerRefused
from engine.servers.amqp.check import check
from engine.servers.amqp.parameters import metadata_exchange
from engine.servers.redis.cluster import find_nodes
from engine.servers.redis.connect import check_mode
from engine.servers.redis.session import Session
from engine.wire.cluster import SLOTS
from engine.wire.redis_address import RedisAddress

#: The first version with XTRIM MINID and all other commands that the engine uses.
REDIS_VERSION_MIN = (6, 2)


class Server(NamedTuple):
    """A server's kind and version, as the server reports them."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


def check_redis(config: Config) -> Server:
    """Connect as the writer and, if it is another user, as the publisher. Raises ServerRefused if Redis is unreachable,
    refuses the credentials, is too old, or is a node of a cluster; also if that holds for one master of a cluster, or
    if some of its slots have none."""
    server = _check_redis(config, config.redis_address)
    if config.publishes and config.publisher_redis_address != config.redis_address:
        _check_redis(config, config.publisher_redis_address)
    return server


def _check_redis(config: Config, address: RedisAddress) -> Server:
    try:
        return (_check_cluster if address.cluster else _check_server)(address, config.redis.timeout_seconds)
    except RedisUnavailable as error:
        kinds = ((address.sentinel, Cause.SENTINELS), (address.cluster, Cause.CLUSTER_NODES))
        cause = next((cause for kind, cause in kinds if kind), Cause.REDIS_ADDRESS)
        raise ServerRefused.of(error, cause=cause) from None
    except ServerRefused as error:
        if error.cause is Cause.LOGIN and address != config.redis_address:
            raise ServerRefused.of(error, cause=Cause.PUBLISHER_LOGIN) from None
        raise


def _check_cluster(address: RedisAddress, timeout_seconds: float) -> Server:
    """Each master, and that they have all slots. Returns the first. Raises RedisUnavailable, ServerRefused."""
    known = find_nodes(address, timeout_seconds)
    if not known.covered:
        raise RedisUnavailable(
            f"Redis at {address}: {known.uncovered:,} of {SLOTS:,} slots have no master", subject=f"Redis at {address}"
        )
    servers = [_check_server(address.node(*node), timeout_seconds, in_cluster=True) for node in known.masters]
    return servers[0]


def _check_server(address: RedisAddress, timeout_seconds: float, *, in_cluster: bool = False) -> Server:
    """One server, or one node. Raises RedisUnavailable, ServerRefused."""
    with Session(address, timeout_seconds) as session:
        fields = session.hello()
    name, version = fields.get("server", ""), fields.get("version", "")
    if not in_cluster:
        check_mode(address, fields.get("mode", ""))
    if name != "valkey" and _numbers(version) < REDIS_VERSION_MIN:
        known = f"version {version}" if version else "of a version before 6"
        raise ServerRefused(
            f"Redis at {address} is {known}; {'.'.join(map(str, REDIS_VERSION_MIN))} or later is needed",
            cause=Cause.OLD_SERVER,
            subject=f"Redis at {address}",
        )
    return Server(name, version)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (7, 0, 15) of 7.0.15."""
    return tuple(int(part) for part in re.findall(r"\d+", version, re.ASCII)[:3])


def check_broker(config: Config, log: FilteringBoundLogger) -> None:
    """Connect as the publisher, to one broker after the other until one takes us. Raises ServerRefused if none does and
    one refuses us; only warns of brokers that do not take us while another does, and if all are away."""
    if not config.publishes:
        log.info("no broker: metadata stays in the journals", reason=_why_not(config))
        return
    try:
        for error in check(config.amqp, metadata_exchange(config.metadata)):
            log.warning("rabbitmq: one of the brokers does not serve us; another does", error=error)
    except BrokerUnavailable as error:
        log.warning("rabbitmq is away; frames are stored, events wait in the journals", error=error)


def _why_not(config: Config) -> str:
    return "metadata.enabled is false" if config.amqp.urls else "amqp.amqp_url is not set"
