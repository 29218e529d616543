"""The process of `rtsp_video.RtspVideo`: python -m tests.servers.rtsp_video_server PORT MOUNTS.

One thread. A heap holds the time at which each playing client gets its next unit; between rounds it waits for sockets.
Sends do not block. What a socket does not take is kept, up to a bound, then the client is cut off.
"""

from __future__ import annotations

import base64
import heapq
import pickle
import random
import re
import selectors
import socket
import sys
import time
from pathlib import Path

from tests.servers import rtp
from tests.servers.clips import Stream
from tests.servers.rtsp_video import Mount

#: Bytes that are kept for a client that does not read.
_OUTBOX_MAX = 32 * 2**20
#: Seconds between rounds at the least, so that one round serves several clients.
_ROUND_SECONDS = 0.002
_REPORT_SECONDS = 5.0
#: Seconds of audio in a packet, and its samples: silence in G.711.
_AUDIO_SECONDS, _SILENCE = 0.1, b"\xff" * 800
#: Bytes that are sent at a time where a mount has a rate.
_BURST_BYTES = 6000
#: The longest request.
_REQUEST_MAX = 16_384


class Gone(Exception):
    """The client has left, or does not read."""


class Client:
    """One connection."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.connection = connection
        self._server = server
        self._inbox, self._outbox = bytearray(), bytearray()
        self._mount: Mount | None = None
        self._audio = self._video = self.playing = False
        #: Where packets go over UDP: RTP and RTCP of video; None over TCP.
        self._datagrams: rtp.Datagrams | None = None
        self._sequence, self._audio_sequence = random.randrange(0x10000), random.randrange(0x10000)
        self._base = random.randrange(2**32)
        self._begun = self._zero = 0.0
        #: The next unit, and the seconds that the loops before it took.
        self._index, self._elapsed = 0, 0.0
        self._report_due = self._audio_due = 0.0
        #: By how much the next unit is late.
        self._late = 0.0

    def receive(self) -> None:
        """Read requests, and answer them."""
        data = self.connection.recv(65_536)
        if not data:
            raise Gone
        self._inbox += data
        while self._inbox:
            if self._inbox[0] == 0x24:
                size = 4 + int.from_bytes(self._inbox[2:4], "big")
                if len(self._inbox) < max(size, 4):
                    return
                del self._inbox[:size]
                continue
            head, blank, _ = bytes(self._inbox).partition(b"\r\n\r\n")
            if not blank:
                if len(head) > _REQUEST_MAX:
                    raise Gone
                return
            found = re.search(rb"(?im)^content-length: *(\d+)", head)
            end = len(head) + 4 + (int(found[1]) if found else 0)
            if len(self._inbox) < end:
                return
            del self._inbox[:end]
            self._answer(head.decode("latin-1"))

    def send(self, data: bytes | bytearray) -> None:
        """Send now, or keep what the socket does not take."""
        if not self._outbox:
            try:
                sent = self.connection.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self._outbox += data
        self._server.watch(self, writable=True)
        if len(self._outbox) > _OUTBOX_MAX:
            print("a client does not read", flush=True)
            raise Gone

    def flush(self) -> None:
        """The socket takes more."""
        sent = self.connection.send(self._outbox)
        del self._outbox[:sent]
        if not self._outbox:
            self._server.watch(self, writable=False)

    def play_due(self, now: float) -> float | None:
        """Send what is due; returns the time of the next unit, None at the stream's end."""
        mount = self._mount
        assert mount is not None
        units, packets = mount.stream.units, self._server.packets(mount.stream)
        while True:
            if self._index == len(units):
                if not mount.loop:
                    return None
                self._index, self._elapsed = 0, self._elapsed + mount.stream.seconds
            unit = units[self._index]
            at = self._begun + self._elapsed + unit.due - self._zero
            if at + self._late > now:
                return at + self._late
            self._accompany(mount, at)
            if not (unit.keyframe and at - self._begun < mount.keyless_seconds):
                ready = packets[self._index]
                self._send_rtp(ready.fill(self._sequence, self._stamp(self._elapsed + unit.shown)))
                self._sequence = (self._sequence + ready.count) & 0xFFFF
                self._log(mount, self._elapsed + unit.shown)
            self._index += 1
            self._late = random.uniform(0, mount.jitter_seconds)

    def _accompany(self, mount: Mount, at: float) -> None:
        """Reports and audio that are due before the unit that is due at `at`."""
        if mount.reports and at >= self._report_due:
            self._report_due = at + _REPORT_SECONDS
            elapsed = at - self._begun + self._zero
            told = self._wall(mount, elapsed)
            self._send_rtp(rtp.sender_report(rtp.VIDEO_CHANNEL, rtp.VIDEO_SSRC, told, self._stamp(elapsed)))
        while self._audio and at >= self._audio_due:
            stamp = round((self._audio_due - self._begun) * 8000) & 0xFFFFFFFF
            kind = rtp.AUDIO_TYPE
            self.send(rtp.packet(rtp.AUDIO_CHANNEL, kind, self._audio_sequence, stamp, rtp.AUDIO_SSRC, _SILENCE))
            self._audio_sequence = (self._audio_sequence + 1) & 0xFFFF
            self._audio_due += _AUDIO_SECONDS

    def _wall(self, mount: Mount, elapsed: float) -> float:
        """The time by the camera's clock at which its stream's time was `elapsed`."""
        return time.time() - (time.monotonic() - self._begun) + elapsed - self._zero + mount.ahead_seconds

    def _log(self, mount: Mount, shown: float) -> None:
        if mount.sent:
            with mount.sent.open("a") as file:
                file.write(f"{time.monotonic_ns()} {round(self._wall(mount, shown) * 1e9)}\n")

    def _send_rtp(self, data: bytes | bytearray) -> None:
        """Send packets of video in the way that the client asked for, at the mount's rate."""
        assert self._mount
        send = self._datagrams.send if self._datagrams else self.send
        if not self._mount.mbit_per_second:
            send(data)
            return
        begun, begin, end = time.monotonic(), 0, 0
        while end < len(data):
            end += 4 + int.from_bytes(data[end + 2 : end + 4])
            if end - begin >= _BURST_BYTES or end == len(data):
                send(data[begin:end])
                begin = end
                time.sleep(max(begun + end * 8e-6 / self._mount.mbit_per_second - time.monotonic(), 0))

    def close(self) -> None:
        """The connection has ended."""
        self.connection.close()
        if self._datagrams:
            self._datagrams.close()

    def _stamp(self, seconds: float) -> int:
        return (self._base + round(seconds * rtp.CLOCK)) & 0xFFFFFFFF

    def _answer(self, head: str) -> None:
        lines = head.split("\r\n")
        method, url, *_ = [*lines[0].split(), "", ""]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        path = "/" + url.partition("://")[2].partition("/")[2]
        status, body, extra = "200 OK", b"", ["Session: 1;timeout=60"]
        match method:
            case "OPTIONS":
                extra = ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"]
            case "DESCRIBE" if path.rstrip("/") in self._server.mounts:
                body = describe(self._server.mounts[path.rstrip("/")]).encode()
                extra = ["Content-Type: application/sdp", f"Content-Base: {url.rstrip('/')}/"]
            case "SETUP" if "interleaved" in headers.get("transport", ""):
                path, _, track = path.rpartition("/")
                if (mount := self._server.mounts.get(path)) is None:
                    status = "404 Not Found"
                else:
                    self._mount = mount
                    self._audio, self._video = self._audio or track == "audio", self._video or track == "video"
                    channel = rtp.AUDIO_CHANNEL if track == "audio" else rtp.VIDEO_CHANNEL
                    extra.append(f"Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1}")
            case "SETUP" if path.endswith("/video") and (ports := _client_ports(headers)) is not None:
                if (mount := self._server.mounts.get(path.removesuffix("/video"))) is None:
                    status = "404 Not Found"
                else:
                    self._mount, self._video = mount, True
                    self._datagrams = rtp.Datagrams(self.connection.getpeername()[0], ports)
                    own = "-".join(map(str, self._datagrams.ports))
                    extra.append(f"Transport: RTP/AVP;unicast;client_port={ports[0]}-{ports[1]};server_port={own}")
            case "SETUP":
                status = "461 Unsupported Transport"
            case "PLAY" if self._video:
                self._index = self._mount.begin if self._mount else 0
                extra += ["Range: npt=0.000-", self._rtp_info(url)]
            case "GET_PARAMETER" | "SET_PARAMETER":
                pass
            case "TEARDOWN":
                raise Gone
            case _:
                status = "404 Not Found"
        extra += [f"CSeq: {headers.get('cseq', '0')}", f"Content-Length: {len(body)}"]
        self.send("\r\n".join([f"RTSP/1.0 {status}", *extra, "", ""]).encode() + body)
        if method == "PLAY" and status == "200 OK" and not self.playing:
            self._play()

    def _rtp_info(self, url: str) -> str:
        assert self._mount is not None
        stamp = self._stamp(self._mount.stream.units[self._index].shown)
        return f"RTP-Info: url={url.rstrip('/')}/video;seq={self._sequence};rtptime={stamp}"

    def _play(self) -> None:
        assert self._mount is not None
        self.playing = True
        self._zero = self._mount.stream.units[self._index].due
        self._begun = self._audio_due = time.monotonic()
        self._server.schedule(self, self._begun)


