"""Edge Video Engine: many cameras, their last minutes as JPEG frames in Redis, announced through RabbitMQ.

What scripts use is exported here and loaded when it is first named: the processes that capture need none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.client.async_store import AsyncFrameStore
    from engine.client.consumer import FrameConsumer
    from engine.client.frame import Frame, FrameEntry
    from engine.client.store import FrameStore
    from engine.wire.urls import TlsFiles

__version__ = "0.1.0"
__all__ = ["AsyncFrameStore", "Frame", "FrameConsumer", "FrameEntry", "FrameStore", "TlsFiles", "__version__"]

_EXPORTS = {
    "AsyncFrameStore": "engine.client.async_store",
    "Frame": "engine.client.frame",
    "FrameConsumer": "engine.client.consumer",
    "FrameEntry": "engine.client.frame",
    "FrameStore": "engine.client.store",
    "TlsFiles": "engine.wire.urls",
}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
