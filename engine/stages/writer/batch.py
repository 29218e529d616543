"""Frames of several cameras that Redis stores in one transaction: their bytes, and what the replies say of them.

A batch is ``MULTI``, for each frame ``SET`` and ``XADD``, for each camera the lifetime of its journal, ``EXEC``. So it
is stored as a whole or not at all: a connection cut in the middle, or a server that runs out of memory on the way,
cannot leave a frame without its entry, or a later entry that locks an earlier one out. Measured, the transaction costs
nothing that can be told from noise.

Pure: no socket, no clock. Payloads are views of the rings and are not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis

from engine.errors import WireError
from engine.shm.ring import Record
from engine.wire import resp
from engine.wire.replies import shown

#: Of one part, the frames whose journal entry was refused, by their place in it, and what Redis said.
EntryErrors = dict[int, str]


class Part(NamedTuple):
    """Frames of one camera, oldest first, and how to frame them. Journal entries below ``trim_nano``, if it is not 0,
    may go. ``entry_number`` is the first entry's place in the journal, 0 where it is not known."""

    framing: resp.FrameFraming
    records: Sequence[Record]
    trim_nano: int = 0
    entry_number: int = 0

    @property
    def replies(self) -> int:
        """Replies that it brings: those of its frames, and those of the journal's lifetime."""
        return len(self.records) * self.framing.replies_per_frame + (2 if self.trim_nano else 1)


class Batch:
    """One transaction: ``parts``, each of another camera."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        #: Replies that must come: MULTI's, one for each command that was queued, EXEC's.
        self.replies = 2 + sum(part.replies for part in parts)

    def buffers(self) -> list[bytes | memoryview]:
        """What to send: small byte strings around views of the payloads."""
        buffers: list[bytes | memoryview] = []
        pending = resp.MULTI
        for framing, records, trim_nano, first_number in self.parts:
            number, step = first_number, 1 if first_number else 0
            for nano, sequence, width, height, encoding, keyframe, _, _, payload, _ in records:
                size = len(payload)
                buffers.append(pending + framing.before(nano, sequence, size))
                buffers.append(payload)
                pending = framing.after(nano, sequence, size, width, height, encoding, keyframe, number)
                number += step
            pending += framing.keep()
            if trim_nano:
                pending += framing.trim(trim_nano)
        buffers.append(pending + resp.EXEC)
        return buffers

    def parse(self, replies: Sequence[Any]) -> list[EntryErrors]:
        """What became of a batch that brought ``replies``, as many as it must: its frames are stored, and of each part
        these entries were refused.

        Raises hiredis.ReplyError, as Redis sent it, where Redis took nothing of it; WireError for what is no answer to
        a batch, after which nobody can tell.
        """
        results = replies[-1]
        error = next((reply for reply in replies[:-1] if isinstance(reply, hiredis.ReplyError)), None)
        if isinstance(results, hiredis.ReplyError):
            # EXEC only says that the batch was refused; the command's own reply says why.
            raise error or results
        # EXEC has one result for each command that was queued.
        if error or not isinstance(results, list) or len(results) != self.replies - 2:
            raise WireError(f"it answered {shown(results)} to EXEC, not {self.replies - 2} results")
        refused: list[EntryErrors] = []
        position = 0
        for part in self.parts:
            refused.append(_entry_errors(part, results, position))
            position += part.replies
        return refused


def _entry_errors(part: Part, results: Sequence[Any], position: int) -> EntryErrors:
    """What was refused of a part whose results begin at ``position``."""
    errors: EntryErrors = {}
    for place in range(len(part.records)):
        stored, entered = results[position : position + 2]
        position += part.framing.replies_per_frame
        if stored != b"OK":
            if isinstance(stored, hiredis.ReplyError):
                raise stored
            raise WireError(f"it answered {shown(stored)} to SET")
        if isinstance(entered, hiredis.ReplyError):
            errors[place] = str(entered)
        elif not isinstance(entered, bytes):
            raise WireError(f"it answered {shown(entered)} to XADD")
    return errors
