"""A long run under load with a fault every 20 seconds: ``python -m tests.faults.soak --minutes 15``.

A hundred cameras send 30 frames of 60 KB a second. Frames live for seconds only, so an auditor reads every journal as
it grows and a consumer hears every event; both keep a mark for each number. At the end every number must be marked, or
be covered by the engine's counts; and memory, descriptors and files must be as many as when the run had warmed up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import pika
import psutil

from engine.runtime.status_processes import own_memory
from engine.wire.journal import parse_entry_id
from engine.wire.keys import frame_key_prefix, frame_key_suffix, journal_key
from engine.wire.test_mark import find_mark
from tests.faults.counts import final_counts
from tests.faults.proxy import Proxy
from tests.faults.report import write_soak
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site

VHOST = "soak"
TTL_SECONDS = 10
#: Seconds between looks at memory and descriptors.
_SAMPLE_SECONDS = 3.0
#: Share by which memory may be more at the end than after the warm-up, and bytes that are nothing.
_GROWTH_MAX = 0.1
_GROWTH_BYTES = 4 * 2**20


class Sample(NamedTuple):
    """What the engine's processes have at one moment: memory without rings in bytes, descriptors, processes, files."""

    memory: int
    descriptors: int
    processes: int
    files: int


class Marks:
    """How often each camera's number was seen."""

    def __init__(self, cameras: list[str]) -> None:
        self.seen = {camera: Counter[int]() for camera in cameras}

    def add(self, camera: str, number: int) -> None:
        self.seen[camera][number] += 1

    def numbers(self, camera: str) -> set[int]:
        return set(self.seen[camera])


class Auditor(threading.Thread):
    """Reads journals as they grow, and proves a frame of each camera now and then by its payload."""

    def __init__(self, redis: RedisServer, marks: Marks) -> None:
        super().__init__(name="auditor", daemon=True)
        self._redis = redis
        self._marks = marks
        self._ended = threading.Event()
        self._last = {journal_key(VHOST, "frames", camera).encode(): b"0" for camera in marks.seen}
        self._cameras = dict(zip(self._last, marks.seen, strict=True))
        self.proved = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self._ended.wait(0.1):
            with contextlib.suppress(Exception):
                self.read()

    def read(self) -> None:
        """What is new in every journal."""
        with self._redis.client(socket_timeout=2) as client:
            while found := client.xread(self._last, count=500):
                for journal, entries in found:
                    camera = self._cameras[journal]
                    for identifier, _ in entries:
                        self._marks.add(camera, parse_entry_id(identifier)[1])
                    self._last[journal] = entries[-1][0]
                    self._prove(client.get, camera, entries[-1][0])

    def _prove(self, get: Callable[[str], Any], camera: str, identifier: bytes) -> None:
        nano, number = parse_entry_id(identifier)
        payload = get(frame_key_prefix(VHOST, "frames", camera) + frame_key_suffix(nano, number))
        if payload is None:
            return
        stamp = find_mark(payload)
        self.proved += 1
        if not stamp or (stamp.camera, stamp.frame, stamp.unix_nano) != (camera, number, nano):
            self.wrong.append(f"{camera} {number}: {stamp}")

    def end(self) -> None:
        """Stop, having read all there is."""
        self._ended.set()
        self.join()
        self.read()


class Listener(threading.Thread):
    """Marks every event that arrives, over broken connections."""

    def __init__(self, broker: RabbitMQ, marks: Marks) -> None:
        super().__init__(name="listener", daemon=True)
        self._broker = broker
        self._marks = marks
        self._ended = threading.Event()
        self.events = 0
        with broker.connect(VHOST) as connection:
            channel = connection.channel()
            channel.exchange_declare("camera.metadata", "topic", durable=True)
            channel.queue_declare("soak", durable=True)
            channel.queue_bind("soak", "camera.metadata", "camera.metadata.batch")

    def run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                self._listen()
            self._ended.wait(0.3)

    def _listen(self) -> None:
        connection = self._broker.connect(VHOST)
        channel = connection.channel()
        channel.basic_qos(prefetch_count=200)
        for method, _, body in channel.consume("soak", inactivity_timeout=0.3):
            if method is not None:
                for event in json.loads(body):
                    self._marks.add(event["camera_id"], int(event["sequence"]))
                    self.events += 1
                channel.basic_ack(method.delivery_tag)
            if self._ended.is_set():
                break
        connection.close()

    def end(self) -> None:
        self._ended.set()
        self.join(30)


