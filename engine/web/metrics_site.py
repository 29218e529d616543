"""Metrics of a site as a whole: all cameras, storage, publisher and writers, processes, servers that are away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine import __version__
from engine.runtime.site_report import SiteReport
from engine.runtime.status import SiteLook
from engine.runtime.status_processes import ProcessReport
from engine.shm.publish_latency import PublishLatency
from engine.shm.status_page import Count, MonitorCount, PublisherCount, WriterCount
from engine.web.metrics_histograms import stored_to_confirmed
from engine.web.metrics_text import Family, Kind, Samples, labels_text


def _family(kind: Kind, name: str, text: str, *labels: str) -> Family:
    return Family(f"edge_video_{name}", kind, labels, text)


_ACTIVE = _family("gauge", "active_cameras_total", "Cameras that deliver.")
_CAMERAS = _family("gauge", "cameras", "Cameras of the site.")
_FAILED = _family("gauge", "failed_cameras", "Cameras that deliver nothing, without those read to their end.")
_OPERATIONS = _family(
    "counter",
    "storage_operations_total",
    "Frames and access units that Redis has acknowledged (success), and those given up because it was away or refused "
    "them (error).",
    "operation",
    "status",
)
_PUBLISH_LATENCY = _family(
    "histogram",
    "publish_latency_seconds",
    "Time from a frame's acknowledgement by Redis to that of its event by RabbitMQ.",
)
_RUNNING = _family("gauge", "site_running", "1 while the site runs.")
_UPTIME = _family("gauge", "uptime_seconds", "Time since the site was started.")
_TROUBLES = _family("gauge", "site_troubles", "Reasons why the site is not healthy, as edge-video status counts them.")
_AWAY = _family(
    "gauge", "server_away_seconds", "For how long a server has not served the site; 0 while it does.", "server"
)
_ALERT = _family(
    "gauge", "alert_raised", "1 for each alert that the site itself has raised.", "alert", "subject", "severity"
)
_BUILD = _family("info", "build_info", "1. The label says which version of the engine this is.", "version")
_UP = _family("gauge", "process_up", "1 while the process runs.", "process", "role")
_RESTARTS = _family("counter", "process_restarts_total", "How often the process was started again.", "process", "role")
_CPU = _family("counter", "process_cpu_seconds_total", "CPU time since the process started.", "process", "role")
_MEMORY = _family(
    "gauge",
    "process_memory_bytes",
    "The process's own memory: PSS without rings. Read in turns, every 30 s or less often.",
    "process",
    "role",
)
_HEARTBEAT = _family("gauge", "process_heartbeat_age_seconds", "Time since the process last beat.", "process", "role")

#: The counts of the status pages of publisher, writers and monitor that are metrics of their own. The last number is
#: what the count is divided by; help and kind are the count's.
COUNTS: tuple[tuple[str, Count, float], ...] = (
    ("publisher_published_events_total", PublisherCount.PUBLISHED, 1),
    ("publisher_confirmed_events_total", PublisherCount.CONFIRMED, 1),
    ("publisher_expired_events_total", PublisherCount.EXPIRED, 1),
    ("publisher_unreadable_entries_total", PublisherCount.UNREADABLE, 1),
    ("publisher_nacked_messages_total", PublisherCount.NACKED, 1),
    ("publisher_confirmed_messages_total", PublisherCount.MESSAGES, 1),
    ("publisher_status_events_total", PublisherCount.STATUS_EVENTS, 1),
    ("publisher_connects_total", PublisherCount.CONNECTS, 1),
    ("publisher_lag_seconds", PublisherCount.LAG_NANO, 1e9),
    ("publisher_connected", PublisherCount.CONNECTED, 1),
    ("publisher_gop_events_total", PublisherCount.GOPS, 1),
    ("publisher_expired_video_units_total", PublisherCount.VIDEO_EXPIRED, 1),
    ("publisher_unreadable_video_entries_total", PublisherCount.VIDEO_UNREADABLE, 1),
    ("publisher_alert_events_total", PublisherCount.ALERT_EVENTS, 1),
    ("writer_batches_total", WriterCount.BATCHES, 1),
    ("writer_connects_total", WriterCount.CONNECTS, 1),
    ("writer_retried_batches_total", WriterCount.RETRIES, 1),
    ("writer_contested_cameras", WriterCount.CONTESTED, 1),
    ("monitor_looks_total", MonitorCount.LOOKS, 1),
    ("monitor_active_alerts", MonitorCount.ACTIVE, 1),
    ("monitor_raised_alerts_total", MonitorCount.RAISED, 1),
    ("monitor_cleared_alerts_total", MonitorCount.CLEARED, 1),
    ("monitor_webhook_sent_total", MonitorCount.WEBHOOK_SENT, 1),
    ("monitor_webhook_failed_total", MonitorCount.WEBHOOK_FAILED, 1),
    ("monitor_webhook_lost_total", MonitorCount.WEBHOOK_LOST, 1),
)


def _count_family(name: str, count: Count) -> Family:
    assert count.kind != "internal", f"{name} is not for others"
    return _family(count.kind, name, count.help)


_COUNT_FAMILIES = [(_count_family(name, count), count, unit) for name, count, unit in COUNTS]

FAMILIES = [
    _ACTIVE, _CAMERAS, _FAILED, _OPERATIONS, _PUBLISH_LATENCY, _RUNNING, _UPTIME, _TROUBLES, _AWAY, _ALERT, _BUILD,
    *(family for family, _, _ in _COUNT_FAMILIES),
    _UP, _RESTARTS, _CPU, _MEMORY, _HEARTBEAT,
]  # fmt: skip

#: Reasons of drops that are failures of Redis.
_STORAGE_ERRORS = ("outage", "refused")


def samples(look: SiteLook) -> Iterator[tuple[Family, Samples]]:
    """The metrics of the site, except for those of its processes."""
    report = look.report
    states = [camera.state for camera in report.cameras if not camera.finished]
    yield _ACTIVE, [("", sum(camera.state == "active" for camera in report.cameras))]
    yield _CAMERAS, [("", len(report.cameras))]
    yield _FAILED, [("", sum(state in FAILED_STATES for state in states))]
    rings = [ring for camera in look.cameras for ring in (camera.frames, camera.video) if ring]
    given_up = sum(ring.drops[reason] for ring in rings for reason in _STORAGE_ERRORS)
    yield (
        _OPERATIONS,
        [
            (labels_text({"operation": "store", "status": "success"}), sum(ring.stored_total for ring in rings)),
            (labels_text({"operation": "store", "status": "error"}), given_up),
        ],
    )
    yield _RUNNING, [("", int(report.running))]
    yield _UPTIME, [("", report.uptime_seconds)]
    yield _TROUBLES, [("", len(report.troubles))]
    yield _AWAY, _away(report, publishes=look.config.publishes)
    yield (
        _ALERT,
        [
            (labels_text({"alert": one.name, "subject": one.subject, "severity": one.severity}), 1)
            for one in report.alerts
        ],
    )


#: States of a camera that is meant to deliver and does not.
FAILED_STATES = ("stalled", "offline")


def _away(report: SiteReport, *, publishes: bool) -> Samples:
    seconds = dict.fromkeys(("redis", "rabbitmq") if publishes else ("redis",), 0.0)
    for outage in report.outages:
        seconds[outage.server] = max(seconds.get(outage.server, 0.0), outage.seconds)
    return [(labels_text({"server": server}), longest) for server, longest in seconds.items()]


def build_samples() -> Iterator[tuple[Family, Samples]]:
    """The engine's version."""
    yield _BUILD, [(labels_text({"version": __version__}), 1)]


