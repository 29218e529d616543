"""``[web]``: where it may listen, its tokens and its certificate; what is wrong is said without showing a token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, from_document
from engine.config.web import Tokens, read_tokens, web_context
from engine.errors import Audience, ConfigError, explain
from engine.runtime import running_site
from engine.runtime.logs import Masking
from tests.servers.certificate import self_signed

TOKEN, SHOP, BANK = "operator-token-0123456789", "shop-token-0123456789", "bank-token-0123456789"


def site(environment: dict[str, str] | None = None, **web: Any) -> Config:
    return from_document({"web": web, "cameras": [{"id": "cam1", "url": "test://"}]}, environment or {})


def refused(environment: dict[str, str] | None = None, **web: Any) -> str:
    with pytest.raises(ConfigError) as error:
        site(environment, **web)
    text = explain(error.value, Audience.SITE)
    assert TOKEN not in text
    assert SHOP not in text
    return text


def private(directory: Path, text: str, name: str = "file", mode: int = 0o600) -> str:
    file = directory / name
    file.write_text(text)
    file.chmod(mode)
    return str(file)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "10.1.2.3:0", "cams.example:0"])
def test_where_others_reach_it_a_token_is_needed(listen: str, tmp_path: Path) -> None:
    assert "needs a token" in refused(listen=listen)
    assert "needs a token" in refused(listen=listen, tenants={"shop": SHOP})
    assert site(listen=listen, token=TOKEN).web.token == TOKEN
    assert site({"WEB_TOKEN": TOKEN}, listen=listen).web.token == TOKEN
    assert site(listen=listen, token_file=private(tmp_path, TOKEN)).web.token == ""


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0", "unix:/run/web.sock"])
def test_on_this_machine_none_is_needed(listen: str) -> None:
    assert not site(listen=listen).warnings


def test_plain_text_over_a_network_is_warned_of(tmp_path: Path) -> None:
    (warning,) = site(listen=":80", token=TOKEN).warnings
    assert "plain text" in warning
    signed = self_signed(tmp_path)
    files = {"tls_certificate_file": str(signed.certificate), "tls_key_file": str(signed.key)}
    assert not site(listen=":80", token=TOKEN, **files).warnings


def test_nothing_is_checked_of_a_web_role_that_is_off() -> None:
    off = site(listen="", token="short", token_file="/nonexistent", tls_key_file="/nonexistent")
    assert not off.warnings


@pytest.mark.parametrize(
    ("web", "said"),
    [
        ({"token": "short"}, "16 to 512 characters, not 5"),
        ({"token": "x" * 513}, "16 to 512 characters, not 513"),
        ({"token": "with some spaces in it"}, "without spaces"),
        ({"token": "töken-with-an-umlaut"}, "visible ASCII"),
        ({"token": TOKEN, "token_file": "/x"}, "both set"),
        ({"token_file": "/nonexistent/token"}, "/nonexistent/token cannot be read: No such file"),
        ({"token_file": "/"}, "no regular file"),
        ({"token_file": "/dev/null"}, "no regular file"),
        ({"tenants": {"shop": "short"}}, "web.tenants.shop: a token has 16"),
        ({"tenants": {"": SHOP}}, "empty"),
        ({"tenants": {"engine": SHOP}}, "reserved"),
        ({"tenants": {"/": SHOP, "default": BANK}}, "has two tokens"),
        ({"tenants": {"shop": SHOP, "bank": SHOP}}, "also that of vhost 'shop'"),
        ({"token": TOKEN, "tenants": {"shop": TOKEN}}, "also that of the operator"),
        ({"tenants": {"shop": 5}}, "must be text"),
        ({"tenants": "shop"}, "must be a table"),
        ({"tokens": TOKEN}, "did you mean 'token'"),
        ({"tls_certificate_file": "/dev/null"}, "give both or neither"),
        ({"tls_key_file": "/dev/null"}, "give both or neither"),
        ({"tls_certificate_file": "/dev/null", "tls_key_file": "/nonexistent"}, "/nonexistent does not exist"),
        ({"tls_certificate_file": "/dev/null", "tls_key_file": "/dev/null"}, "no PEM certificate"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_is_said(web: dict[str, Any], said: str) -> None:
    assert said in refused(listen="127.0.0.1:0", **web)


def test_the_address_of_others_is_an_http_address_without_credentials() -> None:
    assert site(url="https://shop.example:8443/edge").web.url == "https://shop.example:8443/edge"
    assert refused(url="shop.example:8443") == "web.url must be http://host:port or https://host:port"
    assert "takes a token instead" in refused(listen="", url=f"https://u:{TOKEN}@shop.example")


def test_files_of_tokens(tmp_path: Path) -> None:
    tenants = private(tmp_path, f'shop = "{SHOP}"\n"a/b" = "{BANK}"\n', "tenants")
    web = site(listen=":0", token_file=private(tmp_path, TOKEN + "\n"), tenants_file=tenants).web
    assert read_tokens(web) == Tokens(TOKEN, {"shop": SHOP, "a/b": BANK})
    # A key of the group, such as systemd's.
    assert site(listen=":0", token_file=private(tmp_path, TOKEN, "group", 0o640))
    for mode in (0o644, 0o666, 0o601):
        assert f"(mode {mode:04o}); chmod 600 it" in refused(
            listen=":0", token_file=private(tmp_path, TOKEN, f"{mode:o}", mode)
        )
    assert "is empty" in refused(listen=":0", token_file=private(tmp_path, " \n", "empty"))
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo, 0o600)
    assert "no regular file" in refused(listen=":0", token_file=fifo)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'shop = "{SHOP}', "is not TOML"),
        (f"shop = {SHOP}", "is not TOML"),
        ("shop = 1", 'shop is not vhost = "token"'),
        (f'[shop]\ntoken = "{SHOP}"', 'shop is not vhost = "token"'),
        (f'shop = "{SHOP}"\nshop = "{SHOP}"', "is not TOML"),
        (f'shop = "{SHOP}"\nbank = "{SHOP}"', "must differ"),
        ("a = " + "[" * 5000, "is not TOML"),
    ],
    ids=["open quote", "no quotes", "number", "table", "twice", "same", "deep"],
)
def test_a_file_of_tenants_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    assert said in refused(listen="127.0.0.1:0", tenants_file=private(tmp_path, text))
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(listen="127.0.0.1:0", tenants_file=str(tmp_path / "file"))


def test_a_certificate_and_another_s_key(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = self_signed(tmp_path / "one"), self_signed(tmp_path / "two")
    text = refused(listen="127.0.0.1:0", tls_certificate_file=str(one.certificate), tls_key_file=str(two.key))
    assert str(two.key) in text
    made = site(listen="127.0.0.1:0", tls_certificate_file=str(one.certificate), tls_key_file=str(one.key))
    assert web_context(made.web).minimum_version.name == "TLSv1_2"


def test_no_token_is_shown_or_saved() -> None:
    made = site(listen=":0", token=TOKEN, tenants={"shop": SHOP})
    masking = Masking(made)
    for text in (repr(made), repr(running_site._masked(made)), masking.text(f"x {TOKEN} y {SHOP}")):
        assert TOKEN not in text
        assert SHOP not in text
