"""Answers to a 401, against the examples of the RFCs."""

from __future__ import annotations

import pytest

from engine.errors import WireError
from engine.wire.http_auth import authorization

RFC_2617 = (
    'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
    'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
)


def test_the_digest_of_rfc_2617():
    answer = authorization([RFC_2617], "GET", "/dir/index.html", "Mufasa", "Circle Of Life", "0a4f113b")
    assert answer == (
        'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'uri="/dir/index.html", cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41", qop=auth, nc=00000001'
    )


def test_the_digest_of_rfc_2069_as_rtsp_cameras_ask_for_it():
    challenge = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", stale="FALSE"'
    answer = authorization([challenge], "GET", "/dir/index.html", "Mufasa", "CircleOfLife", "x")
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in answer
    assert "cnonce" not in answer


def test_the_basic_login_of_rfc_7617():
    assert authorization(['Basic realm="x"'], "GET", "/", "Aladdin", "open sesame", "") == (
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    )


@pytest.mark.parametrize(
    "challenges", [[RFC_2617, 'Basic realm="b"'], ['Basic realm="b"', RFC_2617], [f'Basic realm="b", {RFC_2617}']]
)
def test_of_both_the_one_that_hides_the_password_is_taken(challenges):
    answer = authorization(challenges, "GET", "/dir/index.html", "Mufasa", "Circle Of Life", "0a4f113b")
    assert "6629fae49393a05397450978507c4ef1" in answer


@pytest.mark.parametrize("challenge", ['Digest realm="x", nonce="y", algorithm=SHA-256', "Negotiate", ""])
def test_what_cannot_be_answered_is_an_error(challenge):
    with pytest.raises(WireError):
        authorization([challenge], "GET", "/", "u", "p", "c")
