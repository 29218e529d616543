"""One reading of an AMQP URL, for keys and for pika; and every URL that could be read in two ways refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine.config import AmqpSection, Secret
from engine.errors import Audience, ConfigError, explain
from engine.servers.amqp.parameters import parameters
from engine.wire import keys
from engine.wire.amqp_url import AmqpAddress, parse_amqp_url
from tests.examples import examples
from tests.wire.names import names

SECRET = "hunter2geheim"


@pytest.mark.parametrize(
    ("url", "address", "key_vhost"),
    [
        ("amqp://h", AmqpAddress("amqp", "h", 5672, "guest", "guest", "/"), "default"),
        ("amqp://h/", AmqpAddress("amqp", "h", 5672, "guest", "guest", "/"), "default"),
        ("amqp://u:p@h:5673/%2F", AmqpAddress("amqp", "h", 5673, "u", "p", "/"), "default"),
        ("amqp://u:p@h/%2f", AmqpAddress("amqp", "h", 5672, "u", "p", "/"), "default"),
        ("amqps://h/a", AmqpAddress("amqps", "h", 5671, "guest", "guest", "a"), "a"),
        ("AMQP://H/A", AmqpAddress("amqp", "h", 5672, "guest", "guest", "A"), "A"),
        ("amqp://h/a%2Fb", AmqpAddress("amqp", "h", 5672, "guest", "guest", "a/b"), "a/b"),
        ("amqp://h/%2Fa", AmqpAddress("amqp", "h", 5672, "guest", "guest", "/a"), "/a"),
        ("amqp://h/a%3Bb%3F%23%25", AmqpAddress("amqp", "h", 5672, "guest", "guest", "a;b?#%"), "a;b?#%"),
        ("amqp://h/loja%C3%A3", AmqpAddress("amqp", "h", 5672, "guest", "guest", "lojaã"), "lojaã"),
        ("amqp://h/lojaã", AmqpAddress("amqp", "h", 5672, "guest", "guest", "lojaã"), "lojaã"),
        ("amqp://u:p@h/a@b", AmqpAddress("amqp", "h", 5672, "u", "p", "a@b"), "a@b"),
        ("amqp://h/Default", AmqpAddress("amqp", "h", 5672, "guest", "guest", "Default"), "Default"),
        ("amqp://u%40x:p%2F%3F%23@[::1]:1/v", AmqpAddress("amqp", "::1", 1, "u@x", "p/?#", "v"), "v"),
        ("amqp://u:p@x:y@h/v", AmqpAddress("amqp", "h", 5672, "u", "p@x:y", "v"), "v"),
        ("amqp://:token@h/v", AmqpAddress("amqp", "h", 5672, "", "token", "v"), "v"),
        ("amqp://h:/v", AmqpAddress("amqp", "h", 5672, "guest", "guest", "v"), "v"),
        (f"amqp://h/{'v' * 255}", AmqpAddress("amqp", "h", 5672, "guest", "guest", "v" * 255), "v" * 255),
    ],
)
def test_a_url_has_one_meaning(url, address, key_vhost):
    found = parse_amqp_url(url)
    assert tuple(found) == tuple(address)
    assert found.key_vhost == key_vhost


@pytest.mark.parametrize(
    "url",
    ["h", "http://h", "amqp:h", "amqp://", "amqp:///v", "amqp://h:x/v", "amqp://h:0/v", "amqp://h:65536/v",
     "amqp://[::1/v", "amqp://u:p@/v", f"amqp://u:{SECRET}@h:port/v", f"amqp://u:{SECRET}/x@h/v", f"u:{SECRET}@h"],
)  # fmt: skip
def test_what_is_no_amqp_url_is_refused_and_the_form_shown(url):
    with pytest.raises(ConfigError, match=r"amqp\.amqp_url is not amqp://user:password@host:port/vhost") as caught:
        parse_amqp_url(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("a/", "more than one segment; its path is the vhost: write a / in a vhost as %2F, and none at its end"),
        ("a/b", "more than one segment"),
        ("/", "more than one segment"),
        ("/a", "more than one segment"),
        ("a;b", "; in its path, which is the vhost; write it as %3B"),
        (";", "write it as %3B"),
        ("a#b", "fragment; write # in a vhost as %23"),
        ("a#", "fragment"),
        ("a?", "query parameters, which are not read; remove them (a ? in a vhost is written %3F)"),
        ("?heartbeat=abc", "parameters: heartbeat, which are not read; remove them; in place of heartbeat set amqp.h"),
        ("a?heartbeat=30", "in place of heartbeat set amqp.heartbeat_seconds"),
        ("a?heartbeat=1&heartbeat=2", "query parameters: heartbeat,"),
        ("a?connection_timeout=5", "set amqp.timeout_seconds"),
        ("a?cacertfile=/x&verify=verify_none", "cacertfile, verify, which are not read; remove them; in place of cac"),
        (
            "a?ssl_options={'x'",
            "set amqp.tls_ca_file, amqp.tls_certificate_file, amqp.tls_key_file and amqp.tls_server_name",
        ),
        ("a?foo=1", "query parameters: foo, which are not read; remove them (a ?"),
        ("a?frame_max=1", "query parameters: frame_max"),
        (f"a?password={SECRET}", "query parameters: password"),
        ("default", "vhost 'default', which stands in keys for the broker's default vhost /: leave the path out if"),
        ("%64efault", "vhost 'default', which stands in keys"),
        ("engine", "vhost 'engine' is reserved for the engine's own keys; use another"),
        ("v" * 256, "a vhost of 256 bytes, at most 255; use a shorter one"),
        ("%C3%A3" * 128, "a vhost of 256 bytes"),
        ("a%", "a % in its vhost that begins no escape; write it as %25"),
        ("a%zz", "write it as %25"),
        ("a%ff", "vhost whose percent-encoding is not UTF-8"),
        ("a b", "holds ' '; write it as %20, or remove it"),
        ("a\n", r"holds '\n'; write it as %0A, or remove it"),
        ("a\0", r"holds '\x00'"),
        ("a\udcff", "is not UTF-8"),
    ],
)
def test_a_path_that_could_be_read_in_two_ways_is_refused_with_what_to_write(rest, says):
    with pytest.raises(ConfigError) as caught:
        parse_amqp_url(f"amqp://u:{SECRET}@h/{rest}")
    text = explain(caught.value, Audience.SITE)
    assert text.startswith("amqp.amqp_url ")
    assert says in text
    assert SECRET not in text + repr(caught.value)


def test_a_script_is_told_of_its_own_parameters():
    with pytest.raises(ConfigError) as caught:
        parse_amqp_url("amqp://h/a?heartbeat=30&cacertfile=/x", "AMQP URL")
    assert "in place of heartbeat set heartbeat_seconds; in place of cacertfile set tls_files.ca_file" in str(
        caught.value
    )
    assert "amqp." not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp://user@h/", "a user without a password; write both, with a colon between them"),
        ("amqp://user:@h/", "a user without a password"),
        ("amqp://@h/", "a user without a password"),
        (f"amqp://u:100%{SECRET}@h/", "a % in its password that begins no escape"),
        (f"amqp://u:%ff{SECRET}@h/", "password whose percent-encoding is not UTF-8"),
        (f"amqp://u:{SECRET}%00@h/", "zero byte"),
        (f"amqp://u%00:{SECRET}@h/", "zero byte"),
        (f"amqp://u:p@ss/{SECRET}/x@h/v", "an @ behind its host; write / ? # @ in a user or password as"),
        (f"amqp://u:p@ss?{SECRET}@h/v", "an @ behind its host"),
        (f"amqp://u:5/{SECRET}@h/v", "an @ behind its host"),
        ("amqp://a..b/v", "no possible host"),
        (f"amqp://{'h' * 64}/v", "no possible host"),
        ("amqp://h%41/v", "percent-encoding in its host"),
    ],
)
def test_a_login_or_host_that_cannot_be_is_refused_without_showing_it(url, says):
    with pytest.raises(ConfigError) as caught:
        parse_amqp_url(url, "AMQP URL")
    assert str(caught.value).startswith("AMQP URL ")
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_address_shows_no_credentials():
    address = parse_amqp_url(f"amqps://user:{SECRET}@h/v")
    for text in (str(address), repr(address), f"{address}"):
        assert SECRET not in text
        assert "user" not in text
        assert "amqps://h:5671" in text


def fits(vhost: str) -> bool:
    return len(vhost.encode()) <= 255 and vhost not in ("default", "engine")


@settings(max_examples=examples(500), deadline=None)
@given(names, names.filter(lambda name: "\0" not in name), names.filter(lambda name: "\0" not in name))
@example("/", "u", "p")
@example("a/b", "u", "p")
@example("a;b", "u", "p")
@example("?#", "u", "p")
def test_every_vhost_is_one_and_the_same_for_keys_and_pika(vhost, user, password):
    assume(fits(vhost))
    url = f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@h/{quote(vhost, safe='')}"
    address = parse_amqp_url(url)
    made = parameters(AmqpSection(Secret(url)), address)
    assert address.vhost == made.virtual_host == vhost
    assert (made.credentials.username, made.credentials.password) == (user, password)
    key = keys.parse_frame_key(keys.frame_key_prefix(address.key_vhost, "frames", "c") + f"{10**18}:00001")
    assert key.vhost == ("default" if vhost == "/" else vhost)


@settings(max_examples=examples(500), deadline=None)
@given(names.filter(fits), names.filter(fits))
def test_two_vhosts_never_meet_in_one_name(one, other):
    assume(one != other)
    found = [parse_amqp_url(f"amqp://h/{quote(vhost, safe='')}").key_vhost for vhost in (one, other)]
    assert found[0] != found[1]


@settings(max_examples=examples(500), deadline=None)
@given(st.text(alphabet="ab/;?#%@:2F&= \\é", max_size=12))
@example("a/")
@example("a;b")
@example("a/b")
def test_whatever_follows_the_host_is_refused_or_read_as_one_vhost(rest):
    """Two texts that differ are two vhosts, unless they are two spellings of one."""
    try:
        address = parse_amqp_url(f"amqp://u:p@h/{rest}")
    except ConfigError:
        return
    assert parse_amqp_url(f"amqp://u:p@h/{quote(address.vhost, safe='')}").vhost == address.vhost
    assert not set(rest) & set("/;?# ")
