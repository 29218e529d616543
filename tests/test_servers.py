"""The test servers: a smoke of each kind. They start, serve, fail as asked, come back, and leave no process behind."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import pika
import pika.exceptions
import psutil
import pytest
import redis

from tests.servers import wait
from tests.servers.clips import Codec, Unit, make_clip, read_clip
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtp import Packets
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import comes_within, wait_until


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test, no process that it started is left."""
    # Not those that live for the whole session.
    before = psutil.Process().children()
    yield
    assert not [child for child in psutil.Process().children() if child not in before]


@pytest.fixture(autouse=True)
def rtsp_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")


def open_video(url: str, *, raw: bool = False, seconds: float = 20) -> cv2.VideoCapture:
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(seconds * 1000), cv2.CAP_PROP_READ_TIMEOUT_MSEC]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [*limits, round(seconds * 1000)])
    if raw and capture.isOpened():
        assert capture.set(cv2.CAP_PROP_FORMAT, -1)
    return capture


def read_frames(capture: cv2.VideoCapture, count: int) -> list[np.ndarray[Any, Any]]:
    """Up to ``count`` frames; fewer when the stream ends."""
    frames = []
    while len(frames) < count and (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def test_waiting_says_what_did_not_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "SECONDS_MIN", 0.0)
    with pytest.raises(AssertionError, match="the moon is blue"):
        wait_until(lambda: False, 0.05, "the moon is blue")
    assert not comes_within(lambda: False, 0.05)
    assert comes_within(lambda: True, 0.0)


@pytest.mark.parametrize("binary", ["redis-server", "valkey"])
def test_redis(tmp_path: Path, binary: Literal["redis-server", "valkey"]) -> None:
    with RedisServer(tmp_path, binary=binary, username="edge", password="p/:@") as server:
        client = redis.Redis.from_url(server.url)
        client.set("key", b"\x00\xff")
        assert client.get("key") == b"\x00\xff"
        assert ("valkey_version" in client.info("server")) == (binary == "valkey")
        server.pause()
        with pytest.raises(redis.TimeoutError):
            server.client(socket_timeout=0.5).ping()
        server.resume()
        server.kill()
        with pytest.raises(redis.ConnectionError):
            server.client().ping()
        server.start()
        assert server.client().get("key") is None


def test_a_redis_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="redis-server ended with 1") as caught:
        RedisServer(tmp_path, args=["--no-such-directive", "1"]).start()
    assert "no-such-directive" in "".join(caught.value.__notes__)


def processes_at_home(home: Path) -> list[str]:
    """The names of all processes with this HOME, of whatever parent: Erlang's helpers leave the family."""
    names = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get("HOME") == str(home):
                names.append(process.name())
    return names


def test_rabbitmq(tmp_path: Path) -> None:
    with RabbitMQ(tmp_path) as broker:
        broker.add_vhost("shop")
        broker.add_user("edge", "p/:@ %", "shop", configure=".*", read=".*")
        channel = broker.connect("shop", "edge", "p/:@ %").channel()
        channel.queue_declare("events", durable=True)
        channel.basic_publish("", "events", b"kept", pika.BasicProperties(delivery_mode=2))
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            broker.connect("shop", "edge", "wrong")
        notices: list[str] = []
        connection = broker.connect("shop")
        connection.add_on_connection_blocked_callback(lambda *_: notices.append("blocked"))

        def noticed() -> list[str]:
            connection.process_data_events(0.05)
            return notices

        broker.set_alarm(True)
        connection.channel().basic_publish("", "events", b"blocked")
        wait_until(noticed, 20, "the connection is blocked")
        broker.set_alarm(False)
        broker.restart()
        assert broker.connect("shop").channel().basic_get("events", auto_ack=True)[2] == b"kept"
    assert not processes_at_home(tmp_path)


def test_rtsp_camera(tmp_path: Path) -> None:
    with RtspCamera(
        tmp_path, codec="mjpeg", fps=25, size=(320, 240), user="ed ge", password="p/:@ %", record=tmp_path / "sent"
    ) as camera:
        assert not open_video(camera.url.replace("ed%20ge", "other")).isOpened()
        capture = open_video(camera.url)
        assert [frame.shape for frame in read_frames(capture, 10)] == [(240, 320, 3)] * 10
        assert len(set(camera.recorded())) > 5
        camera.pause()
        assert not open_video(camera.url, seconds=0.5).isOpened()
        camera.resume()
        camera.kill()
        assert len(read_frames(capture, 1000)) < 1000
        camera.start()
        assert read_frames(open_video(camera.url), 1)


def received(url: str, most: int = 1000, seconds: float = 10) -> list[av.Packet]:
    """The packets of the video at `url`, up to the connection's end."""
    found: list[av.Packet] = []
    with (
        suppress(av.error.FFmpegError),
        av.open(url, options={"rtsp_transport": "tcp"}, timeout=seconds) as container,
    ):
        for packet in container.demux(container.streams.video[0]):
            found += [packet] if packet.size else []
            if len(found) == most:
                break
    return found


