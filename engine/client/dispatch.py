"""Handles the messages that the broker delivers: parse, fetch, call, and settle each one.

Everything here runs in the thread that called ``FrameConsumer.run``. The connection to the broker has another thread
(``subscription.py``), which puts deliveries into ``Dispatcher.inbox``. A delivery is settled once: accepted, returned
for another try, or refused. When its connection is lost, a delivery can no longer be settled; the broker sends it
again.

How often a message is tried depends on the queue. The broker of a quorum queue counts the deliveries of a message
(``x-delivery-count``), and removes the message if it comes back after the last: by a nack, or because its consumer
died. So a failed delivery is held for a pause and then nacked. The next consumer sees its count, and the last delivery
is refused here. For other queues nobody counts, and a stream takes no message back. So a failed delivery is kept and
tried again here.
"""

from __future__ import annotations

import hashlib
import heapq
import queue
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.backoff import Backoff
from engine.client.callbacks import Callbacks, logger
from engine.client.delivery import (
    ConsumerCounts,
    Delivery,
    FrameCallback,
    GopCallback,
    Policy,
    StatusCallback,
    Subscription,
    Verdict,
)
from engine.client.fetch import BYTES_MAX, FRAMES_MAX, Fetcher, expected_bytes
from engine.client.frame import Frame
from engine.client.stream_position import StreamPosition
from engine.errors import RedisUnavailable, WireError
from engine.wire.events import parse_message
from engine.wire.metadata import FrameEvent

#: Pauses between tries to reach a server, in seconds.
_BACKOFF_SECONDS_MIN = 0.1
_BACKOFF_SECONDS_MAX = 5.0
#: Messages whose accepted events are remembered, each as a digest of 16 bytes and an integer.
_REMEMBERED_MAX = 4096


class _Call(NamedTuple):
    delivery: Delivery
    place: int
    last: bool


