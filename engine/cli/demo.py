"""``edge-video demo``: runs a site of test cameras with its own server for some seconds, and reports the result."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from engine.cli import show
from engine.cli.demo_site import DEFAULT_KB, demo_site, read_profile
from engine.cli.output import print_json
from engine.config import Config
from engine.runtime.child import keep_private
from engine.runtime.logs import mask_standard_error, open_log
from engine.runtime.roles import CHILD_ROLES, SUPERVISOR
from engine.runtime.site_report import SiteReport
from engine.runtime.status import collect
from engine.runtime.status_rings import Latency
from engine.runtime.supervisor import Supervisor
from engine.runtime.title import set_title

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


class VideoSummary(msgspec.Struct, frozen=True):
    """Access units of all cameras together: ``per_s`` and ``mb_per_s`` (10^6 bytes) count stored ones."""

    captured: int
    stored: int
    dropped: int
    per_s: float
    mb_per_s: float
    latency_ms: Latency


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
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
    video: VideoSummary | None = None


def demo(
    cameras: Annotated[int | None, typer.Option(min=1, max=1000, help="Number of cameras. Default: 8.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="Frames a second of each camera. Default: 30.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Pixels of a frame. Default: 1280x720.")] = None,
    kb: Annotated[
        int | None, typer.Option(min=1, max=65_536, help=f"Kilobytes of a frame. Default: {DEFAULT_KB}.")
    ] = None,
    video: Annotated[
        bool,
        typer.Option(
            "--video", help="Cameras send H.264, 720p at 15 frames a second: stored undecoded, JPEGs of the key frames."
        ),
    ] = False,
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
        config = demo_site(document, directory, wanted, fps, size, kb, source, video=video)
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


def run_demo(config: Config, seconds: float, *, quiet: bool) -> tuple[Summary, int]:
    """Run a site for ``seconds`` and drain it; returns the summary and the exit code."""
    log = open_log(config)
    set_title(SUPERVISOR.name, config.site.name)
    supervisor = Supervisor(config, log, log, server_outlives=False)
    begun = time.monotonic()
    supervisor.start()
    started = time.monotonic()
    live = show.LiveTable(config, footer=_footer(config)) if sys.stdout.isatty() and not quiet else None
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
    store += " (embedded)" if config.embedded else ""
    return summarise(report, measured, elapsed, cpu, store), code


def _footer(config: Config) -> str:
    """The line below the live table: what runs, and where to look at it in a browser."""
    web = config.web
    url = web.address.url(tls=bool(web.tls_certificate_file)) if web.listen else ""
    return f"edge-video demo   {url}".strip()


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
        video=_video(report, elapsed),
    )


def _video(report: SiteReport, elapsed: float) -> VideoSummary | None:
    if report.video is None:
        return None
    stored_bytes = sum(camera.video.stored_bytes for camera in report.cameras if camera.video)
    return VideoSummary(
        captured=report.video.captured,
        stored=report.video.stored,
        dropped=report.video.dropped,
        per_s=round(report.video.stored / elapsed, 1),
        mb_per_s=round(stored_bytes / elapsed / 1e6, 2),
        latency_ms=report.video.latency_ms,
    )


def print_summary(console: Console, summary: Summary, config: Config) -> None:
    """Print the summary as a table."""
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("cameras", f"{summary.cameras} for {summary.seconds:.1f} s into {summary.store}")
    if summary.video:
        _add_flow(table, "packets", summary.video, summary.video.per_s)
    _add_flow(table, "frames", summary, summary.fps)
    cpu, memory = summary.cpu_seconds, summary.memory_mb
    table.add_row("CPU", f"capture {cpu.capture:.2f} s, writer {cpu.writer:.2f} s, publisher {cpu.publisher:.2f} s")
    table.add_row("memory", f"{memory.capture_each:.1f} MB a camera, writer {memory.writer:.1f} MB")
    if config.publishes:
        table.add_row("announced", f"{summary.published:,} events confirmed by RabbitMQ")
    else:
        table.add_row("announced", "no broker (set AMQP_URL): the events stayed in the journals")
    console.print(table)


def _add_flow(table: Table, what: str, flow: Summary | VideoSummary, per_s: float) -> None:
    """The rows of what flowed from the cameras to the store: ``packets`` of H.264, or ``frames``."""
    table.add_row(what, f"{flow.captured:,} captured, {flow.stored:,} stored, {flow.dropped:,} dropped")
    table.add_row("rate", f"{per_s:,.0f} {what}/s, {flow.mb_per_s:,.1f} MB/s")
    late = flow.latency_ms
    table.add_row("capture to stored", f"p50 {late.p50:.2f} ms, p99 {late.p99:.2f} ms, max {late.max:.1f} ms")
