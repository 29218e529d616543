"""Clients of the web role under measurement, each kind in a process of its own, so that their CPU is not the server's.

They speak plain HTTP/1.1 over asyncio's protocols, because a library's client would cost more than the server. They
check what they get: a picture is whole, and no answer is older than the one before it on the same connection.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

_spawn = multiprocessing.get_context("spawn")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_NANO = re.compile(rb"\r\nx-frame-timestamp-nano: *(\d+)", re.IGNORECASE)
#: Seconds that a client waits for others, and for the server's first answer.
_READY_SECONDS_MAX = 60.0


class Loaded(NamedTuple):
    """What clients got in so many seconds: whole answers or parts, the seconds of each answer, and what was wrong."""

    seconds: float
    answers: int
    latencies: list[float]
    errors: list[str]

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


class Load:
    """Clients in a process of their own. ``over`` counts what they get from now on."""

    def __init__(self, pipe: Connection, pid: int) -> None:
        self._pipe = pipe
        self.pid = pid

    def over(self, seconds: float) -> Loaded:
        """Let them work for ``seconds``. Asserts that nothing was wrong."""
        self.begin()
        time.sleep(seconds)
        return self.end()

    def begin(self) -> None:
        """Count from now on."""
        self._pipe.send("begin")
        assert self._pipe.recv() == "begun"

    def end(self) -> Loaded:
        """What they got since ``begin``."""
        self._pipe.send("end")
        loaded = Loaded(*self._pipe.recv())
        assert not loaded.errors, loaded.errors[:5]
        return loaded


@contextmanager
def load(kind: Callable[..., None], port: int, *arguments: Any) -> Iterator[Load]:
    """Clients of ``kind`` (a function of this module) at work; all have had an answer when the block begins."""
    here, there = _spawn.Pipe()
    process = _spawn.Process(target=kind, args=(there, port, *arguments), daemon=True)
    process.start()
    try:
        assert here.poll(_READY_SECONDS_MAX), "the clients got no answer"
        assert here.recv() == "ready"
        assert process.pid
        yield Load(here, process.pid)
    finally:
        process.kill()
        process.join()
        here.close()


class _Counts:
    """What the clients of one process got since the last ``begin``."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.answers = 0
        self.latencies: list[float] = []
        self.errors: list[str] = []

    def clear(self) -> None:
        self.begun = time.perf_counter()
        self.answers = 0
        self.latencies = []

    def loaded(self) -> Loaded:
        return Loaded(time.perf_counter() - self.begun, self.answers, self.latencies, self.errors)


