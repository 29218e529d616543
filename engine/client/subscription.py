"""A consumer's connection to RabbitMQ: pika's one door for receiving.

It lives in a thread of its own. Between that thread and the one that dispatches go deliveries one way and verdicts the
other. Both carry the connection's generation, because a delivery tag means nothing, or another message, on the next
connection.

A quorum queue counts every delivery that comes back, also of messages that only waited in a consumer which then died.
If a consumer that one message kills held a whole prefetch, its neighbours would use up their attempts with it. So each
connection begins with one message at a time, and takes the rest of its prefetch when it meets the first message that
was never delivered before: what came back comes first.
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
from engine.servers.amqp.broker import parameters
from engine.servers.amqp.refusals import REFUSALS, connection_error
from engine.wire import urls
from engine.wire.amqp_url import AmqpAddress, parse_amqp_url

#: The longest turn of the I/O loop, in seconds. Verdicts and stop wake it; this bounds only how late a channel that
#: the broker has closed is noticed.
_TURN_SECONDS = 1.0
#: A connection that lasted this long, in seconds, ends a row of failures.
_SETTLED_SECONDS = 10.0


class BrokerSubscription:
    """The connection to the broker, kept up by a thread of its own, whose methods are the private ones."""

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
            # One call is enough for all verdicts until the loop looks at them.
            self._woken = True
            self._wake()

    def allow(self, consuming: bool) -> None:
        """See delivery.Subscription."""
        if consuming != self._allowed:
            self._allowed = consuming
            self._wake()

    def close(self, timeout_seconds: float) -> None:
        """Send the last verdicts and end; what is unsettled goes back to the queue.

        A broker that does not answer is not waited for: the thread, which keeps nobody alive, ends when it gives up.
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
                # Whoever waits for deliveries must learn that none will come.
                self._dispatcher.inbox.put(error)
                return
            finally:
                # From here on deliveries of that connection are nobody's.
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
        connection = pika.BlockingConnection(self._parameters)
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
        """Exchange, queues and bindings; returns the queue's name, which for an exclusive one is the broker's."""
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
        # Messages that may be unsettled so far, of those that may be in the end.
        taken = 0
        while not self._dispatcher.stopping and not self._closing.is_set():
            if self._allowed and taken < self._prefetch and (not taken or self._met_new):
                # A second consumer beside the first: a quorum queue fixes a consumer's prefetch when it begins.
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
        # Nothing more is taken, so that as little as possible goes back and is counted there as delivered.
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
        # Before looking, so that whoever comes later wakes the loop again.
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
    amqp_url: str, heartbeat_seconds: int, timeout_seconds: float, files: urls.TlsFiles
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
