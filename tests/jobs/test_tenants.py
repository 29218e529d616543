"""Tenants of one server: added up one by one, and users of whom none learns that the others exist."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import hiredis
import pytest
from redis.exceptions import NoPermissionError

from engine import FrameStore
from engine.errors import EXIT_INPUT, EXIT_NOTHING, EngineError, InputError, UnknownName
from engine.jobs.tenants import Role, acl_rules, apply_everywhere, discover
from engine.servers.redis.session import Session
from engine.wire import keys
from engine.wire.redis_address import parse_redis_address
from engine.wire.resp import EXEC, MULTI, FrameFraming, VideoFraming
from tests.client.stocked import PREFIX, STORES, T0, AnyStore, Stored, frame, stock
from tests.jobs.old_frames import assert_site_unharmed, contents
from tests.servers.clips import make_clip, read_clip
from tests.servers.cluster_client import CLUSTER, AnyServer, ReadCluster
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.redis_server import RedisServer
from tests.servers.rtsp_video import Mount, RtspVideo
from tests.servers.wait import wait_until
from tests.stored_video import VideoUnit, store_video, video_units
from tests.system.consumer import Consumer, first_times
from tests.system.site import Site, command, roles_section

OWN, OTHER = "mercado", "zwillingsladen"
CAMERAS = {OWN: ["caixa", "porta"], OTHER: ["geheimkamera", "hinterhof"]}
PAYLOADS = {OWN: b"MEUQUADRO", OTHER: b"VERTRAULICH"}
#: What may be in no reply to the other tenant's neighbour: its name (and so its keys), its cameras, its frames.
SECRETS = [OTHER.encode(), PAYLOADS[OTHER], *(camera.encode() for camera in CAMERAS[OTHER])]
ROLES: list[Role] = ["reader", "writer", "publisher"]
PASSWORD = "correct horse"


def frames_of(vhost: str, count: int = 20) -> list[Stored]:
    """Frames of two cameras."""
    return [
        Stored(camera, T0 + number * 1_000_000_000, number + 1, PAYLOADS[vhost] + f" {camera} {number}".encode())
        for number in range(count)
        for camera in CAMERAS[vhost]
    ]


def video_of(vhost: str) -> list[VideoUnit]:
    """Stored video of the first camera: five GOPs."""
    units = video_units(CAMERAS[vhost][0], "K...." * 5, first=T0)
    return [unit._replace(data=PAYLOADS[vhost] + unit.data[len(PAYLOADS[vhost]) :]) for unit in units]


@pytest.fixture(scope="module", params=["redis-server", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[AnyServer]:
    """Two tenants' frames, and a user for each role of one of them: ``acl --apply`` did that."""
    path = Path(tempfile.mkdtemp(prefix="ev-tenants-"))
    args = ["--notify-keyspace-events", "KEA", "--enable-debug-command", "yes"]
    login = {"username": "root", "password": PASSWORD}
    with (
        ReadCluster(path, **login)
        if request.param == CLUSTER
        else RedisServer(path, binary=request.param, args=args, **login)
    ) as started:
        client = started.client()
        for vhost in (OWN, OTHER):
            stock(client, frames_of(vhost), vhost=vhost)
            store_video(client, vhost, video_of(vhost))
        password_file = path / "password"
        password_file.write_text(f"{PASSWORD}\n")
        done = command(
            *("tenants", "acl", OWN, "--role", "reader", "--apply"),
            *("--redis", started.url, "--password-file", str(password_file)),
        )
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        rules = {f"{OWN}-{role}": acl_rules(OWN, [role], PASSWORD) for role in ("writer", "publisher")}
        rules["old-style"] = acl_rules(OWN, ["reader"], PASSWORD, read_only_patterns=False)
        for user, own in rules.items():
            apply_everywhere(parse_redis_address(started.url), 5, user, own)
        yield started
    shutil.rmtree(path, ignore_errors=True)


def address_of(server: AnyServer, user: str) -> str:
    return server.url.replace("://root:", f"://{user}:")


