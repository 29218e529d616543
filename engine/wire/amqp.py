"""A message for RabbitMQ as AMQP 0-9-1 frames: ``Basic.Publish``, content header, and one body frame. And its answer,
``Basic.Ack``.

Layout: AMQP 0-9-1 specification, sections 2.3.5 (frames), 4.2.6 (content), 1.8.3.3 (basic.publish) and 1.8.3.13
(basic.ack). Messages of one exchange and routing key differ only in their body, so the bytes before it are framed once.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from engine.errors import ConfigError

#: RabbitMQ removes line ends from an exchange's or queue's name when it is declared, but not when it is used.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME_END = b"\xce"
#: Bytes of a frame around its payload: type, channel and size before it, the end marker after it.
FRAME_OVERHEAD_BYTES = 8
_BASIC, _PUBLISH, _ACK = 60, 40, 80
#: A frame of Basic.Ack: type, channel, size; class, method, delivery tag, bits; end marker.
_ACK_FRAME = struct.Struct(">BHIHHQBB")
ACK_BYTES = _ACK_FRAME.size
_MULTIPLE_BIT = 1
_MANDATORY_BIT = 1
#: Property flags: the two properties that follow, in the order of the specification.
_CONTENT_TYPE_FLAG, _DELIVERY_MODE_FLAG = 1 << 15, 1 << 12
_PERSISTENT = 2
#: Maximum UTF-8 bytes of a name in AMQP (exchange, queue, routing key, vhost): the length field is one byte.
SHORT_STRING_BYTES_MAX = 255


class MessageFraming:
    """The frames of persistent messages for one exchange and routing key, sent on ``channel``.

    Names are at most SHORT_STRING_BYTES_MAX bytes each. A body must fit into one frame: the connection's frame_max less
    FRAME_OVERHEAD_BYTES.
    """

    def __init__(self, channel: int, exchange: str, routing_key: str, content_type: str, *, mandatory: bool) -> None:
        publish = struct.pack(">HHH", _BASIC, _PUBLISH, 0) + _short(exchange) + _short(routing_key)
        self._publish = _frame(_METHOD, channel, publish + bytes([_MANDATORY_BIT if mandatory else 0]))
        properties = struct.pack(">H", _CONTENT_TYPE_FLAG | _DELIVERY_MODE_FLAG)
        properties += _short(content_type) + bytes([_PERSISTENT])
        #: The bytes between the publish frame and the body: the header up to the body's size, then the rest of the
        #: header and the start of the body frame.
        self._header = _frame(_HEADER, channel, struct.pack(">HHQ", _BASIC, 0, 0) + properties)[:11]
        self._between = properties + _FRAME_END + struct.pack(">BH", _BODY, channel)

    def frame(self, body: bytes) -> bytes:
        """The message with ``body``, which must not be empty."""
        size = len(body)
        return b"%b%b%b%b%b%b%b" % (
            self._publish, self._header, size.to_bytes(8, "big"),
            self._between, size.to_bytes(4, "big"), body, _FRAME_END,
        )  # fmt: skip


class Ack(NamedTuple):
    """A confirm of the message with a delivery ``tag``; if ``multiple``, of all up to it."""

    tag: int
    multiple: bool


def leading_acks(data: bytes, channel: int) -> list[Ack]:
    """The confirms of ``channel`` that ``data`` begins with, each in ACK_BYTES bytes. ``data`` begins with a frame."""
    acks: list[Ack] = []
    wanted = (_METHOD, channel, ACK_BYTES - FRAME_OVERHEAD_BYTES, _BASIC, _ACK)
    for place in range(0, len(data) - ACK_BYTES + 1, ACK_BYTES):
        *head, tag, bits, end = _ACK_FRAME.unpack_from(data, place)
        if tuple(head) != wanted or end != _FRAME_END[0]:
            break
        acks.append(Ack(tag, bool(bits & _MULTIPLE_BIT)))
    return acks


def check_name(name: str, what: str) -> None:
    """Raises ConfigError that begins with ``what`` for a name that AMQP cannot carry or RabbitMQ would change."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{what} is not UTF-8") from None
    if size > SHORT_STRING_BYTES_MAX:
        raise ConfigError(f"{what} has {size} bytes in UTF-8, at most {SHORT_STRING_BYTES_MAX}; use a shorter one")
    if control := _CONTROLS.search(name):
        raise ConfigError(f"{what} holds the control character {control[0]!r}; remove it")


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _FRAME_END


def _short(text: str) -> bytes:
    """A short string: one byte of length, then UTF-8."""
    data = text.encode()
    return bytes([len(data)]) + data
