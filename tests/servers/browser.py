"""A browser that opens a page and reports what it saw: Chromium without a screen, and an HTTP server for its files.

with served(directory) as pages:          # GET with ranges
    pages.ask("page.html", directory)     # what the page's script posts to /answer
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers.process import Child

COMMAND = "chromium-headless-shell"
_ANSWER_SECONDS_MAX = 60.0
_TYPES = {".html": "text/html; charset=utf-8", ".mp4": "video/mp4", ".js": "text/javascript"}


class Pages:
    """The files of a directory over HTTP, and the answers of pages that a browser opened."""

    def __init__(self, port: int) -> None:
        self.port = port
        #: Ranges that were asked for.
        self.ranges: list[str] = []
        self._answers: list[Any] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def answered(self, answer: Any) -> None:
        self._answers.append(answer)

    def ask(self, name: str, directory: Path) -> Any:
        """Open a page in a new browser, whose files go to ``directory``; returns the JSON that its script posts to
        ``/answer``."""
        self._answers.clear()
        options = ["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--autoplay-policy=no-user-gesture-required"]
        browser = Child("browser", directory / "browser.log")
        argv = [COMMAND, *options, f"--user-data-dir={directory / 'profile'}", self.url(name)]
        try:
            browser.start(argv, lambda: bool(self._answers), _ANSWER_SECONDS_MAX)
        finally:
            browser.kill()
        return self._answers[0]


@contextlib.contextmanager
def served(directory: Path) -> Iterator[Pages]:
    """Serves the files of ``directory`` on a port of 127.0.0.1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    pages = Pages(server.server_address[1])
    server.RequestHandlerClass = type("Handler", (_Handler,), {"directory": directory, "pages": pages})
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield pages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory: Path
    pages: Pages

    def do_GET(self) -> None:
        path = self.directory / self.path.rpartition("/")[2]
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        first, last = 0, len(data) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            self.pages.ranges.append(asked[0])
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", _TYPES[path.suffix])
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        # A browser leaves as soon as it has seen enough.
        with contextlib.suppress(OSError):
            self.wfile.write(data[first : last + 1])

    def do_POST(self) -> None:
        self.pages.answered(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
