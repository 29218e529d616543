"""``FrameConsumer`` takes metadata events from RabbitMQ, fetches their frames from Redis, and calls back with both.

The connection to RabbitMQ has its own thread (``subscription.py``), which answers heartbeats however long a callback
takes. The callback runs in the thread that called ``run`` (``dispatch.py``).
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Sequence
from typing import Any, Literal, Self, TypedDict, Unpack

from engine.client.delivery import ConsumerCounts, FrameCallback, GopCallback, Policy, StatusCallback
from engine.client.dispatch import Dispatcher
from engine.client.endpoints import endpoints_of
from engine.client.fetch import Fetcher
from engine.client.frame import Frame
from engine.client.signals import stopped_by_signals
from engine.client.stream_position import StreamOffset, StreamPosition, check_offset
from engine.client.subscription import BrokerSubscription
from engine.client.topology import QueueType, Topology
from engine.config import Config, MetadataSection, load
from engine.errors import ConfigError, InputError
from engine.wire import redis_address, urls
from engine.wire.metadata import FrameEvent, GopEvent, StatusEvent

#: AMQP's prefetch is 16 bits, and 0 means no bound.
_PREFETCH_MAX = 65_535


class ConsumerOptions(TypedDict, total=False):
    """The options of ``from_site``. See the constructor."""

    queue: str
    queue_type: Literal["quorum", "classic"]
    stream: bool
    offset: StreamOffset
    exchange: str
    exchange_durable: bool
    routing_keys: Sequence[str]
    prefetch: int
    attempts: int
    dead_letter: str | None
    retry_seconds: float
    on_status: StatusCallback | None
    on_gop: GopCallback | None
    timeout_seconds: float
    heartbeat_seconds: int
    tls_files: redis_address.TlsFiles


class FrameConsumer:
    """Calls ``callback(event, frame)`` for every frame that is announced. ``frame`` is None if the frame is gone.

    A message is acknowledged when the callback has returned for all its events. If the callback raises, the message
    is delivered again after ``retry_seconds``, up to ``attempts`` times in all. After the last, or if the message is
    not an event, it goes to the queue ``dead_letter``; without that queue it is dropped.

    With ``queue``, a durable queue collects messages while no consumer runs, and several consumers may share it.
    Without ``queue``, an exclusive queue lives as long as the connection and holds at most 100,000 messages. With
    ``stream``, ``queue`` is a stream: it keeps its messages, and each consumer reads all of them from ``offset`` on.

    The consumer waits while Redis or RabbitMQ is away. Waiting does not use up an attempt, except for a message that
    was held when the connection to the broker broke.

    Each frame is delivered at least once. A message comes again when its consumer dies, or loses its connection, before
    the acknowledgement. Within one process, the callback never gets an event again that it has accepted.
    """

    def __init__(
        self,
        amqp_url: str | Sequence[str],
        redis_url: str | redis_address.RedisAddress,
        callback: FrameCallback,
        *,
        queue: str = "",
        queue_type: Literal["quorum", "classic"] = "quorum",
        stream: bool = False,
        offset: StreamOffset = "next",
        exchange: str = MetadataSection().exchange,
        exchange_durable: bool = True,
        routing_keys: Sequence[str] = ("camera.metadata.event", "camera.metadata.batch"),
        prefetch: int = 64,
        attempts: int = 3,
        dead_letter: str | None = None,
        retry_seconds: float = 0.5,
        on_status: StatusCallback | None = None,
        on_gop: GopCallback | None = None,
        timeout_seconds: float = 5.0,
        heartbeat_seconds: int = 30,
        tls_files: redis_address.TlsFiles = redis_address.SYSTEM_TLS,
    ) -> None:
        """Connects only in ``run``.

        ``amqp_url``: ``amqp://`` or ``amqps://`` with user, password and vhost, or a sequence of such URLs: the nodes
        of a cluster, tried in turn. ``redis_url``: as ``FrameStore``'s.
        ``callback(event, frame)``: called for each stored frame, one at a time, in the thread that calls ``run``. It is
        a coroutine function if ``run_async`` is used. ``on_status(event)``: the same for changes of a camera's state,
        ``on_gop(event)`` for finished GOPs of stored video (``[metadata] video = "gop"``).

        ``queue``: a durable queue's name; empty for an exclusive one. ``queue_type``: of that queue; only the broker of
        a ``quorum`` queue counts the deliveries of a message whose consumers die. ``stream``: that queue is a stream,
        which is made if it does not exist, and keeps at least 1 GiB. ``offset``: where to begin in it: ``"first"``,
        ``"last"`` (the newest chunk), ``"next"`` (what comes from now on), an offset, or an aware datetime (the first
        chunk of that time, so older messages may come too). A stream that is deleted and made again counts from 0. It
        is read from its beginning if it ends before the offset, or has other messages than were read before.
        ``exchange``, ``exchange_durable``, ``routing_keys``: as in the site's ``[metadata]``.
        ``dead_letter``: the queue for messages that failed; a stream has none.
        ``prefetch``: messages held at a time, 1 to 65,535. ``attempts``: deliveries of a message, at least 1.
        ``retry_seconds``: the pause before another attempt (0.5 s).
        ``timeout_seconds``: how long a server may take to connect, and Redis to answer (5 s).
        ``heartbeat_seconds``: AMQP heartbeat (30 s). ``tls_files``: certificates for an ``amqps://`` connection.

        Raises InputError for an argument out of range, ConfigError for an unusable address, name or TLS file.
        """
        if not all(map(callable, (callback, on_status or print, on_gop or print))):
            raise InputError(
                "callback, on_status and on_gop must be functions: callback(event, frame), on_status(event), "
                "on_gop(event)"
            )
        if not 1 <= prefetch <= _PREFETCH_MAX:
            raise InputError(f"prefetch {prefetch} is not in 1..{_PREFETCH_MAX}")
        if attempts < 1:
            raise InputError(f"attempts {attempts} is not positive")
        if not 0 <= retry_seconds < float("inf") or not 0 < timeout_seconds < float("inf"):
            raise InputError(
                f"retry_seconds {retry_seconds} must be 0 or more and timeout_seconds {timeout_seconds} above 0; "
                "both must be finite"
            )
        if queue_type not in ("quorum", "classic"):
            raise InputError(f"queue_type {queue_type!r} must be 'quorum' or 'classic'")
        check_offset(offset)
        if not stream and offset != "next":
            raise InputError("offset is for streams; set stream=True")
        if stream and not queue:
            raise InputError("stream=True needs queue: the stream's name")
        if stream and dead_letter is not None:
            raise InputError("a stream keeps its messages, so it has no dead_letter")
        if dead_letter is not None and dead_letter in ("", queue):
            raise InputError("dead_letter needs a name that differs from queue")
        if isinstance(routing_keys, str) or not routing_keys:
            raise InputError("routing_keys must be a sequence of at least one routing key")
        if redis_url == redis_address.EMBEDDED:
            raise InputError("an embedded server has no address of its own; use from_site, or unix:// and its socket")
        keys = dict.fromkeys(routing_keys)
        for what, wanted in (("status", on_status), ("video", on_gop)):
            if wanted is not None:
                keys |= dict.fromkeys(f"{key}.{what}" for key in routing_keys if not key.endswith(".batch"))
        amqp_urls = [amqp_url] if isinstance(amqp_url, str) else list(amqp_url)
        self._endpoints = endpoints_of(amqp_urls, heartbeat_seconds, timeout_seconds, tls_files)
        self._shown = ", ".join(map(urls.mask, amqp_urls))
        kind: QueueType = "stream" if stream else queue_type
        self._topology = Topology(exchange, exchange_durable, tuple(keys), queue, attempts, dead_letter, kind)
        self._topology.check_names()
        self._position = StreamPosition(offset) if stream else None
        self._prefetch = prefetch
        self._timeout_seconds = timeout_seconds
        self._callback = callback
        self._on_status = on_status
        self._on_gop = on_gop
        address = redis_address.parse_redis_address(redis_url) if isinstance(redis_url, str) else redis_url
        self._fetcher = Fetcher(address, timeout_seconds)
        policy = Policy(attempts, retry_seconds, dead_letter, self._topology.counted, bool(queue))
        calls = (self._call, self._call_status, self._call_gop)
        self._dispatcher = Dispatcher(self._fetcher, *calls, policy, self._position)
        #: The event loop that runs the callbacks; None for plain functions.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ran = False

    def __repr__(self) -> str:
        return f"FrameConsumer({self._shown!r}, queue={self._topology.queue!r})"

    @classmethod
    def from_site(
        cls, path: str | os.PathLike[str], callback: FrameCallback, **options: Unpack[ConsumerOptions]
    ) -> Self:
        """A consumer for a site file: its servers, exchange and routing keys. ``options`` are the constructor's.

        Raises ConfigError if the file is missing or invalid, or names no broker.
        """
        return cls.from_config(load(path, os.environ), callback, **options)

    @classmethod
    def from_config(cls, config: Config, callback: FrameCallback, **options: Unpack[ConsumerOptions]) -> Self:
        """A consumer for a site file that was read already. Raises ConfigError."""
        if not config.amqp.urls:
            raise ConfigError(
                "amqp.amqp_url is not set, so nothing is announced; FrameStore.tail and `edge-video frames tail` need "
                "no broker"
            )
        metadata = config.metadata
        given: ConsumerOptions = {
            "exchange": metadata.exchange,
            "exchange_durable": metadata.exchange_durable,
            "routing_keys": (metadata.routing_key, metadata.batch_routing_key),
            "tls_files": config.amqp.tls_files,
            **options,
        }
        return cls(list(map(str, config.amqp.urls)), config.redis_address, callback, **given)

    @property
    def counts(self) -> ConsumerCounts:
        """Counts so far; any thread may read them."""
        return ConsumerCounts(**self._dispatcher.counts)

    @property
    def offset(self) -> int | None:
        """The offset in the stream of the message whose event the callback has or had last; None outside streams. All
        events of a message have the same."""
        return self._dispatcher.offset

    @property
    def next_offset(self) -> int | None:
        """The offset of the first message in the stream that is not settled: where another consumer goes on. None
        outside streams, and before the first message. Any thread may read it."""
        return self._position.next_offset if self._position else None

    def run(self, *, signals: bool = True) -> None:
        """Consume until ``stop``, SIGINT or SIGTERM. The signals are handled only in the main thread.

        A consumer runs once: a second ``run`` raises InputError. Raises ServerRefused if a server refuses credentials,
        vhost, permissions or a declaration. Messages whose events were not yet called go back to the queue.
        """
        if self._loop is None and any(
            map(inspect.iscoroutinefunction, (self._callback, self._on_status, self._on_gop))
        ):
            raise InputError("a callback is a coroutine function: await run_async() in its event loop")
        if self._ran:
            raise InputError("this consumer has run already; make another one")
        self._ran = True
        if self._dispatcher.stopping:
            return
        subscription = BrokerSubscription(
            self._endpoints, self._topology, self._prefetch, self._dispatcher, self._position
        )
        with stopped_by_signals(self._dispatcher.stop, signals):
            subscription.start()
            try:
                self._dispatcher.run(subscription)
            finally:
                subscription.close(self._timeout_seconds)
                self._fetcher.close()

    async def run_async(self) -> None:
        """``run`` for coroutine functions: callbacks run in this event loop, one after the other.

        Signals are left to the loop (``loop.add_signal_handler(SIGTERM, consumer.stop)``). When cancelled, it stops
        after the current call.
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
        """End ``run`` after the current call. May be called from any thread, callback or signal handler."""
        self._dispatcher.stop()

    def _call(self, event: FrameEvent, frame: Frame | None) -> None:
        self._await(self._callback(event, frame))

    def _call_status(self, event: StatusEvent) -> None:
        if self._on_status is not None:
            self._await(self._on_status(event))

    def _call_gop(self, event: GopEvent) -> None:
        if self._on_gop is not None:
            self._await(self._on_gop(event))

    def _await(self, result: Any) -> None:
        if self._loop is not None and inspect.iscoroutine(result):
            asyncio.run_coroutine_threadsafe(result, self._loop).result()
