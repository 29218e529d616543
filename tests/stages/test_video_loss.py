"""Access units that are lost between a camera and the engine: what is stored of its video decodes to what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from engine.shm import ring_file
from engine.shm.ring import Consumer, Producer
from engine.shm.status_page import StatusPage
from engine.sources.video import VideoSource
from engine.stages.capture.video_track import VideoTrack
from tests.servers.clips import make_clip, read_clip
from tests.servers.rtp import Packets
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.stages.video_clips import FIRST, STEP, camera, clip, nal_units, packets, picture_units, psnr, see
from tests.stages.video_rtsp import Picture, ScriptedCamera
from tests.system.clips import car_clip, person_clip

DB_MIN = 50.0


def brightness(units: list[bytes]) -> list[np.ndarray]:
    """The pictures of units that were decoded, in the order in which they are shown."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit))] + decoder.decode(None)
    return [frame.to_ndarray()[: frame.height] for frame in frames]


class Tape:
    """A track into a ring, and all that the ring was given."""

    def __init__(self, directory: Path) -> None:
        ring_file.create(directory / "cam1.video.ring", 2**23, "cam1", video=True)
        self._page = StatusPage.claim(directory / "capture.status")
        self.warnings: list[str] = []
        self._track = VideoTrack(
            Producer(directory / "cam1.video.ring", "cam1"), self._page, lambda _, text: self.warnings.append(text)
        )
        self._ring = Consumer(directory / "cam1.video.ring", "cam1")

    def write(self, units: list) -> list[bytes]:
        for number, unit in enumerate(units, 1):
            self._track.write(unit, FIRST + number * STEP, number, 0)
        return [bytes(record.payload) for record in self._ring.poll(2**23, 1000)]

    @property
    def drops(self) -> dict[str, int]:
        return {name: count for name, count in self._ring.counts().drops.items() if count}

    def close(self) -> None:
        self._page.close()


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    made = Tape(tmp_path)
    yield made
    made.close()


def played(sent: list[bytes]) -> list:
    """The units that a source makes of these, which a camera sends over RTSP."""
    pictures = [Picture(nal_units(data), 100 + number / 10) for number, data in enumerate(sent)]
    with ScriptedCamera(pictures, interval=0.005) as server:
        source = VideoSource(camera(server.url, decode="none", video=True, stall_seconds=2.0))
        return see(source).units


CLIPS = {
    "made": lambda: clip("loss.mp4", seconds=4, options=("-bf", "0")),
    "made, with B pictures": lambda: clip(
        "loss.mp4", seconds=4, options=("-x264-params", "bframes=3:b-adapt=0:b-pyramid=normal")
    ),
    "cars": car_clip,
    "people": person_clip,
}


@pytest.mark.parametrize("name", CLIPS)
def test_after_a_lost_reference_picture_nothing_of_its_gop_is_stored_and_all_is_counted(name, tape):
    sent = packets(CLIPS[name]())[:400]
    keys = [number for number, data in enumerate(sent) if any(unit[0] & 31 == 5 for unit in nal_units(data))]
    begin, end = keys[2], keys[3] if len(keys) > 3 else len(sent)
    lost = next(n for n in range(begin + 3, end) if picture_units(sent[n])[-1][0] & 0x60)
    # FFmpeg hands a picture out when the next one begins, so the last one is not seen.
    units = played(sent[:lost] + sent[lost + 1 :])
    stored = tape.write(units)
    wanted = [picture_units(data) for data in (*sent[:lost], *sent[end:])]
    assert [picture_units(data) for data in stored] == wanted[: len(stored)]
    assert len(stored) >= len(wanted) - 1
    assert tape.drops == {"corrupt": 1, "broken_gop": len(units) - len(stored) - 1}
    assert len(units) - len(stored) >= end - lost - 2
    assert tape.warnings == ["video was lost on its way; the rest of its GOP is not stored"]
    # All pictures that are shown before the lost one came before it.
    found, whole = brightness(stored[begin:lost]), brightness(sent[begin:end])
    assert len(found) == lost - begin
    assert min(psnr(one, other) for one, other in zip(found, whole, strict=False)) > DB_MIN


@pytest.mark.parametrize("name", CLIPS)
def test_without_a_loss_all_is_stored(name, tape):
    sent = packets(CLIPS[name]())[:400]
    stored = tape.write(played(sent))
    assert len(stored) >= len(sent) - 1
    assert [picture_units(data) for data in stored] == [picture_units(data) for data in sent[: len(stored)]]
    assert tape.drops == {}


def test_all_packets_of_a_unit_may_be_lost_over_udp(tape, tmp_path):
    stream = read_clip(make_clip(tmp_path / "loss.mp4", size=(640, 480), seconds=4, kbit=1000))
    lost, end = 34, 45
    assert stream.keyframes == [0, 15, 30, 45]
    units = list(stream.units)
    units[lost] = units[lost]._replace(lost=frozenset(range(Packets("h264", units[lost]).count)))
    mount = Mount(stream._replace(units=tuple(units)), loop=False)
    with RtspVideo(tmp_path / "cameras", {"/cam": mount}) as server:
        url = server.url("/cam")
        found = see(
            VideoSource(camera(url, transport="udp", decode="none", video=True, stall_seconds=2.0)), len(units) - 2
        )
    stored = tape.write(found.units)
    wanted = [picture_units(unit.annexb) for unit in (*units[:lost], *units[end:])]
    assert [picture_units(data) for data in stored] == wanted[: len(stored)]
    assert tape.drops == {"corrupt": 1, "broken_gop": end - lost - 2}
    assert len(stored) > lost
