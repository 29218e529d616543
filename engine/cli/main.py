"""Entry point of ``edge-video``: prepares the process, runs a command, turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys

#: Read by libraries when they are loaded: one core serves many processes, so no library makes threads of its own, and
#: FFmpeg, whose messages may carry a camera's credentials, says nothing.
_LIBRARY_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENCV_LOG_LEVEL": "OFF",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
}


def main() -> None:
    """Run the command line of this process."""
    for name, value in _LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from engine.cli.app import app
    from engine.errors import EXIT_FAILED, EngineError
    from engine.wire.urls import mask

    try:
        app()
    except EngineError as error:
        print(f"edge-video: {mask(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        # Standard output is a full disk, or has gone.
        print(f"edge-video: {error.strerror or error}", file=sys.stderr)
        # What is still buffered would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
