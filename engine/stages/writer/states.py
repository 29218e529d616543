"""Copies the cameras' states from the status pages to a hash in Redis, where publisher and clients read them.

A state counts as written when Redis has confirmed it. The hash is checked regularly: states that were deleted from it
are written again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import hiredis
from structlog.typing import FilteringBoundLogger

from engine.errors import WireError
from engine.shm.status_page import StatusPage
from engine.stages.writer.store import Caller
from engine.wire import resp
from engine.wire.state import decode_status

#: Seconds between checks of the hash.
_LOOK_SECONDS = 1.0
#: Messages that are logged once, until the operation works again.
_REFUSED = "camera states refused; trying again"
_UNSEEN = "camera states cannot be looked at; were they deleted, only changes are written"


class CameraStates:
    """Writes to ``hash_key`` through ``store``, while no batch is in flight."""

    def __init__(self, store: Caller, hash_key: str, log: FilteringBoundLogger) -> None:
        self._store = store
        self._key = hash_key.encode()
        self._log = log
        #: For each camera, the status page and the version of its text that Redis has.
        self._written: dict[str, tuple[StatusPage, int]] = {}
        self._look_at = 0.0
        #: Messages already logged.
        self._said: set[str] = set()

    def forget(self) -> None:
        """The content of Redis is unknown: write all states again."""
        self._written.clear()

    def publish(self, pages: Mapping[str, StatusPage]) -> None:
        """Write the states that have changed. Raises RedisUnavailable."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_SECONDS
            self._look()
        changed: dict[str, tuple[StatusPage, int]] = {}
        pairs: list[bytes] = []
        for camera, page in pages.items():
            version = (page, page.text_version)
            if self._written.get(camera) == version:
                continue
            text = page.text
            try:
                known = decode_status(text).state != "connecting"
            except WireError as error:
                self._say(f"state of camera {camera} cannot be read", str(error))
                known = False
            if known:
                changed[camera] = version
                pairs += [camera.encode(), text]
            else:
                # Nothing to write until it changes.
                self._written[camera] = version
        if not pairs:
            return
        reply = self._store.call([resp.command(b"HSET", self._key, *pairs)])[0]
        if isinstance(reply, hiredis.ReplyError):
            self._say(_REFUSED, str(reply))
        else:
            self._written |= changed
            self._said.discard(_REFUSED)

    def _look(self) -> None:
        """Forget the states that the hash no longer has."""
        cameras = list(self._written)
        if not cameras:
            return
        reply = self._store.call([resp.command(b"HMGET", self._key, *(camera.encode() for camera in cameras))])[0]
        if isinstance(reply, list) and len(reply) == len(cameras):
            self._said.discard(_UNSEEN)
            for camera, text in zip(cameras, reply, strict=True):
                if text is None:
                    del self._written[camera]
        else:
            self._say(_UNSEEN, str(reply))

    def _say(self, event: str, error: str) -> None:
        if event not in self._said:
            self._said.add(event)
            self._log.warning(event, error=error)
