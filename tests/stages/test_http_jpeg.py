"""Cameras that send JPEG over HTTP, from a socket to a ring."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
import structlog

from engine.errors import CameraUnavailable
from engine.shm import ring_file
from engine.shm.doorbell import Bell, Doorbell
from engine.shm.ring import Consumer, Producer
from engine.shm.ring_place import Renewed
from engine.shm.status_page import CaptureCount, StatusPage
from engine.sources.choose import open_source
from engine.sources.http_jpeg import HttpJpegSource
from engine.sources.source import NotOpened
from engine.sources.video import VideoSource
from engine.stages.capture.agent import CaptureAgent
from engine.wire.http_auth import authorization
from tests.faults.streams import StreamCamera, clip
from tests.servers.answering import Answering
from tests.servers.certificate import self_signed
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.wait import free_port, wait_until
from tests.stages.http_bodies import camera, part

JPEGS = make_jpegs(6)
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=frame\r\n{}\r\n"
BODY = b"".join(map(part, JPEGS))
ROOT = Path(__file__).parents[2]


def answered(body: bytes = BODY, more: str = "") -> str:
    return HEAD.format(more) + body.decode("latin-1")


def read(url: str, **more: object) -> tuple[list[bytes], str]:
    """All that a camera sends, and why it ends."""
    source = open_source(camera(url, **more))
    assert isinstance(source, HttpJpegSource)
    found: list[bytes] = []
    with closing(source):
        try:
            while True:
                if source.grab():
                    found.append(b"".join(source.retrieve(1, 1).parts))
        except CameraUnavailable as error:
            return found, error.fact


def pictures(url: str) -> list[bytes]:
    """All that a camera sends until it closes the connection."""
    found, reason = read(url)
    assert reason == "the stream ended"
    return found


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "more"),
    [
        pytest.param(BODY, "", id="until it closes"),
        pytest.param(BODY, f"Content-Length: {len(BODY)}\r\n", id="with a length of all"),
        *[
            pytest.param(chunked(BODY, size), "Transfer-Encoding: chunked\r\n", id=f"chunks of {size}")
            for size in (1, 4099, 10**6)
        ],
    ],
)
def test_each_form_of_a_body(body: bytes, more: str) -> None:
    with Answering(lambda _: answered(body, more)) as server:
        assert pictures(f"http://127.0.0.1:{server.port}/x") == JPEGS


@pytest.mark.parametrize("more", ["", "Transfer-Encoding: chunked\r\n"])
def test_tls(short_path: Path, more: str) -> None:
    with Answering(lambda _: answered(chunked(BODY, 999) if more else BODY, more), self_signed(short_path)) as server:
        assert pictures(f"https://127.0.0.1:{server.port}/x") == JPEGS


@pytest.mark.parametrize("stale", [0, 1, 2])
def test_a_login_whose_nonce_has_become_old_is_sent_again_and_not_for_ever(stale: int) -> None:
    asked: list[str] = []

    def answer(head: str) -> str:
        nonce = f"nonce{len(asked)}"
        challenge = f'Digest realm="cam", nonce="{nonce}", qop="auth"'
        expected, login = asked[-1] if asked else "", re.search(r"\r\nAuthorization: (.*)\r\n", head)
        asked.append(challenge)
        if login and len(asked) > 1 + stale:
            found = re.search(r'cnonce="(\w+)"', login[1])
            assert found
            if login[1] == authorization([expected], "GET", "/x", "viewer", "s3cret", found[1]):
                return answered()
        return f"HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}, stale={'true' if login else 'false'}\r\n\r\n"

    with Answering(answer) as server:
        url = f"http://viewer:s3cret@127.0.0.1:{server.port}/x"
        if stale < 2:
            assert pictures(url) == JPEGS
        else:
            with pytest.raises(NotOpened):
                pictures(url)
    assert len(asked) == min(stale, 1) + 2
    assert "s3cret" not in "".join(server.requests)


def test_a_redirect_is_followed_and_another_host_is_not_told_the_password() -> None:
    challenge = 'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
    with (
        Answering(lambda _: challenge) as other,
        Answering(lambda head: answered() if "Authorization" in head else challenge) as same,
    ):
        targets = iter([f"http://127.0.0.1:{same.port}/y", f"http://localhost:{other.port}/y"])
        with Answering(lambda _: f"HTTP/1.1 302 Found\r\nLocation: {next(targets)}\r\n\r\n") as server:
            url = f"http://viewer:s3cret@127.0.0.1:{server.port}/x"
            assert pictures(url) == JPEGS
            with pytest.raises(NotOpened):
                pictures(url)
    assert not any("Authorization" in head for head in other.requests)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "rtsp://127.0.0.1/x", "data:,x", "http://[x", "/again"])
def test_a_redirect_that_leads_nowhere(target: str) -> None:
    with Answering(lambda _: f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n") as server:
        with pytest.raises(NotOpened):
            open_source(camera(f"http://127.0.0.1:{server.port}/x"))
        assert len(server.requests) <= 4


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 404 Not Found\r\n\r\n",
        "HTTP/1.1 500 Oh no\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nX: {'y' * 2**20}\r\n\r\n",
        "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 10_000 + "\r\n",
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "",
    ],
    ids=["404", "500", "long header", "many headers", "no http", "nothing"],
)
def test_an_answer_that_is_none(answer: str) -> None:
    with Answering(lambda _: answer) as server, pytest.raises(NotOpened):
        open_source(camera(f"http://127.0.0.1:{server.port}/x"))


def test_a_host_that_says_nothing() -> None:
    with Answering(lambda _: None) as server, pytest.raises(NotOpened):
        open_source(camera(f"http://127.0.0.1:{server.port}/x", open_timeout_seconds=0.3))
    with pytest.raises(NotOpened):
        open_source(camera(f"http://127.0.0.1:{free_port()}/x"))


def test_a_compressed_stream_is_refused_by_name() -> None:
    with (
        Answering(lambda _: answered(more="Content-Encoding: gzip\r\n")) as server,
        pytest.raises(CameraUnavailable, match=r"^compresses its stream \(Content-Encoding: gzip\); turn that off"),
    ):
        open_source(camera(f"http://127.0.0.1:{server.port}/x"))


def test_other_video_over_http_is_ffmpeg_s_with_one_connection_at_a_time(tmp_path: Path) -> None:
    content = clip(tmp_path, "mpegts", "libx264")
    with StreamCamera(lambda: content, 2) as server, closing(open_source(camera(server.url))) as source:
        assert isinstance(source, VideoSource)
        assert source.codec == "h264"


def test_through_a_proxy_ffmpeg_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with Answering(lambda _: answered()) as server, pytest.raises(NotOpened):
        open_source(camera(f"http://127.0.0.1:{server.port}/x"))
    assert not server.requests


class Slow:
    """A server that reads each request and then calls ``serve`` with the connection."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/x"
        self._serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(HEAD.format("").encode())
                self._serve(connection)

    def close(self) -> None:
        self._listener.close()


