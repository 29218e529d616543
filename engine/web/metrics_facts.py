"""What metrics are made of, collected in one go: the site's shared memory, and Redis's own figures.

Collecting blocks, so it runs in a thread. It asks no process of the site, and Redis only for ``INFO``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from engine.config import Config
from engine.errors import RingError
from engine.runtime.roles import MONITOR, WRITER
from engine.runtime.status import SiteLook, look
from engine.runtime.status_processes import Counted, own_memory, read_counts, read_publishers
from engine.servers.redis.figures import RedisFigures, figures_of
from engine.servers.redis.masters import MasterReply, ask_masters, together
from engine.servers.redis.session import Session
from engine.shm import publish_latency
from engine.shm.publish_latency import PublishLatency
from engine.shm.site import SitePaths
from engine.shm.status_page import Count, PublisherCount, StatusPage

#: Seconds that Redis may take to answer; a scrape waits for it.
_REDIS_SECONDS = 1.0
#: Seconds for which a process's memory is not read again. The kernel walks all its pages: 0.2 to 1 ms.
_MEMORY_SECONDS = 30.0
#: CPU seconds that one collection spends on reading memory. Of many processes, each is read in its turn.
_MEMORY_CPU_SECONDS = 0.004


#: The counts of a role's processes together, by the kind of its counts. Counts of different kinds may be equal numbers.
RoleCounts = dict[type[Count], dict[Count, int]]


class Facts(NamedTuple):
    """One collection. ``look`` is None where the site's shared memory is on another machine.

    ``latency`` is None for a site without a publisher. ``memory`` has the bytes of processes by pid, as far as known.
    ``redis_answers`` is False if Redis, or a master of a cluster, is away; ``redis`` is also None if none tells its
    figures. ``redis_nodes`` has the masters of a cluster by address: None for one that is away, and figures without a
    version for one that does not tell them. ``cpu_seconds`` is what the collection took.
    """

    look: SiteLook | None
    counts: RoleCounts
    latency: PublishLatency | None
    memory: Mapping[int, int]
    redis_answers: bool
    redis: RedisFigures | None
    redis_nodes: Mapping[str, RedisFigures | None]
    cpu_seconds: float


class Collector:
    """Collects the facts of a site, again and again. For one thread at a time."""

    def __init__(self, config: Config, *, local: bool) -> None:
        self._config = config
        #: Updated when a site starts or stops on this machine.
        self.local = local
        self._memory = ProcessMemory()
        self._session = Session(config.redis_address, min(config.redis.timeout_seconds, _REDIS_SECONDS))

    def collect(self) -> Facts:
        """The facts of now. Never raises for what is away."""
        begun = time.thread_time()
        seen = look(self._config, memory=False) if self.local else None
        counts: RoleCounts = {}
        latency = None
        memory: Mapping[int, int] = {}
        if seen:
            counts, latency = _counts(seen.config), _latency(seen.config)
            memory = self._memory.read([one.pid for one in seen.report.processes if one.alive])
        replies = ask_masters(self._session, ("INFO",))
        told = {reply.address: _figures(reply) for reply in replies}
        figures = [one for one in told.values() if one and one.version]
        return Facts(
            seen,
            counts,
            latency,
            memory,
            redis_answers=all(reply.error is None for reply in replies),
            redis=together(figures) if figures else None,
            redis_nodes=told if self._config.redis_address.cluster else {},
            cpu_seconds=time.thread_time() - begun,
        )

    def close(self) -> None:
        """Close the connection to Redis."""
        self._session.close()


def _figures(reply: MasterReply) -> RedisFigures | None:
    if reply.error is not None:
        return None
    return figures_of(reply.reply) if isinstance(reply.reply, bytes) else RedisFigures()


def _counts(config: Config) -> RoleCounts:
    """The counts of the roles that have any of their own, each role's processes together."""
    found: RoleCounts = {}
    if publishers := read_publishers(config):
        found[PublisherCount] = _publishers_together(config, publishers)
    for role in (WRITER, MONITOR):
        for instance in role.instances(config):
            if counted := read_counts(instance):
                kind = role.counts
                assert kind
                sums = found.setdefault(kind, dict.fromkeys(kind, 0))
                for count, value in counted.counts.items():
                    # A gauge of a process that has ended says nothing.
                    sums[count] += value if counted.alive or count.kind == "counter" else 0
    return found


def _publishers_together(config: Config, publishers: Sequence[Counted]) -> dict[Count, int]:
    """The site is as far behind as the slowest publisher, and connected if all are."""
    sums: dict[Count, int] = {count: sum(one.counts[count] for one in publishers) for count in PublisherCount}
    alive = [one.counts for one in publishers if one.alive]
    sums[PublisherCount.LAG_NANO] = max((counts[PublisherCount.LAG_NANO] for counts in alive), default=0)
    connected = sum(bool(counts[PublisherCount.CONNECTED]) for counts in alive)
    sums[PublisherCount.CONNECTED] = int(connected >= config.publisher.publishers)
    return sums


def _latency(config: Config) -> PublishLatency | None:
    """The histogram of all publishers together."""
    found = []
    for page in SitePaths.of(config).publishers().values() if config.publishes else ():
        with contextlib.suppress(OSError, RingError), contextlib.closing(StatusPage.watch(page)) as publisher:
            found.append(publish_latency.read(publisher.counts))
    return publish_latency.together(found) if found else None


class ProcessMemory:
    """The memory of processes, read in turns: the longest unread first, at least one, and as many as time allows."""

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}
        self._read_at: dict[int, float] = {}

    def read(self, pids: Collection[int]) -> Mapping[int, int]:
        """The bytes of those of ``pids`` that were read so far."""
        for gone in self._read_at.keys() - set(pids):
            del self._read_at[gone]
            self._bytes.pop(gone, None)
        now = time.monotonic()
        due = [pid for pid in pids if now - self._read_at.get(pid, -_MEMORY_SECONDS) >= _MEMORY_SECONDS]
        until = time.thread_time() + _MEMORY_CPU_SECONDS
        for pid in sorted(due, key=lambda pid: self._read_at.get(pid, 0.0)):
            self._read_at[pid] = now
            if size := own_memory(pid):
                self._bytes[pid] = size
            if time.thread_time() >= until:
                break
        return dict(self._bytes)
