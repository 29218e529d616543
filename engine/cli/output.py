"""Output of the reading commands: tables for people, JSON lines for programs, files that are never partial."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from engine.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

#: Columns of output that does not go to a terminal.
_WIDTH = 240
#: Signals that end a command, and what they do by default.
_ENDING = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}

#: Files that this process has not completed.
_partials: set[Path] = set()


def console(*, stderr: bool = False) -> Console:
    """A console for plain text: with width and colours of a terminal, or _WIDTH columns elsewhere."""
    from rich.console import Console

    made = Console(markup=False, emoji=False, highlight=False, stderr=stderr)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _WIDTH
    return made


def print_header(line: str) -> None:
    """Print a header's line; dim on a terminal."""
    print(_dim(line))


def cells(text: str) -> int:
    """The columns of the terminal that a text takes."""
    if text.isascii():
        return len(text)
    # Its tables of characters are loaded for names that need them.
    from rich.cells import cell_len

    return cell_len(text)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    """Print rows in aligned columns below a header. The columns named in ``right`` are aligned to the right."""
    widths = [max(map(cells, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            " " * (width - cells(cell)) + cell if name in right else cell + " " * (width - cells(cell))
            for name, cell, width in zip(header, row, widths, strict=True)
        )
        for row in (header, *rows)
    ]
    print_header(lines[0].rstrip())
    for line in lines[1:]:
        print(line.rstrip())


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one on each line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{_dim(f'{name:{width}}')}  {value}")


def _dim(text: str) -> str:
    """``text`` as a terminal shows it dim. Rich would do this, too; its import would take longer than most queries."""
    plain = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR")
    return text if plain else f"\x1b[2m{text}\x1b[0m"


def print_json(value: Any) -> None:
    """Print one JSON object on a line and flush it, because a reader may be waiting for it."""
    import msgspec

    # As bytes, because JSON is UTF-8 whatever the terminal's encoding is.
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def progress() -> Progress:
    """A progress bar on standard error; none if that is not a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

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
    """A temporary name to write to. The file is renamed to ``path`` at the end; after an error, or a signal that ends
    the command, it is removed.

    Raises InputError if ``path`` exists already, if the disk is full, or if the directory cannot be written.
    """
    check_output(path, force=force)
    clean_up_at_signals()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    _partials.add(partial)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; nothing of it is left") from None
    finally:
        partial.unlink(missing_ok=True)
        _partials.discard(partial)


def clean_up_at_signals() -> None:
    """From now on SIGTERM, SIGHUP and Ctrl-C remove partial files before they end the command. A signal that is
    ignored, or handled otherwise, stays so. Does nothing outside the main thread, which Python's handlers run in."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number, default in _ENDING.items():
        if signal.getsignal(number) == default:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    # The files are removed here: the exception may interrupt the code that would remove them, at any instruction.
    for partial in tuple(_partials):
        with suppress(OSError):
            partial.unlink()
    if number == signal.SIGINT:
        signal.default_int_handler(number, frame)
    raise SystemExit(128 + number)
