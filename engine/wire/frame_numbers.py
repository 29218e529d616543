"""Lost pictures of H.264, found by the ``frame_num`` of the slices that came, without decoding.

A reference picture has the number of the last one before it plus 1, and so has a picture after it to which nothing
refers (ITU-T H.264, 7.4.3). Numbers are counted from an IDR picture on, and wrap. So a number that is larger by 2 or
more means that a reference picture is missing, and that what follows does not decode as it was sent.

What this cannot find: a lost picture to which nothing refers, which harms no other; one of two fields; pictures at the
end of a GOP; a part of a picture; an IDR picture lost alone. The number of the unit after that one is 1, and so it is
after a picture with memory management control operation 5, which says that numbers begin again.

A wrong finding costs a whole GOP of good video, so a camera is believed only as long as its numbers make sense.
"""

from __future__ import annotations

#: GOPs in a row with gaps after which a camera's numbers are no longer believed, and whole ones until they are again.
_GOPS = 4
#: Bytes at the beginning of a slice's NAL unit that have its ``frame_num``, without bytes that prevent start codes.
_BYTES = 9
#: Bits of these behind the header and the first bit.
_BITS = 8 * _BYTES - 9
#: So many bits that are 1.
_MASKS = tuple((1 << bits) - 1 for bits in range(_BITS + 1))
#: NAL units whose beginning has a ``frame_num``: of a slice, of its partition A, of an IDR picture.
_COUNTED, _IDR = (1, 2, 5), 5
#: The most zeros before the value of a slice's type or the identifier of its PPS.
_ZEROS_MAX = 8


def frame_num(head: bytes, bits: int) -> int:
    """The ``frame_num`` of ``bits`` bits in a slice that begins with the first block of its picture; -1 if it cannot
    be read. ``head`` is the beginning of its NAL unit."""
    # Each packet comes here, so the bits are not read by ``Bits``, which is made for parameter sets.
    if b"\0\0\3" in head:
        head = head.replace(b"\0\0\3", b"\0\0")
    if len(head) < _BYTES:
        head = head.ljust(_BYTES, b"\0")
    # Behind the header and the number of the first block, which is one bit: the slice's type, then its PPS.
    value = int.from_bytes(head[:_BYTES]) & _MASKS[_BITS]
    zeros = _BITS - value.bit_length()
    if zeros > _ZEROS_MAX:
        return -1
    left = _BITS - 1 - 2 * zeros
    value &= _MASKS[left]
    zeros = left - value.bit_length()
    if zeros > _ZEROS_MAX:
        return -1
    return value >> (left - 1 - 2 * zeros - bits) & _MASKS[bits]


class FrameNumbers:
    """The numbers of one stream's pictures, in the order of decoding."""

    def __init__(self) -> None:
        #: The number of the last reference picture; -1 if it is unknown.
        self._last = -1
        self._believed = False
        #: True if the last picture is a key frame, but no IDR picture, whose number does not follow those before it. A
        #: decoder that holds these would take some for pictures of the new numbers.
        self.anew = False
        #: Of this GOP: whether its numbers increased, and whether one was missing.
        self._increased = self._gapped = False
        #: GOPs in a row: with gaps, without, and how many without make the camera believed.
        self._with_gaps, self._without, self._wanted = 0, 0, 1

    def forget(self) -> None:
        """A unit could not be read: nothing is known until the next key frame."""
        self._last, self._increased, self.anew = -1, False, False

    def follows_loss(self, head: bytes, bits: int, *, keyframe: bool) -> bool:
        """True if a reference picture before the next one was lost, since its key frame. ``head`` is the beginning of
        its first slice. ``bits``: of a ``frame_num``; 0 if gaps are allowed."""
        if keyframe:
            self._end_gop()
        self.anew = False
        kind, reference = head[0] & 0x1F, head[0] & 0x60
        number = frame_num(head, bits) if bits and kind in _COUNTED else -1
        if number < 0 or (kind == _IDR and not keyframe):
            self.forget()
            return False
        if keyframe:
            self.anew = kind != _IDR and self._last >= 0 and (number - self._last) & _MASKS[bits] > 1
            self._last = number
        last = self._last
        if last < 0:
            return False
        step = (number - last) & _MASKS[bits]
        if step <= 1:
            if step:
                self._increased = True
            if reference:
                self._last = number
            return False
        # The number of the last one that was lost, if this is no reference picture.
        self._last = number if reference else number - 1
        if number <= 1 and step > 2:
            # Perhaps the numbers began again, by memory management control operation 5. A step of 2 is rather a loss
            # where numbers wrap.
            return False
        self._gapped = True
        return self._believed

    def _end_gop(self) -> None:
        """Judge the camera by the GOP that is over."""
        if self._gapped:
            self._with_gaps, self._without = self._with_gaps + 1, 0
            if self._with_gaps >= _GOPS:
                self._believed, self._wanted = False, _GOPS
        elif self._increased:
            self._with_gaps, self._without = 0, self._without + 1
            self._believed = self._believed or self._without >= self._wanted
        self._increased = self._gapped = False
