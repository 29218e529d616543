"""The parameter sets of a stream as a decoder holds them: the newest by kind and identifier, and which a picture needs.

A slice names a PPS, that names an SPS, and in H.265 that names a VPS. A set that changes takes those with it that name
it: their sender made them for the old one, and FFmpeg's decoders forget them as well. So after a change of resolution
nothing of the former sets is left to be put before a later picture.
"""

from __future__ import annotations

from engine.errors import WireError
from engine.wire import parameter_sets
from engine.wire.nal_units import KINDS, find_start
from engine.wire.parameter_sets import SET_BYTES_MAX, Bits, PictureFormat

#: The type of a NAL unit that is a parameter set, and the set's identifier.
SetKey = tuple[int, int]
#: The most bytes of parameter sets that are remembered.
_REMEMBERED_BYTES_MAX = 65_536
#: H.264: the type of a NAL unit that goes with an SPS and has its identifier (auxiliary pictures).
_SPS_EXTENSION = 13


class RememberedSets:
    """The parameter sets of one stream of H.264 or H.265, the ``encoding``."""

    def __init__(self, encoding: str) -> None:
        self._h264 = encoding == "h264"
        self._kinds = KINDS[encoding]
        self._sets: dict[SetKey, bytes] = {}
        #: Which set each set names. It may be unknown.
        self._names: dict[SetKey, SetKey] = {}
        #: Bytes of all sets.
        self.size = 0
        #: Formats of the pictures by the bytes of their SPS.
        self._formats: dict[bytes, PictureFormat] = {}

    def remember(self, kind: int, unit: memoryview) -> SetKey:
        """Remember a parameter set, a NAL unit of type ``kind``. Raises WireError if it has no identifier."""
        if len(unit) > SET_BYTES_MAX or find_start(unit):
            raise WireError("a parameter set is too long, or has a start code")
        identifier, named = self._identify(kind, unit)
        key, data = (kind, identifier), bytes(unit)
        if self._sets.get(key) == data:
            return key
        if key in self._sets:
            self._forget(key)
        if self.size + len(data) > _REMEMBERED_BYTES_MAX:
            self._sets.clear()
            self._names.clear()
            self.size = 0
        self._sets[key] = data
        self.size += len(data)
        if named:
            self._names[key] = named
        return key

    def needed(self, pps_id: int) -> list[SetKey]:
        """The sets that a picture needs whose first slice names this PPS, each after the one that it names; empty if
        one of them is unknown. Other slices and the pictures that follow may name any other PPS of the same SPS."""
        sps = self._names.get((self._kinds.pps, pps_id))
        if sps is None or sps not in self._sets:
            return []
        vps = self._names.get(sps)
        if vps is not None and vps not in self._sets:
            return []
        return sorted(([vps] if vps else []) + [sps] + [key for key, named in self._names.items() if named == sps])

    def picture_format(self, pps_id: int) -> PictureFormat:
        """What the SPS of this PPS says, if neither is unknown. Raises WireError if the SPS is damaged."""
        sps = self._sets[self._names[self._kinds.pps, pps_id]]
        known = self._formats.get(sps)
        if known is None:
            known = (parameter_sets.h264_format if self._h264 else parameter_sets.h265_format)(sps)
            self._formats = {sps: known}
        return known

    def data(self, key: SetKey) -> bytes:
        """A set that is known, without a start code."""
        return self._sets[key]

    def _identify(self, kind: int, unit: memoryview) -> tuple[int, SetKey | None]:
        """A set's identifier, and the set that it names."""
        kinds = self._kinds
        if kind == kinds.pps:
            bits = Bits(unit[:16], kinds.header_bytes)
            return bits.ue(), (kinds.sps, bits.ue())
        if kind == _SPS_EXTENSION and self._h264:
            identifier = Bits(unit[:16], kinds.header_bytes).ue()
            return identifier, (kinds.sps, identifier)
        if self._h264:
            return parameter_sets.h264_sps_id(unit), None
        if kind == kinds.sps:
            return parameter_sets.h265_sps_id(unit), (kinds.vps, unit[2] >> 4)
        return Bits(unit[:8], kinds.header_bytes).u(4), None

    def _forget(self, key: SetKey) -> None:
        """Forget a set, and those that name it."""
        self.size -= len(self._sets.pop(key))
        self._names.pop(key, None)
        for other in [other for other, named in self._names.items() if named == key]:
            self._forget(other)
