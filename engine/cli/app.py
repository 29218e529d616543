"""Commands of ``edge-video`` that run a site, or part of one, or look at it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from engine import __version__
from engine.cli import show
from engine.cli.consume import consume
from engine.cli.demo import demo
from engine.cli.doctor import doctor
from engine.cli.frames import frames
from engine.cli.jobs import migrate, recover, reindex
from engine.cli.output import print_json
from engine.cli.tenants import tenants
from engine.config import Camera, Config, load
from engine.config.memory import redis_memory
from engine.errors import EXIT_FAILED, InputError
from engine.runtime import claims, roles
from engine.runtime import status as site_status
from engine.runtime.captures import Captures, ensure_rings
from engine.runtime.child import keep_private, set_title
from engine.runtime.embedded import EmbeddedServer
from engine.runtime.limits import allow_files, files_needed
from engine.runtime.lock import SiteLock
from engine.runtime.logs import log_file, mask_standard_error, open_log
from engine.runtime.machine import embedded_memory
from engine.runtime.notify import Notifier
from engine.runtime.preflight import check_redis
from engine.runtime.supervisor import Supervisor
from engine.shm import site
from engine.shm.segment import free_bytes

app = typer.Typer(
    name="edge-video",
    help="Takes many cameras, keeps their last minutes as JPEG frames in Redis, announces them through RabbitMQ.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(demo)
app.command()(consume)
app.command()(doctor)
app.command()(migrate)
app.command()(reindex)
app.command()(recover)
app.add_typer(frames, name="frames")
app.add_typer(tenants, name="tenants")

SiteFile = Annotated[Path, typer.Option("--config", "-c", help="The site file (TOML).", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print for programs: JSON.")]
DEFAULT_SITE_FILE = Path("site.toml")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edge-video {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options before the command."""


