"""Structured log lines on standard error or into a file; secrets never pass."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from engine.config import Config
from engine.errors import Audience, EngineError, explain
from engine.runtime.log_writer import Lines
from engine.runtime.streams import has_standard_error
from engine.shm.segment import private_directory
from engine.wire.urls import mask, secrets_in, spellings


class Masking:
    """Replaces the credentials of every URL, and every secret of a site, in text; as a structlog processor, in every
    value of a log line."""

    def __init__(self, config: Config) -> None:
        self._secrets = secrets_of(config)

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """A structlog processor."""
        return {key: self._clean(value) for key, value in event.items()}

    def text(self, text: str) -> str:
        """``text`` as it may be shown."""
        return mask(text, self._secrets)

    def _clean(self, value: Any) -> Any:
        """What is no plain number is shown as its text, so that nothing inside it passes unseen. A log belongs to a
        site, so advice names keys of the site file."""
        if isinstance(value, EngineError):
            return self.text(explain(value, Audience.SITE))
        return value if value is None or isinstance(value, bool | int | float) else self.text(str(value))


class MaskedStream:
    """A text stream that whatever is written to passes a ``Masking`` first."""

    def __init__(self, stream: TextIO, masking: Masking) -> None:
        self._stream = stream
        self._masking = masking

    def write(self, text: str) -> int:
        """As of any text stream."""
        self._stream.write(self._masking.text(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As of any text stream; the stream's own would pass by ``write``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mask_standard_error(config: Config) -> None:
    """Let nothing out of this process, and of those that it forks, with a secret in it: tracebacks of what nobody
    expected are written by Python itself, and so are warnings and what a thread dies of."""
    sys.stderr = cast("TextIO", MaskedStream(sys.stderr, Masking(config)))


def secrets_of(config: Config) -> set[str]:
    """Everything in a site that must not be printed, in each of its spellings."""
    redis, address = config.redis, config.redis_address
    found = set[str]()
    for secret in (redis.password, redis.publisher_password, redis.sentinel_password, address.password or ""):
        found |= spellings(str(secret))
    for url in (redis.address, config.amqp.amqp_url, *(camera.url for camera in config.cameras)):
        found |= secrets_in(str(url))
    return found


def log_file(config: Config) -> Path:
    """Where a site logs that has no standard error to log to."""
    return private_directory(config.run_directory) / "edge-video.log"


def open_log(config: Config, *, json: bool = False, file: Path | None = None) -> FilteringBoundLogger:
    """The process's logger: logfmt lines, or JSON; to ``file`` if given, else to standard error, or where that is
    closed into the run directory."""
    if file is None and not has_standard_error():
        file = log_file(config)
    target: IO[Any] = file.open("ab", buffering=0) if file else sys.stderr
    renderer: Processor
    if json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "role", "event"], bool_as_flag=False, sort_keys=False
        )
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        Masking(config),
        renderer,
    ]

    def notice(lost: int) -> str:
        event = {"event": "log lines could not be written", "level": "warning", "lines": lost}
        return str(renderer(None, "warning", structlog.processors.TimeStamper(fmt="iso", utc=True)(None, "", event)))

    # pika logs what its callers are told anyway, with addresses; only what nobody is told may pass.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        Lines(target, notice),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.site.log_level.upper()]
        ),
        cache_logger_on_first_use=True,
    )
    return logger
