"""Takes publisher confirms: moves the cursors past what the broker has confirmed, and counts it."""

from __future__ import annotations

import time

from engine.servers.amqp.broker import Broker
from engine.shm import publish_latency
from engine.shm.status_page import PublisherCount, StatusPage
from engine.stages.publisher.accounts import Accounts
from engine.stages.publisher.alert_events import AlertEvents, AlertToken
from engine.stages.publisher.entry_queue import Item
from engine.stages.publisher.gops import Gops, GopToken
from engine.stages.publisher.state_events import StateEvents, StateToken
from engine.wire.journal import JournalEntry


class Confirms:
    """The confirms of ``broker``. Those of frames move the cursors in ``accounts``. ``gops`` is None if no GOPs are
    announced."""

    def __init__(
        self,
        broker: Broker,
        accounts: Accounts,
        states: StateEvents,
        alerts: AlertEvents,
        gops: Gops | None,
        page: StatusPage,
    ) -> None:
        self._broker = broker
        self._accounts = accounts
        self._states = states
        self._alerts = alerts
        self._gops = gops
        self._counts = page.counts
        #: True if a cursor has moved since the caller last saved the cursors and set this to False.
        self.unsaved = False

    def take(self) -> int:
        """Take what was confirmed; returns the number of messages."""
        tokens: list[list[Item] | StateToken | AlertToken | GopToken] = self._broker.take_confirmed()
        frames: list[list[Item]] = []
        for token in tokens:
            if isinstance(token, StateToken):
                self._states.confirm(token)
                self._counts[PublisherCount.STATUS_EVENTS] += 1
            elif isinstance(token, AlertToken):
                self._alerts.confirm(token)
                self._counts[PublisherCount.ALERT_EVENTS] += 1
            elif isinstance(token, GopToken):
                if self._gops:
                    self._gops.confirm(token)
            else:
                frames.append(token)
        if frames:
            self._take_frames(frames)
        self.unsaved = self.unsaved or bool(tokens)
        return len(tokens)

    def _take_frames(self, messages: list[list[Item]]) -> None:
        """Messages that announce frames, in the order sent: of each camera, only the newest entry moves its cursor."""
        newest: dict[str, JournalEntry] = {}
        counts: dict[str, int] = {}
        stored_at: list[int] = []
        for items in messages:
            for camera, entry, since in items:
                newest[camera] = entry
                counts[camera] = counts.get(camera, 0) + 1
                stored_at.append(since)
        for camera, entry in newest.items():
            self._accounts.by_camera[camera].confirm(counts[camera], (entry.unix_nano, entry.sequence))
        self._counts[PublisherCount.CONFIRMED] += len(stored_at)
        self._counts[PublisherCount.MESSAGES] += len(messages)
        now = time.monotonic_ns()
        publish_latency.count(self._counts, [now - since for since in stored_at])
