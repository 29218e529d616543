"""Verdicts on RabbitMQ, from its facts."""

from __future__ import annotations

from functools import partial

from engine.config.tls import TLS_CAUSES
from engine.doctor.broker_facts import Backlog, Management
from engine.doctor.findings import Finding
from engine.errors import Audience, Cause, EngineError, advice_of
from engine.servers.amqp.probe import Rights
from engine.wire.urls import mask

#: With more messages than this in a queue, its consumers count as lagging.
QUEUE_MESSAGES_MAX = 10_000
#: Share of the TTL that an event may wait, and a wait in seconds that is always fine.
_AGE_SHARE_MAX = 0.5
_AGE_SECONDS_SMALL = 5.0

_finding = partial(Finding, "rabbitmq")

_TLS = ("TLS", "both ends trust the other's certificate")
_EXCHANGE = ("exchange", "an exchange as in the site file")
_CONNECTION = "a connection with its exchange, as the engine makes it"
#: Cause of a refusal -> the check that fails, and the good state. Any other cause is a failed connection.
_CHECKS = {
    Cause.BROKER_LOGIN: ("authentication", _CONNECTION),
    Cause.VHOST: ("vhost", _CONNECTION),
    Cause.EXCHANGE_FORBIDDEN: ("rights", _CONNECTION),
    Cause.EXCHANGE_MISSING: _EXCHANGE,
    Cause.EXCHANGE_DURABLE: _EXCHANGE,
    Cause.EXCHANGE_TRANSIENT: _EXCHANGE,
    Cause.EXCHANGE_TYPE: _EXCHANGE,
    Cause.EXCHANGE_MISMATCH: _EXCHANGE,
    Cause.PRECONDITION: _EXCHANGE,
    **dict.fromkeys(TLS_CAUSES, _TLS),
}


def refused(error: EngineError) -> Finding:
    """The broker answers but refuses to serve the engine."""
    check, good = _CHECKS.get(error.cause, ("reachable", "a connection within the timeout"))
    todo = advice_of(error, Audience.SITE) or "look at the broker's log, and whether TLS is meant (amqps://)"
    return _finding(check, "broken", mask(error.fact), good, todo)


def exchange(name: str, rights: Rights, *, durable: bool) -> Finding:
    """Whether the events' exchange exists with the properties that the engine needs."""
    good = f"a {'durable' if durable else 'transient'} topic exchange"
    if rights.exists:
        return _finding("exchange", "ok", f"{name} exists, as in the site file", good)
    return _finding(
        "exchange", "information", f"{name} does not exist yet", good, "the engine declares it at its start"
    )


def may(name: str, rights: Rights) -> list[Finding]:
    """The rights to declare the exchange, if needed, and to publish."""
    found = []
    if not rights.exists and rights.declare is False:
        found.append(
            _finding(
                "rights", "broken", f"this user may not declare {name}", "configure right on the exchange",
                "declare the exchange as an administrator, or give this user the right (rabbitmqctl set_permissions)",
            )
        )  # fmt: skip
    if rights.publish is False:
        found.append(
            _finding(
                "rights", "broken", f"this user may not publish to {name}", "write right on the exchange",
                "give this user the right to write (rabbitmqctl set_permissions)",
            )
        )  # fmt: skip
    elif rights.publish:
        found.append(_finding("rights", "ok", f"this user may publish to {name}", "write right on the exchange"))
    elif not found:
        why = "the broker takes nothing now" if rights.blocked else "this needs an exchange that exists"
        found.append(_finding("rights", "information", f"right to publish not checked: {why}", "write right"))
    return found


def alarm(blocked: str, nodes: list[str]) -> Finding:
    """A broker low on memory or disk takes no events."""
    good = "no memory or disk alarm"
    if blocked or nodes:
        reason = blocked or f"alarm on {', '.join(nodes)}"
        return _finding(
            "alarms", "broken", f"the broker takes nothing: {reason}", good,
            "free its memory or disk: drain or limit queues nobody reads; events wait in the journals for their TTL",
        )  # fmt: skip
    return _finding("alarms", "ok", "none", good)


def bound(name: str, seen: Management | None) -> list[Finding]:
    """Whether a consumer receives the events and keeps up."""
    if seen is None:
        what = "queues bound and their backlog not checked: no management API answers this user"
        return [_finding("queues", "information", what, "a queue bound to the exchange", "")]
    if not seen.bound:
        return [
            _finding(
                "queues", "warning", f"nothing is bound to {name}: events go nowhere", "a queue bound to the exchange",
                "start the consumer that binds one (edge-video consume shows how), or leave amqp.amqp_url out",
            )
        ]  # fmt: skip
    full = [queue for queue in seen.queues if queue.messages > QUEUE_MESSAGES_MAX]
    if full:
        worst = max(full, key=lambda queue: queue.messages)
        return [
            _finding(
                "queues", "warning",
                f"{len(full)} of {len(seen.bound)} lag, the longest {worst.name} with {worst.messages:,} messages and "
                f"{worst.consumers} consumers", f"at most {QUEUE_MESSAGES_MAX:,} messages a queue",
                "start or add consumers, or give the queue a length limit or message TTL",
            )
        ]  # fmt: skip
    most = max((queue.messages for queue in seen.queues), default=0)
    return [
        _finding("queues", "ok", f"{len(seen.bound)} bound, at most {most:,} messages waiting in one", "bound, read")
    ]


def backlog(waits: list[Backlog], ttl_seconds: int, *, video: bool = False) -> Finding:
    """The engine's own queue: frames in the journals, or access units, whose events the broker has not confirmed."""
    check, what = ("GOPs waiting", "access units") if video else ("events waiting", "events")
    whose = "video's" if video else "the frames'"
    good = f"the oldest waits less than {_AGE_SHARE_MAX:.0%} of {whose} TTL of {ttl_seconds} s"
    if not waits:
        return _finding(check, "ok", "none", good)
    oldest = max(waits, key=lambda wait: wait.age_seconds)
    total = sum(wait.waiting for wait in waits)
    found = (
        f"about {total:,} {what} of {len(waits)} cameras, the oldest for {oldest.age_seconds:.1f} s ({oldest.camera})"
    )
    if oldest.age_seconds <= max(ttl_seconds * _AGE_SHARE_MAX, min(_AGE_SECONDS_SMALL, ttl_seconds)):
        return _finding(check, "ok", found, good)
    return _finding(
        check, "warning", found, good,
        "see that the publisher runs (edge-video status) and RabbitMQ takes events; past the TTL they are dropped",
    )  # fmt: skip
