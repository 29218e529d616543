"""docs/reading.md: every recipe in it, the product page's and ours, run on frames that the running engine wrote. Each
camera has video beside its frames, which no recipe for frames may notice.

What a recipe finds is compared to a plain walk over all keys. Where the document says that the page's recipe is wrong,
the page's recipe is run, too, and is wrong in that way. Addresses, times and tenants of the test are put in place of
those in the document; nothing else is changed.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pika
import pytest
import redis

from engine import FrameStore
from tests.client.stored_video import CAR, arrivals, clip, stock_video
from tests.client.test_video_film import probe
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import ROOT, Site

DOCUMENT = ROOT / "docs" / "reading.md"
CAMERAS = ["cam1", "cam2", "cam3", "cam4"]
#: A camera with what a shell stumbles over in its name.
ODD = "caixa d'água"
ODD_KEY = "caixa%20d'água"
#: Frames of each camera of the tenants that have ended.
FRAMES = 40
TTL_SECONDS = 900
#: Access units of each camera's video.
VIDEO_UNITS = 100
#: The database of Redis for tests that change what is stored; they get a copy of it all.
SCRATCH = 1
#: Names and times of the document that stand for the test's own.
PUT = {
    "supermercado_vhost": "client-a",
    "loja-centro:analytics": "client-a:frames",
    "security-system:surveillance": "client-a:frames",
    "client-b": "default",
}
KEY = "1731024000123456789:00001"
#: The page calls it.
SETEX_IS_DEPRECATED = pytest.mark.filterwarnings("ignore:Call to deprecated setex")
START, END = "1731024000000000000", "1731024100000000000"


# The document and how it is run


class Part(NamedTuple):
    """A part of a fenced block: under a heading, of a language, the page's, corrected, or ours."""

    heading: str
    language: str
    label: str


