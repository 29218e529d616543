"""``edge-video demo``: runs a site of test cameras with its own server for some seconds, and reports the result."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib import resources
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from engine.cli import show
from engine.cli.output import print_json
from engine.config import Config, from_document, read_toml
from engine.errors import ConfigError
from engine.runtime.child import keep_private, set_title
from engine.runtime.logs import mask_standard_error, open_log
from engine.runtime.roles import CHILD_ROLES, SUPERVISOR
from engine.runtime.site_report import SiteReport
from engine.runtime.status import collect
from engine.runtime.status_cameras import Latency
from engine.runtime.supervisor import Supervisor
from engine.wire.urls import parse_size

#: A demo's ring holds at least this many seconds of frames.
_RING_SECONDS = 4
#: Sections that a demo takes from a profile unchanged.
_TAKEN = ("metadata", "writer", "publisher")
#: Memory is measured this many seconds before the end, while all processes run.
_MEASURE_SECONDS = 1.0

#: What a demo runs by default.
DEFAULT_PROFILE = "bench"
DEFAULT_CAMERAS = 8


class CpuSummary(msgspec.Struct, frozen=True):
    """CPU seconds of all processes of each role, from start to end."""

    capture: float
    writer: float
    publisher: float


class MemorySummary(msgspec.Struct, frozen=True):
    """Memory in MiB without rings; for captures, the mean of one process."""

    capture_each: float
    writer: float
    publisher: float


class Summary(msgspec.Struct, frozen=True):
    """The result of a demo. ``fps`` and ``mb_per_s`` (10^6 bytes) count stored frames of all cameras together."""

    cameras: int
    seconds: float
    captured: int
    stored: int
    dropped: int
    published: int
    fps: float
    mb_per_s: float
    latency_ms: Latency
    cpu_seconds: CpuSummary
    memory_mb: MemorySummary
    store: str


def demo(
    cameras: Annotated[int | None, typer.Option(min=1, max=1000, help="Number of cameras. Default: 8.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="Frames a second of each camera. Default: 30.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Pixels of a frame. Default: 1280x720.")] = None,
    kb: Annotated[int, typer.Option(min=1, max=65_536, help="Kilobytes of a frame.")] = 60,
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="Length of the run.")] = 20,
    source: Annotated[str | None, typer.Option(help="A path or URL for all cameras instead of test frames.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="The name of a profile, or a site file, whose sizing is tried.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print only one JSON object, at the end.")] = False,
) -> None:
    """Run test cameras into a server of their own and report the result. Needs nothing installed."""
    directory = Path(tempfile.mkdtemp(prefix="edge-video-demo-"))
    try:
        document = read_profile(profile or DEFAULT_PROFILE)
        wanted = cameras if profile else cameras or DEFAULT_CAMERAS
        config = demo_site(document, directory, wanted, fps, size, kb, source)
        keep_private()
        mask_standard_error(config)
        summary, code = run_demo(config, seconds, quiet=json)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if json:
        print_json(summary)
    else:
        print_summary(Console(markup=False, emoji=False, highlight=False), summary, config)
    raise typer.Exit(code)


def read_profile(name: str) -> dict[str, Any]:
    """A profile's TOML, by name or path. The parts that a demo uses are checked. Raises ConfigError."""
    path = Path(name)
    if not path.suffix:
        path = profiles_directory() / f"{name}.toml"
    try:
        data = path.read_bytes()
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in profiles_directory().glob("*.toml")))
        raise ConfigError(f"profile {name}: {error.strerror}; known are {known}") from None
    try:
        document = read_toml(data)
        _check_profile(document)
    except ConfigError as error:
        raise ConfigError(f"profile {path}: {error}") from None
    return document


def _check_profile(document: dict[str, Any]) -> None:
    """Raises ConfigError if the parts that a demo uses are invalid in a site file. The profile's servers and their
    files need not exist here."""
    taken = {name: document[name] for name in (*_TAKEN, "ring", "defaults", "cameras", "redis") if name in document}
    redis = taken.get("redis")
    if isinstance(redis, dict):
        taken["redis"] = {"ttl_seconds": redis["ttl_seconds"]} if "ttl_seconds" in redis else {}
    if taken.get("cameras", []) == []:
        taken["cameras"] = [{"id": "cam1", "url": "test://"}]
    from_document(taken, {})


def profiles_directory() -> Path:
    """The directory of the profiles: in the package, or next to it in a checkout."""
    packaged = Path(str(resources.files("engine"))) / "profiles"
    return packaged if packaged.is_dir() else packaged.parent.parent / "profiles"


