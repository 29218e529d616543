"""How benchmarks measure and record results.

A claim is a ratio of the engine to a peer, in the same process and run. ``paired`` runs two sides alternately and
``in_turns`` any number, so a noisy neighbour or a slowing clock affects all sides alike. The ratio is the median of the
rounds' ratios. For every ratio more is better; ``floors.toml`` gives the minimum of each, and its reason.
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
#: The fields of each ratio in ``latest.json``; ``raw.json`` also has the single runs.
LATEST_KEYS = ("value", "floor", "unit", "against")
RESULTS = HERE / "results"
FLOORS = HERE / "floors.toml"

#: ``once`` proves that a benchmark works (make test), ``quick`` gives a first look (make bench-quick), ``full`` guards
#: the floors (make bench).
Mode = Literal["once", "quick", "full"]
Value = TypeVar("Value")
Measure = TypeVar("Measure")
#: The name of the engine's side for ``in_turns``.
OURS = "ours"


class Scale(NamedTuple):
    """How much a run does."""

    mode: Mode

    def pick(self, once: Value, quick: Value, full: Value) -> Value:
        """Pick the value for this run's mode: rounds, seconds, sizes."""
        return {"once": once, "quick": quick, "full": full}[self.mode]


class Pairs(NamedTuple):
    """Seconds of the engine's side and of the other side, per round."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """How many times longer the other side takes: the median over the rounds."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))


def paired(
    benchmark: BenchmarkFixture,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int,
    warmup: int = 1,
) -> Pairs:
    """Time two callables in turn, the peer right before the engine. pytest-benchmark keeps the engine's statistics."""
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
    """Run each side in every round, the engine last. Returns the sides' own measurements per round.

    pytest-benchmark keeps the engine's statistics. Warm-up rounds are left out.
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
    """The peer's value divided by the engine's, for each round."""
    return [their / our for their, our in zip(theirs, ours, strict=True)]


class Results:
    """The results of a run: guarded and unguarded ratios, figures, curves, and skipped parts."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.ratios: dict[str, dict[str, Any]] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self.curves: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        #: Ratios of the current benchmark that are below their floors.
        self.missed: list[str] = []
        self._floors = tomllib.loads(FLOORS.read_text())

    def ratio(
        self, name: str, value: float, *, against: str, unit: str = "times", runs: object = None, goal: str = ""
    ) -> None:
        """Record a ratio for which more is better. One below its floor is added to ``missed``; its benchmark fails.

        ``runs`` are the single measurements behind it; ``goal`` is the figure that the engine is built to. A ratio that
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
        """Record an absolute figure of this machine and run. Figures are never guarded."""
        self.figures[name] = {"value": value, "unit": unit, **details}

    def curve(
        self, name: str, x: str, y: str, series: dict[str, Sequence[tuple[float, float]]], note: str = ""
    ) -> None:
        """Record how ``y`` grows with ``x``, for each compared series."""
        self.curves[name] = {"x": x, "y": y, "series": {key: list(points) for key, points in series.items()}}
        self.curves[name]["note"] = note

    def fits(self, name: str, memory: int, shared: int = 0) -> bool:
        """Whether this machine has ``memory`` bytes free, and ``shared`` of them in /dev/shm. If not, ``name`` is
        recorded as skipped."""
        have, have_shared = psutil.virtual_memory().available, shutil.disk_usage("/dev/shm").free
        if memory > have:
            self.skip(name, f"it takes {memory / 2**30:.1f} GB of memory, {have / 2**30:.1f} are free")
        elif shared > have_shared:
            self.skip(name, f"it takes {shared / 2**30:.1f} GB of /dev/shm, {have_shared / 2**30:.1f} are free")
        return memory <= have and shared <= have_shared

    def skip(self, name: str, reason: str) -> None:
        """Record a part that this machine is too small for."""
        self.skipped[name] = reason

    def write(self, complete: bool, *, again: bool = False) -> Path | None:
        """Write ``latest.json`` and ``raw.json``. Only a complete full run replaces them; one that measured a part
        ``again`` replaces its figures there, and the run says which these are."""
        if self.scale.mode != "full" or not complete:
            return None
        RESULTS.mkdir(exist_ok=True)
        raw: dict[str, Any] = {
            "run": describe_run(),
            "ratios": self.ratios,
            "figures": self.figures,
            "curves": self.curves,
            "skipped": self.skipped,
        }
        if again:
            last = json.loads((RESULTS / "raw.json").read_text())
            measured = {name.partition(".")[0] for part in ("ratios", "figures", "curves") for name in raw[part]}
            run = last["run"] | {"again": sorted({*last["run"].get("again", ()), *measured})}
            raw = {part: last[part] | found for part, found in raw.items()} | {"run": run}
        plain = {name: {key: entry[key] for key in LATEST_KEYS} for name, entry in raw["ratios"].items()}
        for name, document in (("raw", raw), ("latest", plain)):
            path = RESULTS / f"{name}.json"
            draft = path.with_suffix(".partial")
            draft.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
            draft.replace(path)
        return RESULTS / "latest.json"


def describe_run() -> dict[str, Any]:
    """The date, commit and machine of a run."""
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


def cpu_seconds(pid: int) -> float:
    """CPU time of a process's threads: in nanoseconds if the kernel counts them, else in clock ticks."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
