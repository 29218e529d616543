"""Bytes that no browser sends, on raw sockets: never a 500, never a hang, never a file that is not the page's."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from starlette.responses import Response

from engine.web import connection as connections
from engine.web import dashboard, limits
from engine.web.connection import Connection
from engine.web.server import SECURITY_HEADERS, Server
from tests.servers.wait import wait_until
from tests.web.serving import configured, exchange, serving, statuses

HOST = b"Host: localhost\r\n"
END = b"Connection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Server, int]]:
    with serving(configured()) as found:
        yield found


@pytest.fixture(scope="module")
def port(served: tuple[Server, int]) -> int:
    return served[1]


def get(target: bytes, headers: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + headers + END


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /login HTTP/1.1\r\n" + HOST + headers + b"\r\n" + body


def alive(port: int) -> bool:
    return statuses(exchange(port, get(b"/live"))) == [200]


STRANGE = {
    "two lengths": (post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), 400),
    "length and chunks": (post(b"Content-Length: 4\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    "chunks and length": (post(CHUNKED + b"Content-Length: 4\r\n", b"0\r\n\r\n"), 400),
    "chunks not last": (post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), 400),
    "odd chunk size": (post(CHUNKED, b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "chunk longer than said": (post(CHUNKED, b"1\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk larger than bound": (post(CHUNKED, b"11171\r\n" + b"a" * 70_001 + b"\r\n0\r\n\r\n"), 413),
    "endless trailer": (post(CHUNKED, b"0\r\nX: " + b"a" * 300_000), 431),
    "negative length": (post(b"Content-Length: -1\r\n"), 400),
    "length with plus": (post(b"Content-Length: +1\r\n", b"a"), 400),
    "length in hex": (post(b"Content-Length: 0x1\r\n", b"a"), 400),
    "length of 20 digits": (post(b"Content-Length: 99999999999999999999\r\n"), 400),
    "length above bound": (post(b"Content-Length: 70000\r\n"), 413),
    "folded header": (get(b"/live", b"X: a\r\n b\r\n"), 400),
    "bare line feeds": (b"GET /live HTTP/1.1\nHost: localhost\n\n", 400),
    "bare carriage return": (get(b"/live", b"X: a\rY: b\r\n"), 400),
    "space before colon": (get(b"/live", b"X : a\r\n"), 400),
    "zero byte in header": (get(b"/live", b"X: a\0b\r\n"), 400),
    "no host": (b"GET /live HTTP/1.1\r\n" + END, 400),
    "two hosts": (get(b"/live", HOST), 400),
    "absolute form": (get(b"http://localhost/live"), 400),
    "connect": (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + END, 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + END, 400),
    "trace": (b"TRACE /live HTTP/1.1\r\n" + HOST + END, 405),
    "delete": (b"DELETE /live HTTP/1.1\r\n" + HOST + END, 405),
    "unknown method": (b"HACK /live HTTP/1.1\r\n" + HOST + END, 400),
    "HTTP/0.9": (b"GET /live\r\n\r\n", 505),
    "HTTP/1.0": (b"GET /live HTTP/1.0\r\n\r\n", 200),
    "HTTP/1.2": (b"GET /live HTTP/1.2\r\n" + HOST + END, 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS hello": (bytes.fromhex("16030100c8010000c40303") + bytes(40), 400),
    "upgrade": (get(b"/live", b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + b"\x81\x05hello", 200),
    "garbage": (b"\x00\xff" * 400, 400),
    "garbage behind request": (b"GET /live HTTP/1.1\r\n" + HOST + b"\r\n\x00\xff\x00", 200),
    "two slashes": (get(b"//etc/passwd"), 400),
    "backslash": (get(b"/static\\..\\app.py"), 400),
    "fragment": (get(b"/live#x"), 400),
    "zero byte in path": (get(b"/static/%00"), 400),
    "path beyond ASCII": (get(b"/static/\xc3\xa9"), 400),
    "path no UTF-8": (get(b"/static/%ff%fe"), 404),
    "line end in path": (get(b"/api/v1/%0d%0aX:%20y"), 404),
    "half a percent": (get(b"/static/%4"), 404),
    "name beyond the file system": (get(b"/static/" + b"a" * 4000), 404),
    "slash at end": (get(b"/live/"), 404),
    "long path": (get(b"/" + b"a" * 20_000), 414),
    "long header": (get(b"/live", b"X: " + b"a" * 40_000 + b"\r\n"), 431),
    "endless header": (b"GET /live HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 300_000, 431),
    "many headers": (get(b"/live", b"X: a\r\n" * 200), 431),
    "host elsewhere": (b"GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\n" + END, 421),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_request_gets_one_answer_and_the_connection_ends(name: str, port: int) -> None:
    request, status = STRANGE[name]
    answer = exchange(port, request)
    assert statuses(answer) == [status]
    if status != 200:
        assert b"application/problem+json" in answer
    for header, value in SECURITY_HEADERS:
        assert f"{header}: {value}\r\n".encode() in answer
    assert b"server:" not in answer.lower()
    assert b"access-control" not in answer.lower()
    assert alive(port)


@pytest.mark.parametrize("name", ["length and chunks", "long header", "upgrade", "HTTP/1.0", "zero byte in path"])
def test_it_gets_the_same_answer_byte_by_byte(name: str, port: int) -> None:
    request, status = STRANGE[name]
    assert statuses(exchange(port, *(request[n : n + 1] for n in range(min(len(request), 600))), request[600:])) == [
        status
    ]


@pytest.mark.parametrize(
    "target",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/%2e%2e%2fapp.py",
        "/static/....//app.py", "/static/%252e%252e/app.py", "/static//etc/passwd", "/static/%2fetc%2fpasswd",
        "/static/..%5capp.py", "/static/.", "/static/", "/static", "/static/./../../web/app.py",
        "/static/static/../../app.py", "/../engine/web/app.py", "/api/v1/../../static/../app.py",
        "/static/%c0%ae%c0%ae/app.py", "/static/index.html/../../app.py", "/static/x\x7f",
    ],
)  # fmt: skip
def test_no_path_leads_to_another_file(target: str, port: int) -> None:
    answer = exchange(port, get(target.encode()))
    assert statuses(answer) in ([404], [400], [405])
    assert b"import" not in answer
    assert b"root:" not in answer


def test_static_files_are_only_those_of_the_package() -> None:
    static = Path(dashboard.__file__).parent / "static"
    assert all(path.is_file() and not path.is_symlink() for path in static.rglob("*") if not path.is_dir())


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    one = b"GET /live HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(exchange(port, one * 20 + get(b"/nothing"))) == [200] * 20 + [404]
    # Too many at once: what was begun is answered, and the connection ends.
    assert statuses(exchange(port, one * 1000)) == [200]
    assert alive(port)


def test_a_request_that_does_not_arrive_is_given_up(
    served: tuple[Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    _, port = served
    for half in (
        b"GET /live HTT",
        b"GET /live HTTP/1.1\r\n" + HOST + b"X: ",
        post(b"Content-Length: 9\r\n", b"token="),
    ):
        assert statuses(exchange(port, half)) == [408]
    assert statuses(exchange(port, b"\r\n")) == [408]


def test_a_connection_that_says_nothing_is_closed(served: tuple[Server, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.5)
    assert exchange(served[1]) == b""


def test_a_reader_that_takes_nothing_is_cut_off(served: tuple[Server, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STUCK_SECONDS", 0.5)
    server, port = served
    monkeypatch.setattr(server._app.state.gate, "open", False)
    monkeypatch.setattr("engine.web.login._page", lambda *_: Response(bytes(20_000_000)))
    with socket.create_connection(("127.0.0.1", port)) as stuck:
        stuck.sendall(get(b"/login"))
        wait_until(lambda: _waiting(server), 10, "its answer waits")
        wait_until(lambda: not server.server_state.connections, 20, "it is cut off")
    assert alive(port)


def _waiting(server: Server) -> int:
    return sum(one.transport.get_write_buffer_size() for one in list(server.server_state.connections))


def test_connections_of_one_address_and_of_all_are_bounded(
    served: tuple[Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port = served
    wait_until(lambda: not server.server_state.connections, 10, "nobody is connected")
    monkeypatch.setattr(Connection, "shares", limits.Shares(20, 5))
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    wait_until(lambda: Connection.shares.total == 20, 10, "all are counted")
    refused = exchange(port)
    assert statuses(refused) == [503]
    assert b"too many connections" in refused
    for one in held:
        one.close()
    wait_until(lambda: Connection.shares.total == 0, 10, "all are gone")
    assert alive(port)
    wait_until(lambda: Connection.shares.total == 0, 10, "and that one")
    other = limits.Shares(20, 5)
    for _ in range(5):
        assert not other.full("192.0.2.1")
        other.add("192.0.2.1")
    assert (other.full("192.0.2.1"), other.full("192.0.2.2"), other.full("127.0.0.1")) == (True, False, False)


def test_a_thousand_connections_cost_little_memory(served: tuple[Server, int]) -> None:
    server, port = served
    assert alive(port)
    process = psutil.Process()
    before = process.memory_info().rss
    one = b"GET /live HTTP/1.1\r\n" + HOST + b"\r\n"
    held = []
    for _ in range(1000):
        held.append(socket.create_connection(("127.0.0.1", port)))
        held[-1].sendall(one)
    wait_until(lambda: len(server.server_state.connections) >= 1000, 30, "all are connected")
    assert alive(port)
    # With room for what this process allocates for its own end.
    assert process.memory_info().rss - before < 40 * 2**20
    for connection in held:
        connection.close()
    wait_until(lambda: not server.server_state.connections, 30, "all are gone")


def test_a_route_that_fails_says_nothing_about_it(served: tuple[Server, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is away at this site; what else goes wrong is a 500 without a traceback."""
    _, port = served
    answer = exchange(port, get(b"/api/v1/cameras/cam1/latest.jpg"))
    assert statuses(answer) == [503]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 503
    monkeypatch.setattr("engine.web.login._page", lambda *_: 1 / 0)
    monkeypatch.setattr("engine.web.access.Gate.knows_host", lambda *_: 1 / 0)
    answer = exchange(port, get(b"/api/v1/cameras"))
    assert statuses(answer) == [500]
    assert b"ZeroDivision" not in answer
    assert b"defect" in answer


def test_half_a_request_and_none_end_without_an_answer(served: tuple[Server, int]) -> None:
    server, port = served
    began = time.monotonic()
    assert exchange(port, b"GET /li", close=True) == b""
    assert exchange(port, close=True) == b""
    wait_until(lambda: not server.server_state.connections, 10, "they are gone")
    assert time.monotonic() - began < connections.REQUEST_SECONDS
