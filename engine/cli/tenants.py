"""``edge-video tenants``: lists the tenants of a server and what they store, and makes Redis users for them."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from engine.cli.options import AsJson, KeyTags, Prefix, RedisUrl, SiteFile, Target, resolve
from engine.cli.output import console, print_json
from engine.client.stats import CameraStats, StoreStats
from engine.client.store import FrameStore
from engine.config.names import suggestion
from engine.errors import EXIT_NOTHING, InputError, QueryError, UnknownName, WireError
from engine.jobs.tenants import Role, acl_line, acl_rules, apply_everywhere, discover
from engine.wire import keys
from engine.wire.rfc3339 import rfc3339

tenants = typer.Typer(no_args_is_help=True, help="List tenants, add up what they store, create Redis users for them.")

#: Bytes of entropy in a generated password.
_PASSWORD_BYTES = 24
_ROLES: dict[str, Role] = {"reader": "reader", "writer": "writer", "publisher": "publisher"}


@tenants.command("list")
def list_tenants(config: SiteFile = None, redis: RedisUrl = None, json: AsJson = False) -> None:
    """List all tenants of the server, with their prefixes and cameras. Scans all keys."""
    target = resolve(config, redis, None, None)
    with target.session() as session:
        found = discover(session)
    table = Table("tenant", "prefix", "cameras", "active", box=None, header_style="dim")
    for vhost, prefix in found:
        with FrameStore(target.address, vhost, prefix, timeout_seconds=target.timeout_seconds) as store:
            cameras = store.cameras()
        active = sum(status.state == "active" for status in cameras.values())
        if json:
            print_json({"vhost": vhost, "prefix": prefix, "cameras": list(cameras), "active": active})
        table.add_row(vhost, prefix, str(len(cameras)), str(active))
    _finish(table, found=bool(found), json=json)


@tenants.command()
def stats(
    names: Annotated[list[str] | None, typer.Argument(help="Tenants. Default: all.", metavar="[TENANT]...")] = None,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    prefix: Prefix = None,
    cameras: Annotated[bool, typer.Option("--cameras", help="Also print a line for each camera.")] = False,
    json: AsJson = False,
) -> None:
    """Add up what tenants store: frames, bytes, cameras, oldest, newest, mean TTL. Stored video has lines of its own.
    Looks at every frame and access unit."""
    target = resolve(config, redis, None, None, key_tags=key_tags)
    table = Table(box=None, header_style="dim")
    for name in ("tenant", "prefix", "cameras", "frames", "MB", "oldest (UTC)", "newest (UTC)", "mean TTL s", "no TTL"):
        table.add_column(name, justify="left" if name in ("tenant", "prefix") else "right")
    found = False
    for vhost, name in _chosen(target, names, prefix):
        word = keys.prefix_of(name, tagged=keys.is_tagged(target.prefix))
        with FrameStore(target.address, vhost, word, timeout_seconds=target.timeout_seconds) as store:
            report = store.stats()
        found = found or report.total.frames + report.video.frames > 0
        if json:
            print_json(report)
        _add_rows(table, report, cameras=cameras)
    _finish(table, found=found, json=json)


@tenants.command()
def acl(
    tenant: Annotated[str, typer.Argument(help="The tenant (vhost).", metavar="TENANT")],
    role: Annotated[list[str], typer.Option(help="reader, writer or publisher. May be given several times.")],
    user: Annotated[str | None, typer.Option(help="The user's name. Default: TENANT-ROLE.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="The file with the password, - for standard input. Default: generate one.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Set the user on the server; needs a login that may do so.")
    ] = False,
    redis_6: Annotated[bool, typer.Option("--redis-6", help="Rules for servers before version 7.")] = False,
    config: SiteFile = None,
    redis: RedisUrl = None,
    json: AsJson = False,
) -> None:
    """Print the ACL SETUSER line of a user with only the rights that its role needs, for only this tenant.

    --apply sets it on every node of a cluster. If some do not answer, they are named, the exit code is 1, and the same
    command sets the rest later.
    """
    try:
        roles = [_ROLES[name] for name in role]
    except KeyError as error:
        raise InputError(f"there is no role {error.args[0]!r}{suggestion(error.args[0], list(_ROLES))}") from None
    vhost = keys.DEFAULT_VHOST if tenant in ("", "/") else tenant
    if vhost == keys.ENGINE:
        raise InputError(f"tenant {vhost!r} is reserved for the engine's own keys")
    target = resolve(config, redis, vhost, None) if apply or config or redis else None
    password = _read_password(password_file) if password_file else secrets.token_urlsafe(_PASSWORD_BYTES)
    try:
        name = user or f"{keys.encode_part(vhost)}-{'-'.join(dict.fromkeys(roles))}"
        database = target.address.database if target else 0
        rules = acl_rules(vhost, roles, password, database=database, read_only_patterns=not redis_6)
    except WireError as error:
        raise QueryError(f"tenant: {error}") from None
    line = acl_line(name, rules)
    applied = apply_everywhere(target.address, target.timeout_seconds, name, rules) if apply and target else None
    if json:
        shown = {} if password_file else {"password": password}
        whole = applied is not None and not applied.missing
        kept = {"applied": whole, "kept_over_restarts": applied is not None and applied.kept}
        missing = {"missing": applied.missing} if applied and applied.missing else {}
        print_json({"user": name, "line": line, **shown, **kept, **missing})
    else:
        # Without rich, which would wrap the line.
        print(line)
        if not password_file:
            print(f"password of {name}: {password}", file=sys.stderr)
        if applied and not applied.kept:
            print("set; a server without an ACL file forgets the user when it restarts", file=sys.stderr)
    if applied and applied.missing and not password_file:
        print("the next run makes another password; give --password-file to keep this one", file=sys.stderr)
    if applied:
        applied.check(name)


def _chosen(target: Target, names: list[str] | None, prefix: str | None) -> list[tuple[str, str]]:
    """(vhost, prefix) of the named tenants; of all if none are named. Raises UnknownName."""
    with target.session() as session:
        if names and prefix:
            wanted = [(name, prefix) for name in names]
            there = session.call(*(("EXISTS", keys.cameras_key(*pair)) for pair in wanted))
            if all(there):
                return wanted
        known = discover(session)
    if prefix:
        known = [pair for pair in known if pair[1] == prefix]
    chosen = []
    for name in names or sorted({vhost for vhost, _ in known}):
        found = [pair for pair in known if pair[0] == name]
        if not found:
            listed = sorted({vhost for vhost, _ in known})
            raise UnknownName(f"no tenant {name!r} at {target.address}{suggestion(name, listed) if listed else ''}")
        chosen += found
    return chosen


def _add_rows(table: Table, report: StoreStats, *, cameras: bool) -> None:
    table.add_row(report.vhost, report.prefix, str(len(report.cameras)), *_columns(report.total))
    if cameras:
        for camera, stats_ in report.cameras.items():
            table.add_row("", f"  {camera}", "", *_columns(stats_))
    if report.video_cameras:
        table.add_row("", "video", str(len(report.video_cameras)), *_columns(report.video))
    if cameras:
        for camera, stats_ in report.video_cameras.items():
            table.add_row("", f"  {camera}", "", *_columns(stats_))


def _columns(stats_: CameraStats) -> list[str]:
    ttl = "-" if stats_.mean_ttl_seconds is None else f"{stats_.mean_ttl_seconds:.1f}"
    return [
        f"{stats_.frames:,}",
        f"{stats_.bytes / 1e6:,.1f}",
        _second(stats_.oldest_nano),
        _second(stats_.newest_nano),
        ttl,
        f"{stats_.without_ttl:,}",
    ]


def _second(unix_nano: int) -> str:
    """Month, day and time (UTC). No year, because a server keeps frames for minutes."""
    return rfc3339(unix_nano)[5:19].replace("T", " ") if unix_nano else "-"


def _finish(table: Table, *, found: bool, json: bool) -> None:
    if not json and table.row_count:
        console().print(table)
    if not found:
        print("nothing is stored", file=sys.stderr)
        raise typer.Exit(EXIT_NOTHING)


def _read_password(path: Path) -> str:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the password cannot be read from {path}: {error}") from None
    password = text.strip("\r\n")
    if not password:
        raise InputError(f"there is no password in {path}")
    return password