def drip(data: bytes, at_once: int) -> Callable[[socket.socket], None]:
    """Send the beginning at once, and the rest byte by byte, twenty a second."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(data[:at_once])
        for byte in data[at_once:]:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return serve


@pytest.mark.parametrize(
    ("data", "at_once", "error"),
    [
        (b"--frame\r\nX-Long: " + b"y" * 5000, 0, "sent nothing for"),
        (part(JPEGS[0]), 80, "sent a picture that was not complete after 0.6 s"),
        (part(JPEGS[0], length=None), 80, "sent a picture that was not complete after 0.6 s"),
        (part(JPEGS[0], length=2**28), 80, "sent a picture that was not complete after 0.6 s"),
        (part(JPEGS[0], length=2**40), 80, "sent a picture that was not complete after 0.6 s"),
        (b"", 0, "the stream ended"),
    ],
    ids=["head", "body", "no length", "huge", "beyond belief", "closed"],
)
def test_slow_bytes_are_a_stall(data: bytes, at_once: int, error: str) -> None:
    with closing(Slow(drip(data, at_once))) as server:
        found, reason = read(server.url, stall_seconds=0.6)
    assert found == []
    assert reason.startswith(error)


def test_a_body_without_an_end_is_a_stall() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"--frame\r\n\r\n" + JPEGS[0][:-2])
        with suppress(OSError):
            while True:
                connection.sendall(bytes(65_536))

    with closing(Slow(serve)) as server:
        assert read(server.url, stall_seconds=0.6) == ([], "sent a picture that was not complete after 0.6 s")


def test_while_nothing_comes_the_process_turns() -> None:
    over = threading.Event()
    with closing(Slow(lambda _: over.wait(60) and None)) as server, closing(open_source(camera(server.url))) as source:
        begun = time.monotonic()
        assert not source.grab()
        assert time.monotonic() - begun < 4, "long before it counts as stalled"
        over.set()


class Bench:
    """A capture of one camera with a ring of ``capacity`` bytes."""

    def __init__(self, directory: Path, url: str, capacity: int, **more: object) -> None:
        self.directory = directory
        ring_file.create(directory / "0.ring", capacity, "cam1")
        self.page = StatusPage.claim(directory / "capture.status")
        self._doorbell = Doorbell(directory / "bell", StatusPage.claim(directory / "writer.status"))
        self.consumer = Consumer(directory / "0.ring", "cam1")
        self.renewed = 0
        self.capacity = capacity
        self.agent = CaptureAgent(
            camera(url, **more),
            Producer(directory / "0.ring", "cam1"),
            Bell(directory / "bell", StatusPage.watch(directory / "writer.status")),
            self.page,
            lambda: open_source(camera(url, **more), 0, self.agent),
            structlog.get_logger(),
            renew=self._renew,
        )
        self.renews = False

    def _renew(self, former: Producer) -> Renewed | None:
        if not self.renews:
            return None
        self.renews = False
        self.renewed += 1
        path = self.directory / f"{self.renewed}.ring"
        ring_file.create(path, self.capacity, "cam1", former=former)
        return Renewed(Producer(path, "cam1"), None)

    def turn(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not until():
            assert time.monotonic() < deadline
            if not self.agent.do_work():
                self.agent.idle()


def test_every_part_is_stored_or_counted(tmp_path: Path) -> None:
    """In a ring that is full before the body ends."""
    large = JPEGS[1][:2] + b"\xff\xfe\xff\xff" + bytes(65_533) + JPEGS[1][2:]
    parts = [*JPEGS, JPEGS[0][:-50], large, *JPEGS * 3]
    with Answering(lambda _: answered(b"".join(map(part, parts)))) as server:
        bench = Bench(tmp_path, f"http://127.0.0.1:{server.port}/x", 2**16)
        bench.turn(lambda: bench.page.counts[CaptureCount.CONNECTS] == 2)
        counts = bench.agent._producer.counts()
        stored = [bytes(record.payload) for record in bench.consumer.poll(2**30, 1000)]
        bench.agent.on_close()
    whole = JPEGS * 4
    assert stored == whole[: len(stored)]
    assert len(JPEGS) < len(stored) < len(whole)
    assert (counts.captured, counts.held) == (len(parts), len(stored))
    dropped = {reason: count for reason, count in counts.drops.items() if count}
    assert dropped == {"corrupt": 1, "too_large": 1, "ring_full": len(whole) - len(stored)}


def test_a_ring_that_is_replaced_while_frames_come(tmp_path: Path) -> None:
    with MjpegCamera(JPEGS, fps=50) as server:
        bench = Bench(tmp_path, server.url, 2**20)
        for number in (1, 2):
            bench.renews = True
            bench.turn(lambda number=number: bench.renewed == number)
        captured = bench.agent.captured
        bench.turn(lambda: bench.agent.captured >= captured + 5)
        consumer = Consumer(tmp_path / "2.ring", "cam1")
        assert {bytes(record.payload) for record in consumer.poll(2**30, 1000)} <= set(JPEGS)
        drops = consumer.counts().drops
        assert [drops[reason] for reason in ("corrupt", "interrupted", "ring_full", "too_large")] == [0] * 4
        bench.agent.on_close()


def test_an_fps_limit_passes_over_frames(tmp_path: Path) -> None:
    with MjpegCamera(JPEGS, fps=50) as server:
        bench = Bench(tmp_path, server.url, 2**20, fps=5.0)
        bench.turn(lambda: bench.page.counts[CaptureCount.SKIPPED] > 20)
        assert 0 < bench.agent.captured <= 10
        assert {bytes(record.payload) for record in bench.consumer.poll(2**30, 1000)} <= set(JPEGS)
        bench.agent.on_close()


def test_a_capture_that_is_killed_while_it_receives_in_the_ring(tmp_path: Path) -> None:
    """What came of the frame lies in the ring, and was never captured: no count, no sequence."""
    half = JPEGS[1][: len(JPEGS[1]) // 2]
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(part(JPEGS[0]) + part(JPEGS[1])[: -len(JPEGS[1]) - 2] + half)
        over.wait(60)

    ring = tmp_path / "0.ring"
    with closing(Slow(serve)) as server:
        code = (
            "from pathlib import Path; from tests.stages.test_http_jpeg import Bench; "
            f"Bench(Path({str(tmp_path)!r}), {server.url!r}, 2**20).turn(lambda: False)"
        )
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            wait_until(lambda: ring.exists() and half in ring.read_bytes(), 30, "half a frame is in the ring")
        finally:
            process.kill()
            process.wait(30)
            over.set()
    with closing(Producer(ring, "cam1")) as successor, closing(Consumer(ring, "cam1")) as consumer:
        counts = successor.counts()
        assert (counts.captured, counts.held, counts.dropped, successor.last_sequence) == (1, 1, 0, 1)
        room = successor.claim(len(JPEGS[2]))
        assert room is not None
        room[:] = JPEGS[2]
        assert successor.commit(len(room), successor.floor_nano + 1, 0, 320, 240) == 2
        records = consumer.poll(2**30, 10)
        assert [bytes(record.payload) for record in records] == [JPEGS[0], JPEGS[2]]
        assert [record.sequence for record in records] == [1, 2]
        del records, room
