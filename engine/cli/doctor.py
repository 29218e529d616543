"""``edge-video doctor``: finds what is wrong with a site's servers, machine and cameras, and what to do about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.cli.output import console, print_json
from engine.config import load
from engine.doctor.examine import examine
from engine.doctor.findings import Finding, exit_code
from engine.runtime.title import set_title

_STYLES = {"ok": "green", "information": "cyan", "warning": "yellow", "broken": "bold red"}
_TITLES = {"redis": "Redis", "rabbitmq": "RabbitMQ", "machine": "This machine", "cameras": "Cameras"}
_SUMMARY = ("all good", "there are warnings", "something is broken")


def doctor(
    config: Annotated[Path, typer.Option("--config", "-c", help="The site file (TOML).", metavar="FILE")] = Path(
        "site.toml"
    ),
    cameras: Annotated[bool, typer.Option(help="Also check the cameras.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Check a site's servers, machine and cameras. Shows what was found, what is good, and what to do.

    Exit code 0: all good. 1: warnings. 2: something is broken. Starts and changes nothing, except for one probe key in
    Redis that expires at once.
    """
    site = load(config, os.environ)
    set_title("doctor", site.site.name)
    examined = examine(site, cameras=cameras)
    code = exit_code(examined.findings)
    if json:
        print_json(
            {"site": site.site.name, "running": examined.running, "exit_code": code, "findings": examined.findings}
        )
    else:
        print_findings(console(), examined.findings)
        state = "running" if examined.running else "not running"
        console().print(f"site {site.site.name}, {state}: {_SUMMARY[code]}", style="bold")
    raise typer.Exit(code)


def print_findings(target: Console, findings: list[Finding]) -> None:
    """Print one table per part. Each row has the check, its verdict and what was found; if the verdict is not ok, also
    what is good and what to do."""
    for part, title in _TITLES.items():
        rows = [finding for finding in findings if finding.part == part]
        if not rows:
            continue
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name in ("check", "verdict", "found"):
            table.add_column(name, no_wrap=name != "found", overflow="fold")
        for row in rows:
            table.add_row(f"  {row.check}", Text(row.verdict, style=_STYLES[row.verdict]), _story(row))
        target.print(title, style="bold")
        target.print(table)


def _story(row: Finding) -> Text:
    story = Text(row.found)
    if row.verdict != "ok":
        if row.good:
            story.append(f"\ngood: {row.good}", style="dim")
        if row.todo:
            story.append(f"\ndo: {row.todo}")
    return story
