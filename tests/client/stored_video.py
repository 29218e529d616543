"""A Redis stocked with video as the engine's writer stores it, and the pictures that its decoding must give.

``clip`` gives the access units of real footage (or of a clip made on the spot where the footage is missing),
``encoded`` those of a generated clip. ``stock_video`` stores them. ``decoded`` is the reference: the pictures of all.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import redis
from av.bitstream import BitStreamFilterContext
from numpy.typing import NDArray

from engine.wire import keys
from engine.wire.journal import JournalEntry, entry_fields, entry_id
from engine.wire.state import CameraStatus, encode_status
from tests.client.stocked import PREFIX, T0, TTL_MS, VHOST, pipe
from tests.system.clips import car_clip, person_clip

#: H.264 Main with B-frames, a key frame every 10 pictures, 10 fps.
PERSON = "one-by-one-person-detection.mp4"
#: H.264 Baseline, a key frame every 60 pictures, 12.5 fps.
CAR = "car-detection.mp4"
#: FFmpeg's names of encodings.
CODECS = {"h264": "h264", "h265": "hevc"}
_ENCODERS = {"h264": "libx264", "h265": "libx265"}
_MICROSECONDS = 10**6

Image = NDArray[np.uint8]


class Unit(NamedTuple):
    """An access unit as a camera sends it, in decode order: Annex B, and when it is shown, in microseconds after the
    clip's first picture."""

    data: bytes
    keyframe: bool
    shown_us: int


class Clip(NamedTuple):
    """The access units of a clip, in decode order, and how far apart its pictures are, in microseconds."""

    encoding: str
    width: int
    height: int
    interval_us: int
    units: tuple[Unit, ...]

    def part(self, first: int, last: int | None = None) -> Clip:
        """The units from one number to another."""
        return self._replace(units=self.units[first:last])


class StoredUnit(NamedTuple):
    """An access unit as it is stored. Of one that is not ``there`` only the journal entry stands."""

    camera: str
    unix_nano: int
    sequence: int
    offset_us: int
    unit: Unit
    encoding: str
    width: int
    height: int
    there: bool = True

    @property
    def shown_nano(self) -> int:
        return self.unix_nano + self.offset_us * 1000

    def key(self, vhost: str = VHOST, prefix: str = PREFIX) -> str:
        return keys.build_video_key(keys.FrameKey(vhost, prefix, self.camera, self.unix_nano, self.sequence))


class Shown(NamedTuple):
    """A picture of the reference: when it is shown, the number of its access unit in decode order, the picture."""

    shown_us: int
    number: int
    image: Image


@functools.cache
def clip(name: str, pictures: int | None = None) -> Clip:
    """The first pictures (None: all) of real footage. Without the footage: of a made clip with the same structure."""
    return read_clip({PERSON: person_clip, CAR: car_clip}[name](), pictures)


