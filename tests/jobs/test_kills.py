"""Jobs killed with SIGKILL at random moments, and run again: in the end all is as if nobody had killed them, and the
site that wrote meanwhile has lost nothing."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.wire import keys
from engine.wire.journal import entry_id
from tests.jobs.old_frames import (
    PREFIX,
    SECOND,
    T0,
    Old,
    assert_drafts_expire,
    assert_in_place,
    assert_journals_agree,
    assert_site_unharmed,
    drafts,
    expiry,
    listed,
    put,
    row,
)
from tests.jobs.test_recover import Archive, first_times
from tests.jobs.test_reindex import as_new, enter
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site, command

CAMERAS = ["cam1", "cam2", "cam3"]
#: Frames of each camera that the jobs are about.
COUNT = 2500
#: Tries for each moment of a kill: on a busy machine the job may have finished by then.
TRIES = 12


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture
def writing(site: Site, redis_server: RedisServer) -> Site:
    """A site that writes to the same cameras' journals throughout."""
    site.write(
        cameras=[{"id": camera, "url": "test://?fps=20&kb=8&size=320x240"} for camera in CAMERAS],
        redis={"address": redis_server.address, "ttl_seconds": 7200},
    )
    site.start()
    wait_until(lambda: all(camera["stored"] > 10 for camera in site.status()["cameras"]), 30, "frames flow")
    return site


def unlist(client: redis.Redis, frames: list[Old]) -> None:
    """Remove the journal entries of some frames."""
    pipeline = client.pipeline(transaction=False)
    for frame in frames:
        key = frame.key
        pipeline.xdel(keys.journal_key(key.vhost, key.prefix, key.camera), entry_id(key.unix_nano, key.sequence))
    pipeline.execute()


def move_back(client: redis.Redis, frames: list[Old]) -> None:
    """Give frames their old keys again, and remove their journal entries."""
    pipeline = client.pipeline(transaction=False)
    for frame in frames:
        pipeline.rename(frame.new, frame.name)
    pipeline.execute()
    unlist(client, frames)


def end(site: Site, client: redis.Redis, vhost: str = "default") -> None:
    """Stop it; it went on until now, dropped nothing, and all of it is stored and listed."""
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 20, 30, "frames flow still")
    assert site.dropped() == {}
    assert site.stop() == 0
    assert_site_unharmed(site, client, vhost)


def kill_when(arguments: list[str], moment: Callable[[], bool], log: Path) -> bool:
    """Run the command and kill it at a moment; False where it had ended before."""
    with log.open("ab") as out:
        process = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=out, stderr=out)
        try:
            wait_until(lambda: process.poll() is not None or moment(), 60, "the moment to kill", interval=0.003)
            inside = process.poll() is None
        finally:
            process.kill()
            process.wait()
    return inside


class Moments:
    """Moments of a job, by what Redis has done for it since the last kill."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def calls(self, name: str, count: int) -> Callable[[], bool]:
        """So many calls of a command."""
        begin = self._count(name)
        return lambda: self._count(name) - begin >= count

    def draft(self, entries: int) -> Callable[[], bool]:
        """A draft of a journal that did not stand before has so many entries."""
        before = set(drafts(self._client))
        return lambda: any(self._length(name) >= entries for name in drafts(self._client) if name not in before)

    def _length(self, name: bytes) -> int:
        """Entries of a draft, none once it has taken its journal's place."""
        return int(self._client.xlen(name))

    def _count(self, name: str) -> int:
        found: Any = self._client.info("commandstats").get(f"cmdstat_{name}")
        return int(found["calls"]) if found else 0


def test_a_migration_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(writing, redis_server, client, short_path):
    frames = [
        frame
        for camera in (*CAMERAS, "gone:by")
        for frame in row(camera, COUNT, vhost="default", payload=random.randbytes(300), size=(0, 0))
    ]
    put(client, frames)
    ends = expiry(client, [frame.name for frame in frames])
    at = Moments(client)
    moments: list[Callable[[], Callable[[], bool]]] = [
        lambda: at.calls("strlen", random.randint(1, 2000)),
        lambda: at.draft(random.randint(1, COUNT)),
        lambda: at.calls("renamenx", 1),
        lambda: at.calls("renamenx", random.randint(2, COUNT)),
    ]
    arguments = ["migrate", "-c", str(writing.file)]
    inside = 0
    for moment in moments:
        for _ in range(TRIES):
            killed = kill_when(arguments, moment(), short_path / "job.log")
            left = client.exists(*(frame.name for frame in frames))
            # Nothing is lost in between, wherever it stands.
            assert left + client.exists(*(frame.new for frame in frames)) == len(frames)
            if killed and left:
                inside += 1
                break
            # It had moved all before the kill: undo its work, and try this moment again.
            move_back(client, frames)
        assert_drafts_expire(client)
    assert inside == len(moments), (short_path / "job.log").read_text()
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    end(writing, client)
    assert_in_place(client, frames, ends)
    assert_drafts_expire(client)
    assert_journals_agree(client, "default", [*CAMERAS, "gone:by"])


