"""A camera that sends an endless video stream over HTTP: the bytes of a file, over and over, at the file's pace."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tests.servers.wait import free_port

#: Pieces that a second of stream is sent in.
_PIECES = 10


class StreamCamera:
    """Serves what ``content`` returns at the time a connection begins a new round: bytes that last ``seconds``."""

    def __init__(self, content: Callable[[], bytes], seconds: float) -> None:
        self.port = free_port()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.end_headers()
                with suppress(OSError):
                    while camera.running:
                        camera._round(self.wfile.write, content(), seconds)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.running = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def _round(self, send: Callable[[bytes], object], data: bytes, seconds: float) -> None:
        pieces = int(seconds * _PIECES)
        size = -(-len(data) // pieces)
        due = time.monotonic()
        for first in range(0, len(data), size):
            send(data[first : first + size])
            due += 1 / _PIECES
            time.sleep(max(due - time.monotonic(), 0))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)


def clip(directory: Path, form: str, codec: str, size: str = "320x240", fps: int = 10, seconds: int = 2) -> bytes:
    """A moving test picture as ffmpeg encodes it: ``form`` is the container (mpegts; h264 is a bare elementary stream,
    which has no timestamps), a key frame every half second."""
    path = directory / f"{codec}-{size}.{form}"
    if not path.exists():
        arguments = ["-f", "lavfi", "-i", f"testsrc=size={size}:rate={fps}:duration={seconds}"]
        arguments += ["-c:v", codec, "-g", str(fps // 2), "-bf", "0", "-pix_fmt", "yuv420p", "-f", form]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, str(path)], check=True, timeout=60)
    return path.read_bytes()