@app.command()
def run(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
    """Run a site: all its processes, until SIGTERM or Ctrl-C. Shows a live table on a terminal, log lines otherwise."""
    site_config = _load(config)
    keep_private()
    mask_standard_error(site_config)
    set_title("supervisor", site_config.site.name)
    notifier = Notifier(os.environ)
    if not sys.stdout.isatty() or json:
        log = open_log(site_config, json=json)
        supervisor = Supervisor(site_config, log, log, notifier)
        supervisor.start()
        code = supervisor.run()
        supervisor.close()
        raise typer.Exit(code)
    file = log_file(site_config)
    log = open_log(site_config, file=file)
    supervisor = Supervisor(site_config, log, log, notifier)
    supervisor.start()
    with show.LiveTable(site_config, footer=f"log: {file}   Ctrl-C drains and stops") as table:
        code = supervisor.run(on_tick=table.refresh)
    supervisor.close()
    raise typer.Exit(code)


@app.command()
def check(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
    """Validate a site file; print the site as it will run, and the memory it needs against what the machine has."""
    site_config = _load(config)
    need = site.shared_memory_need(site_config)
    directory = Path(site_config.ring.directory)
    if not directory.is_dir():
        raise InputError(f"{config}: ring.directory {directory} is no directory")
    have = free_bytes(directory)
    memory = redis_memory(site_config)
    most = embedded_memory(site_config) if site_config.embedded else None
    if json:
        document = show.masked(site_config)
        document["redis_memory"] = {
            "need_bytes": memory.bytes,
            "frames": memory.frames,
            "frames_per_second": memory.frames_per_second,
            "assumed": memory.assumed,
            "maxmemory_bytes": most,
        }
        document["shared_memory"] = {"need_bytes": need, "have_bytes": have, "directory": str(directory)}
        print_json(document)
    else:
        show.print_site(Console(markup=False, emoji=False, highlight=False), site_config, need, have, memory, most)
    site.check_space(site_config)


@app.command()
def status(
    config: SiteFile = DEFAULT_SITE_FILE,
    json: AsJson = False,
    healthy: Annotated[
        bool, typer.Option("--healthy", help="One line, and exit code 1 unless all is well: for Docker and others.")
    ] = False,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the cameras, that must be active to be healthy.")
    ] = site_status.HEALTHY_SHARE,
) -> None:
    """Show a running site: cameras, processes, publisher. Exit code 1 where it does not run."""
    report = site_status.collect(_load(config), memory=not healthy, share=share)
    if json:
        print_json(report)
    elif healthy:
        print(f"unhealthy: {'; '.join(report.troubles)}" if report.troubles else "healthy")
    else:
        show.print_status(Console(markup=False, emoji=False, highlight=False), report)
    if not report.running or (healthy and report.troubles):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def capture(
    cameras: Annotated[list[str] | None, typer.Argument(help="The cameras' ids.", metavar="CAMERA")] = None,
    every: Annotated[bool, typer.Option("--all", help="Capture all cameras of the site file.")] = False,
    config: SiteFile = DEFAULT_SITE_FILE,
    json: AsJson = False,
) -> None:
    """Run captures alone, for systemd or supervisord: one camera in this process, or several, each in a child process.
    Several take added and removed cameras over from the site file at SIGHUP."""
    site_config = _load(config)
    names = list(dict.fromkeys(cameras or ()))
    if bool(names) == every:
        raise InputError("name the cameras to capture, or say --all")
    chosen = [site_config.camera(name) for name in names]

    def one(notifier: Notifier) -> int:
        log = open_log(site_config, json=json)
        ensure_rings(site_config, chosen, log)
        return roles.run_capture(site_config, chosen[0], log, notifier)

    def several(notifier: Notifier) -> int:
        log = open_log(site_config, json=json)
        select = _all_cameras if every else partial(_cameras_named, names)
        return Captures(site_config, select, partial(_load, config), log, notifier).run()

    if len(chosen) == 1:
        _run_role(site_config, f"capture {names[0]}", one)
    else:
        _run_role(site_config, "captures", several)


@app.command()
def writer(
    config: SiteFile = DEFAULT_SITE_FILE,
    number: Annotated[int, typer.Option(min=0, help="Which of writer.writers, from 0.")] = 0,
    json: AsJson = False,
) -> None:
    """Run a writer process alone, for supervisord or systemd."""
    site_config = _load(config)
    if number >= site_config.writer.writers:
        raise InputError(f"there is no writer {number}: writer.writers is {site_config.writer.writers}")
    check_redis(site_config)

    def main(notifier: Notifier) -> int:
        log, own = open_log(site_config, json=json), claims.identity(site_config)
        claims.claim(site_config, [camera.id for camera in site_config.cameras_of(number)], own, log)
        return roles.run_writer(site_config, number, log, own, notifier)

    _run_role(site_config, "writer", main)


@app.command()
def publisher(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
    """Run the publisher process alone, for supervisord or systemd."""
    site_config = _load(config)
    if not site_config.publishes:
        raise InputError("nothing to publish to: set amqp.amqp_url or AMQP_URL, and metadata.enabled = true")
    check_redis(site_config)
    log = partial(open_log, site_config, json=json)
    _run_role(site_config, "publisher", lambda notifier: roles.run_publisher(site_config, log(), notifier))


@app.command()
def clean(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
    """Remove what a killed site left: rings in shared memory, the embedded server. Their frames are lost; a new start
    would go on with them."""
    site_config = _load(config)
    lock = SiteLock(site_config, exclusive=True)
    try:
        found = site.leftovers(site_config)
        pid, kept = EmbeddedServer(site_config).clean()
        site.remove(site.SitePaths.of(site_config))
    finally:
        lock.release()
    held = sum(leftover.held for leftover in found)
    if json:
        print_json({"rings": len(found), "frames": held, "server_pid": pid, "server_frames": kept})
        return
    done = [f"removed {len(found)} rings that held {held} frames"] if found else []
    if pid:
        done.append(f"ended the embedded server (pid {pid}), which held {kept if kept >= 0 else 'unknown'} frames")
    print("; ".join(done) or "nothing to remove")


def _load(path: Path) -> Config:
    """The site of a file, for a process that may look at all its cameras. Raises InputError."""
    config = load(path, os.environ)
    allow_files(files_needed(config), f"site {config.site.name}")
    return config


def _all_cameras(config: Config) -> Iterable[Camera]:
    return config.cameras


def _cameras_named(names: list[str], config: Config) -> Iterable[Camera]:
    """Those that are still in the site file."""
    return [camera for camera in config.cameras if camera.id in names]


def _run_role(config: Config, title: str, main: Callable[[Notifier], int]) -> None:
    """Run one role in this process, beside the other roles of its site. It has no server to bring along."""
    keep_private()
    mask_standard_error(config)
    if config.embedded and not title.startswith("capture"):
        address = config.redis_address
        if not Path(address.path).is_socket():
            raise InputError(
                f"redis.address is embedded, and no site runs that server at {address.path}; name a server"
            )
    lock = SiteLock(config, exclusive=False)
    site.make_directory(config)
    try:
        site.check_owner(config)
    except BaseException:
        lock.release()
        raise
    set_title(title, config.site.name)
    try:
        code = main(Notifier(os.environ))
    finally:
        lock.release()
    raise typer.Exit(code)
