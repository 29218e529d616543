"""The ring between two processes, against one plain copy (the limit), multiprocessing's Queue and Pipe, a Unix socket.

Timed: from the order until the last frame's bytes are in a buffer of the reading process. A frame is written into the
ring as in a capture process, including the bell. It is polled, committed and waited for as in a writer, with the
engine's default batch. It is also copied out once, which the writer leaves to the kernel, so that all sides deliver the
same. Not timed: making processes, rings, pipes and payloads. The limit copies each frame once, in one process. Two
processes that copy in and out at the same time on two cores can approach it, not exceed it.

Hand-over latency is the time from before a frame is written until its bytes are in the reader's buffer. The reader
sleeps until then: frames come every 2 ms.
"""

from __future__ import annotations

import multiprocessing
import shutil
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import ring_peers as peers
from benchmarks.harness import OURS, Results, Scale, in_turns, quotients
from engine.config import RingSection, WriterSection
from engine.shm import ring_file
from engine.shm.doorbell import Doorbell
from engine.shm.ring import Consumer
from engine.shm.status_page import StatusPage

KIB = 1024
SIZES_KB = (10, 60, 200, 1000)
#: Size of the frames whose latency is measured.
LATENCY_KB = 60
#: Seconds between frames whose latency is measured.
PAUSE_SECONDS = 0.002
#: Requested buffer size of a socket, in bytes.
SOCKET_BYTES = 4 * 2**20
#: The longest sleep of the ring's reader in seconds, as in the writer.
IDLE_SECONDS = 0.25
PEERS = {
    "queue": "multiprocessing.Queue",
    "pipe": "multiprocessing.Pipe, send_bytes and recv_bytes",
    "socket": "a Unix stream socket, sendall and recv_into",
}


class Taken(NamedTuple):
    """A transfer of frames: wall-clock seconds, CPU seconds of both processes, and each frame's latency in nanoseconds.
    ``bodies`` are the frames, if requested."""

    seconds: float
    cpu_seconds: float
    latencies: list[int]
    bodies: list[bytes]


class Reader:
    """The reading process's ends, and the sending process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        writer = WriterSection()
        self._bounds = (writer.batch_kb * KIB, writer.batch_frames)
        ring_file.create(peers.ring_path(directory), RingSection().capacity, peers.CAMERA, floor_nano=time.time_ns())
        self.consumer = Consumer(peers.ring_path(directory), peers.CAMERA)
        self._page = StatusPage.claim(peers.page_path(directory))
        self._doorbell = Doorbell(peers.bell_path(directory), self._page)
        context = multiprocessing.get_context("spawn")
        self._control, control = context.Pipe()
        self._queue: multiprocessing.queues.Queue[tuple[int, bytes]] = context.Queue()
        self._pipe, pipe = context.Pipe(duplex=False)
        self._socket, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        ways = peers.Ways(control, self._queue, pipe, sending, directory)
        self._target = memoryview(bytearray(max(SIZES_KB) * KIB))
        self._process = context.Process(target=peers.serve, args=(ways,), daemon=True)
        self._process.start()
        for end in (control, pipe, sending):
            end.close()

    def take(self, side: str, size: int, frames: int, *, pause: float = 0.0, keep: bool = False) -> Taken:
        """Transfer frames through ``side``."""
        self._control.send(peers.Order(side, size, frames, pause))
        assert self._control.recv() == "ready"
        latencies: list[int] = []
        bodies: list[bytes] | None = [] if keep else None
        receive = {"ours": self._ring, "queue": self._from_queue, "pipe": self._from_pipe, "socket": self._from_socket}
        cpu, begun = time.process_time(), time.perf_counter()
        self._control.send("go")
        receive[side](size, frames, latencies, bodies)
        seconds = time.perf_counter() - begun
        cpu = time.process_time() - cpu
        theirs = self._control.recv()
        assert len(latencies) == frames
        return Taken(seconds, cpu + theirs, latencies, bodies or [])

    def _ring(self, size: int, frames: int, latencies: list[int], bodies: list[bytes] | None) -> None:
        consumer, target, now = self.consumer, self._target[:size], time.monotonic_ns
        while len(latencies) < frames:
            records = consumer.poll(*self._bounds)
            if not records:
                assert self._process.is_alive()
                self._doorbell.wait(IDLE_SECONDS, self._pending)
                continue
            for record in records:
                target[:] = record.payload
                latencies.append(now() - record.monotonic)
                if bodies is not None:
                    bodies.append(bytes(target))
            consumer.commit(records, now())

    def _pending(self) -> bool:
        return self.consumer.pending

    def _from_queue(self, size: int, frames: int, latencies: list[int], bodies: list[bytes] | None) -> None:
        for _ in range(frames):
            stamp, body = self._queue.get()
            latencies.append(time.monotonic_ns() - stamp)
            assert len(body) == size
            if bodies is not None:
                bodies.append(body)

    def _from_pipe(self, size: int, frames: int, latencies: list[int], bodies: list[bytes] | None) -> None:
        for _ in range(frames):
            body = self._pipe.recv_bytes()
            latencies.append(time.monotonic_ns() - struct.unpack_from("<Q", body)[0])
            assert len(body) == size
            if bodies is not None:
                bodies.append(bytes(peers.STAMP_BYTES) + body[peers.STAMP_BYTES :])

    def _from_socket(self, size: int, frames: int, latencies: list[int], bodies: list[bytes] | None) -> None:
        target = self._target[:size]
        for _ in range(frames):
            came = self._socket.recv_into(target, size, socket.MSG_WAITALL)
            latencies.append(time.monotonic_ns() - struct.unpack_from("<Q", target)[0])
            assert came == size
            if bodies is not None:
                bodies.append(bytes(peers.STAMP_BYTES) + bytes(target[peers.STAMP_BYTES :]))

    def close(self) -> None:
        """End the other process, and release everything."""
        if self._process.is_alive():
            self._control.send(None)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._socket.close()
        self._pipe.close()
        self._control.close()
        self._queue.close()
        self.consumer.close()
        self._doorbell.close()
        self._page.close()


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    directory = Path(tempfile.mkdtemp(prefix="evb-ring-", dir="/dev/shm"))
    running = Reader(directory)
    yield running
    running.close()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def area() -> memoryview:
    """Ordinary memory of a ring's size."""
    return memoryview(bytearray(b"\xff" * RingSection().capacity))