class _Client(asyncio.Protocol):
    """A connection that reads heads and bodies with a length, and checks them as JPEGs if they are pictures."""

    def __init__(self, counts: _Counts, request: bytes) -> None:
        self._counts = counts
        self._request = request
        self._waiting = bytearray()
        self._need = 0
        self._nano = 0
        self._sent_at = 0.0
        self.transport: asyncio.Transport
        self.answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send the request."""
        self._sent_at = time.perf_counter()
        self.transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts.errors.append(f"the connection ended: {exc}")

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= self._need and (taken := self._take()):
            head, body = taken
            self._check(head, body)
            self.answered += 1
            self._counts.answers += 1
            self.whole()

    def _take(self) -> tuple[bytes, bytes] | None:
        """The next head and its body, once both are here."""
        end = self._waiting.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._waiting[: end + 2])
        length = _LENGTH.search(head)
        if length is None:
            # The head of a stream, whose parts have lengths.
            self._check_status(head)
            del self._waiting[: end + 4]
            return self._take()
        self._need = end + 4 + int(length[1])
        if len(self._waiting) < self._need:
            return None
        body = bytes(self._waiting[end + 4 : self._need])
        del self._waiting[: self._need]
        self._need = 0
        return head, body

    def _check_status(self, head: bytes) -> None:
        if head.startswith(b"HTTP/1.1 ") and not head.startswith(b"HTTP/1.1 200"):
            self._counts.errors.append(head[:40].decode(errors="replace"))

    def _check(self, head: bytes, body: bytes) -> None:
        self._check_status(head)
        if b"image/jpeg" not in head:
            return
        nano = _NANO.search(head)
        if nano is None or not (body.startswith(b"\xff\xd8") and body.endswith(b"\xff\xd9")):
            self._counts.errors.append(f"no whole picture: {len(body)} bytes")
        elif int(nano[1]) < self._nano:
            self._counts.errors.append("a picture is older than the one before it")
        else:
            self._nano = int(nano[1])

    def whole(self) -> None:
        """An answer, or a part of a stream, has been read."""


class _Asking(_Client):
    """Asks again as soon as it has the answer."""

    def whole(self) -> None:
        self._counts.latencies.append(time.perf_counter() - self._sent_at)
        self.ask()


class _Paced(_Client):
    """Asks again after so many seconds, however long the answer took."""

    def __init__(self, counts: _Counts, request: bytes, every: float) -> None:
        super().__init__(counts, request)
        self._every = every

    def whole(self) -> None:
        took = time.perf_counter() - self._sent_at
        self._counts.latencies.append(took)
        asyncio.get_running_loop().call_later(max(self._every - took, 0.0), self.ask)


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def _run(
    pipe: Connection, port: int, make: Callable[[_Counts, int], _Client], number: int, connections_at_once: int = 50
) -> None:
    """Open the clients, say ``ready`` once all have had an answer, and obey the pipe until killed."""

    async def main() -> None:
        loop, counts = asyncio.get_running_loop(), _Counts()
        clients: list[_Client] = []
        for first in range(0, number, connections_at_once):
            numbers = range(first, min(first + connections_at_once, number))
            opened = await asyncio.gather(
                *(
                    loop.create_connection(lambda place=place: make(counts, place), "127.0.0.1", port)  # type: ignore[misc]
                    for place in numbers
                )
            )
            clients += [client for _, client in opened]
        while not all(client.answered for client in clients) and not counts.errors:
            await asyncio.sleep(0.01)
        pipe.send("ready")
        said = asyncio.Event()
        loop.add_reader(pipe.fileno(), said.set)
        while True:
            await said.wait()
            said.clear()
            while pipe.poll():
                if pipe.recv() == "begin":
                    counts.clear()
                    pipe.send("begun")
                else:
                    pipe.send(tuple(counts.loaded()))

    asyncio.run(main())


def asking(pipe: Connection, port: int, paths: Sequence[str], connections: int) -> None:
    """Keep-alive connections that ask as fast as they are answered; each asks for one of ``paths``."""
    _run(pipe, port, lambda counts, n: _Asking(counts, _get(paths[n % len(paths)])), connections)


def paced(pipe: Connection, port: int, paths: Sequence[tuple[str, float]]) -> None:
    """A connection for each path, which is asked for every so many seconds."""
    _run(pipe, port, lambda counts, n: _Paced(counts, _get(paths[n][0]), paths[n][1]), len(paths))


def streaming(pipe: Connection, port: int, paths: Sequence[str], viewers: int) -> None:
    """Viewers of a stream of pictures; each part counts."""
    _run(pipe, port, lambda counts, n: _Client(counts, _get(paths[n % len(paths)])), viewers)


def idling(pipe: Connection, port: int, connections: int) -> None:
    """Connections that got one answer and ask for nothing more."""
    _run(pipe, port, lambda counts, _: _Client(counts, _get("/live")), connections)


def browsing(pipe: Connection, port: int) -> None:
    """The dashboard in Chromium; an answer is a picture that it shows. Its errors are those of its console."""
    from playwright.sync_api import Response

    from tests.web.browser import chromium, opened

    with chromium() as browser, opened(browser, f"http://127.0.0.1:{port}") as dashboard:
        dashboard.open()
        dashboard.page.wait_for_selector(".tile img[src]")
        pipe.send("ready")
        begun, count = time.perf_counter(), 0
        seen: list[str] = []

        def note(response: Response) -> None:
            if "latest.jpg" in response.url:
                seen.append(response.url)

        dashboard.page.on("response", note)
        while True:
            # Its events are handled while it waits.
            dashboard.page.wait_for_timeout(50)
            if not pipe.poll():
                continue
            if pipe.recv() == "begin":
                begun, count = time.perf_counter(), len(seen)
                pipe.send("begun")
            else:
                pipe.send((time.perf_counter() - begun, len(seen) - count, [], list(dashboard.errors)))


def first_bytes(port: int, path: str) -> tuple[float, bytes]:
    """Seconds from connecting until the first byte of the body, and the whole body."""
    import socket

    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(_get(path).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        data, at = b"", 0.0
        pieces = []
        while piece := connection.recv(1 << 16):
            if not at:
                data += piece
                _, _, body = data.partition(b"\r\n\r\n")
                if body:
                    at = time.perf_counter()
                    pieces.append(body)
            else:
                pieces.append(piece)
    assert data.startswith(b"HTTP/1.1 200"), data[:300]
    body = b"".join(pieces)
    head = data.partition(b"\r\n\r\n")[0].lower()
    return at - begun, b"".join(_chunks(body)) if b"\r\ntransfer-encoding: chunked" in head else body


def _chunks(body: bytes) -> Iterator[bytes]:
    """The chunks of a body that must be complete: it ends with an empty one."""
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if not size:
            return
        yield body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