def test_a_reindexing_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(writing, redis_server, client, short_path):
    frames = [frame for camera in CAMERAS for frame in as_new(row(camera, COUNT, vhost="default"))]
    gone = as_new(row("script", 2000, first=T0 + SECOND // 2, vhost="default"))
    put(client, frames, new=True)
    enter(client, gone)
    ends = expiry(client, [frame.new for frame in frames])
    at = Moments(client)
    moments: list[Callable[[], Callable[[], bool]]] = [
        lambda: at.calls("strlen", random.randint(1, COUNT)),
        lambda: at.draft(random.randint(1, COUNT // 2)),
        lambda: at.draft(random.randint(COUNT // 2, COUNT)),
        lambda: at.calls("rename", 2),
    ]
    arguments = ["reindex", "-c", str(writing.file)]
    inside = 0
    for moment in moments:
        for _ in range(TRIES):
            if kill_when(arguments, moment(), short_path / "job.log"):
                inside += 1
                break
            # It had finished before the kill: undo its work, and try this moment again.
            unlist(client, frames)
        assert expiry(client, [frame.new for frame in frames]) == ends
        for camera in CAMERAS:
            entries = listed(client, "default", camera)
            assert entries == sorted(entries), "a journal is out of order"
        assert_drafts_expire(client)
    assert inside == len(moments), (short_path / "job.log").read_text()
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    end(writing, client)
    assert_in_place(client, frames, ends)
    assert_journals_agree(client, "default", [*CAMERAS, "script"])
    assert_drafts_expire(client)


def test_a_recovery_that_is_killed_goes_on_where_it_was(
    site: Site, redis_server: RedisServer, client: redis.Redis, rabbitmq: RabbitMQ, vhost: str, short_path: Path
) -> None:
    """Whatever was deleted has arrived, at every moment; in the end all has, in order."""
    site.write(
        cameras=[{"id": camera, "url": "test://?fps=20&kb=8&size=320x240"} for camera in CAMERAS[:2]],
        redis={"address": redis_server.address, "ttl_seconds": 7200},
        amqp_url=rabbitmq.url(vhost),
    )
    site.start()
    wait_until(lambda: site.total("stored") > 20, 30, "frames flow")
    names = ["old1", "old2", "old3"]
    frames: list[Old] = [
        frame
        for position, camera in enumerate(names)
        for frame in as_new(row(camera, 800, first=T0 + position * SECOND // 3, vhost=vhost))
    ]
    frames.sort(key=lambda frame: frame.key.unix_nano)
    put(client, frames, new=True)
    enter(client, frames)
    archive = Archive(rabbitmq, redis_server, vhost)
    archive.bind()
    arguments = ["recover", *names, "-c", str(site.file), "--delete", "--fps", "1500"]
    wanted = [frame.new.decode() for frame in frames]
    received = []
    inside = 0
    for _ in range(4):
        bound = archive.listed(*names) - random.randint(1, 400)
        inside += kill_when(arguments, lambda bound=bound: archive.listed(*names) <= bound, short_path / "job.log")
        there = {name for name, held in zip(wanted, client.mget(wanted), strict=True) if held is not None}
        received += archive.take()
        keys_received = {message.key for message in received}
        assert {name for name in wanted if name not in there} <= keys_received
        # Of frames that are gone the entries are gone too, and the others' stand.
        entries = {
            keys.build_frame_key(keys.FrameKey(vhost, PREFIX, camera, entry.unix_nano, entry.sequence))
            for camera in names
            for entry in listed(client, vhost, camera)
        }
        assert entries == there
    assert inside == 4, (short_path / "job.log").read_text()
    assert there, "all was sent before the last kill"
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    received += archive.take()
    assert first_times(received) == wanted
    assert all(message.body == frame.payload for message, frame in zip(_first(received), frames, strict=True))
    # What comes twice is at most what was on its way at a kill.
    assert len(received) - len(wanted) <= 4 * 64
    assert not client.exists(*wanted)
    end(site, client, vhost)


def _first(messages: list[Any]) -> list[Any]:
    """Messages, each where it came first."""
    return list({message.key: message for message in reversed(messages)}.values())[::-1]
