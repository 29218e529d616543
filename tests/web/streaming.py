"""One site with cameras of both kinds for the tests of streams, and readers of streams on raw sockets."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil
import pytest

from engine.wire.test_mark import FrameMark, find_mark
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site, own_name

CLIP = Path(__file__).parents[2] / "engine/cli/demo.mp4"
#: Pictures of the clip, and from one key frame to the next.
CLIP_UNITS, CLIP_GOP = 60, 30


class Streaming(NamedTuple):
    site: Site
    redis: RedisServer
    port: int

    def open(self, path: str, **options: Any) -> Stream:
        return Stream(self.port, path, **options)

    def web(self) -> psutil.Process:
        return psutil.Process(self.site.pid("web"))

    def tails(self) -> int:
        """Connections to Redis that wait in XREAD."""
        return sum(client["cmd"] == "xread" for client in self.redis.client().client_list())


class Stream:
    """The answer to a GET, read from its socket as it comes; chunks are put together again."""

    def __init__(self, port: int, path: str, *, headers: dict[str, str] | None = None, buffer: int = 0) -> None:
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        lines = [f"GET /api/v1/{path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._raw = b""
        self._body = b""
        self.ended = False
        self.status = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def begin(self) -> Self:
        """Read the head."""
        while b"\r\n\r\n" not in self._raw:
            self._raw += self._received()
        head, self._raw = self._raw.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return self

    def until(self, end: bytes) -> bytes:
        """The body up to and with ``end``, which is taken away."""
        while end not in self._body:
            self._more()
        found, self._body = self._body.split(end, 1)
        return found + end

    def exactly(self, size: int) -> bytes:
        while len(self._body) < size:
            self._more()
        found, self._body = self._body[:size], self._body[size:]
        return found

    def whole(self) -> bytes:
        """The rest of the body."""
        while not self.ended:
            self._more()
        return self._body

    def part(self) -> tuple[dict[str, str], bytes]:
        """The next part of a stream of JPEGs."""
        self.until(b"--frame\r\n")
        head = dict(line.split(": ", 1) for line in self.until(b"\r\n\r\n").decode().strip().split("\r\n"))
        return head, self.exactly(int(head["Content-Length"]))

    def mark(self) -> FrameMark:
        return find_mark(self.part()[1])

    def event(self) -> dict[str, str]:
        """The next server-sent event that is no comment."""
        while True:
            text = self.until(b"\n\n").decode()
            fields = dict(line.split(": ", 1) for line in text.splitlines() if line and not line.startswith(":"))
            if fields:
                return fields

    def _received(self) -> bytes:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the server closed the connection in the middle of an answer")
        return data

    def _more(self) -> None:
        """Take in one more chunk; an answer with a length is one."""
        assert not self.ended, f"the answer ended: {self._body[-200:]!r}"
        if "content-length" in self.headers:
            size = int(self.headers["content-length"])
            while len(self._raw) < size:
                self._raw += self._received()
            self._body, self.ended = self._raw, True
            return
        while not (match := re.match(rb"([0-9a-f]+)\r\n", self._raw)):
            self._raw += self._received()
        size, begin = int(match[1], 16), match.end()
        while len(self._raw) < begin + size + 2:
            self._raw += self._received()
        self._body += self._raw[begin : begin + size]
        self._raw = self._raw[begin + size + 2 :]
        self.ended = size == 0


@pytest.fixture(scope="session")
def streaming() -> Iterator[Streaming]:
    directory, port = Path(tempfile.mkdtemp(prefix="ev-")), free_port()
    with RedisServer(directory / "redis") as server:
        site = Site(directory / "run", warm=True, name=own_name("streaming"))
        try:
            site.write(
                cameras=[
                    {"id": "cam1", "url": "test://?size=640x360&fps=20&kb=60"},
                    {"id": "a/b", "url": "test://?size=320x240&fps=5&kb=20"},
                    {"id": "gate", "url": str(CLIP), "loop": True, "video": True, "decode": "none"},
                ],
                redis={"address": server.address, "ttl_seconds": 600},
                web={"listen": f"127.0.0.1:{port}"},
            )
            site.start()
            found = Streaming(site, server, port)
            wait_until(lambda: _ready(found), 60, "the web role answers, all cameras store", log=site.log_text)
            yield found
        finally:
            site.end()
    shutil.rmtree(directory, ignore_errors=True)


def _ready(found: Streaming) -> bool:
    client = found.redis.client()
    names = ("engine:default:journal:frames:cam1", "engine:default:journal:frames:a/b")
    try:
        with found.open("cameras") as answer:
            return (
                answer.begin().status == 200
                and all(client.xlen(name) > 20 for name in names)
                and client.xlen("engine:default:journal:frames/gate") > 2 * CLIP_UNITS
            )
    except OSError:
        return False
