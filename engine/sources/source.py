"""The interface of every source that capture reads from: methods, results and errors.

``grab`` waits for the next packet, which gets its time stamp on arrival. ``unit`` is that packet if it is an access
unit of H.264 or H.265. ``pictures`` says which pictures came of it: one of a JPEG, none, one or several of an access
unit. ``retrieve`` then makes a JPEG of the first of them, and ``skip`` passes over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from engine.errors import CameraUnavailable, FrameTooLarge
from engine.wire.access_unit import AccessUnit
from engine.wire.state import Decode, Mode


class SourceEnded(CameraUnavailable):
    """A source that does not loop has delivered its last frame."""


class NotOpened(CameraUnavailable):
    """A network camera was asked for its stream and sent none; FFmpeg does not say why."""


class CapturedFrame(NamedTuple):
    """A JPEG: the joined bytes of ``parts``, valid until the next grab. Width and height in pixels.
    ``camera_time_nano`` is when the camera captured it by its own clock (UTC), 0 if unknown. If ``claimed``, its one
    part begins where the memory begins that FrameMemory lent."""

    parts: tuple[bytes | memoryview, ...]
    width: int
    height: int
    camera_time_nano: int = 0
    claimed: bool = False


class FrameMemory(Protocol):
    """Lends the memory in which frames are stored, so that a source can receive them there."""

    @property
    def frame_bytes_max(self) -> int:
        """The largest frame that can be stored, in bytes."""
        ...

    def claim(self, size: int) -> memoryview | None:
        """Memory for a frame of ``size`` bytes, valid until the frame is taken or the next is claimed; None if there is
        none. Raises FrameTooLarge."""
        ...

    def too_large(self, size: int) -> FrameTooLarge:
        """The error about a frame of more than ``frame_bytes_max``."""
        ...


class NoMemory:
    """Lends none, to sources whose frames are looked at and not stored."""

    frame_bytes_max = 2**26

    def claim(self, size: int) -> None:  # noqa: ARG002 - it is an answer to any size
        """See FrameMemory."""
        return

    def too_large(self, size: int) -> FrameTooLarge:
        """See FrameMemory."""
        return FrameTooLarge(f"a frame of {size:,} bytes", size=str(size))


class Source(Protocol):
    """A source that capture reads from."""

    codec: str
    mode: Mode
    #: The access unit that was grabbed; None if the camera sends no H.264 or H.265.
    unit: AccessUnit | None
    #: When the packet that was grabbed had arrived, in monotonic nanoseconds; 0 if it arrived now.
    arrived_nano: int
    #: When the camera captured the access unit by its own clock, in nanoseconds UTC; 0 if unknown.
    camera_time_nano: int

    @property
    def decode(self) -> Decode:
        """Which pictures become JPEGs, as now decided; "" if the camera sends neither H.264 nor H.265."""
        ...

    def grab(self) -> bool:
        """Wait for a packet; False if none has arrived yet. Raises CameraUnavailable, SourceEnded."""
        ...

    def offset_us(self, unix_nano: int) -> int:
        """When the access unit that was grabbed is shown, in microseconds after ``unix_nano``, at which it arrived."""
        ...

    def pictures(self, unix_nano: int) -> Sequence[int]:
        """The time stamps of the pictures that are ready since this grab, which arrived at ``unix_nano``, in the order
        in which they are shown. Each must be taken by ``retrieve`` or ``skip``, in this order. Raises WireError if a
        picture cannot be decoded."""
        ...

    def retrieve(self, unix_nano: int, sequence: int) -> CapturedFrame:
        """The next picture as a JPEG, which has this time stamp and sequence. Raises WireError if it is no whole JPEG,
        FrameTooLarge if it was too large to be received."""
        ...

    def skip(self) -> None:
        """Pass over the next picture."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


class OnePicture:
    """What sources have in common whose packets are one picture each, and no access units. See Source."""

    decode: Decode = ""
    unit: AccessUnit | None = None
    arrived_nano = camera_time_nano = 0

    def offset_us(self, unix_nano: int) -> int:  # noqa: ARG002 - it has no access units
        """See Source."""
        return 0

    def pictures(self, unix_nano: int) -> tuple[int]:
        """See Source."""
        return (unix_nano,)

    def skip(self) -> None:
        """See Source."""
