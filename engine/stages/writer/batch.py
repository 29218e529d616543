"""Frames of several cameras that Redis stores in one transaction: their bytes, and the meaning of the replies.

A batch is ``MULTI``, for each frame ``SET`` and ``XADD``, for each camera the lifetime of its journal, ``EXEC``. So it
is stored as a whole or not at all. A broken connection, or a server that runs out of memory, cannot leave a frame
without its entry, or a later entry that blocks an earlier one. The measured cost of the transaction is within noise.

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

#: The refused journal entries of one part: place of the frame in the part -> error from Redis.
EntryErrors = dict[int, str]


class Part(NamedTuple):
    """Frames of one camera, oldest first, and their framing.

    Journal entries below ``trim_nano``, if it is not 0, are trimmed. ``entry_number`` is the number of the first
    frame's journal entry; 0 if unknown.
    """

    framing: resp.FrameFraming
    records: Sequence[Record]
    trim_nano: int = 0
    entry_number: int = 0

    @property
    def replies(self) -> int:
        """Number of replies: those for its frames, and those for the journal's lifetime."""
        return len(self.records) * self.framing.replies_per_frame + (2 if self.trim_nano else 1)


class Batch:
    """One transaction: ``parts``, one per camera."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        #: Number of expected replies: MULTI's, one for each queued command, EXEC's.
        self.replies = 2 + sum(part.replies for part in parts)

    def buffers(self) -> list[bytes | memoryview]:
        """The buffers to send: small byte strings around views of the payloads."""
        buffers: list[bytes | memoryview] = []
        pending = resp.MULTI
        for framing, records, trim_nano, first_number in self.parts:
            number, step = first_number, 1 if first_number else 0
            for nano, sequence, width, height, encoding, keyframe, _, _, payload, _, offset, camera_time in records:
                size = len(payload)
                buffers.append(pending + framing.before(nano, sequence, size))
                buffers.append(payload)
                pending = framing.after(
                    nano, sequence, size, width, height, encoding, keyframe, number, offset, camera_time
                )
                number += step
            pending += framing.keep()
            if trim_nano:
                pending += framing.trim(trim_nano)
        buffers.append(pending + resp.EXEC)
        return buffers

    def parse(self, replies: Sequence[Any]) -> list[EntryErrors]:
        """Check the ``replies`` to this batch, as many as expected. Its frames are stored; returns the refused entries
        of each part.

        Raises hiredis.ReplyError, as Redis sent it, if Redis stored nothing. Raises WireError for replies that do not
        fit a batch; its fate is then unknown.
        """
        results = _results(replies, self.replies - 2)
        refused: list[EntryErrors] = []
        position = 0
        for part in self.parts:
            refused.append(_entry_errors(part, results, position))
            position += part.replies
        return refused


class Entries:
    """The journal entries of one part as a transaction of their own: ``MULTI``, for each frame ``XADD``, the lifetime
    of the journal, ``EXEC``. For a cluster, where the frames are on other nodes and are stored before."""

    def __init__(self, part: Part) -> None:
        self.part = part
        #: Number of expected replies: MULTI's, one for each queued command, EXEC's.
        self.replies = 2 + len(part.records) + (2 if part.trim_nano else 1)

    def buffers(self) -> list[bytes | memoryview]:
        """The bytes to send."""
        framing, records, trim_nano, number = self.part
        step = 1 if number else 0
        skipped = len(framing.set_end)
        words = [resp.MULTI]
        for nano, sequence, width, height, encoding, keyframe, _, _, payload, _, offset, camera_time in records:
            after = framing.after(
                nano, sequence, len(payload), width, height, encoding, keyframe, number, offset, camera_time
            )
            words.append(after[skipped:])
            number += step
        words.append(framing.keep())
        if trim_nano:
            words.append(framing.trim(trim_nano))
        words.append(resp.EXEC)
        return [b"".join(words)]

    def parse(self, replies: Sequence[Any]) -> list[EntryErrors]:
        """As ``Batch.parse``, for the one part."""
        errors: EntryErrors = {}
        results = _results(replies, self.replies - 2)
        for place, entered in enumerate(results[: len(self.part.records)]):
            _note_entry(errors, place, entered)
        return [errors]


def _results(replies: Sequence[Any], count: int) -> list[Any]:
    """The ``count`` results of a transaction, one for each queued command. Raises hiredis.ReplyError if nothing was
    done, WireError for replies that are none of a transaction."""
    results = replies[-1]
    error = next((reply for reply in replies[:-1] if isinstance(reply, hiredis.ReplyError)), None)
    if isinstance(results, hiredis.ReplyError):
        # EXEC only reports that the transaction was refused; the command's own reply gives the reason.
        raise error or results
    if error or not isinstance(results, list) or len(results) != count:
        raise WireError(f"it answered {shown(results)} to EXEC, not {count} results")
    return results


def _note_entry(errors: EntryErrors, place: int, entered: object) -> None:
    """Note the result of XADD for the frame at ``place``, if it is an error."""
    if isinstance(entered, hiredis.ReplyError):
        errors[place] = str(entered)
    elif not isinstance(entered, bytes):
        raise WireError(f"it answered {shown(entered)} to XADD")


def _entry_errors(part: Part, results: Sequence[Any], position: int) -> EntryErrors:
    """The refused entries of the part whose results begin at ``position``."""
    errors: EntryErrors = {}
    for place in range(len(part.records)):
        stored, entered = results[position : position + 2]
        position += part.framing.replies_per_frame
        if stored != b"OK":
            if isinstance(stored, hiredis.ReplyError):
                raise stored
            raise WireError(f"it answered {shown(stored)} to SET")
        if type(entered) is not bytes:
            _note_entry(errors, place, entered)
    return errors
