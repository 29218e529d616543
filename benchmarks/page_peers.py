"""The product page's way in Python: one process that calls ``r.setex`` and ``channel.basic_publish`` for each frame."""

from __future__ import annotations

import json
import multiprocessing
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pika
import redis

from benchmarks.events import EXCHANGE, ROUTING_KEY
from benchmarks.measured_site import TTL_SECONDS
from tests.servers.redis_server import RedisServer

_spawn = multiprocessing.get_context("spawn")


class PageRun(NamedTuple):
    """The page's results. Latencies in seconds from a frame's arrival to the reply to its SETEX."""

    frames: int
    seconds: float
    cpu: float
    latencies: list[float]

    @property
    def frames_per_cpu_second(self) -> float:
        return self.frames / self.cpu

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.seconds


def event_of(camera: str, unix_nano: int, sequence: str, key: str, size: int) -> dict[str, Any]:
    """A frame's event as the page's consumers expect it."""
    return {
        "event_type": "frame",
        "camera_id": camera,
        "timestamp": datetime.fromtimestamp(unix_nano / 1e9, UTC).isoformat(),
        "timestamp_nano": unix_nano,
        "sequence": sequence,
        "redis_key": key,
        "vhost": "page",
        "width": 1280,
        "height": 720,
        "encoding": "jpeg",
        "size_bytes": size,
        "frame_size_bytes": size,
        "ttl_seconds": TTL_SECONDS,
    }


def page_loop(pipe: Connection, socket: str, amqp_url: str, size: int, seconds: float, rate: float) -> None:
    """The page's way, in a separate process: ``rate`` frames per second, or as many as possible if ``rate`` is 0."""
    client = redis.Redis(unix_socket_path=socket, decode_responses=False)
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    frame = bytes(size)
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    latencies: list[float] = []
    client.ping()
    cpu, begun = time.process_time(), time.perf_counter()
    number = 0
    while (now := time.perf_counter()) < begun + seconds:
        arrived = begun + number / rate if rate else now
        if arrived > now:
            time.sleep(arrived - now)
        # A frame's stamp is its arrival time, even if the loop is late.
        unix_nano = time.time_ns() - int((time.perf_counter() - arrived) * 1e9) if rate else time.time_ns()
        number += 1
        camera, sequence = f"cam{number % 25}", f"{number % 99_999 + 1:05d}"
        key = f"page:frames:{camera}:{unix_nano}:{sequence}"
        client.setex(key, TTL_SECONDS, frame)
        latencies.append(time.perf_counter() - arrived)
        metadata = event_of(camera, unix_nano, sequence, key, size)
        channel.basic_publish(EXCHANGE, ROUTING_KEY, json.dumps(metadata), properties)
    pipe.send(PageRun(number, time.perf_counter() - begun, time.process_time() - cpu, latencies))
    connection.close()


def page_run(server: RedisServer, amqp_url: str, kb: int, seconds: float, rate: float = 0) -> PageRun:
    ours, theirs = _spawn.Pipe()
    arguments = (theirs, str(server.socket_path), amqp_url, kb * 1024, seconds, rate)
    process = _spawn.Process(target=page_loop, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
        run: PageRun = ours.recv()
        process.join(10)
    finally:
        process.kill()
        process.join()
    return run


def page_server(directory: Path) -> RedisServer:
    """The server of the page's way: the same Valkey as the site's, also on a Unix socket."""
    return RedisServer(directory / "page", binary="valkey", unix=True)
