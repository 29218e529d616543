"""Entries are numbered without a gap, whatever is dropped, restarted or expired; and numbers go on after a stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, from_document
from engine.errors import RedisUnavailable
from engine.servers.redis.session import Session
from engine.shm.ring_file import Drop
from engine.shm.site import SitePaths
from engine.stages.capture.last_frame import last_frame_id
from engine.stages.writer.marks import WrittenMarks
from engine.wire.journal import parse_entry
from engine.wire.keys import cursor_key, journal_key, written_key
from engine.wire.marks import Mark, format_mark, parse_mark
from tests.servers.redis_server import RedisServer
from tests.stages.test_writer import NANO, Bench, stored

JOURNAL = journal_key("default", "frames", "cam1")
WRITTEN = written_key("default", "frames")
URL = "amqp://user:password@127.0.0.1:1/"


def config_of(tmp_path: Path, redis_server: RedisServer, amqp_url: str = URL) -> Config:
    return from_document(
        {
            "site": {"run_directory": str(tmp_path / "run")},
            "ring": {"directory": str(tmp_path), "capacity_mb": 1},
            "redis": {"address": redis_server.address},
            "amqp": {"amqp_url": amqp_url} if amqp_url else {},
            "cameras": [{"id": "cam1", "url": "test://"}],
        },
        {},
    )


def numbers(redis_server: RedisServer) -> list[int]:
    found = redis_server.client().xrange(JOURNAL)
    flat = [(identifier, [part for pair in fields.items() for part in pair]) for identifier, fields in found]
    return [parse_entry(identifier, fields).number for identifier, fields in flat]


def mark(redis_server: RedisServer) -> Mark | None:
    return parse_mark(redis_server.client().hget(WRITTEN, "cam1") or b"")


def store(bench: Bench, count: int) -> None:
    before = stored(bench, "cam1")
    bench.write("cam1", count)
    bench.turn(lambda: stored(bench, "cam1") == before + count)


def renew(bench: Bench, config: Config) -> Bench:
    """A stop of the site, after which its shared memory is gone."""
    bench.agent.on_close()
    paths = SitePaths.of(config)
    for path in paths.directory.iterdir():
        path.unlink()
    return Bench(config)


def test_a_dropped_frame_uses_up_its_number_and_none_of_the_entries(tmp_path: Path, redis_server: RedisServer) -> None:
    bench = Bench(config_of(tmp_path, redis_server))
    store(bench, 3)
    producer = bench.producers["cam1"]
    producer.discard(producer.floor_nano + 1, 5, Drop.CORRUPT)
    store(bench, 4)
    assert numbers(redis_server) == [1, 2, 3, 4, 5, 6, 7]
    bench.agent.on_close()
    assert mark(redis_server) == Mark((producer.floor_nano, 8), 7, 0)


@pytest.mark.parametrize("expired", [False, True])
def test_numbers_go_on_with_a_new_ring(tmp_path: Path, redis_server: RedisServer, *, expired: bool) -> None:
    config = config_of(tmp_path, redis_server)
    bench = Bench(config)
    store(bench, 3)
    bench = renew(bench, config)
    if expired:
        redis_server.client().delete(JOURNAL)
    else:
        # Marks are half a second behind; the journal's last entry is not.
        redis_server.client().delete(WRITTEN)
    bench.producers["cam1"]._last_nano = NANO + 100
    store(bench, 2)
    assert numbers(redis_server)[-2:] == [4, 5]
    bench.agent.on_close()
    found = mark(redis_server)
    assert found is not None
    assert (found.entries, found.before) == (5, 3)


def test_marks_that_somebody_removed_are_written_again(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.stages.writer.marks._REPEAT_SECONDS", 0.1)
    bench = Bench(config_of(tmp_path, redis_server))
    store(bench, 3)
    bench.turn(lambda: mark(redis_server) == Mark((NANO + 2, 3), 3, 0))
    redis_server.client().flushall()
    bench.turn(lambda: mark(redis_server) == Mark((NANO + 2, 3), 3, 0))
    bench.agent.on_close()


def test_without_a_broker_no_entry_is_due(tmp_path: Path, redis_server: RedisServer) -> None:
    bench = Bench(config_of(tmp_path, redis_server, ""))
    store(bench, 3)
    assert numbers(redis_server) == [0, 0, 0]
    bench.agent.on_close()
    assert mark(redis_server) == Mark((NANO + 2, 3), 0, 0)


@pytest.mark.parametrize("obstacle", ["rights", "type"])
def test_marks_that_cannot_be_written_stop_no_frame(
    tmp_path: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str], obstacle: str
) -> None:
    client = redis_server.client()
    if obstacle == "type":
        client.set(WRITTEN, "something else")
    else:
        client.execute_command("ACL", "SETUSER", "default", "-hmget", "-hset")
    try:
        bench = Bench(config_of(tmp_path, redis_server))
        store(bench, 3)
        assert numbers(redis_server) == [1, 2, 3]
        bench.agent.on_close()
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert capsys.readouterr().out.count("numbers of entries are not kept") == 1


@pytest.mark.parametrize(
    ("last", "written", "cursor", "newest"),
    [
        ("", "", "", (0, 0)),
        (f"{NANO}-7", "", "", (NANO, 7)),
        (f"{NANO}-7", f"{NANO + 5}-9 7 0", f"{NANO}-7 7", (NANO + 5, 9)),
        ("", "", f"{NANO + 1}-102", (NANO + 1, 102)),
        (f"{NANO}-7", "nonsense", f"{NANO}-100000 4", (NANO, 7)),
        (f"{NANO}-7", "9000000000000000000-5 1 1", "", (NANO, 7)),
    ],
)
def test_a_start_goes_on_from_the_newest_that_redis_knows(
    tmp_path: Path, redis_server: RedisServer, last: str, written: str, cursor: str, newest: tuple[int, int]
) -> None:
    client = redis_server.client()
    if last:
        client.xadd(JOURNAL, {"s": 1}, id=last)
    if written:
        client.hset(WRITTEN, "cam1", written)
    if cursor:
        client.hset(cursor_key("default", "frames"), "cam1", cursor)
    address = config_of(tmp_path, redis_server).redis_address
    with Session(address, 5) as session:
        assert last_frame_id(session, "default", "frames", "cam1") == newest


def test_a_mark_reads_as_it_is_documented() -> None:
    assert format_mark(Mark((NANO, 7), 5, 2)) == f"{NANO}-7 5 2"


@pytest.mark.parametrize("reply", [None, 1, b"text", [], [None, None]], ids=["null", "number", "text", "none", "two"])
def test_a_server_that_answers_nonsense_is_away(tmp_path: Path, redis_server: RedisServer, reply: object) -> None:
    config = config_of(tmp_path, redis_server)
    bench = Bench(config)
    (writer,) = bench.agent._writers
    assert writer.consumer.entries_before is None

    class Nonsense:
        address = config.redis_address

        def call(self, commands: Sequence[bytes]) -> list[Any]:
            return [reply for _ in commands]

    marks = WrittenMarks(Nonsense(), "default", "frames", lambda *_: None)
    with pytest.raises(RedisUnavailable, match="HMGET"):
        marks.begin([writer])
    bench.agent.on_close()
