"""The sending process of the ring's benchmarks: it sends frames on demand, through the ring or through a peer.

Rings, queues, pipes and sockets are made before it starts. A frame carries the monotonic nanosecond at which it was
handed over. The ring has a field for it, a queue takes it together with the payload, and for pipe and socket it is
written into the payload's first eight bytes.
"""

from __future__ import annotations

import multiprocessing.queues
import random
import socket
import struct
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from engine.shm.doorbell import Bell
from engine.shm.ring import Producer
from engine.shm.status_page import StatusPage
from engine.wire.ring_layout import ALIGN

CAMERA = "cam1"
WIDTH, HEIGHT = 1280, 720
#: Different payloads that are sent in turn, so that no single one stays in the nearest cache.
PAYLOADS = 4
#: Bytes of the stamp at the start of the payload.
STAMP_BYTES = 8
#: Seconds that the sender sleeps when the ring is full: far less than the reader needs to empty it.
_FULL_SECONDS = 0.0002


class Order(NamedTuple):
    """An order to the sender: ``frames`` frames of ``size`` bytes through ``side``, ``pause`` seconds apart."""

    side: str
    size: int
    frames: int
    pause: float


class Ways(NamedTuple):
    """The sender's ends."""

    control: Connection
    queue: multiprocessing.queues.Queue[tuple[int, bytes]]
    pipe: Connection
    socket: socket.socket
    directory: Path


def payloads(size: int) -> list[bytes]:
    """The payloads that both processes know; the stamp's bytes are zero."""
    return [bytes(STAMP_BYTES) + random.Random(number).randbytes(size - STAMP_BYTES) for number in range(PAYLOADS)]


def ring_path(directory: Path) -> Path:
    """The ring's file."""
    return directory / "cam1.ring"


def page_path(directory: Path) -> Path:
    """The status page of the process that reads the ring."""
    return directory / "writer.status"


def bell_path(directory: Path) -> Path:
    """The FIFO that the reading process sleeps on."""
    return directory / "writer.bell"


def serve(ways: Ways) -> None:
    """The process. For each order it replies with its own CPU seconds when all frames are handed over; None ends it."""
    producer = Producer(ring_path(ways.directory), CAMERA)
    bell = Bell(bell_path(ways.directory), StatusPage.watch(page_path(ways.directory)))
    try:
        while (order := ways.control.recv()) is not None:
            bodies = payloads(order.size)
            send = _sender(order.side, ways, producer, bell, bodies)
            ways.control.send("ready")
            assert ways.control.recv() == "go"
            before = time.process_time()
            for number in range(order.frames):
                if order.pause:
                    time.sleep(order.pause)
                send(number % PAYLOADS)
            ways.control.send(time.process_time() - before)
    finally:
        producer.close()
        bell.close()


def _sender(side: str, ways: Ways, producer: Producer, bell: Bell, bodies: Sequence[bytes]) -> Callable[[int], None]:
    """A callable that sends the payload with a given number."""
    views = [memoryview(body) for body in bodies]
    stamped = [bytearray(body) for body in bodies]
    now = time.monotonic_ns

    def ring(number: int) -> None:
        body = views[number]
        stamp = now()
        # The engine's producer drops a frame when the ring is full; here all frames must arrive.
        while producer.write((body,), producer.floor_nano + 1, stamp, WIDTH, HEIGHT) is None:
            time.sleep(_FULL_SECONDS)
        bell.wake()

    def queue(number: int) -> None:
        ways.queue.put((now(), bodies[number]))

    def pipe(number: int) -> None:
        body = stamped[number]
        struct.pack_into("<Q", body, 0, now())
        ways.pipe.send_bytes(body)

    def unix_socket(number: int) -> None:
        body = stamped[number]
        struct.pack_into("<Q", body, 0, now())
        ways.socket.sendall(body)

    return {"ours": ring, "queue": queue, "pipe": pipe, "socket": unix_socket}[side]


def memcpy_seconds(area: memoryview, size: int, frames: int) -> float:
    """Seconds to copy the payloads once, one after the other, from ordinary memory into an area as large as the ring.
    Every transport between two processes needs at least this."""
    views = [memoryview(body) for body in payloads(size)]
    step = -(-size // ALIGN) * ALIGN
    begin, last = 0, len(area) - size
    begun = time.perf_counter()
    for number in range(frames):
        area[begin : begin + size] = views[number % PAYLOADS]
        begin = begin + step if begin + step <= last else 0
    return time.perf_counter() - begun
