"""An RTSP camera in a process of its own: a script for the system's Python, which has GStreamer's bindings.

`rtsp_camera.RtspCamera` starts it. Every client gets the stream from its beginning, in real time, over TCP.

    frames pipeline, unpaced, one a client            media of gst-rtsp-server, paced by its clock
    clip or test picture ─> H.264 or JPEG ─> appsink ═> appsrc ─> RTP payloader ─> client
                                                     pull              └─ --record: what it was handed
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402  (the versions above come first)

#: The role that a client with the right password has.
_ROLE = "viewer"

_PAYLOADERS = {
    "h264": "rtph264pay config-interval=-1 pt=96",
    "mjpeg": "rtpjpegpay pt=26",
}


def frames_description(options: argparse.Namespace) -> str:
    """The pipeline that makes the encoded frames, in gst-launch's language."""
    raw = f"video/x-raw,format=I420,width={options.width},height={options.height},framerate={options.fps}/1"
    clip = f'filesrc location="{options.clip}" ! qtdemux name=demux demux.video_0 ! h264parse'
    if options.clip is None:
        picture = f"videotestsrc pattern=ball ! {raw}"
    else:
        picture = f"{clip} ! openh264dec ! videoconvert ! videoscale ! videorate ! {raw}"
    if options.codec == "mjpeg":
        encoded = f"{picture} ! jpegenc quality=80 ! image/jpeg"
    elif options.clip is None:
        # One slice a picture: the payloader puts the parameter sets before each slice of a key frame, and FFmpeg then
        # takes each for a picture of its own.
        encoded = f"{picture} ! x264enc tune=zerolatency threads=1 speed-preset=ultrafast key-int-max={options.fps}"
    else:
        # As it was filmed: tests want a clip for its B-frames, and the decoding order that comes with them.
        encoded = clip
    if options.codec == "h264":
        encoded += " ! video/x-h264,stream-format=byte-stream,alignment=au"
    return f"{encoded} ! appsink name=frames sync=false max-buffers=4"


class Frames:
    """The encoded frames of one client, and where they are on the client's time line."""

    def __init__(self, description: str, loop: bool) -> None:
        self._loop = loop
        self._pipeline = Gst.parse_launch(description)
        self._sink = self._pipeline.get_by_name("frames")
        self._offset = 0
        self._end = 0
        self._pipeline.set_state(Gst.State.PLAYING)

    def push_next(self, source: Gst.Element, _bytes_wanted: int) -> None:
        """The `need-data` handler of the media's appsrc."""
        sample = self._sink.emit("pull-sample")
        if sample is None and self._loop and self._end > self._offset:
            self._offset = self._end
            self._pipeline.seek_simple(Gst.Format.TIME, Gst.SeekFlags.FLUSH, 0)
            sample = self._sink.emit("pull-sample")
        if sample is None:
            source.emit("end-of-stream")
            return
        buffer = sample.get_buffer().copy()
        # Running time, because x264enc counts from 1000 hours on.
        buffer.pts = sample.get_segment().to_running_time(Gst.Format.TIME, buffer.pts) + self._offset
        buffer.dts = Gst.CLOCK_TIME_NONE
        self._end = max(self._end, buffer.pts + buffer.duration)
        source.emit("push-sample", Gst.Sample.new(buffer, sample.get_caps(), None, None))

    def close(self, *_: Any) -> None:
        self._pipeline.set_state(Gst.State.NULL)


class Recorder:
    """Files of the frames that the payloaders were handed, numbered in that order: `000001.jpg`, ..."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # A camera that was killed and started again goes on counting.
        self._numbers: Iterator[int] = itertools.count(len(list(directory.glob("*.jpg"))) + 1)

    def probe(self, _pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        buffer = info.get_buffer()
        path = self._directory / f"{next(self._numbers):06d}.jpg"
        part = path.with_suffix(".part")
        part.write_bytes(buffer.extract_dup(0, buffer.get_size()))
        # Renamed, so that a listing of the directory has whole frames only.
        part.replace(path)
        return Gst.PadProbeReturn.OK


def media_factory(options: argparse.Namespace) -> GstRtspServer.RTSPMediaFactory:
    description = frames_description(options)
    recorder = Recorder(options.record) if options.record is not None else None

    def configure(_factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        frames = Frames(description, options.loop)
        element = media.get_element()
        element.get_by_name("source").connect("need-data", frames.push_next)
        media.connect("unprepared", frames.close)
        if recorder is not None:
            pad = element.get_by_name("pay0").get_static_pad("sink")
            pad.add_probe(Gst.PadProbeType.BUFFER, recorder.probe)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( appsrc name=source format=time ! {_PAYLOADERS[options.codec]} name=pay0 )")
    factory.connect("media-configure", configure)
    return factory


def require_login(
    server: GstRtspServer.RTSPServer,
    factory: GstRtspServer.RTSPMediaFactory,
    user: str,
    password: str,
    *,
    digest: bool,
) -> None:
    """Basic or Digest authentication for everything that the factory makes."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", _ROLE)
    auth = GstRtspServer.RTSPAuth()
    if digest:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role(_ROLE)
    for permission in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role(_ROLE, permission, True)
    factory.set_permissions(permissions)


def main() -> None:
    parser = argparse.ArgumentParser(description="An RTSP camera for tests.")
    parser.add_argument("--port", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--codec", choices=sorted(_PAYLOADERS), required=True)
    parser.add_argument("--fps", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--digest", action="store_true")
    options = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    factory = media_factory(options)
    if options.user is not None:
        require_login(server, factory, options.user, options.password, digest=options.digest)
    server.get_mount_points().add_factory(options.path, factory)
    if not server.attach(None):
        raise SystemExit(f"cannot listen on port {options.port}")
    # Sessions of clients that went without a TEARDOWN end only when somebody asks for it.
    GLib.timeout_add_seconds(2, lambda: server.get_session_pool().cleanup() >= 0)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
