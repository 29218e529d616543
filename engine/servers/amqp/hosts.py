"""Which of several brokers to connect to, for publisher and consumers.

The one that works is kept. When its connection breaks, the same broker is tried first, because it mostly comes
back soon. After that, and after any connection that did not work, it is the next one's turn. A round asks each broker
once; the caller pauses between rounds, and not within them, so a dead node of a cluster costs one try.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.wire.amqp_url import AmqpAddress
from engine.wire.urls import host_port


class Hosts:
    """The turn of the brokers at ``addresses``, of which there is at least one."""

    def __init__(self, addresses: Sequence[AmqpAddress]) -> None:
        self._addresses = tuple(addresses)
        self._failures = 0
        #: The place in ``addresses`` of the broker whose turn it is.
        self.place = 0

    @property
    def current(self) -> AmqpAddress:
        """The broker whose turn it is."""
        return self._addresses[self.place]

    @property
    def round_over(self) -> bool:
        """True unless a broker is left that was not asked since the last pause."""
        return self._failures % len(self._addresses) == 0

    @property
    def several(self) -> bool:
        """True if there is more than one broker."""
        return len(self._addresses) > 1

    def lost(self) -> None:
        """A connection that worked is lost: its broker is tried again, after a pause."""
        self._failures = 0

    def failed(self) -> None:
        """The current broker did not serve us: it is the next one's turn."""
        self._failures += 1
        self.place = (self.place + 1) % len(self._addresses)

    def __str__(self) -> str:
        return ", ".join(host_port(one.host, one.port) for one in self._addresses)