def read_clip(path: Path, pictures: int | None = None) -> Clip:
    """The access units of an MP4 file's video, as Annex B."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        encoding = next(name for name, codec in CODECS.items() if codec == stream.codec_context.name)
        to_annex_b = BitStreamFilterContext(f"{CODECS[encoding]}_mp4toannexb", stream)
        assert stream.time_base is not None
        assert stream.average_rate is not None
        packets = [one for packet in container.demux(stream) if packet.size for one in to_annex_b.filter(packet)]
        interval_us = round(_MICROSECONDS / stream.average_rate)
        size = stream.codec_context.width, stream.codec_context.height
        units = _units(packets[:pictures], stream.time_base)
    return Clip(encoding, *size, interval_us, units)


@functools.cache
def encoded(
    encoding: str = "h264",
    *,
    width: int = 320,
    height: int = 240,
    frames: int = 40,
    fps: Fraction | int = 10,
    gop: int = 10,
    bframes: int = 0,
    params: str = "",
    profile: str = "",
    seed: int = 0,
) -> Clip:
    """A generated clip. ``params`` are x264's or x265's own, such as ``open-gop=1``."""
    context: Any = av.CodecContext.create(_ENCODERS[encoding], "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.framerate = Fraction(fps)
    context.time_base = 1 / Fraction(fps)
    context.gop_size = gop
    words = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={bframes}:repeat-headers=1"
    words = ":".join(filter(None, (words, "log-level=none" if encoding == "h265" else "", params)))
    context.options = {"preset": "veryfast", "crf": "23", f"{_ENCODERS[encoding][3:]}-params": words}
    if profile:
        context.options |= {"profile": profile}
    packets = []
    for number in range(frames):
        picture = av.VideoFrame.from_ndarray(_scene(width, height, number, seed), format="bgr24")
        picture = picture.reformat(format="yuv420p")
        picture.pts = number
        packets += context.encode(picture)
    packets += context.encode(None)
    return Clip(encoding, width, height, round(_MICROSECONDS / fps), _units(packets, context.time_base))


def _units(packets: Sequence[av.Packet], time_base: Fraction) -> tuple[Unit, ...]:
    times = [round(packet.pts * time_base * _MICROSECONDS) for packet in packets if packet.pts is not None]
    first = min(times)
    return tuple(
        Unit(bytes(packet), packet.is_keyframe, shown - first) for packet, shown in zip(packets, times, strict=True)
    )


def _scene(width: int, height: int, number: int, seed: int) -> Image:
    """A picture of a moving square on a slope of colours, with some noise, so that each differs from the others."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([columns * 255 // width, rows * 255 // height, (columns + rows + seed * 40) // 3 % 256], axis=2)
    side = min(width, height) // 4
    left, top = (number * 7) % (width - side), (number * 5) % (height - side)
    picture[top : top + side, left : left + side] = (number * 11 + seed * 50) % 256
    noise = np.random.default_rng(seed * 10_000 + number).integers(0, 8, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


@functools.cache
def decoded(source: Clip, colour: str = "bgr24") -> tuple[Shown, ...]:
    """FFmpeg's decoding of a whole clip, in the order in which its pictures are shown."""
    context: Any = av.CodecContext.create(CODECS[source.encoding], "r")
    context.thread_count = 1
    context.open()
    context.reorder_depth = 4
    shown = []
    for packet in (*_packets(source.units), None):
        for frame in context.decode(packet):
            image = frame.to_ndarray(format=colour)
            shown.append(Shown(source.units[frame.pts].shown_us, frame.pts, image))
    return tuple(shown)


def _packets(units: Iterable[Unit]) -> Iterator[av.Packet]:
    for number, unit in enumerate(units):
        packet = av.Packet(unit.data)
        packet.pts = number
        yield packet


def psnr(one: Image, other: Image) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    if np.array_equal(one, other):
        return float("inf")
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def arrivals(
    source: Clip,
    camera: str = "cam1",
    *,
    first: int = T0,
    sequence: int = 1,
    jitter: Callable[[int], int] = lambda number: 0,
) -> list[StoredUnit]:
    """A clip as a camera sends it in real time: a unit each interval, moved by ``jitter`` nanoseconds, in decode order.

    ``first`` is the nanosecond in which the first picture is shown.
    """
    stored = []
    last = 0
    for number, unit in enumerate(source.units):
        last = max(first + number * source.interval_us * 1000 + jitter(number), last + 1)
        shown = first + unit.shown_us * 1000
        stored.append(
            StoredUnit(
                camera,
                last,
                keys.sequence_after(sequence - 1, number + 1),
                (shown - last) // 1000,
                unit,
                source.encoding,
                source.width,
                source.height,
            )
        )
    return stored


def stock_video(
    client: redis.Redis,
    units: Iterable[StoredUnit],
    *,
    vhost: str = VHOST,
    prefix: str = PREFIX,
    list_cameras: bool = True,
    ttl_ms: int = TTL_MS,
) -> None:
    """Store units, which are in order within a camera, as the writer does. Their cameras are listed in the hash."""
    number = 0
    cameras = set()

    def commands() -> Iterator[tuple[Any, ...]]:
        nonlocal number
        for stored in units:
            number += 1
            cameras.add(stored.camera)
            data = stored.unit.data
            if stored.there:
                yield "SET", stored.key(vhost, prefix), data, "PX", ttl_ms
            entry = JournalEntry(
                stored.unix_nano,
                stored.sequence,
                len(data),
                stored.width,
                stored.height,
                stored.encoding,
                stored.unit.keyframe,
                number,
                stored.offset_us,
            )
            journal = keys.video_journal_key(vhost, prefix, stored.camera)
            yield "XADD", journal, entry_id(stored.unix_nano, stored.sequence), *entry_fields(entry)
        for camera in cameras:
            yield "PEXPIRE", keys.video_journal_key(vhost, prefix, camera), ttl_ms
            if list_cameras:
                status = CameraStatus("active", T0, codec="H264", mode="transcode")
                yield "HSET", keys.cameras_key(vhost, prefix), camera, encode_status(status)

    pipe(client, commands())


def gone(units: Sequence[StoredUnit], *numbers: int) -> list[StoredUnit]:
    """The units; those of these numbers have expired, their journal entries stand."""
    return [stored._replace(there=number not in numbers) for number, stored in enumerate(units)]


def dropped(units: Sequence[StoredUnit], *numbers: int) -> list[StoredUnit]:
    """The units without those of these numbers, which were never stored: they leave a gap in the sequence."""
    return [stored for number, stored in enumerate(units) if number not in numbers]


def damaged(units: Sequence[StoredUnit], number: int, change: Callable[[bytes], bytes]) -> list[StoredUnit]:
    """The units, one of them with other bytes."""
    return [
        stored._replace(unit=stored.unit._replace(data=change(stored.unit.data))) if at == number else stored
        for at, stored in enumerate(units)
    ]


def joined(*parts: Clip, camera: str = "cam1", first: int = T0, lost: int = 0) -> list[StoredUnit]:
    """Clips one after the other, as one camera sends them; ``lost`` sequences are missing between two of them."""
    stored: list[StoredUnit] = []
    for part in parts:
        sequence = keys.sequence_after(stored[-1].sequence, 1 + lost) if stored else 1
        begin = max(one.shown_nano for one in stored) + part.interval_us * 1000 if stored else first
        # Its first unit arrives when its first picture is shown, and behind all of the part before.
        stored += arrivals(part, camera, first=max(begin, stored[-1].unix_nano + 1 if stored else 0), sequence=sequence)
    return stored


def expected(stored: Sequence[StoredUnit], *parts: Clip) -> list[tuple[int, Image]]:
    """(nanosecond when it is shown, picture) of each picture of ``joined`` parts, in order."""
    numbers = itertools.accumulate((len(part.units) for part in parts), initial=0)
    found = []
    for part, first in zip(parts, numbers, strict=False):
        found += [(stored[first + shown.number].shown_nano, shown.image) for shown in decoded(part)]
    return found


@contextlib.contextmanager
def quiet_ffmpeg() -> Iterator[None]:
    """FFmpeg says nothing about damage that a test has done."""
    before = av.logging.get_level()
    av.logging.set_level(None)
    try:
        yield
    finally:
        av.logging.set_level(before)


#: An H.264 sequence parameter set between start codes.
_SPS = re.compile(rb"(?<=\x00\x00\x01)\x67.*?(?=\x00{2,3}\x01)", re.DOTALL)


def without_reordering_hints(source: Clip) -> Clip:
    """An H.264 clip whose parameter sets do not say how far pictures are reordered, as with many cameras."""
    units = tuple(
        unit._replace(data=_SPS.sub(lambda match: _without_vui(match[0]), unit.data)) if unit.keyframe else unit
        for unit in source.units
    )
    return source._replace(units=units)


def _without_vui(sps: bytes) -> bytes:
    """A sequence parameter set of 4:2:0 without its last part, the VUI (ITU-T H.264, 7.3.2.1.1)."""
    plain = re.sub(rb"\x00\x00\x03(?=[\x00-\x03])", b"\0\0", sps)
    bits = "".join(f"{byte:08b}" for byte in plain)
    at = 32

    def golomb() -> int:
        nonlocal at
        zeros = bits.index("1", at) - at
        at += 2 * zeros + 1
        return int(bits[at - zeros - 1 : at], 2) - 1

    golomb()
    if plain[1] in (100, 110, 122, 244):
        # chroma format, bit depths, lossless flag, scaling matrix
        golomb(), golomb(), golomb()
        assert bits[at : at + 2] == "00"
        at += 2
    golomb()
    if golomb() == 0:
        golomb()
    golomb()
    at += 1
    golomb(), golomb()
    at += 1 if bits[at] == "1" else 2
    at += 1
    cropped, at = bits[at] == "1", at + 1
    if cropped:
        golomb(), golomb(), golomb(), golomb()
    assert bits[at] == "1", "it has a VUI"
    bits = bits[:at] + "01"
    bits += "0" * (-len(bits) % 8)
    short = bytes(int(bits[first : first + 8], 2) for first in range(0, len(bits), 8))
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", short)
