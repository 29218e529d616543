"""How benchmarks measure, and where what they find goes.

A claim is a ratio: the engine beside what it is compared to, in the same process and run. ``paired`` runs two sides
alternately and ``in_turns`` any number, so that a noisy neighbour or a slowing clock affects all alike. The ratio is
the median of the rounds' ratios. Every ratio is arranged so that more is better; ``floors.toml`` has the least that
each may be, and why.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import psutil
from pytest_benchmark.fixture import BenchmarkFixture

HERE = Path(__file__).parent
#: What ``latest.json`` says of each ratio; ``raw.json`` has the runs behind it as well.
LATEST_KEYS = ("value", "floor", "unit", "against")
RESULTS = HERE / "results"
FLOORS = HERE / "floors.toml"

#: ``once`` proves that a benchmark works (make test), ``quick`` looks (make bench-quick), ``full`` guards (make bench).
Mode = Literal["once", "quick", "full"]
Value = TypeVar("Value")
Measure = TypeVar("Measure")
#: The engine's own side, in what ``in_turns`` takes.
OURS = "ours"


class Scale(NamedTuple):
    """How much a run does."""

    mode: Mode

    def pick(self, once: Value, quick: Value, full: Value) -> Value:
        """The one that is meant for this run: rounds, seconds, sizes."""
        return {"once": once, "quick": quick, "full": full}[self.mode]


class Pairs(NamedTuple):
    """Seconds of the engine's side and of the other's, round by round."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """How many times as long the other takes: the median over the rounds."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))


def paired(
    benchmark: BenchmarkFixture,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int,
    warmup: int = 1,
) -> Pairs:
    """Time two callables alternately, theirs right before ours; pytest-benchmark keeps the statistics of ours."""
    pairs = Pairs([], [])

    def timed(side: Callable[[], object], times: list[float]) -> None:
        begun = time.perf_counter()
        side()
        times.append(time.perf_counter() - begun)

    benchmark.pedantic(
        timed,
        args=(ours, pairs.ours),
        setup=lambda: timed(theirs, pairs.theirs),
        rounds=rounds,
        warmup_rounds=warmup,
    )
    return Pairs(pairs.ours[-rounds:], pairs.theirs[-rounds:])


def in_turns(
    benchmark: BenchmarkFixture, sides: Mapping[str, Callable[[], Measure]], rounds: int, warmup: int = 1
) -> dict[str, list[Measure]]:
    """Run each side in every round, ours last, and return what the sides measured of themselves, round by round.

    pytest-benchmark keeps the statistics of ours. The warm-up rounds are left out.
    """
    measured: dict[str, list[Measure]] = {side: [] for side in sides}

    def run(side: str) -> None:
        measured[side].append(sides[side]())

    def others() -> None:
        for side in sides:
            if side != OURS:
                run(side)

    benchmark.pedantic(run, args=(OURS,), setup=others, rounds=rounds, warmup_rounds=warmup)  # type: ignore[no-untyped-call]
    return {side: list(values[-rounds:]) for side, values in measured.items()}


def quotients(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times ours theirs was, in each round."""
    return [their / our for their, our in zip(theirs, ours, strict=True)]


class Results:
    """What a run has found: guarded and unguarded ratios, figures, curves, and what was skipped."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.ratios: dict[str, dict[str, Any]] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self.curves: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        #: What the benchmark at hand has found below its floor.
        self.missed: list[str] = []
        self._floors = tomllib.loads(FLOORS.read_text())

    def ratio(
        self, name: str, value: float, *, against: str, unit: str = "times", runs: object = None, goal: str = ""
    ) -> None:
        """Record a ratio of which more is better; one below its floor goes to ``missed``, which fails its benchmark.

        ``runs`` are the single measurements behind it, ``goal`` is the figure that the engine is built to. What
        ``floors.toml`` does not name is shown, not guarded.
        """
        floor = self._floors.get(name, {}).get("floor")
        if self.scale.mode == "once":
            return
        entry = {"value": round(value, 4), "floor": floor, "unit": unit, "against": against}
        self.ratios[name] = entry | ({"runs": runs} if runs is not None else {}) | ({"goal": goal} if goal else {})
        if floor is not None and value < floor:
            self.missed.append(f"{name}: {value:.3g} {unit} against {against} is below its floor of {floor:g}")

    def median(self, name: str, runs: Sequence[float], *, against: str, unit: str = "times", goal: str = "") -> None:
        """Record the median of the rounds' ratios, which are its ``runs``."""
        self.ratio(name, statistics.median(runs), against=against, unit=unit, runs=list(runs), goal=goal)

    def figure(self, name: str, value: float | str, unit: str, **details: Any) -> None:
        """Record an absolute figure: of this machine and this run, guarded by nothing."""
        self.figures[name] = {"value": value, "unit": unit, **details}

    def curve(
        self, name: str, x: str, y: str, series: dict[str, Sequence[tuple[float, float]]], note: str = ""
    ) -> None:
        """Record how ``y`` grows with ``x``, for each of some things that are compared."""
        self.curves[name] = {"x": x, "y": y, "series": {key: list(points) for key, points in series.items()}}
        self.curves[name]["note"] = note

    def fits(self, name: str, memory: int, shared: int = 0) -> bool:
        """Whether this machine has so many bytes of memory, and of them in /dev/shm; where it has not, ``name`` is
        skipped."""
        have, have_shared = psutil.virtual_memory().available, shutil.disk_usage("/dev/shm").free
        if memory > have:
            self.skip(name, f"it takes {memory / 2**30:.1f} GB of memory, {have / 2**30:.1f} are free")
        elif shared > have_shared:
            self.skip(name, f"it takes {shared / 2**30:.1f} GB of /dev/shm, {have_shared / 2**30:.1f} are free")
        return memory <= have and shared <= have_shared

    def skip(self, name: str, reason: str) -> None:
        """Record what this machine is too small for."""
        self.skipped[name] = reason

    def write(self, complete: bool) -> Path | None:
        """Write ``latest.json`` and ``raw.json``; only a full run that came to its end replaces them."""
        if self.scale.mode != "full" or not complete:
            return None
        RESULTS.mkdir(exist_ok=True)
        plain = {name: {key: entry[key] for key in LATEST_KEYS} for name, entry in self.ratios.items()}
        raw = {
            "run": describe_run(),
            "ratios": self.ratios,
            "figures": self.figures,
            "curves": self.curves,
            "skipped": self.skipped,
        }
        for name, document in (("raw", raw), ("latest", plain)):
            path = RESULTS / f"{name}.json"
            draft = path.with_suffix(".partial")
            draft.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
            draft.replace(path)
        return RESULTS / "latest.json"


def describe_run() -> dict[str, Any]:
    """When, of what, and on which machine."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    return {
        "name": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()) + (f", commit {commit}" if commit else ""),
        "cpu": f"{os.cpu_count()} x {model}",
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
