"""RabbitMQ looked at without touching it: pika's door for ``edge-video doctor``.

Nothing is declared and nothing is routed. Whether an exchange may be declared is asked with an argument of a wrong
type, and whether it may be published to with an expiration that is no number: the broker checks the user's rights first
and refuses the exchange or the message then (403 without the right, 406 with it; RabbitMQ 3.10), so that no consumer
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
from engine.servers.amqp.broker import Exchange, address_of, parameters
from engine.servers.amqp.refusals import connection_error

_FORBIDDEN, _MISSING, _REFUSED = 403, 404, 406
#: Seconds that the broker is given to say that it takes nothing (memory or disk alarm).
_BLOCKED_SECONDS = 1.0


class Rights(NamedTuple):
    """``declare`` and ``publish``: may this user; None where it could not be told. ``blocked``: the alarm's reason."""

    exists: bool
    declare: bool | None
    publish: bool | None
    blocked: str


def tls(amqp: AmqpSection) -> pika.SSLOptions | None:
    """The context and the name with which the URL's server is met; None where it is plain text."""
    return parameters(amqp).ssl_options


def rights(amqp: AmqpSection, exchange: Exchange) -> Rights:
    """Ask, on a connection that let us in before. Raises BrokerUnavailable."""
    settings = parameters(amqp)
    settings.blocked_connection_timeout = _BLOCKED_SECONDS
    said: list[str] = []
    try:
        connection = pika.BlockingConnection(settings)
        try:
            connection.add_on_connection_blocked_callback(lambda _, frame: said.append(str(frame.method.reason)))
            exists = _refusal(connection, lambda channel: _declare(channel, exchange, passive=True)) != _MISSING
            declare = _answer(_refusal(connection, lambda channel: _declare(channel, exchange, passive=False)))
            _listen(connection, exchange, said)
            publish = None
            if exists and not said:
                publish = _answer(_refusal(connection, lambda channel: _publish(channel, exchange)))
        finally:
            # A broker with an alarm does not read our farewell; the blocked timeout ends the wait for its answer.
            with contextlib.suppress(AMQPError):
                connection.close()
    except (AMQPError, OSError) as error:
        raise connection_error(address_of(amqp), error) from None
    return Rights(exists, declare, publish, said[0] if said else "")


def _declare(channel: Any, exchange: Exchange, *, passive: bool) -> None:
    """Look for the exchange; or be refused for an alternate exchange whose name is a number."""
    arguments = None if passive else {"alternate-exchange": 0}
    channel.exchange_declare(exchange.name, exchange.kind, passive, exchange.durable, arguments=arguments)


def _publish(channel: Any, exchange: Exchange) -> None:
    """A message that no broker routes, then a question, whose place the refusal takes."""
    channel.basic_publish(exchange.name, "doctor", b"", pika.BasicProperties(expiration="none"))
    channel.basic_qos(prefetch_count=1)


def _listen(connection: pika.BlockingConnection, exchange: Exchange, said: list[str]) -> None:
    """Publish, and wait until that is refused or the broker says that it takes nothing: it says so to publishers."""
    channel = connection.channel()
    channel.basic_publish(exchange.name, "doctor", b"", pika.BasicProperties(expiration="none"))
    deadline = time.monotonic() + _BLOCKED_SECONDS
    while not said and channel.is_open and time.monotonic() < deadline:
        connection.process_data_events(0.05)


def _refusal(connection: pika.BlockingConnection, ask: Callable[[Any], None]) -> int:
    """The reply code with which the broker closes the channel; 0 where it does not."""
    channel = connection.channel()
    try:
        ask(channel)
    except ChannelClosedByBroker as refused:
        return int(refused.reply_code)
    channel.close()
    return 0


def _answer(code: int) -> bool | None:
    return {_FORBIDDEN: False, _REFUSED: True}.get(code)
