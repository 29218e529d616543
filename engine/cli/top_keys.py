"""Keys of a terminal, from the bytes that it sends. Pure: bytes in, names of keys out."""

from __future__ import annotations

import codecs

#: What terminals send for keys without a character, after ESC.
_SEQUENCES = {
    b"[A": "up",
    b"[B": "down",
    b"[C": "right",
    b"[D": "left",
    b"[H": "home",
    b"[F": "end",
    b"OA": "up",
    b"OB": "down",
    b"OC": "right",
    b"OD": "left",
    b"OH": "home",
    b"OF": "end",
    b"[1~": "home",
    b"[4~": "end",
    b"[5~": "page up",
    b"[6~": "page down",
    b"[7~": "home",
    b"[8~": "end",
}
_CONTROLS = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x0c": "redraw",
    "\x03": "q",
    "\x04": "q",
}
_ESCAPE = 0x1B
#: Bytes of the longest sequence that is waited for; a longer one is no key.
_SEQUENCE_MAX = 16


class Keys:
    """Turns bytes into keys. A sequence may come in pieces; ``pending`` says that one has begun."""

    def __init__(self) -> None:
        self._sequence = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    @property
    def pending(self) -> bool:
        """True while ESC, or the beginning of a sequence, waits for its rest."""
        return bool(self._sequence)

    def feed(self, data: bytes) -> list[str]:
        """The keys that these bytes complete: a character, or a name such as ``up``. Unknown sequences are none."""
        keys: list[str] = []
        for byte in data:
            if not self._sequence:
                if byte == _ESCAPE:
                    self._sequence = b"\x1b"
                else:
                    keys += self._characters(byte)
            elif byte == _ESCAPE:
                keys += self.flush()
                self._sequence = b"\x1b"
            else:
                self._sequence += bytes([byte])
                keys += self._completed()
        return keys

    def flush(self) -> list[str]:
        """Nothing more came for a while: a lone ESC is the key of that name, another beginning is no key."""
        keys = ["esc"] if self._sequence == b"\x1b" else []
        self._sequence = b""
        return keys

    def _characters(self, byte: int) -> list[str]:
        text = self._decoder.decode(bytes([byte]))
        if text in _CONTROLS:
            return [_CONTROLS[text]]
        return [text] if text.isprintable() and text else []

    def _completed(self) -> list[str]:
        """The key, once the sequence is whole: ESC O and one byte, or ESC [ up to a byte from @ to ~."""
        rest = self._sequence[1:]
        if rest in (b"[", b"O"):
            return []
        if rest[:1] not in (b"[", b"O"):
            # Alt and a character: Esc, then the character.
            self._sequence = b""
            return ["esc", *self._characters(rest[0])]
        if rest[:1] == b"O" or 0x40 <= rest[-1] <= 0x7E or len(rest) > _SEQUENCE_MAX:
            self._sequence = b""
            return [_SEQUENCES[rest]] if rest in _SEQUENCES else []
        return []
