"""``edge-video`` with a fault of the kind that nobody expects: an exception whose text carries what was at hand.

``python -m tests.system.crashing WHERE …``; WHERE is "capture", "thread" or "command", which crashes with its whole
environment before anything knows a site.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, NoReturn


def main() -> None:
    where = sys.argv.pop(1)
    if where == "capture":
        from engine.sources import http_jpeg as source

        def crash(camera: Any, _: Any) -> NoReturn:
            raise RuntimeError(f"cannot make sense of {camera.url!s}")

        source.open_http_jpeg = crash
    elif where == "command":
        from engine.cli import look

        def fall(path: Any) -> NoReturn:
            raise RuntimeError(f"cannot make sense of {path} in {dict(os.environ)}")

        look.load_site = fall
    else:
        from engine.stages.writer import store

        real = store.connect

        def fail(address: Any, timeout_seconds: float) -> Any:
            # The supervisor takes its leases in its main thread.
            if threading.current_thread() is threading.main_thread():
                return real(address, timeout_seconds)
            raise RuntimeError(f"cannot connect with {address.password} within {timeout_seconds}")

        store.connect = fail
    from engine.cli.main import main as edge_video

    edge_video()


if __name__ == "__main__":
    main()
