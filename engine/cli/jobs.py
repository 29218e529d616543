"""``edge-video migrate``, ``reindex`` and ``recover``: jobs on stored frames, which may run next to a running site."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import Progress, TaskID
from rich.table import Table

from engine.cli import audience
from engine.cli.options import AsJson, KeyTags, Prefix, RedisUrl, SiteFile, Target, Vhost, resolve
from engine.cli.output import console, print_json, progress
from engine.config import AmqpSection, Secret
from engine.errors import EXIT_FAILED, EXIT_NOTHING, Audience, InputError
from engine.jobs.keyspace_scan import Ears, Strange
from engine.jobs.migrate import Migration
from engine.jobs.recover import EXCHANGE, ROUTING_KEY, Rate, Recovery, video_routing_key
from engine.jobs.reindex import Reindex
from engine.servers.amqp.broker import Broker
from engine.servers.amqp.check import check
from engine.servers.amqp.parameters import Exchange
from engine.servers.redis.session import Session
from engine.wire import urls
from engine.wire.amqp import check_name
from engine.wire.amqp_url import parse_amqp_url

#: At most this many of the keys left alone are named on a terminal. The rest is counted. --json names all.
_NAMED_MAX = 20


class _Left:
    """Reports keys that a job leaves alone, as they are found."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self.count = 0

    def hear(self, strange: Strange) -> None:
        """Report one key."""
        self.count += 1
        if self._json:
            print_json({"left_alone": strange.key, "reason": strange.reason})
        elif self.count <= _NAMED_MAX:
            named = strange.reason if strange.key in strange.reason else f"{strange.key}: {strange.reason}"
            print(f"left alone: {named}", file=sys.stderr)

    def summary(self) -> None:
        """Print how many were not named."""
        if not self._json and self.count > _NAMED_MAX:
            print(f"left alone: {self.count - _NAMED_MAX} more; --json names all", file=sys.stderr)


