"""Options that the reading commands share: the Redis, the tenant, and the form of the output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from engine.cli import audience
from engine.config import Config, load
from engine.errors import Audience, ConfigError
from engine.wire import keys, redis_address

if TYPE_CHECKING:
    from engine.client.store import FrameStore
    from engine.servers.redis.session import Session

DEFAULT_SITE_FILE = Path("site.toml")

SiteFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help=f"The site file (TOML). Default: {DEFAULT_SITE_FILE}.", metavar="FILE"),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis",
        help="The Redis to use without a site file. TLS files and Sentinel need a site file.",
        metavar="ADDRESS",
    ),
]
Vhost = Annotated[str | None, typer.Option(help="The tenant, if not the site's.")]
Prefix = Annotated[str | None, typer.Option(help="The prefix, if not the site's.")]
KeyTags = Annotated[
    bool,
    typer.Option("--key-tags", help="The frames are of a site with redis.key_tags. A site file says so itself."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, for programs.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


class Target(NamedTuple):
    """The frames that a command works on: server, tenant, prefix. ``config`` is the site's, if a site file was read."""

    address: redis_address.RedisAddress
    vhost: str
    prefix: str
    cameras: tuple[str, ...]
    timeout_seconds: float
    config: Config | None

    def store(self) -> FrameStore:
        """The store to query."""
        from engine.client.store import FrameStore

        return FrameStore(
            self.address, self.vhost, self.prefix, cameras=self.cameras, timeout_seconds=self.timeout_seconds
        )

    def session(self) -> Session:
        """A session for a job that writes."""
        from engine.servers.redis.session import Session

        return Session(self.address, self.timeout_seconds, checks_mode=True)


def resolve(
    config: Path | None, redis: str | None, vhost: str | None, prefix: str | None, *, key_tags: bool = False
) -> Target:
    """The target that the options name: ``--redis``, or else the server of a site file. Raises ConfigError.

    With ``key_tags``, or if the site file says so, keys have hash tags.

    REDIS_USERNAME and REDIS_PASSWORD apply to both.
    """
    # The libraries that a query needs are loaded after the options are read, so that help texts come at once.
    from engine.client.store_base import TIMEOUT_SECONDS
    from engine.runtime.title import set_title

    # Addresses on the command line may have passwords in them. Hide them from other users of the machine.
    set_title("reader")
    if redis is not None:
        if config is not None:
            raise ConfigError("give --config or --redis, not both")
        if redis == redis_address.EMBEDDED:
            raise ConfigError("--redis takes an address; for an embedded server give the site's file with --config")
        audience.explain_to(Audience.OPTIONS)
        address = redis_address.parse_redis_address(redis)
        address = address._replace(
            username=address.username or os.environ.get("REDIS_USERNAME") or None,
            password=address.password or os.environ.get("REDIS_PASSWORD") or None,
        )
        tenant = keys.DEFAULT_VHOST if vhost in (None, "/", "") else str(vhost)
        return Target(address, tenant, keys.prefix_of(prefix or "frames", tagged=key_tags), (), TIMEOUT_SECONDS, None)
    if config is None and not DEFAULT_SITE_FILE.exists():
        raise ConfigError("there is no site.toml here; name a site file with --config, or a server with --redis")
    site = load(config or DEFAULT_SITE_FILE, os.environ)
    set_title("reader", site.site.name)
    own = vhost in (None, site.vhost) and prefix in (None, site.prefix)
    return Target(
        site.redis_address,
        site.vhost if vhost is None else keys.DEFAULT_VHOST if vhost in ("/", "") else vhost,
        keys.prefix_of(site.prefix if prefix is None else prefix, tagged=key_tags or site.redis.key_tags),
        tuple(camera.id for camera in site.cameras) if own else (),
        site.redis.timeout_seconds,
        site,
    )
