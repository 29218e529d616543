"""Fixtures of the fault suite, and what it writes down."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cases import CASES, NOTHING, Case
from tests.faults.disks import small_disk
from tests.faults.report import write_report
from tests.faults.run import FaultRun, pattern
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.system.site import Site

#: Cameras of the other tenant.
NEIGHBOURS = ("next1", "next2")


class Observations:
    """Collects what the cases observed, from all workers, and writes the report at the end."""

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._observed: list[tuple[str, dict[str, Any]]] = []
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)
        if report.when == "teardown":
            self._observed += [(report.nodeid, value) for name, value in report.user_properties if name == "observed"]

    def pytest_sessionfinish(self) -> None:
        write_report(self._runs, [value for nodeid, value in self._observed if nodeid not in self._failed])


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--runs") > 1 and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Observations(config.getoption("--runs")))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    runs = metafunc.config.getoption("--runs")
    if runs > 1 and {"run", "video_run", "cluster_run"} & set(metafunc.fixturenames):
        metafunc.parametrize("repetition", range(runs))


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.node.get_closest_marker("case").args[0]]


@pytest.fixture
def repetition() -> int:
    return 0


@pytest.fixture
def redis_for(short_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """The case's Redis; the mark may say more about it, ``disk`` the size of the disk that it has."""
    settings = dict(request.node.get_closest_marker("case").kwargs)
    directory = short_path / "redis"
    directory.mkdir()
    disk = small_disk(directory, settings.pop("disk")) if "disk" in settings else contextlib.nullcontext()
    with disk, RedisServer(directory, **settings) as server:
        yield server


@contextlib.contextmanager
def observed(run: FaultRun, request: pytest.FixtureRequest) -> Iterator[None]:
    """The time of a run: what it observed goes to the report, and its site ends."""
    request.node.user_properties.append(("seed", run.seed))
    yield
    run.site.end()
    run.close()
    found = {
        "key": run.case.key,
        "accounts": run.accounts._asdict() if run.accounts else None,
        "seconds": run.recovery_seconds,
        "note": run.note,
    }
    request.node.user_properties.append(("observed", found))


@pytest.fixture
def run(
    case: Case,
    repetition: int,
    site: Site,
    redis_for: RedisServer,
    rabbitmq: RabbitMQ,
    request: pytest.FixtureRequest,
) -> Iterator[FaultRun]:
    vhost = f"{case.key}-{repetition}"
    rabbitmq.add_vhost(vhost)
    made = FaultRun(case, site, redis_for, rabbitmq, vhost)
    with observed(made, request):
        yield made


@pytest.fixture
def neighbour(run: FaultRun, short_path: Path) -> Iterator[FaultRun]:
    """Another tenant's site on the same machine and servers, which must not notice what happens to this one."""
    vhost = f"{run.vhost}-neighbour"
    run.broker.add_vhost(vhost)
    site = Site(short_path / "neighbour", warm=True)
    beside = FaultRun(
        Case("neighbour", "what happens to another tenant", NOTHING, 15), site, run.redis, run.broker, vhost
    )
    beside.start([{"id": name, "url": pattern()} for name in NEIGHBOURS])
    yield beside
    try:
        beside.settle(innocent=NEIGHBOURS)
    finally:
        site.end()
        beside.close()
