"""Connects once to RabbitMQ as the publisher would, before a start."""

from __future__ import annotations

from engine.config import AmqpSection
from engine.errors import BrokerUnavailable
from engine.servers.amqp.broker import Broker
from engine.servers.amqp.parameters import Exchange, addresses_of
from engine.servers.amqp.refusals import all_failed
from engine.wire.amqp_url import AmqpAddress

#: Seconds of one wait for the broker.
_BEAT_SECONDS = 0.1


def check(amqp: AmqpSection, exchange: Exchange) -> list[BrokerUnavailable]:
    """Connect to one broker after the other, until one takes us. Returns the errors of those before it.

    If none takes us, raises ServerRefused if any of them refuses credentials, vhost or exchange, else
    BrokerUnavailable. Both name each broker's error.
    """
    errors: list[BrokerUnavailable] = []
    for address in addresses_of(amqp):
        try:
            check_one(amqp, exchange, address)
        except BrokerUnavailable as error:
            errors.append(error)
        else:
            return errors
    raise all_failed(errors)


def check_one(amqp: AmqpSection, exchange: Exchange, address: AmqpAddress) -> None:
    """Connect once to one broker. Raises BrokerUnavailable."""
    broker = Broker(amqp, exchange, [address])
    broker.open()
    try:
        while not broker.ready and not broker.blocked:
            broker.pump(_BEAT_SECONDS)
    finally:
        broker.close()
