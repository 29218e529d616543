"""Access units as RTP packets, made once and sent many times: in an RTSP connection, or as datagrams.

An access unit becomes one buffer of all its packets. A send only fills in sequences and the time stamp. Formats: RFC
3550 (RTP), RFC 6184 (H.264), RFC 7798 (H.265), RFC 2326 section 10.12 (interleaving).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from tests.servers.clips import Codec, Unit

#: Bytes of a payload, as on Ethernet.
PAYLOAD_MAX = 1400
#: Ticks of an RTP clock of video in a second.
CLOCK = 90_000
VIDEO_TYPE, AUDIO_TYPE = 96, 0
VIDEO_SSRC, AUDIO_SSRC = 0xCA3E2A, 0xA0D10
#: Channels of the connection; the next one of each has its reports.
VIDEO_CHANNEL, AUDIO_CHANNEL = 0, 2
#: Seconds between 1900, where NTP begins, and 1970.
_NTP_EPOCH = 2_208_988_800

_HEADER = struct.Struct(">cBHBBHII")
#: Where a packet's sequence and time stamp stand, from its `$` on.
_PATCH_AT = 6
_patch = struct.Struct(">HI").pack_into


class Packets:
    """The packets of one access unit."""

    def __init__(self, codec: Codec, unit: Unit) -> None:
        payloads = [payload for nal in unit.nals for payload in split_nal(codec, nal)]
        self.count = len(payloads)
        self._buffer = bytearray()
        #: Of each packet that is sent, its index in the unit and its place in the buffer.
        self._sent: list[tuple[int, int]] = []
        for number, payload in enumerate(payloads):
            if number not in unit.lost:
                self._sent.append((number, len(self._buffer) + _PATCH_AT))
                marker = 0x80 if number == len(payloads) - 1 else 0
                self._buffer += packet(VIDEO_CHANNEL, marker | VIDEO_TYPE, 0, 0, VIDEO_SSRC, payload)

    def fill(self, sequence: int, stamp: int) -> bytearray:
        """The bytes to send, valid until the next call; the first packet has this sequence."""
        buffer = self._buffer
        for number, at in self._sent:
            _patch(buffer, at, (sequence + number) & 0xFFFF, stamp)
        return buffer


class Datagrams:
    """Sends packets of video to a client over UDP: RTP to the first of its ports, reports to the second."""

    def __init__(self, host: str, ports: tuple[int, int]) -> None:
        self._to = [(host, port) for port in ports]
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
        for each in self._sockets:
            each.bind(("127.0.0.1", 0))

    @property
    def ports(self) -> list[int]:
        return [each.getsockname()[1] for each in self._sockets]

    def send(self, data: bytes | bytearray) -> None:
        """Send what would be frames of an RTSP connection. One that the client does not take is lost."""
        view, at = memoryview(data), 0
        while at < len(view):
            channel, size = view[at + 1] - VIDEO_CHANNEL, int.from_bytes(view[at + 2 : at + 4])
            with contextlib.suppress(OSError):
                self._sockets[channel].sendto(view[at + 4 : at + 4 + size], self._to[channel])
            at += 4 + size

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def packet(channel: int, kind: int, sequence: int, stamp: int, ssrc: int, payload: bytes) -> bytes:
    """One RTP packet in its RTSP frame. `kind` is the payload's type, and the marker bit."""
    return _HEADER.pack(b"$", channel, 12 + len(payload), 0x80, kind, sequence, stamp, ssrc) + payload


def sender_report(channel: int, ssrc: int, unix: float, stamp: int) -> bytes:
    """RTCP: `stamp` was at the time `unix`."""
    seconds = int(unix)
    ntp = (seconds + _NTP_EPOCH, int((unix - seconds) * 2**32))
    return struct.pack(">cBHBBHIIIIII", b"$", channel + 1, 28, 0x80, 200, 6, ssrc, *ntp, stamp, 0, 0)


def split_nal(codec: Codec, nal: bytes) -> Iterator[bytes]:
    """A NAL unit as one payload, or as fragments of it."""
    if len(nal) <= PAYLOAD_MAX:
        yield nal
        return
    if codec == "h264":
        indicator, kind, body = bytes([nal[0] & 0xE0 | 28]), nal[0] & 0x1F, nal[1:]
    else:
        indicator, kind, body = bytes([nal[0] & 0x81 | 49 << 1, nal[1]]), nal[0] >> 1 & 0x3F, nal[2:]
    step = PAYLOAD_MAX - len(indicator) - 1
    for at in range(0, len(body), step):
        begins, ends = (0x80 if at == 0 else 0), (0x40 if at + step >= len(body) else 0)
        yield indicator + bytes([begins | ends | kind]) + body[at : at + step]
