"""The list of cameras changes under running roles: cameras that come are stored and announced, those that go are let
go."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil

from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, Site, missing_numbers, stored_frames

PATTERN = "test://?size=320x240&fps=20&kb=10"


@contextmanager
def role(site: Site, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """``edge-video`` as a process of its own; killed at the end, if it still runs."""
    with site.log.open("ab") as log:
        process = subprocess.Popen(
            [*COMMAND, *words, "-c", str(site.file)], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def write(site: Site, redis_server: RedisServer, *cameras: str, writers: int = 1, amqp_url: str = "") -> None:
    site.write(
        cameras=[{"id": camera, "url": PATTERN} for camera in cameras],
        redis={"address": redis_server.address},
        amqp_url=amqp_url,
        writer={"writers": writers},
    )


def stored_more(site: Site, *cameras: str) -> None:
    before = {camera: site.camera(camera)["stored"] for camera in cameras}
    wait_until(
        lambda: all(site.camera(camera)["stored"] > count + 5 for camera, count in before.items()), 20,
        f"{cameras} are stored", log=site.log_text,
    )  # fmt: skip


def test_cameras_come_and_go_under_running_writers_and_publisher(
    site: Site, redis_server: RedisServer, rabbitmq: RabbitMQ, vhost: str
) -> None:
    names = ["a", "north", "b", "west"]
    section = {"writers": 2, "amqp_url": rabbitmq.url(vhost)}
    write(site, redis_server, "cam0", **section)
    with ExitStack() as stack:
        writers = [stack.enter_context(role(site, "writer", "--number", str(number))) for number in range(2)]
        publisher = stack.enter_context(role(site, "publisher"))
        captures = [stack.enter_context(role(site, "capture", "cam0"))]
        wait_until(lambda: site.paths.ring("cam0").exists(), 20, "the first camera is captured")
        stored_more(site, "cam0")
        # Cameras come.
        write(site, redis_server, "cam0", *names, **section)
        assert {site.config.writer_of(name) for name in names} == {0, 1}
        captures += [stack.enter_context(role(site, "capture", name)) for name in names]
        stored_more(site, "cam0", *names)
        # One goes: its ring is removed when it is empty.
        captures.pop().send_signal(signal.SIGTERM)
        wait_until(lambda: not any(p["alive"] for p in site.status()["processes"] if p["camera"] == "west"), 20, "gone")
        wait_until(lambda: site.camera("west")["ring"]["held"] == 0, 20, "what it left is stored")
        site.paths.ring("west").unlink()
        wait_until(lambda: "camera let go" in site.log_text(), 20, "the writer lets it go")
        stored_more(site, "cam0", "a", "north", "b")
        assert [process.poll() for process in (*writers, publisher)] == [None, None, None]
        titles = {" ".join(psutil.Process(process.pid).cmdline()).rpartition(": ")[2].strip() for process in writers}
        assert titles == {"writer 0", "writer 1"}
        (line,) = (line for line in site.log_text().splitlines() if "camera let go" in line)
        assert f'role="writer {site.config.writer_of("west")}"' in line
        for processes in (captures, writers, [publisher]):
            for process in processes:
                process.send_signal(signal.SIGTERM)
            assert [process.wait(30) for process in processes] == [0] * len(processes), site.log_text()
        confirmed = site.status()["publisher"]["confirmed"]
    numbers = stored_frames(redis_server.client(), vhost).numbers
    assert set(numbers) == {"cam0", *names}
    assert not any(missing_numbers(found) for found in numbers.values())
    # Each frame was announced once, also those of cameras that came later and of the one that went.
    assert confirmed == sum(map(len, numbers.values()))


def test_numbers_go_on_when_ring_page_and_directory_were_removed(site: Site, redis_server: RedisServer) -> None:
    """As systemd-logind does with what a user has in shared memory (RemoveIPC)."""
    write(site, redis_server, "cam0", "cam1")
    site.start()
    for _ in range(2):
        stored_more(site, "cam0", "cam1")
        directory = site.paths.directory
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        wait_until(lambda: all(site.paths.ring(name).exists() for name in ("cam0", "cam1")), 20, "rings stand again")
        stored_more(site, "cam0", "cam1")
        # A process that is started again finds its place, too.
        for child in site.children():
            if "capture cam1" in " ".join(child.cmdline()):
                child.kill()
                wait_until(lambda old=child: not psutil.pid_exists(old.pid), 20, "it is gone")
        wait_until(
            lambda: all(site.camera(name)["state"] == "active" for name in ("cam0", "cam1")), 30,
            "all can be seen again",
        )  # fmt: skip
        wait_until(lambda: all(process["alive"] for process in site.status()["processes"]), 20, "so can the writer")
    captured = {name: site.camera(name)["captured"] for name in ("cam0", "cam1")}
    assert site.stop() == 0, site.log_text()
    numbers = stored_frames(redis_server.client(), "default").numbers
    for name in ("cam0", "cam1"):
        missing = missing_numbers(numbers[name])
        assert len(missing) <= 4, "a frame in hand at each of its restarts"
        assert numbers[name][-1] >= captured[name]
