"""The test servers themselves: a test that relies on one may believe what it says and what it records."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
import pika
import pika.exceptions
import psutil
import pytest
import redis
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from tests.servers.mjpeg_http import MjpegCamera, make_jpegs, strip_dht
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import accepts_tcp, free_port, wait_until

_ROOT = Path(__file__).parents[1]
_VIDEO = _ROOT.parent / "shared" / "video"
_EOI = b"\xff\xd9"

needs_footage = pytest.mark.skipif(not _VIDEO.is_dir(), reason=f"no footage in {_VIDEO}")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After every test, no process that it started is left, not even by a server that was stopped twice."""
    # Not those that live for the whole session.
    before = psutil.Process().children()
    yield
    left = [child for child in psutil.Process().children() if child not in before]
    assert not left


@pytest.fixture(autouse=True)
def rtsp_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")


def open_video(url: str, *, raw: bool = False, open_seconds: float = 20, read_seconds: float = 20) -> cv2.VideoCapture:
    limits = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: round(open_seconds * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: round(read_seconds * 1000),
    }
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [number for limit in limits.items() for number in limit])
    if raw and capture.isOpened():
        assert capture.set(cv2.CAP_PROP_FORMAT, -1)
    return capture


def read_frames(capture: cv2.VideoCapture, count: int) -> list[np.ndarray[Any, Any]]:
    """Up to `count` frames; fewer when the stream ends."""
    frames = []
    for _ in range(count):
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(frame)
    return frames


def read_packets(capture: cv2.VideoCapture, count: int) -> list[bytes]:
    return [frame.tobytes() for frame in read_frames(capture, count)]


def scan_data(jpeg: bytes) -> bytes:
    """The entropy-coded data: what an RTP receiver cannot make up, as it does the segments before it."""
    start = jpeg.index(b"\xff\xda")
    data = jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]
    assert data.endswith(_EOI)
    while data.endswith(_EOI):
        data = data.removesuffix(_EOI)
    return data


class TestWaiting:
    def test_gives_the_first_true_value(self) -> None:
        values = iter([0, None, "", "ready", "later"])
        assert wait_until(lambda: next(values), 10, "a value", interval=0) == "ready"

    def test_says_what_did_not_happen(self) -> None:
        with pytest.raises(AssertionError, match="the moon is blue"):
            wait_until(lambda: False, 0.05, "the moon is blue")

    def test_ports_are_free_distinct_and_not_ephemeral(self) -> None:
        ports = [free_port() for _ in range(50)]
        ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        assert len(set(ports)) == 50
        assert max(ports) < ephemeral
        assert not any(map(accepts_tcp, ports))


