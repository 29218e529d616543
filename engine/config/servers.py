"""Checks of a site file's servers: addresses, TLS and Sentinel must fit together. Warns of secrets in plain text."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config.structs import Config
from engine.errors import ConfigError
from engine.wire import redis_address, urls
from engine.wire.amqp_url import AmqpAddress


def check_servers(config: Config) -> None:
    """Check that the settings fit together. Raises ConfigError with the way out."""
    redis, amqp = config.redis, config.amqp
    if redis.sentinels or redis.service:
        if redis.address != redis_address.EMBEDDED:
            raise ConfigError(
                "redis.sentinels find the server, so redis.address (or REDIS_ADDRESS) is left out; remove one of them"
            )
        redis_address.parse_sentinels(redis.sentinels, redis.service)
        if redis.cluster:
            raise ConfigError("redis.cluster and redis.sentinels are two kinds of service; remove one of them")
    elif redis.sentinel_username or redis.sentinel_password:
        raise ConfigError("redis.sentinel_username and sentinel_password need redis.sentinels and redis.service")
    if redis.cluster:
        if redis.address != redis_address.EMBEDDED:
            raise ConfigError(
                "redis.cluster names the servers, so redis.address (or REDIS_ADDRESS) is left out; remove one of them"
            )
        redis_address.parse_cluster(redis.cluster)
    elif redis.read_replicas:
        raise ConfigError("redis.read_replicas is for a cluster; name its nodes in redis.cluster, or remove it")
    if amqp.amqp_url and amqp.amqp_urls:
        raise ConfigError("amqp.amqp_urls lists all brokers, so amqp.amqp_url (or AMQP_URL) is left out; remove one")
    if redis.embedded_servers > 1 and not config.embedded:
        raise ConfigError(
            f'redis.embedded_servers = {redis.embedded_servers} is for redis.address = "embedded"; remove one of them'
        )
    brokers = amqp.addresses
    check_same_vhost(brokers, "amqp.amqp_urls")
    _check_tls(redis.tls_files, "redis", config.redis_address.tls, "a rediss:// address")
    _check_tls(amqp.tls_files, "amqp", any(broker.tls for broker in brokers), "an amqps:// URL")


def check_same_vhost(brokers: Sequence[AmqpAddress], what: str) -> None:
    """The vhost is the tenant, so all brokers must be asked for the same. Raises ConfigError, which begins with
    ``what``."""
    for broker in brokers[1:]:
        if broker.vhost != brokers[0].vhost:
            raise ConfigError(
                f"{what} name different vhosts, {brokers[0].vhost!r} at {brokers[0]} and {broker.vhost!r} at {broker}; "
                "the vhost is the tenant, so write the same one in all of them"
            )


def _check_tls(files: redis_address.TlsFiles, section: str, tls: bool, wanted: str) -> None:
    if not any(files):
        return
    if not tls:
        given = ", ".join(
            f"{section}.tls_{key}" for key, value in zip(redis_address.TlsFiles._fields, files, strict=True) if value
        )
        raise ConfigError(f"{given}: the connection is plain text; give {wanted}, or remove what is set for TLS")
    if files.server_name and not urls.is_host(files.server_name):
        raise ConfigError(
            f"{section}.tls_server_name: {files.server_name!r} is no possible host; "
            "give a name from the server's certificate"
        )
    # Loads OpenSSL, which few site files need.
    from engine.config.tls import client_context

    client_context(files, section)


def plain_text_warnings(config: Config) -> list[str]:
    """One warning for each server that would get credentials unencrypted over a network."""
    found = []
    redis = config.redis_address
    sentinel = redis.sentinel
    hosts = [host for host, _ in sentinel.hosts] if sentinel else [redis.host]
    hosts += [host for host, _ in redis.cluster]
    section = config.redis
    secret = any((redis.username, redis.password, section.publisher_username, section.publisher_password))
    secret = secret or bool(sentinel and (sentinel.username or sentinel.password))
    if secret and not redis.tls and not redis.path and not all(map(urls.is_local, hosts)):
        found.append(f"credentials go to Redis at {redis} in plain text; use rediss:// and a server that speaks TLS")
    plain = [one for one in config.amqp.addresses if not one.tls and not urls.is_local(one.host)]
    if plain:
        # A URL without a user sends guest:guest.
        where = ", ".join(dict.fromkeys(urls.host_port(one.host, one.port) for one in plain))
        found.append(f"credentials go to RabbitMQ at {where} in plain text; use amqps:// and a broker that speaks TLS")
    return found
