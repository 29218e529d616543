"""The publisher's questions to Redis, to one server or to a cluster, and which errors among the replies it can use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from engine.errors import Cause, RedisUnavailable
from engine.servers.overrides.redis import NodeAway
from engine.servers.redis.session import Session
from engine.stages.publisher.cluster_calls import ClusterCalls, NodeUnavailable
from engine.stages.publisher.reads import is_foreign


class RedisCalls:
    """Commands over ``session``. Every method raises RedisUnavailable if Redis is away or refuses."""

    def __init__(self, session: Session | ClusterCalls) -> None:
        self._session = session

    @property
    def away(self) -> RedisUnavailable | None:
        """Why parts of a cluster are away, while others answer; None if all answer."""
        return self._session.away if isinstance(self._session, ClusterCalls) else None

    def ask(self, *commands: tuple[Any, ...], tolerant: bool = False) -> list[Any]:
        """Replies. A WRONGTYPE error is returned, not raised, and so is NodeAway; with ``tolerant`` any error is."""
        replies = self._session.try_call(*commands)
        for reply in replies:
            if isinstance(reply, ResponseError) and not (tolerant or says_nothing(reply)):
                raise RedisUnavailable(
                    f"Redis at {self._session.address} refuses to be read: {reply}", cause=Cause.JOURNALS_FORBIDDEN
                )
        return replies

    def there(self, *commands: tuple[Any, ...]) -> list[Any]:
        """As ``ask``. Raises NodeUnavailable in place of a NodeAway."""
        replies = self.ask(*commands)
        if gone := next((reply for reply in replies if isinstance(reply, NodeAway)), None):
            raise NodeUnavailable(str(gone), cause=Cause.REDIS_AWAY, subject=f"Redis at {self._session.address}")
        return replies

    def call(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Replies without errors. Raises RedisUnavailable for the first error."""
        return self.sound(commands, self.there(*commands))

    def sound(self, commands: Sequence[tuple[Any, ...]], replies: list[Any]) -> list[Any]:
        """The ``replies``. Raises RedisUnavailable for the first error."""
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ResponseError):
                raise RedisUnavailable(f"Redis at {self._session.address} refuses {command[0]} {command[1]}: {reply}")
        return replies


def says_nothing(reply: object) -> bool:
    """True for an error that leaves the other replies valid: a key of another type, or a node that is away."""
    return is_foreign(reply) or isinstance(reply, NodeAway)
