"""Connections to network cameras that are made without FFmpeg, over TCP or TLS. Every wait is bounded.

Certificates are not checked, because FFmpeg does not check them either: cameras have self-signed ones.
"""

from __future__ import annotations

import io
import socket
import ssl
import struct
import time
from typing import Any
from urllib.parse import SplitResult

#: Default port of each scheme.
PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_TLS = ("rtsps", "https")
#: The longest that one call waits for bytes, in microseconds. Readers then look at their deadline.
_SLICE_US = 400_000
#: C's ``struct timeval``.
_TIMEVAL = struct.Struct("@ll")


class Silent(TimeoutError):
    """Connected, but no answer arrived."""


def seconds_left(deadline: float) -> float:
    """Seconds until ``deadline``. Raises TimeoutError if it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def connect(parts: SplitResult, deadline: float) -> socket.socket:
    """A connection to the host of a URL. The host lookup cannot be bounded. Raises OSError, Silent."""
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from None
    failure: OSError = TimeoutError()
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            # A host's addresses share the remaining time.
            connection.settimeout(seconds_left(deadline) / (len(addresses) - number))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
            continue
        connection.settimeout(seconds_left(deadline))
        return _encrypted(connection, host) if parts.scheme in _TLS else connection
    raise failure


def _encrypted(connection: socket.socket, host: str) -> socket.socket:
    """TLS as FFmpeg uses it with cameras, which have self-signed certificates and old TLS versions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except TimeoutError:
        connection.close()
        raise Silent from None
    except OSError as error:
        connection.close()
        if isinstance(error, ssl.SSLError):
            raise
        raise ssl.SSLError(0, "the connection was closed") from None


class Receiver:
    """Receives from a connection, with a deadline for each call."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.plain = not isinstance(connection, ssl.SSLSocket)
        if self.plain:
            # The kernel bounds the wait: a timeout of Python's costs a second system call each time.
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, _SLICE_US))
        else:
            connection.settimeout(_SLICE_US / 1e6)

    def readinto(self, memory: memoryview, deadline: float) -> int:
        """Wait for bytes until ``deadline``, monotonic; returns how many came, 0 at the end. Raises TimeoutError,
        OSError."""
        while time.monotonic() < deadline:
            try:
                return self._connection.recv_into(memory)
            except (BlockingIOError, TimeoutError):
                continue
        raise TimeoutError

    def expect(self, count: int) -> None:
        """Sleep in ``readinto`` until so many bytes are there, and not for each packet of the network."""
        if self.plain:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


class DeadlineReader(io.RawIOBase):
    """What a camera sends, as a file. A read raises TimeoutError when ``deadline`` has passed, however often bytes
    come."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.receiver = Receiver(connection)
        self.deadline = deadline

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def readinto(self, memory: Any, /) -> int:
        """See RawIOBase."""
        return self.receiver.readinto(memory, self.deadline)
