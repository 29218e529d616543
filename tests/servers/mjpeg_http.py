"""A camera that sends MJPEG over HTTP, inside the test's own process, and the ways in which one fails."""

from __future__ import annotations

import array
import fcntl
import random
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, Self

import cv2
import numpy as np

from tests.servers.wait import comes_within, free_port

Mode = Literal["normal", "silent", "garbage", "die-mid-frame", "refuse", "stall", "truncated"]

_BOUNDARY = "frame"
_RESPONSE = (
    f"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary={_BOUNDARY}\r\n"
    "Cache-Control: no-cache\r\nConnection: close\r\n\r\n"
).encode()

#: How often a connection that has nothing to send looks for a new mode and for the client's end.
_IDLE_SECONDS = 0.02

#: SO_LINGER on with no time left: close() drops what is unsent and sends RST.
_LINGER_NOT = struct.pack("ii", 1, 0)


class MjpegCamera:
    """An HTTP server on loopback that sends `frames`, over and over or as the callable gives them, at `fps`.

    Frames are numbered over the camera's life: a client that connects again gets the next ones, and of two
    clients at a time each gets a part. `mode` may be changed at any time and holds for open connections too:

    normal         every frame, whole
    silent         accepts and reads the request; sends nothing, or nothing more
    garbage        a right HTTP header, then random bytes
    die-mid-frame  `after` whole frames a connection, half a frame, RST
    refuse         connections are cut and new ones refused, until another mode opens the same port again
    stall          `after` whole frames a connection, then nothing, with the connection open
    truncated      every `every`-th part is half a JPEG with the Content-Length of that half
    """

    def __init__(
        self,
        frames: Sequence[bytes] | Callable[[int], bytes],
        fps: float = 25,
        mode: Mode = "normal",
        *,
        after: int = 5,
        every: int = 3,
    ) -> None:
        self.fps = fps
        self.after = after
        self.every = every
        self.port = free_port()
        self._frame = frames if callable(frames) else lambda index: frames[index % len(frames)]
        self._mode: Mode = mode
        self._running = False
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._handlers: list[threading.Thread] = []
        # Guards what follows, which the connections' threads write.
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._frames_taken = 0
        self._sent: list[bytes] = []
        self._truncated: list[bytes] = []
        self._connections: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video.mjpg"

    @property
    def sent(self) -> list[bytes]:
        """The whole frames sent, noted just before their last byte goes out: no client can be ahead of it."""
        with self._lock:
            return list(self._sent)

    @property
    def truncated(self) -> list[bytes]:
        """The halves of frames that mode "truncated" has sent as if they were whole."""
        with self._lock:
            return list(self._truncated)

    @property
    def connections(self) -> list[float]:
        """When each connection was accepted, as time.monotonic(); those refused are not known."""
        with self._lock:
            return list(self._connections)

    @property
    def open_connections(self) -> int:
        """The connections that neither side has closed yet."""
        with self._lock:
            return len(self._open)

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        if not self._running:
            return
        if mode == "refuse":
            self._close_listener()
            self._cut_connections()
        elif self._listener is None:
            self._open_listener()

    def start(self) -> None:
        assert not self._running, "this camera runs already"
        self._running = True
        if self._mode != "refuse":
            self._open_listener()

    def stop(self) -> None:
        self._running = False
        self._close_listener()
        self._cut_connections()
        for handler in self._handlers:
            handler.join(30)
            assert not handler.is_alive(), "a connection's thread does not end"
        self._handlers.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _open_listener(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def _close_listener(self) -> None:
        if self._listener is None or self._acceptor is None:
            return
        # close() alone would leave accept() waiting in its thread, and with it the port open.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(30)
        self._listener.close()
        self._listener = None

    def _cut_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                    # Wakes the connection's thread, which closes it.
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(time.monotonic())
                self._open.append(connection)
            handler = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._handlers.append(handler)
            handler.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if _read_request(connection):
                    self._stream(connection)
            with self._lock:
                self._open.remove(connection)

    def _stream(self, connection: socket.socket) -> None:
        """Send what the mode of the moment says until the client, the mode or the camera ends it."""
        noise = random.Random(len(self.connections))
        responded = False
        frames = 0
        due = time.monotonic()
        while self._running and self._mode != "refuse":
            mode = self._mode
            if mode == "silent" or (mode == "stall" and frames >= self.after):
                if _client_left(connection, _IDLE_SECONDS):
                    return
                due = time.monotonic()
                continue
            if not responded:
                connection.sendall(_RESPONSE)
                responded = True
            if mode == "garbage":
                connection.sendall(noise.randbytes(4096))
            else:
                with self._lock:
                    index = self._frames_taken
                    self._frames_taken += 1
                jpeg = self._frame(index)
                frames += 1
                if mode == "die-mid-frame" and frames > self.after:
                    connection.sendall(_part_header(jpeg) + jpeg[: len(jpeg) // 2])
                    _reset_when_delivered(connection)
                    return
                if mode == "truncated" and frames % self.every == 0:
                    self._send_part(connection, jpeg[: len(jpeg) // 2], self._truncated)
                else:
                    self._send_part(connection, jpeg, self._sent)
            due = max(due + 1 / self.fps, time.monotonic())
            if _client_left(connection, due - time.monotonic()):
                return

    def _send_part(self, connection: socket.socket, body: bytes, record: list[bytes]) -> None:
        connection.sendall(_part_header(body) + body[:-1])
        with self._lock:
            record.append(body)
        connection.sendall(body[-1:] + b"\r\n")


def make_jpegs(count: int, size: tuple[int, int] = (320, 240), quality: int = 80) -> list[bytes]:
    """Distinct baseline JPEGs, each with its number in the picture."""
    width, height = size
    slope = np.linspace(0, 255, width, dtype=np.uint8)
    jpegs = []
    for number in range(count):
        picture = np.empty((height, width, 3), np.uint8)
        picture[:] = np.roll(slope, number * 7)[None, :, None]
        picture[:, :, number % 3] //= 2
        place = (width // 16, height // 2)
        cv2.putText(picture, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, height / 120, (255, 255, 255), 3)
        written, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert written
        jpegs.append(data.tobytes())
    return jpegs


def strip_dht(jpeg: bytes) -> bytes:
    """The JPEG without its Huffman tables, as many cameras send it.

    Only for baseline JPEGs with the standard's own tables, as cv2 writes them: those are what a reader then
    assumes.
    """
    kept = bytearray(jpeg[:2])
    at = 2
    while jpeg[at + 1] != 0xDA:  # SOS: from there on there are no more segments
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != 0xC4:
            kept += jpeg[at:end]
        at = end
    return bytes(kept + jpeg[at:])


def _part_header(body: bytes) -> bytes:
    return f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode()


def _read_request(connection: socket.socket) -> bool:
    """Whether the client has sent the whole head of a request before it left."""
    request = b""
    while b"\r\n\r\n" not in request:
        received = connection.recv(4096)
        if not received:
            return False
        request += received
    return True


def _client_left(connection: socket.socket, seconds: float) -> bool:
    """Wait that long, less when the client closes its side."""
    deadline = time.monotonic() + seconds
    while True:
        connection.settimeout(max(deadline - time.monotonic(), 1e-4))
        try:
            if not connection.recv(4096):
                return True
        except TimeoutError:
            return False
        finally:
            connection.settimeout(None)


def _reset_when_delivered(connection: socket.socket) -> None:
    """Close with RST, but only once the client's kernel has all that was sent before."""

    def delivered() -> bool:
        unsent = array.array("i", [0])
        fcntl.ioctl(connection, termios.TIOCOUTQ, unsent)
        return unsent[0] == 0

    # A client that does not read gets the reset all the same.
    comes_within(delivered, 5, interval=0.002)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
