"""A consumer's connection to RabbitMQ; the only module that receives through pika.

The connection has its own thread. Deliveries go from it to the dispatcher's thread, verdicts come back. Both carry the
connection's generation, because on another connection the same delivery tag means nothing, or another message.

Of several brokers, the one that works is kept (``engine/servers/amqp/hosts.py``).

A quorum queue counts every delivery that comes back, also of messages that only waited in a consumer that died. If one
message kills its consumer, all other messages of the prefetch would lose an attempt too. So each connection begins with
one message at a time. It takes the rest of its prefetch at the first message that was never delivered before: returned
messages come first.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from engine.client.callbacks import logger
from engine.client.declaring import bind, consume_stream, declare
from engine.client.delivery import Delivery, Verdict
from engine.client.dispatch import Dispatcher, server_backoff
from engine.client.endpoints import Endpoint
from engine.client.stream_check import StreamCheck
from engine.client.stream_position import StreamPosition
from engine.client.topology import Topology
from engine.errors import BrokerUnavailable, Cause, ServerRefused
from engine.servers.amqp.hosts import Hosts
from engine.servers.amqp.parameters import open_blocking
from engine.servers.amqp.refusals import REFUSALS, all_failed, connection_error
from engine.servers.overrides.pika import close_at_once
from engine.wire import urls

#: The longest turn of the I/O loop, in seconds. Verdicts and stop wake the loop; this bounds only how late it notices a
#: channel that the broker has closed.
_TURN_SECONDS = 1.0
#: A connection that lasted this long, in seconds, resets the pauses between retries.
_SETTLED_SECONDS = 10.0


#: A broker that does not know the exchange yet may learn of it.
_FINAL = REFUSALS - {Cause.EXCHANGE_MISSING}


class BrokerSubscription:
    """Keeps the connection to one of the brokers, in its own thread. The private methods run in that thread.

    ``position`` is where a consumer of a stream stands; None for other queues."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        topology: Topology,
        prefetch: int,
        dispatcher: Dispatcher,
        position: StreamPosition | None = None,
    ) -> None:
        self.generation = 0
        self._endpoints = endpoints
        self._hosts = Hosts([endpoint.address for endpoint in endpoints])
        self._position = position
        #: Of the present connection; None while it does not consume, and for other queues.
        self._check: StreamCheck | None = None
        #: The errors of the brokers in this round, while none has served us.
        self._failures: list[BrokerUnavailable] = []
        self._delivered = False
        self._topology = topology
        self._prefetch = prefetch
        self._dispatcher = dispatcher
        self._allowed = False
        self._closing = threading.Event()
        self._connection: pika.BlockingConnection | None = None
        self._verdicts: deque[tuple[Delivery, Verdict]] = deque()
        self._established = False
        #: When the present connection began to consume, in monotonic seconds; infinite before that.
        self._consumes_since = math.inf
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
                failure = connection_error(self._hosts.current, error)
            except BaseException as error:
                # The dispatcher waits for deliveries and must learn that none will come.
                self._dispatcher.inbox.put(error)
                return
            finally:
                # From here on, deliveries of that connection cannot be settled.
                self.generation += 1
                self._connection = None
                self._dispatcher.inbox.put(None)
            lasted = time.monotonic() - began > _SETTLED_SECONDS
            # A broker that hangs before it lets us consume may take as long.
            if self._delivered or time.monotonic() - self._consumes_since > _SETTLED_SECONDS:
                self._hosts.lost()
            else:
                self._hosts.failed()
            if not self._established and (refused := self._refused(failure)):
                self._dispatcher.inbox.put(refused)
                return
            if self._closing.is_set():
                return
            if lasted:
                backoff.reset()
            if not self._hosts.round_over:
                logger.warning("%s; trying the next broker", urls.mask(failure.fact))
                continue
            pause = backoff.next_seconds()
            logger.warning("%s; retrying in %.1f s", urls.mask(failure.fact), pause)
            self._closing.wait(pause)

    def _refused(self, failure: BrokerUnavailable) -> ServerRefused | None:
        """The error that ends the consumer after a round in which no broker served us, and one refused to."""
        self._failures.append(failure)
        if not self._hosts.round_over:
            return None
        failures, self._failures = self._failures, []
        if not any(one.cause in _FINAL for one in failures):
            return None
        return ServerRefused.of(all_failed(failures))

    def _session(self) -> None:
        """One connection, from its first byte to its last. Raises AMQPError or OSError when it breaks."""
        self._delivered = False
        self._consumes_since = math.inf
        connection = open_blocking(self._endpoints[self._hosts.place].parameters)
        self._connection = connection
        try:
            channel = connection.channel()
            queue, made = declare(connection, channel, self._topology)
            if made:
                self._begin_again(queue, self.generation)
            bind(channel, queue, self._topology)
            self._dispatcher.counts["reconnects"] += self._established
            self._established = True
            self._serve(connection, channel, queue)
        finally:
            if connection.is_open:
                with suppress(pika.exceptions.AMQPError, OSError):
                    close_at_once(connection)

    def _begin_again(self, stream: str, generation: int) -> None:
        """From the connection ``generation`` on, the stream is another one than that of the position."""
        if self._position and self._position.restart(generation):
            logger.warning("the stream %s was deleted and is made again; it is read from its beginning", stream)

    def _serve(self, connection: Any, channel: Any, queue: str) -> None:
        self._cancelled = self._met_new = self._woken = False
        channel.add_on_cancel_callback(self._on_cancel)
        on_message = partial(self._on_message, self.generation)
        self._check = None
        # How much of the prefetch is used so far.
        taken = 0
        while not self._dispatcher.stopping and not self._closing.is_set():
            if self._allowed and taken < self._prefetch and (not taken or self._met_new):
                # A second consumer is added, because a quorum queue fixes a consumer's prefetch at its start.
                more = self._prefetch - taken if taken or not self._topology.counted else 1
                channel.basic_qos(prefetch_count=more)
                self._consume(connection, channel, queue, on_message)
                taken += more
                self._consumes_since = min(self._consumes_since, time.monotonic())
            self._send_verdicts(channel)
            connection.process_data_events(_TURN_SECONDS)
            if self._check:
                self._check.look()
                if self._check.other:
                    self._begin_again(queue, self.generation + 1)
                    # This broker serves us: the next connection goes to it, too.
                    self._delivered = True
                    raise pika.exceptions.ConsumerCancelled(f"the stream {queue} is another one than before")
            if self._cancelled:
                raise pika.exceptions.ConsumerCancelled(f"the queue {queue} was deleted, or has moved")
            if not channel.is_open:
                raise pika.exceptions.ChannelWrongStateError("the broker has closed the channel")
        # Consumers are not cancelled: pika would reject messages, and each time counts as a delivery (close_at_once).
        while not self._closing.is_set():
            self._send_verdicts(channel)
            connection.process_data_events(_TURN_SECONDS)
        self._send_verdicts(channel)

    def _on_message(self, generation: int, _: Any, method: Any, properties: Any, body: bytes) -> None:
        headers = properties.headers or {}
        tries = headers.get("x-delivery-count", 0) if self._topology.counted else 0
        self._delivered = True
        self._met_new = self._met_new or not method.redelivered
        offset = headers.get("x-stream-offset") if self._position else None
        tries = tries if isinstance(tries, int) else 0
        if self._check and isinstance(offset, int):
            self._check.met(offset, body)
            if self._check.other:
                return
        self._dispatcher.inbox.put(Delivery(generation, method.delivery_tag, body, method.redelivered, tries, offset))

    def _consume(self, connection: Any, channel: Any, queue: str, on_message: Any) -> None:
        """Begin to consume. Raises ServerRefused for a queue that is no stream, though one is wanted."""
        if self._position is None:
            channel.basic_consume(queue, on_message)
            return
        start = self._position.argument()
        self._check = StreamCheck(self._position, connection, queue, start)
        consume_stream(channel, queue, on_message, start, self._hosts.current)

    def _on_cancel(self, _: Any) -> None:
        self._cancelled = True

    def _send_verdicts(self, channel: Any) -> None:
        # Cleared before reading, so that a later verdict wakes the loop again.
        self._woken = False
        while self._verdicts:
            delivery, verdict = self._verdicts.popleft()
            if delivery.generation != self.generation:
                continue
            if verdict is Verdict.ACCEPT or self._position:
                # A stream keeps its messages: it knows no other verdict.
                channel.basic_ack(delivery.tag)
            else:
                channel.basic_reject(delivery.tag, requeue=verdict is Verdict.AGAIN)


def _nothing() -> None:
    """Ends a turn of the I/O loop."""
