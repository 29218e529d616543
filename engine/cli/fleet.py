"""``edge-video fleet``: many sites seen from one place."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.fleet_view import list_lines, status_lines
from engine.cli.options import AsJson, RedisUrl, SiteFile, resolve
from engine.cli.output import console, print_json
from engine.cli.results import nothing
from engine.config.tls import client_context
from engine.errors import EXIT_FAILED, ConfigError, InputError
from engine.fleet.accounts import former_shovels, make_accounts, write_accounts
from engine.fleet.asking import FILES_MIN, FILES_PER_SITE, SITES_AT_A_TIME_MAX, Asked, ask_all
from engine.fleet.definitions import SYSTEM_CA_FILE
from engine.fleet.registry import registered_sites
from engine.fleet.site_list import read_sites, token_of
from engine.runtime.limits import allow_files_if_possible
from engine.wire.amqp_url import parse_amqp_url
from engine.wire.api_url import parse_api_url
from engine.wire.redis_address import TlsFiles
from engine.wire.urls import is_local

fleet = typer.Typer(
    no_args_is_help=True,
    help="Look at many sites from one place: their states, who is registered, users and rights for all of them.",
)

#: The environment variable with the token of sites that have none in the list.
_VARIABLE = "FLEET_TOKEN"
SiteList = Annotated[Path, typer.Argument(help="The list of sites (TOML, or CSV with that ending).", metavar="FILE")]


@fleet.command()
def status(
    file: Annotated[
        Path | None, typer.Argument(help="The list of sites (TOML, or CSV with that ending).", metavar="[FILE]")
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", help="The API of a site, http://host:port. May be given several times."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that each site has to answer.", min=0.1, max=300)] = 5.0,
    ca_file: Annotated[
        Path | None, typer.Option(help="PEM file of the authority to trust. Default: the system's.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Ask the APIs of many sites side by side, and show a line for each. The exit code is 1 if any is not well.

    A site's token is in the list, or for all others in the environment variable FLEET_TOKEN.
    """
    asked = [*_listed(file), *_named(site or [])]
    if not asked:
        raise InputError("name the sites: a list of them, or --site with the address of each API")
    _warn_of_plain_text(asked)
    allow_files_if_possible(FILES_MIN + FILES_PER_SITE * min(len(asked), SITES_AT_A_TIME_MAX))
    found = ask_all(asked, timeout, _context(asked, ca_file))
    if json:
        for one in found:
            print_json(one)
    else:
        screen = console()
        for line in status_lines(found, screen.width):
            screen.print(line, soft_wrap=True)
    if any(one.state != "ok" for one in found):
        raise typer.Exit(EXIT_FAILED)


@fleet.command("list")
def list_sites(config: SiteFile = None, redis: RedisUrl = None, json: AsJson = False) -> None:
    """List the live sites that store in a Redis, of all tenants. Scans all keys."""
    target = resolve(config, redis, None, None)
    with target.session() as session:
        found = registered_sites(session)
    if json:
        for vhost, entry in found:
            print_json(
                {
                    "site": entry.site,
                    "vhost": vhost,
                    "prefix": entry.prefix,
                    "cameras": entry.cameras,
                    "version": entry.version,
                    "host": entry.host,
                    "since": entry.since,
                    "seen": entry.seen,
                    "url": entry.url,
                }
            )
    elif found:
        screen = console()
        for line in list_lines(found, screen.width):
            screen.print(line, soft_wrap=True)
    if not found:
        nothing(f"no site is registered at {target.address}")


@fleet.command()
def users(
    file: SiteList,
    directory: Annotated[Path, typer.Argument(help="Where the files go.", metavar="DIRECTORY")],
    centre: Annotated[
        str | None,
        typer.Option(help="The broker that gets the events of all sites, amqps://host/vhost.", metavar="URL"),
    ] = None,
    centre_ca_file: Annotated[
        str,
        typer.Option(help="PEM file, on the machine of each site's broker, of the authority to trust.", metavar="PATH"),
    ] = SYSTEM_CA_FILE,
    json: AsJson = False,
) -> None:
    """Make the users of all sites of a list: rights in Redis and RabbitMQ, and passwords. Writes files, with mode 0600:
    redis.acl for redis-cli, rabbitmq.json for rabbitmqctl import_definitions, passwords.csv.

    With --centre also centre.json for that broker, and a file for the broker of each site in shovels. Passwords that
    stand in DIRECTORY already are kept.
    """
    sites = read_sites(file)
    address = None
    if centre is not None:
        address = parse_amqp_url(centre, "--centre")
        if "@" in centre:
            raise InputError("--centre has a user; leave it out: each site gets one of its own")
    files = make_accounts(sites, directory, address, centre_ca_file)
    write_accounts(directory, files)
    former = former_shovels(directory, sites)
    if json:
        print_json({"sites": len(sites), "directory": str(directory), "files": sorted(files), "former": former})
    else:
        print(f"{directory}: users of {len(sites)} sites in {len(files)} files")
    if former:
        print(
            f"{directory}: {', '.join(former)}: not in the list; delete them and these sites' users on the servers "
            "(docs/fleet.md)",
            file=sys.stderr,
        )


def _listed(file: Path | None) -> list[Asked]:
    """The sites of a list. Raises InputError."""
    asked = []
    for site in read_sites(file) if file else ():
        if not site.url:
            raise InputError(f"{file}: site {site.name!r} has no url; add the address of its API, https://host:port")
        token = token_of(site, file.parent if file else Path())
        asked.append(Asked(site.name, parse_api_url(site.url, "url"), token or _common_token()))
    return asked


def _named(urls: list[str]) -> list[Asked]:
    """The sites of ``--site``. Raises ConfigError."""
    return [Asked("", parse_api_url(url, "--site"), _common_token()) for url in urls]


def _common_token() -> str:
    token = os.environ.get(_VARIABLE, "")
    if not all("!" <= character <= "~" for character in token):
        raise InputError(f"{_VARIABLE} must have only visible ASCII characters, without spaces")
    return token


def _warn_of_plain_text(asked: list[Asked]) -> None:
    plain = [one.api for one in asked if one.token and not one.api.tls and not is_local(one.api.host)]
    if plain:
        more = f" and {len(plain) - 1} more" if len(plain) > 1 else ""
        print(f"tokens go in plain text to {plain[0].authority}{more}; use https", file=sys.stderr)


def _context(asked: list[Asked], ca_file: Path | None) -> ssl.SSLContext | None:
    """The TLS context; None if no API speaks TLS. Raises InputError."""
    if not any(one.api.tls for one in asked):
        return None
    try:
        return client_context(TlsFiles(ca_file=str(ca_file or "")), "web")
    except ConfigError as error:
        raise InputError(f"--ca-file: {error.fact}") from None
