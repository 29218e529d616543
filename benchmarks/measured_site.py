"""A site under measurement: its processes as users start them, observed from outside."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks.harness import Scale, cpu_seconds
from engine.runtime.status_processes import MIB, own_memory
from engine.shm import histogram
from engine.shm.ring_file import Observer
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.wait import wait_until
from tests.system.site import Site

#: Frames a second of a test camera.
FPS = 30
#: Frames expire after this time. A site's memory is constant from then on.
TTL_SECONDS = 2
#: A rate counts as carried if at least this share of the offered frames was captured and stored.
CARRIED = 0.97
#: Roles whose CPU counts as the engine's. The servers' CPU is shown separately; other programs need servers too.
OWN_ROLES = ("capture", "writer", "publisher", "supervisor")


class Snapshot(NamedTuple):
    """A site's totals at one time: frames and access units together, and the stored access units."""

    at: float
    cpu: Counter[str]
    captured: int
    stored: int
    packets: int
    dropped: int
    held: int
    latency: list[int]


class Window(NamedTuple):
    """A site's work between two snapshots. Latencies in milliseconds, CPU in seconds by role."""

    seconds: float
    cpu: dict[str, float]
    captured: int
    stored: int
    packets: int
    dropped: int
    held: int
    latency: list[int]

    @property
    def own_cpu(self) -> float:
        return sum(self.cpu.get(role, 0.0) for role in OWN_ROLES)

    @property
    def frames_per_cpu_second(self) -> float:
        return self.stored / self.own_cpu

    @property
    def frames_per_storing_cpu_second(self) -> float:
        """CPU without capture, which the peer does not do."""
        return self.stored / (self.cpu["writer"] + self.cpu["publisher"])

    def percentile(self, share: float) -> float:
        return histogram.percentile(self.latency, share)


class Watch:
    """Observes a running site from outside: the counts of its rings, and the kernel's account of its processes."""

    def __init__(self, site: Site, broker: RabbitMQ | None = None) -> None:
        paths = site.paths
        self.site = site
        rings = [(name, paths.ring(name, video=video)) for name, video in site.config.rings]
        wait_until(lambda: all(path.exists() for _, path in rings), 30, "all rings stand", 0.005)
        self._observers = [Observer(path, name) for name, path in rings]
        self._broker = broker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for observer in self._observers:
            observer.close()

    def capturing(self) -> int:
        """The number of cameras that have captured a frame or an access unit."""
        return len({observer.camera for observer in self._observers if observer.counts().captured})

    def roles(self) -> dict[int, str]:
        """Every process of the site by its id, including the servers."""
        site = self.site
        assert site.process is not None
        roles = {child.pid: "supervisor" for child in site.children()}
        for child in site.children():
            if "valkey" in child.name():
                roles[child.pid] = "redis"
        roles |= {process["pid"]: process["role"] for process in site.status()["processes"] if process["alive"]}
        roles[site.process.pid] = "supervisor"
        if self._broker is not None:
            roles[self._broker.pid] = "rabbitmq"
        return roles

    def snapshot(self, roles: dict[int, str]) -> Snapshot:
        counts = [observer.counts() for observer in self._observers]
        cpu: Counter[str] = Counter()
        for pid, role in roles.items():
            cpu[role] += cpu_seconds(pid)
        return Snapshot(
            time.monotonic(),
            cpu,
            sum(count.captured for count in counts),
            sum(count.stored for count in counts),
            sum(count.stored for count, end in zip(counts, self._observers, strict=True) if end.video),
            sum(count.dropped for count in counts),
            sum(count.held for count in counts),
            histogram.merge(count.latency for count in counts),
        )

    def window(self, seconds: float) -> Window:
        """Let the site run for ``seconds``, and return its work in that time."""
        roles = self.roles()
        first = self.snapshot(roles)
        time.sleep(seconds)
        last = self.snapshot(roles)
        assert {pid for pid, role in self.roles().items() if role != "redis"} <= set(roles), "a process was restarted"
        return Window(
            last.at - first.at,
            {role: last.cpu[role] - first.cpu[role] for role in last.cpu},
            last.captured - first.captured,
            last.stored - first.stored,
            last.packets - first.packets,
            last.dropped,
            last.held,
            [after - before for after, before in zip(last.latency, first.latency, strict=True)],
        )

    def memory(self) -> dict[str, list[float]]:
        """MiB of each process by role, as PSS: with its share of shared pages, without rings."""
        found: dict[str, list[float]] = {}
        for pid, role in self.roles().items():
            found.setdefault(role, []).append(own_memory(pid) / MIB)
        return found


@contextmanager
def running_site(
    directory: Path,
    cameras: Sequence[dict[str, Any]],
    broker: tuple[RabbitMQ, str] | None = None,
    *,
    ring_mb: int = 4,
    settle: float = 0.0,
    redis: dict[str, Any] | None = None,
    **sections: dict[str, Any],
) -> Iterator[Watch]:
    """A site that captures from all its cameras, after ``settle`` more seconds. It leaves nothing behind.

    It uses the embedded Valkey, unless ``redis`` has an address.
    """
    site = Site(directory / "site")
    amqp_url = broker[0].url(broker[1]) if broker else ""
    sections |= {"redis": {"ttl_seconds": TTL_SECONDS, **(redis or {})}, "ring": {"capacity_mb": ring_mb}}
    site.write(cameras=list(cameras), amqp_url=amqp_url, **sections)
    try:
        site.start(wait=False)
        with Watch(site, broker[0] if broker else None) as watch:
            wait_until(lambda: watch.capturing() == len(cameras), 60, f"all capture; log:\n{site.log_text()[-2000:]}")
            time.sleep(settle)
            yield watch
    finally:
        site.end()
        _remove(site.directory)


def _remove(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    directory.rmdir()


def steady(scale: Scale) -> float:
    """Seconds until a site's memory no longer grows: rings were used completely, and frames expire as they come."""
    return scale.pick(0.5, 1.0, TTL_SECONDS + 1.5)


def pattern_cameras(count: int, kb: int, fps: float = FPS) -> list[dict[str, Any]]:
    return [{"id": f"cam{number}", "url": f"test://?fps={fps:g}&kb={kb}"} for number in range(count)]


def add_vhost(broker: RabbitMQ, name: str) -> str:
    """A virtual host, and its URL. On a busy machine the broker's control port sometimes does not open at once."""
    for tries in range(3, 0, -1):
        try:
            broker.add_vhost(name)
            break
        except AssertionError:
            if tries == 1:
                raise
            time.sleep(0.5)
    return broker.url(name)
