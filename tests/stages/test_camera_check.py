"""What is said of a camera that does not open, before real servers and the ways in which one refuses."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path

import pytest

from engine.sources import check as camera_check
from engine.sources.check import CameraCheck, examine
from engine.wire.http_auth import authorization
from tests.servers.answering import Answering
from tests.servers.certificate import self_signed
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import free_port

SECRET = "s3cret:/@pass"
ENCODED = "s3cret%3A%2F%40pass"


def said(url: str, seconds: float = 5.0) -> str:
    return str(examine(url, seconds))


@pytest.mark.parametrize("digest", [False, True], ids=["basic", "digest"])
def test_an_rtsp_camera_that_wants_a_login(tmp_path: Path, digest: bool) -> None:
    with RtspCamera(tmp_path, codec="mjpeg", user="viewer", password=SECRET, digest=digest) as camera:
        bare = camera.url.replace(f"viewer:{ENCODED}@", "")
        wrong = camera.url.replace(ENCODED, "wr0ng")
        assert said(camera.url) == (
            f"127.0.0.1:{camera.port} answers, but sends no video; look at its limit of sessions and at its codec, and "
            "open it with ffplay"
        )
        assert said(wrong) == "wrong user or password (401 from 127.0.0.1); correct them in its url"
        assert said(bare) == "asks for user and password (401 from 127.0.0.1); put them into its url"
        assert said(camera.url.replace("/cam", "/none")).startswith(
            "no such path (404 from 127.0.0.1); correct the path"
        )


def test_a_port_that_nobody_listens_on() -> None:
    port = free_port()
    assert said(f"rtsp://127.0.0.1:{port}/x").startswith(f"port {port} closed at 127.0.0.1; correct the port")


def test_a_host_that_does_not_exist() -> None:
    for url in ("rtsp://camera.invalid/x", "http://u:p@camera.invalid:81/x"):
        assert re.match(r"no such host: camera\.invalid; |no name server answers for camera\.invalid; ", said(url)), url
    assert said(f"rtsp://{'a' * 80}.example/x").startswith("no such host: aaa")


def test_a_host_that_takes_no_connection_in_time() -> None:
    # A listener whose backlog is full drops what comes, as a dead host does.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        assert said(f"rtsp://127.0.0.1:{port}/x", 0.5).startswith(
            "no answer from 127.0.0.1 for 0.5 s; look at its power"
        )
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtsps", "https"])
def test_a_host_that_takes_connections_and_says_nothing(scheme: str) -> None:
    with Answering(lambda _: None) as server:
        text = said(f"{scheme}://127.0.0.1:{server.port}/x", 0.5)
    assert text.startswith(f"127.0.0.1:{server.port} takes connections, but gives no answer for 0.5 s; restart")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\n\r\n", "wrong user or password (401 from"),
        ("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\n\r\n", "asks for a login that is not supported"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "access refused (403 from 127.0.0.1); give this user"),
        ("HTTP/1.0 404 Not Found\r\n\r\n", "no such path (404 from 127.0.0.1); correct the path"),
        ("HTTP/1.1 418 Teapot\r\n\r\n", "the camera refuses: Teapot (418 from 127.0.0.1); restart"),
        ("HTTP/1.1 500 Oh \x1b[31m no\r\n\r\n", "the camera fails: Oh ?[31m no (500 from 127.0.0.1); restart"),
        ("HTTP/1.1 503 Busy\r\n\r\n", "the camera is busy (503 from 127.0.0.1); close other viewers"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=x\r\n\r\n", "sends text/html, which is no video (from"),
        ("HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n", "127.0.0.1:{port} answers, but sends"),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "127.0.0.1:{port} redirects without end; give"),
        ("HTTP/1.1 302 Found\r\nLocation: rtsp://x/?token=abc\r\n\r\n", "127.0.0.1:{port} redirects to rtsp:// (302)"),
        ("SSH-2.0-OpenSSH_9\r\n\r\n", "127.0.0.1:{port} does not answer in HTTP; check that this port speaks http"),
        ("", "127.0.0.1:{port} closed the connection without an answer; check that this port speaks http"),
    ],
)  # fmt: skip
def test_what_an_http_camera_answers(answer: str, text: str) -> None:
    with Answering(lambda _: answer) as server:
        found = said(f"http://us3r:{ENCODED}@127.0.0.1:{server.port}/mjpeg?token=t0ken")
    assert found.startswith(text.format(port=server.port)), found
    assert not any(secret in found for secret in (SECRET, ENCODED, "t0ken", "us3r", "mjpeg"))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("RTSP/1.0 453 Not Enough Bandwidth\r\n\r\n", "not enough bandwidth for one more session (453 from 127.0.0.1)"),
        ("RTSP/1.0 551 Option not supported\r\n\r\n", "the camera fails: Option not supported (551 from 127.0.0.1)"),
        (
            "RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\nContent-Length: 26\r\n\r\n"
            "v=0\r\nm=audio 0 RTP/AVP 0\r\n",
            "has no video in this stream (from 127.0.0.1); correct the path",
        ),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "the camera refuses: Bad Request (400 from 127.0.0.1)"),
    ],
)
def test_what_an_rtsp_camera_answers(answer: str, text: str) -> None:
    with Answering(lambda _: answer) as server:
        assert said(f"rtsp://127.0.0.1:{server.port}/x").startswith(text)
    assert server.requests[0].startswith(f"DESCRIBE rtsp://127.0.0.1:{server.port}/x RTSP/1.0\r\nCSeq: 1\r\n")


def test_a_digest_over_http_is_answered_and_the_password_never_sent() -> None:
    challenge = 'Digest realm="cam", nonce="abc", qop="auth"'

    def answer(head: str) -> str:
        login = re.search(r"\r\nAuthorization: (.*)\r\n", head)
        if login:
            nonce = re.search(r'cnonce="(\w+)"', login[1])
            assert nonce
            if login[1] == authorization([challenge], "GET", "/a?b=1", "viewer", SECRET, nonce[1]):
                return "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\n\r\n"
        return f"HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\n\r\n"

    with Answering(answer) as server:
        url = f"http://viewer:{{}}@127.0.0.1:{server.port}/a?b=1"
        assert "answers, but sends no video" in said(url.format(ENCODED))
        assert said(url.format("wrong")).startswith("wrong user or password (401 from 127.0.0.1)")
    assert len(server.requests) == 4
    assert SECRET not in "".join(server.requests)


def test_another_host_is_not_told_the_password() -> None:
    with Answering(lambda _: 'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n') as other:
        found = f"HTTP/1.1 302 Found\r\nLocation: http://localhost:{other.port}/y\r\n\r\n"
        with Answering(lambda _: found) as server:
            said(f"http://viewer:{ENCODED}@127.0.0.1:{server.port}/x")
    assert len(other.requests) == 1
    assert "Authorization" not in other.requests[0]


def test_tls(short_path: Path) -> None:
    gone = "HTTP/1.1 404 Not Found\r\n\r\n"
    with Answering(lambda _: gone, self_signed(short_path)) as server:
        assert said(f"https://127.0.0.1:{server.port}/x").startswith("no such path (404 from 127.0.0.1)")


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["plain text", "closed"])
def test_a_port_that_speaks_no_tls(scheme: str, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        text = said(f"{scheme}://127.0.0.1:{port}/x")
        thread.join(30)
    assert re.match(rf"TLS handshake with 127\.0\.0\.1:{port} failed \(.+\); check that this port", text)


@pytest.mark.parametrize("url", ["rtsp://viewer:pa/ss@host/x", "http://[::1/x", "rtsp:///x", "http://viewer:12/x@y/"])
def test_a_url_that_cannot_be_used_never_raises(url: str) -> None:
    assert "pa" not in said(url, 0.5).partition(";")[0].split()


def test_a_check_whose_lookup_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: object, **__: object) -> None:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(camera_check, "_GRACE_SECONDS", 0.1)
    check = CameraCheck("rtsp://camera.invalid/x", 0.2)
    deadline = time.monotonic() + 30
    while not check.wait(0.05):
        assert time.monotonic() < deadline
    assert check.failure().fact == "its host was not found within 0.2 s; look at this machine's DNS"
    over.set()
