"""A site's processes, from their status pages and the kernel."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import msgspec
import psutil

from engine.errors import RingError
from engine.shm.site import SitePaths
from engine.shm.status_page import StatusPage

MIB = 2**20


class ProcessReport(msgspec.Struct, frozen=True):
    """One process; memory in MiB as own_memory, CPU in seconds and in percent of one core since its start."""

    role: str
    camera: str
    pid: int
    alive: bool
    cpu_seconds: float
    cpu_percent: float
    memory_mb: float
    restarts: int
    heartbeat_seconds: float


def add_process(
    processes: list[ProcessReport], paths: SitePaths, role: str, camera: str, number: str, memory: bool
) -> None:
    """Append the process of a role, where it has a status page."""
    path = {"writer": paths.writer(int(number or 0)), "publisher": paths.publisher}.get(role) or paths.capture(camera)
    with (
        contextlib.suppress(OSError, RingError),
        contextlib.closing(StatusPage.watch(path)) as page,
    ):
        alive = page.owned
        cpu = share = pss = 0.0
        with contextlib.suppress(psutil.Error):
            if alive:
                process = psutil.Process(page.pid)
                times = process.cpu_times()
                cpu = times.user + times.system
                share = 100 * cpu / max(time.time() - process.create_time(), 0.01)
                pss = own_memory(page.pid) / MIB if memory else 0.0
        processes.append(
            ProcessReport(
                role=role,
                camera=camera,
                pid=page.pid,
                alive=alive,
                cpu_seconds=round(cpu, 2),
                cpu_percent=round(share, 1),
                memory_mb=round(pss, 1),
                restarts=page.restarts,
                heartbeat_seconds=round((time.monotonic_ns() - page.heartbeat_nano) / 1e9, 2),
            )
        )


def own_memory(pid: int) -> int:
    """Bytes of a process's memory, its share of shared pages included (PSS), rings apart. 0 where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    sizes = {name: int(size) for name, size in re.findall(r"^(Pss\w*):\s+(\d+) kB", text, re.MULTILINE)}
    return (sizes.get("Pss", 0) - sizes.get("Pss_Shmem", 0)) * 1024
