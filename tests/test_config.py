from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import tempfile
import textwrap
import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine import config
from engine.config import Config, default_run_directory, parse
from engine.errors import EXIT_INPUT, ConfigError
from engine.wire import keys
from tests.examples import examples

CAMERA = '[[cameras]]\nid = "cam1"\nurl = "test://"\n'
PAGE = Path(__file__).parents[2] / "shared" / "reference" / "redis-storage.md"
#: The product page's snippets, for machines where the page is not.
PAGE_SNIPPETS = """
```toml
[redis]
enabled = true
address = "redis:6379"
username = ""  # Opcional
password = ""  # Opcional
ttl_seconds = 300
prefix = "frames"

[amqp]
amqp_url = "amqp://user:pass@rabbitmq:5672/client-a"
```
```toml
# Cliente A
[amqp]
amqp_url = "amqp://user:pass@rabbitmq:5672/client-a"

# Cliente B
[amqp]
amqp_url = "amqp://user:pass@rabbitmq:5672/client-b"
```
```toml
[redis]
enabled = true
ttl_seconds = 600
prefix = "analytics"

[metadata]
enabled = true  # Metadados para ML
```
"""


def site(text: str = "", environment: dict[str, str] | None = None, cameras: str = CAMERA) -> Config:
    """The site of ``text`` with a camera behind it."""
    return parse(f"{text}\n{cameras}".encode(), environment or {})


def refused(text: str, environment: dict[str, str] | None = None, cameras: str = CAMERA) -> str:
    """The message with which a site is refused."""
    with pytest.raises(ConfigError) as caught:
        site(text, environment, cameras)
    assert caught.value.exit_code == EXIT_INPUT
    return str(caught.value)


def camera(text: str) -> str:
    return f'[[cameras]]\nid = "cam1"\nurl = "test://"\n{text}'


def test_one_camera_is_a_site():
    made = site()
    assert [(c.id, c.url, c.kind) for c in made.cameras] == [("cam1", "test://", "test")]
    assert (made.vhost, made.prefix, made.embedded, made.publishes) == ("default", "frames", True, False)
    assert (made.redis.ttl_seconds, made.ring.overflow, made.writer.writers) == (300, "drop-oldest", 1)
    assert made.warnings == ()


def test_messages_go_where_the_design_says():
    metadata = site().metadata
    assert (metadata.exchange, metadata.exchange_durable) == ("camera.metadata", True)
    assert metadata.routing_key == "camera.metadata.event"
    assert metadata.batch_routing_key == "camera.metadata.batch"
    assert metadata.status_routing_key == "camera.metadata.event.status"


def test_a_camera_has_the_site_s_defaults_where_it_says_nothing():
    made = site(
        '[defaults]\nfps = 5\nquality = 70\ntransport = "udp"\n',
        cameras=CAMERA + '[[cameras]]\nid = "cam2"\nurl = "test://"\nquality = 90\n',
    )
    assert [(c.fps, c.quality, c.transport) for c in made.cameras] == [(5.0, 70, "udp"), (5.0, 90, "udp")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[redis]\nttl_seconds = \n", r"is not TOML: .*line 2"),
        ('[redis\naddress = "x"', r"is not TOML: .*line 1"),
        ('[redis]\nprefix = "a"\nprefix = "b"\n', r"is not TOML: .*line 3"),
        ("a = [1,\n", r"is not TOML: .*line \d"),
    ],
)
def test_text_that_is_no_toml_names_the_line(text, message):
    assert re.match(message, refused(text))


def test_a_file_that_ends_too_early_names_its_last_line():
    with pytest.raises(ConfigError, match="line 3"):
        parse(b'[redis]\n\nprefix = "a', {})


