"""The files of docs/fleet.md are those that ``edge-video fleet users`` makes of the list beside them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec

from engine.fleet.accounts import make_accounts
from engine.fleet.definitions import centre_definitions, shovel_definitions
from engine.fleet.site_list import read_sites
from engine.wire.amqp_url import parse_amqp_url
from tests.system.site import ROOT

RECIPE = ROOT / "deploy/fleet"
URL = "amqps://centre.example/centre"


def shown() -> dict[str, bytes]:
    """The files without secrets: RabbitMQ does not take them as they are."""
    sites, centre = read_sites(RECIPE / "sites.toml"), parse_amqp_url(URL)
    definitions = centre_definitions(sites, defaultdict(str), centre)
    for user in definitions["users"]:
        user["password_hash"] = "HASH OF THE PASSWORD"
    files = {"centre.json": definitions, "shop-1.json": shovel_definitions(sites[0], "PASSWORD", centre)}
    return {name: msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n" for name, found in files.items()}


def test_the_files_beside_the_list_are_those_that_the_command_makes() -> None:
    for name, data in shown().items():
        assert (RECIPE / name).read_bytes() == data, f"write {name} anew"


def test_the_list_is_one_that_the_command_takes(tmp_path: Path) -> None:
    sites = read_sites(RECIPE / "sites.toml")
    files = make_accounts(sites, tmp_path, parse_amqp_url(URL))
    assert sorted(files) == [
        "centre.json",
        "passwords.csv",
        "rabbitmq.json",
        "redis.acl",
        "shovels/shop-1.json",
        "shovels/shop-2.json",
    ]
    text = (ROOT / "docs/fleet.md").read_text()
    assert URL in text
    assert all(f"`{name}`" in text for name in files if "/" not in name)
