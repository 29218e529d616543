"""Edge Video Engine: many cameras, their last minutes as JPEG frames in Redis, announced through RabbitMQ.

This module exports everything that scripts use: all types that a public function takes, returns or raises. Each name is
loaded at its first use, so a reader loads cv2, PyAV and pika only if it needs them.

* Read: ``FrameStore``, ``AsyncFrameStore``. They return ``Frame``, ``FrameEntry``, ``Frames`` (iterators), ``Bucket``,
  ``StoreStats``, ``CameraStats`` and ``CameraStatus``. Of a camera's video they return ``VideoUnit``, ``VideoEntry``,
  ``Picture`` and ``Pictures``.
* Listen: ``FrameConsumer``. Its callbacks get ``FrameEvent``, ``StatusEvent``, ``GopEvent`` and ``Frame``.
* Errors: each is an ``EngineError``. ``InputError``: a person must correct something. ``Unavailable``: try again later.
  ``WireError``: data is not what it claims to be.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.advice import Cause
    from engine.client.async_store import AsyncFrameStore
    from engine.client.consumer import ConsumerOptions, FrameConsumer
    from engine.client.delivery import ConsumerCounts, FrameCallback, GopCallback, StatusCallback
    from engine.client.frame import Frame, FrameEntry
    from engine.client.iterators import AsyncFrames, AsyncPictures, Frames, Pictures
    from engine.client.stats import Bucket, CameraStats, StoreStats
    from engine.client.store import FrameStore
    from engine.client.store_base import Since, StoreOptions
    from engine.client.times import Span, When
    from engine.client.video import Colour, Picture, VideoEntry, VideoUnit
    from engine.errors import (
        BrokerUnavailable,
        ConfigError,
        EngineError,
        InputError,
        QueryError,
        RedisUnavailable,
        ServerRefused,
        Unavailable,
        UnknownName,
        WireError,
    )
    from engine.wire.metadata import CameraState, FrameEvent, GopEvent, StatusEvent
    from engine.wire.redis_address import TlsFiles
    from engine.wire.state import CameraStatus

__version__ = "0.1.0"
__all__ = [
    "AsyncFrameStore",
    "AsyncFrames",
    "AsyncPictures",
    "BrokerUnavailable",
    "Bucket",
    "CameraState",
    "CameraStats",
    "CameraStatus",
    "Cause",
    "Colour",
    "ConfigError",
    "ConsumerCounts",
    "ConsumerOptions",
    "EngineError",
    "Frame",
    "FrameCallback",
    "FrameConsumer",
    "FrameEntry",
    "FrameEvent",
    "FrameStore",
    "Frames",
    "GopCallback",
    "GopEvent",
    "InputError",
    "Picture",
    "Pictures",
    "QueryError",
    "RedisUnavailable",
    "ServerRefused",
    "Since",
    "Span",
    "StatusCallback",
    "StatusEvent",
    "StoreOptions",
    "StoreStats",
    "TlsFiles",
    "Unavailable",
    "UnknownName",
    "VideoEntry",
    "VideoUnit",
    "When",
    "WireError",
    "__version__",
]

#: Module -> the names that it defines.
_MODULES = {
    "engine.advice": ("Cause",),
    "engine.client.async_store": ("AsyncFrameStore",),
    "engine.client.consumer": ("ConsumerOptions", "FrameConsumer"),
    "engine.client.delivery": ("ConsumerCounts", "FrameCallback", "GopCallback", "StatusCallback"),
    "engine.client.frame": ("Frame", "FrameEntry"),
    "engine.client.iterators": ("AsyncFrames", "AsyncPictures", "Frames", "Pictures"),
    "engine.client.stats": ("Bucket", "CameraStats", "StoreStats"),
    "engine.client.store": ("FrameStore",),
    "engine.client.store_base": ("Since", "StoreOptions"),
    "engine.client.times": ("Span", "When"),
    "engine.client.video": ("Colour", "Picture", "VideoEntry", "VideoUnit"),
    "engine.errors": (
        "BrokerUnavailable",
        "ConfigError",
        "EngineError",
        "InputError",
        "QueryError",
        "RedisUnavailable",
        "ServerRefused",
        "Unavailable",
        "UnknownName",
        "WireError",
    ),
    "engine.wire.metadata": ("CameraState", "FrameEvent", "GopEvent", "StatusEvent"),
    "engine.wire.state": ("CameraStatus",),
    "engine.wire.redis_address": ("TlsFiles",),
}
_EXPORTS = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(globals().keys() | _EXPORTS.keys())