# A reader and its own data


@pytest.mark.parametrize("server", ["redis-server", "valkey", CLUSTER], indirect=True, scope="module")
@pytest.mark.parametrize("user", [f"{OWN}-reader", "old-style"])
@pytest.mark.parametrize("kind", STORES, ids=["FrameStore", "AsyncFrameStore"])
def test_a_reader_asks_all_questions_about_its_own_frames(server, kind, user):
    frames = frames_of(OWN)
    camera = CAMERAS[OWN][0]
    own = [frame(one, OWN) for one in frames if one.camera == camera]
    entries = [one.key for one in own]
    with kind(address_of(server, user), OWN) as store:
        assert store.latest(camera) == own[-1]
        assert store.at(camera, T0) == own[0]
        assert store.get(own[3].key) == own[3]
        assert store.get_many([own[3].key, own[5].key]) == [own[3], own[5]]
        assert list(store.range(camera)) == own
        assert list(store.range(camera, reverse=True, limit=3)) == own[:-4:-1]
        assert [one.key for one in store.entries(camera)] == entries
        assert store.count(camera) == len(own)
        assert sum(bucket.frames for bucket in store.rate(camera)) == len(own)
        assert list(store.cameras()) == CAMERAS[OWN]
        assert list(store.snapshot()) == CAMERAS[OWN]
        stats = store.stats()
        assert (stats.total.frames, list(stats.cameras)) == (len(frames), CAMERAS[OWN])
        assert stats.total.mean_ttl_seconds is not None
        assert list(itertools.islice(store.tail(camera, T0), 5)) == own[:5]
        assert len(list(itertools.islice(store.tail(since=T0), 40))) == 40
        assert [one.key for one in itertools.islice(store.tail_entries(camera, T0), 5)] == entries[:5]
        assert store.tail(camera).poll() is None
        units = [(unit.entry.unix_nano, unit.data) for unit in video_of(OWN)]
        assert [(unit.unix_nano, unit.data) for unit in store.video(camera)] == units
        assert [entry.unix_nano for entry in store.video_entries(camera, T0, from_key=True)] == [n for n, _ in units]
        assert [unit.data for unit in itertools.islice(store.tail_video(camera, T0), 25)] == [data for _, data in units]
        assert store.count(camera, video=True) == 25
        assert (stats.video.frames, stats.video.bytes) == (25, sum(len(data) for _, data in units))
        assert list(stats.video_cameras) == [camera]
        with pytest.raises(UnknownName):
            store.latest("caixa2")


def questions(camera: str) -> dict[str, Callable[[Any], Any]]:
    """Every public method that asks something, about one camera."""
    key = keys.build_frame_key(keys.FrameKey(OTHER, PREFIX, camera, T0, 1))
    return {
        "latest": lambda store: store.latest(camera),
        "at": lambda store: store.at(camera, T0),
        "get": lambda store: store.get(key),
        "get_many": lambda store: store.get_many([key]),
        "range": lambda store: list(store.range(camera)),
        "entries": lambda store: list(store.entries(camera)),
        "count": lambda store: store.count(camera),
        "rate": lambda store: store.rate(camera),
        "tail": lambda store: store.tail(camera, 0).poll(),
        "tail of all": lambda store: store.tail(None, 0).poll(),
        "video": lambda store: list(store.video(camera)),
        "video_entries": lambda store: list(store.video_entries(camera, from_key=True, start=T0)),
        "tail_video": lambda store: store.tail_video(camera, 0).poll(),
        "tail_video of all": lambda store: store.tail_video(None, 0).poll(),
        "tail_video_entries": lambda store: store.tail_video_entries(camera, 0).poll(),
        "picture": lambda store: store.picture(camera),
        "pictures": lambda store: list(store.pictures(camera)),
        "tail_pictures": lambda store: store.tail_pictures(camera, 0).poll(),
        "tail_entries": lambda store: store.tail_entries(camera, 0).poll(),
        "cameras": lambda store: store.cameras(),
        "snapshot": lambda store: store.snapshot(),
        "stats": lambda store: store.stats(),
    }


