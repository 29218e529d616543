"""``/metrics`` of a running site: the reference parsers read it, and its counts are what was stored and sent."""

from __future__ import annotations

import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from engine.web.metrics import FAMILIES
from tests.servers.clips import make_clip
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.consumer import Consumer
from tests.system.site import Site, stored_frames

VHOST = "metrics"
#: Frames of each camera; then it has sent all. One camera's name is hostile.
FRAMES = {"gate": 150, 'a "b" \\ {c="d"},{}': 90}
VIDEO_SECONDS = 3
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Running(NamedTuple):
    """A site whose cameras end, with its servers."""

    site: Site
    url: str
    redis: RedisServer
    consumer: Consumer

    def text(self, accept: str = "") -> tuple[str, str]:
        """The media type and the text of ``/metrics``."""
        request = urllib.request.Request(f"{self.url}/metrics", headers={"Accept": accept} if accept else {})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    def metrics(self) -> dict[str, Metric]:
        return {metric.name: metric for metric in parse_text(self.text()[1])}

    def value(self, name: str, **labels: str) -> float:
        """The only sample of this name with these labels."""
        found = self.values(name, **labels)
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0]

    def values(self, name: str, **labels: str) -> list[float]:
        samples = [sample for metric in self.metrics().values() for sample in metric.samples]
        return [one.value for one in samples if one.name == name and labels.items() <= one.labels.items()]

    def highest_finite(self, name: str, **labels: str) -> float:
        """The count below the highest bound of a histogram."""
        return self.values(f"{name}_bucket", **labels)[-2]


@pytest.fixture(scope="module")
def running(rabbitmq: RabbitMQ) -> Iterator[Running]:
    """The site once all cameras have sent all, and all is stored and confirmed."""
    directory = Path(tempfile.mkdtemp(prefix="ev-"))
    clip = make_clip(directory / "clip.mp4", seconds=VIDEO_SECONDS, gop=10)
    site = Site(directory / "run", warm=True)
    rabbitmq.add_vhost(VHOST)
    port = free_port()
    with RedisServer(directory / "redis") as server, Consumer(rabbitmq, VHOST) as consumer:
        cameras = [{"id": name, "url": f"test://?fps=60&kb=8&size=160x120&frames={n}"} for name, n in FRAMES.items()]
        cameras += [
            {"id": "film", "url": str(clip), "video": True, "loop": False},
            {"id": "dead", "url": "rtsp://user:secretword@127.0.0.1:1/x"},
        ]
        site.write(
            cameras=cameras,
            redis={"address": server.address, "ttl_seconds": 600},
            amqp_url=rabbitmq.url(VHOST),
            web={"listen": f"127.0.0.1:{port}"},
        )
        found = Running(site, f"http://127.0.0.1:{port}", server, consumer)
        try:
            site.start()
            wait_until(lambda: settled(found), 60, "all is stored and confirmed", log=site.log_text)
            yield found
        finally:
            site.end()
            shutil.rmtree(directory, ignore_errors=True)


def settled(running: Running) -> bool:
    status = running.site.status()
    cameras = [camera for camera in status["cameras"] if camera["id"] != "dead"]
    stored = sum(camera["stored_total"] for camera in cameras)
    return (
        all(camera["finished"] and not camera["ring"]["held"] for camera in cameras)
        and all(not camera["video"]["ring"]["held"] for camera in cameras if camera["video"])
        and status["publisher"]["confirmed"] >= stored
    )


def test_latencies_are_of_exactly_the_frames_that_redis_has(running: Running):
    frames = stored_frames(running.redis.client(), VHOST, check_stamps=False)
    assert {name: len(frames.numbers[name]) for name in FRAMES} == FRAMES
    for camera, numbers in frames.numbers.items():
        for name in ("edge_video_frames_processed_total", "edge_video_capture_latency_seconds_count"):
            assert running.value(name, camera_id=camera) == len(numbers)
        # Not one of them is above all bounds because its latency is unknown.
        assert running.highest_finite("edge_video_capture_latency_seconds", camera_id=camera) == len(numbers)
        longest = running.site.camera(camera)["latency_ms"]["max"] / 1000
        total = running.value("edge_video_capture_latency_seconds_sum", camera_id=camera)
        assert longest <= total <= len(numbers) * longest
        assert not sum(running.values("edge_video_frames_dropped_total", camera_id=camera))


def test_latencies_of_video_are_of_exactly_the_access_units_that_redis_has(running: Running):
    client = running.redis.client()
    units = len(list(client.scan_iter(f"engine:{VHOST}:video:frames/film:*", count=5000)))
    assert units > VIDEO_SECONDS
    assert running.value("edge_video_video_units_stored_total", camera_id="film") == units
    assert running.value("edge_video_video_capture_latency_seconds_count", camera_id="film") == units
    assert running.highest_finite("edge_video_video_capture_latency_seconds", camera_id="film") == units
    size = sum(client.strlen(key) for key in client.scan_iter(f"engine:{VHOST}:video:frames/film:*", count=5000))
    labels = {"vhost": VHOST, "camera_id": "film", "stream": "video"}
    assert running.value("edge_video_tenant_stored_total", **labels) == units
    assert running.value("edge_video_tenant_stored_bytes_total", **labels) == size


