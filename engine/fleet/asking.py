"""Asks the APIs of many sites side by side. Each has the same time, however slow the others are."""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from engine.errors import EngineError, Unavailable, WireError
from engine.fleet.answers import SiteStatus, status_of
from engine.fleet.daemon_threads import DaemonThreads
from engine.fleet.http_get import Answer, get
from engine.wire.api_url import ApiUrl
from engine.wire.urls import mask

#: Sites that are asked at a time, if the limit of open files allows it. Of more, those that hang cost another timeout.
SITES_AT_A_TIME_MAX = 1000
#: Requests to each site, each with a connection. It has more files for a moment: a name's look-up has its own.
_REQUESTS = 2
FILES_PER_SITE = 2 * _REQUESTS
#: Files that a process needs besides.
FILES_MIN = 64
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
    turn = asyncio.Semaphore(_at_a_time(len(sites)))
    # Each request looks up a name in a thread, which a silent name server may hold beyond the request's own time.
    asyncio.get_running_loop().set_default_executor(DaemonThreads())

    async def in_turn(site: Asked) -> SiteStatus:
        async with turn:
            return await _ask(site, timeout_seconds, context)

    return await asyncio.gather(*map(in_turn, sites))


def _at_a_time(count: int) -> int:
    """How many of ``count`` sites to ask at a time."""
    wanted = min(count, SITES_AT_A_TIME_MAX)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, (soft - FILES_MIN) // FILES_PER_SITE)
    return max(wanted, 1)


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
