"""A TCP proxy that can be told to misbehave: it stands between the engine and a server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Self

from tests.servers.wait import free_port

_CHUNK_BYTES = 65_536
#: Chunks read and not yet passed on, in one direction of one connection; then the sender has to wait.
_CHUNKS_MAX = 64
#: SO_LINGER on with no time left: closing sends RST.
_LINGER_NOT = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes between clients of ``port`` and a server on ``target``, both on loopback.

    The attributes may be changed at any time, and hold for open connections too:

    delay           seconds by which every chunk comes later, in both directions
    stalled         True: nothing is passed on, nothing is closed
    bytes_per_second  the most that passes in each direction of a connection; 0: no bound
    refusing        True: new connections are reset at once
    reset_every     N: every N-th connection is reset after its first kilobyte; 0: none
    cut_after       N: a connection is reset when so many bytes came from the server since this was set; 0: never
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.delay = 0.0
        self.stalled = False
        self.bytes_per_second = 0
        self.refusing = False
        self.reset_every = 0
        self.cut_after = 0
        #: Connections accepted since the start, and those reset on purpose.
        self.accepted = 0
        self.resets = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._open: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def reset(self) -> int:
        """Reset every open connection; returns how many there were."""
        return self._run(self._reset_all())

    def _run(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        self.stalled, self.delay, self.bytes_per_second = False, 0.0, 0
        await self._reset_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    async def _reset_all(self) -> int:
        pairs = list(self._open)
        for pair in pairs:
            self._abort(pair)
        return len(pairs)

    def _abort(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.resets += 1
        self._open.discard(pair)
        for writer in pair:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        doomed = bool(self.reset_every) and self.accepted % self.reset_every == 0
        try:
            if self.refusing:
                raise ConnectionRefusedError
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._abort((writer, writer))
            return
        pair = (writer, server_writer)
        self._open.add(pair)
        there = asyncio.create_task(self._pump(reader, server_writer, pair, 1024 if doomed else 0, back=False))
        back = asyncio.create_task(self._pump(server_reader, writer, pair, 0, back=True))
        await asyncio.wait((there, back))
        self._open.discard(pair)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        bytes_max: int,
        *,
        back: bool,
    ) -> None:
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_MAX)

        async def read() -> None:
            with contextlib.suppress(OSError):
                while data := await reader.read(_CHUNK_BYTES):
                    await chunks.put((self._loop.time() + self.delay, data))
            await chunks.put((0.0, b""))

        reading = asyncio.create_task(read())
        passed = 0
        try:
            while True:
                due, data = await chunks.get()
                await asyncio.sleep(max(due - self._loop.time(), 0))
                while self.stalled:
                    await asyncio.sleep(0.01)
                if not data:
                    break
                if back and self.cut_after:
                    data, self.cut_after = data[: self.cut_after], max(self.cut_after - len(data), 0)
                    if not self.cut_after:
                        # The first part of the message arrives, and then the connection is gone.
                        writer.write(data)
                        await asyncio.sleep(0.02)
                        self._abort(pair)
                        return
                writer.write(data)
                await writer.drain()
                passed += len(data)
                if bytes_max and passed >= bytes_max:
                    self._abort(pair)
                    return
                if self.bytes_per_second:
                    await asyncio.sleep(len(data) / self.bytes_per_second)
            with contextlib.suppress(OSError):
                writer.write_eof()
        except OSError:
            self._abort(pair)
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await reading
            writer.close()
