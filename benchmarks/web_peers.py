"""The limit of a Python web server: asyncio's protocols, which answer from memory whatever is asked."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple, cast

_spawn = multiprocessing.get_context("spawn")


class PlainServer(NamedTuple):
    """A server that runs: where it listens, and its process."""

    port: int
    pid: int


class _Answering(asyncio.Protocol):
    def __init__(self, size: int, fps: float) -> None:
        self._size, self._fps = size, fps
        self._body = b"\xff\xd8" + bytes(size - 4) + b"\xff\xd9"
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if b"stream.mjpeg" in data:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
            self._part()
        elif b"latest.jpg" in data:
            self._picture(b"HTTP/1.1 200 OK\r\n")
        else:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    def _picture(self, first: bytes) -> None:
        head = b"%bContent-Type: image/jpeg\r\nContent-Length: %d\r\nX-Frame-Timestamp-Nano: %d\r\n\r\n"
        self._transport.write(head % (first, self._size, time.time_ns()) + self._body)

    def _part(self) -> None:
        self._picture(b"--frame\r\n")
        self._transport.write(b"\r\n")
        self._timer = asyncio.get_running_loop().call_later(1 / self._fps, self._part)


def _serve(pipe: Connection, size: int, fps: float) -> None:
    import uvloop

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Answering(size, fps), "127.0.0.1", 0, backlog=1024
        )
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


@contextmanager
def plain_server(size: int, fps: float = 10) -> Iterator[PlainServer]:
    """A server of pictures of ``size`` bytes and of streams of ``fps`` a second, on the web role's own event loop."""
    here, there = _spawn.Pipe()
    process = _spawn.Process(target=_serve, args=(there, size, fps), daemon=True)
    process.start()
    try:
        assert here.poll(30), "the plain server did not start"
        assert process.pid
        yield PlainServer(here.recv(), process.pid)
    finally:
        process.kill()
        process.join()
        here.close()
