"""The commands that run one role of a site alone, for systemd, supervisord and similar.

Capture, writer, publisher and web have options of their own. For any other role, the command is made from its entry in
the table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.site_options import DEFAULT_SITE_FILE, AsJson, SiteFile, load_site
from engine.config import Camera, Config
from engine.errors import InputError
from engine.runtime import claims, rings
from engine.runtime.captures import Captures
from engine.runtime.child import keep_private
from engine.runtime.lock import SiteLock
from engine.runtime.logs import mask_standard_error, open_log
from engine.runtime.notify import Notifier
from engine.runtime.preflight import check_redis
from engine.runtime.roles import CAPTURE, CHILD_ROLES, MONITOR, PUBLISHER, WEB, WRITER, Launch, Role
from engine.runtime.title import set_title
from engine.shm import site


def command(name: str) -> Callable[..., None]:
    """The command of a role."""
    if name == WEB.name:
        # Named here only, because it uses ``run_alone``.
        other: Callable[..., None] = import_module("engine.cli.web").web
        return other
    own: dict[str, Callable[..., None]] = {CAPTURE.name: capture, WRITER.name: writer, PUBLISHER.name: publisher}
    return own.get(name) or _plain_command(next(role for role in CHILD_ROLES if role.name == name))


def capture(
    cameras: Annotated[list[str] | None, typer.Argument(help="The cameras' ids.", metavar="CAMERA")] = None,
    every: Annotated[bool, typer.Option("--all", help="Capture all cameras of the site file.")] = False,
    config: SiteFile = DEFAULT_SITE_FILE,
    json: AsJson = False,
) -> None:
    """Run captures alone, for systemd or supervisord: one camera in this process, or several in child processes. With
    several, SIGHUP reads the site file again for added and removed cameras."""
    site_config = load_site(config)
    names = list(dict.fromkeys(cameras or ()))
    if bool(names) == every:
        raise InputError("name the cameras to capture, or say --all")
    chosen = [site_config.camera(name) for name in names]

    def one(notifier: Notifier) -> int:
        log = open_log(site_config, json=json)
        rings.make_missing(site_config, chosen, log)
        return CAPTURE.instance(site_config, chosen[0].id).run(Launch(site_config, log, notifier=notifier))

    def several(notifier: Notifier) -> int:
        log = open_log(site_config, json=json)
        select = _all_cameras if every else partial(_cameras_named, names)
        return Captures(site_config, select, partial(load_site, config), log, notifier).run()

    if len(chosen) == 1:
        run_alone(site_config, CAPTURE.instance(site_config, names[0]).name, one)
    else:
        run_alone(site_config, "captures", several)


def writer(
    config: SiteFile = DEFAULT_SITE_FILE,
    number: Annotated[int, typer.Option(min=0, help="The writer's number, from 0 to writer.writers - 1.")] = 0,
    json: AsJson = False,
) -> None:
    """Run a writer process alone, for supervisord or systemd."""
    site_config = load_site(config)
    if number >= site_config.writer.writers:
        raise InputError(f"there is no writer {number}: writer.writers is {site_config.writer.writers}")
    check_redis(site_config)
    instance = WRITER.instance(site_config, WRITER.keys(site_config)[number])

    def main(notifier: Notifier) -> int:
        log, own = open_log(site_config, json=json), claims.identity(site_config)
        names = [camera.id for camera in site_config.cameras_of(number)]
        claims.claim(site_config, names, own, log)
        if number == 0:
            # The first writer registers the site.
            try:
                claims.claim_name(site_config, own, log)
            except BaseException:
                claims.release(site_config, names, own, log)
                raise
        return instance.run(Launch(site_config, log, own, notifier))

    run_alone(site_config, instance.name, main)


def publisher(
    config: SiteFile = DEFAULT_SITE_FILE,
    number: Annotated[int, typer.Option(min=0, help="Its number, from 0 to publisher.publishers - 1.")] = 0,
    json: AsJson = False,
) -> None:
    """Run a publisher process alone, for supervisord or systemd."""
    site_config = load_site(config)
    keys = PUBLISHER.keys(site_config)
    if not keys:
        raise InputError(PUBLISHER.absent)
    if number >= len(keys):
        raise InputError(f"there is no publisher {number}: publisher.publishers is {len(keys)}")
    check_redis(site_config)
    instance = PUBLISHER.instance(site_config, keys[number])

    def main(notifier: Notifier) -> int:
        return instance.run(Launch(site_config, open_log(site_config, json=json), notifier=notifier))

    run_alone(site_config, instance.name, main)


def _plain_command(role: Role) -> Callable[..., None]:
    """The command of a role with one instance and no options of its own."""

    def command(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
        site_config = load_site(config)
        if not role.keys(site_config):
            raise InputError(role.absent)
        if role is not MONITOR:
            # The monitor tells that Redis is away.
            check_redis(site_config)
        instance = role.instance(site_config)

        def main(notifier: Notifier) -> int:
            return instance.run(Launch(site_config, open_log(site_config, json=json), notifier=notifier))

        run_alone(site_config, instance.name, main)

    command.__doc__ = role.help
    return command


def _all_cameras(config: Config) -> Iterable[Camera]:
    return config.cameras


def _cameras_named(names: list[str], config: Config) -> Iterable[Camera]:
    """Those of ``names`` that are still in the site file."""
    return [camera for camera in config.cameras if camera.id in names]


def run_alone(config: Config, title: str, main: Callable[[Notifier], int]) -> None:
    """Run ``main`` in this process, next to the other roles of its site. It starts no embedded server."""
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
