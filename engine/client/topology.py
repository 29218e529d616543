"""What a consumer declares at the broker."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.wire.amqp import check_name

#: Messages that wait in an exclusive queue before the oldest give way: a listener that does not keep up must not fill
#: the broker's memory, which would stop those who publish.
_WAITING_MAX = 100_000


class Topology(NamedTuple):
    """Exchange, bindings and queues; ``queue`` is empty for an exclusive one, which the broker names."""

    exchange: str
    exchange_durable: bool
    routing_keys: tuple[str, ...]
    queue: str
    attempts: int
    dead_letter: str | None

    def check_names(self) -> None:
        """Raises ConfigError for a name that AMQP cannot carry."""
        names = [("exchange", self.exchange), ("queue", self.queue), ("dead_letter", self.dead_letter or "")]
        for what, name in names + [("routing key", key) for key in self.routing_keys]:
            check_name(name, f"{what} {name[:40]!r}")

    @property
    def arguments(self) -> dict[str, Any]:
        """The queue's arguments.

        Refused messages are routed by the broker itself, through the default exchange to the queue of that name. A
        quorum queue counts the times that a message came back, and takes it away at one more than its limit.
        """
        found: dict[str, Any] = {}
        if self.dead_letter is not None:
            found |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.dead_letter}
        if not self.queue:
            return found | {"x-max-length": _WAITING_MAX}
        found |= {"x-queue-type": "quorum", "x-delivery-limit": self.attempts - 1}
        if self.dead_letter is not None:
            # Kept until the other queue has confirmed; the broker does so only where the queue refuses what is too
            # much for it, which without a length it never is.
            found |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return found
