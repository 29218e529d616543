"""Announces changes of the cameras' states: which changes were sent, and which are confirmed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from engine.errors import WireError
from engine.servers.amqp.broker import Broker
from engine.wire.metadata import StatusEvent, encode_event
from engine.wire.state import change_of, decode_status


class StateToken(NamedTuple):
    """Identifies a sent event by its camera and the change that it announces."""

    camera: str
    change: bytes


class StateEvents:
    """Sends an event through ``broker`` for each camera's latest change of state."""

    def __init__(self, broker: Broker, routing_key: str, log: FilteringBoundLogger) -> None:
        self._broker = broker
        self._routing_key = routing_key
        self._log = log
        self._states: Mapping[str, bytes] = {}
        #: The latest change of each camera's state, and the changes that were sent and confirmed.
        self._changes: dict[str, bytes] = {}
        self._sent: dict[str, bytes] = {}
        self._confirmed: dict[str, bytes] = {}

    @property
    def all_confirmed(self) -> bool:
        """True if every known change is confirmed."""
        return all(self._confirmed.get(camera) == change for camera, change in self._changes.items())

    def look(self, states: Mapping[str, bytes]) -> None:
        """Take the states as Redis has them, by camera."""
        self._states = states
        self._changes = {camera: change_of(text) for camera, text in states.items()}

    def send(self) -> None:
        """Send the changes that were not sent yet, while the broker accepts messages."""
        for camera, change in self._changes.items():
            if not self._broker.ready or self._sent.get(camera) == change:
                continue
            try:
                status = decode_status(self._states[camera])
            except WireError as error:
                self._log.warning("camera state cannot be read", camera=camera, error=str(error))
                self._sent[camera] = self._confirmed[camera] = change
                continue
            if status.state == "connecting":
                continue
            event = StatusEvent.of(camera, status)
            self._broker.publish(encode_event(event), self._routing_key, StateToken(camera, change))
            self._sent[camera] = change

    def confirm(self, token: StateToken) -> None:
        """The broker has confirmed an event."""
        self._confirmed[token.camera] = token.change

    def rewind(self) -> None:
        """Unconfirmed events are lost with the connection: send them again."""
        self._sent = dict(self._confirmed)
