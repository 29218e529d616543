"""A Redis Cluster whose nodes die, hang, hand over and change, under a site that goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults.cases import Case
from tests.faults.cluster_run import ClusterRun
from tests.faults.conftest import observed
from tests.faults.run import CAMERAS, KILOBYTES, pattern
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_cluster import ClusterServer, RedisCluster
from tests.servers.wait import wait_until
from tests.system.site import Site

#: Slots that are moved from one node to another; several thousand would take a busy machine half a minute.
SLOTS = 400
#: Kilobytes of a frame of which rings of one megabyte hold little more than a node's outage lasts until it is noticed.
LARGE = 24


@pytest.fixture
def cluster(short_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    settings = request.node.get_closest_marker("case").kwargs
    with RedisCluster(short_path / "cluster", **settings) as made:
        yield made


@pytest.fixture
def cluster_run(
    case: Case,
    repetition: int,
    site: Site,
    cluster: RedisCluster,
    rabbitmq: RabbitMQ,
    request: pytest.FixtureRequest,
) -> Iterator[ClusterRun]:
    vhost = f"{case.key}-{repetition}"
    rabbitmq.add_vhost(vhost)
    made = ClusterRun(case, site, cluster, rabbitmq, vhost)
    with observed(made, request):
        yield made


def start(run: ClusterRun, kilobytes: int = KILOBYTES, capacity_mb: int = 2) -> None:
    """With rings that outlast the election of a master."""
    cameras = [{"id": name, "url": pattern(kilobytes=kilobytes)} for name in CAMERAS]
    run.start(cameras, ring={"capacity_mb": capacity_mb})


@pytest.mark.case("cluster-failover")
def test_every_master_hands_over(cluster_run: ClusterRun) -> None:
    start(cluster_run)
    for place in range(3):
        cluster_run.moment()
        cluster_run.cluster.failover(place)
        cluster_run.flows(0.5)
    cluster_run.ends()


@pytest.mark.case("cluster-killed", binary="valkey")
def test_a_master_killed(cluster_run: ClusterRun) -> None:
    start(cluster_run)
    place = cluster_run.place(CAMERAS[0])
    old = cluster_run.cluster.masters()[place]
    cluster_run.moment()
    cluster_run.cluster.kill_master(place)
    cluster_run.mended()
    cluster_run.recovers()
    cluster_run.cluster.restart(old)
    cluster_run.flows(0.5)
    cluster_run.settle()


def falls_behind(run: ClusterRun) -> tuple[ClusterServer, ClusterServer]:
    """The master that has the first camera's journal, and its replica, which stands still and lacks frames."""
    master = run.cluster.masters()[run.place(CAMERAS[0])]
    replica = run.cluster.replica_of(master)
    run.cluster.partition(replica)
    # More than the sockets between the two hold, which the replica still gets.
    stored = run.site.total("stored_bytes")
    wait_until(lambda: run.site.total("stored_bytes") > stored + 40 * 2**20, 40, "the master goes ahead")
    return master, replica


def takes_over(run: ClusterRun, replica: ClusterServer) -> None:
    """Let a replica go on whose master is dead, until it is the master."""
    replica.resume()
    wait_until(lambda: replica in run.cluster.masters(), 30, "the replica is the master")


@pytest.mark.case("cluster-lagging")
def test_a_master_killed_while_its_replica_is_behind(cluster_run: ClusterRun) -> None:
    start(cluster_run, kilobytes=100, capacity_mb=8)
    master, replica = falls_behind(cluster_run)
    master.kill()
    takes_over(cluster_run, replica)
    accounts = cluster_run.ends()
    assert accounts.drops["lost"] > 0


@pytest.mark.case("cluster-lagging-writer")
def test_the_writer_killed_before_a_master_whose_replica_is_behind(cluster_run: ClusterRun) -> None:
    start(cluster_run, kilobytes=100, capacity_mb=8)
    master, replica = falls_behind(cluster_run)
    # No other writer is started meanwhile.
    cluster_run.supervisor.suspend()
    os.kill(cluster_run.pids("writer")[0], signal.SIGKILL)
    master.kill()
    takes_over(cluster_run, replica)
    cluster_run.supervisor.resume()
    accounts = cluster_run.ends()
    assert accounts.drops["lost"] > 0


@pytest.mark.case("cluster-lagging-long")
def test_a_replica_that_is_behind_and_takes_over_late(cluster_run: ClusterRun) -> None:
    # So quick that other frames, which are stored meanwhile, fill the newest piece of each journal.
    cameras = [{"id": name, "url": pattern(fps=100, kilobytes=40)} for name in CAMERAS[:4]]
    cluster_run.start(cameras, ring={"capacity_mb": 6}, defaults={"fps": 100})
    master, replica = falls_behind(cluster_run)
    listed = cluster_run.site.total("stored")
    master.kill()
    wait_until(lambda: cluster_run.site.total("stored") > listed + 4 * 300, 30, "other frames are stored meanwhile")
    takes_over(cluster_run, replica)
    accounts = cluster_run.ends()
    assert accounts.drops["lost"] > 0