def test_bytes_that_are_no_utf8_are_named():
    with pytest.raises(ConfigError, match="not UTF-8: byte 5 is 0xff"):
        parse(b"[site\xff", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[reddis]\n", "unknown key 'reddis'; did you mean 'redis'?"),
        ("zzzzzz = 1\n", "unknown key 'zzzzzz'; known are site, redis, amqp"),
        ("[redis]\nadress = 'x'\n", "unknown key 'redis.adress'; did you mean 'address'?"),
        ("[site]\nqqqq = 1\n", "unknown key 'site.qqqq'; known are name, run_directory"),
        ("[defaults]\nqualty = 5\n", "unknown key 'defaults.qualty'; did you mean 'quality'?"),
        ("warnings = ['x']\n", "unknown key 'warnings'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(text, message):
    assert message in refused(text)


def test_an_unknown_key_of_a_camera_is_named_by_the_camera_s_place_and_id():
    message = refused("", cameras=CAMERA + '[[cameras]]\nid = "cam2"\nurl = "test://"\nqualty = 5\n')
    assert message == "unknown key 'cameras[1] (cam2).qualty'; did you mean 'quality'?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redis = 5\n", "redis must be a table, not a whole number"),
        ("[redis]\nttl_seconds = '5'\n", "redis.ttl_seconds must be a whole number, not text"),
        ("[redis]\nttl_seconds = true\n", "redis.ttl_seconds must be a whole number, not true or false"),
        ("[redis]\nttl_seconds = 1.5\n", "redis.ttl_seconds must be a whole number, not a fraction"),
        ("[redis]\npassword = 12345\n", "redis.password must be text, not a whole number"),
        ("[redis]\nenabled = 'yes'\n", "redis.enabled must be true or false, not text"),
        ("[site]\nname = 2024-01-01\n", "site.name must be text, not a date"),
        ("[ring]\noverflow = 'drop-all'\n", "ring.overflow cannot be 'drop-all'"),
        ("[redis]\nttl_seconds = 0\n", "redis.ttl_seconds must be a whole number of at least 1, not 0"),
        ("[redis]\nttl_seconds = -5\n", "redis.ttl_seconds must be a whole number of at least 1, not -5"),
        ("[redis]\nttl_seconds = 99999999999999999999\n", "redis.ttl_seconds must be a whole number of at most"),
        ("[redis]\nprefix = ''\n", "redis.prefix must be text of at least 1 character"),
        ("[redis]\naddress = ''\n", "redis.address"),
        ("[defaults]\nfps = 0\n", "defaults.fps must be a number of at least 0.0001"),
        ("[defaults]\nfps = -1\n", "defaults.fps must be a number of at least 0.0001"),
        ("[defaults]\nfps = nan\n", "defaults.fps"),
        ("[defaults]\nfps = inf\n", "defaults.fps"),
        ("[site]\ndrain_seconds = nan\n", "site.drain_seconds"),
        ("[site]\nname = 'a/b'\n", "site.name"),
        ("[site]\nname = '../x'\n", "site.name"),
        ('[site]\nname = "a\\n"\n', "site.name"),
        ("[ring]\ncapacity_mb = 0\n", "ring.capacity_mb must be a whole number of at least 1, not 0"),
        ("[writer]\nwriters = 0\n", "writer.writers must be a whole number of at least 1, not 0"),
        ("[metadata]\nbatch_max = 0\n", "metadata.batch_max must be a whole number of at least 1, not 0"),
        ("[publisher]\nwindow = 0\n", "publisher.window must be a whole number of at least 1, not 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_path(text, message):
    assert message in refused(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fps = 0\n", "cameras[0] (cam1).fps must be a number of at least 0.0001"),
        ("fps = 'fast'\n", "cameras[0] (cam1).fps must be a number"),
        ("quality = 0\n", "cameras[0] (cam1).quality must be a whole number of at least 1, not 0"),
        ("quality = 101\n", "cameras[0] (cam1).quality must be a whole number of at most 100, not 101"),
        ("width = 0\nheight = 10\n", "cameras[0] (cam1).width must be a whole number of at least 16, not 0"),
        ("width = -1\nheight = 10\n", "cameras[0] (cam1).width"),
        (
            "width = 640\nheight = 99999\n",
            "cameras[0] (cam1).height must be a whole number of at most 16384, not 99999",
        ),
        ("width = 640\n", "cameras[0] (cam1): width and height go together"),
        ("transport = 'sctp'\n", "cameras[0] (cam1).transport cannot be 'sctp'"),
        ("name = 5\n", "cameras[0] (cam1).name must be text"),
        ("stall_seconds = 30\n", "cameras[0] (cam1): stall_seconds 30 and open_timeout_seconds 10 must be less than"),
    ],
)
def test_a_camera_that_cannot_be_is_refused_by_its_place_and_id(text, message):
    assert message in refused("", cameras=camera(text))


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ("", "no cameras; add at least one [[cameras]]"),
        ("cameras = []\n", "no cameras"),
        ("cameras = 5\n", "cameras must be a list"),
        ("[cameras]\nid = 'a'\n", "cameras must be a list"),
        ("cameras = [5]\n", "cameras[0] must be a table"),
        ("[[cameras]]\nurl = 'test://'\n", "cameras[0] lacks the key id"),
        ("[[cameras]]\nid = 'a'\n", "cameras[0] (a) lacks the key url"),
        ("[[cameras]]\nid = ''\nurl = 'test://'\n", "cameras[0] ().id must be text of at least 1 character"),
        ("[[cameras]]\nid = 5\nurl = 'test://'\n", "cameras[0].id must be text, not a whole number"),
        ("[[cameras]]\nid = 'a'\nurl = ''\n", "cameras[0] (a): url is empty"),
        (CAMERA + CAMERA, "camera id 'cam1' is used twice"),
        ("[[cameras]]\nid = 'a'\nurl = 'ftp://h/x'\n", "cameras[0] (a): unsupported URL scheme 'ftp'"),
        ("[[cameras]]\nid = 'a'\nurl = 'test://?size=640'\n", "cameras[0] (a): size '640' is not WIDTHxHEIGHT"),
        ("[[cameras]]\nid = 'a'\nurl = 'test://?speed=1'\n", "cameras[0] (a): the test URL"),
        (f"[[cameras]]\nid = '{'é' * 34}'\nurl = 'test://'\n", "id is too long: 204 bytes encoded, at most 200"),
    ],
)
def test_cameras_that_cannot_be_are_refused(cameras, message):
    assert message in refused("", cameras=cameras)


