"""The link to one node of a cluster: when nobody waits for the node any more."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from engine.stages.writer.cluster_link import Link
from engine.wire import resp
from engine.wire.cluster import Node
from engine.wire.redis_address import parse_redis_address
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until

PING = resp.command(b"PING")


class Asked:
    """A question that notes what became of it."""

    replies = 1

    def __init__(self) -> None:
        self.fate = ""

    def answered(self, replies: Sequence[Any]) -> None:
        self.fate = str(replies)

    def unanswered(self) -> None:
        self.fate = "unanswered"


@pytest.fixture
def link(redis_server: RedisServer) -> Iterator[Link]:
    address = parse_redis_address(redis_server.address)
    made = Link(Node("127.0.0.1", redis_server.port), address, 1.0, select.poll(), lambda: None)

    def opened() -> bool:
        made.advance(time.monotonic())
        return made.usable

    wait_until(opened, 20, "the link is open")
    yield made
    made.close()


def test_a_node_that_stands_still_stalls_also_while_the_kernel_takes_more_for_it(
    redis_server: RedisServer, link: Link
) -> None:
    redis_server.pause()
    questions = [Asked()]
    link.ask([PING], questions[0])

    def asked_again() -> bool:
        """Ask one thing more, which fits into the socket's buffers; true once the link counts as stalled."""
        questions.append(Asked())
        link.ask([PING], questions[-1])
        link.flush()
        return link.stalled

    wait_until(asked_again, 10, "the link has stalled")

    def failed() -> bool:
        link.advance(time.monotonic())
        return not link.usable

    wait_until(failed, 10, "the link has failed")
    assert {question.fate for question in questions} == {"unanswered"}
    redis_server.resume()
