"""Announces the site's alerts: which changes were sent, and which are confirmed.

The monitor leaves the newest state of each alert in a file. Each change is sent at least once, in the order of the
file. Of changes made while the broker is away, only the newest of each alert is sent.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.servers.amqp.broker import Broker
from engine.shm.alerts_file import AlertsReader
from engine.shm.site import SitePaths
from engine.wire.alert import AlertKey, AlertState, encode_alert_event

#: Seconds between two looks at the file.
_LOOK_SECONDS = 0.5


class AlertToken(NamedTuple):
    """Identifies a sent event by its alert and the change that it announces."""

    key: AlertKey
    change: tuple[str, int]


class AlertEvents:
    """Sends an event through ``broker`` for each alert's latest change.

    ``paths`` is None for a site without alerts: what a former run's monitor left is not announced.
    """

    def __init__(self, broker: Broker, routing_key: str, site: str, paths: SitePaths | None) -> None:
        self._broker = broker
        self._routing_key = routing_key
        self._site = site
        self._reader = AlertsReader(paths) if paths else None
        self._look_at = 0.0
        self._sent: dict[AlertKey, tuple[str, int]] = {}
        self._confirmed: dict[AlertKey, tuple[str, int]] = {}

    @property
    def all_confirmed(self) -> bool:
        """True if every change in the file is confirmed."""
        return all(self._confirmed.get(state.key) == state.change for state in self._states())

    def turn(self, now: float) -> int:
        """Look at the file, if it is time, and send what is new, while the broker accepts messages. Returns the number
        of events."""
        if now < self._look_at or not self._broker.ready:
            return 0
        self._look_at = now + _LOOK_SECONDS
        sent = 0
        for state in self._states():
            if self._sent.get(state.key) == state.change or not self._broker.ready:
                continue
            body = encode_alert_event(self._site, state)
            self._broker.publish(body, self._routing_key, AlertToken(state.key, state.change))
            self._sent[state.key] = state.change
            sent += 1
        return sent

    def _states(self) -> list[AlertState]:
        return self._reader.states() if self._reader else []

    def confirm(self, token: AlertToken) -> None:
        """The broker has confirmed an event."""
        self._confirmed[token.key] = token.change

    def rewind(self) -> None:
        """Unconfirmed events are lost with the connection: send them again."""
        self._sent = dict(self._confirmed)