@pytest.mark.parametrize(("codec", "options"), [("h264", ["-bf", "0"]), ("h264", ["-bf", "2"]), ("h265", [])])
def test_rtsp_video_sends_a_clip_bit_by_bit(tmp_path: Path, codec: Codec, options: list[str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", codec=codec, options=options, seconds=3, kbit=2000)
    stream = read_clip(clip, fps=60)
    assert max(len(nal) for unit in stream.units for nal in unit.nals) > 3000, "some are fragmented"
    with RtspVideo(tmp_path, {"/cam": Mount(stream, loop=False, audio=True)}) as cameras:
        packets = received(cameras.url("/cam"))
    assert [bytes(packet) for packet in packets] == [unit.annexb for unit in stream.units]
    assert [packet.is_keyframe for packet in packets] == [unit.keyframe for unit in stream.units]
    # FFmpeg counts from the first packet's time, and does not tell it.
    times = [packet.pts * packet.time_base for packet in packets[1:]]
    assert times == pytest.approx([unit.shown - stream.units[0].shown for unit in stream.units[1:]], abs=1e-4)


def test_rtp_packets_of_a_unit_follow_each_other() -> None:
    unit = Unit((b"\x67sps", b"\x65" + bytes(4500)), 0, 0, True, lost=frozenset({2}))
    packets = Packets("h264", unit)
    for first in (65_534, 7):
        data, found = bytes(packets.fill(first, 90_000)), []
        while data:
            sign, channel, size = struct.unpack(">cBH", data[:4])
            _, kind, sequence, stamp, _ = struct.unpack(">BBHII", data[4:16])
            assert (sign, channel, kind & 0x7F, stamp) == (b"$", 0, 96, 90_000)
            found.append((sequence, kind >> 7))
            data = data[4 + size :]
        assert packets.count == 5
        assert found == [((first + number) % 65_536, number // 4) for number in (0, 1, 3, 4)]


def test_rtsp_video_loops_loses_and_leaves_out(tmp_path: Path) -> None:
    stream = read_clip(make_clip(tmp_path / "clip.mp4", seconds=1, gop=5, fps=15), fps=75)
    units = [unit.annexb for unit in stream.units]
    assert stream.keyframes == [0, 5, 10]
    lossy = stream._replace(
        units=(*stream.units[:3], stream.units[3]._replace(lost=frozenset(range(100))), *stream.units[4:])
    )
    mounts = {
        "/loop": Mount(stream, begin=10),
        "/lossy": Mount(lossy),
        "/keyless": Mount(stream, keyless_seconds=0.1),
        "/bare": Mount(stream.without_sets()),
    }
    with RtspVideo(tmp_path, mounts) as cameras:
        packets = received(cameras.url("/loop"), 25)
        assert [bytes(packet) for packet in packets] == [*units[10:], *units, *units[:5]]
        steps = [after.pts - before.pts for before, after in pairwise(packets[1:])]
        assert steps == pytest.approx([1200] * len(steps), abs=1)
        lossy_units = [bytes(packet) for packet in received(cameras.url("/lossy"), 7)]
        assert lossy_units == [*units[:3], *units[4:8]]
        assert [packet.is_keyframe for packet in received(cameras.url("/keyless"), 9)] == [False] * 8 + [True]
        bare, whole = received(cameras.url("/bare"), 1)[0], stream.parameter_sets
        assert units[0].endswith(bytes(bare))
        assert len(units[0]) - len(bytes(bare)) == sum(4 + len(nal) for nal in whole)
        cameras.pause()
        assert not received(cameras.url("/loop"), 1, seconds=0.5)
        cameras.resume()
        cameras.restart()
        assert received(cameras.url("/loop"), 1)


def test_mjpeg_camera() -> None:
    jpegs = make_jpegs(12)
    halves = [jpeg[: len(jpeg) // 2] for jpeg in jpegs]

    def packets(count: int) -> list[bytes]:
        return [frame.tobytes() for frame in read_frames(open_video(camera.url, raw=True, seconds=0.5), count)]

    with MjpegCamera(jpegs, fps=100) as camera:
        assert packets(12) == jpegs
        for mode in ("silent", "garbage", "refuse"):
            camera.mode = mode
            assert not packets(1)
    with MjpegCamera(jpegs, fps=100, mode="truncated", every=3) as camera:
        assert packets(3) == [jpegs[0], jpegs[1], halves[2]]
    with MjpegCamera(jpegs, fps=100, mode="die-mid-frame", after=3) as camera:
        # OpenCV hands out the half frame as if it were a whole one.
        assert packets(9) == [*jpegs[:3], halves[3]]
    with MjpegCamera(jpegs, fps=100, mode="stall", after=4) as camera:
        assert packets(9) == jpegs[:4]
