"""One site that uses a server of each kind, for ``make test-fast``: cameras over RTSP and HTTP, Redis and RabbitMQ,
both ends of the library; and the embedded server under the demo."""

from __future__ import annotations

import json
from pathlib import Path

from engine import FrameConsumer, FrameStore
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import wait_until
from tests.system.site import Site, command


def test_frames_travel_from_every_kind_of_camera_to_both_ends_of_the_library(
    site: Site, short_path: Path, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    pictures = make_jpegs(10, (320, 240))
    with RtspCamera(short_path / "rtsp", size=(320, 240)) as rtsp, MjpegCamera(pictures, fps=20) as http:
        cameras = {"rtsp": rtsp.url, "http": http.url, "test": "test://?size=320x240&kb=10"}
        site.write(
            cameras=[{"id": name, "url": url} for name, url in cameras.items()],
            redis={"address": redis_server.address},
            amqp_url=rabbitmq.url(vhost),
        )
        announced: set[str] = set()

        def on_frame(event, frame):
            if frame is not None:
                announced.add(event.camera_id)
            if announced == set(cameras):
                consumer.stop()

        consumer = FrameConsumer.from_site(site.file, on_frame)
        site.start()
        consumer.run()
        with FrameStore.from_site(site.file) as store:
            newest = store.snapshot()
            assert {name: frame.image().shape for name, frame in newest.items()} == dict.fromkeys(
                cameras, (240, 320, 3)
            )
            assert newest["http"].data in pictures
        wait_until(lambda: site.total("stored") > 20, 30, "all go on")
        assert site.stop() == 0
        assert not site.dropped()


def test_the_demo_stores_all_that_its_cameras_send() -> None:
    done = command("demo", "--seconds", "2", "--cameras", "2", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["captured"] == summary["stored"] > 0
    assert summary["dropped"] == 0
