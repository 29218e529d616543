"""Targets that read video: packets of H.264 and H.265, and files of them, which are decoded."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path

import av

from engine.config import Camera, Url
from engine.errors import CameraUnavailable, WireError
from engine.sources.video import VideoSource
from engine.wire import jpeg
from engine.wire.access_unit import AccessUnit, AccessUnits
from tests.fuzz.pictures import PACKET
from tests.stages import field_pictures
from tests.stages.video_clips import clip, joined, nal_type, nal_units, packets

#: Packets that are read of a file.
_GRABS_MAX = 24
#: Parameter sets that a key frame has.
_NEEDED = {"h264": {7, 8}, "h265": {32, 33, 34}}


def access_units(data: bytes) -> None:
    """A packet is an access unit that is sound, or one that is not, or none. A sound key frame has its parameter sets:
    who has read nothing else takes it for one, too, and of the same size. The first byte says the codec; then come the
    description and the packets."""
    encoding = "h265" if data[:1] == b"5" else "h264"
    description, *rest = data[1:].split(PACKET)
    units = AccessUnits(encoding, description)
    for number, packet in enumerate(rest):
        unit = units.read(memoryview(packet), flagged=bool(number % 3))
        if unit is None or not unit.sound:
            assert unit is None or not unit.keyframe
            continue
        whole = joined(unit)
        assert whole.lstrip(b"\0").startswith(b"\1")
        assert units.has_lengths or len(whole) >= len(packet)
        if unit.keyframe:
            assert _NEEDED[encoding] <= {nal_type(each, encoding) for each in nal_units(whole) if each}
            assert 0 < unit.width <= 65_535
            assert 0 < unit.height <= 65_535
            alone = AccessUnits(encoding).read(memoryview(whole), flagged=True)
            assert alone is not None
            assert alone.keyframe
            assert alone[3:] == unit[3:]


def video_file(data: bytes) -> None:
    """A file of video, read as capture reads it: JPEGs that are whole, with stamps that increase; errors of ours."""
    if not data:
        return
    with tempfile.TemporaryDirectory(prefix="edge-video-t-fuzz-", dir="/dev/shm") as directory:
        path = Path(directory) / "stream"
        path.write_bytes(data)
        with contextlib.suppress(CameraUnavailable):
            camera = Camera(id="cam1", url=Url(str(path)), stall_seconds=1, open_timeout_seconds=1)
            source = VideoSource(camera)
            source._pacer = None
            try:
                _read(source)
            finally:
                source.close()


def _read(source: VideoSource) -> None:
    last = 0
    for number in range(_GRABS_MAX):
        if not source.grab():
            continue
        stamp = 1_731_024_000_000_000_000 + number * 1000
        if source.unit is not None:
            _check(source.unit)
            assert abs(source.offset_us(stamp)) <= 10_000_000
        with contextlib.suppress(WireError):
            for moment in source.pictures(stamp):
                assert last < moment <= stamp + number
                last = moment
                frame = source.retrieve(moment, 1)
                info = jpeg.inspect(b"".join(frame.parts))
                assert (info.width, info.height) == (frame.width, frame.height)


def _check(unit: AccessUnit) -> None:
    assert unit.sound or not unit.keyframe
    assert joined(unit)


@functools.cache
def packet_seeds() -> list[bytes]:
    """Inputs of ``access_units``."""
    made = []
    for number, encoding in ((b"4", "h264"), (b"5", "h265")):
        path = _clip(encoding, "mp4")
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            raw = [bytes(packet) for packet in container.demux(stream) if packet.size]
            made.append(number + PACKET.join([stream.codec_context.extradata or b"", *raw[:3], raw[0]]))
        whole = packets(path)
        made.append(number + PACKET.join([b"", *whole[:3], whole[0]]))
    fields = [units for pair in field_pictures.pictures(2, 2) for units in pair]
    made.append(b"4" + PACKET.join([b"", *(b"".join(b"\0\0\1" + unit for unit in field) for field in fields)]))
    return made


@functools.cache
def file_seeds() -> list[bytes]:
    """Inputs of ``video_file``."""
    return [_clip(encoding, form).read_bytes() for encoding in ("h264", "h265") for form in ("mp4", "ts", "mkv")]


def _clip(encoding: str, form: str) -> Path:
    codec = {"h264": "libx264", "h265": "libx265"}[encoding]
    options = ("-bf", "2", *(("-x265-params", "log-level=error:info=0") if encoding == "h265" else ()))
    return clip(f"fuzz-{encoding}.{form}", codec=codec, size="64x64", seconds=0.6, gop=3, options=options)
