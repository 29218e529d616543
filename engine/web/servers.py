"""The figures of Redis, and the state of the publisher's connection to RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.config import Config
from engine.errors import Cause
from engine.runtime.site_report import SiteReport
from engine.servers.redis.figures import RedisFigures, figures_of
from engine.servers.redis.masters import MasterReply, ask_nodes, failed_members, together
from engine.servers.redis.session import Session
from engine.web import openapi_parts as parts
from engine.web.answers import json_answer
from engine.web.site import REDIS_SECONDS, report_for, site_of
from engine.wire.urls import mask

#: Seconds for which figures answer further requests.
_AGE_SECONDS = 1.0


class RedisNode(msgspec.Struct, frozen=True):
    """A node of a Redis Cluster. ``error`` says why it told no figures; empty if it did. ``state`` is ``answers``; or
    ``away``, ``hangs`` (it takes connections and answers nothing); or ``failed``, if the other nodes count it so and it
    has no slots."""

    address: str
    used_memory_bytes: int
    maxmemory_bytes: int
    connected_replicas: int
    error: str
    role: Literal["master", "replica", "none"] = "master"
    state: Literal["answers", "away", "hangs", "failed"] = "answers"


class RedisAnswer(RedisFigures, frozen=True):
    """Redis. ``up`` is True if it answered, in a cluster if any master did; ``error`` says why there are no figures, or
    which masters are away. Figures of a cluster are those of its masters together. ``nodes`` has them one by one, and
    then the replicas."""

    address: str = ""
    up: bool = False
    error: str = ""
    nodes: tuple[RedisNode, ...] = ()


class BrokerAnswer(msgspec.Struct, frozen=True):
    """RabbitMQ, as the publishers meet it. ``lag_seconds`` is the time between the newest stored and the newest
    confirmed frame. ``brokers`` are the addresses to which they are connected."""

    configured: bool
    connected: bool
    lag_seconds: float
    published: int
    confirmed: int
    expired: int
    brokers: list[str]


class Servers(msgspec.Struct, frozen=True):
    """Redis, and RabbitMQ; None if this is not the site's machine."""

    redis: RedisAnswer
    amqp: BrokerAnswer | None


class ServerFigures:
    """Reads Redis's figures, once for all who ask within a second."""

    def __init__(self, config: Config) -> None:
        self._session = Session(config.redis_address, REDIS_SECONDS)
        self._is_cluster = bool(config.redis_address.cluster)
        self._reading = asyncio.Lock()
        self._address = str(config.redis_address)
        self._answer = RedisAnswer()
        self._until = 0.0

    async def redis(self) -> RedisAnswer:
        """Redis, whether it answers or not."""
        async with self._reading:
            if time.monotonic() >= self._until:
                self._answer = await asyncio.to_thread(self._ask)
                self._until = time.monotonic() + _AGE_SECONDS
            return self._answer

    async def aclose(self) -> None:
        """Close the connection."""
        self._session.close()

    def _ask(self) -> RedisAnswer:
        replies, replicas = ask_nodes(self._session, ("INFO",))
        told = [figures_of(reply.reply) for reply in replies if isinstance(reply.reply, bytes)]
        errors = [_why(reply) for reply in replies]
        return RedisAnswer(
            address=self._address,
            up=bool(told),
            error="; ".join(dict.fromkeys(filter(None, errors))),
            nodes=tuple(self._nodes(replies, replicas)) if self._is_cluster else (),
            **(msgspec.structs.asdict(together(told)) if told else {}),
        )

    def _nodes(self, masters: Sequence[MasterReply], replicas: Sequence[MasterReply]) -> Iterator[RedisNode]:
        """All nodes of a cluster: masters, replicas, and those that count as failed."""
        yield from (_node(reply, "master") for reply in masters)
        yield from (_node(reply, "replica") for reply in replicas)
        seen = {reply.address for reply in (*masters, *replicas)}
        for address in failed_members(self._session):
            if address not in seen:
                yield RedisNode(address, 0, 0, 0, "the cluster counts it as failed", "none", "failed")


def _why(reply: MasterReply) -> str:
    """Why there are no figures; empty if there are."""
    return "" if isinstance(reply.reply, bytes) else mask(str(reply.error or reply.reply or "no answer"))


def _node(reply: MasterReply, role: Literal["master", "replica"]) -> RedisNode:
    figures = figures_of(reply.reply) if isinstance(reply.reply, bytes) else RedisFigures()
    return RedisNode(
        reply.address,
        figures.used_memory_bytes,
        figures.maxmemory_bytes,
        figures.connected_replicas,
        _why(reply),
        role,
        _state(reply),
    )


def _state(reply: MasterReply) -> Literal["answers", "away", "hangs"]:
    """A node that refuses this user its figures answers."""
    if reply.error is None:
        return "answers"
    return "hangs" if reply.error.cause is Cause.REDIS_HANGS else "away"


async def servers(request: Request) -> Response:
    """Redis and RabbitMQ."""
    figures: ServerFigures = request.app.state.servers
    redis, report = await figures.redis(), await report_for(request)
    return json_answer(Servers(redis, _broker(site_of(request).config, report) if report else None))


def _broker(config: Config, report: SiteReport) -> BrokerAnswer:
    publisher = report.publisher
    return BrokerAnswer(
        configured=config.publishes,
        connected=bool(publisher and publisher.connected),
        brokers=publisher.brokers if publisher else [],
        lag_seconds=publisher.lag_seconds if publisher else 0.0,
        published=publisher.published if publisher else 0,
        confirmed=publisher.confirmed if publisher else 0,
        expired=publisher.expired if publisher else 0,
    )


OPENAPI: dict[str, parts.Part] = {
    "/api/v1/servers": parts.get(
        "Redis and RabbitMQ.",
        {200: parts.json_of("Servers", "Figures, a second old. `amqp` is null away from the site's machine.")},
    ),
}

ROUTES = [Route("/api/v1/servers", servers)]
