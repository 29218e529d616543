"""The names in Redis that belong together: of a tenant's frames under one prefix, or of their video."""

from __future__ import annotations

from typing import NamedTuple

from engine.servers.redis.session import glob_literal
from engine.wire import keys
from engine.wire.cluster import slot_of
from engine.wire.keys import FrameKey
from engine.wire.slot_names import name_in_slot


class StoredNames(NamedTuple):
    """Keys and journals of a tenant's frames, or with ``video`` of its access units."""

    vhost: str
    prefix: str
    video: bool = False

    @property
    def pattern(self) -> str:
        """The SCAN pattern of the keys."""
        if self.video:
            return glob_literal(keys.video_root(self.vhost, self.prefix)) + "*"
        names = "".join(f"{glob_literal(keys.encode_part(name))}:" for name in (self.vhost, self.prefix))
        return f"{names}{'{' if keys.is_tagged(self.prefix) else ''}*"

    def parse(self, name: bytes) -> FrameKey:
        """The parts of a key. Raises WireError."""
        parse = keys.parse_video_key if self.video else keys.parse_frame_key
        return parse(name, tagged=keys.is_tagged(self.prefix))

    def key(self, camera: str, unix_nano: int, sequence: int) -> str:
        """The key of a frame or access unit."""
        key = FrameKey(self.vhost, self.prefix, camera, unix_nano, sequence)
        return keys.build_video_key(key) if self.video else keys.build_frame_key(key)

    def journal(self, camera: str) -> str:
        """The stream that lists them."""
        name = keys.video_journal_key if self.video else keys.journal_key
        return name(self.vhost, self.prefix, camera)

    def draft(self, camera: str, token: str, *, cluster: bool) -> str:
        """A journal that is being rebuilt. In a cluster it lies in the journal's slot."""
        if not cluster or keys.is_tagged(self.prefix):
            return keys.draft_key(self.vhost, self.prefix, camera, token)
        return name_in_slot(keys.rebuild_key(self.vhost, f"{token}-"), self._slot(camera))

    def rebuilt(self, camera: str, *, cluster: bool) -> str:
        """Says which rebuild last replaced the journal. In a cluster it lies in the journal's slot."""
        name = (keys.video_rebuilt_key if self.video else keys.rebuilt_key)(self.vhost, self.prefix, camera)
        if not cluster or keys.is_tagged(self.prefix):
            return name
        # No camera is encoded as "%x…".
        return name_in_slot(f"{name}%x", self._slot(camera))

    def _slot(self, camera: str) -> int:
        return slot_of(self.journal(camera).encode())