@pytest.mark.parametrize("word", sorted(keys.RESERVED_WORDS))
def test_words_of_the_engine_s_own_keys_are_refused_as_names(word):
    assert f"redis.prefix '{word}' is a word of the engine's own keys" in refused(f"[redis]\nprefix = '{word}'\n")
    assert f"camera id '{word}' is a word" in refused("", cameras=f"[[cameras]]\nid = '{word}'\nurl = 'test://'\n")


@pytest.mark.parametrize("path", ["engine", "%65ngine"])
def test_vhost_engine_is_refused(path):
    assert "vhost 'engine' is reserved" in refused(f"[amqp]\namqp_url = 'amqp://h/{path}'\n")


def test_redis_cannot_be_switched_off():
    assert "redis.enabled is false" in refused("[redis]\nenabled = false\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[redis]\naddress = 'http://h'\n", "redis.address: is no address of Redis; use host:port"),
        ("[redis]\naddress = 'h:port'\n", "port and database are numbers"),
        ("[redis]\naddress = 'redis://[::1'\n", "redis.address"),
        ("[amqp]\namqp_url = 'http://h'\n", "amqp.amqp_url is not amqp://"),
        ("[amqp]\namqp_url = 'amqp://[::1'\n", "amqp.amqp_url"),
        ("[site]\nrun_directory = 'run'\n", "must be absolute paths"),
        ("[ring]\ndirectory = 'shm'\n", "must be absolute paths"),
        ('[site]\nrun_directory = "/run\\u0000"\n', "site.run_directory holds a zero byte"),
        ('[ring]\ndirectory = "/dev/shm\\u0000"\n', "ring.directory holds a zero byte"),
        (f"[site]\nrun_directory = '/{'x' * 100}'\n", "makes a socket path of 112 bytes"),
    ],
)
def test_addresses_and_directories_that_cannot_be_are_refused(text, message):
    assert message in refused(text)


