"""An everyday site and its peers at work: servers that stay up from round to round, and what a site did in a window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.events import Seen, Trips, consumer, delays, round_trips, stored
from benchmarks.everyday_peers import Peer, Servers
from benchmarks.harness import cpu_seconds
from benchmarks.measured_site import Watch, Window, running_site
from benchmarks.video_peers import Work
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer

#: A camera's ring, half of the default. Two seconds of frames are enough here, and its memory is in use after three.
RING_MB = 4
#: Cameras whose journals are followed: enough for percentiles, and few enough to cost little.
FOLLOWED = 4


class Observed(NamedTuple):
    """What was seen while sites and peers ran. Both lists are filled at the end."""

    stored: list[Seen]
    events: list[Seen]


class SiteRun(NamedTuple):
    """What a site did in one window, which began and ended at these times (nanoseconds UTC)."""

    window: Window
    begun: int
    ended: int
    #: CPU seconds of the process that plays the cameras.
    cameras_cpu: float
    #: The broker's own round trips under the same load.
    trips: Trips
    memory: dict[str, list[float]]

    def ms(self, role: str) -> float:
        """CPU milliseconds a frame."""
        return self.window.cpu.get(role, 0.0) / self.window.stored * 1e3

    @property
    def own_ms(self) -> float:
        return self.window.own_cpu / self.window.stored * 1e3

    def delays(self, seen: Observed) -> list[float]:
        """Milliseconds from stored to event, of frames of the window."""
        return delays([entry for entry in seen.stored if self.begun <= entry.unix_nano < self.ended], seen.events)


class Place(NamedTuple):
    """Where sites and peers run: servers that stay up from round to round."""

    directory: Path
    redis: RedisServer
    broker: RabbitMQ
    vhost: str
    seconds: float
    settle: float

    @property
    def amqp_url(self) -> str:
        return self.broker.url(self.vhost)

    @property
    def servers(self) -> Servers:
        return Servers({"host": "127.0.0.1", "port": self.redis.port}, self.amqp_url)

    @contextmanager
    def observed(self, cameras: int) -> Iterator[Observed]:
        """A consumer of all events, and a reader that waits for a few cameras' frames."""
        followed = [f"cam{number}" for number in range(min(cameras, FOLLOWED))]
        with consumer(self.amqp_url) as events, stored(self.servers.redis, self.vhost, followed) as entries:
            yield Observed(entries, events)

    @contextmanager
    def site(self, cameras: list[dict[str, Any]]) -> Iterator[Watch]:
        address = {"address": self.redis.address}
        target = (self.broker, self.vhost)
        with running_site(self.directory, cameras, target, ring_mb=RING_MB, settle=self.settle, redis=address) as watch:
            yield watch

    def run(self, cameras: list[dict[str, Any]], sender_pid: int) -> SiteRun:
        """A site of ``cameras``: CPU and latencies in one window, and the broker's round trips right after it."""
        with self.site(cameras) as watch:
            begun, before = time.time_ns(), cpu_seconds(sender_pid)
            window = watch.window(self.seconds)
            sender, ended = cpu_seconds(sender_pid) - before, time.time_ns()
            trips = round_trips(self.amqp_url, max(10, round(self.seconds * 25)), 0.01)
            return SiteRun(window, begun, ended, sender, trips, watch.memory())

    def peer(
        self, target: Callable[..., None], urls: list[str], *arguments: Any, memory: list[float] | None = None
    ) -> Work:
        """A peer's work. Its memory is added to ``memory``."""
        with Peer(target, urls, self.servers, *arguments) as peer:
            time.sleep(self.settle / 3)
            work = peer.over(self.seconds * 0.75)
            if memory is not None:
                memory.append(peer.memory())
        return work
