"""H.264 whose pictures are two fields each, made by hand: no encoder at hand makes them.

Pictures are one colour. The first field of a key frame is an IDR picture of I_PCM macroblocks, whose samples are
written as they are. All other fields are P pictures that repeat the field before (P_Skip). Syntax: ITU-T H.264, 7.3.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.nal_bits import nal_unit, ue

#: Macroblocks a row, and of a field, rows.
COLUMNS, ROWS = 4, 2
#: Width and height of a picture in pixels: each field has every other row.
SIZE = (16 * COLUMNS, 32 * ROWS)


class _Writer:
    """Bits of a NAL unit."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def u(self, bits: int, value: int) -> None:
        self._bits.append(f"{value:0{bits}b}")

    def ue(self, value: int) -> None:
        self._bits.append(ue(value))

    def se(self, value: int) -> None:
        self.ue(2 * value - 1 if value > 0 else -2 * value)

    def align(self, bit: str) -> None:
        self._bits.append(bit * (-sum(map(len, self._bits)) % 8))

    def unit(self, header: int) -> bytes:
        """The NAL unit, with the bits that end it."""
        return nal_unit(bytes([header]), "".join(self._bits))


def sets() -> tuple[bytes, bytes]:
    """The SPS, which allows fields, and the PPS."""
    sps = _Writer()
    for byte in (77, 0, 30):
        sps.u(8, byte)
    sps.ue(0)
    sps.ue(0)
    sps.ue(2)
    sps.ue(1)
    sps.u(1, 0)
    sps.ue(COLUMNS - 1)
    sps.ue(ROWS - 1)
    # Fields are allowed, macroblocks are not mixed, 8x8 direct inference is required, no cropping, no VUI.
    for flag in (0, 0, 1, 0, 0):
        sps.u(1, flag)
    pps = _Writer()
    pps.ue(0)
    pps.ue(0)
    pps.u(2, 0)
    for _ in range(3):
        pps.ue(0)
    pps.u(3, 0)
    for _ in range(3):
        pps.se(0)
    pps.u(3, 0)
    return sps.unit(0x67), pps.unit(0x68)


def field(number: int, *, key: bool, bottom: bool, value: int = 128) -> bytes:
    """A field of picture ``number``, counted from its key frame; a key field has brightness ``value``."""
    slice_ = _Writer()
    slice_.ue(0)
    slice_.ue(7 if key else 5)
    slice_.ue(0)
    slice_.u(4, number % 16)
    slice_.u(1, 1)
    slice_.u(1, bottom)
    if key:
        slice_.ue(0)
        # No earlier pictures are kept or output.
        slice_.u(2, 0)
    else:
        # One reference: the field before. No reordering, no marking.
        slice_.u(1, 1)
        slice_.ue(0)
        slice_.u(2, 0)
    slice_.se(0)
    if key:
        for _ in range(COLUMNS * ROWS):
            slice_.ue(25)
            slice_.align("0")
            for sample in [value] * 256 + [128] * 128:
                slice_.u(8, sample)
    else:
        slice_.ue(COLUMNS * ROWS)
    return slice_.unit(0x65 if key else 0x61)


def pictures(
    count: int, gop: int, values: tuple[int, ...] = (60, 120, 180)
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """The NAL units of the two fields of ``count`` pictures, with a key frame each ``gop``. The parameter sets come
    with each key frame, whose brightness is the next of ``values``."""
    for number in range(count):
        key = number % gop == 0
        head = list(sets()) if key else []
        value = values[number // gop % len(values)]
        yield (
            [*head, field(number % gop, key=key, bottom=False, value=value)],
            [field(number % gop, key=False, bottom=True)],
        )
