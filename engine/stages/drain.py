"""One camera's ring on its way to Redis: what the writer keeps of it between batches."""

from __future__ import annotations

from engine.config import Config
from engine.shm.ring import Consumer, Record
from engine.stages.upkeep import JournalUpkeep
from engine.wire.resp import FrameFraming


class RingDrain:
    """A ring's consumer, how its frames are framed, and what is in doubt about those that were sent."""

    def __init__(self, camera: str, config: Config, consumer: Consumer) -> None:
        ttl_seconds = config.redis.ttl_seconds
        self.camera = camera
        self.consumer = consumer
        self.framing = FrameFraming(config.vhost, config.prefix, camera, ttl_seconds * 1000)
        self.upkeep = JournalUpkeep(ttl_seconds)
        #: Frames that were in flight when the connection broke: Redis may have stored them.
        self.uncertain: list[Record] = []
        #: Those of them that were given up since, and until when (monotonic seconds) Redis is asked for them.
        self.doubtful: list[Record] = []
        self.doubtful_until = 0.0