def test_every_question_of_a_store_is_among_those_that_are_tried():
    asked = {name.split()[0] for name in questions("x")}
    public = {name for name in vars(FrameStore) if not name.startswith("_")}
    assert public - asked == {"close"}


@pytest.mark.parametrize("user", [*(f"{OWN}-{role}" for role in ROLES), "old-style"])
@pytest.mark.parametrize("kind", STORES, ids=["FrameStore", "AsyncFrameStore"])
def test_no_question_about_another_tenant_is_answered(server, kind, user):
    stores: list[tuple[str, AnyStore]] = [
        (whose, kind(address_of(server, user), whose, cameras=CAMERAS[OTHER][:known]))
        for whose in (OWN, OTHER)
        for known in (0, 1)
    ]
    for whose, store in stores:
        with store:
            for name, ask in questions(CAMERAS[OTHER][0]).items():
                try:
                    answer = ask(store)
                except (InputError, EngineError) as error:
                    text = str(error)
                    continue
                assert whose == OWN, f"{name} was answered"
                text = repr(answer)
                for payload in SECRETS[1:2]:
                    assert payload.decode() not in text, name


# Every command that there is


class Told(NamedTuple):
    """What a server answered to one command."""

    arguments: tuple[bytes, ...]
    reply: Any


class Line:
    """A connection of one user, spoken on as a program may that knows RESP."""

    def __init__(self, server: RedisServer, user: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        assert self.ask([(b"AUTH", user.encode(), PASSWORD.encode())])[0].reply == b"OK"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, attempts: list[tuple[bytes, ...]]) -> list[Told]:
        """Say these one after another; what comes back, which is less where the connection is ended."""
        self._socket.sendall(b"".join(hiredis.pack_command(attempt) for attempt in attempts))
        told = []
        with suppress(EOFError, ConnectionError):
            for attempt in attempts:
                told.append(Told(attempt, self._next()))  # noqa: PERF401 - what came before the end counts
        return told

    def unasked(self) -> list[Told]:
        """What comes without being asked for, as a subscription brings it."""
        self._socket.settimeout(0.2)
        told = []
        with suppress(TimeoutError, EOFError, ConnectionError):
            while True:
                told.append(Told((), self._next()))
        return told

    def _next(self) -> Any:
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65_536)
            if not data:
                raise EOFError
            self._reader.feed(data)
        return reply


def talk(server: RedisServer, user: str, attempts: list[tuple[bytes, ...]]) -> list[Told]:
    """``attempts`` on a connection of their own."""
    with Line(server, user) as line:
        return line.ask(attempts)


def words(reply: Any) -> Iterator[bytes]:
    """Everything that a reply consists of."""
    if isinstance(reply, list | tuple | set):
        for item in reply:
            yield from words(item)
    elif isinstance(reply, dict):
        yield from words(list(reply.items()))
    elif isinstance(reply, bytes):
        yield reply
    else:
        yield str(reply).encode()


def secrets_in(told: Told) -> list[bytes]:
    """What of the other tenant a reply gives away. An error, and PING, may repeat what was just said to the server."""
    found = []
    for word in words(told.reply):
        text = word
        if not isinstance(told.reply, bytes) or told.arguments[0] == b"PING":
            for argument in sorted(told.arguments, key=len, reverse=True):
                text = text.replace(argument, b"") if argument else text
        found += [secret for secret in SECRETS if secret in text]
    return found