def parts(text: str) -> dict[Part, str]:
    """All code of the document; a block without labels is ours."""
    found: dict[Part, str] = {}
    heading = ""
    for title, language, code in re.findall(r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        heading = title or heading
        if title:
            continue
        label = "Ours"
        for line in code.splitlines(keepends=True):
            if match := re.match(r"# ((?:The page|Corrected|Ours)[^:;\n]*)", line):
                label = match[1]
                assert Part(heading, language, label) not in found, "two parts of one name"
            part = Part(heading, language, label)
            found[part] = found.get(part, "") + line
    return found


PARTS = parts(DOCUMENT.read_text())
CLAIMED: set[str] = set()
RUN: set[Part] = set()


def runs(*headings: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test that runs all code under ``headings``."""
    CLAIMED.update(headings)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def checked(*arguments: Any, **options: Any) -> None:
            RUN.clear()
            test(*arguments, **options)
            assert not {part for part in PARTS if part.heading in headings} - RUN, "these were not run"

        return checked

    return decorate


class Reader:
    """Someone who follows the document in a directory with a ``site.toml``, on one database of the server."""

    def __init__(self, directory: Path, server: RedisServer, database: int, site_file: str) -> None:
        self.directory = directory
        self.client = server.client(db=database)
        self.calls = directory / "calls"
        self._port, self._database = server.port, database
        self.address = f"redis://127.0.0.1:{server.port}/{database}"
        (directory / "site.toml").write_text(site_file.replace(server.address, self.address))
        programs = {
            "redis-cli": f'echo >> {self.calls}; exec {shutil.which("redis-cli")} -p {server.port} -n {database} "$@"',
            "edge-video": f'exec {sys.executable} -m engine "$@"',
            "date": f'[ "$NOW" ] && echo "$NOW" || exec {shutil.which("date")} "$@"',
        }
        (directory / "bin").mkdir()
        for name, line in programs.items():
            program = directory / "bin" / name
            program.write_text(f"#!/bin/sh\n{line}\n")
            program.chmod(0o700)
        self.names: dict[str, Any] = {"time": time, "datetime": datetime, "timezone": timezone}
        self.names |= {"FrameStore": FrameStore, "store": FrameStore.from_site(directory / "site.toml")}
        self.names["r"] = redis.Redis(port=server.port, db=database)

    def close(self) -> None:
        self.names["store"].close()
        self.names["r"].close()
        self.client.close()

    @property
    def store(self) -> FrameStore:
        return self.names["store"]

    def sh(self, heading: str, label: str, put: dict[str, str] | None = None, **environment: str) -> str:
        """What a shell part prints."""
        return self.run(_code(Part(heading, "sh", label)), put, **environment).stdout

    def run(self, code: str, put: dict[str, str] | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run lines of shell; nothing may go wrong unless the last command's exit code is looked at."""
        done = subprocess.run(
            ["bash", "-c", _put(code, PUT | (put or {}))],
            cwd=self.directory,
            env={
                **os.environ,
                "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "LC_ALL": "C.UTF-8",
                **environment,
            },
            capture_output=True,
            timeout=60,
            check=False,
        )
        output, errors = (text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, output, errors)

    def python(self, heading: str, label: str, put: dict[str, str] | None = None, **names: Any) -> dict[str, Any]:
        """Run a Python part, with the names that those before it made."""
        self.exec(_code(Part(heading, "python", label)), put, **names)
        return self.names

    def exec(self, code: str, put: dict[str, str] | None = None, **names: Any) -> dict[str, Any]:
        self.names.update(names)
        own = {"port=6379": f"port={self._port}, db={self._database}", "redis:6379": self.address}
        before = Path.cwd()
        os.chdir(self.directory)
        try:
            exec(textwrap.dedent(_put(code, PUT | own | (put or {}))), self.names)
        finally:
            os.chdir(before)
        return self.names


def _code(part: Part) -> str:
    RUN.add(part)
    return PARTS[part]


def _put(code: str, put: dict[str, str]) -> str:
    for old, new in put.items():
        code = code.replace(old, new)
    return code


def plain_keys(client: redis.Redis, pattern: str) -> list[str]:
    """All keys that match, in order of time: the truth."""
    found = {key.decode() for key in client.scan_iter(match=pattern, count=5000)}
    return sorted(found, key=lambda key: tuple(key.split(":")[3:]))


def keys_in(output: str) -> list[str]:
    """The keys in what a command printed, in its order."""
    return re.findall(r"(?:engine:)?[^\s:\"]+:[^\s:]+:[^\s:]+:\d{19}:\d{5}", output)


def nano(key: str) -> int:
    return int(key.split(":")[3])


# What the engine wrote


class Frames(NamedTuple):
    """The frames of tenant client-a, by their keys in order of time, and the cameras' own."""

    keys: list[str]
    sizes: dict[str, int]

    def of(self, camera: str) -> list[str]:
        return [key for key in self.keys if key.split(":")[2] == camera]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ev-read-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[RedisServer]:
    with RedisServer(place / "redis") as server:
        yield server


def write_site(place: Path, name: str, server: RedisServer, cameras: dict[str, str], **sections: Any) -> Site:
    site = Site(place / name, warm=True)
    site.write(
        cameras=[{"id": camera, "url": f"test://?size=640x480&{url}"} for camera, url in cameras.items()],
        redis={"address": server.address, "ttl_seconds": TTL_SECONDS},
        site={"name": f"read-{os.getpid()}-{name}"},
        ring={"capacity_mb": 1},
        **sections,
    )
    return site


@pytest.fixture(scope="module")
def stocked(place: Path, server: RedisServer, rabbitmq: RabbitMQ) -> Iterator[Site]:
    """Tenants client-a and (no broker: the default vhost's) default, stored by sites that have ended since."""
    rabbitmq.add_vhost("client-a")
    urls = {camera: f"fps=15&kb={10 + 5 * number}&frames={FRAMES}" for number, camera in enumerate(CAMERAS)}
    quiet = {"metadata": {"enabled": False}}
    ours = write_site(place, "a", server, urls, amqp_url=rabbitmq.url("client-a"), **quiet)
    other = write_site(place, "b", server, dict.fromkeys(("cam1", ODD), f"fps=15&kb=10&frames={FRAMES}"), **quiet)
    ours.start()
    other.start()
    for site in (ours, other):
        wait_until(
            lambda s=site: all(one["stored"] == FRAMES for one in s.status()["cameras"]), 60, "frames are stored"
        )
        assert site.stop() == 0
    add_video(server, "client-a", CAMERAS)
    add_video(server, "default", ["cam1", ODD])
    yield ours
    ours.end()
    other.end()


def add_video(server: RedisServer, vhost: str, cameras: list[str]) -> None:
    """Cameras' video of the last seconds, as the engine's writer stores it."""
    source = clip(CAR, VIDEO_UNITS)
    first = time.time_ns() - VIDEO_UNITS * source.interval_us * 1000
    with server.client() as client:
        for camera in cameras:
            units = arrivals(source, camera, first=first)
            stock_video(client, units, vhost=vhost, list_cameras=False, ttl_ms=TTL_SECONDS * 1000)


@pytest.fixture(scope="module")
def stock(stocked: Site, server: RedisServer) -> Frames:
    with server.client() as client:
        keys = plain_keys(client, "client-a:frames:*")
        assert len(keys) == FRAMES * len(CAMERAS)
        return Frames(keys, {key: client.strlen(key) for key in keys})


@pytest.fixture
def reader(stock: Frames, stocked: Site, server: RedisServer, tmp_path: Path) -> Iterator[Reader]:
    """On what the engine wrote, which is not changed."""
    reader = Reader(tmp_path, server, 0, stocked.file.read_text())
    yield reader
    reader.close()


@pytest.fixture
def scratch(stock: Frames, stocked: Site, server: RedisServer, tmp_path: Path) -> Iterator[Reader]:
    """On a copy of what the engine wrote, which may be changed."""
    with server.client() as client:
        for tenant in ("client-a", "default"):
            for pattern in (f"{tenant}:*", f"engine:{tenant}:*"):
                for key in client.scan_iter(match=pattern, count=5000):
                    client.copy(key, key, destination_db=SCRATCH)
    reader = Reader(tmp_path, server, SCRATCH, stocked.file.read_text())
    yield reader
    reader.client.flushdb()
    reader.close()


@pytest.fixture(scope="module")
def live(place: Path, server: RedisServer, rabbitmq: RabbitMQ, stock: Frames) -> Iterator[Site]:
    """Tenant meu-cliente, whose site runs."""
    rabbitmq.add_vhost("meu-cliente")
    site = write_site(place, "m", server, {"cam1": "fps=10&kb=10"}, amqp_url=rabbitmq.url("meu-cliente"))
    site.start()
    add_video(server, "meu-cliente", ["cam1"])
    yield site
    site.end()


# The page's longer scripts as they stand there (without what they print and their last lines, which run them).

PAGE_TENANT_STATS = """
r = redis.Redis(host='localhost', port=6379, decode_responses=True)

def get_tenant_stats():
    tenants = ['cliente-a', 'cliente-b', 'cliente-c']
    stats = {}

    for tenant in tenants:
        pattern = f"{tenant}:frames:*"
        keys = list(r.scan_iter(match=pattern))

        if keys:
            total_frames = len(keys)
            sample_key = keys[0]
            sample_size = len(r.get(sample_key) or b'')
            total_memory_mb = (total_frames * sample_size) / (1024 * 1024)
            cameras = set(k.split(':')[2] for k in keys)

            stats[tenant] = {
                'frames': total_frames,
                'memory_mb': round(total_memory_mb, 2),
                'cameras': len(cameras),
                'camera_ids': list(cameras)
            }
        else:
            stats[tenant] = {'frames': 0, 'memory_mb': 0, 'cameras': 0}

    return stats
"""

PAGE_LAST_HOUR = """
r = redis.Redis(host='localhost', port=6379)

def get_frames_last_hour(camera_id):
    now = int(time.time())
    one_hour_ago = now - 3600

    pattern = f"loja-centro:analytics:{camera_id}:*"
    frames = []

    for key in r.scan_iter(match=pattern):
        key_str = key.decode()
        timestamp_nano = int(key_str.split(':')[3])
        timestamp = timestamp_nano // 1_000_000_000

        if timestamp >= one_hour_ago:
            frames.append({
                'key': key_str,
                'timestamp': timestamp,
                'data': r.get(key)
            })

    return sorted(frames, key=lambda x: x['timestamp'])
"""

PAGE_TIME_WINDOW = """
r = redis.Redis(host='localhost', port=6379)

def get_frames_by_time_window(camera_id, minutes=10):
    now = int(time.time())
    start = now - (minutes * 60)

    pattern = f"*:frames:{camera_id}:*"
    frames_by_minute = {}

    for key in r.scan_iter(match=pattern):
        key_str = key.decode()
        timestamp_nano = int(key_str.split(':')[3])
        timestamp = timestamp_nano // 1_000_000_000

        if timestamp >= start:
            minute_bucket = timestamp - (timestamp % 60)
            minute_key = datetime.fromtimestamp(minute_bucket).strftime('%Y-%m-%d %H:%M')

            if minute_key not in frames_by_minute:
                frames_by_minute[minute_key] = []

            frames_by_minute[minute_key].append({
                'key': key_str,
                'timestamp': timestamp,
                'size': r.strlen(key)
            })

    return frames_by_minute
"""

PAGE_MIGRATION = """
r = redis.Redis(host='localhost', port=6379, decode_responses=True)

old_pattern = "frames:*:*:*:*"

for old_key in r.scan_iter(match=old_pattern):
    parts = old_key.split(':')
    if len(parts) != 5:
        continue

    _, vhost, cam, timestamp_rfc, seq = parts

    dt = datetime.fromisoformat(timestamp_rfc.replace('Z', '+00:00'))
    unix_nano = int(dt.timestamp() * 1_000_000_000)

    new_key = f"{vhost}:frames:{cam}:{unix_nano}:{seq}"

    ttl = r.ttl(old_key)
    data = r.get(old_key)
    r.setex(new_key, ttl if ttl > 0 else 300, data)

    r.delete(old_key)
"""

PAGE_CONSUMER = """
class FrameConsumer:
    def __init__(self, redis_host='localhost', rabbitmq_host='localhost',
                 vhost='/', user='guest', password='guest'):
        self.redis = redis.Redis(host=redis_host, port=6379, decode_responses=False)

        credentials = pika.PlainCredentials(user, password)
        parameters = pika.ConnectionParameters(
            host=rabbitmq_host,
            virtual_host=vhost,
            credentials=credentials
        )
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()

        self.vhost = vhost.replace('/', '')

    def fetch_frame_from_redis(self, camera_id: str, timestamp_nano: int,
                              sequence: str) -> Optional[bytes]:
        key = f"{self.vhost}:frames:{camera_id}:{timestamp_nano}:{sequence}"
        return self.redis.get(key)

    def callback(self, ch, method, properties, body):
        try:
            metadata = json.loads(body)

            camera_id = metadata['camera_id']
            timestamp_nano = metadata['timestamp_nano']
            sequence = metadata.get('sequence', '00001')

            frame_data = self.fetch_frame_from_redis(
                camera_id, timestamp_nano, sequence
            )

            if frame_data:
                print(f"Frame encontrado: {camera_id} - {len(frame_data)} bytes")
            else:
                print(f"Frame não encontrado no Redis: {camera_id}")

        except Exception as e:
            print(f"Erro ao processar mensagem: {e}")

    def start_consuming(self):
        self.channel.exchange_declare(exchange='camera.metadata',
                                     exchange_type='topic')

        result = self.channel.queue_declare(queue='', exclusive=True)
        queue_name = result.method.queue

        self.channel.queue_bind(exchange='camera.metadata',
                               queue=queue_name,
                               routing_key='camera.metadata.event')

        self.channel.basic_consume(queue=queue_name,
                                  on_message_callback=self.callback,
                                  auto_ack=True)

        print('Aguardando metadados...')
        self.channel.start_consuming()
"""


@pytest.fixture
def vanishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first key that a SCAN names expires before it is asked for."""
    scan = redis.Redis.scan_iter

    def scan_iter(client: redis.Redis, *arguments: Any, **options: Any) -> Iterator[bytes]:
        for number, key in enumerate(scan(client, *arguments, **options)):
            if not number:
                client.delete(key)
            yield key

    monkeypatch.setattr(redis.Redis, "scan_iter", scan_iter)


# The tests


def test_every_block_of_the_document_is_run_by_a_test() -> None:
    assert {part.heading for part in PARTS} == CLAIMED
    assert {part.language for part in PARTS} == {"sh", "python"}


@runs("Reading frames")
def test_a_store_is_opened_from_a_site_file(reader: Reader, stock: Frames) -> None:
    names = reader.python("Reading frames", "Ours")
    assert names["store"].vhost == "client-a"
    assert list(names["store"].cameras()) == CAMERAS
    for comment in re.findall(r"# or (FrameStore\(.*\))", PARTS[Part("Reading frames", "python", "Ours")]):
        by_hand = reader.exec(f"by_hand = {comment}")["by_hand"]
        assert by_hand.latest("cam1").key == stock.of("cam1")[-1]


@runs("One frame")
def test_one_frame_by_its_key_is_the_same_bytes_every_way(reader: Reader, stock: Frames) -> None:
    key = stock.of("cam4")[7]
    data = reader.client.get(key)
    put = {KEY: key.split(":", 3)[3]}
    printed = reader.sh("One frame", "The page", put).encode(errors="surrogateescape")
    assert printed == data + b"\n", "a newline too many"
    reader.sh("One frame", "Corrected, for a file", put)
    assert (reader.directory / "page.jpg").read_bytes() == data
    reader.sh("One frame", "Ours", put)
    assert (reader.directory / "ours.jpg").read_bytes() == data
    names = reader.python("One frame", "Ours", put)
    assert names["frame"].data == data
    assert names["picture"].shape == (480, 640, 3)
    assert reader.store.get(key[:-5] + "99999") is None


@runs("A list")
def test_lists_name_what_a_plain_walk_finds(reader: Reader, stock: Frames) -> None:
    expected = sorted(stock.keys + stock.of("cam4"))
    assert sorted(keys_in(reader.sh("A list", "The page"))) == expected
    listed = keys_in(reader.sh("A list", "Ours"))
    assert sorted(listed) == expected
    assert listed[-len(stock.of("cam4")) :] == stock.of("cam4"), "in order of time"
    assert [entry.key for entry in reader.python("A list", "Ours")["cam4_entries"]] == stock.of("cam4")


@runs("Many at once")
def test_many_at_once_are_the_first_ten_only_where_keys_are_sorted(scratch: Reader, stock: Frames) -> None:
    ten = [scratch.client.get(key) for key in stock.of("cam4")[:10]]
    names = scratch.python("Many at once", "The page")
    assert sorted(key.decode() for key in names["all_keys"]) == sorted(stock.keys)
    assert sorted(key.decode() for key in names["cam4_keys"]) == stock.of("cam4")
    assert names["frames"] != ten
    assert scratch.python("Many at once", "Corrected")["frames"] == ten
    names = scratch.python("Many at once", "Ours")
    assert [frame.data for frame in names["first"]] == ten
    assert [frame.data for frame in names["same"]] == ten
    # The first has expired meanwhile.
    scratch.client.delete(stock.of("cam4")[0])
    assert names["r"].mget(sorted(names["cam4_keys"])[:10]) == [None, *ten[1:]]
    assert scratch.python("Many at once", "Corrected")["frames"] == ten[1:]
    names = scratch.python("Many at once", "Ours")
    assert [frame and frame.data for frame in names["same"]] == [None, *ten[1:]]
    assert [frame.key for frame in names["first"]] == stock.of("cam4")[1:11]


def neighbours(reader: Reader, key: str, stamps: list[int]) -> list[str]:
    """Copies of a frame under other stamps."""
    made = [key.replace(f":{nano(key)}:", f":{stamp}:") for stamp in stamps]
    for name in made:
        reader.client.copy(key, name)
    return made


def period(stock: Frames) -> tuple[int, int]:
    """Stamps of two frames of cam1, around which a double does not tell a nanosecond."""
    exact = [nano(key) for key in stock.of("cam1") if float(nano(key) - 1) == float(nano(key)) == float(nano(key) + 1)]
    return exact[len(exact) // 4], exact[len(exact) // 2]


RANGE = "A range of time"


@runs(RANGE)
def test_ranges_are_exact_to_the_nanosecond_but_in_awks_numbers(scratch: Reader, stock: Frames) -> None:
    first, last = period(stock)
    put = {START: str(first), END: str(last)}
    inside = [key for key in stock.of("cam1") if first <= nano(key) <= last]
    assert len(inside) > 5
    outside = neighbours(scratch, inside[0], [first - 1, last + 1])
    assert set(keys_in(scratch.sh(RANGE, "The page", put))) == {*inside, *outside}
    assert sorted(keys_in(scratch.sh(RANGE, "Corrected", put))) == inside
    assert keys_in(scratch.sh(RANGE, "Ours", put)) == inside
    names = scratch.python(RANGE, "Ours", put)
    assert [frame.key for frame in names["frames"]] == inside
    assert names["number"] == len(inside)
    counts = [
        int(scratch.sh(RANGE, label, put | {"173102": str(first)[:6]})) for label in ("The page, count", "Ours, count")
    ]
    assert counts[0] > counts[1] >= len(inside)
    assert f"{len(inside)} frames" in scratch.sh(RANGE, "Ours, as a film", put)
    film = cv2.VideoCapture(str(scratch.directory / "range.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == len(inside)


def test_leading_digits_count_another_period_than_was_meant(reader: Reader, stock: Frames) -> None:
    first, last = period(stock)
    put = {START: str(first), END: str(last), "173102": str(first)[:6]}
    inside = [key for key in stock.keys if first <= nano(key) <= last]
    window = 10**13
    met = [key for key in stock.keys if nano(key) // window == first // window]
    assert len(met) > len(inside)
    assert int(reader.sh(RANGE, "The page, count", put)) == len(met)
    corrected = PARTS[Part(RANGE, "sh", "Corrected")].rstrip().replace(":cam1:*", ":*") + " | wc -l"
    assert int(reader.run(corrected, put).stdout) == len(inside)
    assert int(reader.sh(RANGE, "Ours, count", put)) == len(inside)


@runs("The last frames")
def test_the_last_frames_are_the_same_every_way(scratch: Reader, stock: Frames) -> None:
    assert keys_in(scratch.sh("The last frames", "The page")) == stock.of("cam1")[-10:]
    assert keys_in(scratch.sh("The last frames", "Ours")) == stock.of("cam1")[:-11:-1]
    newest = stock.of("cam1")[-1]
    scratch.sh("The last frames", "Ours, to look at")
    assert (scratch.directory / "now.jpg").read_bytes() == scratch.client.get(newest)
    names = scratch.python("The last frames", "Ours")
    assert [frame.key for frame in names["ten"]] == stock.of("cam1")[:-11:-1]
    assert names["newest"].key == newest
    each = [stock.of(camera)[-1] for camera in CAMERAS]
    assert [frame.key for frame in names["newest_of_each"].values()] == each
    before = scratch.calls.read_text().count("\n")
    assert keys_in(scratch.sh("The last frames", "The page, of every camera")) == each
    assert scratch.calls.read_text().count("\n") - before == 20
    assert keys_in(scratch.sh("The last frames", "Ours, of every camera")) == each
    # sort -n knows one nanosecond from the next.
    close = neighbours(scratch, newest, [nano(newest) + step for step in range(1, 11)])
    assert keys_in(scratch.sh("The last frames", "The page")) == close


@runs("The last 30 seconds")
def test_the_last_seconds_are_the_same_every_way(
    scratch: Reader, stock: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    heading = "The last 30 seconds"
    # What is now is chosen so that half a minute ago lies among the frames.
    start = nano(stock.keys[-1]) // 10**9
    now = str(start + 30)
    expected = [key for key in stock.keys if nano(key) >= start * 10**9]
    assert 0 < len(expected) < len(stock.keys)
    (early,) = neighbours(scratch, expected[0], [start * 10**9 - 1])
    assert set(keys_in(scratch.sh(heading, "The page", NOW=now))) == {*expected, early}
    assert sorted(keys_in(scratch.sh(heading, "Corrected", NOW=now))) == sorted(expected)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: (start + 30) * 10**9)
        recent = scratch.python(heading, "Ours")["recent"]
    assert sorted(frame.key for frame in recent) == sorted(expected)
    before = time.time_ns() - 30 * 10**9
    printed = set(keys_in(scratch.sh(heading, "Ours")))
    after = time.time_ns() - 30 * 10**9
    assert {key for key in stock.keys if nano(key) >= after} <= printed
    assert printed <= {key for key in stock.keys if nano(key) >= before}


@runs("Totals and memory of a tenant")
def test_totals_are_a_tenants_and_memory_is_the_servers(reader: Reader, stock: Frames) -> None:
    heading = "Totals and memory of a tenant"
    others = plain_keys(reader.client, "default:frames:*")
    assert [int(line) for line in reader.sh(heading, "The page").split()] == [len(stock.keys)] * 2 + [len(others)]
    name, human = reader.sh(heading, "The page, memory").strip().split(":")
    assert name == "used_memory_human"
    assert float(human.rstrip("M")) * 2**20 > sum(stock.sizes.values()) * 1.1
    lines = map(json.loads, reader.sh(heading, "Ours, of all tenants").splitlines())
    totals = {line["vhost"]: line["total"] for line in lines}
    assert totals["client-a"]["frames"] == len(stock.keys)
    assert totals["client-a"]["bytes"] == sum(stock.sizes.values())
    assert totals["default"]["frames"] == len(others)
    total = reader.python(heading, "Ours")["total"]
    assert (total.frames, total.bytes, total.missing) == (len(stock.keys), sum(stock.sizes.values()), 0)
    assert (total.oldest_nano, total.newest_nano) == (nano(stock.keys[0]), nano(stock.keys[-1]))


def test_a_value_takes_a_seventh_more_memory_than_its_bytes(scratch: Reader) -> None:
    scratch.client.set("client-a:frames:cam1:1731024000123456789:00001", b"x" * 50_000)
    used = scratch.client.memory_usage("client-a:frames:cam1:1731024000123456789:00001", samples=0)
    assert used == pytest.approx(57_000, rel=0.02)


@runs("Remaining lifetimes")
def test_lifetimes_are_averaged_over_frames_that_have_one(scratch: Reader, stock: Frames) -> None:
    heading = "Remaining lifetimes"
    without = stock.of("cam2")[:20]
    for key in without:
        scratch.client.persist(key)

    def mean() -> float:
        left = [scratch.client.pttl(key) for key in stock.keys]
        return sum(one for one in left if one >= 0) / (len(stock.keys) - len(without)) / 1000

    before = mean()
    page = float(scratch.sh(heading, "The page"))
    assert scratch.calls.read_text().count("\n") == 1 + len(stock.keys), "a process for each key"
    corrected = float(scratch.sh(heading, "Corrected"))
    assert scratch.calls.read_text().count("\n") == 1 + len(stock.keys) + 2
    names = scratch.python(heading, "Ours")
    table = scratch.sh(heading, "Ours").splitlines()
    lists = [list(map(int, scratch.sh(heading, f"{whose}, a list").split())) for whose in ("The page", "Corrected")]
    after = mean()
    for listed in lists:
        assert listed[:20] == [-1] * 20
        assert len(listed) == len(stock.keys)
        assert listed == sorted(listed)
        assert after - 1 <= sum(listed[20:]) / len(listed[20:]) <= before + 1
    assert after - 0.001 <= corrected <= before + 0.001
    assert page < after - 10, "the -1 of those without a lifetime counts"
    # The first line of a name is that of its frames; one of its video may follow.
    shown = {line.split()[0]: line.split() for line in reversed(table)}
    assert after - 0.1 <= float(shown["client-a"][-2]) <= before + 0.1
    assert [int(shown[name][-1]) for name in ("client-a", "cam1", "cam2")] == [20, 0, 20]
    assert list(names["lifetimes"]) == CAMERAS
    assert names["store"].stats().cameras["cam2"].without_ttl == 20


def test_a_quote_in_a_cameras_name_stops_the_pages_pipes_and_not_the_corrected(scratch: Reader) -> None:
    odd = plain_keys(scratch.client, f"default:frames:{ODD_KEY}:*")
    assert len(odd) == FRAMES
    for heading, label in (("Remaining lifetimes", "The page"), ("Deleting", "The page")):
        done = scratch.run(PARTS[Part(heading, "sh", label)], {"client-a": "default"})
        assert "unmatched single quote" in done.stderr
    assert len(plain_keys(scratch.client, f"default:frames:{ODD_KEY}:*")) > 0
    lifetimes = scratch.run(PARTS[Part("Remaining lifetimes", "sh", "Corrected")], {"client-a": "default"})
    assert TTL_SECONDS - 300 < float(lifetimes.stdout) <= TTL_SECONDS
    done = scratch.run(PARTS[Part("Deleting", "sh", "Corrected")], {"client-a": "default"})
    assert done.returncode == 0
    assert not plain_keys(scratch.client, "default:*")


def test_where_nothing_is_stored_the_pages_pipes_err_and_the_corrected_do_not(reader: Reader) -> None:
    nobody = {"client-a": "nobody"}
    page = reader.run(PARTS[Part("Remaining lifetimes", "sh", "The page")], nobody)
    assert float(page.stdout) == 0
    corrected = reader.run(PARTS[Part("Remaining lifetimes", "sh", "Corrected")], nobody)
    assert (corrected.returncode, corrected.stdout, corrected.stderr) == (0, "", "")
    page = reader.run(PARTS[Part("Deleting", "sh", "The page")], nobody)
    assert "wrong number of arguments" in page.stdout + page.stderr
    assert page.returncode == 0
    corrected = reader.run(PARTS[Part("Deleting", "sh", "Corrected")], nobody)
    assert (corrected.returncode, corrected.stdout, corrected.stderr) == (0, "", "")


@runs("Dashboard of tenants")
def test_the_dashboard_adds_up_what_the_pages_guesses(reader: Reader, stock: Frames) -> None:
    tenants = {"'cliente-a', 'cliente-b', 'cliente-c'": "'client-a', 'default', 'nobody'"}
    reader.exec("import redis\n" + PAGE_TENANT_STATS, tenants)
    with pytest.raises(UnicodeDecodeError):
        reader.names["get_tenant_stats"]()
    reader.exec(
        PAGE_TENANT_STATS.replace(", decode_responses=True", "").replace("k.split", "k.decode().split"), tenants
    )
    guessed = reader.names["get_tenant_stats"]()["client-a"]
    assert (guessed["frames"], sorted(guessed["camera_ids"])) == (len(stock.keys), CAMERAS)
    truth = sum(stock.sizes.values()) / 2**20
    assert abs(guessed["memory_mb"] - truth) > 0.1 * truth

    names = reader.python("Dashboard of tenants", "Corrected")
    stats = names["get_tenant_stats"](["client-a", "default", "nobody"])
    assert stats["client-a"] == {"frames": len(stock.keys), "memory_mb": truth, "camera_ids": CAMERAS}
    assert stats["default"]["camera_ids"] == [ODD_KEY, "cam1"]
    assert stats["nobody"] == {"frames": 0, "memory_mb": 0, "camera_ids": []}
    by_camera = reader.python("Dashboard of tenants", "Ours")["by_camera"]
    assert {camera: (one.frames, one.bytes) for camera, one in by_camera.items()} == {
        camera: (len(stock.of(camera)), sum(stock.sizes[key] for key in stock.of(camera))) for camera in CAMERAS
    }


def test_a_sample_that_has_expired_makes_the_pages_dashboard_say_nothing_is_stored(
    scratch: Reader, vanishing: None
) -> None:
    tenants = {"'cliente-a', 'cliente-b', 'cliente-c'": "'client-a'"}
    code = PAGE_TENANT_STATS.replace(", decode_responses=True", "").replace("k.split", "k.decode().split")
    scratch.exec("import redis\n" + code, tenants)
    assert scratch.names["get_tenant_stats"]()["client-a"]["memory_mb"] == 0


@runs("Traffic of the last hour")
def test_traffic_of_the_last_hour_is_counted_and_in_order(reader: Reader, stock: Frames) -> None:
    reader.exec("import redis\n" + PAGE_LAST_HOUR)
    page = reader.names["get_frames_last_hour"]("cam3")
    assert sorted(frame["key"] for frame in page) == stock.of("cam3")
    assert [frame["key"] for frame in page] != stock.of("cam3"), "in no order within a second"
    assert all(frame["data"] for frame in page)
    frames = reader.python("Traffic of the last hour", "Corrected")["get_frames_last_hour"]("cam3")
    assert [frame["key"] for frame in frames] == stock.of("cam3")
    assert reader.python("Traffic of the last hour", "Ours")["traffic"] == {
        camera: len(stock.of(camera)) for camera in CAMERAS
    }


def test_the_pages_traffic_has_none_for_a_frame_that_expires_on_the_way(scratch: Reader, vanishing: None) -> None:
    scratch.exec("import redis\n" + PAGE_LAST_HOUR)
    assert [frame["data"] for frame in scratch.names["get_frames_last_hour"]("cam3")].count(None) == 1


@runs("Frames per minute")
def test_frames_per_minute_are_one_tenants_and_in_utc(
    reader: Reader, stock: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    heading = "Frames per minute"
    truth: dict[str, list[int]] = {}
    for key in stock.of("cam1"):
        minute = datetime.fromtimestamp(nano(key) // 10**9, UTC).strftime("%Y-%m-%d %H:%M")
        truth.setdefault(minute, []).append(stock.sizes[key])
    monkeypatch.setenv("TZ", "America/Sao_Paulo")
    time.tzset()
    try:
        page = reader.exec("import redis\n" + PAGE_TIME_WINDOW)["get_frames_by_time_window"]("cam1")
        found = reader.python(heading, "Corrected")["get_frames_by_time_window"]("client-a", "cam1")
    finally:
        monkeypatch.undo()
        time.tzset()
    tenants = {frame["key"].split(":")[0] for frames in page.values() for frame in frames}
    assert tenants >= {"client-a", "default"}
    assert not set(page) & set(truth), "three hours off"
    assert {minute: sorted(sizes) for minute, sizes in found.items()} == {m: sorted(s) for m, s in truth.items()}
    buckets = reader.python(heading, "Ours")["per_minute"]
    assert {
        datetime.fromtimestamp(one.start_nano // 10**9, UTC).strftime("%Y-%m-%d %H:%M"): (one.frames, one.bytes)
        for one in buckets
        if one.frames
    } == {minute: (len(sizes), sum(sizes)) for minute, sizes in truth.items()}
    table = reader.sh(heading, "Ours")
    assert sum(int(count) for count in re.findall(r"^\d{4}-\S+ +(\d+)", table, re.MULTILINE)) == len(stock.of("cam1"))
    assert cv2.imread(str(reader.directory / "rate.png")) is not None


def test_an_expired_frame_lowers_the_pages_mean_and_not_the_corrected(scratch: Reader, vanishing: None) -> None:
    page = scratch.exec("import redis\n" + PAGE_TIME_WINDOW)["get_frames_by_time_window"]("cam4")
    assert 0 in [frame["size"] for frames in page.values() for frame in frames]
    found = scratch.python("Frames per minute", "Corrected")["get_frames_by_time_window"]("client-a", "cam4")
    assert 0 not in [size for sizes in found.values() for size in sizes]


def old_key(key: str) -> str:
    """As the Go edition named it; every second one where clocks are three hours behind."""
    vhost, prefix, camera, stamp, sequence = key.split(":")
    behind = 3 * (int(sequence) % 2)
    second = datetime.fromtimestamp(int(stamp[:10]) - behind * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{prefix}:{vhost}:{camera}:{second}.{stamp[10:]}{f'-0{behind}:00' if behind else 'Z'}:{sequence}"


def age(scratch: Reader, keys: list[str]) -> dict[str, tuple[bytes, int]]:
    """Frames as the Go edition left them: old keys, no journals. The first has no lifetime."""
    for key in scratch.client.scan_iter(match="engine:*"):
        scratch.client.delete(key)
    scratch.client.persist(keys[0])
    for key in keys:
        scratch.client.rename(key, old_key(key))
    return {key: (scratch.client.get(old_key(key)), scratch.client.pexpiretime(old_key(key))) for key in keys}


@SETEX_IS_DEPRECATED
@runs("Migration from the old keys")
def test_migration_keeps_bytes_nanoseconds_and_lifetimes(scratch: Reader, stock: Frames) -> None:
    heading = "Migration from the old keys"
    some = stock.of("cam2")[:20]
    before = age(scratch, some)
    olds = sorted(map(old_key, some))
    code = "import redis\n" + PAGE_MIGRATION

    def old_keys() -> list[str]:
        return sorted(key.decode() for key in scratch.client.scan_iter(match="frames:*", count=5000))

    assert {len(old.split(":")) for old in olds} == {7, 8}
    scratch.exec(code)
    assert old_keys() == olds, "nothing was migrated"
    # Mended in its first fault, it meets the next one.
    code = code.replace(
        "parts = old_key.split(':')", "p = old_key.split(':'); parts = p[:3] + [':'.join(p[3:-1]), p[-1]]"
    )
    with pytest.raises(UnicodeDecodeError):
        scratch.exec(code)
    code = code.replace(", decode_responses=True", "").replace("p = old_key.split", "p = old_key.decode().split")
    scratch.exec(code)
    moved = set(plain_keys(scratch.client, "client-a:frames:cam2:*")) & set(some)
    assert len(moved) < len(some), "nanoseconds were lost"
    lives = {scratch.client.pexpiretime(key) for key in plain_keys(scratch.client, "client-a:frames:cam2:*")}
    assert -1 not in lives, "frames without a lifetime got one"

    scratch.client.flushdb()
    for key, (data, at) in before.items():
        scratch.client.set(old_key(key), data, **({"pxat": at} if at > 0 else {}))
    scratch.python(heading, "Corrected")
    check_migrated(scratch, before)
    assert scratch.store.count("cam2") == 0, "in no journal yet"
    assert scratch.run("edge-video reindex").returncode == 0
    assert [entry.key for entry in scratch.store.entries("cam2")] == some

    scratch.client.flushdb()
    for key, (data, at) in before.items():
        scratch.client.set(old_key(key), data, **({"pxat": at} if at > 0 else {}))
    scratch.sh(heading, "Ours")
    check_migrated(scratch, before)
    assert [entry.key for entry in scratch.store.entries("cam2")] == some


def check_migrated(scratch: Reader, before: dict[str, tuple[bytes, int]]) -> None:
    assert not list(scratch.client.scan_iter(match="frames:*", count=5000))
    found = {key: (scratch.client.get(key), scratch.client.pexpiretime(key)) for key in before}
    assert found == before


@runs("Recovery")
def test_recovery_sends_every_frame_once(scratch: Reader, stock: Frames, rabbitmq: RabbitMQ) -> None:
    connection = rabbitmq.connect("client-a")
    channel = connection.channel()
    channel.exchange_declare("cameras", "topic", durable=True)
    channel.queue_declare("backup", durable=True)
    channel.queue_bind("backup", "cameras", "camera.backup")
    assert f"{len(stock.keys):,} frames sent" in scratch.sh("Recovery", "Ours")
    sent = [channel.basic_get("backup", auto_ack=True) for _ in stock.keys]
    assert [properties.message_id for _, properties, _ in sent] == stock.keys
    assert [len(body) for _, _, body in sent] == list(stock.sizes.values())
    channel.queue_delete("backup")
    connection.close()


@SETEX_IS_DEPRECATED
@runs("A frame stored by hand")
def test_a_frame_stored_by_hand_is_found_by_key_and_after_reindex_by_time(scratch: Reader, stock: Frames) -> None:
    heading = "A frame stored by hand"
    data = scratch.client.get(stock.keys[0])
    scratch.python(heading, "The page", frame_data=data)
    assert scratch.names["unix_nano"] % 256 == 0, "a float's digits"
    assert scratch.store.get(scratch.names["key"]).data == data
    assert scratch.sh(heading, "The page", {KEY: f"{time.time_ns()}:00002"}).split() == ["OK", "1"]
    assert scratch.store.latest("cam1").key == stock.of("cam1")[-1]
    (scratch.directory / "ours.jpg").write_bytes(data)
    stamp = f"{time.time_ns()}:00001"
    scratch.sh(heading, "Corrected", {KEY: stamp})
    by_python = scratch.python(heading, "Corrected")["key"]
    made = [f"client-a:frames:visitor:{stamp}", by_python]
    assert [scratch.store.get(key).data for key in made] == [data, data]
    assert "visitor" not in scratch.store.snapshot()
    scratch.sh(heading, "Ours")
    assert [frame.key for frame in scratch.store.range("visitor")] == made
    assert scratch.store.snapshot()["visitor"].data == data


@runs("Deleting")
def test_deleted_frames_are_gone_and_reindex_takes_them_off_the_lists(scratch: Reader, stock: Frames) -> None:
    journal = "engine:client-a:journal:frames:cam1"
    scratch.sh("Deleting", "The page")
    assert not plain_keys(scratch.client, "client-a:*")
    for key in stock.keys:
        scratch.client.set(key, b"again", ex=60)
    scratch.sh("Deleting", "Corrected")
    assert not plain_keys(scratch.client, "client-a:*")
    entries = scratch.store.entries("cam1")
    assert (list(entries), entries.missing) == ([], len(stock.of("cam1")))
    assert plain_keys(scratch.client, "default:*")
    scratch.sh("Deleting", "Ours")
    assert scratch.client.xlen(journal) == 0


@runs("Times")
def test_times_are_exact_and_what_is_ambiguous_is_refused(reader: Reader, stock: Frames) -> None:
    newest, before = stock.of("cam1")[-1], stock.of("cam1")[-2]
    code = PARTS[Part("Times", "python", "Ours")]
    reader.python("Times", "Ours", newest=reader.store.latest("cam1"))
    shots = [reader.exec(line)["shot"] for line in code.splitlines() if line.startswith("shot =")]
    assert [shot and shot.key for shot in shots] == [before, newest, newest, None]
    for wrong in (1731024000, 1731024000123, datetime.now(), "yesterday", "-30", timedelta(seconds=30)):
        with pytest.raises(ValueError, match="time"):
            reader.store.at("cam1", wrong)
    exact = [frame.key for frame in reader.store.range("cam1", nano(before), nano(newest))]
    assert exact == [before, newest]


@runs("Video")
def test_video_is_read_as_packets_and_as_pictures(scratch: Reader, stock: Frames) -> None:
    video = plain_keys(scratch.client, "engine:client-a:video:frames/cam1:*")
    assert len(video) == VIDEO_UNITS
    times = [int(key.split(":")[4]) for key in video]
    # What is now is chosen so that the document's times lie within the video.
    put = {"-5s": str(times[-13]), "-1m": str(times[70])}
    met: list[Any] = []
    names = scratch.python("Video", "Ours", put, handle=met.append)
    assert names["newest_picture"].unix_nano == times[-1]
    assert names["then"].unix_nano == times[-13]
    assert (names["then"].encoding, names["then"].image.shape) == ("h264", (432, 768, 3))
    assert [picture.unix_nano for picture in met] == [
        max(time for time in times if time <= picture.unix_nano) for picture in met
    ]
    assert len(met) == len({(time - times[70]) // 500_000_000 for time in times[70:]})
    assert [unit.key for unit in names["packets"]] == video[60:]
    assert names["live"].poll() is None
    printed = scratch.sh("Video", "Ours", put)
    assert keys_in(printed)[-30:] == video[70:]
    picture = cv2.imread(str(scratch.directory / "then.jpg"))
    assert picture is not None
    assert picture.shape == (432, 768, 3)
    for name in ("minute.mp4", "piped.mp4"):
        assert len(probe(scratch.directory / name)["packets"]) == VIDEO_UNITS - 60


@runs("Frames that are gone")
def test_frames_that_are_gone_are_counted_as_missing(
    scratch: Reader, stock: Frames, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = stock.of("cam1")[3:8]
    scratch.client.delete(*gone)
    scratch.python("Frames that are gone", "Ours")
    assert capsys.readouterr().out == f"{len(stock.of('cam1')) - 5} frames, 5 gone\n"
    assert scratch.store.get_many(gone) == [None] * 5
    assert scratch.store.count("cam1") == len(stock.of("cam1")) - 5


@runs("Live, and from where a script stopped")
def test_a_tail_goes_on_behind_the_last_frame_that_was_handled(scratch: Reader, stock: Frames, live: Site) -> None:
    handled: list[str] = []

    class Crash(Exception):
        pass

    expected = sorted(stock.of("cam1") + stock.of("cam2"), key=nano)
    for end in (30, 60):

        def handle(frame: Any, end: int = end) -> None:
            if len(handled) == end:
                raise Crash
            handled.append(frame.key)

        with pytest.raises(Crash):
            scratch.python("Live, and from where a script stopped", "Ours", {'"-1m"': '"-15m"'}, handle=handle)
    assert handled == expected[:60]
    # And what a running site stores, as it comes.
    with FrameStore.from_site(live.file) as store:
        coming = store.tail()
        found = [next(coming) for _ in range(5)]
    assert [frame.sequence for frame in found] == list(range(found[0].sequence, found[0].sequence + 5))


@runs("asyncio")
def test_asyncio_asks_the_same(reader: Reader, stock: Frames) -> None:
    pair = reader.python("asyncio", "Ours")["pair"]
    assert [frame.key for frame in pair] == [stock.of("cam1")[-1], stock.of("cam2")[-1]]


@runs("Errors")
def test_exit_codes_are_those_of_the_document(reader: Reader) -> None:
    RUN.add(Part("Errors", "sh", "Ours"))
    lines = PARTS[Part("Errors", "sh", "Ours")].splitlines()
    assert [int(line.rpartition("# ")[2]) for line in lines] == [0, 1, 2, 3]
    for line in lines:
        done = reader.run(line)
        assert done.returncode == int(line.rpartition("# ")[2]), (line, done.stderr)
    wrong = "redis-cli {}TTL"
    assert reader.run(wrong.format("")).returncode == 0
    assert reader.run(wrong.format("-e ")).returncode != 0


@runs("Tenants and their users")
def test_a_tenants_reader_reads_its_frames_and_does_not_see_the_others(reader: Reader, stock: Frames) -> None:
    (reader.directory / "secret").write_text("a word of the test's\n")
    printed = reader.sh("Tenants and their users", "Ours")
    assert printed.startswith("ACL SETUSER client-a-reader ")
    assert stock.of("cam1")[-1] in printed
    port = reader.client.connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port, username="client-a-reader", password="a word of the test's") as user:
        assert user.get(stock.keys[0])
        for refused in (
            lambda: user.keys("client-a:*"),
            user.scan,
            lambda: user.get(plain_keys(reader.client, "default:*")[0]),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()
    reader.client.acl_deluser("client-a-reader")


@pytest.fixture
def listener(live: Site, server: RedisServer, tmp_path: Path) -> Iterator[Reader]:
    """Beside a site that runs."""
    reader = Reader(tmp_path, server, 0, live.file.read_text())
    yield reader
    reader.close()


class Crash(Exception):
    """What ends a consumer in the middle of its work."""


@runs("Consumer")
def test_consumers_get_every_frame_over_a_crash(listener: Reader, rabbitmq: RabbitMQ) -> None:
    handled: list[int] = []

    def crash_at(count: int, sequence: int) -> None:
        if len(handled) == count:
            raise Crash
        handled.append(sequence)

    url = {"amqp://user:password@localhost/meu-cliente": rabbitmq.url("meu-cliente")}
    for end in (5, 10):

        def handle(metadata: dict[str, Any], data: bytes, end: int = end) -> None:
            assert len(data) == metadata["size_bytes"]
            crash_at(end, int(metadata["sequence"]))

        with pytest.raises(Crash):
            listener.python("Consumer", "Corrected, in short", url, handle=handle)
        listener.names["connection"].close()
    assert handled == list(range(handled[0], handled[0] + 10))

    found: list[int] = []

    def handle_ours(event: Any, frame: Any) -> None:
        assert (frame.key, frame.size) == (event.redis_key, event.size_bytes)
        found.append(frame.sequence)
        if len(found) == 10:
            listener.names["consumer"].stop()

    listener.python("Consumer", "Ours", handle=handle_ours)
    assert found == list(range(found[0], found[0] + 10))
    lines = listener.sh("Consumer", "Ours").splitlines()
    assert len(lines) == 10
    assert all(listener.client.exists(key) for key in keys_in("\n".join(lines)))
    assert all(line.endswith("there") for line in lines)


class PageConsumer:
    """The page's consumer as it stands, in a thread, at a vhost of the test's broker."""

    def __init__(self, reader: Reader, rabbitmq: RabbitMQ, vhost: str) -> None:
        self.said: list[str] = []
        self.asked: list[int] = []
        ports = {"host=rabbitmq_host,": f"host=rabbitmq_host, port={rabbitmq.port},"}
        code = "import json, pika, redis\nfrom typing import Optional\n" + PAGE_CONSUMER
        names = reader.exec(code, ports, print=self.said.append)
        self.consumer = names["FrameConsumer"](vhost=vhost)
        fetch = self.consumer.fetch_frame_from_redis

        def noted(camera: str, unix_nano: int, sequence: str) -> bytes | None:
            self.asked.append(int(sequence))
            return fetch(camera, unix_nano, sequence)

        self.consumer.fetch_frame_from_redis = noted

    def listen(self, count: int) -> None:
        """Until it has met so many events."""
        thread = threading.Thread(target=self.consumer.start_consuming, daemon=True)
        thread.start()
        wait_until(lambda: len(self.asked) >= count, 20, "events arrive")
        self.consumer.connection.add_callback_threadsafe(self.consumer.channel.stop_consuming)
        thread.join(30)
        self.close()

    def close(self) -> None:
        self.consumer.connection.close()


def test_the_pages_consumer_works_where_the_exchange_is_as_it_declares_it_and_misses_what_comes_meanwhile(
    reader: Reader, place: Path, server: RedisServer, rabbitmq: RabbitMQ
) -> None:
    rabbitmq.add_vhost("cliente-a")
    site = write_site(
        place, "n", server, {"cam1": "fps=20&kb=10"},
        amqp_url=rabbitmq.url("cliente-a"), metadata={"exchange_durable": False},
    )  # fmt: skip
    try:
        site.start()
        first = PageConsumer(reader, rabbitmq, "cliente-a")
        first.listen(5)
        stored = site.total("stored")
        wait_until(lambda: site.total("stored") >= stored + 10, 20, "frames are stored while nobody listens")
        second = PageConsumer(reader, rabbitmq, "cliente-a")
        second.listen(5)
        assert site.stop() == 0
    finally:
        site.end()
    for page in (first, second):
        assert all(line.startswith("Frame encontrado: cam1") for line in page.said[1:])
        assert page.asked == list(range(page.asked[0], page.asked[0] + len(page.asked)))
    assert second.asked[0] - first.asked[-1] > 5, "lost"


def test_the_pages_consumer_is_refused_by_a_durable_exchange(reader: Reader, live: Site, rabbitmq: RabbitMQ) -> None:
    page = PageConsumer(reader, rabbitmq, "meu-cliente")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        page.consumer.start_consuming()
    assert refused.value.reply_code == 406
    page.close()


def test_the_pages_consumer_finds_no_frame_of_the_default_vhost_and_of_encoded_names(
    reader: Reader, rabbitmq: RabbitMQ
) -> None:
    page = PageConsumer(reader, rabbitmq, "/")
    plain, odd = (plain_keys(reader.client, f"default:frames:{camera}:*")[0] for camera in ("cam1", ODD_KEY))
    fetch = page.consumer.fetch_frame_from_redis
    assert fetch("cam1", nano(plain), plain[-5:]) is None
    page.consumer.vhost = "default"
    assert fetch("cam1", nano(plain), plain[-5:]) == reader.client.get(plain)
    assert fetch(ODD, nano(odd), odd[-5:]) is None
    page.close()


@runs("Recipes of the page that stay as they are")
def test_the_pages_questions_about_redis_itself_are_answered(scratch: Reader) -> None:
    printed = scratch.sh("Recipes of the page that stay as they are", "The page")
    assert int(printed.splitlines()[0]) == scratch.client.dbsize()
    for name in ("keyspace_hits", "keyspace_misses", "instantaneous_ops_per_sec", "connected_clients"):
        assert re.search(rf"^{name}:\d+", printed, re.MULTILINE)
    assert printed.splitlines()[-1] == "OK"
