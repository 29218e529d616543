"""Jobs on a cluster where one step becomes two: what a kill in between leaves, and what the next run makes of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from redis.exceptions import ClusterDownError

from engine.errors import Cause, RedisUnavailable
from engine.jobs.migrate import Migration
from engine.jobs.reindex import Reindex
from engine.servers.redis.session import Session
from engine.wire.redis_address import parse_redis_address
from tests.jobs.old_frames import PREFIX, assert_in_place, ears, expiry, put, row
from tests.jobs.test_recover import Archive, fill
from tests.servers.cluster_client import ReadCluster
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_cluster import ClusterServer
from tests.servers.wait import wait_until
from tests.system.site import command


class Killed(BaseException):
    """As SIGKILL: nothing may catch it."""


@pytest.fixture
def cluster(one_cluster: ReadCluster) -> ReadCluster:
    with one_cluster.client() as client:
        client.flushall()
    return one_cluster


def test_a_recovery_that_is_killed_sends_each_frame_and_deletes_each(
    cluster: ReadCluster, rabbitmq: RabbitMQ, vhost: str
):
    archive = Archive(rabbitmq, cluster, vhost)  # type: ignore[arg-type]
    archive.bind()
    stored = fill(archive, 400)
    for _ in range(3):
        before = len(archive.stored())
        with archive.recovering("--delete", "--fps", "300") as process:
            wait_until(lambda before=before: len(archive.stored()) < before - 20, 30, "frames are deleted")
            process.send_signal(signal.SIGKILL)
            process.wait()
    archive.report("--delete")
    assert {message.key for message in archive.take()} == set(stored)
    assert archive.stored() == []
    assert archive.listed() == 0
    assert archive.recover("--delete").returncode == 3, "nothing is left to send"


class Interrupted(Session):
    """A session that is killed right before its first command of some name."""

    def __init__(self, cluster: ReadCluster, name: str) -> None:
        super().__init__(parse_redis_address(cluster.url), 20.0, checks_mode=True)
        self._name = name

    def try_call(self, *commands):
        if any(command[0] == self._name for command in commands):
            raise Killed
        return super().try_call(*commands)


def test_a_migration_that_is_killed_between_copy_and_removal_ends_with_each_frame_once(cluster: ReadCluster):
    frames = row("cam1", 100) + row("cam2", 20, ttl_ms=0)
    hear, strange = ears()
    with cluster.client() as client:
        put(client, frames)
        ends = expiry(client, [frame.name for frame in frames])
        with Interrupted(cluster, "UNLINK") as session, pytest.raises(Killed):
            Migration(session, PREFIX, None, hear).run()
        assert client.exists(*(frame.new for frame in frames)), "some were copied"
        with Session(parse_redis_address(cluster.url), 20.0, checks_mode=True) as session:
            job = Migration(session, PREFIX, None, hear)
            reports = job.run()
            assert job.left() == 0
        assert sum(report.moved + report.duplicates for report in reports) == len(frames)
        assert_in_place(client, frames, ends)
    assert not strange


class HalfDone(Session):
    """A session of which the node of each PEXPIREAT is lost, while other nodes do their part of the round trip."""

    def try_call(self, *commands):
        rest = [command for command in commands if command[0] != "PEXPIREAT"]
        replies = super().try_call(*rest)
        if len(rest) < len(commands):
            raise RedisUnavailable("the node is lost", cause=Cause.REDIS_AWAY)
        return replies


def test_an_old_key_stays_until_its_copy_has_its_lifetime(cluster: ReadCluster):
    (frame,) = row("cam1", 1)
    with cluster.client() as client:
        put(client, [frame])
        client.set(frame.new, frame.payload, px=5_000)
        with HalfDone(parse_redis_address(cluster.url), 20.0) as session, pytest.raises(RedisUnavailable):
            Migration(session, PREFIX, None, ears()[0]).run()
        assert client.exists(frame.name)


class Unserved(Session):
    """A session whose first command of some name is about a slot that no node serves for now."""

    def __init__(self, cluster: ReadCluster, name: str) -> None:
        super().__init__(parse_redis_address(cluster.url), 20.0)
        self._name = name

    def try_call(self, *commands):
        replies = super().try_call(*commands)
        place = next((place for place, command in enumerate(commands) if command[0] == self._name), None)
        if place is not None:
            self._name = ""
            replies[place] = ClusterDownError("Hash slot not served")
        return replies


@pytest.mark.parametrize("name", ["STRLEN", "EXISTS"])
def test_a_slot_that_is_not_served_ends_a_migration_and_is_not_taken_for_an_answer(cluster: ReadCluster, name: str):
    hear, strange = ears()
    with cluster.client() as client:
        put(client, row("cam1", 10))
    with Unserved(cluster, name) as session, pytest.raises(RedisUnavailable):
        Migration(session, PREFIX, None, hear).run()
    assert not strange


def test_a_slot_that_is_not_served_ends_a_reindex_and_is_not_taken_for_an_answer(cluster: ReadCluster):
    with cluster.client() as client:
        put(client, row("cam1", 10), new=True)
    with Unserved(cluster, "XRANGE") as session, pytest.raises(RedisUnavailable):
        Reindex(session, "loja", PREFIX, ears()[0]).run()


def test_tenants_of_a_cluster_are_listed_and_added_up(cluster: ReadCluster):
    with cluster.client() as client:
        for vhost in ("loja", "outra"):
            put(client, row("cam1", 30, vhost=vhost) + row("cam2", 30, vhost=vhost), new=True)
    for vhost in ("loja", "outra"):
        assert command("reindex", "--redis", cluster.url, "--vhost", vhost).returncode == 0
    listed = command("tenants", "list", "--redis", cluster.url, "--json")
    assert [json.loads(line)["vhost"] for line in listed.stdout.splitlines()] == ["loja", "outra"], listed.stderr
    stats = command("tenants", "stats", "--redis", cluster.url, "--json")
    assert [json.loads(line)["total"]["frames"] for line in stats.stdout.splitlines()] == [60, 60], stats.stderr


def test_users_reach_every_node_that_answers_and_the_same_command_sets_the_rest(cluster: ReadCluster, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("a-password-of-users")
    acl = ("tenants", "acl", "loja", "--role", "reader", "--apply", "--redis", cluster.url)
    first, *others = cluster.cluster.masters()
    second, third = sorted(others, key=lambda each: each.port)
    # The first node to be asked is the one that is away.
    cluster.cluster.partition(first)
    try:
        done = command(*acl, "--password-file", str(secret))
        assert done.returncode == 1, done.stderr
        assert f"set on 2 of 3 nodes (redis://{second.address}, redis://{third.address})" in done.stderr
        assert f"and not on redis://{first.address}: " in done.stderr
        assert done.stdout.startswith("ACL SETUSER loja-reader ")
        assert [has_user(server) for server in (second, third)] == [True, True]
        done = command(*acl, "--json")
        answer = json.loads(done.stdout)
        assert (done.returncode, answer["applied"], list(answer["missing"])) == (1, False, [f"redis://{first.address}"])
        assert "give --password-file to keep this one" in done.stderr
    finally:
        cluster.cluster.heal(first)
    assert not has_user(first)
    done = command(*acl, "--password-file", str(secret))
    assert done.returncode == 0, done.stderr
    for server in (first, second, third):
        with server.client(username="loja-reader", password="a-password-of-users") as client:
            assert client.ping(), "with the password of the last run"
        server.ask("ACL", "DELUSER", "loja-reader")


def has_user(server: ClusterServer) -> bool:
    return server.ask("ACL", "GETUSER", "loja-reader") is not None
