"""An RTSP camera whose every packet a test chooses: what it announces, which NAL units it sends, and at which times.

It serves any number of clients over TCP, each with the whole script, in threads of the test's process.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

#: Largest payload of an RTP packet, in bytes; RTP's clock.
_PAYLOAD_BYTES = 1400
CLOCK = 90_000
_VIDEO_TYPE, _AUDIO_TYPE = 96, 0


class Picture(NamedTuple):
    """The NAL units of one access unit, and its time in seconds."""

    units: Sequence[bytes]
    time: float


class ScriptedCamera:
    """Sends ``pictures``, one after ``interval`` seconds each, and closes the connection after the last, or keeps it
    open with ``stays``. ``announced``: parameter sets in its session description. ``audio_first``: it offers audio
    before video, and sends that, too, if a client asks for it."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        *,
        encoding: str = "h264",
        announced: Sequence[bytes] = (),
        interval: float = 0.02,
        audio_first: bool = False,
        stays: bool = False,
    ) -> None:
        self.pictures = pictures
        self._encoding = encoding
        self._announced = announced
        self._interval = interval
        self._audio_first = audio_first
        self._stays = stays
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/cam"
        #: What clients asked for: first lines of their requests.
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listener.close()

    @property
    def description(self) -> str:
        """The session description."""
        name = {"h264": "H264", "h265": "H265"}[self._encoding]
        encoded = [base64.b64encode(unit).decode() for unit in self._announced]
        if self._encoding == "h264":
            sets = f";sprop-parameter-sets={','.join(encoded)}" if encoded else ""
        else:
            sets = "".join(f";sprop-{kind}={unit}" for kind, unit in zip(("vps", "sps", "pps"), encoded, strict=False))
        audio = "m=audio 0 RTP/AVP 0\r\na=control:audio\r\n" if self._audio_first else ""
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
            + audio
            + "m=video 0 RTP/AVP 96\r\n"
            f"a=rtpmap:96 {name}/{CLOCK}\r\na=fmtp:96 packetization-mode=1{sets}\r\na=control:video\r\n"
        )

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        channels: dict[str, int] = {}
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as requests:
            while True:
                first = requests.readline().decode().strip()
                if not first:
                    return
                self.requests.append(first)
                headers = {}
                while line := requests.readline().decode().strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                method, target = first.split()[:2]
                answer, body = [f"CSeq: {headers['cseq']}", "Session: 1"], ""
                if method == "DESCRIBE":
                    body = self.description
                    answer += [
                        f"Content-Base: {self.url}/",
                        "Content-Type: application/sdp",
                        f"Content-Length: {len(body)}",
                    ]
                elif method == "SETUP":
                    channels[target.rpartition("/")[2]] = channel = 2 * len(channels)
                    answer.append(f"Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1}")
                elif method == "OPTIONS":
                    answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
                connection.sendall(("RTSP/1.0 200 OK\r\n" + "\r\n".join(answer) + "\r\n\r\n" + body).encode())
                if method == "PLAY":
                    self._play(connection, channels)
                    return

    def _play(self, connection: socket.socket, channels: dict[str, int]) -> None:
        numbers = dict.fromkeys(channels, 0)

        def send(stream: str, kind: int, stamp: int, payload: bytes, *, last: bool) -> None:
            numbers[stream] += 1
            header = struct.pack(
                ">BBHII", 0x80, kind | last << 7, numbers[stream] & 0xFFFF, stamp & 0xFFFFFFFF, 1 + channels[stream]
            )
            packet = header + payload
            connection.sendall(struct.pack(">BBH", 0x24, channels[stream], len(packet)) + packet)

        begun = time.monotonic()
        for number, picture in enumerate(self.pictures):
            if self._stop.wait(max(0.0, begun + number * self._interval - time.monotonic())):
                return
            if "audio" in channels:
                for part in range(4):
                    send("audio", _AUDIO_TYPE, (number * 4 + part) * 160, bytes(160), last=False)
            payloads = [part for unit in picture.units for part in self._payloads(unit)]
            for place, payload in enumerate(payloads):
                send("video", _VIDEO_TYPE, int(picture.time * CLOCK), payload, last=place == len(payloads) - 1)
        if self._stays:
            self._stop.wait(60)

    def _payloads(self, unit: bytes) -> list[bytes]:
        """A NAL unit in RTP payloads: as it is, or in fragments (FU-A of H.264, FU of H.265)."""
        if len(unit) <= _PAYLOAD_BYTES:
            return [unit]
        if self._encoding == "h264":
            head, kind, data = bytes([unit[0] & 0xE0 | 28]), unit[0] & 0x1F, unit[1:]
        else:
            head, kind, data = bytes([unit[0] & 0x81 | 49 << 1, unit[1]]), unit[0] >> 1 & 0x3F, unit[2:]
        parts = [data[at : at + _PAYLOAD_BYTES] for at in range(0, len(data), _PAYLOAD_BYTES)]
        flags = [0x80 * (place == 0) | 0x40 * (place == len(parts) - 1) | kind for place in range(len(parts))]
        return [head + bytes([flag]) + part for flag, part in zip(flags, parts, strict=True)]
