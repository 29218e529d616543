"""Output of the reading commands: tables for people, JSON lines for programs, files that are never partial."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from engine.errors import InputError

#: Columns of output that does not go to a terminal.
_WIDTH = 240


def console(*, stderr: bool = False) -> Console:
    """A console for plain text: with width and colours of a terminal, or _WIDTH columns elsewhere."""
    made = Console(markup=False, emoji=False, highlight=False, stderr=stderr)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _WIDTH
    return made


def print_json(value: Any) -> None:
    """Print one JSON object on a line and flush it, because a reader may be waiting for it."""
    # As bytes, because JSON is UTF-8 whatever the terminal's encoding is.
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def progress() -> Progress:
    """A progress bar on standard error; none if that is not a terminal."""
    target = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        console=target,
        disable=not target.is_terminal,
        transient=True,
    )


def check_output(path: Path, *, force: bool) -> None:
    """Raises InputError if ``path`` exists and may not be overwritten, or if its directory does not exist."""
    if path.exists() and not force:
        raise InputError(f"{path} exists; give another name, or --force to write over it")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no directory")


@contextmanager
def whole_file(path: Path, *, force: bool) -> Iterator[Path]:
    """A temporary name to write to. The file is renamed to ``path`` at the end; after an error it is removed.

    Raises InputError if ``path`` exists already, if the disk is full, or if the directory cannot be written.
    """
    check_output(path, force=force)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; nothing of it is left") from None
    finally:
        partial.unlink(missing_ok=True)
