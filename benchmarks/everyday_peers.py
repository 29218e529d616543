"""What people use for a few cameras: an ``ffmpeg`` a camera piped into redis-py, and OpenCV with SETEX.

Each side is one Python process. Both keep no journal, wait for no confirm and count no loss, which favours them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.sharedctypes import Synchronized
from typing import Any, NamedTuple, Self

import pika
import psutil
import redis

from benchmarks.events import EXCHANGE, ROUTING_KEY
from benchmarks.harness import cpu_seconds
from benchmarks.measured_site import TTL_SECONDS
from benchmarks.page_peers import event_of
from benchmarks.video_peers import QUALITY, Work
from engine.runtime.status_processes import MIB, own_memory
from tests.servers.process import lives
from tests.servers.wait import die_with_parent, wait_until

#: What ffmpeg does with a frame: encode it, with the Go edition's options, or pass on the JPEG of a camera that sends
#: JPEG, which is the least that it can do.
ENCODE = ("-c:v", "mjpeg", "-q:v", "5")
COPY = ("-c:v", "copy")
#: A pipe that holds several frames costs fewer wake-ups than the usual 64 KB. Unprivileged programs may have as much.
_PIPE_BYTES = 2**20
_EOI = b"\xff\xd9"
#: Seconds until every camera must have a frame stored.
_OPEN_SECONDS_MAX = 60.0
_spawn = multiprocessing.get_context("spawn")


class Servers(NamedTuple):
    """Where frames and events go: the arguments of ``redis.Redis``, and the broker's URL."""

    redis: dict[str, Any]
    amqp_url: str


class Peer:
    """A peer at work in a process of its own: ``target(counts, urls, servers, *arguments)`` stores the frames of
    ``urls`` until it is killed, and counts them by camera.

    Use as a context manager: every camera has stored a frame when it is entered.
    """

    def __init__(self, target: Callable[..., None], urls: Sequence[str], servers: Servers, *arguments: Any) -> None:
        self._counts = [_spawn.Value("q", 0, lock=False) for _ in urls]
        self._process = _spawn.Process(target=target, args=(self._counts, urls, servers, *arguments), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        try:
            wait_until(lambda: all(count.value for count in self._counts), _OPEN_SECONDS_MAX, "the peer stores frames")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        children = psutil.Process(self._process.pid).children(recursive=True) if self._process.is_alive() else []
        self._process.kill()
        self._process.join()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        wait_until(lambda: not any(map(lives, children)), 10, "no ffmpeg is left")

    def work(self) -> Work:
        """All work so far."""
        return Work(sum(count.value for count in self._counts), sum(map(cpu_seconds, self._pids())))

    def over(self, seconds: float) -> Work:
        """Its work in so many seconds from now."""
        before = self.work()
        time.sleep(seconds)
        return self.work().since(before)

    def memory(self) -> float:
        """MiB of its processes, as PSS."""
        return sum(own_memory(pid) / MIB for pid in self._pids())

    def _pids(self) -> list[int]:
        assert self._process.pid
        own = psutil.Process(self._process.pid)
        return [own.pid, *(child.pid for child in own.children(recursive=True))]


def ffmpeg_pipes(
    counts: Sequence[Synchronized[int]], urls: Sequence[str], servers: Servers, codec: Sequence[str]
) -> None:
    """An ``ffmpeg`` a camera writes JPEGs into a pipe. One loop reads all pipes, and does SETEX and a publish a frame,
    as the Go edition does."""
    store = redis.Redis(**servers.redis)
    connection = pika.BlockingConnection(pika.URLParameters(servers.amqp_url + "?heartbeat=0"))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    selector = selectors.DefaultSelector()
    for number, url in enumerate(urls):
        transport = ("-rtsp_transport", "tcp") if url.startswith("rtsp:") else ()
        argv = ["ffmpeg", "-v", "fatal", "-nostdin", *transport, "-i", url, "-an", *codec, "-f", "image2pipe", "-"]
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            pipesize=_PIPE_BYTES,
            preexec_fn=die_with_parent(),  # noqa: PLW1509  (see there)
        )
        assert process.stdout
        selector.register(process.stdout, selectors.EVENT_READ, (number, bytearray()))
    while True:
        for ready, _ in selector.select():
            number, pending = ready.data
            data = os.read(ready.fd, _PIPE_BYTES)
            assert data, f"ffmpeg of {urls[number]} ended"
            for frame in whole_jpegs(pending, data):
                camera, unix_nano = f"cam{number}", time.time_ns()
                sequence = f"{counts[number].value % 99_999 + 1:05d}"
                key = f"page:frames:{camera}:{unix_nano}:{sequence}"
                store.setex(key, TTL_SECONDS, frame)
                event = event_of(camera, unix_nano, sequence, key, len(frame))
                channel.basic_publish(EXCHANGE, ROUTING_KEY, json.dumps(event), properties)
                counts[number].value += 1


def whole_jpegs(pending: bytearray, data: bytes) -> Iterator[bytes]:
    """Add ``data`` to ``pending``, and take the JPEGs that are whole now out of it."""
    # The marker of a JPEG's end may lie across two reads.
    begin = max(len(pending) - 1, 0)
    pending += data
    while (end := pending.find(_EOI, begin)) >= 0:
        frame = bytes(pending[: end + 2])
        del pending[: end + 2]
        begin = 0
        yield frame


def opencv_loops(counts: Sequence[Synchronized[int]], urls: Sequence[str], servers: Servers) -> None:
    """The product page's way with cameras: a thread for each with VideoCapture, imencode and SETEX. It publishes
    nothing."""
    import cv2

    cv2.setNumThreads(0)
    store = redis.Redis(**servers.redis)

    def follow(number: int) -> None:
        capture = cv2.VideoCapture(urls[number], cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        while True:
            good, picture = capture.read()
            assert good, f"{urls[number]} ended"
            frame = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            key = f"page:frames:cam{number}:{time.time_ns()}:{counts[number].value % 99_999 + 1:05d}"
            store.setex(key, TTL_SECONDS, frame)
            counts[number].value += 1

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(len(urls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
