"""Clips for tests of video, made once a session by ffmpeg, and what they consist of."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from pathlib import Path

import av
import redis

from engine.sources.source import SourceEnded
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
    return Path(tempfile.mkdtemp(prefix="ev-video-"))


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
    path = directory() / name
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={fps}", "-t", str(seconds), "-c:v", codec),
        *("-g", str(gop), "-pix_fmt", "yuv420p", *(options or ()), path),
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


def read_units(source: VideoSource) -> list[AccessUnit]:
    """All access units of a file, read as fast as possible, each with its bytes in one part."""
    source._pacer = None
    units = []
    try:
        while True:
            if source.grab() and source.unit:
                units.append(source.unit._replace(parts=(joined(source.unit),)))
    except SourceEnded:
        return units
    finally:
        source.close()


def journal(client: redis.Redis, vhost: str, camera: str) -> list[JournalEntry]:
    """The journal of a camera's video."""
    entries = client.xrange(video_journal_key(vhost, "frames", camera))
    return [parse_entry(name, [part for pair in fields.items() for part in pair]) for name, fields in entries]


def stored_units(client: redis.Redis, vhost: str, camera: str) -> list[tuple[JournalEntry, bytes]]:
    """The access units of a camera that Redis has, in order, with their journal entries."""
    entries = journal(client, vhost, camera)
    keys = [build_video_key(FrameKey(vhost, "frames", camera, entry.unix_nano, entry.sequence)) for entry in entries]
    return list(zip(entries, client.mget(keys) if keys else [], strict=True))
