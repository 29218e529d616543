"""Examines every part of a site. A part that does not answer does not keep the others from being examined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from engine.config import Config
from engine.config.memory import Seen, redis_memory
from engine.config.tls import TLS_CAUSES
from engine.doctor import (
    broker_checks,
    broker_facts,
    camera_checks,
    cluster_checks,
    machine_checks,
    machine_facts,
    redis_checks,
    redis_memory_checks,
)
from engine.doctor.broker_facts import MANAGEMENT_PORTS
from engine.doctor.camera_probe import CameraFacts
from engine.doctor.camera_probe import gather as open_cameras
from engine.doctor.cluster_facts import gather as ask_cluster
from engine.doctor.cpu_costs import cores
from engine.doctor.findings import Finding, not_asked
from engine.doctor.redis_facts import gather as ask_redis
from engine.doctor.tcp_check import try_to_reach, unreachable
from engine.errors import (
    Audience,
    BrokerUnavailable,
    Cause,
    EngineError,
    RedisUnavailable,
    ServerRefused,
    advice_of,
)
from engine.runtime.machine import embedded_memory
from engine.runtime.site_report import SiteReport
from engine.runtime.status import collect
from engine.servers.amqp import probe as broker_probe
from engine.servers.amqp.check import check_one
from engine.servers.amqp.parameters import metadata_exchange
from engine.servers.redis.session import Session
from engine.wire.amqp_url import AmqpAddress
from engine.wire.cluster import Node
from engine.wire.redis_address import RedisAddress
from engine.wire.urls import host_port, mask


class Examined(NamedTuple):
    """All findings, in the order of the report, and whether the site was running."""

    running: bool
    findings: list[Finding]


class _Redis(NamedTuple):
    """The findings about Redis; ``maxmemory`` of it, 0 if it is not set, None if unknown; and whether masters of a
    cluster do not answer."""

    findings: list[Finding]
    maxmemory: int | None = None
    masters_away: bool = False


def examine(
    config: Config, *, cameras: bool = True, management_ports: tuple[tuple[str, int], ...] = MANAGEMENT_PORTS
) -> Examined:
    """Examine the site's servers, machine and, unless switched off, cameras. Takes as long as their timeouts."""
    report = collect(config, memory=False)
    redis_seen = _redis(config, running=report.running)
    findings, most = redis_seen.findings, redis_seen.maxmemory
    findings += rabbitmq(config, management_ports, running=report.running, masters_away=redis_seen.masters_away)
    seen = look_at_cameras(config, report) if cameras else {}
    need = sum(cores(camera, seen.get(camera.id)) for camera in config.cameras)
    findings += machine_checks.verdicts(machine_facts.gather(config), len(config.cameras), need, running=report.running)
    known = {
        facts.id: Seen(facts.fps, facts.frame_bytes, facts.packet_fps, facts.packet_bytes) for facts in seen.values()
    }
    lifetimes = config.ttl_seconds(video=False), config.ttl_seconds(video=True)
    findings.append(redis_memory_checks.memory_need(redis_memory(config, known), most, *lifetimes))
    findings += [camera_checks.verdict(camera, seen[camera.id]) for camera in config.cameras if camera.id in seen]
    if not cameras:
        findings.append(Finding("cameras", "all", "information", "not examined, as requested"))
    return Examined(report.running, findings)


def redis(config: Config, *, running: bool) -> list[Finding]:
    """Redis with the writer's user and, if it differs, the publisher's."""
    return _redis(config, running=running).findings


def _redis(config: Config, *, running: bool) -> _Redis:
    if config.embedded and not running:
        return _Redis([_embedded_away("redis")], embedded_memory(config))
    address = config.redis_address
    if address.cluster:
        return _cluster(config)
    try:
        with Session(address, config.redis.timeout_seconds) as session:
            facts = ask_redis(config, session)
    except (RedisUnavailable, ServerRefused) as error:
        return _Redis([_redis_refused(address, error, config.redis.timeout_seconds)])
    findings = [redis_checks.answered("reachable", str(address)), *_publisher(config)]
    findings += redis_checks.verdicts(facts, config.redis.ttl_seconds)
    return _Redis(findings, redis_checks.maxmemory(facts.info))


def _cluster(config: Config) -> _Redis:
    """As ``_redis``, for a cluster."""
    address = config.redis_address
    try:
        facts = ask_cluster(config)
    except (RedisUnavailable, ServerRefused) as error:
        return _Redis([_redis_refused(address, error, config.redis.timeout_seconds)])
    findings = cluster_checks.verdicts(facts, address, config.redis.ttl_seconds)
    findings[1:1] = _publisher(config, list(facts.masters))
    return _Redis(findings, cluster_checks.maxmemory(facts.masters), bool(facts.masters_away))


def _publisher(config: Config, nodes: Sequence[Node] = ()) -> list[Finding]:
    """Whether the publisher's user may log in, if it is another one; in a cluster, at those ``nodes`` that answer."""
    publisher = config.publisher_redis_address
    if not config.publishes or publisher == config.redis_address:
        return []
    try:
        for where in [publisher.node(*node) for node in nodes] or [publisher]:
            with Session(where, config.redis.timeout_seconds):
                pass
    except (RedisUnavailable, ServerRefused) as error:
        return [_publisher_refused(error)]
    return [redis_checks.answered("publisher's user", str(publisher))]