class Soak:
    """The site, its servers and the faults."""

    def __init__(self, directory: Path, cameras: int, fps: float, kilobytes: int, seed: int) -> None:
        self.names = [f"cam{number:03}" for number in range(cameras)]
        self.random = random.Random(seed)
        self.site = Site(directory / "site")
        self._stack = contextlib.ExitStack()
        self.redis = self._stack.enter_context(RedisServer(directory / "redis"))
        self.broker = self._stack.enter_context(RabbitMQ(directory / "rabbitmq"))
        self.broker.add_vhost(VHOST)
        self.proxy = self._stack.enter_context(Proxy(self.broker.port))
        self.listed, self.announced = Marks(self.names), Marks(self.names)
        self.auditor = Auditor(self.redis, self.listed)
        self.listener = Listener(self.broker, self.announced)
        self.samples: list[Sample] = []
        self.done: Counter[str] = Counter()
        url = f"test://?fps={fps:g}&kb={kilobytes}"
        self.site.write(
            cameras=[{"id": name, "url": url} for name in self.names],
            redis={"address": self.redis.address, "ttl_seconds": TTL_SECONDS, "timeout_seconds": 2.0},
            amqp_url=self.broker.url(VHOST).replace(f":{self.broker.port}/", f":{self.proxy.port}/"),
            amqp={"heartbeat_seconds": 5, "timeout_seconds": 5.0},
            metadata={"format": "batch"},
            site={"heartbeat_seconds": 12.0, "drain_seconds": 30.0},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.site.end()
        self._stack.close()

    # The faults: each returns once it is over; recovery is the engine's.

    def kill_captures(self) -> None:
        for name in self.random.sample(self.names, max(len(self.names) // 10, 1)):
            self.site.signal(signal.SIGKILL, "capture", name)

    def kill_writer(self) -> None:
        self.site.signal(signal.SIGKILL, "writer")

    def kill_publisher(self) -> None:
        self.site.signal(signal.SIGKILL, "publisher")

    def stop_writer(self) -> None:
        self._stopped(self.site.pid("writer"), 1.5)

    def stop_supervisor(self) -> None:
        assert self.site.process is not None
        self._stopped(self.site.process.pid, 2)

    def redis_stands_still(self) -> None:
        self.redis.pause()
        time.sleep(self.random.uniform(0.5, 3))
        self.redis.resume()

    def redis_cuts_connections(self) -> None:
        for _ in range(3):
            self.redis.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.3)

    def redis_emptied(self) -> None:
        self.redis.kill()
        time.sleep(0.5)
        self.redis.start()

    def broker_restarted(self) -> None:
        self.broker.restart()

    def broker_cuts_connections(self) -> None:
        self.proxy.reset()

    def broker_stalls(self) -> None:
        self.proxy.stalled = True
        time.sleep(4)
        self.proxy.stalled = False

    def broker_alarm(self) -> None:
        self.broker.set_alarm(True)
        time.sleep(3)
        self.broker.set_alarm(False)

    FAULTS = (
        kill_captures, kill_writer, kill_publisher, stop_writer, stop_supervisor, redis_stands_still,
        redis_cuts_connections, redis_emptied, broker_restarted, broker_cuts_connections, broker_stalls, broker_alarm,
    )  # fmt: skip

    def _stopped(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    # The run

    def run(self, seconds: float, every: float, say: Callable[[str], None]) -> dict[str, Any]:
        """Load for so long, a fault each ``every`` seconds; returns what was observed. Raises AssertionError."""
        self.auditor.start()
        self.listener.start()
        self.site.start()
        wait_until(lambda: all(c["stored"] for c in self.site.status()["cameras"]), 60, "all cameras flow", 0.5)
        begun = time.monotonic()
        due = begun + every / 2
        faults: list[Callable[[Soak], None]] = []
        while time.monotonic() < begun + seconds:
            self.samples.append(self._sample())
            if time.monotonic() >= due:
                due += every
                faults = faults or self.random.sample(self.FAULTS, len(self.FAULTS))
                fault = faults.pop()
                say(f"{time.monotonic() - begun:5.0f} s  {fault.__name__.replace('_', ' ')}")
                fault(self)
                self.done[fault.__name__] += 1
            time.sleep(min(_SAMPLE_SECONDS, every / 2))
        # The last seconds are without a fault, so that the end finds all as it was.
        wait_until(self._calm, 90, f"all is calm again:\n{self.site.log_text()[-2000:]}", 0.5)
        self.samples += [self._sample() for _ in range(3)]
        say(f"{time.monotonic() - begun:5.0f} s  the end")
        return {"seconds": round(time.monotonic() - begun), **self._account(), **self._flat()}

    def _calm(self) -> bool:
        report = self.site.status()
        active = all(camera["state"] == "active" for camera in report["cameras"])
        return bool(active and report["publisher"]["connected"] and report["publisher"]["lag_seconds"] < 1)

    def _sample(self) -> Sample:
        assert self.site.process is not None
        supervisor = psutil.Process(self.site.process.pid)
        memory = descriptors = count = 0
        for process in [supervisor, *supervisor.children()]:
            with contextlib.suppress(psutil.Error):
                descriptors += process.num_fds()
                memory += own_memory(process.pid)
                count += 1
        return Sample(memory, descriptors, count, len(list(self.site.paths.directory.iterdir())))

    def _account(self) -> dict[str, Any]:
        """Stop, and hold the marks against the counts."""
        with final_counts(self.site, publishes=True) as final:
            assert self.site.stop() == 0, self.site.log_text()[-3000:]
            counts, expired = final()
        self.auditor.end()
        wait_until(self._heard, 30, "every event has arrived", 0.5) if not expired else time.sleep(3)
        self.listener.end()
        assert not self.auditor.wrong, self.auditor.wrong[:5]
        drops: Counter[str] = Counter()
        unlisted = unannounced = repeats = 0
        for camera, count in counts.items():
            assert count.held == 0, f"{camera}: {count.held} frames held"
            assert count.captured == count.stored + count.dropped, f"{camera}: {count}"
            numbers, listed = set(range(1, count.captured + 1)), self.listed.numbers(camera)
            assert listed <= numbers, f"{camera}: a number beyond {count.captured}"
            missing = numbers - listed
            # What Redis lost was listed before, or lost before the auditor came by.
            lost = count.drops["lost"]
            assert count.dropped - lost <= len(missing) <= count.dropped, f"{camera}: {len(missing)} missing, {count}"
            unlisted += len(missing)
            announced = self.announced.numbers(camera)
            assert len(announced - listed) <= lost, f"{camera}: announced and never stored"
            unannounced += len(listed - announced)
            repeats += sum(self.announced.seen[camera].values()) - len(announced)
            drops.update(count.drops)
        assert unannounced <= expired + drops["lost"], f"{unannounced} never announced, {expired} expired, {drops}"
        return {
            "captured": sum(count.captured for count in counts.values()),
            "stored": sum(count.stored for count in counts.values()),
            "drops": {reason: count for reason, count in sorted(drops.items()) if count},
            "expired": expired,
            "unannounced": unannounced,
            "repeats": repeats,
            "proved": self.auditor.proved,
            "faults": dict(sorted(self.done.items())),
        }

    def _heard(self) -> bool:
        return all(self.announced.numbers(name) >= self.listed.numbers(name) for name in self.names)

    def _flat(self) -> dict[str, Any]:
        """Memory, descriptors and files of the first quarter after the warm-up and of the last, at the median."""
        warm = self.samples[len(self.samples) // 8 :]
        quarter = max(len(warm) // 4, 1)
        begin, end = (
            Sample(*(int(statistics.median(values)) for values in zip(*part, strict=True)))
            for part in (warm[:quarter], warm[-quarter:])
        )
        assert end.memory <= begin.memory * (1 + _GROWTH_MAX) + _GROWTH_BYTES, f"memory grew: {begin}, {end}"
        assert end.descriptors <= begin.descriptors + 2, f"descriptors grew: {begin}, {end}"
        assert (end.files, end.processes) == (begin.files, begin.processes), f"{begin}, {end}"
        return {"begin": begin._asdict(), "end": end._asdict()}


def main() -> None:
    """Soak, and write docs/reliability.md's part about it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--every", type=float, default=20.0, help="seconds from fault to fault")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="ev-soak-") as directory,
        Soak(Path(directory), options.cameras, 30, 60, options.seed) as soak,
    ):
        found = soak.run(options.minutes * 60, options.every, lambda text: print(text, flush=True))
    print(json.dumps(found, indent=2))
    if options.write:
        write_soak({"cameras": options.cameras, "every": options.every, **found})


if __name__ == "__main__":
    sys.exit(main())
