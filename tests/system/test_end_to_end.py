"""A whole site: every kind of camera, real Redis and RabbitMQ, read back as the product page says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pika
import pytest

from engine.wire import jpeg
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs, strip_dht
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import wait_until
from tests.system.clips import car_clip, person_clip
from tests.system.consumer import Consumer, first_times
from tests.system.site import Site, missing_numbers, stored_frames

TTL_SECONDS = 600


@pytest.fixture
def cameras(short_path: Path) -> Iterator[dict[str, Any]]:
    """The servers behind the cameras, by camera id."""
    jpegs = make_jpegs(100, (320, 240))
    with (
        RtspCamera(short_path / "h264", clip=person_clip(), codec="h264") as rtsp_h264,
        RtspCamera(short_path / "mjpeg", clip=car_clip(), codec="mjpeg", record=short_path / "sent") as rtsp_mjpeg,
        MjpegCamera(jpegs, fps=20) as http,
        MjpegCamera([strip_dht(picture) for picture in jpegs], fps=10) as bare,
    ):
        yield {"rtsp-h264": rtsp_h264, "rtsp-mjpeg": rtsp_mjpeg, "http": http, "http-bare": bare}


def test_every_captured_frame_is_stored_announced_and_found_by_its_event(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str, cameras: dict[str, Any]
) -> None:
    files = {"person": person_clip(), "cars": car_clip()}
    listed = [{"id": name, "url": camera.url} for name, camera in cameras.items()]
    listed += [{"id": name, "url": str(path), "loop": True, "quality": 70} for name, path in files.items()]
    listed += [{"id": "test", "url": "test://?fps=25&kb=40&size=640x480"}]
    site.write(
        cameras=listed,
        redis={"address": redis_server.address, "ttl_seconds": TTL_SECONDS},
        amqp_url=rabbitmq.url(vhost),
    )
    with Consumer(rabbitmq, vhost) as consumer:
        site.start()
        wait_until(
            lambda: all(camera["stored"] >= 40 for camera in site.status()["cameras"]), 60, "all cameras are stored"
        )
        modes = {
            camera["id"]: (camera["mode"], camera["width"], camera["height"]) for camera in site.status()["cameras"]
        }
        assert site.stop() == 0
        client = redis_server.client()
        stored = stored_frames(client, vhost, check_stamps=False)
        wait_until(lambda: len(consumer.frames()) >= len(stored.keys), 30, "all events arrived")
        events = consumer.frames()

    assert modes == {
        "rtsp-h264": ("transcode", 768, 432),
        "rtsp-mjpeg": ("passthrough", 768, 432),
        "http": ("passthrough", 320, 240),
        "http-bare": ("passthrough", 320, 240),
        "person": ("transcode", 768, 432),
        "cars": ("transcode", 768, 432),
        "test": ("passthrough", 640, 480),
    }
    for camera, numbers in stored.numbers.items():
        assert not missing_numbers(numbers), camera
        assert first_times(consumer.sequences()[camera]) == numbers
    for event in events:
        check_event(client, event, vhost)
    http = digests(bodies(client, vhost, "http"))
    sent = digests(cameras["http"].sent)
    first = sent.index(http[0])
    assert http == sent[first : first + len(http)], "an HTTP camera's bytes are stored as they were sent"
    check_rtsp_mjpeg(bodies(client, vhost, "rtsp-mjpeg"), cameras["rtsp-mjpeg"].recorded())
    check_added_tables(bodies(client, vhost, "http-bare"), cameras["http-bare"].sent)


def check_event(client: Any, event: dict[str, Any], vhost: str) -> None:
    """The event's fields lead to the frame, which lives for its TTL and is a picture of the size announced."""
    key = f"{vhost}:frames:{event['camera_id']}:{event['timestamp_nano']}:{event['sequence']}"
    assert event["redis_key"] == key
    data, ttl = client.get(key), client.pttl(key)
    assert 0 < ttl <= TTL_SECONDS * 1000
    assert TTL_SECONDS * 1000 - ttl < 120_000
    assert len(data) == event["size_bytes"] == event["frame_size_bytes"]
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[:2] == (event["height"], event["width"])
    assert (event["event_type"], event["vhost"], event["encoding"]) == ("frame", vhost, "jpeg")


def bodies(client: Any, vhost: str, camera: str) -> list[bytes]:
    """A camera's stored frames, oldest first."""
    keys = sorted(client.scan_iter(match=f"{vhost}:frames:{camera}:*", count=5000), key=lambda key: key.split(b":")[3])
    return client.mget(keys)


def digests(pictures: list[bytes]) -> list[str]:
    """Short names of pictures, so that a failure can be read."""
    return [hashlib.sha256(picture).hexdigest()[:12] for picture in pictures]


def check_rtsp_mjpeg(stored: list[bytes], sent: list[bytes]) -> None:
    """RTP carries a JPEG's entropy-coded data and tables, not its headers: that data is what must be the same."""

    def scan(picture: bytes) -> bytes:
        info = jpeg.inspect(picture)
        length = int.from_bytes(picture[info.scan + 2 : info.scan + 4], "big")
        return picture[info.scan + 2 + length : info.end]

    scans = digests([scan(picture) for picture in sent])
    found = digests([scan(picture) for picture in stored])
    first = scans.index(found[0])
    assert found == scans[first : first + len(found)]