def test_latencies_of_events_are_of_exactly_those_that_arrived(running: Running):
    stored = len(stored_frames(running.redis.client(), VHOST, check_stamps=False).keys)
    wait_until(lambda: len(running.consumer.frames()) >= stored, 20, "all events arrived")
    assert len(running.consumer.frames()) == stored
    assert running.value("edge_video_publisher_confirmed_events_total") == stored
    assert running.value("edge_video_publish_latency_seconds_count") == stored
    assert running.highest_finite("edge_video_publish_latency_seconds") == stored
    # From stored to confirmed takes a part of a millisecond at least, and the site has not run for a minute.
    assert 0.0001 * stored < running.value("edge_video_publish_latency_seconds_sum") < 60 * stored


def test_a_tenants_bytes_are_those_that_redis_has(running: Running):
    client = running.redis.client()
    for camera in ("gate", "film"):
        sizes = [client.strlen(key) for key in client.scan_iter(f"{VHOST}:frames:{camera}:*", count=5000)]
        labels = {"vhost": VHOST, "camera_id": camera, "stream": "frames"}
        assert running.value("edge_video_tenant_stored_total", **labels) == len(sizes)
        assert running.value("edge_video_tenant_stored_bytes_total", **labels) == sum(sizes)
        assert running.value("edge_video_frame_size_bytes_sum", camera_id=camera) == sum(sizes)


def test_cameras_processes_and_servers_are_told_as_they_are(running: Running):
    assert running.value("edge_video_camera_connected", camera_id="dead") == 0
    assert running.value("edge_video_failed_cameras") == 1
    assert running.value("edge_video_cameras") == len(FRAMES) + 2
    assert running.value("edge_video_camera_finished", camera_id="gate") == 1
    attempts = running.value("edge_video_camera_reconnect_attempts_total", camera_id="dead")
    assert attempts <= running.site.camera("dead")["connects"] - 1
    for role in ("web", "publisher", "writer"):
        assert running.value("edge_video_process_up", process=role) == 1
        # A busy machine has time for one process's memory a scrape.
        memory = wait_until(
            lambda role=role: running.values("edge_video_process_memory_bytes", process=role), 30, "its memory is read"
        )
        assert memory[0] > 2**20
        assert running.value("edge_video_process_cpu_seconds_total", process=role) > 0
    assert running.value("edge_video_process_up", process="capture gate") == 0, "it has sent all"
    assert running.value("edge_video_publisher_connected") == 1
    assert running.value("edge_video_server_away_seconds", server="redis") == 0
    assert running.value("edge_video_redis_up") == 1
    assert running.value("edge_video_redis_memory_used_bytes") > 100_000
    assert running.value("edge_video_redis_connected_clients") > 1
    assert running.value("edge_video_camera_info", camera_id="film", codec="h264") == 1


def test_both_formats_are_read_by_the_reference_parsers_and_say_the_same(running: Running):
    plain_type, plain = running.text()
    kind, openmetrics = running.text(OPENMETRICS)
    assert plain_type == "text/plain; version=0.0.4; charset=utf-8"
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    samples = [
        {(sample.name, *sorted(sample.labels.items())) for metric in parsed for sample in metric.samples}
        for parsed in (parse_text(plain), parse_openmetrics(openmetrics))
    ]
    assert samples[0] == samples[1]
    assert plain.count("\n") > len(samples[0]), "no sample stands twice"
    assert {labels["camera_id"] for _, *pairs in samples[0] if "camera_id" in (labels := dict(pairs))} == {
        *FRAMES, "film", "dead",
    }  # fmt: skip
    for text in (plain, openmetrics):
        assert "secretword" not in text


def test_every_sample_is_of_a_family_that_is_documented(running: Running):
    documented = {family.name: family for families in FAMILIES.values() for family in families}
    suffixes = ("", "_bucket", "_count", "_sum")
    for metric in running.metrics().values():
        for sample in metric.samples:
            names = [sample.name.removesuffix(suffix) for suffix in suffixes]
            family = next(documented[name] for name in names if name in documented)
            assert set(sample.labels) - {"le"} == set(family.labels)
            assert family.help == metric.documentation


def test_counts_go_on_when_the_publisher_is_killed(running: Running):
    """Without its cursors, its successor announces all again: each is counted, and counts from its capture on."""
    confirmed = running.value("edge_video_publisher_confirmed_events_total")
    total = running.value("edge_video_publish_latency_seconds_sum")
    # Stopped, so that it does not save the cursors once more.
    running.site.signal(signal.SIGSTOP, "publisher")
    running.redis.client().delete(f"engine:{VHOST}:cursor:frames")
    running.site.kill("publisher")
    wait_until(
        lambda: running.value("edge_video_publisher_confirmed_events_total") >= 2 * confirmed,
        30,
        "all is announced again",
        log=running.site.log_text,
    )
    assert running.value("edge_video_publisher_confirmed_events_total") == 2 * confirmed
    assert running.value("edge_video_publish_latency_seconds_count") == 2 * confirmed
    assert running.highest_finite("edge_video_publish_latency_seconds") == 2 * confirmed
    assert running.value("edge_video_publish_latency_seconds_sum") > total + confirmed * 0.5
    assert running.value("edge_video_process_restarts_total", process="publisher") == 1