class TestRedisServer:
    @pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
    @pytest.mark.parametrize("binary", ["redis-server", "valkey"])
    def test_round_trip_and_life(self, tmp_path: Path, binary: Literal["redis-server", "valkey"], unix: bool) -> None:
        with RedisServer(tmp_path, binary=binary, unix=unix) as server:
            address, client = server.address, server.client()
            assert address == (f"unix://{tmp_path}/redis.sock" if unix else f"127.0.0.1:{server.port}")
            client.set("key", b"\x00\xff")
            assert client.get("key") == b"\x00\xff"
            assert redis.Redis.from_url(server.url).get("key") == b"\x00\xff"
            assert ("valkey_version" in client.info("server")) == (binary == "valkey")

            server.restart()
            assert server.address == address
            assert server.client().get("key") is None

            server.kill()
            with pytest.raises(redis.ConnectionError):
                server.client().ping()
            server.start()

            hasty = server.client(socket_timeout=0.5)
            assert hasty.ping()
            server.pause()
            with pytest.raises(redis.TimeoutError):
                hasty.ping()
            server.resume()
            assert server.client(socket_timeout=20).ping()
            server.pause()
        server.stop()

    def test_password(self, tmp_path: Path) -> None:
        password = 'pä ss"\\/:@#'
        with RedisServer(tmp_path, password=password) as server:
            assert server.client().set("key", "value")
            assert redis.Redis.from_url(server.url).get("key") == b"value"
            with pytest.raises(redis.AuthenticationError):
                server.client(password=None).ping()
            with pytest.raises(redis.AuthenticationError):
                server.client(password="wrong").ping()

    @pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
    def test_user(self, tmp_path: Path, unix: bool) -> None:
        with RedisServer(tmp_path, unix=unix, username="edge", password="p/:@") as server:
            assert server.client().set("key", "value")
            client = redis.Redis.from_url(server.url)
            assert client.get("key") == b"value"
            assert client.acl_whoami() == "edge"
            with pytest.raises(redis.AuthenticationError):
                server.client(username=None, password=None).ping()
            with pytest.raises(redis.AuthenticationError):
                server.client(username="default").ping()

    def test_arguments_override(self, tmp_path: Path) -> None:
        args = ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "64mb"]
        with RedisServer(tmp_path, args=args) as server:
            assert server.client().config_get("maxmemory") == {"maxmemory": "67108864"}
            server.client().set("key", "kept")
            server.kill()
            server.start()
            assert server.client().get("key") == b"kept"

    def test_says_why_it_does_not_start(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="redis-server ended with 1") as caught:
            RedisServer(tmp_path, args=["--no-such-directive", "1"]).start()
        assert "no-such-directive" in "".join(caught.value.__notes__)

    def test_dies_with_the_tests(self, tmp_path: Path) -> None:
        script = (
            "import pathlib, sys, time\n"
            "from tests.servers.redis_server import RedisServer\n"
            "server = RedisServer(pathlib.Path(sys.argv[1]))\n"
            "server.start()\n"
            "print(server.pid, flush=True)\n"
            "time.sleep(600)\n"
        )
        argv = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(argv, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as tests:
            assert tests.stdout is not None
            server = psutil.Process(int(tests.stdout.readline()))
            assert server.name().startswith("redis-server")
            tests.send_signal(signal.SIGKILL)
        wait_until(lambda: not server.is_running() or server.status() == "zombie", 10, "the server is gone")


def processes_at_home(home: Path) -> list[str]:
    """The names of all processes with this HOME, of whatever parent: Erlang's helpers leave the family."""
    names = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get("HOME") == str(home):
                names.append(process.name())
    return names


class TestRabbitMQ:
    def test_round_trip_and_life(self, tmp_path: Path) -> None:
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)

        def publish(broker: RabbitMQ, body: bytes) -> None:
            channel = broker.connect("caméra/1").channel()
            channel.confirm_delivery()
            channel.queue_declare("events", durable=True)
            channel.basic_publish("", "events", body, persistent, mandatory=True)

        def consume(broker: RabbitMQ) -> list[bytes]:
            channel = broker.connect("caméra/1").channel()
            bodies = []
            while (got := channel.basic_get("events", auto_ack=True))[0] is not None:
                bodies.append(got[2])
            return bodies

        with RabbitMQ(tmp_path) as broker:
            broker.add_vhost("caméra/1")
            publish(broker, b"before the kill")
            broker.kill()
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                broker.connect()
            broker.start()
            publish(broker, b"after the kill")
            broker.restart()
            assert consume(broker) == [b"before the kill", b"after the kill"]

            broker.pause()
            parameters = pika.URLParameters(broker.url())
            parameters.socket_timeout = parameters.stack_timeout = 0.5
            # Not an AMQPError: a timeout of the handshake leaves pika by another family.
            with pytest.raises(AMQPConnectorStackTimeout):
                pika.BlockingConnection(parameters)
            broker.resume()
            assert broker.connect().is_open
            assert len(processes_at_home(tmp_path)) >= 3
            broker.pause()
        broker.stop()
        assert not processes_at_home(tmp_path)

    def test_users_and_alarm(self, tmp_path: Path) -> None:
        with RabbitMQ(tmp_path) as broker:
            broker.add_vhost("shop")
            broker.add_user("edge", "p/:@ %", "shop", configure="^$", read="^$")
            with pytest.raises(pika.exceptions.ProbableAuthenticationError):
                broker.connect("shop", "edge", "wrong")
            with pytest.raises(pika.exceptions.ProbableAccessDeniedError):
                broker.connect("/", "edge", "p/:@ %")

            connection = broker.connect("shop", "edge", "p/:@ %")
            connection.channel().basic_publish("amq.topic", "key", b"allowed")
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
                connection.channel().queue_declare("forbidden")
            assert caught.value.reply_code == 403

            notices: list[str] = []
            connection.add_on_connection_blocked_callback(lambda *_: notices.append("blocked"))
            connection.add_on_connection_unblocked_callback(lambda *_: notices.append("unblocked"))

            def noticed(count: int) -> bool:
                connection.process_data_events(0.05)
                return len(notices) == count

            broker.set_alarm(True)
            connection.channel().basic_publish("amq.topic", "key", b"blocked")
            wait_until(lambda: noticed(1), 20, "the connection is blocked")
            broker.set_alarm(False)
            wait_until(lambda: noticed(2), 20, "the connection is unblocked")
            assert notices == ["blocked", "unblocked"]

            with pytest.raises(AssertionError, match="badmatch"):
                broker.eval("one = two")