def count_samples(
    counts: Mapping[type[Count], Mapping[Count, int]], latency: PublishLatency | None
) -> Iterator[tuple[Family, Samples]]:
    """The metrics of publisher, writers and monitor; ``counts`` and ``latency`` lack those that a site has not."""
    for family, count, unit in _COUNT_FAMILIES:
        if of_role := counts.get(type(count)):
            yield family, [("", of_role[count] if unit == 1 else of_role[count] / unit)]
    if latency:
        yield _PUBLISH_LATENCY, [("", stored_to_confirmed(latency))]


def process_samples(processes: Sequence[ProcessReport], memory: Mapping[int, int]) -> Iterator[tuple[Family, Samples]]:
    """The metrics of the site's processes; ``memory`` has the bytes of those whose memory is known, by pid."""
    found = [(labels_text({"process": one.name, "role": one.role}), one) for one in processes]
    yield _UP, [(label, int(one.alive)) for label, one in found]
    yield _RESTARTS, [(label, one.restarts) for label, one in found]
    yield _CPU, [(label, one.cpu_seconds) for label, one in found if one.alive]
    yield _MEMORY, [(label, memory[one.pid]) for label, one in found if one.alive and one.pid in memory]
    yield _HEARTBEAT, [(label, one.heartbeat_seconds) for label, one in found if one.alive]
