"""A site's leases at its start, of its cameras and of its name: who the site is, whether another site holds them, and
how long to wait for that one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from engine import __version__
from engine.config import Config
from engine.errors import InputError, RedisUnavailable, SiteInUse
from engine.runtime.lock import read_token
from engine.stages.writer.leases import LEASE_SECONDS, NAMED_MAX, Leases, open_leases
from engine.stages.writer.site_name import SiteName
from engine.wire.lease import Lease
from engine.wire.rfc3339 import rfc3339

#: Seconds between two checks of a lease that must lapse.
_LOOK_SECONDS = 0.25
#: A lease counts as renewed if its end has moved by more than this many milliseconds.
_RENEWED_MS = 1000
#: Index of a process's start time, in ticks since the boot, among the fields after the name in /proc/PID/stat.
_STARTED_FIELD = 19


def identity(config: Config) -> Lease:
    """The content of the leases of this process and of those that it starts."""
    boot = _boot()
    # Without a locked run directory, only this process is this site.
    token = read_token(config) or f"process-{os.getpid()}-{time.time_ns()}"
    return Lease(
        site=config.site.name,
        host=socket.gethostname(),
        pid=os.getpid(),
        run_directory=str(config.run_directory),
        version=__version__,
        since=rfc3339(time.time_ns()),
        # A copy of a run directory on another machine is another site, and so is a run from before a reboot.
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
    """Take the leases of ``cameras``. If the holder's process is visibly dead, they are taken over at once. If it is
    not visible from here, such as in a container that is gone, this waits until they lapse.

    Raises SiteInUse if another live site holds one, or if ``stopping()`` while waiting; InputError if Redis is away.
    """
    with _leases(config, own, log) as leases:
        names = list(cameras)
        try:
            _claim(leases, names, own, log, stopping, _in_use)
        except SiteInUse:
            leases.release(names)
            raise


def claim_name(
    config: Config, own: Lease, log: FilteringBoundLogger, stopping: Callable[[], bool] = lambda: False
) -> None:
    """Take the lease of the site's name, which registers the site. Waits and raises as ``claim``."""
    with _leases(config, own, log, SiteName) as leases:
        _claim(leases, [config.site.name], own, log, stopping, _name_in_use)


def release(config: Config, cameras: Iterable[str], own: Lease, log: FilteringBoundLogger) -> None:
    """Give back the leases of ``cameras`` and of the site's name. If Redis does not answer, they lapse."""
    try:
        with open_leases(config, own, log) as leases:
            leases.release(list(cameras))
        with open_leases(config, own, log, SiteName) as name:
            name.release([config.site.name])
    except (RedisUnavailable, InputError) as error:
        log.warning("leases not given back; they lapse", error=error)


@contextmanager
def _leases(config: Config, own: Lease, log: FilteringBoundLogger, kind: type[Leases] = Leases) -> Iterator[Leases]:
    """Leases over their own connection. Raises InputError if Redis is away."""
    try:
        with open_leases(config, own, log, kind) as leases:
            yield leases
    except RedisUnavailable as error:
        raise InputError.of(error) from None


def _claim(
    leases: Leases,
    cameras: list[str],
    own: Lease,
    log: FilteringBoundLogger,
    stopping: Callable[[], bool],
    in_use: Callable[[dict[str, Lease]], str],
) -> None:
    deadline = time.monotonic() + LEASE_SECONDS + _LOOK_SECONDS
    said = taken_over = False
    #: When the leases of others end, in milliseconds of this machine's clock.
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
            raise SiteInUse(in_use(living))
        if taken_over:
            # Redis does not accept them now; the writer will try again.
            return
        if not unseen or time.monotonic() > deadline:
            gone = str(next(iter(others.values())))
            log.info("leases of a site that is gone are taken over", cameras=len(others), site=gone)
            leases.take(list(others), over=True)
            taken_over = True
            continue
        if stopping():
            raise SiteInUse(f"stopped while waiting for its leases: {in_use(others)}")
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


def _name_in_use(others: dict[str, Lease]) -> str:
    (name, other), *_ = others.items()
    return f"another site is named {name} already: {other}; stop that one, or give this one another site.name or vhost"


def _lives(lease: Lease, own: Lease) -> bool | None:
    """Whether a lease's process lives; None if it cannot be seen from here."""
    if not lease.machine or lease.machine != own.machine:
        return None
    return bool(lease.started) and _started(lease.pid) == lease.started


def _started(pid: int) -> int:
    """When a process started, in ticks since the boot; 0 if there is none."""
    try:
        text = Path(f"/proc/{int(pid)}/stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        return 0 if fields[0] == "Z" else int(fields[_STARTED_FIELD])
    except (OSError, ValueError, IndexError):
        return 0


def _boot() -> str:
    """The id of this boot; the host's name if it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _namespace() -> str:
    """The namespace of process ids; empty if it is unknown."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
