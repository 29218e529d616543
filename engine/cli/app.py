"""Commands of ``edge-video`` that run a site, or part of one, or look at it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from engine import __version__
from engine.cli import show
from engine.cli.consume import consume
from engine.cli.demo import demo
from engine.cli.doctor import doctor
from engine.cli.frames import frames
from engine.cli.jobs import migrate, recover, reindex
from engine.cli.tenants import tenants
from engine.config import Camera, Config, load
from engine.errors import EXIT_FAILED, InputError
from engine.runtime import roles
from engine.runtime import status as site_status
from engine.runtime.captures import Captures, ensure_rings
from engine.runtime.child import keep_private, set_title
from engine.runtime.lock import SiteLock
from engine.runtime.logs import log_file, mask_standard_error, open_log
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
    set_title("supervisor")
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
    """Validate a site file; print the site as it will run, and its shared memory against what the machine has."""
    site_config = _load(config)
    need = site.shared_memory_need(site_config)
    directory = Path(site_config.ring.directory)
    if not directory.is_dir():
        raise InputError(f"{config}: ring.directory {directory} is no directory")
    have = free_bytes(directory)
    if json:
        document = show.masked(site_config)
        document["shared_memory"] = {"need_bytes": need, "have_bytes": have, "directory": str(directory)}
        print(msgspec.json.encode(document).decode())
    else:
        show.print_site(Console(markup=False, emoji=False, highlight=False), site_config, need, have)
    site.check_space(site_config)


@app.command()
def status(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
    """Show a running site: cameras, processes, publisher. Exit code 1 where it does not run."""
    report = site_status.collect(_load(config))
    if json:
        print(site_status.to_json(report).decode())
    else:
        show.print_status(Console(markup=False, emoji=False, highlight=False), report)
    if not report.running:
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
    log = partial(open_log, site_config, json=json)
    _run_role(site_config, "writer", lambda notifier: roles.run_writer(site_config, number, log(), notifier))


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
    """Remove what a killed site left in shared memory. Frames in its rings are lost; a new start would store them."""
    site_config = _load(config)
    lock = SiteLock(site_config, exclusive=True)
    found = site.leftovers(site_config)
    site.remove(site.SitePaths.of(site_config))
    lock.release()
    held = sum(leftover.held for leftover in found)
    if json:
        print(msgspec.json.encode({"rings": len(found), "frames": held}).decode())
    else:
        print(f"removed {len(found)} rings that held {held} frames" if found else "nothing to remove")


def _load(path: Path) -> Config:
    return load(path, os.environ)


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
    set_title(title)
    try:
        code = main(Notifier(os.environ))
    finally:
        lock.release()
    raise typer.Exit(code)
