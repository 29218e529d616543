"""Options that the reading commands share: which Redis, which tenant, and how to print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from engine.cli import audience
from engine.client.store import FrameStore
from engine.client.store_base import TIMEOUT_SECONDS
from engine.config import Config, load
from engine.errors import Audience, ConfigError
from engine.runtime.child import set_title
from engine.servers.redis.session import Session
from engine.wire import keys, urls

DEFAULT_SITE_FILE = Path("site.toml")

SiteFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help=f"The site file (TOML); {DEFAULT_SITE_FILE} without.", metavar="FILE"),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis", help="Read this Redis, without a site file. TLS files and sentinels need one.", metavar="ADDRESS"
    ),
]
Vhost = Annotated[str | None, typer.Option(help="The tenant, where it is not the site's.")]
Prefix = Annotated[str | None, typer.Option(help="The prefix, where it is not the site's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print for programs: a JSON object a line.")]
Force = Annotated[bool, typer.Option("--force", help="Write over files that exist.")]


class Target(NamedTuple):
    """Whose frames a command is about, and where they are. ``config`` is the site's, where a site file was read."""

    address: urls.RedisAddress
    vhost: str
    prefix: str
    cameras: tuple[str, ...]
    timeout_seconds: float
    config: Config | None

    def store(self) -> FrameStore:
        """The store to ask."""
        return FrameStore(
            self.address, self.vhost, self.prefix, cameras=self.cameras, timeout_seconds=self.timeout_seconds
        )

    def session(self) -> Session:
        """A session for a job that writes."""
        return Session(self.address, self.timeout_seconds, checks_mode=True)


def resolve(config: Path | None, redis: str | None, vhost: str | None, prefix: str | None) -> Target:
    """What the options mean: ``--redis`` stands for itself, otherwise a site file says where. Raises ConfigError.

    REDIS_USERNAME and REDIS_PASSWORD count for both.
    """
    # Addresses on the command line may carry passwords; nobody else on the machine is to read them.
    set_title("reader")
    if redis is not None:
        if config is not None:
            raise ConfigError("give --config or --redis, not both")
        if redis == urls.EMBEDDED:
            raise ConfigError("--redis takes an address; for an embedded server give the site's file with --config")
        audience.explain_to(Audience.OPTIONS)
        address = urls.parse_redis_address(redis)
        address = address._replace(
            username=address.username or os.environ.get("REDIS_USERNAME") or None,
            password=address.password or os.environ.get("REDIS_PASSWORD") or None,
        )
        tenant = keys.DEFAULT_VHOST if vhost in (None, "/", "") else str(vhost)
        return Target(address, tenant, prefix or "frames", (), TIMEOUT_SECONDS, None)
    if config is None and not DEFAULT_SITE_FILE.exists():
        raise ConfigError("there is no site.toml here; name a site file with --config, or a server with --redis")
    site = load(config or DEFAULT_SITE_FILE, os.environ)
    set_title("reader", site.site.name)
    own = vhost in (None, site.vhost) and prefix in (None, site.prefix)
    return Target(
        site.redis_address,
        site.vhost if vhost is None else keys.DEFAULT_VHOST if vhost in ("/", "") else vhost,
        site.prefix if prefix is None else prefix,
        tuple(camera.id for camera in site.cameras) if own else (),
        site.redis.timeout_seconds,
        site,
    )
