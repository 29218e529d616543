"""A site's leases at its start: who this site is, whether another one lives, and how long to wait for that."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from engine import __version__
from engine.config import Config
from engine.errors import InputError, RedisUnavailable, SiteInUse
from engine.runtime.lock import read_token
from engine.stages.writer.leases import LEASE_SECONDS, NAMED_MAX, Leases, open_leases
from engine.wire.lease import Lease
from engine.wire.rfc3339 import rfc3339

#: Seconds between looks at a lease that is waited for.
_LOOK_SECONDS = 0.25
#: Milliseconds by which the end of a lease must have moved for it to have been renewed.
_RENEWED_MS = 1000
#: Number of the field of /proc/PID/stat, after the name, that says when a process began, in ticks since the boot.
_STARTED_FIELD = 19


def identity(config: Config) -> Lease:
    """What the leases of this process, and of those that it starts, say."""
    boot = _boot()
    # Without a run directory that is locked, nobody but this process is this site.
    token = read_token(config) or f"process-{os.getpid()}-{time.time_ns()}"
    return Lease(
        site=config.site.name,
        host=socket.gethostname(),
        pid=os.getpid(),
        run_directory=str(config.run_directory),
        version=__version__,
        since=rfc3339(time.time_ns()),
        # A copy of a run directory on another machine is another site, and so is one from before a reboot.
        holder=f"{token}@{boot}",
        machine=f"{boot}/{_namespace()}",
        started=_started(os.getpid()),
    )


def claim(
    config: Config,
    cameras: Iterable[str],
    own: Lease,
    log: FilteringBoundLogger,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Take the leases of ``cameras``. A site whose process is seen to be dead loses its leases at once; those of one
    that cannot be seen, such as a container that is gone, are waited for.

    Raises SiteInUse where another live site has one, or ``stopping()`` while waiting; InputError where Redis is away.
    """
    try:
        with open_leases(config, own, log) as leases:
            names = list(cameras)
            try:
                _claim(leases, names, own, log, stopping)
            except SiteInUse:
                leases.release(names)
                raise
    except RedisUnavailable as error:
        raise InputError.of(error) from None


def release(config: Config, cameras: Iterable[str], own: Lease, log: FilteringBoundLogger) -> None:
    """Give back what was claimed, where Redis answers; otherwise it lapses."""
    try:
        with open_leases(config, own, log) as leases:
            leases.release(list(cameras))
    except (RedisUnavailable, InputError) as error:
        log.warning("leases not given back; they lapse", error=error)


def _claim(
    leases: Leases, cameras: list[str], own: Lease, log: FilteringBoundLogger, stopping: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + LEASE_SECONDS + _LOOK_SECONDS
    said = taken_over = False
    #: When the leases of others end, in milliseconds of our clock.
    ends: dict[str, float] = {}
    while others := leases.take(cameras):
        alive = {camera: _lives(lease, own) for camera, lease in others.items()}
        unseen = [camera for camera in others if alive[camera] is None]
        left = leases.remaining(unseen)
        for camera, milliseconds in zip(unseen, left, strict=True):
            end = time.monotonic() * 1000 + milliseconds
            if end > ends.setdefault(camera, end) + _RENEWED_MS:
                alive[camera] = True
        if living := {camera: lease for camera, lease in others.items() if alive[camera]}:
            raise SiteInUse(_in_use(living))
        if taken_over:
            # Redis does not take them now; the writer will try again.
            return
        if not unseen or time.monotonic() > deadline:
            gone = str(next(iter(others.values())))
            log.info("leases of a site that is gone are taken over", cameras=len(others), site=gone)
            leases.take(list(others), over=True)
            taken_over = True
            continue
        if stopping():
            raise SiteInUse(f"stopped while waiting for its leases: {_in_use(others)}")
        if not said:
            said = True
            log.warning(
                "waiting for the lease of another site to lapse or to be renewed",
                seconds_max=round(max(left) / 1000, 1),
                cameras=len(unseen),
                site=str(others[unseen[0]]),
            )
        time.sleep(_LOOK_SECONDS)


def _in_use(others: dict[str, Lease]) -> str:
    names = list(others)
    first = ", ".join(names[:NAMED_MAX]) + (", …" if len(names) > NAMED_MAX else "")
    what = f"camera {first} is" if len(names) == 1 else f"{len(names)} cameras ({first}) are"
    return (
        f"{what} stored by another site already: {others[names[0]]}; stop that one, or give this one another "
        "redis.prefix, vhost or camera ids"
    )


def _lives(lease: Lease, own: Lease) -> bool | None:
    """Whether a lease's process lives; None where it would be no process that can be seen from here."""
    if not lease.machine or lease.machine != own.machine:
        return None
    return bool(lease.started) and _started(lease.pid) == lease.started


def _started(pid: int) -> int:
    """When a process began, in ticks since the boot; 0 where there is none."""
    try:
        text = Path(f"/proc/{int(pid)}/stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        return 0 if fields[0] == "Z" else int(fields[_STARTED_FIELD])
    except (OSError, ValueError, IndexError):
        return 0


def _boot() -> str:
    """The running kernel; the host's name where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _namespace() -> str:
    """In which a process id means the same process."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
