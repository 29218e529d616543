"""Facts about the machine, read without changing it."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
from pathlib import Path
from typing import NamedTuple

from engine.config import Config
from engine.runtime.limits import files_needed
from engine.shm.segment import free_bytes
from engine.shm.site import SitePaths, shared_memory_need

#: adjtimex(2) returns this state for a clock that is not synchronised.
_TIME_ERROR = 5
_TIMEX_BYTES = 256


class RunDirectory(NamedTuple):
    """The run directory, or its nearest existing parent. ``private``: 0700 and owned by this user, or not made yet."""

    path: Path
    stands: bool
    writable: bool
    private: bool
    free_bytes: int


class MachineFacts(NamedTuple):
    """``shared_free`` includes what the site holds already; None if ring.directory is not a directory."""

    shared_need: int
    shared_free: int | None
    shared_directory: str
    files_max: int
    files_need: int
    cores: int
    load: float
    clock_synchronised: bool | None
    run: RunDirectory


def gather(config: Config) -> MachineFacts:
    """All facts. Raises nothing."""
    return MachineFacts(
        shared_need=shared_memory_need(config),
        shared_free=_shared_free(config),
        shared_directory=config.ring.directory,
        files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        files_need=files_needed(config),
        cores=len(os.sched_getaffinity(0)),
        load=os.getloadavg()[0],
        clock_synchronised=clock_synchronised(),
        run=run_directory(config.run_directory),
    )


def _shared_free(config: Config) -> int | None:
    try:
        free = free_bytes(Path(config.ring.directory))
    except OSError:
        return None
    held = 0
    for path in SitePaths.of(config).directory.glob("*"):
        try:
            held += path.lstat().st_blocks * 512
        except OSError:
            continue
    return free + held


def clock_synchronised() -> bool | None:
    """Whether something (NTP, PTP) synchronises the kernel's clock; None if unknown."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def run_directory(path: Path) -> RunDirectory:
    """The state of ``path``, or of its nearest existing parent."""
    standing = path
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    stands = standing == path
    status = standing.stat()
    private = not stands or (status.st_uid == os.geteuid() and not status.st_mode & 0o077)
    writable = standing.is_dir() and os.access(standing, os.W_OK | os.X_OK)
    return RunDirectory(standing, stands, writable, private, shutil.disk_usage(standing).free)
