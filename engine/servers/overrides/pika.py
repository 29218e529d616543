"""pika: a connection that sends many frames in one system call, and takes confirms without its loop; and an end of a
blocking connection that rejects nothing.

pika's loop asks the kernel five times to send once and to receive once, and decodes a confirm in 25 µs. A publisher
that sends a few messages hundreds of times a second spends most of its CPU on that. So ``exchange`` sends and receives
on the socket itself, and confirms are parsed here. pika keeps all else: the handshake, channels, refusals, heartbeats,
blocked states, TLS, and whatever the socket did not take at once.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from pika.adapters.base_connection import BaseConnection
from pika.adapters.blocking_connection import BlockingConnection
from pika.adapters.select_connection import SelectConnection

from engine.servers.overrides import expect, expect_uses
from engine.wire.amqp import ACK_BYTES, Ack, leading_acks

expect("pika", SelectConnection, "_adapter_emit_data", "data")
expect("pika", SelectConnection, "_on_data_available", "data_in")
expect("pika", SelectConnection, "_terminate_stream", "error")
expect_uses("pika", SelectConnection, "_on_data_available", "_frame_buffer")
expect_uses("pika", BaseConnection, "_adapter_emit_data", "_transport")
expect("pika", BlockingConnection, "_flush_output", "waiters")
expect_uses("pika", BlockingConnection, "close", "_impl")
expect_uses("pika", BlockingConnection, "close", "_closed_result")

#: Bytes of one receive: some thousand confirms.
_RECEIVE_BYTES = 65_536


class GatheringConnection(SelectConnection):  # type: ignore[misc] # pika has no types
    """Holds outgoing frames until ``flush``, because pika would make a system call for each frame of a message.

    Adapters of pika's Connection override ``_adapter_emit_data``; everything that pika sends passes through it.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._held: list[bytes] = []
        self._channel_number = 0
        self._on_acks: Callable[[list[Ack]], None] | None = None
        super().__init__(*arguments, **named)

    def take_acks(self, channel_number: int, on_acks: Callable[[list[Ack]], None]) -> None:
        """From now on, report most confirms of a channel to ``on_acks``. Some still come by pika's own callback."""
        self._channel_number, self._on_acks = channel_number, on_acks

    def hold(self, frames: bytes) -> None:
        """Send whole AMQP frames with the next flush."""
        self._held.append(frames)

    _adapter_emit_data = hold

    def flush(self) -> None:
        """Send all held frames in one piece. If the connection is closed, they are forgotten."""
        data = b"".join(self._held)
        self._held.clear()
        if not data or self.is_closed:
            return
        plain = self._plain_socket()
        if plain and not self._transport.get_write_buffer_size():
            # It may be full. Or broken: pika meets the error when it sends.
            with contextlib.suppress(OSError):
                data = data[plain.send(data) :]
        if data:
            super()._adapter_emit_data(data)

    def exchange(self) -> bool:
        """Send what is held, and take what has come. False if pika's loop must do that: over TLS, after the socket did
        not take all, and at the end of the stream."""
        self.flush()
        plain = self._plain_socket()
        if not plain or self._transport.get_write_buffer_size():
            return False
        try:
            data = plain.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        try:
            self._on_data_available(data)
        except Exception as error:
            # Bytes that are no AMQP raise anything. pika's loop ends the connection then, and so does this.
            self._terminate_stream(error)
            return False
        return True

    def _on_data_available(self, data_in: bytes) -> None:
        if self._on_acks and not self._frame_buffer:
            acks = leading_acks(data_in, self._channel_number)
            if acks:
                self._on_acks(acks)
                taken = len(acks) * ACK_BYTES
                # pika's heartbeat checker looks at this.
                self.bytes_received += taken
                data_in = data_in[taken:]
        if data_in:
            super()._on_data_available(data_in)

    def _plain_socket(self) -> socket.socket | None:
        """The socket of an established connection without TLS."""
        found = getattr(self._transport, "_sock", None)
        return None if isinstance(found, ssl.SSLSocket) else found


def close_at_once(connection: BlockingConnection) -> None:
    """Close a blocking connection; each message that it has not settled goes back to its queue once.

    ``BlockingConnection.close`` cancels one consumer after another. Before it cancels, it rejects the messages that it
    has not passed on. The broker gives these out again, to the same consumer or to the next one, and they are rejected
    again. A quorum queue counts each time as a delivery, and may drop the message. Raises AMQPError, OSError.
    """
    connection._impl.close()
    connection._flush_output(connection._closed_result.is_ready)
