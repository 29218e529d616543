"""The first access units of a connection, or of a file that loops: which of them cannot be decoded.

A connection may begin anywhere in a stream. Units before the first key frame refer to pictures that this connection
never had. In an open GOP, so do some units after the key frame: its leading pictures, which are shown before it. They
are the RASL pictures of H.265 (ITU-T H.265, clause 3), and B pictures of H.264.
"""

from __future__ import annotations

#: Types of slices of H.264 that may refer to later pictures.
_B_SLICES = (1, 6)
#: H.264: the NAL unit type of a key frame after which no picture refers to one before it.
_IDR = 5
#: H.265: NAL unit types of leading pictures, and of those that refer to pictures before their key frame.
_LEADING, _RASL = range(6, 10), range(8, 10)


class StreamBeginning:
    """Classifies the units of one stream, in order, until it is ``over``: no later unit can be early."""

    def __init__(self, encoding: str) -> None:
        self.over = False
        self._encoding = encoding
        self._begun = False
        #: True until the second field of the first key frame has come.
        self._half = False
        #: When the first key frame is shown.
        self._shown: int | None = None

    def is_early(
        self, *, keyframe: bool, sound: bool, field: bool, kind: int, slice_type: int, pts: int | None
    ) -> bool:
        """True if the next unit refers to pictures before this stream. ``kind`` is the NAL unit type of its first
        slice, ``slice_type`` that slice's type (H.264 only), ``pts`` when it is shown."""
        if not self._begun:
            self._begun, self._half, self._shown = keyframe, field, pts
            self.over = keyframe and self._encoding == "h264" and kind == _IDR
            return not keyframe
        if not sound:
            return False
        half, self._half = self._half, False
        if half:
            return False
        if self._encoding == "h265":
            self.over = kind not in _LEADING
            return kind in _RASL
        leads = slice_type in _B_SLICES and (pts is None or self._shown is None or pts < self._shown)
        self.over = not leads
        return leads
