"""RTSP cameras that send the access units of clips as they are: any number of them in one
process, over TCP, or over UDP without audio."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from tests.servers.clips import Stream
from tests.servers.process import Child, Server
from tests.servers.wait import accepts_tcp, free_port

_ROOT = Path(__file__).parents[2]
_START_SECONDS_MAX = 30.0


class Mount(NamedTuple):
    """What one camera sends.

    Every client gets the stream from the unit `begin` on, in real time. Unless it loops, the camera ends the connection
    behind the last unit. Times go on from one loop to the next. With `audio` an audio track stands first in the SDP.
    Key frames of a connection's first `keyless_seconds` are left out.
    """

    stream: Stream
    begin: int = 0
    loop: bool = True
    audio: bool = False
    #: Parameter sets in the SDP.
    sets_in_sdp: bool = True
    #: RTCP sender reports.
    reports: bool = True
    keyless_seconds: float = 0.0
    #: By how much its clock, which the reports tell, is ahead of ours.
    ahead_seconds: float = 0.0
    #: Units are sent late by anything up to this.
    jitter_seconds: float = 0.0
    #: The rate at which a unit's packets are sent, while all other cameras wait; 0: at once.
    mbit_per_second: float = 0.0
    #: A file that gets a line for each unit: the monotonic time at which its last byte was sent, in nanoseconds, and by
    #: the camera's clock when it was captured (for B-frames: is shown), in nanoseconds since the epoch.
    sent: Path | None = None


class RtspVideo(Server):
    """The cameras `mounts` by their paths, which begin with a slash. Nothing is encoded while they send."""

    def __init__(self, directory: Path, mounts: Mapping[str, Mount], port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.mounts = dict(mounts)
        self._child = Child("RTSP cameras", directory / "rtsp-video.log")

    @classmethod
    def alike(cls, directory: Path, stream: Stream, cameras: int, port: int | None = None) -> Self:
        """`cameras` cameras `/cam0`, `/cam1`, ... of the same stream, of which each begins at a key frame of its
        own."""
        keys = stream.keyframes
        return cls(directory, {f"/cam{n}": Mount(stream, keys[n * len(keys) // cameras]) for n in range(cameras)}, port)

    def url(self, path: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}{path}"

    @property
    def urls(self) -> list[str]:
        return [self.url(path) for path in self.mounts]

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        program = self.directory / "rtsp-video.pickle"
        program.write_bytes(pickle.dumps(self.mounts))
        argv: list[str | Path] = [sys.executable, "-m", "tests.servers.rtsp_video_server", str(self.port), program]
        env = {**os.environ, "PYTHONPATH": str(_ROOT)}
        self._child.start(argv, lambda: accepts_tcp(self.port), _START_SECONDS_MAX, env)
