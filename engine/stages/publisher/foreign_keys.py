"""Keys of another type that stand where the publisher reads a stream or a hash."""

from __future__ import annotations

from typing import Protocol

from engine.servers.overrides.redis import NodeAway
from engine.stages.publisher.reads import is_foreign
from engine.stages.publisher.redis_calls import RedisCalls
from engine.wire.replies import foreign_key


class OnForeign(Protocol):
    """Called for a camera that is passed over, with the reason; for one that is read again, with an empty error."""

    def __call__(self, camera: str, error: str) -> None:
        """Report it."""


def report_nothing(camera: str, error: str) -> None:
    """For callers that ask once."""


class ForeignKeys:
    """Which keys have another type. Their type is asked for over ``redis``, and reported to ``on_foreign``."""

    def __init__(self, redis: RedisCalls, on_foreign: OnForeign) -> None:
        self._redis = redis
        self._on_foreign = on_foreign
        #: Cameras, and keys that belong to no camera, whose key has another type.
        self.names: set[str] = set()

    def forget(self, name: str) -> None:
        """A camera was removed."""
        self.names.discard(name)

    def notice(self, name: str, key: str, reply: object) -> None:
        """Report once that ``key``, the stream or hash of ``name``, has another type, and once that it is valid again.
        ``reply`` is Redis's reply to a read of it. Raises RedisUnavailable."""
        foreign = is_foreign(reply)
        if foreign == (name in self.names) or isinstance(reply, NodeAway):
            return
        if not foreign:
            self.names.discard(name)
            self._on_foreign(name, "")
            return
        (kind,) = self._redis.ask(("TYPE", key), tolerant=True)
        self.names.add(name)
        self._on_foreign(name, foreign_key(key, kind.decode() if isinstance(kind, bytes) else ""))
