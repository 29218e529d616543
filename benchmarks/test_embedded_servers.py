"""One embedded server or two, and one to four writers: how many frames a second a machine of few cores stores.

Timed: the writer processes of a site with eight full rings, from the word to begin until the servers have acknowledged
every frame. Not timed: starting the servers, connecting, filling the rings, emptying the servers before each round.
Nothing is captured meanwhile, so these are the figures of writers and servers alone. Both need CPU: where they have all
of it, more of them cannot store more.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import redis

from benchmarks.harness import Results, Scale
from benchmarks.in_process import HEIGHT, WIDTH, quiet_log, site_config
from engine.config import Config
from engine.runtime.embedded_layout import layout
from engine.runtime.embedded_pids import running_pids
from engine.runtime.embedded_servers import EmbeddedServers
from engine.shm import ring_file, segment, site
from engine.shm.ring import Producer
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage
from engine.stages.writer.choose import writer_agent
from engine.wire.ring_owner import build_owner

CAMERAS = 8
KILOBYTES = 60
SIZE = KILOBYTES * 1024
MIB = 2**20


@pytest.mark.parametrize(("servers", "key_tags"), [(1, False), (2, False), (2, True)], ids=("one", "two", "two-tagged"))
@pytest.mark.parametrize("writers", [1, 2, 4])
def test_frames_to_embedded_servers(
    results: Results, scale: Scale, directory: Path, servers: int, writers: int, key_tags: bool
) -> None:
    each = scale.pick(4, 50, 200)
    rounds = scale.pick(1, 5, 15)
    config = site_config(
        directory / "run",
        "embedded",
        CAMERAS,
        redis={"embedded_servers": servers, "key_tags": key_tags},
        writer={"writers": writers},
        ring={"capacity_mb": each * (SIZE + 128) // MIB + 2},
    )
    seconds = []
    used = {"servers": 0.0, "writers": 0.0}
    with _running_servers(config), _rings(config) as producers, _running_writers(config, producers) as (links, pids):
        server_pids = running_pids(config)
        # One frame of each camera goes through, so that everything is connected and created.
        _fill(producers, 1)
        _drain(links, 1)
        for _ in range(rounds):
            _flush(config)
            _fill(producers, each)
            before = _cpu(server_pids), _cpu(pids)
            begun = time.perf_counter()
            _drain(links, each)
            seconds.append(time.perf_counter() - begun)
            used["servers"] += _cpu(server_pids) - before[0]
            used["writers"] += _cpu(pids) - before[1]
            assert _stored(config) == each * CAMERAS
    frames = each * CAMERAS
    name = f"embedded_servers.{servers}{'.tags' if key_tags else ''}.writers.{writers}"
    results.figure(
        f"{name}.rate",
        round(statistics.median(frames / spent for spent in seconds)),
        "frames/s",
        kilobytes=KILOBYTES,
        cores=os.cpu_count(),
    )
    for side, total in used.items():
        results.figure(f"{name}.{side}.cpu", round(total / frames / rounds * 1e6, 1), f"us a frame of the {side}' CPU")


@contextmanager
def _running_servers(config: Config) -> Iterator[None]:
    segment.private_directory(config.run_directory)
    servers = EmbeddedServers(config)
    servers.start()
    try:
        yield
    finally:
        servers.stop()


@contextmanager
def _rings(config: Config) -> Iterator[list[Producer]]:
    paths = SitePaths.of(config)
    segment.private_directory(paths.directory)
    producers = []
    pages = []
    for camera in config.cameras:
        path = paths.ring(camera.id)
        ring_file.create(path, config.ring.capacity, camera.id, owner=build_owner(config.owner))
        producers.append(Producer(path, camera.id))
        pages.append(StatusPage.claim(paths.capture(camera.id)))
    try:
        yield producers
    finally:
        for end in (*producers, *pages):
            end.close()
        site.remove(paths)


@contextmanager
def _running_writers(config: Config, producers: list[Producer]) -> Iterator[tuple[list[Connection], list[int]]]:
    """A process for each writer; it drains its rings when it is sent a number of frames a ring."""
    fork = multiprocessing.get_context("fork")
    links, children = [], []
    for number in range(config.writer.writers):
        ours, theirs = fork.Pipe()
        children.append(fork.Process(target=_write, args=(config, number, producers, theirs)))
        children[-1].start()
        links.append(ours)
    try:
        yield links, [child.pid for child in children if child.pid]
    finally:
        for link in links:
            link.send(0)
        for child in children:
            child.join()


def _write(config: Config, number: int, producers: list[Producer], link: Connection) -> None:
    """A writer process."""
    page = StatusPage.claim(SitePaths.of(config).writer(number))
    agent = writer_agent(config, number, page, quiet_log())
    agent.on_start()
    mine = [producer for camera, producer in zip(config.cameras, producers, strict=True)
            if config.writer_of(camera.id) == number]  # fmt: skip
    expected = 0
    while each := link.recv():
        expected += each
        while any(_settled(producer) < expected for producer in mine):
            if not agent.do_work():
                agent.idle()
        link.send("done")
    agent.on_close()


def _drain(links: list[Connection], each: int) -> None:
    """Have all writers drain ``each`` frames of each ring."""
    for link in links:
        link.send(each)
    for link in links:
        assert link.recv() == "done"


def _settled(producer: Producer) -> int:
    """Frames that were acknowledged. Those that were flushed since may count as lost."""
    counts = producer.counts()
    return counts.stored + counts.drops["lost"]


def _fill(producers: list[Producer], each: int) -> None:
    payloads = itertools.cycle([os.urandom(SIZE) for _ in range(16)])
    for _ in range(each):
        for producer in producers:
            written = producer.write((next(payloads),), time.time_ns(), time.monotonic_ns(), WIDTH, HEIGHT)
            assert written is not None, "the rings are too small for this benchmark"


def _flush(config: Config) -> None:
    for files in layout(config):
        with redis.Redis(unix_socket_path=files.address.path) as client:
            client.flushall()


def _stored(config: Config) -> int:
    """Frames in all servers."""
    count = 0
    for files in layout(config):
        with redis.Redis(unix_socket_path=files.address.path) as client:
            count += len(client.keys("default:frames:*"))
    return count


def _cpu(pids: list[int]) -> float:
    """Seconds that all threads of these processes have run; the kernel counts them in nanoseconds."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
