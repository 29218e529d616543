"""H.264 and H.265 streams for test cameras: read from clips unit by unit, or made by ffmpeg.

    MP4 ─> read_clip ─> Stream: units ─> RtspVideo ─> the engine ─> Redis
                          └─> unit.annexb: what Redis must then hold, bit by bit

A `Stream` is a value. A test that needs a bad stream makes it of a good one: it changes `units` by `_replace`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import av

Codec = Literal["h264", "h265"]
START_CODE = b"\0\0\0\1"

#: Clips of real cameras, which are not part of the project (tests make clips of their own without them).
REAL_CLIPS = Path(__file__).parents[3] / "shared" / "video"
CARS, PEOPLE = REAL_CLIPS / "car-detection.mp4", REAL_CLIPS / "one-by-one-person-detection.mp4"


class Unit(NamedTuple):
    """An access unit: its NAL units without start codes. It is sent at `due` and presented at `shown`, in seconds
    since the stream's begin. Of its RTP packets those with the indexes in `lost` are not sent."""

    nals: tuple[bytes, ...]
    due: float
    shown: float
    keyframe: bool = False
    lost: frozenset[int] = frozenset()

    @property
    def annexb(self) -> bytes:
        """The unit as the engine stores it."""
        return b"".join(START_CODE + nal for nal in self.nals)


class Stream(NamedTuple):
    """Access units in decode order, which last for `seconds`; key frames begin with the parameter sets."""

    codec: Codec
    parameter_sets: tuple[bytes, ...]
    units: tuple[Unit, ...]
    seconds: float

    @property
    def keyframes(self) -> list[int]:
        """Indexes of the key frames."""
        return [number for number, unit in enumerate(self.units) if unit.keyframe]

    @property
    def mbit_per_second(self) -> float:
        return sum(len(nal) for unit in self.units for nal in unit.nals) * 8 / self.seconds / 1e6

    def without_sets(self) -> Stream:
        """The same stream, whose parameter sets are nowhere but in the SDP."""
        known = set(self.parameter_sets)
        return self._replace(
            units=tuple(unit._replace(nals=tuple(nal for nal in unit.nals if nal not in known)) for unit in self.units)
        )

    def followed_by(self, other: Stream) -> Stream:
        """This stream and then `other`, of which resolution and profile may differ."""
        later = [unit._replace(due=unit.due + self.seconds, shown=unit.shown + self.seconds) for unit in other.units]
        return self._replace(units=(*self.units, *later), seconds=self.seconds + other.seconds)


def read_clip(path: Path, fps: float | None = None, units: int | None = None) -> Stream:
    """The first `units` access units of an MP4's video, at its own rate or at `fps`."""
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        codec: Codec = "h264" if track.codec.name == "h264" else "h265"
        sets, length_bytes = (_read_avcc if codec == "h264" else _read_hvcc)(bytes(track.codec_context.extradata))
        packets = [packet for packet in container.demux(track) if packet.size][:units]
        assert packets, f"{path} has no video"
        assert track.average_rate
        assert track.time_base
        speed = float(track.average_rate) / (fps or float(track.average_rate)) * float(track.time_base)
        first = packets[0].dts
        found = []
        for packet in packets:
            nals = _split(bytes(packet), length_bytes)
            if packet.is_keyframe:
                nals = _with_sets(codec, nals, sets)
            due, shown = (packet.dts - first) * speed, (packet.pts - first) * speed
            found.append(Unit(nals, due, shown, packet.is_keyframe))
    return Stream(codec, sets, tuple(found), found[-1].due + 1 / (fps or float(track.average_rate)))


def make_clip(
    path: Path,
    *,
    codec: Codec = "h264",
    size: tuple[int, int] = (320, 240),
    fps: int = 15,
    seconds: float = 4,
    gop: int = 15,
    kbit: int = 300,
    options: Sequence[str] = ("-bf", "0"),
    source: Path | None = None,
) -> Path:
    """An MP4 made by ffmpeg of `source`, scaled, or of a moving test picture; scene cuts make no key frames."""
    width, height = size
    rate = ("-b:v", f"{kbit}k", "-maxrate", f"{kbit}k", "-bufsize", f"{kbit // 2}k")
    if source is None:
        picture = ["-f", "lavfi", "-i", f"testsrc2=size={width}x{height}:rate={fps},noise=alls=8:allf=t:all_seed=5"]
    else:
        picture = ["-i", str(source), "-an", "-vf", f"setpts=N/({fps}*TB),scale={width}:{height}:flags=bilinear"]
    encoder = {
        "h264": ["-c:v", "libx264", "-preset", "veryfast", "-sc_threshold", "0"],
        "h265": [
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-tag:v",
            "hvc1",
            "-x265-params",
            "log-level=error:scenecut=0",
        ],
    }[codec]
    command = ["ffmpeg", "-v", "error", "-y", *picture, "-frames:v", str(round(seconds * fps)), "-r", str(fps)]
    command += [*encoder, "-g", str(gop), "-keyint_min", str(gop), *rate, "-pix_fmt", "yuv420p", *options, str(path)]
    subprocess.run(command, check=True, timeout=120)
    return path


def street_clip(path: Path, seconds: float = 12) -> Path:
    """A street at 720p, 15 fps, 2.5 Mbit/s, a key frame every 2 s, without B-frames: as most cameras are set up. A
    test picture where the clip of a real camera is not there."""
    source = CARS if CARS.exists() else None
    return make_clip(path, size=(1280, 720), fps=15, seconds=seconds, gop=30, kbit=2500, source=source)


def _split(packet: bytes, length_bytes: int) -> tuple[bytes, ...]:
    nals, at = [], 0
    while at < len(packet):
        size = int.from_bytes(packet[at : at + length_bytes], "big")
        nals.append(packet[at + length_bytes : at + length_bytes + size])
        at += length_bytes + size
    return tuple(nals)


def _with_sets(codec: Codec, nals: tuple[bytes, ...], sets: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The unit with the parameter sets at its begin, but after an access unit delimiter."""
    if any(nal in nals for nal in sets):
        return nals
    delimited = nals[0][0] & 0x1F == 9 if codec == "h264" else nals[0][0] >> 1 == 35
    return (*nals[:delimited], *sets, *nals[delimited:])


def _read_avcc(extradata: bytes) -> tuple[tuple[bytes, ...], int]:
    """Parameter sets, and the bytes of a length, from ISO 14496-15's AVCDecoderConfigurationRecord."""
    sets, at = [], 5
    for mask in (0x1F, 0xFF):
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            sets.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    return tuple(sets), (extradata[4] & 3) + 1


def _read_hvcc(extradata: bytes) -> tuple[tuple[bytes, ...], int]:
    """The same from HEVCDecoderConfigurationRecord. x265's notes on itself, which it also puts there, are left out."""
    sets, at = [], 23
    for _ in range(extradata[22]):
        kind, count, at = extradata[at] & 0x3F, int.from_bytes(extradata[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            if kind in (32, 33, 34):
                sets.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    return tuple(sets), (extradata[21] & 3) + 1
