"""In-process agents: benchmarks call the ``do_work`` of writer and publisher themselves, without a supervisor."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import structlog
from structlog.typing import FilteringBoundLogger

from engine.config import Config, from_document
from engine.shm import ring_file, segment, site
from engine.shm.ring import Producer
from engine.shm.site import SitePaths
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.agent import PublisherAgent
from engine.stages.writer.agent import WriterAgent
from engine.wire.ring_owner import build_owner

#: A benchmark fails after waiting this long, in seconds.
PATIENCE_SECONDS = 60.0
#: Rings and status pages are in real shared memory, as in a site.
SHARED_MEMORY = "/dev/shm"
WIDTH, HEIGHT = 1280, 720


class Spent(NamedTuple):
    """The cost of some work: wall-clock seconds, and CPU seconds of this process."""

    seconds: float
    cpu_seconds: float


class Stopwatch:
    """``with Stopwatch() as watch: ...``, then ``watch.spent``."""

    spent = Spent(0.0, 0.0)

    def __enter__(self) -> Self:
        self._begun = Spent(time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *_: object) -> None:
        self.spent = Spent(time.perf_counter() - self._begun.seconds, time.process_time() - self._begun.cpu_seconds)


def quiet_log() -> FilteringBoundLogger:
    """A log of warnings and errors."""
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    log: FilteringBoundLogger = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=quiet)
    return log


def site_config(run_directory: Path, redis_address: str, cameras: int, **sections: Mapping[str, Any]) -> Config:
    """A site of ``cameras`` cameras (cam0 and so on), with the engine's defaults except for ``sections``."""
    document: dict[str, Any] = {
        "site": {"run_directory": str(run_directory)},
        "ring": {"directory": SHARED_MEMORY},
        "redis": {"address": redis_address},
        "cameras": [{"id": f"cam{number}", "url": "test://"} for number in range(cameras)],
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section}
    return from_document(document, {})


class _InProcess:
    """An agent, and the site's directory in shared memory."""

    agent: WriterAgent | PublisherAgent

    def __init__(self, config: Config) -> None:
        self.config = config
        self.paths = SitePaths.of(config)
        segment.private_directory(self.paths.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.agent.on_close()
        self._give_back()
        site.remove(self.paths)

    def _give_back(self) -> None:
        """Close everything that the agent does not close itself."""

    def turn(self, until: Callable[[], object]) -> None:
        """Run the agent as its own loop does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until():
            assert time.monotonic() < deadline, "it did not come"
            if not self.agent.do_work():
                self.agent.idle()


class InProcessWriter(_InProcess):
    """A WriterAgent with the producers of its cameras' rings."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.producers: list[Producer] = []
        self._pages = [StatusPage.claim(self.paths.writer(0))]
        for camera in config.cameras:
            path = self.paths.ring(camera.id)
            ring_file.create(path, config.ring.capacity, camera.id, owner=build_owner(config.owner))
            self.producers.append(Producer(path, camera.id))
            self._pages.append(StatusPage.claim(self.paths.capture(camera.id)))
        self.written = 0
        self._nano = time.time_ns()
        self.agent = WriterAgent(config, 0, self._pages[0], quiet_log())
        self.agent.on_start()
        # One frame goes through, so that everything is connected and created.
        self.fill(1, [memoryview(b"first")])
        self.drain()

    def fill(self, frames: int, payloads: Iterable[memoryview], rings: int | None = None) -> None:
        """Write ``frames`` frames, each with the next payload, in turn into the first ``rings`` rings (None: all)."""
        turns: Iterator[Producer] = itertools.cycle(self.producers[:rings])
        bodies = itertools.cycle(payloads)
        for _ in range(frames):
            self._nano += 1000
            written = next(turns).write((next(bodies),), self._nano, time.monotonic_ns(), WIDTH, HEIGHT)
            assert written is not None, "the rings are too small for this benchmark"
        self.written += frames

    def drain(self) -> Spent:
        """Run the writer until Redis has acknowledged every frame."""
        missing = self.written - self._stored()
        with Stopwatch() as watch:
            while missing > 0:
                done = self.agent.do_work()
                missing -= done
                if not done:
                    self.agent.idle()
                    missing = self.written - self._stored()
        assert self._stored() == self.written
        return watch.spent

    def _stored(self) -> int:
        """Frames that Redis has acknowledged. Those that a benchmark has flushed since may count as lost."""
        counts = [producer.counts() for producer in self.producers]
        return sum(count.stored + count.drops["lost"] for count in counts)

    def _give_back(self) -> None:
        for end in (*self.producers, *self._pages):
            end.close()


class InProcessPublisher(_InProcess):
    """A PublisherAgent that is connected to both its servers."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._page = StatusPage.claim(self.paths.publisher())
        self.agent = PublisherAgent(config, self._page, quiet_log())
        self.agent.on_start()
        self.turn(lambda: self._page.counts[PublisherCount.CONNECTED])

    def drain(self, events: int) -> Spent:
        """Run the publisher until the broker has confirmed ``events`` more events."""
        counts = self._page.counts
        goal = counts[PublisherCount.CONFIRMED] + events
        with Stopwatch() as watch:
            self.turn(lambda: counts[PublisherCount.CONFIRMED] >= goal)
        assert counts[PublisherCount.CONFIRMED] == goal == counts[PublisherCount.PUBLISHED]
        assert not counts[PublisherCount.EXPIRED] + counts[PublisherCount.UNREADABLE]
        return watch.spent

    def _give_back(self) -> None:
        self._page.close()


def run_publisher_process(run_directory: Path, redis_address: str, cameras: int, amqp_url: str) -> None:
    """Run the publisher as the supervisor would start it, in a separate process."""
    from engine.runtime.roles import PUBLISHER, Launch

    config = site_config(run_directory, redis_address, cameras, amqp={"amqp_url": amqp_url})
    PUBLISHER.instance(config).run(Launch(config, quiet_log()))
