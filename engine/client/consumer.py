"""``FrameConsumer``: metadata events from RabbitMQ, their frames from Redis, and a callback that gets both.

pika's one door for receiving. The connection lives in a thread of its own, so that heartbeats are answered however
long a callback takes; the callback runs in the thread that called ``run`` (``work.py``). Between them go
deliveries one way and verdicts the other; both carry the connection's generation, because a delivery tag means
nothing, or another message, on the next connection.

A quorum queue counts every delivery that comes back, also of messages that only waited in a consumer which then died.
Were a whole prefetch given to a consumer that one message kills, its neighbours would use up their tries with it. So
each connection begins with one message at a time, and takes the rest of its prefetch when it meets the first message
that was never delivered before: what came back comes first.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from engine.client.delivery import Counts, Delivery, FrameCallback, Policy, StatusCallback, Verdict
from engine.client.dispatch import Work, backoff_seconds, logger
from engine.client.fetch import Fetcher
from engine.client.frame import Frame
from engine.client.signals import stopped_by_signals
from engine.client.topology import Topology
from engine.config import AmqpSection, Config, MetadataSection, Secret, load
from engine.errors import Cause, ConfigError, InputError, ServerRefused
from engine.servers.amqp.broker import parameters
from engine.servers.amqp.refusals import REFUSALS, connection_error
from engine.wire import urls
from engine.wire.amqp_url import AmqpAddress, parse_amqp_url
from engine.wire.metadata import FrameEvent

#: The longest turn of the I/O loop, in seconds. Verdicts and stop wake it; this bounds only how late a channel that
#: the broker has closed is noticed.
_TURN_SECONDS = 1.0
#: AMQP's prefetch is 16 bits, and 0 means no bound.
_PREFETCH_MAX = 65_535
#: A connection that lasted this long, in seconds, ends a row of failures.
_SETTLED_SECONDS = 10.0


class FrameConsumer:
    """Calls ``callback(event, frame)`` for every stored frame as it is announced; ``frame`` is None where it has gone.

    A message is acknowledged when the callback has returned for all its events. One whose callback raises comes again
    after ``retry_seconds``, ``attempts`` times in all; then, or when it is no event at all, it goes to the queue
    ``dead_letter``, or is dropped where none is named. ``on_status(event)`` is called for cameras' changes of state.

    ``queue`` names a durable queue that collects while no consumer runs, and may be shared by several; without one,
    an exclusive queue lives as long as the connection: live listening, of which at most 100,000 messages wait. At most
    ``prefetch`` messages are held here. Redis and RabbitMQ may come and go: this waits for both, and what waits costs
    no attempt, but for a message that was held while its connection to the broker broke.

    Frames arrive at least once: a message comes again when its consumer dies or loses its connection before the
    acknowledgement; within one process, events that the callback has accepted are then not called again.

    Raises InputError for what cannot be.
    """

    def __init__(
        self,
        amqp_url: str,
        redis_url: str | urls.RedisAddress,
        callback: FrameCallback,
        *,
        queue: str = "",
        exchange: str = MetadataSection().exchange,
        exchange_durable: bool = True,
        routing_keys: Sequence[str] = ("camera.metadata.event", "camera.metadata.batch"),
        prefetch: int = 64,
        attempts: int = 3,
        dead_letter: str | None = None,
        retry_seconds: float = 0.5,
        on_status: StatusCallback | None = None,
        timeout_seconds: float = 5.0,
        heartbeat_seconds: int = 30,
        tls_files: urls.TlsFiles = urls.SYSTEM_TLS,
    ) -> None:
        if not callable(callback) or not (on_status is None or callable(on_status)):
            raise InputError("callback and on_status are functions: callback(event, frame), on_status(event)")
        if not 1 <= prefetch <= _PREFETCH_MAX:
            raise InputError(f"prefetch {prefetch} is not in 1..{_PREFETCH_MAX}")
        if attempts < 1:
            raise InputError(f"attempts {attempts} is not positive")
        if not 0 <= retry_seconds < float("inf") or not 0 < timeout_seconds < float("inf"):
            raise InputError(f"retry_seconds {retry_seconds} or timeout_seconds {timeout_seconds} is no such time")
        if dead_letter is not None and dead_letter in ("", queue):
            raise InputError("dead_letter needs a name, and another one than queue")
        if isinstance(routing_keys, str) or not routing_keys:
            raise InputError("routing_keys is a sequence of at least one routing key")
        if redis_url == urls.EMBEDDED:
            raise InputError("an embedded server has no address of its own; use from_site, or unix:// and its socket")
        keys = dict.fromkeys(routing_keys)
        if on_status is not None:
            keys |= dict.fromkeys(f"{key}.status" for key in routing_keys if not key.endswith(".batch"))
        self._parameters = _parameters(amqp_url, heartbeat_seconds, timeout_seconds, tls_files)
        self._topology = Topology(exchange, exchange_durable, tuple(keys), queue, attempts, dead_letter)
        self._topology.check_names()
        self._amqp_url = Secret(amqp_url)
        self._prefetch = prefetch
        self._timeout_seconds = timeout_seconds
        self._callback = callback
        self._on_status = on_status
        address = urls.parse_redis_address(redis_url) if isinstance(redis_url, str) else redis_url
        self._fetcher = Fetcher(address, timeout_seconds)
        policy = Policy(attempts, retry_seconds, dead_letter, bool(queue))
        self._work = Work(self._fetcher, self._call, self._call_status, policy)
        #: The event loop whose coroutines the callbacks are; None for plain functions.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ran = False

    def __repr__(self) -> str:
        return f"FrameConsumer({urls.mask(self._amqp_url)!r}, queue={self._topology.queue!r})"

    @classmethod
    def from_site(cls, path: str | os.PathLike[str], callback: FrameCallback, **options: Any) -> Self:
        """The consumer of a site file: its servers, exchange and routing keys. Raises ConfigError."""
        return cls.from_config(load(path, os.environ), callback, **options)

    @classmethod
    def from_config(cls, config: Config, callback: FrameCallback, **options: Any) -> Self:
        """The consumer of a site that was read already. Raises ConfigError."""
        if not config.amqp.amqp_url:
            raise ConfigError(
                "amqp.amqp_url is not set, so nothing is announced; FrameStore.tail and `edge-video frames tail` need "
                "no broker"
            )
        metadata = config.metadata
        given: dict[str, Any] = {
            "exchange": metadata.exchange,
            "exchange_durable": metadata.exchange_durable,
            "routing_keys": (metadata.routing_key, metadata.batch_routing_key),
            "tls_files": config.amqp.tls_files,
        }
        return cls(str(config.amqp.amqp_url), config.redis_address, callback, **(given | options))

    @property
    def counts(self) -> Counts:
        """What was done so far; may be asked from any thread."""
        return Counts(**self._work.counts)

    def run(self, *, signals: bool = True) -> None:
        """Consume until ``stop``, or SIGINT or SIGTERM, which are handled when this is the main thread.

        Runs once; again is an InputError. Raises ServerRefused where a server refuses credentials, vhost, permissions
        or a declaration. What was delivered and not yet called goes back to its queue.
        """
        if self._loop is None and any(map(inspect.iscoroutinefunction, (self._callback, self._on_status))):
            raise InputError("a callback is a coroutine function: await run_async() in its event loop")
        if self._ran:
            raise InputError("this consumer has run already; make another one")
        self._ran = True
        if self._work.stopping:
            return
        subscription = _Subscription(
            self._parameters, parse_amqp_url(self._amqp_url), self._topology, self._prefetch, self._work
        )
        with stopped_by_signals(self._work.stop, signals):
            subscription.start()
            try:
                self._work.run(subscription)
            finally:
                subscription.close(self._timeout_seconds)
                self._fetcher.close()

    async def run_async(self) -> None:
        """``run`` for callbacks that are coroutine functions: they run in this event loop, one after the other.

        Signals are the loop's business (``loop.add_signal_handler(SIGTERM, consumer.stop)``). Cancelled, it stops
        after the call that runs.
        """
        self._loop = asyncio.get_running_loop()
        ended = asyncio.ensure_future(asyncio.to_thread(self.run, signals=False))
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self.stop()
            await ended
            raise

    def stop(self) -> None:
        """End ``run`` after the call that runs now; from any thread, a callback, or a signal's handler."""
        self._work.stop()

    def _call(self, event: FrameEvent, frame: Frame | None) -> None:
        self._await(self._callback(event, frame))

    def _call_status(self, event: Any) -> None:
        if self._on_status is not None:
            self._await(self._on_status(event))

    def _await(self, result: Any) -> None:
        if self._loop is not None and inspect.iscoroutine(result):
            asyncio.run_coroutine_threadsafe(result, self._loop).result()


