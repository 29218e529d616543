"""Many sites as a table: a line for each, with the reason below where something is wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from engine.cli.columns import Column, Row, layout
from engine.fleet.answers import SiteStatus
from engine.fleet.registry import RegisteredSite

_STYLES = {"ok": "green", "degraded": "yellow", "down": "red", "away": "red"}
#: Most columns of the terminal for a site's name if not everything fits.
_NAME_MAX = 20
_STATUS_COLUMNS = (
    Column("site"),
    Column("state", right=False),
    Column("cameras"),
    Column("frames/s", 1),
    Column("drops"),
    Column("lag s", 2),
    Column("version", 3),
    Column("age", 4),
)
_LIST_COLUMNS = (
    Column("site"),
    Column("vhost", right=False),
    Column("prefix", 3, right=False),
    Column("cameras"),
    Column("version", 2),
    Column("age", 4),
    Column("seen"),
    Column("host", 1, right=False),
)


def status_lines(sites: Sequence[SiteStatus], width: int) -> list[Text]:
    """The states of sites: a summary, a header, the sites."""
    rows = [
        Row(
            (
                site.name,
                site.state,
                f"{site.cameras_active}/{site.cameras}" if site.state != "away" else "-",
                f"{site.fps:,.1f}" if site.state != "away" else "-",
                f"{site.dropped:,}" if site.state != "away" else "-",
                "-" if site.lag_seconds is None else f"{site.lag_seconds:,.1f}",
                site.version or "-",
                _age(site.age_seconds),
            ),
            below=site.reason,
            style=_STYLES[site.state],
        )
        for site in sites
    ]
    well = sum(site.state == "ok" for site in sites)
    active, cameras = sum(site.cameras_active for site in sites), sum(site.cameras for site in sites)
    summary = Text(f"{well} of {len(sites)} sites are well, {active} of {cameras} cameras are active")
    return [summary, *(line for block in layout(_STATUS_COLUMNS, rows, width, _NAME_MAX) for line in block)]


def list_lines(sites: Sequence[RegisteredSite], width: int) -> list[Text]:
    """The sites of a registry: a header, the sites, the address of each API below."""
    now = time.time()
    rows = [
        Row(
            (
                site.entry.site,
                site.vhost,
                site.entry.prefix,
                str(site.entry.cameras),
                site.entry.version,
                _age(_since(site.entry.since, now)),
                f"{max(_since(site.entry.seen, now), 0):.0f} s ago",
                site.entry.host,
            ),
            below=site.entry.url,
        )
        for site in sites
    ]
    return [line for block in layout(_LIST_COLUMNS, rows, width, _NAME_MAX) for line in block]


def _since(text: str, now: float) -> float:
    """Seconds since a time in RFC 3339; 0 for another text, which another version may have written."""
    try:
        return now - datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _age(seconds: float) -> str:
    """A time span in two units at most."""
    if seconds <= 0:
        return "-"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours >= 48:
        return f"{hours // 24}d"
    return f"{hours}h{minutes % 60:02}m" if hours else f"{minutes}m" if minutes else f"{seconds:.0f}s"
