"""``edge-video capture`` of several cameras in one process, beside the other roles of the site."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.runtime.status_processes import MIB, own_memory
from engine.wire.journal import parse_entry_id
from engine.wire.keys import video_journal_key
from tests.servers.clips import make_clip, read_clip
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.system.roles import RoleSite
from tests.system.site import COMMAND, ROOT, Site, command, stored_frames
from tests.system.stored_units import runs_of, stored_units


def camera(name: str, **settings: Any) -> dict[str, Any]:
    return {"id": name, "url": "test://?size=320x240&fps=20&kb=10", **settings}


FOUR = [camera(f"cam{number}") for number in range(4)]


class Captures(Site):
    """A site of which ``edge-video capture`` runs alone."""

    def start(self, *arguments: str, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "capture", *arguments, "-c", str(self.file)],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            wait_until(self.up, 30, "the captures are up")

    def up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log_text()}"
        return "captures started" in self.log_text()

    def reload(self, said: str) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: said in self.log_text(), 20, f"it says {said!r}", log=self.log_text)

    def captured(self, *names: str) -> None:
        """Wait until these are captured, each some frames more."""
        before = {name: self.camera(name)["captured"] for name in names}
        wait_until(
            lambda: all(self.camera(name)["captured"] > count + 5 for name, count in before.items()), 20,
            f"{names} are captured", log=self.log_text,
        )  # fmt: skip


@pytest.fixture
def captures(short_path: Path) -> Iterator[Captures]:
    running = Captures(short_path / "run")
    yield running
    running.end()


def test_all_cameras_are_captured_by_children_that_share_their_memory(captures: Captures) -> None:
    captures.write(cameras=FOUR, redis={"address": "127.0.0.1:1"})
    captures.start("--all")
    captures.captured("cam0", "cam1", "cam2", "cam3")
    assert captures.process is not None
    titles = sorted(" ".join(child.cmdline()).strip() for child in captures.children())
    assert [title.rpartition(": ")[2] for title in titles] == [f"capture cam{number}" for number in range(4)]
    shared = max(own_memory(child.pid) for child in captures.children()) / MIB
    # Beside one that runs by itself.
    other = Captures(captures.directory / "other")
    try:
        other.write(cameras=[camera("alone")], redis={"address": "127.0.0.1:1"}, site={"name": "other"})
        other.start("alone", wait=False)
        wait_until(lambda: other.paths.ring("alone").exists(), 20, "it captures")
        other.captured("alone")
        assert other.process is not None
        alone = own_memory(other.process.pid) / MIB
    finally:
        other.end()
    assert shared < alone / 2, f"{shared:.1f} MiB of each among four, {alone:.1f} MiB of one alone"
    assert captures.stop() == 0
    assert captures.total("captured") > 0, "rings outlive their captures"


def test_only_the_named_ones_are_captured(captures: Captures) -> None:
    captures.write(cameras=FOUR)
    captures.start("cam1", "cam3", "cam1")
    captures.captured("cam1", "cam3")
    assert len(captures.children()) == 2
    assert not captures.paths.ring("cam0").exists()
    assert captures.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the cameras to capture, or say --all"),
        (["cam0", "--all"], "name the cameras to capture, or say --all"),
        (["cam0", "camm1"], "no camera 'camm1'"),
    ],
)
def test_wrong_arguments(captures: Captures, arguments: list[str], said: str) -> None:
    captures.write(cameras=FOUR)
    done = command("capture", *arguments, "-c", str(captures.file))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not captures.paths.directory.exists()


def test_dead_and_hung_children_are_replaced_and_all_end_with_their_parent(captures: Captures) -> None:
    impatient = {"stall_seconds": 1, "open_timeout_seconds": 1}
    captures.write(cameras=FOUR, site={"heartbeat_seconds": 2}, defaults=impatient)
    captures.start("--all")
    captures.captured("cam0", "cam1")
    captures.kill("capture", "cam0")
    hung = captures.signal(signal.SIGSTOP, "capture", "cam1")
    wait_until(lambda: captures.pid("capture", "cam1") != hung, 20, "the hung one was replaced")
    captures.captured("cam0", "cam1", "cam2", "cam3")
    family = captures.children()
    assert captures.process is not None
    captures.process.kill()
    captures.process.wait()
    assert not psutil.wait_procs(family, 10)[1]
    # The next one goes on with the same rings.
    last = captures.camera("cam2")["captured"]
    captures.log.unlink()
    captures.start("--all")
    captures.captured("cam0", "cam1", "cam2", "cam3")
    assert captures.camera("cam2")["captured"] > last
    assert captures.stop() == 0


def test_a_hang_up_takes_cameras_over_from_the_site_file(captures: Captures, redis_server: RedisServer) -> None:
    redis = {"address": redis_server.address}
    captures.write(cameras=FOUR, redis=redis)
    captures.start("--all")
    captures.captured("cam0", "cam1", "cam2", "cam3")
    pids = {name: captures.pid("capture", name) for name in ("cam0", "cam1", "cam2", "cam3")}
    # cam0 stays, cam1 changes, cam2 and cam3 go, cam4 comes.
    cameras = [FOUR[0], camera("cam1", url="test://?size=640x480&fps=20&kb=20"), camera("cam4")]
    captures.write(cameras=cameras, redis=redis)
    captures.reload("camera added")
    captures.captured("cam0", "cam1", "cam4")
    wait_until(lambda: captures.camera("cam1")["width"] == 640, 20, "cam1 is captured as the file says now")
    assert captures.pid("capture", "cam0") == pids["cam0"]
    assert captures.pid("capture", "cam1") != pids["cam1"]
    wait_until(lambda: len(captures.children()) == 3, 20, "two have gone")
    assert not any(psutil.pid_exists(pids[name]) for name in ("cam2", "cam3"))
    assert "process ended" not in captures.log_text()
    # What they captured is stored before their rings go.
    assert all(captures.paths.ring(name).exists() for name in ("cam2", "cam3"))
    writer = Captures(captures.directory / "writer")
    writer.process = subprocess.Popen([*COMMAND, "writer", "-c", str(captures.file)], cwd=ROOT, start_new_session=True)
    try:
        wait_until(lambda: captures.camera("cam0")["stored"] > 10, 20, "cam0 is stored")
        assert captures.stop() == 0
        assert writer.stop() == 0
    finally:
        writer.end()
    assert len(stored_frames(redis_server.client(), "default").numbers["cam0"]) == captures.camera("cam0")["stored"]


def test_the_ring_of_a_camera_that_was_let_go_is_removed_once_it_is_empty(captures: Captures) -> None:
    with RedisServer(captures.directory / "redis") as server:
        redis = {"address": server.address}
        captures.write(cameras=FOUR, redis=redis)
        captures.start("--all")
        log = (captures.directory / "writer.log").open("ab")
        # This one knows all four.
        writer = subprocess.Popen(
            [*COMMAND, "writer", "-c", str(captures.file)], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until(lambda: captures.camera("cam3")["stored"] > 10, 20, "cam3 is stored")
            server.pause()
            held = captures.camera("cam3")["ring"]["held"]
            wait_until(lambda: captures.camera("cam3")["ring"]["held"] > held + 10, 20, "its ring fills")
            ring = captures.paths.ring("cam3")
            captures.write(cameras=FOUR[:3], redis=redis)
            captures.reload("camera let go")
            wait_until(lambda: len(captures.children()) == 3, 20, "its capture has gone")
            captures.captured("cam0")
            assert ring.exists()
            server.resume()
            wait_until(lambda: not ring.exists(), 20, "its ring has gone", log=captures.log_text)
            numbers = stored_frames(server.client(), "default").numbers["cam3"]
            assert numbers == list(range(1, len(numbers) + 1))
        finally:
            writer.terminate()
            writer.wait(30)
            log.close()
    assert captures.stop() == 0


def test_video_comes_and_goes_with_its_key_and_its_numbers_go_on(captures: Captures, tmp_path: Path) -> None:
    clip = read_clip(make_clip(tmp_path / "a.mp4", fps=20, gop=5, seconds=2))
    with RedisServer(captures.directory / "redis") as server, RtspVideo(tmp_path, {"/gate": Mount(clip)}) as rtsp:
        redis, client, journal = (
            {"address": server.address},
            server.client(),
            video_journal_key("default", "frames", "gate"),
        )
        gate = {"id": "gate", "url": rtsp.url("/gate"), "decode": "key"}

        def write(*, video: bool) -> None:
            captures.write(cameras=[{**gate, "video": video}, FOUR[0]], redis=redis)

        def last() -> int:
            newest = client.xrevrange(journal, count=1)
            return parse_entry_id(newest[0][0])[1] if newest else 0

        write(video=True)
        ring = captures.paths.ring("gate", video=True)
        captures.start("--all")
        log = (captures.directory / "writer.log").open("ab")
        writer = subprocess.Popen(
            [*COMMAND, "writer", "-c", str(captures.file)], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until(lambda: last() > 20, 30, "video is stored", log=captures.log_text)
            write(video=False)
            captures.reload("camera changed")
            wait_until(lambda: not ring.exists(), 30, "its video ring has gone", log=captures.log_text)
            wait_until(lambda: captures.camera("gate")["video"] is None, 10, "status knows")
            wait_until(lambda: captures.camera("gate")["captured"] > 0, 20, "its key frames are captured")
            before = last()
            write(video=True)
            captures.process.send_signal(signal.SIGHUP)
            wait_until(lambda: last() > before + 20, 30, "video is stored again", log=captures.log_text)
        finally:
            writer.terminate()
            writer.wait(30)
            log.close()
        assert captures.stop() == 0
        runs = runs_of(stored_units(client, "gate"))
        sequences = [unit.entry.sequence for run in runs for unit in run]
        assert sequences == sorted(set(sequences)), "a sequence was used twice"


def test_a_site_file_that_is_wrong_changes_nothing(captures: Captures) -> None:
    captures.write(cameras=FOUR[:2])
    captures.start("--all")
    captures.captured("cam0", "cam1")
    pids = {child.pid for child in captures.children()}
    good = captures.file.read_text()
    captures.file.write_text(good + '\n[[cameras]]\nid = "cam9"\nurl = "gopher://x"\n')
    captures.reload("site file not taken; nothing changes")
    captures.file.write_text(good + "\n[writer]\nwriters = 3\n")
    captures.reload("these sections are taken when all roles are restarted")
    assert "sections=writer" in captures.log_text()
    captures.captured("cam0", "cam1")
    assert {child.pid for child in captures.children()} == pids
    assert captures.stop() == 0


@pytest.mark.parametrize("arguments", [["--all"], ["cam0"]], ids=["all", "one"])
def test_numbers_go_on_behind_those_in_redis(
    captures: Captures, redis_server: RedisServer, arguments: list[str]
) -> None:
    captures.write(cameras=[FOUR[0]], redis={"address": redis_server.address})
    site_run = Site(captures.directory / "as-run")
    site_run.file = captures.file
    site_run.start()
    wait_until(lambda: site_run.total("stored") > 20, 30, "frames are stored")
    assert site_run.stop() == 0
    before = stored_frames(redis_server.client(), "default").numbers["cam0"]
    assert not captures.paths.directory.exists()
    captures.start(*arguments, wait=False)
    wait_until(lambda: captures.paths.ring("cam0").exists(), 20, "it has a ring")
    captures.captured("cam0")
    assert captures.stop() == 0
    assert command("writer", "--help").returncode == 0
    writer = subprocess.Popen([*COMMAND, "writer", "-c", str(captures.file)], cwd=ROOT, start_new_session=True)
    wait_until(lambda: not captures.camera("cam0")["ring"]["held"], 30, "the rest is stored")
    writer.terminate()
    assert writer.wait(30) == 0
    numbers = stored_frames(redis_server.client(), "default").numbers["cam0"]
    assert len(numbers) > len(before)
    assert numbers == list(range(1, len(numbers) + 1))


def test_supervisord_runs_and_stops_the_roles_in_a_frame_s_order(short_path: Path, redis_server: RedisServer) -> None:
    site = RoleSite(short_path / "run")
    try:
        site.write(cameras=FOUR, redis={"address": redis_server.address})
        site.start()
        wait_until(lambda: site.total("stored") > 50, 30, "frames are stored")
        site.write(cameras=FOUR[:3], redis={"address": redis_server.address})
        assert "signalled" in site.control("signal", "HUP", "capture")
        wait_until(lambda: "camera let go" in site.log_text(), 20, "the captures know")
        assert site.stop() == 0
        assert site.total("stored") == site.total("captured")
        assert "process ended" not in site.log_text()
    finally:
        site.end()
