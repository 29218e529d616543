"""One camera's ring on its way to Redis: what the writer keeps of it between batches."""

from __future__ import annotations

from engine.config import Config
from engine.shm.ring import Consumer, Record
from engine.stages.writer.journal_trim import JournalTrim
from engine.wire.resp import FrameFraming


class CameraWriter:
    """A ring's consumer, how its frames are framed, and what is in doubt about those that were sent."""

    def __init__(self, camera: str, config: Config, consumer: Consumer) -> None:
        ttl_seconds = config.redis.ttl_seconds
        self.camera = camera
        self.consumer = consumer
        self.framing = FrameFraming(config.vhost, config.prefix, camera, ttl_seconds * 1000)
        self.upkeep = JournalTrim(ttl_seconds)
        #: Frames that were in flight when the connection broke: Redis may have stored them.
        self.uncertain: list[Record] = []
        #: Those of them that were given up since, and until when (monotonic seconds) Redis is asked for them.
        self.doubtful: list[Record] = []
        self.doubtful_until = 0.0
        #: True after a batch of which the journal refused entries, until it takes a whole batch again.
        self.refused = False
        self._numbers = config.publishes

    @property
    def entries(self) -> int:
        """How many entries the journal has got that a publisher is to announce."""
        return self.consumer.entries if self._numbers else self.consumer.entries_before or 0

    def next_number(self) -> int:
        """The number of the next frame's entry; 0 where frames before it may yet turn out to have an entry, or not.

        A ring is in one batch at a time, so all that was sent before is counted.
        """
        known = self._numbers and self.consumer.entries_before is not None
        return self.entries + 1 if known and not (self.uncertain or self.doubtful or self.refused) else 0