FRAME = keys.build_frame_key(keys.FrameKey(OTHER, PREFIX, CAMERAS[OTHER][0], T0, 1)).encode()
JOURNAL = keys.journal_key(OTHER, PREFIX, CAMERAS[OTHER][0]).encode()
STATES = keys.cameras_key(OTHER, PREFIX).encode()
CURSOR = keys.cursor_key(OTHER, PREFIX).encode()
UNIT = keys.build_video_key(keys.FrameKey(OTHER, PREFIX, CAMERAS[OTHER][0], T0, 1)).encode()
VIDEO_JOURNAL = keys.video_journal_key(OTHER, PREFIX, CAMERAS[OTHER][0]).encode()
MINE = keys.build_frame_key(keys.FrameKey(OWN, PREFIX, CAMERAS[OWN][0], T0, 1)).encode()
MY_JOURNAL = keys.journal_key(OWN, PREFIX, CAMERAS[OWN][0]).encode()

#: What a person with redis-cli would try.
BY_HAND = """
KEYS * | KEYS {other}* | SCAN 0 COUNT 10000 | SCAN 0 MATCH {other}:* COUNT 10000 | RANDOMKEY | DBSIZE | GET {frame}
MGET {mine} {frame} | GETRANGE {frame} 0 -1 | SUBSTR {frame} 0 -1 | STRLEN {frame} | EXISTS {mine} {frame}
GETEX {frame} | GETDEL {frame} | GETSET {frame} x | SET {frame} x GET | LCS {frame} {mine} | TYPE {frame}
TTL {frame} | PTTL {frame} | EXPIRETIME {frame} | DUMP {frame} | RESTORE {frame} 0 x REPLACE | TOUCH {frame}
DEL {frame} | UNLINK {frame} | COPY {frame} {mine} REPLACE | RENAME {frame} {mine} | RENAMENX {frame} {other}:x
MOVE {frame} 1 | EXPIRE {frame} 1 | PERSIST {frame} | APPEND {frame} x | SETRANGE {frame} 0 x | BITCOUNT {frame}
BITOP NOT {mine} {frame} | OBJECT ENCODING {frame} | OBJECT FREQ {frame} | MEMORY USAGE {frame} | MEMORY STATS
MEMORY DOCTOR | DEBUG OBJECT {frame} | DEBUG SLEEP 0 | DEBUG RELOAD | DEBUG DIGEST | DEBUG DIGEST-VALUE {frame}
DEBUG LISTPACK {states} | XRANGE {journal} - + | XREVRANGE {journal} + - | XLEN {journal} | XREAD STREAMS {journal} 0
XREAD BLOCK 1 STREAMS {journal} $ | XREAD COUNT 1 STREAMS {my_journal} {journal} 0 0 | XINFO STREAM {journal} FULL
XINFO GROUPS {journal} | XGROUP CREATE {journal} g 0 | XREADGROUP GROUP g c STREAMS {journal} >
XTRIM {journal} MAXLEN 0 | XDEL {journal} 1-1 | XADD {journal} * a b | XPENDING {journal} g | HGETALL {states}
HKEYS {states} | HGET {states} geheimkamera | HSCAN {states} 0 | HRANDFIELD {states} 9 | HSET {states} a b
HDEL {states} geheimkamera | HGETALL {cursor} | SORT {mine} BY nosort GET {frame} | SORT {mine} GET {other}:*
SORT_RO {mine} GET {frame} | SORT {frame} ALPHA | EVAL return(redis.call('KEYS','*')) 0
EVAL return(redis.call('GET',KEYS[1])) 1 {frame} | EVAL_RO return(1) 0
EVAL return(redis.call('GET',ARGV[1])) 1 {mine} {frame} | EVALSHA x 0 | SCRIPT LOAD x | FUNCTION LIST | FUNCTION DUMP
FCALL f 1 {frame} | FCALL_RO f 0 | MONITOR | SUBSCRIBE __keyspace@0__:{frame} | PSUBSCRIBE __key* | SSUBSCRIBE x
PUBLISH x y | PUBSUB CHANNELS | PUBSUB NUMPAT | CLIENT LIST | CLIENT INFO | CLIENT KILL TYPE normal | CLIENT PAUSE 1
CLIENT TRACKING ON BCAST PREFIX {other} | CLIENT GETREDIR | CLIENT NO-EVICT on | CLIENT SETNAME x | INFO | INFO all
INFO keyspace | ACL LIST | ACL USERS | ACL GETUSER root | ACL LOG | ACL WHOAMI | ACL CAT | ACL SETUSER {me} ~* +@all
ACL GENPASS | CONFIG GET * | CONFIG SET requirepass "" | CONFIG RESETSTAT | CONFIG REWRITE | SLOWLOG GET 100
LATENCY HISTOGRAM | LATENCY DOCTOR | COMMAND COUNT | COMMAND LIST | COMMAND GETKEYS GET {frame} | MODULE LIST | LOLWUT
SWAPDB 0 1 | SELECT 1 | FLUSHALL | FLUSHDB | SAVE | BGSAVE | BGREWRITEAOF | LASTSAVE | SHUTDOWN NOSAVE | ROLE | SYNC
PSYNC ? -1 | REPLICAOF 127.0.0.1 1 | FAILOVER | REPLCONF listening-port 1 | CLUSTER INFO | WAIT 0 1 | TIME
ECHO {frame} | MIGRATE 127.0.0.1 1 {frame} 0 1 COPY | RESTORE-ASKING {mine} 0 x | OBJECT HELP | HELLO 3
GET {unit} | MGET {mine} {unit} | GETRANGE {unit} 0 -1 | STRLEN {unit} | EXISTS {unit} | PTTL {unit} | DUMP {unit}
SET {unit} x | DEL {unit} | COPY {unit} {mine} REPLACE | XRANGE {video_journal} - + | XREVRANGE {video_journal} + -
XREAD STREAMS {video_journal} 0 | XLEN {video_journal} | XINFO STREAM {video_journal} | XADD {video_journal} * a b
WATCH {frame} | UNWATCH | MULTI | GET {frame} | EXEC | DISCARD | RESET | GET {frame} | KEYS *
"""