REDIS_PLAIN = "credentials go to Redis at {} in plain text; use rediss:// and a server that speaks TLS"
RABBITMQ_PLAIN = "credentials go to RabbitMQ at {} in plain text; use amqps:// and a broker that speaks TLS"


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("[redis]\naddress = 'redis.site'\npassword = 'geheim'\n", [REDIS_PLAIN.format("redis://redis.site:6379")]),
        ("[redis]\naddress = 'redis://u:geheim@[2001:db8::1]:7'\n", [REDIS_PLAIN.format("redis://[2001:db8::1]:7")]),
        (
            "[redis]\naddress = '192.168.0.2'\npublisher_username = 'p'\n",
            [REDIS_PLAIN.format("redis://192.168.0.2:6379")],
        ),
        (
            "[redis]\nsentinels = ['localhost', 's2']\nservice = 'm'\npassword = 'geheim'\n",
            [REDIS_PLAIN.format("sentinel://localhost:26379,s2:26379/m")],
        ),
        (
            "[redis]\nsentinels = ['s1']\nservice = 'm'\nsentinel_password = 'geheim'\n",
            [REDIS_PLAIN.format("sentinel://s1:26379/m")],
        ),
        ("[amqp]\namqp_url = 'amqp://u:geheim@mq.site/v'\n", [RABBITMQ_PLAIN.format("mq.site:5672")]),
        ("[amqp]\namqp_url = 'amqp://mq.site:1/v'\n", [RABBITMQ_PLAIN.format("mq.site:1")]),
        (
            "[redis]\naddress = 'both.site'\npassword = 'geheim'\n[amqp]\namqp_url = 'amqp://u:geheim@both.site/v'\n",
            [REDIS_PLAIN.format("redis://both.site:6379"), RABBITMQ_PLAIN.format("both.site:5672")],
        ),
        ("[redis]\naddress = 'redis.site'\n", []),
        ("[redis]\naddress = 'rediss://redis.site'\npassword = 'geheim'\n", []),
        ("[redis]\naddress = 'unix:///run/redis.sock'\npassword = 'geheim'\n", []),
        ("[redis]\nsentinels = ['rediss://s1']\nservice = 'm'\npassword = 'geheim'\n", []),
        ("[redis]\nsentinels = ['localhost', '127.0.0.2']\nservice = 'm'\npassword = 'geheim'\n", []),
        ("[amqp]\namqp_url = 'amqps://u:geheim@mq.site/v'\n", []),
        *(
            (f"[redis]\naddress = '{host}'\npassword = 'geheim'\n[amqp]\namqp_url = 'amqp://u:geheim@{host}/v'\n", [])
            for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "[::1]")
        ),
    ],
)
def test_credentials_that_go_over_a_network_in_plain_text_are_warned_of_once_a_server(text, warnings):
    assert list(site(text).warnings) == warnings


