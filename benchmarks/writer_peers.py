"""What the writer is compared to: redis-benchmark, a redis-py pipeline, and the product page's SETEX a frame.

Each stores ``frames`` new keys and returns what that took, its own start and its payloads not counted.
"""

from __future__ import annotations

import itertools
import resource
import subprocess
import time
from collections.abc import Sequence

import redis

from benchmarks.in_process import HEIGHT, WIDTH, Spent, Stopwatch
from tests.servers.redis_server import RedisServer

TTL_SECONDS = 300
#: Requests that redis-benchmark has under way at a time; the best of them is the limit.
DEPTHS = (1, 4, 16)
#: Numbers that its keys are drawn from: so many that a key is hardly ever drawn twice; it takes no more than 31 bits.
_KEYS = 10**9


def redis_benchmark(server: RedisServer, frames: int, size: int, depth: int) -> Spent:
    """redis-benchmark, one client, storing ``size`` bytes under random keys with the TTL.

    The command is PSETEX, which is SET with PX by an older name: version 7 puts a payload of any size only into a
    command's last place. The time is its own, from its first request to its last reply; its CPU includes its start.
    """
    where = ["-p", str(server.port)] if server.socket_path is None else ["-s", str(server.socket_path)]
    options = ["-n", str(frames), "-c", "1", "-P", str(depth), "-r", str(_KEYS)]
    command = ["PSETEX", "v:frames:bench:__rand_int__:00001", str(TTL_SECONDS * 1000)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        ["redis-benchmark", *where, *options, "--csv", "-x", *command],
        input=b"x" * size,
        capture_output=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The first column, the test's name, holds the payload: longer than the csv module takes. Rates end the line.
    names, values = (line.split('","') for line in ran.stdout.decode().splitlines())
    per_second = float(values[names.index("rps") - len(names)])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # It counts whole milliseconds, and so few frames may take none.
    return Spent(max(frames / per_second, 0.0005) if per_second else 0.0005, cpu)


def pipeline(client: redis.Redis, frames: int, payloads: Sequence[bytes], depth: int) -> Spent:
    """redis-py, SET with the TTL and XADD for each of ``depth`` frames a pipeline: what the writer stores, as a Redis
    client's user would write it."""
    bodies = itertools.cycle(payloads)
    nano = time.time_ns()
    with Stopwatch() as watch:
        for first in range(0, frames, depth):
            commands = client.pipeline(transaction=False)
            for number in range(first, min(first + depth, frames)):
                body = next(bodies)
                commands.set(f"v:frames:cam0:{nano + number}:{number % 99_999 + 1:05d}", body, px=TTL_SECONDS * 1000)
                fields: dict[str, str | int] = {"s": len(body), "w": WIDTH, "h": HEIGHT, "e": "jpeg", "k": 1}
                commands.xadd("engine:v:journal:frames:cam0", fields, id=f"{nano + number}-{number + 1}")  # type: ignore[arg-type]
            commands.execute()
    return watch.spent


def setex(client: redis.Redis, frames: int, payloads: Sequence[bytes]) -> Spent:
    """The product page's way: one SETEX a frame, and no journal."""
    bodies = itertools.cycle(payloads)
    nano = time.time_ns()
    with Stopwatch() as watch:
        for number in range(frames):
            key = f"v:frames:cam0:{nano + number}:{number % 99_999 + 1:05d}"
            # client.setex is this and a warning that it is deprecated.
            client.execute_command("SETEX", key, TTL_SECONDS, next(bodies))
    return watch.spent
