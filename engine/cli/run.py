"""``edge-video run`` runs a whole site; ``clean`` removes what a killed site left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from engine.cli.output import print_json
from engine.cli.show import LiveTable
from engine.cli.site_options import DEFAULT_SITE_FILE, AsJson, SiteFile, load_site
from engine.config import Config
from engine.runtime.child import keep_private
from engine.runtime.embedded_servers import EmbeddedServers
from engine.runtime.lock import SiteLock
from engine.runtime.logs import log_file, mask_standard_error, open_log
from engine.runtime.notify import Notifier
from engine.runtime.roles import SUPERVISOR
from engine.runtime.supervisor import Supervisor
from engine.runtime.title import set_title
from engine.shm import site


def run(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
    """Run all processes of a site until SIGTERM or Ctrl-C. Shows a live table on a terminal, else log lines."""
    site_config = load_site(config)
    keep_private()
    mask_standard_error(site_config)
    set_title(SUPERVISOR.name, site_config.site.name)
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
    with LiveTable(site_config, footer=_footer(site_config, file)) as table:
        code = supervisor.run(on_tick=table.refresh)
    supervisor.close()
    raise typer.Exit(code)


def _footer(config: Config, file: Path) -> str:
    """The line below the live table: where the log is, where a browser finds the site."""
    web = config.web
    url = f"{web.address.url(tls=bool(web.tls_certificate_file))}   " if web.listen else ""
    return f"{url}log: {file}   Ctrl-C drains and stops"


def clean(config: SiteFile = DEFAULT_SITE_FILE, json: AsJson = False) -> None:
    """Remove what a killed site left: rings in shared memory, the embedded server. Their frames are lost. To keep them,
    start the site again instead."""
    site_config = load_site(config)
    lock = SiteLock(site_config, exclusive=True)
    try:
        found = site.leftovers(site_config)
        pids, kept = EmbeddedServers(site_config).clean()
        site.remove(site.SitePaths.of(site_config))
    finally:
        lock.release()
    held = sum(leftover.held for leftover in found)
    if json:
        print_json({"rings": len(found), "frames": held, "server_pids": pids, "server_frames": kept})
        return
    done = [f"removed {len(found)} rings that held {held} frames"] if found else []
    if pids:
        servers = "the embedded server" if len(pids) == 1 else f"{len(pids)} embedded servers"
        ended = f"{servers} (pid {', '.join(map(str, pids))})"
        done.append(f"ended {ended}, which held {kept if kept >= 0 else 'unknown'} frames")
    print("; ".join(done) or "nothing to remove")
