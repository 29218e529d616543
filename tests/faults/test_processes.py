"""SIGKILL and SIGSTOP of every role and of the supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil
import pytest

from tests.faults.counts import final_counts
from tests.faults.run import CAMERAS, FaultRun, pattern
from tests.servers.wait import wait_until

ROLES = ("capture", "writer", "publisher")


@pytest.mark.case("kill-capture")
def test_captures_killed(run: FaultRun) -> None:
    run.start()
    for _ in range(10):
        run.moment()
        run.signal_one(signal.SIGKILL, "capture")
    run.ends()
    assert run.site.log_text().count("process ended") >= 5


@pytest.mark.case("kill-writer")
def test_the_writer_killed(run: FaultRun) -> None:
    run.start()
    for _ in range(5):
        run.moment()
        run.site.kill("writer")
    run.ends()


@pytest.mark.case("kill-publisher")
def test_the_publisher_killed(run: FaultRun) -> None:
    run.start()
    for unconfirmed in (False, True, False, True):
        # What was sent and not confirmed goes down with the connection.
        run.broker_proxy.stalled = unconfirmed
        run.moment()
        run.site.kill("publisher")
        if unconfirmed:
            run.broker_proxy.reset()
            run.broker_proxy.stalled = False
    run.ends()


@pytest.mark.case("kill-supervisor")
def test_the_supervisor_killed(run: FaultRun) -> None:
    run.start()
    run.moment()
    family = run.supervisor.children(recursive=True)
    run.supervisor.kill()
    assert run.site.process is not None
    run.site.process.wait()
    wait_until(lambda: not any(map(psutil.Process.is_running, family)), 10, "its children end with it")
    run.mended()
    run.site.start()
    run.recovers()
    run.settle()


@pytest.mark.case("kill-supervisor-embedded")
def test_the_embedded_server_outlives_its_supervisor(run: FaultRun) -> None:
    frames = 150
    run.start([{"id": name, "url": pattern(frames=frames)} for name in CAMERAS], redis={"address": "embedded"})
    servers = run.site.status()["embedded_pids"]
    (server,) = servers
    with run.embedded_client() as client:
        for _ in range(2):
            run.moment()
            before = set(client.scan_iter(match=f"{run.vhost}:frames:*", count=5000))
            assert before
            run.supervisor.kill()
            assert run.site.process is not None
            run.site.process.wait()
            assert run.site.status()["embedded_pids"] == servers
            run.mended()
            run.site.start()
            run.recovers()
            assert before <= set(client.scan_iter(match=f"{run.vhost}:frames:*", count=5000))
        assert run.site.status()["embedded_pids"] == servers
        assert run.site.log_text().count("embedded server of a former run adopted") == 2
        # The frames end with a server that is stopped: the accounts are settled once the cameras have ended.
        wait_until(lambda: run.site.total("captured") == frames * len(CAMERAS), 60, "the cameras have ended")
        with final_counts(run.site, publishes=True) as final:
            wait_until(lambda: all(not camera["ring"]["held"] for camera in run.cameras()), 20, "all is stored")
            run.account(*final(), client)
    assert run.site.stop() == 0
    wait_until(lambda: not psutil.pid_exists(server) or is_zombie(server), 10, "it has ended")
    assert not run.site.config.run_directory.exists()


def is_zombie(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


@pytest.mark.case("kill-all")
@pytest.mark.usefixtures("neighbour")
def test_everything_killed_at_once(run: FaultRun) -> None:
    run.start()
    run.moment()
    assert run.site.process is not None
    os.killpg(run.site.process.pid, signal.SIGKILL)
    run.site.process.wait()
    run.mended()
    run.site.start()
    run.recovers()
    run.settle()


@pytest.mark.parametrize(
    "role",
    [
        pytest.param("capture", marks=pytest.mark.case("stop-capture")),
        pytest.param("writer", marks=pytest.mark.case("stop-writer")),
        pytest.param("publisher", marks=pytest.mark.case("stop-publisher")),
    ],
)
def test_a_process_that_stands_still_is_replaced(run: FaultRun, role: str) -> None:
    # Rings that outlast the time until the process counts as hung.
    run.start(ring={"capacity_mb": 2})
    run.moment()
    pid = run.signal_one(signal.SIGSTOP, role)
    wait_until(lambda: pid not in run.pids(role), 20, "it was killed")
    run.ends()
    assert run.site.log_text().count("process hangs") == 1


@pytest.mark.case("stop-supervisor")
def test_a_supervisor_that_stands_still(run: FaultRun) -> None:
    run.start()
    run.supervisor.suspend()
    run.site.signal(signal.SIGKILL, "writer")
    run.lasts(2)
    run.supervisor.resume()
    run.ends()


@pytest.mark.case("stop-all")
def test_everything_stands_still(run: FaultRun) -> None:
    run.start()
    family = [run.supervisor, *run.supervisor.children(recursive=True)]
    for process in family:
        process.suspend()
    captured, until = run.site.total("captured"), time.monotonic() + 2
    wait_until(lambda: time.monotonic() >= until, 5, "two seconds have passed")
    assert run.site.total("captured") == captured
    for process in family:
        process.resume()
    run.ends()


@pytest.mark.case("cannot-start")
def test_children_that_cannot_start(run: FaultRun) -> None:
    run.start()
    paths = run.site.paths
    victim = CAMERAS[3]
    pids = {"publisher": run.site.pid("publisher"), "capture": run.site.pid("capture", victim)}
    aside = {path: path.with_suffix(".aside") for path in (paths.publisher(), paths.ring(victim))}
    for path, other in aside.items():
        path.rename(other)
        path.mkdir()
    run.unwell = {victim}
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: run.site.log_text().count("process ended") >= 6, 20, "both were tried again and again")
    # Nobody else notices.
    run.flows(2)
    for path, other in aside.items():
        path.rmdir()
        other.rename(path)
    run.unwell = set()
    run.ends()


@pytest.mark.case("restarts")
@pytest.mark.usefixtures("neighbour")
def test_many_restarts_leave_nothing_behind(run: FaultRun) -> None:
    run.start()
    supervisor = run.supervisor
    children = len(supervisor.children())
    descriptors, memory = supervisor.num_fds(), supervisor.memory_info().rss
    files = sorted(path.name for path in run.site.paths.directory.iterdir())
    for _ in range(3):
        before = set(run.pids(*ROLES))
        run.signal(signal.SIGKILL, *ROLES)
        wait_until(lambda old=before: len({*run.pids(*ROLES)} - old) == children, 20, "all were replaced")
        run.flows(0.5)
    restarts = sum(process["restarts"] for process in run.site.status()["processes"])
    assert restarts == 3 * children == 3 * (len(CAMERAS) + 2)
    run.mended()
    run.recovers()
    assert supervisor.num_fds() == descriptors
    assert supervisor.memory_info().rss < memory + 2**20
    assert sorted(path.name for path in run.site.paths.directory.iterdir()) == files
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in supervisor.children())
    run.settle()
    assert not run.site.paths.directory.exists()
