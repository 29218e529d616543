"""``edge-video consume``: prints announced events, and whether their frames are there."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from engine.cli.options import AsJson, RedisUrl, SiteFile, resolve
from engine.cli.output import print_json
from engine.client.frame import Frame
from engine.client.stream_position import StreamOffset
from engine.errors import ConfigError, InputError
from engine.wire.metadata import FrameEvent, GopEvent, StatusEvent
from engine.wire.rfc3339 import NANO

#: Messages held at a time; printing needs no more.
_PREFETCH = 64


class _OutputClosed(BaseException):
    """Printing failed. The consumer must not count that as a failure of the message, which is requeued. So this is not
    an ``Exception``."""

    def __init__(self, error: OSError) -> None:
        self.error = error


def consume(
    config: SiteFile = None,
    redis: RedisUrl = None,
    amqp: Annotated[
        list[str] | None,
        typer.Option(
            help="The RabbitMQ to use with --redis; several times for the nodes of a cluster. Default: AMQP_URL.",
            metavar="URL",
        ),
    ] = None,
    queue: Annotated[
        str, typer.Option(help="A durable queue that keeps events between runs. Default: listen live.", metavar="NAME")
    ] = "",
    stream: Annotated[
        bool, typer.Option("--stream", help="The queue is a stream, which keeps its messages; made if missing.")
    ] = False,
    offset: Annotated[
        str | None,
        typer.Option(help="Where to begin in the stream: first, last, next, an offset, or a time such as -1h."),
    ] = None,
    dead_letter: Annotated[
        str | None, typer.Option(help="The queue for messages that are not events.", metavar="NAME")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after this many events.", metavar="N")] = None,
    status: Annotated[bool, typer.Option("--status", help="Also print cameras' changes of state.")] = False,
    gops: Annotated[bool, typer.Option("--gops", help="Also print finished GOPs of stored video.")] = False,
    json: AsJson = False,
) -> None:
    """Print each announced event, and whether its frame is there or gone, until Ctrl-C or SIGTERM."""
    from engine.client.consumer import FrameConsumer

    target = resolve(config, redis, None, None)
    if amqp and redis is None:
        raise ConfigError("--amqp goes with --redis; a site file names its own broker")
    if offset is not None and not stream:
        raise InputError("--offset is for streams; add --stream")
    if stream and not queue:
        raise InputError("--stream needs --queue, the name of the stream")
    printer = _Printer(limit, json=json)
    prefetch = _PREFETCH if limit is None else min(limit, _PREFETCH)
    options: dict[str, Any] = {"queue": queue, "dead_letter": dead_letter, "prefetch": prefetch}
    options["timeout_seconds"] = target.timeout_seconds
    if stream:
        options |= {"stream": True, "offset": _offset(offset or "next")}
    if status:
        options["on_status"] = printer.status
    if gops:
        options["on_gop"] = printer.gop
    if target.config is None:
        found = amqp or os.environ.get("AMQP_URL") or os.environ.get("AMQP_URLS", "").split()
        if not found:
            raise ConfigError("--redis needs the broker too: give --amqp, or AMQP_URL")
        consumer = FrameConsumer(found, target.address, printer.frame, **options)
    else:
        consumer = FrameConsumer.from_config(target.config, printer.frame, **options)
    printer.stop = consumer.stop
    if stream:
        printer.offset = lambda: consumer.offset
    # pika also raises what it logs here, and the consumer reports it in one line.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.basicConfig(format="edge-video: %(message)s", level=logging.WARNING)
    try:
        consumer.run()
    except _OutputClosed as closed:
        raise closed.error from None


class _Printer:
    """Prints events, one per line, and stops after ``limit`` of them."""

    def __init__(self, limit: int | None, *, json: bool) -> None:
        self._left = limit
        self._json = json
        self.stop = _nothing
        #: The offset of the present event in the stream; None outside streams.
        self.offset: Callable[[], int | None] = _nothing

    def frame(self, event: FrameEvent, frame: Frame | None) -> None:
        """Print an event, and whether its frame was there."""
        found = "gone" if frame is None else "there"
        if self._json:
            self._print({**msgspec.to_builtins(event), "frame": found, **self._place()})
        else:
            size = event.size_bytes if frame is None else frame.size
            self._line(f"{event.camera_id}  {event.timestamp}  {event.redis_key}  {size} bytes  {found}")

    def status(self, event: StatusEvent) -> None:
        """Print a camera's change of state."""
        if self._json:
            self._print({**msgspec.to_builtins(event), **self._place()})
        else:
            failures = f"  {event.consecutive_failures} failures" if event.consecutive_failures else ""
            line = f"{event.camera_id}  {event.timestamp}  {event.state}{failures}  {event.last_error}"
            self._line(line.rstrip())

    def gop(self, event: GopEvent) -> None:
        """Print a finished GOP."""
        if self._json:
            self._print({**msgspec.to_builtins(event), **self._place()})
        else:
            what = f"GOP of {event.frames} frames, {event.duration_seconds:.2f} s, {event.size_bytes} bytes"
            self._line(f"{event.camera_id}  {event.timestamp}  {event.first_key}  {what}")

    def _place(self) -> dict[str, int]:
        offset = self.offset()
        return {} if offset is None else {"offset": offset}

    def _line(self, text: str) -> None:
        offset = self.offset()
        self._print(text if offset is None else f"{text}  offset {offset}")

    def _print(self, line: Any) -> None:
        try:
            if self._json:
                print_json(line)
            else:
                print(_plain(line), flush=True)
        except OSError as error:
            raise _OutputClosed(error) from None
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.stop()


def _offset(text: str) -> StreamOffset:
    """The offset that an option names. Raises QueryError for a time that cannot be read."""
    from engine.client.times import to_nano

    if text in ("first", "last", "next"):
        return text  # type: ignore[return-value] # one of its words
    if text.isascii() and text.isdecimal():
        return int(text)
    return datetime.fromtimestamp(to_nano(text, time.time_ns()) // NANO, UTC)


def _plain(line: str) -> str:
    """``line`` with only characters that the terminal can show. Names come from any publisher: they must not send
    control characters to the terminal."""
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown.encode(sys.stdout.encoding, "replace").decode(sys.stdout.encoding)


def _nothing() -> None:
    """Takes the place of ``stop`` until the consumer exists."""
