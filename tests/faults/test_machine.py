"""A machine without memory, disk, descriptors or a clock that runs forward; ring files that are not what they were."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.wire import ring_layout as layout
from tests.faults.disks import fill, resize, small_disk
from tests.faults.run import CAMERAS, FPS, FaultRun, pattern
from tests.faults.stepped_clock import write_step
from tests.servers.users import STRANGER, command_of, counted, counted_user, crowd
from tests.servers.wait import wait_until
from tests.system.site import ROOT, Site, command

HOUR = 3600
#: Processes and threads that the user of a site may have: those of the cameras, and a few more.
PROCESSES = len(CAMERAS) + 40
VICTIM, OTHER = CAMERAS[3], CAMERAS[7]


def refused(run: FaultRun, *words: str) -> None:
    """The site does not start: one line that says why, exit code 2, nothing left running."""
    done = command("run", "-c", str(run.site.file))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    run.note = "exit code 2"


def kill_with_frames_held(run: FaultRun) -> None:
    """The site is killed while its rings hold frames."""
    run.redis.pause()
    wait_until(lambda: all(camera["ring"]["held"] > 5 for camera in run.cameras()), 20, "rings hold frames")
    assert run.site.process is not None
    os.killpg(run.site.process.pid, signal.SIGKILL)
    run.site.process.wait()
    run.redis.resume()


@pytest.mark.case("shm-full")
def test_too_little_shared_memory(run: FaultRun, short_path: Path) -> None:
    directory = short_path / "shm"
    directory.mkdir()
    with small_disk(directory, "8m"):
        run.configure(ring={"capacity_mb": 1, "directory": str(directory)})
        refused(run, str(directory), f"{len(CAMERAS)} cameras need", "8,388,608 are free")
        assert not list(directory.rglob("*.ring"))


@pytest.mark.case("shm-full-adding")
def test_too_little_shared_memory_for_one_more(run: FaultRun, short_path: Path) -> None:
    directory = short_path / "shm"
    directory.mkdir()
    ring = {"capacity_mb": 1, "directory": str(directory)}
    with small_disk(directory, f"{len(CAMERAS) + 1}m"):
        run.start(ring=ring)
        kill_with_frames_held(run)
        good = run.site.file.read_text()
        run.site.file.write_text(good + '\n[[cameras]]\nid = "one-more"\nurl = "test://"\n')
        refused(run, f"{len(CAMERAS) + 1} cameras need")
        run.note = "exit code 2, rings left as they were"
        run.site.file.write_text(good)
        run.mended()
        run.site.start()
        run.recovers()
        run.settle()


@pytest.mark.case("run-directory")
def test_run_directory_that_cannot_be_made(run: FaultRun, short_path: Path) -> None:
    (short_path / "file").touch()
    run.configure(site={"run_directory": str(short_path / "file" / "site")})
    refused(run, str(short_path / "file"))
    # A directory that stands, is somebody else's, and may be entered and not written.
    run.configure(site={"run_directory": str(short_path / "theirs" / "site")})
    (short_path / "theirs").mkdir()
    for path in (short_path, short_path / "theirs", run.site.directory):
        path.chmod(0o755)
    run.site.file.chmod(0o644)
    words = command_of(STRANGER, short_path, sys.executable, "-m", "engine", "run", "-c", str(run.site.file))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert f"cannot make the directory {short_path / 'theirs' / 'site'}: Permission denied" in done.stderr


@pytest.mark.case("disk-full-log")
def test_the_log_s_disk_full(run: FaultRun, short_path: Path) -> None:
    directory = short_path / "log"
    directory.mkdir()
    with small_disk(directory, "1m"):
        run.site.log = directory / "stderr.log"
        run.start()
        filler = fill(directory)
        before = run.site.log_text()
        for _ in range(2):
            run.signal(signal.SIGKILL, "capture", "writer")
            run.flows(1)
        filler.unlink()
        run.mended()
        run.site.signal(signal.SIGKILL, "publisher")
        run.recovers()
        wait_until(lambda: "log lines could not be written" in run.site.log_text(), 10, "lost lines are counted")
        assert before in run.site.log_text()
        run.settle()


@pytest.mark.case("disk-full-aof", disk="12m", args=("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0"))
def test_the_append_only_file_s_disk_full(run: FaultRun) -> None:
    run.start()
    wait_until(lambda: run.site.status()["writer"]["retries"] > 0, 30, "writes are refused", interval=0.1)
    run.lasts(2)
    resize(run.redis.directory, "256m")
    run.ends()
    assert "MISCONF" in run.site.log_text()


@pytest.mark.case("descriptors")
def test_no_file_descriptors_left(run: FaultRun) -> None:
    run.start()
    family = [run.supervisor, *run.supervisor.children(recursive=True)]
    limits = {process: process.rlimit(resource.RLIMIT_NOFILE) for process in family}
    for process, (_, hard) in limits.items():
        process.rlimit(resource.RLIMIT_NOFILE, (3, hard))
    run.redis_proxy.reset()
    run.broker_proxy.reset()
    run.lasts(2)
    for process, limit in limits.items():
        process.rlimit(resource.RLIMIT_NOFILE, limit)
    run.ends()
    assert "Too many open files" in run.site.log_text()


@pytest.mark.case("no-processes")
def test_no_more_processes(run: FaultRun, short_path: Path) -> None:
    run.configure()
    run.listen()
    # Whether a site file can be read is asked for the real user.
    for path in (short_path, run.site.directory, run.site.file):
        path.chmod(0o755)
    user = counted_user()
    run.site.command = [*counted(user), "prlimit", f"--nproc={PROCESSES}", *run.site.command]
    with crowd(user, PROCESSES - 15):
        run.site.start()
        wait_until(lambda: run.site.log_text().count("process cannot be started") > 5, 30, "some do not start")
        wait_until(lambda: sum(camera["stored"] > FPS for camera in run.cameras()) >= 3, 30, "some cameras are stored")
    run.flows(timeout=60)
    with crowd(user, PROCESSES):
        pids = [*run.random.sample(run.pids("capture"), 10), *run.pids("publisher")]
        before = run.site.log_text().count("process cannot be started")
        run.unwell = {camera["id"] for camera in run.cameras() if run.site.pid("capture", camera["id"]) in pids}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: run.site.log_text().count("process cannot be started") == before + len(pids), 20,
            "each of them says once that it does not start",
        )  # fmt: skip
        run.flows(2)
    run.unwell = set()
    run.ends()
    log = run.site.log_text()
    assert "(EAGAIN)" in log
    assert "ulimit -u" in log
    assert log.count("process could be started") >= len(pids)


@pytest.mark.case("clock")
def test_a_clock_that_steps(run: FaultRun, short_path: Path) -> None:
    step = short_path / "step"
    write_step(step, 0)
    run.site.command = [sys.executable, "-m", "tests.faults.stepped_clock", str(step)]
    run.start()
    newest = newest_stamp(run)
    write_step(step, -HOUR)
    run.flows(1)
    assert newest_stamp(run) < newest + 60 * 10**9
    write_step(step, HOUR)
    run.flows(1)
    assert newest_stamp(run) > time.time_ns() + (HOUR - 60) * 10**9
    write_step(step, 0)
    run.flows(1)
    run.ends()


def newest_stamp(run: FaultRun) -> int:
    (identifier, _), *_ = run.redis.client().xrevrange(f"engine:{run.vhost}:journal:frames:{VICTIM}", count=1)
    return int(identifier.split(b"-")[0])


@pytest.mark.case("ring-version")
def test_a_ring_of_another_version(run: FaultRun) -> None:
    run.start()
    kill_with_frames_held(run)
    with run.site.paths.ring(VICTIM).open("r+b") as file:
        file.seek(8 * layout.W_VERSION)
        file.write((layout.VERSION + 1).to_bytes(8, "little"))
    run.mended()
    run.renewed = {VICTIM}
    run.site.start()
    run.recovers()
    run.settle()
    assert f"layout is version {layout.VERSION + 1}" in run.site.log_text()


@pytest.mark.case("ring-truncated")
def test_truncated_rings(run: FaultRun) -> None:
    run.start()
    kill_with_frames_held(run)
    os.truncate(run.site.paths.ring(VICTIM), 500_000)
    run.renewed = {VICTIM}
    run.site.start()
    run.flows(1)
    assert "ring of a former run removed" in run.site.log_text()
    run.renewed = {VICTIM, OTHER}
    run.mended()
    # Whoever touches what is no longer there gets SIGBUS from the kernel.
    os.truncate(run.site.paths.ring(OTHER), layout.HEADER_BYTES)
    wait_until(lambda: "ring that cannot be used removed" in run.site.log_text(), 20, "its capture made another")
    run.recovers()
    run.flows(1)
    run.settle()


@pytest.mark.case("ring-noise")
def test_noise_in_a_ring(run: FaultRun) -> None:
    noise = random.Random(run.seed)
    run.start()
    for _ in range(3):
        run.redis.pause()
        wait_until(lambda: run.site.camera(VICTIM)["ring"]["held"] > 5, 20, "the ring holds frames")
        with run.site.paths.ring(VICTIM).open("r+b", buffering=0) as file:
            file.seek(layout.HEADER_BYTES)
            file.write(noise.randbytes(layout.area_bytes(2**20)))
        run.redis.resume()
        run.flows(0.5)
    accounts = run.ends(innocent=[name for name in CAMERAS if name != VICTIM])
    assert accounts.drops["damaged"] >= 3
    client = run.redis.client()
    frames = [client.get(name) for name in client.scan_iter(match=f"{run.vhost}:frames:{VICTIM}:*", count=5000)]
    assert len({frame[200:] for frame in frames if frame}) == 1, "a torn frame is stored"


@pytest.mark.case("second-site")
def test_a_second_site_under_the_same_names(run: FaultRun, short_path: Path) -> None:
    run.start()
    second = Site(short_path / "second", warm=True)
    try:
        for cameras, wanted in ((CAMERAS[:2], 2), (["elsewhere"], 0)):
            second.write(
                cameras=[{"id": name, "url": pattern()} for name in cameras],
                redis={"address": run.redis.address},
                amqp_url=run.broker.url(run.vhost),
                metadata={"enabled": False},
                site={"name": "second"},
            )
            second.start(wait=not wanted)
            assert second.process is not None
            if wanted:
                assert second.process.wait(30) == wanted, second.log_text()
                assert "2 cameras (cam00, cam01) are stored by another site already" in second.log_text()
            else:
                wait_until(lambda: second.total("stored") > 10, 30, "it stores beside the other")
                assert second.stop() == wanted
        for key in run.redis.client().scan_iter(match=f"*{run.vhost}:*elsewhere*"):
            run.redis.client().delete(key)
    finally:
        second.end()
    run.ends()
