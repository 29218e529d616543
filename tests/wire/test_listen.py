"""Addresses on which a server listens."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.wire.listen import ListenAddress, is_loopback, parse_listen


@pytest.mark.parametrize(
    ("text", "address", "private", "url"),
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8080), True, "http://127.0.0.1:8080/"),
        ("127.8.8.8:0", ListenAddress("127.8.8.8", 0), True, "http://127.8.8.8:0/"),
        ("localhost:80", ListenAddress("localhost", 80), True, "http://localhost:80/"),
        ("[::1]:8080", ListenAddress("::1", 8080), True, "http://[::1]:8080/"),
        ("[::ffff:127.0.0.1]:1", ListenAddress("::ffff:127.0.0.1", 1), True, "http://[::ffff:127.0.0.1]:1/"),
        ("unix:/run/web.sock", ListenAddress("", 0, "/run/web.sock"), True, "unix:/run/web.sock"),
        (":8080", ListenAddress("", 8080), False, "http://localhost:8080/"),
        ("0.0.0.0:8080", ListenAddress("0.0.0.0", 8080), False, "http://localhost:8080/"),
        ("[::]:8080", ListenAddress("::", 8080), False, "http://localhost:8080/"),
        ("10.0.0.1:8080", ListenAddress("10.0.0.1", 8080), False, "http://10.0.0.1:8080/"),
        ("cams.example:65535", ListenAddress("cams.example", 65535), False, "http://cams.example:65535/"),
        ("localhost.example:1", ListenAddress("localhost.example", 1), False, "http://localhost.example:1/"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_address_is_read_and_shown(text: str, address: ListenAddress, private: bool, url: str) -> None:
    assert parse_listen(text) == address
    assert str(address) == text
    assert (address.private, address.url()) == (private, url)
    assert address.path or address.url(tls=True) == url.replace("http:", "https:")


@pytest.mark.parametrize(
    "text",
    [
        "8080", "127.0.0.1", "127.0.0.1:", ":", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1:٣",
        "::1:8080", "[::1]", "[::1:8080", "[127.0.0.1]:1", "[x]:1", "a..b:1", ".:1", "http://127.0.0.1:8080",
        "127.0.0.1:8080/", " :1", "unix:", "unix:web.sock", "127.0.0.1:0000008080", "a b:1", "\0:1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"web\.listen .*(127\.0\.0\.1:8080|unix:/run/web\.sock)"):
        parse_listen(text)


@pytest.mark.parametrize("host", ["localhost", "LocalHost.", "a.localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example", "127.0.0.1.example", "0.0.0.0", "::", "10.0.0.1", "127.1", "x"]
)
def test_other_names_are_other_machines(host: str) -> None:
    assert not is_loopback(host)
