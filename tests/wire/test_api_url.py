from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.wire.api_url import ApiUrl, parse_api_url
from tests.examples import examples


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("http://shop-1:8080", ApiUrl("http", "shop-1", 8080, ""), "http://shop-1:8080"),
        ("https://shop.example/", ApiUrl("https", "shop.example", 443, ""), "https://shop.example:443"),
        ("https://h/edge/1/", ApiUrl("https", "h", 443, "/edge/1"), "https://h:443/edge/1"),
        ("http://[::1]:1", ApiUrl("http", "::1", 1, ""), "http://[::1]:1"),
    ],
)
def test_an_address_is_read_and_shown(url, expected, shown):
    assert parse_api_url(url, "url") == expected
    assert (str(expected), parse_api_url(str(expected), "url")) == (shown, expected)


@pytest.mark.parametrize(
    "url",
    ["", "shop:8080", "ftp://h", "http://", "http://h:0", "http://h:99999", "http://a b", "http://h/\r\nX: 1", "//h"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match=r"^the url must be http://host:port"):
        parse_api_url(url, "the url")


@pytest.mark.parametrize("url", ["http://user:geheim@h", "http://h/?token=geheim", "http://h/#geheim"])
def test_secrets_have_no_place_and_are_not_shown(url):
    with pytest.raises(ConfigError) as refused:
        parse_api_url(url, "the url")
    assert "geheim" not in str(refused.value)


@settings(max_examples=examples(200), deadline=None)
@given(st.text(max_size=60) | st.text(max_size=30).map("http://{}".format))
def test_any_text_is_an_address_or_refused(text):
    try:
        found = parse_api_url(text, "url")
    except ConfigError:
        return
    assert parse_api_url(str(found), "url") == found
