"""Follows the journals of some cameras, a chunk at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from engine.client.frame import FrameEntry
from engine.client.payloads import CHUNK_BYTES, Payloads
from engine.client.tenant import ENTRIES_MAX, Tenant
from engine.client.times import NANO_MAX
from engine.client.transport import Query
from engine.wire import keys

#: The longest wait for new entries in one round trip, in milliseconds.
TAIL_BLOCK_MS = 500
#: Seconds between a tail's checks for new cameras.
_CAMERAS_SECONDS = 2.0


class FrameTail(Payloads):
    """Frames of some cameras (None: of all, also later ones) as they are stored, from ``since`` on.

    ``since`` is a nanosecond, the position of an earlier tail, or None for now. ``took`` moves ``position`` to the
    frame that the caller has taken.
    """

    done = False
    #: True if the last read found nothing new.
    idle = False

    def __init__(
        self,
        tenant: Tenant,
        cameras: Sequence[str] | None,
        since: int | Mapping[str, str] | None,
        *,
        payload: bool = True,
        chunk_bytes: int = CHUNK_BYTES,
        block_ms: int = TAIL_BLOCK_MS,
    ) -> None:
        super().__init__(tenant, chunk_bytes)
        self.position: dict[str, str] = {}
        self._cameras = cameras
        self._since = since
        self._payload = payload
        self._block_ms = block_ms
        self._read_to: dict[str, str] = {}
        self._begun = False
        self._cameras_at = 0.0

    def took(self, frame: FrameEntry) -> None:
        """The caller has taken this frame; a tail from ``position`` continues after it."""
        self.position[frame.camera] = frame.entry_id

    def chunk(self) -> Query[list[Any]]:
        """The next frames or entries, in order per camera; none if nothing came for a while."""
        if not self.pending:
            yield from self._look_for_cameras()
            yield from self._read()
        if self._payload and self.pending:
            frames: list[Any] = yield from self.fetch(len(self.pending))
            return frames
        entries = yield from self.keep_living(list(self.pending))
        self.pending.clear()
        return entries

    def _look_for_cameras(self) -> Query[None]:
        now = time.monotonic()
        if self._begun and (self._cameras is not None or now < self._cameras_at):
            return
        if self._cameras is None:
            (names,) = yield [("HKEYS", self._tenant.cameras)]
            wanted = self._tenant.names(names)
        else:
            wanted = list(self._cameras)
            for camera in wanted:
                yield from self._tenant.check_camera(camera)
        new = [camera for camera in wanted if camera not in self._read_to]
        begins = (yield from self._begins(new)) if new else {}
        read_from = yield from self._read_from(begins)
        self._begun = True
        self._cameras_at = now + _CAMERAS_SECONDS
        self._read_to.update(read_from)
        self.position.update(begins)

    def _begins(self, new: list[str]) -> Query[dict[str, str]]:
        """Camera -> id after which the tail begins."""
        if isinstance(self._since, Mapping):
            return {camera: self._since.get(camera, "0-0") for camera in new}
        if isinstance(self._since, int):
            return dict.fromkeys(new, f"{self._since - 1}-{NANO_MAX}" if self._since else "0-0")
        if self._begun:
            # A camera that appears during the tail is read from its first entry.
            return dict.fromkeys(new, "0-0")
        newest = yield [("XREVRANGE", self._tenant.journal(camera), "+", "-", "COUNT", 1) for camera in new]
        return {camera: reply[0][0].decode() if reply else "0-0" for camera, reply in zip(new, newest, strict=True)}

    def _read_from(self, begins: dict[str, str]) -> Query[dict[str, str]]:
        """Camera -> id after which its journal is read."""
        yield from ()
        return begins

    def _read(self) -> Query[None]:
        streams = {self._tenant.journal(camera).encode(): camera for camera in self._read_to}
        if streams:
            names, after = list(streams), list(self._read_to.values())
        else:
            # No camera yet: wait on a stream that cannot exist, because no camera's name is empty.
            names, after = [keys.journal_key(self._tenant.vhost, self._tenant.prefix, "-")[:-1].encode()], ["0-0"]
        count = max(ENTRIES_MAX // len(names), 1)
        (reply,) = yield [("XREAD", "COUNT", count, "BLOCK", self._block_ms, "STREAMS", *names, *after)]
        entries: list[FrameEntry] = []
        self.idle = not reply
        for stream, found in reply or ():
            camera = streams[stream]
            self._read_to[camera] = found[-1][0].decode()
            parsed, strange = self._tenant.parse(camera, found)
            entries += parsed
            self.unreadable += strange
        entries.sort(key=lambda entry: entry.unix_nano)
        self.pending.extend(entries)
