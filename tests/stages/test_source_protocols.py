"""What a camera's URL, and what a camera answers, can make FFmpeg open. Where something is refused, a control shows
that it is opened as soon as FFmpeg is let."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import av
import cv2
import numpy as np
import pytest

from engine.config import Camera, Url
from engine.errors import CameraUnavailable
from engine.sources.video import VideoSource
from tests.servers.mjpeg_http import MjpegCamera, make_jpegs
from tests.servers.rtsp_camera import RtspCamera
from tests.servers.wait import free_port

#: Options with which FFmpeg opens whatever it is told to.
_LET = {
    "protocol_whitelist": "http,tcp,file,data,rtp,udp",
    "allowed_extensions": "ALL",
    "extension_picky": "0",
    "safe": "0",
}


class Hostile:
    """A web server whose answers a test chooses, by path."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[str, bytes]] = {}
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, body = answers.get(self.path, ("", b""))
                self.send_response(302 if kind == "location" else 200 if kind else 404)
                if kind == "location":
                    self.send_header("Location", body.decode())
                    body = b""
                else:
                    self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, path: str, kind: str, body: bytes | str) -> str:
        self.answers[path] = (kind, body.encode() if isinstance(body, str) else body)
        return self.url + path

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that only the machine's own users should see."""
    path = tmp_path_factory.mktemp("local") / "secret.ts"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MPG2"), 25, (64, 64))
    for number in range(30):
        writer.write(np.full((64, 64, 3), number * 8, np.uint8))
    writer.release()
    return path


def camera(url: str, **more: object) -> Camera:
    return Camera(id="cam1", url=Url(url), open_timeout_seconds=1.0, stall_seconds=1.0, **more)


def frames(source: VideoSource, count: int = 3) -> int:
    taken = 0
    while taken < count:
        if source.grab():
            for stamp in source.pictures(taken + 1):
                source.retrieve(stamp, taken + 1)
                taken += 1
    source.close()
    return taken


def refused(url: str) -> None:
    with pytest.raises(CameraUnavailable):
        frames(VideoSource(camera(url)), 1)


def opens_when_let(url: str, options: dict[str, str] = _LET) -> bool:
    try:
        with av.open(url, options=options, timeout=0.3) as container:
            return bool(container.streams.video)
    except (av.error.FFmpegError, ValueError):
        return False


def playlist(segment: str) -> str:
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10,\n"
    return f"{head}{segment}\n#EXT-X-ENDLIST\n"


_PLAYLIST = "application/vnd.apple.mpegurl"
_SESSION = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 26\n"


@pytest.mark.parametrize("what", ["file in a playlist", "data in a playlist", "file in a list"])
def test_what_a_camera_answers_cannot_make_ffmpeg_open_anything_else(hostile, secret, what):
    data = "data:video/mp2t;base64," + base64.b64encode(secret.read_bytes()).decode()
    url = {
        "file in a playlist": lambda: hostile.answer("/x.m3u8", _PLAYLIST, playlist(f"file://{secret}")),
        "data in a playlist": lambda: hostile.answer("/x.m3u8", _PLAYLIST, playlist(data)),
        "file in a list": lambda: hostile.answer("/x", "text/plain", f"ffconcat version 1.0\nfile file:{secret}\n"),
    }[what]()
    assert opens_when_let(url), "the attack itself does not work, so that it fails says nothing"
    refused(url)


def test_a_session_s_description_over_http_opens_no_port(hostile):
    """Whoever sends to that port would be the camera."""
    port = free_port() & ~1
    url = hostile.answer("/x.sdp", "application/sdp", _SESSION.format(port=port))
    with UdpWatch(port) as let:
        opens_when_let(url)
    assert let.seen, "the attack itself does not work, so that it fails says nothing"
    with UdpWatch(port) as watch:
        refused(url)
    assert not watch.seen


class UdpWatch:
    """Looks, while it is entered, whether anybody listens on a port of UDP."""

    def __init__(self, port: int) -> None:
        self.seen = False
        self._sign = f":{port:04X} "
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.seen |= self._sign in Path("/proc/net/udp").read_text()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("where", ["file://{path}", "subfile,,start,0,end,999,,:{path}", "concat:{path}"])
def test_a_redirect_leads_to_no_other_protocol(hostile, secret, where):
    refused(hostile.answer("/x", "location", where.format(path=secret)))


@pytest.mark.parametrize("form", ["concat:{path}|{path}", "subfile,,start,0,end,9999,,:{path}", "data:{data}"])
def test_a_file_s_path_is_a_path_whatever_it_looks_like(secret, tmp_path, monkeypatch, form):
    name = form.format(path=secret, data="video/mp2t;base64," + base64.b64encode(secret.read_bytes()[:9000]).decode())
    assert opens_when_let(name, {})
    refused(name)
    # Also where it is there: a path in which the working directory has what looks like a protocol.
    monkeypatch.chdir(tmp_path)
    relative = Path(form.format(path="a.ts", data="a.ts").replace("|", "/"))
    relative.parent.mkdir(parents=True, exist_ok=True)
    relative.write_bytes(secret.read_bytes())
    assert frames(VideoSource(camera(str(relative)))) == 3


@pytest.mark.parametrize("name", ["pipe:0", "-", "frame%03d.jpg"])
def test_a_file_must_be_there_by_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frame001.jpg").write_bytes(make_jpegs(1)[0])
    with pytest.raises(CameraUnavailable, match="there is no file"):
        VideoSource(camera(name))


def test_a_playlist_over_http_whose_segments_are_there_too_is_read(hostile, secret):
    hostile.answer("/1.ts", "video/mp2t", secret.read_bytes())
    assert frames(VideoSource(camera(hostile.answer("/x.m3u8", _PLAYLIST, playlist("1.ts"))))) == 3
    assert frames(VideoSource(camera(hostile.answer("/y", "location", hostile.url + "/1.ts")))) == 3


@pytest.mark.parametrize("url", ["{path}", "file://{path}"])
def test_a_file_is_read(secret, url):
    assert frames(VideoSource(camera(url.format(path=secret)))) == 3


def test_a_camera_over_http_is_read():
    with MjpegCamera(make_jpegs(5)) as server:
        assert frames(VideoSource(camera(server.url))) == 3


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_over_rtsp_is_read(tmp_path, transport):
    with RtspCamera(tmp_path, codec="mjpeg", fps=25, size=(320, 240)) as server:
        source = VideoSource(camera(server.url, transport=transport))
        assert source.mode == "passthrough"
        assert frames(source) == 3


@pytest.mark.parametrize("scheme", ["rtsps", "https"])
def test_a_camera_over_tls_is_spoken_to_in_tls(scheme):
    first: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            connection, _ = listener.accept()
            first.append(connection.recv(1))
            connection.close()

        thread = threading.Thread(target=take)
        thread.start()
        refused(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/cam")
        thread.join(30)
    assert first == [b"\x16"], "a handshake"