def check_added_tables(stored: list[bytes], sent: list[bytes]) -> None:
    """A frame that came without Huffman tables is stored with the standard ones, and else unchanged."""
    kept = digests([picture.replace(jpeg.STANDARD_HUFFMAN_TABLES, b"") for picture in stored])
    originals = digests(sent)
    first = originals.index(kept[0])
    assert kept == originals[first : first + len(kept)]
    assert all(jpeg.inspect(picture).has_huffman_tables for picture in stored)


def test_b_frames_come_out_in_display_order(site: Site, redis_server: RedisServer) -> None:
    """The clip's frames, decoded in one go, are the order that the stored ones must have."""
    clip = person_clip()
    site.write(cameras=[{"id": "person", "url": str(clip), "quality": 95}], redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.total("stored") >= 30, 60, "frames are stored")
    assert site.stop() == 0
    stored = [
        cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).astype(int)
        for body in bodies(redis_server.client(), "default", "person")[:30]
    ]
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    shown = [capture.read()[1].astype(int) for _ in range(30)]
    for position, picture in enumerate(stored):
        distances = [float(np.abs(picture - other).mean()) for other in shown]
        assert distances[position] <= min(distances) + 0.05, f"frame {position} is not the {position}th shown"


def test_the_consumer_of_the_product_page_works_as_it_stands(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    """Its class, with its own non-durable declaration of the exchange, against a site configured for it."""
    site.write(
        cameras=[{"id": "cam1", "url": "test://?kb=20&size=640x480"}],
        redis={"address": redis_server.address},
        amqp_url=rabbitmq.url(vhost),
        metadata={"exchange_durable": False},
    )
    site.start()
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url(vhost)))
    channel = connection.channel()
    channel.exchange_declare(exchange="camera.metadata", exchange_type="topic")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange="camera.metadata", queue=queue, routing_key="camera.metadata.event")
    client = redis_server.client()
    events = channel.consume(queue, auto_ack=True, inactivity_timeout=10)
    for _, (_, _, body) in zip(range(20), events, strict=False):
        assert body is not None, "no events"
        event = json.loads(body)
        key = f"{vhost}:frames:{event['camera_id']}:{event['timestamp_nano']}:{event.get('sequence', '00001')}"
        assert client.get(key) is not None
    connection.close()
    assert site.stop() == 0


def test_batches_carry_the_same_events_as_one_array(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    connection = rabbitmq.connect(vhost)
    channel = connection.channel()
    channel.exchange_declare("camera.metadata", exchange_type="topic", durable=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "camera.metadata", "camera.metadata.batch")
    site.write(
        cameras=[{"id": f"cam{number}", "url": "test://?kb=20&size=640x480"} for number in range(4)],
        redis={"address": redis_server.address},
        amqp_url=rabbitmq.url(vhost),
        metadata={"format": "batch", "batch_max": 8},
    )
    site.start()
    client = redis_server.client()
    sizes = []
    for _, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=10):
        assert body is not None, "no events"
        events = json.loads(body)
        sizes.append(len(events))
        for event in events:
            check_event_exists(client, event)
        if sum(sizes) > 200:
            break
    connection.close()
    assert 1 < max(sizes) <= 8
    assert site.stop() == 0


def check_event_exists(client: Any, event: dict[str, Any]) -> None:
    assert client.exists(event["redis_key"])
    assert event["event_type"] == "frame"


def test_the_page_key_patterns_meet_frames_only(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    """Journals, cursors and states stand beside the frames, and no pattern of the page finds them."""
    site.write(
        cameras=[{"id": "cam1", "url": "test://?kb=20&size=640x480"}],
        redis={"address": redis_server.address},
        amqp_url=rabbitmq.url(vhost),
    )
    site.start()
    wait_until(lambda: site.status()["publisher"]["confirmed"] > 50, 30, "events are confirmed")
    assert site.stop() == 0
    client = redis_server.client()
    own = sorted(client.keys("engine:*"))
    assert own == sorted(
        f"engine:{vhost}:{rest}".encode()
        for rest in ("journal:frames:cam1", "cursor:frames", "cameras:frames", "cameras:frames:written")
    )
    for pattern in (f"{vhost}:*", f"{vhost}:frames:*", f"{vhost}:frames:cam1:*", "*:frames:cam1:*"):
        found = client.keys(pattern)
        assert found
        assert not set(found) & set(own)
        assert all(client.type(key) == b"string" for key in found)


def test_the_journal_is_trimmed_to_the_ttl_and_expires(site: Site, redis_server: RedisServer) -> None:
    site.write(
        cameras=[{"id": "cam1", "url": "test://?fps=60&kb=20&size=640x480"}],
        redis={"address": redis_server.address, "ttl_seconds": 2},
    )
    site.start()
    client = redis_server.client()
    journal = "engine:default:journal:frames:cam1"
    wait_until(lambda: site.total("stored") > 1500, 60, "several TTLs have passed")
    # 7 s of frames (TTL and grace) at 60 fps, and a block of the stream that is trimmed as a whole.
    assert client.xlen(journal) < 7 * 60 + 200
    assert site.stop() == 0
    wait_until(lambda: not client.exists(journal), 10, "the journal expires with its last frame")
