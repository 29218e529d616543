"""Ring files that are not those of this site, or not in their place."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from engine.shm import site as site_files
from tests.faults.run import CAMERAS, FaultRun
from tests.servers.wait import wait_until
from tests.system.site import command

VICTIMS = (CAMERAS[3], CAMERAS[7], CAMERAS[11])


def held(run: FaultRun) -> dict[str, int]:
    return {leftover.camera: leftover.held for leftover in site_files.leftovers(run.site.config)}


@pytest.mark.case("ring-tenant")
def test_frames_left_by_one_tenant_never_come_out_as_another_s(run: FaultRun) -> None:
    mine, other = run.vhost, f"{run.vhost}-other"
    run.broker.add_vhost(other)
    run.start(site={"drain_seconds": 1.0})
    run.redis.pause()
    wait_until(lambda: all(camera["ring"]["held"] > 5 for camera in run.cameras()), 20, "rings hold frames")
    assert run.site.stop() == 1, "frames are left"
    before = held(run)
    assert min(before.values()) > 5
    run.redis.resume()

    run.vhost = other
    run.configure()
    for role in (["run"], ["writer"], ["publisher"], ["capture", "cam01"]):
        done = command(*role, "-c", str(run.site.file))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        for words in (f"{sum(before.values())} frames", f"vhost '{mine}'", f"vhost '{other}'", "edge-video clean"):
            assert words in done.stderr
        assert held(run) == before
    assert not run.redis.client().keys(f"*{other}*")

    run.vhost = mine
    run.configure()
    run.mended()
    run.site.start()
    run.recovers()
    run.settle()
    run.note = "exit code 2; with the former vhost all is stored"


def frames_are_held(run: FaultRun, cameras: Sequence[str]) -> None:
    wait_until(lambda: all(run.site.camera(name)["ring"]["held"] > 5 for name in cameras), 20, "rings hold frames")


def rings_stand(run: FaultRun, cameras: Sequence[str]) -> None:
    wait_until(lambda: all(run.site.paths.ring(name).exists() for name in cameras), 20, "rings were made anew")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("unlink", marks=pytest.mark.case("ring-unlinked")),
        pytest.param("rename", marks=pytest.mark.case("ring-renamed")),
    ],
)
@pytest.mark.usefixtures("neighbour")
def test_rings_taken_away_under_a_running_site(run: FaultRun, how: str) -> None:
    run.start()
    for number in range(3):
        run.redis.pause()
        frames_are_held(run, VICTIMS)
        for name in VICTIMS:
            path = run.site.paths.ring(name)
            path.unlink() if how == "unlink" else path.rename(path.with_suffix(f".{number}"))
        rings_stand(run, VICTIMS)
        run.moment()
        run.redis.resume()
        run.flows(0.5)
    accounts = run.ends(innocent=CAMERAS)
    assert not accounts.drops
    assert run.site.log_text().count("its counts continue") == 3 * len(VICTIMS)


@pytest.mark.case("ring-and-capture")
def test_a_ring_and_its_capture_gone_at_once(run: FaultRun) -> None:
    victim = VICTIMS[0]
    run.start()
    for _ in range(3):
        run.redis.pause()
        frames_are_held(run, [victim])
        run.site.signal(signal.SIGKILL, "capture", victim)
        run.site.paths.ring(victim).unlink()
        rings_stand(run, [victim])
        run.redis.resume()
        run.flows(0.5)
    run.renewed = {victim}
    run.ends(innocent=[name for name in CAMERAS if name != victim])
    assert run.site.log_text().count("its counts do not include these of the former ring") == 3


@pytest.mark.case("ring-and-writer")
def test_a_ring_removed_and_the_writer_killed(run: FaultRun) -> None:
    victim = VICTIMS[0]
    run.start()
    run.redis.pause()
    frames_are_held(run, [victim])
    run.site.paths.ring(victim).unlink()
    rings_stand(run, [victim])
    run.site.kill("writer")
    # Redis may still store the killed writer's last batch, and nobody is left who knows of it.
    run.unsettled = {victim}
    run.redis.resume()
    accounts = run.ends(innocent=[name for name in CAMERAS if name != victim])
    assert accounts.drops["damaged"] > 5


@pytest.mark.case("redis-journal-ahead")
@pytest.mark.usefixtures("neighbour")
def test_a_journal_entry_far_ahead(run: FaultRun) -> None:
    victim = VICTIMS[0]
    client, journal = run.redis.client(), f"engine:{run.vhost}:journal:frames:{victim}"
    client.xadd(journal, {"a": "b"}, id="5000000000000000000-1")
    run.unwell = {victim}
    run.start()
    wait_until(lambda: run.site.camera(victim)["dropped"]["refused"] > 20, 20, "its frames are refused")
    # Neither the running ring nor a new start suffers from it.
    run.site.signal(signal.SIGKILL, "capture", victim)
    run.site.kill("writer")
    refused = run.site.camera(victim)["dropped"]["refused"]
    wait_until(lambda: run.site.camera(victim)["dropped"]["refused"] > refused + 10, 20, "it goes on")
    run.flows(1)
    log = run.site.log_text()
    assert log.count(f"redis-cli DEL {journal}") == 2, "said once by each writer"
    assert "damaged" not in log
    client.delete(journal)
    run.unwell = set()
    run.ends(innocent=[name for name in CAMERAS if name != victim])
