"""The shown and logged state of one camera: it changes with events, not with each try."""

from __future__ import annotations

import time

from structlog.typing import FilteringBoundLogger

from engine.config import Camera
from engine.errors import CameraUnavailable, WireError
from engine.shm.status_page import StatusPage
from engine.sources.failures import Failures
from engine.sources.source import Source
from engine.wire import urls
from engine.wire.state import ERROR_CHARACTERS_MAX, CameraStatus, Decode, State, decode_status, encode_status


class CameraReport:
    """The state of ``camera`` in its process's status ``page``, and in ``log``.

    If a killed process knew that the camera fails, its successor continues with that state.
    """

    def __init__(self, camera: Camera, page: StatusPage, log: FilteringBoundLogger) -> None:
        self._camera = camera
        self._page = page
        self._log = log
        self._troubles = Failures()
        #: True after the log said that the camera is active, until it says that the camera failed.
        self._active_said = False
        self._active_since = 0.0
        #: Width and height of the current frames; None while none flow.
        self.active_size: tuple[int, int] | None = None
        self._status = self._inherited()

    def _inherited(self) -> CameraStatus:
        try:
            before = decode_status(self._page.text)
        except WireError:
            before = CameraStatus()
        if before.state in ("connecting", "active") or not before.consecutive_failures:
            return CameraStatus(consecutive_failures=0 if before.state == "active" else before.consecutive_failures)
        self._troubles.resume(before.last_error)
        return before

    @property
    def is_active(self) -> bool:
        """True while frames flow."""
        return self._status.state == "active"

    @property
    def active_seconds(self) -> float:
        """How long frames have flowed; 0 while none flow."""
        return time.monotonic() - self._active_since if self.is_active else 0.0

    def show(self) -> None:
        """Show the camera as connecting, or as its last process left it."""
        self._page.text = encode_status(self._status)

    @property
    def note(self) -> str:
        """What the active camera waits for, as shown."""
        return self._status.note

    @property
    def decode(self) -> Decode:
        """Which pictures of the active camera become JPEGs, as shown."""
        return self._status.decode

    def active(self, source: Source, width: int, height: int, note: str = "") -> None:
        """Frames of this size in pixels flow, or access units; 0 if the size is that of before. ``note`` says what they
        wait for."""
        width, height = width or self._status.width, height or self._status.height
        changed = (width, height) != (self._status.width, self._status.height)
        if not self.is_active:
            self._active_since = time.monotonic()
        self._set("active", "", failures=0, source=source, width=width, height=height, note=note)
        if not self._active_said or changed:
            self._active_said = True
            self._log.info("camera active", codec=source.codec, mode=source.mode, width=width, height=height)

    def was_well(self) -> None:
        """Frames flowed for a good while: the next failure begins another outage."""
        self._troubles.over()

    def unusable(self, error: str) -> None:
        """Frames arrive, but none can be stored."""
        news = self._say("stalled", error)
        self._set("stalled", error, failures=self._status.consecutive_failures, news=news)

    def failed(self, state: State, error: CameraUnavailable, retry_seconds: float) -> None:
        """A try or a flowing stream has failed; the next try follows after ``retry_seconds``."""
        failures = self._status.consecutive_failures + 1
        text = urls.mask(str(error), urls.secrets_in(self._camera.url))
        news = self._say(state, text, failures=failures, retry_seconds=round(retry_seconds, 1))
        self._set(state, text, failures=failures, news=news, advice=error.details.get("advice", ""))

    def ended(self, reason: str) -> None:
        """The source has delivered its last frame."""
        self._set("offline", reason, failures=0)
        self._log.info("source ended", reason=reason)

    def closed(self) -> None:
        """The camera is no longer recorded."""
        if self._status.state != "offline":
            self._set("offline", "recording stopped", failures=self._status.consecutive_failures)

    def _say(self, state: State, error: str, **numbers: float) -> bool:
        """Log a new failure, and an hourly summary of a lasting one; returns True for a new one."""
        news = self._troubles.is_news(error)
        if news:
            self._active_said = False
            self._log.warning("camera failed", state=state, error=error, **numbers)
        elif self._troubles.summary_due():
            minutes = round(self._troubles.seconds / 60)
            self._log.warning("camera still fails", state=state, error=error, since_minutes=minutes, **numbers)
        return news

    def _set(
        self,
        state: State,
        error: str,
        *,
        failures: int,
        news: bool = False,
        source: Source | None = None,
        width: int = 0,
        height: int = 0,
        note: str = "",
        advice: str = "",
    ) -> None:
        """Show the current state. An event reports state and time together. So the time changes with the state, and
        with a new failure."""
        changed = news or state != self._status.state
        self._status = CameraStatus(
            state=state,
            timestamp_nano=time.time_ns() if changed else self._status.timestamp_nano,
            consecutive_failures=failures,
            last_error=error[:ERROR_CHARACTERS_MAX],
            codec=source.codec if source else self._status.codec,
            mode=source.mode if source else self._status.mode,
            width=width or self._status.width,
            height=height or self._status.height,
            decode=source.decode if source else self._status.decode,
            note=note,
            advice=advice,
        )
        self.active_size = (self._status.width, self._status.height) if state == "active" else None
        self._page.text = encode_status(self._status)