class Server:
    """Listens, and gives each client its turn."""

    def __init__(self, port: int, mounts: dict[str, Mount]) -> None:
        self.mounts = mounts
        # Cameras of the same stream share its packets.
        self._packets: dict[int, list[rtp.Packets]] = {}
        for mount in mounts.values():
            stream = mount.stream
            if id(stream) not in self._packets:
                self._packets[id(stream)] = [rtp.Packets(stream.codec, unit) for unit in stream.units]
        self._turns: list[tuple[float, int, Client]] = []
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def packets(self, stream: Stream) -> list[rtp.Packets]:
        return self._packets[id(stream)]

    def schedule(self, client: Client, at: float) -> None:
        heapq.heappush(self._turns, (at, id(client), client))

    def watch(self, client: Client, *, writable: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writable else 0)
        self._selector.modify(client.connection, events, client)

    def run(self) -> None:
        while True:
            wait = max(self._turns[0][0] - time.monotonic(), _ROUND_SECONDS) if self._turns else None
            for key, events in self._selector.select(wait):
                if key.data is None:
                    self._accept()
                else:
                    self._serve(key.data, events)
            now = time.monotonic()
            while self._turns and self._turns[0][0] <= now:
                self._play(heapq.heappop(self._turns)[2], now)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection, selectors.EVENT_READ, Client(self, connection))

    def _serve(self, client: Client, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                client.flush()
            if events & selectors.EVENT_READ:
                client.receive()
        except (Gone, OSError):
            self._close(client)

    def _play(self, client: Client, now: float) -> None:
        if client.connection.fileno() < 0:
            return
        try:
            at = client.play_due(now)
        except (Gone, OSError):
            at = None
        if at is None:
            self._close(client)
        else:
            self.schedule(client, at)

    def _close(self, client: Client) -> None:
        if client.connection.fileno() >= 0:
            self._selector.unregister(client.connection)
            client.close()


def _client_ports(headers: dict[str, str]) -> tuple[int, int] | None:
    """The ports of a client that asks for UDP."""
    found = re.search(r"client_port=(\d+)-(\d+)", headers.get("transport", ""))
    return (int(found[1]), int(found[2])) if found else None


def describe(mount: Mount) -> str:
    """The SDP of a camera."""
    stream = mount.stream
    sets = [base64.b64encode(nal).decode() for nal in stream.parameter_sets] if mount.sets_in_sdp else []
    if stream.codec == "h264":
        formats = ["packetization-mode=1"]
        if sets:
            formats += [
                f"profile-level-id={stream.parameter_sets[0][1:4].hex()}",
                f"sprop-parameter-sets={','.join(sets)}",
            ]
    else:
        formats = [f"sprop-{name}={nal}" for name, nal in zip(("vps", "sps", "pps"), sets, strict=False)]
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
    if mount.audio:
        lines += ["m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU/8000", "a=control:audio"]
    lines += ["m=video 0 RTP/AVP 96", f"a=rtpmap:96 {stream.codec.upper()}/{rtp.CLOCK}"]
    lines += [f"a=fmtp:96 {';'.join(formats)}"] if formats else []
    return "\r\n".join([*lines, "a=control:video", ""])


def main() -> None:
    port, mounts = sys.argv[1:]
    Server(int(port), pickle.loads(Path(mounts).read_bytes())).run()


if __name__ == "__main__":
    main()
