"""A consumer's connection to RabbitMQ; the only module that receives through pika.

The connection has its own thread. Deliveries go from it to the dispatcher's thread, verdicts come back. Both carry the
connection's generation, because on another connection the same delivery tag means nothing, or another message.

A quorum queue counts every delivery that comes back, also of messages that only waited in a consumer that died. If one
message kills its consumer, all other messages of the prefetch would lose an attempt too. So each connection begins with
one message at a time. It takes the rest of its prefetch at the first message that was never delivered before: returned
messages come first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from engine.client.delivery import Delivery, Verdict
from engine.client.dispatch import Dispatcher, logger, server_backoff
from engine.client.topology import Topology
from engine.config import AmqpSection, Secret
from engine.errors import Cause, ConfigError, InputError, ServerRefused
from engine.servers.amqp.parameters import open_blocking, parameters
from engine.servers.amqp.refusals import REFUSALS, connection_error
from engine.wire import redis_address, urls
from engine.wire.amqp_url import AmqpAddress, parse_amqp_url

#: The longest turn of the I/O loop, in seconds. Verdicts and stop wake the loop; this bounds only how late it notices a
#: channel that the broker has closed.
_TURN_SECONDS = 1.0
#: A connection that lasted this long, in seconds, resets the pauses between retries.
_SETTLED_SECONDS = 10.0


class BrokerSubscription:
    """Keeps the connection to the broker, in its own thread. The private methods run in that thread."""

    def __init__(
        self,
        parameters: pika.ConnectionParameters,
        address: AmqpAddress,
        topology: Topology,
        prefetch: int,
        dispatcher: Dispatcher,
    ) -> None:
        self.generation = 0
        self._parameters = parameters
        self._address = address
        self._topology = topology
        self._prefetch = prefetch
        self._dispatcher = dispatcher
        self._allowed = False
        self._closing = threading.Event()
        self._connection: pika.BlockingConnection | None = None
        self._verdicts: deque[tuple[Delivery, Verdict]] = deque()
        self._established = False
        self._woken = False
        self._cancelled = False
        self._met_new = False
        self._thread = threading.Thread(target=self._run, name="FrameConsumer", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """See delivery.Subscription."""
        self._verdicts.append((delivery, verdict))
        if not self._woken:
            # One call serves all verdicts until the loop reads them.
            self._woken = True
            self._wake()

    def allow(self, consuming: bool) -> None:
        """See delivery.Subscription."""
        if consuming != self._allowed:
            self._allowed = consuming
            self._wake()

    def close(self, timeout_seconds: float) -> None:
        """Send the last verdicts and end. Unsettled messages go back to the queue.

        If the broker does not answer in time, the daemon thread is left to end by itself.
        """
        self._closing.set()
        self._wake()
        self._thread.join(timeout_seconds)

    def _wake(self) -> None:
        """End the turn of the I/O loop."""
        connection = self._connection
        if connection is not None:
            with suppress(pika.exceptions.ConnectionWrongStateError):
                connection.add_callback_threadsafe(_nothing)

    def _run(self) -> None:
        backoff = server_backoff()
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                self._session()
                continue
            except (pika.exceptions.AMQPError, AMQPConnectorException, OSError) as error:
                failure = connection_error(self._address, error)
            except BaseException as error:
                # The dispatcher waits for deliveries and must learn that none will come.
                self._dispatcher.inbox.put(error)
                return
            finally:
                # From here on, deliveries of that connection cannot be settled.
                self.generation += 1
                self._connection = None
                self._dispatcher.inbox.put(None)
            if not self._established and failure.cause in REFUSALS - {Cause.EXCHANGE_MISSING}:
                self._dispatcher.inbox.put(ServerRefused.of(failure))
                return
            if self._closing.is_set():
                return
            if time.monotonic() - began > _SETTLED_SECONDS:
                backoff.reset()
            pause = backoff.next_seconds()
            logger.warning("%s; retrying in %.1f s", urls.mask(failure.fact), pause)
            self._closing.wait(pause)

    def _session(self) -> None:
        """One connection, from its first byte to its last. Raises AMQPError or OSError when it breaks."""
        connection = open_blocking(self._parameters)
        self._connection = connection
        try:
            channel = connection.channel()
            queue = self._declare(channel)
            self._dispatcher.counts["reconnects"] += self._established
            self._established = True
            self._serve(connection, channel, queue)
        finally:
            if connection.is_open:
                with suppress(pika.exceptions.AMQPError, OSError):
                    connection.close()

    def _declare(self, channel: Any) -> str:
        """Declare exchange, queues and bindings. Returns the queue's name; the broker names an exclusive queue."""
        topology = self._topology
        channel.exchange_declare(topology.exchange, exchange_type="topic", durable=topology.exchange_durable)
        if topology.dead_letter is not None:
            channel.queue_declare(topology.dead_letter, durable=True)
        named = bool(topology.queue)
        declared = channel.queue_declare(
            topology.queue, durable=named, exclusive=not named, arguments=topology.arguments
        )
        name: str = declared.method.queue
        for key in topology.routing_keys:
            channel.queue_bind(name, topology.exchange, key)
        return name

    def _serve(self, connection: Any, channel: Any, queue: str) -> None:
        self._cancelled = self._met_new = self._woken = False
        channel.add_on_cancel_callback(self._on_cancel)
        on_message = partial(self._on_message, self.generation)
        # How much of the prefetch is used so far.
        taken = 0
        while not self._dispatcher.stopping and not self._closing.is_set():
            if self._allowed and taken < self._prefetch and (not taken or self._met_new):
                # A second consumer is added, because a quorum queue fixes a consumer's prefetch at its start.
                more = self._prefetch - taken if taken or not self._topology.queue else 1
                channel.basic_qos(prefetch_count=more)
                channel.basic_consume(queue, on_message)
                taken += more
            self._send_verdicts(channel)
            connection.process_data_events(_TURN_SECONDS)
            if self._cancelled:
                raise pika.exceptions.ConsumerCancelled(f"the queue {queue} was deleted, or has moved")
            if not channel.is_open:
                raise pika.exceptions.ChannelWrongStateError("the broker has closed the channel")
        # Stop consuming, so that few messages go back and count as delivered.
        for tag in list(channel.consumer_tags):
            channel.basic_cancel(tag)
        while not self._closing.is_set():
            self._send_verdicts(channel)
            connection.process_data_events(_TURN_SECONDS)
        self._send_verdicts(channel)

    def _on_message(self, generation: int, _: Any, method: Any, properties: Any, body: bytes) -> None:
        tries = (properties.headers or {}).get("x-delivery-count", 0) if self._topology.queue else 0
        self._met_new = self._met_new or not method.redelivered
        self._dispatcher.inbox.put(
            Delivery(generation, method.delivery_tag, body, method.redelivered, tries if isinstance(tries, int) else 0)
        )

    def _on_cancel(self, _: Any) -> None:
        self._cancelled = True

    def _send_verdicts(self, channel: Any) -> None:
        # Cleared before reading, so that a later verdict wakes the loop again.
        self._woken = False
        while self._verdicts:
            delivery, verdict = self._verdicts.popleft()
            if delivery.generation != self.generation:
                continue
            if verdict is Verdict.ACCEPT:
                channel.basic_ack(delivery.tag)
            else:
                channel.basic_reject(delivery.tag, requeue=verdict is Verdict.AGAIN)


def connection_parameters(
    amqp_url: str, heartbeat_seconds: int, timeout_seconds: float, files: redis_address.TlsFiles
) -> pika.ConnectionParameters:
    """pika's parameters for an AMQP URL. Raises InputError, without the URL's password."""
    parse_amqp_url(amqp_url, "AMQP URL")
    try:
        tls = {f"tls_{key}": value for key, value in files._asdict().items()}
        return parameters(AmqpSection(Secret(amqp_url), heartbeat_seconds, timeout_seconds, **tls))
    except ConfigError as error:
        raise InputError.of(error) from None
    except (ValueError, TypeError) as error:
        raise InputError(f"AMQP URL {urls.mask(amqp_url)}: {urls.mask(str(error))}") from None


def _nothing() -> None:
    """Ends a turn of the I/O loop."""
