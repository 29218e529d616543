"""Answers that a real cluster can hardly be made to give: each costs the questions of one node, for a while."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from engine.errors import RedisUnavailable, ServerRefused
from engine.servers.overrides.redis import NodeAway
from engine.stages.publisher import cluster_calls
from engine.stages.publisher.cluster_calls import ClusterCalls
from engine.wire.cluster import slot_of
from engine.wire.redis_address import parse_cluster
from tests.servers.wait import wait_until

TIMEOUT_SECONDS = 0.5


class FakeNode:
    """A node that has all slots but those that ``reply`` answers otherwise."""

    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        self.reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.ranges: list[tuple[int, int, int]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while data := connection.recv(65_536):
                for command in data.split(b"*")[1:]:
                    connection.sendall(self._answer(command))

    def _answer(self, command: bytes) -> bytes:
        if b"SLOTS" in command:
            rows = [b"*3\r\n:%d\r\n:%d\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$1\r\na\r\n" % one for one in self.ranges]
            return b"*%d\r\n" % len(rows) + b"".join(rows)
        if b"PING" in command:
            return b"+PONG\r\n"
        return self.reply(command)


@contextmanager
def nodes(*replies: Callable[[bytes], bytes]) -> Iterator[list[FakeNode]]:
    """Fake nodes that share the slots."""
    made = [FakeNode(reply) for reply in replies]
    step = 16_384 // len(made)
    ranges = [(place * step, (place + 1) * step - 1, node.port) for place, node in enumerate(made)]
    for node in made:
        node.ranges = ranges
    try:
        yield made
    finally:
        for node in made:
            node.close()


def keys_of(place: int, count: int = 2) -> list[str]:
    """Keys whose slots the node at ``place`` of two has."""
    return [key for key in map("k{}".format, range(200)) if slot_of(key.encode()) // 8192 == place][:count]


class Later:
    """A clock an hour ahead."""

    def monotonic(self) -> float:
        return time.monotonic() + 3600


def fine(_: bytes) -> bytes:
    return b":1\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"-CLUSTERDOWN Hash slot not served\r\n", id="down"),
        pytest.param(b"-LOADING Redis is loading\r\n", id="loading"),
        pytest.param(b"-MASTERDOWN Link with MASTER is down\r\n", id="a replica"),
        pytest.param(b"$3\r\nyes\r\n", id="another type"),
        pytest.param(b"!nonsense\r\n", id="no RESP"),
        pytest.param(b"", id="silence"),
    ],
)
def test_what_one_node_answers_costs_only_its_own_questions(reply: bytes, monkeypatch: pytest.MonkeyPatch):
    with nodes(fine, lambda _: reply) as made, closing(ClusterCalls(parse_cluster([made[0].address]), 0.5)) as calls:
        own, other = keys_of(0), keys_of(1)
        for _ in range(2):
            answers = calls.try_call(*(("EXISTS", key) for key in [own[0], other[0], own[1], other[1]]))
            assert answers[0::2] == [1, 1]
            assert all(isinstance(answer, NodeAway) for answer in answers[1::2])
            calls.try_call(("EXISTS", own[0]))
            assert calls.away is not None, "an answer of another node does not end it"
            assert f":{made[1].port}" in calls.away.fact
        made[1].reply = fine
        for _ in range(100):
            answers = calls.try_call(*(("EXISTS", key) for key in other))
            if answers == [1, 1]:
                break
            threading.Event().wait(0.05)
        assert answers == [1, 1]
        monkeypatch.setattr(cluster_calls, "time", Later())
        assert calls.away is None


def test_a_node_that_nobody_asks_any_more_is_known_to_be_back():
    with nodes(fine, lambda _: b"") as made, closing(ClusterCalls(parse_cluster([made[0].address]), 0.5)) as calls:
        calls.try_call(("EXISTS", keys_of(0)[0]), ("EXISTS", keys_of(1)[0]))
        assert calls.away is not None
        made[1].reply = fine
        wait_until(lambda: calls.try_call(("EXISTS", keys_of(0)[0])) and calls.away is None, 10, "it is back")


def test_nodes_that_name_each_other_are_away_and_named():
    with nodes(fine, fine) as made, closing(ClusterCalls(parse_cluster([made[0].address]), 0.5)) as calls:
        slot = slot_of(keys_of(0)[0].encode())
        for node, other in ((made[0], made[1]), (made[1], made[0])):
            node.reply = lambda _, port=other.port: b"-MOVED %d 127.0.0.1:%d\r\n" % (slot, port)
        assert isinstance(calls.try_call(("EXISTS", keys_of(0)[0]))[0], NodeAway)
        assert calls.away is not None
        assert f"redirect slot {slot} " in calls.away.fact
        assert f":{made[0].port}" in calls.away.fact


def test_a_cluster_that_nobody_knows_and_one_that_refuses():
    with pytest.raises(RedisUnavailable):
        ClusterCalls(parse_cluster(["127.0.0.1:1"]), 0.5).try_call(("EXISTS", "a"))
    with nodes(fine) as made:
        made[0]._answer = lambda _: b"-NOPERM no\r\n"  # type: ignore[method-assign]
        with pytest.raises(ServerRefused, match="CLUSTER SLOTS"):
            ClusterCalls(parse_cluster([made[0].address]), 0.5).try_call(("EXISTS", "a"))
