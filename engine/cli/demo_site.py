"""The site that a demo runs: a profile's sizing, with test cameras or a clip in place of its cameras."""

from __future__ import annotations

import contextlib
import os
import socket
from importlib import resources
from itertools import count, islice
from pathlib import Path
from typing import Any

from engine.config import Config, WebSection, from_document, read_toml
from engine.errors import ConfigError
from engine.wire.urls import parse_size

#: A demo's ring holds at least this many seconds of test frames.
_RING_SECONDS = 4
#: Sections that a demo takes from a profile unchanged.
_TAKEN = ("metadata", "video", "writer", "publisher")
#: Kilobytes of a test frame.
DEFAULT_KB = 60
#: MiB of a ring, unless the profile says.
_RING_MB = 8
#: Four seconds of FFmpeg's test picture, 1280x720 at 15 frames a second, with a key frame every 2 s. PyAV's wheels have
#: no encoder of H.264 that is free of the GPL, so the clip comes with the engine. It was made by
#: ``ffmpeg -f lavfi -i testsrc2=size=1280x720:rate=15 -frames:v 60 -c:v libx264 -preset veryslow -crf 32 -g 30
#: -keyint_min 30 -sc_threshold 0 -bf 0 -pix_fmt yuv420p -bsf:v filter_units=remove_types=6 -fflags +bitexact
#: -movflags +faststart demo.mp4``.
CLIP = Path(str(resources.files("engine.cli"))) / "demo.mp4"


def read_profile(name: str) -> dict[str, Any]:
    """A profile's TOML, by name or path. The parts that a demo uses are checked. Raises ConfigError."""
    path = Path(name)
    if not path.suffix:
        path = profiles_directory() / f"{name}.toml"
    try:
        data = path.read_bytes()
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in profiles_directory().glob("*.toml")))
        raise ConfigError(f"profile {name}: {error.strerror}; known are {known}") from None
    try:
        document = read_toml(data)
        _check_profile(document)
    except ConfigError as error:
        raise ConfigError(f"profile {path}: {error}") from None
    return document


def _check_profile(document: dict[str, Any]) -> None:
    """Raises ConfigError if the parts that a demo uses are invalid in a site file. The profile's servers and their
    files need not exist here."""
    taken = {name: document[name] for name in (*_TAKEN, "ring", "defaults", "cameras", "redis") if name in document}
    redis = taken.get("redis")
    if isinstance(redis, dict):
        taken["redis"] = {"ttl_seconds": redis["ttl_seconds"]} if "ttl_seconds" in redis else {}
    if taken.get("cameras", []) == []:
        taken["cameras"] = [{"id": "cam1", "url": "test://"}]
    from_document(taken, {})


def profiles_directory() -> Path:
    """The directory of the profiles: in the package, or next to it in a checkout."""
    packaged = Path(str(resources.files("engine"))) / "profiles"
    return packaged if packaged.is_dir() else packaged.parent.parent / "profiles"


def demo_site(
    document: dict[str, Any],
    directory: Path,
    cameras: int | None,
    fps: float | None,
    size: str | None,
    kb: int | None,
    source: str | None,
    *,
    video: bool = False,
) -> Config:
    """A profile's site with test cameras instead of its own, on its own server. Raises ConfigError.

    With ``video``, or if the profile stores video by default, the cameras send H.264: the clip's, or what ``source``
    sends. Options that are None keep the profile's values. REDIS_ADDRESS and AMQP_URL apply as for any site. Frames get
    the prefix ``demo``, so that they do not mix with others.
    """
    defaults = document.get("defaults", {})
    ring = dict(document.get("ring", {}))
    ring.setdefault("capacity_mb", _RING_MB)
    camera: dict[str, Any] = {"loop": True, **({"fps": float(fps)} if source and fps else {})}
    if video or defaults.get("video"):
        if size or kb:
            raise ConfigError("--size and --kb are for test frames; a demo of video takes its clip as it is")
        camera |= {"url": source or str(CLIP), "video": True, "decode": defaults.get("decode", "key")}
    else:
        width, height = parse_size(size) if size else (defaults.get("width", 1280), defaults.get("height", 720))
        rate, kb = fps or defaults.get("fps", 30), kb or DEFAULT_KB
        camera["url"] = source or f"test://?size={width}x{height}&fps={rate:g}&kb={kb}"
        ring["capacity_mb"] = max(ring["capacity_mb"], -(-int(kb * rate * _RING_SECONDS) // 1024))
    return from_document(
        {
            **{name: document[name] for name in _TAKEN if name in document},
            "ring": ring,
            "site": {"name": f"demo-{os.getpid()}", "run_directory": str(directory), "log_level": "warning"},
            "web": {"listen": free_address()},
            "redis": {"ttl_seconds": document.get("redis", {}).get("ttl_seconds", 300), "prefix": "demo"},
            "cameras": [{"id": name, **camera} for name in _names(document.get("cameras", []), cameras)],
        },
        os.environ,
    )


def free_address() -> str:
    """Where the demo's web role listens: the default address, or a port that is free if that is taken."""
    usual = WebSection().address
    for port in (usual.port, 0):
        with contextlib.suppress(OSError), socket.create_server((usual.host, port)) as taken:
            return f"{usual.host}:{taken.getsockname()[1]}"
    return ""


def _names(listed: list[dict[str, Any]], cameras: int | None) -> list[str]:
    """The names of the first ``cameras`` cameras (None: all) of a profile, and others if it has not so many."""
    names: list[str] = [camera["id"] for camera in listed][:cameras]
    fresh = (name for number in count(1) if (name := f"cam{number}") not in names)
    return names + list(islice(fresh, max((cameras or 0) - len(names), 0)))
