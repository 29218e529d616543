"""Clips for tests of video, made once a session by ffmpeg, and what they consist of."""

from __future__ import annotations

import atexit
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import redis

from engine.config import Camera, Url
from engine.errors import CameraUnavailable, WireError
from engine.sources.source import Source, SourceEnded
from engine.sources.video import VideoSource
from engine.wire.access_unit import AccessUnit
from engine.wire.journal import JournalEntry, parse_entry
from engine.wire.keys import FrameKey, build_video_key, video_journal_key

#: Types of NAL units that are no part of a picture: parameter sets and delimiters.
_SETS = {"h264": {7, 8, 9}, "h265": {32, 33, 34, 35}}


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg; its files are overwritten."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True, timeout=120)


@functools.cache
def directory() -> Path:
    """A directory for files of this process, removed at its end."""
    path = Path(tempfile.mkdtemp(prefix="ev-video-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def clip(
    name: str,
    *,
    codec: str = "libx264",
    size: str = "320x240",
    fps: int = 10,
    seconds: float = 3,
    gop: int = 10,
    options: tuple[str, ...] = ("-bf", "0"),
) -> Path:
    """A test picture as ``name``, whose ending says the container."""
    # In a directory of its own: another clip may have the same name.
    path = Path(tempfile.mkdtemp(dir=directory())) / name
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={fps}", "-t", str(seconds), "-c:v", codec),
        *("-g", str(gop), "-sc_threshold", "0", "-pix_fmt", "yuv420p", *options, path),
    )
    return path


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of Annex B, found in another way than the engine's."""
    return [unit.rstrip(b"\0") for unit in re.split(b"\0\0\1", data)[1:]]


def nal_type(unit: bytes, encoding: str = "h264") -> int:
    return unit[0] & 31 if encoding == "h264" else unit[0] >> 1 & 63


def picture_units(data: bytes, encoding: str = "h264") -> list[bytes]:
    """The NAL units without parameter sets and delimiters."""
    return [unit for unit in nal_units(data) if nal_type(unit, encoding) not in _SETS[encoding]]


def packets(path: Path) -> list[bytes]:
    """The packets of a clip in Annex B, as FFmpeg's own filter makes them, in the order of decoding."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        convert = av.BitStreamFilterContext(f"{stream.codec_context.name}_mp4toannexb", stream)
        return [bytes(made) for packet in container.demux(stream) if packet.size for made in convert.filter(packet)]


def joined(unit: AccessUnit) -> bytes:
    return b"".join(unit.parts)


def journal(client: redis.Redis, vhost: str, camera: str) -> list[JournalEntry]:
    """The journal of a camera's video."""
    entries = client.xrange(video_journal_key(vhost, "frames", camera))
    return [parse_entry(name, [part for pair in fields.items() for part in pair]) for name, fields in entries]


def stored_units(client: redis.Redis, vhost: str, camera: str) -> list[tuple[JournalEntry, bytes]]:
    """The access units of a camera that Redis has, in order, with their journal entries."""
    entries = journal(client, vhost, camera)
    keys = [build_video_key(FrameKey(vhost, "frames", camera, entry.unix_nano, entry.sequence)) for entry in entries]
    return list(zip(entries, client.mget(keys) if keys else [], strict=True))


class Seen(NamedTuple):
    """What a source gave: its access units, and of each picture the stamp, the brightness of the JPEG, and its place
    (the number of the packet that it came with)."""

    units: list[AccessUnit]
    stamps: list[int]
    pictures: list[np.ndarray]
    places: list[int]
    #: Errors of pictures that could not be made.
    errors: list[str]


#: The stamp of the first packet, and from each packet to the next, in nanoseconds.
FIRST, STEP = 1_731_024_000 * 10**9, 10**8


def see(source: Source, packets_max: int = 10**6, wanted: Callable[[int], bool] = lambda _: True) -> Seen:
    """Read a source to its end, as fast as possible if it is a file. The packet with number n has the stamp FIRST + n *
    STEP. Pictures whose stamps are not ``wanted`` are skipped."""
    seen = Seen([], [], [], [], [])
    if isinstance(source, VideoSource):
        source._pacer = None
    number = 0
    try:
        while number < packets_max:
            if not source.grab():
                continue
            stamp = FIRST + number * STEP
            if source.unit:
                seen.units.append(source.unit._replace(parts=(joined(source.unit),)))
            try:
                for moment in source.pictures(stamp):
                    if not wanted(moment):
                        source.skip()
                        continue
                    frame = source.retrieve(moment, 1)
                    data = np.frombuffer(b"".join(frame.parts), np.uint8)
                    seen.pictures.append(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
                    seen.stamps.append(moment)
                    seen.places.append(number)
            except WireError as error:
                seen.errors.append(str(error))
            number += 1
    except (SourceEnded, CameraUnavailable):
        pass
    finally:
        source.close()
    return seen


def decoded(path: Path) -> list[np.ndarray]:
    """The brightness of a clip's pictures, (height, width), decoded by ffmpeg, in the order in which they are shown."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        width, height = context.width, context.height
    raw = subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            path,
            "-fps_mode",
            "passthrough",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "yuvj420p",
            "-",
        ],
        check=True,
        capture_output=True,
    ).stdout
    size = width * height
    frames = np.frombuffer(raw, np.uint8).reshape(-1, size + 2 * ((width + 1) // 2) * ((height + 1) // 2))
    return list(frames[:, :size].reshape(-1, height, width))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(cv2.PSNR(one, other))


def camera(url: str | Path, **options: object) -> Camera:
    return Camera(id="cam1", url=Url(str(url)), **options)
