"""The name of a codec as browsers take it: the ``codecs`` parameter of a media type (RFC 6381).

H.264: ``avc1.`` and the profile, the constraints and the level of the SPS as six hexadecimal digits. H.265: ``hvc1.``,
then the fields of profile_tier_level as ISO 14496-15, annex E, has them. All input is untrusted.
"""

from __future__ import annotations

from engine.errors import WireError
from engine.wire.nal_units import KINDS, annex_b

#: Bytes of an H.265 SPS up to the end of the general level: two of the header, one of identifiers, twelve.
_H265_BYTES = 15
#: Bytes of an SPS that are looked at: its beginning, with the bytes that prevent start codes in it.
_SPS_BYTES_MAX = 64


def codec_string(encoding: str, key_frame: bytes) -> str:
    """The name of the codec of a stored key frame, which begins with its parameter sets. Raises WireError."""
    kinds = KINDS[encoding]
    for unit in annex_b(memoryview(key_frame)):
        if encoding == "h264" and unit[0] & 0x1F == kinds.sps:
            if len(unit) < 4:
                break
            return f"avc1.{unit[1:4].hex()}"
        if encoding == "h265" and unit[0] >> 1 & 0x3F == kinds.sps:
            return _h265(bytes(unit[:_SPS_BYTES_MAX]))
    raise WireError("a key frame without a whole SPS")


def _h265(sps: bytes) -> str:
    data = sps.replace(b"\0\0\3", b"\0\0")[:_H265_BYTES]
    if len(data) < _H265_BYTES:
        raise WireError("an SPS of H.265 is cut short")
    space, tier, profile = data[3] >> 6, data[3] >> 5 & 1, data[3] & 0x1F
    compatible = int(f"{int.from_bytes(data[4:8]):032b}"[::-1], 2)
    constraints = data[8:14].rstrip(b"\0")
    parts = [
        f"{('', 'A', 'B', 'C')[space]}{profile}",
        f"{compatible:X}",
        f"{'LH'[tier]}{data[14]}",
        *(f"{byte:X}" for byte in constraints),
    ]
    return f"hvc1.{'.'.join(parts)}"
