"""Picks the writer's agent by where frames are stored: one server, or the nodes of a cluster."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from engine.config import Config
from engine.shm.status_page import StatusPage
from engine.stages.writer.agent import WriterAgent
from engine.stages.writer.cluster_agent import ClusterWriterAgent
from engine.wire.lease import Lease


def writer_agent(
    config: Config, number: int, page: StatusPage, log: FilteringBoundLogger, own: Lease | None = None
) -> WriterAgent | ClusterWriterAgent:
    """The agent of writer ``number``; see BaseAgent."""
    kind = ClusterWriterAgent if config.redis_address.cluster else WriterAgent
    return kind(config, number, page, log, own)