class TestRtspCamera:
    @pytest.mark.parametrize("codec", ["h264", "mjpeg"])
    def test_generated_picture(self, tmp_path: Path, codec: Literal["h264", "mjpeg"]) -> None:
        with RtspCamera(tmp_path, codec=codec, fps=25, size=(320, 240)) as camera:
            frames = read_frames(open_video(camera.url), 40)
        camera.stop()
        assert [frame.shape for frame in frames] == [(240, 320, 3)] * 40
        assert len({frame.tobytes() for frame in frames}) > 30

    def test_real_time(self, tmp_path: Path) -> None:
        with RtspCamera(tmp_path, codec="mjpeg", fps=25, size=(320, 240)) as camera:
            started = time.monotonic()
            assert len(read_frames(open_video(camera.url), 51)) == 51
            assert time.monotonic() - started >= 1.9

    @needs_footage
    def test_clip_as_filmed(self, tmp_path: Path) -> None:
        clip = _VIDEO / "one-by-one-person-detection.mp4"
        filmed = read_frames(open_video(str(clip)), 5)
        with RtspCamera(tmp_path, clip=clip) as camera:
            received = read_frames(open_video(camera.url), 5)
        assert all(np.array_equal(one, other) for one, other in zip(filmed, received, strict=True))

    @pytest.mark.parametrize("clip", [None, pytest.param("car-detection.mp4", marks=needs_footage)])
    def test_jpegs_recorded_are_those_received(self, tmp_path: Path, clip: str | None) -> None:
        path = _VIDEO / clip if clip else None
        with RtspCamera(
            tmp_path, clip=path, codec="mjpeg", fps=25, size=(320, 240), record=tmp_path / "sent"
        ) as camera:
            received = read_packets(open_video(camera.url, raw=True), 30)
            recorded = camera.recorded()
        assert len(received) == 30
        assert [scan_data(jpeg) for jpeg in received] == [scan_data(jpeg) for jpeg in recorded[:30]]
        assert len(set(recorded[:30])) > 10

    def test_login(self, tmp_path: Path) -> None:
        with RtspCamera(tmp_path, codec="mjpeg", fps=25, user="ed ge", password="p/:@ %") as camera:
            assert read_frames(open_video(camera.url), 1)
            login, _, place = camera.url.rpartition("@")
            assert not open_video(f"rtsp://{place}").isOpened()
            assert not open_video(f"{login}x@{place}").isOpened()

    def test_loop(self, tmp_path: Path) -> None:
        clip = tmp_path / "short.mp4"
        pipeline = (
            "videotestsrc num-buffers=20 ! video/x-raw,framerate=25/1 ! x264enc bframes=2 key-int-max=10"
            f" ! video/x-h264,profile=main ! h264parse ! mp4mux ! filesink location={clip}"
        )
        script = (
            "import sys, gi\n"
            "gi.require_version('Gst', '1.0')\n"
            "from gi.repository import Gst\n"
            "Gst.init(None)\n"
            "pipeline = Gst.parse_launch(sys.argv[1])\n"
            "pipeline.set_state(Gst.State.PLAYING)\n"
            "ends = Gst.MessageType.EOS | Gst.MessageType.ERROR\n"
            "pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ends)\n"
            "pipeline.set_state(Gst.State.NULL)\n"
        )
        subprocess.run(["/usr/bin/python3", "-c", script, pipeline], check=True, timeout=60)
        with RtspCamera(tmp_path, clip=clip) as camera:
            assert len(read_frames(open_video(camera.url), 50)) == 20
        with RtspCamera(tmp_path, clip=clip, loop=True) as camera:
            started = time.monotonic()
            assert len(read_frames(open_video(camera.url), 60)) == 60
            # Each round goes on in time where the one before has ended.
            assert time.monotonic() - started >= 2.1

    def test_faults(self, tmp_path: Path) -> None:
        with RtspCamera(tmp_path, codec="mjpeg", fps=25, size=(320, 240), record=tmp_path / "sent") as camera:
            capture = open_video(camera.url, read_seconds=0.5)
            assert read_frames(capture, 25)
            camera.pause()
            assert len(read_frames(capture, 1000)) < 1000
            assert not open_video(camera.url, open_seconds=0.5).isOpened()
            camera.resume()
            capture = open_video(camera.url)
            assert read_frames(capture, 1)
            camera.kill()
            assert len(read_frames(capture, 1000)) < 1000
            assert not open_video(camera.url).isOpened()
            before = len(camera.recorded())
            camera.start()
            assert len(read_frames(open_video(camera.url), 5)) == 5
            assert len(camera.recorded()) > before


