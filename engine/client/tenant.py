"""A tenant's names in Redis, its cameras, and the entries of their journals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from engine.client.frame import FrameEntry, entry_of, with_data
from engine.client.times import NANO_MAX
from engine.client.transport import Query
from engine.client.video import VideoEntry, unit_with_data, video_entry_of
from engine.config.names import suggestion
from engine.errors import UnknownName, WireError
from engine.wire import keys
from engine.wire.journal import VIDEO_ENCODINGS, JournalEntry, parse_entry

#: Entries of one round trip: about 100 bytes each, and 1 ms of Redis's time in all.
ENTRIES_MAX = 1000
#: The last id that a stream can hold.
LAST_ID = f"{NANO_MAX}-{NANO_MAX}".encode()


class Tenant(NamedTuple):
    """The tenant whose frames are read. Names are unescaped. ``known``: cameras that exist even if nothing is stored
    for them yet."""

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
        """The cameras of an HKEYS reply, and the known ones. Skips invalid camera names."""
        found = set(self.known)
        for name in reply:
            with contextlib.suppress(UnicodeDecodeError, WireError):
                keys.frame_key_prefix(self.vhost, self.prefix, name.decode())
                found.add(name.decode())
        return sorted(found)

    def parse(self, camera: str, reply: Sequence[Sequence[Any]]) -> tuple[list[FrameEntry], int]:
        """The entries of an XRANGE reply, and the number of those that the engine did not write."""
        found = []
        for identifier, fields in reply:
            with contextlib.suppress(WireError):
                found.append(self.entry(camera, parse_entry(identifier, fields)))
        return found, len(reply) - len(found)

    def entry(self, camera: str, entry: JournalEntry) -> FrameEntry:
        """A journal entry as readers get it. Raises WireError if it is not of this kind."""
        return entry_of(self.vhost, self.prefix, camera, entry)

    def whole(self, entry: Any, data: bytes) -> FrameEntry:
        """An entry and its payload."""
        return with_data(entry, data)

    def check_camera(self, camera: str) -> Query[None]:
        """Returns if the camera is known. Raises UnknownName with the nearest name."""
        if camera in self.known:
            return
        frames = keys.journal_key(self.vhost, self.prefix, camera)
        video = keys.video_journal_key(self.vhost, self.prefix, camera)
        names, *journals = yield [("HKEYS", self.cameras), ("EXISTS", frames), ("EXISTS", video)]
        listed = self.names(names)
        if any(journals) or camera in listed:
            return
        if not listed:
            raise UnknownName(f"nothing is stored for tenant {self.vhost!r} under prefix {self.prefix!r}")
        raise UnknownName(f"no camera {camera!r} in tenant {self.vhost!r}{suggestion(camera, listed)}")


class VideoTenant(Tenant):
    """The tenant whose video is read."""

    def journal(self, camera: str) -> str:
        """The stream of the camera's access units."""
        return keys.video_journal_key(self.vhost, self.prefix, camera)

    def units(self, camera: str, reply: Sequence[Sequence[Any]]) -> list[VideoEntry]:
        """The entries of an XRANGE reply."""
        return [entry for entry in self.parse(camera, reply)[0] if isinstance(entry, VideoEntry)]

    def entry(self, camera: str, entry: JournalEntry) -> VideoEntry:
        """See Tenant.entry."""
        if entry.encoding not in VIDEO_ENCODINGS:
            raise WireError(f"a journal of video has an entry of {entry.encoding!r}")
        return video_entry_of(self.vhost, self.prefix, camera, entry)

    def whole(self, entry: Any, data: bytes) -> FrameEntry:
        """See Tenant.whole."""
        return unit_with_data(entry, data)
