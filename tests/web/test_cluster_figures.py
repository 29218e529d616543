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


def test_each_node_has_its_role_and_state(tmp_path: Path):
    with RedisCluster(tmp_path / "c", masters=3, replicas=1) as cluster:
        config = from_document(
            {"redis": {"cluster": cluster.addresses}, "cameras": [{"id": "cam1", "url": "test://"}]}, {}
        )
        figures = ServerFigures(config)

        def nodes() -> dict[str, tuple[str, str]]:
            # What was told a moment ago is told again.
            figures._until = 0.0
            answer = asyncio.run(figures.redis())
            return {node.address.removeprefix("redis://"): (node.role, node.state) for node in answer.nodes}

        masters = {node.address: ("master", "answers") for node in cluster.masters()}
        replicas = {node.address: ("replica", "answers") for node in cluster.nodes if node.address not in masters}
        # Nodes do not name a replica that has received nothing yet.
        wait_until(lambda: nodes() == masters | replicas, 30, "all are named")
        first, _, third = cluster.masters()
        down = cluster.replica_of(third)
        down.kill()
        cluster.await_down(down)
        wait_until(lambda: nodes()[down.address] == ("none", "failed"), 20, "the other nodes say that it has failed")
        first.pause()
        assert nodes() == masters | replicas | {first.address: ("master", "hangs"), down.address: ("none", "failed")}
        first.resume()
        cluster.settle()
        asyncio.run(figures.aclose())


def test_a_node_that_refuses_its_figures_answers(tmp_path: Path):
    with RedisCluster(tmp_path / "c", masters=3, replicas=0) as cluster:
        for node in cluster.nodes:
            node.ask("ACL", "SETUSER", "web", "on", ">secret", "~*", "+cluster|slots", "+get", "+ping")
        login = {"cluster": cluster.addresses, "username": "web", "password": "secret"}
        config = from_document({"redis": login, "cameras": [{"id": "cam1", "url": "test://"}]}, {})
        figures, collector = ServerFigures(config), Collector(config, local=False)
        answer, facts = asyncio.run(figures.redis()), collector.collect()
        assert [(node.state, node.used_memory_bytes) for node in answer.nodes] == [("answers", 0)] * 3
        assert "INFO" in answer.error or "info" in answer.error
        assert (facts.redis_answers, facts.redis) == (True, None)
        shown = {family.name: values for family, values in samples(facts.redis, answers=True, nodes=facts.redis_nodes)}
        assert [value for _, value in shown["edge_video_redis_node_up"]] == [1, 1, 1]
        assert shown["edge_video_redis_node_memory_used_bytes"] == []
        collector.close()
        asyncio.run(figures.aclose())
