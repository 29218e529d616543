from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WireError
from engine.wire.lease import LEASE_BYTES_MAX, Lease, decode_lease, encode_lease
from tests.examples import examples

LEASE = Lease("edge", "box", 7, "/run/edge-video/edge", "0.1.0", "2024-11-08T14:30:00Z", "ab@cd", "cd/pid:[1]", 99)
text = st.text(max_size=40)


def test_a_lease_is_json_that_people_can_read():
    assert encode_lease(LEASE) == (
        b'{"site":"edge","host":"box","pid":7,"run_directory":"/run/edge-video/edge","version":"0.1.0",'
        b'"since":"2024-11-08T14:30:00Z","holder":"ab@cd","machine":"cd/pid:[1]","started":99}'
    )
    assert str(LEASE) == (
        "site edge, host box, pid 7, run directory /run/edge-video/edge, version 0.1.0, since 2024-11-08T14:30:00Z"
    )


@settings(max_examples=examples(200), deadline=None)
@given(st.builds(Lease, text, text, st.integers(0, 2**31), text, text, text, text, text, st.integers(0, 2**62)))
def test_every_lease_parses_back_and_shows_on_one_line(lease):
    assert decode_lease(encode_lease(lease)) == lease
    assert str(lease).isprintable()
    assert len(str(lease)) < 1000


def test_what_later_versions_may_add_is_passed_over():
    assert decode_lease(encode_lease(LEASE)[:-1] + b',"more":[1]}') == LEASE


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"{}", b"\xff", b"[" * 5000, b'{"site":1}', b" " * LEASE_BYTES_MAX * 2]
)
def test_what_is_no_lease_is_refused(data):
    with pytest.raises(WireError, match="lease"):
        decode_lease(data)


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=100))
def test_noise_is_refused_or_a_lease(data):
    try:
        decode_lease(data)
    except WireError:
        return
