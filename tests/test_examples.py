"""Each script of ``examples`` does what its docstring says, on a running site."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
import redis

from engine import FrameStore
from engine.wire.journal import JournalEntry
from engine.wire.metadata import FrameEvents, StatusEvent, encode_event
from tests.client.stored_video import PERSON, arrivals, clip, dropped, stock_video
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import ROOT, Site

EXAMPLES = ROOT / "examples"
LINES_MAX = 40
TOKEN = "a-token-of-this-shop"


@pytest.fixture(scope="module")
def shop(rabbitmq: RabbitMQ) -> Iterator[Site]:
    """A running site with a test camera and one that is unplugged."""
    path = Path(tempfile.mkdtemp(prefix="ev-"))
    rabbitmq.add_vhost("examples")
    site = Site(path / "run")
    with RedisServer(path / "redis") as redis:
        site.write(
            cameras=[
                {"id": "till", "url": "test://?size=320x240&fps=20&kb=10"},
                {"id": "dock", "url": f"http://127.0.0.1:{free_port()}/"},
            ],
            redis={"address": redis.address},
            amqp_url=rabbitmq.url("examples"),
            web={"listen": f"127.0.0.1:{free_port()}", "token": TOKEN},
        )
        try:
            site.start()
            wait_until(lambda: site.camera("till")["stored"] > 20, 60, "frames are stored")
            wait_until(lambda: site.camera("dock")["last_error"], 60, "the other camera's error is known")
            yield site
        finally:
            site.end()
    shutil.rmtree(path, ignore_errors=True)


def start(name: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, EXAMPLES / name, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(name: str, *arguments: str | Path) -> tuple[int, str]:
    process = start(name, *arguments)
    out, error = process.communicate(timeout=120)
    assert "Traceback" not in error, error
    return process.returncode, out + error


def lines_until_stopped(process: subprocess.Popen[str], number: int, end: signal.Signals) -> list[str]:
    """The first lines of a script that never ends; it is stopped as a person or a supervisor would."""
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(number)]
        process.send_signal(end)
        _, error = process.communicate(timeout=60)
        assert "Traceback" not in error, error
        assert process.returncode == 0
    finally:
        process.kill()
    return lines


def test_examples_are_short_documented_and_all_tested() -> None:
    scripts = {path.name: path.read_text() for path in EXAMPLES.glob("*.py")}
    for name, text in scripts.items():
        assert text.startswith('"""'), name
        assert len(text.splitlines()) < LINES_MAX, name
        assert f'"{name}"' in Path(__file__).read_text(), f"{name} has no test"
        assert re.search(rf"{name} SITES?_FILE", text), f"{name} does not say how it is called"


def test_latest_to_file(shop: Site, tmp_path: Path) -> None:
    file = tmp_path / "now.jpg"
    code, said = run("latest_to_file.py", shop.file, "till", file)
    assert (code, "320x240" in said) == (0, True), said
    with FrameStore.from_site(shop.file) as store:
        assert file.read_bytes() in {frame.data for frame in store.range("till")}
    code, said = run("latest_to_file.py", shop.file, "dock", file)
    assert (code, said) == (1, "dock has no frame\n")


def test_watch_camera(shop: Site) -> None:
    lines = lines_until_stopped(start("watch_camera.py", shop.file, "till"), 5, signal.SIGINT)
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_on_event(shop: Site, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    process = start("on_event.py", shop.file, tmp_path)
    assert process.stdout is not None
    try:
        assert re.match(r"(till 20|till is|dock is)", process.stdout.readline()), "its queue is bound"
        event = StatusEvent("gate", "2024-11-08T14:31:10.000000000Z", 1731076270000000000, "offline", 1, "port closed")
        connection = rabbitmq.connect("examples")
        connection.channel().basic_publish("camera.metadata", "camera.metadata.event.status", encode_event(event))
        connection.close()
        while (line := process.stdout.readline()) != "gate is offline: port closed\n":
            assert re.match(r"(till 20|till is|dock is)", line), line
        lines_until_stopped(process, 1, signal.SIGTERM)
    finally:
        process.kill()
    pictures = list(tmp_path.glob("till-*.jpg"))
    assert pictures
    assert all(path.read_bytes().startswith(b"\xff\xd8") for path in pictures)


def test_centre(shop: Site, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    rabbitmq.add_vhost("centre")
    rabbitmq.add_user("shop-1", "geheim", "centre")
    sites = tmp_path / "sites.toml"
    sites.write_text(
        f'[[sites]]\nname = "shop-1"\nurl = "http://{shop.config.web.listen}"\ntoken_file = "shop-1.token"\n'
    )
    (tmp_path / "shop-1.token").write_text(f"{TOKEN}\n")
    for file in (sites, tmp_path / "shop-1.token"):
        file.chmod(0o600)
    with FrameStore.from_site(shop.file) as store:
        frame = store.latest("till")
    assert frame is not None
    # One of them has expired.
    events = [
        FrameEvents("examples", "frames", "till", 300).event(
            JournalEntry(nano, frame.sequence, frame.size, frame.width, frame.height, "jpeg", True)
        )
        for nano in (frame.unix_nano - 1, frame.unix_nano)
    ]
    connection = rabbitmq.connect("centre", "shop-1", "geheim")
    channel = connection.channel()
    channel.queue_declare("events", durable=True)
    for event in events:
        channel.basic_publish("", "events", encode_event(event), pika.BasicProperties(user_id="shop-1"))
    connection.close()
    process = start("centre.py", sites, rabbitmq.url("centre"), tmp_path)
    expired, fetched = lines_until_stopped(process, 2, signal.SIGTERM)
    assert "404" in expired
    assert fetched == f"shop-1 till {events[1].timestamp}\n"
    (picture,) = tmp_path.glob("*.jpg")
    assert (picture.name, picture.read_bytes()) == (f"shop-1-{frame.unix_nano}.jpg", frame.data)


def test_around_a_time(shop: Site, tmp_path: Path) -> None:
    with FrameStore.from_site(shop.file) as store:
        frames = list(store.range("till"))
    middle = frames[len(frames) // 2].timestamp
    code, said = run("around_a_time.py", shop.file, middle.isoformat(), "1", tmp_path)
    assert code == 0, said
    found = sorted(int(path.stem) for path in (tmp_path / "till").iterdir())
    assert 1 <= len(found) <= 6
    nano = int(middle.timestamp() * 1e9)
    assert nano - 1.1e9 < found[0] <= found[-1] < nano + 1.1e9
    assert "dock: 0 frames" in said


def test_monitor(shop: Site) -> None:
    code, said = run("monitor.py", shop.file)
    assert code == 1
    till, dock, reason = sorted(said.splitlines(), key=lambda line: (line.startswith(" "), "dock" in line))
    assert till.startswith("till: ")
    assert "LATE" not in till
    assert dock.endswith("LATE")
    assert "closed" in reason


def test_pictures_of_video(shop: Site, tmp_path: Path) -> None:
    units = arrivals(clip(PERSON, 60), "till", first=time.time_ns() - 10 * 10**9)
    with redis.Redis.from_url(f"redis://{shop.config.redis.address}") as client:
        stock_video(client, dropped(units, 23), vhost="examples", list_cameras=False)
    code, said = run("pictures_of_video.py", shop.file, "till", "-1m", "2", tmp_path)
    found = sorted(int(path.stem) for path in tmp_path.iterdir())
    assert (code, said) == (0, f"{len(found)} pictures in {tmp_path}; 6 packets were lost\n")
    assert 10 <= len(found) <= 13
    assert set(found) <= {unit.shown_nano for unit in units}
