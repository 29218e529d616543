"""What the reading commands print and write: tables for people, JSON lines for programs, files that are whole."""

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

#: Columns of output that no terminal bounds.
_WIDTH = 240


def console(*, stderr: bool = False) -> Console:
    """Plain text to standard output, with a terminal's width and colours where it is one, else as wide as it takes."""
    made = Console(markup=False, emoji=False, highlight=False, stderr=stderr)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _WIDTH
    return made


def print_json(value: Any) -> None:
    """One JSON object on a line of its own, at once: what reads us may be waiting for it."""
    # Bytes, because JSON is UTF-8 whatever the terminal's encoding is.
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def progress() -> Progress:
    """A progress bar on standard error; nothing where that is no terminal."""
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
    """Raises InputError where a file exists that may not be written over, or its directory does not."""
    if path.exists() and not force:
        raise InputError(f"{path} exists; give another name, or --force to write over it")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no directory")


@contextmanager
def whole_file(path: Path, *, force: bool) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` when all is written; what is partial is removed.

    Raises InputError where ``path`` exists already, and for a full disk or a directory that cannot be written.
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
