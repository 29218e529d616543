"""A session with Redis: it connects when it is asked, is left after a break, and sends nothing of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from engine.errors import RedisUnavailable, ServerRefused, WireError
from engine.servers.redis import session as module
from engine.servers.redis.session import Session, is_error
from engine.wire.redis_address import parse_redis_address, parse_sentinels
from tests.fuzz.replies import Connection
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port


@pytest.fixture
def session(redis_server: RedisServer) -> Iterator[Session]:
    made = Session(parse_redis_address(redis_server.address), 5)
    yield made
    made.close()


def connections(server: RedisServer) -> int:
    with server.client() as client:
        return client.info("stats")["total_connections_received"]


def test_it_connects_when_it_is_asked_and_once(session: Session, redis_server: RedisServer) -> None:
    before = connections(redis_server)
    assert not session.connected
    for _ in range(3):
        assert session.call(("PING",)) == [b"PONG"]
    assert connections(redis_server) == before + 2


def test_nothing_to_ask_connects_nowhere() -> None:
    assert Session(parse_redis_address(f"127.0.0.1:{free_port()}"), 1).try_call() == []


def test_as_a_context_manager_it_connects_at_once_and_ends(redis_server: RedisServer) -> None:
    with Session(parse_redis_address(redis_server.address), 5) as session:
        assert session.connected
    assert not session.connected
    nobody = parse_redis_address(f"127.0.0.1:{free_port()}")
    with pytest.raises(RedisUnavailable), Session(nobody, 1):
        pytest.fail("connected to nobody")


def test_a_call_on_a_broken_connection_is_not_sent_again_and_the_next_one_connects(
    session: Session, redis_server: RedisServer
) -> None:
    session.call(("INCR", "count"))
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(RedisUnavailable, match="broke the connection"):
        session.call(("INCR", "count"))
    assert not session.connected
    assert session.call(("INCR", "count")) == [2]


def test_interrupted_between_a_command_and_its_reply_it_begins_anew(
    session: Session, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.call(("SET", "a", "1"), ("SET", "b", "2"))
    real = module.call

    def interrupted(address, connection, *commands):
        connection.send_packed_command(connection.pack_commands(commands))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.call(("GET", "a"))
    monkeypatch.setattr(module, "call", real)
    assert session.call(("GET", "b")) == [b"2"]


def test_errors_among_replies_are_returned_or_raised(session: Session) -> None:
    session.call(("SET", "text", "1"))
    commands = (("LPUSH", "text", "1"), ("GET", "text"))
    wrong, text = session.try_call(*commands)
    assert is_error(wrong)
    assert text == b"1"
    with pytest.raises(WireError, match="'text' holds another type"):
        session.call(*commands)
    assert session.connected


def test_a_user_who_may_only_get_can_use_it(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get")
    address = parse_redis_address(redis_server.address)._replace(username="reader", password="secret")
    with Session(address, 5) as session:
        assert session.call(("GET", "nothing")) == [None]
        with pytest.raises(ServerRefused, match="does not permit SET"):
            session.call(("SET", "a", "b"))


@pytest.mark.parametrize("reply", [b"-READONLY replica\r\n", b"-MASTERDOWN link\r\n", b"-NOREPLICAS few\r\n"], ids=str)
@pytest.mark.parametrize("sentinel", [True, False])
def test_a_server_that_is_no_master_any_more_is_left_where_sentinels_know_another(reply: bytes, sentinel: bool) -> None:
    address = parse_sentinels(["s1:26379"], "mymaster") if sentinel else parse_redis_address("redis.invalid:6379")
    session = Session(address, 1)
    with answering(reply) as plug:
        session._connection = Connection(plug)
        (answer,) = session.try_call(("SET", "a", "b"))
        assert is_error(answer)
        assert session.connected is not sentinel
        session.close()


@pytest.mark.parametrize("mode", [b"cluster", b"sentinel"])
def test_with_a_check_of_the_mode_an_unfit_server_is_refused_and_left(mode: bytes) -> None:
    """A server that is none of ours, because a cluster's node needs cluster-enabled and seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                data = b""
                while b"HELLO" not in data and (part := peer.recv(4096)):
                    data += part
                peer.sendall(b"*2\r\n$4\r\nmode\r\n$%d\r\n%s\r\n" % (len(mode), mode))
                with contextlib.suppress(OSError):
                    while peer.recv(4096):
                        pass
            ended.set()

        threading.Thread(target=serve, daemon=True).start()
        session = Session(parse_redis_address(f"127.0.0.1:{listener.getsockname()[1]}"), 5, checks_mode=True)
        with pytest.raises(ServerRefused, match=mode.decode()):
            session.call(("PING",))
        assert not session.connected
        assert ended.wait(30)


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        yield ours
