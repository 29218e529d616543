"""All queries about a tenant's frames, without I/O; ``transport`` runs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.client.frame import Frame, FrameEntry, frame_of, with_data
from engine.client.journal_queries import JournalQueries
from engine.client.stats import StoreStats
from engine.client.stats_queries import store_stats
from engine.client.tenant import Tenant
from engine.client.times import When
from engine.client.transport import Query
from engine.errors import QueryError, WireError
from engine.servers.redis.errors import Command
from engine.wire import keys
from engine.wire.journal import entry_id
from engine.wire.state import CameraStatus, decode_status

#: Keys of one round trip of ``get_many``: the sizes of their frames are unknown.
_GETS_MAX = 32


class Queries(JournalQueries):
    """All queries about one tenant's frames."""

    def __init__(self, tenant: Tenant, chunk_bytes: int) -> None:
        super().__init__(tenant, chunk_bytes)
        #: Cameras of earlier snapshots; the next snapshot reads them in its first round trip.
        self._met: frozenset[str] = frozenset()

    def nearest(self, camera: str, when: When | None) -> Query[Frame | None]:
        """The newest frame at or before a time."""
        frames = self.range(camera, None, when, limit=1, reverse=True)
        while not frames.done:
            found: list[Frame] = yield from frames.chunk()
            if found:
                return found[0]
        return None

    def get_many(self, names: Iterable[str | bytes]) -> Query[list[Frame | None]]:
        """The frames of some keys, None for each that is gone. Keys of other tenants are refused."""
        if isinstance(names, str | bytes):
            raise QueryError(f"{names!r} is one key; get takes one, get_many a list of them")
        wanted = [self._own(name) for name in names]
        found: list[Frame | None] = []
        for first in range(0, len(wanted), _GETS_MAX):
            part = wanted[first : first + _GETS_MAX]
            identifiers = [entry_id(key.unix_nano, key.sequence) for key in part]
            payloads, *listed = yield [
                ("MGET", *(keys.build_frame_key(key) for key in part)),
                *(
                    ("XRANGE", self.tenant.journal(key.camera), identifier, identifier)
                    for key, identifier in zip(part, identifiers, strict=True)
                ),
            ]
            for key, data, entries in zip(part, payloads, listed, strict=True):
                if data is None:
                    found.append(None)
                    continue
                parsed, _ = self.tenant.parse(key.camera, entries)
                found.append(with_data(parsed[0], data) if parsed else frame_of(key, data))
        return found

    def cameras(self) -> Query[dict[str, CameraStatus]]:
        """The cameras of the tenant, by name, and their states."""
        (flat,) = yield [("HGETALL", self.tenant.cameras)]
        states = dict(zip(flat[0::2], flat[1::2], strict=True))
        return {camera: _status(states.get(camera.encode(), b"")) for camera in self.tenant.names(states)}

    def snapshot(self) -> Query[dict[str, Frame]]:
        """The newest frame of every camera that has one."""
        met = sorted(self._met | self.tenant.known)
        newest, names = yield from self._newest(met, ("HKEYS", self.tenant.cameras))
        new = sorted(set(self.tenant.names(names)) - set(met))
        if new:
            more, _ = yield from self._newest(new, ("PING",))
            newest.update(more)
            self._met = frozenset([*met, *new])
        entries = [entry for listed in newest.values() for entry in listed]
        # All at once: the caller holds the whole snapshot anyway.
        payloads = (yield [("MGET", *(entry.key for entry in entries))])[0] if entries else []
        found = zip(entries, payloads, strict=True)
        frames = {entry.camera: with_data(entry, data) for entry, data in found if data is not None}
        for camera in newest:
            if camera not in frames and (older := (yield from self.nearest(camera, None))):
                frames[camera] = older
        return dict(sorted(frames.items()))

    def stats(self) -> Query[StoreStats]:
        """What is stored, per camera."""
        listed = yield from self.cameras()
        return (yield from store_stats(self.tenant, list(listed)))

    def _newest(self, cameras: Sequence[str], other: Command) -> Query[tuple[dict[str, list[FrameEntry]], list[bytes]]]:
        """The last entry of each camera that has one, and the reply to one more command, in one round trip. A camera's
        list is empty if the engine did not write its last entry."""
        commands: list[Command] = [("XREVRANGE", self.tenant.journal(c), "+", "-", "COUNT", 1) for c in cameras]
        *replies, answer = yield [*commands, other]
        listed = zip(cameras, replies, strict=True)
        return {camera: self.tenant.parse(camera, reply)[0] for camera, reply in listed if reply}, answer

    def _own(self, name: str | bytes) -> keys.FrameKey:
        if not isinstance(name, str | bytes):
            raise QueryError(f"{name!r} is no key; a key is text")
        try:
            key = keys.parse_frame_key(name, tagged=keys.is_tagged(self.tenant.prefix))
        except WireError as error:
            raise QueryError(str(error)) from None
        if (key.vhost, key.prefix) != (self.tenant.vhost, self.tenant.prefix):
            raise QueryError(
                f"key {name!r} is of tenant {key.vhost!r} and prefix {key.prefix!r}; "
                f"this store reads {self.tenant.vhost!r} and {self.tenant.prefix!r}"
            )
        return key


def _status(text: bytes) -> CameraStatus:
    try:
        return decode_status(text)
    except WireError:
        return CameraStatus()
