"""Structured log lines on standard error or into a file; secrets never pass."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from engine.config import Config
from engine.wire.urls import mask

#: Secrets shorter than this are not looked for by themselves: they would turn half the log into stars.
_SECRET_CHARACTERS_MIN = 4


class Masking:
    """Replaces the credentials of every URL, and every known secret, in every value of a log line."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [secret for secret in secrets if len(secret) >= _SECRET_CHARACTERS_MIN]

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """A structlog processor."""
        return {key: self._clean(value) if isinstance(value, str) else value for key, value in event.items()}

    def _clean(self, text: str) -> str:
        text = mask(text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def secrets_of(config: Config) -> list[str]:
    """Everything in a site that must not be printed."""
    address = config.redis_address
    found = [str(config.redis.password), str(config.redis.publisher_password), address.password or ""]
    found.append(str(config.redis.sentinel_password))
    for url in (str(config.amqp.amqp_url), *(camera.url for camera in config.cameras)):
        credentials = url.partition("://")[2].rpartition("@")[0]
        found.append(credentials.partition(":")[2])
    return [secret for secret in found if secret]


def open_log(config: Config, *, json: bool = False, file: Path | None = None) -> FilteringBoundLogger:
    """The process's logger: logfmt lines, or JSON; to ``file`` if given, else to standard error."""
    target: TextIO = file.open("a", buffering=1) if file else sys.stderr
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
        Masking(secrets_of(config)),
        renderer,
    ]
    # pika logs what its callers are told anyway, with addresses; only what nobody is told may pass.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(target),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.site.log_level.upper()]
        ),
        cache_logger_on_first_use=True,
    )
    return logger
