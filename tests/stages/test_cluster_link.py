"""The link to one node, against a peer that sends what a node does not."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hiredis
import pytest

from engine.stages.writer.cluster_link import Link
from engine.wire.cluster import Node
from engine.wire.redis_address import parse_redis_address
from tests.fuzz.replies import Plugged


class Asked:
    """A question of ``replies`` answers."""

    def __init__(self, replies: int = 1) -> None:
        self.replies = replies
        self.got: Sequence[Any] | None = None
        self.untold = False

    def answered(self, replies: Sequence[Any]) -> None:
        self.got = replies

    def unanswered(self) -> None:
        self.untold = True


class Pair:
    """A link, and the other end of its connection."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            self.peer = server.accept()[0]
        self._poller = select.poll()
        address = parse_redis_address("127.0.0.1")
        self.link = Link(Node("127.0.0.1", 6379), address, 0.3, self._poller, lambda: None)
        self.link._attach(Plugged(client))

    def turn(self, until: Callable[[], object]) -> None:
        """Move bytes until a condition holds."""
        deadline = time.monotonic() + 10
        while not until():
            assert time.monotonic() < deadline
            self.link.flush()
            for _, event in self._poller.poll(10):
                if event & ~select.POLLOUT:
                    self.link.receive()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.link.close()
    made.peer.close()


def test_replies_find_their_questions_wherever_the_bytes_are_cut(pair: Pair) -> None:
    first, second = Asked(2), Asked(1)
    pair.link.ask([b"one"], first)
    pair.link.ask([b"two", memoryview(b"three")], second)
    for byte in b"+OK\r\n-MOVED 1 h:1\r\n:7\r\n":
        pair.peer.sendall(bytes([byte]))
        pair.turn(lambda: True)
    pair.turn(lambda: second.got)
    assert first.got
    assert (first.got[0], str(first.got[1])) == (b"OK", "MOVED 1 h:1")
    assert isinstance(first.got[1], hiredis.ReplyError)
    assert second.got == [7]
    assert pair.peer.recv(100) == b"onetwothree"


def test_more_than_the_connection_takes_leaves_in_parts(pair: Pair) -> None:
    body = bytes(range(256)) * 40_000
    asked = Asked()
    pair.link.ask([memoryview(body)[place : place + 5000] for place in range(0, len(body), 5000)], asked)
    received = bytearray()
    pair.peer.setblocking(False)

    def read() -> bool:
        with contextlib.suppress(BlockingIOError):
            received.extend(pair.peer.recv(2**20))
        return len(received) == len(body)

    pair.turn(read)
    assert received == body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "no RESP"),
        (b"+OK\r\n+OK\r\n", "a reply without a command"),
        (b"$8388608\r\n" + b"x" * 5_000_000, "more than"),
        (b"", "closed"),
    ],
    ids=["no RESP", "one too many", "too long", "closed"],
)
def test_what_is_no_answer_breaks_the_connection(pair: Pair, answer: bytes, reason: str) -> None:
    asked, later = Asked(1), Asked(2)
    pair.link.ask([b"x"], asked)
    if answer != b"+OK\r\n+OK\r\n":
        pair.link.ask([b"y"], later)
    pair.peer.setblocking(False)
    rest = memoryview(answer)
    if not answer:
        pair.peer.shutdown(socket.SHUT_WR)

    def say() -> bool:
        nonlocal rest
        with contextlib.suppress(BlockingIOError, OSError):
            rest = rest[pair.peer.send(rest) :] if rest else rest
        return pair.link.trouble is not None

    pair.turn(say)
    assert reason in str(pair.link.trouble)
    assert not pair.link.usable
    assert not pair.link.busy
    assert later.untold == (answer != b"+OK\r\n+OK\r\n")


def test_a_node_that_does_not_answer_is_given_up(pair: Pair) -> None:
    asked = Asked()
    pair.link.ask([b"x"], asked)
    pair.link.flush()
    pair.turn(lambda: pair.link.advance(time.monotonic()))
    assert asked.untold
    assert "did not answer for 0.3 s" in str(pair.link.trouble)
