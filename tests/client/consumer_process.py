"""A consumer as a process of its own, which tests kill: ``python -m tests.client.consumer_process AMQP REDIS MODE``.

Prints each event's sequence number as its callback begins. ``hang`` never returns from the callback, ``poison`` kills
the process at events of sequence 2, ``wait`` returns once the file that the fourth argument names exists.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from engine import Frame, FrameConsumer
from engine.wire.metadata import FrameEvent
from tests.client.consuming import DEAD, QUEUE


def main(amqp_url: str, redis_url: str, mode: str, file: str = "") -> None:
    def callback(event: FrameEvent, frame: Frame | None) -> None:
        assert frame is not None
        print(int(event.sequence), flush=True)
        while mode == "hang" or (mode == "wait" and not os.path.exists(file)):
            time.sleep(0.02)
        if mode == "poison" and event.sequence == "00002":
            os.kill(os.getpid(), signal.SIGKILL)

    FrameConsumer(amqp_url, redis_url, callback, queue=QUEUE, dead_letter=DEAD, attempts=3, prefetch=10).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
