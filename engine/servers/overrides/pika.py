"""pika: a connection that sends many frames in one system call."""

from __future__ import annotations

from typing import Any

from pika.adapters.select_connection import SelectConnection

from engine.servers.overrides import expect

expect("pika", SelectConnection, "_adapter_emit_data", "data")


class GatheringConnection(SelectConnection):  # type: ignore[misc] # pika has no types
    """Holds what is to be sent until ``flush``: pika would make a system call of each of a message's frames.

    ``_adapter_emit_data`` is what adapters of pika's Connection override; everything that pika sends passes it.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._held: list[bytes] = []
        super().__init__(*arguments, **named)

    def hold(self, frames: bytes) -> None:
        """Send whole AMQP frames with the next flush."""
        self._held.append(frames)

    _adapter_emit_data = hold

    def flush(self) -> None:
        """Send what is held, in one piece. Where the connection is gone it is forgotten."""
        data = b"".join(self._held)
        self._held.clear()
        if data and not self.is_closed:
            super()._adapter_emit_data(data)
