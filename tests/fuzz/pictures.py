"""Targets that read pictures: the walk over a JPEG's headers, the gate that packets pass, a camera's stream, and a body
of HTTP."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from engine.config import Camera, Url
from engine.errors import CameraUnavailable, WireError
from engine.sources.jpeg_gate import JpegGate
from engine.sources.source import CapturedFrame
from engine.sources.video import VideoSource
from engine.wire import jpeg
from engine.wire.jpeg import STANDARD_HUFFMAN_TABLES
from tests.stages.http_bodies import Lender, Pieces, outcomes

#: Between the packets of one input.
PACKET = b"\n--packet\n"
#: Frames that are read of a stream.
_GRABS_MAX = 12


def header_walk(data: bytes) -> None:
    """A JPEG is whole, with its size, or refused; what a part of it says is what all of it says."""
    width, height, encoding = jpeg.describe(data)
    assert encoding == ("jpeg" if data[:2] == jpeg.SOI else "unknown")
    try:
        info = jpeg.inspect(data)
    except WireError:
        return
    assert data[info.end - 2 : info.end] == jpeg.EOI
    assert len(data) - 64 <= info.end <= len(data)
    assert data[info.scan : info.scan + 2] == b"\xff\xda"
    assert info.width
    assert info.height
    assert width
    assert height
    assert sum(map(len, jpeg.comments(data))) < len(data)


def packets(data: bytes) -> None:
    """What passes the gate is whole and of the size announced, whatever passed before it."""
    gate = JpegGate()
    for packet in data.split(PACKET):
        shown = _outcome(gate, packet)
        assert shown == _outcome(JpegGate(), packet), "what the gate remembers changes what it says"
        if shown is None:
            continue
        picture, width, height = shown
        _check(CapturedFrame((picture,), width, height))


def stream(data: bytes) -> None:
    """A camera's bytes, read as FFmpeg reads them: frames that are whole, or a camera that is away."""
    if not data:
        return
    with tempfile.TemporaryDirectory(prefix="edge-video-t-fuzz-", dir="/dev/shm") as directory:
        path = Path(directory) / "stream.mjpeg"
        path.write_bytes(data)
        with contextlib.suppress(CameraUnavailable):
            camera = VideoSource(Camera(id="cam1", url=Url(str(path)), stall_seconds=1, open_timeout_seconds=1))
            camera._pacer = None
            try:
                for number in range(1, _GRABS_MAX + 1):
                    if not camera.grab():
                        break
                    with contextlib.suppress(WireError):
                        for stamp in camera.pictures(1_731_024_000_000_000_000 + number):
                            _check(camera.retrieve(stamp, number))
            finally:
                camera.close()


def multipart(data: bytes) -> None:
    """What comes of a multipart body is part of it, and does not depend on where reads end. The first bytes are the
    sizes of reads."""
    count = data[0] % 5 if data else 0
    sizes, body = [size + 1 for size in data[1 : count + 1]], data[count + 1 :]
    found, reason = outcomes(Pieces(body, sizes, direct=count % 2 == 0), Lender(count))
    assert found == outcomes(Pieces(body))[0]
    assert reason
    for picture in found:
        if isinstance(picture, bytes):
            info = jpeg.inspect(picture)
            assert picture in body or STANDARD_HUFFMAN_TABLES in picture[: info.scan]


def _check(frame: CapturedFrame) -> None:
    picture = b"".join(frame.parts)
    info = jpeg.inspect(picture)
    assert (info.width, info.height) == (frame.width, frame.height)
    assert info.has_huffman_tables
    # An end of image may stand among the last bytes twice: what lies between is no part of the picture.
    assert picture.endswith(jpeg.EOI)


def _outcome(gate: JpegGate, data: bytes) -> tuple[bytes, int, int] | None:
    try:
        frame = gate.check(memoryview(data))
    except WireError:
        return None
    return b"".join(frame.parts), frame.width, frame.height
