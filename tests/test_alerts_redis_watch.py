"""The monitor asks Redis for its figures: answers of all kinds, and what is asked after them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import structlog
from structlog.testing import capture_logs

from engine.config import parse
from engine.monitor import redis_watch
from engine.monitor.redis_watch import Answer, RedisWatch
from tests.servers.wait import comes_within, free_port, wait_until

INFO = b"# Server\r\nredis_version:7.0.15\r\nused_memory:1000\r\nmaxmemory:2000\r\nconnected_clients:3\r\n"


class Replying:
    """A server that answers each command with ``reply``; None cuts the connection. ``asked`` has what it was sent."""

    def __init__(self, reply: bytes | None) -> None:
        self.reply = reply
        self.asked: list[bytes] = []
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

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
            while (command := connection.recv(4096)) and self.reply is not None:
                self.asked.append(command)
                connection.sendall(self.reply)


@contextmanager
def watching(reply: bytes | None) -> Iterator[tuple[Replying, RedisWatch]]:
    server = Replying(reply)
    text = f'[redis]\naddress = "127.0.0.1:{server.port}"\n[[cameras]]\nid = "cam1"\nurl = "test://"\n'
    watch = RedisWatch(parse(text.encode(), {}), structlog.get_logger())
    watch.start()
    try:
        yield server, watch
    finally:
        watch.end()
        server.close()


def known(watch: RedisWatch) -> Answer:
    return watch.answer(time.monotonic())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_watch, "PERIOD_SECONDS", 0.05)


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def test_the_figures_of_a_server_are_known() -> None:
    with watching(bulk(INFO)) as (_, watch):
        wait_until(lambda: known(watch).figures, 10, "figures")
        figures = known(watch).figures
        assert figures is not None
        assert (figures.version, figures.used_memory_bytes, figures.maxmemory_bytes) == ("7.0.15", 1000, 2000)
        assert known(watch).away_seconds == 0


#: Replies that are no figures, from a server that is there.
NO_FIGURES = {
    "number": b":5\r\n",
    "array": b"*1\r\n:1\r\n",
    "null": b"$-1\r\n",
    "busy": b"-BUSY Redis is busy running a script.\r\n",
    "error": b"-ERR \xff\xfe\r\n",
}


@pytest.mark.parametrize("reply", NO_FIGURES.values(), ids=NO_FIGURES.keys())
def test_a_server_that_answers_without_figures_is_not_away_and_is_not_asked_without_a_pause(
    reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_watch, "PERIOD_SECONDS", 600.0)
    with watching(reply) as (server, watch):
        wait_until(lambda: server.asked, 10, "it is asked")
        # Without a pause it is asked thousands of times a second.
        assert not comes_within(lambda: len(server.asked) > 1, 0.3), "it is asked again"
        assert known(watch) == Answer(None, 0.0, "")


def test_figures_come_back_after_a_refusal() -> None:
    with watching(NO_FIGURES["busy"]) as (server, watch):
        wait_until(lambda: len(server.asked) > 1, 10, "it is asked again")
        assert known(watch).figures is None
        server.reply = bulk(INFO)
        wait_until(lambda: known(watch).figures, 10, "figures")


@pytest.mark.parametrize("reply", [None, b"\xff\xfe\r\n", b"*1\r\n" * 20_000], ids=["cut", "garbage", "nested"])
def test_a_server_that_breaks_the_connection_is_away_until_it_answers(reply: bytes | None) -> None:
    with watching(reply) as (server, watch):
        wait_until(lambda: known(watch).error, 10, "it is away")
        before = known(watch).away_seconds
        wait_until(lambda: known(watch).away_seconds > before, 10, "it is away for longer")
        assert known(watch).figures is None
        server.reply = bulk(INFO)
        wait_until(lambda: known(watch).figures, 10, "it is back")
        assert known(watch).error == ""


def test_a_server_that_says_nothing_is_away_before_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_watch, "_STUCK_SECONDS", 0.1)
    with watching(b"") as (server, watch):
        wait_until(lambda: server.asked, 10, "it is asked")
        wait_until(lambda: known(watch).error.startswith("no answer for"), 1.5, "it is away")


def test_a_user_without_the_right_is_told_once_and_redis_is_not_away() -> None:
    with (
        capture_logs() as logs,
        watching(b"-NOPERM this user has no permissions to run the 'info' command\r\n") as (
            server,
            watch,
        ),
    ):
        wait_until(lambda: len(server.asked) > 3, 10, "it is asked on")
        assert known(watch) == Answer(None, 0.0, "")
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "+info" in logs[0]["advice"]
    assert all(b"PING" in command for command in server.asked[1:])
