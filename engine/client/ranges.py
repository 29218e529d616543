"""Walks along journals, a chunk of entries and a chunk of payloads at a time: ranges, and live tails.

What a walk holds is bounded: ``ENTRIES_MAX`` entries, and ``chunk_bytes`` of payload (or one frame, where that is
larger). It moves on when a chunk is complete: one that failed on the way is asked for again. A frame that is gone
while its entry stands is passed over and counted in ``missing``; an entry that the engine did not write, in
``unreadable``.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from engine.client.frame import Frame, FrameEntry, entry_of, with_data
from engine.client.times import NANO_MAX
from engine.client.transport import Query
from engine.config.names import suggestion
from engine.errors import UnknownName, WireError
from engine.wire import keys
from engine.wire.journal import parse_entry

#: Entries of one round trip: about 100 bytes each, and a millisecond of Redis's time.
ENTRIES_MAX = 1000
#: The last id that a stream can hold; nothing can be asked for behind it.
LAST_ID = f"{NANO_MAX}-{NANO_MAX}".encode()
#: Payload bytes of one round trip, where the caller does not say.
CHUNK_BYTES = 4 * 2**20
#: Frames of one round trip; small frames are many.
_FRAMES_MAX = 256
#: Milliseconds that a tail waits for new entries in one round trip, at most.
TAIL_BLOCK_MS = 500
#: Seconds between looks of a tail for cameras that have come.
_CAMERAS_SECONDS = 2.0


class Tenant(NamedTuple):
    """Whose frames are read: names as they are outside of keys. ``known`` are cameras that exist even where nothing of
    them is stored yet."""

    vhost: str
    prefix: str
    known: frozenset[str] = frozenset()

    def journal(self, camera: str) -> str:
        """The camera's stream."""
        return keys.journal_key(self.vhost, self.prefix, camera)

    @property
    def cameras(self) -> str:
        """The hash of the cameras' states."""
        return keys.cameras_key(self.vhost, self.prefix)

    def names(self, reply: Iterable[bytes]) -> list[str]:
        """The cameras of an HKEYS reply, and those known besides; what no camera could be called is passed over."""
        found = set(self.known)
        for name in reply:
            with contextlib.suppress(UnicodeDecodeError, WireError):
                keys.encode_part(name.decode())
                found.add(name.decode())
        return sorted(found)

    def parse(self, camera: str, reply: Sequence[Sequence[Any]]) -> tuple[list[FrameEntry], int]:
        """The entries of an XRANGE reply, and how many in it the engine did not write."""
        found = []
        for identifier, fields in reply:
            with contextlib.suppress(WireError):
                found.append(entry_of(self.vhost, self.prefix, camera, parse_entry(identifier, fields)))
        return found, len(reply) - len(found)

    def check_camera(self, camera: str) -> Query[None]:
        """Returns where the camera is known. Raises UnknownName with the nearest one."""
        if camera in self.known:
            return
        names, journal = yield [("HKEYS", self.cameras), ("EXISTS", self.journal(camera))]
        listed = self.names(names)
        if journal or camera in listed:
            return
        if not listed:
            raise UnknownName(f"nothing is stored for tenant {self.vhost!r} under prefix {self.prefix!r}")
        raise UnknownName(f"no camera {camera!r} in tenant {self.vhost!r}{suggestion(camera, listed)}")


class Payloads:
    """Entries that were read, and their payloads, fetched ahead a chunk at a time."""

    def __init__(self, chunk_bytes: int) -> None:
        self.pending: deque[FrameEntry] = deque()
        self.missing = 0
        self.unreadable = 0
        self._chunk_bytes = chunk_bytes

    def fetch(self, count_max: int) -> Query[list[Frame]]:
        """The next frames, fewer where some are gone."""
        taken: list[FrameEntry] = []
        size = 0
        for entry in itertools.islice(self.pending, min(count_max, _FRAMES_MAX)):
            size += entry.size
            if taken and size > self._chunk_bytes:
                break
            taken.append(entry)
        (payloads,) = yield [("MGET", *(entry.key for entry in taken))]
        for _ in taken:
            self.pending.popleft()
        frames = [with_data(entry, data) for entry, data in zip(taken, payloads, strict=True) if data is not None]
        self.missing += len(taken) - len(frames)
        return frames

    def keep_living(self, entries: list[FrameEntry]) -> Query[list[FrameEntry]]:
        """Those whose frames are there."""
        if not entries:
            return entries
        # One command that counts them all is enough while none is gone.
        (count,) = yield [("EXISTS", *(entry.key for entry in entries))]
        if count == len(entries):
            return entries
        alive = yield [("EXISTS", entry.key) for entry in entries]
        living = [entry for entry, there in zip(entries, alive, strict=True) if there]
        self.missing += len(entries) - len(living)
        return living


