"""``edge-video check`` and ``status``: show a site as it will run, and as it is running."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.output import print_json
from engine.cli.site_options import DEFAULT_SITE_FILE, AsJson, SiteFile, load_site
from engine.errors import EXIT_FAILED, InputError
from engine.runtime.status import collect
from engine.runtime.status_outages import HEALTHY_SHARE
from engine.shm import site
from engine.shm.segment import free_bytes


def check(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
    """Validate a site file. Prints the site as it will run, and the memory that it needs and that the machine has."""
    # Not for status, which starts faster without them.
    from rich.console import Console

    from engine.cli import check_view
    from engine.config.memory import redis_memory
    from engine.doctor.cpu_costs import cores
    from engine.runtime.machine import embedded_memory

    site_config = load_site(config)
    need = site.shared_memory_need(site_config)
    directory = Path(site_config.ring.directory)
    if not directory.is_dir():
        raise InputError(f"{config}: ring.directory {directory} is no directory")
    have = free_bytes(directory)
    memory = redis_memory(site_config)
    most = embedded_memory(site_config) if site_config.embedded else None
    need_cores, have_cores = sum(cores(camera, None) for camera in site_config.cameras), len(os.sched_getaffinity(0))
    if json:
        document = check_view.masked(site_config)
        document["redis_memory"] = {
            "need_bytes": memory.bytes,
            "frames": memory.frames,
            "frames_per_second": memory.frames_per_second,
            "video_bytes": memory.video_bytes,
            "packets": memory.packets,
            "packets_per_second": memory.packets_per_second,
            "assumed": memory.assumed,
            "maxmemory_bytes": most,
        }
        document["cpu"] = {"need_cores": round(need_cores, 3), "have_cores": have_cores}
        document["shared_memory"] = {"need_bytes": need, "have_bytes": have, "directory": str(directory)}
        print_json(document)
    else:
        sizing = check_view.Sizing(need, have, memory, most, need_cores, have_cores)
        check_view.print_site(Console(markup=False, emoji=False, highlight=False), site_config, sizing)
    site.check_space(site_config)


def status(
    config: SiteFile = DEFAULT_SITE_FILE,
    json: AsJson = False,
    healthy: Annotated[
        bool,
        typer.Option(
            "--healthy", help="Print one line; exit code 1 unless all is well. For Docker and other watchdogs."
        ),
    ] = False,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the cameras that must be active in a healthy site.")
    ] = HEALTHY_SHARE,
) -> None:
    """Show a running site: cameras, processes, publisher. The exit code is 1 if it is not running."""
    report = collect(load_site(config), memory=not healthy, share=share)
    if json:
        print_json(report)
    elif healthy:
        print(f"unhealthy: {'; '.join(report.troubles)}" if report.troubles else "healthy")
    else:
        # Not for a watchdog, which asks for one line or for JSON every few seconds.
        from rich.console import Console

        from engine.cli.status_view import print_status

        print_status(Console(markup=False, emoji=False, highlight=False), report)
    if not report.running or (healthy and report.troubles):
        raise typer.Exit(EXIT_FAILED)