class Dispatcher:
    """Passes deliveries through the callback. ``stop`` may be called from any thread or signal handler; everything else
    belongs to one thread."""

    def __init__(
        self,
        fetcher: Fetcher,
        callback: FrameCallback,
        on_status: StatusCallback,
        on_gop: GopCallback,
        policy: Policy,
        position: StreamPosition | None = None,
    ) -> None:
        #: Deliveries, errors that end ``run``, and None to wake it. Bounded by the prefetch of at most two connections.
        #: A SimpleQueue, because its ``put`` may interrupt its own ``get``, as in a signal handler.
        self.inbox: queue.SimpleQueue[Delivery | BaseException | None] = queue.SimpleQueue()
        self.counts = dict.fromkeys(ConsumerCounts.__struct_fields__, 0)
        self.stopping = False
        self._fetcher = fetcher
        self._callbacks = Callbacks(callback, on_status, on_gop, self.counts)
        self._policy = policy
        #: Where it stands in a stream; None for other queues.
        self._position = position
        #: The offset of the message whose event was called last; None outside streams.
        self.offset: int | None = None
        self._ready: deque[Delivery] = deque()
        #: Failed deliveries that wait for their pause, as a heap: (due in monotonic seconds, tie-break, delivery).
        self._held: list[tuple[float, int, Delivery]] = []
        self._remembered: OrderedDict[bytes, int] = OrderedDict()

    def stop(self) -> None:
        """End ``run`` after the current call."""
        self.stopping = True
        self.inbox.put(None)

    def run(self, subscription: Subscription) -> None:
        """Work until stopped. Raises ServerRefused, and whatever the subscription puts into the inbox."""
        # Connect to Redis before the first message: a message held while Redis is away could lose an attempt.
        self._fetch(subscription, [])
        while not self.stopping:
            self._receive(subscription, self._idle_seconds())
            self._release(subscription)
            calls = list(self._next_calls(subscription))
            events = [call.delivery.events[call.place] for call in calls]
            wanted = [event for event in events if isinstance(event, FrameEvent)]
            frames = self._fetch(subscription, wanted) if wanted else []
            if frames is not None:
                self._call_all(subscription, calls, iter(frames))

    def _idle_seconds(self) -> float | None:
        """Seconds to wait for a delivery: 0 while there is work, else until a pause ends; None: wait for ever."""
        if self._ready:
            return 0
        return max(self._held[0][0] - time.monotonic(), 0) if self._held else None

    def _receive(self, subscription: Subscription, seconds: float | None) -> None:
        """Take in all deliveries, waiting at most ``seconds`` for the first."""
        try:
            item = self.inbox.get(timeout=seconds)
            while True:
                if isinstance(item, BaseException):
                    raise item
                if item is not None and item.generation == subscription.generation:
                    self._admit(subscription, item)
                item = self.inbox.get_nowait()
        except queue.Empty:
            return

    def _admit(self, subscription: Subscription, delivery: Delivery) -> None:
        self.counts["received"] += 1
        if self._position and delivery.offset is not None:
            delivery.redelivered = self._position.seen(delivery.offset)
            if not self._position.admit(delivery.offset, delivery.generation, delivery.body):
                subscription.settle(delivery, Verdict.ACCEPT)
                return
        self.counts["redelivered"] += delivery.redelivered
        try:
            delivery.events = parse_message(delivery.body)
        except WireError as error:
            self.counts["malformed"] += 1
            logger.warning("a message is not an event and is refused: %s", error)
            self._refuse(subscription, delivery)
            return
        if delivery.redelivered:
            # An earlier delivery may have been accepted in part: it failed in other events or lost its connection.
            delivery.accepted = self._remembered.get(_digest(delivery.body), 0)
        delivery.begin()
        if delivery.todo:
            self._ready.append(delivery)
        else:
            self._settle(subscription, delivery, Verdict.ACCEPT)

    def _settle(self, subscription: Subscription, delivery: Delivery, verdict: Verdict) -> None:
        """The delivery is done; its connection may be lost meanwhile."""
        if self._position and delivery.offset is not None:
            self._position.settle(delivery.offset)
        subscription.settle(delivery, verdict)

    def _release(self, subscription: Subscription) -> None:
        """Release failed deliveries whose pause is over."""
        while self._held and self._held[0][0] <= time.monotonic():
            _, _, delivery = heapq.heappop(self._held)
            if self._policy.counted:
                subscription.settle(delivery, Verdict.AGAIN)
            elif delivery.generation == subscription.generation:
                delivery.tries += 1
                self.counts["redelivered"] += 1
                delivery.begin()
                self._ready.append(delivery)

    def _next_calls(self, subscription: Subscription) -> Iterator[_Call]:
        """The next events to call, in order of delivery: as many as one round trip may fetch."""
        frames = size = 0
        while self._ready:
            delivery = self._ready[0]
            if delivery.generation != subscription.generation:
                self._ready.popleft()
                continue
            event = delivery.events[delivery.todo[0]]
            if isinstance(event, FrameEvent):
                frames += 1
                size += expected_bytes(event)
                # The first is always taken, however large.
                if frames > 1 and (frames > FRAMES_MAX or size > BYTES_MAX):
                    return
            place = delivery.todo.popleft()
            if not delivery.todo:
                self._ready.popleft()
            yield _Call(delivery, place, last=not delivery.todo)

    def _fetch(self, subscription: Subscription, events: Sequence[FrameEvent]) -> list[Frame | None] | None:
        """The frames; None if stopped before Redis could be reached. An outage does not use up a message's tries."""
        backoff = server_backoff()
        while not self.stopping:
            try:
                frames = self._fetcher.fetch(events)
            except RedisUnavailable as error:
                pause = backoff.next_seconds()
                if backoff.failures == 1:
                    logger.warning("deliveries wait for Redis: %s", error)
                # RabbitMQ takes back messages that stay unsettled for half an hour, and counts that as a delivery. It
                # must not deliver them again before Redis answers.
                subscription.allow(False)
                self._wait(subscription, pause)
                continue
            if backoff.failures:
                logger.info("Redis at %s answers again", self._fetcher.address)
            subscription.allow(True)
            return frames
        return None

    def _wait(self, subscription: Subscription, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            self._receive(subscription, left)

    def _call_all(self, subscription: Subscription, calls: Sequence[_Call], frames: Iterator[Frame | None]) -> None:
        for delivery, place, last in calls:
            event = delivery.events[place]
            frame = next(frames) if isinstance(event, FrameEvent) else None
            if self.stopping:
                return
            if delivery.generation != subscription.generation:
                continue
            self.offset = delivery.offset
            if self._callbacks.call(event, frame, f"{delivery.tries + 1} of {self._policy.attempts}"):
                delivery.accepted |= 1 << place
            else:
                delivery.failed = True
            if last:
                self._finish(subscription, delivery)
        if self._policy.lasting:
            # Also a message that is called in part: its connection may be lost before the rest.
            for delivery in dict.fromkeys(call.delivery for call in calls):
                self._remember(delivery)

    def _finish(self, subscription: Subscription, delivery: Delivery) -> None:
        """After all its events were called: settle the delivery, or hold it for another try."""
        if not delivery.failed:
            self._settle(subscription, delivery, Verdict.ACCEPT)
        elif delivery.tries + 1 >= self._policy.attempts:
            self._refuse(subscription, delivery)
        else:
            due = time.monotonic() + self._policy.retry_seconds
            heapq.heappush(self._held, (due, id(delivery), delivery))

    def _refuse(self, subscription: Subscription, delivery: Delivery) -> None:
        self.counts["dropped" if self._policy.dead_letter is None else "dead_lettered"] += 1
        self._settle(subscription, delivery, Verdict.REFUSE)

    def _remember(self, delivery: Delivery) -> None:
        digest = _digest(delivery.body)
        self._remembered[digest] = delivery.accepted
        self._remembered.move_to_end(digest)
        if len(self._remembered) > _REMEMBERED_MAX:
            self._remembered.popitem(last=False)


def server_backoff() -> Backoff:
    """The pauses of a consumer whose server is away."""
    return Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
