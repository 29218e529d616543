"""Figures of a real Redis Cluster: for metrics, the dashboard and alerts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import structlog

from engine.config import from_document
from engine.monitor.redis_watch import RedisWatch
from engine.web.metrics_facts import Collector
from engine.web.metrics_redis import samples
from engine.web.servers import ServerFigures
from tests.servers.redis_cluster import RedisCluster
from tests.servers.wait import wait_until


def test_figures_are_those_of_all_masters_and_name_the_one_that_is_away(tmp_path: Path):
    with RedisCluster(tmp_path / "c", masters=3, replicas=0) as cluster:
        for number, node in enumerate(cluster.nodes):
            node.ask("CONFIG", "SET", "maxmemory", (number + 1) * 100_000_000)
        config = from_document(
            {
                "redis": {"cluster": cluster.addresses, "timeout_seconds": 1.0},
                "cameras": [{"id": "cam1", "url": "test://"}],
            },
            {},
        )
        collector, figures = Collector(config, local=False), ServerFigures(config)
        watch = RedisWatch(config, structlog.get_logger())
        watch.start()
        facts, answer = collector.collect(), asyncio.run(figures.redis())
        assert (facts.redis_answers, len(facts.redis_nodes)) == (True, 3)
        assert facts.redis is not None
        assert facts.redis.maxmemory_bytes == answer.maxmemory_bytes == 600_000_000
        assert (answer.up, answer.error, len(answer.nodes)) == (True, "", 3)
        wait_until(lambda: watch.answer(time.monotonic()).figures, 10, "figures for alerts")
        told = watch.answer(time.monotonic()).figures
        assert told is not None
        assert told.maxmemory_bytes == 100_000_000, "that of the fullest"
        cluster.nodes[1].kill()
        facts = collector.collect()
        name = str(config.redis_address.node("127.0.0.1", cluster.nodes[1].port))
        assert (facts.redis_answers, facts.redis_nodes[name]) == (False, None)
        shown = {family.name: values for family, values in samples(facts.redis, answers=False, nodes=facts.redis_nodes)}
        assert sorted(value for _, value in shown["edge_video_redis_node_up"]) == [0, 1, 1]
        assert len(shown["edge_video_redis_node_memory_used_bytes"]) == 2
        wait_until(lambda: watch.answer(time.monotonic()).error, 20, "the alert's reason")
        assert f":{cluster.nodes[1].port}" in watch.answer(time.monotonic()).error
        again = asyncio.run(ServerFigures(config).redis())
        assert again.up
        assert [bool(node.error) for node in again.nodes].count(True) == 1
        assert f":{cluster.nodes[1].port}" in again.error
        watch.end()
        collector.close()
        asyncio.run(figures.aclose())
