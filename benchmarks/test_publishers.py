"""Several publishers: journal entries to confirmed, persistent messages, by the number of processes that share them.

Timed: connected publishers with filled journals, from the moment at which all go on until the broker has confirmed
every event. Not timed: their start, connecting, filling the journals (of eight cameras, while the publishers are
stopped), emptying the queue. Redis, broker and publishers share the machine, so on two cores the broker's own need of
CPU bounds what more publishers can bring.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import psutil
import pytest

from benchmarks import publisher_peers as peers
from benchmarks.harness import Results, Scale
from benchmarks.in_process import quiet_log, site_config
from engine.config import Config
from engine.runtime.roles import PUBLISHER, Launch
from engine.shm import segment, site
from engine.shm.site import SitePaths
from engine.shm.status_page import PublisherCount, StatusPage
from engine.wire import keys
from tests.client.stocked import Stored, stock
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until

CAMERAS = 8
VHOST = "default"


def run_one(directory: Path, address: str, sections: dict[str, Any], number: int) -> None:
    """Run a publisher as the supervisor would start it."""
    config = site_config(directory, address, CAMERAS, **sections)
    PUBLISHER.instances(config)[number].run(Launch(config, quiet_log()))


class Publishers:
    """The publishers of a site, each in a process of its own."""

    def __init__(self, config: Config, directory: Path, sections: dict[str, Any]) -> None:
        self._paths = SitePaths.of(config)
        segment.private_directory(self._paths.directory)
        count = config.publisher.publishers
        for number in range(count):
            StatusPage.create(self._paths.publisher(number))
        self.pages = [StatusPage.watch(self._paths.publisher(number)) for number in range(count)]
        context = multiprocessing.get_context("spawn")
        self.processes = [
            context.Process(target=run_one, args=(directory, config.redis.address, sections, number))
            for number in range(count)
        ]
        for process in self.processes:
            process.start()

    def total(self, count: PublisherCount) -> int:
        return sum(page.counts[count] for page in self.pages)

    def state(self) -> str:
        """What tells why events are not confirmed."""
        counts = ("CONFIRMED", "PUBLISHED", "EXPIRED", "NACKED", "CONNECTS", "CONNECTED")
        known = ", ".join(f"{name.lower()} {self.total(PublisherCount[name]):,}" for name in counts)
        ended = [process.exitcode for process in self.processes if not process.is_alive()]
        outages = "; ".join(filter(None, (page.text.decode(errors="replace") for page in self.pages)))
        return f"{known}; ended processes {ended}; outages {outages or 'none'}"

    def send(self, number: signal.Signals) -> None:
        for process in self.processes:
            psutil.Process(process.pid).send_signal(number)

    def cpu_seconds(self) -> float:
        times = [psutil.Process(process.pid).cpu_times() for process in self.processes]
        return sum(one.user + one.system for one in times)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join(10)
        for page in self.pages:
            page.close()
        site.remove(self._paths)


@contextlib.contextmanager
def running(config: Config, directory: Path, sections: dict[str, Any]) -> Iterator[Publishers]:
    publishers = Publishers(config, directory, sections)
    try:
        wait_until(lambda: all(page.counts[PublisherCount.CONNECTED] for page in publishers.pages), 30, "connected")
        yield publishers
    finally:
        publishers.close()


def entries(count: int) -> list[Stored]:
    """Entries of the current time, and their frames, by eight cameras in turn."""
    now = time.time_ns()
    return [
        Stored(f"cam{number % CAMERAS}", now + number, number // CAMERAS % keys.SEQUENCE_MAX + 1, bytes(100))
        for number in range(count)
    ]


@pytest.mark.parametrize("kind", ["event", "batch"])
def test_entries_to_confirmed_messages_by_publishers(
    results: Results, scale: Scale, directory: Path, rabbitmq: RabbitMQ, kind: str
) -> None:
    events = scale.pick(800, 8_000, 40_000) * (1 if kind == "event" else 4)
    rounds = scale.pick(1, 2, 5)
    name = "single" if kind == "event" else "batch"
    with (
        RedisServer(directory / "redis", unix=True) as server,
        server.client() as client,
        contextlib.closing(pika.BlockingConnection(pika.URLParameters(rabbitmq.url() + "?heartbeat=0"))) as connection,
    ):
        peers.declare(connection)
        channel = connection.channel()
        for count in (1, 2, 4):
            sections = {
                "amqp": {"amqp_url": rabbitmq.url()},
                "metadata": {"format": kind},
                "publisher": {"publishers": count},
            }
            place = directory / f"run{count}"
            config = site_config(place, server.address, CAMERAS, **sections)
            rates, cpus = [], []
            with running(config, place, sections) as publishers:
                for _ in range(rounds + 1):
                    publishers.send(signal.SIGSTOP)
                    client.flushdb()
                    stock(client, entries(events), vhost=VHOST, cameras={})
                    goal = publishers.total(PublisherCount.CONFIRMED) + events
                    before, begun = publishers.cpu_seconds(), time.perf_counter()
                    publishers.send(signal.SIGCONT)
                    while publishers.total(PublisherCount.CONFIRMED) < goal:
                        time.sleep(0.001)
                        late = time.perf_counter() > begun + 120
                        assert not late, f"{goal:,} events are not confirmed: {publishers.state()}"
                    rates.append(events / (time.perf_counter() - begun))
                    cpus.append((publishers.cpu_seconds() - before) / events * 1e6)
                    channel.queue_purge(peers.QUEUE)
                assert publishers.total(PublisherCount.EXPIRED) == 0
            # The first round warms up.
            results.figure(f"publisher.{name}.by_{count}.rate", round(statistics.median(rates[1:])), "events/s")
            cpu = round(statistics.median(cpus[1:]), 1)
            results.figure(f"publisher.{name}.by_{count}.cpu", cpu, "us an event of all publishers' CPU")
        channel.queue_delete(peers.QUEUE)