def _redis_refused(address: RedisAddress, error: EngineError, timeout_seconds: float) -> Finding:
    found = mask(error.fact)
    if isinstance(error, ServerRefused):
        todo = advice_of(error, Audience.SITE) or "look at the server's log"
        if error.cause in TLS_CAUSES:
            return Finding("redis", "TLS", "broken", found, "both ends trust the other's certificate", todo)
        if error.cause is Cause.UNKNOWN_SERVICE:
            return Finding("redis", "reachable", "broken", found, "a sentinel that names a master", todo)
        return Finding("redis", "authentication", "broken", found, "the server takes the credentials", todo)
    if address.sentinel:
        todo = "start the sentinels and the servers, or correct redis.sentinels"
        return Finding("redis", "reachable", "broken", found, "a sentinel that names a master", todo)
    if address.cluster:
        todo = "start its nodes, or correct redis.cluster"
        return Finding("redis", "reachable", "broken", found, "a node that says where slots are", todo)
    reach = try_to_reach(address.host, address.port, address.path, timeout_seconds)
    return unreachable("redis", str(address), reach, found)


def _publisher_refused(error: EngineError) -> Finding:
    if error.cause is Cause.LOGIN:
        error = EngineError.of(error, cause=Cause.PUBLISHER_LOGIN)
    todo = advice_of(error, Audience.SITE)
    return Finding("redis", "publisher's user", "broken", mask(error.fact), "may log in", todo)


def rabbitmq(
    config: Config, ports: tuple[tuple[str, int], ...], *, running: bool, masters_away: bool = False
) -> list[Finding]:
    """RabbitMQ with the publisher's user, and the events in Redis that wait for it. With ``masters_away``, a part of
    Redis is known not to answer, and is not asked again."""
    if not config.publishes:
        why = "metadata.enabled is false" if config.amqp.urls else "amqp.amqp_url is not set"
        return [Finding("rabbitmq", "publisher", "information", f"none: {why}; metadata stays in the journals")]
    findings = _brokers(config, ports)
    if config.embedded and not running:
        return [*findings, _embedded_away("rabbitmq")]
    if masters_away:
        return [*findings, _not_checked("events waiting", "a part of the cluster does not answer")]
    try:
        for video in (False, True) if config.publishes_video else (False,):
            waits = broker_facts.backlog(config, video=video)
            findings.append(broker_checks.backlog(waits, config.ttl_seconds(video=video), video=video))
    except RedisUnavailable as error:
        if error.cause is Cause.JOURNALS_FORBIDDEN:
            findings.append(not_asked("rabbitmq", "events waiting", "for journals and cursors", "few, and young"))
        else:
            findings.append(_not_checked("events waiting", "Redis does not answer"))
    except ServerRefused:
        findings.append(_not_checked("events waiting", "Redis refuses the publisher's user"))
    return findings


def _brokers(config: Config, ports: tuple[tuple[str, int], ...]) -> list[Finding]:
    """The findings of each broker. Of several, those of one that does not serve us are warnings while another does."""
    found = {address: _broker(config, address, ports) for address in config.amqp.addresses}
    if len(found) == 1:
        return next(iter(found.values()))
    served = any(one.check == "reachable" and one.verdict == "ok" for findings in found.values() for one in findings)
    named: list[Finding] = []
    for address, findings in found.items():
        serves = any(one.check == "reachable" and one.verdict == "ok" for one in findings)
        where = host_port(address.host, address.port)
        for one in findings:
            verdict = "warning" if one.verdict == "broken" and served and not serves else one.verdict
            named.append(structs.replace(one, check=f"{one.check}, {where}", verdict=verdict))
    return named


def _broker(config: Config, asked: AmqpAddress, ports: tuple[tuple[str, int], ...]) -> list[Finding]:
    host, port, vhost = asked.host, asked.port, asked.vhost
    reach = try_to_reach(host, port, "", config.amqp.timeout_seconds)
    address = f"RabbitMQ at {host}:{port}"
    if reach.way != "answers":
        return [unreachable("rabbitmq", address, reach, "")]
    exchange = metadata_exchange(config.metadata)
    try:
        rights = broker_probe.rights(config.amqp, asked, exchange)
    except BrokerUnavailable as error:
        return [broker_checks.refused(error)]
    findings = [
        Finding("rabbitmq", "reachable", "ok", f"{address} takes the credentials and the vhost {vhost}", "a connection")
    ]
    tls = broker_probe.tls(config.amqp, asked)
    seen = broker_facts.management(host, vhost, asked.username, asked.password, exchange.name, ports, tls)
    findings.append(broker_checks.alarm(rights.blocked, seen.alarms if seen else []))
    shut = None
    if rights.exists:
        # The engine declares the exchange at its start too. Declaring an existing exchange does not change it.
        try:
            check_one(config.amqp, exchange, asked)
        except BrokerUnavailable as error:
            shut = broker_checks.refused(error)
    findings.append(shut or broker_checks.exchange(exchange.name, rights, durable=exchange.durable))
    findings += broker_checks.may(exchange.name, rights)
    return findings + broker_checks.bound(exchange.name, seen)


def look_at_cameras(config: Config, report: SiteReport) -> dict[str, CameraFacts]:
    """Facts by camera id: from the site's processes, or, if none of them has the camera open, from a probe."""
    held = {process.camera for process in report.processes if process.role == "capture" and process.alive}
    if report.running:
        held |= {camera.id for camera in report.cameras if camera.connects}
    seen = {known.id: camera_checks.reported(known) for known in report.cameras if known.id in held}
    closed = [camera for camera in config.cameras if camera.id not in held]
    return seen | {facts.id: facts for facts in open_cameras(closed)}


def _embedded_away(part: str) -> Finding:
    found = 'not checked: redis.address is "embedded", and the site, which brings it, does not run'
    todo = "start the site (edge-video run) and look again"
    if part == "redis":
        return Finding("redis", "reachable", "information", found, todo=todo)
    return Finding("rabbitmq", "events waiting", "information", found, todo=todo)


def _not_checked(check: str, why: str) -> Finding:
    return Finding("rabbitmq", check, "information", f"not checked: {why}")
