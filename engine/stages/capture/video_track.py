"""A camera's access units on their way into its video ring: what is stored decodes.

An access unit needs those before it, back to the last key frame. So the track begins with a key frame. After a unit
that is dropped, the rest of its GOP is dropped, too, and counted as ``broken_gop``. Units before a stream's first key
frame were never captured: they use up no sequence, and are counted in the status page (``BEFORE_KEY``). So are those
after it that need what came before the stream. A stream also begins where a file begins again.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import FrameTooLarge
from engine.shm.ring import Producer
from engine.shm.ring_file import Drop
from engine.shm.status_page import CaptureCount, StatusPage
from engine.wire.access_unit import AccessUnit
from engine.wire.journal import ENCODINGS
from engine.wire.keys import next_sequence

#: Numbers of encodings in records.
_ENCODINGS = {name: number for number, name in enumerate(ENCODINGS)}
_LAST_SEQUENCE, _LAST_NANO = CaptureCount.VIDEO_LAST_SEQUENCE.value, CaptureCount.VIDEO_LAST_NANO.value


class VideoTrack:
    """Writes to ``producer``; ``warn(reason, text)`` is called for each unit that is dropped for itself."""

    def __init__(self, producer: Producer, page: StatusPage, warn: Callable[[Drop, str], None]) -> None:
        self.producer = producer
        self._page = page
        self._warn = warn
        self._begun = self._broken = False

    @property
    def waits_for_key(self) -> bool:
        """True if units are passed over until the next key frame."""
        return self._broken or not self._begun

    def begin(self) -> None:
        """A new stream begins: nothing is known of what came before."""
        self._begun = self._broken = False

    def write(
        self, unit: AccessUnit, unix_nano: int, monotonic: int, offset_us: int, camera_time_nano: int = 0
    ) -> bool:
        """Write the next unit; True if the ring has it."""
        counts, producer = self._page.counts, self.producer
        if unit.keyframe:
            self._begun, self._broken = True, False
        elif unit.early or not self._begun:
            counts[CaptureCount.BEFORE_KEY] += 1
            return False
        counts[_LAST_SEQUENCE] = next_sequence(producer.last_sequence)
        counts[_LAST_NANO] = unix_nano
        if self._broken:
            producer.discard(unix_nano, sum(map(len, unit.parts)), Drop.BROKEN_GOP)
            return False
        if not unit.sound:
            producer.discard(unix_nano, sum(map(len, unit.parts)), Drop.CORRUPT)
            self._drop(Drop.CORRUPT, "video was lost on its way; the rest of its GOP is not stored")
            return False
        try:
            written = producer.write(
                unit.parts,
                unix_nano,
                monotonic,
                unit.width,
                unit.height,
                encoding=_ENCODINGS[unit.encoding],
                keyframe=unit.keyframe,
                offset_us=offset_us,
                camera_time_nano=camera_time_nano,
            )
        except FrameTooLarge as error:
            self._drop(Drop.TOO_LARGE, str(error))
            return False
        if written is None:
            self._drop(Drop.RING_FULL, "the writer does not keep up, or Redis is away; the GOP ends here")
        return written is not None

    def _drop(self, reason: Drop, text: str) -> None:
        self._broken = True
        self._warn(reason, text)
