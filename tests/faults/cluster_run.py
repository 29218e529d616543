"""A case of a Redis Cluster under way: the site stores in all its nodes, and the checker reads them all."""

from __future__ import annotations

from collections.abc import Iterable

import redis

from engine.wire.cluster import slot_of
from engine.wire.keys import journal_key, parse_frame_key
from tests.faults.cases import Case
from tests.faults.run import CAMERAS, FPS, FaultRun
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_cluster import ClusterServer, RedisCluster
from tests.servers.wait import wait_until
from tests.system.site import Site


class ClusterRun(FaultRun):
    """A site of twenty cameras in a cluster, RabbitMQ behind a proxy, a consumer that hears every event."""

    def __init__(self, case: Case, site: Site, cluster: RedisCluster, broker: RabbitMQ, vhost: str) -> None:
        super().__init__(case, site, cluster.nodes[0], broker, vhost)
        self.cluster = cluster
        self.apart = True

    def client(self) -> redis.RedisCluster:
        return self.cluster.client()

    def _redis_section(self, settings: dict[str, object]) -> dict[str, object]:
        return {"cluster": self.cluster.addresses, "timeout_seconds": 1.0, **settings}

    def journals_at(self, *servers: ClusterServer) -> set[str]:
        """The cameras whose journals a master of these has."""
        return {
            camera for camera in CAMERAS if self.cluster.owner(journal_key(self.vhost, "frames", camera)) in servers
        }

    def journal_slots(self, server: ClusterServer) -> set[int]:
        """The slots of a master's journals."""
        return {slot_of(journal_key(self.vhost, "frames", camera).encode()) for camera in self.journals_at(server)}

    def place(self, camera: str) -> int:
        """The place in ``masters()`` of the master that has a camera's journal."""
        return self.cluster.masters().index(self.cluster.owner(journal_key(self.vhost, "frames", camera)))

    def flows_at(self, cameras: set[str], seconds: float = 1.0, timeout: float = 40) -> None:
        """Wait until each of these cameras has stored so many seconds' frames more."""
        unwell, self.unwell = self.unwell, set(CAMERAS) - cameras
        self.flows(seconds, timeout)
        self.unwell = unwell

    def frames_at(self, servers: Iterable[ClusterServer], cameras: set[str]) -> int:
        """How many frames of these cameras the ``servers`` hold."""
        keys = [key for server in servers for key in self.cluster.keys_of(server, f"{self.vhost}:frames:*")]
        return sum(parse_frame_key(key).camera in cameras for key in keys)

    def outlasts_rings(self) -> None:
        """Wait until frames have been given up for a while."""
        wait_until(
            lambda: self.site.dropped().get("outage", 0) > FPS * len(CAMERAS) / 2,
            30,
            "rings overflow",
            log=self.site.log_text,
            interval=0.1,
        )
