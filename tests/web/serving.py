"""The web role's server in a thread of this process, and raw requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import structlog

from engine.config import Config, from_document
from engine.web.app import build
from engine.web.listening import bound, open_socket
from engine.web.server import Server


def configured(**web: Any) -> Config:
    """A site that does not run, with a web role on a port of this machine that is free."""
    return from_document(
        {
            "redis": {"address": "127.0.0.1:1"},
            "web": {"listen": "127.0.0.1:0", **web},
            "cameras": [{"id": "cam1", "url": "test://"}],
        },
        {},
    )


@contextlib.contextmanager
def serving(config: Config) -> Iterator[tuple[Server, int]]:
    """Its server, and the port. Without the site's shared memory."""
    listening = open_socket(config.web.address)
    port = bound(config.web.address, listening).port
    servers: list[Server] = []
    started = threading.Event()

    async def main() -> None:
        server = Server(build(config, structlog.get_logger(), local=False), listening, None)
        servers.append(server)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        started.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(30)
    yield servers[0], port
    servers[0].should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def exchange(port: int, *pieces: bytes, timeout: float = 10, close: bool = False) -> bytes:
    """Send pieces, and read until the server closes the connection. With ``close``, say that nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
            if close:
                connection.shutdown(socket.SHUT_WR)
        got = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65_536):
                got += data
    return got


def statuses(answer: bytes) -> list[int]:
    """The status codes of the answers in what a connection sent."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
