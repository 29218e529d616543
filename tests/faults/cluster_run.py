"""A case of a Redis Cluster under way: the site stores in all its nodes, and the checker reads them all."""

from __future__ import annotations

import redis

from engine.wire.cluster import slot_of
from engine.wire.journal import parse_entry_id
from engine.wire.keys import journal_key, parse_frame_key
from tests.faults.cases import Case
from tests.faults.run import CAMERAS, FPS, FaultRun
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_cluster import ClusterServer, RedisCluster
from tests.servers.wait import wait_until
from tests.system.site import Site


class ClusterRun(FaultRun):
    """A site of the ``CAMERAS`` in a cluster, RabbitMQ behind a proxy, a consumer that hears every event."""

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

    def between_steps(self, master: ClusterServer, replica: ClusterServer) -> int:
        """How many frames other masters hold whose entries this one lacks, by the word of its replica: it may stand
        still itself."""
        listed, cameras = set(), self.journals_at(master)
        with replica.client() as client:
            client.readonly()
            for camera in cameras:
                entries = client.xrange(journal_key(self.vhost, "frames", camera))
                listed |= {(camera, parse_entry_id(entry)[1]) for entry, _ in entries}
        others = [other for other in self.cluster.masters() if other is not master]
        keys = [key for other in others for key in self.cluster.keys_of(other, f"{self.vhost}:frames:*")]
        stored = {(frame.camera, frame.sequence) for frame in map(parse_frame_key, keys)}
        return len({frame for frame in stored if frame[0] in cameras} - listed)

    def outlasts_rings(self) -> None:
        """Wait until frames have been given up for a while."""
        wait_until(
            lambda: self.site.dropped().get("outage", 0) > FPS * len(CAMERAS) / 2,
            30,
            "rings overflow",
            log=self.site.log_text,
            interval=0.1,
        )