def ended(connection: socket.socket) -> bool:
    """Whether the other side closes, one way or the other, before the socket's timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


class HttpClient:
    """Reads MJPEG as a client would that believes every Content-Length."""

    def __init__(self, camera: MjpegCamera, timeout: float = 20) -> None:
        self._socket = socket.create_connection(("127.0.0.1", camera.port), timeout)
        self._socket.sendall(b"GET /video.mjpg HTTP/1.1\r\nHost: camera\r\n\r\n")
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def set_timeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def head(self) -> list[str]:
        """The lines up to an empty one."""
        lines = []
        while (line := self._file.readline().decode("latin-1").rstrip("\r\n")) != "":
            lines.append(line)
        return lines

    def part(self) -> bytes:
        boundary, content_type, length = self.head()
        assert boundary == "--frame"
        assert content_type == "Content-Type: image/jpeg"
        size = int(length.removeprefix("Content-Length: "))
        body = self._file.read(size)
        if len(body) == size:
            assert self._file.read(2) == b"\r\n"
        return body

    def rest(self) -> bytes:
        return self._file.read()


class TestMjpegCamera:
    jpegs = make_jpegs(12)

    def test_frames_are_distinct_complete_jpegs(self) -> None:
        assert len(set(self.jpegs)) == 12
        for jpeg in self.jpegs:
            assert jpeg.startswith(b"\xff\xd8")
            assert jpeg.endswith(_EOI)
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None
            assert picture.shape == (240, 320, 3)

    def test_frames_without_huffman_tables_decode_to_the_same(self) -> None:
        stripped = [strip_dht(jpeg) for jpeg in self.jpegs]
        assert all(b"\xff\xc4" in jpeg for jpeg in self.jpegs)
        assert not any(b"\xff\xc4" in jpeg for jpeg in stripped)
        with MjpegCamera(self.jpegs, fps=100) as whole, MjpegCamera(stripped, fps=100) as short:
            pictures = read_frames(open_video(whole.url), 12), read_frames(open_video(short.url), 12)
        assert all(np.array_equal(one, other) for one, other in zip(*pictures, strict=True))

    def test_normal(self) -> None:
        with MjpegCamera(self.jpegs, fps=100) as camera:
            before = time.monotonic()
            with HttpClient(camera) as client:
                status, content_type = client.head()[:2]
                parts = [client.part() for _ in range(20)]
                sent = camera.sent
            wait_until(lambda: camera.open_connections == 0, 10, "the camera has noticed")
            assert status == "HTTP/1.0 200 OK"
            assert content_type == "Content-Type: multipart/x-mixed-replace; boundary=frame"
            assert parts == [self.jpegs[index % 12] for index in range(20)]
            assert sent[:20] == parts
            with HttpClient(camera) as client:
                client.head()
                assert client.part() in camera.sent
            times = camera.connections
            assert len(times) == 2
            assert before <= times[0] < times[1] <= time.monotonic()
        camera.stop()

    def test_pace_and_numbers(self) -> None:
        with MjpegCamera(lambda index: b"%d" % index, fps=50) as camera:
            with HttpClient(camera) as client:
                client.head()
                client.part()
                started = time.monotonic()
                assert [int(client.part()) for _ in range(25)] == list(range(1, 26))
                assert time.monotonic() - started >= 0.4
            wait_until(lambda: camera.open_connections == 0, 10, "the camera has noticed")
            with HttpClient(camera) as client:
                client.head()
                assert int(client.part()) >= 26

    @pytest.mark.parametrize("tables", [True, False], ids=["with-tables", "without-tables"])
    def test_opencv_passes_the_bytes_through(self, tables: bool) -> None:
        frames = self.jpegs if tables else [strip_dht(jpeg) for jpeg in self.jpegs]
        with MjpegCamera(frames, fps=100) as camera:
            received = read_packets(open_video(camera.url, raw=True), 30)
            assert len(received) == 30
            assert received == camera.sent[:30]

    def test_silent(self) -> None:
        with MjpegCamera(self.jpegs, fps=100, mode="silent") as camera:
            assert not open_video(camera.url, open_seconds=0.5).isOpened()
            with HttpClient(camera, timeout=0.3) as client, pytest.raises(TimeoutError):
                client.head()
            assert len(camera.connections) == 2
            assert camera.sent == []
            with HttpClient(camera) as client:
                camera.mode = "normal"
                client.head()
                assert client.part() == self.jpegs[0]

    def test_garbage(self) -> None:
        with MjpegCamera(self.jpegs, fps=100, mode="garbage") as camera:
            assert not open_video(camera.url).isOpened()
            with HttpClient(camera) as client:
                assert client.head()[0] == "HTTP/1.0 200 OK"
                with pytest.raises((ValueError, AssertionError)):
                    client.part()
            assert camera.sent == []

    def test_die_mid_frame(self) -> None:
        with MjpegCamera(self.jpegs, fps=100, mode="die-mid-frame", after=3) as camera:
            with HttpClient(camera) as client:
                client.head()
                assert [client.part() for _ in range(3)] == self.jpegs[:3]
                with pytest.raises(ConnectionResetError):
                    client.rest()
            received = read_packets(open_video(camera.url, raw=True), 30)
            half = self.jpegs[7]
            assert received[:3] == self.jpegs[4:7]
            # OpenCV gives the half frame as if it were one: whoever stores it must look.
            assert received[3:] == [half[: len(half) // 2]]
            assert camera.sent == self.jpegs[:3] + self.jpegs[4:7]

    def test_refuse_and_back(self) -> None:
        with MjpegCamera(self.jpegs, fps=100) as camera:
            port = camera.port
            capture = open_video(camera.url)
            assert read_frames(capture, 3)
            camera.mode = "refuse"
            assert len(read_frames(capture, 1000)) < 1000
            with pytest.raises(ConnectionRefusedError):
                HttpClient(camera)
            assert not open_video(camera.url).isOpened()
            camera.mode = "normal"
            assert camera.port == port
            assert len(read_frames(open_video(camera.url), 3)) == 3

    def test_refuse_from_the_start(self) -> None:
        with MjpegCamera(self.jpegs, mode="refuse") as camera:
            with pytest.raises(ConnectionRefusedError):
                HttpClient(camera)
            camera.mode = "stall"
            assert accepts_tcp(camera.port)

    def test_stall(self) -> None:
        with MjpegCamera(self.jpegs, fps=100, mode="stall", after=4) as camera, HttpClient(camera) as client:
            client.head()
            assert [client.part() for _ in range(4)] == self.jpegs[:4]
            client.set_timeout(0.3)
            with pytest.raises(TimeoutError):
                client.rest()
            assert camera.open_connections == 1
            capture = open_video(camera.url, raw=True, read_seconds=0.5)
            assert read_packets(capture, 30) == self.jpegs[4:8]
            camera.mode = "normal"
            assert wait_until(lambda: len(camera.sent) > 20, 10, "it goes on")

    def test_truncated(self) -> None:
        with MjpegCamera(self.jpegs, fps=100, mode="truncated", every=3) as camera:
            received = read_packets(open_video(camera.url, raw=True), 9)
            halves = [jpeg[: len(jpeg) // 2] for jpeg in self.jpegs]
            expected = [halves[index] if index % 3 == 2 else self.jpegs[index] for index in range(9)]
            assert received == expected
            assert camera.truncated[:3] == [halves[2], halves[5], halves[8]]
            assert not set(camera.truncated) & set(camera.sent)

    def test_cuts_clients_that_neither_ask_nor_read(self) -> None:
        camera = MjpegCamera(lambda _: bytes(100_000_000))
        camera.start()
        address = ("127.0.0.1", camera.port)
        with socket.create_connection(address, 20) as mute, socket.create_connection(address, 20) as lazy:
            lazy.sendall(b"GET / HTTP/1.1\r\n\r\n")
            wait_until(lambda: len(lazy.recv(200_000, socket.MSG_PEEK)) > 100_000, 10, "a frame is on its way")
            wait_until(lambda: camera.open_connections == 2, 10, "both are accepted")
            camera.mode = "refuse"
            assert ended(mute)
            wait_until(lambda: camera.open_connections == 0, 10, "both are closed")
            camera.stop()
        assert camera.sent == []
