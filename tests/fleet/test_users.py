"""The list of sites, and the users that are made of it: in a real Redis, their rights end at the site's own names."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from engine import FrameStore
from engine.errors import InputError
from engine.fleet.definitions import password_hash, shovel_definitions
from engine.fleet.site_list import ListedSite, read_sites, token_of
from engine.jobs.tenants import Scope, acl_rules
from engine.wire.amqp_url import parse_amqp_url
from tests.servers.redis_server import RedisServer
from tests.servers.wait import wait_until
from tests.system.site import Site, command

CSV = "name,vhost,prefix,cameras,password\nshop-1,shops,one,door; till,\nshop-2,shops,two,,geheim-geheim\nshop-3,,,,\n"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_both_forms_list_the_same_sites(tmp_path: Path) -> None:
    toml = """
[[sites]]
name = "shop-1"
vhost = "shops"
prefix = "one"
cameras = ["door", "till"]

[[sites]]
name = "shop-2"
vhost = "shops"
prefix = "two"
password = "geheim-geheim"

[[sites]]
name = "shop-3"
"""
    sites = read_sites(write(tmp_path / "sites.toml", toml))
    assert sites == read_sites(write(tmp_path / "sites.csv", "\ufeff" + CSV))
    assert [(site.key_vhost, site.prefix) for site in sites] == [
        ("shops", "one"),
        ("shops", "two"),
        ("shop-3", "frames"),
    ]
    assert "geheim" not in repr(sites)
    assert ListedSite("a", vhost="/").key_vhost == "default"


BAD_LISTS = {
    "twice": ("name\na\nb\na\n", "line 4: site 'a' is also in line 2"),
    "overlap": ("name,vhost\na,v\nb,v\n", "line 3: site 'b' has vhost 'v' and prefix 'frames', as 'a' in line 2"),
    "same-camera": ("name,vhost,cameras\na,v,x;y\nb,v,y\n", "line 3: .* camera 'y' is that one's"),
    "all-and-one": ("name,vhost,cameras\na,v,x\nb,v,\n", "line 3: .* all its cameras may be that one's"),
    "one-and-all": ("name,vhost,cameras\na,v,\nb,v,x\n", "line 3: .* camera|all its cameras may be"),
    "name": ("name\na\n../b\n", r"line 3: name '../b' must be 1 to 64 letters"),
    "no-name": ("name,vhost\n,v\n", "line 2: lacks the key name|line 2: .*name"),
    "taken": ("name\nguest\n", "line 2: name 'guest' is a user that every server has"),
    "vhost": ("name,vhost\na,engine\n", "line 2: vhost 'engine' is a word"),
    "prefix": ("name,prefix\na,lease\n", "line 2: prefix 'lease' is a word"),
    "camera": ("name,cameras\na,x;journal\n", "line 2: camera 'journal' is a word"),
    "camera-twice": ("name,cameras\na,x;x\n", "line 2: camera 'x' is named twice"),
    "column": ("name,vhosts\na,b\n", "line 2: unknown key 'vhosts'; did you mean 'vhost'"),
    "cells": ("name,vhost\na\n", "line 2 has 1 cells, and 2 columns"),
    "url": ("name,url\na,shop:80\n", "line 2: url must be http"),
    "short": ("name,password\na,geheim\n", "line 2: password has fewer than 8"),
    "token": ("name,token\na,ge heim\n", "line 2: token must have only visible"),
    "empty": ("name\n", "lists no sites"),
    "quote": ('name\n"a\n', "is no CSV"),
    "zero": ("name,vhost\na,x\0\n", "line"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_a_bad_list_is_one_error_that_names_the_line_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    text, said = BAD_LISTS[case]
    file = write(tmp_path / "sites.csv", text)
    with pytest.raises(InputError, match=said) as refused:
        read_sites(file)
    assert str(refused.value).startswith(str(file))
    assert "heim" not in str(refused.value)


@pytest.mark.parametrize(
    "value", ['["geheim-geheim"]', '{ x = "geheim-geheim" }', "true"], ids=["list", "table", "bool"]
)
@pytest.mark.parametrize("key", ["password", "token"])
def test_a_secret_that_is_no_text_is_refused(key: str, value: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sites.toml", f'[[sites]]\nname = "a"\n{key} = {value}\n')
    with pytest.raises(InputError, match=f"line 1: {key} must be text") as refused:
        read_sites(file)
    assert "geheim" not in str(refused.value)


def test_the_command_refuses_a_bad_list_and_writes_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "sites.toml", '[[sites]]\nname = "a"\n\n[[sites]]\nname = "a"\n')
    done = command("fleet", "users", str(file), str(tmp_path / "out"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "line 4: site 'a' is also in line 1" in done.stderr
    for arguments in (("--centre", "amqp://u:geheim@h/c"), ("--centre", "http://h")):
        write(file, '[[sites]]\nname = "a"\n')
        done = command("fleet", "users", str(file), str(tmp_path / "out"), *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "geheim" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_secrets_in_a_list_that_everybody_may_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: has a token or password, and everybody may read the file"):
        read_sites(write(tmp_path / "sites.csv", "name,token\na,abc\n", 0o644))
    (site,) = read_sites(write(tmp_path / "open.csv", "name,token_file\na,token\n", 0o644))
    write(tmp_path / "token", "abc\n", 0o644)
    with pytest.raises(InputError, match="everybody may read the token"):
        token_of(site, tmp_path)
    write(tmp_path / "token", "abc\n")
    assert token_of(site, tmp_path) == "abc"


def made(tmp_path: Path, text: str = CSV) -> tuple[Path, dict[tuple[str, str], str]]:
    """The directory that the command writes, and its passwords."""
    out = tmp_path / "out"
    done = command("fleet", "users", str(write(tmp_path / "sites.csv", text)), str(out))
    assert done.returncode == 0, done.stderr
    assert "geheim" not in done.stdout + done.stderr
    rows = list(csv.reader((out / "passwords.csv").read_text().splitlines()))
    return out, {(server, user): password for server, user, password in rows[1:]}


def test_files_are_private_and_passwords_stay_when_a_site_is_added(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        out, passwords = made(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == dict.fromkeys(
        ("redis.acl", "rabbitmq.json", "passwords.csv"), 0o600
    )
    assert len(set(passwords.values())) == 7
    assert passwords["redis", "shop-2-writer"] == passwords["rabbitmq", "shop-2"] == "geheim-geheim"
    text = (out / "redis.acl").read_text() + (out / "rabbitmq.json").read_text()
    assert not any(password in text for password in passwords.values())
    _, again = made(tmp_path, CSV + "shop-4,,,,\n")
    assert again.items() > passwords.items()
    write(out / "passwords.csv", "mine\n")
    done = command("fleet", "users", str(tmp_path / "sites.csv"), str(out))
    assert (done.returncode, "name another directory" in done.stderr) == (2, True)


def test_the_centre_s_passwords_stay_when_a_call_names_no_centre(tmp_path: Path) -> None:
    centre = ("--centre", "amqps://centre.example/centre")
    write(tmp_path / "sites.csv", "name\nshop-1\n")
    found = []
    for options in (centre, (), centre):
        done = command("fleet", "users", str(tmp_path / "sites.csv"), str(tmp_path / "users"), *options)
        assert done.returncode == 0, done.stderr
        found.append(sorted((tmp_path / "users/passwords.csv").read_text().splitlines()))
    assert len(found[0]) == 6
    assert found[1:] == [found[0], found[0]]


def test_files_of_shovels_whose_sites_left_the_list_are_named_and_stay(tmp_path: Path) -> None:
    for names in ("shop-1\nshop-2\n", "shop-2\n"):
        write(tmp_path / "sites.csv", "name\n" + names)
        arguments = ("fleet", "users", str(tmp_path / "sites.csv"), str(tmp_path / "users"))
        done = command(*arguments, "--centre", "amqps://centre.example/centre")
        assert done.returncode == 0, done.stderr
    assert "shovels/shop-1.json: not in the list; delete" in done.stderr
    assert "shop-2" not in done.stderr
    assert (tmp_path / "users/shovels/shop-1.json").exists()
    assert json.loads(command(*arguments, "--json").stdout)["former"] == ["shovels/shop-1.json"]


def test_the_hash_of_a_password_is_as_rabbitmq_documents_it() -> None:
    """The example of https://www.rabbitmq.com/docs/passwords."""
    assert password_hash("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_a_shovel_to_a_centre_with_tls_checks_its_certificate() -> None:
    centre = parse_amqp_url("amqps://centre.example/all")
    shovel = shovel_definitions(ListedSite("a"), "p/w", centre, "/etc/ca file")["parameters"][0]["value"]
    assert shovel["dest-uri"] == (
        "amqps://a:p%2Fw@centre.example:5671/all"
        "?verify=verify_peer&cacertfile=/etc/ca%20file&server_name_indication=centre.example"
    )


def test_rights_in_redis_end_at_the_site_s_own_names(tmp_path: Path, redis_server: RedisServer, site: Site) -> None:
    out, passwords = made(tmp_path)
    done = subprocess.run(
        ["redis-cli", "-p", str(redis_server.port)],
        input=(out / "redis.acl").read_bytes(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == [b"OK"] * 6
    # The site runs with them.
    users = {
        "username": "shop-1-writer",
        "password": passwords["redis", "shop-1-writer"],
        "publisher_username": "shop-1-publisher",
        "publisher_password": passwords["redis", "shop-1-publisher"],
    }
    site.write(
        cameras=[{"id": "door", "url": "test://?fps=20&kb=10&size=320x240"}],
        redis={"address": redis_server.address, "prefix": "one", **users},
        amqp_url="amqp://127.0.0.1:1/shops",
        site={"name": "shop-1"},
    )
    site.start()
    wait_until(lambda: site.total("stored") > 20, 30, "frames are stored", log=site.log_text)
    assert redis_server.client().exists("engine:shops:lease:shop-1")
    address = f"redis://shop-1-writer:{users['password']}@{redis_server.address}"
    with FrameStore(address, "shops", "one") as store:
        newest = store.latest("door")
        assert newest is not None
    listed = command("fleet", "list", "--redis", redis_server.address, "--json")
    entry = json.loads(listed.stdout)
    assert (entry["site"], entry["vhost"], entry["prefix"], entry["cameras"]) == ("shop-1", "shops", "one", 1)
    shown = command("fleet", "list", "--redis", redis_server.address, environment={"COLUMNS": "80"})
    assert (shown.returncode, shown.stdout.splitlines()[1].split()[:4]) == (0, ["shop-1", "shops", "one", "1"])
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert site.stop() == 0
    assert "this user may not" not in site.log_text()
    done = command("fleet", "list", "--redis", redis_server.address)
    assert (done.returncode, "no site is registered at" in done.stderr) == (3, True)
    # Others neither read nor write what is not theirs.
    own = ["shops:one:", "engine:shops:journal:one:", "engine:shops:video:one/", "engine:shops:cameras:one"]
    keys = [*(f"{name}x" for name in own[:3]), own[3], "engine:shops:lease:shop-1", "engine:shops:lease:one:door"]
    for user in ("shop-2-writer", "shop-2-publisher", "shop-3-writer"):
        with redis_server.client(username=user, password=passwords["redis", user]) as client:
            assert client.ping()
            for key in keys:
                for words in (("EXISTS", key), ("SET", key, "x"), ("XRANGE", key, "-", "+"), ("HGETALL", key)):
                    with pytest.raises((NoPermissionError, redis.exceptions.ResponseError), match="no permission"):
                        client.execute_command(*words)
            for words in (("KEYS", "*"), ("SCAN", "0"), ("DEL", keys[0]), ("FLUSHALL",)):
                with pytest.raises(NoPermissionError):
                    client.execute_command(*words)


def test_rights_of_a_prefix_are_part_of_those_of_its_tenant() -> None:
    """So a site's share grants no command and no key that ``tenants acl`` does not."""
    whole = acl_rules("v", ["writer", "publisher", "reader"], "p")
    part = acl_rules("v", ["writer", "publisher", "reader"], "p", scope=Scope("f", "s"))
    commands = [rule for rule in whole if rule.startswith("+")]
    assert [rule for rule in part if rule.startswith("+")] == commands
    stems = [rule.lstrip("%R~").removesuffix("*") for rule in whole if "~" in rule]
    for rule in part:
        if "~" in rule:
            assert rule.lstrip("%R~").startswith(tuple(stems))
