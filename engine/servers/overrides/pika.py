"""pika: a connection that sends many frames in one system call."""

from __future__ import annotations

from typing import Any

from pika.adapters.select_connection import SelectConnection

from engine.servers.overrides import expect

expect("pika", SelectConnection, "_adapter_emit_data", "data")


class GatheringConnection(SelectConnection):  # type: ignore[misc] # pika has no types
    """Holds outgoing frames until ``flush``, because pika would make a system call for each frame of a message.

    Adapters of pika's Connection override ``_adapter_emit_data``; everything that pika sends passes through it.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._held: list[bytes] = []
        super().__init__(*arguments, **named)

    def hold(self, frames: bytes) -> None:
        """Send whole AMQP frames with the next flush."""
        self._held.append(frames)

    _adapter_emit_data = hold

    def flush(self) -> None:
        """Send all held frames in one piece. If the connection is closed, they are forgotten."""
        data = b"".join(self._held)
        self._held.clear()
        if data and not self.is_closed:
            super()._adapter_emit_data(data)
