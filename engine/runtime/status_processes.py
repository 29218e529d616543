"""A site's processes, from their status pages and the kernel, and the counts of writers and publishers."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.config import Config
from engine.errors import RingError
from engine.runtime.roles import PUBLISHER, WRITER, Instance
from engine.shm.site import SitePaths
from engine.shm.status_page import Count, PublisherCount, StatusPage, WriterCount
from engine.wire.urls import host_port, mask

MIB = 2**20
#: The kernel counts the CPU time of processes in this many ticks a second.
_TICKS = os.sysconf("SC_CLK_TCK")


class ProcessReport(msgspec.Struct, frozen=True):
    """One process; ``name`` tells it from others of its role. Memory is that of ``own_memory`` in MiB. CPU is in
    seconds, and in percent of one core since its start. ``note`` says what it does, such as where it listens."""

    role: str
    name: str
    camera: str
    pid: int
    alive: bool
    cpu_seconds: float
    cpu_percent: float
    memory_mb: float
    restarts: int
    heartbeat_seconds: float
    note: str = ""


def process_report(instance: Instance, *, memory: bool) -> ProcessReport | None:
    """One process; None if it has no status page. Its memory is 0 unless ``memory``."""
    with (
        contextlib.suppress(OSError, RingError),
        contextlib.closing(StatusPage.watch(instance.page)) as page,
    ):
        alive = page.owned
        cpu, age = _cpu_and_age(page.pid) if alive else (0.0, 0.0)
        share = 100 * cpu / max(age, 0.01)
        pss = own_memory(page.pid) / MIB if alive and memory else 0.0
        return ProcessReport(
            role=instance.role.name,
            name=instance.name,
            camera=instance.camera,
            pid=page.pid,
            alive=alive,
            cpu_seconds=round(cpu, 2),
            cpu_percent=round(share, 1),
            memory_mb=round(pss, 1),
            restarts=page.restarts,
            heartbeat_seconds=round((time.monotonic_ns() - page.heartbeat_nano) / 1e9, 2),
            note=mask(page.text.decode(errors="replace")) if alive and instance.role.tells_note else "",
        )
    return None


def _cpu_and_age(pid: int) -> tuple[float, float]:
    """Seconds of CPU that a process has used, and seconds since its start; zeros if it has ended.

    Not with psutil, whose import would take longer than reading the status of a whole site."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0.0, 0.0
    # The name in parentheses may contain anything. See proc(5): utime is field 14, stime 15, starttime 22.
    fields = text.rpartition(b")")[2].split()
    user, system, started = (int(fields[number - 3]) / _TICKS for number in (14, 15, 22))
    return user + system, time.clock_gettime(time.CLOCK_BOOTTIME) - started


def own_memory(pid: int) -> int:
    """Bytes of a process's memory without rings, including its share of shared pages (PSS). 0 if it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    sizes = {name: int(size) for name, size in re.findall(r"^(Pss\w*):\s+(\d+) kB", text, re.MULTILINE)}
    return (sizes.get("Pss", 0) - sizes.get("Pss_Shmem", 0)) * 1024


class PublisherReport(msgspec.Struct, frozen=True):
    """The counts of events of all publishers together. ``connected`` is True if all of them are. ``lag_seconds`` is the
    time between the newest stored and the newest confirmed frame, of the publisher that is furthest behind. ``gops``
    counts confirmed events of GOPs, ``video_expired`` access units that none of them announced. ``brokers`` are the
    addresses to which they are connected."""

    connected: bool
    published: int
    confirmed: int
    expired: int
    unreadable: int
    nacked: int
    messages: int
    status_events: int
    lag_seconds: float
    gops: int
    video_expired: int
    video_unreadable: int
    brokers: list[str] = []


class WriterReport(msgspec.Struct, frozen=True):
    """All writers together."""

    batches: int
    connects: int
    retries: int
    #: Cameras that another site stores under the same names. The log says which site.
    contested: int


class Counted(NamedTuple):
    """A process's counts; the last ones if it is not ``alive``."""

    alive: bool
    counts: dict[Count, int]


def read_counts(instance: Instance) -> Counted | None:
    """A process's counts; None if it has no status page."""
    with contextlib.suppress(OSError, RingError), contextlib.closing(StatusPage.watch(instance.page)) as page:
        return Counted(page.owned, {count: page.counts[count] for count in instance.role.counts or ()})
    return None


def writer_report(config: Config) -> WriterReport:
    """All writers of a site together."""
    found = [counted for instance in WRITER.instances(config) if (counted := read_counts(instance))]
    return WriterReport(
        batches=sum(one.counts[WriterCount.BATCHES] for one in found),
        connects=sum(one.counts[WriterCount.CONNECTS] for one in found),
        retries=sum(one.counts[WriterCount.RETRIES] for one in found),
        contested=sum(one.counts[WriterCount.CONTESTED] for one in found if one.alive),
    )


def read_publishers(config: Config) -> list[Counted]:
    """The counts of the publishers that a site has, and those that former ones left behind. If a site has fewer
    publishers than before, their counts remain part of the site's."""
    if not config.publishes:
        return []
    instances = PUBLISHER.instances(config)
    own = {instance.page for instance in instances}
    former = [page for page in SitePaths.of(config).publishers().values() if page not in own]
    return [
        counted
        for instance in [*instances, *(instances[0]._replace(page=page) for page in former)]
        if (counted := read_counts(instance))
    ]


def publisher_report(config: Config) -> PublisherReport | None:
    """All publishers of a site together; None if the site has none, or if none has ever run."""
    found = read_publishers(config)
    if not found:
        return None
    alive = [one.counts for one in found if one.alive]
    places = [counts[PublisherCount.CONNECTED] for counts in alive]

    def total(count: PublisherCount) -> int:
        return sum(one.counts[count] for one in found)

    lags = [counts[PublisherCount.LAG_NANO] for counts in alive or [one.counts for one in found]]
    return PublisherReport(
        connected=len(places) >= config.publisher.publishers and all(places),
        published=total(PublisherCount.PUBLISHED),
        confirmed=total(PublisherCount.CONFIRMED),
        expired=total(PublisherCount.EXPIRED),
        unreadable=total(PublisherCount.UNREADABLE),
        nacked=total(PublisherCount.NACKED),
        messages=total(PublisherCount.MESSAGES),
        status_events=total(PublisherCount.STATUS_EVENTS),
        lag_seconds=round(max(lags) / 1e9, 3),
        gops=total(PublisherCount.GOPS),
        video_expired=total(PublisherCount.VIDEO_EXPIRED),
        video_unreadable=total(PublisherCount.VIDEO_UNREADABLE),
        brokers=_brokers(config, places),
    )


def _brokers(config: Config, places: Iterable[int]) -> list[str]:
    """The addresses of the brokers in these places, from 1, of the site file; 0 is none."""
    addresses = config.amqp.addresses
    found = [addresses[place - 1] for place in sorted(set(places)) if 0 < place <= len(addresses)]
    return [host_port(address.host, address.port) for address in found]
