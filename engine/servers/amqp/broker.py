"""The publisher's connection to RabbitMQ; the only module that publishes with pika.

Messages are persistent and confirmed, up to a window of them at a time. ``publish`` only buffers a message.
``take_confirmed`` returns each message's token, in the order sent, once it and all messages before it are confirmed.
``turn`` sends and receives without waiting. ``pump`` runs pika's I/O loop, which also keeps the heartbeats.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic

from engine.config import AmqpSection
from engine.errors import BrokerUnavailable, Cause
from engine.servers.amqp.hosts import Hosts
from engine.servers.amqp.parameters import PERSISTENT, Exchange, addresses_of, parameters
from engine.servers.amqp.refusals import away, connection_error
from engine.servers.overrides.pika import GatheringConnection
from engine.wire.amqp import FRAME_OVERHEAD_BYTES, Ack, MessageFraming
from engine.wire.amqp_url import AmqpAddress
from engine.wire.metadata import CONTENT_TYPE

#: AMQP's reply code for a missing right.
_ACCESS_REFUSED = 403
#: Seconds between runs of pika's loop while ``turn`` does the sending and receiving: a fraction of any heartbeat.
_LOOP_SECONDS = 0.1


class Broker:
    """One connection with one confirming channel, which declares the exchange. ``open`` connects to the section's
    brokers, or those at ``addresses``, in turn (``hosts.py``)."""

    def __init__(self, amqp: AmqpSection, exchange: Exchange, addresses: Sequence[AmqpAddress] = ()) -> None:
        self._amqp = amqp
        self.hosts = Hosts(addresses or addresses_of(amqp))
        self._address = self.hosts.current
        self._exchange = exchange
        self._loop: IOLoop | None = None
        self._connection: GatheringConnection | None = None
        self._channel: Channel | None = None
        self._ready = False
        self._error: BrokerUnavailable | None = None
        self._give_up_at = self._loop_at = 0.0
        #: Tokens of the messages sent and not yet taken as confirmed, oldest first.
        self._tokens: deque[Any] = deque()
        #: Delivery tags count a channel's messages from 1. All up to ``_taken`` were taken, all up to ``_confirmed``
        #: are confirmed. ``_early`` holds later tags that were confirmed before an earlier one.
        self._taken = self._confirmed = 0
        self._early: set[int] = set()
        #: The first tag that was confirmed negatively since ``open``; 0: none.
        self._refused_tag = 0
        #: Negative confirms since ``open``. If there are any, all unconfirmed messages must be sent again.
        self.nacked = 0
        #: True after a mandatory message was returned because it has no queue; later confirms do not count.
        self.unroutable = False
        #: Why the broker currently accepts no messages (memory, disk); empty if it accepts them.
        self.blocked = ""
        #: The framing of JSON messages on this connection by routing key; the longest body that fits one frame.
        self._framings: dict[str, MessageFraming] = {}
        self._body_max = 0
        self._properties = pika.BasicProperties(content_type=CONTENT_TYPE, delivery_mode=PERSISTENT)

    @property
    def ready(self) -> bool:
        """True if messages may be sent."""
        return self._ready and not self.blocked

    @property
    def opened(self) -> bool:
        """True between open and close."""
        return self._connection is not None

    @property
    def in_flight(self) -> int:
        """Messages sent and not yet taken as confirmed."""
        return len(self._tokens)

    def open(self) -> None:
        """Begin to connect; ``pump`` continues it."""
        self.close()
        self._error = None
        self._address = self.hosts.current
        self._give_up_at = time.monotonic() + self._amqp.timeout_seconds
        self._loop = IOLoop()
        self._loop.activate_poller()
        self._connection = GatheringConnection(
            parameters(self._amqp, self._address),
            on_open_callback=self._on_open,
            on_open_error_callback=lambda _, error: self._fail(error),
            on_close_callback=lambda _, error: self._fail(error),
            custom_ioloop=self._loop,
        )
        self._connection.add_on_connection_blocked_callback(self._on_blocked)
        self._connection.add_on_connection_unblocked_callback(self._on_unblocked)

    def close(self) -> None:
        """Drop the connection and forget unconfirmed messages."""
        connection, loop = self._connection, self._loop
        self._connection = self._loop = self._channel = None
        self._ready = False
        self.blocked = ""
        self.nacked = 0
        self.unroutable = False
        self._tokens.clear()
        self._early.clear()
        self._taken = self._confirmed = self._refused_tag = 0
        self._framings.clear()
        if connection is not None and loop is not None:
            if connection.is_open:
                connection.close()
                connection.flush()
                # One round sends the close; its answer is not awaited.
                loop.poll()
            loop.deactivate_poller()
            loop.close()

    def pump(self, timeout_seconds: float) -> None:
        """Do pending I/O; wait for it at most ``timeout_seconds``.

        Raises BrokerUnavailable once the connection has failed. Confirmed tokens can still be taken before ``close``.
        """
        if self._loop is None or self._connection is None:
            raise BrokerUnavailable("RabbitMQ is not connected", cause=Cause.BROKER_AWAY)
        alarm = self._loop.call_later(timeout_seconds, _nothing)
        try:
            self._connection.flush()
            self._loop.poll()
            self._loop.process_timeouts()
            self._connection.flush()
        except (AMQPError, OSError, ValueError) as error:
            # pika raises ValueError for a connection that was reset before it asked for the peer's name.
            self._fail(error)
        self._loop.remove_timeout(alarm)
        if self._error is None and not self._ready and time.monotonic() > self._give_up_at:
            self._fail(away(self._address, f" did not answer within {self._amqp.timeout_seconds:g} s"))
        if self._error is not None:
            raise self._error

    def turn(self) -> None:
        """Do pending I/O, without waiting. Raises as ``pump``."""
        now = time.monotonic()
        if self._connection and self._ready and now < self._loop_at and self._connection.exchange():
            if self._error is not None:
                raise self._error
            return
        self._loop_at = now + _LOOP_SECONDS
        self.pump(0)

    def flush(self) -> None:
        """Send what was published, without waiting. Errors are raised by the next ``turn`` or ``pump``."""
        if self._connection:
            self._connection.flush()

    def publish(
        self, body: bytes, routing_key: str, token: Any, properties: pika.BasicProperties | None = None
    ) -> None:
        """Send a message with the next ``flush``, ``turn`` or ``pump``, as persistent JSON or with ``properties``.
        ``take_confirmed`` returns its ``token``. Only while ``ready``."""
        assert self._connection is not None
        assert self._channel is not None
        if properties is None and len(body) <= self._body_max:
            framing = self._framings.get(routing_key) or self._framing(routing_key)
            self._connection.hold(framing.frame(body))
        else:
            try:
                self._channel.basic_publish(
                    self._exchange.name, routing_key, body, properties or self._properties, self._exchange.mandatory
                )
            except AMQPError as error:
                self._fail(error)
                return
        self._tokens.append(token)

    def _framing(self, routing_key: str) -> MessageFraming:
        assert self._channel is not None
        number, exchange = self._channel.channel_number, self._exchange
        framing = MessageFraming(number, exchange.name, routing_key, CONTENT_TYPE, mandatory=exchange.mandatory)
        self._framings[routing_key] = framing
        return framing

    def take_confirmed(self) -> list[Any]:
        """Tokens of messages confirmed with all before them, oldest first; each is returned once."""
        count = self._confirmed - self._taken
        self._taken = self._confirmed
        return [self._tokens.popleft() for _ in range(count)]

    def _on_open(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._declare)

    def _declare(self, channel: Channel, *, passive: bool = False) -> None:
        """Declare the exchange. A passive one only checks that it exists, and needs no right to configure it."""
        self._channel = channel
        channel.add_on_close_callback(lambda _, error: self._on_channel_closed(error, passive=passive))
        channel.add_on_return_callback(self._on_return)
        channel.exchange_declare(
            self._exchange.name,
            exchange_type=self._exchange.kind,
            durable=self._exchange.durable,
            passive=passive,
            callback=self._on_exchange,
        )

    def _on_channel_closed(self, error: Any, *, passive: bool) -> None:
        refused = getattr(error, "reply_code", None) == _ACCESS_REFUSED and not self._ready
        if refused and not passive and self._connection is not None:
            # RabbitMQ closes a channel after a refusal.
            self._connection.channel(on_open_callback=partial(self._declare, passive=True))
        else:
            self._fail(error)

    def _on_exchange(self, _: Any) -> None:
        assert self._channel is not None
        self._channel.confirm_delivery(self._on_confirm, callback=self._on_confirming)

    def _on_confirming(self, _: Any) -> None:
        assert self._connection is not None
        assert self._channel is not None
        self._connection.take_acks(self._channel.channel_number, self._on_acks)
        self._body_max = self._connection.params.frame_max - FRAME_OVERHEAD_BYTES
        self._ready = True

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        if isinstance(method, Basic.Ack):
            self._on_acks([Ack(method.delivery_tag, method.multiple)])
        elif self._awaited(method.delivery_tag):
            first = self._confirmed + 1 if method.multiple else method.delivery_tag
            self._refused_tag = min(self._refused_tag or first, first)
            self.nacked += method.delivery_tag - self._confirmed if method.multiple else 1

    def _on_acks(self, acks: list[Ack]) -> None:
        for tag, multiple in acks:
            if not self._awaited(tag):
                continue
            if multiple:
                # The broker means all that it has not refused before.
                self._confirmed = min(tag, self._refused_tag - 1) if self._refused_tag else tag
                self._early = {early for early in self._early if early > tag}
            elif tag == self._confirmed + 1:
                self._confirmed = tag
            else:
                self._early.add(tag)
            while self._confirmed + 1 in self._early:
                self._confirmed += 1
                self._early.remove(self._confirmed)

    def _awaited(self, tag: int) -> bool:
        # The broker returns an unroutable message and then confirms it.
        return not self.unroutable and self._confirmed < tag <= self._taken + len(self._tokens)

    def _on_return(self, _: Any, method: Any, __: Any, ___: Any) -> None:
        self.unroutable = True
        what = f" has no queue bound to exchange {method.exchange!r} for {method.routing_key!r}"
        self._fail(away(self._address, what, Cause.UNROUTABLE))

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self.blocked = str(frame.method.reason) or "blocked"

    def _on_unblocked(self, _: Any, __: Any) -> None:
        self.blocked = ""

    def _fail(self, error: object) -> None:
        worked, self._ready = self._ready and not self._sent_in_vain, False
        if self._error is None:
            self._error = connection_error(self._address, error)
            if worked:
                self.hosts.lost()
            else:
                self.hosts.failed()

    @property
    def _sent_in_vain(self) -> bool:
        """True if messages were sent on this connection, and none is confirmed."""
        return bool(self._tokens) and not self._confirmed


def _nothing() -> None:
    """Callback of the alarm that ends a wait."""
