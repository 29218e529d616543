"""Names that lie in a given slot of a cluster, for keys that take part in a transaction with a key whose name is
fixed."""

from __future__ import annotations

import itertools
import string
from binascii import crc_hqx
from functools import cache

from engine.errors import WireError
from engine.wire.cluster import SLOTS, slot_of

#: What is put behind a name: so many letters of these. 73,530 such endings have all slots among them.
_LETTERS = string.digits + string.ascii_letters + "-_"
_COUNT = 3


def name_in_slot(stem: str, slot: int) -> str:
    """``stem`` with an ending such that it lies in ``slot``; always the same one. The first call takes 0.1 s.

    Raises WireError if the slot does not depend on the ending: if ``stem`` has braces, and what is in them lies in
    another slot.
    """
    # The CRC of a text and its ending is the CRC of the text and as many zero bytes, XOR the CRC of the ending.
    before = crc_hqx(bytes(_COUNT), crc_hqx(stem.encode(), 0))
    for ending in (_by_crc()[(before ^ slot) % SLOTS], _LETTERS[:_COUNT]):
        if slot_of((name := stem + ending).encode()) == slot:
            return name
    raise WireError(
        f"the braces in {stem!r} keep it from lying in slot {slot} of the cluster; use names without braces"
    )


@cache
def _by_crc() -> dict[int, str]:
    """Endings by their CRC, as far as it counts for a slot."""
    found: dict[int, str] = {}
    for letters in itertools.product(_LETTERS, repeat=_COUNT):
        ending = "".join(letters)
        found.setdefault(crc_hqx(ending.encode(), 0) % SLOTS, ending)
        if len(found) == SLOTS:
            break
    return found
