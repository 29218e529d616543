"""The cameras' states on their way from the status pages to their hash in Redis, where publisher and clients read them.

A state counts as written when Redis has said so. Now and then the hash is looked at: where it was deleted, or the
server emptied, all states are written again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import hiredis
from structlog.typing import FilteringBoundLogger

from engine.errors import WireError
from engine.shm.status_page import StatusPage
from engine.stages.writer.store import Store
from engine.wire import resp
from engine.wire.state import decode_status

#: Seconds between looks at what the hash has.
_LOOK_SECONDS = 1.0
#: What is said once, until it has worked again.
_REFUSED = "camera states refused; trying again"
_UNSEEN = "camera states cannot be looked at; were they deleted, only changes are written"


class CameraStates:
    """Writes to ``hash_key`` through ``store``, while no batch is in flight."""

    def __init__(self, store: Store, hash_key: str, log: FilteringBoundLogger) -> None:
        self._store = store
        self._key = hash_key.encode()
        self._log = log
        #: The status page and the version of its text that Redis has of each camera.
        self._written: dict[str, tuple[StatusPage, int]] = {}
        self._look_at = 0.0
        #: What was said already.
        self._said: set[str] = set()

    def forget(self) -> None:
        """Nobody knows what Redis has; write all of it."""
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
                # There is nothing to write until it changes.
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
        """Forget what the hash has no more."""
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