def by_hand(user: str) -> list[tuple[bytes, ...]]:
    names = {
        "other": OTHER.encode(),
        "frame": FRAME,
        "journal": JOURNAL,
        "unit": UNIT,
        "video_journal": VIDEO_JOURNAL,
        "states": STATES,
        "cursor": CURSOR,
        "mine": MINE,
        "my_journal": MY_JOURNAL,
        "me": user.encode(),
    }
    text = {name: value.decode() for name, value in names.items()}
    lines = BY_HAND.replace("\n", "|").split("|")
    return [tuple(word.encode() for word in line.format(**text).split()) for line in lines if line.strip()]


#: Words that stand beside keys in commands, for those that nobody has thought of.
FILLERS = (b"0", b"*", b"GET", b"STREAMS")


def vectors(name: bytes) -> list[tuple[bytes, ...]]:
    """One command with the other tenant's keys wherever they may stand."""
    command_ = tuple(name.upper().split(b"|"))
    found = [(), (OTHER.encode() + b"*",)]
    for key in (FRAME, JOURNAL, STATES, UNIT):
        for count in range(1, 4):
            found.append((key,) * count)
            for position, filler in itertools.product(range(count), FILLERS):
                filled = [filler] * count
                filled[position] = key
                found.append(tuple(filled))
    return [(*command_, *arguments) for arguments in dict.fromkeys(found)]


#: Commands that anybody may say, or a writer, and that end a connection or change what it speaks: each attempt takes a
#: connection of its own.
ALONE = {b"AUTH", b"HELLO", b"QUIT", b"RESET", b"MULTI"}