class _Subscription:
    """The connection to the broker, kept up by a thread of its own, whose methods are the private ones."""

    def __init__(
        self, parameters: pika.ConnectionParameters, address: AmqpAddress, topology: Topology, prefetch: int, work: Work
    ) -> None:
        self.generation = 0
        self._parameters = parameters
        self._address = address
        self._topology = topology
        self._prefetch = prefetch
        self._work = work
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
        failures = 0
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                self._session()
                continue
            except (pika.exceptions.AMQPError, AMQPConnectorException, OSError) as error:
                failure = connection_error(self._address, error)
            except BaseException as error:
                # Whoever waits for deliveries must learn that none will come.
                self._work.inbox.put(error)
                return
            finally:
                # From here on deliveries of that connection are nobody's.
                self.generation += 1
                self._connection = None
                self._work.inbox.put(None)
            if not self._established and failure.cause in REFUSALS - {Cause.EXCHANGE_MISSING}:
                self._work.inbox.put(ServerRefused.of(failure))
                return
            if self._closing.is_set():
                return
            failures = 1 if time.monotonic() - began > _SETTLED_SECONDS else failures + 1
            pause = backoff_seconds(failures)
            logger.warning("%s; retrying in %.1f s", urls.mask(failure.fact), pause)
            self._closing.wait(pause)

    def _session(self) -> None:
        """One connection, from its first byte to its last. Raises AMQPError or OSError when it breaks."""
        connection = pika.BlockingConnection(self._parameters)
        self._connection = connection
        try:
            channel = connection.channel()
            queue = self._declare(channel)
            self._work.counts["reconnects"] += self._established
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
        while not self._work.stopping and not self._closing.is_set():
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
        self._work.inbox.put(
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


def _parameters(
    amqp_url: str, heartbeat_seconds: int, timeout_seconds: float, files: urls.TlsFiles
) -> pika.ConnectionParameters:
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
