"""``edge-video web``: runs the web process alone, beside a running site or on another machine."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from engine.cli.roles import run_alone
from engine.cli.site_options import DEFAULT_SITE_FILE, AsJson, SiteFile, load_site
from engine.config import Config
from engine.config.web import check_web
from engine.errors import InputError
from engine.runtime.logs import open_log
from engine.runtime.notify import Notifier
from engine.runtime.preflight import check_redis
from engine.runtime.roles import WEB, Launch


def web(
    config: SiteFile = DEFAULT_SITE_FILE,
    listen: Annotated[
        str | None, typer.Option(help="Where to listen instead of web.listen.", metavar="HOST:PORT")
    ] = None,
    json: AsJson = False,
) -> None:
    """Run the web process alone: metrics, health, API, dashboard. Beside a running site or on another machine, where it
    has the frames and video of Redis, but no counters of the site."""
    site_config = _listening_on(load_site(config), listen)
    if not WEB.keys(site_config):
        raise InputError(WEB.absent)
    check_redis(site_config)
    instance = WEB.instance(site_config)

    def main(notifier: Notifier) -> int:
        return instance.run(Launch(site_config, open_log(site_config, json=json), notifier=notifier))

    run_alone(site_config, instance.name, main)


def _listening_on(config: Config, listen: str | None) -> Config:
    """The site with another address for its web role. Raises ConfigError if it may not listen there."""
    if listen is None:
        return config
    config = msgspec.structs.replace(config, web=msgspec.structs.replace(config.web, listen=listen))
    check_web(config)
    return config
