"""The brokers that a consumer may connect to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.config import AmqpSection
from engine.config.servers import check_same_vhost
from engine.errors import ConfigError, InputError
from engine.servers.amqp.parameters import parameters
from engine.wire import redis_address, urls
from engine.wire.amqp_url import AmqpAddress, parse_amqp_url

if TYPE_CHECKING:
    import pika


class Endpoint(NamedTuple):
    """A broker, and pika's parameters for it."""

    address: AmqpAddress
    parameters: pika.ConnectionParameters


def endpoints_of(
    amqp_urls: Sequence[str], heartbeat_seconds: int, timeout_seconds: float, files: redis_address.TlsFiles
) -> list[Endpoint]:
    """The brokers at AMQP URLs. Raises InputError, without the URLs' passwords."""
    if not amqp_urls:
        raise InputError("no AMQP URL; give one, or a sequence of those of a cluster's nodes")
    names = [f"AMQP URL {number}" if len(amqp_urls) > 1 else "AMQP URL" for number in range(1, len(amqp_urls) + 1)]
    addresses = [parse_amqp_url(url, name) for url, name in zip(amqp_urls, names, strict=True)]
    check_same_vhost(addresses, "AMQP URLs")
    try:
        tls = {f"tls_{key}": value for key, value in files._asdict().items()}
        section = AmqpSection(heartbeat_seconds=heartbeat_seconds, timeout_seconds=timeout_seconds, **tls)
        return [Endpoint(address, parameters(section, address)) for address in addresses]
    except ConfigError as error:
        raise InputError.of(error) from None
    except (ValueError, TypeError) as error:
        # pika's words for a setting that it does not take.
        raise InputError(f"AMQP URL {urls.mask(amqp_urls[0])}: {urls.mask(str(error))}") from None
