"""An RTSP camera that streams H.264 or MJPEG in real time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import quote

from tests.servers.process import Child, Server
from tests.servers.wait import accepts_tcp, free_port

#: GStreamer's bindings are packages of the distribution, which only its own Python can import.
_SYSTEM_PYTHON = "/usr/bin/python3"
_SCRIPT = Path(__file__).with_name("rtsp_server_gst.py")

_START_SECONDS_MAX = 30.0


class RtspCamera(Server):
    """GStreamer's RTSP server with one stream, TCP only; every client gets it from its first frame on.

    `clip` is an MP4 with H.264: sent as it is with codec "h264" (`fps` and `size` are then the clip's), or
    decoded and encoded again with "mjpeg". Without one there is a generated picture, which never ends. `loop`
    begins the clip again at its end, which otherwise ends the stream. With `record`, every JPEG handed to the
    RTP payloader is also a file there, numbered in order, across clients and restarts.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clip: Path | None = None,
        codec: Literal["h264", "mjpeg"] = "h264",
        path: str = "/cam",
        fps: int = 10,
        size: tuple[int, int] = (768, 432),
        loop: bool = False,
        user: str | None = None,
        password: str | None = None,
        digest: bool = False,
        record: Path | None = None,
        port: int | None = None,
    ) -> None:
        if record is not None and codec != "mjpeg":
            raise ValueError("only MJPEG can be recorded")
        if any(side % 8 or side > 2040 for side in size):
            raise ValueError(f"RTP's JPEG knows sides up to 2040 in steps of 8, not {size}")
        self.directory = directory
        self.port = port or free_port()
        self.path = path
        self.user = user
        self.password = password
        self.record = record
        self._arguments = [
            f"--port={self.port}",
            f"--path={path}",
            f"--codec={codec}",
            f"--fps={fps}",
            f"--width={size[0]}",
            f"--height={size[1]}",
        ]
        if clip is not None:
            self._arguments.append(f"--clip={clip}")
        if loop:
            self._arguments.append("--loop")
        if record is not None:
            self._arguments.append(f"--record={record}")
        if user is not None:
            self._arguments += [f"--user={user}", f"--password={password or ''}"]
        if digest:
            self._arguments.append("--digest")
        self._child = Child("RTSP camera", directory / "rtsp.log")

    @property
    def url(self) -> str:
        login = ""
        if self.user is not None:
            login = f"{quote(self.user, safe='')}:{quote(self.password or '', safe='')}@"
        return f"rtsp://{login}127.0.0.1:{self.port}{self.path}"

    def recorded(self) -> list[bytes]:
        """The JPEGs that the payloader has been handed so far."""
        assert self.record is not None, "this camera does not record"
        return [path.read_bytes() for path in sorted(self.record.glob("*.jpg"))]

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.record is not None:
            self.record.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [_SYSTEM_PYTHON, _SCRIPT, *self._arguments]
        self._child.start(argv, lambda: accepts_tcp(self.port), _START_SECONDS_MAX)
