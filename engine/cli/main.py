"""Entry point of ``edge-video``: prepares the process, runs a command, turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import setproctitle

#: Read by libraries when they are loaded: one core serves many processes, so no library makes threads of its own, and
#: FFmpeg, whose messages may carry a camera's credentials, says nothing. Looking a host up cannot be interrupted, so it
#: ends before a process counts as hung (by default it takes 10 s for each name server that is silent).
_LIBRARY_ENVIRONMENT = {
    "RES_OPTIONS": "timeout:2 attempts:2",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENCV_LOG_LEVEL": "OFF",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
}
#: Variables whose values are secrets as they stand.
_SECRET_ENVIRONMENT = ("REDIS_PASSWORD", "REDIS_PUBLISHER_PASSWORD")


def main() -> None:
    """Run the command line of this process."""
    for name, value in _LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if any("://" in argument for argument in sys.argv):
        # An address on the command line may carry a password; before the libraries are loaded, which takes a while.
        setproctitle.setproctitle("edge-video")
    from engine.cli.app import app
    from engine.errors import EXIT_FAILED, EngineError
    from engine.wire.urls import mask, secrets_in

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
    except Exception:
        # A defect of ours: its whole story is wanted, but for the secrets that this process was given.
        given = [*sys.argv, *os.environ.values()]
        secrets = {secret for text in given if "://" in text for secret in secrets_in(text)}
        secrets |= {os.environ[name] for name in _SECRET_ENVIRONMENT if os.environ.get(name)}
        print(mask(traceback.format_exc(), secrets), file=sys.stderr, end="")
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
