"""Access units of H.264 and H.265: from the packets of a stream to Annex B, in which each key frame decodes alone.

A packet has the NAL units of one picture. Network streams separate them by start codes (Annex B); MP4 files write a
length before each. The NAL units themselves are never changed, and the coded picture is never copied: what comes out
are parts of the packet, with start codes and parameter sets between them.

**Key frames.** The types of the NAL units decide: IDR pictures of H.264, IRAP pictures of H.265 (IDR, CRA, BLA). An
H.264 picture of I slices that is no IDR picture is a key frame if FFmpeg flags it, which it does where an SEI message
makes it a recovery point: open GOPs begin with one. FFmpeg also flags recovery points in P pictures (gradual refresh).
Those are no key frames here, because they do not decode alone.

**Parameter sets.** Those of the stream's description and those in packets are remembered, the latest by kind and
identifier. A key frame that lacks one of those that it needs gets them, after its access unit delimiter
(``remembered_sets.py``). A picture whose parameter sets are unknown is no key frame.

**The beginning.** A connection may begin anywhere in a stream. Units that need what came before are ``early``
(``stream_beginning.py``).

**Loss.** The numbers of H.264's pictures tell if one before them was lost (``frame_numbers.py``).

**Damage.** A unit is not sound if a NAL unit is empty, reaches beyond the packet or has an invalid header, or if its
first slice is not the beginning of a picture. In Annex B only the NAL units up to the first slice are looked at: what
follows has other slices of the same picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from engine.errors import WireError
from engine.wire.frame_numbers import FrameNumbers
from engine.wire.nal_units import KINDS, Damaged, annex_b, avcc, find_start, hvcc, prefixed, without_zeros
from engine.wire.parameter_sets import Bits, PictureFormat
from engine.wire.remembered_sets import RememberedSets, SetKey
from engine.wire.stream_beginning import StreamBeginning

Encoding = Literal["h264", "h265"]
#: What stands before each NAL unit.
START_CODE = b"\0\0\0\1"
#: Bytes of a slice that are enough for the beginning of its header.
_SLICE_HEAD_BYTES = 32
#: Types of slices of H.264 that refer to no other picture.
_I_SLICES = (2, 7)


class AccessUnit(NamedTuple):
    """One coded picture as the camera sent it: the joined bytes of ``parts`` are Annex B, and have the parameter sets
    before the first slice if it is a key frame. They are valid as long as the packet is.

    ``encoding`` is ``h264`` or ``h265``; width and height are in pixels, 0 if they are not known. If the unit is not
    ``sound``, bytes of it were lost on the way, or a picture that it may refer to. A ``field`` is one half of an
    interlaced picture; the next unit is the other. An ``early`` unit does not decode, because it needs what came before
    the stream. A unit that ``lacks_sets`` would be a key frame, but its parameter sets are unknown.
    """

    parts: tuple[bytes | memoryview, ...]
    keyframe: bool
    encoding: str
    width: int
    height: int
    sound: bool = True
    field: bool = False
    early: bool = False
    lacks_sets: bool = False


class AccessUnits:
    """Makes access units of the packets of one stream. ``description`` is FFmpeg's ``extradata``: an ``avcC`` or
    ``hvcC`` record, parameter sets in Annex B, or empty."""

    def __init__(self, encoding: Encoding, description: bytes = b"") -> None:
        self.encoding = encoding
        self._kinds = KINDS[encoding]
        self._sets = RememberedSets(encoding)
        #: The parameter sets that the last key frame needs.
        self._needed: list[SetKey] = []
        #: Bytes of a length before each NAL unit; 0 in Annex B.
        self._length_bytes = 0
        self._format = PictureFormat(0, 0)
        self._numbers = FrameNumbers() if encoding == "h264" else None
        #: The beginning of the last unit's first slice.
        self._head = b""
        self._beginning: StreamBeginning | None = StreamBeginning(encoding)
        #: While the stream begins: the type of the last unit's first slice, and of its NAL unit; -1 if unknown.
        self._slice_type = self._slice_kind = -1
        self._lacks_sets = False
        self.describe(description)

    @property
    def has_lengths(self) -> bool:
        """True if packets have lengths in place of start codes, as the description says."""
        return self._length_bytes > 0

    def describe(self, description: bytes) -> None:
        """The stream's description, which may change within a stream. What cannot be read of it is ignored."""
        data = memoryview(description)
        record = bytes(data[:3]) not in (b"\0\0\0", b"\0\0\1") and len(data) > 6
        self._length_bytes = 0
        if not record:
            units: Iterator[memoryview] = annex_b(data)
        elif self.encoding == "h264" and data[0] == 1:
            self._length_bytes = (data[4] & 3) + 1
            units = avcc(data)
        elif self.encoding == "h265" and len(data) > 22:
            self._length_bytes = (data[21] & 3) + 1
            units = hvcc(data)
        else:
            return
        try:
            for unit in units:
                kind = self._type(unit)
                if kind in self._kinds.sets:
                    self._sets.remember(kind, unit)
        except (Damaged, WireError):
            return

    def read(self, data: memoryview, *, flagged: bool, pts: int | None = None) -> AccessUnit | None:
        """The access unit in a packet; None if the packet has no picture. ``flagged``: FFmpeg takes it for a key
        frame. ``pts``: when it is shown."""
        try:
            unit = self._read_lengths(data, flagged) if self._length_bytes else self._read_annex_b(data, flagged)
        except (Damaged, WireError):
            unit = self._unit((data,), False, sound=False)
            if self._numbers:
                self._numbers.forget()
        else:
            if (
                unit
                and self._numbers
                and self._numbers.follows_loss(self._head, self._format.frame_num_bits, keyframe=unit.keyframe)
            ):
                unit = unit._replace(sound=False)
        beginning = self._beginning
        if unit is None or beginning is None:
            return unit
        early = beginning.is_early(
            keyframe=unit.keyframe,
            sound=unit.sound,
            field=unit.field,
            kind=self._slice_kind,
            slice_type=self._slice_type,
            pts=pts,
        )
        if beginning.over:
            self._beginning = None
        return unit._replace(early=True) if early else unit

    @property
    def begins_anew(self) -> bool:
        """True if the last unit is a key frame that does not continue the stream: one of another connection, or behind
        a loss. A decoder must forget what came before. False for IDR pictures and H.265, which tell the decoder."""
        return self._numbers is not None and self._numbers.anew

    def _read_annex_b(self, data: memoryview, flagged: bool) -> AccessUnit | None:
        """The packet as it is, with parameter sets in between if it lacks them."""
        kinds, insert_at = self._kinds, 0
        sets: set[SetKey] = set()
        found = find_start(data)
        if found is None or any(data[: found.start()]):
            raise Damaged
        while found is not None:
            begin = found.end()
            head = bytes(data[begin : begin + _SLICE_HEAD_BYTES])
            kind = self._type(head)
            if kind in kinds.slices:
                keyframe, field = self._examine(kind, head, flagged)
                parts: tuple[bytes | memoryview, ...] = (data,)
                if keyframe and not sets.issuperset(self._needed):
                    before = (data[:insert_at],) if insert_at else ()
                    parts = (*before, self._needed_sets(), data[insert_at:])
                return self._unit(parts, keyframe, field=field)
            found = find_start(data, begin)
            end = without_zeros(data, begin, found.start() if found else len(data))
            if end == begin:
                raise Damaged
            if kind in kinds.sets:
                sets.add(self._sets.remember(kind, data[begin:end]))
            elif kind == kinds.delimiter and not insert_at:
                insert_at = end
        return None

    def _read_lengths(self, data: memoryview, flagged: bool) -> AccessUnit | None:
        """The packet's NAL units, with start codes in place of the lengths."""
        kinds, insert_at = self._kinds, 0
        sets: set[SetKey] = set()
        parts: list[bytes | memoryview] = []
        first: tuple[int, bytes] | None = None
        for unit in prefixed(data, self._length_bytes):
            kind = self._type(unit)
            if find_start(unit):
                # In Annex B it would be two NAL units.
                raise Damaged
            if kind in kinds.slices:
                first = first or (kind, bytes(unit[:_SLICE_HEAD_BYTES]))
            elif kind in kinds.sets:
                sets.add(self._sets.remember(kind, unit))
            elif kind == kinds.delimiter and not parts:
                insert_at = 2
            parts += (START_CODE, unit)
        if first is None:
            return None
        keyframe, field = self._examine(*first, flagged)
        if keyframe and not sets.issuperset(self._needed):
            parts.insert(insert_at, self._needed_sets())
        return self._unit(tuple(parts), keyframe, field=field)

    def _examine(self, kind: int, head: bytes, flagged: bool) -> tuple[bool, bool]:
        """Whether a picture whose first slice begins with ``head`` is a key frame, and one of two fields."""
        self._lacks_sets, header = False, self._kinds.header_bytes
        # The first bit after the header: the slice begins with the first block of the picture.
        if len(head) < header + 2 or not head[header] & 0x80:
            raise Damaged
        self._head = head
        if self._beginning:
            self._slice_kind = kind
            self._slice_type = self._slice_head(kind, head)[0] if self.encoding == "h264" else -1
        keyframe = kind in self._kinds.keys
        if not keyframe and not (flagged and self.encoding == "h264"):
            return False, False
        slice_type, set_id, bits = self._slice_head(kind, head)
        if not (keyframe or slice_type in _I_SLICES):
            return False, False
        self._needed = self._sets.needed(set_id)
        self._lacks_sets = not self._needed
        if self._lacks_sets:
            return False, False
        self._format = self._sets.picture_format(set_id)
        at = self._format.field_flag_at
        return True, at >= 0 and bool(bits.u(at + 1) & 1)

    def _slice_head(self, kind: int, head: bytes) -> tuple[int, int, Bits]:
        """A slice's type (-1 for H.265), the identifier of its PPS, and the bits that follow."""
        bits = Bits(head, self._kinds.header_bytes)
        if self.encoding == "h264":
            bits.ue()
            return bits.ue(), bits.ue(), bits
        bits.u(2 if kind in self._kinds.keys else 1)
        return -1, bits.ue(), bits

    def _type(self, unit: bytes | memoryview) -> int:
        """The type of a NAL unit, from its header."""
        header = unit[0] if unit else 0x80
        if header & 0x80:
            raise Damaged
        if self.encoding == "h264":
            return header & 0x1F
        if len(unit) < 2 or not unit[1] & 7:
            raise Damaged
        return header >> 1

    def _needed_sets(self) -> bytes:
        """The parameter sets that the last key frame needs, in Annex B."""
        return b"".join(START_CODE + self._sets.data(key) for key in self._needed)

    def _unit(
        self, parts: tuple[bytes | memoryview, ...], keyframe: bool, *, sound: bool = True, field: bool = False
    ) -> AccessUnit:
        width, height = self._format.width, self._format.height
        lacks_sets = sound and self._lacks_sets
        return AccessUnit(parts, keyframe, self.encoding, width, height, sound, field, lacks_sets=lacks_sets)
