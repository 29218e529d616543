"""The publisher's connection to RabbitMQ: pika's one door for sending.

Messages are persistent and confirmed, up to a window of them at a time. A publish that returns has only been buffered;
what counts is ``take_confirmed``, which hands back each message's token, in the order sent, once it and all before it
were confirmed. pika's I/O loop is turned by ``pump``, so heartbeats are answered while nothing is sent.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Any, NamedTuple

import pika
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic

from engine.config import AmqpSection, MetadataSection
from engine.config.tls import client_context
from engine.errors import BrokerUnavailable, Cause, ConfigError, ServerRefused
from engine.servers.amqp.refusals import REFUSALS, away, connection_error
from engine.servers.overrides.pika import GatheringConnection
from engine.wire.amqp import FRAME_OVERHEAD_BYTES, MessageFraming
from engine.wire.amqp_url import AmqpAddress
from engine.wire.metadata import CONTENT_TYPE

#: AMQP's delivery mode of a message that survives a restart of the broker.
_PERSISTENT = 2
#: AMQP's reply code to what a user has no right to.
_ACCESS_REFUSED = 403
#: Seconds that a broker may take nothing before the connection is given up; so that events which expire meanwhile are
#: noticed and counted, which is done while nothing is in flight.
_BLOCKED_SECONDS_MAX = 30


class Exchange(NamedTuple):
    """Where messages go. With ``mandatory`` one that no queue takes is an error, not a silent loss."""

    name: str
    durable: bool = True
    kind: str = "topic"
    mandatory: bool = False


class Broker:
    """One connection with one confirming channel, on which the exchange is declared."""

    def __init__(self, amqp: AmqpSection, exchange: Exchange) -> None:
        self._amqp = amqp
        self._address = address_of(amqp)
        self._exchange = exchange
        self._loop: IOLoop | None = None
        self._connection: GatheringConnection | None = None
        self._channel: Channel | None = None
        self._ready = False
        self._error: BrokerUnavailable | None = None
        self._give_up_at = 0.0
        #: Tokens of the messages sent and not yet taken as confirmed, oldest first.
        self._tokens: deque[Any] = deque()
        #: Delivery tags, which count a channel's messages from 1: all up to the first were taken, all up to the second
        #: are confirmed; and those beyond that were confirmed before one in front of them.
        self._taken = self._confirmed = 0
        self._early: set[int] = set()
        #: Negative confirms since ``open``; any means that what is not confirmed must be sent again.
        self.nacked = 0
        #: True once a mandatory message came back because no queue takes it; nothing counts as confirmed from then on.
        self.unroutable = False
        #: The broker's reason for taking nothing at the moment (memory, disk); empty where it takes messages.
        self.blocked = ""
        #: How JSON messages are framed on this connection, by routing key, and the longest body that fits one frame.
        self._framings: dict[str, MessageFraming] = {}
        self._body_max = 0
        self._properties = pika.BasicProperties(content_type=CONTENT_TYPE, delivery_mode=_PERSISTENT)

    @property
    def ready(self) -> bool:
        """True where messages may be sent."""
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
        """Begin to connect; ``pump`` goes on with it."""
        self.close()
        self._error = None
        self._give_up_at = time.monotonic() + self._amqp.timeout_seconds
        self._loop = IOLoop()
        self._loop.activate_poller()
        self._connection = GatheringConnection(
            parameters(self._amqp),
            on_open_callback=self._on_open,
            on_open_error_callback=lambda _, error: self._fail(error),
            on_close_callback=lambda _, error: self._fail(error),
            custom_ioloop=self._loop,
        )
        self._connection.add_on_connection_blocked_callback(self._on_blocked)
        self._connection.add_on_connection_unblocked_callback(self._on_unblocked)

    def close(self) -> None:
        """Drop the connection; what is unconfirmed is forgotten."""
        connection, loop = self._connection, self._loop
        self._connection = self._loop = self._channel = None
        self._ready = False
        self.blocked = ""
        self.nacked = 0
        self.unroutable = False
        self._tokens.clear()
        self._early.clear()
        self._taken = self._confirmed = 0
        self._framings.clear()
        if connection is not None and loop is not None:
            if connection.is_open:
                connection.close()
                connection.flush()
                # One turn sends the farewell; its answer is not waited for.
                loop.poll()
            loop.deactivate_poller()
            loop.close()

    def pump(self, timeout_seconds: float) -> None:
        """Do what I/O there is to do, waiting at most so long for some.

        Raises BrokerUnavailable once the connection has failed; what was confirmed can still be taken before ``close``.
        """
        if self._loop is None or self._connection is None:
            raise BrokerUnavailable("RabbitMQ is not connected", cause=Cause.BROKER_AWAY)
        alarm = self._loop.call_later(timeout_seconds, _nothing)
        try:
            self._connection.flush()
            self._loop.poll()
            self._loop.process_timeouts()
            self._connection.flush()
        except (AMQPError, OSError) as error:
            self._fail(error)
        self._loop.remove_timeout(alarm)
        if self._error is None and not self._ready and time.monotonic() > self._give_up_at:
            self._error = away(self._address, f" did not answer within {self._amqp.timeout_seconds:g} s")
        if self._error is not None:
            raise self._error

    def publish(
        self, body: bytes, routing_key: str, token: Any, properties: pika.BasicProperties | None = None
    ) -> None:
        """Send a message with the next ``pump``, as persistent JSON or as ``properties`` say; its ``token`` comes back
        from take_confirmed. Only while ``ready``."""
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
        """Tokens of the messages that were confirmed with all before them, oldest first; each comes once."""
        count = self._confirmed - self._taken
        self._taken = self._confirmed
        return [self._tokens.popleft() for _ in range(count)]

    def _on_open(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._declare)

    def _declare(self, channel: Channel, *, passive: bool = False) -> None:
        """Declare the exchange; passively it must stand, which a user may ask who has no right to configure it."""
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
            # RabbitMQ closes a channel on which something was refused.
            self._connection.channel(on_open_callback=partial(self._declare, passive=True))
        else:
            self._fail(error)

    def _on_exchange(self, _: Any) -> None:
        assert self._channel is not None
        self._channel.confirm_delivery(self._on_confirm, callback=self._on_confirming)

    def _on_confirming(self, _: Any) -> None:
        assert self._connection is not None
        self._body_max = self._connection.params.frame_max - FRAME_OVERHEAD_BYTES
        self._ready = True

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tag = method.delivery_tag
        # The broker returns an unroutable message and confirms it then.
        if self.unroutable or not self._confirmed < tag <= self._taken + len(self._tokens):
            return
        if not isinstance(method, Basic.Ack):
            self.nacked += tag - self._confirmed if method.multiple else 1
            return
        if method.multiple:
            self._confirmed = tag
            self._early = {early for early in self._early if early > tag}
        else:
            self._early.add(tag)
        while self._confirmed + 1 in self._early:
            self._confirmed += 1
            self._early.remove(self._confirmed)

    def _on_return(self, _: Any, method: Any, __: Any, ___: Any) -> None:
        self.unroutable = True
        what = f" has no queue bound to exchange {method.exchange!r} for {method.routing_key!r}"
        self._fail(away(self._address, what, Cause.UNROUTABLE))

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self.blocked = str(frame.method.reason) or "blocked"

    def _on_unblocked(self, _: Any, __: Any) -> None:
        self.blocked = ""

    def _fail(self, error: object) -> None:
        self._ready = False
        if self._error is None:
            self._error = connection_error(self._address, error)


def payload_properties(
    content_type: str, message_id: str, unix_seconds: int, headers: dict[str, Any]
) -> pika.BasicProperties:
    """Properties of a persistent message whose body says nothing of itself; the id is for who must know a repeat."""
    return pika.BasicProperties(
        content_type=content_type,
        delivery_mode=_PERSISTENT,
        message_id=message_id,
        timestamp=unix_seconds,
        headers=headers,
    )


def metadata_exchange(metadata: MetadataSection) -> Exchange:
    """The exchange that a site's events go to."""
    return Exchange(metadata.exchange, metadata.exchange_durable)


def address_of(amqp: AmqpSection) -> AmqpAddress:
    """The broker of a section. Raises ConfigError where none is named."""
    if amqp.address is None:
        raise ConfigError("is not set", setting="amqp.amqp_url")
    return amqp.address


def parameters(amqp: AmqpSection) -> pika.ConnectionParameters:
    """pika's parameters for the section's broker; its URL is not shown to pika, which reads it otherwise than keys do.

    Raises ConfigError for a URL that has not one meaning.
    """
    address = address_of(amqp)
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


def check(amqp: AmqpSection, exchange: Exchange, beat_seconds: float = 0.1) -> None:
    """Connect once as the publisher would.

    Raises ServerRefused where the broker refuses credentials, vhost or exchange, BrokerUnavailable where it is away.
    """
    broker = Broker(amqp, exchange)
    broker.open()
    try:
        while not broker.ready and not broker.blocked:
            broker.pump(beat_seconds)
    except BrokerUnavailable as error:
        if error.cause in REFUSALS:
            raise ServerRefused.of(error) from None
        raise
    finally:
        broker.close()


def _nothing() -> None:
    """The alarm that ends a wait."""
