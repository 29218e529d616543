"""The process of `http_cameras.HttpCameras`: python -m tests.servers.http_cameras_server PORT FPS KILOBYTES ENDS.

One thread. A heap holds the time at which each client gets its next frame; between rounds it waits for sockets. Sends
do not block: a frame for which a client has no room is skipped whole, as cameras do.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import sys
import time
import zlib

import numpy as np
import simplejpeg

_BOUNDARY = b"frame"
_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\nConnection: close\r\n\r\n"
_REQUEST_MAX = 16_384
#: Bytes that are kept for a client that does not read.
_OUTBOX_MAX = 4 * 2**20
#: Different pictures, sent in turns.
_PICTURES = 8


def pictures(kilobytes: int) -> list[bytes]:
    """JPEGs of 720p with about so many kilobytes: noise in a part of the picture that grows until the size fits."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(_PICTURES):
        noise = random.integers(0, 255, (720, 1280), np.uint8)
        low, high = 0, 720
        while high - low > 1:
            rows = (low + high) // 2
            low, high = (rows, high) if len(_picture(noise, rows)) < kilobytes * 1024 else (low, rows)
        found.append(_picture(noise, low))
    return found


def _picture(noise: np.ndarray, rows: int) -> bytes:
    gray = np.full((720, 1280, 1), 90, np.uint8)
    gray[:rows, :, 0] = noise[:rows]
    return simplejpeg.encode_jpeg(gray, quality=40, colorspace="GRAY")


class Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.playing = False
        self.due = 0.0
        self.number = 0
        self._inbox, self.outbox = bytearray(), bytearray()

    def receive(self) -> bool:
        """Read the request; False if the client has left."""
        data = self.connection.recv(65_536)
        self._inbox += data
        if not data or len(self._inbox) > _REQUEST_MAX:
            return False
        if not self.playing and b"\r\n\r\n" in self._inbox:
            self.playing = True
            # The same camera begins at the same moment of its interval each time.
            path = bytes(self._inbox).split(b" ", 2)[1]
            self.due = zlib.crc32(path) / 2**32
            self.outbox += _HEAD
        return True

    def flush(self) -> None:
        while self.outbox:
            try:
                del self.outbox[: self.connection.send(self.outbox)]
            except BlockingIOError:
                return

    def send(self, part: bytes) -> None:
        """Send a part, or skip it if the client is too far behind."""
        if len(self.outbox) < _OUTBOX_MAX:
            if self.outbox:
                self.outbox += part
            else:
                try:
                    sent = self.connection.send(part)
                except BlockingIOError:
                    sent = 0
                self.outbox += part[sent:]


def serve(port: int, fps: float, parts: list[bytes]) -> None:
    """Serve until the process is ended."""
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ, None)
    due: list[tuple[float, int, Client]] = []
    begun = time.monotonic()
    clients = 0

    def close(client: Client) -> None:
        selector.unregister(client.connection)
        client.connection.close()
        client.playing = False

    while True:
        wait = max(due[0][0] - time.monotonic(), 0.0) if due else None
        for key, _ in selector.select(wait):
            client = key.data
            if client is None:
                connection, _ = listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, Client(connection))
                continue
            try:
                was = client.playing
                if not client.receive():
                    close(client)
                elif client.playing and not was:
                    clients += 1
                    rounds = int((time.monotonic() - begun) * fps) + 1
                    heapq.heappush(due, (begun + (rounds + client.due) / fps, clients, client))
            except OSError:
                close(client)
        now = time.monotonic()
        while due and due[0][0] <= now:
            at, order, client = heapq.heappop(due)
            if not client.playing:
                continue
            try:
                client.flush()
                client.send(parts[client.number % len(parts)])
                client.flush()
            except OSError:
                close(client)
                continue
            client.number += 1
            heapq.heappush(due, (at + 1 / fps, order, client))


def main() -> None:
    port, fps, kilobytes, ends = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    parts = []
    for picture in pictures(kilobytes):
        length = b"Content-Length: %d\r\n" % len(picture) if ends == "length" else b""
        parts.append(b"--" + _BOUNDARY + b"\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n" + picture + b"\r\n")
    serve(port, fps, parts)


if __name__ == "__main__":
    main()
