"""Ring files that are not those of this site, or not in their place."""

from __future__ import annotations

import pytest

from engine.shm import site as site_files
from tests.faults.run import FaultRun
from tests.servers.wait import wait_until
from tests.system.site import command


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