def migrate(
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="All tenants, not only the site's or --vhost's.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Rename frames from old keys (frames:VHOST:CAMERA:RFC3339:SEQUENCE) to new ones, and list them in the journals.

    Lifetimes and nanoseconds stay the same. The site may be running. If stopped, run it again to continue.
    """
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    left = _Left(json=json)
    with interruptible(), target.session() as session, progress() as bar:
        ears = _ears(session, bar, "looking for old keys", left)
        job = Migration(session, target.prefix, None if all_tenants else target.vhost, ears, dry_run=dry_run)
        reports = job.run()
        standing = None if dry_run else job.left()
    left.summary()
    columns = ("found", "bytes", "moved", "duplicates", "expired", "conflicts", "deferred")
    _print_reports(reports, ("vhost", "camera"), columns[:2] if dry_run else columns, json=json)
    if not json and reports and standing is not None:
        print(
            f"{standing} old keys are left: conflicts, or too new" if standing else "no old keys are left",
            file=sys.stderr,
        )
    if json:
        print_json({"left_alone": left.count, "old_keys_left": standing, "dry_run": dry_run})
    if not reports:
        tenant = "" if all_tenants else f" of tenant {target.vhost!r}; --all-tenants looks for all"
        print(f"no old keys under {target.prefix!r}{tenant}", file=sys.stderr)
        raise typer.Exit(EXIT_NOTHING)
    # Old frames are left. Keys that are not frames do not count.
    if standing:
        raise typer.Exit(EXIT_FAILED)


def reindex(
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    json: AsJson = False,
) -> None:
    """Make a tenant's journals match its stored frames and video: add missing entries, remove stale ones.
    The site may be running. If stopped, run it again to continue.

    Access units that are added have no presentation times: their pictures are shown as they arrived.
    """
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    left = _Left(json=json)
    with interruptible(), target.session() as session, progress() as bar:
        ears = _ears(session, bar, "looking for frames", left)
        reports = Reindex(session, target.vhost, target.prefix, ears).run()
    left.summary()
    names, counts = ("camera",), ("frames", "added", "removed", "deferred")
    if any(report.video for report in reports):
        _print_reports(reports, (*names, "kind"), (*counts, "without_key"), json=json)
    else:
        _print_reports(reports, names, counts, json=json)
    if json:
        print_json({"left_alone": left.count})
    if not reports:
        raise typer.Exit(EXIT_NOTHING)


def recover(
    cameras: Annotated[list[str] | None, typer.Argument(help="Cameras. Default: all.", metavar="[CAM]...")] = None,
    config: SiteFile = None,
    redis: RedisUrl = None,
    key_tags: KeyTags = False,
    vhost: Vhost = None,
    prefix: Prefix = None,
    amqp: Annotated[str | None, typer.Option(help="The broker, if not the site's.", metavar="URL")] = None,
    exchange: Annotated[str, typer.Option(help="The exchange that gets the frames; it is declared.")] = EXCHANGE,
    exchange_type: Annotated[
        str, typer.Option(help="The exchange's type: topic, direct, fanout or headers.")
    ] = "topic",
    durable: Annotated[bool, typer.Option(help="Declare the exchange as durable or not.")] = True,
    routing_key: Annotated[str, typer.Option(help="The routing key of the messages.")] = ROUTING_KEY,
    start: Annotated[str | None, typer.Option(help="First time, such as -1h.")] = None,
    end: Annotated[str, typer.Option(help="Last time.")] = "now",
    video: Annotated[
        bool,
        typer.Option("--video", help="Also send stored video: each access unit, with .video behind the routing key."),
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Also send frames that an earlier run has sent.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove each frame that the broker has confirmed.")] = False,
    fps: Annotated[float | None, typer.Option(min=0.001, help="At most this many frames a second.")] = None,
    mbit: Annotated[float | None, typer.Option(min=0.001, help="At most this many megabits a second.")] = None,
    json: AsJson = False,
) -> None:
    """Send frames that were stored while the uplink was down to an AMQP exchange, oldest first, with payload and
    metadata headers. If stopped, run it again to continue with the next frame."""
    target = resolve(config, redis, vhost, prefix, key_tags=key_tags)
    audience.explain_to(Audience.RECOVER)
    section = _amqp_section(target, amqp)
    check_name(exchange, "--exchange")
    check_name(routing_key, "--routing-key")
    check_name(video_routing_key(routing_key), "--routing-key with .video behind it")
    where = Exchange(exchange, durable, exchange_type, mandatory=True)
    rate = Rate(fps, mbit * 125_000 if mbit else None)
    # "now" is one moment for all cameras, so that frames stored during the job are left out.
    until: str | int = time.time_ns() if end == "now" else end
    with interruptible(), target.store() as store, target.session() as session:
        chosen = cameras or list(store.cameras())
        link = Broker(section, where)
        with progress() as bar:
            task = bar.add_task("sending", total=None)
            job = Recovery(
                store,
                session,
                link,
                routing_key,
                rate,
                delete=delete,
                on_confirmed=lambda _: bar.advance(task),
                on_away=lambda reason: print(f"waiting for the broker: {urls.mask(reason)}", file=sys.stderr),
            )
            total = sum(1 for _ in job.pending(chosen, start, until, again=again, video=video))
            if not total:
                print("no frames to send", file=sys.stderr)
                raise typer.Exit(EXIT_NOTHING)
            bar.update(task, total=total)
            check(section, where)
            try:
                report = job.run(job.pending(chosen, start, until, again=again, video=video))
            finally:
                link.close()
    if json:
        print_json(report)
    else:
        parts = [f"{report.confirmed:,} frames sent and confirmed, {report.bytes / 1e6:,.1f} MB"]
        parts += [f"{report.units:,} of them access units of video"] if report.units else []
        parts += [f"{report.deleted:,} removed"] if delete else []
        parts += [f"{report.gone:,} expired before they could be sent"] if report.gone else []
        print("; ".join(parts))
    if not report.confirmed:
        raise typer.Exit(EXIT_NOTHING)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends a job as Ctrl-C does. Finished work is kept; the next run does the rest."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        print("stopped; run it again to continue", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _ears(session: Session, bar: Progress, title: str, left: _Left) -> Ears:
    task: TaskID = bar.add_task(title, total=session.scan_steps())
    return Ears(step=lambda: bar.advance(task), strange=left.hear)


def _amqp_section(target: Target, url: str | None) -> AmqpSection:
    """The broker named by the option, the environment or the site file. Raises InputError, ConfigError."""
    section = target.config.amqp if target.config else AmqpSection()
    chosen = url or os.environ.get("AMQP_URL") or str(section.amqp_url)
    if not chosen and section.amqp_urls:
        return section
    if not chosen:
        raise InputError("no broker: give --amqp or AMQP_URL, or set amqp.amqp_url in the site file")
    parse_amqp_url(chosen, "--amqp" if url else "AMQP_URL" if chosen != section.amqp_url else "amqp.amqp_url")
    return msgspec.structs.replace(section, amqp_url=Secret(chosen), amqp_urls=())


def _print_reports(reports: list[Any], names: tuple[str, ...], columns: tuple[str, ...], *, json: bool) -> None:
    """Print one JSON line per camera, or a table with sums."""
    if json:
        for report in reports:
            print_json(report)
        return
    table = Table(box=None, header_style="dim")
    for name in (*names, *columns):
        table.add_column(name, justify="left" if name in names else "right")
    for report in reports:
        table.add_row(
            *(getattr(report, name) for name in names), *(f"{getattr(report, column):,}" for column in columns)
        )
    if len(reports) > 1:
        sums = (f"{sum(getattr(report, column) for report in reports):,}" for column in columns)
        table.add_row("all", *("" for _ in names[1:]), *sums)
    if reports:
        console().print(table)
