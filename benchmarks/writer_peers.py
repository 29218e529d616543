"""The writer's peers: redis-benchmark, a redis-py pipeline, and the product page's SETEX per frame.

Each stores ``frames`` new keys and returns the cost, without its start and its payloads.
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
#: Numbers of requests that redis-benchmark has in flight; the best result is the limit.
DEPTHS = (1, 4, 16)
#: Range of its random keys: so large that a key is hardly ever drawn twice; it takes at most 31 bits.
_KEYS = 10**9


def redis_benchmark(server: RedisServer, frames: int, size: int, depth: int) -> Spent:
    """redis-benchmark with one client, which stores ``size`` bytes under random keys with the TTL.

    The command is PSETEX, an older name for SET with PX, because version 7 accepts a payload of any size only as the
    last argument. The time is its own, from the first request to the last reply; its CPU includes its start.
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
    # The first column, the test's name, contains the payload, which is too long for the csv module. Rates come last.
    names, values = (line.split('","') for line in ran.stdout.decode().splitlines())
    per_second = float(values[names.index("rps") - len(names)])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # It counts whole milliseconds, and a few frames may take less than one.
    return Spent(max(frames / per_second, 0.0005) if per_second else 0.0005, cpu)


def pipeline(client: redis.Redis, frames: int, payloads: Sequence[bytes], depth: int) -> Spent:
    """redis-py: SET with the TTL and XADD for each frame, ``depth`` frames per pipeline. It stores the same as the
    writer, in the way of an ordinary user of redis-py."""
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
    """The product page's way: one SETEX per frame, and no journal."""
    bodies = itertools.cycle(payloads)
    nano = time.time_ns()
    with Stopwatch() as watch:
        for number in range(frames):
            key = f"v:frames:cam0:{nano + number}:{number % 99_999 + 1:05d}"
            # client.setex does the same, with a deprecation warning.
            client.execute_command("SETEX", key, TTL_SECONDS, next(bodies))
    return watch.spent
