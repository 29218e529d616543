"""Makes and renews the publisher's connection to RabbitMQ: tries, pauses, and when the broker counts as away or back.

A broker may be away, block publishers (an alarm), or refuse messages (negative confirms). After each of these, all
unconfirmed messages are sent again, so the caller forgets them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from engine.backoff import Backoff
from engine.errors import BrokerUnavailable, Cause
from engine.servers.amqp.broker import Broker
from engine.servers.outage import Outage
from engine.shm.status_page import PublisherCount, StatusPage

#: Pauses between tries to connect, in seconds.
_BACKOFF_SECONDS_MIN = 0.5
_BACKOFF_SECONDS_MAX = 10.0
#: Seconds without a refusal after which a broker that refused messages counts as back. It refuses within milliseconds,
#: and every try sends a window of messages again, also to queues that take them.
_TRUST_SECONDS = 1.0


class BrokerConnection:
    """Keeps ``broker`` connected. ``take_confirmed`` takes its confirms and returns their number; ``rewind`` forgets
    unconfirmed messages."""

    def __init__(
        self,
        broker: Broker,
        page: StatusPage,
        log: FilteringBoundLogger,
        take_confirmed: Callable[[], int],
        rewind: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._counts = page.counts
        self._log = log
        self._take_confirmed = take_confirmed
        self._rewind = rewind
        self._backoff = Backoff(_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX)
        self._retry_at = 0.0
        #: True from refused messages on until the broker counts as back, which is not before ``_trust_at``.
        self._refused = False
        self._trust_at = 0.0
        self._outage = Outage(log, "rabbitmq", "is away; events wait in the journals", page)

    @property
    def away(self) -> bool:
        """True while the broker is away, blocks publishers, or refuses messages."""
        return bool(self._outage.ongoing or self._broker.blocked)

    def turn(self, now: float) -> int:
        """Take one step: connect, or send and receive, without waiting. Returns the number of confirmed messages."""
        try:
            if not self._broker.opened:
                if now < self._retry_at:
                    return 0
                self._counts[PublisherCount.CONNECTS] += 1
                self._broker.open()
            self._broker.turn()
        except (BrokerUnavailable, OSError) as error:
            self.lost(error)
            return 0
        if self._broker.ready and not self._counts[PublisherCount.CONNECTED]:
            self._counts[PublisherCount.CONNECTED] = 1 + self._broker.hosts.place
            self._trust_at = now + _TRUST_SECONDS
            if not self._refused:
                self._back()
        if self._broker.blocked and self._counts[PublisherCount.CONNECTED]:
            self._counts[PublisherCount.CONNECTED] = 0
            self._outage.lost(
                BrokerUnavailable(f"RabbitMQ takes no messages: {self._broker.blocked}", cause=Cause.BROKER_BLOCKED)
            )
        confirmed = self._take_confirmed()
        if self._broker.nacked:
            self._refused = True
            self._counts[PublisherCount.NACKED] += self._broker.nacked
            self._broker.hosts.lost()
            self.lost(
                BrokerUnavailable(f"RabbitMQ refused {self._broker.nacked} messages (nack)", cause=Cause.BROKER_BLOCKED)
            )
        elif (
            self._refused and self._broker.ready and now > self._trust_at and (confirmed or not self._broker.in_flight)
        ):
            self._refused = False
            self._back()
        return confirmed

    def lost(self, error: Exception) -> None:
        """The broker is away for this reason: close the connection, and pause before the next try."""
        self._take_confirmed()
        self._broker.close()
        self._counts[PublisherCount.CONNECTED] = 0
        self._rewind()
        pause = self._backoff.next_seconds() if self._broker.hosts.round_over else 0.0
        self._retry_at = time.monotonic() + pause
        self._outage.lost(error)

    def close(self) -> None:
        """Leave the broker."""
        self._broker.close()
        self._counts[PublisherCount.CONNECTED] = 0

    def _back(self) -> None:
        self._backoff.reset()
        self._outage.over()
        hosts = self._broker.hosts
        self._log.info("rabbitmq connected", **({"at": str(hosts.current)} if hosts.several else {}))