class Walk(Payloads):
    """One camera's frames from ``first`` to ``last`` nanosecond, both included; newest first where ``reverse``.

    ``step`` nanoseconds thin them out: of each span of that length, counted from ``anchor`` (None: from the first
    frame), the first frame that it meets. ``limit`` ends it. With ``payload`` False only entries come.
    """

    def __init__(
        self,
        tenant: Tenant,
        camera: str,
        first: int,
        last: int,
        *,
        anchor: int | None = None,
        limit: int | None = None,
        step: int | None = None,
        reverse: bool = False,
        payload: bool = True,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        super().__init__(chunk_bytes)
        self.done = limit == 0
        self.idle = False
        self._tenant = tenant
        self._camera = camera
        self._left = limit
        self._step = step
        self._payload = payload
        self._reverse = reverse
        self._from, self._to = (f"{last}", f"{first}") if reverse else (f"{first}", f"{last}")
        self._anchor = anchor
        self._cell = -1
        self._journal = tenant.journal(camera)
        self._exhausted = False
        self._empty = True

    def chunk(self) -> Query[list[Any]]:
        """The next frames or entries, perhaps none while there are more to come; ``done`` says whether there are."""
        if not self.pending and not self._exhausted:
            yield from self._read()
        found: list[Any] = []
        if self._payload and self.pending:
            found = yield from self.fetch(len(self.pending) if self._left is None else self._left)
        elif self.pending:
            found = list(self.pending)[: self._left]
            self.pending.clear()
        if self._left is not None:
            self._left -= len(found)
        self.done = self._left == 0 or (self._exhausted and not self.pending)
        return found

    def _read(self) -> Query[None]:
        # Where frames turn out to be gone, entries are looked through before payloads are asked for.
        look = not self._payload or self._step is not None or self.missing > 0
        count = ENTRIES_MAX if self._left is None or look else min(self._left, ENTRIES_MAX)
        name = "XREVRANGE" if self._reverse else "XRANGE"
        (reply,) = yield [(name, self._journal, self._from, self._to, "COUNT", count)]
        if not reply and self._empty:
            yield from self._tenant.check_camera(self._camera)
        entries, strange = self._tenant.parse(self._camera, reply)
        if look:
            entries = yield from self.keep_living(entries)
        if reply:
            self._from = f"({reply[-1][0].decode()}"
            self._empty = False
        self._exhausted = len(reply) < count or (not self._reverse and reply[-1][0] == LAST_ID)
        self.unreadable += strange
        self.pending.extend(entries if self._step is None else self._thin(entries, self._step))

    def _thin(self, entries: list[FrameEntry], step: int) -> list[FrameEntry]:
        kept = []
        for entry in entries:
            if self._anchor is None:
                self._anchor = entry.unix_nano
            cell = abs(entry.unix_nano - self._anchor) // step
            if cell != self._cell:
                self._cell = cell
                kept.append(entry)
        return kept


class Tail(Payloads):
    """Frames of some cameras (None: of all, also those that come later) as they are stored, from ``since`` on.

    ``since`` is a nanosecond, a position of an earlier tail, or None for what comes from now on. ``position`` moves
    with what the caller has taken, by ``took``.
    """

    done = False
    #: True where the last look found nothing new.
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
        super().__init__(chunk_bytes)
        self.position: dict[str, str] = {}
        self._tenant = tenant
        self._cameras = cameras
        self._since = since
        self._payload = payload
        self._block_ms = block_ms
        self._read_to: dict[str, str] = {}
        self._begun = False
        self._cameras_at = 0.0

    def took(self, frame: FrameEntry) -> None:
        """The caller has this frame; a tail that is begun from ``position`` goes on behind it."""
        self.position[frame.camera] = frame.entry_id

    def chunk(self) -> Query[list[Any]]:
        """The next frames or entries, by camera in order; none where nothing came for a while."""
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
        if not new:
            begins = []
        elif isinstance(self._since, Mapping):
            begins = [self._since.get(camera, "0-0") for camera in new]
        elif isinstance(self._since, int):
            begins = [f"{self._since - 1}-{NANO_MAX}" if self._since else "0-0"] * len(new)
        elif self._begun:
            # A camera that comes while we look is new as a whole.
            begins = ["0-0"] * len(new)
        else:
            newest = yield [("XREVRANGE", self._tenant.journal(camera), "+", "-", "COUNT", 1) for camera in new]
            begins = [reply[0][0].decode() if reply else "0-0" for reply in newest]
        self._begun = True
        self._cameras_at = now + _CAMERAS_SECONDS
        self._read_to.update(zip(new, begins, strict=True))
        self.position.update(zip(new, begins, strict=True))

    def _read(self) -> Query[None]:
        streams = {self._tenant.journal(camera).encode(): camera for camera in self._read_to}
        if streams:
            names, after = list(streams), list(self._read_to.values())
        else:
            # No camera yet: wait on a stream that cannot be, for no camera's name is empty.
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
