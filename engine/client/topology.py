"""What a consumer declares at the broker."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from engine.wire.amqp import check_name

#: Messages that an exclusive queue holds before it drops the oldest: a slow listener must not fill the broker's memory,
#: which would stop the publishers.
_WAITING_MAX = 100_000


#: Bytes that a stream keeps, at least, if the consumer makes it, and bytes of the parts in which it drops the oldest.
_STREAM_BYTES = 2**30
_SEGMENT_BYTES = 2**26

QueueType = Literal["quorum", "classic", "stream"]


class Topology(NamedTuple):
    """Exchange, bindings and queues. ``queue`` is empty for an exclusive queue, which the broker names; ``queue_type``
    is that of another queue."""

    exchange: str
    exchange_durable: bool
    routing_keys: tuple[str, ...]
    queue: str
    attempts: int
    dead_letter: str | None
    queue_type: QueueType = "quorum"

    def check_names(self) -> None:
        """Raises ConfigError for a name that AMQP cannot carry."""
        names = [("exchange", self.exchange), ("queue", self.queue), ("dead_letter", self.dead_letter or "")]
        for what, name in names + [("routing key", key) for key in self.routing_keys]:
            check_name(name, f"{what} {name[:40]!r}")

    @property
    def counted(self) -> bool:
        """True if the broker counts the deliveries of a message."""
        return bool(self.queue) and self.queue_type == "quorum"

    @property
    def stream(self) -> bool:
        """True for a stream."""
        return self.queue_type == "stream"

    @property
    def arguments(self) -> dict[str, Any]:
        """The queue's arguments.

        The broker routes refused messages itself, through the default exchange to the queue ``dead_letter``. A quorum
        queue counts how often a message came back, and removes it when the count exceeds the limit. A stream drops only
        what is too old for its size.
        """
        if self.stream:
            return {
                "x-queue-type": "stream",
                "x-max-length-bytes": _STREAM_BYTES,
                "x-stream-max-segment-size-bytes": _SEGMENT_BYTES,
            }
        found: dict[str, Any] = {}
        if self.dead_letter is not None:
            found |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.dead_letter}
        if not self.queue:
            return found | {"x-max-length": _WAITING_MAX}
        if self.queue_type == "classic":
            return found | {"x-queue-type": "classic"}
        found |= {"x-queue-type": "quorum", "x-delivery-limit": self.attempts - 1}
        if self.dead_letter is not None:
            # A message is kept until the other queue has confirmed it. The broker offers this only for queues that
            # reject messages above a length; this queue has no length, so it rejects none.
            found |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return found