@pytest.mark.parametrize("user", [*(f"{OWN}-{role}" for role in ROLES), "old-style"])
def test_no_command_tells_of_another_tenant_or_touches_it(server, user):
    client = server.client()
    before = {name: held for name, held in contents(client).items() if OTHER.encode() in name}
    assert len(before) > 40
    rules = client.acl_getuser(user)
    told = talk(server, user, by_hand(user))
    assert len(told) == len(by_hand(user)), "the connection was lost on the way"
    names = [name.lower() for name in client.execute_command("COMMAND LIST")]
    assert {b"get", b"debug", b"xread", b"client|list", b"acl|list"} <= set(names)
    with Line(server, user) as line:
        for name in names:
            attempts = vectors(name)
            if name.upper() in ALONE:
                told += [one for attempt in attempts for one in talk(server, user, [attempt])]
                continue
            found = line.ask(attempts)
            assert len(found) == len(attempts), f"{name} ended the connection"
            told += found
        # The other tenant goes on meanwhile: what was subscribed to, or watched, would be heard of now.
        client.set(FRAME + b"x", PAYLOADS[OTHER])
        client.delete(FRAME + b"x")
        told += line.unasked()
    assert [(one, secrets_in(one)) for one in told if secrets_in(one)] == []
    # Nor was anything done to it, or to the user's rights.
    assert {name: contents(client)[name] for name in before} == before
    assert not [name for name in client.keys("*") if OTHER.encode() in name and name not in before]
    assert client.acl_getuser(user) == rules
    # The attempts are not all nonsense: with all rights, the same ones give much away.
    assert sum(bool(secrets_in(one)) for one in talk(server, "root", by_hand(user)[:10])) > 5


# Who there is, and how much