def demo_site(
    document: dict[str, Any],
    directory: Path,
    cameras: int | None,
    fps: float | None,
    size: str | None,
    kb: int,
    source: str | None,
) -> Config:
    """A profile's site with test cameras instead of its own, on its own server. Raises ConfigError.

    Options that are None keep the profile's values. REDIS_ADDRESS and AMQP_URL apply as for any site. Frames get the
    prefix ``demo``, so that they do not mix with others.
    """
    defaults = document.get("defaults", {})
    listed = document.get("cameras", [])
    width, height = parse_size(size) if size else (defaults.get("width", 1280), defaults.get("height", 720))
    rate = fps or defaults.get("fps", 30)
    names = [camera["id"] for camera in listed][:cameras]
    fresh = (name for number in count(1) if (name := f"cam{number}") not in names)
    names += list(islice(fresh, max((cameras or 0) - len(names), 0)))
    url = source or f"test://?size={width}x{height}&fps={rate:g}&kb={kb}"
    camera = {"url": url, "loop": True, **({"fps": float(fps)} if source and fps else {})}
    ring = dict(document.get("ring", {}))
    ring["capacity_mb"] = max(ring.get("capacity_mb", 8), -(-int(kb * rate * _RING_SECONDS) // 1024))
    return from_document(
        {
            **{name: document[name] for name in _TAKEN if name in document},
            "ring": ring,
            "site": {"name": f"demo-{os.getpid()}", "run_directory": str(directory), "log_level": "warning"},
            "redis": {"ttl_seconds": document.get("redis", {}).get("ttl_seconds", 300), "prefix": "demo"},
            "cameras": [{"id": name, **camera} for name in names],
        },
        os.environ,
    )


def run_demo(config: Config, seconds: float, *, quiet: bool) -> tuple[Summary, int]:
    """Run a site for ``seconds`` and drain it; returns the summary and the exit code."""
    log = open_log(config)
    set_title(SUPERVISOR.name, config.site.name)
    supervisor = Supervisor(config, log, log, server_outlives=False)
    begun = time.monotonic()
    supervisor.start()
    started = time.monotonic()
    live = show.LiveTable(config, footer="edge-video demo") if sys.stdout.isatty() and not quiet else None
    memory: list[SiteReport] = []

    def tick() -> None:
        if live:
            live.refresh()
        if not memory and time.monotonic() - started > seconds - _MEASURE_SECONDS:
            memory.append(collect(config))

    with live or nullcontext():
        code = supervisor.run(on_tick=tick, until=lambda: time.monotonic() - started >= seconds)
    # Some cameras record while others are still starting, so the rate counts from the very beginning.
    elapsed = time.monotonic() - begun
    report = collect(config, memory=False)
    cpu, store = supervisor.cpu_seconds, str(supervisor.store)
    supervisor.close()
    # If a signal came before the measurement, there is none.
    measured = memory[0] if memory else report
    return summarise(report, measured, elapsed, cpu, store + (" (embedded)" if config.embedded else "")), code


def summarise(report: SiteReport, measured: SiteReport, elapsed: float, cpu: Any, store: str) -> Summary:
    """The summary of a drained site: counts at the end, memory while it ran, CPU of its ended processes."""
    pss: dict[str, list[float]] = {role.name: [] for role in CHILD_ROLES}
    for process in measured.processes:
        if process.alive:
            pss[process.role].append(process.memory_mb)
    stored = sum(camera.stored for camera in report.cameras)
    stored_bytes = sum(camera.stored_bytes for camera in report.cameras)
    return Summary(
        cameras=len(report.cameras),
        seconds=round(elapsed, 2),
        captured=sum(camera.captured for camera in report.cameras),
        stored=stored,
        dropped=sum(sum(camera.dropped.values()) for camera in report.cameras),
        published=report.publisher.confirmed if report.publisher else 0,
        fps=round(stored / elapsed, 1),
        mb_per_s=round(stored_bytes / elapsed / 1e6, 2),
        latency_ms=report.latency_ms,
        cpu_seconds=CpuSummary(*(round(cpu[role], 2) for role in ("capture", "writer", "publisher"))),
        memory_mb=MemorySummary(
            round(sum(pss["capture"]) / max(len(pss["capture"]), 1), 1),
            round(sum(pss["writer"]), 1),
            round(sum(pss["publisher"]), 1),
        ),
        store=store,
    )


def print_summary(console: Console, summary: Summary, config: Config) -> None:
    """Print the summary as a table."""
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("cameras", f"{summary.cameras} for {summary.seconds:.1f} s into {summary.store}")
    table.add_row("frames", f"{summary.captured:,} captured, {summary.stored:,} stored, {summary.dropped:,} dropped")
    table.add_row("rate", f"{summary.fps:,.0f} frames/s, {summary.mb_per_s:,.1f} MB/s")
    latency = summary.latency_ms
    table.add_row("capture to stored", f"p50 {latency.p50:.2f} ms, p99 {latency.p99:.2f} ms, max {latency.max:.1f} ms")
    cpu, memory = summary.cpu_seconds, summary.memory_mb
    table.add_row("CPU", f"capture {cpu.capture:.2f} s, writer {cpu.writer:.2f} s, publisher {cpu.publisher:.2f} s")
    table.add_row("memory", f"{memory.capture_each:.1f} MB a camera, writer {memory.writer:.1f} MB")
    if config.publishes:
        table.add_row("announced", f"{summary.published:,} events confirmed by RabbitMQ")
    else:
        table.add_row("announced", "no broker (set AMQP_URL): the events stayed in the journals")
    console.print(table)
