"""How long a command of ``edge-video`` takes, from its start to its end, against an interpreter that does nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import OURS, Results, Scale, in_turns
from benchmarks.measured_site import Watch, pattern_cameras, running_site
from tests.system.site import COMMAND, ROOT

#: The time of a call that a person does not wait for, in milliseconds: the figure that the commands are built to.
MS_MAX = 200
NOTHING = [sys.executable, "-c", "pass"]


def installed(cache: Path) -> dict[str, str]:
    """An environment in which modules are compiled at their first import only, as where a program is installed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return env | {"PYTHONPYCACHEPREFIX": str(cache)}


def timed(command: list[str], env: dict[str, str]) -> float:
    """Seconds from the start of a command to its end."""
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return time.perf_counter() - begun


def commands(watch: Watch) -> dict[str, list[str]]:
    """What people and scripts call most, by a name."""
    site = ["-c", str(watch.site.file)]
    return {
        "help": ["--help"],
        "status": ["status", *site],
        "frames latest": ["frames", "latest", "cam0", *site],
    }


def test_start_of_the_command_line(
    benchmark: BenchmarkFixture, results: Results, scale: Scale, directory: Path
) -> None:
    """Every round calls the interpreter alone, and then each command of a site of two cameras. The first round only
    compiles."""
    rounds = scale.pick(1, 3, 7)
    with running_site(directory, pattern_cameras(2, 48, 5)) as watch:
        named, env = commands(watch), installed(directory / "bytecode")

        def call(name: str) -> Callable[[], float]:
            return lambda: timed([*COMMAND, *named[name]], env)

        sides = {"nothing": lambda: timed(NOTHING, env), **{name: call(name) for name in named}}
        # The last command is the one that pytest-benchmark shows.
        sides[OURS] = sides.pop("frames latest")
        measured = in_turns(benchmark, sides, rounds, warmup=scale.pick(0, 1, 1))
    measured["frames latest"] = measured.pop(OURS)
    nothing = measured.pop("nothing")
    load = f"median of {rounds} turns"
    results.figure(
        "everyday.command.nothing", round(statistics.median(nothing) * 1e3), "ms: `python -c pass`", load=load
    )
    for name, times in measured.items():
        value = round(statistics.median(times) * 1e3)
        results.figure(f"everyday.command.{name}", value, "ms", load=load, goal=f"<= {MS_MAX}")
        results.median(
            f"everyday.command.{name}",
            [other / ours for other, ours in zip(nothing, times, strict=True)],
            against="time of `python -c pass`",
            unit="of the time",
        )
