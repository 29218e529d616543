"""Entry point of ``edge-video``: prepares the process, runs a command, turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from typing import NoReturn

from engine.runtime.streams import open_missing

#: Libraries read these when they are loaded. Many processes share a core, so no library starts threads of its own.
#: FFmpeg logs nothing, because its messages may contain a camera's credentials. A host lookup cannot be interrupted, so
#: it ends before a process counts as hung (by default it takes 10 s for each silent name server).
_LIBRARY_ENVIRONMENT = {
    "RES_OPTIONS": "timeout:2 attempts:2",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENCV_LOG_LEVEL": "OFF",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
}


def main() -> None:
    """Run the command line of this process."""
    open_missing()
    for name, value in _LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if any("://" in argument for argument in sys.argv):
        import setproctitle

        # An address on the command line may have a password. Hide it before loading libraries, which takes a while.
        setproctitle.setproctitle("edge-video")
    _show_any_text()
    from engine.cli.audience import explained
    from engine.errors import EXIT_FAILED, EngineError
    from engine.runtime.limits import FILES_MIN, allow_files
    from engine.wire.urls import mask, secrets_in

    try:
        # Before loading libraries, because that opens files.
        allow_files(FILES_MIN, "edge-video")
        from engine.cli.app import app

        app()
    except EngineError as error:
        print(f"edge-video: {mask(explained(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if lack := _lack_of_memory(error):
            _end_without_memory(lack)
        # Standard output is on a full disk, or is gone.
        print(f"edge-video: {error.strerror or error}", file=sys.stderr)
        # Output that is still buffered would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if lack := _lack_of_memory(error):
            _end_without_memory(lack)
        # A defect of the engine: show the whole traceback, without the secrets that this process was given.
        from engine.config import secrets_of

        secrets = secrets_of(os.environ).union(*(secrets_in(text) for text in sys.argv if "://" in text))
        print(mask(traceback.format_exc(), secrets), file=sys.stderr, end="")
        sys.exit(EXIT_FAILED)


def _end_without_memory(lack: str) -> NoReturn:
    from engine.errors import EXIT_INPUT

    print(f"edge-video: too little memory ({lack}); raise the limit (ulimit -v)", file=sys.stderr)
    sys.exit(EXIT_INPUT)


def _lack_of_memory(error: Exception) -> str:
    """What failed for lack of memory, in this process or a library that it loads; empty for other errors."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "none is left"
    lines = str(error).splitlines() if isinstance(error, ImportError) else []
    return next((line for line in lines if "failed to map segment" in line or "annot allocate memory" in line), "")


def _show_any_text() -> None:
    """Show characters that the locale lacks with escapes, because writing them would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