@pytest.fixture(scope="module")
def rates() -> dict[str, list[tuple[float, float]]]:
    """GB/s of each side by size, over all tests."""
    return {}


@pytest.mark.parametrize("side", [OURS, *PEERS])
@pytest.mark.parametrize("kilobytes", SIZES_KB)
def test_bytes_arrive_as_they_were(reader: Reader, side: str, kilobytes: int) -> None:
    """Check every byte of every frame, in order, through each side. Nothing is timed."""
    size, frames = kilobytes * KIB, 2 * peers.PAYLOADS
    before = reader.consumer.counts()
    taken = reader.take(side, size, frames, keep=True)
    assert taken.bodies == 2 * peers.payloads(size)
    after = reader.consumer.counts()
    arrived = frames if side == OURS else 0
    assert after.stored - before.stored == arrived
    assert after.stored_bytes - before.stored_bytes == arrived * size
    assert after.captured == after.stored + after.dropped


@pytest.mark.parametrize("kilobytes", SIZES_KB)
def test_frames_between_two_processes(
    benchmark: BenchmarkFixture,
    results: Results,
    scale: Scale,
    reader: Reader,
    area: memoryview,
    rates: dict[str, list[tuple[float, float]]],
    kilobytes: int,
) -> None:
    """Frames at full speed: the sender never pauses, and the reader sleeps only when there is no frame."""
    size = kilobytes * KIB
    megabytes = scale.pick(2, 16, 160 if kilobytes > 10 else 64)
    frames = megabytes * 2**20 // size
    before = reader.consumer.counts()

    def limit() -> Taken:
        seconds = peers.memcpy_seconds(area, size, frames)
        return Taken(seconds, seconds, [], [])

    sides = {"memcpy": limit} | {side: (lambda side=side: reader.take(side, size, frames)) for side in (*PEERS, OURS)}
    rounds, warmup = scale.pick(1, 2, 7), scale.pick(0, 1, 1)
    taken = in_turns(benchmark, sides, rounds, warmup)
    after = reader.consumer.counts()
    assert after.stored - before.stored >= rounds * frames
    assert after.held == 0
    assert after.captured == after.stored + after.dropped

    name = f"ring.{kilobytes}kb"
    seconds = {side: [one.seconds for one in runs] for side, runs in taken.items()}
    for side, runs in taken.items():
        label = "ring" if side == OURS else side
        typical = statistics.median(seconds[side])
        rate = frames * size / typical / 1e9
        rates.setdefault(label, []).append((kilobytes, round(rate, 3)))
        results.figure(
            f"{name}.{label}",
            round(typical / frames * 1e6, 2),
            "us a frame",
            gb_per_second=round(rate, 3),
            cpu_us_a_frame_of_both=round(statistics.median([one.cpu_seconds for one in runs]) / frames * 1e6, 2),
        )
    for side, what in PEERS.items():
        times = quotients(seconds[side], seconds[OURS])
        results.median(f"{name}.{side}", times, against=what, unit="times its speed")
        # Wall-clock time depends on other work; a slower ring shows first in CPU.
        cpus = quotients([one.cpu_seconds for one in taken[side]], [one.cpu_seconds for one in taken[OURS]])
        results.median(f"{name}.{side}.cpu", cpus, against=f"{what}: CPU of both processes", unit="times less CPU")
    share = quotients(seconds["memcpy"], seconds[OURS])
    results.median(f"{name}.memcpy", share, against="one copy of it in one process, the limit", unit="of its speed")
    results.curve("ring.rate", "frame in KB", "GB/s written and read", {**rates}, note="memcpy copies once, no process")


def test_hand_over(benchmark: BenchmarkFixture, results: Results, scale: Scale, reader: Reader) -> None:
    """The latency of a single frame to a sleeping reader."""
    size, frames = LATENCY_KB * KIB, scale.pick(20, 100, 250)
    sides = {side: (lambda side=side: reader.take(side, size, frames, pause=PAUSE_SECONDS)) for side in (*PEERS, OURS)}
    rounds = scale.pick(1, 1, 5)
    taken = in_turns(benchmark, sides, rounds, scale.pick(0, 0, 1))
    typical = {side: [statistics.median(one.latencies) / 1e3 for one in runs] for side, runs in taken.items()}
    for side, runs in taken.items():
        every = sorted(latency for one in runs for latency in one.latencies)
        results.figure(
            f"ring.latency.{'ring' if side == OURS else side}",
            round(every[len(every) // 2] / 1e3, 1),
            "us, p50",
            p99_us=round(every[len(every) * 99 // 100] / 1e3, 1),
            frames=len(every),
            kb=LATENCY_KB,
        )
    for side, what in PEERS.items():
        against = f"{what}: hand-over p50 of {LATENCY_KB} KB to a sleeping reader"
        results.median(
            f"ring.latency.{side}", quotients(typical[side], typical[OURS]), against=against, unit="times sooner"
        )
