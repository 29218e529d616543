"""Parameter sets of H.264 and H.265: the identifiers that they carry, and the size of the pictures that they describe.

NAL units follow ITU-T H.264 and H.265, clauses 7.3: a header, then bits, in which a byte 3 after two zero bytes is
no data ("emulation prevention"). A picture's slice names a picture parameter set (PPS), and that names a sequence
parameter set (SPS), which has the size in pixels. All input is untrusted.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import WireError

#: Longest parameter set that is read, in bytes. Those of real streams have less than 500.
SET_BYTES_MAX = 4096
#: Profiles of H.264 whose SPS says more about colours and scaling.
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
#: The most bits of a ``frame_num`` that are valid.
_FRAME_NUM_BITS_MAX = 16
#: The most zeros before the value of a number: values have at most 32 bits.
_ZEROS_MAX = 32


class PictureFormat(NamedTuple):
    """What an SPS says about the pictures: their size in pixels, and how their slices begin.

    ``frame_num_bits``: the bits of a slice's ``frame_num``, if lost pictures can be found by it; otherwise 0.

    ``field_flag_at``: the number of bits between a slice's PPS identifier and its flag for a field; -1 if no picture of
    the stream is a field.
    """

    width: int
    height: int
    field_flag_at: int = -1
    frame_num_bits: int = 0


class Bits:
    """The bits of a NAL unit after ``header`` bytes, read from the first to the last. Raises WireError at the end."""

    def __init__(self, unit: bytes | memoryview, header: int) -> None:
        data = bytes(unit[header:]).replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def u(self, bits: int) -> int:
        """The next number of ``bits`` bits."""
        self._left -= bits
        if self._left < 0:
            raise WireError("a parameter set is cut short")
        return self._value >> self._left & ((1 << bits) - 1)

    def ue(self) -> int:
        """The next number in Exp-Golomb code."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > _ZEROS_MAX:
                raise WireError("a parameter set has a number of more than 32 bits")
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """The next signed number in Exp-Golomb code."""
        number = self.ue()
        return (number + 1) // 2 if number & 1 else -(number // 2)


def h264_sps_id(unit: bytes | memoryview) -> int:
    """The identifier of an SPS of H.264."""
    return Bits(unit[:16], 4).ue()


def h264_format(unit: bytes | memoryview) -> PictureFormat:
    """What an SPS of H.264 says. Raises WireError."""
    bits = Bits(unit[:SET_BYTES_MAX], 1)
    profile = bits.u(8)
    bits.u(16)
    bits.ue()
    chroma, separate = 1, 0
    if profile in _HIGH_PROFILES:
        chroma = bits.ue()
        separate = bits.u(1) if chroma == 3 else 0
        bits.ue()
        bits.ue()
        bits.u(1)
        if bits.u(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    frame_number_bits = bits.ue() + 4
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.u(1)
        bits.se()
        bits.se()
        for _ in range(_bounded(bits.ue(), 255)):
            bits.se()
    bits.ue()
    gaps_allowed = bits.u(1)
    columns, rows = bits.ue() + 1, bits.ue() + 1
    frames_only = bits.u(1)
    if not frames_only:
        bits.u(1)
    bits.u(1)
    left = right = top = bottom = 0
    if bits.u(1):
        left, right, top, bottom = bits.ue(), bits.ue(), bits.ue(), bits.ue()
    # Cropping counts in samples of colour, and in pairs of rows if pictures may be fields.
    across = 2 if chroma in (1, 2) and not separate else 1
    down = (2 if chroma == 1 and not separate else 1) * (2 - frames_only)
    width = 16 * columns - across * (left + right)
    height = 16 * rows * (2 - frames_only) - down * (top + bottom)
    field_flag_at = -1 if frames_only else frame_number_bits + 2 * separate
    # With separate planes of colour, something stands before a slice's frame_num.
    countable = not (gaps_allowed or separate) and frame_number_bits <= _FRAME_NUM_BITS_MAX
    return _checked(PictureFormat(width, height, field_flag_at, frame_number_bits if countable else 0))


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def h265_sps_id(unit: bytes | memoryview) -> int:
    """The identifier of an SPS of H.265."""
    return _after_h265_profile(unit).ue()


def h265_format(unit: bytes | memoryview) -> PictureFormat:
    """What an SPS of H.265 says. Raises WireError."""
    bits = _after_h265_profile(unit)
    bits.ue()
    chroma = bits.ue()
    separate = bits.u(1) if chroma == 3 else 0
    width, height = bits.ue(), bits.ue()
    if bits.u(1):
        across = 2 if chroma in (1, 2) and not separate else 1
        down = 2 if chroma == 1 and not separate else 1
        width -= across * (bits.ue() + bits.ue())
        height -= down * (bits.ue() + bits.ue())
    return _checked(PictureFormat(width, height))


def _after_h265_profile(unit: bytes | memoryview) -> Bits:
    """The bits of an SPS of H.265 from its identifier on."""
    bits = Bits(unit[:SET_BYTES_MAX], 2)
    bits.u(4)
    layers = bits.u(3)
    bits.u(1 + 88 + 8)
    present = [(bits.u(1), bits.u(1)) for _ in range(layers)]
    if layers:
        bits.u(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.u(88 * has_profile + 8 * has_level)
    return bits


def _bounded(number: int, limit: int) -> int:
    if number > limit:
        raise WireError(f"a parameter set says {number}, at most {limit} is valid")
    return number


def _checked(picture: PictureFormat) -> PictureFormat:
    # Neither a ring's record nor a JPEG has more pixels a side.
    if not (0 < picture.width <= 65_535 and 0 < picture.height <= 65_535):
        raise WireError(f"a parameter set says {picture.width}x{picture.height} pixels")
    return picture
