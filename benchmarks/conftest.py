"""Options and fixtures of the benchmarks: ``--bench once|quick|full`` sets how much they do."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NoReturn, cast

import pytest

from benchmarks.harness import Mode, Results, Scale
from tests.conftest import rabbitmq as rabbitmq  # noqa: PLC0414 - the fixture of the tests

_RESULTS = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bench", choices=("once", "quick", "full"), default="once", help="how much the benchmarks do")
    parser.addoption(
        "--again",
        action="store_true",
        help="a full run of a part: put its figures into the results of the last whole run",
    )


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(f"signal {number}")


def pytest_configure(config: pytest.Config) -> None:
    # SIGTERM ends a run like Ctrl-C: its servers and sites end too.
    signal.signal(signal.SIGTERM, _interrupt)
    config.stash[_RESULTS] = Results(Scale(cast("Mode", config.getoption("--bench"))))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a benchmark after all its ratios are known."""
    results = item.config.stash[_RESULTS]
    results.missed.clear()
    yield
    if results.missed:
        pytest.fail("\n".join(results.missed), pytrace=False)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the results, unless the run was interrupted, or was a part only and not to be put into the last ones."""
    whole = session.config.args == ["benchmarks"] and not session.config.getoption("keyword")
    again = session.config.getoption("--again")
    complete = (whole or again) and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    path = session.config.stash[_RESULTS].write(complete, again=again)
    if path is not None:
        from benchmarks.report import write_report

        write_report()
        print(f"\nresults: {path}; report: docs/benchmarks.md")


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Results:
    return pytestconfig.stash[_RESULTS]


@pytest.fixture(scope="session")
def scale(results: Results) -> Scale:
    return results.scale


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path, for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="evb-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def servers_are_here() -> None:
    """Name the packages that are missing, and exit."""
    packages = {"redis-server": "redis-server", "redis-benchmark": "redis-tools", "rabbitmq-server": "rabbitmq-server"}
    packages |= {"ffmpeg": "ffmpeg"}
    missing = [package for program, package in packages.items() if not _which(program)]
    if missing:
        pytest.exit(f"the benchmarks need: apt-get install {' '.join(dict.fromkeys(missing))}", returncode=2)


def _which(program: str) -> bool:
    return shutil.which(program) is not None or Path("/usr/sbin", program).exists()
