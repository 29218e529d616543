"""Examines RabbitMQ without changes, for ``edge-video doctor``.

It declares and routes nothing. To test the right to declare, it declares the exchange with an argument of a wrong type.
To test the right to publish, it sends a message whose expiration is no number. The broker checks the user's rights
first, and then refuses the exchange or the message (403 without the right, 406 with it; RabbitMQ 3.10). So no consumer
sees any of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from engine.config import AmqpSection
from engine.servers.amqp.parameters import Exchange, open_blocking, parameters
from engine.servers.amqp.refusals import connection_error
from engine.wire.amqp_url import AmqpAddress

_FORBIDDEN, _MISSING, _REFUSED = 403, 404, 406
#: Seconds that the broker has to report that it accepts no messages (memory or disk alarm).
_BLOCKED_SECONDS = 1.0


class Rights(NamedTuple):
    """``declare`` and ``publish``: True if this user may; None if unknown. ``blocked``: the alarm's reason."""

    exists: bool
    declare: bool | None
    publish: bool | None
    blocked: str


def tls(amqp: AmqpSection, address: AmqpAddress) -> pika.SSLOptions | None:
    """The TLS context and server name for a broker; None if it is plain text."""
    return parameters(amqp, address).ssl_options


def rights(amqp: AmqpSection, address: AmqpAddress, exchange: Exchange) -> Rights:
    """Ask for the rights of a user that can connect. Raises BrokerUnavailable."""
    settings = parameters(amqp, address)
    settings.blocked_connection_timeout = _BLOCKED_SECONDS
    said: list[str] = []
    try:
        connection = open_blocking(settings)
        try:
            connection.add_on_connection_blocked_callback(lambda _, frame: said.append(str(frame.method.reason)))
            exists = _refusal(connection, lambda channel: _declare(channel, exchange, passive=True)) != _MISSING
            declare = _answer(_refusal(connection, lambda channel: _declare(channel, exchange, passive=False)))
            _listen(connection, exchange, said)
            publish = None
            if exists and not said:
                publish = _answer(_refusal(connection, lambda channel: _publish(channel, exchange)))
        finally:
            # A broker with an alarm does not read the close; the blocked timeout ends the wait for its answer.
            with contextlib.suppress(AMQPError):
                connection.close()
    except (AMQPError, OSError) as error:
        raise connection_error(address, error) from None
    return Rights(exists, declare, publish, said[0] if said else "")


def _declare(channel: Any, exchange: Exchange, *, passive: bool) -> None:
    """Check that the exchange exists (passive), or provoke a refusal: the alternate exchange's name is a number."""
    arguments = None if passive else {"alternate-exchange": 0}
    channel.exchange_declare(exchange.name, exchange.kind, passive, exchange.durable, arguments=arguments)


def _publish(channel: Any, exchange: Exchange) -> None:
    """Send a message that no broker routes, then a request; the refusal arrives instead of its answer."""
    channel.basic_publish(exchange.name, "doctor", b"", pika.BasicProperties(expiration="none"))
    channel.basic_qos(prefetch_count=1)


def _listen(connection: pika.BlockingConnection, exchange: Exchange, said: list[str]) -> None:
    """Publish, and wait for a refusal or an alarm: the broker reports alarms only to publishers."""
    channel = connection.channel()
    channel.basic_publish(exchange.name, "doctor", b"", pika.BasicProperties(expiration="none"))
    deadline = time.monotonic() + _BLOCKED_SECONDS
    while not said and channel.is_open and time.monotonic() < deadline:
        connection.process_data_events(0.05)


def _refusal(connection: pika.BlockingConnection, ask: Callable[[Any], None]) -> int:
    """The reply code with which the broker closes the channel; 0 if it does not close it."""
    channel = connection.channel()
    try:
        ask(channel)
    except ChannelClosedByBroker as refused:
        return int(refused.reply_code)
    channel.close()
    return 0


def _answer(code: int) -> bool | None:
    return {_FORBIDDEN: False, _REFUSED: True}.get(code)
