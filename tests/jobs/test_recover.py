"""Stored frames go to an AMQP exchange with all that is known of them: each at least once, oldest first, and none is
deleted that the broker has not confirmed."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import redis

from engine import FrameStore
from engine.config import AmqpSection, Secret
from engine.errors import EXIT_FAILED, EXIT_INPUT, EXIT_NOTHING
from engine.jobs.recover import EXCHANGE, ROUTING_KEY, Rate, Recovery
from engine.servers.amqp.broker import Broker
from engine.servers.amqp.parameters import Exchange
from engine.servers.redis.session import Session
from engine.wire import keys
from engine.wire.journal import parse_entry_id
from engine.wire.redis_address import parse_redis_address
from engine.wire.rfc3339 import rfc3339
from tests.client import stocked
from tests.client.stocked import Stored, stock
from tests.jobs.old_frames import PREFIX, SECOND, T0
from tests.servers.cluster_client import AnyServer
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.wait import wait_until
from tests.system.site import COMMAND, ROOT, command

QUEUE = "archive"
#: Cameras that ``fill`` stores frames of.
FILLED = ("cam0", "cam1", "cam2")


class Message(NamedTuple):
    """One message of the queue, as its consumer has it."""

    key: str
    body: bytes
    properties: Any
    routing_key: str
    exchange: str


class Archive:
    """The queue that recovered frames go to, and the command that sends them."""

    def __init__(self, broker: RabbitMQ, server: AnyServer, vhost: str) -> None:
        self.broker, self.server, self.vhost = broker, server, vhost
        self.client: redis.Redis = server.client()
        self.connect()

    def connect(self) -> None:
        self.channel = self.broker.connect(self.vhost).channel()

    def bind(self, **arguments: Any) -> None:
        self.channel.exchange_declare(EXCHANGE, exchange_type="topic", durable=True)
        self.channel.queue_declare(QUEUE, durable=True, arguments=arguments)
        self.channel.queue_bind(QUEUE, EXCHANGE, ROUTING_KEY)

    def take(self, count: int | None = None) -> list[Message]:
        """Messages from the queue, in its order; None: all that are there."""
        found: list[Message] = []
        while count is None or len(found) < count:
            method, properties, body = self.channel.basic_get(QUEUE, auto_ack=True)
            if method is None:
                break
            found.append(Message(properties.message_id, body, properties, method.routing_key, method.exchange))
        return found

    def depth(self) -> int:
        """Messages in the queue."""
        return int(self.channel.queue_declare(QUEUE, passive=True).method.message_count)

    def arguments(self, *more: str) -> list[str]:
        broker = self.broker.url(self.vhost)
        return ["recover", "--redis", self.server.url, "--vhost", self.vhost, "--amqp", broker, *more]

    def recover(self, *more: str) -> subprocess.CompletedProcess[str]:
        return command(*self.arguments(*more))

    def report(self, *more: str) -> dict[str, Any]:
        """What a run that went well says."""
        done = self.recover("--json", *more)
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    @contextmanager
    def recovering(self, *more: str) -> Iterator[subprocess.Popen[str]]:
        """The command, running."""
        process = subprocess.Popen(
            [*COMMAND, *self.arguments(*more)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def cut(self) -> None:
        """The broker closes all its connections, ours too."""
        self.broker.eval('[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections()]')
        self.connect()

    def written_down(self) -> dict[str, tuple[int, int]]:
        """The last frame of each camera that the job has written down as sent."""
        flat = self.client.hgetall(keys.recovery_key(self.vhost, PREFIX))
        return {camera.decode(): parse_entry_id(spans.rpartition(b"..")[2]) for camera, spans in flat.items()}

    def stored(self) -> list[str]:
        """Keys of the frames that are there, oldest first."""
        found = [
            name.decode()
            for name in self.client.scan_iter(match=f"{keys.encode_part(self.vhost)}:{PREFIX}:*", count=5000)
        ]
        return sorted(found, key=lambda name: (name.split(":")[3], name))

    def listed(self, *cameras: str) -> int:
        """Journal entries of some cameras together."""
        return sum(self.client.xlen(keys.journal_key(self.vhost, PREFIX, camera)) for camera in cameras or FILLED)


@pytest.fixture
def archive(rabbitmq: RabbitMQ, redis_server: AnyServer, vhost: str) -> Archive:
    return Archive(rabbitmq, redis_server, vhost)


def fill(archive: Archive, count: int, *, first: int = T0, size: int = 2000) -> list[str]:
    """Frames of three cameras whose stamps interleave, each with bytes of its own; their keys, oldest first."""
    frames = [
        Stored(
            FILLED[number % 3],
            first + number * SECOND // 7,
            number // 3 + 1,
            f"payload {first} {number} ".encode().ljust(size, b"\xff"),
        )
        for number in range(count)
    ]
    stock(archive.client, frames, vhost=archive.vhost)
    return [stocked.frame(frame, archive.vhost).key for frame in frames]


def first_times(messages: list[Message]) -> list[str]:
    """Keys, each where it came first."""
    return list(dict.fromkeys(message.key for message in messages))


def test_a_message_carries_the_frame_and_all_that_is_known_of_it(archive):
    wanted = fill(archive, 30)
    archive.bind()
    bodies = dict(zip(wanted, archive.client.mget(wanted), strict=True))
    report = archive.report()
    assert report == {"confirmed": 30, "units": 0, "bytes": 60_000, "deleted": 0, "gone": 0, "reconnects": 0}
    messages = archive.take()
    # Oldest first across the cameras, not camera by camera.
    assert [message.key for message in messages] == wanted
    for message in messages:
        key = keys.parse_frame_key(message.key)
        assert message.body == bodies[message.key]
        assert (message.exchange, message.routing_key) == ("cameras", "camera.backup")
        assert message.properties.content_type == "application/octet-stream"
        assert message.properties.delivery_mode == 2
        assert message.properties.timestamp == key.unix_nano // SECOND
        assert message.properties.headers == {
            "camera_id": key.camera,
            "timestamp": rfc3339(key.unix_nano),
            "timestamp_nano": key.unix_nano,
            "sequence": f"{key.sequence:05d}",
            "redis_key": message.key,
            "vhost": archive.vhost,
            "width": stocked.WIDTH,
            "height": stocked.HEIGHT,
            "encoding": "jpeg",
            "size_bytes": 2000,
        }
        assert isinstance(message.properties.headers["timestamp_nano"], int)
    assert archive.stored() == wanted
    # What was sent is not sent again, unless it is asked for; new frames go.
    assert archive.recover().returncode == EXIT_NOTHING
    more = fill(archive, 4, first=T0 + 60 * SECOND)
    assert archive.report()["confirmed"] == 4
    assert [message.key for message in archive.take()] == more
    assert archive.report("--again", "cam1")["confirmed"] == 11
    assert [message.key for message in archive.take()] == [key for key in wanted + more if ":cam1:" in key]


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("rate", "seconds"), [((40, None), 20 / 40), ((None, 12_500), 20 * 500 / 12_500)], ids=["frames", "bytes"]
)
def test_a_rate_is_kept(archive, rate, seconds):
    """In this process: a new one takes longer to start than these frames may take."""
    fill(archive, 63, size=500)
    archive.bind()
    section = AmqpSection(amqp_url=Secret(archive.broker.url(archive.vhost)))
    link = Broker(section, Exchange(EXCHANGE, mandatory=True))
    with (
        FrameStore(archive.server.url, archive.vhost) as store,
        Session(parse_redis_address(archive.server.url), 5) as session,
    ):
        begun = time.monotonic()
        job = Recovery(store, session, link, ROUTING_KEY, Rate(*rate))
        report = job.run(job.pending(["cam0"], None, None))
        took = time.monotonic() - begun
        link.close()
    assert report.confirmed == 21
    # The first goes at once, each of the others when its time has come.
    assert took >= seconds
    assert len(archive.take()) == 21


@pytest.mark.one_server
def test_a_relative_start_does_not_move_while_a_run_gets_ready(archive):
    """What it would leave out in between was not sent, and must not be taken for sent."""
    now = time.time_ns()
    frames = stocked.row("cam0", 2000, first=now - 2 * SECOND, gap=SECOND // 1000)
    stock(archive.client, frames, vhost=archive.vhost)
    archive.bind()
    section = AmqpSection(amqp_url=Secret(archive.broker.url(archive.vhost)))
    with (
        FrameStore(archive.server.url, archive.vhost) as store,
        Session(parse_redis_address(archive.server.url), 5) as session,
    ):
        for start in ("-1s", None):
            link = Broker(section, Exchange(EXCHANGE, mandatory=True))
            job = Recovery(store, session, link, ROUTING_KEY, Rate(None, None))
            entries = job.pending(["cam0"], start, None)
            ready = time.time_ns() + SECOND // 10
            wait_until(lambda: time.time_ns() > ready, 5, "the run is ready")  # noqa: B023
            job.run(entries)
            link.close()
    sent = [message.key for message in archive.take()]
    assert sorted(sent) == [stocked.frame(frame, archive.vhost).key for frame in frames]


def test_a_window_of_time_is_what_is_sent(archive):
    wanted = fill(archive, 30)
    archive.bind()
    archive.report("--start", rfc3339(T0 + SECOND), "--end", rfc3339(T0 + 2 * SECOND))
    inside = [key for key in wanted if T0 + SECOND <= int(key.split(":")[3]) <= T0 + 2 * SECOND]
    assert [message.key for message in archive.take()] == inside


def test_a_job_that_was_stopped_goes_on_at_the_exact_frame(archive):
    wanted = fill(archive, 300)
    archive.bind()
    sent: list[Message] = []
    for _ in range(2):
        with archive.recovering("--fps", "200") as process:
            had = archive.depth()
            wait_until(lambda had=had: archive.depth() > had + 30, 30, "frames arrive")
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=30)
        assert process.returncode == EXIT_FAILED, told
        assert "run it again" in told
    cursors = archive.written_down()
    sent = archive.take()
    assert 0 < len(sent) < len(wanted), "the job was not stopped in the middle"
    # Written down is at most what arrived, and none of it comes again.
    noted = [key for key in wanted if stamp(key) <= cursors.get(keys.parse_frame_key(key).camera, (0, 0))]
    assert noted == first_times(sent)[: len(noted)]
    archive.report()
    rest = archive.take()
    assert [message.key for message in rest] == wanted[len(noted) :]
    assert first_times(sent + rest) == wanted


def stamp(key: str) -> tuple[int, int]:
    parsed = keys.parse_frame_key(key)
    return parsed.unix_nano, parsed.sequence


def test_delete_removes_what_was_confirmed_and_its_entries_and_nothing_else(archive):
    wanted = fill(archive, 60)
    archive.bind()
    report = archive.report("cam0", "cam1", "--delete")
    assert (report["confirmed"], report["deleted"]) == (40, 40)
    assert [message.key for message in archive.take()] == [key for key in wanted if ":cam2:" not in key]
    assert archive.stored() == [key for key in wanted if ":cam2:" in key]
    assert archive.listed() == 20


@pytest.mark.one_server
def test_without_a_queue_nothing_counts_as_sent(archive):
    wanted = fill(archive, 20)
    done = archive.recover("--delete", "--json")
    assert done.returncode == EXIT_INPUT
    assert "no queue bound" in done.stderr
    assert "Traceback" not in done.stderr
    # Nor where one is bound for another key.
    archive.bind()
    archive.channel.queue_unbind(QUEUE, EXCHANGE, ROUTING_KEY)
    archive.channel.queue_bind(QUEUE, EXCHANGE, "another.key")
    assert archive.recover("--delete").returncode == EXIT_INPUT
    assert archive.written_down() == {}
    assert archive.stored() == wanted
    assert archive.listed() == 20
    # The way out that the message names.
    archive.channel.queue_bind(QUEUE, EXCHANGE, ROUTING_KEY)
    assert archive.report()["confirmed"] == 20
    assert first_times(archive.take()) == wanted


@pytest.mark.one_server
def test_an_exchange_that_stands_otherwise_is_for_a_person(archive):
    wanted = fill(archive, 3)
    archive.channel.exchange_declare(EXCHANGE, exchange_type="direct", durable=False)
    archive.channel.queue_declare(QUEUE)
    archive.channel.queue_bind(QUEUE, EXCHANGE, ROUTING_KEY)
    done = archive.recover("--delete")
    assert done.returncode == EXIT_INPUT
    assert "give --exchange-type direct, or delete it once (" in done.stderr or "; give --no-durable, or" in done.stderr
    assert archive.stored() == wanted
    # As it was declared, it is used.
    assert archive.report("--exchange-type", "direct", "--no-durable")["confirmed"] == 3


@pytest.mark.one_server
@pytest.mark.parametrize("rate", [[], ["--fps", "150"]], ids=["unbounded", "paced"])
def test_a_connection_that_the_broker_closes_costs_nothing_but_time(archive, rate):
    """Closed again and again, in whatever the job does at that moment."""
    count = 3000 if not rate else 300
    wanted = fill(archive, count)
    archive.bind()
    with archive.recovering("--json", "--delete", *rate) as process:
        for part in (1, 2):
            left = count - part * count // 5
            wait_until(
                lambda left=left: len(archive.stored()) <= left or process.poll() is not None,
                60,
                "frames are confirmed",
            )
            archive.cut()
        output, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    report = json.loads(output)
    assert (report["confirmed"], report["deleted"], report["gone"]) == (count, count, 0)
    assert report["reconnects"] >= 1, "no connection was cut in the middle"
    assert "waiting for the broker" in told
    assert archive.stored() == []
    assert archive.listed() == 0
    assert first_times(archive.take()) == wanted


@pytest.mark.one_server
def test_a_queue_that_refuses_is_tried_until_it_takes(archive):
    """Negative confirms: the queue is full, and somebody makes room later."""
    wanted = fill(archive, 120)
    archive.bind(**{"x-max-length": 50, "x-overflow": "reject-publish"})
    with archive.recovering("--delete", "--json") as process:
        refused = threading.Event()
        told: list[str] = []

        def listen() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                told.append(line)
                if "nack" in line:
                    refused.set()

        reader = threading.Thread(target=listen)
        reader.start()
        assert refused.wait(30), "nothing was refused"
        # What the queue has not taken is there, and listed.
        # Looked at before room is made, for the job goes on then.
        left = archive.stored()
        taken = {message.key for message in archive.take()}
        assert set(wanted) - set(left) <= taken
        assert len(left) >= 70
        received: list[Message] = []

        def consume() -> bool:
            received.extend(archive.take())
            return process.poll() is not None

        wait_until(consume, 90, "the job ends")
        reader.join()
        output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, "".join(told)
    report = json.loads(output)
    assert (report["confirmed"], report["deleted"]) == (120, 120)
    assert report["reconnects"] >= 1
    received += archive.take()
    assert taken | {message.key for message in received} == set(wanted)
    assert archive.stored() == []


def test_frames_that_expire_before_their_turn_are_counted(archive):
    wanted = fill(archive, 200)
    archive.bind()
    with archive.recovering("--json", "--fps", "100") as process:
        wait_until(lambda: archive.depth() > 10, 30, "frames arrive")
        dying = wanted[120:150]
        archive.client.delete(*dying)
        output, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    report = json.loads(output)
    assert (report["confirmed"], report["gone"]) == (170, 30)
    assert first_times(archive.take()) == [key for key in wanted if key not in dying]


def test_what_earlier_runs_left_out_is_not_taken_for_sent(archive):
    """A run over a window must not make a later run over all pass by what is older than the window."""
    wanted = fill(archive, 30)
    archive.bind()
    archive.report("--start", rfc3339(T0 + 2 * SECOND))
    archive.report()
    assert {message.key for message in archive.take()} == set(wanted)


def test_who_asks_for_what_is_not_there_is_told(archive):
    done = archive.recover()
    assert done.returncode == EXIT_NOTHING
    assert "no frames to send" in done.stderr
    fill(archive, 3)
    done = archive.recover("cam00")
    assert done.returncode == EXIT_INPUT
    assert "cam0" in done.stderr
    assert "Traceback" not in done.stderr
