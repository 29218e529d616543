"""What a connection to RabbitMQ is opened with: the broker's address, pika's parameters, the exchange."""

from __future__ import annotations

from typing import Any, NamedTuple

import pika

from engine.config import AmqpSection, MetadataSection
from engine.config.tls import client_context
from engine.errors import ConfigError
from engine.wire.amqp_url import AmqpAddress

#: AMQP's delivery mode for a message that survives a restart of the broker.
PERSISTENT = 2
#: Seconds that a broker may block before the connection is closed. Events that expire meanwhile are counted only while
#: nothing is in flight.
_BLOCKED_SECONDS_MAX = 30


class Exchange(NamedTuple):
    """The target of messages. With ``mandatory`` a message without a queue is an error, not a silent loss."""

    name: str
    durable: bool = True
    kind: str = "topic"
    mandatory: bool = False


def payload_properties(
    content_type: str, message_id: str, unix_seconds: int, headers: dict[str, Any]
) -> pika.BasicProperties:
    """Properties of a persistent message whose body does not describe itself. The id reveals a repeated message."""
    return pika.BasicProperties(
        content_type=content_type,
        delivery_mode=PERSISTENT,
        message_id=message_id,
        timestamp=unix_seconds,
        headers=headers,
    )


def open_blocking(settings: pika.ConnectionParameters) -> pika.BlockingConnection:
    """A blocking connection of pika's. Raises AMQPError, OSError."""
    try:
        return pika.BlockingConnection(settings)
    except ValueError as error:
        # It was reset before pika asked for the peer's name.
        raise ConnectionResetError(str(error)) from None


def metadata_exchange(metadata: MetadataSection) -> Exchange:
    """The exchange for a site's events."""
    return Exchange(metadata.exchange, metadata.exchange_durable)


def addresses_of(amqp: AmqpSection) -> tuple[AmqpAddress, ...]:
    """The brokers of a section. Raises ConfigError if none is named."""
    if not amqp.urls:
        raise ConfigError("is not set", setting="amqp.amqp_url")
    return amqp.addresses


def parameters(amqp: AmqpSection, address: AmqpAddress) -> pika.ConnectionParameters:
    """pika's parameters for one of the section's brokers. pika does not parse URLs, because it reads them differently.

    Raises ConfigError for unusable TLS files.
    """
    tls = None
    if address.tls:
        tls = pika.SSLOptions(client_context(amqp.tls_files, "amqp"), amqp.tls_server_name or address.host)
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.vhost,
        credentials=pika.PlainCredentials(address.username, address.password),
        heartbeat=amqp.heartbeat_seconds,
        socket_timeout=amqp.timeout_seconds,
        stack_timeout=amqp.timeout_seconds,
        blocked_connection_timeout=_BLOCKED_SECONDS_MAX,
        connection_attempts=1,
        ssl_options=tls,
    )
