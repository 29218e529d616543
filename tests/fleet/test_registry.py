"""The registry of a real Redis, in which others have written what they like."""

from __future__ import annotations

import json

import msgspec

from engine.fleet.registry import registered_sites
from engine.servers.redis.session import Session
from engine.wire.keys import lease_key, site_key
from engine.wire.redis_address import parse_redis_address
from engine.wire.site_entry import SiteEntry, encode_site_entry
from tests.servers.redis_server import RedisServer
from tests.system.site import command


def entry(name: str, **fields: object) -> bytes:
    made = SiteEntry(name, "box", 7, "/run", "0.1.0", "2024-11-08T14:30:00Z", "a@b")
    return encode_site_entry(msgspec.structs.replace(made, **fields))


def test_live_sites_are_listed_and_what_is_no_entry_is_left_out(redis_server: RedisServer) -> None:
    client = redis_server.client()
    for number in range(700):
        client.set(site_key("many", f"shop-{number:03}"), entry(f"shop-{number:03}", cameras=number))
    client.set(site_key("a/b", "liar"), entry("shop-001", url="\x1b[31m" + "u" * 500, host="h\n" * 9, seen="never"))
    client.set(site_key("v", "noise"), b"\xff")
    client.set(site_key("v", "long"), entry("long", url="u" * 9000))
    client.rpush(site_key("v", "list"), "x")
    client.set("engine:v:lease:%zz", entry("x"))
    client.set(lease_key("v", "frames", "cam1"), entry("x"))
    with Session(parse_redis_address(redis_server.address), 5) as session:
        found = [(vhost, one.site, one.cameras) for vhost, one in registered_sites(session)]
    # A site is called as its key, which its user's rights bound.
    assert found == [("a/b", "liar", 0), *(("many", f"shop-{number:03}", number) for number in range(700))]
    shown = command("fleet", "list", "--redis", redis_server.address, environment={"COLUMNS": "80"})
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    lines = [
        json.loads(line)
        for line in command("fleet", "list", "--redis", redis_server.address, "--json").stdout.splitlines()
    ]
    assert [line["site"] for line in lines] == [name for _, name, _ in found]
