"""NAL units written bit by bit, for what no encoder at hand makes. Syntax: ITU-T H.264, 7.3 and 9.1."""

from __future__ import annotations


def ue(number: int) -> str:
    """The bits of an unsigned number of variable length (Exp-Golomb)."""
    text = f"{number + 1:b}"
    return "0" * (len(text) - 1) + text


def nal_unit(head: bytes, bits: str) -> bytes:
    """A NAL unit: its first bytes, then bits, the bit that ends it, and bytes 3 where zeros would make a start code."""
    text = bits + "1"
    text += "0" * (-len(text) % 8)
    made, zeros = bytearray(head), 0
    for byte in int(text, 2).to_bytes(len(text) // 8):
        if zeros >= 2 and byte <= 3:
            made.append(3)
            zeros = 0
        made.append(byte)
        zeros = zeros + 1 if not byte else 0
    return bytes(made)
