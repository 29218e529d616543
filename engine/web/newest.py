"""The newest frames of a tenant's cameras, for many requests at a time.

A round trip to Redis costs more than all else that answers ``latest.jpg``. So one is under way at a time, and requests
that arrive meanwhile share the next one: one look at the journal of each camera they ask for. A request is never
answered by a look that began before it, so the answer is at least as new as the newest frame when it was asked.

A frame's key never gets another payload, so the payload that was read last is kept for each camera. The look asks
whether it still exists: a frame that was deleted is not shown.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from engine.client.async_transport import AsyncTransport
from engine.client.frame import Frame, FrameEntry, with_data
from engine.client.journal_queries import check_camera
from engine.client.tenant import Tenant
from engine.client.transport import Query
from engine.servers.redis.errors import Command

#: Cameras of one look: bounds its payloads, and how long others wait for it.
_CAMERAS_MAX = 32
#: Payloads that are kept, of all cameras together.
_KEPT_BYTES_MAX = 16 * 2**20


class _Wish:
    """Requests for one camera that share a look: what they will get, and the keys whose payloads they have."""

    def __init__(self, future: asyncio.Future[FrameEntry | None]) -> None:
        self.future = future
        self.have: set[str] = set()


class Newest:
    """The newest frames of one tenant; used from one event loop."""

    def __init__(self, transport: AsyncTransport, tenant: Tenant) -> None:
        self._transport = transport
        self._tenant = tenant
        self._wishes: dict[str, _Wish] = {}
        self._looking: asyncio.Task[None] | None = None
        self._kept: OrderedDict[str, Frame] = OrderedDict()
        self._kept_bytes = 0

    async def get(self, camera: str, have: str = "") -> FrameEntry | None:
        """The newest frame: a ``Frame``, or perhaps only its entry if its key is ``have``. None if the camera's journal
        does not end with a frame that exists; then ask the store.

        Raises QueryError for a name that no key can hold, RedisUnavailable, ServerRefused.
        """
        wish = self._wishes.get(camera)
        if wish is None:
            check_camera(self._tenant, camera)
            wish = self._wishes[camera] = _Wish(asyncio.get_running_loop().create_future())
        wish.have.add(have)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        # Others wait for the same answer, also if this request is cancelled.
        return await asyncio.shield(wish.future)

    async def close(self) -> None:
        """Close the connection."""
        if self._looking is not None:
            self._looking.cancel()
        await self._transport.close()

    async def _look(self) -> None:
        # Requests that the event loop has read already come along.
        await asyncio.sleep(0)
        wishes: dict[str, _Wish] = {}
        try:
            while self._wishes:
                wishes = dict(itertools.islice(self._wishes.items(), _CAMERAS_MAX))
                for camera in wishes:
                    del self._wishes[camera]
                found = await self._transport.run(self._query({camera: wish.have for camera, wish in wishes.items()}))
                for camera, wish in wishes.items():
                    wish.future.set_result(found.get(camera))
        except BaseException as error:
            # Those who came while Redis did not answer are not made to wait for as long again.
            for wish in (*wishes.values(), *self._wishes.values()):
                if not wish.future.done():
                    wish.future.set_exception(error)
                    # Nobody may be waiting any more.
                    wish.future.exception()
            self._wishes.clear()
            if not isinstance(error, Exception):
                raise
        finally:
            self._looking = None

    def _query(self, wanted: Mapping[str, set[str]]) -> Query[dict[str, FrameEntry]]:
        kept = {camera: self._kept[camera] for camera in wanted if camera in self._kept}
        commands: list[Command] = [
            *(("XREVRANGE", self._tenant.journal(camera), "+", "-", "COUNT", 1) for camera in wanted),
            *(("EXISTS", frame.key) for frame in kept.values()),
        ]
        replies = yield commands
        exist = dict(zip(kept, replies[len(wanted) :], strict=True))
        found: dict[str, FrameEntry] = {}
        missing: dict[str, FrameEntry] = {}
        for camera, reply in zip(wanted, replies, strict=False):
            frame = kept.get(camera)
            if frame and exist[camera] and reply and reply[0][0] == frame.entry_id.encode():
                found[camera] = frame
            elif entries := self._tenant.parse(camera, reply)[0]:
                missing[camera] = entries[0]
        if not missing:
            return found
        # A reader that has the newest payload needs to know only that it still exists.
        known = {camera for camera, entry in missing.items() if wanted[camera] == {entry.key}}
        fetched = [camera for camera in missing if camera not in known]
        commands = [("EXISTS", missing[camera].key) for camera in known]
        if fetched:
            commands.append(("MGET", *(missing[camera].key for camera in fetched)))
        replies = yield commands
        found.update({camera: missing[camera] for camera, exists in zip(known, replies, strict=False) if exists})
        payloads: list[Any] = replies[-1] if fetched else []
        for camera, data in zip(fetched, payloads, strict=True):
            if data is not None:
                found[camera] = self._keep(with_data(missing[camera], data))
        return found

    def _keep(self, frame: Frame) -> Frame:
        old = self._kept.pop(frame.camera, None)
        self._kept_bytes += frame.size - (old.size if old else 0)
        self._kept[frame.camera] = frame
        while self._kept_bytes > _KEPT_BYTES_MAX:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= old.size
        return frame
