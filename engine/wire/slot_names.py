"""Names that lie in a given slot of a cluster, for keys that take part in a transaction with a key whose name is
fixed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from engine.errors import WireError
from engine.wire.cluster import SLOTS, slot_of

#: Names that are tried. On average, one of 16,384 lies in a slot.
_TRIES_MAX = 32 * SLOTS


def name_in_slot(build: Callable[[str], str], slot: int) -> str:
    """The first of ``build("0")``, ``build("1")``, … that lies in ``slot``, always the same one. Takes 20 ms on
    average. Raises WireError if the slot does not depend on what ``build`` is given."""
    for number in count():
        if slot_of((name := build(f"{number:x}")).encode()) == slot:
            return name
        if number >= _TRIES_MAX:
            raise WireError(f"no name like {name} lies in slot {slot} of the cluster")
    raise AssertionError("count ends nowhere")
