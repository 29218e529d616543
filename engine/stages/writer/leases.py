"""Leases: one key per camera names the site that stores its frames. They reveal two sites that use the same names.

A site takes its leases before it starts, the writer renews them, and a clean stop releases them; otherwise they expire.
A lease is no lock: if another site holds it, the writer logs that and continues to store, because frames come first.
A site that restarts after a kill has the token of its run directory and takes over its leases at once.

Each look reads all leases, then sets those that are free or its own: two round trips every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.errors import WireError
from engine.servers.redis.errors import forbidden
from engine.stages.writer.cluster_store import ClusterStore
from engine.stages.writer.store import Caller, Store
from engine.wire import resp
from engine.wire.keys import lease_key
from engine.wire.lease import LEASE_BYTES_MAX, Lease, decode_lease, encode_lease

#: Seconds until an unrenewed lease expires: the longest wait of a start after a kill elsewhere.
LEASE_SECONDS = 15.0
#: Seconds between renewals: two may fail.
RENEW_SECONDS = 5.0
#: Leases read in one round trip; bounds the size of hostile values.
_CAMERAS_MAX = 100
#: Cameras named in a message, at most.
NAMED_MAX = 5


class Leases:
    """The leases of a site's cameras, over a writer's connection. ``own`` is the content of this site's leases."""

    #: What the log says if this user may not use the keys.
    _forbidden = "no leases are taken"

    def __init__(self, config: Config, own: Lease, store: Caller, log: FilteringBoundLogger) -> None:
        #: The configuration parses the vhost anew each time.
        self._vhost, self._prefix = config.vhost, config.prefix
        self._own = own
        self._store = store
        self._log = log
        self._next = 0.0
        self._milliseconds = b"%d" % int(1000 * LEASE_SECONDS)
        self._refused = ""
        self._looked_after: set[str] = set()
        #: Cameras that another site also stores, and its lease.
        self.rivals: dict[str, Lease] = {}

    def look(self, cameras: Iterable[str]) -> None:
        """If it is time: renew the leases of ``cameras``, and release those of removed cameras. Logs the leases of
        other sites once. Raises RedisUnavailable."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + RENEW_SECONDS
            wanted = list(cameras)
            self._note(self.take(wanted))
            gone = self._looked_after.difference(wanted)
            self._looked_after = set(wanted)
            self.release(sorted(gone))

    def take(self, cameras: Sequence[str], *, over: bool = False) -> dict[str, Lease]:
        """Take or renew leases that are free or our own, with ``over`` also those of others; returns others' leases.

        Raises RedisUnavailable.
        """
        others: dict[str, Lease] = {}
        data = self._content()
        for first in range(0, len(cameras), _CAMERAS_MAX):
            part = cameras[first : first + _CAMERAS_MAX]
            commands = []
            for camera, standing in zip(part, self._read(part), strict=True):
                if standing and standing.holder != self._own.holder and not over:
                    others[camera] = standing
                    continue
                # Another site may take a free lease before our command arrives.
                guard = () if standing or over else (b"NX",)
                commands.append(resp.command(b"SET", self._key(camera), data, b"PX", self._milliseconds, *guard))
            for reply in self._store.call(commands) if commands else ():
                self._hear(reply)
        return others

    def remaining(self, cameras: Sequence[str]) -> list[int]:
        """Remaining milliseconds of the leases of ``cameras``; below 0 for no lease. Raises RedisUnavailable."""
        replies = self._store.call([resp.command(b"PTTL", self._key(camera)) for camera in cameras])
        return [reply if isinstance(reply, int) else -1 for reply in replies]

    def release(self, cameras: Sequence[str]) -> None:
        """Release our own leases among those of ``cameras``. Raises RedisUnavailable."""
        for first in range(0, len(cameras), _CAMERAS_MAX):
            part = cameras[first : first + _CAMERAS_MAX]
            ours = [
                camera
                for camera, standing in zip(part, self._read(part), strict=True)
                if standing and standing.holder == self._own.holder
            ]
            if ours:
                # Not DEL: the right to delete leases would also be a right to delete frames.
                self._store.call([resp.command(b"PEXPIRE", self._key(camera), b"1") for camera in ours])

    def _key(self, camera: str) -> bytes:
        return lease_key(self._vhost, self._prefix, camera).encode()

    def _content(self) -> bytes:
        return encode_lease(self._own)

    def _read(self, cameras: Sequence[str]) -> list[Lease | None]:
        """The lease of each camera; None if there is none. An invalid value counts as ours and is overwritten."""
        end = b"%d" % LEASE_BYTES_MAX
        replies = self._store.call([resp.command(b"GETRANGE", self._key(camera), b"0", end) for camera in cameras])
        found: list[Lease | None] = []
        for reply in replies:
            lease = self._own if str(reply).startswith("WRONGTYPE") else None
            if isinstance(reply, bytes) and reply:
                try:
                    lease = decode_lease(reply)
                except WireError as error:
                    lease = self._own
                    self._warn_once("lease that cannot be read is replaced", str(error))
            self._hear(reply)
            found.append(lease)
        return found

    def _hear(self, reply: Any) -> None:
        """Warn if this user may not use leases. Other errors are ignored: frames are stored without leases too."""
        if isinstance(reply, hiredis.ReplyError) and forbidden(reply):
            advice = "recreate the writer's user with edge-video tenants acl"
            self._warn_once(f"{self._forbidden}: this user may not; {advice}", str(reply))

    def _warn_once(self, event: str, error: str) -> None:
        if self._refused != event:
            self._refused = event
            self._log.warning(event, error=error)

    def _note(self, others: dict[str, Lease]) -> None:
        """Log the changes since the last look."""
        before = {camera: lease.holder for camera, lease in self.rivals.items()}
        self.rivals = others
        changed: dict[str, list[str]] = {}
        for camera, lease in others.items():
            if before.get(camera) != lease.holder:
                changed.setdefault(lease.holder, []).append(camera)
        for cameras in changed.values():
            self._say_met(cameras, others[cameras[0]])
        if before and not others:
            self._say_alone(len(before))

    def _say_met(self, cameras: list[str], other: Lease) -> None:
        self._log.error(
            "another site stores under the same names; stop one, or change a prefix, vhost or camera id",
            cameras=len(cameras),
            first=", ".join(cameras[:NAMED_MAX]),
            other=str(other),
        )

    def _say_alone(self, cameras: int) -> None:
        self._log.info("no other site stores under these names any more", cameras=cameras)


@contextmanager
def open_leases(config: Config, own: Lease, log: FilteringBoundLogger, kind: type[Leases] = Leases) -> Iterator[Leases]:
    """Leases over their own connection. Raises RedisUnavailable, ServerRefused."""
    address, timeout = config.redis_address, config.redis.timeout_seconds
    store: Store | ClusterStore
    store = ClusterStore(address, timeout, lambda: None) if address.cluster else Store(address, timeout, lambda: None)
    try:
        if isinstance(store, ClusterStore):
            store.connect()
        else:
            store.attach(store.open())
        yield kind(config, own, store, log)
    finally:
        store.close()
