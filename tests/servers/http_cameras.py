"""JPEG cameras that answer over HTTP multipart: any number of them in one process, whose CPU counts apart."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.servers.process import Child, Server
from tests.servers.wait import accepts_tcp, free_port

_ROOT = Path(__file__).parents[2]
_START_SECONDS_MAX = 30.0


class HttpCameras(Server):
    """`cameras` cameras `/cam0`, `/cam1`, ... that send pictures of about `kilobytes`, `fps` a second each.

    Cameras begin at different moments of a frame interval, as cameras do. With `whole` a part has a Content-Length,
    otherwise only the boundary ends it.
    """

    def __init__(
        self, directory: Path, cameras: int, *, fps: float, kilobytes: int, whole: bool = True, port: int | None = None
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.cameras = cameras
        self._arguments = [str(fps), str(kilobytes), "length" if whole else "boundary"]
        self._child = Child("HTTP cameras", directory / "http-cameras.log")

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self.port}/cam{number}" for number in range(self.cameras)]

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "tests.servers.http_cameras_server", str(self.port), *self._arguments]
        self._child.start(
            argv, lambda: accepts_tcp(self.port), _START_SECONDS_MAX, {**os.environ, "PYTHONPATH": str(_ROOT)}
        )
