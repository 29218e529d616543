"""The table of faults: what each is, what it may cost, and how soon all must be as before.

A case's test does the fault; ``accounts.py`` then accounts for every frame by its number. ``drops`` are the reasons
under which frames may be missing; with none, none may. ``bound`` is in seconds from the end of the fault.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    key: str
    fault: str
    loss: str
    bound: float
    drops: frozenset[str] = frozenset()
    #: Whether events may come twice.
    repeats: bool = False


NOTHING = "nothing"
EXPIRED = "events whose frames are gone (counted as expired, exactly)"
INTERRUPTED = frozenset({"interrupted"})
OUTAGE = frozenset({"outage"})
LOST = frozenset({"lost"})

#: Video: the rest of a GOP is dropped with any unit of it.
GOP = frozenset({"broken_gop"})

GROUPS: dict[str, tuple[Case, ...]] = {
    "Processes": (
        Case("kill-capture", "SIGKILL to captures, ten times, at random moments",
             "the frame in hand (`interrupted`), what the camera sends until it is back", 15, INTERRUPTED),
        Case("kill-writer", "SIGKILL to the writer, five times, at random moments", NOTHING, 15),
        Case("kill-publisher", "SIGKILL to the publisher, four times, at random moments, twice with events unconfirmed",
             "nothing; events of the last moments come twice", 15, repeats=True),
        Case("kill-supervisor", "SIGKILL to the supervisor; the site is started again",
             "frames in hand (`interrupted`), what cameras send until then", 15, INTERRUPTED, repeats=True),
        Case("kill-supervisor-embedded", "SIGKILL to the supervisor of a site with the embedded server, twice",
             "frames in hand (`interrupted`), what cameras send until the next start; nothing that was stored", 15,
             INTERRUPTED, repeats=True),
        Case("kill-all", "SIGKILL to all processes at once; the site is started again",
             "frames in hand (`interrupted`), what cameras send until then", 15, INTERRUPTED, repeats=True),
        Case("stop-capture", "SIGSTOP to a capture until it is killed as hung",
             "the frame in hand (`interrupted`), what the camera sends until it is back", 15, INTERRUPTED),
        Case("stop-writer", "SIGSTOP to the writer until it is killed as hung", NOTHING, 15),
        Case("stop-publisher", "SIGSTOP to the publisher until it is killed as hung",
             "nothing; events of the last moments come twice", 15, repeats=True),
        Case("stop-supervisor", "SIGSTOP to the supervisor, a writer killed meanwhile", NOTHING, 15),
        Case("stop-all", "SIGSTOP to all processes for two seconds", "what cameras send meanwhile", 15),
        Case("cannot-start", "a publisher and a capture that cannot start, until what stops them is gone",
             "what that camera sends until then; events of the last moments come twice", 45, repeats=True),
        Case("restarts", "66 restarts: every child killed three times over",
             "frames in hand (`interrupted`), what cameras send until they are back; no file, memory or zombie is left",
             20, INTERRUPTED, repeats=True),
        Case("roles-killed", "role by role under supervisord: SIGKILL to the publisher, the writer, a capture and the "
             "process that forks the captures, three times each",
             "frames in hand (`interrupted`), what cameras send until then; events of the last moments come twice", 20,
             INTERRUPTED, repeats=True),
    ),
    "Redis": (
        Case("redis-emptied", "killed; comes back empty after a second",
             "what it had acknowledged (`lost`)", 15, LOST),
        Case("redis-aof", "killed; comes back with its append-only file (fsync always)", NOTHING, 15),
        Case("redis-stopped", "stands still (SIGSTOP) for three seconds", NOTHING, 15),
        Case("redis-long", "stands still for longer than the rings hold",
             "the oldest frames (`outage`)", 15, OUTAGE),
        Case("redis-client-pause", "CLIENT PAUSE for three seconds", NOTHING, 15),
        Case("redis-slow", "every reply 100 ms late, both ways", NOTHING, 15),
        Case("redis-throttled", "a connection of 1 MB/s, less than the cameras send, for five seconds",
             "what the rings cannot hold (`outage` or `ring_full`)", 15, OUTAGE | {"ring_full"}),
        Case("redis-resets", "every second connection is reset after a kilobyte", NOTHING, 15),
        Case("redis-cut", "the connection is cut in the middle of a reply, five times", NOTHING, 15),
        Case("redis-oom", "out of memory under `noeviction`, for longer than the rings hold",
             "the oldest frames (`outage`)", 15, OUTAGE),
        Case("redis-evicting", "at its memory's limit under `volatile-ttl`",
             "nothing of the new; Redis evicts the oldest", 15),
        Case("redis-read-only", "made a read-only replica for two seconds", NOTHING, 15),
        Case("redis-password", "password changed and connections cut; changed back", NOTHING, 15),
        Case("redis-flushed", "FLUSHALL", "what it held (`lost`)", 20, LOST),
        Case("redis-flushed-writer", "FLUSHALL, and SIGKILL to the writer before it looks", "what it held (`lost`)", 15,
             LOST),
        Case("redis-flushed-stop", "FLUSHALL, and a stop of the site at once", "what it held (`lost`)", 15, LOST),
        Case("redis-emptied-writer", "killed while the writer is down; comes back empty before the writer does",
             "what it had acknowledged (`lost`)", 15, LOST),
        Case("redis-emptied-site", "emptied after a SIGKILL to the supervisor; the site is started again",
             "what it held (`lost`), frames in hand (`interrupted`), what cameras send until then", 15,
             LOST | INTERRUPTED, repeats=True),
        Case("redis-journal-ahead", "a journal has an entry of the year 2128, before the site starts and until it runs",
             "that camera's frames until the entry is gone (`refused`)", 15, frozenset({"refused", "interrupted"}),
             repeats=True),
        Case("redis-failover", "the master killed; Sentinel promotes a replica",
             "what the replica had not got (`lost`), what the rings cannot hold (`outage`)", 30, LOST | OUTAGE),
        Case("redis-lagging-failover", "the master killed while its replica is behind",
             "the frames of the gap (`lost`)", 30, LOST | OUTAGE),
    ),
    "Redis Cluster": (
        Case("cluster-failover", "every master hands over to its replica, in order", NOTHING, 20),
        Case("cluster-killed", "a master killed; its replica takes over; the old one comes back",
             "what the replica had not got (`lost`); events of the last moments come twice", 30, LOST, repeats=True),
        Case("cluster-lagging", "a master killed while its replica is behind",
             "the frames of the gap, and those whose entries are in it (`lost`); events come twice", 30, LOST | OUTAGE,
             repeats=True),
        Case("cluster-lagging-writer", "the same, and SIGKILL to the writer before",
             "the frames of the gap, and those whose entries are in it (`lost`); events come twice", 30, LOST | OUTAGE,
             repeats=True),
        Case("cluster-lagging-long", "the same; the replica takes over after the rings have run out",
             "in addition, frames that belong there, and of cameras whose journal is there any (`outage` or "
             "`ring_full`)", 30,
             LOST | OUTAGE | {"ring_full"}, repeats=True),
        Case("cluster-partition", "a master cut off from all; its replica takes over; the old one comes back",
             "what the replica had not got (`lost`); events of the last moments come twice", 30, LOST, repeats=True),
        Case("cluster-cut-off", "a master that clients do not reach for three seconds, and other nodes do", NOTHING, 20,
             repeats=True),
        Case("cluster-shard-away", "a master and its replica stand still for longer than the rings hold",
             "frames that belong there, and of cameras whose journal is there the oldest (`outage`); other frames are "
             "stored meanwhile", 30, OUTAGE, repeats=True),
        Case("cluster-shard-emptied", "a master and its replica killed for longer than the rings hold; they come back "
             "empty",
             "in addition, what they held, and frames whose entries they held (`lost`)", 30, OUTAGE | LOST,
             repeats=True),
        Case("cluster-reshard", "slots move from node to node, with all keys, and back", NOTHING, 20),
        Case("cluster-resize", "a node is added, takes slots over, and is removed again", NOTHING, 20),
        Case("cluster-writer-killed", "SIGKILL to the writer between frames and their entries, three times", NOTHING,
             20, repeats=True),
    ),
    "RabbitMQ": (
        Case("broker-killed", "killed and started again", NOTHING, 40, repeats=True),
        Case("broker-restarted", "stopped and started again", NOTHING, 40, repeats=True),
        Case("broker-closes-connection", "closes the connection, three times", NOTHING, 20, repeats=True),
        Case("broker-closes-channel", "closes the channel: the exchange is deleted and declared anew by the publisher",
             "nothing; queues must be bound again", 20, repeats=True),
        Case("broker-alarm", "memory alarm (connection.blocked) for two seconds", NOTHING, 20, repeats=True),
        Case("broker-rejects", "a queue that is full and rejects (nacks)", NOTHING, 25, repeats=True),
        Case("broker-permission", "the right to write to the exchange taken away and given back", NOTHING, 25,
             repeats=True),
        Case("broker-406", "the exchange declared otherwise while the publisher is cut off; put right later",
             NOTHING, 25, repeats=True),
        Case("broker-heartbeats", "nothing passes in either direction until heartbeats are missed",
             NOTHING, 30, repeats=True),
        Case("broker-expired", "away for longer than frames live",
             "events whose frames are gone (counted as expired)", 40, repeats=True),
        Case("broker-backlog", "an hour's events of 20 cameras (72,000) wait in the journals", NOTHING, 60,
             repeats=True),
    ),
    "Events": (
        Case("events-slow-uplink", "the uplink to RabbitMQ passes 20 KB/s, less than the events are, for 15 s at TTL 2",
             EXPIRED, 30),
        Case("events-alarm", "memory alarm for 9 s at TTL 2", EXPIRED, 30),
        Case("events-redis-user", "the publisher's Redis user is off for 9 s at TTL 2", EXPIRED, 30),
        Case("events-publisher-stopped", "SIGSTOP to the publisher for 9 s at TTL 2", EXPIRED, 30),
        Case("events-publisher-killed", "RabbitMQ is away, and the publisher is killed five times while events expire",
             EXPIRED, 30, repeats=True),
        Case("events-clock", "the wall clock steps an hour back, then RabbitMQ is away for 9 s at TTL 2", EXPIRED, 30,
             repeats=True),
        Case("events-foreign-journal", "another program puts a string where one camera's journal was, for 3 s",
             "that camera's frames (`refused`); other cameras lose and delay nothing", 30, frozenset({"refused"})),
        Case("events-journal-gone", "the publisher stands still (SIGSTOP) until cameras have ended and their journals "
             "expired", EXPIRED, 30),
        Case("events-stop-and-start", "stopped; started after all journals expired, without RabbitMQ; the publisher "
             "killed", "events whose frames are gone (counted as expired); numbers go on", 30, repeats=True),
    ),
    "Cameras": (
        Case("camera-refused", "refuses connections", "what it does not send", 30),
        Case("camera-hung-connect", "accepts a connection and says nothing", "what it does not send", 30),
        Case("camera-hung", "stops in the middle of the stream, connection open", "what it does not send", 30),
        Case("camera-dead", "dies in the middle of a frame, over and over", "the half frames (`corrupt`)", 30,
             frozenset({"corrupt"})),
        Case("camera-garbage", "sends garbage", "what it does not send", 30),
        Case("camera-truncated", "truncated JPEGs among whole ones", "those (`corrupt`)", 30, frozenset({"corrupt"})),
        Case("camera-corrupt", "JPEGs with flipped bytes among whole ones",
             "those whose structure is broken (`corrupt`)", 30, frozenset({"corrupt"})),
        Case("camera-huge", "frames of 30 MB among small ones", "those (`too_large`)", 30,
             frozenset({"too_large", "corrupt"})),
        Case("camera-too-large", "nothing but frames that do not fit the ring, for a while; the state says so",
             "those (`too_large`)", 30, frozenset({"too_large", "corrupt"})),
        Case("camera-password", "its password is changed, and changed back; state and one event say so",
             "what it does not send", 45),
        Case("camera-resolution", "changes its resolution in the middle of the stream", NOTHING, 30),
        Case("camera-codec", "changes its codec in the middle of the stream (H.264, then MPEG-4 and another size)",
             "what the decoder cannot read (`corrupt`)", 40, frozenset({"corrupt"})),
        Case("camera-no-timestamps", "a stream without timestamps", NOTHING, 30),
        Case("camera-timestamps-back", "timestamps that run back, over and over", NOTHING, 30),
        Case("camera-flapping", "200 cameras that send two frames and a half and hang up, at once",
             "the half frames (`corrupt`), what they do not send", 60,
             frozenset({"corrupt", "interrupted"})),
    ),
    "Video": (
        Case("video-kill-capture", "SIGKILL to captures of cameras that send H.264, four times",
             "the unit in hand (`interrupted`), what the camera sends until its first key frame from then on", 15,
             INTERRUPTED),
        Case("video-kill-writer", "SIGKILL to the writer, four times", NOTHING, 15),
        Case("video-kill-supervisor", "SIGKILL to the supervisor; the site is started again",
             "units in hand (`interrupted`), what cameras send until their first key frames from then on", 20,
             INTERRUPTED),
        Case("video-redis-stopped", "Redis stands still for three seconds", NOTHING, 15),
        Case("video-redis-long", "Redis stands still for longer than the rings hold",
             "the oldest units (`outage`), each with the rest of its GOP (`broken_gop`)", 15, OUTAGE | GOP),
        Case("video-redis-emptied", "Redis killed; comes back empty after a second",
             "what it had acknowledged (`lost`), the rest of the GOPs that had begun (`broken_gop`)", 15, LOST | GOP),
        Case("video-ring-full", "Redis stands still, under `overflow = \"drop-newest\"`",
             "the newest units (`ring_full`), each with the rest of its GOP (`broken_gop`)", 15,
             GOP | {"ring_full"}),
        Case("video-camera", "the cameras' server is restarted", "what they send until they are connected again", 20),
    ),
    "Machine": (
        Case("shm-full", "shared memory too small at the start", "nothing is started, exit code 2", 15),
        Case("shm-full-adding", "shared memory too small for one more camera, after a kill",
             "nothing: the rings of the killed site wait", 15, INTERRUPTED, repeats=True),
        Case("second-site", "a site that would store under the same names is started, and one that would not",
             "nothing; the first ends with exit code 2, the other runs", 15),
        Case("run-directory", "run directory that cannot be made, or that this user may not write",
             "nothing is started, exit code 2", 15),
        Case("disk-full-log", "the disk of the log is full, processes killed meanwhile",
             "log lines, which are counted; frames in hand (`interrupted`)", 15, INTERRUPTED, repeats=True),
        Case("disk-full-aof", "the disk of Redis's append-only file is full for two seconds",
             "what the rings cannot hold (`outage`), and what Redis drops of its file (`lost`)", 20, OUTAGE | LOST),
        Case("descriptors", "no file descriptors left in any process while Redis and RabbitMQ cut their connections",
             NOTHING, 25, repeats=True),
        Case("no-processes", "no more processes may be started (RLIMIT_NPROC): some at the start, then none while ten "
             "captures and the publisher are killed",
             "frames in hand (`interrupted`), what those cameras send until then; events come twice", 45, INTERRUPTED,
             repeats=True),
        Case("clock", "the wall clock steps an hour back, and an hour forth", NOTHING, 15),
        Case("ring-unlinked", "the rings of three cameras removed under a running site, with frames in them",
             NOTHING, 15),
        Case("ring-renamed", "the rings of three cameras moved away under a running site, with frames in them",
             NOTHING, 15),
        Case("ring-and-capture", "a ring removed with frames in it and its capture killed at once, three times",
             "the frame in hand, what the camera sends until it is back; the former ring's counts are in the log", 15),
        Case("ring-and-writer", "a ring removed with frames in it, then the writer killed",
             "what the ring held (`damaged`); Redis may still store the last batch of it", 15, frozenset({"damaged"})),
        Case("ring-tenant", "stopped with frames in its rings while Redis is away; started with another vhost",
             "nothing: exit code 2, the rings wait for the former vhost", 15, repeats=True),
        Case("ring-version", "a ring file of another version at the start", "what it held, and that is said", 15,
             INTERRUPTED, repeats=True),
        Case("ring-truncated", "a ring file cut short at the start, and one under a running site",
             "what they held, and that is said; what that camera sends until it is back", 20, INTERRUPTED,
             repeats=True),
        Case("ring-noise", "a ring's records overwritten with noise, under a running site",
             "those frames (`damaged`); never a torn one", 15, frozenset({"damaged", "interrupted"})),
    ),
}  # fmt: skip

CASES = {case.key: case for group in GROUPS.values() for case in group}
