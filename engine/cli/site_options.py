"""Options of the commands that run a site or look at it on its own machine; loading of its site file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from engine.config import Config, load
from engine.runtime.limits import allow_files, files_needed

SiteFile = Annotated[Path, typer.Option("--config", "-c", help="The site file (TOML).", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT_SITE_FILE = Path("site.toml")


def load_site(path: Path) -> Config:
    """Load a site file and allow enough open files to look at all its cameras. Raises InputError."""
    config = load(path, os.environ)
    allow_files(files_needed(config), f"site {config.site.name}")
    return config
