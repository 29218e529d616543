"""The cost of an idle site: start-up, waiting with connected cameras, memory of a camera process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import Results, Scale
from benchmarks.measured_site import OWN_ROLES, Window, add_vhost, pattern_cameras, running_site
from benchmarks.page_peers import PageRun, page_run, page_server
from engine.runtime.status_processes import MIB, own_memory
from tests.servers.rabbitmq import RabbitMQ

KB = 60
#: The simplest process per camera: an interpreter that loads OpenCV.
INTERPRETER = [sys.executable, "-c", "import cv2"]


def start_interpreters(count: int) -> float:
    """Seconds until ``count`` interpreters, started at the same time, have loaded OpenCV."""
    begun = time.perf_counter()
    running = [subprocess.Popen(INTERPRETER) for _ in range(count)]
    try:
        for process in running:
            assert process.wait(120) == 0
    finally:
        for process in running:
            process.kill()
            process.wait()
    return time.perf_counter() - begun


def test_start_and_idle(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path, rabbitmq: RabbitMQ
) -> None:
    """Time from the command until every camera has captured, and the site's cost at one frame per second and camera."""
    cameras = scale.pick(4, 30, 100)
    interpreters = scale.pick(1, 10, 25)
    rounds = scale.pick(1, 1, 3)
    seconds = scale.pick(0.5, 3.0, 10.0)
    starts: list[float] = []
    others: list[float] = []
    idle: list[Window] = []
    pages: list[PageRun] = []
    amqp_url = add_vhost(rabbitmq, "idle")

    def one() -> None:
        others.append(start_interpreters(interpreters))
        begun = time.perf_counter()
        with running_site(directory, pattern_cameras(cameras, KB, 1), (rabbitmq, "idle")) as watch:
            starts.append(time.perf_counter() - begun)
            if len(starts) == rounds:
                time.sleep(min(seconds, 2.0))
                idle.append(watch.window(seconds))
                assert watch.capturing() == cameras

    benchmark.pedantic(one, rounds=rounds)
    with page_server(directory) as server:
        pages.append(page_run(server, amqp_url, KB, seconds, cameras))
    rates = [(cameras / ours) / (interpreters / theirs) for ours, theirs in zip(starts, others, strict=True)]
    results.ratio(
        "idle.start.interpreters",
        statistics.median(rates),
        against="`python -c 'import cv2'` processes per second, started all at once",
        runs={
            "cameras per second": [round(cameras / value, 1) for value in starts],
            "interpreters per second": [round(interpreters / value, 1) for value in others],
        },
    )
    goal = {"goal": "<= 5"} if cameras == 100 else {}
    results.figure(
        f"idle.start of {cameras} cameras", round(statistics.median(starts), 2), "s until all have captured", **goal
    )
    (window,) = idle
    load = f"{cameras} cameras x 1 fps x {KB} KB, connected and capturing"
    own = window.own_cpu / window.seconds * 100
    page = pages[0].cpu / pages[0].seconds * 100
    for role in (*OWN_ROLES, "redis"):
        used = window.cpu.get(role, 0.0) / window.seconds * 100
        results.figure(f"idle.cpu.{role}", round(used, 2), "% of a core", load=load)
    results.figure("idle.cpu.all but the servers", round(own, 2), "% of a core", load=load)
    results.figure("idle.cpu.page", round(page, 2), "% of a core", load=f"its one loop at {cameras} frames a second")
    results.ratio(
        "idle.cpu.page",
        page / own,
        against="CPU of the page's one loop at the same rate, which has no camera to wait for and no process to watch",
        runs={"ours, % of a core": round(own, 2), "page, % of a core": round(page, 2)},
    )
    assert window.captured >= 0.8 * cameras * window.seconds


def make_clip(path: Path, *encoder: str) -> Path:
    """Two seconds of 1280x720 at 15 fps, made by ``encoder``."""
    source = "testsrc2=size=1280x720:rate=15:duration=2"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-pix_fmt", "yuvj420p", *encoder, str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


@contextmanager
def plain_interpreter() -> Iterator[int]:
    """The process id of a Python that has loaded OpenCV and waits."""
    code = "import cv2, sys; print('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_memory_of_a_camera_process(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path
) -> None:
    """Memory of a capture process, for passthrough and for transcoding 720p, against an interpreter with OpenCV.

    PSS divides a page among the processes that map it. The interpreter is measured alone, like the first of its kind on
    a machine. The camera processes are measured within their site, as they run in practice.
    """
    cameras = scale.pick(1, 5, 10)
    clips = {
        "passthrough": make_clip(directory / "clip.avi", "-c:v", "mjpeg", "-q:v", "5"),
        "transcode": make_clip(directory / "clip.mp4", "-c:v", "libx264", "-preset", "ultrafast", "-threads", "1"),
    }
    each: dict[str, float] = {}
    plain: list[float] = []

    def one() -> None:
        with plain_interpreter() as pid:
            plain.append(own_memory(pid) / MIB)
        for mode, clip in clips.items():
            # Transcoding costs CPU; a few frames per second are enough to allocate all buffers.
            listed = [{"id": f"cam{n}", "url": str(clip), "loop": True, "fps": 2.0} for n in range(cameras)]
            with running_site(directory, listed, settle=scale.pick(0.2, 1.0, 4.0)) as watch:
                modes = {camera["mode"] for camera in watch.site.status()["cameras"]}
                assert modes == {mode}
                each[mode] = statistics.mean(watch.memory()["capture"])

    benchmark.pedantic(one, rounds=1)
    for mode, goal in (("passthrough", "<= 15"), ("transcode", "<= 35")):
        load = f"{cameras} cameras, 1280x720"
        results.figure(f"idle.memory.{mode}", round(each[mode], 1), "MB (PSS, ring apart)", load=load, goal=goal)
        results.ratio(
            f"idle.memory.{mode}",
            plain[0] / each[mode],
            against="memory of a plain `python -c 'import cv2'` process that does nothing",
            runs={"camera": round(each[mode], 1), "interpreter": round(plain[0], 1)},
        )
    results.figure("idle.memory.interpreter", round(plain[0], 1), "MB (PSS)", load="`import cv2` and nothing else")