def test_credentials_of_the_environment_count_for_the_warning_too():
    made = site("[redis]\naddress = 'redis.site'\n", {"REDIS_PASSWORD": "geheim"})
    assert made.warnings == (REDIS_PLAIN.format("redis://redis.site:6379"),)


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "TMPDIR", "HOME"])
def test_the_run_directory_does_not_depend_on_who_asks(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert default_run_directory("edge", 0) == Path("/run/edge-video/edge")
    assert default_run_directory("edge", 1000) == Path("/tmp/edge-video-1000/edge")
    made = site("[site]\nname = 'edge'\n")
    assert made.run_directory == default_run_directory("edge", os.geteuid())


def test_a_long_run_directory_is_no_harm_where_no_socket_is_in_it():
    site(f"[site]\nrun_directory = '/{'x' * 100}'\n[redis]\naddress = 'h'\n")


@pytest.mark.parametrize("what", ["url = 'test://?kb=600'", "url = 'rtsp://h'\nwidth = 1920\nheight = 1080"])
def test_a_ring_that_is_too_small_for_a_frame_is_refused_and_what_is_named_is_enough(what):
    cameras = f"[[cameras]]\nid = 'a'\n{what}\n"
    message = refused("[ring]\ncapacity_mb = 1\n", cameras=cameras)
    assert "cameras[0] (a): a frame of" in message
    megabytes = re.search(r"raise ring\.capacity_mb to ([0-9]+) or more", message)[1]
    site(f"[ring]\ncapacity_mb = {megabytes}\n", cameras=cameras)


def test_the_environment_wins_over_the_file():
    made = site(
        "[redis]\naddress = 'file:1'\nusername = 'file'\npassword = 'file'\n[amqp]\namqp_url = 'amqp://file/file'\n",
        {
            "REDIS_ADDRESS": "env:2",
            "REDIS_USERNAME": "env-user",
            "REDIS_PASSWORD": "env-pass",
            "AMQP_URL": "amqp://env/env",
            "HOME": "/",
        },
    )
    address = made.redis_address
    assert (address.host, address.port, address.username, address.password) == ("env", 2, "env-user", "env-pass")
    assert (made.vhost, str(made.amqp.amqp_url), made.publishes) == ("env", "amqp://env/env", True)


def test_the_environment_needs_no_section_in_the_file():
    assert site("", {"REDIS_PASSWORD": "secret"}).redis.password == "secret"


def test_an_empty_variable_says_nothing():
    environment = dict.fromkeys(("REDIS_ADDRESS", "REDIS_USERNAME", "REDIS_PASSWORD", "AMQP_URL", "WEB_TOKEN"), "")
    made = site("[redis]\npassword = 'file'\n", environment)
    assert (made.redis.password, made.embedded, made.publishes) == ("file", True, False)


def test_what_the_environment_says_is_checked_too():
    assert "redis.address" in refused("", {"REDIS_ADDRESS": "http://h"})
    assert "amqp.amqp_url" in refused("", {"AMQP_URL": "http://h"})
    assert "vhost 'engine' is reserved" in refused("", {"AMQP_URL": "amqp://h/engine"})
    assert "amqp.amqp_url is not UTF-8" in refused("", {"AMQP_URL": "amqp://h/\udcff"})


def test_credentials_of_the_section_win_over_those_of_the_address():
    made = site("[redis]\naddress = 'redis://u:p@h'\npassword = 'other'\n")
    assert (made.redis_address.username, made.redis_address.password) == ("u", "other")


GO_EDITION = """
target_fps = 12
ttl_seconds = 77
protocol = "amqp"
use_optimized_capture = true

[optimization]
max_workers = 10

[memory]
max_memory_mb = 512

[compression]
enabled = false

[registration]
enabled = true
api_url = "http://h"

[mqtt]
broker = "tcp://h:1883"

[amqp]
amqp_url = "amqp://h/loja"
exchange = "cameras"
routing_key_prefix = "camera."

[metadata]
ttl_seconds = 60
"""


def test_a_file_of_the_go_edition_is_read_with_one_warning_that_names_what_is_ignored():
    made = site(GO_EDITION)
    warning, plain = made.warnings
    assert plain == "credentials go to RabbitMQ at h:5672 in plain text; use amqps:// and a broker that speaks TLS"
    assert warning == (
        "has no meaning here and is ignored: [compression], [memory], [mqtt], [optimization], [registration], "
        "amqp.exchange, amqp.routing_key_prefix, metadata.ttl_seconds, protocol, use_optimized_capture"
    )
    assert (made.cameras[0].fps, made.redis.ttl_seconds, made.vhost) == (12.0, 77, "loja")
    assert made.metadata.exchange == "camera.metadata"


def test_names_of_this_edition_win_over_those_of_the_go_edition():
    made = site("target_fps = 12\nttl_seconds = 77\n[defaults]\nfps = 3\n[redis]\nttl_seconds = 5\n")
    assert (made.cameras[0].fps, made.redis.ttl_seconds) == (3.0, 5)


@pytest.mark.parametrize("text", ["target_fps = 0\n", f"{CAMERA}[defaults]\nfps = 0\n"])
def test_a_wrong_default_is_not_blamed_on_a_camera(text):
    cameras = "" if CAMERA in text else CAMERA
    assert "defaults.fps must be a number of at least 0.0001" in refused(text, cameras=cameras)


SECRET = "hunter2"
WITH_SECRETS = f"""
[redis]
address = "redis://u:{SECRET}@h"
username = "{SECRET}"
password = "{SECRET}"
[amqp]
amqp_url = "amqp://u:{SECRET}@h/v"
[[cameras]]
id = "cam1"
url = "rtsp://admin:{SECRET}@10.0.0.5/s"
"""


@pytest.mark.parametrize("part", ["amqp", "redis", "cameras", "redis_address"])
def test_no_secret_is_shown_where_a_site_is_printed(part):
    made = parse(WITH_SECRETS.encode(), {})
    shown = getattr(made, part)
    for text in (repr(shown), f"{shown}", repr(made), f"{made}"):
        assert re.findall(f".{{,40}}{SECRET}", text) == []


@pytest.mark.parametrize(
    "text",
    [
        f"[redis]\naddress = 'redis://u:{SECRET}@h:port'\n",
        f"[redis]\naddress = 'u:{SECRET}@h:port'\n",
        f"[redis]\naddress = 'http://u:{SECRET}@h'\n",
        f"[amqp]\namqp_url = 'http://u:{SECRET}@h'\n",
        f"[amqp]\namqp_url = 'amqp://u:{SECRET}@h:port/v'\n",
        f"[amqp]\namqp_url = 'amqp://u:{SECRET}/@h/v'\n",
        f"[[cameras]]\nid = 'a'\nurl = 'srt://u:{SECRET}@h'\n",
        f"[[cameras]]\nid = 'a'\nurl = 'test://u:{SECRET}@h'\n",
        f"[redis]\npassword = ['{SECRET}']\n",
    ],
)
def test_no_secret_is_shown_in_an_error(text):
    assert SECRET not in refused(text)


def test_cameras_are_shared_among_the_writers():
    many = "".join(f"[[cameras]]\nid = 'cam{number}'\nurl = 'test://'\n" for number in range(100))
    made = site("[writer]\nwriters = 3\n", cameras=many)
    shards = [made.cameras_of(writer) for writer in range(3)]
    assert sorted(c.id for shard in shards for c in shard) == sorted(c.id for c in made.cameras)
    assert min(map(len, shards)) >= 25
    assert all(made.writer_of(c.id) == writer for writer, shard in enumerate(shards) for c in shard)


def test_a_camera_that_comes_or_goes_moves_no_other_to_another_writer():
    def writers_of(*cameras):
        text = "".join(f"[[cameras]]\nid = 'cam{number}'\nurl = 'test://'\n" for number in cameras)
        made = site("[writer]\nwriters = 3\n", cameras=text)
        return {camera.id: made.writer_of(camera.id) for camera in made.cameras}

    all_of_them = writers_of(*range(10))
    assert writers_of(3, *range(5, 9)).items() <= all_of_them.items()
    assert site("[writer]\nwriters = 3\n").writer_of("cam9") == all_of_them["cam9"]


def test_a_camera_is_found_by_its_id_or_the_nearest_is_named():
    made = site()
    assert made.camera("cam1") is made.cameras[0]
    with pytest.raises(ConfigError, match="no camera 'cam2'; did you mean 'cam1'"):
        made.camera("cam2")


def test_a_file_s_errors_begin_with_its_path(tmp_path):
    path = tmp_path / "site.toml"
    for make in (lambda: None, path.mkdir):
        make()
        with pytest.raises(ConfigError, match=re.escape(f"{path}: cannot be read")):
            config.load(path, {})
    path.rmdir()
    path.write_text("[reddis]\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path}: unknown key 'reddis'")):
        config.load(path, {})
    path.write_text(CAMERA)
    assert config.load(path, {}) == site()


