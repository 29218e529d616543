"""Checks of a site file's servers: addresses, TLS and Sentinel must fit together. Warns of secrets in plain text."""

from __future__ import annotations

from engine.config.structs import Config
from engine.errors import ConfigError
from engine.wire import redis_address, urls


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
    broker = amqp.address
    _check_tls(redis.tls_files, "redis", config.redis_address.tls, "a rediss:// address")
    _check_tls(amqp.tls_files, "amqp", broker is not None and broker.tls, "an amqps:// URL")


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
    broker = config.amqp.address
    if broker and not broker.tls and not urls.is_local(broker.host):
        # A URL without a user sends guest:guest.
        where = urls.host_port(broker.host, broker.port)
        found.append(f"credentials go to RabbitMQ at {where} in plain text; use amqps:// and a broker that speaks TLS")
    return found
