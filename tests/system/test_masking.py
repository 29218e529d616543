"""What the masking of logs and of standard error lets through, in one process."""

from __future__ import annotations

import contextlib
import io
import traceback
from urllib.parse import quote

import pytest

from engine import config
from engine.runtime.logs import MaskedStream, Masking

PASSWORD = "p@s:s/w#r?d 'x"
CAMERA = f"rtsp://viewer:{quote(PASSWORD, safe='')}@10.0.0.5/stream"
TOKEN = "t0ken-of-the-second-camera"


@pytest.fixture
def masking() -> Masking:
    cameras = [{"id": "door", "url": CAMERA}, {"id": "yard", "url": f"http://10.0.0.6/mjpeg?access_token={TOKEN}"}]
    return Masking(config.from_document({"cameras": cameras}, {}))


SPELLINGS = [PASSWORD, quote(PASSWORD, safe=""), repr(PASSWORD + '"')[1:-2], TOKEN]


@pytest.mark.parametrize("secret", SPELLINGS)
def test_a_secret_is_masked_in_every_spelling_and_nested_in_values(masking, secret):
    shown = masking(None, "error", {"event": f"said {secret}", "nested": {"a": [secret, (secret,)]}, "count": 3})
    assert shown["event"] == "said ***"
    assert secret not in str(shown["nested"])
    assert shown["count"] == 3


@pytest.mark.parametrize("secret", SPELLINGS)
def test_each_way_of_writing_to_a_masked_stream_masks(masking, secret):
    below = io.StringIO()
    stream = MaskedStream(below, masking)
    stream.write(f"one {secret}\n")
    stream.writelines([f"two {secret}\n", f"three {secret}\n"])
    print("four", secret, file=stream)
    assert below.getvalue().count("***") == 4
    assert secret not in below.getvalue()


def test_a_traceback_with_a_url_in_it_is_masked(masking):
    below = io.StringIO()
    with contextlib.redirect_stderr(MaskedStream(below, masking)):
        try:
            raise RuntimeError(CAMERA, PASSWORD)
        except RuntimeError:
            traceback.print_exc()
    assert "RuntimeError" in below.getvalue()
    assert not [secret for secret in SPELLINGS[:2] if secret in below.getvalue()]
