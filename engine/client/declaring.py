"""Declares a consumer's exchange, queues and bindings, and begins to consume."""

from __future__ import annotations

import shlex
from typing import Any, NamedTuple

import pika
import pika.exceptions

from engine.client.topology import Topology
from engine.errors import Cause, ServerRefused
from engine.servers.amqp.refusals import away
from engine.wire.amqp_url import AmqpAddress

_NOT_FOUND, _PRECONDITION = 404, 406


class Declared(NamedTuple):
    """The queue's name, which the broker gives an exclusive queue; ``made`` is True if it is a stream that did not
    exist."""

    queue: str
    made: bool


def declare(connection: pika.BlockingConnection, channel: Any, topology: Topology) -> Declared:
    """Declare exchange and queues. Raises as pika."""
    channel.exchange_declare(topology.exchange, exchange_type="topic", durable=topology.exchange_durable)
    if topology.dead_letter is not None:
        channel.queue_declare(topology.dead_letter, durable=True)
    name, made = topology.queue, False
    # A stream that exists keeps its own limits.
    if not topology.stream or not _exists(connection, name):
        named = bool(name)
        declared = channel.queue_declare(name, durable=named, exclusive=not named, arguments=topology.arguments)
        name, made = declared.method.queue, topology.stream
    return Declared(name, made)


def bind(channel: Any, queue: str, topology: Topology) -> None:
    """Bind the queue to the exchange. Raises as pika."""
    for key in topology.routing_keys:
        channel.queue_bind(queue, topology.exchange, key)


def consume_stream(channel: Any, queue: str, on_message: Any, start: object, address: AmqpAddress) -> None:
    """Begin to consume a stream at ``start``. Raises ServerRefused if the queue at ``address`` is none."""
    try:
        channel.basic_consume(queue, on_message, arguments={"x-stream-offset": start})
    except pika.exceptions.ChannelClosedByBroker as refused:
        if refused.reply_code != _PRECONDITION:
            raise
    else:
        return
    command = f"rabbitmqctl -p {shlex.quote(address.vhost)} delete_queue {shlex.quote(queue)}"
    fact = f": queue {queue} exists in vhost {address.vhost} and is no stream"
    raise ServerRefused.of(away(address, fact, Cause.QUEUE_MISMATCH, command=command))


def _exists(connection: pika.BlockingConnection, queue: str) -> bool:
    """Whether a queue of that name exists. Asked on a channel of its own, which the broker closes if there is none."""
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker as refused:
        if refused.reply_code != _NOT_FOUND:
            raise
        return False
    channel.close()
    return True
