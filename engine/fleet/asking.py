"""Asks the APIs of many sites side by side. Each has the same time, however slow the others are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from engine.errors import EngineError, Unavailable, WireError
from engine.fleet.answers import SiteStatus, status_of
from engine.fleet.http_get import Answer, get
from engine.wire.api_url import ApiUrl
from engine.wire.urls import mask

#: Sites that are asked at a time: two connections each, far below the limit of open files.
SITES_AT_A_TIME_MAX = 64
#: Requests to each site.
_REQUESTS = 2
#: Most characters of a reason.
_REASON_CHARACTERS_MAX = 300


class Asked(NamedTuple):
    """A site to ask: its name (empty: as it calls itself), its API, and the token that opens it."""

    name: str
    api: ApiUrl
    token: str

    def __repr__(self) -> str:
        return f"Asked({self.name!r}, {self.api})"


def ask_all(sites: Sequence[Asked], timeout_seconds: float, context: ssl.SSLContext | None) -> list[SiteStatus]:
    """The status of each site, in the order of ``sites``. A site that does not answer within ``timeout_seconds`` is
    ``away``. ``context`` is for APIs that speak TLS."""
    return asyncio.run(_ask_all(sites, timeout_seconds, context))


async def _ask_all(sites: Sequence[Asked], timeout_seconds: float, context: ssl.SSLContext | None) -> list[SiteStatus]:
    turn = asyncio.Semaphore(SITES_AT_A_TIME_MAX)
    # Each request looks up a name in a thread, which a silent name server may hold beyond the request's own time. With
    # asyncio's few threads, such names would keep the other sites waiting. Threads are made only as they are needed.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_REQUESTS * max(len(sites), 1)))

    async def in_turn(site: Asked) -> SiteStatus:
        async with turn:
            return await _ask(site, timeout_seconds, context)

    return await asyncio.gather(*map(in_turn, sites))


async def _ask(site: Asked, timeout_seconds: float, context: ssl.SSLContext | None) -> SiteStatus:
    try:
        report, health = await asyncio.gather(
            get(site.api, "/api/v1/status", site.token, timeout_seconds, context),
            get(site.api, "/health", site.token, timeout_seconds, context),
        )
        _refuse(report)
        return status_of(site.name, str(site.api), report.body, health.body)
    except EngineError as error:
        secrets = (site.token,) if site.token else ()
        reason = mask(str(error), secrets)[:_REASON_CHARACTERS_MAX]
        return SiteStatus(site.name or site.api.authority, str(site.api), "away", reason=reason)


def _refuse(answer: Answer) -> None:
    """Raises Unavailable for an answer that is no report."""
    match answer.status:
        case 200:
            return
        case 401:
            raise Unavailable("the token is missing or wrong (401): give the site's web.token")
        case 403:
            raise Unavailable("the token does not open the site's status (403): give web.token, not a tenant's")
        case 404:
            raise Unavailable("no site runs beside its web role, or this is not a web role (404): check url")
        case 421:
            raise Unavailable("the API answers only on its own machine (421): set web.listen and web.token")
    raise Unavailable(f"status {answer.status}{_detail(answer.body)}")


def _detail(body: bytes) -> str:
    try:
        return f": {msgspec.json.decode(body, type=dict[str, str | int])['detail']}"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, WireError):
        return ""
