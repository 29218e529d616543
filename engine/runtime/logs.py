"""Structured log lines on standard error or in a file, without secrets."""

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

#: Characters of a webhook's path from which on it may be a secret.
_TARGET_MIN = 8


class Masking:
    """Masks the credentials of every URL and every secret of a site in a text. As a structlog processor, it does so in
    every value of a log line."""

    def __init__(self, config: Config) -> None:
        self._secrets = secrets_of(config)

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Mask all values of a log line, as a structlog processor."""
        return {key: self._clean(value) for key, value in event.items()}

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        return mask(text, self._secrets)

    def _clean(self, value: Any) -> Any:
        """Turn everything but plain numbers into masked text, so that no secret inside a value gets through. A log
        belongs to a site, so advice names keys of the site file."""
        if isinstance(value, EngineError):
            return self.text(explain(value, Audience.SITE))
        return value if value is None or isinstance(value, bool | int | float) else self.text(str(value))


class MaskedStream:
    """A text stream that passes all text through a ``Masking``."""

    def __init__(self, stream: TextIO, masking: Masking) -> None:
        self._stream = stream
        self._masking = masking

    def write(self, text: str) -> int:
        """Write text, masked."""
        self._stream.write(self._masking.text(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, masked. The wrapped stream's own method would bypass ``write``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mask_standard_error(config: Config) -> None:
    """Mask secrets on standard error of this process and its forks, because Python itself writes tracebacks, warnings
    and errors of threads there."""
    sys.stderr = cast("TextIO", MaskedStream(sys.stderr, Masking(config)))


def secrets_of(config: Config) -> set[str]:
    """Everything in a site that must not be printed, in all spellings."""
    redis, address, web = config.redis, config.redis_address, config.web
    found = set[str]()
    for secret in (
        *(redis.password, redis.publisher_password, redis.sentinel_password, address.password or ""),
        *(web.token, *web.tenants.values()),
    ):
        found |= spellings(str(secret))
    alerts = config.alerts
    webhook = alerts.webhook_address
    # A short path would mask parts of other words, and holds no secret.
    paths = [webhook.target] if webhook and len(webhook.target) >= _TARGET_MIN else []
    for secret in (alerts.webhook, alerts.webhook_token, *paths):
        found |= spellings(str(secret))
    for url in (redis.address, *config.amqp.urls, *(camera.url for camera in config.cameras)):
        found |= secrets_in(str(url))
    return found


def log_file(config: Config) -> Path:
    """The log file of a site without a usable standard error."""
    return private_directory(config.run_directory) / "edge-video.log"


def open_log(config: Config, *, json: bool = False, file: Path | None = None) -> FilteringBoundLogger:
    """The process's logger, for logfmt lines or JSON. It writes to ``file`` if given, else to standard error, or to a
    file in the run directory if that is closed."""
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

    # pika logs errors that it also raises, with addresses. Only its critical messages pass.
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
