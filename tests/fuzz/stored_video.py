"""Targets that decode and mux access units, and that read them from a server: whatever the bytes are, no error comes
out but ours, and no picture of a unit that was not given."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from engine.client.decoder import Decoder, Painter
from engine.client.picture_reader import PictureReader
from engine.client.queries import Queries
from engine.client.tenant import Tenant
from engine.client.transport import Query
from engine.client.video import VideoUnit
from engine.client.video_film import fragments
from engine.client.video_queries import VideoQueries
from engine.errors import EngineError
from engine.wire.journal import JournalEntry, entry_fields
from tests.client.stored_video import Clip, encoded
from tests.fuzz.replies import NANO, Connection, answering, carry

#: Between the units of an input.
UNIT = b"\xf0unit\xf0"
_INTERVAL_NANO = 100_000_000
#: Steps of a reader of pictures; a server can keep one going for ever.
_STEPS_MAX = 20


def units(data: bytes) -> list[VideoUnit]:
    """The units of an input. Its first byte says of which codec they are; of each, the first byte says whether it is a
    key frame, how many are lost before it, and when it is shown."""
    encoding = "h265" if data[:1] and data[0] & 1 else "h264"
    found = []
    sequence = 0
    for number, part in enumerate(data[1:].split(UNIT)[:20]):
        flags = part[0] if part else 0
        sequence += 1 + (flags >> 1 & 1)
        nano = NANO + number * _INTERVAL_NANO
        offset_us = ((flags >> 4) - 4) * 100_000
        payload = part[1:]
        size = len(payload)
        unit = ("v", "frames", "cam1", nano, sequence, size, 64, 48, encoding, bool(flags & 1), offset_us, payload)
        found.append(VideoUnit(*unit))
    return found


def decoder(data: bytes) -> None:
    """Units of anything: a picture has a unit that was fed, and each unit has one picture at most."""
    fed = units(data)
    decoding = Decoder()
    painter = Painter("bgr")
    pictures = [picture for unit in fed for picture in decoding.feed(unit)] + decoding.finish()
    entries = [picture.entry for picture in pictures]
    assert len({entry.entry_id for entry in entries}) == len(entries)
    assert {entry.entry_id for entry in entries} <= {unit.entry_id for unit in fed}
    assert len(entries) + decoding.skipped <= len(fed)
    for picture in pictures:
        height, width, channels = painter.paint(picture.frame).shape
        assert height * width <= 2**26
        assert channels == 3


def film(data: bytes) -> None:
    """Units of anything: an MP4, or an error of ours."""
    with contextlib.suppress(EngineError):
        pieces = list(fragments(units(data)))
        assert not pieces or pieces[0][4:8] == b"ftyp"


def video_reader(data: bytes) -> None:
    """One of the client's queries for video, chosen by the first byte, over a server's answers."""
    tenant = Tenant("v", "frames", frozenset(["cam1"]))
    frames, video = Queries(tenant, 2**20), VideoQueries(tenant, 2**20)
    options: dict[str, Any] = {"limit": None, "reverse": False}
    asked: list[Callable[[], Query[Any]]] = [
        lambda: _chunks(video.units("cam1", NANO, None, from_key=True, **options)),
        lambda: _pictures(video.picture("cam1", NANO, jpeg=frames.nearest, colour="bgr")),
        lambda: _pictures(video.pictures("cam1", NANO, None, fps=5, colour="rgb")),
        lambda: _pictures(video.tail_pictures(["cam1"], NANO, colour="bgr", block_ms=1)),
        lambda: _pictures(video.tail_pictures(["cam1"], {"cam1": f"{NANO}-1"}, colour="bgr", block_ms=1)),
    ]
    with answering(data[1:]) as plug:
        connection = Connection(plug)
        with contextlib.suppress(EngineError):
            carry(asked[data[0] % len(asked) if data else 0](), connection)
        connection.disconnect()


def _chunks(walk: Any) -> Query[None]:
    while not walk.done:
        yield from walk.chunk()


def _pictures(reader: PictureReader) -> Query[None]:
    for _ in range(_STEPS_MAX):
        if reader.done:
            return
        if reader.hungry:
            yield from reader.chunk()
        reader.work()
        picture = reader.take()
        assert picture is None or picture.camera == "cam1"


@functools.cache
def clips() -> list[Clip]:
    """Small streams of both codecs."""
    sizes: dict[str, Any] = {"width": 64, "height": 48, "frames": 8, "gop": 4}
    return [encoded("h264", bframes=2, **sizes), encoded("h265", bframes=2, **sizes), encoded("h264", **sizes)]


def unit_seeds() -> list[bytes]:
    """Inputs of ``units``."""
    found = []
    for clip in clips():
        parts = [bytes([0x40 | unit.keyframe]) + unit.data for unit in clip.units]
        found.append(bytes([clip.encoding == "h265"]) + UNIT.join(parts))
    return found


def reply_seeds(resp: Callable[[object], bytes]) -> list[bytes]:
    """Sound answers, one of them for each query for video."""
    one, other = clips()[2].units[:2]
    page = []
    for number, unit in enumerate((one, other)):
        entry = JournalEntry(NANO + number, number + 1, len(unit.data), 64, 48, "h264", unit.keyframe, 1)
        page.append([f"{NANO + number}-{number + 1}".encode(), entry_fields(entry)])
    backward, forward = resp(page[::-1]), resp(page)
    stream = resp([[b"engine:v:journal:frames/cam1", page]])
    payloads = resp([one.data, other.data])
    answers = (
        backward + forward + payloads,
        backward + payloads,
        backward + forward + payloads,
        backward + stream + payloads,
        resp(page[:1]) + backward + stream + payloads,
    )
    return [bytes([number]) + answer for number, answer in enumerate(answers)]
