"""The lease of a site's name, and the leases of one writer: those of its cameras, and with the first writer the name's.

The lease of the name is the site's entry in the registry (``engine/wire/site_entry.py``). ``edge-video fleet list``
reads it. It is renewed as the leases of cameras are, in two round trips every few seconds, and lapses with a dead site.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec
from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.shm.camera_list import CameraList
from engine.shm.site import SitePaths
from engine.stages.writer.leases import Leases
from engine.stages.writer.store import Caller
from engine.wire.keys import site_key
from engine.wire.lease import Lease
from engine.wire.rfc3339 import rfc3339
from engine.wire.site_entry import SiteEntry, encode_site_entry


class SiteName(Leases):
    """The lease of the name of the site of ``own``, over a writer's connection."""

    _forbidden = "the site is not registered"

    def __init__(self, config: Config, own: Lease, store: Caller, log: FilteringBoundLogger) -> None:
        super().__init__(config, own, store, log)
        self._entry = SiteEntry(**msgspec.structs.asdict(own), prefix=config.redis.prefix, url=config.web.url)
        self._listed = CameraList(SitePaths.of(config), lambda _path, _reason: None)

    def _key(self, name: str) -> bytes:
        return site_key(self._vhost, name).encode()

    def _content(self) -> bytes:
        # Cameras may come and go. Those with a ring are on the site.
        self._listed.look()
        entry = msgspec.structs.replace(self._entry, cameras=len(self._listed.rings), seen=rfc3339(time.time_ns()))
        return encode_site_entry(entry)

    def _say_met(self, names: list[str], other: Lease) -> None:
        self._log.error(
            "another site has the same name; give one of them another site.name", name=names[0], other=str(other)
        )

    def _say_alone(self, _: int) -> None:
        self._log.info("no other site has this name any more")


class WriterLeases:
    """The leases of writer ``number``."""

    def __init__(self, config: Config, number: int, own: Lease, store: Caller, log: FilteringBoundLogger) -> None:
        self._cameras = Leases(config, own, store, log)
        self._name = SiteName(config, own, store, log) if number == 0 else None
        self._names = [config.site.name]

    @property
    def contested(self) -> int:
        """Cameras that another site also stores."""
        return len(self._cameras.rivals)

    def look(self, cameras: Iterable[str]) -> None:
        """If it is time: renew the leases. Raises RedisUnavailable."""
        self._cameras.look(cameras)
        if self._name:
            self._name.look(self._names)

    def release(self, cameras: Sequence[str]) -> None:
        """Release our own leases. Raises RedisUnavailable."""
        self._cameras.release(cameras)
        if self._name:
            self._name.release(self._names)
