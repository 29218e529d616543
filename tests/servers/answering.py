"""A server that takes connections and answers each request with what a test has chosen."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.servers.certificate import Signed
from tests.servers.wait import free_port

#: What is sent for a request's head; None: nothing, and the connection stays open.
Answer = Callable[[str], str | None]


class Answering:
    """On loopback, until it is left. ``requests`` has the heads of all that was asked."""

    def __init__(self, answer: Answer, certificate: Signed | None = None) -> None:
        self.port = free_port()
        self.requests: list[str] = []
        self._answer = answer
        self._context = None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*map(Path, certificate))
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(4096)
                if not received:
                    return
                head += received
            self.requests.append(head.decode())
            answer = self._answer(head.decode())
            if answer is None:
                self._over.wait()
            else:
                connection.sendall(answer.encode("latin-1"))