def test_tenants_are_listed_and_added_up(server):
    client = server.client()
    with Session(parse_redis_address(server.url), 5) as session:
        assert discover(session) == [(OWN, PREFIX), (OTHER, PREFIX)]
    done = command("tenants", "list", "--redis", server.url, "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"vhost": vhost, "prefix": PREFIX, "cameras": CAMERAS[vhost], "active": 2} for vhost in (OWN, OTHER)
    ]
    done = command("tenants", "stats", OTHER, "--redis", server.url, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    frames = frames_of(OTHER)
    total = report["total"]
    assert (report["vhost"], total["frames"], total["bytes"]) == (OTHER, 40, sum(len(one.payload) for one in frames))
    assert (total["oldest_nano"], total["newest_nano"]) == (T0, T0 + 19_000_000_000)
    units = video_of(OTHER)
    video = report["video"]
    assert (video["frames"], video["bytes"]) == (25, sum(len(unit.data) for unit in units))
    assert (video["oldest_nano"], video["newest_nano"]) == (T0, units[-1].entry.unix_nano)
    assert list(report["video_cameras"]) == CAMERAS[OTHER][:1]
    shown = command("tenants", "stats", OWN, "--cameras", "--redis", server.url).stdout.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [
        [OWN, PREFIX], ["caixa", "20"], ["porta", "20"], ["video", "1"], ["caixa", "25"],
    ]  # fmt: skip
    assert total["without_ttl"] == total["missing"] == 0
    lifetimes = [client.pttl(name) / 1000 for name in client.keys(f"{OTHER}:*")]
    assert total["mean_ttl_seconds"] >= sum(lifetimes) / len(lifetimes)
    assert report["cameras"].keys() == set(CAMERAS[OTHER])
    done = command("tenants", "stats", "mercadoo", "--redis", server.url)
    assert done.returncode == EXIT_INPUT
    assert "'mercado'" in done.stderr


def test_an_empty_server_has_no_tenants(redis_server):
    assert command("tenants", "stats", "--redis", redis_server.address).returncode == EXIT_NOTHING


@pytest.mark.one_server
def test_a_user_may_be_given_one_prefix_s_video_alone(redis_server):
    """Tenants are vhosts. But an administrator can end a user's rights at a prefix: patterns by hand do it."""
    client = redis_server.client()
    for prefix in ("inside", "inside/x", "insidex", "out"):
        store_video(client, "loja", video_units("cam", "K.", first=T0), prefix=prefix)
        client.hset(keys.cameras_key("loja", prefix), "cam", b"{}")
    root = keys.video_root("loja", "inside")
    patterns = [f"%R~{root}*", "%R~engine:loja:journal:inside/*", f"%R~{keys.cameras_key('loja', 'inside')}"]
    commands = [rule for rule in acl_rules("loja", ["reader"], PASSWORD) if rule.startswith("+")]
    client.execute_command("ACL", "SETUSER", "inside", "on", f">{PASSWORD}", *patterns, *commands)
    address = f"redis://inside:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{redis_server.port}"
    with FrameStore(address, "loja", "inside", cameras=["cam"]) as store:
        assert len(list(store.video("cam"))) == 2
    for prefix in ("inside/x", "insidex", "out"):
        with FrameStore(address, "loja", prefix, cameras=["cam"]) as store, pytest.raises(EngineError):
            list(store.video("cam"))


# The line


@pytest.mark.one_server
@pytest.mark.parametrize("vhost", ["loja", "a b", "50%", "[x]*?", "o'brien", 'say "hi"', "câmera", "/", "a;b"])
@pytest.mark.parametrize("old", [False, True], ids=["7", "6"])
def test_redis_cli_takes_the_line_as_it_is_printed(redis_server, tmp_path, vhost, old):
    """Pasted into redis-cli, whatever the tenant is called; and it gives what it says."""
    (tmp_path / "password").write_text(PASSWORD)
    line = acl_line(vhost, tmp_path / "password", *(["--redis-6"] if old else []))
    assert "%R~" not in line or not old
    cli = ["redis-cli", "-p", str(redis_server.port)]
    done = subprocess.run(cli, input=line, capture_output=True, text=True, timeout=10, check=True)
    assert done.stdout.strip() == "OK"
    (name,) = set(redis_server.client().acl_users()) - {"default"}
    tenant = keys.DEFAULT_VHOST if vhost == "/" else vhost
    own = keys.build_frame_key(keys.FrameKey(tenant, PREFIX, "cam1", T0, 1))
    redis_server.client().set(own, b"x")
    user = redis_server.client(username=name, password=PASSWORD)
    assert user.get(own) == b"x"
    with pytest.raises(NoPermissionError):
        user.get("another:frames:cam1:1731024000123456789:00001")


def acl_line(vhost: str, password: Path, *more: str) -> str:
    """What the command prints; in this process, for there are many."""
    from typer.testing import CliRunner

    from engine.cli.tenants import tenants

    done = CliRunner().invoke(
        tenants, ["acl", vhost, "--role", "reader", "--password-file", str(password), *more], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert PASSWORD not in done.output
    (line,) = done.stdout.splitlines()
    return line


@pytest.mark.one_server
def test_mistakes_of_who_asks_for_a_user_are_told_with_the_way_out(tmp_path, redis_server):
    cases = [
        (["loja", "--role", "raeder"], "did you mean 'reader'"),
        (["engine", "--role", "reader"], "reserved"),
        (["loja", "--role", "reader", "--password-file", str(tmp_path / "none")], "cannot be read"),
    ]
    for arguments, text in cases:
        done = command("tenants", "acl", *arguments)
        assert done.returncode == EXIT_INPUT, done.stderr
        assert text in done.stderr
        assert done.stdout == ""
    # A password that is made up is told once, and not in the line.
    done = command(
        "tenants", "acl", "loja", "--role", "reader", "--role", "writer", "--apply", "--redis", redis_server.url
    )
    assert done.returncode == 0, done.stderr
    password = done.stderr.split("password of loja-reader-writer: ")[1].split()[0]
    assert password not in done.stdout
    assert redis_server.client(username="loja-reader-writer", password=password).ping()


# A site of least rights


def test_a_site_runs_with_the_rights_of_its_roles_and_is_refused_nothing(
    site: Site, short_path: Path, rabbitmq: RabbitMQ, vhost: str
) -> None:
    cameras = [{"id": f"cam{number}", "url": "test://?fps=30&kb=20&size=320x240"} for number in (1, 2)]
    clip = read_clip(make_clip(short_path / "clip.mp4", fps=15, gop=5, seconds=2))
    with (
        RedisServer(short_path / "redis", username="root", password=PASSWORD) as server,
        RtspVideo(short_path / "rtsp", {"/gate": Mount(clip)}) as gate,
    ):
        cameras.append({"id": "gate", "url": gate.url("/gate"), "video": True, "decode": "none"})
        secret = short_path / "secret"
        secret.write_text(PASSWORD)
        for role in ("writer", "publisher"):
            done = command(
                *("tenants", "acl", vhost, "--role", role, "--user", role, "--apply"),
                *("--redis", server.url, "--password-file", str(secret)),
            )
            assert done.returncode == 0, done.stderr
        site.write(
            cameras=cameras,
            redis=roles_section(server.address, PASSWORD),
            amqp_url=rabbitmq.url(vhost),
            metadata={"video": "gop"},
        )
        client = server.client()
        client.execute_command("ACL LOG RESET")
        with Consumer(rabbitmq, vhost) as consumer:
            for _ in range(2):
                site.start()
                wait_until(lambda: site.status()["publisher"]["confirmed"] > 60, 30, "events are confirmed")
                wait_until(lambda: site.total("stored") > 60, 30, "frames are stored")
                wait_until(lambda: site.status()["publisher"]["gops"] > 2, 30, "GOPs are announced")
                assert site.stop() == 0
            total = len(client.keys(f"{vhost}:*"))
            wait_until(lambda: len(consumer.frames()) >= total, 30, "all events arrived")
            announced = {camera: first_times(numbers) for camera, numbers in consumer.sequences().items()}
        # The numbers go on from one run to the next: none is missing, and none stands twice.
        assert client.hexists(keys.video_cursor_key(vhost, PREFIX), "gate")
        assert client.hget(keys.cameras_key(vhost, PREFIX), "gate")
        assert_site_unharmed(site, client, vhost, but=["gate"])
        assert {camera: len(numbers) for camera, numbers in announced.items()} == {
            camera: client.xlen(keys.journal_key(vhost, PREFIX, camera)) for camera in ("cam1", "cam2")
        }
        refused = [(entry["username"], entry["reason"], entry["object"]) for entry in client.acl_log()]
        assert refused == []


@pytest.mark.parametrize("kind", [FrameFraming, VideoFraming])
def test_a_writer_may_do_all_that_the_store_asks_of_redis(server, kind):
    """Also what a short test of a site does not come to: trimming, and asking for what may stand already."""
    framing = kind(OWN, PREFIX, CAMERAS[OWN][0], 1000)
    stored = framing.before(T0, 1, 1) + b"x" + framing.after(T0, 1, 1, 1, 1, 0, 1)
    reader = hiredis.Reader()
    reader.feed(MULTI + stored + framing.keep() + framing.trim(T0) + framing.lookup(T0, 1) + framing.newest() + EXEC)
    client = server.client()
    names = set()
    while (words_ := reader.gets()) is not False:
        assert client.execute_command("ACL DRYRUN", f"{OWN}-writer", *words_) in (b"OK", "OK")
        names.add(words_[0])
    assert names == {b"MULTI", b"SET", b"XADD", b"PEXPIRE", b"XTRIM", b"XRANGE", b"XREVRANGE", b"EXEC"}


# Readers that do not read


def test_readers_that_stop_reading_cost_the_site_nothing(site: Site, redis_server: RedisServer) -> None:
    cameras = [{"id": f"cam{number}", "url": "test://?fps=30&kb=100"} for number in (1, 2, 3)]
    site.write(cameras=cameras, redis={"address": redis_server.address})
    site.start()
    wait_until(lambda: site.total("stored") > 60, 30, "frames flow")
    stores = [FrameStore(redis_server.address) for _ in range(10)]
    idle: list[Any] = [store.tail(since=0) for store in stores]
    idle += [store.range(camera["id"]) for store in stores for camera in cameras]
    for items in idle:
        next(items)
    # They hold what they were given, and ask for nothing more.
    stored = site.total("stored")
    wait_until(lambda: site.total("stored") > stored + 300, 60, "frames flow on")
    assert site.dropped() == {}
    assert site.stop() == 0
    assert_site_unharmed(site, redis_server.client(), "default")
    for store in stores:
        store.close()
