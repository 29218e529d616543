"""One round trip to a cluster, without I/O: a generator yields each step, and is sent its outcome.

So blocking and asyncio connections share it. It obeys the answers of nodes that do not serve a slot: MOVED, ASK,
TRYAGAIN and CLUSTERDOWN. A command that got one of these has not been carried out, so it is sent again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

from engine.errors import Cause, EngineError, RedisUnavailable
from engine.servers.redis.cluster_round import Request, Round
from engine.servers.redis.cluster_state import ClusterState
from engine.servers.redis.errors import Command
from engine.servers.redis.patience import Patience
from engine.wire.cluster import Node
from engine.wire.cluster_routing import wait_ms

#: Redirections that are followed at once; further ones after a pause.
_REDIRECTS_MAX = 5
#: Pauses between two looks at streams of several slots, in seconds; a pause is a quarter of the time waited so far.
_LOOK_SECONDS_MIN = 0.001
_LOOK_SECONDS_MAX = 0.02


class Renew(NamedTuple):
    """Renew the map (``ClusterState.renew``); what that raises is thrown into the generator."""


class Send(NamedTuple):
    """Send to all these nodes, then read their replies. The outcome has, for each node, its replies or its error."""

    requests: Mapping[Node, Request]


class Pause(NamedTuple):
    """Sleep."""

    seconds: float


Step = Renew | Send | Pause
Steps = Generator[Step, Any, list[Any]]


def cluster_call(
    state: ClusterState, commands: Sequence[Command], timeout_seconds: float, *, repeats: bool = False
) -> Steps:
    """The replies to ``commands``; error replies as ResponseError.

    With ``repeats``, for commands that only read, what a broken connection left open is asked again. Redirections are
    obeyed, and outages bridged, until ``timeout_seconds`` have passed. A node that did not answer in time is not waited
    for again: only if another one has its slots by then, that one is asked. Raises RedisUnavailable, ServerRefused.
    """
    patience = Patience(state.address, timeout_seconds)
    round_ = Round(commands)
    waits = wait_ms(commands)
    begun = time.monotonic()
    until = begun + (math.inf if waits == 0 else (waits or 0) / 1000)
    redirections = 0
    #: True after a whole timeout.
    waited = False
    while True:
        fresh = state.map is None or state.fresh
        try:
            known = state.map or (yield Renew())
        except RedisUnavailable:
            if not repeats or patience.ends():
                raise
            yield Pause(patience.pause())
            continue
        requests = round_.requests(state, known)
        if silent := state.silent.first_error(node for node, request in requests.items() if not request.replica):
            if fresh:
                raise silent[1]
            state.failed(known, silent[0])
            continue
        outcome: Mapping[Node, list[Any] | EngineError] = yield Send(requests)
        broken: EngineError | None = None
        for node, answer in outcome.items():
            if not isinstance(answer, EngineError):
                round_.take(node, requests[node], answer)
                continue
            state.silent.note(node, answer)
            if requests[node].replica:
                state.avoid(node)
            elif not isinstance(answer, RedisUnavailable):
                raise answer
            else:
                broken = answer
                state.failed(known, node)
        for away in round_.away:
            state.failed(known, away)
        if broken and not repeats:
            raise broken
        if broken and broken.cause is Cause.REDIS_HANGS:
            if waited:
                raise broken
            waited = True
            continue
        if round_.done:
            replies = round_.replies(known)
            if waits is None or any(reply is not None for reply in replies) or time.monotonic() >= until:
                return replies
            now = time.monotonic()
            yield Pause(max(min(max((now - begun) / 4, _LOOK_SECONDS_MIN), _LOOK_SECONDS_MAX, until - now), 0.0))
            round_.again()
            continue
        if round_.redirects:
            state.moved(known, round_.redirects)
        redirections += 1
        if not (broken or round_.away or round_.waits) and redirections <= _REDIRECTS_MAX:
            continue
        if patience.ends():
            if broken:
                raise broken
            return round_.replies(known)
        yield Pause(patience.pause())
