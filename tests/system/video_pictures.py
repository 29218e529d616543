"""Pictures that a ``FrameStore`` decodes, compared with FFmpeg's decoding of the clip that the camera sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import redis

from engine.client.store import FrameStore
from tests.client.stored_video import Image, psnr
from tests.servers.clips import START_CODE, Stream
from tests.system.stored_units import places_of, runs_of, stored_units

SAME_DB = 50


def pictures_of(*paths: Path) -> list[Image]:
    """The pictures of clips one after the other, BGR, in the order in which they are shown."""
    found: list[Image] = []
    for path in paths:
        with av.open(str(path)) as container:
            found += [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    return found


def check_pictures(
    store: FrameStore, client: redis.Redis, camera: str, stream: Stream, references: Sequence[Image]
) -> int:
    """Every picture of a range, and the picture at every moment that is stored, is the one that the camera sent there.
    Each stored unit has its picture. ``references`` are those of ``stream``; returns the number of pictures."""
    units = stored_units(client, camera)
    order = sorted(range(len(stream.units)), key=lambda place: stream.units[place].shown)
    ranks = {place: rank for rank, place in enumerate(order)}
    wanted = {}
    for run in runs_of(units):
        for unit, place in zip(run, places_of(run, stream), strict=True):
            wanted[unit.entry.sequence] = references[ranks[place]]
    pictures = store.pictures(camera)
    shown = {}
    for picture in pictures:
        assert psnr(picture.image, wanted[picture.entry.sequence]) > SAME_DB, picture
        shown[picture.entry.sequence] = picture.unix_nano
    assert pictures.skipped == 0
    assert sorted(shown) == sorted(wanted)
    for sequence, nano in shown.items():
        for when in (nano, nano + 1000):
            at = store.picture(camera, when)
            assert at is not None
            assert (at.entry.sequence, at.unix_nano) == (sequence, nano), (
                at,
                sequence,
                nano,
                sorted(shown.items())[max(0, sequence - 8) : sequence + 8],
            )
            assert psnr(at.image, wanted[sequence]) > SAME_DB, at
    return len(shown)


def padded(stream: Stream, place: int, size: int) -> Stream:
    """The stream, whose unit at ``place`` has ``size`` bytes: a message of the camera's own (SEI) fills it up."""
    unit = stream.units[place]
    assert stream.codec == "h264"
    before = [nal for nal in unit.nals if nal[0] & 0x1F > 5]
    rest = unit.nals[len(before) :]
    left = size - len(unit.annexb) - len(START_CODE) - 3
    # A size is written as so many bytes of 255 and a last one.
    payload = left * 255 // 256
    head = bytes([6, 5]) + b"\xff" * (payload // 255) + bytes([payload % 255])
    message = head + b"\x55" * payload + b"\x80"
    units = list(stream.units)
    units[place] = unit._replace(nals=(*before, message, *rest))
    return stream._replace(units=tuple(units))
