"""The figures of Redis, and the state of the publisher's connection to RabbitMQ."""

from __future__ import annotations

import asyncio
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.client.async_transport import AsyncTransport
from engine.config import Config
from engine.errors import EngineError
from engine.runtime.site_report import SiteReport
from engine.servers.redis.figures import RedisFigures, figures_of
from engine.web import openapi_parts as parts
from engine.web.answers import json_answer
from engine.web.site import REDIS_SECONDS, report_for, site_of
from engine.wire.urls import mask

#: Seconds for which figures answer further requests.
_AGE_SECONDS = 1.0


class RedisAnswer(RedisFigures, frozen=True):
    """Redis. ``up`` is True if it answered; ``error`` says why there are no figures."""

    address: str = ""
    up: bool = False
    error: str = ""


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
        self._transport = AsyncTransport(config.redis_address, REDIS_SECONDS)
        self._reading = asyncio.Lock()
        self._address = str(config.redis_address)
        self._answer = RedisAnswer()
        self._until = 0.0

    async def redis(self) -> RedisAnswer:
        """Redis, whether it answers or not."""
        async with self._reading:
            if time.monotonic() >= self._until:
                try:
                    (info,) = await self._transport.call([("INFO",)])
                    figures = msgspec.structs.asdict(figures_of(bytes(info)))
                    self._answer = RedisAnswer(address=self._address, up=True, **figures)
                except (EngineError, TypeError, ValueError) as failure:
                    self._answer = RedisAnswer(address=self._address, error=mask(str(failure)))
                self._until = time.monotonic() + _AGE_SECONDS
            return self._answer

    async def aclose(self) -> None:
        """Close the connection."""
        await self._transport.close()


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
