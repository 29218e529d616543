from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire import keys
from engine.wire.lease import LEASE_BYTES_MAX, Lease, decode_lease
from engine.wire.site_entry import SiteEntry, decode_site_entry, encode_site_entry
from tests.examples import examples
from tests.wire.names import names

ENTRY = SiteEntry(
    "shop-1", "box", 7, "/run/edge-video/shop-1", "0.1.0", "2024-11-08T14:30:00Z", "ab@cd", "cd/pid:[1]", 99,
    prefix="frames", cameras=12, seen="2024-11-08T14:31:00Z", url="https://shop-1.example:8443",
)  # fmt: skip
text = st.text(max_size=40)
entries = st.builds(
    SiteEntry,
    *(text, text, st.integers(0, 2**31), text, text, text, text, text, st.integers(0, 2**62)),
    prefix=text,
    cameras=st.integers(0, 10_000),
    seen=text,
    url=text,
)


def test_an_entry_is_json_that_people_can_read():
    assert encode_site_entry(ENTRY) == (
        b'{"site":"shop-1","host":"box","pid":7,"run_directory":"/run/edge-video/shop-1","version":"0.1.0",'
        b'"since":"2024-11-08T14:30:00Z","holder":"ab@cd","machine":"cd/pid:[1]","started":99,'
        b'"prefix":"frames","cameras":12,"seen":"2024-11-08T14:31:00Z","url":"https://shop-1.example:8443"}'
    )


@settings(max_examples=examples(200), deadline=None)
@given(entries)
def test_every_entry_parses_back_and_is_a_lease(entry):
    data = encode_site_entry(entry)
    assert decode_site_entry(data) == entry
    lease = decode_lease(data)
    assert lease == Lease(*(getattr(entry, name) for name in Lease.__struct_fields__))


def test_what_later_versions_may_add_is_passed_over():
    assert decode_site_entry(encode_site_entry(ENTRY)[:-1] + b',"more":[1]}') == ENTRY


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"[]", b"{}", b"\xff", b"[" * 5000, b'{"site":1}', b" " * LEASE_BYTES_MAX * 2],
    ids=["empty", "text", "list", "no-fields", "no-utf-8", "deep", "number", "long"],
)
def test_what_is_no_entry_is_refused(data):
    with pytest.raises(WireError, match="site entry"):
        decode_site_entry(data)


@settings(max_examples=examples(200), deadline=None)
@given(names, names)
def test_a_key_parses_back(vhost, site):
    assert keys.parse_site_key(keys.site_key(vhost, site).encode()) == (vhost, site)


def test_the_key_is_no_other():
    assert keys.site_key("meu-cliente", "loja 1") == "engine:meu-cliente:lease:loja%201"
    for key in (keys.lease_key("a", "b", "c"), keys.cameras_key("a", "b"), "engine:a:lease:%3a", "b:a:lease:c"):
        with pytest.raises(WireError):
            keys.parse_site_key(key.encode())
    with pytest.raises(WireError):
        keys.parse_site_key(b"engine:\xff:lease:b")