def snippets() -> list[str]:
    """The page's TOML blocks that configure Redis or AMQP; one that shows two files is two."""
    page = PAGE.read_text() if PAGE.exists() else PAGE_SNIPPETS
    blocks = [
        textwrap.dedent(block) for block in re.findall(r"^ *```toml\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    ]
    files: list[str] = []
    for block in blocks:
        if not re.search(r"^\[(redis|amqp)\]", block, re.MULTILINE):
            continue
        seen: set[str] = set()
        files.append("")
        for line in block.splitlines():
            if line.startswith("["):
                if line in seen:
                    files.append("")
                    seen.clear()
                seen.add(line)
            files[-1] += line + "\n"
    return files


def test_the_page_has_snippets():
    assert len(snippets()) >= 4


@pytest.mark.parametrize("text", snippets())
def test_every_snippet_of_the_product_page_is_a_site_once_it_has_cameras(text):
    made = site(text)
    # The page's servers are elsewhere and its URLs plain, and it is each server that is named, once.
    expected = {
        "redis": bool(made.redis.password) and made.redis.address != "embedded",
        "amqp": bool(made.amqp.amqp_url),
    }
    said = {"redis": "credentials go to Redis at redis://", "amqp": "credentials go to RabbitMQ at "}
    assert len(made.warnings) == sum(expected.values())
    for server, begin in said.items():
        assert sum(warning.startswith(begin) for warning in made.warnings) == expected[server], made.warnings
    for section, values in tomllib.loads(text).items():
        for key, value in values.items():
            assert getattr(getattr(made, section), key) == value
    if "amqp_url" in text:
        assert made.vhost == re.search('amqp_url = ".*/([^"]+)"', text)[1]


# What is accepted can be used, and nothing but ConfigError comes out.

FULL = """
target_fps = 10
[site]
name = "loja"
run_directory = "/run/ev"
drain_seconds = 5
log_level = "debug"
[redis]
address = "redis://h:6379/0"
username = "u"
password = "p"
ttl_seconds = 300
prefix = "frames"
[amqp]
amqp_url = "amqp://u:p@h:5672/loja"
heartbeat_seconds = 30
[metadata]
format = "batch"
batch_max = 32
[ring]
capacity_mb = 8
directory = "/dev/shm"
[writer]
writers = 2
[publisher]
window = 512
[defaults]
quality = 85
[[cameras]]
id = "cam1"
url = "rtsp://u:p@10.0.0.5:554/s"
fps = 5
width = 640
height = 480
[[cameras]]
id = "cam2"
url = "test://?size=1280x720&fps=30&kb=60"
transport = "udp"
"""
TOKENS = (
    *("[", "]", "[[", "]]", "{", "}", '"', "'", "=", "\n", "#", ",", ".", ":", "://", "@", "/", "%", "\\", "\\u0000"),
    *("-1", "0", "1e400", "nan", "inf", "9" * 30, "true", "1979-05-27", "''", '""', "[]", "{}", "é", "\x00"),
    *(
        "redis://[::1",
        "amqp://[::1/v",
        "test://[",
        "test://?size=1x1",
        "redis = 5\n",
        "defaults = 5\n",
        "cameras = 5\n",
    ),
    *("[redis]\n", "[[redis]]\n", "ttl_seconds = 5\n", "engine", "journal", "[mqtt]\nx = 1\n", "\u2100"),
)
environments = st.fixed_dictionaries(
    {},
    optional={
        name: st.text(max_size=20) | st.sampled_from(("redis://[::1", "amqp://[", "amqp://h/engine", "\udcff", "h:1"))
        for name in ("REDIS_ADDRESS", "REDIS_USERNAME", "REDIS_PASSWORD", "AMQP_URL", "WEB_TOKEN")
    },
)
values = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from((*TOKENS[-30:], "engine", "/dev/video0", datetime.date(2024, 1, 1), datetime.time(1, 2)))
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def use(made: Config) -> None:
    """All that is asked of a configuration before a server is touched."""
    repr(made)
    assert made.run_directory.is_absolute()
    assert made.redis_address
    assert made.vhost != keys.ENGINE
    for one in made.cameras:
        assert one.kind
        assert 2 * one.frame_bytes <= made.ring.capacity
        assert one in made.cameras_of(made.writer_of(one.id))
        keys.journal_key(made.vhost, made.prefix, one.id)
        keys.build_frame_key(keys.FrameKey(made.vhost, made.prefix, one.id, 10**18, 1))


@settings(max_examples=examples(400), deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), st.sampled_from(TOKENS) | st.text(max_size=5)), max_size=3),
    environments,
)
def test_whatever_a_file_says_it_is_refused_or_can_be_used(changes, environment):
    text = FULL
    for share, length, token in changes:
        at = int(share * len(text))
        text = text[:at] + token + text[at + length :]
    with contextlib.suppress(ConfigError):
        use(parse(text.encode(), environment))


