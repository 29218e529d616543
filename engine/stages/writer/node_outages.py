"""Which nodes of a cluster are away, for the log and for ``edge-video status``."""

from __future__ import annotations

from collections.abc import Mapping

from structlog.typing import FilteringBoundLogger

from engine.errors import RedisUnavailable
from engine.servers.outage import Outage
from engine.shm.status_page import StatusPage
from engine.wire.cluster import Node


class NodeOutages:
    """The outages of single nodes, and of the cluster as a whole, in ``log`` and ``page``."""

    def __init__(self, log: FilteringBoundLogger, page: StatusPage) -> None:
        self._log = log
        self._page = page
        #: By the name of the node, or of the cluster.
        self._outages: dict[str, Outage] = {}
        # What a former writer said of nodes that may be gone by now.
        page.text = b""

    def report(self, nodes: Mapping[Node, RedisUnavailable | None], cluster: RedisUnavailable | None) -> None:
        """Why each node is away, None if it is not; and why slots cannot be found. Other nodes are not used."""
        troubles = {"redis": cluster} | {f"redis {node}": trouble for node, trouble in nodes.items()}
        for name, trouble in troubles.items():
            if trouble:
                self._outage(name).lost(trouble)
            elif name in self._outages:
                self._outages[name].over()
        for name in self._outages.keys() - troubles.keys():
            self._outages.pop(name).dismissed()

    def _outage(self, name: str) -> Outage:
        if name not in self._outages:
            self._outages[name] = Outage(self._log, name, "takes no frames; rings hold them, retrying", self._page)
        return self._outages[name]
