"""How much Redis memory a site's frames take. Pure arithmetic; tests compare it with a real server.

    memory = frames a second x TTL x (frame, rounded up as the allocator does, + key and bookkeeping + journal entry)

Redis allocates with jemalloc, which has four sizes per doubling: a frame of 50,000 bytes takes 57,344. The same holds
for the access units of stored video, with their own rate, size and TTL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.config import assumptions
from engine.config.sections import JPEG_BYTES_PER_PIXEL, Camera
from engine.config.structs import Config
from engine.wire import keys, urls

#: Bytes of a string besides its content: the longest header, a final zero, and the line end that Redis reads with it.
_STRING_BYTES = 12
#: Bytes of a key besides its name: the object, its entries in the tables of keys and of expiry times.
_KEY_BYTES = 112
#: Bytes of a frame's journal entry.
_JOURNAL_BYTES = 32
#: jemalloc's smallest step between sizes, and its number of sizes per doubling.
_STEP_BYTES = 16
_SIZES_PER_DOUBLING = 4
#: At most this many cameras are named.
_NAMED_MAX = 3
#: Characters of the time and the sequence in a key.
_KEY_NUMBERS = len(keys.frame_key_suffix(10**18, 1))


class Seen(NamedTuple):
    """Observed values of a camera: frames (JPEGs) a second and bytes a frame, access units a second and bytes of one; 0
    if unknown."""

    fps: float = 0.0
    frame_bytes: int = 0
    packet_fps: float = 0.0
    packet_bytes: int = 0


class MemoryNeed(NamedTuple):
    """Memory of all that a site stores, once the first of it expires. ``video_bytes`` of the ``bytes`` are its video:
    ``packets`` access units. ``assumed`` lists the cameras whose rate or size is a guess."""

    bytes: int
    frames: int
    frames_per_second: float
    assumed: tuple[str, ...]
    video_bytes: int = 0
    packets: int = 0
    packets_per_second: float = 0.0

    @property
    def caveat(self) -> str:
        """Text that names the cameras whose figures are guesses; empty if there are none."""
        if not self.assumed:
            return ""
        more = len(self.assumed) - _NAMED_MAX
        return f"rate or size assumed of {', '.join(self.assumed[:_NAMED_MAX])}" + (
            f" and {more} more" if more > 0 else ""
        )


def allocated(size: int) -> int:
    """Bytes that jemalloc allocates for ``size``."""
    step = max(_STEP_BYTES, (1 << (size - 1).bit_length()) // 2 // _SIZES_PER_DOUBLING)
    return -(-size // step) * step


def frame_memory(frame_bytes: float, key_characters: int) -> int:
    """Bytes of Redis's memory that one frame takes, or one access unit, with its key and journal entry."""
    value = allocated(round(frame_bytes) + _STRING_BYTES)
    return value + allocated(key_characters + _STRING_BYTES) + _KEY_BYTES + _JOURNAL_BYTES


def redis_memory(config: Config, seen: Mapping[str, Seen] | None = None) -> MemoryNeed:
    """Memory that the site's frames and its video take. Figures come from what was ``seen`` of the cameras, else from
    the site file, else from assumptions."""
    known = {camera.id: (seen or {}).get(camera.id, Seen()) for camera in config.cameras}
    frames = [(camera, *_frames_of(camera, known[camera.id])) for camera in config.cameras]
    packets = [(camera, *_packets_of(known[camera.id])) for camera in config.cameras if camera.video]
    guessed = {camera.id for camera, _, _, guess in (*frames, *packets) if guess}
    frame_bytes, video_bytes = _bytes(config, frames, video=False), _bytes(config, packets, video=True)
    fps, packet_fps = (sum(rate for _, rate, _, _ in found) for found in (frames, packets))
    return MemoryNeed(
        frame_bytes + video_bytes,
        round(fps * config.ttl_seconds(video=False)),
        fps,
        tuple(camera.id for camera in config.cameras if camera.id in guessed),
        video_bytes,
        round(packet_fps * config.ttl_seconds(video=True)),
        packet_fps,
    )


def _bytes(config: Config, found: Sequence[tuple[Camera, float, float, bool]], *, video: bool) -> int:
    """Memory of what some cameras store: each with its rate per second, and the bytes of one."""
    key_prefix = keys.video_key_prefix if video else keys.frame_key_prefix
    need = 0
    for camera, rate, size, _ in found:
        key = len(key_prefix(config.vhost, config.prefix, camera.id)) + _KEY_NUMBERS
        need += round(rate * config.ttl_seconds(video=video) * frame_memory(size, key))
    return need


def _frames_of(camera: Camera, seen: Seen) -> tuple[float, float, bool]:
    """Frames a second, bytes a frame, and whether one of them is a guess."""
    if camera.decode == "none" and not seen.fps:
        return 0.0, 0.0, False
    pattern = urls.parse_test_url(camera.url) if camera.kind == "test" else None
    sent = seen.fps or (pattern.fps if pattern else 0.0)
    if camera.decode == "key" and not sent:
        return min(1 / assumptions.KEY_SECONDS, camera.fps or 1.0), _size_of(camera, seen), True
    fps = min(sent, camera.fps) if sent and camera.fps else sent or camera.fps
    guessed = not fps or not (seen.frame_bytes or pattern)
    return fps or assumptions.FPS, _size_of(camera, seen), guessed


def _size_of(camera: Camera, seen: Seen) -> float:
    """Bytes of a frame."""
    return seen.frame_bytes or camera.frame_bytes or assumptions.PIXELS * JPEG_BYTES_PER_PIXEL


def _packets_of(seen: Seen) -> tuple[float, float, bool]:
    """Access units a second, bytes of one, and whether one of them is a guess."""
    fps = seen.packet_fps or assumptions.FPS
    return fps, seen.packet_bytes or assumptions.VIDEO_BYTES / fps, not (seen.packet_fps and seen.packet_bytes)
