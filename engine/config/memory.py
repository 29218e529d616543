"""How much Redis memory a site's frames take. Pure arithmetic; tests compare it with a real server.

    memory = frames a second x TTL x (frame, rounded up as the allocator does, + key and bookkeeping + journal entry)

Redis allocates with jemalloc, which has four sizes per doubling: a frame of 50,000 bytes takes 57,344.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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
#: Frames a second and pixels assumed for a camera that was neither configured nor observed.
_FPS_ASSUMED = 25.0
_PIXELS_ASSUMED = 1280 * 720
#: At most this many cameras are named.
_NAMED_MAX = 3
#: Characters of the time and the sequence in a key.
_KEY_NUMBERS = len(keys.frame_key_suffix(10**18, 1))


class Seen(NamedTuple):
    """Observed values of a camera: frames a second and bytes a frame, 0 if unknown."""

    fps: float = 0.0
    frame_bytes: int = 0


class MemoryNeed(NamedTuple):
    """Memory of all frames of a site once the first ones expire. ``assumed`` lists the cameras whose rate or size is a
    guess."""

    bytes: int
    frames: int
    frames_per_second: float
    assumed: tuple[str, ...]

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
    """Bytes of Redis's memory that one frame takes, with its key and journal entry."""
    value = allocated(round(frame_bytes) + _STRING_BYTES)
    return value + allocated(key_characters + _STRING_BYTES) + _KEY_BYTES + _JOURNAL_BYTES


def redis_memory(config: Config, seen: Mapping[str, Seen] | None = None) -> MemoryNeed:
    """Memory that the site's frames take. Figures come from what was ``seen`` of the cameras, else from the site file,
    else from assumptions."""
    need, frames, rate = 0, 0.0, 0.0
    assumed: list[str] = []
    for camera in config.cameras:
        known = (seen or {}).get(camera.id, Seen())
        fps, size, guessed = _of(camera, known)
        key = len(keys.frame_key_prefix(config.vhost, config.prefix, camera.id)) + _KEY_NUMBERS
        count = fps * config.redis.ttl_seconds
        need += round(count * frame_memory(size, key))
        frames += count
        rate += fps
        if guessed:
            assumed.append(camera.id)
    return MemoryNeed(need, round(frames), rate, tuple(assumed))


def _of(camera: Camera, seen: Seen) -> tuple[float, float, bool]:
    """Frames a second, bytes a frame, and whether one of them is a guess."""
    pattern = urls.parse_test_url(camera.url) if camera.kind == "test" else None
    sent = seen.fps or (pattern.fps if pattern else 0.0)
    fps = min(sent, camera.fps) if sent and camera.fps else sent or camera.fps
    size = seen.frame_bytes or camera.frame_bytes
    guessed = not fps or not (seen.frame_bytes or pattern)
    return fps or _FPS_ASSUMED, size or _PIXELS_ASSUMED * JPEG_BYTES_PER_PIXEL, guessed