@pytest.mark.case("cluster-partition")
def test_a_master_cut_off_from_all(cluster_run: ClusterRun) -> None:
    start(cluster_run)
    place = cluster_run.place(CAMERAS[0])
    old = cluster_run.cluster.masters()[place]
    cluster_run.moment()
    successor = cluster_run.cluster.partition_master(place)
    cluster_run.flows(0.5)
    cluster_run.cluster.heal(old)
    assert cluster_run.cluster.replica_of(successor) is old
    cluster_run.ends()


@pytest.mark.case("cluster-cut-off", proxied=True)
def test_a_master_that_clients_do_not_reach(cluster_run: ClusterRun) -> None:
    start(cluster_run)
    master = cluster_run.cluster.owner(f"engine:{cluster_run.vhost}:journal:frames:{CAMERAS[0]}")
    assert master.proxy is not None
    master.proxy.refusing = True
    master.proxy.reset()
    cluster_run.lasts(3)
    assert master in cluster_run.cluster.masters()
    master.proxy.refusing = False
    cluster_run.ends()


@pytest.mark.case("cluster-shard-away")
def test_a_master_and_its_replica_stand_still(cluster_run: ClusterRun) -> None:
    start(cluster_run, kilobytes=LARGE, capacity_mb=1)
    cluster = cluster_run.cluster
    master = cluster_run.cluster.masters()[cluster_run.place(CAMERAS[0])]
    others = set(CAMERAS) - cluster_run.journals_at(master)
    shard = [cluster.replica_of(master), master]
    cluster.partition(*shard)
    cluster_run.outlasts_rings()
    before = {camera["id"]: camera for camera in cluster_run.cameras()}
    cluster_run.flows_at(others)
    # What is on its way to the other nodes is stored: a third or so of it is given up.
    captured = dropped = 0
    for camera in cluster_run.cameras():
        if camera["id"] in others:
            captured += camera["captured"] - before[camera["id"]]["captured"]
            dropped += sum(camera["dropped"].values()) - sum(before[camera["id"]]["dropped"].values())
    assert dropped < captured * 2 / 3, f"{dropped} of {captured} frames were given up"
    cluster.heal(*reversed(shard))
    accounts = cluster_run.ends()
    assert accounts.drops["outage"] > 0
    assert master.address in cluster_run.site.log_text()


@pytest.mark.case("cluster-shard-emptied")
def test_a_master_and_its_replica_come_back_empty(cluster_run: ClusterRun) -> None:
    start(cluster_run, kilobytes=LARGE, capacity_mb=1)
    shard = cluster_run.cluster.kill_shard(cluster_run.place(CAMERAS[0]))
    cluster_run.outlasts_rings()
    cluster_run.cluster.restart(*shard)
    accounts = cluster_run.ends()
    assert accounts.drops["outage"] > 0
    assert accounts.drops["lost"] > 0


@pytest.mark.case("cluster-reshard")
def test_slots_move(cluster_run: ClusterRun) -> None:
    start(cluster_run)
    cluster = cluster_run.cluster
    source = cluster.owner(f"engine:{cluster_run.vhost}:journal:frames:{CAMERAS[0]}")
    target = next(master for master in cluster.masters() if master is not source)
    # Also those of the journals.
    cameras = cluster_run.journals_at(source)
    slots = cluster_run.journal_slots(source) | set(cluster.slots_of(source)[:SLOTS])
    for giver, taker in ((source, target), (target, source)):
        cluster.move_slots(giver, taker, slots, midway=lambda: cluster_run.flows(0.3))
        assert cluster_run.journals_at(source) == (set() if taker is target else cameras)
    cluster_run.ends()


@pytest.mark.case("cluster-resize")
def test_a_node_comes_and_goes(cluster_run: ClusterRun) -> None:
    start(cluster_run)
    cluster = cluster_run.cluster
    added = cluster.add_node()
    for master in cluster.masters():
        if master is not added:
            cluster.move_slots(master, added, cluster.slots_of(master)[:SLOTS])
    cluster_run.flows(0.5)
    assert cluster.keys_of(added, f"{cluster_run.vhost}:frames:*")
    cluster.remove_node(added)
    cluster_run.ends()


@pytest.mark.case("cluster-writer-killed", node_timeout_ms=15_000)
def test_the_writer_killed_between_the_two_steps(cluster_run: ClusterRun) -> None:
    # Long before the nodes replace one that stands still, and before the writer gives it up.
    cluster_run.start(redis={"timeout_seconds": 10.0})
    cluster = cluster_run.cluster
    for place in range(3):
        master = cluster.masters()[place]
        replica = cluster.replica_of(master)
        cluster.partition(master)
        wait_until(partial(cluster_run.between_steps, master, replica), 20, "frames are stored whose entries wait")
        os.kill(cluster_run.site.pid("writer"), signal.SIGKILL)
        cluster.heal(master)
        cluster_run.flows(0.5)
    cluster_run.ends()