@st.composite
def documents(draw):
    """The full site with some keys set to anything, some gone, and some that nobody knows."""
    document = tomllib.loads(FULL)
    tables = [document, *(value for value in document.values() if isinstance(value, dict)), *document["cameras"]]
    for _ in range(draw(st.integers(1, 3))):
        table = draw(st.sampled_from(tables))
        name = draw(
            st.sampled_from((*sorted(table), "ttl_seconds", "target_fps", "address", "mqtt")) | st.text(max_size=5)
        )
        if draw(st.booleans()):
            table[name] = draw(values)
        else:
            table.pop(name, None)
    return document


@settings(max_examples=examples(400), deadline=None)
@given(documents(), environments)
@example({"redis": 5, "cameras": [{"id": "a", "url": "test://"}]}, {"REDIS_PASSWORD": "x"})
@example({"redis": 5, "ttl_seconds": 5, "cameras": [{"id": "a", "url": "test://"}]}, {})
@example({"amqp": {"amqp_url": "amqp://[::1/v"}, "cameras": [{"id": "a", "url": "test://"}]}, {})
def test_whatever_a_document_holds_it_is_refused_or_can_be_used(document, environment):
    with contextlib.suppress(ConfigError):
        use(config.from_document(document, environment))


@pytest.mark.parametrize("value", ["[" * 3000, "{a=" * 3000, "9" * 5000], ids=["arrays", "tables", "digits"])
def test_toml_that_python_will_not_read_is_refused_too(value):
    refused(f"[redis]\nttl_seconds = {value}\n")


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=60))
def test_whatever_bytes_there_are_only_a_config_error_comes_out(data):
    with pytest.raises(ConfigError):
        parse(data, {})


@settings(max_examples=examples(100), deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_any_name_that_a_file_can_hold_reaches_the_keys_unchanged(name):
    quoted = json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
    assume(name not in keys.RESERVED_WORDS and "\0" not in name)
    made = site("", cameras=f'[[cameras]]\nid = {quoted}\nurl = "test://"\n')
    assert made.cameras[0].id == name
